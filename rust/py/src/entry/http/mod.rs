//! The compiled part of gort.wsgi: heads of requests into environs, headers of responses into lines.
//!
//! Both take what is common and leave all else: where they give None, the expressions of `gort.wsgi._head` and `gort.wsgi._response`
//! decide, which are the only ones to refuse anything. What is taken here is taken there with the same result, which
//! `tests/test_wsgi_native.py` holds. Nothing here parks or runs Python code.

mod request;
mod response;

use super::positional;
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

/// What a byte may stand in: a token (RFC 9110, 5.6.2), a request's target, a field's value, a host without brackets and escapes.
const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
const HOST: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn is_among(byte: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        if byte.is_ascii_alphanumeric() || is_among(byte, b"!#$%&'*+-.^_`|~") {
            table[i] |= TOKEN;
        }
        if byte > b' ' && byte < 0x7f && byte != b'#' {
            table[i] |= TARGET;
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            table[i] |= VALUE;
        }
        if byte.is_ascii_alphanumeric() || is_among(byte, b"-._~!$&'()*+,;=") {
            table[i] |= HOST;
        }
        i += 1;
    }
    table
}

/// Whether the byte is of that class.
#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// How many bytes from the start are of that class.
#[inline]
fn run(text: &[u8], class: u8) -> usize {
    text.iter().position(|&byte| !is(byte, class)).unwrap_or(text.len())
}

/// A str that lives as long as the process.
struct Name(AtomicPtr<ffi::PyObject>);

impl Name {
    const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Borrowed.
    fn get(&self) -> Object {
        self.0.load(Ordering::Relaxed) // written once, by the module's init, with the GIL
    }

    /// `false` with an exception set where memory was refused.
    unsafe fn set(&self, text: &'static std::ffi::CStr) -> bool {
        // SAFETY: GIL held by the module's init.
        let object = unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) };
        self.0.store(object, Ordering::Relaxed);
        !object.is_null()
    }
}

/// Adds the functions to the module; `false` with an exception set on failure.
///
/// # Safety
/// GIL held, by the module's init.
pub(crate) unsafe fn register(module: Object) -> bool {
    let table = vec![
        positional(
            c"_http_request",
            request::read,
            c"_http_request($module, data, environ, max_line, max_bytes, max_count, /)\n--\n\nReads a head into environ.",
        ),
        positional(
            c"_http_lines",
            response::lines,
            c"_http_lines($module, headers, /)\n--\n\nThe headers of a response as lines.",
        ),
    ];
    // SAFETY: the caller's promise; the table is leaked.
    unsafe { request::init() && ffi::PyModule_AddFunctions(module, super::methods(table)) == 0 }
}
