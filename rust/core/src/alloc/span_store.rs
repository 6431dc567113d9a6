//! The spans of a class, and the lock of the page heap they come from.
//!
//! A span with free objects is in the list, a full one in none. One that gets its first free object back goes to the
//! front: spans that are nearly full are filled first, and the others get the time to become empty and leave.

use super::central::Store;
use super::debug::{Misuse, Report};
use super::page_heap::PageHeap;
use super::page_map::PageMap;
use super::size_class::CLASS;
use super::span::{SpanList, SpanRef, State};
use crate::primitive::shared::Shared;
use crate::primitive::{Mutex, MutexGuard};

/// Spans taken from the page heap under one lock at most.
const GROW_SPANS: usize = 16;

/// The page heap behind its lock, and what is read of it without.
pub(super) struct Pages {
    pub(super) map: PageMap,
    heap: Mutex<Box<PageHeap>>,
    /// Called with what a caller did wrong.
    pub(super) on_misuse: fn(&Report),
}

impl Pages {
    pub(super) fn new(limit_bytes: usize, on_misuse: fn(&Report)) -> Option<Shared<Self>> {
        let heap = PageHeap::new(limit_bytes)?;
        Shared::try_new(Self { map: heap.map, heap: Mutex::new(heap), on_misuse })
    }

    /// The lock, after those of all classes.
    pub(super) fn lock(&self) -> MutexGuard<'_, Box<PageHeap>> {
        self.heap.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The lock, as counted in statistics.
    pub(super) fn lock_counted(&self) -> MutexGuard<'_, Box<PageHeap>> {
        let mut heap = self.lock();
        heap.lock_count += 1;
        heap
    }
}

/// All spans of one class. Used under the class's lock.
pub(super) struct SpanStore {
    class: usize,
    pages: Shared<Pages>,
    partial: SpanList,
    spans: usize,
}

impl SpanStore {
    pub(super) fn new(class: usize, pages: Shared<Pages>) -> Self {
        Self { class, pages, partial: SpanList::new(), spans: 0 }
    }

    /// How many spans there are.
    pub(super) fn spans(&self) -> usize {
        self.spans
    }

    /// Asks for spans for `objects` more, under one lock. Returns whether there is one.
    fn grow(&mut self, objects: usize) -> bool {
        let class = &CLASS[self.class];
        let wanted = objects.div_ceil(class.objects as usize).min(GROW_SPANS);
        let mut heap = self.pages.lock_counted();
        let mut got = 0;
        while got < wanted {
            let Some(span) = heap.allocate(class.pages as usize, 1, self.class) else { break };
            span.fill();
            self.partial.push_front(span);
            got += 1;
        }
        self.spans += got;
        got != 0
    }

    fn misuse(&self, what: Misuse, object: *mut u8) {
        (self.pages.on_misuse)(&Report { what, address: object.addr(), size_bytes: CLASS[self.class].bytes as usize });
    }

    /// The span of an object, looked up unless it is that of the object before.
    fn span_of(&self, address: usize, last: Option<SpanRef>) -> Option<SpanRef> {
        last.filter(|span| span.contains(address)).or_else(|| self.pages.map.span_at(address))
    }
}

impl Store for SpanStore {
    fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let mut taken = 0;
        while taken < out.len() {
            let Some(span) = self.partial.first() else {
                if self.grow(out.len() - taken) {
                    continue;
                }
                break;
            };
            taken += span.take(&mut out[taken..]);
            if span.free_objects.get() == 0 {
                self.partial.remove(span);
            }
        }
        taken
    }

    fn give(&mut self, objects: &[*mut u8]) {
        let mut empty = SpanList::new();
        let mut last = None;
        for &object in objects {
            let address = object.addr();
            let Some(span) = self.span_of(address, last) else {
                self.misuse(Misuse::Foreign, object);
                continue;
            };
            if span.state.get() != State::Small || span.object_start(address) != Some(address) {
                self.misuse(Misuse::NotAnObject, object);
                continue;
            }
            if span.class.get() as usize != self.class {
                self.misuse(Misuse::WrongSize, object);
                continue;
            }
            if !span.give(address) {
                self.misuse(Misuse::DoubleFree, object);
                continue;
            }
            last = Some(span);
            let free = span.free_objects.get();
            if free == 1 {
                self.partial.push_front(span);
            }
            if free == span.size_class().objects {
                self.partial.remove(span);
                empty.push_front(span);
                self.spans -= 1;
                last = None;
            }
        }
        if empty.is_empty() {
            return;
        }
        let mut heap = self.pages.lock_counted();
        while let Some(span) = empty.first() {
            empty.remove(span);
            heap.free(span);
        }
    }
}
