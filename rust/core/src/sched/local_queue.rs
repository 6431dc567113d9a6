//! A P's run queue: Go's ring of 256 with one producer and many consumers, and the next slot (runtime/proc.go: runqput,
//! runqget, runqsteal, runqgrab).

use crate::primitive::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::primitive::exclusive::is_exclusive;
use crate::primitive::spin_hint;
use std::ptr;

/// Go's 256; few in a model, so that overflow and wrapping come within its reach.
const SLOTS: usize = if cfg!(model) { 4 } else { 256 };

/// How many a queue holds at most, the one in the next slot included.
pub const CAPACITY: usize = SLOTS + 1;

/// The ring and the next slot.
pub struct LocalQueue<T> {
    head: AtomicU32,
    tail: AtomicU32,
    next: AtomicPtr<T>,
    slots: [AtomicPtr<T>; SLOTS],
}

impl<T> Default for LocalQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> LocalQueue<T> {
    /// Empty.
    pub fn new() -> Self {
        Self {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// Moves the head; the owner's and the thieves' way of taking.
    #[inline]
    fn advance(&self, head: u32, by: u32) -> bool {
        if is_exclusive() {
            self.head.store(head.wrapping_add(by), Ordering::Relaxed);
            return true;
        }
        // Release: our reads of the slots come before the owner, who reads head with Acquire, may reuse them.
        self.head.compare_exchange(head, head.wrapping_add(by), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Appends. When the ring is full, half of it and the newcomer go to `spill` instead, in queue order. Owner only.
    #[inline]
    pub fn push_back(&self, item: *mut T, spill: impl FnOnce(&[*mut T])) {
        loop {
            let head = self.head.load(Ordering::Acquire); // pairs with the Release of takers
            let tail = self.tail.load(Ordering::Relaxed); // only the owner writes it
            let len = tail.wrapping_sub(head);
            if (len as usize) < SLOTS {
                self.slots[tail as usize % SLOTS].store(item, Ordering::Relaxed);
                self.tail.store(tail.wrapping_add(1), Ordering::Release); // publishes the slot to thieves
                return;
            }
            if let Some(batch) = self.take_half(head, item) {
                return spill(&batch);
            }
        }
    }

    /// Takes the first half of the full ring, `item` behind it. `None`: a thief was faster. No memory is asked for.
    #[cold]
    fn take_half(&self, head: u32, item: *mut T) -> Option<[*mut T; SLOTS / 2 + 1]> {
        let mut batch = [item; SLOTS / 2 + 1];
        for (place, i) in batch.iter_mut().zip(0..(SLOTS / 2) as u32) {
            *place = self.slots[head.wrapping_add(i) as usize % SLOTS].load(Ordering::Relaxed);
        }
        self.advance(head, (SLOTS / 2) as u32).then_some(batch)
    }

    /// Puts into the next slot; gives back who was there. Owner only.
    #[inline]
    pub fn push_next(&self, item: *mut T) -> Option<*mut T> {
        let old = if is_exclusive() {
            let old = self.next.load(Ordering::Relaxed);
            self.next.store(item, Ordering::Relaxed);
            old
        } else {
            self.next.swap(item, Ordering::AcqRel) // pairs with thieves' swap
        };
        if old.is_null() { None } else { Some(old) }
    }

    /// Takes the next slot (`true`: it inherits the time slice) or the first of the ring. Owner only.
    #[inline]
    pub fn pop(&self) -> Option<(*mut T, bool)> {
        let next = self.next.load(Ordering::Relaxed);
        if !next.is_null() {
            if is_exclusive() {
                self.next.store(ptr::null_mut(), Ordering::Relaxed);
                return Some((next, true));
            }
            // A thief may have been faster; only the owner fills the slot, so one try is enough.
            if self.next.compare_exchange(next, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some((next, true));
            }
        }
        loop {
            let head = self.head.load(Ordering::Acquire); // pairs with other takers
            let tail = self.tail.load(Ordering::Relaxed);
            if head == tail {
                return None;
            }
            let item = self.slots[head as usize % SLOTS].load(Ordering::Relaxed);
            if self.advance(head, 1) {
                return Some((item, false));
            }
        }
    }

    /// How many are queued; a moment's view.
    pub fn len(&self) -> usize {
        let head = self.head.load(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Acquire);
        let next = usize::from(!self.next.load(Ordering::Acquire).is_null());
        tail.wrapping_sub(head).min(SLOTS as u32) as usize + next
    }

    /// Whether nothing is queued; a moment's view.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops everything. No other thread knows the queue.
    pub fn forget(&self) {
        self.next.store(ptr::null_mut(), Ordering::Relaxed);
        self.head.store(self.tail.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Moves half of this queue (rounded up) to `thief` and returns one of them to run. Called by the thief's owner,
    /// whose ring is empty.
    pub fn steal_into(&self, thief: &LocalQueue<T>, take_next: bool) -> Option<*mut T> {
        loop {
            let head = self.head.load(Ordering::Acquire); // pairs with other takers
            let tail = self.tail.load(Ordering::Acquire); // pairs with the owner's push
            let len = tail.wrapping_sub(head);
            let take = len - len / 2;
            if take == 0 {
                if !take_next {
                    return None;
                }
                let next = self.next.swap(ptr::null_mut(), Ordering::AcqRel); // pairs with the owner's swap
                return if next.is_null() { None } else { Some(next) };
            }
            if take as usize > SLOTS / 2 {
                spin_hint(); // head and tail were read at different times
                continue;
            }
            let at = thief.tail.load(Ordering::Relaxed);
            for i in 0..take {
                let item = self.slots[head.wrapping_add(i) as usize % SLOTS].load(Ordering::Relaxed);
                thief.slots[at.wrapping_add(i) as usize % SLOTS].store(item, Ordering::Relaxed);
            }
            if !self.advance(head, take) {
                continue;
            }
            let last = thief.slots[at.wrapping_add(take - 1) as usize % SLOTS].load(Ordering::Relaxed);
            thief.tail.store(at.wrapping_add(take - 1), Ordering::Release); // publishes the rest
            return Some(last);
        }
    }
}
