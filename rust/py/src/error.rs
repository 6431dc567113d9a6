//! The one table from core outcomes to Python exceptions.

use gort_core::goroutine::waiter::Outcome;
use gort_core::sched::Runtime;
use pyo3::ffi;
use std::fmt::{self, Display, Write};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static CHAN_CLOSED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static GOROUTINE_EXIT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static CANCELLED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static RUNTIME_STOPPED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static DEADLOCK: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static CONTEXT_CANCELED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static DEADLINE_EXCEEDED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
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
            (c"ContextCanceled", &CONTEXT_CANCELED),
            (c"DeadlineExceeded", &DEADLINE_EXCEEDED),
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

/// `gort.ContextCanceled`.
pub(crate) fn context_canceled() -> *mut ffi::PyObject {
    CONTEXT_CANCELED.load(Ordering::Relaxed)
}

/// `gort.DeadlineExceeded`.
pub(crate) fn deadline_exceeded() -> *mut ffi::PyObject {
    DEADLINE_EXCEEDED.load(Ordering::Relaxed)
}

/// `gort.RuntimeStopped`.
pub(crate) fn runtime_stopped() -> *mut ffi::PyObject {
    RUNTIME_STOPPED.load(Ordering::Relaxed)
}

/// `gort.DeadlockError`.
pub(crate) fn deadlock() -> *mut ffi::PyObject {
    DEADLOCK.load(Ordering::Relaxed)
}

/// A dump as a str; null with MemoryError set where there is no memory for it.
pub(crate) fn dump_text(dump: Option<String>) -> *mut ffi::PyObject {
    // SAFETY: GIL held by every caller; the text is UTF-8.
    unsafe {
        match dump {
            Some(text) => ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as _),
            None => ffi::PyErr_NoMemory(),
        }
    }
}

/// A dump of all goroutines with their frames, or at least of what they wait for; null, no exception set: there is no memory for it.
///
/// # Safety
/// GIL held, where Python code may run; no exception is set.
unsafe fn dump(rt: &'static Runtime) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let mut text = crate::entry::facade(c"gort._dump", c"dump", &[]);
        if text.is_null() || ffi::PyUnicode_Check(text) == 0 {
            ffi::PyErr_Clear();
            ffi::Py_XDECREF(text);
            text = dump_text(gort_core::observe::dump(rt));
            ffi::PyErr_Clear();
        }
        text
    }
}

/// Sets `gort.DeadlockError` with a dump, as far as there is memory for that.
///
/// # Safety
/// GIL held.
unsafe fn set_deadlock(rt: &'static Runtime) {
    // SAFETY: the caller's promise.
    unsafe {
        let dump = dump(rt);
        if dump.is_null() {
            set(deadlock(), "all goroutines are asleep - deadlock!");
            return;
        }
        ffi::PyErr_Format(deadlock(), c"all goroutines are asleep - deadlock!\n\n%U".as_ptr(), dump);
        ffi::Py_DECREF(dump);
    }
}

/// Sets `class(text)` as the exception in flight and returns null.
#[cold]
pub(crate) fn set(class: *mut ffi::PyObject, text: impl Display) -> *mut ffi::PyObject {
    let text = self::text(text);
    if !text.is_null() {
        // SAFETY: GIL held by every caller; the class is alive.
        unsafe {
            ffi::PyErr_SetObject(class, text);
            ffi::Py_DECREF(text);
        }
    }
    ptr::null_mut()
}

/// Text on the stack, since there may be no memory for it; cut off where that is full.
struct Short {
    bytes: [u8; 500],
    len: usize,
}

impl Write for Short {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let mut fits = part.len().min(self.bytes.len() - self.len);
        while !part.is_char_boundary(fits) {
            fits -= 1;
        }
        self.bytes[self.len..self.len + fits].copy_from_slice(&part.as_bytes()[..fits]);
        self.len += fits;
        if fits == part.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// A str, of 500 bytes at most; null with an exception set where memory is refused.
#[inline(never)]
pub(crate) fn text(text: impl Display) -> *mut ffi::PyObject {
    let mut short = Short { bytes: [0; 500], len: 0 };
    let _ = write!(short, "{text}"); // what has no room is left out
    // SAFETY: GIL held by every caller; the text is UTF-8.
    unsafe { ffi::PyUnicode_FromStringAndSize(short.bytes.as_ptr().cast(), short.len as _) }
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
            Outcome::ContextDone => {} // who knows the context raises what it says (`entry::context::limited`)
            Outcome::Stopped => {
                set(runtime_stopped(), "the interpreter is shutting down");
            }
            Outcome::Deadlock => {
                set_deadlock(rt);
            }
            other => {
                set(ffi::PyExc_SystemError, format_args!("gort: unexpected outcome {other:?}"));
            }
        }
    }
    false
}
