//! Sleeping: timers of the scheduler instead of the kernel's. Times by the caller's clock become durations, so that a
//! library that fakes that clock for the program fakes it here as well; in a bubble they are the bubble's (`clocks`).

use super::caller::caller;
use super::clocks::{self, SECOND_NS};
use super::hooks::original;
use crate::sched;
use crate::sys::errno;
use libc::{c_int, c_uint, clockid_t, timespec, useconds_t};

/// A valid timespec as ns; `None` for one that the kernel refuses.
pub(super) fn ns_of(time: &timespec) -> Option<u64> {
    let ns = u64::try_from(time.tv_nsec).ok().filter(|&ns| ns < SECOND_NS)?;
    Some(u64::try_from(time.tv_sec).ok()?.saturating_mul(SECOND_NS).saturating_add(ns))
}

/// `until` of `clock` as a deadline of the scheduler's clock; `None` if clock or time are none.
///
/// # Safety
/// `until` is null or readable.
pub(super) unsafe fn deadline_of(clock_id: clockid_t, until: *const timespec) -> Option<u64> {
    // SAFETY: the caller's promise.
    let until = unsafe { until.as_ref() }?;
    // A time before the clock's start is over, not wrong.
    let until_ns = if until.tv_sec < 0 && (0..SECOND_NS as i64).contains(&until.tv_nsec) { 0 } else { ns_of(until)? };
    if let Some(deadline) = clocks::bubbles_deadline(clock_id, until_ns) {
        return Some(deadline);
    }
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec.
    if unsafe { libc::clock_gettime(clock_id, &raw mut now) } != 0 {
        return None;
    }
    Some(sched::now_ns().saturating_add(until_ns.saturating_sub(ns_of(&now)?)))
}

pub(super) fn timespec_of(ns: u64) -> timespec {
    timespec { tv_sec: (ns / SECOND_NS) as libc::time_t, tv_nsec: (ns % SECOND_NS) as libc::c_long }
}

/// `clock_nanosleep`: returns the error number.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn clock_nanosleep(
    clock_id: clockid_t,
    flags: c_int,
    time: *const timespec,
    left: *mut timespec,
) -> c_int {
    let known = matches!(clock_id, libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME | libc::CLOCK_BOOTTIME);
    let absolute = flags & libc::TIMER_ABSTIME != 0;
    let Some(caller) = caller().filter(|_| known) else {
        // SAFETY: as called.
        return unsafe { original::clock_nanosleep::call(clock_id, flags, time, left) };
    };
    // SAFETY: the C function's own contract.
    let deadline = unsafe {
        time.as_ref().and_then(ns_of).and_then(|ns| match absolute {
            true => deadline_of(clock_id, time),
            false => Some(sched::now_ns().saturating_add(ns)),
        })
    };
    let Some(deadline) = deadline else { return libc::EINVAL };
    let before = errno::get();
    original::clock_nanosleep::COUNTS.park();
    let slept = caller.sleep_until(deadline);
    errno::set(before);
    if slept {
        return 0;
    }
    if !absolute && !left.is_null() {
        // SAFETY: the C function's own contract.
        unsafe { *left = timespec_of(deadline.saturating_sub(sched::now_ns())) };
    }
    libc::EINTR
}

/// Sleeps `ns` for the hooks that set errno; the ns left when a signal came.
fn sleep_ns(ns: u64) -> Option<Result<(), u64>> {
    let caller = caller()?;
    let deadline = sched::now_ns().saturating_add(ns);
    let before = errno::get();
    if caller.sleep_until(deadline) {
        errno::set(before);
        return Some(Ok(()));
    }
    errno::set(libc::EINTR);
    Some(Err(deadline.saturating_sub(sched::now_ns())))
}

/// `nanosleep`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int {
    // SAFETY: the C function's own contract, here and below.
    let Some(result) = unsafe { time.as_ref() }.and_then(ns_of).and_then(sleep_ns) else {
        // SAFETY: as called; wrong times are the original's to refuse.
        return unsafe { original::nanosleep::call(time, left) };
    };
    original::nanosleep::COUNTS.park();
    let Err(left_ns) = result else { return 0 };
    if !left.is_null() {
        // SAFETY: as above.
        unsafe { *left = timespec_of(left_ns) };
    }
    -1
}

/// `usleep`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn usleep(us: useconds_t) -> c_int {
    let Some(result) = sleep_ns(u64::from(us) * 1_000) else {
        // SAFETY: as called.
        return unsafe { original::usleep::call(us) };
    };
    original::usleep::COUNTS.park();
    if result.is_ok() { 0 } else { -1 }
}

/// `sleep`: the seconds left.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sleep(seconds: c_uint) -> c_uint {
    let Some(result) = sleep_ns(u64::from(seconds) * SECOND_NS) else {
        // SAFETY: as called.
        return unsafe { original::sleep::call(seconds) };
    };
    original::sleep::COUNTS.park();
    result.map_or_else(|left_ns| left_ns.div_ceil(SECOND_NS) as c_uint, |()| 0)
}

/// `sched_yield`: lets other goroutines run, and then other threads.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sched_yield() -> c_int {
    if let Some(caller) = caller() {
        let before = errno::get();
        caller.attached(|_| sched::gosched());
        errno::set(before);
    }
    // SAFETY: no arguments.
    unsafe { original::sched_yield::call() }
}
