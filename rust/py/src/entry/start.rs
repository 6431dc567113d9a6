//! The start of a goroutine that has its object: under the limit on memory, if there is one.

use crate::task::{self, GoObject, Place};
use gort_core::sched::Runtime;
use pyo3::ffi;
use std::ptr;

type Object = *mut ffi::PyObject;

/// `obj`, which is new, once its goroutine is queued; null with an exception set when memory is refused, or was for `obj`.
///
/// # Safety
/// As for `task::start`; null is allowed, with an exception set.
pub(super) unsafe fn started(rt: &'static Runtime, obj: *mut GoObject, stack_shift: u8, place: Place) -> Object {
    // SAFETY: the caller's promise.
    unsafe { if is_admitted(rt, obj) { launched(rt, obj, stack_shift, place) } else { ptr::null_mut() } }
}

/// Whether `obj`, which may be null, may start under the limit on memory (`sched::limit`). Parks until it may if it is to. If it may
/// not it is let go, and an exception is set.
///
/// # Safety
/// As for `started`.
#[inline]
pub(super) unsafe fn is_admitted(rt: &'static Runtime, obj: *mut GoObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if obj.is_null() {
            return false;
        }
        let may = !rt.is_limited() || super::memory::admit(rt);
        if !may {
            ffi::Py_DECREF(obj.cast());
        }
        may
    }
}

/// `started`, for what was admitted: nothing else runs in between.
///
/// # Safety
/// As for `task::start`.
pub(super) unsafe fn launched(rt: &'static Runtime, obj: *mut GoObject, stack_shift: u8, place: Place) -> Object {
    // SAFETY: the caller's promise.
    unsafe {
        if !task::start(rt, obj, stack_shift, place) {
            ffi::Py_DECREF(obj.cast());
            return ffi::PyErr_NoMemory();
        }
    }
    obj.cast()
}
