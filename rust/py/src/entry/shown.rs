//! What a Goroutine object shows of its goroutine: id, name, status, and its repr.

use super::boolean;
use crate::error;
use crate::task::{DONE, GoObject};
use pyo3::ffi;

type Object = *mut ffi::PyObject;

pub(super) unsafe extern "C" fn get_id(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe { ffi::PyLong_FromUnsignedLongLong((*slf.cast::<GoObject>()).id) }
}

pub(super) unsafe extern "C" fn get_name(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe {
        let name = (*slf.cast::<GoObject>()).name;
        if name.is_null() {
            return ffi::PyUnicode_FromFormat(c"goroutine-%llu".as_ptr(), (*slf.cast::<GoObject>()).id);
        }
        ffi::Py_INCREF(name);
        name
    }
}

pub(super) unsafe extern "C" fn get_done(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe { boolean((*slf.cast::<GoObject>()).has(DONE) || (*slf.cast::<GoObject>()).is_left_behind()) }
}

fn status_text(obj: &GoObject) -> &'static str {
    if obj.has(DONE) || obj.goroutine().is_null() {
        return "dead";
    }
    // SAFETY: `g` is set while the goroutine is alive; GIL held.
    unsafe { (*obj.g).word() }
}

pub(super) unsafe extern "C" fn get_status(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe {
        let text = status_text(&*slf.cast::<GoObject>());
        ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as _)
    }
}

pub(super) unsafe extern "C" fn go_repr(slf: Object) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe {
        let obj = &*slf.cast::<GoObject>();
        error::text(format_args!("<gort.Goroutine {} [{}]>", obj.id, status_text(obj)))
    }
}
