//! A 4-ary heap (Go's timerHeapN): flatter than a binary one, and four children share a cache line of pointers. Timers
//! know their index, so that taking one out is O(log n); equal deadlines come in the order they were set.

use super::{EventTimer, NOT_QUEUED, Timer};
use crate::alloc::List;
#[cfg(all(test, not(model)))]
use crate::primitive::room::Room;
use crate::primitive::room::{make_room, unused};
use crate::sys::memory;

const ARITY: usize = 4;

/// A heap of timers, earliest first.
#[derive(Default)]
pub struct TimerHeap {
    heap: List<*mut Timer>,
    seq: u64,
    /// Queued timers with an event.
    events: usize,
    /// For how many others there is always room: whoever sets those cannot be refused.
    kept: usize,
}

// SAFETY: the heap's owner keeps it behind a lock; queued timers are alive by the contract of `push`.
unsafe impl Send for TimerHeap {}

impl TimerHeap {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are queued.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest deadline.
    #[inline]
    pub fn peek_when(&self) -> Option<u64> {
        // SAFETY: queued timers are alive.
        self.heap.first().map(|&t| unsafe { (*t).when_ns })
    }

    /// Makes room for one more with an event. `false`: memory is refused.
    pub fn make_room(&mut self) -> bool {
        self.reserve(self.events + 1 + self.kept)
    }

    /// Keeps room for `count` without one, from now on, whatever else is set. `false`: memory is refused.
    pub fn keep_room(&mut self, count: usize) -> bool {
        let kept = self.kept.max(count);
        let is_there = self.reserve(self.events + kept);
        if is_there {
            self.kept = kept;
        }
        is_there
    }

    fn reserve(&mut self, count: usize) -> bool {
        make_room(&mut self.heap, count)
    }

    /// While it is empty: gives the system the memory of its room, which stays.
    pub fn release_room(&mut self) {
        // SAFETY: the list's own memory, and it is empty.
        unsafe { memory::release_within(unused(&mut self.heap)) };
    }

    /// How many can be queued before memory is asked for.
    #[cfg(all(test, not(model)))]
    pub(crate) fn room(&self) -> usize {
        self.heap.room()
    }

    /// Adds.
    ///
    /// # Safety
    /// `timer` is alive, not queued, and stays in place until it is popped or removed.
    pub unsafe fn push(&mut self, timer: *mut Timer) {
        self.seq += 1;
        // SAFETY: the caller's promise.
        unsafe {
            (*timer).seq = self.seq;
            (*timer).index = self.heap.len() as u32;
            self.events += usize::from((*timer).is_event);
        }
        self.heap.push(timer);
        self.up(self.heap.len() - 1);
    }

    /// Takes out; `false` if it was not queued.
    ///
    /// # Safety
    /// `timer` is alive and queued here if anywhere.
    pub unsafe fn remove(&mut self, timer: *mut Timer) -> bool {
        // SAFETY: the caller's promise.
        let index = unsafe { std::mem::replace(&mut (*timer).index, NOT_QUEUED) };
        if index == NOT_QUEUED {
            return false;
        }
        let i = index as usize;
        self.heap.swap_remove(i);
        // SAFETY: the caller's promise.
        self.events -= usize::from(unsafe { (*timer).is_event });
        if i < self.heap.len() {
            // SAFETY: a queued timer.
            unsafe { (*self.heap[i]).index = index };
            self.down(i);
            self.up(i);
        }
        true
    }

    /// The earliest timer if it is due. It is out of the heap then, unless it is periodic: that one has been set for the
    /// first of its times after `now_ns`; those it has missed are gone.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<*mut Timer> {
        let first = *self.heap.first()?;
        // SAFETY: queued timers are alive, and one that says so is the first field of an `EventTimer`.
        unsafe {
            if (*first).when_ns > now_ns {
                return None;
            }
            let period = if (*first).is_event { (*first.cast::<EventTimer>()).period_ns } else { 0 };
            if let Some(missed) = (now_ns - (*first).when_ns).checked_div(period) {
                (*first).when_ns = (*first).when_ns.saturating_add(period.saturating_mul(missed + 1));
                self.seq += 1;
                (*first).seq = self.seq;
                self.down(0);
            } else {
                self.remove(first);
            }
        }
        Some(first)
    }

    /// Drops all timers. Only those with an event can be told: who sleeps by one of the others must be gone.
    ///
    /// # Safety
    /// The memory of all timers is still there.
    pub unsafe fn forget(&mut self) {
        self.events = 0;
        while let Some(timer) = self.heap.pop() {
            // SAFETY: the caller's promise. The others are not written to: their stacks stay shared with the parent.
            unsafe {
                if (*timer).is_event {
                    (*timer).index = NOT_QUEUED;
                }
            }
        }
    }

    /// Drops all timers, and has those with an event abandoned. Waits that are left must not look for their timers here.
    ///
    /// # Safety
    /// All timers are alive; host attached, where its code may run.
    pub unsafe fn abandon(&mut self) {
        self.events = 0;
        while let Some(timer) = self.heap.pop() {
            // SAFETY: the caller's promise; one that says so is the first field of an `EventTimer`.
            unsafe {
                (*timer).index = NOT_QUEUED;
                if (*timer).is_event {
                    let timer = timer.cast::<EventTimer>();
                    ((*timer).event.abandon)(timer);
                }
            }
        }
    }

    fn key(&self, i: usize) -> (u64, u64) {
        // SAFETY: queued timers are alive.
        unsafe { ((*self.heap[i]).when_ns, (*self.heap[i]).seq) }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        // SAFETY: queued timers are alive.
        unsafe {
            (*self.heap[a]).index = a as u32;
            (*self.heap[b]).index = b as u32;
        }
    }

    fn up(&mut self, mut i: usize) {
        while i > 0 {
            let parent = (i - 1) / ARITY;
            if self.key(parent) <= self.key(i) {
                return;
            }
            self.swap(i, parent);
            i = parent;
        }
    }

    fn down(&mut self, mut i: usize) {
        loop {
            let first = i * ARITY + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|&c| self.key(c)) else { return };
            if self.key(i) <= self.key(least) {
                return;
            }
            self.swap(i, least);
            i = least;
        }
    }

    /// Whether order and indices are right.
    #[cfg(all(test, not(model)))]
    pub(super) fn is_sound(&self) -> bool {
        (0..self.heap.len()).all(|i| {
            // SAFETY: queued timers are alive.
            let index = unsafe { (*self.heap[i]).index };
            index as usize == i && (i == 0 || self.key((i - 1) / ARITY) <= self.key(i))
        })
    }
}
