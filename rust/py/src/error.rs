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
static NO_STACK: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

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
        let no_stack = new_no_stack();
        NO_STACK.store(no_stack, Ordering::Relaxed); // the module is not there yet: nobody can read it
        !no_stack.is_null()
    }
}

/// A new MemoryError for a goroutine without a stack; null with an exception set.
unsafe fn new_no_stack() -> *mut ffi::PyObject {
    // SAFETY: GIL held by every caller.
    unsafe {
        let text = c"gort: no memory for a goroutine's stack".as_ptr();
        ffi::PyObject_CallFunction(ffi::PyExc_MemoryError, c"s".as_ptr(), text)
    }
}

/// The outcome of goroutines without a stack, a new reference: one for all of them. Thousands may fail at once, when there is no
/// memory for an exception each, and CPython 3.11 gives up when it has none for a MemoryError.
pub(crate) fn no_stack() -> *mut ffi::PyObject {
    let shared = NO_STACK.load(Ordering::Relaxed);
    // SAFETY: GIL held by every caller; `init` made it, and it is never let go.
    unsafe { ffi::Py_INCREF(shared) };
    shared
}

/// What to raise for the outcome `exception`, a new reference: who joins gets a MemoryError of its own, if there is memory.
pub(crate) fn to_raise(exception: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: GIL held by every caller; the exception is alive.
    unsafe {
        if ptr::eq(exception, NO_STACK.load(Ordering::Relaxed)) {
            let fresh = new_no_stack();
            if !fresh.is_null() {
                return fresh;
            }
            ffi::PyErr_Clear();
        }
        ffi::Py_INCREF(exception);
    }
    exception
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
                    crate::entry::gc::note_exit(g);
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
