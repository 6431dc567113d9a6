//! The object: making it, what the collector sees of it, and the type.

use super::{CacheObject, Object, Pair, State, loads, state, ttl_ns, whole};
use crate::entry::{self, fast, getters, methods, none, plain};
use crate::error;
use gort_core::cache::{Cache, MOST, NEVER};
use pyo3::ffi;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

/// Entries at most, if that is a number of entries; else an exception is set.
pub(super) fn checked_size(max_size: isize) -> Option<usize> {
    match usize::try_from(max_size) {
        Ok(n @ 1..=MOST) => Some(n),
        _ => {
            let text = format_args!("max_size must be from 1 to {MOST}, not {max_size}");
            // SAFETY: GIL held by both callers.
            error::set(unsafe { ffi::PyExc_ValueError }, text);
            None
        }
    }
}

unsafe extern "C-unwind" fn new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL; GenericAlloc gives zeroed memory, in which the state is written before anything runs.
    unsafe {
        let mut size: ffi::Py_ssize_t = 0;
        let (mut ttl, mut on_evict) = (ffi::Py_None(), ffi::Py_None());
        let mut names =
            [c"max_size".as_ptr(), c"ttl".as_ptr(), c"on_evict".as_ptr(), ptr::null()].map(<*const _>::cast_mut);
        let (format, names) = (c"n|$OO:ConcurrentCache".as_ptr(), names.as_mut_ptr().cast());
        let places = (&raw mut size, &raw mut ttl, &raw mut on_evict);
        if ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format, names, places.0, places.1, places.2) == 0 {
            return ptr::null_mut();
        }
        let (Some(max_size), Ok(ttl_ns)) = (checked_size(size), ttl_ns(ttl, NEVER)) else { return ptr::null_mut() };
        if !ptr::eq(on_evict, ffi::Py_None()) && ffi::PyCallable_Check(on_evict) == 0 {
            return error::set(ffi::PyExc_TypeError, "on_evict must be callable or None");
        }
        let loads = ffi::PyDict_New();
        if loads.is_null() {
            return loads;
        }
        let slf = ffi::PyType_GenericAlloc(tp, 0);
        if slf.is_null() {
            ffi::Py_DECREF(loads);
            return slf;
        }
        let on_evict = if ptr::eq(on_evict, ffi::Py_None()) { ptr::null_mut() } else { on_evict };
        ffi::Py_XINCREF(on_evict);
        let cache = Cache::default();
        let (hits, misses, loaded, failed, evicted, expired) = (0, 0, 0, 0, 0, 0);
        ptr::write(
            state(slf),
            State { cache, max_size, ttl_ns, on_evict, loads, hits, misses, loaded, failed, evicted, expired },
        );
        slf
    }
}

unsafe extern "C" fn traverse(slf: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector on a live object; nothing else runs meanwhile.
    unsafe {
        let s = state(slf);
        let mut result = visit(ffi::Py_TYPE(slf).cast(), arg);
        for other in [(*s).on_evict, (*s).loads] {
            if result == 0 && !other.is_null() {
                result = visit(other, arg);
            }
        }
        if result != 0 {
            return result;
        }
        for Pair { key, value } in (*s).cache.iter() {
            for object in [key, value] {
                let result = visit(object, arg);
                if result != 0 {
                    return result;
                }
            }
        }
        0
    }
}

/// The dict of loads stays: it is cleared by itself, and methods rely on it.
unsafe extern "C-unwind" fn clear(slf: Object) -> c_int {
    // SAFETY: GIL held.
    unsafe {
        let s = state(slf);
        let on_evict = std::mem::replace(&mut (*s).on_evict, ptr::null_mut());
        whole::let_go(ManuallyDrop::new((*s).cache.take()));
        ffi::Py_XDECREF(on_evict);
        0
    }
}

unsafe extern "C-unwind" fn dealloc(slf: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        entry::end_weak_references(slf, (*slf.cast::<CacheObject>()).weak_list);
        clear(slf);
        let loads = (*state(slf)).loads;
        ptr::drop_in_place(&raw mut (*state(slf)).cache); // empty
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(loads);
        ffi::Py_DECREF(tp.cast());
    }
}

unsafe extern "C" fn get_max_size(slf: Object, _: *mut c_void) -> Object {
    // SAFETY: GIL held.
    unsafe { ffi::PyLong_FromSize_t((*state(slf)).max_size) }
}

unsafe extern "C" fn get_ttl(slf: Object, _: *mut c_void) -> Object {
    // SAFETY: GIL held.
    unsafe {
        match (*state(slf)).ttl_ns {
            NEVER => none(),
            ns => ffi::PyFloat_FromDouble(ns as f64 / 1e9),
        }
    }
}

fn table() -> *mut ffi::PyMethodDef {
    let put = c"put($self, /, key, value, ttl=None)\n--\n\nKeeps a value, at most ttl seconds. Never parks by itself.";
    let get = c"get($self, key, /)\n--\n\n(value, True), or (None, False). Never parks by itself.";
    let delete = c"delete($self, key, /)\n--\n\nForgets a key; whether it was there.";
    let resize = c"resize($self, max_size, /)\n--\n\nAnother size; evicts what is too much.";
    let no_args = ffi::METH_NOARGS;
    let mut table = vec![
        plain(c"get", super::get, ffi::METH_O, get),
        plain(c"_peek", super::peek, ffi::METH_O, c"_peek($self, key, /)\n--\n\nAs get(), but not counted."),
        fast(c"put", super::put, put),
        plain(c"delete", super::delete, ffi::METH_O, delete),
        plain(c"clear", whole::clear, no_args, c"clear($self, /)\n--\n\nForgets everything; counts stay."),
        plain(c"keys", whole::keys, no_args, c"keys($self, /)\n--\n\nA list of the keys, oldest first."),
        plain(c"items", whole::items, no_args, c"items($self, /)\n--\n\nA list of (key, value), oldest first."),
        plain(c"stats", whole::stats, no_args, c"stats($self, /)\n--\n\nCounts: a dict."),
        plain(c"resize", whole::resize, ffi::METH_O, resize),
        fast(c"_finish", loads::finish, c"_finish($self, /, key, load, value)\n--\n\nA load gave a value."),
        fast(c"_give_up", loads::give_up, c"_give_up($self, /, key, load, failed)\n--\n\nA load gave none."),
    ];
    table.push(ffi::PyMethodDef {
        ml_name: c"__class_getitem__".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: ffi::Py_GenericAlias },
        ml_flags: ffi::METH_O | ffi::METH_CLASS,
        ml_doc: c"ConcurrentCache[K, V]".as_ptr(),
    });
    methods(table)
}

/// Adds the type.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let attributes = [
        (c"max_size", get_max_size as ffi::getter),
        (c"ttl", get_ttl as ffi::getter),
        (c"_loads", loads::get_loads as ffi::getter),
    ];
    let doc = c"The compiled part of gort.cache.ConcurrentCache.";
    let slots = vec![
        entry::weak_list(std::mem::offset_of!(CacheObject, weak_list)),
        slot(ffi::Py_tp_new, new as *mut _),
        slot(ffi::Py_tp_dealloc, dealloc as *mut _),
        slot(ffi::Py_tp_traverse, traverse as *mut _),
        slot(ffi::Py_tp_clear, clear as *mut _),
        slot(ffi::Py_tp_iter, whole::iterate as *mut _),
        slot(ffi::Py_mp_length, whole::length as *mut _),
        slot(ffi::Py_mp_subscript, super::subscript as *mut _),
        slot(ffi::Py_mp_ass_subscript, super::assign as *mut _),
        slot(ffi::Py_sq_contains, super::contains as *mut _),
        slot(ffi::Py_tp_methods, table().cast()),
        slot(ffi::Py_tp_getset, getters(&attributes).cast()),
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
    ];
    let flags = ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC;
    // SAFETY: GIL held by the module's init.
    unsafe { !entry::add_type(module, c"gort.ConcurrentCache", size_of::<CacheObject>(), flags, slots).is_null() }
}
