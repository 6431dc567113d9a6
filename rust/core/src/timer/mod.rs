//! Layer 5: timers. A 4-ary heap of intrusive nodes per P (Go's runtime/time.go, timerHeapN = 4); equal deadlines fire in
//! the order they were set. The heap never calls anybody: it gives back what is due.

const ARITY: usize = 4;
const NOT_QUEUED: usize = usize::MAX;

/// One deadline. Lives in its owner; stays in place while queued.
#[repr(C)]
pub struct Timer {
    /// When, ns of the monotonic clock.
    pub when_ns: u64,
    index: usize,
    seq: u64,
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer {
    /// Not queued.
    #[inline]
    pub fn new() -> Self {
        Self { when_ns: 0, index: NOT_QUEUED, seq: 0 }
    }

    /// Whether it is in a heap.
    pub fn is_queued(&self) -> bool {
        self.index != NOT_QUEUED
    }
}

/// A heap of timers, earliest first.
#[derive(Default)]
pub struct TimerHeap {
    heap: Vec<*mut Timer>,
    seq: u64,
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
    pub fn peek_when(&self) -> Option<u64> {
        // SAFETY: queued timers are alive.
        self.heap.first().map(|&t| unsafe { (*t).when_ns })
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
            (*timer).index = self.heap.len();
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
        let i = unsafe { std::mem::replace(&mut (*timer).index, NOT_QUEUED) };
        if i == NOT_QUEUED {
            return false;
        }
        self.heap.swap_remove(i);
        if i < self.heap.len() {
            // SAFETY: a queued timer.
            unsafe { (*self.heap[i]).index = i };
            self.down(i);
            self.up(i);
        }
        true
    }

    /// The earliest timer if it is due; it is out of the heap then.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<*mut Timer> {
        let first = *self.heap.first()?;
        // SAFETY: queued timers are alive.
        unsafe {
            if (*first).when_ns > now_ns {
                return None;
            }
            self.remove(first);
        }
        Some(first)
    }

    fn key(&self, i: usize) -> (u64, u64) {
        // SAFETY: queued timers are alive.
        unsafe { ((*self.heap[i]).when_ns, (*self.heap[i]).seq) }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        // SAFETY: queued timers are alive.
        unsafe {
            (*self.heap[a]).index = a;
            (*self.heap[b]).index = b;
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
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Timer, TimerHeap};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heap_gives_back_what_a_sorted_list_would(whens in prop::collection::vec(0u64..50, 1..200), drop_every in 2usize..7) {
            let mut timers: Vec<Timer> = whens.iter().map(|&w| Timer { when_ns: w, ..Timer::new() }).collect();
            let base = timers.as_mut_ptr();
            let mut heap = TimerHeap::new();
            let mut model = Vec::new();
            // SAFETY: `timers` is not touched or moved while its elements are queued.
            unsafe {
                for (i, &w) in whens.iter().enumerate() {
                    heap.push(base.add(i));
                    model.push((w, i));
                }
                for i in (0..whens.len()).step_by(drop_every) {
                    prop_assert!(heap.remove(base.add(i)));
                    prop_assert!(!heap.remove(base.add(i)));
                    model.retain(|&(_, j)| j != i);
                }
                model.sort_unstable();
                prop_assert_eq!(heap.peek_when(), model.first().map(|m| m.0));
                for &(w, i) in &model {
                    prop_assert!(w == 0 || heap.pop_due(w - 1).is_none());
                    prop_assert_eq!(heap.pop_due(w), Some(base.add(i)));
                }
                prop_assert!(heap.is_empty());
            }
        }
    }
}
