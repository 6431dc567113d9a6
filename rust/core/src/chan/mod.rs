//! Layer 9: channels, as Go's runtime/chan.go has them.
//!
//! Invariants: one of the two wait queues is empty, except for a goroutine that waits on both sides in one select;
//! values in the buffer mean no receiver waits, room in it means no sender waits. Waiters are served in order. No value
//! is dropped inside the lock: what a caller must dispose of is handed back to it.

#[cfg(all(test, loom))]
mod model;
pub mod select;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::{self, Runtime};
use std::collections::VecDeque;
use std::ptr;

/// Why a send did not happen; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// The channel is closed, or was closed while the sender waited.
    Closed(T),
    /// Nobody takes it now (`try_send`).
    Full(T),
    /// Ended early: timed out, cancelled, interrupted, deadlock.
    Ended(T, Outcome),
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

pub(crate) struct State<T> {
    pub(crate) buffer: VecDeque<T>,
    pub(crate) closed: bool,
    pub(crate) receivers: WaitQueue,
    pub(crate) senders: WaitQueue,
}

/// A channel of `T`.
pub struct Chan<T> {
    capacity: usize,
    pub(crate) state: ShortLock<State<T>>,
}

/// What a sender or receiver has to do after the lock is released.
type Readied = *mut Wait;

impl<T> State<T> {
    /// Sends if it can be done at once: `Ok(whom to ready)`, or the value back.
    #[inline]
    pub(crate) fn send_now(&mut self, value: T, capacity: usize) -> Result<Readied, T> {
        if !self.receivers.is_empty() {
            let node = self.receivers.claim_front(Outcome::Delivered);
            if !node.is_null() {
                // SAFETY: a claimed receiver's node is alive until it is readied; its slot is an `Option<T>`.
                unsafe {
                    *(*node).slot.cast::<Option<T>>() = Some(value);
                    return Ok((*node).wait);
                }
            }
        }
        if self.buffer.len() < capacity {
            self.buffer.push_back(value);
            return Ok(ptr::null_mut());
        }
        Err(value)
    }

    /// Receives if it can be done at once. `Some((None, _))`: closed and drained.
    #[inline]
    pub(crate) fn recv_now(&mut self, capacity: usize) -> Option<(Option<T>, Readied)> {
        if let Some(value) = self.buffer.pop_front() {
            let mut readied = ptr::null_mut();
            // A waiting sender's value takes the place at the tail, so that the order stays.
            if self.buffer.len() < capacity && !self.senders.is_empty() {
                let node = self.senders.claim_front(Outcome::Delivered);
                if !node.is_null() {
                    // SAFETY: a claimed sender's node is alive until it is readied; its slot holds the value.
                    unsafe {
                        if let Some(v) = (*(*node).slot.cast::<Option<T>>()).take() {
                            self.buffer.push_back(v);
                        }
                        readied = (*node).wait;
                    }
                }
            }
            return Some((Some(value), readied));
        }
        if !self.senders.is_empty() {
            let node = self.senders.claim_front(Outcome::Delivered);
            if !node.is_null() {
                // SAFETY: as above.
                return Some(unsafe { ((*(*node).slot.cast::<Option<T>>()).take(), (*node).wait) });
            }
        }
        if self.closed { Some((None, ptr::null_mut())) } else { None }
    }
}

/// Readies a waiter that `send_now` or `recv_now` claimed.
#[inline]
pub(crate) fn ready(readied: Readied) {
    if !readied.is_null() {
        // SAFETY: claimed by the caller's `_now` call, once.
        unsafe { sched::ready_wait(&*readied) };
    }
}

impl<T> Chan<T> {
    /// A channel with room for `capacity` values; 0 is a rendezvous.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: ShortLock::new(State {
                buffer: VecDeque::new(),
                closed: false,
                receivers: WaitQueue::new(),
                senders: WaitQueue::new(),
            }),
        }
    }

    /// Room of the buffer.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Values in the buffer.
    pub fn len(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// Whether the buffer holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Calls `f` with each buffered value (for a collector's traverse).
    pub fn for_each_buffered(&self, mut f: impl FnMut(&T)) {
        self.state.lock().buffer.iter().for_each(&mut f);
    }

    /// Takes the whole buffer out (for a collector's clear).
    pub fn take_buffered(&self) -> VecDeque<T> {
        std::mem::take(&mut self.state.lock().buffer)
    }

    /// Sends without blocking.
    ///
    /// # Errors
    /// `Closed` or `Full`, with the value.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(SendError::Closed(value));
        }
        let result = state.send_now(value, self.capacity);
        drop(state);
        result.map(ready).map_err(SendError::Full)
    }

    /// Receives without blocking.
    ///
    /// # Errors
    /// `Closed` once drained, or `Empty`.
    #[inline]
    pub fn try_recv(&self) -> Result<T, RecvError> {
        let result = self.state.lock().recv_now(self.capacity);
        match result {
            Some((value, readied)) => {
                ready(readied);
                value.ok_or(RecvError::Closed)
            }
            None => Err(RecvError::Empty),
        }
    }

    /// Sends; parks until a receiver or room takes the value, at the latest until `deadline_ns`.
    ///
    /// # Errors
    /// `Closed` or `Ended`, with the value.
    pub fn send(&self, rt: &'static Runtime, value: T, deadline_ns: Option<u64>) -> Result<(), SendError<T>> {
        let value = match self.try_send(value) {
            Err(SendError::Full(value)) => value,
            other => return other,
        };
        let mut slot = Some(value);
        let mut wait = Wait::new();
        let mut node = Node::new(&raw mut wait, (&raw mut slot).cast());
        sched::announce(&mut wait);
        let mut state = self.state.lock();
        // Between the first look and the lock another thread may have changed everything; under an exclusive host not.
        let again = slot.take().map(|v| if state.closed { Err(v) } else { state.send_now(v, self.capacity) });
        match again {
            Some(Err(v)) => slot = Some(v),
            Some(Ok(readied)) => {
                drop(state);
                sched::retract(&wait);
                ready(readied);
                return Ok(());
            }
            None => unreachable!("the slot was filled above"),
        }
        if state.closed {
            drop(state);
            sched::retract(&wait);
            return slot.map_or(Ok(()), |v| Err(SendError::Closed(v)));
        }
        // SAFETY: the node stays on this stack until it is unlinked, by the claimer or below.
        unsafe { state.senders.push_back(&raw mut node) };
        drop(state);
        // SAFETY: announced above; no lock is held.
        let outcome = unsafe { sched::block(rt, &mut wait, Reason::ChanSend, deadline_ns) };
        match outcome {
            Outcome::Delivered => Ok(()),
            Outcome::Closed => slot.map_or(Ok(()), |v| Err(SendError::Closed(v))),
            other => {
                // SAFETY: the node is live, and linked here if anywhere.
                unsafe { self.state.lock().senders.remove(&raw mut node) };
                slot.map_or(Ok(()), |v| Err(SendError::Ended(v, other)))
            }
        }
    }

    /// Receives; parks until there is a value or the channel is closed, at the latest until `deadline_ns`.
    ///
    /// # Errors
    /// `Closed` once drained, or `Ended`.
    pub fn recv(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Result<T, RecvError> {
        match self.try_recv() {
            Err(RecvError::Empty) => {}
            other => return other,
        }
        let mut slot: Option<T> = None;
        let mut wait = Wait::new();
        let mut node = Node::new(&raw mut wait, (&raw mut slot).cast());
        sched::announce(&mut wait);
        let mut state = self.state.lock();
        if let Some((value, readied)) = state.recv_now(self.capacity) {
            drop(state);
            sched::retract(&wait);
            ready(readied);
            return value.ok_or(RecvError::Closed);
        }
        // SAFETY: the node stays on this stack until it is unlinked, by the claimer or below.
        unsafe { state.receivers.push_back(&raw mut node) };
        drop(state);
        // SAFETY: announced above; no lock is held.
        let outcome = unsafe { sched::block(rt, &mut wait, Reason::ChanReceive, deadline_ns) };
        // SAFETY: the claimer wrote the slot through the node's pointer; read it as such.
        let value = unsafe { (&raw mut slot).read_volatile() };
        std::mem::forget(slot);
        match outcome {
            Outcome::Delivered => value.ok_or(RecvError::Closed),
            Outcome::Closed => Err(RecvError::Closed),
            other => {
                // SAFETY: the node is live, and linked here if anywhere.
                unsafe { self.state.lock().receivers.remove(&raw mut node) };
                Err(RecvError::Ended(other))
            }
        }
    }

    /// Closes: waiting receivers get "closed", waiting senders get their values back.
    ///
    /// # Errors
    /// `AlreadyClosed` the second time.
    pub fn close(&self) -> Result<(), AlreadyClosed> {
        let mut claimed: Vec<*mut Wait> = Vec::new();
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
                // SAFETY: a claimed node is alive until its wait is readied, below.
                claimed.push(unsafe { (*node).wait });
            }
        }
        claimed.into_iter().for_each(ready);
        Ok(())
    }
}
