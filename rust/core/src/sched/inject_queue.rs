//! The global queue: a [`Fifo`] under a lock, its length readable without it.

use crate::alloc::Ring;
use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::primitive::room::{make_room, unused};
use crate::primitive::{Mutex, MutexGuard};
use crate::sys::memory;
use std::mem::MaybeUninit;

/// Of so many that are taken while somebody stands behind, one is of those.
const TURN_OF_THOSE_BEHIND: u32 = 8;

/// First come, first served, but who used up a slice stands behind those who did not: a goroutine that waits often is not
/// kept waiting by many that compute.
pub struct Fifo<T> {
    first: Ring<*mut T>,
    behind: Ring<*mut T>,
    /// How many were taken while somebody stood behind.
    turns: u32,
}
// SAFETY: the queue owns what is in it; pushes and pops hand ownership over under the lock of its owner.
unsafe impl<T> Send for Fifo<T> {}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self { first: Ring::new(), behind: Ring::new(), turns: 0 }
    }
}

impl<T> Fifo<T> {
    /// How many stand in it.
    pub fn len(&self) -> usize {
        self.first.len() + self.behind.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `count` in all, before and behind. `false`: memory is refused.
    pub fn make_room(&mut self, count: usize) -> bool {
        make_room(&mut self.first, count) && make_room(&mut self.behind, count)
    }

    /// Gives the system the memory of the room that nobody uses now.
    fn release_room(&mut self) {
        for part in [&mut self.first, &mut self.behind] {
            // SAFETY: the list's own memory, and it is empty.
            unsafe { memory::release_within(unused(part)) };
        }
    }

    /// Appends; `is_behind`: it used up its slice.
    pub fn push(&mut self, item: *mut T, is_behind: bool) {
        if is_behind { self.behind.push_back(item) } else { self.first.push_back(item) }
    }

    /// Who is next but for the turns of those behind.
    pub fn front(&self) -> Option<*mut T> {
        self.first.front().or_else(|| self.behind.front()).copied()
    }

    /// Drops everything; the room stays.
    pub fn clear(&mut self) {
        self.first.clear();
        self.behind.clear();
    }

    /// Takes everything, each with whether it stands behind; those last.
    pub fn drain(&mut self) -> impl Iterator<Item = (*mut T, bool)> {
        self.first.by_ref().map(|item| (item, false)).chain(self.behind.by_ref().map(|item| (item, true)))
    }

    /// Takes the next.
    pub fn pop(&mut self) -> Option<*mut T> {
        if self.behind.is_empty() {
            return self.first.pop_front();
        }
        self.turns = (self.turns + 1) % TURN_OF_THOSE_BEHIND;
        if self.turns == 0 || self.first.is_empty() { self.behind.pop_front() } else { self.first.pop_front() }
    }
}

/// FIFO of `*mut T`.
pub struct InjectQueue<T> {
    items: Mutex<Fifo<T>>,
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
        Self { items: Mutex::new(Fifo::default()), len: AtomicUsize::new(0) }
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

    fn with<R>(&self, f: impl FnOnce(&mut Fifo<T>) -> R) -> R {
        let mut items = self.items.lock().unwrap_or_else(|e| e.into_inner());
        let result = f(&mut items);
        self.len.store(items.len(), Ordering::Relaxed);
        result
    }

    /// Keeps everybody else out.
    pub fn hold(&self) -> MutexGuard<'_, Fifo<T>> {
        self.items.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Drops everything that `hold` gave.
    pub fn forget(&self, items: &mut Fifo<T>) {
        items.clear();
        self.len.store(0, Ordering::Relaxed);
    }

    /// Makes room for `count` in all, so that pushes ask for no memory. `false`: it is refused.
    pub fn make_room(&self, count: usize) -> bool {
        self.with(|q| q.make_room(count))
    }

    /// While it is empty: gives the system the memory of its room, which stays.
    pub fn release_room(&self) {
        self.with(Fifo::release_room);
    }

    /// Appends.
    pub fn push(&self, item: *mut T) {
        self.with(|q| q.push(item, false));
    }

    /// Appends one that used up its slice.
    pub fn push_behind(&self, item: *mut T) {
        self.with(|q| q.push(item, true));
    }

    /// Appends all, in order.
    pub fn push_batch(&self, batch: &[*mut T]) {
        self.with(|q| batch.iter().for_each(|&item| q.first.push_back(item)));
    }

    /// Appends all, in order, those behind behind.
    pub fn append(&self, items: &mut Fifo<T>) {
        self.with(|q| items.drain().for_each(|(item, is_behind)| q.push(item, is_behind)));
    }

    /// Takes everything, each with whether it stands behind; those last. The room stays.
    pub fn take_each(&self, mut f: impl FnMut(*mut T, bool)) {
        if !self.is_empty() {
            self.with(|q| q.drain().for_each(|(item, is_behind)| f(item, is_behind)));
        }
    }

    /// Takes the first.
    pub fn pop(&self) -> Option<*mut T> {
        if self.is_empty() { None } else { self.with(Fifo::pop) }
    }

    /// Takes as many from the front as there are places. Of those behind one at most: the others shall not come before who is
    /// ready soon.
    pub fn pop_batch<'a>(&self, places: &'a mut [MaybeUninit<*mut T>]) -> &'a [*mut T] {
        let count = self.with(|q| {
            let one = if places.is_empty() { None } else { q.pop() };
            let more = places.len().saturating_sub(1).min(q.first.len());
            let taken = one.into_iter().chain(q.first.by_ref().take(more));
            places.iter_mut().zip(taken).map(|(place, item)| place.write(item)).count()
        });
        // SAFETY: so many were written just now.
        unsafe { std::slice::from_raw_parts(places.as_ptr().cast(), count) }
    }
}
