//! A goroutine that goes on on another M: addresses of thread-locals on its stack become the new thread's.
//!
//! Compilers ask once per function where errno is, and keep the address over calls; a goroutine that parks in such a call
//! (`boundary`) may come back on another thread, and the function then reads the old one's errno. Such an address is a
//! value that means nothing else: it lies in a block of thread-locals of the old M's thread. So each word of the used
//! stack that does, saved registers included, is moved to the same place in the new thread's block. A dead word moved
//! does no harm. docs/design/003-moving.md tells how it is known that nothing else is kept.

use super::machine::Machine;
use crate::context;
use crate::goroutine::Bundle;
use crate::sys::tls::{self, Block};

/// So many objects have thread-locals for which there is room in any case; the interpreter and the C library are among the first.
const ROOM: usize = 16;

/// Thread-locals of an M's thread, as its thread saw them when it started. The interpreter's and the C library's are there
/// from the start of a thread.
pub(super) struct ThreadLocals(Vec<Block>);

impl ThreadLocals {
    /// None yet; `None`: memory is refused.
    pub(super) fn new() -> Option<Self> {
        let mut blocks = Vec::new();
        blocks.try_reserve(ROOM).ok()?;
        Some(Self(blocks))
    }

    /// Notes those of the calling thread.
    pub(super) fn note(&mut self) {
        self.0.clear();
        tls::blocks(&mut self.0);
    }

    /// Where `address`, which lies in one of these blocks, is in `other`'s; `None` if it does not.
    #[inline]
    fn moved(&self, address: usize, other: &Self) -> Option<usize> {
        let i = self.0.partition_point(|block| block.start <= address).checked_sub(1)?;
        let block = self.0[i];
        let offset = address - block.start;
        let new = other.0.iter().find(|new| new.module == block.module)?;
        (offset < block.bytes).then(|| new.start + offset)
    }

    fn range(&self) -> std::ops::Range<usize> {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => first.start..last.start + last.bytes,
            _ => 0..0,
        }
    }
}

impl Machine {
    /// Makes the stack of `bundle`, parked on `from`, fit for this M.
    ///
    /// # Safety
    /// The bundle's goroutine belongs to this M and is parked; nobody runs on its stack.
    pub(super) unsafe fn adopt_stack(&self, bundle: &Bundle, from: &Machine) {
        let range = from.thread_locals.range();
        let (low, high) = (bundle.context.stack_pointer(), bundle.top);
        for at in (low..high).step_by(size_of::<usize>()) {
            // SAFETY: inside the used part of the stack, which is nobody's but this M's.
            unsafe {
                let value = context::stack_word(at);
                if range.contains(&value)
                    && let Some(new) = from.thread_locals.moved(value, &self.thread_locals)
                {
                    context::set_stack_word(at, new);
                }
            }
        }
    }
}
