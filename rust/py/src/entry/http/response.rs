//! The headers of a response as lines: `gort.wsgi._response` for headers of ASCII without faults.

use super::{Object, TOKEN, VALUE, is};
use crate::entry::none;
use crate::error;
use pyo3::ffi;
use std::ptr;

/// What of the server's own a header replaces; `gort.wsgi._response` has the same.
const HAS_DATE: i64 = 1;
const HAS_SERVER: i64 = 2;
/// More digits than any length a machine can hold.
const LENGTH_DIGITS: usize = 18;

/// What a header is.
enum Kind {
    /// One that is not the application's to set.
    HopByHop,
    Length,
    /// Others, with what they replace.
    Line(i64),
}

/// By a name without regard to its case.
fn kind(name: &[u8]) -> Kind {
    let among = |names: &[&[u8]]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    match name.len() {
        2 if among(&[b"te"]) => Kind::HopByHop,
        4 if among(&[b"date"]) => Kind::Line(HAS_DATE),
        6 if among(&[b"server"]) => Kind::Line(HAS_SERVER),
        7 if among(&[b"trailer", b"upgrade"]) => Kind::HopByHop,
        8 if among(&[b"trailers"]) => Kind::HopByHop,
        10 if among(&[b"connection", b"keep-alive"]) => Kind::HopByHop,
        14 if among(&[b"content-length"]) => Kind::Length,
        16 if among(&[b"proxy-connection"]) => Kind::HopByHop,
        17 if among(&[b"transfer-encoding"]) => Kind::HopByHop,
        18 if among(&[b"proxy-authenticate"]) => Kind::HopByHop,
        19 if among(&[b"proxy-authorization"]) => Kind::HopByHop,
        _ => Kind::Line(0),
    }
}

/// The bytes of a str, which are UTF-8; `None`: it is none, or they are not to be had.
unsafe fn text<'a>(object: Object) -> Option<&'a [u8]> {
    // SAFETY: GIL held; a live object, which the caller's list keeps.
    unsafe {
        if ffi::PyUnicode_CheckExact(object) == 0 {
            return None;
        }
        let mut bytes = 0;
        let start = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut bytes);
        if start.is_null() {
            ffi::PyErr_Clear(); // Python says what is wrong with it
            return None;
        }
        Some(std::slice::from_raw_parts(start.cast(), bytes as usize))
    }
}

/// Name and value of header `i`, where nothing is wrong with them and they are ASCII.
unsafe fn header<'a>(headers: Object, i: ffi::Py_ssize_t) -> Option<(&'a [u8], &'a [u8])> {
    // SAFETY: GIL held; a list that is longer.
    unsafe {
        let pair = ffi::PyList_GET_ITEM(headers, i);
        if ffi::PyTuple_CheckExact(pair) == 0 || ffi::PyTuple_GET_SIZE(pair) != 2 {
            return None;
        }
        let (name, value) = (text(ffi::PyTuple_GET_ITEM(pair, 0))?, text(ffi::PyTuple_GET_ITEM(pair, 1))?);
        let is_name = !name.is_empty() && name.iter().all(|&byte| is(byte, TOKEN));
        (is_name && value.iter().all(|&byte| byte.is_ascii() && is(byte, VALUE))).then_some((name, value))
    }
}

/// What the headers say.
struct Said {
    bytes: usize,
    length: Option<i64>,
    flags: i64,
}

/// Looks at all of them; `None`: something is wrong, or is for Python to look at.
unsafe fn look(headers: Object) -> Option<Said> {
    let mut said = Said { bytes: 0, length: None, flags: 0 };
    // SAFETY: GIL held; a list.
    unsafe {
        for i in 0..ffi::PyList_GET_SIZE(headers) {
            let (name, value) = header(headers, i)?;
            match kind(name) {
                Kind::HopByHop => return None,
                Kind::Length => {
                    let is_number = value.len() <= LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit);
                    if !is_number || said.length.is_some() {
                        return None;
                    }
                    said.length = Some(str::from_utf8(value).ok()?.parse().ok()?);
                }
                Kind::Line(flag) => {
                    said.bytes += name.len() + value.len() + 4;
                    said.flags |= flag;
                }
            }
        }
    }
    Some(said)
}

/// `_http_lines(headers)`: (lines, length or None, flags), or None.
pub(super) unsafe extern "C-unwind" fn lines(_m: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: a fastcall with the GIL; nothing here runs Python code, so the list stays as it is.
    unsafe {
        if n != 1 {
            return error::set(ffi::PyExc_TypeError, "_http_lines() takes a list");
        }
        let headers = *args;
        if ffi::PyList_CheckExact(headers) == 0 {
            return none();
        }
        let Some(said) = look(headers) else { return none() };
        let result = ffi::PyTuple_New(3);
        if result.is_null() {
            return result;
        }
        let bytes = ffi::PyBytes_FromStringAndSize(ptr::null(), said.bytes as _);
        let length = said.length.map_or_else(none, |length| ffi::PyLong_FromLongLong(length));
        let flags = ffi::PyLong_FromLongLong(said.flags);
        for (i, part) in [bytes, length, flags].into_iter().enumerate() {
            ffi::PyTuple_SET_ITEM(result, i as _, part);
        }
        if bytes.is_null() || length.is_null() || flags.is_null() {
            ffi::Py_DECREF(result);
            return ptr::null_mut();
        }
        let mut place = ffi::PyBytes_AS_STRING(bytes).cast_mut().cast::<u8>();
        for i in 0..ffi::PyList_GET_SIZE(headers) {
            let Some((name, value)) = header(headers, i) else { continue }; // all were there a moment ago
            if matches!(kind(name), Kind::Length) {
                continue;
            }
            for part in [name, b": ", value, b"\r\n"] {
                ptr::copy_nonoverlapping(part.as_ptr(), place, part.len());
                place = place.add(part.len());
            }
        }
        result
    }
}
