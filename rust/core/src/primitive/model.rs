//! Loom: the spin lock keeps its holders apart, a state word is changed by one, and no wake-up is lost at a door.

use super::atomic::{AtomicBool, AtomicU32, Ordering};
use super::exclusive::change_u32;
use super::spin_lock::SpinLock;
use super::{Door, Witness};
use loom::sync::Arc;
use loom::thread;

#[test]
fn spin_lock_keeps_two_holders_apart() {
    loom::model(|| {
        let shared = Arc::new((SpinLock::new(), Witness::new()));
        let hold = |s: &(SpinLock, Witness)| {
            s.0.acquire();
            s.1.touch();
            s.0.release();
        };
        let other = shared.clone();
        let thread = thread::spawn(move || hold(&other));
        hold(&shared);
        thread.join().expect("no panic");
        hold(&shared);
    });
}

#[test]
fn state_word_is_changed_by_exactly_one_of_three() {
    loom::model(|| {
        let word = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (1..3)
            .map(|to| {
                let word = word.clone();
                thread::spawn(move || u32::from(change_u32(&word, 0, to)))
            })
            .collect();
        let mine = u32::from(change_u32(&word, 0, 3));
        let others: u32 = threads.into_iter().map(|t| t.join().expect("no panic")).sum();
        assert_eq!(mine + others, 1);
    });
}

/// A semaphore's value, the door of its bucket, and whether a poster looked for somebody to wake.
struct Meeting {
    value: AtomicU32,
    door: Door,
    woken: AtomicBool,
}

impl Meeting {
    fn new() -> Arc<Self> {
        Arc::new(Self { value: AtomicU32::new(0), door: Door::new(), woken: AtomicBool::new(false) })
    }

    fn try_take(&self) -> bool {
        self.value.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok()
    }

    /// Whether it got a unit before it would park.
    fn wait(&self) -> bool {
        self.door.enter();
        self.try_take()
    }

    fn post(&self) {
        self.value.fetch_add(1, Ordering::Release);
        if self.door.is_used() {
            self.woken.store(true, Ordering::Release);
        }
    }
}

#[test]
fn who_parks_at_a_door_is_seen_by_who_posts() {
    loom::model(|| {
        let shared = Meeting::new();
        let other = shared.clone();
        let poster = thread::spawn(move || other.post());
        let taken = shared.wait();
        poster.join().expect("no panic");
        assert!(taken || shared.woken.load(Ordering::Acquire), "parked with a unit there, and nobody will come");
        if taken {
            shared.door.leave();
        }
        assert!(taken || shared.try_take(), "who is woken finds the unit");
    });
}

#[test]
fn two_waiters_and_a_post_leave_no_unit_unseen() {
    loom::model(|| {
        let shared = Meeting::new();
        let (one, two) = (shared.clone(), shared.clone());
        let poster = thread::spawn(move || one.post());
        let waiter = thread::spawn(move || two.wait());
        let here = shared.wait();
        let there = waiter.join().expect("no panic");
        poster.join().expect("no panic");
        assert!(!(here && there), "one unit, taken once");
        assert!(here || there || shared.woken.load(Ordering::Acquire));
    });
}
