//! A counter to wait for.
//!
//! Under one lock the counter reaches zero and all waiters are claimed in one step. So Go's "Add called concurrently with
//! Wait" cannot be seen here: whoever waits does so at a counter above zero. What can be seen is a waiter that comes back
//! and finds the counter in use again.

use super::{Claimed, Misuse, wait_in};
use crate::goroutine::waiter::{Outcome, Reason, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::Runtime;

struct State {
    count: i64,
    waiters: WaitQueue,
}

/// See the module's text.
pub struct WaitGroup {
    state: ShortLock<State>,
}

impl Default for WaitGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitGroup {
    /// Zero.
    pub fn new() -> Self {
        Self { state: ShortLock::new(State { count: 0, waiters: WaitQueue::new() }) }
    }

    /// Adds `n`, which may be negative; at zero all waiters go on.
    ///
    /// # Errors
    /// `sync: negative WaitGroup counter`, also for a sum beyond what it can count; nothing is added then.
    pub fn add(&self, n: i64) -> Result<(), Misuse> {
        let mut claimed = Claimed::new();
        {
            let mut state = self.state.lock();
            match state.count.checked_add(n) {
                Some(count) if count >= 0 => state.count = count,
                _ => return Err(Misuse("sync: negative WaitGroup counter")),
            }
            if state.count == 0 {
                while claimed.take_from(&mut state.waiters) {}
            }
        }
        claimed.ready();
        Ok(())
    }

    /// Parks until the counter is zero.
    ///
    /// # Errors
    /// `sync: WaitGroup is reused before previous Wait has returned`: the counter was zero, and no longer is.
    pub fn wait(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Result<Outcome, Misuse> {
        if self.count() == 0 {
            return Ok(Outcome::Delivered);
        }
        let outcome = wait_in(rt, &self.state, 0, Reason::WaitGroup, deadline_ns, |s| s.count == 0, |s| &mut s.waiters);
        if outcome == Outcome::Delivered && self.count() != 0 {
            return Err(Misuse("sync: WaitGroup is reused before previous Wait has returned"));
        }
        Ok(outcome)
    }

    /// The counter.
    pub fn count(&self) -> i64 {
        self.state.lock().count
    }
}
