//! Turns: who goes on next, from when he is charged, and whom one that wakes has interrupted.

use super::{Policy, State, group_of};
use crate::goroutine::Goroutine;
use crate::primitive::MutexGuard;
use crate::primitive::atomic::Ordering;
use crate::sched::Runtime;
use crate::sched::machine::{Action, Machine};
use crate::sched::processor::Processor;
use crate::sys::clock;
use std::ptr;

/// For so long nobody is interrupted but for one that is reserved, ns: those that wake each other and park would be at every
/// turn, and to be interrupted costs more than that.
const PROTECTED_NS: u64 = 1_000_000;

impl Machine {
    /// What `quick` does, in the policy's order.
    ///
    /// # Safety
    /// On g0, host attached; this M owns `p`.
    pub(in crate::sched) unsafe fn choose(&mut self, p: &Processor) -> *mut Goroutine {
        // SAFETY: the caller's promise; what comes from a queue is this M's.
        unsafe {
            let g = self.take_due_in_turn(p);
            if !g.is_null() {
                return g;
            }
            let (rt, now) = (self.rt, clock::now_ns());
            let mut state = rt.policies.lock();
            while let Some((g, _)) = p.queue.pop() {
                state.add(g, now, false);
            }
            rt.take_in(&mut state, now);
            let g = state.next(now);
            rt.policies.waiting.store(state.len(), Ordering::Relaxed);
            let left = state.len();
            drop(state);
            if left != 0 && rt.processors.in_use() > 1 {
                rt.wake_one(ptr::null_mut());
            }
            g
        }
    }

    /// `g` goes on: from here on it is charged.
    ///
    /// # Safety
    /// On g0 with a P; `g` is this M's.
    #[cold]
    pub(in crate::sched) unsafe fn begin_account(&mut self, g: *mut Goroutine) {
        let now = clock::now_ns();
        let mut state = self.rt.policies.lock();
        // SAFETY: the caller's promise; goroutines have a count of their groups.
        unsafe {
            let entity = &mut *Goroutine::entity(g);
            let slice_ns = if std::mem::take(&mut entity.is_on_turn) { state.slice_ns / 4 } else { state.slice_ns };
            let slice_ns = group_of(entity).map_or(slice_ns, |group| group.state().allowance_ns(slice_ns, now));
            let since = std::mem::take(&mut entity.ready_since_ns);
            let waited = if since == 0 { 0 } else { now.saturating_sub(since) };
            if since != 0 {
                state.waits.record(entity.priority, waited);
                if let Some(group) = group_of(entity) {
                    group.state().waits.record(waited as i64);
                }
            }
            if let Some(account) = entity.measure() {
                account.wait_ns += waited;
                account.longest_wait_ns = account.longest_wait_ns.max(waited);
                let p = (*self.p()).id as u32;
                account.p_migrations += u64::from(account.runs != 0 && p != account.last_processor);
                account.last_processor = p;
                account.runs += 1;
            }
            self.slice_ns.store(slice_ns, Ordering::Relaxed); // a hint for sysmon
        }
        drop(state);
        self.meter.begin(now, self.rt.policies.era.load(Ordering::Relaxed));
    }

    /// The goroutine that came to g0 is charged with what it has computed.
    ///
    /// # Safety
    /// On g0, host attached, before anybody else may have it.
    #[cold]
    pub(in crate::sched) unsafe fn charge(&mut self) {
        self.slice_ns.store(0, Ordering::Relaxed);
        let now = clock::now_ns();
        let used = self.meter.end(now);
        if self.previous.is_null() || !self.meter.is_of(self.rt.policies.era.load(Ordering::Relaxed)) {
            return;
        }
        let mut state = self.rt.policies.lock();
        // SAFETY: the caller's promise.
        unsafe {
            let entity = &mut *Goroutine::entity(self.previous);
            if let Some(account) = entity.measure() {
                account.run_ns += used;
            }
            let state = &mut *state;
            match state.policy {
                Policy::Fifo => {}
                Policy::Mlfq => state.mlfq.charge(entity, used, self.action == Action::Park),
                Policy::Fair => state.fair.charge(&state.nodes, entity, used),
            }
            if let Some(group) = group_of(entity)
                && let Some(at_ns) = group.state().charge(used, now)
            {
                group.wait_for_time(at_ns);
            }
        }
    }
}

impl Runtime {
    /// `g` was woken, and is about to be queued. Who computes and is to go on after it is interrupted.
    ///
    /// # Safety
    /// Host attached, which is exclusive; `g` is the caller's.
    #[cold]
    pub(in crate::sched) unsafe fn note_woken(&self, g: *mut Goroutine) {
        let now = clock::now_ns();
        let state = self.policies.lock();
        // SAFETY: the caller's promise.
        unsafe {
            (*Goroutine::entity(g)).ready_since_ns = now;
            if self.policies.watches_wakes() {
                self.interrupt_for(g, state, now);
            }
        }
    }

    /// Takes everybody from the global queue into the lists.
    unsafe fn take_in(&self, state: &mut State, now_ns: u64) {
        // SAFETY: what comes from the queue is the caller's.
        self.inject.take_each(|g, is_behind| unsafe { state.add(g, now_ns, is_behind) });
    }

    /// Has whoever computes, and is to go on after one that is ready, interrupted.
    ///
    /// # Safety
    /// Host attached.
    pub(in crate::sched) unsafe fn interrupt_outranked(&self) {
        let now = clock::now_ns();
        let mut state = self.policies.lock();
        // SAFETY: the caller's promise; what is listed lives.
        unsafe {
            self.take_in(&mut state, now);
            self.policies.waiting.store(state.len(), Ordering::Relaxed);
            let first = state.first();
            if !first.is_null() {
                self.interrupt_for(first, state, now);
            }
        }
    }

    /// Has one that computes and that `g` goes before interrupted, if there is one. Gives the lock back first.
    ///
    /// # Safety
    /// Host attached; `g` is ready.
    pub(super) unsafe fn interrupt_for(&self, g: *const Goroutine, state: MutexGuard<'_, State>, now_ns: u64) {
        // SAFETY: the caller's promise; host attached, so that the M stays outside g0.
        unsafe {
            let whom = self.outranked(&state, g, now_ns);
            drop(state);
            if let Some(m) = whom {
                m.interrupt(m, 0);
            }
        }
    }

    /// An M outside g0 whose goroutine `g` goes before. Only an exclusive host has such.
    ///
    /// # Safety
    /// Host attached; `g` is ready.
    unsafe fn outranked(&self, state: &State, g: *const Goroutine, now_ns: u64) -> Option<&Machine> {
        let in_use = if self.host.exclusive { self.processors.in_use() } else { 0 };
        self.processors.iter().take(in_use).find_map(|p| {
            let m = p.machine.load(Ordering::Acquire); // pairs with the Release of who gave it the P
            // SAFETY: Ms are never freed. With the host's lock held an M outside g0 stays there, and so does its goroutine.
            unsafe {
                // Acquire: pairs with the Release in `execute`.
                let m = m.as_ref().filter(|m| !m.in_scheduler.load(Ordering::Acquire) && !m.current.is_null())?;
                let ran_ns = m.meter.ran_ns(now_ns);
                if !state.outranks(&*Goroutine::entity(g), &*Goroutine::entity(m.current), ran_ns) {
                    return None;
                }
                if ran_ns < PROTECTED_NS && !(*Goroutine::entity(g)).is_reserved {
                    m.slice_ns.fetch_min(PROTECTED_NS, Ordering::Relaxed); // sysmon sees to it then
                    return None;
                }
                Some(m)
            }
        })
    }
}
