//! The types of this folder between goroutines of several Ps and a plain thread, on a host without a lock.

use super::{Misuse, Mutex, NotifyList, RwMutex, Semaphore, Ticket, WaitGroup};
use crate::goroutine::waiter::{Outcome, Reason};
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sched::gosched;
use crate::sched::null_tests::{go, runtime};
use crate::sys::clock;
use std::sync::Arc;

fn soon() -> Option<u64> {
    Some(clock::now_ns() + 1_000_000)
}

#[test]
fn wait_group_below_zero_or_beyond_its_range_is_misuse_and_changes_nothing() {
    let group = WaitGroup::new();
    let negative = Err(Misuse("sync: negative WaitGroup counter"));
    group.add(2).expect("adds");
    assert_eq!(group.add(-3), negative);
    assert_eq!(group.add(i64::MAX), negative);
    assert_eq!(group.count(), 2);
}

#[test]
fn wait_group_used_again_before_a_waiter_came_back_is_told_to_it() {
    let rt = runtime(1);
    let (group, parked) = (Arc::new(WaitGroup::new()), Arc::new(AtomicU64::new(0)));
    let result = Arc::new(std::sync::Mutex::new(None));
    group.add(1).expect("adds");
    let (g, p, r) = (group.clone(), parked.clone(), result.clone());
    go(rt, move || {
        p.store(1, Ordering::Relaxed);
        *r.lock().expect("no panic") = Some(g.wait(rt, None));
    });
    // One P: the waiter is parked when this one runs on, and does not come back before it parks.
    go(rt, move || {
        while parked.load(Ordering::Relaxed) == 0 {
            gosched();
        }
        group.add(-1).expect("adds");
        group.add(1).expect("adds");
    });
    while result.lock().expect("no panic").is_none() {
        std::thread::yield_now();
    }
    let misuse = Misuse("sync: WaitGroup is reused before previous Wait has returned");
    assert_eq!(*result.lock().expect("no panic"), Some(Err(misuse)));
}

#[test]
fn semaphore_serves_in_order_and_who_wants_too_much_blocks_nobody() {
    let rt = runtime(2);
    let semaphore = Arc::new(Semaphore::new(3));
    assert_eq!(semaphore.acquire(rt, 4, soon()), Outcome::TimedOut);
    assert!(semaphore.try_acquire(2));
    let s = semaphore.clone();
    go(rt, move || {
        let _ = s.acquire(rt, 4, None);
    });
    assert_eq!(semaphore.acquire(rt, 3, soon()), Outcome::TimedOut);
    assert!(semaphore.try_acquire(1), "neither the hopeless nor the one that gave up stands in the way");
    assert_eq!(semaphore.release(4), Err(Misuse("semaphore: released more than held")));
    semaphore.release(3).expect("held");
    assert!(semaphore.try_acquire(3));
}

#[test]
fn rw_mutex_writer_that_gave_up_lets_the_readers_behind_it_in() {
    let rt = runtime(2);
    let lock = Arc::new(RwMutex::new());
    assert!(lock.try_rlock());
    let (writing, reading) = (Arc::new(WaitGroup::new()), Arc::new(WaitGroup::new()));
    writing.add(1).expect("adds");
    reading.add(4).expect("adds");
    let (l, w) = (lock.clone(), writing.clone());
    go(rt, move || {
        assert_eq!(l.lock(rt, Some(clock::now_ns() + 20_000_000)), Outcome::TimedOut);
        w.add(-1).expect("adds");
    });
    while lock.try_rlock() {
        lock.runlock().expect("read"); // until the writer waits
    }
    for _ in 0..4 {
        let (l, r) = (lock.clone(), reading.clone());
        go(rt, move || {
            assert_eq!(l.rlock(rt, None), Outcome::Delivered);
            r.add(-1).expect("adds");
        });
    }
    assert_eq!(reading.wait(rt, None), Ok(Outcome::Delivered));
    assert_eq!(writing.wait(rt, None), Ok(Outcome::Delivered));
    (0..5).for_each(|_| lock.runlock().expect("read"));
    assert_eq!(lock.runlock(), Err(Misuse("sync: RUnlock of unlocked RWMutex")));
    assert!(lock.try_lock());
}

#[test]
fn mutex_that_somebody_waits_for_is_handed_over() {
    let rt = runtime(1);
    let (mutex, waiting) = (Arc::new(Mutex::new()), Arc::new(AtomicU64::new(0)));
    assert!(mutex.try_lock());
    let (m, w) = (mutex.clone(), waiting.clone());
    go(rt, move || {
        w.store(1, Ordering::Release);
        assert_eq!(m.lock(rt, None), Outcome::Delivered);
        w.store(2, Ordering::Release);
    });
    while mutex.waiter_count() == 0 {
        std::thread::yield_now();
    }
    mutex.unlock().expect("locked");
    assert!(!mutex.try_lock(), "it is the waiter's, whether that one has run yet or not");
    while waiting.load(Ordering::Acquire) != 2 {
        std::thread::yield_now();
    }
    mutex.unlock().expect("locked by the waiter");
    assert_eq!(mutex.unlock(), Err(Misuse("sync: unlock of unlocked mutex")));
}

#[test]
fn notify_list_signal_before_the_ticket_parks_is_not_lost() {
    let rt = runtime(1);
    let list = NotifyList::new();
    let (mut first, mut second) = (Ticket::new(), Ticket::new());
    // SAFETY: the tickets stay on this stack until each has waited or left.
    unsafe {
        list.join(&raw mut first);
        list.join(&raw mut second);
        assert!(list.signal());
        assert_eq!(list.wait_with(&raw mut first, rt, Reason::Cond, None), Outcome::Delivered);
        assert_eq!(list.wait_with(&raw mut second, rt, Reason::Cond, soon()), Outcome::TimedOut);
    }
    assert!(!list.signal());
}

#[test]
fn notify_list_ticket_that_leaves_hands_its_signal_on() {
    let rt = runtime(1);
    let list = NotifyList::new();
    let (mut first, mut second) = (Ticket::new(), Ticket::new());
    // SAFETY: as above.
    unsafe {
        list.join(&raw mut first);
        list.join(&raw mut second);
        assert!(list.signal());
        list.leave(&raw mut first);
        assert_eq!(list.wait_with(&raw mut second, rt, Reason::Cond, None), Outcome::Delivered);
        list.join(&raw mut first);
        list.leave(&raw mut first);
    }
    assert!(!list.signal(), "a ticket without a signal leaves nothing behind");
}

#[test]
fn notify_list_wakes_each_waiter_of_many_processors_once() {
    let rt = runtime(4);
    let (list, lock, woken) = (Arc::new(NotifyList::new()), Arc::new(Mutex::new()), Arc::new(AtomicU64::new(0)));
    let waiting = Arc::new(AtomicU64::new(0));
    for _ in 0..64 {
        let (list, lock, woken, waiting) = (list.clone(), lock.clone(), woken.clone(), waiting.clone());
        go(rt, move || {
            let _ = lock.lock(rt, None);
            waiting.fetch_add(1, Ordering::Relaxed);
            let outcome = list.wait(rt, Reason::Cond, None, || lock.unlock().expect("locked"));
            assert_eq!(outcome, Outcome::Delivered);
            woken.fetch_add(1, Ordering::Relaxed);
        });
    }
    loop {
        let _ = lock.lock(rt, None);
        let all = waiting.load(Ordering::Relaxed) == 64;
        lock.unlock().expect("locked");
        if all {
            break;
        }
        std::thread::yield_now();
    }
    (0..10).for_each(|_| assert!(list.signal()));
    list.broadcast();
    while woken.load(Ordering::Relaxed) != 64 {
        std::thread::yield_now();
    }
    assert!(!list.signal());
}
