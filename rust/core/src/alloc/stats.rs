//! Statistics, by the names of Go's runtime/metrics. Exact when nobody uses the heap meanwhile; otherwise each number
//! was true at some moment of the call.
//!
//! A cache counts what is allocated from it, what comes from and goes to the central list, and what it holds. What
//! was freed to it follows: all that went in and was not brought by a refill.

use super::heap::Heap;
use super::size_class::{CLASS, CLASSES};
use super::span::PAGE_SHIFT;
use crate::primitive::atomic::Ordering;

/// One size class. Bytes are those of the class, as in Go: what a request was rounded up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// Bytes of an object.
    pub bytes: usize,
    /// Objects ever allocated.
    pub allocs: u64,
    /// Objects ever freed.
    pub frees: u64,
    /// Spans in use.
    pub spans: usize,
    /// Objects that are in spans and not live: in caches, in central lists, in their spans.
    pub free_objects: usize,
    /// Of these, those in caches.
    pub cached_objects: usize,
}

impl ClassStats {
    /// Objects in use.
    pub fn live_objects(&self) -> u64 {
        self.allocs - self.frees
    }

    /// Bytes in use.
    pub fn live_bytes(&self) -> u64 {
        self.live_objects() * self.bytes as u64
    }
}

/// A heap's statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// By class; 0 is all zero.
    pub classes: [ClassStats; CLASSES],
    /// Large objects, ever allocated and freed, and their bytes, whole pages.
    pub large_allocs: u64,
    /// As above.
    pub large_frees: u64,
    /// As above.
    pub large_allocated_bytes: u64,
    /// As above.
    pub large_freed_bytes: u64,
    /// /gc/heap/allocs:objects and :bytes.
    pub allocs_objects: u64,
    /// As above.
    pub allocs_bytes: u64,
    /// /gc/heap/frees:objects and :bytes.
    pub frees_objects: u64,
    /// As above.
    pub frees_bytes: u64,
    /// /memory/classes/heap/objects:bytes: in live objects.
    pub objects_bytes: u64,
    /// /memory/classes/heap/unused:bytes: in spans in use, in no live object.
    pub unused_bytes: u64,
    /// /memory/classes/heap/free:bytes: in free pages that the system has not got back.
    pub free_bytes: u64,
    /// /memory/classes/heap/released:bytes: in free pages that the system has, or that were never touched.
    pub released_bytes: u64,
    /// /memory/classes/metadata: spans' descriptors, the page map, caches; as far as handed out, touched or not.
    pub metadata_bytes: u64,
    /// Ever given back to the system.
    pub released_total_bytes: u64,
    /// Allocations that a cache served at once, of those of size classes.
    pub cache_hits: u64,
    /// Allocations for which a cache had to be filled.
    pub cache_refills: u64,
    /// Objects freed without a cache.
    pub remote_frees: u64,
    /// Times that a lock was taken for an allocation, a free or a release.
    pub lock_ops: u64,
}

impl Heap {
    /// Statistics. Settles remote frees; takes each lock in turn; meant to be called now and then.
    pub fn stats(&self) -> Stats {
        let mut stats = self.page_stats();
        for (class, central) in self.centrals() {
            let state = central.lock_settled();
            let of = &mut stats.classes[class];
            of.bytes = CLASS[class].bytes as usize;
            of.spans = state.store.spans();
            of.allocs = state.counts.direct_allocs;
            of.frees = state.counts.remote_frees;
            stats.remote_frees += state.counts.remote_frees;
            stats.lock_ops += state.counts.locks;
        }
        self.add_caches(&mut stats);
        self.add_debug(&mut stats);
        add_up(&mut stats);
        stats
    }

    /// In debug mode an object is freed when its user frees it, not when it leaves quarantine.
    fn add_debug(&self, stats: &mut Stats) {
        let Some(debug) = &self.debug else { return };
        let state = debug.lock();
        for (of, counts) in stats.classes.iter_mut().zip(&state.counts).skip(1) {
            of.allocs += counts.allocs;
            of.frees += counts.frees;
        }
        let large = &state.counts[0];
        (stats.large_allocs, stats.large_frees) = (large.allocs, large.frees);
        (stats.large_allocated_bytes, stats.large_freed_bytes) = (large.allocated_bytes, large.freed_bytes);
    }

    /// Bytes of pages in use and of metadata. One lock.
    pub fn used_bytes(&self) -> usize {
        let heap = self.pages.lock();
        (heap.counts.in_use << PAGE_SHIFT) + heap.metadata_bytes()
    }

    fn page_stats(&self) -> Stats {
        let heap = self.pages.lock();
        let (pages, large) = (heap.counts, heap.large);
        let bytes = |pages: usize| (pages as u64) << PAGE_SHIFT;
        Stats {
            classes: [ClassStats::default(); CLASSES],
            large_allocs: large.allocs,
            large_frees: large.frees,
            large_allocated_bytes: large.allocated_bytes,
            large_freed_bytes: large.freed_bytes,
            allocs_objects: 0,
            allocs_bytes: 0,
            frees_objects: 0,
            frees_bytes: 0,
            objects_bytes: 0,
            unused_bytes: bytes(pages.in_use),
            free_bytes: bytes(pages.free - pages.released),
            released_bytes: bytes(pages.released),
            metadata_bytes: heap.metadata_bytes() as u64,
            released_total_bytes: pages.released_total << PAGE_SHIFT,
            cache_hits: 0,
            cache_refills: 0,
            remote_frees: 0,
            lock_ops: heap.lock_count,
        }
    }

    fn add_caches(&self, stats: &mut Stats) {
        self.each_cache(|body| {
            for (of, bin) in stats.classes.iter_mut().zip(&body.bins).skip(1) {
                // Relaxed: exact when the owner is idle and was waited for, as the head of the file says.
                let [refilled, flushed, misses] =
                    [&bin.refilled, &bin.flushed, &bin.misses].map(|n| n.load(Ordering::Relaxed));
                let (allocs, len) = bin.allocs_and_len();
                of.allocs += allocs;
                // Wrapping: an owner at work may be between two of its counts.
                of.frees = of.frees.wrapping_add((allocs + flushed + len).wrapping_sub(refilled));
                of.cached_objects += len as usize;
                stats.cache_hits += allocs.saturating_sub(misses);
                stats.cache_refills += misses;
            }
        });
    }
}

/// The sums over classes.
fn add_up(stats: &mut Stats) {
    let mut live_bytes = stats.large_allocated_bytes - stats.large_freed_bytes;
    (stats.allocs_objects, stats.allocs_bytes) = (stats.large_allocs, stats.large_allocated_bytes);
    (stats.frees_objects, stats.frees_bytes) = (stats.large_frees, stats.large_freed_bytes);
    for (class, of) in stats.classes.iter_mut().enumerate().skip(1) {
        // A moment between an owner's counts must not make numbers of the size of the world.
        of.frees = of.frees.min(of.allocs);
        let objects = (of.spans * CLASS[class].objects as usize) as u64;
        of.free_objects = objects.saturating_sub(of.live_objects()) as usize;
        live_bytes += of.live_bytes();
        stats.allocs_objects += of.allocs;
        stats.allocs_bytes += of.allocs * of.bytes as u64;
        stats.frees_objects += of.frees;
        stats.frees_bytes += of.frees * of.bytes as u64;
    }
    stats.objects_bytes = live_bytes;
    stats.unused_bytes = stats.unused_bytes.saturating_sub(live_bytes);
}
