//! errno of the calling thread. Never a reference to it: the caller may go on on another thread.

/// Its value.
pub fn get() -> i32 {
    // SAFETY: the address is valid for the calling thread, and not kept.
    unsafe { *location() }
}

/// Sets it.
pub fn set(value: i32) {
    // SAFETY: as in `get`.
    unsafe { *location() = value };
}

/// Where the calling thread has it: a value unlike any other thread's (`boundary` looks for it on stacks).
#[inline(never)] // or the compiler may keep the address over a switch of threads
pub fn location() -> *mut i32 {
    #[cfg(target_os = "macos")]
    // SAFETY: no arguments, cannot fail.
    return unsafe { libc::__error() };
    #[cfg(not(target_os = "macos"))]
    // SAFETY: as above.
    return unsafe { libc::__errno_location() };
}
