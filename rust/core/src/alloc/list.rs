//! A list whose growth may be refused, in memory of the heap (`block`): what `std`'s Vec is otherwise, for what can be copied.

use super::block::Block;
use crate::primitive::room::Room;
use std::ops::{Deref, DerefMut, Range};

/// One after the other; a slice.
pub struct List<T: Copy> {
    block: Block<T>,
    len: usize,
}

impl<T: Copy> Default for List<T> {
    fn default() -> Self {
        Self { block: Block::none(), len: 0 }
    }
}

impl<T: Copy> List<T> {
    /// Appends; there is room (`room::make_room`), or memory is asked for that may not be refused.
    ///
    /// # Panics
    /// Memory is refused.
    #[inline]
    pub fn push(&mut self, item: T) {
        if self.len == self.block.room() {
            assert!(self.grow(self.len.max(4)) || self.grow(1), "memory is refused");
        }
        // SAFETY: inside the block.
        unsafe { self.block.start().add(self.len).write(item) };
        self.len += 1;
    }

    /// Takes the last.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let last = self.last().copied();
        self.len -= usize::from(last.is_some());
        last
    }

    /// Takes the one at `at` out; the last comes in its place.
    ///
    /// # Panics
    /// There are not so many.
    #[inline]
    pub fn swap_remove(&mut self, at: usize) -> T {
        let item = self[at];
        let last = self.len - 1;
        self.swap(at, last);
        self.len = last;
        item
    }
}

impl<T: Copy> Deref for List<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: so many are written.
        unsafe { std::slice::from_raw_parts(self.block.start(), self.len) }
    }
}

impl<T: Copy> DerefMut for List<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.block.start(), self.len) }
    }
}

impl<T: Copy> Room for List<T> {
    fn used(&self) -> usize {
        self.len
    }

    fn room(&self) -> usize {
        self.block.room()
    }

    fn grow(&mut self, more: usize) -> bool {
        let (start, len) = (self.block.start(), self.len);
        // SAFETY: room for more than there are, in another block.
        self.block.grow(len, more, |place| unsafe { place.copy_from_nonoverlapping(start, len) })
    }

    fn place(&mut self) -> Range<usize> {
        self.block.place()
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::List;
    use crate::primitive::room::{Room, make_room};
    use proptest::prelude::*;

    proptest! {
        /// 0: takes the last, 1 to 4: appends, else takes one out.
        #[test]
        fn a_list_does_what_a_vec_does(steps in prop::collection::vec(0usize..7, 1..200)) {
            let (mut list, mut model) = (List::default(), Vec::new());
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    0 => prop_assert_eq!(list.pop(), model.pop()),
                    1..=4 => {
                        list.push(n);
                        model.push(n);
                    }
                    _ if !model.is_empty() => {
                        let at = n % model.len();
                        prop_assert_eq!(list.swap_remove(at), model.swap_remove(at));
                    }
                    _ => {}
                }
                prop_assert_eq!(&*list, &*model);
            }
        }
    }

    #[test]
    fn refused_room_changes_nothing() {
        let mut list: List<u64> = List::default();
        list.push(1);
        let room = list.room();
        assert!(!make_room(&mut list, isize::MAX as usize / 8 - 1000) && !list.grow(usize::MAX));
        assert_eq!((list.room(), list.pop(), list.pop()), (room, Some(1), None));
    }
}
