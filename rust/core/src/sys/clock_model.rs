//! The clock of the randomised model. It goes on a little with each look, since threads take time, and jumps to the end of the
//! sleep that ends first when chance says so: a time-out may come at any moment, but none before an earlier one.

use crate::primitive::{delayed, thread};
use std::cell::{Cell, RefCell};

/// How much later each look is, ns.
const LOOK_NS: u64 = 100;
/// Out of so many turns of a sleeping thread, one ends the sleep that ends first.
const JUMP_IN: u64 = 8;
/// It goes so far at most, ns: what takes for ever is over after none of a schedule's steps.
const JUMP_MOST_NS: u64 = 1_000_000;

std::thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(1) };
    static ENDS_NS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A new execution.
pub(crate) fn begin() {
    NOW_NS.set(1);
    ENDS_NS.take();
}

/// Nanoseconds since the execution began.
pub fn now_ns() -> u64 {
    NOW_NS.replace(NOW_NS.get() + LOOK_NS)
}

/// A model's threads have no counts beside it.
pub fn has_ticks() -> bool {
    false
}

/// The same as the clock.
pub fn ticks() -> u64 {
    now_ns()
}

/// The same: a model's threads do nothing but compute.
pub fn thread_cpu_ns() -> u64 {
    now_ns()
}

/// The same again.
pub fn process_cpu_ns() -> u64 {
    now_ns()
}

/// The same, of every thread.
pub fn cpu_ns_of(_tid: u32) -> Option<u64> {
    Some(now_ns())
}

/// A sleep in progress.
pub(in crate::sys) struct Sleep(u64);

impl Sleep {
    pub(in crate::sys) fn begin(end_ns: u64) -> Self {
        ENDS_NS.with_borrow_mut(|ends| ends.push(end_ns));
        Self(end_ns)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        ENDS_NS.with_borrow_mut(|ends| {
            let place = ends.iter().position(|&end| end == self.0);
            place.map(|i| ends.swap_remove(i));
        });
    }
}

/// A turn of a thread that sleeps.
pub(in crate::sys) fn pass() {
    if delayed::below(JUMP_IN) == 0 {
        let first = ENDS_NS.with_borrow(|ends| ends.iter().copied().min());
        let now = NOW_NS.get();
        NOW_NS.set(now.max(first.unwrap_or(0).min(now + JUMP_MOST_NS)));
    }
    thread::yield_now();
}
