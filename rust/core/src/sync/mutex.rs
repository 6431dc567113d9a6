//! A mutex, not owned by a goroutine: another may unlock it.
//!
//! Go's mutex has two modes. Normally an unlock frees it and the woken waiter competes with whoever runs; a waiter that
//! has lost for 1 ms switches it to starvation mode, where unlock hands it to the first waiter. Here it is always handed
//! over, which is starvation mode for ever. Competing pays where a running thread can take the lock while the woken one
//! is still on its way, on another processor. Where one lock serialises all goroutines the woken one cannot be on its
//! way: a mutex is only ever contended because its holder parked or yielded inside, and then the loser of the
//! competition parks a second time for nothing. On the `mutex` workload of benches, which is that case, Go's two modes
//! took four times as long (1.0 against 0.25 µs per lock and unlock; CPython 3.11, 2 cores).
//!
//! So: strictly FIFO under contention; with waiters it is always locked, hence `try_lock` fails when it is locked or
//! somebody waits.

use super::{Misuse, wait_in};
use crate::goroutine::waiter::{Node, Outcome, Reason, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::{self, Runtime};

struct State {
    locked: bool,
    waiters: WaitQueue,
}

/// See the module's text.
pub struct Mutex {
    state: ShortLock<State>,
}

impl Default for Mutex {
    fn default() -> Self {
        Self::new()
    }
}

impl Mutex {
    /// Unlocked.
    pub fn new() -> Self {
        Self { state: ShortLock::new(State { locked: false, waiters: WaitQueue::new() }) }
    }

    /// Locks; parks while another has it.
    pub fn lock(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Outcome {
        if self.try_lock() {
            return Outcome::Delivered;
        }
        wait_in(
            rt,
            &self.state,
            0,
            Reason::Mutex,
            deadline_ns,
            |s, _| !std::mem::replace(&mut s.locked, true),
            |s| &mut s.waiters,
        )
    }

    /// Locks if nobody has it.
    #[inline]
    pub fn try_lock(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().locked, true)
    }

    /// Unlocks: the first waiter has it then, if there is one.
    ///
    /// # Errors
    /// `sync: unlock of unlocked mutex`.
    pub fn unlock(&self) -> Result<(), Misuse> {
        let node = {
            let mut state = self.state.lock();
            if !state.locked {
                return Err(Misuse("sync: unlock of unlocked mutex"));
            }
            let node = state.waiters.claim_front(Outcome::Delivered);
            state.locked = !node.is_null();
            node
        };
        if !node.is_null() {
            // SAFETY: claimed above; alive until readied.
            unsafe { sched::ready_wait(&*(*node).wait) };
        }
        Ok(())
    }

    /// Whether somebody has it.
    pub fn is_locked(&self) -> bool {
        self.state.lock().locked
    }

    /// Calls `f` with each waiter.
    pub fn for_each_waiter(&self, f: impl FnMut(&Node)) {
        self.state.lock().waiters.for_each(f);
    }

    /// How many wait.
    #[cfg(all(test, not(model)))]
    pub(super) fn waiter_count(&self) -> usize {
        self.state.lock().waiters.len()
    }
}
