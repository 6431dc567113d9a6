//! The calls into the assembly that every CPU's file has, under the same names.

use super::Context;
use std::ffi::c_void;
use std::sync::atomic::Ordering;

unsafe extern "C-unwind" {
    fn gort_context_switch(save: *mut Context, to: *const Context, value: usize) -> usize;
    fn gort_call_to_the_end(function: *const (), a: usize, b: usize, c: usize) -> usize;
}
unsafe extern "C" {
    fn gort_call_on(sp: usize, function: unsafe extern "C" fn(*mut c_void), argument: *mut c_void);
}
unsafe extern "C" {
    fn gort_current_set(value: *mut u8);
}

/// Saves here into `save`, goes on at `to`; returns the value of whoever switches back.
///
/// # Safety
/// `to` was made by `init` or saved by a switch and is resumed once; its stack is mapped. No thread-local address is
/// kept over the call: it may return on another thread.
#[inline(always)]
pub unsafe fn switch(save: *mut Context, to: *const Context, value: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { gort_context_switch(save, to, value) }
}

/// Calls the C function `function(a, b, c)`. If the host ends the thread inside, by unwinding, the thread stays here.
///
/// # Safety
/// `function` is an `extern "C-unwind"` function of at most three pointer-sized arguments, right for these values.
#[inline]
pub unsafe fn call_to_the_end(function: *const (), a: usize, b: usize, c: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { gort_call_to_the_end(function, a, b, c) }
}

/// Calls `function(argument)` below the frames of a suspended stack, which an unwinder that is called there goes through.
///
/// # Safety
/// `sp` is the stack pointer of a context that a switch saved and nobody resumes meanwhile; below it there is room for the call. The
/// function does not switch.
pub unsafe fn call_on(sp: usize, function: unsafe extern "C" fn(*mut c_void), argument: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { gort_call_on(sp, function, argument) }
}

unsafe extern "C" {
    /// Asks the filter for a function and goes on with it as if the caller had called it: no frame is left behind.
    #[link_name = "gort_pass_on"]
    pub fn pass_on(argument: *mut c_void);
}

/// Sets the filter of `pass_on`, before the first call. The first filter counts.
pub fn set_filter(filter: unsafe extern "C" fn(usize) -> usize) {
    let _ = super::FILTER.compare_exchange(0, filter as usize, Ordering::Release, Ordering::Relaxed); // read by assembly
}

/// Sets the calling thread's pointer.
///
/// # Safety
/// What it points to outlives the thread's use of it.
pub unsafe fn current_set(value: *mut u8) {
    // SAFETY: writes this thread's word.
    unsafe { gort_current_set(value) }
}
