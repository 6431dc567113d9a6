//! The heap: what caches share, and the calls of those who have none.
//!
//! Locks, in the order in which one thread may hold several: `pacer`, `caches`, debug mode's, one class's, the page
//! heap's. Each is a real one, under an exclusive host too: threads without the host's lock free, and give pages back.
//! None is held while anything waits but for another of these, except `pacer`, over the system calls of a `release`.

use super::cache::{Cache, CacheBody};
use super::central::{Central, CentralState};
use super::debug::{Debug, DebugConfig, DebugState, Misuse, Report, fatal};
use super::page_heap::PageHeap;
use super::release::Pacer;
use super::size_class::{CLASS, CLASSES, class_of_aligned};
use super::slots::Slots;
use super::span::{PAGE_BYTES, SpanRef, State};
use super::span_store::{Pages, SpanStore};
use crate::primitive::shared::Shared;
use crate::primitive::{Mutex, MutexGuard};
use std::io;
use std::ptr::{self, NonNull};

/// How a heap is set up. Fixed when it is made.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Bytes of free objects that a cache keeps at most.
    pub cache_bytes: usize,
    /// Batches that the transfer stack of a class keeps: what a producer and a consumer have between them, or what a
    /// program frees at once and soon wants again.
    pub transfer_batches: usize,
    /// Bytes that spans in use take at most; more is refused.
    pub limit_bytes: usize,
    /// Whether the last 8 MiB of address space are left to others than this heap.
    pub leaves_headroom: bool,
    /// Bytes that `release` gives back to the system per second at most.
    pub release_bytes_per_s: u64,
    /// Debug mode, and how.
    pub debug: Option<DebugConfig>,
    /// Called with what a caller did wrong, on his thread; the heap's locks may be held, so it may not use the heap. If
    /// it returns, the call had no effect.
    pub on_misuse: fn(&Report),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_bytes: 4 << 20,
            transfer_batches: 8,
            limit_bytes: usize::MAX,
            leaves_headroom: true,
            release_bytes_per_s: 128 << 20,
            debug: None,
            on_misuse: fatal,
        }
    }
}

/// All caches there ever were, and those nobody has.
pub(super) struct Caches {
    all: *const CacheBody,
    spare: *const CacheBody,
}

// SAFETY: bodies are the heap's own memory; the lists are used under the lock.
unsafe impl Send for Caches {}

/// A heap. Its memory goes back to the system when the last reference to it, and to its caches, is dropped.
pub struct Heap {
    pub(super) pages: Shared<Pages>,
    /// By class; that of class 0 is never used.
    centrals: Box<[Central<SpanStore>]>,
    caches: Mutex<Caches>,
    pub(super) pacer: Mutex<Pacer>,
    pub(super) debug: Option<Debug>,
    config: Config,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Heap {
    /// An empty heap: some address space, and memory only by use.
    ///
    /// # Errors
    /// OutOfMemory when the system refuses address space.
    pub fn new(config: Config) -> io::Result<Shared<Self>> {
        Self::try_new(config).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    fn try_new(config: Config) -> Option<Shared<Self>> {
        let pages = Pages::new(config.limit_bytes, config.on_misuse)?;
        pages.lock().leaves_headroom = config.leaves_headroom;
        let mut centrals = Vec::new();
        centrals.try_reserve_exact(CLASSES).ok()?;
        for (class, of) in CLASS.iter().enumerate() {
            let capacity = of.batch as usize * config.transfer_batches;
            let base = pages.lock().metadata().take_many(capacity)?;
            // SAFETY: fresh memory for `capacity` pointers that lives as long as `pages`, which the store keeps.
            let transfer = unsafe { Slots::new(base, capacity) };
            centrals.push(Central::new(transfer, SpanStore::new(class, pages.clone())));
        }
        Shared::try_new(Self {
            pages,
            centrals: centrals.into_boxed_slice(),
            caches: Mutex::new(Caches { all: ptr::null(), spare: ptr::null() }),
            pacer: Mutex::new(Pacer::new(config.release_bytes_per_s)),
            debug: config.debug.map(Debug::new),
            config,
        })
    }

    fn take_body(&self) -> Option<NonNull<CacheBody>> {
        let mut caches = lock(&self.caches);
        // SAFETY: null or a body of this heap that nobody has.
        if let Some(spare) = unsafe { caches.spare.as_ref() } {
            caches.spare = spare.next_spare.get();
            return Some(NonNull::from(spare));
        }
        let mut heap = self.pages.lock();
        let body: NonNull<CacheBody> = heap.metadata().take()?;
        let slots = heap.metadata().take_many(CacheBody::slots_needed())?;
        // SAFETY: fresh zeroed memory, which is an empty body.
        let new = unsafe { body.as_ref() };
        new.prepare(slots, self.config.cache_bytes);
        new.next.set(caches.all);
        caches.all = body.as_ptr();
        Some(body)
    }

    /// The body of a cache that ends, flushed.
    pub(super) fn take_back(&self, body: NonNull<CacheBody>) {
        let mut caches = lock(&self.caches);
        // SAFETY: a body of this heap, which the cache owned.
        unsafe { body.as_ref() }.next_spare.set(caches.spare);
        caches.spare = body.as_ptr();
    }

    /// Calls `f` with every cache there ever was: what they counted stays.
    pub(super) fn each_cache(&self, mut f: impl FnMut(&CacheBody)) {
        let caches = lock(&self.caches);
        // SAFETY: bodies live as long as the heap; `next` is written once, before a body is in the list.
        let mut at = unsafe { caches.all.as_ref() };
        while let Some(body) = at {
            f(body);
            // SAFETY: as above.
            at = unsafe { body.next.get().as_ref() };
        }
    }

    pub(super) fn central(&self, class: usize) -> &Central<SpanStore> {
        &self.centrals[class]
    }

    /// The central lists in use, with their classes.
    pub(super) fn centrals(&self) -> impl Iterator<Item = (usize, &Central<SpanStore>)> {
        self.centrals.iter().enumerate().skip(1)
    }

    pub(super) fn is_debug(&self) -> bool {
        self.debug.is_some()
    }

    pub(super) fn class_at(&self, address: usize) -> usize {
        self.pages.map.class_at(address)
    }

    /// Calls the hook.
    pub(super) fn misused(&self, report: &Report) {
        (self.config.on_misuse)(report);
    }

    /// Memory for `bytes` without a cache, under a lock. Null: memory is refused. Any thread.
    pub fn alloc(&self, bytes: usize) -> *mut u8 {
        self.alloc_aligned(bytes, 1)
    }

    /// The same, aligned to `align`, a power of two; null if it is none.
    pub fn alloc_aligned(&self, bytes: usize, align: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            return ptr::null_mut();
        }
        if let Some(debug) = &self.debug {
            return debug.alloc(self, bytes, align);
        }
        match class_of_aligned(bytes, align) {
            0 => self.alloc_large(bytes, align).map_or(ptr::null_mut(), |(object, ..)| object),
            class => self.central(class).take_one(),
        }
    }

    /// Takes an object back from any thread, with or without the host's lock. Null is nothing. Without a lock, as a
    /// rule; large objects and debug mode take one.
    ///
    /// # Safety
    /// `object` is null or came from this heap, was not freed since, and nobody uses it again.
    pub unsafe fn free(&self, object: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { self.try_free(object) }.unwrap_or_else(|report| self.misused(&report));
    }

    /// `free` that says what is wrong with the pointer instead of calling the hook.
    ///
    /// # Errors
    /// As `Cache::try_free`.
    ///
    /// # Safety
    /// Outside debug mode as `free`.
    pub unsafe fn try_free(&self, object: *mut u8) -> Result<(), Report> {
        // SAFETY: the caller's promise.
        unsafe { self.try_free_sized(object, None) }
    }

    /// # Safety
    /// As `try_free`.
    pub(super) unsafe fn try_free_sized(&self, object: *mut u8, bytes: Option<usize>) -> Result<(), Report> {
        if object.is_null() {
            return Ok(());
        }
        if let Some(debug) = &self.debug {
            return debug.free(self, object, bytes);
        }
        match self.class_at(object.addr()) {
            0 => self.free_large(object.addr()),
            class => {
                // SAFETY: the caller's promise, of the page's class.
                unsafe { self.central(class).free_remote(object) };
                Ok(())
            }
        }
    }

    /// Bytes that may be used of an object; 0 for null.
    ///
    /// # Safety
    /// `object` is null or a live object of this heap.
    pub unsafe fn usable_size(&self, object: *mut u8) -> usize {
        let address = object.addr();
        if let Some(debug) = &self.debug {
            return debug.usable_size(address);
        }
        match self.class_at(address) {
            // The span of a live object stays as it is, so no lock is needed to read it.
            0 => self.pages.map.span_at(address).map_or(0, |span| span.bytes()),
            class => CLASS[class].bytes as usize,
        }
    }

    /// A large object of zeroes: written only where its pages were in use before.
    pub(super) fn alloc_large_zeroed(&self, bytes: usize) -> *mut u8 {
        let Some((object, capacity, is_zero)) = self.alloc_large(bytes, 1) else { return ptr::null_mut() };
        if !is_zero {
            // SAFETY: a new object of `capacity` bytes.
            unsafe { object.write_bytes(0, capacity) };
        }
        object
    }

    /// A large object, its bytes, and whether they are zero.
    fn alloc_large(&self, bytes: usize, align: usize) -> Option<(*mut u8, usize, bool)> {
        let mut heap = self.pages.lock_counted();
        let span = heap.allocate(bytes.div_ceil(PAGE_BYTES).max(1), align.div_ceil(PAGE_BYTES), 0)?;
        heap.large.allocs += 1;
        heap.large.allocated_bytes += span.bytes() as u64;
        Some((ptr::with_exposed_provenance_mut(span.start.get()), span.bytes(), span.zeroed.get()))
    }

    fn free_large(&self, address: usize) -> Result<(), Report> {
        let mut heap = self.pages.lock_counted();
        let Some(span) = heap.large_at(address) else { return Err(explain_in(&heap, address)) };
        heap.large.frees += 1;
        heap.large.freed_bytes += span.bytes() as u64;
        heap.free(span);
        Ok(())
    }

    /// For debug mode: an object without anything about it, its class and the bytes of its slot. Null: memory is
    /// refused.
    pub(super) fn take_raw(&self, bytes: usize, align: usize) -> (*mut u8, usize, usize) {
        match class_of_aligned(bytes, align) {
            0 => {
                self.alloc_large(bytes, align).map_or((ptr::null_mut(), 0, 0), |(object, bytes, _)| (object, 0, bytes))
            }
            class => {
                let mut out = [ptr::null_mut()];
                self.central(class).refill(&mut out);
                (out[0], class, CLASS[class].bytes as usize)
            }
        }
    }

    /// Counterpart of `take_raw`.
    pub(super) fn give_raw(&self, address: usize) {
        match self.class_at(address) {
            0 => drop(self.free_large(address)),
            class => self.central(class).flush(&[ptr::with_exposed_provenance_mut(address)]),
        }
    }

    /// Why there is no object to free at an address.
    pub(super) fn explain(&self, address: usize) -> Report {
        explain_in(&self.pages.lock(), address)
    }

    /// For tests of what happens without memory: of the requests to the page heap, `passes` more succeed, then `count`
    /// fail.
    pub fn fail_page_requests(&self, passes: u64, count: u64) {
        self.pages.lock().faults = (passes, count);
    }

    /// Takes every lock, so that a fork finds nothing half done. Let go in both processes, by the thread that forked:
    /// the child's heap is then whole. Caches of threads that are not in the child belong to nobody there: under an
    /// exclusive host they are as whole as the others, otherwise they must be forgotten (`mem::forget`), and what they
    /// hold is lost.
    pub fn hold_for_fork(&self) -> ForkHold<'_> {
        ForkHold {
            pacer: lock(&self.pacer),
            caches: lock(&self.caches),
            debug: self.debug.as_ref().map(Debug::lock),
            classes: std::array::from_fn(|class| self.centrals[class].lock()),
            pages: self.pages.lock(),
        }
    }
}

impl Shared<Heap> {
    /// A cache of this heap, for a P or a thread.
    ///
    /// # Errors
    /// OutOfMemory when the system refuses memory for it: some 200 KiB of addresses, committed by use.
    pub fn cache(&self) -> io::Result<Cache> {
        let body = self.take_body().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Cache::of(self.clone(), body, self.pages.map))
    }
}

/// All locks of a heap, held over a fork. Dropped, they are free.
#[allow(dead_code, reason = "held, not read")]
pub struct ForkHold<'a> {
    pages: MutexGuard<'a, Box<PageHeap>>,
    classes: [MutexGuard<'a, CentralState<SpanStore>>; CLASSES],
    debug: Option<MutexGuard<'a, DebugState>>,
    caches: MutexGuard<'a, Caches>,
    pacer: MutexGuard<'a, Pacer>,
}

fn explain_in(heap: &PageHeap, address: usize) -> Report {
    let in_span = |span: SpanRef| match span.state.get() {
        State::Small if span.object_start(address) == Some(address) => {
            (Misuse::DoubleFree, span.size_class().bytes as usize)
        }
        State::Small => (Misuse::NotAnObject, span.size_class().bytes as usize),
        _ => (Misuse::NotAnObject, span.bytes()),
    };
    // What is of the heap and in no span was in one before, or the pointer is wild: the former is more likely.
    let elsewhere = if heap.owns(address) { Misuse::DoubleFree } else { Misuse::Foreign };
    let (what, size_bytes) = heap.in_use_at(address).map_or((elsewhere, 0), in_span);
    Report { what, address, size_bytes }
}
