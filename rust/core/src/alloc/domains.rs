//! Memory for the host's own objects: a heap, a cache for who has the host's lock, and one for everybody else.
//!
//! A goroutine changes its thread, but never within one of these calls, and under an exclusive host one thread at a time
//! has the lock: so one cache serves all Ps and all threads that hold it, and is warm wherever the host goes on. Calls
//! without the lock are few; their cache is behind a word that is taken or not, and who finds it taken goes to the heap.
//!
//! What comes back may be from elsewhere, for the host allocated before it was served from here: no call harms an
//! address that is not of this heap.

use super::cache::Cache;
use super::heap::{Config, ForkHold, Heap};
use crate::primitive::atomic::{AtomicBool, Ordering};
use crate::primitive::shared::Shared;
use std::cell::UnsafeCell;
use std::io;
use std::ptr;

/// Less is rounded up to this: so every object is 16-aligned.
const LEAST_BYTES: usize = 16;

/// The heap and its two caches.
pub struct Domains {
    heap: Shared<Heap>,
    locked: UnsafeCell<Cache>,
    open: UnsafeCell<Cache>,
    /// Whether somebody has `open`.
    taken: AtomicBool,
}

// SAFETY: `locked` is for who has the host's lock, `open` for who set `taken`.
unsafe impl Send for Domains {}
// SAFETY: as above.
unsafe impl Sync for Domains {}

impl Domains {
    /// An empty heap and its caches.
    ///
    /// # Errors
    /// OutOfMemory when the system refuses memory for them.
    pub fn new(config: Config) -> io::Result<Self> {
        let heap = Heap::new(config)?;
        let (locked, open) = (UnsafeCell::new(heap.cache()?), UnsafeCell::new(heap.cache()?));
        Ok(Self { heap, locked, open, taken: AtomicBool::new(false) })
    }

    /// The heap.
    pub fn heap(&self) -> &Shared<Heap> {
        &self.heap
    }

    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the host's lock is the proof of owning it")]
    unsafe fn locked(&self) -> &mut Cache {
        // SAFETY: the caller has the host's lock, and no call here makes another one.
        unsafe { &mut *self.locked.get() }
    }

    /// Memory for `bytes`, 16-aligned. Null: memory is refused.
    ///
    /// # Safety
    /// Of this and the following up to `resize`: the caller has the host's lock.
    #[inline(always)]
    pub unsafe fn alloc(&self, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let object = unsafe { self.locked() }.take_aligned(bytes);
        // SAFETY: as above.
        if object.is_null() { unsafe { self.alloc_slowly(bytes) } } else { object }
    }

    #[cold]
    #[inline(never)]
    unsafe fn alloc_slowly(&self, bytes: usize) -> *mut u8 {
        // SAFETY: the promise of who called `alloc`.
        unsafe { self.locked() }.alloc(bytes.max(LEAST_BYTES))
    }

    /// The same, of zeroes.
    ///
    /// # Safety
    /// As `alloc`.
    pub unsafe fn alloc_zeroed(&self, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.locked() }.alloc_zeroed(bytes.max(LEAST_BYTES))
    }

    /// `free` where it is no work at all; `false`: not done, `free` is to be called.
    ///
    /// # Safety
    /// As `free`.
    #[inline(always)]
    pub unsafe fn free_at_once(&self, object: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.locked().keep(object) }
    }

    /// Takes an object back. `false`: it is not of this heap, and nothing was done. Null is nothing.
    ///
    /// # Safety
    /// As `alloc`; an object of this heap is live, and nobody uses it again.
    pub unsafe fn free(&self, object: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.locked().free_if_ours(object) }
    }

    /// Makes an object of `bytes` of one of another size, as `Cache::realloc`. `None`: it is not of this heap.
    ///
    /// # Safety
    /// As `free`, unless null is returned; the object is not null.
    pub unsafe fn resize(&self, object: *mut u8, bytes: usize) -> Option<*mut u8> {
        // SAFETY: the caller's promise.
        unsafe { self.locked().resize_if_ours(object, bytes.max(LEAST_BYTES)) }
    }

    /// Calls one of two: with the cache for everybody, or with the heap when somebody else has that cache.
    fn open<R>(&self, with: impl FnOnce(&mut Cache) -> R, without: impl FnOnce(&Heap) -> R) -> R {
        // Acquire: pairs with the Release below, of whoever had it last.
        if self.taken.load(Ordering::Relaxed) || self.taken.swap(true, Ordering::Acquire) {
            return without(&self.heap);
        }
        // SAFETY: `taken` is this caller's.
        let result = with(unsafe { &mut *self.open.get() });
        self.taken.store(false, Ordering::Release); // pairs with the Acquire above
        result
    }

    /// `alloc` for any thread.
    pub fn open_alloc(&self, bytes: usize) -> *mut u8 {
        let bytes = bytes.max(LEAST_BYTES);
        self.open(|cache| cache.alloc(bytes), |heap| heap.alloc(bytes))
    }

    /// `alloc_zeroed` for any thread.
    pub fn open_alloc_zeroed(&self, bytes: usize) -> *mut u8 {
        let bytes = bytes.max(LEAST_BYTES);
        let without = |heap: &Heap| {
            let object = heap.alloc(bytes);
            if !object.is_null() {
                // SAFETY: a new object of at least `bytes`.
                unsafe { object.write_bytes(0, bytes) };
            }
            object
        };
        self.open(|cache| cache.alloc_zeroed(bytes), without)
    }

    /// `free` for any thread.
    ///
    /// # Safety
    /// As `free`, without the lock.
    pub unsafe fn open_free(&self, object: *mut u8) -> bool {
        // SAFETY: the caller's promise; what has a usable size is of this heap.
        let without = |heap: &Heap| unsafe {
            let is_ours = object.is_null() || heap.usable_size(object) != 0;
            if is_ours {
                heap.free(object);
            }
            is_ours
        };
        // SAFETY: the caller's promise.
        self.open(|cache| unsafe { cache.free_if_ours(object) }, without)
    }

    /// `resize` for any thread.
    ///
    /// # Safety
    /// As `resize`, without the lock.
    pub unsafe fn open_resize(&self, object: *mut u8, bytes: usize) -> Option<*mut u8> {
        let bytes = bytes.max(LEAST_BYTES);
        // SAFETY: the caller's promise; two objects, each of the bytes that are copied.
        let without = |heap: &Heap| unsafe {
            let usable = heap.usable_size(object);
            if usable == 0 {
                return None;
            }
            let moved = heap.alloc(bytes);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(object, moved, usable.min(bytes));
                heap.free(object);
            }
            Some(moved)
        };
        // SAFETY: the caller's promise.
        self.open(|cache| unsafe { cache.resize_if_ours(object, bytes) }, without)
    }

    /// Gives what the caches hold to the heap.
    ///
    /// # Safety
    /// The caller has the host's lock.
    pub unsafe fn flush(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.locked() }.flush();
        self.open(Cache::flush, |_| ());
    }

    /// Takes the cache for everybody and the heap's locks. `let_go` in both processes, by the thread that forked.
    pub fn hold_for_fork(&self) -> ForkHold<'_> {
        while self.taken.swap(true, Ordering::Acquire) {
            std::thread::yield_now(); // as in `open`; whoever has it is in the middle of one call
        }
        self.heap.hold_for_fork()
    }

    /// Ends `hold_for_fork`.
    pub fn let_go(&self, held: ForkHold<'_>) {
        drop(held);
        self.taken.store(false, Ordering::Release); // pairs with the Acquire in `open`
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn domains() -> Domains {
        Domains::new(Config::default()).unwrap()
    }

    #[test]
    fn every_object_is_aligned_to_16_and_none_is_null() {
        let domains = domains();
        for bytes in (0..600).chain([1000, 40_000, 1 << 20]) {
            // SAFETY: this test's thread stands for the host's lock; each object is freed once.
            unsafe {
                for object in [domains.alloc(bytes), domains.alloc_zeroed(bytes)] {
                    assert!(!object.is_null() && object.addr().is_multiple_of(16), "{bytes}");
                    object.write_bytes(1, bytes);
                    assert!(domains.free(object));
                }
                for object in [domains.open_alloc(bytes), domains.open_alloc_zeroed(bytes)] {
                    assert!(!object.is_null() && object.addr().is_multiple_of(16), "{bytes}");
                    object.write_bytes(1, bytes);
                    assert!(domains.open_free(object));
                }
            }
        }
        assert_eq!(domains.heap().stats().objects_bytes, 0);
    }

    #[test]
    fn what_is_from_elsewhere_is_left_alone() {
        let domains = domains();
        let mut here = [0_u8; 64];
        let boxed = Box::into_raw(Box::new([0_u8; 64]));
        // SAFETY: none of these is of the heap, so nothing is done to them.
        unsafe {
            let beside = domains.alloc(16).wrapping_add(1 << 29);
            for object in [here.as_mut_ptr(), boxed.cast(), ptr::without_provenance_mut(1 << 60), beside] {
                assert!(!domains.free(object) && !domains.open_free(object));
                assert!(domains.resize(object, 10).is_none() && domains.open_resize(object, 10).is_none());
                domains.taken.store(true, Ordering::Relaxed);
                assert!(!domains.open_free(object) && domains.open_resize(object, 10).is_none());
                domains.taken.store(false, Ordering::Relaxed);
            }
            assert!(domains.free(ptr::null_mut()) && domains.open_free(ptr::null_mut()));
            drop(Box::from_raw(boxed));
        }
    }

    #[test]
    fn a_resized_object_keeps_what_both_sizes_hold() {
        let domains = domains();
        // SAFETY: as above.
        unsafe {
            let mut object = domains.open_alloc(100);
            object.write_bytes(7, 100);
            for (bytes, is_busy) in [(5000, false), (200_000, true), (300, false), (100, true)] {
                domains.taken.store(is_busy, Ordering::Relaxed);
                object = domains.open_resize(object, bytes).unwrap();
                assert!((0..100).all(|i| *object.add(i) == 7), "{bytes}");
                object = domains.resize(object, bytes).unwrap();
            }
            assert!(domains.open_free(object));
            assert!(domains.resize(domains.alloc(8), usize::MAX >> 1).unwrap().is_null());
        }
    }

    #[test]
    fn zeroed_objects_are_zero_though_others_were_there() {
        let domains = domains();
        // SAFETY: as above.
        unsafe {
            for bytes in [40, 1000, 100_000] {
                for is_busy in [false, true] {
                    let object = domains.open_alloc(bytes);
                    object.write_bytes(9, bytes);
                    domains.open_free(object);
                    domains.taken.store(is_busy, Ordering::Relaxed);
                    let object = domains.open_alloc_zeroed(bytes);
                    assert!((0..bytes).all(|i| *object.add(i) == 0), "{bytes}");
                    domains.open_free(object);
                    domains.taken.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    #[test]
    fn threads_without_the_lock_share_it_and_forks_wait_for_them() {
        let domains = domains();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for i in 0..20_000 {
                        let object = domains.open_alloc(i % 300);
                        // SAFETY: allocated just now.
                        assert!(unsafe { domains.open_free(object) });
                    }
                });
            }
            for _ in 0..200 {
                domains.let_go(domains.hold_for_fork());
            }
        });
        assert_eq!(domains.heap().stats().objects_bytes, 0);
    }
}
