//! Monotonic time.

/// CLOCK_MONOTONIC in nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Whether [`ticks`] are the processor's own, whose rate does not change and which never stand still.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub fn has_ticks() -> bool {
    use std::arch::x86_64::{__cpuid, __get_cpuid_max};
    const POWER: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    __get_cpuid_max(0x8000_0000).0 >= POWER && __cpuid(POWER).edx & INVARIANT != 0
}

/// There are none.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub fn has_ticks() -> bool {
    false
}

/// A count that goes on at one rate, the same in all threads: a third of the time that a look at the clock takes. Only where
/// [`has_ticks`] says so; else it is the clock.
#[inline(always)]
pub fn ticks() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 has the instruction; where it is not allowed the process was built for nothing of this.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    now_ns()
}

/// CPU time of the calling thread, ns.
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of the process, ns.
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of a thread of this process, ns; `None`: there is no such thread (any more).
pub fn cpu_ns_of(tid: u32) -> Option<u64> {
    /// CPUCLOCK_SCHED and CPUCLOCK_PERTHREAD_MASK of Linux, kernel/time/posix-cpu-timers: what pthread_getcpuclockid makes.
    const OF_THREAD: i32 = 2 | 4;
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid timespec.
    let done = unsafe { libc::clock_gettime((!(tid as i32) << 3) | OF_THREAD, &raw mut ts) };
    (done == 0).then_some(ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64)
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid timespec.
    unsafe { libc::clock_gettime(clock, &raw mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}
