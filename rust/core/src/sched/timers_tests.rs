//! Timers of the scheduler: events fire in order, once or again and again.

use super::null_tests::runtime;
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sync::Semaphore;
use crate::sys::clock;
use crate::timer::{Event, EventTimer};
use std::sync::Arc;

static COUNT: Event = Event { take: |t| t.cast(), fire: count, abandon: |_| {} };

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
    Box::leak(Box::new(Counter { timer: EventTimer::new(&COUNT, 0), fired: AtomicU64::new(0), semaphore }))
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
    static NOTE: Event = Event { take: |t| t.cast(), fire: note, abandon: |_| {} };
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
    let start = clock::now_ns() + 200_000_000; // all are set by then
    for (name, after) in [(3, 2_000), (1, 1_000), (2, 1_000), (0, 0)] {
        let noting = Box::leak(Box::new(Noting(EventTimer::new(&NOTE, 0), name, done.clone())));
        // SAFETY: leaked.
        unsafe { rt.start_timer(&raw mut noting.0, start + after, 0) };
    }
    let _ = done.acquire(rt, 4, None);
    assert_eq!(*ORDER.lock().expect("no panic"), [0, 1, 2, 3]);
}
