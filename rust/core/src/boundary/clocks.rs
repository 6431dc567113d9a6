//! Clocks: what the interpreter and its own modules read in a bubble is the bubble's clock, and the times that they count from
//! it are the bubble's.
//!
//! Except for the one that the interpreter waits for its own lock until: that wait is the world's (`host_lock`).

use super::caller::goroutines_machine;
use super::hooks::original;
use crate::primitive::atomic::Ordering;
use crate::sched::{self, bubble};
use libc::{c_int, clockid_t, time_t, timespec};

pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// What a bubble's monotonic clocks show at its beginning: some time after a start, as programs expect, and little enough for
/// differences of floats to be exact.
const MONOTONIC_START_NS: u64 = 1000 * SECOND_NS;

/// The time in the bubble of the goroutine that called a hook, outside of a signal handler, if it is in one.
#[inline]
fn bubbles_now_ns() -> Option<u64> {
    if !bubble::is_any() {
        return None;
    }
    let m = goroutines_machine();
    // SAFETY: this thread's M.
    if m.is_null() || unsafe { (*m).signal_depth.load(Ordering::Relaxed) } != 0 {
        return None;
    }
    sched::bubble_now_ns()
}

/// By how much the bubble's own time is ahead of what `clock_id` shows in it; `None`: that clock is the world's.
fn ahead_ns(clock_id: clockid_t) -> Option<u64> {
    match clock_id {
        libc::CLOCK_REALTIME => Some(0),
        libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME => Some(bubble::START_NS - MONOTONIC_START_NS),
        _ => None,
    }
}

/// What `clock_id` shows the calling goroutine in its bubble; `None`: it is in none, or sees the world's.
pub(super) fn shown_ns(clock_id: clockid_t) -> Option<u64> {
    Some(bubbles_now_ns()? - ahead_ns(clock_id)?)
}

/// `until_ns` of `clock_id` as a deadline of the calling goroutine's bubble; `None` as for `shown_ns`.
pub(super) fn bubbles_deadline(clock_id: clockid_t, until_ns: u64) -> Option<u64> {
    bubbles_now_ns()?;
    Some(until_ns.saturating_add(ahead_ns(clock_id)?))
}

/// `clock_gettime`.
pub(super) unsafe extern "C" fn clock_gettime(clock_id: clockid_t, time: *mut timespec) -> c_int {
    if let Some(now_ns) = shown_ns(clock_id)
        // SAFETY: the C function's own contract.
        && let Some(time) = unsafe { time.as_mut() }
    {
        *time = super::sleep::timespec_of(now_ns);
        return 0;
    }
    // SAFETY: as called.
    unsafe { original::clock_gettime::call(clock_id, time) }
}

/// `time`.
pub(super) unsafe extern "C" fn time(result: *mut time_t) -> time_t {
    let Some(now_ns) = bubbles_now_ns() else {
        // SAFETY: as called.
        return unsafe { original::time::call(result) };
    };
    let seconds = (now_ns / SECOND_NS) as time_t;
    // SAFETY: the C function's own contract.
    if let Some(result) = unsafe { result.as_mut() } {
        *result = seconds;
    }
    seconds
}
