//! The page heap: runs of 8 KiB pages, best fit, neighbours joined when they become free.
//!
//! Address space is reserved inaccessible, twice as much each time up to a GiB, and committed from its start as it is asked for. Committed
//! pages are in spans, free or in use; two free spans never touch. Free spans are of two kinds, each in bins of its
//! own: dirty ones, of whose pages some may be in memory, and clean ones, all of whose pages the system has (back, or
//! not yet given). Which pages it has is noted page by page, so that what is joined and cut keeps exact counts. All of
//! it is under one lock (`Pages`); a refusal of the system, a limit or a fault that a test asked for is None.

use super::bins::Bins;
use super::metadata::Metadata;
use super::page_map::PageMap;
use super::span::{PAGE_BYTES, PAGE_SHIFT, Span, SpanRef, State};
use crate::primitive::boxes::try_box;
use crate::sys::memory;
use std::ptr::{self, NonNull};

/// Address space reserved at first, and at most at a time: little of it is little in the eyes of tools that count what is mapped, and
/// of limits on that. Half, and half of that, where the system refuses (RLIMIT_AS) or would have too little left.
const FIRST_REGION_BYTES: usize = 2 << 20;
const REGION_BYTES: usize = if cfg!(miri) { 16 << 20 } else { 1 << 30 };
/// What has to be left of that for others, whose memory may be asked for by the MiB: CPython 3.11 ends the process when it cannot make one
/// more MemoryError.
const HEADROOM_BYTES: usize = 8 << 20;
/// Committed at a time: a system call per MiB of growth.
const COMMIT_BYTES: usize = 1 << 20;

/// Reserved address space; committed below `committed_end`.
struct Region {
    next: *mut Region,
    reserved_start: usize,
    reserved_bytes: usize,
    committed_end: usize,
    end: usize,
}

/// Pages by what is done with them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PageCounts {
    pub(super) in_use: usize,
    /// In free spans, given back or not.
    pub(super) free: usize,
    /// Of the free ones, those the system has.
    pub(super) released: usize,
    /// Ever given back, for rates.
    pub(super) released_total: u64,
}

/// Large objects, and how often the lock was taken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LargeCounts {
    pub(super) allocs: u64,
    pub(super) frees: u64,
    pub(super) allocated_bytes: u64,
    pub(super) freed_bytes: u64,
}

/// What the lock of `Pages` guards.
pub(super) struct PageHeap {
    pub(super) map: PageMap,
    pub(super) counts: PageCounts,
    pub(super) large: LargeCounts,
    pub(super) lock_count: u64,
    /// Requests that succeed before the faults a test asked for, and how many of these there are.
    pub(super) faults: (u64, u64),
    /// Whether the last of the address space is left to others; else it is taken, by no more than is asked for.
    pub(super) leaves_headroom: bool,
    limit_pages: usize,
    dirty: Bins,
    clean: Bins,
    spares: Option<SpanRef>,
    regions: *mut Region,
    metadata: Metadata,
}

// SAFETY: all of it is memory of the heap's own, without ties to a thread.
unsafe impl Send for PageHeap {}

impl PageHeap {
    /// An empty heap whose spans in use take at most `limit_bytes`. None: the system refuses the map.
    pub(super) fn new(limit_bytes: usize) -> Option<Box<Self>> {
        let mut metadata = Metadata::new();
        let map = PageMap::new(&mut metadata)?;
        try_box(Self {
            map,
            counts: PageCounts::default(),
            large: LargeCounts::default(),
            lock_count: 0,
            faults: (0, 0),
            leaves_headroom: true,
            limit_pages: limit_bytes >> PAGE_SHIFT,
            dirty: Bins::new(),
            clean: Bins::new(),
            spares: None,
            regions: ptr::null_mut(),
            metadata,
        })
    }

    /// Zeroed memory that lives as long as the heap.
    pub(super) fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    pub(super) fn metadata_bytes(&self) -> usize {
        self.metadata.used_bytes()
    }

    /// A span in use of `pages`, its start a multiple of `align` pages; `class` 0 makes it a large object.
    pub(super) fn allocate(&mut self, pages: usize, align: usize, class: usize) -> Option<SpanRef> {
        if self.is_fault() || self.counts.in_use.checked_add(pages)? > self.limit_pages {
            return None;
        }
        self.ensure_spares(2)?;
        let wanted = pages.checked_add(align - 1)?;
        let found = match self.find(wanted) {
            Some(span) => span,
            None => {
                self.grow(wanted)?;
                self.ensure_spares(2)?; // one is the new memory's
                self.find(wanted)?
            }
        };
        let before = (found.start.get().next_multiple_of(align << PAGE_SHIFT) - found.start.get()) >> PAGE_SHIFT;
        let span = self.cut_out(found, before, pages);
        span.state.set(if class == 0 { State::Large } else { State::Small });
        span.class.set(class as u8);
        span.zeroed.set(span.resident.get() == 0);
        let released = pages - span.resident.get();
        if released != 0 {
            self.map.set_released(span.start.get(), pages, false);
        }
        self.counts.released -= released;
        self.counts.in_use += pages;
        self.map.enter(span);
        Some(span)
    }

    /// Takes back a span in use, of which nobody knows an object any more.
    pub(super) fn free(&mut self, span: SpanRef) {
        self.map.clear_classes(span);
        self.counts.in_use -= span.pages.get();
        span.resident.set(span.pages.get());
        self.insert_joined(span);
    }

    /// The large object that starts at `address`.
    pub(super) fn large_at(&self, address: usize) -> Option<SpanRef> {
        let span = self.map.span_at(address)?;
        (span.state.get() == State::Large && span.start.get() == address).then_some(span)
    }

    /// The span in use that holds `address`.
    pub(super) fn in_use_at(&self, address: usize) -> Option<SpanRef> {
        let in_use = |span: &SpanRef| matches!(span.state.get(), State::Small | State::Large) && span.contains(address);
        self.map.span_at(address).filter(in_use)
    }

    /// Whether an address is of this heap, in use or not.
    pub(super) fn owns(&self, address: usize) -> bool {
        self.regions().any(|r| (r.reserved_start..r.committed_end).contains(&address))
    }

    /// Takes at most `most` pages out of the free ones that are in memory; `give_released` ends that.
    pub(super) fn take_resident(&mut self, most: usize) -> Option<SpanRef> {
        let found = self.dirty.oldest_long()?;
        self.ensure_spares(2)?;
        let (first, length) = self.map.resident_run(found.start.get(), found.pages.get(), most);
        debug_assert!(length != 0, "a dirty span has pages in memory");
        let span = self.cut_out(found, first, length);
        span.state.set(State::Releasing);
        Some(span)
    }

    /// The pages of `take_resident` are free again and the system has them.
    pub(super) fn give_released(&mut self, span: SpanRef) {
        self.map.set_released(span.start.get(), span.pages.get(), true);
        self.counts.released += span.pages.get();
        self.counts.released_total += span.pages.get() as u64;
        span.resident.set(0);
        self.insert_joined(span);
    }

    fn is_fault(&mut self) -> bool {
        match &mut self.faults {
            (_, 0) => false,
            (0, count) => {
                *count -= 1;
                true
            }
            (passes, _) => {
                *passes -= 1;
                false
            }
        }
    }

    /// The shortest free span of at least `pages`; of equal ones that which is in memory.
    fn find(&self, pages: usize) -> Option<SpanRef> {
        match (self.dirty.best_fit(pages), self.clean.best_fit(pages)) {
            (Some(dirty), Some(clean)) if clean.pages.get() < dirty.pages.get() => Some(clean),
            (dirty, clean) => dirty.or(clean),
        }
    }

    fn bins_of(&mut self, span: SpanRef) -> &mut Bins {
        if span.resident.get() == 0 { &mut self.clean } else { &mut self.dirty }
    }

    /// Takes `pages` out of a free span, `before` pages from its start; what is left stays free. Needs two spares.
    fn cut_out(&mut self, span: SpanRef, before: usize, pages: usize) -> SpanRef {
        self.bins_of(span).remove(span);
        self.counts.free -= span.pages.get();
        let mut span = span;
        if before != 0 {
            let rest = self.split(span, before);
            self.insert(span);
            span = rest;
        }
        if span.pages.get() > pages {
            let rest = self.split(span, pages);
            self.insert(rest);
        }
        span
    }

    /// Shortens a span that is in no bin to `pages` and returns the rest. A spare is there.
    fn split(&mut self, span: SpanRef, pages: usize) -> SpanRef {
        let rest = self.spares.expect("whoever splits has seen to spares");
        self.spares = rest.next.take();
        let resident = pages - self.map.count_released(span.start.get(), pages);
        rest.start.set(span.start.get() + (pages << PAGE_SHIFT));
        rest.pages.set(span.pages.get() - pages);
        rest.resident.set(span.resident.get() - resident);
        span.pages.set(pages);
        span.resident.set(resident);
        rest
    }

    /// Puts a span into its bin; its neighbours are in use, or about to be.
    fn insert(&mut self, span: SpanRef) {
        span.state.set(State::Free);
        self.counts.free += span.pages.get();
        self.map.enter_ends(span);
        self.bins_of(span).insert(span);
    }

    /// Puts a span into its bin together with its free neighbours.
    fn insert_joined(&mut self, span: SpanRef) {
        let mut span = span;
        let before = self.map.span_at(span.start.get() - 1);
        if let Some(before) = before.filter(|b| b.state.get() == State::Free && b.end() == span.start.get()) {
            self.detach(before);
            self.join(before, span);
            span = before;
        }
        let after = self.map.span_at(span.end());
        if let Some(after) = after.filter(|a| a.state.get() == State::Free && a.start.get() == span.end()) {
            self.detach(after);
            self.join(span, after);
        }
        self.insert(span);
    }

    fn detach(&mut self, span: SpanRef) {
        self.bins_of(span).remove(span);
        self.counts.free -= span.pages.get();
    }

    /// `first` takes over the pages of `second`, which becomes a spare. Neither is in a bin.
    fn join(&mut self, first: SpanRef, second: SpanRef) {
        first.pages.set(first.pages.get() + second.pages.get());
        first.resident.set(first.resident.get() + second.resident.get());
        self.retire(second);
    }

    fn retire(&mut self, span: SpanRef) {
        span.state.set(State::Unused);
        span.pages.set(0);
        span.next.set(self.spares);
        self.spares = Some(span);
    }

    fn ensure_spares(&mut self, count: usize) -> Option<()> {
        let there = std::iter::successors(self.spares, |span| span.next.get()).take(count).count();
        for _ in there..count {
            let span: NonNull<Span> = self.metadata.take()?;
            // SAFETY: a fresh descriptor, all zero, of this heap.
            let span = unsafe { SpanRef::new(span.as_ptr()) }?;
            self.retire(span);
        }
        Some(())
    }

    fn regions(&self) -> impl Iterator<Item = &Region> {
        // SAFETY: regions lie in the metadata and are changed only through `&mut self`.
        std::iter::successors(unsafe { self.regions.as_ref() }, |region| unsafe { region.next.as_ref() })
    }

    /// Commits at least `pages` in one run, as one clean free span.
    fn grow(&mut self, pages: usize) -> Option<()> {
        let bytes = pages.checked_mul(PAGE_BYTES)?.checked_next_multiple_of(memory::page_bytes().max(PAGE_BYTES))?;
        self.ensure_spares(1)?;
        // SAFETY: null or the newest region, which only this method changes.
        let mut region = unsafe { self.regions.as_mut() };
        if region.as_ref().is_none_or(|r| r.end - r.committed_end < bytes) {
            region = Some(self.reserve(bytes)?);
        }
        let region = region?;
        let room = region.end - region.committed_end;
        let (start, much) = (region.committed_end, bytes.next_multiple_of(COMMIT_BYTES).min(room));
        // SAFETY: inside a region that `reserve_inaccessible` gave.
        let commit = |bytes: usize| unsafe { memory::commit(start, bytes) };
        let committed = if commit(much) {
            much
        } else if much > bytes && commit(bytes) {
            bytes
        } else {
            return None;
        };
        region.committed_end += committed;
        let span = self.spares?;
        self.spares = span.next.take();
        span.start.set(start);
        span.pages.set(committed >> PAGE_SHIFT);
        span.resident.set(0);
        self.map.set_released(start, span.pages.get(), true);
        self.counts.released += span.pages.get();
        self.insert_joined(span);
        Some(())
    }

    /// A new region of at least `bytes`. What is left of the one before stays reserved, and costs nothing.
    fn reserve<'a>(&mut self, bytes: usize) -> Option<&'a mut Region> {
        let align = memory::page_bytes().max(PAGE_BYTES);
        let last = self.regions().next().map_or(FIRST_REGION_BYTES / 2, |region| region.reserved_bytes);
        let mut size = (last * 2).min(REGION_BYTES).max(bytes.checked_add(align)?);
        let start = loop {
            let reserved =
                if memory::is_left(size + HEADROOM_BYTES) { memory::reserve_inaccessible(size).ok() } else { None };
            match reserved {
                Some(start) => break start,
                None if size / 2 >= bytes + align => size /= 2,
                None if self.leaves_headroom => return None,
                None => {
                    size = bytes + align;
                    break memory::reserve_inaccessible(size).ok()?;
                }
            }
        };
        let first = start.next_multiple_of(align);
        let region = match self.metadata.take::<Region>() {
            Some(region) if self.map.cover(first, size - (first - start), &mut self.metadata) => region.as_ptr(),
            _ => {
                // SAFETY: reserved above and known to nobody.
                unsafe { memory::unmap(start, size) };
                return None;
            }
        };
        let end = (start + size) / align * align;
        // SAFETY: fresh memory of the heap's own, referred to through `regions` alone, under the lock.
        unsafe {
            region.write(Region {
                next: self.regions,
                reserved_start: start,
                reserved_bytes: size,
                committed_end: first,
                end,
            });
            self.regions = region;
            Some(&mut *region)
        }
    }

    /// What the counts say, counted again span by span: for tests.
    #[cfg(test)]
    pub(super) fn check(&self) -> PageCounts {
        let mut counts = PageCounts::default();
        for (bins, is_clean) in [(&self.dirty, false), (&self.clean, true)] {
            for span in bins.iter() {
                let released = self.map.count_released(span.start.get(), span.pages.get());
                assert_eq!(released, span.pages.get() - span.resident.get());
                assert_eq!(span.resident.get() == 0, is_clean);
                assert_eq!(span.state.get(), State::Free);
                let after = self.map.span_at(span.end());
                let joined = |a: &SpanRef| a.state.get() == State::Free && a.start.get() == span.end();
                assert!(!after.is_some_and(|a| joined(&a)), "free neighbours are joined");
                counts.free += span.pages.get();
                counts.released += released;
            }
        }
        let committed: usize =
            self.regions().map(|r| r.committed_end - r.reserved_start.next_multiple_of(PAGE_BYTES)).sum();
        counts.in_use = (committed >> PAGE_SHIFT) - counts.free;
        counts
    }
}

impl Drop for PageHeap {
    fn drop(&mut self) {
        for region in self.regions() {
            // SAFETY: reserved by `reserve`; the heap ends, and with it all its objects.
            unsafe { memory::unmap(region.reserved_start, region.reserved_bytes) };
        }
    }
}
