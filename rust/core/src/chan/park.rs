//! Send and receive that wait.
//!
//! Wait, node and slot lie beside the waiter's stack if it is a goroutine. Others reach them through the node only, and the waiter
//! reads the slot back after it was woken. Nothing with a destructor of its own lives over the
//! park: a host may end the thread there.

use super::{Chan, RecvError, SendError, ready};
use crate::goroutine::Goroutine;
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortGuard;
use crate::sched::{self, Runtime};
use std::mem::MaybeUninit;

use super::state::State;

/// A wait in the queue of a channel.
struct Standing<T> {
    wait: Wait,
    node: Node,
    slot: Option<T>,
}

/// Which queue of a channel.
#[derive(Clone, Copy)]
enum Side {
    Sender,
    Receiver,
}

impl Side {
    #[inline(always)]
    fn queue<T>(self, state: &mut State<T>) -> &mut WaitQueue {
        match self {
            Self::Sender => &mut state.senders,
            Self::Receiver => &mut state.receivers,
        }
    }

    #[inline(always)]
    fn reason(self) -> Reason {
        match self {
            Self::Sender => Reason::ChanSend,
            Self::Receiver => Reason::ChanReceive,
        }
    }
}

impl<T> Chan<T> {
    /// Sends; parks until a receiver or room takes the value, at the latest until `until`.
    ///
    /// # Errors
    /// `Closed`, `Ended` or `NoMemory`, with the value.
    #[inline(always)]
    pub fn send(&self, rt: &'static Runtime, value: T, until: impl Into<Until>) -> Result<(), SendError<T>> {
        let mut state = self.state.lock();
        let value = match state.send_now(value, self.capacity) {
            Err(SendError::Full(value)) => value,
            other => {
                drop(state);
                return other.map(ready);
            }
        };
        self.send_later(rt, state, value, until.into())
    }

    /// Receives; parks until there is a value or the channel is closed, at the latest until `until`.
    ///
    /// # Errors
    /// `Closed` once drained, or `Ended`.
    #[inline(always)]
    pub fn recv(&self, rt: &'static Runtime, until: impl Into<Until>) -> Result<T, RecvError> {
        let mut state = self.state.lock();
        if let Some((value, readied)) = state.recv_now() {
            drop(state);
            ready(readied);
            return value.ok_or(RecvError::Closed);
        }
        self.recv_later(rt, state, until.into())
    }

    // The parts that wait have frames of their own: those of the parts that do not would lie below them for as long.

    #[inline(never)]
    fn send_later(
        &self,
        rt: &'static Runtime,
        state: ShortGuard<'_, State<T>>,
        value: T,
        until: Until,
    ) -> Result<(), SendError<T>> {
        match self.wait_in(rt, state, Side::Sender, Some(value), until) {
            (Outcome::Delivered, _) | (_, None) => Ok(()),
            (Outcome::Closed, Some(value)) => Err(SendError::Closed(value)),
            (other, Some(value)) => Err(SendError::Ended(value, other)),
        }
    }

    #[inline(never)]
    fn recv_later(&self, rt: &'static Runtime, state: ShortGuard<'_, State<T>>, until: Until) -> Result<T, RecvError> {
        match self.wait_in(rt, state, Side::Receiver, None, until) {
            (_, Some(value)) => Ok(value),
            (Outcome::Closed | Outcome::Delivered, None) => Err(RecvError::Closed),
            (other, None) => Err(RecvError::Ended(other)),
        }
    }

    /// Joins a queue of `state`, releases the lock and parks. On return the wait is over and stands in no queue. Gives what is in the
    /// slot then, where there was `value`.
    #[inline(always)]
    fn wait_in(
        &self,
        rt: &'static Runtime,
        state: ShortGuard<'_, State<T>>,
        side: Side,
        value: Option<T>,
        until: Until,
    ) -> (Outcome, Option<T>) {
        let (g, place) = sched::place_to_wait::<Standing<T>>();
        if place.is_null() {
            return self.wait_on_thread(rt, state, side, value, until);
        }
        // SAFETY: the place is this goroutine's to the end of the call.
        unsafe { self.wait_at(g, place, rt, state, side, value, until) }
    }

    /// Out of line: its place would be a part of every goroutine's stack.
    #[cold]
    #[inline(never)]
    fn wait_on_thread(
        &self,
        rt: &'static Runtime,
        state: ShortGuard<'_, State<T>>,
        side: Side,
        value: Option<T>,
        until: Until,
    ) -> (Outcome, Option<T>) {
        let mut local = MaybeUninit::uninit();
        // SAFETY: room for one, to the end of the call.
        unsafe { self.wait_at(sched::current_goroutine(), local.as_mut_ptr(), rt, state, side, value, until) }
    }

    /// # Safety
    /// `g` is the goroutine that calls, or null, and `place` the caller's to the end of the call.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "one call's, in two places")]
    unsafe fn wait_at(
        &self,
        g: *mut Goroutine,
        place: *mut Standing<T>,
        rt: &'static Runtime,
        mut state: ShortGuard<'_, State<T>>,
        side: Side,
        value: Option<T>,
        until: Until,
    ) -> (Outcome, Option<T>) {
        // SAFETY: the caller's promise; the slot is read once. The node stays in place until it is unlinked, by the claimer or below.
        // Announced while nobody could find it; no lock is held over the park.
        unsafe {
            let (wait, node, slot) = (&raw mut (*place).wait, &raw mut (*place).node, &raw mut (*place).slot);
            slot.write(value);
            wait.write(Wait::new());
            (*wait).is_durable = self.bubble != 0;
            sched::announce_as(g, &mut *wait);
            node.write(Node::new(wait, slot.cast()));
            side.queue(&mut state).push_back(node);
            drop(state);
            let outcome = sched::block(rt, &mut *wait, side.reason(), until);
            if !matches!(outcome, Outcome::Delivered | Outcome::Closed) {
                side.queue(&mut self.state.lock()).remove(node);
            }
            (outcome, slot.read())
        }
    }
}
