//! The global queue: a FIFO under a lock, its length readable without it.

use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::primitive::{Mutex, MutexGuard};
use std::collections::VecDeque;

/// What a queue holds; see `hold`.
pub struct Items<T>(VecDeque<*mut T>);
// SAFETY: the queue owns what is in it; pushes and pops hand ownership over under the lock.
unsafe impl<T> Send for Items<T> {}

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
        Self { items: Mutex::new(Items(VecDeque::new())), len: AtomicUsize::new(0) }
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

    fn with<R>(&self, f: impl FnOnce(&mut VecDeque<*mut T>) -> R) -> R {
        let mut items = self.items.lock().unwrap_or_else(|e| e.into_inner());
        let result = f(&mut items.0);
        self.len.store(items.0.len(), Ordering::Relaxed);
        result
    }

    /// Keeps everybody else out.
    pub fn hold(&self) -> MutexGuard<'_, Items<T>> {
        self.items.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Drops everything that `hold` gave.
    pub fn forget(&self, items: &mut Items<T>) {
        items.0.clear();
        self.len.store(0, Ordering::Relaxed);
    }

    /// Appends.
    pub fn push(&self, item: *mut T) {
        self.with(|q| q.push_back(item));
    }

    /// Appends all, in order.
    pub fn push_batch(&self, batch: &[*mut T]) {
        self.with(|q| q.extend(batch));
    }

    /// Takes the first.
    pub fn pop(&self) -> Option<*mut T> {
        if self.is_empty() { None } else { self.with(VecDeque::pop_front) }
    }

    /// Takes up to `max` from the front.
    pub fn pop_batch(&self, max: usize) -> Vec<*mut T> {
        self.with(|q| q.drain(..max.min(q.len())).collect())
    }
}
