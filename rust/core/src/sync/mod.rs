//! Layer 9: what Go's sync package has, on waits; all FIFO.
//!
//! Every type is one lock around a few words and wait queues, so that misuse is told, never undefined. Go builds its
//! types on atomics and a table of semaphores because its mutex must be a few instructions under true parallelism; here
//! the short lock costs a load under an exclusive host (`primitive::exclusive`), and one lock makes each transition one
//! step: no lost wake-up, no half-done misuse.
//!
//! The shape they share: look and enter under the lock; else stand in a queue and park without the lock; whoever makes
//! room changes the state on the waiter's behalf, claims it under the lock and readies it after. A waiter that is
//! readied has what it asked for. One that gives up (time-out, cancel) takes its node out, and lets those behind it pass
//! where it stood in their way.

mod cond;
mod mutex;
mod rw_mutex;
mod semaphore;
#[cfg(all(test, not(model)))]
mod tests;
mod wait_group;

pub use cond::{NotifyList, Ticket};
pub use mutex::Mutex;
pub use rw_mutex::RwMutex;
pub use semaphore::Semaphore;
pub use wait_group::WaitGroup;

use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::contention::LetGo;
use crate::sched::{self, Runtime};
use std::ptr;

/// Misuse, with Go's words. The state is as it was before the call.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Misuse(pub &'static str);

/// Blocks in a queue of `lock`'s state unless `enter` says it need not.
fn wait_in<S>(
    rt: &'static Runtime,
    lock: &ShortLock<S>,
    amount: u64,
    reason: Reason,
    until: Until,
    enter: impl FnOnce(&mut S, &mut Wait) -> bool,
    queue: impl Fn(&mut S) -> &mut WaitQueue,
) -> Outcome {
    // SAFETY: the place is this caller's to the end of the call. The node stays there until it is unlinked, by the claimer or below. No
    // lock is held over the park.
    sched::with_place(|place: *mut Standing| unsafe {
        let (wait, node) = Standing::begin(place, amount);
        sched::announce(&mut *wait);
        if is_lock(reason) {
            rt.enter_lock(address_of(lock), &mut *node);
        }
        let mut state = lock.lock();
        if enter(&mut state, &mut *wait) {
            drop(state);
            rt.leave_lock(address_of(lock), &mut *node);
            sched::retract(&*wait);
            return Outcome::Delivered;
        }
        queue(&mut state).push_back(node);
        drop(state);
        let began_ns = if is_lock(reason) { rt.begin_lock_wait() } else { 0 };
        let outcome = sched::block(rt, &mut *wait, reason, until);
        rt.end_lock_wait(began_ns);
        if outcome != Outcome::Delivered {
            queue(&mut lock.lock()).remove(node);
            rt.leave_lock(address_of(lock), &mut *node);
        }
        outcome
    })
}

/// Whether it is for a lock that somebody holds, whom a mutex profile tells.
fn is_lock(reason: Reason) -> bool {
    matches!(reason, Reason::RwMutexRead | Reason::RwMutexWrite)
}

/// What a mutex profile knows a lock by.
fn address_of<S>(lock: &ShortLock<S>) -> usize {
    ptr::from_ref(lock).addr()
}

/// A wait in one queue.
struct Standing {
    wait: Wait,
    node: Node,
}

impl Standing {
    /// Makes one in a place of `sched::with_place`.
    ///
    /// # Safety
    /// There is room for one.
    #[inline]
    unsafe fn begin(place: *mut Self, amount: u64) -> (*mut Wait, *mut Node) {
        // SAFETY: the caller's promise.
        unsafe {
            let (wait, node) = (&raw mut (*place).wait, &raw mut (*place).node);
            wait.write(Wait::new());
            node.write(Node::new(wait, ptr::null_mut()));
            (*node).amount = amount;
            (wait, node)
        }
    }
}

/// Waiters claimed under a lock, to be readied once it is released. They chain up through their own nodes, so that
/// nothing is allocated under the lock.
struct Claimed(WaitQueue);

impl Claimed {
    fn new() -> Self {
        Self(WaitQueue::new())
    }

    /// Claims the first of `queue` that can be; `false` if there is none.
    fn take_from(&mut self, queue: &mut WaitQueue) -> bool {
        let node = queue.claim_front(Outcome::Delivered);
        if node.is_null() {
            return false;
        }
        // SAFETY: claimed: unlinked, and alive until its wait is readied.
        unsafe { self.0.push_back(node) };
        true
    }

    /// Readies them, in order.
    fn ready(self) {
        self.ready_each(|_| {});
    }

    /// The same for those who waited for a lock, which the caller has unlocked.
    ///
    /// # Safety
    /// Host attached; no lock is held.
    unsafe fn ready_at_lock<S>(self, lock: &ShortLock<S>, reason: Reason) {
        let mut let_go = LetGo::default();
        // SAFETY: claimed, and not readied before; the caller's promise.
        unsafe {
            self.ready_each(|node| let_go.add(node));
            let_go.charge(address_of(lock), reason);
        }
    }

    #[inline]
    fn ready_each(mut self, mut see: impl FnMut(*mut Node)) {
        while !self.0.is_empty() {
            let node = self.0.front();
            // SAFETY: claimed by `take_from`, readied here once; the node is not touched after its owner may run.
            unsafe {
                self.0.remove(node);
                see(node);
                sched::ready_wait(&*(*node).wait);
            }
        }
    }
}
