//! Bubbles: what `gort.testing.synctest` is made of.

use super::{arguments, boolean, fast, go, methods, none, plain, runtime, start};
use crate::error;
use crate::task::{self, Place};
use gort_core::goroutine::waiter::Outcome;
use gort_core::observe;
use gort_core::sched::bubble::{Driven, NoWait};
use gort_core::sched::{self, Runtime};
use pyo3::ffi;
use std::ptr;

type Object = *mut ffi::PyObject;

/// The number of a bubble, and the runtime. `None`: an exception is set.
unsafe fn bubble(value: Object) -> Option<(&'static Runtime, u32)> {
    // SAFETY: GIL held; a live object.
    let id = unsafe { ffi::PyLong_AsUnsignedLong(value) };
    // SAFETY: GIL held.
    if unsafe { !ffi::PyErr_Occurred().is_null() } {
        return None;
    }
    Some((runtime()?, id as u32))
}

unsafe extern "C-unwind" fn new(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: GIL held.
    unsafe {
        if sched::current_goroutine().is_null() {
            return error::set(ffi::PyExc_RuntimeError, "synctest needs a goroutine: this is a plain thread");
        }
        if sched::current_bubble() != 0 {
            return error::set(ffi::PyExc_RuntimeError, "synctest.run called from within a synctest bubble");
        }
        match rt.new_bubble() {
            0 => ffi::PyErr_NoMemory(),
            id => ffi::PyLong_FromUnsignedLong(id.into()),
        }
    }
}

unsafe extern "C-unwind" fn end(_m: Object, id: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    let Some((rt, id)) = (unsafe { bubble(id) }) else { return ptr::null_mut() };
    rt.end_bubble(id);
    none()
}

/// `_bubble_go(bubble, fn, args, kwargs)`, checked by `gort.testing`.
unsafe extern "C-unwind" fn start(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"bubble", c"fn", c"args", c"kwargs"];
        let Some([id, function, call_args, kwargs]) = arguments("_bubble_go", args, nargs, kwnames, names, 4) else {
            return ptr::null_mut();
        };
        let Some((rt, id)) = bubble(id) else { return ptr::null_mut() };
        let obj = task::new_object(function, call_args, kwargs);
        if !start::is_admitted(rt, obj) {
            return ptr::null_mut();
        }
        rt.in_bubble(id, || start::launched(rt, obj, 0, Place::default()))
    }
}

/// True: all its goroutines have ended; False: all are blocked for ever.
unsafe extern "C-unwind" fn drive(_m: Object, id: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    let Some((rt, id)) = (unsafe { bubble(id) }) else { return ptr::null_mut() };
    loop {
        match rt.drive(id) {
            Driven::Done => return boolean(true),
            // The latter: some wait for locks of C code, and nothing in the program runs any more.
            Driven::Deadlock | Driven::Ended(Outcome::Deadlock) => return boolean(false),
            Driven::Ended(outcome) if error::ended(rt, outcome) => {}
            Driven::Ended(_) => return ptr::null_mut(),
        }
    }
}

unsafe extern "C-unwind" fn wait(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    loop {
        let why = match rt.wait_for_others() {
            Ok(Outcome::Delivered) => return none(),
            Ok(outcome) if error::ended(rt, outcome) => continue,
            Ok(_) => return ptr::null_mut(),
            Err(NoWait::Outside) => "goroutine is not in a bubble",
            Err(NoWait::Taken) => "wait already in progress",
        };
        // SAFETY: GIL held.
        return error::set(unsafe { ffi::PyExc_RuntimeError }, why);
    }
}

/// Goroutines of the bubble, those that are threads left out, and a dump of all.
unsafe extern "C-unwind" fn members(_m: Object, id: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Some((rt, id)) = bubble(id) else { return ptr::null_mut() };
        let list = go::list_of(rt, |g| g.bubble.id == id);
        super::chan::tuple([list, error::dump_text(observe::dump_bubble(rt, id))])
    }
}

unsafe extern "C-unwind" fn current(_m: Object, _: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { ffi::PyLong_FromUnsignedLong(sched::current_bubble().into()) }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        plain(c"_bubble_new", new, ffi::METH_NOARGS, c"_bubble_new()\n--\n\nThe number of a new bubble."),
        fast(
            c"_bubble_go",
            start,
            c"_bubble_go(bubble, fn, args, kwargs)\n--\n\nStarts a goroutine in the bubble; kwargs is a dict.",
        ),
        plain(
            c"_bubble_drive",
            drive,
            ffi::METH_O,
            c"_bubble_drive(bubble, /)\n--\n\nLets the bubble run; False if it ends in a deadlock. Parks.",
        ),
        plain(
            c"_bubble_wait",
            wait,
            ffi::METH_NOARGS,
            c"_bubble_wait()\n--\n\nParks until the bubble's other goroutines are durably blocked.",
        ),
        plain(
            c"_bubble_members",
            members,
            ffi::METH_O,
            c"_bubble_members(bubble, /)\n--\n\nThe bubble's goroutines, and a dump of them.",
        ),
        plain(c"_bubble_end", end, ffi::METH_O, c"_bubble_end(bubble, /)\n--\n\nEnds the bubble."),
        plain(
            c"_bubble_current",
            current,
            ffi::METH_NOARGS,
            c"_bubble_current()\n--\n\nThe number of the caller's bubble; 0 for none.",
        ),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
