//! Go's LockOSThread (runtime/proc.go): a goroutine that stays on its OS thread, which runs nobody else meanwhile.
//!
//! While it is parked its M sleeps for it (`mail`), and the P goes to another M: each hand-over between it and other goroutines
//! is one between OS threads. Other than in Go the thread of one that ends locked serves others again: what the runtime
//! knows of such a thread (mask, CPUs, priority) it puts back itself.

use super::machine::{Machine, current_machine};
use super::park::sleep_until;
use super::runtime::Runtime;
use crate::goroutine::Bundle;
use crate::primitive::atomic::Ordering;
use std::ptr;

/// How often a main goroutine that waits for its own thread looks for it, ns.
const LOOK_NS: u64 = 1_000_000;

/// One lock more on the running goroutine. The main goroutine's thread is the main thread: if that sits in another goroutine's
/// call, this parks until it is free. Nothing on a plain thread.
pub fn lock_os_thread(rt: &'static Runtime) {
    come_home(rt);
    with_bundle(|bundle| {
        if bundle.locks == 0 {
            bundle.wired += 1;
        }
        bundle.locks += 1;
    });
}

/// One lock less; nothing without any, as in Go.
pub fn unlock_os_thread() {
    with_bundle(|bundle| match bundle.locks {
        0 => {}
        1 => unlock_at_end(bundle),
        _ => bundle.locks -= 1,
    });
}

/// The goroutine of `bundle` ends, or unlocks for the last time.
pub(super) fn unlock_at_end(bundle: &mut Bundle) {
    if bundle.locks != 0 {
        bundle.locks = 0;
        bundle.wired -= 1;
    }
}

#[inline(never)] // the M is asked for anew: the goroutine may have moved
fn with_bundle(change: impl FnOnce(&mut Bundle)) {
    let m = current_machine();
    if !m.is_null() {
        // SAFETY: this thread's M; its goroutine runs this, and has a bundle.
        unsafe { change(&mut *(*(*m).current).bundle) };
    }
}

fn come_home(rt: &'static Runtime) {
    while is_away(rt) {
        sleep_until(rt, super::now_ns() + LOOK_NS);
    }
}

/// Whether this is the main goroutine, on another M than its own.
#[inline(never)] // as above
fn is_away(rt: &Runtime) -> bool {
    let m = current_machine();
    // SAFETY: this thread's M; the main goroutine is never freed.
    unsafe {
        if m.is_null() || !ptr::eq((*m).current, rt.main.load(Ordering::Relaxed)) {
            return false;
        }
        !ptr::eq((*(*m).current).owner().cast::<Machine>(), m)
    }
}
