//! Where and when goroutines were started, kept while somebody asked for it.
//!
//! Only touched with the GIL held, and no Python code runs under the lock.

use super::graph::Object;
use gort_core::sched::now_ns;
use pyo3::ffi;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Whether they are kept.
pub(crate) static KEEPS: AtomicBool = AtomicBool::new(false);

/// One count of the code that did it, the line, and when.
struct Origin {
    code: usize,
    line: c_int,
    at_ns: u64,
}

struct Origins {
    /// Frames of code in this folder are passed over.
    package: String,
    by_id: Option<HashMap<u64, Origin>>,
}

static ORIGINS: Mutex<Origins> = Mutex::new(Origins { package: String::new(), by_id: None });

fn origins() -> MutexGuard<'static, Origins> {
    ORIGINS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Keeps them from now on, of callers outside of the folder `package`; whether they were kept.
pub(crate) fn keep(package: &str) -> bool {
    let mut origins = origins();
    package.clone_into(&mut origins.package);
    origins.by_id.get_or_insert_with(HashMap::new);
    KEEPS.swap(true, Ordering::Relaxed)
}

/// Forgets them all; whether they were kept.
///
/// # Safety
/// GIL held, where Python code may run.
pub(crate) unsafe fn stop() -> bool {
    let kept = KEEPS.swap(false, Ordering::Relaxed);
    let all = origins().by_id.take();
    for origin in all.into_iter().flat_map(HashMap::into_values) {
        // SAFETY: the caller's promise; the count was ours.
        unsafe { ffi::Py_DECREF(object(&origin)) };
    }
    kept
}

fn object(origin: &Origin) -> Object {
    std::ptr::with_exposed_provenance_mut(origin.code)
}

/// Notes who starts the goroutine of this id now.
///
/// # Safety
/// GIL held. Makes frame objects, and runs no Python code.
pub(crate) unsafe fn add(id: u64) {
    let mut origins = origins();
    // SAFETY: the caller's promise; each reference is let go or kept, and none is the last.
    unsafe {
        let mut frame = ffi::PyThreadState_GetFrame(ffi::PyThreadState_Get());
        while !frame.is_null() {
            let code = ffi::PyFrame_GetCode(frame);
            let back = ffi::PyFrame_GetBack(frame);
            if back.is_null() || !is_within(code, &origins.package) {
                let line = ffi::PyFrame_GetLineNumber(frame);
                let origin = Origin { code: code.expose_provenance(), line, at_ns: now_ns() };
                origins.by_id.get_or_insert_with(HashMap::new).insert(id, origin);
                ffi::Py_XDECREF(back.cast());
                ffi::Py_DECREF(frame.cast());
                return;
            }
            ffi::Py_DECREF(code.cast());
            ffi::Py_DECREF(frame.cast());
            frame = back;
        }
    }
}

/// Whether a file of this folder holds the code.
unsafe fn is_within(code: *mut ffi::PyCodeObject, package: &str) -> bool {
    // SAFETY: GIL held by the caller, `code` alive.
    unsafe {
        let mut n = 0;
        let name = ffi::PyObject_GetAttrString(code.cast(), c"co_filename".as_ptr());
        let text = if name.is_null() { std::ptr::null() } else { ffi::PyUnicode_AsUTF8AndSize(name, &raw mut n) };
        let is_within = !text.is_null()
            && std::slice::from_raw_parts(text.cast::<u8>(), n as usize).starts_with(package.as_bytes());
        ffi::Py_XDECREF(name);
        ffi::PyErr_Clear();
        is_within
    }
}

/// At the end of the goroutine of this id.
///
/// # Safety
/// GIL held, where Python code may run.
pub(crate) unsafe fn forget(id: u64) {
    let origin = origins().by_id.as_mut().and_then(|by_id| by_id.remove(&id));
    if let Some(origin) = origin {
        // SAFETY: the caller's promise; the count was ours.
        unsafe { ffi::Py_DECREF(object(&origin)) };
    }
}

/// Its code (a new reference), line and time; `None`: it was not kept.
///
/// # Safety
/// GIL held.
pub(crate) unsafe fn of(id: u64) -> Option<(Object, c_int, u64)> {
    let origins = origins();
    let origin = origins.by_id.as_ref()?.get(&id)?;
    // SAFETY: the caller's promise; the code is alive while it is kept.
    Some((unsafe { ffi::Py_NewRef(object(origin)) }, origin.line, origin.at_ns))
}
