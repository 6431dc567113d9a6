//! What a context answers: done, err, cause, deadline and value, and what runs in it.

use super::super::chan::{CHAN_TYPE, ChanObject, facade as chan_facade, tuple};
use super::super::{arguments, none};
use super::tree::State;
use super::{CANCEL_KEY, CURRENT, Context, Kind, Object, ROOTS, Reach, facade, is_ours, reach, reach_of};
use crate::{error, host, tracing};
use gort_core::chan::Chan;
use pyo3::ffi;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::Ordering;

/// Calls a method of somebody else's context.
unsafe fn ask(object: Object, method: &CStr, arg: Object) -> Object {
    // SAFETY: GIL held; both are alive, `arg` may be null.
    unsafe {
        let name = ffi::PyUnicode_InternFromString(method.as_ptr());
        if name.is_null() {
            return name;
        }
        let args = [object, arg];
        let n = if arg.is_null() { 1 } else { 2 };
        let answer = ffi::PyObject_VectorcallMethod(name, args.as_ptr(), n, ptr::null_mut());
        ffi::Py_DECREF(name);
        answer
    }
}

/// What a context's channel is seen by, made on first use; a new reference.
pub(super) unsafe fn view(context: *mut Context) -> Object {
    // SAFETY: GIL held; the context is alive. Making the view runs Python code, in which others may come first.
    unsafe {
        if (*context).view.is_null() {
            if (*context).chan.is_null() {
                let chan = ffi::PyType_GenericAlloc(CHAN_TYPE.load(Ordering::Relaxed), 0);
                if chan.is_null() {
                    return chan;
                }
                let core = &raw mut (*chan.cast::<ChanObject>()).chan;
                core.write(Chan::new_in(0, (*context).bubble));
                tracing::begin_chan(&*core);
                if !(*context).chan.is_null() {
                    ffi::Py_DECREF(chan); // allocating ran the collector, and that somebody who asked for it
                } else {
                    if (*context).state != State::Live {
                        let _ = (*core).close();
                    }
                    (*context).chan = chan;
                }
            }
            let view = chan_facade((*context).chan, c"_receiver", ptr::null_mut());
            if view.is_null() {
                return view;
            }
            if (*context).view.is_null() {
                (*context).view = view;
            } else {
                ffi::Py_DECREF(view);
            }
        }
        ffi::Py_NewRef((*context).view)
    }
}

/// The exception of a context of ours that is done; a new reference. Those whose end is that of one above share its.
pub(super) unsafe fn err_of(context: *mut Context) -> Object {
    // SAFETY: GIL held; the context is alive, and keeps those above it.
    unsafe {
        let mut at = context;
        while (*at).err.is_null() && (*at).inherits && !(*at).parent.is_null() {
            match reach_of((*at).parent) {
                Reach::Ours(above) if (*above).state == (*at).state => at = above,
                _ => break,
            }
        }
        ffi::Py_INCREF(at.cast());
        if (*at).err.is_null() {
            let class =
                if (*at).state == State::Expired { error::deadline_exceeded() } else { error::context_canceled() };
            let made = ffi::PyObject_CallNoArgs(class);
            if made.is_null() {
                ffi::Py_DECREF(at.cast());
                return made;
            }
            if (*at).err.is_null() {
                (*at).err = made;
            } else {
                ffi::Py_DECREF(made);
            }
        }
        let err = ffi::Py_NewRef((*at).err);
        if (*context).err.is_null() {
            (*context).err = ffi::Py_NewRef(err);
        }
        ffi::Py_DECREF(at.cast());
        err
    }
}

pub(super) unsafe extern "C-unwind" fn done(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        match reach(slf.cast()) {
            Reach::Never => none(),
            Reach::Ours(context) => view(context),
            Reach::Theirs(other) => ask(other, c"done", ptr::null_mut()),
        }
    }
}

pub(super) unsafe extern "C-unwind" fn err(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        match reach(slf.cast()) {
            Reach::Never => none(),
            Reach::Ours(context) if (*context).state == State::Live => none(),
            Reach::Ours(context) => err_of(context),
            Reach::Theirs(other) => ask(other, c"err", ptr::null_mut()),
        }
    }
}

/// Why an object that is a context is done; a new reference.
pub(super) unsafe fn cause_of(object: Object) -> Object {
    // SAFETY: GIL held; `object` is alive.
    unsafe {
        match reach_of(object) {
            Reach::Never => none(),
            Reach::Ours(context) if (*context).state == State::Live => none(),
            Reach::Ours(context) if (*context).cause.is_null() => err_of(context),
            Reach::Ours(context) => ffi::Py_NewRef((*context).cause),
            Reach::Theirs(other) => facade(c"_cause", [other]),
        }
    }
}

pub(super) unsafe extern "C-unwind" fn cause(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { cause_of(slf) }
}

/// When a context ends by itself, s since 1970; infinity: never. `None`: an exception is set.
pub(super) unsafe fn deadline_of(object: Object) -> Option<f64> {
    let mut at = object;
    // SAFETY: GIL held; the caller keeps the object, which keeps those above it, alive.
    unsafe {
        loop {
            if !is_ours(at) {
                let answer = ask(at, c"deadline", ptr::null_mut());
                if answer.is_null() || answer == ffi::Py_None() {
                    ffi::Py_XDECREF(answer);
                    return (!answer.is_null()).then_some(f64::INFINITY);
                }
                let seconds = ffi::PyFloat_AsDouble(answer);
                ffi::Py_DECREF(answer);
                return if ffi::PyErr_Occurred().is_null() { Some(seconds) } else { None };
            }
            let context = at.cast::<Context>();
            match (*context).kind {
                Kind::Deadline => return Some((*context).deadline),
                Kind::Background | Kind::Todo | Kind::WithoutCancel => return Some(f64::INFINITY),
                _ if (*context).parent.is_null() => return Some(f64::INFINITY),
                _ => at = (*context).parent,
            }
        }
    }
}

pub(super) unsafe extern "C-unwind" fn deadline(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL. An instance of a subclass passes the question on.
    unsafe {
        let own = if is_ours(slf) { slf } else { (*slf.cast::<Context>()).parent };
        if own.is_null() {
            return none();
        }
        match deadline_of(own) {
            Some(seconds) if seconds == f64::INFINITY => none(),
            Some(seconds) => ffi::PyFloat_FromDouble(seconds),
            None => ptr::null_mut(),
        }
    }
}

pub(super) unsafe extern "C-unwind" fn value(
    slf: Object,
    args: *const Object,
    nargs: ffi::Py_ssize_t,
    kw: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL; comparing runs Python code, over which the caller keeps `slf`, and that those above it.
    unsafe {
        let Some([key, default]) = arguments("value", args, nargs, kw, [c"key", c"default"], 1) else {
            return ptr::null_mut();
        };
        let default = if default.is_null() { ffi::Py_None() } else { default };
        let is_cancel_key = key == CANCEL_KEY.load(Ordering::Relaxed);
        let mut at = slf.cast::<Context>();
        loop {
            match (*at).kind {
                Kind::Cancel | Kind::Deadline | Kind::AfterFunc if is_cancel_key => return ffi::Py_NewRef(at.cast()),
                Kind::WithoutCancel if is_cancel_key => return none(),
                Kind::Value => {
                    let same = ffi::PyObject_RichCompareBool((*at).first, key, ffi::Py_EQ);
                    if same != 0 {
                        return if same > 0 { ffi::Py_NewRef((*at).second) } else { ptr::null_mut() };
                    }
                }
                _ => {}
            }
            let parent = (*at).parent;
            if parent.is_null() {
                return ffi::Py_NewRef(default);
            }
            if !is_ours(parent) {
                let answer = ask(parent, c"value", key);
                if answer == ffi::Py_None() {
                    ffi::Py_DECREF(answer);
                    return ffi::Py_NewRef(default);
                }
                return answer;
            }
            at = parent.cast();
        }
    }
}

/// `run(fn, *args, **kwargs)`.
pub(super) unsafe extern "C-unwind" fn run(
    slf: Object,
    args: *const Object,
    nargs: ffi::Py_ssize_t,
    kw: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL. The function may park; nothing here has a destructor.
    unsafe {
        if nargs < 1 || ffi::PyCallable_Check(*args) == 0 {
            return error::set(ffi::PyExc_TypeError, "run() needs a callable as its first argument");
        }
        let variable = CURRENT.load(Ordering::Relaxed);
        let token = ffi::PyContextVar_Set(variable, slf);
        if token.is_null() {
            return token;
        }
        let result = ffi::PyObject_Vectorcall(*args, args.add(1), (nargs - 1) as usize, kw);
        let exception = if result.is_null() { host::gort_take_exception() } else { ptr::null_mut() };
        let is_reset = ffi::PyContextVar_Reset(variable, token) == 0;
        ffi::Py_DECREF(token);
        if !exception.is_null() {
            ffi::PyErr_Clear();
            host::gort_raise(exception);
            return ptr::null_mut();
        }
        if is_reset {
            return result;
        }
        ffi::Py_XDECREF(result);
        ptr::null_mut()
    }
}

pub(super) unsafe extern "C-unwind" fn current_context(_m: Object, _: Object) -> Object {
    let mut found: Object = ptr::null_mut();
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let background = ROOTS[0].load(Ordering::Relaxed);
        if ffi::PyContextVar_Get(CURRENT.load(Ordering::Relaxed), background, &raw mut found) < 0 {
            return ptr::null_mut();
        }
    }
    found
}

/// `_parts()`: what str() says of it: kind, parent, key, value, deadline.
pub(super) unsafe extern "C-unwind" fn parts(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let context = slf.cast::<Context>();
        let or_none = |object: Object| if object.is_null() { none() } else { ffi::Py_NewRef(object) };
        let [key, value] =
            if (*context).kind == Kind::Value { [(*context).first, (*context).second] } else { [ptr::null_mut(); 2] };
        tuple([
            error::text(format_args!("{:?}", (*context).kind)),
            or_none((*context).parent),
            or_none(key),
            or_none(value),
            ffi::PyFloat_FromDouble((*context).deadline),
        ])
    }
}
