//! What a thread holds while it forks: made before, taken back after, in one process or in two. No memory is asked for.

use super::thread;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place for it.
pub struct OverFork<T> {
    held: UnsafeCell<Option<T>>,
    /// Who put something there: its `pthread_t`, 0 if nobody.
    holder: AtomicUsize,
}

// SAFETY: `put` and `take` have it used by one thread alone.
unsafe impl<T> Sync for OverFork<T> {}

impl<T> Default for OverFork<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> OverFork<T> {
    /// With nothing in it.
    pub const fn new() -> Self {
        Self { held: UnsafeCell::new(None), holder: AtomicUsize::new(0) }
    }

    /// Before the fork.
    ///
    /// # Safety
    /// `held` is what keeps any other thread from coming here before the calling one has taken it back and let it go.
    pub unsafe fn put(&self, held: T) {
        // SAFETY: nobody else is here, by the caller's promise.
        unsafe { *self.held.get() = Some(held) };
        self.holder.store(thread::identity(), Ordering::Relaxed); // compared with who stores it
    }

    /// After the fork, of the thread that put it there: what that was, if anything.
    pub fn take(&self) -> Option<T> {
        // Relaxed: only the calling thread stores its own number.
        if self.holder.load(Ordering::Relaxed) != thread::identity() {
            return None;
        }
        self.holder.store(0, Ordering::Relaxed); // before what is held lets others in
        // SAFETY: this thread's own, and nobody else is here while it holds it.
        unsafe { (*self.held.get()).take() }
    }
}
