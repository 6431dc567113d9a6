//! A wait for a word that somebody else changes, without a lock between the two: who waits stands at the door and looks at
//! the word once more; who changed the word looks at the door. One sees the other. (A semaphore's value and the goroutines
//! that wait for it: `boundary::semaphore`.)

use super::atomic::{AtomicU32, Ordering, fence};

/// How many stand there.
pub struct Door(AtomicU32);

impl Door {
    /// Nobody.
    #[cfg(not(loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Nobody.
    #[cfg(loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Before the last look at the word. What is to be found by who looks at the door is in place by then.
    #[inline]
    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fence in `is_used`: enter before the look
    }

    /// The wait is over.
    #[inline]
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed); // who looks too early looks for somebody who has gone
    }

    /// In a forked child: nobody who entered is there any more.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// After the change of the word: whether somebody may be waiting.
    #[inline]
    pub fn is_used(&self) -> bool {
        fence(Ordering::SeqCst); // pairs with the fence in `enter`: change before the look
        self.0.load(Ordering::Relaxed) != 0
    }
}
