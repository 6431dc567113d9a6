//! The futex in a model: one lock for all words, as the kernel's hash bucket has, and a list of who sleeps where.
//!
//! Under loom a time-out is over at once, after the others had a turn; under shuttle when the clock there says so, which
//! goes on by chance. Wake-ups are never spurious, so that a lost one is a deadlock, which both report.

use crate::primitive::atomic::{AtomicU32, Ordering};
use crate::primitive::{Condvar, Mutex};

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

#[cfg(loom)]
use loom::lazy_static;
#[cfg(shuttle)]
use shuttle::lazy_static;

lazy_static! {
    static ref BUCKET: (Mutex<Sleepers>, Condvar) = (Mutex::new(Sleepers::default()), Condvar::new());
}

/// Sleeps while `*word == expected`.
pub fn wait(word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) -> WaitResult {
    #[cfg(loom)]
    if timeout_ns.is_some() {
        loom::thread::yield_now();
        return WaitResult::TimedOut;
    }
    #[cfg(shuttle)]
    crate::primitive::delayed::flush(); // a system call
    let mut sleepers = BUCKET.0.lock().expect("no model panics with the bucket held");
    if word.load(Ordering::SeqCst) != expected {
        return WaitResult::Woken;
    }
    let ticket = sleepers.next_ticket;
    sleepers.next_ticket += 1;
    sleepers.asleep.push((std::ptr::from_ref(word).addr(), ticket));
    #[cfg(shuttle)]
    if let Some(timeout_ns) = timeout_ns {
        drop(sleepers);
        return wait_until(ticket, super::clock::now_ns().saturating_add(timeout_ns));
    }
    while sleepers.asleep.iter().any(|&(_, t)| t == ticket) {
        sleepers = BUCKET.1.wait(sleepers).expect("no model panics with the bucket held");
    }
    WaitResult::Woken
}

#[cfg(shuttle)]
fn wait_until(ticket: u64, deadline_ns: u64) -> WaitResult {
    let _sleep = super::clock::Sleep::begin(deadline_ns);
    loop {
        let mut sleepers = BUCKET.0.lock().expect("no model panics with the bucket held");
        let Some(place) = sleepers.asleep.iter().position(|&(_, t)| t == ticket) else {
            return WaitResult::Woken;
        };
        if super::clock::now_ns() >= deadline_ns {
            sleepers.asleep.remove(place);
            return WaitResult::TimedOut;
        }
        drop(sleepers);
        super::clock::pass();
    }
}

/// Wakes one sleeper.
pub fn wake_one(word: *const AtomicU32) {
    #[cfg(shuttle)]
    crate::primitive::delayed::flush(); // a system call
    let mut sleepers = BUCKET.0.lock().expect("no model panics with the bucket held");
    if let Some(i) = sleepers.asleep.iter().position(|&(address, _)| address == word.addr()) {
        sleepers.asleep.remove(i);
        BUCKET.1.notify_all();
    }
}
