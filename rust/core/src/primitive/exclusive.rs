//! Elision of locked instructions under a host that serialises goroutines.
//!
//! A host with a global lock (CPython's GIL) lets one thread at a time into the runtime: channel operations, park and
//! ready, local queues and timer heaps all run with that lock held, and none of them gives it up in a critical section.
//! The host's lock then does the work of every small lock here, and a compare-and-swap may be a load and a store.
//! `set_exclusive` is called once, before the first goroutine, and only by such a host. What also runs without the
//! host's lock (idle lists, the global queue, sysmon's flags) uses real atomics and `Mutex`, never this module.

use super::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(model)]
use super::model_lock::ModelLock as RawLock;
#[cfg(not(model))]
use super::spin_lock::SpinLock as RawLock;
use std::cell::UnsafeCell;

#[cfg(not(model))]
static EXCLUSIVE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
// Each test has a thread of its own, on which its executions follow one another.
#[cfg(shuttle)]
std::thread_local!(static EXCLUSIVE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });

/// Whether the installed host serialises every caller of the runtime.
#[inline(always)]
pub fn is_exclusive() -> bool {
    #[cfg(not(model))]
    // Relaxed: written once before any goroutine or runtime thread exists.
    return EXCLUSIVE.load(Ordering::Relaxed);
    #[cfg(shuttle)]
    return EXCLUSIVE.get();
    #[cfg(loom)]
    return false;
}

/// Declares that the host's own lock serialises every caller. Call once, before the first goroutine.
pub fn set_exclusive(exclusive: bool) {
    #[cfg(not(model))]
    EXCLUSIVE.store(exclusive, Ordering::Relaxed);
    #[cfg(shuttle)]
    EXCLUSIVE.set(exclusive);
    #[cfg(loom)]
    let _ = exclusive;
}

/// Compare-and-swap of a state word; a plain load and store under an exclusive host.
#[inline(always)]
pub fn change_u32(word: &AtomicU32, from: u32, to: u32) -> bool {
    if is_exclusive() {
        // Relaxed: the host's lock orders every reader and writer of this word.
        let same = word.load(Ordering::Relaxed) == from;
        if same {
            word.store(to, Ordering::Relaxed);
        }
        same
    } else {
        // AcqRel: pairs with itself on the other side of the transition; Acquire on failure reads the winner's writes.
        word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Atomic add; a plain add under an exclusive host. Returns the previous value.
#[inline(always)]
pub fn add_u64(word: &AtomicU64, n: u64) -> u64 {
    if is_exclusive() {
        let old = word.load(Ordering::Relaxed);
        word.store(old.wrapping_add(n), Ordering::Relaxed);
        old
    } else {
        word.fetch_add(n, Ordering::Relaxed)
    }
}

/// The same for a count of what there is, by a difference.
#[inline(always)]
pub fn count_u32(word: &AtomicU32, n: i32) {
    if is_exclusive() {
        word.store(word.load(Ordering::Relaxed).wrapping_add_signed(n), Ordering::Relaxed);
    } else {
        word.fetch_add(n.cast_unsigned(), Ordering::Relaxed); // wraps
    }
}

/// As `count_u32`.
#[inline(always)]
pub fn count_usize(word: &AtomicUsize, n: isize) {
    if is_exclusive() {
        word.store(word.load(Ordering::Relaxed).wrapping_add_signed(n), Ordering::Relaxed);
    } else {
        word.fetch_add(n.cast_unsigned(), Ordering::Relaxed); // wraps
    }
}

/// A lock for sections of a few instructions that never park, allocate or call the host.
///
/// Under an exclusive host it costs a load; otherwise it is a spin lock (`spin_lock`).
pub struct ShortLock<T> {
    raw: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: access to `value` is serialised by `raw`, or by the host's lock when that is exclusive.
unsafe impl<T: Send> Send for ShortLock<T> {}
// SAFETY: as above; `&ShortLock` hands out `&mut T` only through the guard.
unsafe impl<T: Send> Sync for ShortLock<T> {}

impl<T> ShortLock<T> {
    /// A free lock around `value`.
    pub fn new(value: T) -> Self {
        Self { raw: RawLock::new(), value: UnsafeCell::new(value) }
    }

    /// Takes the lock; spins while another thread has it.
    #[inline(always)]
    pub fn lock(&self) -> ShortGuard<'_, T> {
        if !is_exclusive() {
            self.raw.acquire();
        }
        ShortGuard { lock: self }
    }

    /// Takes the lock without a guard; `raw_unlock` releases it. For select, which holds many at once.
    #[inline(always)]
    pub fn raw_lock(&self) {
        if !is_exclusive() {
            self.raw.acquire();
        }
    }

    /// Releases a lock taken with `raw_lock`.
    ///
    /// # Safety
    /// The caller holds the lock and no reference into the value.
    #[inline(always)]
    pub unsafe fn raw_unlock(&self) {
        if !is_exclusive() {
            self.raw.release();
        }
    }

    /// The value's address, for a holder of `raw_lock`.
    #[inline(always)]
    pub fn value_ptr(&self) -> *mut T {
        self.value.get()
    }

    /// The value, for an owner who holds the only reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// Access to the value of a held [`ShortLock`].
pub struct ShortGuard<'a, T> {
    lock: &'a ShortLock<T>,
}

impl<T> std::ops::Deref for ShortGuard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock (or the host's lock) is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> std::ops::DerefMut for ShortGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while the lock (or the host's lock) is held, and it is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for ShortGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if !is_exclusive() {
            self.lock.raw.release();
        }
    }
}
