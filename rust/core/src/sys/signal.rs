//! Signals the runtime sends to its own threads.

use crate::sys::futex;
use std::ptr;

/// What a frozen thread does: nothing, for ever.
extern "C" fn sleep_for_ever(_signal: libc::c_int) {
    let word = crate::primitive::atomic::AtomicU32::new(0);
    loop {
        let _ = futex::wait(&word, 0, None);
    }
}

/// Stops the thread `tid` of this process where it is, for good. For the end of a process only.
pub fn freeze_thread(tid: u32) {
    // A real-time signal near the top: nothing else is likely to use it, and the process is ending.
    let signal = libc::SIGRTMAX() - 1;
    // SAFETY: the action is fully initialised; the handler only makes system calls and never returns.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = sleep_for_ever as *const () as usize;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, ptr::null_mut());
        libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal);
    }
}
