//! A counter to wait for.
//!
//! Under one lock the counter reaches zero and all waiters are claimed in one step. So Go's "Add called concurrently with
//! Wait" cannot be seen here: whoever waits does so at a counter above zero. What can be seen is a waiter that comes back
//! and finds the counter in use again.

use super::{Claimed, Misuse, wait_in};
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::{self, Runtime};

const IN_AND_OUT: &str = "sync: WaitGroup.Add called from inside and outside synctest bubble";
const SEVERAL: &str = "sync: WaitGroup.Add called from multiple synctest bubbles";

struct State {
    count: i64,
    /// The bubble of those who count it (`sched::bubble`); 0: none.
    bubble: u32,
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
        Self { state: ShortLock::new(State { count: 0, bubble: 0, waiters: WaitQueue::new() }) }
    }

    /// Adds `n`, which may be negative; at zero all waiters go on.
    ///
    /// # Errors
    /// `sync: negative WaitGroup counter`, also for a sum beyond what it can count; and where goroutines of a bubble
    /// (`sched::bubble`) and others count the same group. Nothing is added then.
    pub fn add(&self, n: i64) -> Result<(), Misuse> {
        let mut claimed = Claimed::new();
        {
            let mut state = self.state.lock();
            let bubble = sched::current_bubble();
            if state.count != 0 && state.bubble != bubble {
                let one_is_outside = state.bubble == 0 || bubble == 0;
                return Err(Misuse(if one_is_outside { IN_AND_OUT } else { SEVERAL }));
            }
            state.bubble = bubble;
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
    pub fn wait(&self, rt: &'static Runtime, until: impl Into<Until>) -> Result<Outcome, Misuse> {
        let until = until.into();
        if self.count() == 0 {
            return Ok(Outcome::Delivered);
        }
        let enter = |state: &mut State, wait: &mut Wait| {
            wait.is_durable = state.bubble != 0 && state.bubble == sched::current_bubble();
            state.count == 0
        };
        let outcome = wait_in(rt, &self.state, 0, Reason::WaitGroup, until, enter, |s| &mut s.waiters);
        if outcome == Outcome::Delivered && self.count() != 0 {
            return Err(Misuse("sync: WaitGroup is reused before previous Wait has returned"));
        }
        Ok(outcome)
    }

    /// Calls `f` with each waiter.
    pub fn for_each_waiter(&self, f: impl FnMut(&Node)) {
        self.state.lock().waiters.for_each(f);
    }

    /// The counter.
    pub fn count(&self) -> i64 {
        self.state.lock().count
    }
}
