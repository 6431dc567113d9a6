//! The list of waiters behind a condition variable: Go's notifyList (runtime/sema.go).
//!
//! A waiter joins the list first, then unlocks what it holds, then parks: a signal after the unlock finds it. Where
//! unlocking may itself park (it runs the host's code) the waiter cannot be announced as parking yet; it joins with a
//! [`Ticket`], and a signal that comes before it parks only marks the ticket.

use super::{Claimed, Standing};
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue, Who};
use crate::primitive::exclusive::ShortLock;
use crate::sched::{self, Runtime};
use std::ptr;

/// `Node::amount` of a waiter that must be readied when it is claimed, and of one that will look by itself.
const PARKED: u64 = 1;
const ON_ITS_WAY: u64 = 0;

/// A place in a [`NotifyList`], for a waiter that does not park yet. Stays in place until it has waited or left.
pub struct Ticket {
    wait: Wait,
    node: Node,
}

impl Ticket {
    /// In no list.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { wait: Wait::new(), node: Node::new(ptr::null_mut(), ptr::null_mut()) }
    }
}

/// See the module's text.
pub struct NotifyList {
    waiters: ShortLock<WaitQueue>,
}

impl Default for NotifyList {
    fn default() -> Self {
        Self::new()
    }
}

impl NotifyList {
    /// Nobody waits.
    pub fn new() -> Self {
        Self { waiters: ShortLock::new(WaitQueue::new()) }
    }

    /// Joins the list, then calls `unlock`, which must not park, then parks.
    pub fn wait(
        &self,
        rt: &'static Runtime,
        reason: Reason,
        until: impl Into<Until>,
        unlock: impl FnOnce(),
    ) -> Outcome {
        // SAFETY: the place is this caller's to the end of the call; the node stays there until it is unlinked, by the claimer or
        // below. No lock is held over the park.
        sched::with_place(|place: *mut Standing| unsafe {
            let (wait, node) = Standing::begin(place, PARKED);
            sched::announce(&mut *wait);
            self.waiters.lock().push_back(node);
            unlock();
            let outcome = sched::block(rt, &mut *wait, reason, until);
            if outcome != Outcome::Delivered {
                self.waiters.lock().remove(node);
            }
            outcome
        })
    }

    /// Calls `f` with each waiter, parked or on its way.
    pub fn for_each_waiter(&self, f: impl FnMut(&Node)) {
        self.waiters.lock().for_each(f);
    }

    /// Joins the list without parking; `wait_with` or `leave` must follow.
    ///
    /// # Safety
    /// `ticket` is in no list, and stays in place until one of those two returned.
    pub unsafe fn join(&self, ticket: *mut Ticket) {
        // SAFETY: the caller's promise.
        unsafe {
            (*ticket).node.wait = &raw mut (*ticket).wait;
            (*ticket).node.amount = ON_ITS_WAY;
            self.waiters.lock().push_back(&raw mut (*ticket).node);
        }
    }

    /// Parks with a ticket of this list, unless it was signalled already.
    ///
    /// # Safety
    /// `ticket` joined this list, by this goroutine or thread.
    pub unsafe fn wait_with(
        &self,
        ticket: *mut Ticket,
        rt: &'static Runtime,
        reason: Reason,
        until: impl Into<Until>,
    ) -> Outcome {
        // SAFETY: the ticket is this caller's; claims happen under the list's lock until `PARKED` is written under it.
        unsafe {
            {
                let mut list = self.waiters.lock();
                if (*ticket).wait.outcome() != Outcome::Pending {
                    return Outcome::Delivered;
                }
                if !(*ticket).node.is_linked() {
                    list.push_back(&raw mut (*ticket).node); // the process has forked since it joined
                }
                sched::announce(&mut (*ticket).wait);
                (*ticket).node.amount = PARKED;
            }
            let outcome = sched::block(rt, &mut (*ticket).wait, reason, until);
            if outcome != Outcome::Delivered {
                self.waiters.lock().remove(&raw mut (*ticket).node);
            }
            outcome
        }
    }

    /// Gives a ticket up. A signal it had got already goes to the next.
    ///
    /// # Safety
    /// As for `wait_with`.
    pub unsafe fn leave(&self, ticket: *mut Ticket) {
        // SAFETY: the ticket is this caller's, and not parked: only claimed under the lock.
        let signalled = unsafe {
            let mut list = self.waiters.lock();
            list.remove(&raw mut (*ticket).node);
            (*ticket).wait.outcome() != Outcome::Pending
        };
        if signalled {
            self.signal();
        }
    }

    /// Whether the one that waits longest is of a bubble (`sched::bubble`) that the caller is not in: then it is not the
    /// caller's to wake.
    pub fn is_foreign(&self) -> bool {
        let list = self.waiters.lock();
        let node = list.front();
        if node.is_null() {
            return false;
        }
        // SAFETY: a linked node and its wait are alive, under the lock, and so is a goroutine that waits.
        let bubble = unsafe {
            match (*(*node).wait).who {
                Who::Goroutine(g) if !g.is_null() => (*g).bubble.id,
                _ => 0,
            }
        };
        sched::is_foreign(bubble)
    }

    /// Wakes the one that waits longest; returns whether there was one.
    pub fn signal(&self) -> bool {
        let node = {
            let mut list = self.waiters.lock();
            let node = list.claim_front(Outcome::Delivered);
            if node.is_null() {
                return false;
            }
            // SAFETY: claimed under the lock. One that is not parked looks at its ticket under the lock, and may then go.
            if unsafe { (*node).amount } == ON_ITS_WAY {
                return true;
            }
            node
        };
        // SAFETY: claimed above; alive until readied.
        unsafe { sched::ready_wait(&*(*node).wait) };
        true
    }

    /// Wakes all.
    pub fn broadcast(&self) {
        let mut claimed = Claimed::new();
        {
            let mut list = self.waiters.lock();
            loop {
                let node = list.claim_front(Outcome::Delivered);
                if node.is_null() {
                    break;
                }
                // SAFETY: as in `signal`.
                unsafe {
                    if (*node).amount == PARKED {
                        claimed.0.push_back(node);
                    }
                }
            }
        }
        claimed.ready();
    }
}
