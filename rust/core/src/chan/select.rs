//! Select, as Go's runtime/select.go: all channels locked in address order, pass 1 looks in random order, pass 2 joins
//! every queue, pass 3 leaves the losing ones. The look is one moment: default is chosen only if nothing was ready then.
//!
//! A select over up to `INLINE` cases needs no memory. What a larger one looks with is allocated before the locks are taken, and
//! belongs to no destructor while the goroutine is parked: a host may end the thread there.
//!
//! What a select that waits shares with who ends the wait lies beside the stack, so that this can be saved meanwhile
//! (`sched::shrink`); where memory for it is refused, up to `INLINE` cases wait on the stack.

use super::{Chan, Readied, RecvError, SendError, State, ready};
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::is_exclusive;
use crate::sched::{self, Runtime};
use std::mem::{ManuallyDrop, MaybeUninit};

/// Cases that are served without memory from the heap.
const INLINE: usize = 8;

/// One case.
pub struct Case<'a, T> {
    /// The channel; `None` is the nil channel, never ready.
    pub chan: Option<&'a Chan<T>>,
    /// Send (the value is in `slot`) or receive (it comes into `slot`).
    pub is_send: bool,
    /// The value. Of a send case that was not chosen it stays here.
    pub slot: Option<T>,
    /// Of a receive case that got a value: its place among the channel's receives, for `Chan::unrecv`.
    pub stamp: u64,
}

impl<'a, T> Case<'a, T> {
    /// A receive from `chan`.
    #[inline]
    pub fn recv(chan: Option<&'a Chan<T>>) -> Self {
        Self { chan, is_send: false, slot: None, stamp: 0 }
    }

    /// A send of `value` on `chan`.
    #[inline]
    pub fn send(chan: Option<&'a Chan<T>>, value: T) -> Self {
        Self { chan, is_send: true, slot: Some(value), stamp: 0 }
    }
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
    /// Memory was refused; nothing happened.
    NoMemory,
}

/// Chooses one of `cases` uniformly among those ready; else returns `Default` if asked, else parks.
#[inline]
pub fn select<T>(
    rt: &'static Runtime,
    cases: &mut [Case<'_, T>],
    has_default: bool,
    until: impl Into<Until>,
) -> Selected {
    let until = until.into();
    if let [case] = cases
        && let Some(chan) = case.chan
    {
        return select_one(rt, chan, case, has_default, until);
    }
    if cases.len() <= INLINE {
        let mut order = [0; INLINE];
        let mut chans = [std::ptr::null(); INLINE];
        return select_with(rt, cases, &mut order, &mut chans, has_default, until);
    }
    select_many(rt, cases, has_default, until)
}

/// One case, with or without default: the plain operation.
fn select_one<T>(
    rt: &'static Runtime,
    chan: &Chan<T>,
    case: &mut Case<'_, T>,
    has_default: bool,
    until: Until,
) -> Selected {
    if case.is_send {
        let Some(value) = case.slot.take() else { return Selected::Sent(0) };
        let result = if has_default { chan.try_send(value) } else { chan.send(rt, value, until) };
        let (value, selected) = match result {
            Ok(()) => return Selected::Sent(0),
            Err(SendError::Closed(v)) => (v, Selected::SendOnClosed(0)),
            Err(SendError::Full(v)) => (v, Selected::Default),
            Err(SendError::Ended(v, outcome)) => (v, Selected::Ended(outcome)),
            Err(SendError::NoMemory(v)) => (v, Selected::NoMemory),
        };
        case.slot = Some(value);
        return selected;
    }
    match if has_default { chan.try_recv() } else { chan.recv(rt, until) } {
        Ok(value) => {
            case.slot = Some(value);
            Selected::Received(0)
        }
        Err(RecvError::Closed) => Selected::ReceivedClosed(0),
        Err(RecvError::Empty) => Selected::Default,
        Err(RecvError::Ended(outcome)) => Selected::Ended(outcome),
    }
}

/// More cases than fit inline.
#[cold]
fn select_many<T>(rt: &'static Runtime, cases: &mut [Case<'_, T>], has_default: bool, until: Until) -> Selected {
    fn room<X>(n: usize) -> Option<ManuallyDrop<Vec<X>>> {
        let mut v = Vec::new();
        v.try_reserve_exact(n).ok()?;
        Some(ManuallyDrop::new(v))
    }
    let n = cases.len();
    let (mut order, mut chans) = (room::<u16>(n), room::<*const Chan<T>>(n));
    let mut selected = Selected::NoMemory;
    if let (Some(order), Some(chans)) = (&mut order, &mut chans) {
        order.resize(n, 0);
        chans.resize(n, std::ptr::null());
        selected = select_with(rt, cases, order, chans, has_default, until);
    }
    // Dropped here and not by a scope's end, which a thread that ends in the park would run.
    order.map(ManuallyDrop::into_inner);
    chans.map(ManuallyDrop::into_inner);
    selected
}

/// The three passes. `order` and `chans` are scratch with room for every case.
#[inline]
fn select_with<T>(
    rt: &'static Runtime,
    cases: &mut [Case<'_, T>],
    order: &mut [u16],
    chans: &mut [*const Chan<T>],
    has_default: bool,
    until: Until,
) -> Selected {
    let locked = lock_all(cases, chans);
    if let Some((selected, readied)) = look(rt, cases, order) {
        unlock_all(locked);
        ready(readied);
        return selected;
    }
    if has_default {
        unlock_all(locked);
        return Selected::Default;
    }
    // From the cache of this P as a rule. Only hosts without a lock of their own keep others from the channels meanwhile.
    let bytes = Shared::<T>::bytes(cases.len());
    let place = rt.take_object(bytes);
    if place.is_null() {
        return wait_on_the_stack(rt, cases, locked, order, until);
    }
    // SAFETY: memory of that size, which nobody reaches any more after the wait. No lock but those of the channels is held.
    unsafe {
        let selected = wait_for_one(rt, cases, locked, order, &Shared::at(place, cases.len()), until);
        rt.give_object(place, bytes);
        selected
    }
}

/// What a select that waits shares with who ends the wait: for each case a node, and a slot for its value.
struct Shared<T> {
    wait: *mut Wait,
    nodes: *mut Node,
    slots: *mut Option<T>,
}

impl<T> Shared<T> {
    /// Where nodes and slots of `n` cases are in its memory, and where that ends.
    fn layout(n: usize) -> (usize, usize, usize) {
        let nodes = size_of::<Wait>().next_multiple_of(align_of::<Node>());
        let slots = (nodes + n * size_of::<Node>()).next_multiple_of(align_of::<Option<T>>());
        (nodes, slots, slots + n * size_of::<Option<T>>())
    }

    /// How much it needs, aligned to 64 bytes.
    fn bytes(n: usize) -> usize {
        const { assert!(align_of::<Option<T>>() <= 64 && align_of::<Wait>() <= 64) };
        Self::layout(n).2.next_multiple_of(64)
    }

    /// # Safety
    /// `place` has room for `bytes(n)`.
    unsafe fn at(place: *mut u8, n: usize) -> Self {
        let (nodes, slots, _) = Self::layout(n);
        // SAFETY: the caller's promise.
        unsafe { Self { wait: place.cast(), nodes: place.add(nodes).cast(), slots: place.add(slots).cast() } }
    }
}

/// Memory was refused. Out of line: the nodes would be a part of the stack of everybody who selects.
#[cold]
#[inline(never)]
fn wait_on_the_stack<T>(
    rt: &'static Runtime,
    cases: &mut [Case<'_, T>],
    locked: &[*const Chan<T>],
    order: &[u16],
    until: Until,
) -> Selected {
    if cases.len() > INLINE {
        unlock_all(locked);
        return Selected::NoMemory;
    }
    let mut wait = MaybeUninit::uninit();
    let mut nodes = [const { MaybeUninit::<Node>::uninit() }; INLINE];
    let mut slots = [const { MaybeUninit::<Option<T>>::uninit() }; INLINE];
    let shared = Shared { wait: wait.as_mut_ptr(), nodes: nodes.as_mut_ptr().cast(), slots: slots.as_mut_ptr().cast() };
    // SAFETY: in place to the end of the wait; the channels' locks are held, and no other.
    unsafe { wait_for_one(rt, cases, locked, order, &shared, until) }
}

/// Locks each channel of the cases once, in address order, and returns those it locked: none under an exclusive host,
/// whose own lock is held.
#[inline]
fn lock_all<'s, T>(cases: &[Case<'_, T>], chans: &'s mut [*const Chan<T>]) -> &'s [*const Chan<T>] {
    if is_exclusive() {
        return &[];
    }
    let mut n = 0;
    for chan in cases.iter().filter_map(|c| c.chan) {
        chans[n] = chan;
        n += 1;
    }
    let found = &mut chans[..n];
    found.sort_unstable();
    let mut kept = 0;
    for i in 0..found.len() {
        if kept == 0 || found[kept - 1] != found[i] {
            found[kept] = found[i];
            kept += 1;
        }
    }
    let locked = &chans[..kept];
    // SAFETY: the cases keep their channels alive.
    locked.iter().for_each(|chan| unsafe { (**chan).state.raw_lock() });
    locked
}

#[inline]
fn unlock_all<T>(locked: &[*const Chan<T>]) {
    // SAFETY: `lock_all` took each of them, the cases keep them alive, and no reference into their states is left.
    locked.iter().for_each(|chan| unsafe { (**chan).state.raw_unlock() });
}

/// Pass 1: the first ready case in a random order, which is drawn only as far as it is looked at. If none is ready,
/// `order` is that order.
#[inline]
fn look<T>(rt: &'static Runtime, cases: &mut [Case<'_, T>], order: &mut [u16]) -> Option<(Selected, Readied)> {
    let n = cases.len();
    for (i, place) in order[..n].iter_mut().enumerate() {
        *place = i as u16; // Go's limit of 65536 cases fits
    }
    for left in (1..=n).rev() {
        // A multiplication maps 32 random bits to 0..left; a remainder would cost a division.
        let pick = (((rt.random() & 0xffff_ffff) * left as u64) >> 32) as usize;
        order.swap(pick, left - 1);
        let i = order[left - 1];
        if let Some(found) = try_case(&mut cases[i as usize], i as usize) {
            return Some(found);
        }
    }
    None
}

#[inline]
fn try_case<T>(case: &mut Case<'_, T>, i: usize) -> Option<(Selected, Readied)> {
    let chan = case.chan?;
    // SAFETY: all channels are locked by the caller.
    let state: &mut State<T> = unsafe { &mut *chan.state.value_ptr() };
    if !case.is_send {
        let (value, readied) = state.recv_now()?;
        if value.is_none() {
            return Some((Selected::ReceivedClosed(i), readied));
        }
        case.slot = value;
        case.stamp = state.next_stamp();
        return Some((Selected::Received(i), readied));
    }
    let (value, selected) = match state.send_now(case.slot.take()?, chan.capacity) {
        Ok(readied) => return Some((Selected::Sent(i), readied)),
        Err(SendError::Closed(v)) => (v, Some((Selected::SendOnClosed(i), std::ptr::null_mut()))),
        Err(SendError::NoMemory(v)) => (v, Some((Selected::NoMemory, std::ptr::null_mut()))),
        Err(SendError::Full(v) | SendError::Ended(v, _)) => (v, None),
    };
    case.slot = Some(value);
    selected
}

/// The queue of its channel a case waits in.
#[inline]
fn queue_of<'s, T>(case: &Case<'_, T>, state: &'s mut State<T>) -> &'s mut WaitQueue {
    if case.is_send { &mut state.senders } else { &mut state.receivers }
}

/// Passes 2 and 3. The channels in `locked` are locked on entry. The queues are joined in a random order, `order`: of
/// cases on one channel the first to join is the one served.
///
/// # Safety
/// `shared` has room for what each case needs, in place until this returns.
unsafe fn wait_for_one<T>(
    rt: &'static Runtime,
    cases: &mut [Case<'_, T>],
    locked: &[*const Chan<T>],
    order: &[u16],
    shared: &Shared<T>,
    until: Until,
) -> Selected {
    let Shared { wait, nodes, slots } = *shared;
    let n = cases.len();
    // SAFETY: the caller's promise: all of it is in bounds. Until the wait is over others write nodes and slots, which are
    // reached only through these pointers; all channels are locked, and nodes stay in place until they are unlinked below.
    unsafe {
        wait.write(Wait::new());
        (*wait).is_durable = cases.iter().all(|case| case.chan.is_none_or(|chan| chan.bubble != 0));
        sched::announce(&mut *wait);
        (*wait).queue_count = 0;
        for i in order[..n].iter().map(|&i| i as usize) {
            let case = &mut cases[i];
            let Some(chan) = case.chan else { continue };
            slots.add(i).write(case.slot.take());
            nodes.add(i).write(Node::new(wait, slots.add(i).cast()));
            (*nodes.add(i)).case = i;
            (*wait).queue_count += 1;
            queue_of(case, &mut *chan.state.value_ptr()).push_back(nodes.add(i));
        }
        unlock_all(locked);
        let reason = match cases {
            [] => Reason::SelectNoCases,
            // With a channel, one case is a plain operation and does not come here.
            [case] if case.is_send => Reason::ChanSendNil,
            [_] => Reason::ChanReceiveNil,
            _ => Reason::Select,
        };
        let outcome = sched::block(rt, &mut *wait, reason, until);
        for (i, case) in cases.iter_mut().enumerate() {
            let Some(chan) = case.chan else { continue };
            queue_of(case, &mut chan.state.lock()).remove(nodes.add(i));
            case.slot = slots.add(i).read();
        }
        end(&*wait, cases, outcome)
    }
}

/// How the wait of these cases ended.
///
/// # Safety
/// Nobody else reaches the wait and its nodes any more; its winner, if there is one, is one of those.
unsafe fn end<T>(wait: &Wait, cases: &mut [Case<'_, T>], outcome: Outcome) -> Selected {
    // SAFETY: the caller's promise.
    let Some(winner) = (unsafe { wait.winner.as_ref() }) else { return Selected::Ended(outcome) };
    let i = winner.case;
    cases[i].stamp = winner.amount;
    match (outcome, cases[i].is_send) {
        (Outcome::Delivered, true) => Selected::Sent(i),
        (Outcome::Delivered, false) => Selected::Received(i),
        (Outcome::Closed, true) => Selected::SendOnClosed(i),
        (Outcome::Closed, false) => Selected::ReceivedClosed(i),
        (other, _) => Selected::Ended(other),
    }
}
