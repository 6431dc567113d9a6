//! Walks through a Map: its iterators, and range().

use super::table::{Cursor, Object};
use super::table_of;
use crate::entry::chan::tuple;
use crate::entry::none;
use pyo3::ffi;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static ITERATOR_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// What an iterator gives.
#[derive(Clone, Copy)]
pub(super) enum What {
    Keys,
    Values,
    Items,
}

#[repr(C)]
struct MapIterator {
    ob_base: ffi::PyObject,
    /// Null at the end.
    map: Object,
    cursor: Cursor,
    what: What,
}

/// An iterator over a Map; null with an exception set where memory is refused.
pub(super) unsafe fn new(map: Object, what: What) -> Object {
    // SAFETY: GIL held, `map` is a Map; the type is there, as the module is.
    unsafe {
        let object = ffi::PyType_GenericAlloc(ITERATOR_TYPE.load(Ordering::Relaxed), 0); // the GIL orders it
        if !object.is_null() {
            let iterator = object.cast::<MapIterator>();
            ffi::Py_INCREF(map);
            (&raw mut (*iterator).cursor).write((*table_of(map)).cursor());
            (*iterator).what = what;
            (*iterator).map = map;
        }
        object
    }
}

/// The next key and value of a walk, new references; none: the end.
unsafe fn step(map: Object, cursor: &mut Cursor) -> Option<(Object, Object)> {
    // SAFETY: GIL held, `map` is a live Map. Nothing here runs Python code.
    unsafe {
        let entry = (*table_of(map)).step(cursor)?;
        let found = (entry.key, entry.value);
        ffi::Py_INCREF(found.0);
        ffi::Py_INCREF(found.1);
        Some(found)
    }
}

unsafe extern "C-unwind" fn next(slf: Object) -> Object {
    // SAFETY: tp_iternext with the GIL.
    unsafe {
        let iterator = slf.cast::<MapIterator>();
        let map = (*iterator).map;
        if map.is_null() {
            return map;
        }
        let Some((key, value)) = step(map, &mut (*iterator).cursor) else {
            (*iterator).map = ptr::null_mut();
            ffi::Py_DECREF(map);
            return ptr::null_mut();
        };
        match (*iterator).what {
            What::Items => tuple([key, value]),
            What::Keys => {
                ffi::Py_DECREF(value);
                key
            }
            What::Values => {
                ffi::Py_DECREF(key);
                value
            }
        }
    }
}

/// `range(fn)`: nothing of the table is held while fn runs.
pub(super) unsafe extern "C-unwind" fn range(slf: Object, function: Object) -> Object {
    // SAFETY: METH_O with the GIL; the caller keeps both alive.
    unsafe {
        if ffi::PyCallable_Check(function) == 0 {
            return super::wrong_type(c"range() needs a callable, not %.200s", function);
        }
        let mut cursor = (*table_of(slf)).cursor();
        while let Some((key, value)) = step(slf, &mut cursor) {
            let args = [key, value];
            let result = ffi::PyObject_Vectorcall(function, args.as_ptr(), 2, ptr::null_mut());
            let ends = result.is_null() || result == ffi::Py_False();
            let failed = result.is_null();
            ffi::Py_XDECREF(result);
            ffi::Py_DECREF(key);
            ffi::Py_DECREF(value);
            if failed {
                return ptr::null_mut();
            }
            if ends {
                break;
            }
        }
        none()
    }
}

unsafe extern "C" fn traverse(slf: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector on a live object.
    unsafe {
        let result = visit(ffi::Py_TYPE(slf).cast(), arg);
        let map = (*slf.cast::<MapIterator>()).map;
        if result == 0 && !map.is_null() { visit(map, arg) } else { result }
    }
}

unsafe extern "C" fn clear(slf: Object) -> c_int {
    // SAFETY: called by the collector or dealloc.
    unsafe { ffi::Py_XDECREF(std::mem::replace(&mut (*slf.cast::<MapIterator>()).map, ptr::null_mut())) };
    0
}

unsafe extern "C" fn dealloc(slf: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        clear(slf);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

/// Makes the type of the iterators.
pub(super) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let slots = vec![
        slot(ffi::Py_tp_dealloc, dealloc as *mut _),
        slot(ffi::Py_tp_traverse, traverse as *mut _),
        slot(ffi::Py_tp_clear, clear as *mut _),
        slot(ffi::Py_tp_iter, ffi::PyObject_SelfIter as *mut _),
        slot(ffi::Py_tp_iternext, next as *mut _),
    ];
    let flags = ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = crate::entry::add_type(module, c"gort._MapIterator", size_of::<MapIterator>(), flags, slots);
        ITERATOR_TYPE.store(tp, Ordering::Release); // read under the GIL, which orders it
        !tp.is_null()
    }
}
