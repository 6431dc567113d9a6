//! Layer 9: channels, as Go's runtime/chan.go has them.
//!
//! Invariants, under the channel's lock:
//! - one of the two wait queues is empty, except for goroutines that wait on both sides in one select;
//! - a value that could be received means no receiver waits; room in the buffer means no sender waits. (Waiters whose
//!   wait was claimed by somebody else, a timer or another channel of their select, may still stand in a queue; they
//!   are passed over.)
//! - waiters are served in order;
//! - a value belongs to the buffer, to the slot of a waiter, or to a caller: none is dropped inside, what a caller must
//!   dispose of is handed back to it.
//!
//! Handing over: whoever finds a waiter takes its node out, claims its wait, reads or writes its slot, releases the lock
//! and readies the waiter. The waiter does not run before that, so its stack, and with it wait, node and slot, lives.

#[cfg(all(test, loom))]
mod ender_model;
#[cfg(all(test, not(model)))]
mod ender_tests;
#[cfg(all(test, loom))]
mod model;
mod park;
pub mod select;
mod state;
#[cfg(all(test, not(model)))]
mod tests;

use crate::alloc::Ring;
use crate::goroutine::waiter::{Node, Outcome, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::primitive::room::Room;
use crate::sched;
use state::State;
use std::collections::VecDeque;

/// Why a send did not happen; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// The channel is closed, or was closed while the sender waited.
    Closed(T),
    /// Nobody takes it now (`try_send`).
    Full(T),
    /// Ended early: timed out, cancelled, interrupted, deadlock.
    Ended(T, Outcome),
    /// There is room, but no memory for it.
    NoMemory(T),
}

/// Why a receive gave nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum RecvError {
    /// Closed and drained.
    Closed,
    /// Nothing there now (`try_recv`).
    Empty,
    /// Ended early.
    Ended(Outcome),
}

/// The channel was closed before.
#[derive(Debug, PartialEq, Eq)]
pub struct AlreadyClosed;

/// A channel of `T`.
pub struct Chan<T> {
    capacity: usize,
    /// The bubble it was made in (`sched::bubble`); 0: in none.
    bubble: u32,
    state: ShortLock<State<T>>,
}

/// A claimed waiter the caller must ready once the lock is released; null for none.
type Readied = *mut Wait;

/// Readies a waiter that an operation on the state claimed.
#[inline]
fn ready(readied: Readied) {
    if !readied.is_null() {
        // SAFETY: claimed by the caller's operation, and readied here once.
        unsafe { sched::ready_wait(&*readied) };
    }
}

impl<T> Chan<T> {
    /// A channel with room for `capacity` values; 0 is a rendezvous. Memory for them comes as they come.
    pub fn new(capacity: usize) -> Self {
        Self::new_in(capacity, sched::current_bubble())
    }

    /// The same, of bubble `bubble`; 0 for none.
    pub fn new_in(capacity: usize, bubble: u32) -> Self {
        Self { capacity, bubble, state: ShortLock::new(State::new()) }
    }

    /// Whether it belongs to a bubble that the caller is not in: then it is not the caller's to use.
    #[inline]
    pub fn is_foreign(&self) -> bool {
        sched::is_foreign(self.bubble)
    }

    /// Room of the buffer.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room in the buffer for `most` values, or as many as the channel may hold, if there is memory; for how many there is.
    pub fn reserve(&self, most: usize) -> usize {
        let mut state = self.state.lock();
        let more = self.capacity.min(most).saturating_sub(state.buffer.len());
        let _ = state.buffer.grow(more);
        state.buffer.capacity()
    }

    /// Values that can be received without a sender: the buffer, and what `unrecv` put back.
    pub fn len(&self) -> usize {
        self.state.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Calls `f` with each value held (for a collector's traverse).
    pub fn for_each_held(&self, mut f: impl FnMut(&T)) {
        let state = self.state.lock();
        state.returned.iter().for_each(|(_, v)| f(v));
        state.buffer.iter().for_each(f);
    }

    /// Calls `f` with each waiter, and whether it waits to send: then its slot holds an `Option<T>`.
    pub fn for_each_waiter(&self, mut f: impl FnMut(&Node, bool)) {
        let state = self.state.lock();
        state.receivers.for_each(|node| f(node, false));
        state.senders.for_each(|node| f(node, true));
    }

    /// Takes all values out (for a collector's clear): what `unrecv` put back, and the buffer.
    pub fn take_held(&self) -> (VecDeque<(u64, T)>, Ring<T>) {
        let mut state = self.state.lock();
        (std::mem::take(&mut state.returned), std::mem::take(&mut state.buffer))
    }

    /// Sends without blocking.
    ///
    /// # Errors
    /// `Closed`, `Full` or `NoMemory`, with the value.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        let mut state = self.state.lock();
        let result = state.send_now(value, self.capacity);
        drop(state);
        result.map(ready)
    }

    /// Receives without blocking.
    ///
    /// # Errors
    /// `Closed` once drained, or `Empty`.
    #[inline]
    pub fn try_recv(&self) -> Result<T, RecvError> {
        let result = self.state.lock().recv_now();
        match result {
            Some((value, readied)) => {
                ready(readied);
                value.ok_or(RecvError::Closed)
            }
            None => Err(RecvError::Empty),
        }
    }

    /// Takes back a value that was received in a select with stamp `stamp` and found no taker: it goes to the receiver
    /// that waits longest, else before everything in the buffer, whatever its capacity, closed or not. Several that are
    /// put back stand in the order in which they had been received. Never blocks.
    ///
    /// # Errors
    /// The value, when memory is refused.
    pub fn unrecv(&self, value: T, stamp: u64) -> Result<(), T> {
        let mut state = self.state.lock();
        let result = state.put_back(value, stamp);
        drop(state);
        result.map(ready)
    }

    /// Closes: waiting receivers get "closed", waiting senders get their values back.
    ///
    /// # Errors
    /// `AlreadyClosed` the second time.
    pub fn close(&self) -> Result<(), AlreadyClosed> {
        // The claimed nodes chain up in a queue of this call: no memory is asked for.
        let mut claimed = WaitQueue::new();
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(AlreadyClosed);
            }
            state.closed = true;
            loop {
                let mut node = state.receivers.claim_front(Outcome::Closed);
                if node.is_null() {
                    node = state.senders.claim_front(Outcome::Closed);
                }
                if node.is_null() {
                    break;
                }
                // SAFETY: claimed: unlinked, and alive until its wait is readied below.
                unsafe { claimed.push_back(node) };
            }
        }
        while !claimed.is_empty() {
            let node = claimed.front();
            // SAFETY: as above; it is out of the queue before its owner can run, and not touched after.
            let wait = unsafe {
                claimed.remove(node);
                (*node).wait
            };
            ready(wait);
        }
        Ok(())
    }
}
