//! Frees by threads that have no cache: a list per class, pushed without a lock, taken as a whole by who settles it.
//!
//! A free object's first word is the link. The head is one word, the newest object's address and above its 48 bits how
//! many there are, so that a pusher sees when a batch has come together. Nobody ever takes a single object off, so
//! there is no ABA: a push only asks that the head is still what it linked to, whatever happened in between.

use crate::primitive::atomic::{AtomicU64, Ordering};
use std::ptr;

const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
/// Where the count ends; the list may be longer.
const COUNT_MAX: u64 = u64::MAX >> ADDRESS_BITS;

/// Objects of one class that were freed and not settled yet.
pub(super) struct RemoteList {
    head: AtomicU64,
}

impl RemoteList {
    /// Nothing freed.
    pub(super) fn new() -> Self {
        Self { head: AtomicU64::new(0) }
    }

    /// Adds an object. Returns how many there are with it, at most 65,535. Any thread, without the host's lock.
    ///
    /// # Safety
    /// The object is of at least 8 bytes, 8-aligned, and the caller's to give away.
    pub(super) unsafe fn push(&self, object: *mut u8) -> u64 {
        let address = object.expose_provenance() as u64;
        debug_assert!(address & !ADDRESS_MASK == 0 && address.is_multiple_of(8));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the object is the caller's until the exchange below succeeds.
            unsafe { object.cast::<u64>().write(head & ADDRESS_MASK) };
            let count = (head >> ADDRESS_BITS).min(COUNT_MAX - 1) + 1;
            // Release: pairs with the Acquire in `take_all`, for the link and for what the freeing thread last wrote to
            // the object. Later pushes are read-modify-writes and so keep it paired. Relaxed on failure: only another
            // try.
            match self.head.compare_exchange_weak(
                head,
                address | count << ADDRESS_BITS,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return count,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all there is, newest first.
    pub(super) fn take_all(&self) -> Taken {
        // Relaxed: a list that looks empty is looked at again at the next turn. Not in a model: loom tries no other
        // order around a load that is followed by another thread's load.
        if cfg!(not(loom)) && self.head.load(Ordering::Relaxed) == 0 {
            return Taken { next: 0 };
        }
        // Acquire: pairs with the Release in `push`.
        Taken { next: self.head.swap(0, Ordering::Acquire) & ADDRESS_MASK }
    }
}

/// The objects of a list that was taken.
pub(super) struct Taken {
    next: u64,
}

impl Iterator for Taken {
    type Item = *mut u8;

    fn next(&mut self) -> Option<*mut u8> {
        if self.next == 0 {
            return None;
        }
        let object: *mut u8 = ptr::with_exposed_provenance_mut(self.next as usize);
        // SAFETY: pushed with a link, and taken off by this iterator alone.
        self.next = unsafe { object.cast::<u64>().read() };
        Some(object)
    }
}
