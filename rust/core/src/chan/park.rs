//! Send and receive that wait.
//!
//! Wait, node and slot are on the waiter's own stack. Others reach them through the node only, so the waiter reads the
//! slot back through the pointer the node has, after it was woken. Nothing with a destructor of its own lives over the
//! park: a host may end the thread there.

use super::{Chan, RecvError, SendError, ready};
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortGuard;
use crate::sched::{self, Runtime};
use std::cell::UnsafeCell;

use super::state::State;

impl<T> Chan<T> {
    /// Sends; parks until a receiver or room takes the value, at the latest until `deadline_ns`.
    ///
    /// # Errors
    /// `Closed`, `Ended` or `NoMemory`, with the value.
    pub fn send(&self, rt: &'static Runtime, value: T, deadline_ns: Option<u64>) -> Result<(), SendError<T>> {
        let mut state = self.state.lock();
        let value = match state.send_now(value, self.capacity) {
            Err(SendError::Full(value)) => value,
            other => {
                drop(state);
                return other.map(ready);
            }
        };
        let slot = UnsafeCell::new(Some(value));
        let outcome = self.wait_in(rt, state, |s| &mut s.senders, &slot, Reason::ChanSend, deadline_ns);
        match (outcome, slot.into_inner()) {
            (Outcome::Delivered, _) | (_, None) => Ok(()),
            (Outcome::Closed, Some(value)) => Err(SendError::Closed(value)),
            (other, Some(value)) => Err(SendError::Ended(value, other)),
        }
    }

    /// Receives; parks until there is a value or the channel is closed, at the latest until `deadline_ns`.
    ///
    /// # Errors
    /// `Closed` once drained, or `Ended`.
    pub fn recv(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Result<T, RecvError> {
        let mut state = self.state.lock();
        if let Some((value, readied)) = state.recv_now() {
            drop(state);
            ready(readied);
            return value.ok_or(RecvError::Closed);
        }
        let slot = UnsafeCell::new(None);
        let outcome = self.wait_in(rt, state, |s| &mut s.receivers, &slot, Reason::ChanReceive, deadline_ns);
        match (outcome, slot.into_inner()) {
            (_, Some(value)) => Ok(value),
            (Outcome::Closed | Outcome::Delivered, None) => Err(RecvError::Closed),
            (other, None) => Err(RecvError::Ended(other)),
        }
    }

    /// Joins a queue of `state`, releases the lock and parks. On return the wait is over and stands in no queue.
    #[inline(always)]
    fn wait_in(
        &self,
        rt: &'static Runtime,
        mut state: ShortGuard<'_, State<T>>,
        queue: impl Fn(&mut State<T>) -> &mut WaitQueue,
        slot: &UnsafeCell<Option<T>>,
        reason: Reason,
        deadline_ns: Option<u64>,
    ) -> Outcome {
        let mut wait = Wait::new();
        wait.is_durable = self.bubble != 0;
        sched::announce(&mut wait);
        let mut node = Node::new(&raw mut wait, slot.get().cast());
        let place = &raw mut node;
        // SAFETY: the node stays on this stack until it is unlinked, by the claimer or below.
        unsafe { queue(&mut state).push_back(place) };
        drop(state);
        // SAFETY: announced above, while nobody could find it; no lock is held.
        let outcome = unsafe { sched::block(rt, &mut wait, reason, deadline_ns) };
        if !matches!(outcome, Outcome::Delivered | Outcome::Closed) {
            // SAFETY: the node is live, and linked here if anywhere.
            unsafe { queue(&mut self.state.lock()).remove(place) };
        }
        outcome
    }
}
