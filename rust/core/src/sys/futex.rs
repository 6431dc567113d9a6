//! Sleeping on a word, and waking who sleeps there (Linux futex, private).

use crate::primitive::atomic::AtomicU32;
use std::ptr;

/// Why `wait` returned. Spurious wake-ups are `Woken`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// Woken, or the word was not `expected`.
    Woken,
    /// The time ran out.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Sleeps while `*word == expected`, at most `timeout_ns`. Blocks the OS thread.
pub fn wait(word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) -> WaitResult {
    let ts = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let ts_ptr = ts.as_ref().map_or(ptr::null(), ptr::from_ref);
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the timespec outlive the call.
    let rc = unsafe { libc::syscall(libc::SYS_futex, ptr::from_ref(word), op, expected, ts_ptr) };
    if rc == 0 {
        return WaitResult::Woken;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ETIMEDOUT) => WaitResult::TimedOut,
        Some(libc::EINTR) => WaitResult::Interrupted,
        _ => WaitResult::Woken,
    }
}

/// Wakes one sleeper. The word may be gone already: the kernel only uses its address.
#[allow(clippy::not_unsafe_ptr_arg_deref, reason = "the pointer is passed on, never read")]
pub fn wake_one(word: *const AtomicU32) {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: FUTEX_WAKE does not touch user memory.
    unsafe { libc::syscall(libc::SYS_futex, word, op, 1) };
}
