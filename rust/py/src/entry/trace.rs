//! What `gort.trace` is made of: beginning and ending, what was written, and what programs say. Waiting for the thread that writes
//! lets go of the GIL, and holds nothing meanwhile: as any call that blocks.

use super::chan::tuple;
use super::{arguments, boolean, fast, methods, none, plain, runtime};
use crate::error;
use crate::host::HOST;
use crate::sight;
use gort_core::event::{self, Kind, MOST_FOLLOWING, Record, User};
use gort_core::observe::trace::{Ended, Limits, Refused, Sink, Ticket, Trace};
use gort_core::sched::traced::traced_caller;
use pyo3::ffi;
use std::cell::UnsafeCell;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::FromRawFd;
use std::ptr;

type Object = *mut ffi::PyObject;

/// The trace, and who wants it.
struct Running {
    trace: Trace,
    is_written: bool,
    is_recorded: bool,
    /// So many wait for its thread.
    waiting: u32,
    process: u32,
}

struct Shared(UnsafeCell<Option<Running>>);
// SAFETY: touched with the GIL alone, and no reference is kept over a call that lets go of it.
unsafe impl Sync for Shared {}

static RUNNING: Shared = Shared(UnsafeCell::new(None));

/// The trace that is taken in this process: a child's is not its parent's.
unsafe fn running() -> Option<&'static mut Running> {
    // SAFETY: GIL held by every caller, who lets go of the reference before it does.
    unsafe {
        let place = &mut *RUNNING.0.get();
        if place.as_ref().is_some_and(|running| running.process != std::process::id()) {
            *place = None; // its thread is not here
        }
        place.as_mut()
    }
}

/// Waits without the GIL.
unsafe fn wait(ticket: Ticket) {
    // SAFETY: GIL held by every caller, on this thread's state, which comes back.
    unsafe {
        let token = (HOST.leave_thread)();
        ticket.wait();
        (HOST.return_thread)(token);
    }
}

/// The same for a trace that goes on; gives it, which is there as long as somebody waits.
unsafe fn wait_for(ticket: Option<Ticket>, change: impl FnOnce(&mut Running)) -> Option<&'static mut Running> {
    // SAFETY: GIL held by every caller, who has found a trace running.
    unsafe {
        let (Some(ticket), Some(at)) = (ticket, running()) else {
            ffi::PyErr_NoMemory();
            return None;
        };
        change(at);
        at.waiting += 1;
        wait(ticket);
        let at = running()?; // in a child that was forked meanwhile there is none
        at.waiting -= 1;
        Some(at)
    }
}

unsafe fn refuse(why: Refused) -> Object {
    match why {
        // SAFETY: GIL held by every caller.
        Refused::Memory => unsafe { ffi::PyErr_NoMemory() },
        // SAFETY: as above.
        Refused::Thread(error) if error.kind() == ErrorKind::OutOfMemory => unsafe { ffi::PyErr_NoMemory() },
        Refused::Thread(error) => {
            // SAFETY: as above.
            error::set(
                unsafe { ffi::PyExc_RuntimeError },
                format_args!("the system refuses a thread: {}", error.kind()),
            )
        }
    }
}

/// The trace, begun if there is none. `None`: an exception is set.
unsafe fn begun(sees: bool, period_ns: u64) -> Option<&'static mut Running> {
    // SAFETY: GIL held by every caller.
    unsafe {
        let rt = runtime()?;
        if running().is_none() {
            // What was noted before is freed by now, or still waited for: then its trace is there.
            let _ = rt.tracer.eyes.set(sight::EYES);
            sight::begin();
            match Trace::begin(rt, sees, period_ns) {
                Ok(trace) => {
                    let process = std::process::id();
                    *RUNNING.0.get() =
                        Some(Running { trace, is_written: false, is_recorded: false, waiting: 0, process });
                }
                Err(why) => {
                    sight::forget();
                    refuse(why);
                    return None;
                }
            }
        }
        running()
    }
}

/// Ends the trace if nobody wants it any more. `None`: an exception is set, and it goes on.
unsafe fn end_if_unwanted() -> Option<Ended> {
    // SAFETY: GIL held by every caller.
    unsafe {
        let is_unwanted = |at: &&mut Running| !at.is_written && !at.is_recorded && at.waiting == 0;
        let Some(at) = running().filter(is_unwanted) else { return Some(Ended::default()) };
        let Some(ticket) = at.trace.ask_to_end() else {
            ffi::PyErr_NoMemory();
            return None;
        };
        let running = (*RUNNING.0.get()).take()?; // the next one may begin meanwhile
        sight::forget();
        wait(ticket);
        let outcome = running.trace.outcome();
        running.trace.end();
        Some(outcome)
    }
}

unsafe fn number(object: Object) -> Option<u64> {
    // SAFETY: GIL held; a live object.
    unsafe {
        let n = ffi::PyLong_AsUnsignedLongLong(object);
        if n == u64::MAX && !ffi::PyErr_Occurred().is_null() { None } else { Some(n) }
    }
}

/// `_trace_open(fd, sees, period_ns)`: False while there is one.
unsafe extern "C-unwind" fn open(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"fd", c"sees", c"period_ns"];
        let Some([fd, sees, period]) = arguments("_trace_open", args, nargs, kw, names, 3) else {
            return ptr::null_mut();
        };
        let fd = ffi::PyLong_AsLong(fd);
        let Some(period_ns) = number(period).filter(|_| fd != -1 || ffi::PyErr_Occurred().is_null()) else {
            return ptr::null_mut();
        };
        if running().is_some_and(|running| running.is_written) {
            return boolean(false);
        }
        let Some(running) = begun(ffi::PyObject_IsTrue(sees) == 1, period_ns) else { return ptr::null_mut() };
        let sink = if fd < 0 { Sink::Memory } else { Sink::File(File::from_raw_fd(fd as i32)) };
        let ticket = running.trace.open(sink);
        let is_open = wait_for(ticket, |at| at.is_written = true).is_some();
        let is_kept = end_if_unwanted().is_some(); // somebody may have closed it meanwhile
        if is_open && is_kept { boolean(true) } else { ptr::null_mut() }
    }
}

/// `_trace_close()`: (bytes that went to memory, number of the error, records lost); None if none is written.
unsafe extern "C-unwind" fn close(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let Some(at) = running().filter(|running| running.is_written) else { return none() };
        let Some(at) = wait_for(at.trace.close(), |at| at.is_written = false) else { return ptr::null_mut() };
        let (bytes, ended) = (at.trace.bytes(), at.trace.outcome());
        let Some(last) = end_if_unwanted() else { return ptr::null_mut() };
        let error = ended.error.or(last.error).map_or(0, |e| e.raw_os_error().unwrap_or(NO_MEMORY));
        let bytes = ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as _);
        tuple([bytes, ffi::PyLong_FromLong(error.into()), ffi::PyLong_FromUnsignedLongLong(ended.lost + last.lost)])
    }
}

/// ENOMEM
const NO_MEMORY: i32 = 12;

/// What was written to memory and not taken; null with an exception set, and it stays, where memory is refused.
unsafe fn taken(trace: &Trace) -> Object {
    // SAFETY: GIL held by every caller; a new object of bytes runs no code.
    let bytes_of = |bytes: &[u8]| unsafe {
        let object = ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as _);
        (!object.is_null()).then_some(object)
    };
    trace.take_bytes(bytes_of).unwrap_or(ptr::null_mut())
}

/// `_trace_take()`: what was written to memory and not taken.
unsafe extern "C-unwind" fn take(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        match running() {
            Some(running) => taken(&running.trace),
            None => ffi::PyBytes_FromStringAndSize(ptr::null(), 0),
        }
    }
}

/// `_trace_record(age_ns, most, sees, period_ns)`: False while there is one.
unsafe extern "C-unwind" fn record(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"age_ns", c"most", c"sees", c"period_ns"];
        let Some([age, bytes, sees, period]) = arguments("_trace_record", args, nargs, kw, names, 4) else {
            return ptr::null_mut();
        };
        let (Some(age_ns), Some(bytes), Some(period_ns)) = (number(age), number(bytes), number(period)) else {
            return ptr::null_mut();
        };
        if running().is_some_and(|running| running.is_recorded) {
            return boolean(false);
        }
        let Some(running) = begun(ffi::PyObject_IsTrue(sees) == 1, period_ns) else { return ptr::null_mut() };
        let ticket = running.trace.record(Limits { age_ns, bytes: bytes as usize });
        let is_begun = wait_for(ticket, |at| at.is_recorded = true).is_some();
        let is_kept = end_if_unwanted().is_some();
        if is_begun && is_kept { boolean(true) } else { ptr::null_mut() }
    }
}

/// `_trace_forget()`: False if nothing is recorded.
unsafe extern "C-unwind" fn forget(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let Some(at) = running().filter(|running| running.is_recorded) else { return boolean(false) };
        if wait_for(at.trace.forget(), |at| at.is_recorded = false).is_none() {
            return ptr::null_mut();
        }
        if end_if_unwanted().is_none() {
            return ptr::null_mut();
        }
        boolean(true)
    }
}

/// `_trace_snapshot()`: a trace of what is recorded; None if nothing is.
unsafe extern "C-unwind" fn snapshot(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let Some(at) = running().filter(|running| running.is_recorded) else { return none() };
        let Some(at) = wait_for(at.trace.ask_snapshot(), |_| {}) else { return ptr::null_mut() };
        let bytes = at.trace.snapshot();
        let is_kept = end_if_unwanted().is_some();
        let Some(bytes) = bytes.filter(|_| is_kept) else { return ffi::PyErr_NoMemory() };
        ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as _)
    }
}

/// Bytes of a str, alive as long as it is. Surrogates are no UTF-8: such a text is not shown.
unsafe fn text<'a>(object: Object) -> Option<&'a [u8]> {
    // SAFETY: GIL held; null or a live object.
    unsafe {
        if object.is_null() {
            return Some(b"");
        }
        if ffi::PyUnicode_Check(object) == 0 {
            error::set(ffi::PyExc_TypeError, "a trace takes texts: a str is expected");
            return None;
        }
        let mut bytes = 0;
        let at = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut bytes);
        if at.is_null() {
            ffi::PyErr_Clear();
            return Some(b"?");
        }
        Some(std::slice::from_raw_parts(at.cast(), bytes as usize))
    }
}

/// What `_trace_user` notes, by its first argument.
const KINDS: [Kind; 6] = [Kind::TaskBegin, Kind::TaskEnd, Kind::RegionBegin, Kind::RegionEnd, Kind::Log, Kind::Label];

/// `_trace_user(kind, task, parent, first, second)`: of the calling goroutine.
unsafe extern "C-unwind" fn user(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"kind", c"task", c"parent", c"first", c"second"];
        let Some([kind, task, parent, first, second]) = arguments("_trace_user", args, nargs, kw, names, 3) else {
            return ptr::null_mut();
        };
        let (Some(kind), Some(task), Some(parent)) = (number(kind), number(task), number(parent)) else {
            return ptr::null_mut();
        };
        let (Some(first), Some(second)) = (text(first), text(second)) else { return ptr::null_mut() };
        let Some(&kind) = KINDS.get(kind as usize) else {
            return error::set(ffi::PyExc_ValueError, "_trace_user(): there is no such kind");
        };
        let rt = crate::task::runtime_or_null();
        if let Some(rt) = rt.as_ref()
            && let Some(session) = rt.tracer.session()
        {
            let mut rest = [Record::default(); MOST_FOLLOWING];
            let used = User::pack(task, parent, first, second, &mut rest);
            rt.trace_with(session, kind, used as u8, traced_caller(), 0, &rest[..used]);
        }
        none()
    }
}

/// `_trace_on()`: whether anything is noted.
unsafe extern "C-unwind" fn on(_m: Object, _: Object) -> Object {
    boolean(event::is_on())
}

/// `_trace_state()`: whether a trace is written, and whether one is recorded.
unsafe extern "C-unwind" fn state(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let (is_written, is_recorded) = running().map_or((false, false), |at| (at.is_written, at.is_recorded));
        tuple([boolean(is_written), boolean(is_recorded)])
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        fast(
            c"_trace_open",
            open,
            c"_trace_open(fd, sees, period_ns)\n--\n\nWrites a trace to fd, or memory (-1); False while one is.",
        ),
        plain(
            c"_trace_close",
            close,
            ffi::METH_NOARGS,
            c"_trace_close()\n--\n\nEnds it: bytes in memory, the error's number, records lost; None if none is.",
        ),
        plain(c"_trace_take", take, ffi::METH_NOARGS, c"_trace_take()\n--\n\nWhat was written to memory since."),
        fast(
            c"_trace_record",
            record,
            c"_trace_record(age_ns, most, sees, period_ns)\n--\n\nKeeps what was last; False while that is done.",
        ),
        plain(
            c"_trace_forget",
            forget,
            ffi::METH_NOARGS,
            c"_trace_forget()\n--\n\nEnds that; False if it is not done.",
        ),
        plain(
            c"_trace_snapshot",
            snapshot,
            ffi::METH_NOARGS,
            c"_trace_snapshot()\n--\n\nA trace of what was last; None if it is not kept.",
        ),
        fast(
            c"_trace_user",
            user,
            c"_trace_user(kind, task, parent, first='', second='')\n--\n\nNotes what a program says: gort.trace.",
        ),
        plain(c"_trace_on", on, ffi::METH_NOARGS, c"_trace_on()\n--\n\nWhether anything is noted."),
        plain(
            c"_trace_state",
            state,
            ffi::METH_NOARGS,
            c"_trace_state()\n--\n\nWhether a trace is written, and whether one is recorded.",
        ),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
