//! Labels of goroutines: a dict of str in a context variable, so that a goroutine has those of who started it, and what runs in a
//! copy of its context has them too.

use super::{none, plain};
use crate::error;
use crate::task::GoObject;
use pyo3::ffi;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

unsafe extern "C" {
    fn gort_context_of(t: *mut ffi::PyThreadState) -> Object;
}

/// The variable. Set once.
static LABELS: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Whether it is a dict of str. Else an exception is set.
unsafe fn are_labels(labels: Object) -> bool {
    // SAFETY: GIL held; the dict is not changed meanwhile.
    unsafe {
        let (mut at, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        let mut are_right = ffi::PyDict_Check(labels) != 0;
        while are_right && ffi::PyDict_Next(labels, &raw mut at, &raw mut key, &raw mut value) != 0 {
            are_right = ffi::PyUnicode_Check(key) != 0 && ffi::PyUnicode_Check(value) != 0;
        }
        if !are_right {
            error::set(ffi::PyExc_TypeError, "labels must be a dict of str");
        }
        are_right
    }
}

/// The caller's labels with these added, which win: a new dict. Null with an exception set.
unsafe fn merged(labels: Object) -> Object {
    // SAFETY: GIL held; references are let go or given away.
    unsafe {
        if !are_labels(labels) {
            return ptr::null_mut();
        }
        let mut now = ptr::null_mut();
        if ffi::PyContextVar_Get(LABELS.load(Ordering::Relaxed), ptr::null_mut(), &raw mut now) < 0 {
            return ptr::null_mut();
        }
        let all = if now.is_null() { ffi::PyDict_New() } else { ffi::PyDict_Copy(now) };
        ffi::Py_XDECREF(now);
        if !all.is_null() && ffi::PyDict_Update(all, labels) < 0 {
            ffi::Py_DECREF(all);
            return ptr::null_mut();
        }
        all
    }
}

/// A copy of the caller's context in which it has these labels, too. Null with an exception set.
///
/// # Safety
/// GIL held.
pub(super) unsafe fn context_with(labels: Object) -> Object {
    // SAFETY: the caller's promise; references are let go or given away.
    unsafe {
        let all = merged(labels);
        if all.is_null() {
            return all;
        }
        let context = ffi::PyContext_CopyCurrent();
        let is_set = !context.is_null() && ffi::PyContext_Enter(context) == 0 && {
            let token = ffi::PyContextVar_Set(LABELS.load(Ordering::Relaxed), all);
            ffi::Py_XDECREF(token);
            ffi::PyContext_Exit(context) == 0 && !token.is_null()
        };
        ffi::Py_DECREF(all);
        if !is_set {
            ffi::Py_XDECREF(context);
            return ptr::null_mut();
        }
        context
    }
}

/// Goroutine.labels
pub(super) unsafe extern "C" fn get_labels(slf: Object, _: *mut c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held. A live goroutine has a bundle once it has begun, and no context of its object any more.
    unsafe {
        let obj = &*slf.cast::<GoObject>();
        let g = obj.goroutine();
        let has_begun = obj.context.is_null() && !g.is_null() && !(*g).bundle.is_null();
        let context = if has_begun { gort_context_of((*(*g).bundle).host.cast()) } else { obj.context };
        let labels = of_context(context);
        if labels.is_null() && ffi::PyErr_Occurred().is_null() { ffi::PyDict_New() } else { labels }
    }
}

/// The dict of labels of the goroutine with this state itself, which nobody changes; null without an exception if it has none.
///
/// # Safety
/// GIL held; the state is alive.
pub(super) unsafe fn shared(state: *mut ffi::PyThreadState) -> Object {
    // SAFETY: the caller's promise; references are let go. No Python code runs: a context's keys are compared by identity.
    unsafe {
        let context = gort_context_of(state);
        if context.is_null() {
            return context;
        }
        let labels = ffi::PyObject_CallMethod(context, c"get".as_ptr(), c"O".as_ptr(), LABELS.load(Ordering::Relaxed));
        let has_some = !labels.is_null() && ffi::PyDict_Check(labels) != 0 && ffi::PyDict_Size(labels) != 0;
        if has_some {
            return labels;
        }
        ffi::PyErr_Clear();
        ffi::Py_XDECREF(labels);
        ptr::null_mut()
    }
}

/// A copy of the labels of the goroutine with this state; null without an exception if it has none.
///
/// # Safety
/// GIL held; the state is alive.
pub(super) unsafe fn of_state(state: *mut ffi::PyThreadState) -> Object {
    // SAFETY: the caller's promise.
    unsafe { of_context(gort_context_of(state)) }
}

/// The same of a context, which may be null.
///
/// # Safety
/// GIL held.
pub(super) unsafe fn of_context(context: Object) -> Object {
    // SAFETY: the caller's promise; references are let go. No Python code runs: a context's keys are compared by identity.
    unsafe {
        if context.is_null() {
            return context;
        }
        ffi::Py_INCREF(context);
        let var = LABELS.load(Ordering::Relaxed);
        let labels = ffi::PyObject_CallMethod(context, c"get".as_ptr(), c"O".as_ptr(), var);
        ffi::Py_DECREF(context);
        if labels.is_null() {
            return labels;
        }
        let has_some = ffi::PyDict_Check(labels) != 0 && ffi::PyDict_Size(labels) != 0;
        let copy = if has_some { ffi::PyDict_Copy(labels) } else { ptr::null_mut() };
        ffi::Py_DECREF(labels);
        copy
    }
}

/// `_labels_set(labels)`: adds to the caller's; a token for `_labels_reset`.
unsafe extern "C-unwind" fn set(_m: Object, labels: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let all = merged(labels);
        if all.is_null() {
            return all;
        }
        let token = ffi::PyContextVar_Set(LABELS.load(Ordering::Relaxed), all);
        ffi::Py_DECREF(all);
        token
    }
}

unsafe extern "C-unwind" fn reset(_m: Object, token: Object) -> Object {
    // SAFETY: METH_O with the GIL; the function says itself when that is no token.
    if unsafe { ffi::PyContextVar_Reset(LABELS.load(Ordering::Relaxed), token) } < 0 { ptr::null_mut() } else { none() }
}

unsafe extern "C-unwind" fn current(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let mut labels = ptr::null_mut();
        if ffi::PyContextVar_Get(LABELS.load(Ordering::Relaxed), ptr::null_mut(), &raw mut labels) < 0 {
            return ptr::null_mut();
        }
        let copy = if labels.is_null() { ffi::PyDict_New() } else { ffi::PyDict_Copy(labels) };
        ffi::Py_XDECREF(labels);
        copy
    }
}

/// Makes the variable and adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = super::methods(vec![
        plain(
            c"_labels_set",
            set,
            ffi::METH_O,
            c"_labels_set(labels, /)\n--\n\nAdds to the caller's labels; gives what _labels_reset() takes.",
        ),
        plain(
            c"_labels_reset",
            reset,
            ffi::METH_O,
            c"_labels_reset(token, /)\n--\n\nThe labels are as they were before.",
        ),
        plain(c"_labels", current, ffi::METH_NOARGS, c"_labels()\n--\n\nThe caller's labels."),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe {
        let var = ffi::PyContextVar_New(c"gort.labels".as_ptr(), ptr::null_mut());
        LABELS.store(var, Ordering::Relaxed);
        !var.is_null() && ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
