//! The order of looking for work: own timers, every 61st tick the poller and the global queue, local, global, the poller,
//! other Ps, then idle.

use super::machine::{Action, Machine};
use super::processor::{NEVER, Processor};
use super::runtime::{REQUEST_POLICY, REQUEST_WAITS};
use crate::goroutine::Goroutine;
use crate::primitive::atomic::Ordering;
use crate::primitive::exclusive::add_u64;
use crate::primitive::prefetch;
use std::mem::MaybeUninit;
use std::ptr;

/// How often the global queue goes first. Go's number: prime, so that it does not fall in step with a program's loops.
const GLOBAL_EVERY: u32 = 61;
/// Most goroutines in a row by the next slot. Two that hand a value to and fro would otherwise keep everybody else waiting
/// for ever: Go's slice ends after 10 ms by preemption, ours by this count. The switch bench would move it.
const INHERIT_MOST: u32 = 128;

/// Whether what others share goes first.
#[inline]
pub(super) fn is_shared_turn(ticks: u32) -> bool {
    ticks.is_multiple_of(GLOBAL_EVERY)
}

/// Starts loading what `execute` is about to read of each: among many goroutines none of it is in a cache, and one at a
/// time each line would be waited for. Each pass reads what the one before it has asked for.
///
/// # Safety
/// The caller owns the goroutines.
unsafe fn fetch_ahead(batch: &[*mut Goroutine]) {
    batch.iter().for_each(|&g| prefetch(g));
    // SAFETY: the caller's promise; a bundle lives as long as its goroutine.
    let bundles = || batch.iter().map(|&g| unsafe { (*g).bundle }).filter(|bundle| !bundle.is_null());
    bundles().for_each(|bundle| prefetch(bundle));
    for bundle in bundles() {
        // SAFETY: as above.
        unsafe {
            prefetch(ptr::with_exposed_provenance::<u8>((*bundle).context.stack_pointer()));
            prefetch((*bundle).host);
        }
    }
}

impl Machine {
    /// The next goroutine for this M; blocks the thread while there is none. The M then has a P. Null: its thread is to end.
    ///
    /// # Safety
    /// On g0, host attached.
    #[inline]
    pub unsafe fn find_work(&mut self) -> *mut Goroutine {
        // SAFETY: the caller's promise holds for every step.
        unsafe {
            if self.action == Action::Exit && ptr::eq(self.previous, self.rt.main.load(Ordering::Relaxed)) {
                self.end_process();
            }
            let p = self.p();
            // A spinning M goes the long way, which says that it spins no more: while one does, nobody else is woken. So does
            // one that preempted somebody: whoever was woken meanwhile comes first.
            let preempts = self.action == Action::Preempt;
            let quick = !preempts
                && !self.spinning
                && self.bound_count == 0
                && self.rt.requests.load(Ordering::Relaxed) & !REQUEST_WAITS == 0;
            let mut polled = false;
            if !p.is_null() && quick {
                let mut g = self.quick(&*p);
                if g.is_null() && self.rt.net.waiting() != 0 {
                    // Here, with the last goroutine's state still current: the next one's may follow at once.
                    polled = true;
                    if self.poll_net() {
                        g = self.quick(&*p);
                    }
                }
                if !g.is_null() && self.may_run(g) {
                    return g;
                }
            }
            if self.meter.is_running() {
                self.charge();
            }
            let home = self.home();
            self.settle(home);
            if preempts && !p.is_null() && self.rt.net.waiting() != 0 {
                polled = true;
                self.poll_net();
            }
            let g = self.search(polled);
            if self.rt.requests.load(Ordering::Relaxed) & REQUEST_POLICY != 0 && !g.is_null() {
                self.begin_account(g);
            }
            g
        }
    }

    /// A goroutine that is ready, in the mode's order.
    #[inline]
    unsafe fn look(&mut self, p: &Processor) -> *mut Goroutine {
        // SAFETY: as for both.
        unsafe {
            if self.rt.config.shuffles {
                self.pick(p)
            } else if self.rt.requests.load(Ordering::Relaxed) & REQUEST_POLICY != 0 {
                self.choose(p)
            } else {
                self.quick(p)
            }
        }
    }

    /// What comes before the queues: mail, which it gives or null, and due timers, which it fires.
    ///
    /// # Safety
    /// On g0, host attached; this M owns `p`.
    #[inline(always)]
    pub(super) unsafe fn take_due(&mut self, p: &Processor) -> *mut Goroutine {
        // SAFETY: the caller's promise.
        unsafe {
            if self.mail_count.load(Ordering::Relaxed) != 0 {
                let g = self.take_mail();
                if !g.is_null() {
                    return g;
                }
            }
            if p.next_when.load(Ordering::Relaxed) != NEVER {
                self.rt.run_timers(p);
            }
            ptr::null_mut()
        }
    }

    /// What comes first in an order that is not the queues': `take_due`, and a look at the poller when it is its turn.
    ///
    /// # Safety
    /// On g0, host attached; this M owns `p`.
    pub(super) unsafe fn take_due_in_turn(&mut self, p: &Processor) -> *mut Goroutine {
        // SAFETY: the caller's promise.
        unsafe {
            let g = self.take_due(p);
            if g.is_null() && is_shared_turn(p.ticks.load(Ordering::Relaxed)) && self.rt.net.waiting() != 0 {
                self.poll_net();
            }
            g
        }
    }

    /// Looks where no host exchange is needed to look.
    #[inline]
    unsafe fn quick(&mut self, p: &Processor) -> *mut Goroutine {
        // SAFETY: this M owns `p`.
        unsafe {
            let g = self.take_due(p);
            if !g.is_null() {
                return g;
            }
            if is_shared_turn(p.ticks.load(Ordering::Relaxed))
                && let Some(g) = self.take_shared()
            {
                return g;
            }
            if let Some((g, inherits)) = p.queue.pop() {
                p.local_pops.store(p.local_pops.load(Ordering::Relaxed) + 1, Ordering::Relaxed); // this M's only
                if inherits {
                    return self.inherit(p, g);
                }
                p.inherited.store(0, Ordering::Relaxed);
                return g;
            }
            self.take_global(p)
        }
    }

    /// What a busy P would keep waiting: a look at the poller, whose finds stand behind the others, and the global queue.
    #[cold]
    unsafe fn take_shared(&mut self) -> Option<*mut Goroutine> {
        // SAFETY: on g0, host attached, by the caller's promise.
        unsafe {
            if self.rt.net.waiting() != 0 {
                self.poll_net();
            }
        }
        self.pop_global()
    }

    /// The first of the global queue.
    pub(super) fn pop_global(&self) -> Option<*mut Goroutine> {
        let g = self.rt.inject.pop();
        add_u64(&self.rt.counters.global_pops, u64::from(g.is_some()));
        g
    }

    /// `g` came by the next slot. It goes on with the slice, or, when that was handed on too often, behind the others.
    #[inline]
    fn inherit(&self, p: &Processor, g: *mut Goroutine) -> *mut Goroutine {
        let count = p.inherited.load(Ordering::Relaxed) + 1;
        if count < INHERIT_MOST {
            p.inherited.store(count, Ordering::Relaxed);
            // The slice goes on: execute will count a tick, so take it back. Go does not count it either.
            p.ticks.store(p.ticks.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
            return g;
        }
        p.inherited.store(0, Ordering::Relaxed);
        let Some(other) = p.queue.pop().map(|(other, _)| other).or_else(|| self.pop_global()) else { return g };
        // SAFETY: this M owns `p`, and `g` came from its queue.
        unsafe { self.rt.push_back(p, g) };
        other
    }

    /// A share of the global queue: one to run, the rest into the local ring.
    unsafe fn take_global(&mut self, p: &Processor) -> *mut Goroutine {
        let waiting = self.rt.inject.len();
        if waiting == 0 {
            return ptr::null_mut();
        }
        let mut places = [const { MaybeUninit::uninit() }; 128];
        let share = (waiting / self.rt.processors.in_use() + 1).min(places.len());
        let batch = self.rt.inject.pop_batch(&mut places[..share]);
        add_u64(&self.rt.counters.global_pops, batch.len() as u64);
        // SAFETY: taken from a queue, they are this M's.
        unsafe { fetch_ahead(batch) };
        let Some((&first, rest)) = batch.split_first() else { return ptr::null_mut() };
        for &g in rest {
            // SAFETY: this M owns `p`, and `g` since it was popped.
            unsafe { self.rt.push_back(p, g) };
        }
        first
    }

    /// The long way: takes a P if there is none, looks everywhere, sleeps. `polled`: the poller was looked at just now.
    unsafe fn search(&mut self, mut polled: bool) -> *mut Goroutine {
        let rt = self.rt;
        if !rt.sysmon_started.load(Ordering::Relaxed) {
            rt.start_sysmon(); // a forked child that has started nothing yet
        }
        // SAFETY: on g0 with the home state current; P ownership is checked at each use.
        unsafe {
            self.is_stuck.store(false, Ordering::Relaxed);
            loop {
                if rt.stopping.load(Ordering::Acquire) {
                    // Pairs with the Release in `stop`. The main goroutine never comes here then (`park`).
                    (rt.host.detach)(self.home);
                    super::idle::park_forever();
                }
                if self.bound_count != 0 {
                    let g = self.bound_work();
                    if !g.is_null() {
                        return g;
                    }
                    if !self.sleep_without_work() {
                        return ptr::null_mut();
                    }
                    continue;
                }
                if rt.requests.load(Ordering::Relaxed) & !REQUEST_WAITS != 0 {
                    self.leave_retired_processor();
                    rt.serve_requests();
                }
                if self.p().is_null() && !self.acquire_idle_processor() {
                    if self.spinning {
                        self.stop_spinning(); // woken with a P that has been retired since
                    }
                    if !self.sleep_without_work() {
                        return ptr::null_mut();
                    }
                    continue;
                }
                let p = &*self.p();
                let mut g = self.look(p);
                if g.is_null() && !std::mem::take(&mut polled) && rt.net.waiting() != 0 && self.poll_net() {
                    g = self.look(p);
                }
                if g.is_null() {
                    g = self.steal(p);
                }
                if !g.is_null() {
                    if self.spinning {
                        self.stop_spinning();
                    }
                    if self.may_run(g) {
                        return g;
                    }
                    continue;
                }
                if rt.shrink_idly() || self.release_and_recheck() {
                    continue;
                }
                if !self.sleep_without_work() {
                    return ptr::null_mut();
                }
            }
        }
    }
}
