//! Functions that take a pthread_t, and what belongs to an OS thread: answered for goroutines, whose pthread_t is none.
//!
//! A goroutine's number is only ever known from here (`identity`, `threads`), and no real pthread_t has its value: those
//! are addresses of live thread blocks, and so is a goroutine's of its own live record.

use super::caller::goroutines_machine;
use super::hooks::original;
use super::identity::{self, main_thread};
use super::scheduling;
use super::threads;
use crate::primitive::atomic::Ordering;
use crate::sys::signal;
use libc::{c_char, c_int, clockid_t, pthread_attr_t, sched_param, sigset_t, sigval, size_t};
use std::ptr;

/// Whether `thread` is a goroutine's number: the caller's own, or that of a thread that is a goroutine.
fn is_goroutine(thread: usize) -> bool {
    let is_caller = || thread == identity::pthread_self() && thread != this_thread();
    thread != main_thread() && (is_caller() || threads::is_known(thread) || identity::is_main_goroutine(thread))
}

/// The OS thread under the caller.
fn this_thread() -> usize {
    // SAFETY: no arguments.
    unsafe { original::pthread_self::call() }
}

/// Who gets signals that are sent to a goroutine.
fn receiver() -> usize {
    match main_thread() {
        0 => this_thread(), // a runtime that the main thread has not used yet
        main => main,
    }
}

/// `pthread_kill`. A signal for a goroutine goes to the main thread: handlers run there, and nobody else has a mask.
pub(super) unsafe extern "C" fn pthread_kill(thread: usize, signal: c_int) -> c_int {
    let to = if is_goroutine(thread) { receiver() } else { thread };
    // SAFETY: as called; the main thread lives as long as the process.
    unsafe { original::pthread_kill::call(to, signal) }
}

/// `pthread_sigqueue`.
pub(super) unsafe extern "C" fn pthread_sigqueue(thread: usize, signal: c_int, value: sigval) -> c_int {
    let to = if is_goroutine(thread) { receiver() } else { thread };
    // SAFETY: as in `pthread_kill`.
    unsafe { original::pthread_sigqueue::call(to, signal, value) }
}

/// `pthread_setname_np`: kept for a thread that is a goroutine; the OS thread under it keeps its own.
pub(super) unsafe extern "C" fn pthread_setname_np(thread: usize, name: *const c_char) -> c_int {
    if !is_goroutine(thread) {
        // SAFETY: as called.
        return unsafe { original::pthread_setname_np::call(thread, name) };
    }
    // SAFETY: the C function's own contract.
    let text = unsafe { std::ffi::CStr::from_ptr(name) }.to_bytes_with_nul();
    if text.len() > threads::NAME_BYTES {
        return libc::ERANGE;
    }
    threads::with_name(thread, |kept| kept[..text.len()].copy_from_slice(text));
    0
}

/// `pthread_getname_np`.
pub(super) unsafe extern "C" fn pthread_getname_np(thread: usize, buffer: *mut c_char, size: size_t) -> c_int {
    if !is_goroutine(thread) {
        // SAFETY: as called.
        return unsafe { original::pthread_getname_np::call(thread, buffer, size) };
    }
    if size < threads::NAME_BYTES {
        return libc::ERANGE;
    }
    let name = threads::with_name(thread, |kept| *kept).unwrap_or_default();
    // SAFETY: the caller's buffer of that size.
    unsafe { ptr::copy_nonoverlapping(name.as_ptr(), buffer.cast(), name.len()) };
    0
}

/// `pthread_getattr_np`: the stack of the running goroutine. The original reads /proc/self/maps for the main thread, and
/// knows no other stack than the OS thread's.
pub(super) unsafe extern "C" fn pthread_getattr_np(thread: usize, attributes: *mut pthread_attr_t) -> c_int {
    let bounds =
        if is_goroutine(thread) && thread == identity::pthread_self() { identity::stack_bounds() } else { None };
    // SAFETY: the caller's record.
    unsafe {
        let Some((base, bytes)) = bounds else {
            let of = if is_goroutine(thread) { this_thread() } else { thread };
            return original::pthread_getattr_np::call(of, attributes);
        };
        let error = libc::pthread_attr_init(attributes);
        if error != 0 {
            return error;
        }
        libc::pthread_attr_setguardsize(attributes, 0); // the guard lies below the base
        libc::pthread_attr_setstack(attributes, ptr::with_exposed_provenance_mut(base), bytes)
    }
}

/// `pthread_getcpuclockid`: of the OS thread under the caller.
pub(super) unsafe extern "C" fn pthread_getcpuclockid(thread: usize, clock: *mut clockid_t) -> c_int {
    let of = if is_goroutine(thread) { this_thread() } else { thread };
    // SAFETY: as called.
    unsafe { original::pthread_getcpuclockid::call(of, clock) }
}

/// `pthread_setschedparam`: of a goroutine, of the caller itself only; see `scheduling`.
pub(super) unsafe extern "C" fn pthread_setschedparam(
    thread: usize,
    policy: c_int,
    param: *const sched_param,
) -> c_int {
    let of = match is_goroutine(thread) {
        true if thread == identity::pthread_self() => this_thread(),
        true => return libc::ENOTSUP,
        false => thread,
    };
    // SAFETY: as called.
    scheduling::noted(|| unsafe { original::pthread_setschedparam::call(of, policy, param) })
}

/// `pthread_getschedparam`: of the OS thread under the caller.
pub(super) unsafe extern "C" fn pthread_getschedparam(
    thread: usize,
    policy: *mut c_int,
    param: *mut sched_param,
) -> c_int {
    let of = if is_goroutine(thread) { this_thread() } else { thread };
    // SAFETY: as called.
    unsafe { original::pthread_getschedparam::call(of, policy, param) }
}

/// `pthread_sigmask`: of the running goroutine. Others begin with what main has.
pub(super) unsafe extern "C" fn pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
    // SAFETY: as called.
    let result = unsafe { original::pthread_sigmask::call(how, set, old) };
    // A child after vfork sets its own mask, and would change the parent's notes.
    if result == 0 && !set.is_null() && super::descriptors::is_this_process() {
        note_mask();
    }
    result
}

fn note_mask() {
    let m = goroutines_machine();
    if m.is_null() {
        return;
    }
    // SAFETY: as `goroutines_machine` says.
    unsafe {
        let (rt, g) = ((*m).rt, (*m).current);
        (*m).mask = signal::mask();
        (*(*g).bundle).mask = (*m).mask;
        if ptr::eq(g, rt.main.load(Ordering::Relaxed)) {
            rt.set_mains_mask((*m).mask);
        }
    }
}
