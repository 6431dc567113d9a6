//! A weighted semaphore (x/sync semaphore.Weighted): waiters are served in order, none overtakes, even if a later one
//! would fit. Who asks for more than there will ever be stands apart, so that it blocks nobody but itself.

use super::{Claimed, Misuse, wait_in};
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::Runtime;

struct State {
    free: u64,
    waiters: WaitQueue,
    /// Those who want more than the size: never served.
    hopeless: WaitQueue,
}

/// See the module's text.
pub struct Semaphore {
    size: u64,
    state: ShortLock<State>,
}

impl Semaphore {
    /// `size` units, all free.
    pub fn new(size: u64) -> Self {
        let state = State { free: size, waiters: WaitQueue::new(), hopeless: WaitQueue::new() };
        Self { size, state: ShortLock::new(state) }
    }

    /// Takes `n` units; parks until they are free. More than the size waits until the deadline, or for ever.
    pub fn acquire(&self, rt: &'static Runtime, n: u64, until: impl Into<Until>) -> Outcome {
        let until = until.into();
        if n > self.size {
            return wait_in(rt, &self.state, n, Reason::Semaphore, until, |_, _| false, |s| &mut s.hopeless);
        }
        if self.try_acquire(n) {
            return Outcome::Delivered;
        }
        let enter = |s: &mut State, _: &mut Wait| s.take(n);
        let outcome = wait_in(rt, &self.state, n, Reason::Semaphore, until, enter, |s| &mut s.waiters);
        if outcome != Outcome::Delivered {
            let _ = self.release(0); // it may have stood in front of smaller ones
        }
        outcome
    }

    /// Calls `f` with each waiter.
    pub fn for_each_waiter(&self, mut f: impl FnMut(&Node)) {
        let state = self.state.lock();
        state.waiters.for_each(&mut f);
        state.hopeless.for_each(f);
    }

    /// How many units are taken.
    pub fn taken(&self) -> u64 {
        self.size - self.state.lock().free
    }

    /// Takes `n` units if they are free and nobody waits.
    pub fn try_acquire(&self, n: u64) -> bool {
        self.state.lock().take(n)
    }

    /// Gives `n` units back and serves the waiters from what is free, in order, as far as it goes.
    ///
    /// # Errors
    /// `semaphore: released more than held`; nothing is given back then.
    pub fn release(&self, n: u64) -> Result<(), Misuse> {
        let mut claimed = Claimed::new();
        {
            let mut state = self.state.lock();
            if n > self.size - state.free {
                return Err(Misuse("semaphore: released more than held"));
            }
            state.free += n;
            let State { free, waiters, .. } = &mut *state;
            loop {
                let node = waiters.front();
                // SAFETY: a linked node is live.
                if node.is_null() || unsafe { (*node).amount } > *free {
                    break;
                }
                // SAFETY: as above; out of the queue before its owner can go.
                unsafe {
                    waiters.remove(node);
                    if (*(*node).wait).claim(Outcome::Delivered) {
                        *free -= (*node).amount;
                        claimed.0.push_back(node);
                    }
                }
            }
        }
        claimed.ready();
        Ok(())
    }
}

impl State {
    fn take(&mut self, n: u64) -> bool {
        let ok = self.free >= n && self.waiters.is_empty();
        if ok {
            self.free -= n;
        }
        ok
    }
}
