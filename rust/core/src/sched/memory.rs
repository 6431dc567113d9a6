//! Memory for the runtime's own objects: from the cache of the P whose turn it is, without a lock; without a P from the heap.
//!
//! A cache is made when its P first needs one. Under an exclusive host whoever has the host's lock may use any P's.

use super::runtime::Runtime;
#[cfg(not(model))]
use crate::primitive::atomic::{AtomicPtr, Ordering};
#[cfg(not(model))]
pub(super) use heap::{CacheCell, Held, Memory};
#[cfg(model)]
pub(super) use model::{CacheCell, Held, Memory};

/// See `Runtime::release_too`.
#[cfg(not(model))]
static OTHER_HEAP: AtomicPtr<crate::alloc::Heap> = AtomicPtr::new(std::ptr::null_mut());

#[cfg(not(model))]
fn other_heap() -> Option<&'static crate::alloc::Heap> {
    // Acquire: pairs with the Release in `release_too`.
    // SAFETY: null, or a heap that is there for good.
    unsafe { OTHER_HEAP.load(Ordering::Acquire).as_ref() }
}

impl Runtime {
    /// The heap that the runtime's own objects lie in.
    #[cfg(not(model))]
    pub fn heap(&self) -> &crate::primitive::shared::Shared<crate::alloc::Heap> {
        self.memory.heap()
    }

    /// Bytes of the heap's pages in which objects lie, and of what it keeps about them.
    #[cfg(not(model))]
    pub(super) fn heap_bytes(&self) -> usize {
        self.memory.heap().used_bytes()
    }

    /// A model knows no heap.
    #[cfg(model)]
    pub(super) fn heap_bytes(&self) -> usize {
        0
    }

    /// Gives all memory that nobody uses back to the system. Host attached.
    #[cfg(not(model))]
    pub fn release_memory(&self) -> usize {
        self.shed_bundles(true);
        self.inject.release_room();
        self.processors.iter().for_each(super::processor::Processor::release_room);
        self.flush_caches(crate::alloc::Cache::flush);
        self.stacks.release_free();
        crate::sys::memory::trim_allocator();
        self.release_all_of_heaps()
    }

    /// Has `release_memory` and sysmon give back what lies unused in another heap, too: the host's own. One at most.
    #[cfg(not(model))]
    pub fn release_too(heap: &'static crate::alloc::Heap) {
        OTHER_HEAP.store(std::ptr::from_ref(heap).cast_mut(), Ordering::Release); // pairs with `other_heap`
    }

    /// A model knows no heap.
    #[cfg(model)]
    pub(super) fn release_memory(&self) -> usize {
        0
    }

    /// Gives all free pages of the heaps back; returns bytes. Any thread.
    #[cfg(not(model))]
    pub(super) fn release_all_of_heaps(&self) -> usize {
        self.memory.heap().release_all() + other_heap().map_or(0, crate::alloc::Heap::release_all)
    }

    /// A model knows no heap.
    #[cfg(model)]
    pub(super) fn release_all_of_heaps(&self) -> usize {
        0
    }

    /// Has the caches of Ps give back what they have not used for a while. Host attached, an exclusive one.
    #[cfg(not(model))]
    pub(super) fn decay_caches(&self) {
        self.flush_caches(crate::alloc::Cache::decay);
    }

    #[cfg(not(model))]
    fn flush_caches(&self, how: fn(&mut crate::alloc::Cache)) {
        if crate::primitive::exclusive::is_exclusive() {
            for p in self.processors.iter() {
                // SAFETY: with the host's lock every P's cache is the caller's.
                if let Some(cache) = unsafe { self.memory.existing_cache(p) } {
                    how(cache);
                }
            }
        }
    }

    #[cfg(model)]
    pub(super) fn decay_caches(&self) {}

    /// For sysmon, now and then: gives some of the memory that no object lies in back to the system.
    #[cfg(not(model))]
    pub(super) fn release_some(&self, now_ns: u64, last_ns: &mut u64) {
        const EVERY_NS: u64 = 100_000_000;
        const BYTES: usize = 4 << 20;
        if now_ns.saturating_sub(*last_ns) >= EVERY_NS {
            *last_ns = now_ns;
            self.memory.heap().release(BYTES, now_ns);
            other_heap().map(|heap| heap.release(BYTES, now_ns));
        }
    }

    #[cfg(model)]
    pub(super) fn release_some(&self, _now_ns: u64, _last_ns: &mut u64) {}

    /// Memory for an object of `bytes`, aligned to 64 if `bytes` are a multiple of that, to 8 else; null: refused. Host attached.
    #[inline]
    pub fn take_object(&self, bytes: usize) -> *mut u8 {
        // SAFETY: that P is this thread's to use.
        unsafe { self.memory.take(self.usable_processor(), bytes) }
    }

    /// Takes it back. Host attached.
    ///
    /// # Safety
    /// `object` is of `take_object(bytes)` and nobody uses it again.
    #[inline]
    pub unsafe fn give_object(&self, object: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.memory.give(self.usable_processor(), object, bytes) };
    }
}

#[cfg(not(model))]
mod heap {
    pub(crate) use crate::alloc::ForkHold as Held;
    use crate::alloc::{Cache, Config, Heap, serve_lists};
    use crate::primitive::shared::Shared;
    use crate::sched::processor::Processor;
    use std::cell::UnsafeCell;
    use std::io;

    /// The cache of one P.
    #[derive(Default)]
    pub(crate) struct CacheCell(UnsafeCell<Option<Cache>>);

    // SAFETY: used by whoever has the P only, or has the host's exclusive lock.
    unsafe impl Send for CacheCell {}
    // SAFETY: as above.
    unsafe impl Sync for CacheCell {}

    /// The heap of a runtime.
    pub(crate) struct Memory(Shared<Heap>);

    impl Memory {
        /// A heap with room for as many bundles as there are stacks in the first slab: both are there when others have used up the rest.
        pub(crate) fn new() -> io::Result<Self> {
            let heap = Heap::new(Config::default())?;
            let first = heap.alloc(1 << 10);
            if first.is_null() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            // SAFETY: allocated just now.
            unsafe { heap.free(first) };
            Ok(Self(heap))
        }

        /// Has lists lie in it, unless they lie in another one.
        pub(crate) fn begin_to_serve(&self) {
            serve_lists(&self.0);
        }

        /// What all Ps share.
        pub(crate) fn heap(&self) -> &Shared<Heap> {
            &self.0
        }

        /// Takes the heap's locks, for a fork.
        pub(crate) fn hold(&self) -> Held<'_> {
            self.0.hold_for_fork()
        }

        /// The cache of `p`, made if need be.
        ///
        /// # Safety
        /// `p` is null or the caller's to use; no other such reference is alive.
        #[inline]
        #[allow(clippy::mut_from_ref, reason = "the P is the proof of owning it")]
        unsafe fn cache_of<'p>(&self, p: *const Processor) -> Option<&'p mut Cache> {
            // SAFETY: the caller's promise; Ps are never freed.
            let cell = unsafe { &mut *p.as_ref()?.cache.0.get() };
            if cell.is_none() {
                *cell = self.0.cache().ok();
            }
            cell.as_mut()
        }

        /// The cache of `p`, if it has one.
        ///
        /// # Safety
        /// As for `cache_of`.
        #[allow(clippy::mut_from_ref, reason = "the P is the proof of owning it")]
        pub(crate) unsafe fn existing_cache<'p>(&self, p: &'p Processor) -> Option<&'p mut Cache> {
            // SAFETY: the caller's promise.
            unsafe { (*p.cache.0.get()).as_mut() }
        }

        /// # Safety
        /// `p` is null or the caller's to use.
        #[inline]
        pub(crate) unsafe fn take(&self, p: *const Processor, bytes: usize) -> *mut u8 {
            let align = if bytes.is_multiple_of(64) { 64 } else { 8 };
            // SAFETY: the caller's promise; no reference to a cache is kept over a call.
            match unsafe { self.cache_of(p) } {
                Some(cache) => cache.alloc_aligned(bytes, align),
                None => self.0.alloc_aligned(bytes, align),
            }
        }

        /// # Safety
        /// `object` is of `take(_, bytes)`, and nobody uses it again.
        #[inline]
        pub(crate) unsafe fn give(&self, p: *const Processor, object: *mut u8, _bytes: usize) {
            // SAFETY: the caller's promise; the P as in `take`.
            unsafe {
                match self.cache_of(p) {
                    Some(cache) => cache.free(object),
                    None => self.0.free(object),
                }
            }
        }
    }
}

/// A model knows no heap: what it finds lies in the scheduler.
#[cfg(model)]
mod model {
    use crate::sched::processor::Processor;
    use std::alloc::{Layout, alloc, dealloc};
    use std::io;

    #[derive(Default)]
    pub(crate) struct CacheCell;

    pub(crate) struct Held<'a>(std::marker::PhantomData<&'a ()>);

    pub(crate) struct Memory;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 64).expect("a size of ours")
    }

    impl Memory {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) fn begin_to_serve(&self) {}

        pub(crate) fn hold(&self) -> Held<'_> {
            Held(std::marker::PhantomData)
        }

        /// # Safety
        /// As the other one's.
        pub(crate) unsafe fn take(&self, _p: *const Processor, bytes: usize) -> *mut u8 {
            // SAFETY: never of no size.
            unsafe { alloc(layout(bytes)) }
        }

        /// # Safety
        /// As the other one's.
        pub(crate) unsafe fn give(&self, _p: *const Processor, object: *mut u8, bytes: usize) {
            // SAFETY: the caller's promise.
            unsafe { dealloc(object, layout(bytes)) };
        }
    }
}
