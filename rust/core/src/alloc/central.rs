//! The central list of a class: batches between caches and spans, under one lock per class.
//!
//! Three places in the order they are used: objects that caches gave back, kept by address alone (the transfer stack,
//! as TCMalloc's transfer cache), then what threads without a cache freed (`remote_free`), then the store below: spans.
//! A refill that the stack can serve touches neither objects nor spans.
//!
//! Who settles a remote list: a refill that finds too little without it; a pusher who completes a batch, if nobody has
//! the lock; and `tidy`, which the heap calls now and then. So it never grows far, and nobody waits for anybody.

use super::remote_free::RemoteList;
use super::slots::Slots;
use crate::primitive::{Mutex, MutexGuard};

/// A pusher settles when so many have come together.
const SETTLE_BATCH: u64 = if cfg!(loom) { 2 } else { 64 };
/// Objects passed from a remote list at a time.
const PIECE: usize = 32;

/// Where objects come from and go to in the end: spans, or a model's stand-in.
pub(super) trait Store {
    /// Takes objects for as much of `out` as there are. Returns how many, from the start.
    fn take(&mut self, out: &mut [*mut u8]) -> usize;
    /// Takes objects back.
    fn give(&mut self, objects: &[*mut u8]);
}

/// What was done at a central list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CentralCounts {
    pub(super) locks: u64,
    /// Objects that threads without a cache freed, as far as settled.
    pub(super) remote_frees: u64,
    /// Objects that threads without a cache asked for.
    pub(super) direct_allocs: u64,
}

/// What the lock guards.
pub(super) struct CentralState<S> {
    transfer: Slots,
    /// The fewest objects the transfer stack had since `tidy`: nobody missed those.
    idle: usize,
    pub(super) store: S,
    pub(super) counts: CentralCounts,
}

/// The central list of one class.
pub(super) struct Central<S> {
    state: Mutex<CentralState<S>>,
    remote: RemoteList,
}

impl<S: Store> Central<S> {
    pub(super) fn new(transfer: Slots, store: S) -> Self {
        let state = CentralState { transfer, idle: 0, store, counts: CentralCounts::default() };
        Self { state: Mutex::new(state), remote: RemoteList::new() }
    }

    /// The lock, for a fork; the methods below count how often they take it.
    pub(super) fn lock(&self) -> MutexGuard<'_, CentralState<S>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn lock_counted(&self) -> MutexGuard<'_, CentralState<S>> {
        let mut state = self.lock();
        state.counts.locks += 1;
        state
    }

    /// Fills as much of `out` as there are objects for. Returns how many, from the start; 0: memory is refused.
    pub(super) fn refill(&self, out: &mut [*mut u8]) -> usize {
        self.refill_in(&mut self.lock_counted(), out)
    }

    fn refill_in(&self, state: &mut CentralState<S>, out: &mut [*mut u8]) -> usize {
        if state.transfer.len() < out.len() {
            self.settle_in(state);
        }
        let mut count = state.transfer.pop(out);
        state.idle = state.idle.min(state.transfer.len());
        if count < out.len() {
            count += state.store.take(&mut out[count..]);
        }
        count
    }

    /// Takes objects back.
    pub(super) fn flush(&self, objects: &[*mut u8]) {
        self.lock_counted().give(objects);
    }

    /// One object for who has no cache; null: memory is refused.
    pub(super) fn take_one(&self) -> *mut u8 {
        let mut out = [std::ptr::null_mut()];
        let mut state = self.lock_counted();
        state.counts.direct_allocs += self.refill_in(&mut state, &mut out) as u64;
        out[0]
    }

    /// Takes an object from a thread that has no cache. Without a lock but when a batch has come together and the lock
    /// is free.
    ///
    /// # Safety
    /// An object of this class that is the caller's to give away.
    pub(super) unsafe fn free_remote(&self, object: *mut u8) {
        // SAFETY: the caller's promise; objects of every class are 8-aligned.
        let count = unsafe { self.remote.push(object) };
        if count >= SETTLE_BATCH
            && let Ok(mut state) = self.state.try_lock()
        {
            state.counts.locks += 1;
            self.settle_in(&mut state);
        }
    }

    /// The lock, with nothing left unsettled: for who looks at all of it.
    pub(super) fn lock_settled(&self) -> MutexGuard<'_, CentralState<S>> {
        let mut state = self.lock();
        self.settle_in(&mut state);
        state
    }

    /// Settles, and gives the store what lay in the transfer stack unused since the last time.
    pub(super) fn tidy(&self) {
        let mut state = self.lock_counted();
        self.settle_in(&mut state);
        let mut idle = state.idle;
        let mut piece = [std::ptr::null_mut(); PIECE];
        while idle != 0 {
            let most = idle.min(PIECE);
            let count = state.transfer.pop(&mut piece[..most]);
            state.store.give(&piece[..count]);
            idle -= most;
        }
        state.idle = state.transfer.len();
    }

    fn settle_in(&self, state: &mut CentralState<S>) {
        let mut taken = self.remote.take_all();
        let mut piece = [std::ptr::null_mut(); PIECE];
        loop {
            let mut count = 0;
            for (slot, object) in piece.iter_mut().zip(&mut taken) {
                *slot = object;
                count += 1;
            }
            if count == 0 {
                return;
            }
            state.counts.remote_frees += count as u64;
            state.give(&piece[..count]);
        }
    }
}

impl<S: Store> CentralState<S> {
    fn give(&mut self, objects: &[*mut u8]) {
        let kept = self.transfer.push(objects);
        if kept < objects.len() {
            self.store.give(&objects[kept..]);
        }
    }
}
