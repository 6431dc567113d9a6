//! Goroutines that only one M should run, and how they come to it.
//!
//! The main goroutine belongs to M 0: it is the host's main thread. A goroutine with foreign frames on its stack belongs
//! to the M where it parked: those frames may hold addresses and counts of that thread. Any M may find such a goroutine
//! in a queue; it then hands it, with its P, to the owner if that sleeps, else leaves it in the owner's mail.
//!
//! An M whose goroutine parks or yields with foreign frames keeps itself free for it (Go's LockOSThread), so that no other
//! goroutine's blocking call can hold the parked one up. The main goroutine moves when M 0 is stuck in somebody else's
//! call, and comes back afterwards: a call that blocks stops nobody else, not even main.

use super::machine::Machine;
use super::runtime::Runtime;
use crate::goroutine::{Bundle, Goroutine};
use crate::primitive::atomic::Ordering;
use crate::sys::clock;
use std::ptr;

/// How long the main goroutine waits for its own M before it goes on elsewhere, ns. Shorter, and a program whose
/// goroutines read files would see its main thread change at every read.
const PATIENCE_NS: u64 = 10_000_000;

impl Machine {
    /// Whether this M may run `g`; if not, `g` went to the M it belongs to, with this M's P if that sleeps.
    ///
    /// # Safety
    /// On g0, host attached, with a P; `g` was taken from a queue by this M.
    #[inline]
    pub(super) unsafe fn may_run(&mut self, g: *mut Goroutine) -> bool {
        // SAFETY: `g` belongs to this M until it is handed on.
        unsafe {
            let home = (*g).home.cast::<Machine>();
            home.is_null() || ptr::eq(home, self) || self.may_adopt(g)
        }
    }

    #[cold]
    unsafe fn may_adopt(&mut self, g: *mut Goroutine) -> bool {
        // SAFETY: `g` belongs to this M and has a bundle, for it has run; Ms are never freed.
        unsafe {
            let bundle = &mut *(*g).bundle;
            let owner = (*g).owner().cast::<Machine>();
            let here: *mut Machine = self;
            let is_main = ptr::eq(g, self.rt.main.load(Ordering::Relaxed));
            let is_home = ptr::eq(owner, here);
            let away_on = bundle.away_on.cast::<Machine>();
            let last = if away_on.is_null() { owner } else { away_on };
            if bundle.bound {
                // The main goroutine may be bound to an M that is not its home.
                if !ptr::eq(last, here) {
                    self.send_home(g, last);
                }
                return ptr::eq(last, here);
            }
            if is_main && !is_home && !(*owner).is_stuck.load(Ordering::Relaxed) {
                self.send_home(g, owner);
                return false;
            }
            self.rt.rouse(bundle); // its stack is looked at
            self.adopt_stack(bundle, &*last);
            if is_main && !is_home {
                bundle.away_on = here.cast();
                (*g).home = owner.map_addr(|address| address | Goroutine::AWAY).cast();
            } else {
                bundle.away_on = ptr::null_mut();
                (*g).home = here.cast();
            }
            bundle.migrations += 1;
            true
        }
    }

    /// The running goroutine leaves its stack, at `sp`: binds this M to it if it is wired, or has foreign frames.
    ///
    /// # Safety
    /// On that stack, host attached.
    #[inline]
    pub(super) unsafe fn note_binding(&mut self, bundle: &mut Bundle, sp: usize) {
        let depth = bundle.top.saturating_sub(sp) as u32; // stacks end at 1 GiB
        if bundle.wired != 0 || !bundle.movable_at.contains(&depth) {
            // SAFETY: the caller's promise.
            unsafe { self.look_for_binding(bundle, sp, depth) };
        }
    }

    #[cold]
    unsafe fn look_for_binding(&mut self, bundle: &mut Bundle, sp: usize, depth: u32) {
        // SAFETY: the promise of `note_binding`.
        if bundle.wired == 0 && unsafe { (self.rt.host.is_movable)(sp, bundle.top) } {
            bundle.movable_at.rotate_right(1);
            bundle.movable_at[0] = depth; // one that it does not hold is looked at again
        } else {
            bundle.bound = true;
            self.bound_count += 1;
        }
    }

    /// The first goroutine of the mail, or null.
    ///
    /// # Safety
    /// On this M's thread.
    #[cold]
    pub(super) unsafe fn take_mail(&mut self) -> *mut Goroutine {
        let _idle = self.rt.idle.lock().unwrap_or_else(|e| e.into_inner());
        if self.mail.is_empty() {
            return ptr::null_mut();
        }
        self.mail_count.fetch_sub(1, Ordering::Relaxed); // the idle lock orders it
        self.mail.remove(0)
    }

    /// What a bound M may run: its mail. Without any, or without a P, it gives the P up; null then.
    ///
    /// # Safety
    /// On g0 with the home state current.
    pub(super) unsafe fn bound_work(&mut self) -> *mut Goroutine {
        let rt = self.rt;
        // SAFETY: the caller's promise.
        unsafe {
            if self.mail_count.load(Ordering::Relaxed) != 0 && (!self.p().is_null() || self.acquire_idle_processor()) {
                let g = self.take_mail();
                if !g.is_null() {
                    return g;
                }
            }
            let p = self.processor.swap(ptr::null_mut(), Ordering::Relaxed);
            if !p.is_null() {
                rt.put_idle_processor(&*p);
                if rt.needs_watching() {
                    rt.wake_one(ptr::null_mut());
                }
            }
        }
        ptr::null_mut()
    }

    /// This M's thread is not fit for others any more: from here on it runs who is bound to it, and else sleeps.
    ///
    /// # Safety
    /// On this M's thread.
    pub unsafe fn serve_nobody_else(&mut self) {
        self.bound_count += 1;
    }

    /// Gives `g` and this M's P to the M `g` belongs to, or leaves `g` in that M's mail.
    ///
    /// # Safety
    /// On g0, host attached, with a P; `g` was taken from a queue and belongs to `owner`.
    unsafe fn send_home(&mut self, g: *mut Goroutine, owner: *mut Machine) {
        let rt = self.rt;
        // SAFETY: Ms are never freed; one taken out of its sleep under the idle lock is this caller's until notified.
        unsafe {
            let mut idle = rt.idle.lock().unwrap_or_else(|e| e.into_inner());
            if !idle.take_sleeper(owner) {
                (*owner).put_mail(g);
                return;
            }
            drop(idle);
            let p = self.processor.swap(ptr::null_mut(), Ordering::Relaxed);
            if (*owner).bound_count != 0 {
                // It looks at nothing but its mail.
                let _idle = rt.idle.lock().unwrap_or_else(|e| e.into_inner());
                (*owner).put_mail(g);
            } else if let Some(kicked) = (*p).queue.push_next(g) {
                rt.push_back(&*p, kicked);
            }
            if self.spinning {
                self.stop_spinning();
            }
            (*p).machine.store(owner, Ordering::Release); // pairs with sysmon's Acquire
            (*owner).handed.store(p, Ordering::Relaxed); // published by the note
            // The P is this M's no more: look for another one, or sleep.
            let home = self.home();
            self.settle(home);
            super::idle::notify(owner);
        }
    }

    /// Adds to the mail. Under the idle lock. Where there is no memory `g` goes to all, which ask again before they run it.
    pub(super) fn put_mail(&mut self, g: *mut Goroutine) {
        if self.mail.try_reserve(1).is_err() {
            self.rt.inject.push(g);
            return;
        }
        if self.mail.is_empty() {
            self.mail_since_ns.store(clock::now_ns(), Ordering::Relaxed);
        }
        self.mail.push(g);
        self.mail_count.fetch_add(1, Ordering::Relaxed); // read again by the owner under the idle lock before it sleeps
    }
}

impl Runtime {
    /// sysmon: lets the main goroutine go on elsewhere when its M has been without a P in a call for too long. Returns
    /// whether it waits in that M's mail.
    pub(super) fn rescue_main(&self, now_ns: u64) -> bool {
        let main = self.main.load(Ordering::Acquire); // pairs with the Release in `adopt_main`
        if main.is_null() || !self.main_may_move.load(Ordering::Relaxed) {
            return false;
        }
        // SAFETY: the main goroutine and Ms are never freed; the mail is touched under the idle lock.
        unsafe {
            let m = (*main).owner().cast::<Machine>();
            if (*m).mail_count.load(Ordering::Relaxed) == 0 {
                return false;
            }
            if !(*m).p().is_null()
                || (*m).in_scheduler.load(Ordering::Acquire) // pairs with the Release in `execute`
                || now_ns.saturating_sub((*m).mail_since_ns.load(Ordering::Relaxed)) < PATIENCE_NS
            {
                return true;
            }
            let idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
            let Some(i) = (*m).mail.iter().position(|&g| ptr::eq(g, main)) else { return false };
            (*m).mail.remove(i);
            (*m).mail_count.fetch_sub(1, Ordering::Relaxed);
            (*m).is_stuck.store(true, Ordering::Relaxed);
            drop(idle);
            self.inject_goroutine(main);
        }
        false
    }
}
