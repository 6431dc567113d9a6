//! fork, as pthread_atfork sees it: before it every lock that a thread without the host's lock may hold is taken, after it they
//! are let go in both processes, and in the child the runtime begins anew (`sched::fork`).
//!
//! The order: that of the installation comes first, for its holder may wait for the loader's lock, whose holder may run
//! code that wants one of the others. Those are held by nobody who waits for anything. Signals are blocked meanwhile: no
//! handler may come upon a lock that its own thread holds. vfork and posix_spawn call none of this: their child shares our
//! memory, and only what looks at the process's number (`descriptors`) knows it.

use super::{caller, descriptors, dns, elf, identity, install, keys, semaphore, signals, threads};
use crate::sys::over_fork::OverFork;
use crate::sys::signal::{Mask, set_mask};
use crate::{primitive, sched};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};

struct Held {
    // Let go in this order: the last to be taken first.
    sched: sched::fork::Held,
    dns: dns::Held,
    threads: threads::Held,
    keys: keys::Held,
    signals: MutexGuard<'static, ()>,
    editing: primitive::MutexGuard<'static, ()>,
    boundary: MutexGuard<'static, Option<install::Boundary>>,
    mask: Mask,
    parking: bool,
}

/// What the thread that forks holds, from its `prepare` on.
static HELD: OverFork<Held> = OverFork::new();

/// Whether forks go by way of this file.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Has forks go by way of this file. `false`: the system refuses (no memory).
pub(super) fn watch() -> bool {
    // Relaxed, here and below: called with the host's lock.
    if !WATCHED.load(Ordering::Relaxed) {
        // SAFETY: the handlers keep the rules of their places, as their texts say.
        let done = unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
        WATCHED.store(done == 0, Ordering::Relaxed);
    }
    WATCHED.load(Ordering::Relaxed)
}

unsafe extern "C" fn prepare() {
    let Some(rt) = super::runtime() else { return };
    let mask = signals::block_signals();
    let (boundary, editing) = (install::lock(), elf::hold());
    let (signals, keys) = (signals::hold(), keys::hold());
    let (threads, dns) = (threads::hold(), dns::hold());
    let (sched, parking) = (rt.before_fork(), caller::is_parking_allowed());
    let held = Held { sched, dns, threads, keys, signals, editing, boundary, mask, parking };
    // SAFETY: whoever else comes here waits for the locks that are held.
    unsafe { HELD.put(held) };
}

impl Held {
    fn release(self) {
        let Self { sched, dns, threads, keys, signals, editing, boundary, mask, .. } = self;
        drop((sched, dns, threads));
        drop((keys, signals, editing, boundary));
        set_mask(mask);
    }
}

unsafe extern "C" fn in_parent() {
    if let Some(held) = HELD.take() {
        held.release();
    }
}

/// Without the host's lock (or without a runtime that could be told) the child stays as it is: every hook passes through.
unsafe extern "C" fn in_child() {
    caller::allow_parking(false);
    let Some(mut held) = HELD.take() else { return };
    // SAFETY: a runtime is there, or nothing would be held. This thread is the only one, and where it has the host's lock,
    // nobody was in the middle of what that guards.
    unsafe {
        if let Some(rt) = super::runtime()
            && rt.forker_is_attached()
        {
            let survivor = rt.in_child(&mut held.sched);
            let me = identity::of(survivor);
            identity::begin(me);
            threads::forget(&mut held.threads, me);
            dns::forget(&mut held.dns);
            semaphore::forget();
            descriptors::note_process();
            caller::allow_parking(held.parking);
        }
    }
    held.release();
}
