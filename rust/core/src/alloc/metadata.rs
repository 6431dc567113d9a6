//! Memory that describes memory: span descriptors, the page map, caches. Bumped from reservations, zero, never given
//! back before the heap ends, so that a stale pointer to a descriptor reads a descriptor. A refusal is None.

use crate::sys::memory;
use std::ptr::{self, NonNull};

/// Reserved at a time; committed by touch.
const CHUNK_BYTES: usize = 1 << 20;

/// At the start of each chunk.
struct Chunk {
    next: *mut Chunk,
    bytes: usize,
}

/// A bump allocator that ends with the heap.
pub(super) struct Metadata {
    chunks: *mut Chunk,
    next: usize,
    end: usize,
    used_bytes: usize,
}

// SAFETY: owned memory without ties to a thread.
unsafe impl Send for Metadata {}

impl Metadata {
    pub(super) const fn new() -> Self {
        Self { chunks: ptr::null_mut(), next: 0, end: 0, used_bytes: 0 }
    }

    /// Zeroed memory for one `T`, for as long as the heap lives.
    pub(super) fn take<T>(&mut self) -> Option<NonNull<T>> {
        self.take_bytes(size_of::<T>(), align_of::<T>()).map(NonNull::cast)
    }

    /// Zeroed memory for `count` of `T`.
    pub(super) fn take_many<T>(&mut self, count: usize) -> Option<NonNull<T>> {
        self.take_bytes(size_of::<T>().checked_mul(count)?, align_of::<T>()).map(NonNull::cast)
    }

    fn take_bytes(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let mut start = self.next.next_multiple_of(align);
        if start + bytes > self.end {
            self.grow(bytes + align)?;
            start = self.next.next_multiple_of(align);
        }
        self.next = start + bytes;
        self.used_bytes += bytes;
        NonNull::new(ptr::with_exposed_provenance_mut(start))
    }

    /// The rest of the last chunk is left: it was never touched.
    fn grow(&mut self, bytes: usize) -> Option<()> {
        let bytes = (bytes + size_of::<Chunk>()).next_multiple_of(CHUNK_BYTES);
        let start = memory::reserve(bytes).ok()?;
        let chunk = ptr::with_exposed_provenance_mut::<Chunk>(start);
        // SAFETY: fresh memory, page-aligned, larger than a Chunk.
        unsafe { chunk.write(Chunk { next: self.chunks, bytes }) };
        (self.chunks, self.next, self.end) = (chunk, start + size_of::<Chunk>(), start + bytes);
        Some(())
    }

    /// Bytes handed out.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        while !self.chunks.is_null() {
            // SAFETY: written by `grow`. The heap ends: nobody uses what lies in a chunk again.
            unsafe {
                let Chunk { next, bytes } = self.chunks.read();
                memory::unmap(self.chunks.expose_provenance(), bytes);
                self.chunks = next;
            }
        }
    }
}
