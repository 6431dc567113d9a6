//! Monotonic time.

/// CLOCK_MONOTONIC in nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
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
