//! fork, as pthread_atfork sees it: before it every lock that a thread without the host's lock may hold is taken, after it they
//! are let go in both processes, and in the child the runtime begins anew (`sched::fork`).
//!
//! The order: that of the installation comes first, for its holder may wait for the loader's lock, whose holder may run
//! code that wants one of the others. Those are held by nobody who waits for anything. Signals are blocked meanwhile: no
//! handler may come upon a lock that its own thread holds. vfork and posix_spawn call none of this: their child shares our
//! memory, and only what looks at the process's number (`descriptors`) knows it.

use super::{caller, descriptors, dns, elf, identity, install, keys, semaphore, signals, threads};
use crate::sched;
use crate::sys::signal::{Mask, set_mask};
use std::any::Any;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

struct Held {
    // Let go in this order: the last to be taken first.
    sched: sched::fork::Held,
    dns: dns::Held,
    threads: threads::Held,
    others: Vec<Box<dyn Any>>,
    mask: Mask,
    parking: bool,
}

/// What the thread that forks holds, from its `prepare` on.
static HELD: AtomicPtr<Held> = AtomicPtr::new(ptr::null_mut());

/// Has forks go by way of this file. `false`: the system refuses (no memory).
pub(super) fn watch() -> bool {
    // SAFETY: the handlers keep the rules of their places, as their texts say.
    unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) == 0 }
}

unsafe extern "C" fn prepare() {
    let Some(rt) = super::runtime() else { return };
    let mask = signals::block_signals();
    let mut others: Vec<Box<dyn Any>> = vec![Box::new(install::lock()), Box::new(elf::hold())];
    others.push(Box::new(signals::hold()));
    others.push(Box::new(keys::hold()));
    let threads = threads::hold();
    let dns = dns::hold();
    let sched = rt.before_fork();
    let held = Held { sched, dns, threads, others, mask, parking: caller::is_parking_allowed() };
    // Nobody else is here: the locks are held. Taken back by the same thread, in one process or in two.
    HELD.store(Box::into_raw(Box::new(held)), Ordering::Relaxed);
}

fn take_held() -> Option<Box<Held>> {
    let held = HELD.swap(ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: made by `prepare` on this thread.
    (!held.is_null()).then(|| unsafe { Box::from_raw(held) })
}

impl Held {
    fn release(self) {
        let Self { sched, dns, threads, others, mask, .. } = self;
        drop((sched, dns, threads));
        others.into_iter().rev().for_each(drop);
        set_mask(mask);
    }
}

unsafe extern "C" fn in_parent() {
    if let Some(held) = take_held() {
        held.release();
    }
}

/// Without the host's lock (or without a runtime that could be told) the child stays as it is: every hook passes through.
unsafe extern "C" fn in_child() {
    caller::allow_parking(false);
    let Some(mut held) = take_held() else { return };
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
