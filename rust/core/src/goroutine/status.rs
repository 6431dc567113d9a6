//! The status word of a goroutine: who owns its stack, and who may put it on a queue.
//!
//! | status | stack is owned by | on a queue | next |
//! |---|---|---|---|
//! | FREE | nobody | no | RUNNABLE by spawn |
//! | RUNNABLE | nobody | exactly one | RUNNING by the M that took it |
//! | RUNNING | the M | no | PARKING, RUNNABLE (yield), DEAD |
//! | PARKING | the M, still on it | no | WAITING by the M once it left the stack, WOKEN by a waker |
//! | WOKEN | the M, still on it | no | RUNNABLE by the M once it left the stack |
//! | WAITING | nobody | no | RUNNABLE by the one waker |
//! | DEAD | the M, for the last time | no | FREE |
//!
//! A parker never holds a lock over its park: a waker that comes before the stack is left only says so (WOKEN), and the
//! M that leaves the stack does the queueing. That is Go's unlock-after-park without a callback.

use super::Goroutine;
use crate::primitive::atomic::Ordering;
use crate::primitive::exclusive::change_u32;

/// Descriptor in the free list.
pub const FREE: u32 = 0;
/// On exactly one run queue.
pub const RUNNABLE: u32 = 1;
/// Running on an M.
pub const RUNNING: u32 = 2;
/// About to leave its stack.
pub const PARKING: u32 = 3;
/// Readied before it left its stack.
pub const WOKEN: u32 = 4;
/// Parked: stack left, waiting for one waker.
pub const WAITING: u32 = 5;
/// Ended.
pub const DEAD: u32 = 6;

/// What a waker has to do.
#[must_use]
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Wake {
    /// Put the goroutine on a run queue: this caller owns it now.
    Enqueue,
    /// Nothing: the M that parks it will.
    LeftToParker,
}

/// Goes from parked (or parking) to runnable. Called exactly once per park, by whoever claimed its [`super::waiter::Wait`].
#[inline]
pub fn wake(g: &Goroutine) -> Wake {
    loop {
        // Acquire: pairs with the parker's Release of PARKING and WAITING.
        match g.status.load(Ordering::Acquire) {
            WAITING => {
                if change_u32(&g.status, WAITING, RUNNABLE) {
                    return Wake::Enqueue;
                }
            }
            PARKING => {
                if change_u32(&g.status, PARKING, WOKEN) {
                    return Wake::LeftToParker;
                }
            }
            other => unreachable!("goroutine {} woken in status {other}", g.id),
        }
    }
}

/// Called by the M after it left the stack of a parking goroutine. `true`: it waits; `false`: queue it, it was woken.
#[inline]
#[must_use]
pub fn commit_park(g: &Goroutine) -> bool {
    if change_u32(&g.status, PARKING, WAITING) {
        return true;
    }
    // Release: pairs with the Acquire of the M that takes it from the queue.
    g.status.store(RUNNABLE, Ordering::Release);
    false
}

/// The word a dump prints.
pub fn name(status: u32) -> &'static str {
    match status {
        RUNNABLE => "runnable",
        RUNNING => "running",
        PARKING | WOKEN | WAITING => "waiting",
        DEAD => "dead",
        _ => "idle",
    }
}
