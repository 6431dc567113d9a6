//! What a channel's lock guards, and the operations on it that need no waiting.

use super::{Readied, SendError};
use crate::alloc::Ring;
use crate::goroutine::waiter::{Outcome, WaitQueue};
use std::collections::VecDeque;
use std::ptr;

pub(super) struct State<T> {
    /// Values put back by `unrecv` with their stamps, in the order of the stamps; received before the buffer.
    pub(super) returned: VecDeque<(u64, T)>,
    pub(super) buffer: Ring<T>,
    pub(super) closed: bool,
    pub(super) receivers: WaitQueue,
    pub(super) senders: WaitQueue,
    /// Stamp of the last receive by a waiter or a select.
    stamp: u64,
}

impl<T> State<T> {
    pub(super) fn new() -> Self {
        Self {
            returned: VecDeque::new(),
            buffer: Ring::new(),
            closed: false,
            receivers: WaitQueue::new(),
            senders: WaitQueue::new(),
            stamp: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len() + self.returned.len()
    }

    /// The stamp of one more receive; stamps grow in the order of the receives.
    #[inline]
    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Gives `value` to the receiver that waits longest, or back.
    #[inline]
    fn hand_over(&mut self, value: T) -> Result<Readied, T> {
        if self.receivers.is_empty() {
            return Err(value);
        }
        let node = self.receivers.claim_front(Outcome::Delivered);
        if node.is_null() {
            return Err(value);
        }
        // SAFETY: a claimed receiver's node is alive until it is readied; its slot is an empty `Option<T>`.
        unsafe {
            (*node).amount = self.next_stamp();
            (*node).slot.cast::<Option<T>>().write(Some(value));
            Ok((*node).wait)
        }
    }

    /// Sends if it can be done at once.
    #[inline]
    pub(super) fn send_now(&mut self, value: T, capacity: usize) -> Result<Readied, SendError<T>> {
        if self.closed {
            return Err(SendError::Closed(value));
        }
        let value = match self.hand_over(value) {
            Ok(readied) => return Ok(readied),
            Err(value) => value,
        };
        if self.buffer.len() >= capacity {
            return Err(SendError::Full(value));
        }
        if !self.buffer.make_room() {
            return Err(SendError::NoMemory(value));
        }
        self.buffer.push_back(value);
        Ok(ptr::null_mut())
    }

    /// Receives if it can be done at once. `Some((None, _))`: closed and drained.
    #[inline]
    pub(super) fn recv_now(&mut self) -> Option<(Option<T>, Readied)> {
        if !self.returned.is_empty() {
            return Some((self.returned.pop_front().map(|(_, v)| v), ptr::null_mut()));
        }
        if let Some(value) = self.buffer.pop_front() {
            // A waiting sender's value takes the place at the tail, so that the order stays; the place is there.
            let (next, readied) = self.take_from_sender();
            if let Some(next) = next {
                self.buffer.push_back(next);
            }
            return Some((Some(value), readied));
        }
        let (value, readied) = self.take_from_sender();
        if value.is_some() || self.closed { Some((value, readied)) } else { None }
    }

    /// The value of the sender that waits longest.
    #[inline]
    fn take_from_sender(&mut self) -> (Option<T>, Readied) {
        if !self.senders.is_empty() {
            let node = self.senders.claim_front(Outcome::Delivered);
            if !node.is_null() {
                // SAFETY: a claimed sender's node is alive until it is readied; its slot holds the value.
                return unsafe { ((*(*node).slot.cast::<Option<T>>()).take(), (*node).wait) };
            }
        }
        (None, ptr::null_mut())
    }

    /// See `Chan::unrecv`.
    pub(super) fn put_back(&mut self, value: T, stamp: u64) -> Result<Readied, T> {
        let value = match self.hand_over(value) {
            Ok(readied) => return Ok(readied),
            Err(value) => value,
        };
        if self.returned.try_reserve(1).is_err() {
            return Err(value);
        }
        let place = self.returned.partition_point(|(other, _)| *other <= stamp);
        self.returned.insert(place, (stamp, value));
        Ok(ptr::null_mut())
    }
}
