//! From an address to its page's class and span: a radix tree of two levels over 48 bits of address.
//!
//! A leaf covers 1 GiB and holds three arrays: classes by page, all that `free` of a small object reads; span
//! descriptors by page; and a bit for each page that was given back to the system. Every page of a span in use names
//! it, of a free span the first and the last do, what else is there may be stale and is compared with the descriptor
//! before it is believed. Classes are never stale: they are taken away when a span ends.
//!
//! Written under the page heap's lock, read without. A reader has an address that somebody handed to it after the span
//! came into use, and that handing over orders the entry before the read; other addresses find nothing or a stale
//! entry.

use super::metadata::Metadata;
use super::span::{PAGE_SHIFT, Span, SpanRef};
use crate::primitive::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::cell::Cell;
use std::ptr::{self, NonNull};

/// Bits of an address in use: x86-64 has 47, AArch64 48, unless a program asks the kernel for more.
const ADDRESS_BITS: u32 = 48;
/// log2 of the pages of a leaf.
const LEAF_BITS: u32 = 17;
const LEAF_PAGES: usize = 1 << LEAF_BITS;
const ROOT_LEAVES: usize = 1 << (ADDRESS_BITS - PAGE_SHIFT - LEAF_BITS);
const WORD_BITS: usize = 64;

/// 1 GiB of addresses. All zero says: nothing here.
struct Leaf {
    classes: [AtomicU8; LEAF_PAGES],
    spans: [AtomicPtr<Span>; LEAF_PAGES],
    released: [AtomicU64; LEAF_PAGES / WORD_BITS],
}

/// A leaf that was found before. Leaves stay for ever, so it is never wrong.
pub(super) struct LeafHint {
    index: Cell<usize>,
    /// Where the class of page 0 would be, so that a page's number is its index.
    classes: Cell<*const AtomicU8>,
}

impl LeafHint {
    /// None yet: no page has this index.
    pub(super) const fn new() -> Self {
        Self { index: Cell::new(usize::MAX), classes: Cell::new(ptr::null()) }
    }
}

/// The tree. Copies are of its address; the tree lies in the heap's metadata.
#[derive(Clone, Copy)]
pub(super) struct PageMap {
    root: NonNull<[AtomicPtr<Leaf>; ROOT_LEAVES]>,
}

// SAFETY: the tree is atomics that live as long as the heap.
unsafe impl Send for PageMap {}
// SAFETY: as above.
unsafe impl Sync for PageMap {}

impl PageMap {
    /// An empty map, 2 MiB of addresses of which one page is touched per 512 GiB. None: the system refuses.
    pub(super) fn new(metadata: &mut Metadata) -> Option<Self> {
        Some(Self { root: metadata.take()? })
    }

    #[inline(always)]
    fn leaf(&self, page: usize) -> Option<&Leaf> {
        // SAFETY: the root lives as long as the heap, and whoever has a map has the heap.
        let entry = unsafe { self.root.as_ref() }.get(page >> LEAF_BITS)?;
        // Acquire: pairs with the Release in `cover`; the leaf's zeroes are seen.
        // SAFETY: null or a leaf, which lives as long.
        unsafe { entry.load(Ordering::Acquire).as_ref() }
    }

    /// The class of the page at `address`; 0 where there is none, for any address whatever.
    #[inline(always)]
    pub(super) fn class_at(&self, address: usize) -> usize {
        let page = address >> PAGE_SHIFT;
        match self.leaf(page) {
            // Relaxed: see the head of the file.
            Some(leaf) => leaf.classes[page % LEAF_PAGES].load(Ordering::Relaxed) as usize,
            None => 0,
        }
    }

    /// `class_at` by way of the leaf that the last call found: where objects come from one GiB, the leaf's address is
    /// there before the object's is, and one load less is waited for.
    #[inline(always)]
    pub(super) fn class_near(&self, address: usize, hint: &LeafHint) -> usize {
        let page = address >> PAGE_SHIFT;
        if page >> LEAF_BITS != hint.index.get() && !self.renew(page, hint) {
            return 0;
        }
        // SAFETY: `renew` found the page's leaf, and leaves live as long as the heap.
        let class = unsafe { &*hint.classes.get().wrapping_add(page) };
        class.load(Ordering::Relaxed) as usize // as in `class_at`
    }

    /// `class_near` where the hint is right; else 0.
    #[inline(always)]
    pub(super) fn class_hinted(address: usize, hint: &LeafHint) -> usize {
        let page = address >> PAGE_SHIFT;
        if page >> LEAF_BITS != hint.index.get() {
            return 0;
        }
        // SAFETY: as in `class_near`.
        let class = unsafe { &*hint.classes.get().wrapping_add(page) };
        class.load(Ordering::Relaxed) as usize // as in `class_at`
    }

    /// Points the hint to the leaf of `page`. `false`: there is none.
    #[cold]
    #[inline(never)]
    fn renew(&self, page: usize, hint: &LeafHint) -> bool {
        let Some(leaf) = self.leaf(page) else { return false };
        hint.index.set(page >> LEAF_BITS);
        hint.classes.set(leaf.classes.as_ptr().wrapping_sub(page & !(LEAF_PAGES - 1)));
        true
    }

    /// The descriptor last entered for the page at `address`, which may be stale.
    pub(super) fn span_at(&self, address: usize) -> Option<SpanRef> {
        let page = address >> PAGE_SHIFT;
        // Relaxed: as in `class_at`; the descriptor's memory is mapped before the leaf is.
        let span = self.leaf(page)?.spans[page % LEAF_PAGES].load(Ordering::Relaxed);
        // SAFETY: null or a descriptor of this heap.
        unsafe { SpanRef::new(span) }
    }

    /// Makes leaves for a range of addresses. `false`: the system refuses, or addresses beyond the map.
    pub(super) fn cover(&self, start: usize, bytes: usize, metadata: &mut Metadata) -> bool {
        let (first, last) = (start >> PAGE_SHIFT >> LEAF_BITS, (start + bytes - 1) >> PAGE_SHIFT >> LEAF_BITS);
        // SAFETY: as in `leaf`.
        let Some(entries) = unsafe { self.root.as_ref() }.get(first..=last) else { return false };
        for entry in entries {
            if entry.load(Ordering::Relaxed).is_null() {
                let Some(leaf) = metadata.take::<Leaf>() else { return false };
                entry.store(leaf.as_ptr(), Ordering::Release); // pairs with the Acquire in `leaf`
            }
        }
        true
    }

    fn set(&self, address: usize, span: SpanRef, class: u8) {
        let page = address >> PAGE_SHIFT;
        if let Some(leaf) = self.leaf(page) {
            leaf.spans[page % LEAF_PAGES].store(span.as_ptr(), Ordering::Relaxed);
            leaf.classes[page % LEAF_PAGES].store(class, Ordering::Relaxed);
        }
    }

    /// Every page of `span`, which comes into use, names it and its class.
    pub(super) fn enter(&self, span: SpanRef) {
        for page in 0..span.pages.get() {
            self.set(span.start.get() + (page << PAGE_SHIFT), span, span.class.get());
        }
    }

    /// First and last page of a free span name it.
    pub(super) fn enter_ends(&self, span: SpanRef) {
        self.set(span.start.get(), span, 0);
        self.set(span.end() - 1, span, 0);
    }

    /// No page of `span` has a class any more.
    pub(super) fn clear_classes(&self, span: SpanRef) {
        for page in 0..span.pages.get() {
            self.set(span.start.get() + (page << PAGE_SHIFT), span, 0);
        }
    }

    /// Calls `f` with each word that has bits of the range, and the mask of these bits.
    fn each_word(&self, start: usize, pages: usize, mut f: impl FnMut(&AtomicU64, u64)) {
        let (mut page, end) = (start >> PAGE_SHIFT, (start >> PAGE_SHIFT) + pages);
        while page < end {
            let (bit, count) = (page % WORD_BITS, (WORD_BITS - page % WORD_BITS).min(end - page));
            if let Some(leaf) = self.leaf(page) {
                f(&leaf.released[page % LEAF_PAGES / WORD_BITS], u64::MAX >> (WORD_BITS - count) << bit);
            }
            page += count;
        }
    }

    /// How many of `pages` from `start` on are given back to the system. This and the following: under the page heap's
    /// lock.
    pub(super) fn count_released(&self, start: usize, pages: usize) -> usize {
        let mut count = 0;
        self.each_word(start, pages, |word, mask| count += (word.load(Ordering::Relaxed) & mask).count_ones() as usize);
        count
    }

    /// Notes that pages are given back to the system, or in use again.
    pub(super) fn set_released(&self, start: usize, pages: usize, released: bool) {
        self.each_word(start, pages, |word, mask| {
            let bits = word.load(Ordering::Relaxed);
            word.store(if released { bits | mask } else { bits & !mask }, Ordering::Relaxed);
        });
    }

    /// The first run of at most `most` pages that are not given back: its offset in pages, and its length, 0 if none.
    pub(super) fn resident_run(&self, start: usize, pages: usize, most: usize) -> (usize, usize) {
        let (mut offset, mut first, mut length) = (0, pages, 0);
        self.each_word(start, pages, |word, mask| {
            let (low, count) = (mask.trailing_zeros(), mask.count_ones());
            let resident = (!word.load(Ordering::Relaxed) & mask) >> low;
            if length == 0 && resident != 0 {
                let skipped = resident.trailing_zeros();
                first = offset + skipped as usize;
                length = (resident >> skipped).trailing_ones() as usize;
            } else if length != 0 && first + length == offset {
                length += resident.trailing_ones() as usize;
            }
            offset += count as usize;
        });
        (first, length.min(most))
    }
}
