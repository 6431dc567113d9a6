//! What `gort.metrics` is made of: histograms and counts. Nothing here parks.

use super::chan::tuple;
use super::policy::core_group;
use super::{counts, methods, none, plain, runtime};
use crate::error;
use gort_core::observe::metrics::census;
use gort_core::primitive::atomic::Ordering;
use gort_core::primitive::histogram::{BUCKETS, Times, least_ns};
use gort_core::sched::Runtime;
use gort_core::sched::latency::Latency;
use gort_core::sched::policy::LEAST_PRIORITY;
use gort_core::sys::clock;
use pyo3::ffi;
use std::ptr;

type Object = *mut ffi::PyObject;

/// By the numbers that `gort.metrics` gives them.
const KINDS: [Latency; 5] = [Latency::Ready, Latency::WakeUp, Latency::HostLock, Latency::Collector, Latency::Stopped];

/// Says at its end that everything was stopped since its beginning.
pub(super) struct Stopped(&'static Runtime, u64);

impl Stopped {
    /// The caller keeps the GIL from here on.
    pub(super) fn begin(rt: &'static Runtime) -> Self {
        Self(rt, clock::now_ns())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.note_stopped(self.1);
    }
}

/// A tuple of numbers; null with an exception set on failure.
unsafe fn numbers(of: impl ExactSizeIterator<Item = u64>) -> Object {
    // SAFETY: GIL held by every caller.
    unsafe {
        let all = ffi::PyTuple_New(of.len() as _);
        for (i, n) in of.enumerate() {
            let number = if all.is_null() { all } else { ffi::PyLong_FromUnsignedLongLong(n) };
            if number.is_null() {
                ffi::Py_XDECREF(all);
                return ptr::null_mut();
            }
            ffi::PyTuple_SET_ITEM(all, i as _, number);
        }
        all
    }
}

/// (counts, all of them in ns).
unsafe fn times_of(times: &Times) -> Object {
    // SAFETY: GIL held by every caller.
    unsafe { tuple([numbers(times.counts.iter().copied()), ffi::PyLong_FromUnsignedLongLong(times.total_ns)]) }
}

unsafe extern "C-unwind" fn latencies(_m: Object, kind: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_O with the GIL.
    unsafe {
        let n = ffi::PyLong_AsSize_t(kind);
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let Some(&kind) = KINDS.get(n) else {
            return error::set(ffi::PyExc_ValueError, "_latencies(): there is no such kind");
        };
        let mut times = Times::default();
        rt.add_latencies(kind, &mut times);
        times_of(&times)
    }
}

/// Those of a priority, None if none has run while it was measured; or those of a group.
unsafe extern "C-unwind" fn waits(_m: Object, whose: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let mut times = Times::default();
    // SAFETY: METH_O with the GIL; what is no number is checked to be a group.
    unsafe {
        if ffi::PyLong_Check(whose) == 0 {
            let Some(group) = super::policy::checked_group(whose) else { return ptr::null_mut() };
            rt.add_waits_of_group(&*core_group(group), &mut times);
            return times_of(&times);
        }
        let n = ffi::PyLong_AsLong(whose);
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let least = i64::from(LEAST_PRIORITY);
        let is_measured = rt.add_waits_of_priority(n.clamp(least, -least) as i8, &mut times);
        if is_measured { times_of(&times) } else { none() }
    }
}

/// Where buckets but the first begin, ns.
unsafe extern "C-unwind" fn bounds(_m: Object, _: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { numbers((0..BUCKETS - 1).map(|bucket| least_ns(bucket + 1))) }
}

unsafe extern "C-unwind" fn totals(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let (available_ns, used_ns) = rt.cpu_ns();
    counts(&[(c"lock_wait_ns", rt.lock_wait_ns()), (c"cpu_available_ns", available_ns), (c"cpu_used_ns", used_ns)])
}

unsafe extern "C-unwind" fn states(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let all = census(rt);
    counts(&[
        (c"runnable", all.runnable),
        (c"running", all.running),
        (c"waiting", all.waiting),
        (c"outside", all.outside),
    ])
}

/// Moments' views of the Ps: how many are idle, Ms that look for work, goroutines in the global queue, and of each P in
/// turn the goroutines in its queue and how many it has ever taken from there to run.
unsafe extern "C-unwind" fn processors(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let [idle, spinning, global] = rt.unused();
    // SAFETY: GIL held.
    unsafe {
        numbers((0..3 + 2 * rt.processors.in_use()).map(|i| match i {
            0 => idle,
            1 => spinning,
            2 => global,
            _ if i % 2 == 1 => rt.processors[i / 2 - 1].queue.len() as u64,
            _ => rt.processors[i / 2 - 2].local_pops.load(Ordering::Relaxed),
        }))
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let table = vec![
        plain(c"_latencies", latencies, ffi::METH_O, c"_latencies(kind, /)\n--\n\n(counts, ns in all); see gort.metrics."),
        plain(
            c"_latency_bounds",
            bounds,
            ffi::METH_NOARGS,
            c"_latency_bounds()\n--\n\nWhere buckets but the first begin, ns.",
        ),
        plain(
            c"_latencies_of",
            waits,
            ffi::METH_O,
            c"_latencies_of(priority_or_group, /)\n--\n\nThe same for what was ready of those; None: nothing was measured.",
        ),
        plain(c"_metric_totals", totals, ffi::METH_NOARGS, c"_metric_totals()\n--\n\nTimes that are added up; see gort.metrics."),
        plain(
            c"_processors",
            processors,
            ffi::METH_NOARGS,
            c"_processors()\n--\n\nIdle, spinning, in the global queue; of each P its queue and its runs.",
        ),
        plain(
            c"_goroutine_states",
            states,
            ffi::METH_NOARGS,
            c"_goroutine_states()\n--\n\nHow many goroutines do what; looks at each.",
        ),
    ];
    // SAFETY: GIL held by the module's init; the table is leaked.
    unsafe { ffi::PyModule_AddFunctions(module, methods(table)) == 0 }
}
