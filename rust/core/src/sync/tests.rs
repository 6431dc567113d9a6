//! The types of this folder between goroutines of several Ps and a plain thread, on a host without a lock.

use super::{Misuse, Mutex, NotifyList, RwMutex, Semaphore, Ticket, WaitGroup};
use crate::goroutine::waiter::{Outcome, Reason};
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sched::null_tests::{go, runtime};
use crate::sched::{Runtime, gosched};
use crate::sys::clock;
use std::sync::Arc;

/// More than enough for competing to have paid.
const BARGES: usize = 5;

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
        assert_eq!(l.lock(rt, Some(clock::now_ns() + 500_000_000)), Outcome::TimedOut);
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

/// Runs a body as a goroutine of one processor, where others run only while it yields, and waits for its end.
fn alone(body: impl FnOnce(&'static Runtime) + Send + 'static) {
    let rt = runtime(1);
    let done = Arc::new(AtomicU64::new(0));
    let d = done.clone();
    go(rt, move || {
        body(rt);
        d.store(1, Ordering::Release);
    });
    while done.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
}

/// A locked mutex with `n` waiters, which note their numbers when they get it and unlock it.
fn contended(rt: &'static Runtime, n: u64) -> (Arc<Mutex>, Arc<std::sync::Mutex<Vec<u64>>>) {
    let (mutex, got) = (Arc::new(Mutex::new()), Arc::new(std::sync::Mutex::new(Vec::new())));
    assert!(mutex.try_lock());
    for number in 0..n {
        let (m, got) = (mutex.clone(), got.clone());
        go(rt, move || {
            assert_eq!(m.lock(rt, None), Outcome::Delivered);
            got.lock().expect("no panic").push(number);
            m.unlock().expect("locked");
        });
        wait_for_waiters(&mutex, number as usize + 1);
    }
    (mutex, got)
}

fn wait_for_waiters(mutex: &Mutex, n: usize) {
    while mutex.waiter_count() != n {
        gosched();
    }
}

#[test]
fn mutex_wakes_a_waiter_that_competes_and_stands_at_the_front_again() {
    alone(|rt| {
        let (mutex, got) = contended(rt, 3);
        for _ in 0..BARGES {
            mutex.unlock().expect("locked");
            assert!(mutex.try_lock(), "it is free until the woken one runs");
            assert_eq!(mutex.waiter_count(), 2, "one is woken, not one for each unlock");
        }
        wait_for_waiters(&mutex, 3);
        assert!(got.lock().expect("no panic").is_empty());
        mutex.unlock().expect("locked");
        while got.lock().expect("no panic").len() != 3 {
            gosched();
        }
        assert_eq!(*got.lock().expect("no panic"), [0, 1, 2]);
        assert!(mutex.try_lock());
    });
}

#[test]
fn mutex_is_handed_over_after_a_loss_that_did_not_pay() {
    alone(|rt| {
        let (mutex, got) = contended(rt, 2);
        mutex.unlock().expect("locked");
        assert!(mutex.try_lock());
        wait_for_waiters(&mutex, 2); // it has lost to the first that came
        mutex.unlock().expect("locked");
        assert!(!mutex.try_lock(), "it is the first waiter's, which has not run yet");
        while got.lock().expect("no panic").len() != 2 {
            gosched();
        }
        assert!(mutex.try_lock());
        mutex.unlock().expect("locked");
        assert_eq!(mutex.unlock(), Err(Misuse("sync: unlock of unlocked mutex")));
    });
}

#[test]
fn mutex_is_handed_over_to_one_that_waited_too_long_until_the_queue_is_empty() {
    alone(|rt| {
        let (mutex, got) = contended(rt, 2);
        let end = clock::now_ns() + 3_000_000;
        while clock::now_ns() < end {
            for _ in 0..BARGES {
                mutex.unlock().expect("locked");
                assert!(mutex.try_lock());
            }
        }
        wait_for_waiters(&mutex, 2); // it has lost, and found that it waits for more than a millisecond
        mutex.unlock().expect("locked");
        assert!(!mutex.try_lock(), "starvation mode: it is the first waiter's");
        while got.lock().expect("no panic").len() != 2 {
            gosched();
        }
        assert_eq!(*got.lock().expect("no panic"), [0, 1]);
        while !mutex.try_lock() {
            gosched();
        }
        let (m, g) = (mutex.clone(), got.clone());
        go(rt, move || {
            assert_eq!(m.lock(rt, None), Outcome::Delivered);
            g.lock().expect("no panic").push(2);
            m.unlock().expect("locked");
        });
        wait_for_waiters(&mutex, 1);
        mutex.unlock().expect("locked");
        assert!(mutex.try_lock(), "normal mode again");
        mutex.unlock().expect("locked");
        while got.lock().expect("no panic").len() != 3 {
            gosched();
        }
    });
}

#[test]
fn mutex_waiter_that_was_woken_and_gives_up_leaves_the_others() {
    alone(|rt| {
        let (mutex, got) = contended(rt, 0);
        let gave_up = Arc::new(AtomicU64::new(0));
        let (m, g) = (mutex.clone(), gave_up.clone());
        go(rt, move || {
            assert_eq!(m.lock(rt, soon()), Outcome::TimedOut);
            g.store(1, Ordering::Relaxed);
        });
        wait_for_waiters(&mutex, 1);
        let (m, g) = (mutex.clone(), got.clone());
        go(rt, move || {
            assert_eq!(m.lock(rt, None), Outcome::Delivered);
            g.lock().expect("no panic").push(1);
            m.unlock().expect("locked");
        });
        wait_for_waiters(&mutex, 2);
        mutex.unlock().expect("locked"); // wakes the first
        assert!(mutex.try_lock());
        while gave_up.load(Ordering::Relaxed) == 0 {
            gosched(); // it loses, and its time is up
        }
        mutex.unlock().expect("locked");
        while got.lock().expect("no panic").is_empty() {
            gosched();
        }
        while !mutex.try_lock() {
            gosched();
        }
    });
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
