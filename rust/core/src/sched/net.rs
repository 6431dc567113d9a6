//! Netpoll and the scheduler: who looks at the poller, who sleeps in it, and what becomes of events.
//!
//! An M with a P looks without time when its queue is empty and at every 61st tick; both only while somebody waits for a
//! descriptor. An M without work sleeps in the poller instead of on its futex when a P is idle and the seat is free. That
//! is one word: `Machine::note` goes from `ASLEEP` to `IN_POLLER` before the sleep, and whoever wakes the M swaps
//! `NOTIFIED` in and learns from the old value where it sleeps. Only the one in the seat empties the poller's wake-up, so
//! it cannot be lost to another M.
//!
//! An M that has events but gets no P, and sysmon, which looks when nobody else has for 10 ms, leave them as pending; that
//! is a request, and so counts as work, for the next M at a scheduling point. Without waiters nobody looks at anything.

use super::find_work::is_shared_turn;
use super::machine::Machine;
use super::runtime::{REQUEST_NET, Runtime};
use super::{announce, block, current_machine, gosched, retract, with_place};
use crate::event;
use crate::goroutine::ender::Until;
use crate::goroutine::status::{self, Wake};
use crate::goroutine::waiter::{Listens, Node, Outcome, Reason, Wait, WaitQueue, Who};
use crate::netpoll::{BATCH, Error, Event, PollDesc, Side};
use crate::primitive::atomic::{Ordering, fence};
use crate::sys::clock;
use std::ptr;

/// Values of an M's note: awake or on its futex; somebody has something for it; in the poller.
pub(super) const ASLEEP: u32 = 0;
pub(super) const NOTIFIED: u32 = 1;
pub(super) const IN_POLLER: u32 = 2;

/// How long nobody looked at the poller before sysmon does, ns. Go's 10 ms.
const POLL_EVERY_NS: u64 = 10_000_000;
/// Most registrations that sysmon looks at in a round: at 0.3 µs each a third of a millisecond.
const VERIFY_MOST: usize = 1024;

/// Events found, and how many.
pub(super) struct Found {
    events: [Event; BATCH],
    count: usize,
}

impl Found {
    pub(super) fn new() -> Self {
        Self { events: [Event::default(); BATCH], count: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn take(&mut self) -> &[Event] {
        let count = std::mem::take(&mut self.count);
        &self.events[..count]
    }
}

/// Whether anybody was readied.
pub(super) struct Readied {
    /// Who waited for connections.
    acceptors: bool,
    others: bool,
}

impl Readied {
    fn any(&self) -> bool {
        self.acceptors || self.others
    }
}

/// sysmon's memory of who looked last.
#[derive(Default)]
pub(super) struct NetWatch {
    polls: u64,
    since_ns: u64,
}

/// Waits until something happens to `side` of `desc` that had not when `seen` was read (`Delivered`: try again), or the
/// descriptor is closed (`Closed`), at the latest until `until`.
pub fn wait_io(
    rt: &'static Runtime,
    desc: &PollDesc,
    side: Side,
    seen: u32,
    until: impl Into<Until>,
    listens: Listens,
) -> Outcome {
    let until = until.into();
    // SAFETY: the place is this caller's to the end of the call; the node stays there until it is unlinked, by the claimer or below;
    // nobody finds the wait when this refuses; no lock is held.
    with_place(|place: *mut (Wait, Node)| unsafe {
        let (wait, node) = (&raw mut (*place).0, &raw mut (*place).1);
        wait.write(Wait::new());
        (*wait).listens = listens;
        node.write(Node::new(wait, ptr::null_mut()));
        announce(&mut *wait);
        if !rt.net.enqueue(desc, side, node, seen, clock::now_ns) {
            retract(&*wait);
            return Outcome::Delivered;
        }
        if matches!((*wait).who, Who::Thread(_)) && !rt.net.is_seat_taken() {
            // An M asleep on its futex does not know that there is somebody to look at the poller for.
            rt.wake_one(ptr::null_mut());
        }
        let outcome = block(rt, &mut *wait, Reason::Io, until);
        if !matches!(outcome, Outcome::Delivered | Outcome::Closed) {
            rt.net.remove(desc, side, node);
        }
        outcome
    })
}

/// A goroutine has connected, and lets go first who accepts, if that is one of this program's. Host attached.
pub fn yield_to_acceptor(rt: &'static Runtime) {
    let mut found = Found::new();
    rt.look(Some(0), &mut found);
    // SAFETY: host attached, on a goroutine's stack.
    unsafe {
        if rt.ready_events(found.take()).acceptors {
            (*current_machine()).keep_next();
            gosched();
        }
    }
}

/// Readies claimed waiters for connections in the next slot: a listener's queue is short, and what does not fit into it
/// is lost for seconds. Each accepts one and waits again, so the network keeps nobody else from running for long. Returns
/// whether there were any.
///
/// # Safety
/// As for [`Runtime::ready_claimed`].
unsafe fn ready_acceptors(claimed: &mut WaitQueue) -> bool {
    let any = !claimed.is_empty();
    while !claimed.is_empty() {
        // SAFETY: the caller's promise; a claimed wait lives until it is readied.
        unsafe {
            let node = claimed.front();
            claimed.remove(node);
            super::ready_wait(&*(*node).wait);
        }
    }
    any
}

impl Machine {
    /// The P's queue goes before the global one, should it be that one's turn.
    pub(super) fn keep_next(&self) {
        // SAFETY: Ps are never freed.
        if let Some(p) = unsafe { self.p().as_ref() } {
            let ticks = p.ticks.load(Ordering::Relaxed);
            p.ticks.store(ticks.wrapping_add(u32::from(is_shared_turn(ticks))), Ordering::Relaxed);
        }
    }

    /// Looks at the poller without time, and readies who waited; returns whether anybody did.
    ///
    /// # Safety
    /// On g0, host attached.
    #[inline(never)]
    pub(super) unsafe fn poll_net(&mut self) -> bool {
        let mut found = Found::new();
        self.rt.look(Some(0), &mut found);
        // SAFETY: the caller's promise.
        !found.is_empty() && unsafe { self.rt.ready_events(found.take()) }.any()
    }

    /// Takes the seat in the poller if it is this M's place to sleep.
    pub(super) fn may_poll(&self) -> bool {
        let rt = self.rt;
        // Relaxed: while no P is idle, who has one looks; a stale view only means that events go by way of pending.
        self.bound_count == 0
            && rt.net.waiting() != 0
            && rt.idle_processors.load(Ordering::Relaxed) != 0
            && rt.net.take_seat()
    }

    /// Sleeps in the poller, whose seat it gives back; returns whether a signal ended it.
    pub(super) fn sleep_in_poller(&mut self, timeout_ns: Option<u64>, found: &mut Found) -> bool {
        // AcqRel: pairs with the swap in `notify`. Acquire: a note that came first is read by the caller.
        let asleep = self.note.compare_exchange(ASLEEP, IN_POLLER, Ordering::AcqRel, Ordering::Acquire);
        let interrupted = asleep.is_ok() && self.rt.look(timeout_ns, found);
        self.rt.net.leave_seat();
        interrupted
    }
}

impl Runtime {
    /// Looks at the poller; returns whether a signal ended it.
    fn look(&self, timeout_ns: Option<u64>, found: &mut Found) -> bool {
        match self.net.poll(timeout_ns, &mut found.events) {
            Ok(count) => found.count = count,
            Err(Error::Interrupted) => return true,
            // Somebody closed the poller's descriptors: from here on calls block their threads.
            Err(_) => {
                self.net.abandon();
                self.ask_for_net();
            }
        }
        false
    }

    /// Readies who waits for `events`.
    ///
    /// # Safety
    /// Host attached; on a goroutine's stack, on g0, or on a plain thread.
    pub(super) unsafe fn ready_events(&self, events: &[Event]) -> Readied {
        let (mut claimed, mut acceptors) = (WaitQueue::new(), WaitQueue::new());
        self.net.claim(events, &mut claimed, &mut acceptors);
        // SAFETY: claimed just now.
        unsafe { Readied { others: self.ready_claimed(&mut claimed), acceptors: ready_acceptors(&mut acceptors) } }
    }

    /// Readies claimed waiters in order: behind what is queued already, not in the next slot, so that the network keeps
    /// nobody from running. While somebody is in the global queue they go there: a busy P looks at the poller so often that
    /// its own queue would never be empty, and who is in the global one would be served once in 61 ticks. Returns whether
    /// there were any.
    ///
    /// # Safety
    /// Host attached. The nodes' waits were claimed by the caller, who readies them with this only.
    pub unsafe fn ready_claimed(&self, claimed: &mut WaitQueue) -> bool {
        if claimed.is_empty() {
            return false;
        }
        let m = current_machine();
        // SAFETY: this thread's M, and its P; a claimed wait lives until it is readied, and no longer.
        let queued = unsafe {
            let p = if m.is_null() { ptr::null_mut() } else { (*m).p() };
            while !claimed.is_empty() {
                let node = claimed.front();
                claimed.remove(node);
                let Who::Goroutine(g) = (*(*node).wait).who else {
                    super::ready_wait(&*(*node).wait);
                    continue;
                };
                if event::is_on() {
                    self.trace_ready(g);
                }
                if status::wake(&*g) == Wake::LeftToParker {
                    continue;
                }
                if !p.is_null() {
                    (*p).latency.note_ready(g);
                }
                if p.is_null() || !self.inject.is_empty() {
                    self.inject.push(g);
                } else {
                    self.push_back(&*p, g);
                }
            }
            if p.is_null() { usize::MAX } else { (*p).queue.len() + self.inject.len() }
        };
        if queued > 1 {
            self.wake_one(ptr::null_mut()); // this M runs one of them; it fences
        }
        true
    }

    /// The first step of a close by a thread that holds the host's lock: `fd` is retired, and who waits for it told.
    ///
    /// # Safety
    /// Host attached.
    pub unsafe fn retire_descriptor(&self, fd: i32) {
        let mut claimed = WaitQueue::new();
        self.net.retire(fd, &mut claimed);
        // SAFETY: claimed just now.
        unsafe { self.ready_claimed(&mut claimed) };
    }

    /// Has those who wait at `side` of `fd` try again, and those about to: what they go by has changed.
    ///
    /// # Safety
    /// Host attached.
    pub unsafe fn retry_waiters(&self, fd: i32, side: Side) {
        let mut events = [Event::default()];
        if let Some(event) = self.net.event(fd, side) {
            events[0] = event;
            let kept = self.net.note(&mut events);
            // SAFETY: the caller's promise.
            unsafe { self.ready_events(&events[..kept]) };
        }
    }

    /// Leaves noted events to the next M at a scheduling point. Any thread.
    pub(super) fn leave_events(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        self.net.leave_pending(events);
        self.ask_for_net();
    }

    /// Has the next M at a scheduling point serve what was left.
    fn ask_for_net(&self) {
        self.requests.fetch_or(REQUEST_NET, Ordering::AcqRel); // after the events: who serves it finds them
        self.wake_one(ptr::null_mut());
    }

    /// Serves `REQUEST_NET`. Host attached.
    pub(super) fn serve_net(&self) {
        let (mut claimed, mut acceptors) = (WaitQueue::new(), WaitQueue::new());
        self.net.claim_pending(&mut claimed, &mut acceptors);
        // SAFETY: claimed just now.
        unsafe {
            self.ready_claimed(&mut claimed);
            ready_acceptors(&mut acceptors);
        }
    }

    /// Whether an M that gives its P up should see to it that another one watches over timers and descriptors.
    pub(super) fn needs_watching(&self) -> bool {
        fence(Ordering::SeqCst); // pairs with the fence in `wake_one`: the P is given up before the look
        self.has_work()
            || self.next_timer() != super::processor::NEVER
            || (self.net.waiting() != 0 && !self.net.is_seat_taken())
    }

    /// sysmon: looks at registrations, and at the poller if nobody else did.
    pub(super) fn watch_net(&self, now_ns: u64, watch: &mut NetWatch) {
        let polls = self.net.counters.polls.load(Ordering::Relaxed);
        if self.net.waiting() == 0 {
            return;
        }
        let mut gone = Found::new();
        let count = self.net.verify_some(now_ns, VERIFY_MOST, &mut gone.events);
        gone.count = self.net.note(&mut gone.events[..count]);
        self.leave_events(gone.take());
        if polls != watch.polls || self.net.is_seat_taken() {
            *watch = NetWatch { polls, since_ns: now_ns };
        } else if self.policies.watches_wakes() || now_ns.saturating_sub(watch.since_ns) >= POLL_EVERY_NS {
            let mut found = Found::new();
            self.look(Some(0), &mut found);
            self.leave_events(found.take());
        }
    }
}
