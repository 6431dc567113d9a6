//! Select, as Go's runtime/select.go: all channels locked in address order, pass 1 looks in random order, pass 2 joins
//! every queue, pass 3 leaves the losing ones. The look is one moment: default is chosen only if nothing was ready then.

use super::{Chan, State, ready};
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait};
use crate::primitive::exclusive::is_exclusive;
use crate::sched::{self, Runtime};
use std::ptr;

/// One case.
pub struct Case<'a, T> {
    /// The channel; `None` is the nil channel, never ready.
    pub chan: Option<&'a Chan<T>>,
    /// Send (the value is in `slot`) or receive (it comes into `slot`).
    pub is_send: bool,
    /// The value.
    pub slot: Option<T>,
}

/// What happened.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Selected {
    /// This receive case got a value, in its slot.
    Received(usize),
    /// This receive case found its channel closed and drained.
    ReceivedClosed(usize),
    /// This send case's value was taken.
    Sent(usize),
    /// This send case found its channel closed.
    SendOnClosed(usize),
    /// Nothing was ready, and a default was asked for.
    Default,
    /// Ended early.
    Ended(Outcome),
}

fn lock_all<T>(cases: &[Case<'_, T>]) {
    if is_exclusive() {
        return;
    }
    for_each_chan(cases, |chan| chan.state.raw_lock());
}

fn unlock_all<T>(cases: &[Case<'_, T>]) {
    if is_exclusive() {
        return;
    }
    // SAFETY: `lock_all` took each of them, and no reference into their states is left.
    for_each_chan(cases, |chan| unsafe { chan.state.raw_unlock() });
}

/// Each channel of the cases once, in address order.
fn for_each_chan<T>(cases: &[Case<'_, T>], f: impl FnMut(&Chan<T>)) {
    let mut chans: Vec<&Chan<T>> = cases.iter().filter_map(|c| c.chan).collect();
    chans.sort_by_key(|c| ptr::from_ref(*c).addr());
    chans.dedup_by_key(|c| ptr::from_ref(*c).addr());
    chans.into_iter().for_each(f);
}

/// Chooses one of `cases` uniformly among those ready; else returns `Default` if asked, else parks.
pub fn select<T>(
    rt: &'static Runtime,
    cases: &mut [Case<'_, T>],
    has_default: bool,
    deadline_ns: Option<u64>,
) -> Selected {
    lock_all(cases);
    let chosen = look(rt, cases);
    if let Some((selected, readied)) = chosen {
        unlock_all(cases);
        ready(readied);
        return selected;
    }
    if has_default {
        unlock_all(cases);
        return Selected::Default;
    }
    wait_for_one(rt, cases, deadline_ns)
}

/// Pass 1: the first ready case from a random start, in a random order.
#[inline]
fn look<T>(rt: &'static Runtime, cases: &mut [Case<'_, T>]) -> Option<(Selected, *mut Wait)> {
    let n = cases.len();
    let mut order = [0u16; 16];
    if n <= order.len() {
        for i in 0..n {
            // Inside-out Fisher-Yates.
            let j = (rt.random() % (i as u64 + 1)) as usize;
            order[i] = order[j];
            order[j] = i as u16;
        }
        return order[..n].iter().find_map(|&i| try_case(cases, i as usize));
    }
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (rt.random() % (i as u64 + 1)) as usize);
    }
    order.into_iter().find_map(|i| try_case(cases, i))
}

#[inline]
fn try_case<T>(cases: &mut [Case<'_, T>], i: usize) -> Option<(Selected, *mut Wait)> {
    let case = &mut cases[i];
    let chan = case.chan?;
    // SAFETY: all channels are locked by the caller.
    let state: &mut State<T> = unsafe { &mut *chan.state.value_ptr() };
    if case.is_send {
        if state.closed {
            return Some((Selected::SendOnClosed(i), ptr::null_mut()));
        }
        let value = case.slot.take()?;
        match state.send_now(value, chan.capacity) {
            Ok(readied) => Some((Selected::Sent(i), readied)),
            Err(value) => {
                case.slot = Some(value);
                None
            }
        }
    } else {
        let (value, readied) = state.recv_now(chan.capacity)?;
        let selected = if value.is_some() { Selected::Received(i) } else { Selected::ReceivedClosed(i) };
        case.slot = value;
        Some((selected, readied))
    }
}

/// Passes 2 and 3. All channels are locked on entry.
fn wait_for_one<T>(rt: &'static Runtime, cases: &mut [Case<'_, T>], deadline_ns: Option<u64>) -> Selected {
    let mut wait = Wait::new();
    sched::announce(&mut wait);
    let mut nodes: Vec<Node> = Vec::with_capacity(cases.len());
    for (i, case) in cases.iter_mut().enumerate() {
        let mut node = Node::new(&raw mut wait, (&raw mut case.slot).cast());
        node.case = i;
        nodes.push(node);
    }
    let first = nodes.as_mut_ptr();
    let mut joined = 0usize;
    for (i, case) in cases.iter().enumerate() {
        let Some(chan) = case.chan else { continue };
        // SAFETY: all channels are locked; `nodes` is not moved until every node is unlinked.
        unsafe {
            let state = &mut *chan.state.value_ptr();
            let queue = if case.is_send { &mut state.senders } else { &mut state.receivers };
            queue.push_back(first.add(i));
        }
        joined += 1;
    }
    unlock_all(cases);
    let reason = if joined == 0 { Reason::SelectNoCases } else { Reason::Select };
    // SAFETY: announced above; no lock is held.
    let outcome = unsafe { sched::block(rt, &mut wait, reason, deadline_ns) };
    for (i, case) in cases.iter().enumerate() {
        let Some(chan) = case.chan else { continue };
        let mut state = chan.state.lock();
        let queue = if case.is_send { &mut state.senders } else { &mut state.receivers };
        // SAFETY: the node is live, and linked in this queue if anywhere.
        unsafe { queue.remove(first.add(i)) };
    }
    if wait.winner.is_null() {
        return Selected::Ended(outcome);
    }
    // SAFETY: the winner is one of `nodes`, still alive.
    let i = unsafe { (*wait.winner).case };
    match (outcome, cases[i].is_send) {
        (Outcome::Delivered, true) => Selected::Sent(i),
        (Outcome::Delivered, false) => Selected::Received(i),
        (Outcome::Closed, true) => Selected::SendOnClosed(i),
        (Outcome::Closed, false) => Selected::ReceivedClosed(i),
        (other, _) => Selected::Ended(other),
    }
}
