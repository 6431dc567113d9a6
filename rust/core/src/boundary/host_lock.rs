//! Waits for the host's lock: CPython's `take_gil` is the one caller of `pthread_cond_timedwait` in the interpreter
//! (Python/ceval_gil.c; its other locks are semaphores). A goroutine that waits there is detached, as in a call that
//! blocks, but an M sent to take its P would wait for the same lock, and be one more that others wait for.

use super::caller::goroutines_machine;
use super::hooks::original;
use crate::primitive::atomic::Ordering;
use libc::{c_int, pthread_cond_t, pthread_mutex_t, timespec};

/// Passes on, and lets sysmon know meanwhile.
pub(super) unsafe extern "C" fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    let m = goroutines_machine();
    let wait = || {
        // SAFETY: as called.
        unsafe { original::pthread_cond_timedwait::call(condition, mutex, until) }
    };
    if m.is_null() {
        return wait();
    }
    // SAFETY: this thread's M, before and after: who waits on an OS thread stays on it. Relaxed: a hint for sysmon.
    unsafe {
        let before = (*m).in_hook.swap(true, Ordering::Relaxed);
        let result = wait();
        (*m).in_hook.store(before, Ordering::Relaxed);
        result
    }
}
