//! Layer 7: who waits for which descriptor (Go's netpoll). Never calls the scheduler; gives back waiters it claimed.
//!
//! A descriptor is registered at its first use and stays so for its life, edge-triggered for both sides. Its place in the
//! table is found without a lock and never moves. A call that would block goes like this: [`NetPoll::desc`],
//! [`PollDesc::seq`], the attempt, and on EAGAIN [`NetPoll::enqueue`]; when that refuses, again from the start.
//!
//! Two steps, because under an exclusive host waits are claimed with its lock only, and events come to threads without
//! it: `note` raises the sequence numbers and drops what concerns nobody, on any thread; `claim` takes the waiters. The
//! same for a close: `forget` on any thread, before the descriptor is closed, and `close_waiters` with the host's lock.
//!
//! A close that nobody saw takes the registration along; the next file of that number would never have an event. So who
//! has waited for [`VERIFY_AFTER_NS`] without one gets his registration looked at, once per wait (`verify_some`).
//! Rejected: to look at each wait (a system call each), to register for each wait (two).

#[cfg(all(test, loom))]
mod model;
mod poll_desc;
#[cfg(all(test, not(model)))]
mod tests;

pub use crate::sys::poller::{BATCH, Error, Event, is_listener};
pub use poll_desc::{PollDesc, Side};

use crate::goroutine::waiter::{Node, WaitQueue};
use crate::primitive::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::primitive::boxes::try_box;
use crate::primitive::exclusive::add_u64;
use crate::primitive::{Mutex, MutexGuard};
use crate::sys::poller::Poller;
use std::collections::VecDeque;
use std::ptr;

/// How long somebody waits before the registration is looked at, ns. Much longer than a round trip in a data centre, so
/// that busy connections are never looked at; short for a person, who is the one to notice an unseen close.
pub const VERIFY_AFTER_NS: u64 = 20_000_000;

/// Descriptors per chunk: one allocation of about 20 KiB.
const CHUNK: usize = if cfg!(model) { 2 } else { 256 };
/// Chunks: 4 Mi descriptors, four times the kernel's own default limit (fs.nr_open). The root is 128 KiB, touched where
/// it is used.
const CHUNKS: usize = if cfg!(model) { 1 } else { 16 << 10 };

/// A descriptor somebody began to wait for, and what had happened to it by then.
pub(crate) struct Watched {
    fd: i32,
    since_ns: u64,
    events: u32,
}

/// The table's locks, held; see [`NetPoll::hold`].
pub struct Held<'a> {
    _control: MutexGuard<'a, ()>,
    to_verify: MutexGuard<'a, VecDeque<Watched>>,
    pending: MutexGuard<'a, Pending>,
}

/// What threads that could not claim waiters found.
#[derive(Default)]
struct Pending {
    events: Vec<Event>,
    /// Whoever waits has to try his call again: there was no memory for an event, or the poller is gone.
    is_everything: bool,
}

/// Counts for `stats`.
#[derive(Default)]
pub struct Counters {
    /// Waits that went into a queue.
    pub parked: AtomicU64,
    /// Looks at the poller.
    pub polls: AtomicU64,
    /// Events those brought.
    pub events: AtomicU64,
}

/// The table of descriptors and the poller behind it; nothing is made before the first descriptor.
pub struct NetPoll {
    poller: AtomicPtr<Poller>,
    /// `CHUNKS` chunks, or null.
    root: AtomicPtr<AtomicPtr<PollDesc>>,
    /// Held to register, to retire and to grow.
    control: Mutex<()>,
    waiting: AtomicUsize,
    /// Somebody sleeps in the poller.
    seat: AtomicBool,
    /// The poller's own descriptors were closed: nothing is registered any more.
    is_abandoned: AtomicBool,
    to_verify: Mutex<VecDeque<Watched>>,
    pending: Mutex<Pending>,
    /// Counts.
    pub counters: Counters,
}

impl Default for NetPoll {
    fn default() -> Self {
        Self::new()
    }
}

impl NetPoll {
    /// Without a poller.
    pub fn new() -> Self {
        Self {
            poller: AtomicPtr::new(ptr::null_mut()),
            root: AtomicPtr::new(ptr::null_mut()),
            control: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            seat: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            to_verify: Mutex::new(VecDeque::new()),
            pending: Mutex::new(Pending::default()),
            counters: Counters::default(),
        }
    }

    /// How many wait for a descriptor; a moment's view.
    #[inline]
    pub fn waiting(&self) -> usize {
        // Relaxed: an M reads it after the goroutines it ran have parked; for others sysmon looks as well.
        self.waiting.load(Ordering::Relaxed)
    }

    fn poller(&self) -> Option<&Poller> {
        // SAFETY: once set it stays, and is freed in a forked child only. Acquire: pairs with the Release in `made_poller`.
        unsafe { self.poller.load(Ordering::Acquire).as_ref() }
    }

    /// Under `control`.
    fn made_poller(&self) -> Result<&Poller, Error> {
        if self.poller().is_none() {
            let poller = try_box(Poller::new()?).ok_or(Error::NO_MEMORY)?;
            self.poller.store(Box::into_raw(poller), Ordering::Release); // pairs with `poller`
        }
        self.poller().ok_or(Error::NO_MEMORY)
    }

    /// The place of `fd`, if that was ever used.
    #[inline]
    fn place(&self, fd: i32) -> Option<&PollDesc> {
        let index = usize::try_from(fd).ok().filter(|&i| i < CHUNK * CHUNKS)?;
        let root = self.root.load(Ordering::Acquire); // pairs with the Release in `grow`
        if root.is_null() {
            return None;
        }
        // SAFETY: the root has `CHUNKS` places, a chunk `CHUNK`; neither goes before `self`. Acquire: as above.
        unsafe {
            let chunk = (*root.add(index / CHUNK)).load(Ordering::Acquire);
            if chunk.is_null() { None } else { Some(&*chunk.add(index % CHUNK)) }
        }
    }

    /// The descriptor's place in the table, registered. Call it anew before each attempt. Any thread; a lock and a system
    /// call at its first use.
    ///
    /// # Errors
    /// `NotPollable` (a regular file, or a number beyond the table), EBADF, ENOMEM, ENOSPC, EMFILE.
    #[inline]
    pub fn desc(&self, fd: i32) -> Result<&PollDesc, Error> {
        match self.place(fd) {
            Some(desc) if desc.is_registered() => Ok(desc),
            _ => self.register(fd),
        }
    }

    /// The descriptor's place if it is registered already. Any thread, no system call.
    #[inline]
    pub fn registered(&self, fd: i32) -> Option<&PollDesc> {
        self.place(fd).filter(|desc| desc.is_registered())
    }

    /// One more than the greatest descriptor that may have a place.
    pub fn limit(&self) -> usize {
        let root = self.root.load(Ordering::Acquire); // pairs with the Release in `grow`
        if root.is_null() {
            return 0;
        }
        // SAFETY: the root has `CHUNKS` places and is never freed. Acquire: as above.
        let chunk = |i: &usize| !unsafe { (*root.add(*i)).load(Ordering::Acquire) }.is_null();
        (0..CHUNKS).rev().find(chunk).map_or(0, |i| (i + 1) * CHUNK)
    }

    #[cold]
    fn register(&self, fd: i32) -> Result<&PollDesc, Error> {
        if fd < 0 {
            return Err(Error::BAD_DESCRIPTOR);
        }
        if fd as usize >= CHUNK * CHUNKS {
            return Err(Error::NotPollable);
        }
        let _control = self.control.lock().unwrap_or_else(|e| e.into_inner());
        if self.is_abandoned.load(Ordering::Relaxed) {
            return Err(Error::NotPollable); // written under the lock
        }
        let poller = self.made_poller()?;
        self.grow(fd as usize / CHUNK)?;
        let desc = self.place(fd).ok_or(Error::NO_MEMORY)?;
        if !desc.is_registered() {
            desc.begin_anew();
            poller.register(fd, desc.tag())?;
            desc.set_listener(is_listener(fd));
            desc.set_registered(true);
        }
        Ok(desc)
    }

    /// Makes the chunk. Under `control`.
    fn grow(&self, chunk: usize) -> Result<(), Error> {
        let mut root = self.root.load(Ordering::Relaxed); // written under the lock
        if root.is_null() {
            let mut places: Vec<AtomicPtr<PollDesc>> = Vec::new();
            places.try_reserve_exact(CHUNKS).map_err(|_| Error::NO_MEMORY)?;
            places.extend((0..CHUNKS).map(|_| AtomicPtr::new(ptr::null_mut())));
            root = Box::leak(places.into_boxed_slice()).as_mut_ptr();
            self.root.store(root, Ordering::Release); // pairs with `place`
        }
        // SAFETY: `chunk` is below `CHUNKS`.
        let slot = unsafe { &*root.add(chunk) };
        if slot.load(Ordering::Relaxed).is_null() {
            let mut descs: Vec<PollDesc> = Vec::new();
            descs.try_reserve_exact(CHUNK).map_err(|_| Error::NO_MEMORY)?;
            descs.extend((0..CHUNK).map(|i| PollDesc::new((chunk * CHUNK + i) as i32)));
            slot.store(Box::leak(descs.into_boxed_slice()).as_mut_ptr(), Ordering::Release); // pairs with `place`
        }
        Ok(())
    }

    /// Whether `fd` is one of the poller's own: closing it would leave everybody waiting.
    pub fn owns(&self, fd: i32) -> bool {
        self.own_descriptors().contains(&fd) && fd >= 0
    }

    /// The poller's own descriptors; -1 for none.
    pub fn own_descriptors(&self) -> [i32; 2] {
        self.poller().map_or([-1; 2], Poller::own_descriptors)
    }

    /// Puts `node` into the queue of `side`; `false`: something happened since `seen` was read, try again. After the
    /// wait, however it ended but by delivery or close, `remove` must follow. Uses the node's `case`. The time is asked for where it
    /// is wanted, once in [`VERIFY_AFTER_NS`] for a descriptor.
    ///
    /// # Safety
    /// Host attached. The node's wait is announced; the node is unlinked and stays in place until it is again.
    pub unsafe fn enqueue(
        &self,
        desc: &PollDesc,
        side: Side,
        node: *mut Node,
        seen: u32,
        now_ns: impl FnOnce() -> u64,
    ) -> bool {
        // SAFETY: the caller's promise.
        if !unsafe { desc.enqueue(side, node, seen, &self.waiting) } {
            return false;
        }
        add_u64(&self.counters.parked, 1);
        self.watch(desc, now_ns);
        true
    }

    /// Takes a node out whose wait was ended by somebody else.
    ///
    /// # Safety
    /// Host attached; the node is live and was put into that queue or none.
    pub unsafe fn remove(&self, desc: &PollDesc, side: Side, node: *mut Node) {
        // SAFETY: the caller's promise.
        unsafe { desc.remove(side, node, &self.waiting) };
    }

    fn watch(&self, desc: &PollDesc, now_ns: impl FnOnce() -> u64) {
        let Some(watched) = desc.list(now_ns) else { return };
        let mut list = self.to_verify.lock().unwrap_or_else(|e| e.into_inner());
        if list.try_reserve(1).is_ok() {
            list.push_back(watched);
        } else {
            drop(list);
            let _ = desc.unlist(&watched); // the next to wait tries again
        }
    }

    /// Looks at the poller, at most for `timeout_ns`, and notes what it finds. What concerns somebody is left at the start
    /// of `out`; returns how much. Any thread; only who has the seat may give it time. Blocks the OS thread.
    ///
    /// # Errors
    /// `Interrupted`; anything else means that the poller is gone.
    pub fn poll(&self, timeout_ns: Option<u64>, out: &mut [Event]) -> Result<usize, Error> {
        let Some(poller) = self.poller() else { return Ok(0) };
        self.counters.polls.fetch_add(1, Ordering::Relaxed);
        let count = poller.wait(timeout_ns, out)?;
        if count != 0 {
            self.counters.events.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(self.note(&mut out[..count]))
    }

    /// Raises the sequence numbers and keeps, at the start of `events`, what concerns somebody who waits. Events of a file
    /// that is no more are dropped. Any thread.
    pub fn note(&self, events: &mut [Event]) -> usize {
        let mut kept = 0;
        for i in 0..events.len() {
            if let Some(event) = self.current(events[i].tag).and_then(|desc| desc.note(events[i])) {
                events[kept] = event;
                kept += 1;
            }
        }
        kept
    }

    fn current(&self, tag: u64) -> Option<&PollDesc> {
        self.place(tag as u32 as i32).filter(|desc| u64::from(desc.generation()) == tag >> 32)
    }

    /// An event of `side`, as the poller would bring it; `None`: the descriptor is not registered.
    pub fn event(&self, fd: i32, side: Side) -> Option<Event> {
        let (readable, writable) = (side == Side::Read, side == Side::Write);
        self.registered(fd).map(|desc| Event { tag: desc.tag(), readable, writable, ended: false })
    }

    /// Claims who waits for what `note` kept, and appends them for the caller to ready, in order: to `acceptors` those who
    /// wait for connections, to `claimed` the others. Host attached.
    pub fn claim(&self, events: &[Event], claimed: &mut WaitQueue, acceptors: &mut WaitQueue) {
        for event in events {
            let Some(desc) = self.current(event.tag) else { continue };
            let claimed = if desc.is_listener() { &mut *acceptors } else { &mut *claimed };
            for (wanted, side) in [(event.readable, Side::Read), (event.writable, Side::Write)] {
                if wanted {
                    desc.claim(side, false, claimed, &self.waiting);
                }
            }
        }
    }

    /// The descriptor is about to be closed, or to become another file: its registration goes. Returns whether anybody
    /// waits for it: then `close_waiters` has to follow. Any thread.
    pub fn forget(&self, fd: i32) -> bool {
        match self.place(fd) {
            Some(desc) if desc.is_registered() => self.forget_registered(desc),
            _ => false,
        }
    }

    #[cold]
    fn forget_registered(&self, desc: &PollDesc) -> bool {
        let _control = self.control.lock().unwrap_or_else(|e| e.into_inner());
        if !desc.is_registered() {
            return false; // another closer was faster, and sees to the waiters
        }
        if let Some(poller) = self.poller() {
            let _ = poller.unregister(desc.fd()); // gone already after an unseen close
        }
        desc.retire()
    }

    /// Claims who waits for files `fd` was before, as closed, and appends them to `claimed`. Host attached.
    pub fn close_waiters(&self, fd: i32, claimed: &mut WaitQueue) {
        if let Some(desc) = self.place(fd) {
            desc.claim_old(claimed, &self.waiting);
        }
    }

    /// Both steps of a close in one. Host attached.
    pub fn retire(&self, fd: i32, claimed: &mut WaitQueue) {
        if self.forget(fd) {
            self.close_waiters(fd, claimed);
        }
    }

    /// Looks at the registrations of up to `limit` descriptors that somebody has waited for, for long and without an
    /// event, and makes those again that are gone. Fills `gone` from its start with events for descriptors that are no more,
    /// and returns how many: who waits there has to try his call again. Any thread.
    pub fn verify_some(&self, now_ns: u64, limit: usize, gone: &mut [Event]) -> usize {
        let mut count = 0;
        for _ in 0..limit {
            if count == gone.len() {
                break;
            }
            let Some(watched) = self.next_watched(now_ns) else { break };
            let Some(desc) = self.place(watched.fd) else { continue };
            match desc.unlist(&watched) {
                (false, _) => {}
                // It has just worked; but that may have been before the close.
                (true, false) => self.watch(desc, || now_ns),
                (true, true) => {
                    if let Some(event) = self.verify(desc) {
                        gone[count] = event;
                        count += 1;
                    }
                }
            }
        }
        count
    }

    fn next_watched(&self, now_ns: u64) -> Option<Watched> {
        let mut list = self.to_verify.lock().unwrap_or_else(|e| e.into_inner());
        let due = list.front().is_some_and(|first| first.since_ns.saturating_add(VERIFY_AFTER_NS) <= now_ns);
        if due { list.pop_front() } else { None }
    }

    fn verify(&self, desc: &PollDesc) -> Option<Event> {
        let _control = self.control.lock().unwrap_or_else(|e| e.into_inner());
        let tag = desc.tag();
        let there = self.poller()?.verify(desc.fd(), tag).is_ok();
        desc.set_registered(there);
        (!there).then_some(Event { tag, readable: true, writable: true, ended: true })
    }

    /// After an error of the poller: every registration goes and none is made again, and everybody who waits is pending.
    pub fn abandon(&self) {
        let _control = self.control.lock().unwrap_or_else(|e| e.into_inner());
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.each_place(|desc| {
            desc.set_registered(false);
            desc.note(Event { tag: desc.tag(), readable: true, writable: true, ended: true });
        });
        self.pending.lock().unwrap_or_else(|e| e.into_inner()).is_everything = true;
    }

    /// Calls `visit` for each place that there is.
    fn each_place(&self, mut visit: impl FnMut(&PollDesc)) {
        let chunks = (0..CHUNKS).filter_map(|chunk| self.place((chunk * CHUNK) as i32));
        for first in chunks.map(ptr::from_ref) {
            for i in 0..CHUNK {
                // SAFETY: a chunk has `CHUNK` places.
                visit(unsafe { &*first.add(i) });
            }
        }
    }

    /// Takes the seat of the one who may sleep in the poller; `false`: it is taken.
    pub fn take_seat(&self) -> bool {
        // Acquire: pairs with the Release in `leave_seat`; the poller's wake-up is this caller's from here on.
        let there = self.poller().is_some() && !self.is_abandoned.load(Ordering::Relaxed);
        there && self.seat.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Gives the seat back.
    pub fn leave_seat(&self) {
        self.seat.store(false, Ordering::Release);
    }

    /// Whether somebody sleeps in the poller; a moment's view.
    pub fn is_seat_taken(&self) -> bool {
        self.seat.load(Ordering::Relaxed)
    }

    /// Wakes who sleeps in the poller.
    pub fn wake(&self) {
        if let Some(poller) = self.poller() {
            poller.wake();
        }
    }

    /// Leaves noted events for somebody who may claim. Any thread.
    pub fn leave_pending(&self, events: &[Event]) {
        let mut pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
        if pending.events.try_reserve(events.len()).is_ok() {
            pending.events.extend_from_slice(events);
        } else {
            pending.is_everything = true; // the poller tells of a change once
        }
    }

    /// Claims who waits for what was left, as `claim` does. Host attached.
    pub fn claim_pending(&self, claimed: &mut WaitQueue, acceptors: &mut WaitQueue) {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(|e| e.into_inner()));
        self.claim(&pending.events, claimed, acceptors);
        if pending.is_everything {
            self.each_place(|desc| {
                if desc.waiting() != 0 {
                    self.claim(
                        &[Event { tag: desc.tag(), readable: true, writable: true, ended: true }],
                        claimed,
                        acceptors,
                    );
                }
            });
        }
    }

    /// Keeps everybody else out, for a fork.
    pub fn hold(&self) -> Held<'_> {
        Held {
            _control: self.control.lock().unwrap_or_else(|e| e.into_inner()),
            to_verify: self.to_verify.lock().unwrap_or_else(|e| e.into_inner()),
            pending: self.pending.lock().unwrap_or_else(|e| e.into_inner()),
        }
    }

    /// In a forked child: nobody waits and nothing is registered. The poller is the parent's, whose registrations it shares;
    /// its descriptors are closed here. Places stay where they are, for those on whose stacks their waiters lie.
    pub fn begin_anew(&self, held: &mut Held<'_>) {
        let poller = self.poller.swap(ptr::null_mut(), Ordering::Relaxed); // there is one thread
        if !poller.is_null() {
            // SAFETY: made by `made_poller`; who used it is gone.
            let poller = unsafe { Box::from_raw(poller) };
            if self.is_abandoned.swap(false, Ordering::Relaxed) {
                std::mem::forget(poller); // its numbers may be anybody's by now
            }
        }
        self.root.store(ptr::null_mut(), Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
        self.seat.store(false, Ordering::Relaxed);
        held.to_verify.clear();
        *held.pending = Pending::default();
    }

    /// The poller, for a model to make events.
    #[cfg(all(test, model))]
    pub(crate) fn model_poller(&self) -> &Poller {
        self.poller().expect("a descriptor was used")
    }
}

impl Drop for NetPoll {
    fn drop(&mut self) {
        let (root, poller) = (self.root.load(Ordering::Relaxed), self.poller.load(Ordering::Relaxed));
        // SAFETY: nobody borrows from it any more; the lengths are those the boxes were made with.
        unsafe {
            if !poller.is_null() {
                drop(Box::from_raw(poller));
            }
            if root.is_null() {
                return;
            }
            let root: Box<[AtomicPtr<PollDesc>]> = Box::from_raw(ptr::slice_from_raw_parts_mut(root, CHUNKS));
            for chunk in root.iter().map(|c| c.load(Ordering::Relaxed)).filter(|c| !c.is_null()) {
                drop(Box::from_raw(ptr::slice_from_raw_parts_mut(chunk, CHUNK)));
            }
        }
    }
}
