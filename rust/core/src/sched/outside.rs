//! Goroutines without a P: theirs was taken while they were in a call. One that comes back from its call computes beside those
//! that have a P, and shares the host's lock with them. sysmon looks whether any does so for a slice, and has it interrupted
//! as if it had a P: at its next safe point it queues for one. (In Go the call's return does that, exitsyscall0.)

use super::idle;
use super::machine::Machine;
use super::runtime::Runtime;
use crate::primitive::atomic::Ordering;
use std::ptr;

/// How often sysmon looks at them, ns: there may be thousands, and a slice is longer.
const PERIOD_NS: u64 = 1_000_000;

struct Watched {
    machine: *mut Machine,
    /// It computes since then.
    since_ns: u64,
    /// How often it was asked; who does not hear is asked less and less often.
    asked: u64,
}

/// What sysmon keeps of them.
#[derive(Default)]
pub(super) struct Outside {
    watched: Vec<Watched>,
    looked_ns: u64,
}

/// Ms new among them; under a lock of its own.
#[derive(Default)]
pub(super) struct NewOutside(Vec<*mut Machine>);
// SAFETY: Ms are never freed.
unsafe impl Send for NewOutside {}

impl Runtime {
    /// The P of `m` was taken. Host attached.
    pub(super) fn note_outside(&self, m: &Machine) {
        // SeqCst, here and in `watch_outside`: after the P was taken away. Either that look sees it, or this call what it stored.
        if !m.is_outside.swap(true, Ordering::SeqCst) {
            let mut new = self.outside.lock().unwrap_or_else(|e| e.into_inner());
            if new.0.try_reserve(1).is_ok() {
                new.0.push(ptr::from_ref(m).cast_mut());
            } else {
                m.is_outside.store(false, Ordering::SeqCst); // no memory: not watched until the next time
            }
        }
    }

    /// sysmon's look at them; returns whether any computes.
    pub(super) fn watch_outside(&self, outside: &mut Outside, now_ns: u64) -> bool {
        if now_ns < outside.looked_ns + PERIOD_NS {
            return !outside.watched.is_empty();
        }
        outside.looked_ns = now_ns;
        {
            let mut new = self.outside.lock().unwrap_or_else(|e| e.into_inner());
            if outside.watched.try_reserve(new.0.len()).is_ok() {
                let all = new.0.drain(..);
                outside.watched.extend(all.map(|machine| Watched { machine, since_ns: now_ns, asked: 0 }));
            }
        }
        let is_short_of_processors = self.idle_processors.load(Ordering::Relaxed) == 0;
        let must_come = is_short_of_processors || self.cancels.load(Ordering::Relaxed) != 0;
        let mut any = false;
        outside.watched.retain_mut(|w| {
            // SAFETY: Ms are never freed.
            let m = unsafe { &*w.machine };
            if !m.is_without_processor() {
                m.is_outside.store(false, Ordering::SeqCst);
                // Once more: its next P may have been taken just before, and nobody noted it.
                return m.is_without_processor() && !m.is_outside.swap(true, Ordering::SeqCst);
            }
            if self.is_out(m) {
                (w.since_ns, w.asked) = (now_ns, 0);
                return true;
            }
            any = true;
            let patience_ns = self.config.slice_ns * (1 + w.asked);
            // Somebody in its mail waits for this very thread: main, where it may not go on elsewhere. Relaxed: a hint.
            let must_come = must_come || m.mail_count.load(Ordering::Relaxed) != 0;
            if must_come && now_ns.saturating_sub(w.since_ns) >= patience_ns && self.send_interrupter(w.machine) {
                w.since_ns = now_ns;
                w.asked += 1;
            }
            true
        });
        any
    }

    /// Sends an M that sleeps, or a new one, to interrupt the goroutine of `whom`. `false`: none could be had.
    fn send_interrupter(&self, whom: *mut Machine) -> bool {
        let m = idle::sleeper_or_new(self);
        if m.is_null() {
            return false;
        }
        // SAFETY: as for `sleeper_or_new`; published by the note.
        unsafe {
            (*m).interrupts.store(whom, Ordering::Relaxed);
            idle::notify(m);
        }
        true
    }
}

impl Machine {
    /// On a goroutine's stack, without a P. A moment's view unless the host's lock is held.
    fn is_without_processor(&self) -> bool {
        self.p().is_null() && !self.in_scheduler.load(Ordering::Acquire) // pairs with the Release in `execute`
    }

    /// Has the goroutine of `whom` come to a safe point, if it still has no P.
    ///
    /// # Safety
    /// Host attached with this M's home state; `whom` is an M.
    pub(super) unsafe fn interrupt_outsider(&self, whom: *mut Machine) {
        // SAFETY: Ms are never freed. The host's lock is held, so one outside g0 stays there.
        unsafe {
            if (*whom).is_without_processor() {
                self.interrupt(&*whom, 0);
            }
        }
    }
}
