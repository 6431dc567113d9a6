//! What looks at the whole of a cache: its length, snapshots, counts, another size, and letting go of all.

use super::{GONE, Gone, Object, Pair, State, clock, settle, state, take_due, take_surplus};
use crate::entry::{counts, none};
use gort_core::cache::Cache;
use pyo3::ffi;
use std::mem::ManuallyDrop;
use std::ptr;

/// Lets everything go that `cache` had; nobody else has it. To let go may park, so no destructor waits for that.
pub(super) unsafe fn let_go(mut cache: ManuallyDrop<Cache<Pair>>) {
    // SAFETY: GIL held; the pairs are owned by this cache alone, which is not used any more.
    unsafe {
        for Pair { key, value } in cache.iter() {
            ffi::Py_DECREF(key);
            ffi::Py_DECREF(value);
        }
        ManuallyDrop::drop(&mut cache);
    }
}

pub(super) unsafe extern "C-unwind" fn clear(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let s = state(slf);
        let cache = ManuallyDrop::new((*s).cache.take());
        ffi::PyDict_Clear((*s).loads);
        let_go(cache);
        none()
    }
}

/// Takes out all that is due, so that what is left is what the caller will see. `false`: an exception is set.
unsafe fn take_all_due(s: *mut State) -> bool {
    // SAFETY: as in `find`. What comes in meanwhile is due later.
    unsafe {
        let now_ns = clock(s);
        loop {
            let mut gone = Gone::new();
            take_due(s, now_ns, &mut gone);
            if gone.count == 0 {
                return true;
            }
            let settled = settle(s, none(), &gone);
            if settled.is_null() {
                return false;
            }
            ffi::Py_DECREF(settled);
        }
    }
}

pub(super) unsafe extern "C-unwind" fn length(slf: Object) -> ffi::Py_ssize_t {
    // SAFETY: mp_length with the GIL.
    unsafe { if take_all_due(state(slf)) { (*state(slf)).cache.len() as _ } else { -1 } }
}

/// A list of all keys, or of all pairs as tuples, from the oldest to the newest.
unsafe fn snapshot(slf: Object, with_values: bool) -> Object {
    // SAFETY: GIL held. All that may collect garbage, and so run Python, comes first: as dict.items() does.
    unsafe {
        let s = state(slf);
        loop {
            if !take_all_due(s) {
                return ptr::null_mut();
            }
            let count = (*s).cache.len();
            let list = ffi::PyList_New(count as _);
            if list.is_null() {
                return list;
            }
            for i in 0..if with_values { count } else { 0 } {
                let pair = ffi::PyTuple_New(2);
                if pair.is_null() {
                    ffi::Py_DECREF(list);
                    return pair;
                }
                ffi::PyList_SET_ITEM(list, i as _, pair);
            }
            if count == (*s).cache.len() {
                for (i, Pair { key, value }) in (*s).cache.iter().enumerate() {
                    ffi::Py_INCREF(key);
                    if with_values {
                        ffi::Py_INCREF(value);
                        let pair = ffi::PyList_GET_ITEM(list, i as _);
                        ffi::PyTuple_SET_ITEM(pair, 0, key);
                        ffi::PyTuple_SET_ITEM(pair, 1, value);
                    } else {
                        ffi::PyList_SET_ITEM(list, i as _, key);
                    }
                }
                return list;
            }
            ffi::Py_DECREF(list);
        }
    }
}

pub(super) unsafe extern "C-unwind" fn keys(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { snapshot(slf, false) }
}

pub(super) unsafe extern "C-unwind" fn items(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { snapshot(slf, true) }
}

pub(super) unsafe extern "C-unwind" fn iterate(slf: Object) -> Object {
    // SAFETY: tp_iter with the GIL.
    unsafe {
        let list = snapshot(slf, false);
        if list.is_null() {
            return list;
        }
        let iterator = ffi::PyObject_GetIter(list);
        ffi::Py_DECREF(list);
        iterator
    }
}

/// `stats()`.
pub(super) unsafe extern "C-unwind" fn stats(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let s = state(slf);
        if !take_all_due(s) {
            return ptr::null_mut();
        }
        counts(&[
            (c"hits", (*s).hits),
            (c"misses", (*s).misses),
            (c"loads", (*s).loaded),
            (c"load_failures", (*s).failed),
            (c"evictions", (*s).evicted),
            (c"expirations", (*s).expired),
            (c"size", (*s).cache.len() as u64),
        ])
    }
}

/// `resize(max_size)`.
pub(super) unsafe extern "C-unwind" fn resize(slf: Object, max_size: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let n = ffi::PyNumber_AsSsize_t(max_size, ffi::PyExc_OverflowError);
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let Some(max_size) = super::object::checked_size(n) else { return ptr::null_mut() };
        let s = state(slf);
        (*s).max_size = max_size;
        if !take_all_due(s) {
            return ptr::null_mut();
        }
        loop {
            let mut gone = Gone::new();
            take_surplus(s, (*s).max_size, GONE, &mut gone);
            let done = settle(s, none(), &gone);
            if done.is_null() || gone.count == 0 {
                return done;
            }
            ffi::Py_DECREF(done);
        }
    }
}
