//! Memory of lists that grow: of the heap once there is one, of the C library's allocator before, and in a model.
//!
//! The heap is that of the process's first runtime. It stays for ever, and so may what lies in it.

#[cfg(not(model))]
use super::Heap;
#[cfg(not(model))]
use crate::primitive::shared::Shared;
use std::alloc::Layout;
use std::ops::Range;
use std::ptr::NonNull;
#[cfg(not(model))]
use std::sync::OnceLock;

#[cfg(not(model))]
static HEAP: OnceLock<Shared<Heap>> = OnceLock::new();

/// Lists are to lie in `heap`, unless another one came first.
#[cfg(not(model))]
pub fn serve_lists(heap: &Shared<Heap>) {
    let _ = HEAP.set(heap.clone());
}

/// Bit of `Block::room`: it is of the heap.
const OF_HEAP: usize = 1 << (usize::BITS - 1);

/// Room for some of `T`, none of which it knows to be there.
pub(super) struct Block<T> {
    start: NonNull<T>,
    room: usize,
}

// SAFETY: memory of its own; what lies in it is its owner's.
unsafe impl<T: Send> Send for Block<T> {}

impl<T> Block<T> {
    /// Without room.
    pub(super) const fn none() -> Self {
        Self { start: NonNull::dangling(), room: 0 }
    }

    /// With room for `room`. `None`: memory is refused.
    pub(super) fn make(room: usize) -> Option<Self> {
        let layout = Layout::array::<T>(room).ok()?;
        if layout.size() == 0 {
            return Some(Self { start: NonNull::dangling(), room: room & !OF_HEAP });
        }
        #[cfg(not(model))]
        if let Some(heap) = HEAP.get() {
            let start = NonNull::new(heap.alloc_aligned(layout.size(), layout.align()))?;
            return Some(Self { start: start.cast(), room: room | OF_HEAP });
        }
        // SAFETY: a layout with a size.
        let start = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        Some(Self { start: start.cast(), room })
    }

    /// For how many there is room.
    pub(super) fn room(&self) -> usize {
        self.room & !OF_HEAP
    }

    /// Makes room for `more` than `len`, which `carry` moves to the new memory. `false`: it is refused, and nothing is changed.
    pub(super) fn grow(&mut self, len: usize, more: usize, carry: impl FnOnce(*mut T)) -> bool {
        let Some(room) = len.checked_add(more) else { return false };
        if room > self.room() {
            let Some(block) = Self::make(room) else { return false };
            carry(block.start());
            *self = block;
        }
        true
    }

    /// Its addresses.
    pub(super) fn place(&self) -> Range<usize> {
        let start = self.start.as_ptr().expose_provenance();
        start..start + self.room() * size_of::<T>()
    }

    /// The first one's place.
    pub(super) fn start(&self) -> *mut T {
        self.start.as_ptr()
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        let bytes = self.room() * size_of::<T>();
        if bytes == 0 {
            return;
        }
        #[cfg(not(model))]
        if self.room & OF_HEAP != 0 {
            // SAFETY: of this heap, which never changes; the block's own.
            HEAP.get().into_iter().for_each(|heap| unsafe { heap.free(self.start.as_ptr().cast()) });
            return;
        }
        // SAFETY: allocated with this layout.
        unsafe {
            let layout = Layout::from_size_align_unchecked(bytes, align_of::<T>());
            std::alloc::dealloc(self.start.as_ptr().cast(), layout);
        }
    }
}
