//! The global queue: two FIFOs under a lock, their length readable without it. Who used up a slice stands behind those who
//! did not: a goroutine that waits often is not kept waiting by many that compute.

use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::primitive::{Mutex, MutexGuard};
use std::collections::VecDeque;

/// Of so many that are taken while somebody stands behind, one is of those.
const TURN_OF_THOSE_BEHIND: u32 = 8;

/// What a queue holds; see `hold`.
pub struct Items<T> {
    first: VecDeque<*mut T>,
    behind: VecDeque<*mut T>,
    /// How many were taken while somebody stood behind.
    turns: u32,
}
// SAFETY: the queue owns what is in it; pushes and pops hand ownership over under the lock.
unsafe impl<T> Send for Items<T> {}

impl<T> Items<T> {
    fn pop(&mut self) -> Option<*mut T> {
        if self.behind.is_empty() {
            return self.first.pop_front();
        }
        self.turns = (self.turns + 1) % TURN_OF_THOSE_BEHIND;
        if self.turns == 0 || self.first.is_empty() { self.behind.pop_front() } else { self.first.pop_front() }
    }
}

/// FIFO of `*mut T`.
pub struct InjectQueue<T> {
    items: Mutex<Items<T>>,
    len: AtomicUsize,
}

impl<T> Default for InjectQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> InjectQueue<T> {
    /// Empty.
    pub fn new() -> Self {
        Self {
            items: Mutex::new(Items { first: VecDeque::new(), behind: VecDeque::new(), turns: 0 }),
            len: AtomicUsize::new(0),
        }
    }

    /// How many are queued; a moment's view.
    #[inline]
    pub fn len(&self) -> usize {
        // Relaxed: whoever must not miss a push fences (see `idle`).
        self.len.load(Ordering::Relaxed)
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with<R>(&self, f: impl FnOnce(&mut Items<T>) -> R) -> R {
        let mut items = self.items.lock().unwrap_or_else(|e| e.into_inner());
        let result = f(&mut items);
        self.len.store(items.first.len() + items.behind.len(), Ordering::Relaxed);
        result
    }

    /// Keeps everybody else out.
    pub fn hold(&self) -> MutexGuard<'_, Items<T>> {
        self.items.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Drops everything that `hold` gave.
    pub fn forget(&self, items: &mut Items<T>) {
        items.first.clear();
        items.behind.clear();
        self.len.store(0, Ordering::Relaxed);
    }

    /// Appends.
    pub fn push(&self, item: *mut T) {
        self.with(|q| q.first.push_back(item));
    }

    /// Appends one that used up its slice.
    pub fn push_behind(&self, item: *mut T) {
        self.with(|q| q.behind.push_back(item));
    }

    /// Appends all, in order.
    pub fn push_batch(&self, batch: &[*mut T]) {
        self.with(|q| q.first.extend(batch));
    }

    /// Takes everything, those behind last.
    pub fn take_all(&self) -> Vec<*mut T> {
        if self.is_empty() {
            return Vec::new();
        }
        self.with(|q| q.first.drain(..).chain(q.behind.drain(..)).collect())
    }

    /// Takes the first.
    pub fn pop(&self) -> Option<*mut T> {
        if self.is_empty() { None } else { self.with(Items::pop) }
    }

    /// Takes up to `max` from the front. Of those behind one at most: the others shall not come before who is ready soon.
    pub fn pop_batch(&self, max: usize) -> Vec<*mut T> {
        self.with(|q| {
            let one = q.pop();
            let more = max.saturating_sub(1).min(q.first.len());
            one.into_iter().chain(q.first.drain(..more)).collect()
        })
    }
}
