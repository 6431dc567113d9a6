//! Loads in progress, a dict of the cache by key: gort.cache keeps in it what callers wait for.
//!
//! Who is in the dict is current: what it gives is kept. A put, a delete or a clear takes it out.

use super::{Object, State, put_pair, state};
use crate::entry::{arguments, none};
use pyo3::ffi;
use std::ptr;

/// A load of the key that is in progress is out of date: what it gives will not be kept. `false`: an exception is set.
#[inline(always)]
pub(super) unsafe fn overtake(s: *mut State, key: Object) -> bool {
    // SAFETY: GIL held; the dict is the cache's own.
    unsafe { ffi::PyDict_Size((*s).loads) == 0 || forget(s, key, ptr::null_mut()).is_some() }
}

/// Takes the load of a key, or `load` only, out of those in progress. Whether it was there; `None`: an exception is set.
#[cold]
unsafe fn forget(s: *mut State, key: Object, load: Object) -> Option<bool> {
    // SAFETY: GIL held; the dict is the cache's own, and alive.
    unsafe {
        let current = ffi::PyDict_GetItemWithError((*s).loads, key);
        if current.is_null() {
            return ffi::PyErr_Occurred().is_null().then_some(false);
        }
        if !load.is_null() && !ptr::eq(load, current) {
            return Some(false);
        }
        if ffi::PyDict_DelItem((*s).loads, key) < 0 {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_KeyError) == 0 {
                return None;
            }
            ffi::PyErr_Clear(); // its comparison let somebody else do it
        }
        Some(true)
    }
}

/// `_finish(key, load, value)`: a load has given its value, which is kept if the load is current.
pub(super) unsafe extern "C-unwind" fn finish(
    slf: Object,
    args: *const Object,
    n: ffi::Py_ssize_t,
    kw: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller keeps the arguments alive.
    unsafe {
        let names = [c"key", c"load", c"value"];
        let Some([key, load, value]) = arguments("_finish", args, n, kw, names, 3) else { return ptr::null_mut() };
        let s = state(slf);
        (*s).loaded += 1;
        match forget(s, key, load) {
            Some(true) => put_pair(s, key, value, (*s).ttl_ns),
            Some(false) => none(),
            None => ptr::null_mut(),
        }
    }
}

/// `_give_up(key, load, failed)`: a load has ended without a value; `failed`: its loader raised.
pub(super) unsafe extern "C-unwind" fn give_up(
    slf: Object,
    args: *const Object,
    n: ffi::Py_ssize_t,
    kw: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller keeps the arguments alive.
    unsafe {
        let names = [c"key", c"load", c"failed"];
        let Some([key, load, failed]) = arguments("_give_up", args, n, kw, names, 3) else { return ptr::null_mut() };
        let s = state(slf);
        if ptr::eq(failed, ffi::Py_True()) {
            (*s).loaded += 1;
            (*s).failed += 1;
        }
        if forget(s, key, load).is_some() { none() } else { ptr::null_mut() }
    }
}

/// `_loads`: the dict.
pub(super) unsafe extern "C" fn get_loads(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: GIL held; the dict lives as long as the cache.
    unsafe {
        let loads = (*state(slf)).loads;
        ffi::Py_INCREF(loads);
        loads
    }
}
