//! What is known of one descriptor number: is it registered, what happened to each side, who waits there.
//!
//! A sequence number per side replaces Go's reset-and-wait: a caller reads it, tries its call, and waits only if the
//! number is the same when it stands in the queue. Each event, and each retirement, raises it first and looks for waiters
//! after; a waiter counts itself first and reads the number after; a fence lies between on both ends, so one of them
//! sees the other.

use super::Watched;
use crate::goroutine::waiter::{Node, Outcome, WaitQueue};
use crate::primitive::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use crate::primitive::exclusive::{ShortLock, count_u32, count_usize};
use crate::sys::poller::Event;

/// Which calls a waiter waits to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Those that take: read, recv, accept.
    Read = 0,
    /// Those that give: write, send, connect.
    Write = 1,
}

const SIDES: [Side; 2] = [Side::Read, Side::Write];

struct Half {
    /// Events and retirements so far.
    seq: AtomicU32,
    /// How many stand in `queue`; read without the lock.
    waiting: AtomicU32,
    queue: ShortLock<WaitQueue>,
}

impl Half {
    fn new() -> Self {
        Self { seq: AtomicU32::new(0), waiting: AtomicU32::new(0), queue: ShortLock::new(WaitQueue::new()) }
    }
}

/// One descriptor number. Stays where it is for the life of the table; its file may change.
pub struct PollDesc {
    fd: i32,
    /// How often the number was retired; the upper half of its events' tags.
    generation: AtomicU32,
    /// The poller watches it. Changed under the table's lock.
    is_registered: AtomicBool,
    /// Connections come to it. Changed as `is_registered` is, before it.
    is_listener: AtomicBool,
    /// It stands in the list of those to verify.
    is_listed: AtomicBool,
    /// An event told of something other than data to read.
    has_ended: AtomicBool,
    halves: [Half; 2],
}

impl PollDesc {
    pub(super) fn new(fd: i32) -> Self {
        Self {
            fd,
            generation: AtomicU32::new(0),
            is_registered: AtomicBool::new(false),
            is_listener: AtomicBool::new(false),
            is_listed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            halves: [Half::new(), Half::new()],
        }
    }

    /// The descriptor.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// How often the number was retired so far.
    pub fn generation(&self) -> u32 {
        // Acquire: pairs with the Release in `retire`: who sees the new one sees the sides' new sequence numbers.
        self.generation.load(Ordering::Acquire)
    }

    /// Events of `side` so far. Read it before the attempt, on any thread.
    #[inline]
    pub fn seq(&self, side: Side) -> u32 {
        // Acquire: before the attempt that follows. Pairs with the SeqCst add in `raise`.
        self.halves[side as usize].seq.load(Ordering::Acquire)
    }

    /// Whether the poller watches it.
    #[inline]
    pub fn is_registered(&self) -> bool {
        // Acquire: pairs with the Release in `set_registered`.
        self.is_registered.load(Ordering::Acquire)
    }

    /// Whether an event among those that `seq` has counted told of the end, an error or an urgent mark: there may be something to
    /// read that no further event tells of.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed) // written before the number was raised, which the caller has read
    }

    /// It is about to be registered. Under the table's lock.
    pub(super) fn begin_anew(&self) {
        self.has_ended.store(false, Ordering::Relaxed); // no event of the file comes before, and none of another
    }

    /// Whether it was a listener when it was registered.
    pub(super) fn is_listener(&self) -> bool {
        self.is_listener.load(Ordering::Relaxed) // decides about an order only
    }

    pub(super) fn set_listener(&self, listener: bool) {
        self.is_listener.store(listener, Ordering::Relaxed);
    }

    pub(super) fn set_registered(&self, registered: bool) {
        self.is_registered.store(registered, Ordering::Release);
    }

    pub(super) fn tag(&self) -> u64 {
        u64::from(self.generation()) << 32 | u64::from(self.fd.cast_unsigned())
    }

    /// How many wait, both sides together; a moment's view.
    pub fn waiting(&self) -> u32 {
        self.halves.iter().map(|half| half.waiting.load(Ordering::Relaxed)).sum()
    }

    fn raise(&self, side: Side) -> bool {
        let half = &self.halves[side as usize];
        half.seq.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst); // pairs with the fence in `enqueue`
        half.waiting.load(Ordering::Relaxed) != 0
    }

    /// Notes an event; gives back what of it concerns somebody. Any thread.
    pub(super) fn note(&self, event: Event) -> Option<Event> {
        if event.ended {
            self.has_ended.store(true, Ordering::Relaxed); // before the number is raised, by which it is seen
        }
        let readable = event.readable && self.raise(Side::Read);
        let writable = event.writable && self.raise(Side::Write);
        (readable || writable).then_some(Event { readable, writable, ..event })
    }

    /// The number is another file's from here on; returns whether anybody waits for the old one. Under the table's lock.
    pub(super) fn retire(&self) -> bool {
        self.set_registered(false);
        // The sides first: who stands in a queue with the new generation has seen their new numbers.
        let waits = SIDES.map(|side| self.raise(side));
        self.generation.fetch_add(1, Ordering::Release); // pairs with the Acquire in `generation`
        waits[0] || waits[1]
    }

    /// See [`super::NetPoll::enqueue`]. Counts into `total`.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn enqueue(&self, side: Side, node: *mut Node, seen: u32, total: &AtomicUsize) -> bool {
        let half = &self.halves[side as usize];
        let mut queue = half.queue.lock();
        // SAFETY: the caller's promise; the queue's lock is held.
        unsafe {
            (*node).case = self.generation() as usize;
            queue.push_back(node);
            count_u32(&half.waiting, 1);
            count_usize(total, 1);
            fence(Ordering::SeqCst); // pairs with the fence in `raise`: counted, then the number read
            if self.seq(side) == seen && self.is_registered() {
                return true;
            }
            queue.remove(node);
        }
        count_u32(&half.waiting, -1);
        count_usize(total, -1);
        false
    }

    /// Takes a node whose wait ended otherwise out of its queue.
    ///
    /// # Safety
    /// The node is live, and if it is linked, then in this queue. Host attached.
    pub(super) unsafe fn remove(&self, side: Side, node: *mut Node, total: &AtomicUsize) {
        let half = &self.halves[side as usize];
        let mut queue = half.queue.lock();
        // SAFETY: the caller's promise.
        unsafe {
            if (*node).is_linked() {
                queue.remove(node);
                count_u32(&half.waiting, -1);
                count_usize(total, -1);
            }
        }
    }

    /// Claims the waiters of `side`: those of retired files as `Closed`, those of the present one, unless `only_old`, as
    /// delivered. They are appended to `claimed`. Host attached.
    pub(super) fn claim(&self, side: Side, only_old: bool, claimed: &mut WaitQueue, total: &AtomicUsize) {
        let half = &self.halves[side as usize];
        let mut queue = half.queue.lock();
        let generation = self.generation() as usize;
        loop {
            let node = queue.front();
            // SAFETY: a linked node is live, and so is its wait; it is out of the queue before its owner can go.
            unsafe {
                // Who came later is of a later generation: the old ones stand in front.
                if node.is_null() || (only_old && (*node).case == generation) {
                    return;
                }
                queue.remove(node);
                count_u32(&half.waiting, -1);
                count_usize(total, -1);
                let outcome = if (*node).case == generation { Outcome::Delivered } else { Outcome::Closed };
                let wait = (*node).wait;
                if (*wait).claim(outcome) {
                    (*wait).winner = node;
                    claimed.push_back(node);
                }
            }
        }
    }

    /// Claims the waiters of both sides, as `claim` does.
    pub(super) fn claim_old(&self, claimed: &mut WaitQueue, total: &AtomicUsize) {
        for side in SIDES {
            self.claim(side, true, claimed, total);
        }
    }

    /// What goes into the list of those to verify; `None`: it stands there.
    pub(super) fn list(&self, now_ns: impl FnOnce() -> u64) -> Option<Watched> {
        // The fence of `enqueue` or `unlist` lies before: a look that finds it listed is before the look at the waiters.
        if self.is_listed.load(Ordering::Relaxed) || self.is_listed.swap(true, Ordering::Relaxed) {
            return None;
        }
        let events = SIDES.iter().fold(0u32, |sum, &side| sum.wrapping_add(self.seq(side)));
        Some(Watched { fd: self.fd, since_ns: now_ns(), events })
    }

    /// It stands in that list no more; returns whether somebody waits now, and whether nothing happened meanwhile.
    pub(super) fn unlist(&self, watched: &Watched) -> (bool, bool) {
        self.is_listed.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fence in `enqueue`: off the list, then the waiters read
        let events = SIDES.iter().fold(0u32, |sum, &side| sum.wrapping_add(self.seq(side)));
        (self.waiting() != 0, events == watched.events)
    }
}
