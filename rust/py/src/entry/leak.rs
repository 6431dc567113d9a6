//! What `gort.leak` is made of. Nothing here parks.

use super::metrics::Stopped;
use super::{arguments, boolean, fast, methods, none, plain, runtime, sync};
use crate::error;
use crate::leak::ages;
use crate::leak::{self, FLAG_BITS, Handles, Kinds};
use crate::task::{GO_TYPE, GoObject};
use pyo3::ffi;
use std::collections::HashMap;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering;

type Object = *mut ffi::PyObject;

/// A list of all objects that the collector tracks; null with an exception set on failure.
unsafe fn all_objects() -> Object {
    // SAFETY: GIL held by every caller.
    unsafe {
        let gc = ffi::PyImport_ImportModule(c"gc".as_ptr());
        if gc.is_null() {
            return gc;
        }
        let all = ffi::PyObject_CallMethod(gc, c"get_objects".as_ptr(), ptr::null());
        ffi::Py_DECREF(gc);
        all
    }
}

/// A list of owned references; null if any is null or memory is refused.
unsafe fn list(items: impl Iterator<Item = Object>) -> Object {
    // SAFETY: GIL held by every caller; the references are the caller's and go into the list.
    unsafe {
        let list = ffi::PyList_New(0);
        for item in items {
            if list.is_null() || item.is_null() || ffi::PyList_Append(list, item) < 0 {
                ffi::Py_XDECREF(item);
                ffi::Py_XDECREF(list);
                return ptr::null_mut();
            }
            ffi::Py_DECREF(item);
        }
        list
    }
}

/// `_leak_calls()`: code and offset of the instructions whose depth `_leaks` must be told.
unsafe extern "C-unwind" fn calls(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { leak::calls(rt) }
}

/// The tuples (code, offset, depth, flag) of a list, `flag` a place in `FLAG_BITS`. `None`: an exception is set.
unsafe fn read_depths(given: Object) -> Option<HashMap<(usize, c_int), c_int>> {
    // SAFETY: GIL held, `given` alive; its tuples keep the code objects alive over the search.
    unsafe {
        if ffi::PyList_Check(given) == 0 {
            error::set(ffi::PyExc_TypeError, "_leaks() needs a list");
            return None;
        }
        let mut depths = HashMap::new();
        for i in 0..ffi::PyList_GET_SIZE(given) {
            let (mut code, mut offset, mut depth, mut flag): (Object, c_int, c_int, c_int) = (ptr::null_mut(), 0, 0, 0);
            let format = c"Oiii".as_ptr();
            let item = ffi::PyList_GET_ITEM(given, i);
            if ffi::PyArg_ParseTuple(item, format, &raw mut code, &raw mut offset, &raw mut depth, &raw mut flag) == 0 {
                return None;
            }
            let bit = FLAG_BITS.get(flag as usize).copied().unwrap_or(0);
            if depths.try_reserve(1).is_err() {
                ffi::PyErr_NoMemory();
                return None;
            }
            depths.insert((code.addr(), offset), depth | bit);
        }
        Some(depths)
    }
}

/// `_leaks(depths, handles, report_type)`: the goroutines that can never run again, each with what it waits for and its group.
unsafe extern "C-unwind" fn leaks(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL. What is found is alive until the list of all objects goes.
    unsafe {
        let names = [c"depths", c"handles", c"report_type"];
        let Some([depths, handles, report_type]) = arguments("_leaks", args, nargs, kw, names, 3) else {
            return ptr::null_mut();
        };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let Some(depths) = read_depths(depths) else { return ptr::null_mut() };
        let handles = match ffi::PyLong_AsLong(handles) {
            0 => Handles::Ignored,
            1 => Handles::Held,
            _ => Handles::All,
        };
        ffi::PyErr_Clear();
        let mut kinds = Kinds::new();
        if kinds.add_report(report_type).is_none() {
            return ffi::PyErr_NoMemory();
        }
        let all = all_objects();
        if all.is_null() {
            return all;
        }
        let tuple_of = |leak: leak::Leak| {
            let waits_on = list(leak.waits_on.into_iter().map(|object| ffi::Py_NewRef(object)));
            super::chan::tuple([ffi::Py_NewRef(leak.task), waits_on, ffi::PyLong_FromSize_t(leak.group)])
        };
        let stopped = Stopped::begin(rt);
        let found = leak::find(rt, all, kinds, &depths, handles);
        drop(stopped);
        let result = found.map_or_else(|| ffi::PyErr_NoMemory(), |found| list(found.into_iter().map(tuple_of)));
        ffi::Py_DECREF(all);
        result
    }
}

/// `_end_leak(goroutine)`.
unsafe extern "C-unwind" fn end_leak(_m: Object, goroutine: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        if ffi::Py_TYPE(goroutine) != GO_TYPE.load(Ordering::Relaxed) {
            return error::set(ffi::PyExc_TypeError, "_end_leak() needs a Goroutine");
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        boolean(leak::end(rt, goroutine.cast()))
    }
}

/// `_locks(types)`: the locks and semaphores of gort.sync, and those of `types`, that objects refer to.
unsafe extern "C-unwind" fn locks(_m: Object, types: Object) -> Object {
    // SAFETY: METH_O with the GIL. As in `leaks`.
    unsafe {
        if ffi::PyTuple_Check(types) == 0 {
            return error::set(ffi::PyExc_TypeError, "_locks() needs a tuple of types");
        }
        let mut kinds = Kinds::new();
        let mut types = (0..ffi::PyTuple_GET_SIZE(types)).map(|i| ffi::PyTuple_GET_ITEM(types, i));
        if types.try_for_each(|tp| kinds.add_lock(tp)).is_none() {
            return ffi::PyErr_NoMemory();
        }
        let all = all_objects();
        if all.is_null() {
            return all;
        }
        let found = leak::locks(all, kinds);
        let owned = |found: Vec<Object>| list(found.into_iter().map(|object| ffi::Py_NewRef(object)));
        let result = found.map_or_else(|| ffi::PyErr_NoMemory(), owned);
        ffi::Py_DECREF(all);
        result
    }
}

/// `_is_taken(lock)`: whether somebody has it; None for what is no lock of gort.sync.
unsafe extern "C-unwind" fn is_taken(_m: Object, object: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { sync::is_taken(object) }.map_or_else(none, boolean)
}

/// `_track_ages(on)`: whether they were kept so far.
unsafe extern "C-unwind" fn track(_m: Object, on: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    match unsafe { ffi::PyObject_IsTrue(on) } {
        -1 => ptr::null_mut(),
        on => boolean(ages::keep(on != 0)),
    }
}

/// `_age(goroutine)`.
unsafe extern "C-unwind" fn age(_m: Object, goroutine: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        if ffi::Py_TYPE(goroutine) != GO_TYPE.load(Ordering::Relaxed) {
            return error::set(ffi::PyExc_TypeError, "_age() needs a Goroutine");
        }
        ages::of((*goroutine.cast::<GoObject>()).id).map_or_else(none, |age| ffi::PyFloat_FromDouble(age))
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        plain(
            c"_leak_calls",
            calls,
            ffi::METH_NOARGS,
            c"_leak_calls()\n--\n\n(code, offset) of calls in progress whose depth _leaks() must be told.",
        ),
        fast(
            c"_leaks",
            leaks,
            c"_leaks(depths, handles, report_type)\n--\n\n(goroutine, what it waits for, group) of those that can never run again.",
        ),
        plain(
            c"_end_leak",
            end_leak,
            ffi::METH_O,
            c"_end_leak(goroutine, /)\n--\n\nHas one that _leaks() just found end; whether it does.",
        ),
        plain(
            c"_locks",
            locks,
            ffi::METH_O,
            c"_locks(types, /)\n--\n\nLocks and semaphores, and objects of these types, that objects refer to.",
        ),
        plain(c"_track_ages", track, ffi::METH_O, c"_track_ages(on, /)\n--\n\nKeeps when goroutines are started."),
        plain(c"_age", age, ffi::METH_O, c"_age(goroutine, /)\n--\n\nSeconds since its start, if that was kept."),
        plain(c"_is_taken", is_taken, ffi::METH_O, c"_is_taken(lock, /)\n--\n\nWhether somebody has the lock."),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
