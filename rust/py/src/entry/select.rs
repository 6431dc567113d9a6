//! select, and the cases `recv(ch)` and `send(ch, v)` make.

use super::chan::{CHAN_TYPE, ChanObject, tuple};
use super::{Value, arguments, boolean, deadline, fast, methods, none, plain, runtime};
use crate::error;
use gort_core::chan::select::{Case, Selected, select as core_select};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

#[repr(C)]
struct CaseObject {
    ob_base: ffi::PyObject,
    chan: Object,
    /// The value of a send; null for a receive.
    value: Object,
}

static CASE_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// Go's limit.
const MAX_CASES: usize = 65_536;

/// The Chan in `ch` (a view holds one as `_ch`), or None. Owned; null with TypeError set for anything else.
unsafe fn channel(ch: Object) -> Object {
    // SAFETY: GIL held, `ch` alive.
    unsafe {
        let tp = CHAN_TYPE.load(Ordering::Relaxed);
        if ch == ffi::Py_None() || ffi::PyObject_TypeCheck(ch, tp) != 0 {
            ffi::Py_INCREF(ch);
            return ch;
        }
        let inner = ffi::PyObject_GetAttrString(ch, c"_ch".as_ptr());
        if !inner.is_null() && ffi::PyObject_TypeCheck(inner, tp) != 0 {
            return inner;
        }
        ffi::Py_XDECREF(inner);
        ffi::PyErr_Clear();
        ffi::PyErr_Format(ffi::PyExc_TypeError, c"a Chan or None is expected, not %T".as_ptr().cast(), ch);
        if ffi::PyErr_Occurred().is_null() {
            error::set(ffi::PyExc_TypeError, "a Chan or None is expected");
        }
        error::set(ffi::PyExc_TypeError, "a Chan or None is expected")
    }
}

unsafe fn new_case(ch: Object, value: Object) -> Object {
    // SAFETY: GIL held.
    unsafe {
        let chan = channel(ch);
        if chan.is_null() {
            return chan;
        }
        let obj = ffi::PyType_GenericAlloc(CASE_TYPE.load(Ordering::Relaxed), 0).cast::<CaseObject>();
        if obj.is_null() {
            ffi::Py_DECREF(chan);
            return ptr::null_mut();
        }
        (*obj).chan = chan;
        ffi::Py_XINCREF(value);
        (*obj).value = value;
        obj.cast()
    }
}

unsafe extern "C-unwind" fn recv(_m: Object, ch: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { new_case(ch, ptr::null_mut()) }
}

unsafe extern "C-unwind" fn send(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([ch, value]) = arguments("send", args, nargs, kw, [c"ch", c"value"], 2) else {
            return ptr::null_mut();
        };
        new_case(ch, value)
    }
}

unsafe extern "C-unwind" fn select(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller's frame keeps the cases, and they their channels, alive. The buffers
    // below are freed by hand before every return: nothing with a destructor lives over the park but them.
    unsafe {
        let n = nargs as usize;
        let names = [c"default", c"timeout"];
        let Some([default, timeout]) = arguments("select", args.add(n), 0, kw, names, 0) else {
            return ptr::null_mut();
        };
        let has_default = if default.is_null() { 0 } else { ffi::PyObject_IsTrue(default) };
        if has_default < 0 {
            return ptr::null_mut();
        }
        let Ok(until) = deadline(timeout) else { return ptr::null_mut() };
        if n > MAX_CASES {
            return error::set(ffi::PyExc_ValueError, "select: more than 65536 cases");
        }
        let tp = CASE_TYPE.load(Ordering::Relaxed);
        let mut cases: Vec<Case<'_, Value>> = Vec::with_capacity(n);
        for i in 0..n {
            let arg = *args.add(i);
            if ffi::Py_TYPE(arg) != tp {
                return_values(&mut cases);
                return error::set(ffi::PyExc_TypeError, "select() takes cases made by gort.recv() and gort.send()");
            }
            let case = arg.cast::<CaseObject>();
            let chan =
                if (*case).chan == ffi::Py_None() { None } else { Some(&(*(*case).chan.cast::<ChanObject>()).chan) };
            let value = (*case).value;
            ffi::Py_XINCREF(value);
            let slot = if value.is_null() { None } else { Some(Value(value)) };
            cases.push(Case { chan, is_send: !value.is_null(), slot });
        }
        let Some(rt) = runtime() else {
            return_values(&mut cases);
            return ptr::null_mut();
        };
        loop {
            let selected = core_select(rt, &mut cases, has_default != 0, until);
            let (index, value, ok) = match selected {
                Selected::Received(i) => (i as isize, cases[i].slot.take().map_or_else(none, |v| v.0), true),
                Selected::ReceivedClosed(i) => (i as isize, none(), false),
                Selected::Sent(i) => (i as isize, none(), true),
                Selected::SendOnClosed(_) => {
                    return_values(&mut cases);
                    return error::set(error::chan_closed(), "send on closed channel");
                }
                Selected::Default => (-1, none(), false),
                Selected::Ended(gort_core::goroutine::waiter::Outcome::TimedOut) => (-2, none(), false),
                Selected::Ended(outcome) => {
                    if error::ended(rt, outcome) {
                        continue;
                    }
                    return_values(&mut cases);
                    return ptr::null_mut();
                }
            };
            return_values(&mut cases);
            return tuple([ffi::PyLong_FromSsize_t(index), value, boolean(ok)]);
        }
    }
}

/// Lets go of the values that were not sent.
unsafe fn return_values(cases: &mut [Case<'_, Value>]) {
    for case in cases {
        if let Some(v) = case.slot.take() {
            // SAFETY: GIL held; the case owned one count.
            unsafe { ffi::Py_DECREF(v.0) };
        }
    }
}

unsafe extern "C" fn case_traverse(slf: Object, visit: ffi::visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: called by the collector on a live object.
    unsafe {
        let case = slf.cast::<CaseObject>();
        for field in [ffi::Py_TYPE(slf).cast(), (*case).chan, (*case).value] {
            if !field.is_null() {
                let r = visit(field, arg);
                if r != 0 {
                    return r;
                }
            }
        }
        0
    }
}

unsafe extern "C" fn case_dealloc(slf: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        let case = slf.cast::<CaseObject>();
        ffi::Py_XDECREF((*case).chan);
        ffi::Py_XDECREF((*case).value);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

/// Adds the functions and the Case type.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        fast(c"select", select, c"select(*cases, default=False, timeout=None)\n--\n\nOne ready case as (index, value, ok); parks while none is. -1: default, -2: time-out."),
        plain(c"recv", recv, ffi::METH_O, c"recv(ch, /)\n--\n\nA receive case for select; None is the nil channel."),
        fast(c"send", send, c"send(ch, value)\n--\n\nA send case for select; None is the nil channel."),
    ]);
    let slots = vec![
        ffi::PyType_Slot { slot: ffi::Py_tp_traverse, pfunc: case_traverse as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_dealloc, pfunc: case_dealloc as *mut _ },
    ];
    let flags = ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = super::add_type(module, c"gort.Case", size_of::<CaseObject>(), flags, slots);
        CASE_TYPE.store(tp, Ordering::Release);
        !tp.is_null() && ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
