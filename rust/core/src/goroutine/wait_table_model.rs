//! Loom: no wake-up is lost between a word and the table, also while the table grows. Arrays have two buckets at first.

use super::wait_table::WaitTable;
use super::waiter::{Node, Outcome, Wait};
use crate::primitive::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::Arc;
use loom::thread;
use std::ptr;

/// A semaphore: its value, and whether a poster claimed somebody who waits for it.
struct Word {
    address: u64,
    value: AtomicU32,
    woken: AtomicBool,
}

/// A table and the words of two buckets.
struct Meeting {
    table: WaitTable,
    words: [Word; 2],
}

fn meeting() -> Arc<Meeting> {
    let word = |address| Word { address, value: AtomicU32::new(0), woken: AtomicBool::new(false) };
    // Bit 32 of the hash chooses between two buckets.
    let other = (2..).find(|n| bucket_of_two(*n) != bucket_of_two(1)).expect("half of all are");
    Arc::new(Meeting { table: WaitTable::new(), words: [word(1), word(other)] })
}

fn bucket_of_two(address: u64) -> u64 {
    address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 1
}

/// A node that may be sent to the thread that will leave.
struct Standing {
    node: Box<Node>,
    _wait: Box<Wait>,
}

// SAFETY: nothing of a thread is in it.
unsafe impl Send for Standing {}

impl Standing {
    fn new(address: u64) -> Self {
        let mut wait = Box::new(Wait::new());
        let mut node = Box::new(Node::new(&raw mut *wait, ptr::null_mut()));
        node.amount = address;
        Self { node, _wait: wait }
    }

    fn enter(&mut self, table: &WaitTable) {
        // SAFETY: boxed, and alive until `leave`.
        assert!(unsafe { table.enter(&raw mut *self.node) });
    }

    fn leave(mut self, table: &WaitTable) {
        // SAFETY: it entered.
        unsafe { table.leave(&raw mut *self.node) };
    }
}

impl Word {
    fn try_take(&self) -> bool {
        self.value.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok()
    }
}

impl Meeting {
    /// Whether it got a unit before it would park, and its place in the table.
    fn wait(&self, which: usize) -> (bool, Standing) {
        let mut standing = Standing::new(self.words[which].address);
        standing.enter(&self.table);
        (self.words[which].try_take(), standing)
    }

    fn post(&self, which: usize) {
        let word = &self.words[which];
        word.value.fetch_add(1, Ordering::Release);
        if self.table.is_used(word.address) && !self.table.claim(word.address, Outcome::Delivered).is_null() {
            word.woken.store(true, Ordering::Release);
        }
    }

    /// After all threads: who did not take the unit at once was woken, and finds it.
    fn check(&self, which: usize, taken: bool) {
        let word = &self.words[which];
        assert!(taken || word.woken.load(Ordering::Acquire), "parked with a unit there, and nobody will come");
        assert!(taken || word.try_take(), "who is woken finds the unit");
    }
}

#[test]
fn who_parks_is_seen_by_who_posts() {
    loom::model(|| {
        let shared = meeting();
        let other = shared.clone();
        let poster = thread::spawn(move || other.post(0));
        let (taken, standing) = shared.wait(0);
        poster.join().expect("no panic");
        shared.check(0, taken);
        standing.leave(&shared.table);
        assert!(!shared.table.is_used(shared.words[0].address));
    });
}

#[test]
fn two_waiters_and_a_post_leave_no_unit_unseen() {
    loom::model(|| {
        let shared = meeting();
        let (one, two) = (shared.clone(), shared.clone());
        let poster = thread::spawn(move || one.post(0));
        let waiter = thread::spawn(move || two.wait(0));
        let here = shared.wait(0);
        let there = waiter.join().expect("no panic");
        poster.join().expect("no panic");
        assert!(!(here.0 && there.0), "one unit, taken once");
        assert!(here.0 || there.0 || shared.words[0].woken.load(Ordering::Acquire));
        here.1.leave(&shared.table);
        there.1.leave(&shared.table);
    });
}

#[test]
fn who_parks_is_seen_by_who_posts_while_the_table_grows() {
    loom::model(|| {
        let shared = meeting();
        // Two stand there who were claimed: both buckets are unused, and the next one makes the table grow.
        let before: Vec<_> = (0..2)
            .map(|which| {
                let mut standing = Standing::new(shared.words[which].address);
                standing.enter(&shared.table);
                assert!(!shared.table.claim(shared.words[which].address, Outcome::Delivered).is_null());
                standing
            })
            .collect();
        let (grower, waiter) = (shared.clone(), shared.clone());
        let grower = thread::spawn(move || grower.wait(0).1);
        let waiter = thread::spawn(move || waiter.wait(1));
        shared.post(1);
        let grew = grower.join().expect("no panic");
        let (taken, standing) = waiter.join().expect("no panic");
        shared.check(1, taken);
        standing.leave(&shared.table);
        grew.leave(&shared.table);
        before.into_iter().for_each(|standing| standing.leave(&shared.table));
        assert!(shared.words.iter().all(|word| !shared.table.is_used(word.address)));
    });
}
