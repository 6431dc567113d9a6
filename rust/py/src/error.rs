//! The one table from core outcomes to Python exceptions.

use gort_core::goroutine::waiter::Outcome;
use gort_core::sched::Runtime;
use pyo3::ffi;
use std::ffi::CString;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static CHAN_CLOSED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static GOROUTINE_EXIT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static CANCELLED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static RUNTIME_STOPPED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static DEADLOCK: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Looks the classes up. Returns `false` with an exception set on failure.
pub(crate) fn init() -> bool {
    // SAFETY: GIL held by the module's init.
    unsafe {
        let module = ffi::PyImport_ImportModule(c"gort._exceptions".as_ptr());
        if module.is_null() {
            return false;
        }
        let table = [
            (c"ChanClosed", &CHAN_CLOSED),
            (c"GoroutineExit", &GOROUTINE_EXIT),
            (c"Cancelled", &CANCELLED),
            (c"DeadlockError", &DEADLOCK),
            (c"RuntimeStopped", &RUNTIME_STOPPED),
        ];
        for (name, place) in table {
            let class = ffi::PyObject_GetAttrString(module, name.as_ptr());
            if class.is_null() {
                return false;
            }
            place.store(class, Ordering::Release);
        }
        ffi::Py_DECREF(module);
        true
    }
}

/// `gort.GoroutineExit`.
pub(crate) fn goroutine_exit() -> *mut ffi::PyObject {
    GOROUTINE_EXIT.load(Ordering::Relaxed)
}

/// `gort.ChanClosed`.
pub(crate) fn chan_closed() -> *mut ffi::PyObject {
    CHAN_CLOSED.load(Ordering::Relaxed)
}

/// `gort.Cancelled`.
pub(crate) fn cancelled() -> *mut ffi::PyObject {
    CANCELLED.load(Ordering::Relaxed)
}

/// `gort.RuntimeStopped`.
pub(crate) fn runtime_stopped() -> *mut ffi::PyObject {
    RUNTIME_STOPPED.load(Ordering::Relaxed)
}

/// Sets `gort.DeadlockError(text)`.
pub(crate) fn deadlock(text: &str) {
    set(DEADLOCK.load(Ordering::Relaxed), text);
}

/// Sets `class(text)` as the exception in flight and returns null.
pub(crate) fn set(class: *mut ffi::PyObject, text: &str) -> *mut ffi::PyObject {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: GIL held by every caller; the class is alive.
    unsafe { ffi::PyErr_SetString(class, text.as_ptr()) };
    ptr::null_mut()
}

/// Turns an early end into an exception. `true`: none was set, do the operation again (a signal handler returned).
pub(crate) fn ended(rt: &'static Runtime, outcome: Outcome) -> bool {
    // SAFETY: GIL held by every caller.
    unsafe {
        match outcome {
            Outcome::Interrupted => return ffi::PyErr_CheckSignals() == 0,
            Outcome::TimedOut => {
                set(ffi::PyExc_TimeoutError, "timed out");
            }
            Outcome::Cancelled => {
                let g = gort_core::sched::current_goroutine();
                if !g.is_null() {
                    rt.take_request_to_end(g);
                }
                set(goroutine_exit(), "goroutine cancelled");
            }
            Outcome::Stopped => {
                set(runtime_stopped(), "the interpreter is shutting down");
            }
            Outcome::Deadlock => {
                let dump = gort_core::observe::dump(rt);
                deadlock(&format!("all goroutines are asleep - deadlock!\n\n{dump}"));
            }
            other => {
                set(ffi::PyExc_SystemError, &format!("gort: unexpected outcome {other:?}"));
            }
        }
    }
    false
}
