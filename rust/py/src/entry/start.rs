//! The start of a goroutine that has its object: under the limit on memory, if there is one.

use super::{arguments, fast, none, plain, runtime};
use crate::error;
use crate::task::{self, GO_TYPE, GoObject, Place, SETTLED};
use gort_core::sched::Runtime;
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::Ordering;

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

/// `_unstarted(fn, name=None)`: a goroutine of the caller's that `_start` starts, or nobody. As with one that runs the collector
/// does not see what it refers to: who keeps many of them sees to it that they are of no cycle that is left.
unsafe extern "C-unwind" fn unstarted(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([function, name]) = arguments("_unstarted", args, nargs, kw, [c"fn", c"name"], 1) else {
            return ptr::null_mut();
        };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let obj = task::new_object(function, ptr::null_mut(), ptr::null_mut());
        if !obj.is_null() {
            if !name.is_null() && name != ffi::Py_None() {
                (*obj).name = ffi::Py_NewRef(name);
            }
            task::settle(rt, obj);
        }
        obj.cast()
    }
}

/// `_start(goroutine)`: starts one of `_unstarted`, once. Where that is refused it is what it was.
unsafe extern "C-unwind" fn start(_m: Object, goroutine: Object) -> Object {
    // SAFETY: METH_O with the GIL; the caller keeps the object.
    unsafe {
        let obj = goroutine.cast::<GoObject>();
        let is_one = ffi::Py_TYPE(goroutine) == GO_TYPE.load(Ordering::Relaxed);
        if !is_one || !(*obj).has(SETTLED) || (*obj).id != 0 {
            return error::set(ffi::PyExc_TypeError, "_start() needs a Goroutine that was not started");
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let result = started(rt, ffi::Py_NewRef(goroutine).cast(), 0, Place::default());
        if result.is_null() {
            return result;
        }
        ffi::Py_DECREF(result);
        none()
    }
}

/// The entries of both.
pub(super) fn entries() -> [ffi::PyMethodDef; 2] {
    [
        fast(
            c"_unstarted",
            unstarted,
            c"_unstarted(fn, name=None)\n--\n\nA goroutine of the caller's for fn, which _start starts.",
        ),
        plain(c"_start", start, ffi::METH_O, c"_start(goroutine, /)\n--\n\nStarts a goroutine of _unstarted, once."),
    ]
}
