//! The CPU profile: what goroutines and threads run, counted by stack and labels. The core says who is owed a sample.

use super::chan::tuple;
use super::gc::Uncollected;
use super::{boolean, labels, methods, none, plain, runtime};
use crate::error;
use crate::sight;
use crate::stacks::{Stacks, stack_of};
use gort_core::event;
use gort_core::sched::Runtime;
use gort_core::sched::sampling::Owed;
use pyo3::ffi;
use std::collections::HashMap;
use std::ptr;
use std::sync::{Mutex, MutexGuard};

type Object = *mut ffi::PyObject;
type State = *mut ffi::PyThreadState;

unsafe extern "C" {
    fn gort_state_of_tid(tid: std::ffi::c_ulong) -> State;
}

/// What samples have in common: owned references, of which the key keeps what it names by address alive.
struct Stack {
    stack: Object,
    labels: Object,
    count: u64,
}
// SAFETY: touched with the GIL alone.
unsafe impl Send for Stack {}

/// Stacks by the addresses of their frames, and the labels' and the runtime's part before them.
#[derive(Default)]
struct Samples {
    stacks: HashMap<Vec<u64>, Stack>,
    /// Samples that memory was refused for.
    lost: u64,
}

/// Of the profile that is being taken. Only touched with the GIL held: no thread waits for it.
static SAMPLES: Mutex<Option<Samples>> = Mutex::new(None);

fn samples() -> MutexGuard<'static, Option<Samples>> {
    SAMPLES.lock().unwrap_or_else(|e| e.into_inner())
}

/// What ran where there are no Python frames: as gort.pprof._cpu names it.
const PYTHON: u64 = 0;
const SCHEDULER: u64 = 1;
const OTHER_THREAD: u64 = 2;

/// Adds samples; `None`: memory is refused. The references are taken over.
unsafe fn add(samples: &mut Samples, kind: u64, stack: Object, labels: Object, count: u64) -> Option<()> {
    // SAFETY: GIL held; `stack` is a tuple of `stack_of`, whose first of four items is an address.
    unsafe {
        let mut key = Vec::new();
        let frames = ffi::PyTuple_GET_SIZE(stack) as usize / 4;
        let is_short = key.try_reserve_exact(frames * 2 + 2).is_err();
        if is_short || samples.stacks.try_reserve(1).is_err() {
            ffi::Py_DECREF(stack);
            ffi::Py_XDECREF(labels);
            return None;
        }
        key.extend([kind, labels.addr() as u64]);
        for i in 0..frames {
            let address = ffi::PyTuple_GET_ITEM(stack, (4 * i) as _);
            key.push(ffi::PyLong_AsUnsignedLongLong(address));
        }
        match samples.stacks.get_mut(&key[..]) {
            Some(known) => {
                known.count += count;
                ffi::Py_DECREF(stack);
                ffi::Py_XDECREF(labels);
            }
            None => {
                samples.stacks.insert(key, Stack { stack, labels, count });
            }
        }
        Some(())
    }
}

/// Frames deeper than that are left out; Go's number.
const DEPTH: usize = 128;

/// `Runtime::sampler`'s hook.
///
/// # Safety
/// On an M's g0 with the GIL.
unsafe fn note(rt: &'static Runtime, list: &[Owed]) {
    // SAFETY: the caller's promise. The collector is off and nothing here runs code, so goroutines and states stay.
    unsafe {
        let _uncollected = Uncollected::begin();
        let stacks = Stacks::default();
        let session = if event::is_on() { rt.tracer.session() } else { None };
        if let Some(samples) = samples().as_mut() {
            for owed in list {
                let g = owed.goroutine();
                let state = match g.as_ref() {
                    Some(g) => stacks.state_of(g),
                    None if owed.is_machine() => ptr::null_mut(),
                    None => gort_state_of_tid(owed.tid.into()),
                };
                let kind = match state.is_null() {
                    false => PYTHON,
                    true if owed.is_machine() => SCHEDULER,
                    true => OTHER_THREAD,
                };
                if let Some(session) = session {
                    rt.trace_samples(session, owed, sight::number_of(session, state));
                }
                let stack = stack_of(state, DEPTH);
                let tags = if state.is_null() { ptr::null_mut() } else { labels::shared(state) };
                let done = if stack.is_null() { None } else { add(samples, kind, stack, tags, owed.count) };
                if done.is_none() {
                    ffi::PyErr_Clear();
                    samples.lost += owed.count;
                }
            }
        }
    }
}

/// Lets go of all references. GIL held, where Python code may run.
unsafe fn drop_all(samples: Samples) {
    for stack in samples.stacks.into_values() {
        // SAFETY: owned.
        unsafe {
            ffi::Py_DECREF(stack.stack);
            ffi::Py_XDECREF(stack.labels);
        }
    }
}

/// `_cpu_start(period_ns)`: False if a profile is being taken already.
unsafe extern "C-unwind" fn start(_m: Object, period: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let period_ns = ffi::PyLong_AsUnsignedLongLong(period);
        if period_ns == u64::MAX && !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if rt.sampler.active() != 0 {
            return boolean(false);
        }
        let _ = rt.sampler.note.set(note);
        let before = samples().replace(Samples::default());
        if let Some(before) = before {
            drop_all(before); // of a process that this one was forked from
        }
        if !rt.start_sampling(period_ns) {
            return error::set(ffi::PyExc_RuntimeError, "the system refuses a thread for the profile");
        }
        boolean(true)
    }
}

/// `_cpu_stop()`: (kind, stack, labels, count) for each, and samples that were lost; None if no profile is being taken.
unsafe extern "C-unwind" fn stop(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        rt.stop_sampling();
        let taken = samples().take();
        let Some(mut taken) = taken else { return none() };
        let list = ffi::PyList_New(0);
        for (key, stack) in taken.stacks.drain() {
            let labels = if stack.labels.is_null() { none() } else { stack.labels };
            let count = ffi::PyLong_FromUnsignedLongLong(stack.count);
            let item = tuple([ffi::PyLong_FromUnsignedLongLong(key[0]), stack.stack, labels, count]);
            if item.is_null() || list.is_null() || ffi::PyList_Append(list, item) < 0 {
                ffi::PyErr_Clear();
                taken.lost += stack.count;
            }
            ffi::Py_XDECREF(item);
        }
        if list.is_null() {
            return ffi::PyErr_NoMemory();
        }
        tuple([list, ffi::PyLong_FromUnsignedLongLong(taken.lost)])
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        plain(
            c"_cpu_start",
            start,
            ffi::METH_O,
            c"_cpu_start(period_ns, /)\n--\n\nBegins a CPU profile; False while there is one.",
        ),
        plain(c"_cpu_stop", stop, ffi::METH_NOARGS, c"_cpu_stop()\n--\n\nEnds it: its samples; None if there is none."),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
