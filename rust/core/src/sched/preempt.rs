//! Preemption: who computes longer than a slice while others wait lets them run at its next safe point.
//!
//! sysmon sees the slice end and sends an M for the host's lock, which the goroutine gives up for a moment at a safe point of
//! the host's own. With the lock held the M has the host make the next safe point ours (`Host::interrupt`) and goes back to
//! sleep. It costs nothing while nobody waits. Who cannot be interrupted loses its P instead, as after a call that lasts, and
//! shares the host's lock with whoever runs on it.

use super::local_queue::CAPACITY;
use super::machine::{Action, Machine};
use super::park::{give_way, ready_wait};
use super::processor::Processor;
use super::runtime::{REQUEST_NET, Runtime};
use super::{current_goroutine, current_machine};
use crate::goroutine::waiter::{Outcome, Wait};
use crate::goroutine::{Bundle, Goroutine};
use crate::primitive::atomic::Ordering;
use std::ptr;

/// Who keeps the host's lock for so long, though asked for it, is in a call that does not let go of it: ten times CPython's
/// switch interval, ns.
const KEPT_LONG_NS: u64 = 50_000_000;

impl Runtime {
    /// The slice of the goroutine on `p` is over. Returns whether an M is on its way.
    pub(super) fn ask_to_preempt(&self, p: &Processor) -> bool {
        p.is_overdue.store(true, Ordering::Relaxed); // published by the note of the M that is sent
        self.send_taker(p)
    }

    /// Somebody is due who may go before the goroutine on `p`. Returns whether an M is on its way.
    pub(super) fn ask_to_look(&self, p: &Processor) -> bool {
        p.is_looked_at.store(true, Ordering::Relaxed); // as above
        self.send_taker(p)
    }

    /// Readies whoever the clock or a descriptor has woken. Who goes before somebody that computes has him interrupted.
    ///
    /// # Safety
    /// Host attached.
    pub(super) unsafe fn ready_due(&'static self, p: &Processor) {
        // SAFETY: the caller's promise.
        unsafe { self.run_timers(p) };
        if self.requests.load(Ordering::Relaxed) & REQUEST_NET != 0 {
            self.serve_requests();
        }
        if self.policies.watches_wakes() {
            // SAFETY: as above.
            unsafe { self.interrupt_outranked() };
        }
    }

    /// Who computes on `p`, and is to be interrupted or looked at by the calling M, lets go of the host's lock at once, and not
    /// when the host itself finds that others wait for it.
    pub(super) fn hurry(&self, p: &Processor) {
        if p.is_overdue.load(Ordering::Relaxed) || p.is_looked_at.load(Ordering::Relaxed) {
            // SAFETY: Ms are never freed. Acquire: pairs with the Release of who gave it the P.
            if let Some(m) = unsafe { p.machine.load(Ordering::Acquire).as_ref() } {
                self.hurry_on(m);
            }
        }
    }

    /// The same of the goroutine on `m`. The caller attaches at once: who lets go waits until somebody has taken the lock.
    pub(super) fn hurry_on(&self, m: &Machine) {
        // Held so that the state is not deleted meanwhile, and against `stop`: nobody would take the lock then.
        let _guard = self.state_delete.lock().unwrap_or_else(|e| e.into_inner());
        // Acquire: pair with the Release in `execute` and in `stop`. Before the state, as in `host_out`.
        let is_inside = m.in_scheduler.load(Ordering::Acquire) || self.stopping.load(Ordering::Acquire);
        let host = m.visible_host.load(Ordering::Acquire);
        let may_be_gone = host.addr() & Bundle::MAY_BE_GONE != 0;
        if !is_inside && !may_be_gone && !host.is_null() {
            // SAFETY: alive under the guard.
            unsafe { (self.host.hurry)(host) };
        }
    }
}

impl Machine {
    /// Has the goroutine of `victim`, an M outside g0 that waits for the host's lock, come to a safe point. This M has waited
    /// for that lock for `waited_ns`.
    ///
    /// # Safety
    /// Host attached with this M's home state.
    pub(super) unsafe fn interrupt(&self, victim: &Machine, waited_ns: u64) -> bool {
        // SAFETY: the host's lock is held, so a victim outside g0 cannot move: its goroutine and that one's state stay.
        unsafe {
            let g = victim.current;
            if !g.is_null() && waited_ns >= KEPT_LONG_NS {
                (*(*g).bundle).kept_lock_ns.fetch_max(waited_ns, Ordering::Relaxed); // for dumps
            }
            if g.is_null() || (*(*g).bundle).is_thread {
                return false; // a thread's state is whatever its code made it
            }
            (*(*g).bundle).no_preempt != 0 || (self.rt.host.interrupt)((*(*g).bundle).host)
        }
    }
}

impl Machine {
    /// `g`, preempted just now, goes behind the others. Whoever the clock or a descriptor has woken comes first: those on the
    /// P that have not begun go into the global queue, or they could all turn out to compute for a slice before.
    ///
    /// # Safety
    /// On g0; this M owns `g`, which is runnable.
    pub(super) unsafe fn put_behind(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise; its P is this M's.
        unsafe {
            let owner = (*g).owner().cast::<Machine>();
            if let Some(p) = self.p().as_ref() {
                p.latency.note_ready(g);
                let (mut begun, mut count) = ([ptr::null_mut(); CAPACITY], 0);
                while let Some((other, _)) = p.queue.pop() {
                    if (*other).bundle.is_null() {
                        self.rt.inject.push(other);
                    } else {
                        begun[count] = other;
                        count += 1;
                    }
                }
                begun[..count].iter().for_each(|&other| self.rt.push_back(p, other));
                self.keep_next();
            }
            self.rt.inject.push_behind(g);
            self.rt.wake_one(owner);
        }
    }
}

impl Runtime {
    /// Has `g` end at its next park or safe point.
    ///
    /// # Safety
    /// A live goroutine of this runtime; host attached.
    pub unsafe fn ask_to_end(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise. Relaxed: under the host's lock; for sysmon a hint.
        if unsafe { (*g).cancel_requested.swap(Goroutine::ASKED_TO_END, Ordering::Relaxed) } != Goroutine::ASKED_TO_END
        {
            self.cancels.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether `g` was asked to end; it is not any more.
    ///
    /// # Safety
    /// As for `ask_to_end`.
    pub unsafe fn take_request_to_end(&self, g: *mut Goroutine) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.answer_request_to_end(g, 0) }
    }

    unsafe fn answer_request_to_end(&self, g: *mut Goroutine, then: u8) -> bool {
        // SAFETY: the caller's promise.
        let request = unsafe { &(*g).cancel_requested };
        let was_asked = request.load(Ordering::Relaxed) == Goroutine::ASKED_TO_END;
        if was_asked {
            request.store(then, Ordering::Relaxed);
            self.cancels.fetch_sub(1, Ordering::Relaxed);
        }
        was_asked
    }

    /// Ends `wait`, in which the running goroutine `g` is about to park, if it was asked to end. The host may not have come to
    /// raise what it was told to at the last safe point: there need be no other one before the park.
    ///
    /// # Safety
    /// `g` is about to park in `wait`, which it has announced; host attached.
    #[cold]
    pub(super) unsafe fn cancel_at_park(&self, g: *mut Goroutine, wait: &Wait) {
        // SAFETY: the caller's promise.
        unsafe {
            let request = &(*g).cancel_requested;
            let ends_soon = request.load(Ordering::Relaxed) == Goroutine::ENDS_SOON;
            if ends_soon && !(self.host.ends_soon)(false) {
                request.store(0, Ordering::Relaxed); // it was raised
                return;
            }
            if wait.listens.is_for(Outcome::Cancelled) && wait.claim(Outcome::Cancelled) {
                if ends_soon {
                    (self.host.ends_soon)(true);
                    request.store(0, Ordering::Relaxed);
                }
                ready_wait(wait);
            }
        }
    }
}

/// At a safe point, after `Host::interrupt`: lets others run unless nobody waits any more. Returns whether the goroutine has
/// to end.
pub fn preempted() -> bool {
    let (m, g) = (current_machine(), current_goroutine());
    // SAFETY: this thread's M and its goroutine.
    unsafe {
        if m.is_null() || g.is_null() || (*(*g).bundle).no_preempt != 0 {
            return false;
        }
        let rt = (*m).rt;
        rt.counters.preemptions.fetch_add(1, Ordering::Relaxed);
        give_way(Action::Preempt);
        rt.answer_request_to_end(g, Goroutine::ENDS_SOON)
    }
}
