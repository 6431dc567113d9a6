//! A stack of free objects by address: what caches and central lists keep objects in. The objects are not touched.

use std::ptr::{self, NonNull};

/// A stack of at most `capacity` pointers in memory of the heap's own.
pub(super) struct Slots {
    base: NonNull<*mut u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: pointers to free objects, which belong to whoever has the stack.
unsafe impl Send for Slots {}

impl Slots {
    /// # Safety
    /// `base` is memory for `capacity` pointers that nobody else uses, as long as the stack.
    pub(super) unsafe fn new(base: NonNull<*mut u8>, capacity: usize) -> Self {
        Self { base, len: 0, capacity }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes as many as fit of `objects`, from the first. Returns how many.
    pub(super) fn push(&mut self, objects: &[*mut u8]) -> usize {
        let count = objects.len().min(self.capacity - self.len);
        // SAFETY: `len + count <= capacity`; a caller's slice cannot lie in the stack's own memory.
        unsafe { ptr::copy_nonoverlapping(objects.as_ptr(), self.base.as_ptr().add(self.len), count) };
        self.len += count;
        count
    }

    /// Gives as many as there are, the newest, into `out` from its start. Returns how many.
    pub(super) fn pop(&mut self, out: &mut [*mut u8]) -> usize {
        let count = out.len().min(self.len);
        self.len -= count;
        // SAFETY: the top `count` are initialised; as above.
        unsafe { ptr::copy_nonoverlapping(self.base.as_ptr().add(self.len), out.as_mut_ptr(), count) };
        count
    }
}
