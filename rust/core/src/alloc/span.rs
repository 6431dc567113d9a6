//! A span: a run of pages that is free, one large object, or objects of one class with a bitmap of those that are free.
//!
//! Spans are described beside the memory, never in it: free memory is not touched, so that its pages can go back to the
//! system, and a program that writes behind an object does not reach what describes it. A descriptor is never
//! unmapped while its heap lives and is used again for another span, so a stale reference reads a descriptor and never
//! other memory; whoever may have one compares state and bounds under the page heap's lock.
//!
//! Who may touch what: `start`, `pages` and `state` are written under the page heap's lock, and not at all while the
//! span is in use; links, bitmap and counts belong to the page heap's lock for free spans and to the class's lock for
//! small ones.

use super::size_class::{CLASS, SizeClass};
use std::cell::Cell;
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// log2 of `PAGE_BYTES`.
pub(super) const PAGE_SHIFT: u32 = 13;
/// A page of the heap, Go's and TCMalloc's 8 KiB.
pub const PAGE_BYTES: usize = 1 << PAGE_SHIFT;
/// Objects a span may have: a page of the smallest class.
pub(super) const MAX_OBJECTS: usize = PAGE_BYTES / 8;
const WORD_BITS: usize = 64;

/// What a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// A descriptor without memory. Zero, as fresh descriptors are.
    Unused = 0,
    /// In the page heap's bins.
    Free,
    /// Objects of a class.
    Small,
    /// One object of its own.
    Large,
    /// Out of the bins while its pages go back to the system.
    Releasing,
}

/// A descriptor. All zero is a valid one.
pub(super) struct Span {
    pub(super) next: Cell<Option<SpanRef>>,
    pub(super) previous: Cell<Option<SpanRef>>,
    pub(super) start: Cell<usize>,
    pub(super) pages: Cell<usize>,
    /// Of a free span: pages that were not given back to the system since they were last used.
    pub(super) resident: Cell<usize>,
    pub(super) state: Cell<State>,
    /// Of a small span.
    pub(super) class: Cell<u8>,
    /// Whether a span reads as zero: set when it comes into use.
    pub(super) zeroed: Cell<bool>,
    pub(super) free_objects: Cell<u32>,
    /// One bit per object that is in the span and in nobody's hands.
    free: [Cell<u64>; MAX_OBJECTS / WORD_BITS],
}

/// A descriptor somewhere in the heap's own memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SpanRef(NonNull<Span>);

// SAFETY: descriptors outlive every reference (the heap unmaps them last), and the locks named above keep accesses
// apart.
unsafe impl Send for SpanRef {}

impl Deref for SpanRef {
    type Target = Span;
    #[inline]
    fn deref(&self) -> &Span {
        // SAFETY: descriptors stay mapped as long as the heap, and all of a descriptor is in cells.
        unsafe { self.0.as_ref() }
    }
}

impl SpanRef {
    /// # Safety
    /// `span` is null or a descriptor of a heap that outlives what is returned.
    pub(super) unsafe fn new(span: *mut Span) -> Option<Self> {
        NonNull::new(span).map(Self)
    }

    pub(super) fn as_ptr(self) -> *mut Span {
        self.0.as_ptr()
    }
}

impl Span {
    /// Bytes of its pages.
    pub(super) fn bytes(&self) -> usize {
        self.pages.get() << PAGE_SHIFT
    }

    /// One past its last byte.
    pub(super) fn end(&self) -> usize {
        self.start.get() + self.bytes()
    }

    /// Whether an address is of this span, as the descriptor is now.
    pub(super) fn contains(&self, address: usize) -> bool {
        self.start.get() <= address && address < self.end()
    }

    /// The class of a small span.
    pub(super) fn size_class(&self) -> &'static SizeClass {
        &CLASS[self.class.get() as usize]
    }

    /// All objects of a small span become free ones in it.
    pub(super) fn fill(&self) {
        let objects = self.size_class().objects;
        let mut left = objects as usize;
        for word in &self.free {
            let here = left.min(WORD_BITS);
            word.set(if here == WORD_BITS { u64::MAX } else { (1 << here) - 1 });
            left -= here;
        }
        self.free_objects.set(objects);
    }

    /// Takes free objects, those at the lowest addresses first, for as much of `out` as there are. Returns how many.
    pub(super) fn take(&self, out: &mut [*mut u8]) -> usize {
        let bytes = self.size_class().bytes as usize;
        let mut taken = 0;
        for (i, word) in self.free.iter().enumerate() {
            let mut bits = word.get();
            while bits != 0 && taken < out.len() {
                let index = i * WORD_BITS + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                out[taken] = ptr::with_exposed_provenance_mut(self.start.get() + index * bytes);
                taken += 1;
            }
            word.set(bits);
            if taken == out.len() {
                break;
            }
        }
        self.free_objects.set(self.free_objects.get() - taken as u32);
        taken
    }

    /// Makes the object at `address` a free one. `false`: it is free already.
    pub(super) fn give(&self, address: usize) -> bool {
        let index = self.size_class().index_of(address - self.start.get());
        let (word, bit) = (&self.free[index / WORD_BITS], 1_u64 << (index % WORD_BITS));
        if word.get() & bit != 0 {
            return false;
        }
        word.set(word.get() | bit);
        self.free_objects.set(self.free_objects.get() + 1);
        true
    }

    /// Where the object that holds `address` starts; the tail of a span counts to no object.
    pub(super) fn object_start(&self, address: usize) -> Option<usize> {
        let class = self.size_class();
        let index = class.index_of(address - self.start.get());
        (index < class.objects as usize).then(|| self.start.get() + index * class.bytes as usize)
    }
}

/// A list of spans through their own links; a span is in one at most.
#[derive(Default)]
pub(super) struct SpanList {
    head: Option<SpanRef>,
    tail: Option<SpanRef>,
}

impl SpanList {
    pub(super) const fn new() -> Self {
        Self { head: None, tail: None }
    }

    pub(super) fn first(&self) -> Option<SpanRef> {
        self.head
    }

    pub(super) fn last(&self) -> Option<SpanRef> {
        self.tail
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    pub(super) fn push_front(&mut self, span: SpanRef) {
        span.previous.set(None);
        span.next.set(self.head);
        match self.head {
            Some(head) => head.previous.set(Some(span)),
            None => self.tail = Some(span),
        }
        self.head = Some(span);
    }

    /// The span is in this list.
    pub(super) fn remove(&mut self, span: SpanRef) {
        let (previous, next) = (span.previous.take(), span.next.take());
        match previous {
            Some(before) => before.next.set(next),
            None => self.head = next,
        }
        match next {
            Some(after) => after.previous.set(previous),
            None => self.tail = previous,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SpanRef> {
        std::iter::successors(self.head, |span| span.next.get())
    }
}
