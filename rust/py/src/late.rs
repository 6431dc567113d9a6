//! Calls that found no memory to start when they were due: those of timers, and of contexts that are done.
//!
//! Whoever starts a goroutine himself is told that there is no memory for it, and may ask again. Of these nobody knows:
//! one that is lost may be the time-out that somebody waits for. They are started again, the first ones first, until there is
//! memory. Everything here happens under the GIL, and nothing asks for memory or runs Python code.

use crate::task::{self, GoObject, Place};
use gort_core::goroutine::waiter::epoch;
use gort_core::sched;
use gort_core::sys::{clock, signal};
use gort_core::timer::{Event, EventTimer};
use std::cell::UnsafeCell;
use std::ptr;

/// How long until they are tried again, ns.
const RETRY_NS: u64 = 10_000_000;

/// How many are tried at first: each may cost a refused system call. Twice as many each time, while none is refused.
const FIRST: usize = 64;

/// Goroutines that are to start, one reference to each, linked by `result`.
struct Late {
    first: *mut GoObject,
    last: *mut GoObject,
    batch: usize,
    /// The process they are of: `waiter::epoch`. A forked child forgets its parent's timers, and these with them.
    epoch: u32,
    again: EventTimer,
}

struct Guarded(UnsafeCell<Late>);

// SAFETY: used by those who have the GIL, who do not let go of it meanwhile.
unsafe impl Sync for Guarded {}

static LATE: Guarded = Guarded(UnsafeCell::new(Late {
    first: ptr::null_mut(),
    last: ptr::null_mut(),
    batch: FIRST,
    epoch: 0,
    again: EventTimer::new(&AGAIN, 0),
}));

static AGAIN: Event = Event { take: |timer| timer.cast(), fire: |_| start_some(), abandon: |_| {} };

/// Starts the goroutine of a call that is due, now or once there is memory. Steals the reference.
///
/// # Safety
/// GIL held; `obj` was never started, and there is a runtime.
pub(crate) unsafe fn start(obj: *mut GoObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let in_bubble = sched::current_bubble() != 0;
        if !in_bubble {
            (*obj).set(task::PATIENT);
        }
        if try_start(obj) {
            return;
        }
        if in_bubble {
            // Its clock would have gone on by the next try. The last reference would run Python code, which has no place here;
            // it stays.
            signal::write_stderr(&[b"gort: no memory for the call of a timer in a bubble\n"]);
        } else {
            add(obj);
        }
    }
}

/// Whether it started; the reference is given up then.
unsafe fn try_start(obj: *mut GoObject) -> bool {
    // SAFETY: as in `start`. The runtime takes a reference of its own, so that this one is not the last, whose end would run
    // Python code.
    unsafe {
        let started = task::start(&*task::runtime_or_null(), obj, 0, Place::default());
        if started {
            pyo3::ffi::Py_DECREF(obj.cast());
        }
        started
    }
}

/// Has it started again later on. Steals the reference.
///
/// # Safety
/// GIL held; `obj` is not started, or not any more, and there is a runtime.
pub(crate) unsafe fn add(obj: *mut GoObject) {
    // SAFETY: under the GIL; each object is in the list once. There is always room in a heap for this timer: the runtime keeps
    // it (`make_room_for`).
    unsafe {
        let late = LATE.0.get();
        if (*late).epoch != epoch() {
            ((*late).first, (*late).last, (*late).epoch) = (ptr::null_mut(), ptr::null_mut(), epoch());
        }
        if (*late).first.is_null() {
            (*late).first = obj;
        } else {
            (*(*late).last).result = obj.cast();
        }
        (*late).last = obj;
        (*late).batch = FIRST;
        set_again(late);
    }
}

/// Has `start_some` called in a while.
unsafe fn set_again(late: *mut Late) {
    // SAFETY: as in `add`; the timer is static.
    unsafe {
        if !(*late).again.timer.is_queued() {
            let rt = &*task::runtime_or_null();
            rt.start_timer(&raw mut (*late).again, clock::now_ns() + RETRY_NS, 0);
        }
    }
}

/// Starts the first ones; who is refused a stack then comes back by `add`.
fn start_some() {
    // SAFETY: an event fires under the GIL, with a runtime; as in `add`.
    unsafe {
        let late = LATE.0.get();
        for _ in 0..(*late).batch {
            let obj = (*late).first;
            if obj.is_null() {
                return;
            }
            let next = (*obj).result.cast::<GoObject>();
            (*obj).result = ptr::null_mut();
            if !try_start(obj) {
                (*obj).result = next.cast(); // it stays the first
                return set_again(late);
            }
            (*late).first = next;
        }
        (*late).batch *= 2;
        if !(*late).first.is_null() {
            set_again(late);
        }
    }
}
