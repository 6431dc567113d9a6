//! Waits for the host's lock: CPython's `take_gil` is the one caller of `pthread_cond_timedwait` in the interpreter
//! (Python/ceval_gil.c; its other locks are semaphores). A goroutine that waits there is detached, as in a call that
//! blocks, but an M sent to take its P would wait for the same lock, and be one more that others wait for.
//!
//! The time it waits until was counted from a clock that in a bubble is the bubble's (`clocks`). The wait is the world's.

use super::caller::goroutines_machine;
use super::clocks;
use super::hooks::original;
use super::sleep::{ns_of, timespec_of};
use crate::primitive::atomic::Ordering;
use crate::sched::current_machine;
use crate::sched::machine::Machine;
use crate::sys::clock;
use libc::{c_int, pthread_cond_t, pthread_mutex_t, timespec};
use std::ptr;

/// A time of the caller's bubble as one of the world's; `None`: it is in none. By the clock that shows about that time: the
/// monotonic one, but where condition variables know only the other.
unsafe fn worlds_time(until: *const timespec) -> Option<timespec> {
    // SAFETY: the caller's record.
    let until_ns = ns_of(unsafe { until.as_ref() }?)?;
    let shown_ns = |clock_id| Some((clock_id, clocks::shown_ns(clock_id)?));
    let shown = [shown_ns(libc::CLOCK_MONOTONIC)?, shown_ns(libc::CLOCK_REALTIME)?];
    let (clock_id, now_ns) = shown.into_iter().min_by_key(|(_, now_ns)| until_ns.abs_diff(*now_ns))?;
    let left_ns = until_ns.saturating_sub(now_ns);
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec.
    let rc = unsafe { libc::clock_gettime(clock_id, &raw mut now) };
    (rc == 0).then_some(timespec_of(ns_of(&now)? + left_ns))
}

/// One wait of the calling thread, whose M is `m`, with a note of how long it was.
fn timed(m: *mut Machine, wait: impl FnOnce() -> c_int) -> c_int {
    let began_ns = clock::now_ns();
    let result = wait();
    // SAFETY: this thread's M.
    unsafe { (*m).note_lock_wait(began_ns, result == libc::ETIMEDOUT) };
    result
}

/// Passes on, and lets sysmon know meanwhile.
pub(super) unsafe extern "C" fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    let m = goroutines_machine();
    // SAFETY: as called.
    let translated = unsafe { worlds_time(until) };
    let until = translated.as_ref().map_or(until, ptr::from_ref);
    let wait = || {
        // SAFETY: as called.
        unsafe { original::pthread_cond_timedwait::call(condition, mutex, until) }
    };
    if m.is_null() {
        let m = current_machine(); // on g0
        return if m.is_null() { wait() } else { timed(m, wait) };
    }
    // SAFETY: this thread's M, before and after: who waits on an OS thread stays on it. Relaxed: a hint for sysmon.
    unsafe {
        let before = (*m).in_hook.swap(true, Ordering::Relaxed);
        let result = timed(m, wait);
        (*m).in_hook.store(before, Ordering::Relaxed);
        result
    }
}
