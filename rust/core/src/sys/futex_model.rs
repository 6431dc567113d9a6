//! The futex under loom: one lock for all words, as the kernel's hash bucket has, and a list of who sleeps where.
//!
//! A time-out is over at once, after the others had a turn: models have no clock. Wake-ups are never spurious, so that a
//! lost one is a deadlock, which loom reports.

use crate::primitive::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

/// Why `wait` returned. Spurious wake-ups are `Woken`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// Woken, or the word was not `expected`.
    Woken,
    /// The time ran out.
    TimedOut,
    /// A signal handler ran. Not in a model.
    Interrupted,
}

#[derive(Default)]
struct Sleepers {
    /// Word address and ticket of each sleeper, in the order they came.
    asleep: Vec<(usize, u64)>,
    next_ticket: u64,
}

loom::lazy_static! {
    static ref BUCKET: (Mutex<Sleepers>, Condvar) = (Mutex::new(Sleepers::default()), Condvar::new());
}

/// Sleeps while `*word == expected`. With a time-out it never sleeps.
pub fn wait(word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) -> WaitResult {
    if timeout_ns.is_some() {
        loom::thread::yield_now();
        return WaitResult::TimedOut;
    }
    let mut sleepers = BUCKET.0.lock().expect("no model panics with the bucket held");
    if word.load(Ordering::Acquire) != expected {
        return WaitResult::Woken;
    }
    let ticket = sleepers.next_ticket;
    sleepers.next_ticket += 1;
    sleepers.asleep.push((std::ptr::from_ref(word).addr(), ticket));
    while sleepers.asleep.iter().any(|&(_, t)| t == ticket) {
        sleepers = BUCKET.1.wait(sleepers).expect("no model panics with the bucket held");
    }
    WaitResult::Woken
}

/// Wakes one sleeper.
pub fn wake_one(word: *const AtomicU32) {
    let mut sleepers = BUCKET.0.lock().expect("no model panics with the bucket held");
    if let Some(i) = sleepers.asleep.iter().position(|&(address, _)| address == word.addr()) {
        sleepers.asleep.remove(i);
        BUCKET.1.notify_all();
    }
}
