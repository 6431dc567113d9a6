//! Timers and the scheduler: setting and stopping those with an event, and firing what is due.
//!
//! A timer goes into the heap of the P that sets it; a thread without a P uses the first P's. Whoever looks for work
//! fires its own P's, a thief those of others, and sysmon sees to those of a P whose M is out or idle.

use super::Runtime;
use super::machine::current_machine;
use super::processor::{Due, Processor};
use crate::primitive::atomic::Ordering;
use crate::sys::clock;
use crate::timer::EventTimer;
use std::ptr;

impl Runtime {
    /// The P whose heap takes the timers that the calling thread sets, and whether it is this thread's.
    fn timer_processor(&self) -> (&Processor, bool) {
        let m = current_machine();
        // SAFETY: `m` is this thread's M; its P, if any, is this thread's, and Ps are never freed.
        unsafe {
            let own = if m.is_null() { ptr::null_mut() } else { (*m).p() };
            if own.is_null() { (&self.processors[0], false) } else { (&*own, true) }
        }
    }

    /// Room for `count` goroutines in all, wherever they may be queued or timed. `false`: memory is refused.
    pub(super) fn make_room_for(&self, count: usize) -> bool {
        // A group has a timer as well, and the host one that it may set at any time.
        let all = self.policies.make_room(count, 0);
        self.inject.make_room(count) && all.is_some_and(|all| self.processors.keep_room(all + 1))
    }

    /// Whether `start_timer` would find memory for one more, that of the caller's bubble if it is in one. Host attached.
    pub fn has_room_for_timer(&self) -> bool {
        match super::current_bubble() {
            0 => self.timer_processor().0.has_room_for_timer(),
            bubble => self.bubbles.has_room_for_timer(bubble),
        }
    }

    /// Sets `timer` for `when_ns` of the clock it goes by, and then every `period_ns` unless that is 0. Never blocks.
    ///
    /// # Safety
    /// Host attached. `timer` is not queued and stays in place while it is; the caller serialises what it does with it.
    pub unsafe fn start_timer(&'static self, timer: *mut EventTimer, when_ns: u64, period_ns: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            if (*timer).bubble != 0 {
                return self.bubbles.start_timer(timer, when_ns, period_ns);
            }
        }
        let earliest = self.next_timer();
        let (p, is_own) = self.timer_processor();
        // SAFETY: the caller's promise.
        unsafe {
            (*timer).timer.when_ns = when_ns;
            (*timer).period_ns = period_ns;
            (*timer).processor = p.id;
            p.add_timer(&raw mut (*timer).timer);
            if !is_own && when_ns < earliest {
                self.wake_one(ptr::null_mut()); // whoever sleeps sleeps for longer
            }
        }
        if !self.sysmon_started.load(Ordering::Relaxed) {
            self.start_sysmon();
        }
    }

    /// Takes `timer` out if it is queued; returns whether it was. It does not fire afterwards.
    ///
    /// # Safety
    /// As for `start_timer`, but it may be queued or not.
    pub unsafe fn stop_timer(&self, timer: *mut EventTimer) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            if (*timer).bubble != 0 {
                return self.bubbles.stop_timer(timer);
            }
            self.processors[(*timer).processor].remove_timer(&raw mut (*timer).timer)
        }
    }

    /// How many timers are set, those of sleeps and time-outs included.
    pub fn timer_count(&self) -> usize {
        self.processors.iter().map(Processor::timer_count).sum()
    }

    /// Fires what is due on any P, and in the caller's bubble.
    ///
    /// # Safety
    /// Host attached; on a goroutine's stack or a plain thread.
    pub unsafe fn poll_timers(&'static self) {
        // SAFETY: the caller's promise. What goes by the world's clock is of no bubble.
        unsafe {
            self.in_bubble(0, || self.processors.iter().for_each(|p| self.run_timers(p)));
            self.poll_bubble();
        }
    }

    /// Fires due timers of `p`.
    ///
    /// # Safety
    /// Host attached.
    pub(super) unsafe fn run_timers(&self, p: &Processor) {
        let now = clock::now_ns();
        // Acquire: pairs with the Release stores under the heap's lock. One look at the clock: a heap that fills as fast
        // as it is emptied does not hold the M up.
        while p.next_when.load(Ordering::Acquire) <= now {
            // SAFETY: a claimed wait and a taken event are this caller's, once.
            unsafe {
                match p.pop_due(now) {
                    Some(Due::Wait(wait)) => super::park::ready_behind(self, &*wait),
                    Some(Due::Event(event, what)) => (event.fire)(what),
                    None => return,
                }
            }
        }
    }
}
