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
    /// Sets `timer` for `when_ns`, and then every `period_ns` unless that is 0. Never blocks.
    ///
    /// # Safety
    /// Host attached. `timer` is not queued and stays in place while it is; the caller serialises what it does with it.
    pub unsafe fn start_timer(&'static self, timer: *mut EventTimer, when_ns: u64, period_ns: u64) {
        let earliest = self.next_timer();
        let m = current_machine();
        // SAFETY: `m` is this thread's M; its P, if any, is this thread's. The rest is the caller's promise.
        unsafe {
            let own = if m.is_null() { ptr::null_mut() } else { (*m).p() };
            let p: &Processor = if own.is_null() { &self.processors[0] } else { &*own };
            (*timer).timer.when_ns = when_ns;
            (*timer).period_ns = period_ns;
            (*timer).processor = p.id;
            p.add_timer(&raw mut (*timer).timer);
            if own.is_null() && when_ns < earliest {
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
        unsafe { self.processors[(*timer).processor].remove_timer(&raw mut (*timer).timer) }
    }

    /// How many timers are set, those of sleeps and time-outs included.
    pub fn timer_count(&self) -> usize {
        self.processors.iter().map(Processor::timer_count).sum()
    }

    /// Fires what is due on any P.
    ///
    /// # Safety
    /// Host attached; on any stack.
    pub unsafe fn poll_timers(&self) {
        for p in &self.processors {
            // SAFETY: the caller's promise.
            unsafe { self.run_timers(p) };
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
                    Some(Due::Wait(wait)) => super::park::ready_wait(&*wait),
                    Some(Due::Event(event, what)) => (event.fire)(what),
                    None => return,
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Runtime;
    use super::super::config::Config;
    use crate::goroutine::host::{Host, null_host};
    use crate::primitive::atomic::{AtomicU64, Ordering};
    use crate::sync::Semaphore;
    use crate::sys::clock;
    use crate::timer::{Event, EventTimer};
    use std::sync::Arc;

    static HOST: Host = null_host();
    static COUNT: Event = Event { take: |t| t.cast(), fire: count };

    #[repr(C)]
    struct Counter {
        timer: EventTimer,
        fired: AtomicU64,
        semaphore: Semaphore,
    }

    unsafe fn count(what: *mut u8) {
        // SAFETY: the tests leak their counters.
        let counter = unsafe { &*what.cast::<Counter>() };
        counter.fired.fetch_add(1, Ordering::Relaxed);
        counter.semaphore.release(1).expect("fewer than the size");
    }

    fn counter() -> *mut Counter {
        let semaphore = Semaphore::new(1_000);
        assert!(semaphore.try_acquire(1_000));
        Box::leak(Box::new(Counter { timer: EventTimer::new(&COUNT), fired: AtomicU64::new(0), semaphore }))
    }

    fn runtime(processors: usize) -> &'static Runtime {
        Runtime::new(Config { processors, ..Config::default() }, &HOST).expect("a runtime")
    }

    #[test]
    fn periodic_timer_of_a_plain_thread_fires_until_it_is_stopped() {
        let rt = runtime(2);
        let counter = counter();
        // SAFETY: leaked, and only this thread sets and stops it.
        unsafe {
            rt.start_timer(&raw mut (*counter).timer, clock::now_ns(), 1_000_000);
            let _ = (*counter).semaphore.acquire(rt, 3, None);
            assert!(rt.stop_timer(&raw mut (*counter).timer));
            assert!(!rt.stop_timer(&raw mut (*counter).timer));
            let fired = (*counter).fired.load(Ordering::Relaxed);
            let _ = (*counter).semaphore.acquire(rt, 1_000, Some(clock::now_ns() + 5_000_000));
            assert!((*counter).fired.load(Ordering::Relaxed) <= fired + 1, "one may have been under way");
        }
    }

    #[test]
    fn earlier_timer_of_a_plain_thread_wakes_the_machine_that_sleeps_for_a_later_one() {
        let rt = runtime(1);
        let (late, soon) = (counter(), counter());
        // SAFETY: as above.
        unsafe {
            rt.start_timer(&raw mut (*late).timer, clock::now_ns() + 3_600_000_000_000, 0);
            // Some M sleeps for it once all are on the idle list.
            while rt.idle_machine_count() == 0 {
                std::thread::yield_now();
            }
            rt.start_timer(&raw mut (*soon).timer, clock::now_ns() + 1_000_000, 0);
            let _ = (*soon).semaphore.acquire(rt, 1, None);
            assert_eq!((*late).fired.load(Ordering::Relaxed), 0);
            assert!(rt.stop_timer(&raw mut (*late).timer));
        }
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines_then_of_their_setting() {
        static ORDER: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
        static NOTE: Event = Event { take: |t| t.cast(), fire: note };
        #[repr(C)]
        struct Noting(EventTimer, usize, Arc<Semaphore>);
        unsafe fn note(what: *mut u8) {
            // SAFETY: leaked below.
            let noting = unsafe { &*what.cast::<Noting>() };
            ORDER.lock().expect("no panic").push(noting.1);
            noting.2.release(1).expect("one each");
        }
        let rt = runtime(1);
        let done = Arc::new(Semaphore::new(4));
        assert!(done.try_acquire(4));
        let start = clock::now_ns() + 2_000_000;
        for (name, after) in [(3, 2_000), (1, 1_000), (2, 1_000), (0, 0)] {
            let noting = Box::leak(Box::new(Noting(EventTimer::new(&NOTE), name, done.clone())));
            // SAFETY: leaked.
            unsafe { rt.start_timer(&raw mut noting.0, start + after, 0) };
        }
        let _ = done.acquire(rt, 4, None);
        assert_eq!(*ORDER.lock().expect("no panic"), [0, 1, 2, 3]);
    }
}
