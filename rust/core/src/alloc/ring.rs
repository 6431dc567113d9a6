//! A queue whose growth may be refused, in memory of the heap (`block`): what `std`'s VecDeque is otherwise.

use super::block::Block;
use crate::primitive::room::Room;
use std::ops::Range;

/// First in, first out.
pub struct Ring<T> {
    block: Block<T>,
    head: usize,
    len: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Ring<T> {
    /// Empty, without room.
    pub const fn new() -> Self {
        Self { block: Block::none(), head: 0, len: 0 }
    }

    /// How many are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For how many there is room.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.block.room()
    }

    /// The place of one.
    #[inline]
    fn at(&self, at: usize) -> *mut T {
        let at = self.head + at;
        let room = self.block.room();
        // SAFETY: inside the block: head and place are below its room, which is not 0 if anything is asked of it.
        unsafe { self.block.start().add(if at < room { at } else { at - room }) }
    }

    /// Makes room for one more, and for twice as many as before where there is memory. `false`: it is refused.
    #[inline]
    pub fn make_room(&mut self) -> bool {
        self.len < self.block.room() || self.make_more_room()
    }

    #[cold]
    fn make_more_room(&mut self) -> bool {
        self.grow(self.len.max(4)) || self.grow(1)
    }

    /// Appends; there is room (`make_room`), or memory is asked for that may not be refused.
    ///
    /// # Panics
    /// Memory is refused.
    #[inline]
    pub fn push_back(&mut self, item: T) {
        assert!(self.make_room(), "memory is refused");
        // SAFETY: a place that nothing is in.
        unsafe { self.at(self.len).write(item) };
        self.len += 1;
    }

    /// Takes the first.
    #[inline]
    pub fn pop_front(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        // SAFETY: what is taken out is not looked at again.
        let item = unsafe { self.at(0).read() };
        self.head = if self.head + 1 == self.block.room() { 0 } else { self.head + 1 };
        self.len -= 1;
        Some(item)
    }

    /// The first.
    pub fn front(&self) -> Option<&T> {
        // SAFETY: there is one.
        if self.len == 0 { None } else { Some(unsafe { &*self.at(0) }) }
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: so many are there.
        (0..self.len).map(|i| unsafe { &*self.at(i) })
    }

    /// Drops everything; the room stays.
    pub fn clear(&mut self) {
        while self.pop_front().is_some() {}
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<T> Iterator for Ring<T> {
    type Item = T;

    /// Takes the first out.
    fn next(&mut self) -> Option<T> {
        self.pop_front()
    }
}

impl<T> Room for Ring<T> {
    fn used(&self) -> usize {
        self.len
    }

    fn room(&self) -> usize {
        self.block.room()
    }

    fn grow(&mut self, more: usize) -> bool {
        let (start, room, head, len) = (self.block.start(), self.block.room(), self.head, self.len);
        let first = len.min(room - head);
        // SAFETY: room for more than there are, in another block; they stand from the head to the end, and on from the start.
        let is_there = self.block.grow(len, more, |place| unsafe {
            place.copy_from_nonoverlapping(start.add(head), first);
            place.add(first).copy_from_nonoverlapping(start, len - first);
        });
        if self.block.start() != start {
            self.head = 0;
        }
        is_there
    }

    fn place(&mut self) -> Range<usize> {
        self.block.place()
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::Ring;
    use crate::primitive::room::{Room, make_room, unused};
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::rc::Rc;

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Pop,
        Grow(usize),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Push),
            6 => Just(Step::Pop),
            1 => (0usize..40).prop_map(Step::Grow),
            1 => Just(Step::Clear),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn a_ring_does_what_a_deque_does(steps in steps()) {
            let (mut ring, mut model, mut next) = (Ring::new(), VecDeque::new(), 0u64);
            let alive = Rc::new(());
            for step in steps {
                match step {
                    Step::Push => {
                        prop_assert!(ring.make_room());
                        let room = ring.capacity();
                        ring.push_back((next, alive.clone()));
                        prop_assert_eq!(ring.capacity(), room, "there was room");
                        model.push_back(next);
                        next += 1;
                    }
                    Step::Pop => prop_assert_eq!(ring.pop_front().map(|(n, _)| n), model.pop_front()),
                    Step::Grow(more) => {
                        prop_assert!(ring.grow(more));
                        prop_assert!(ring.capacity() >= model.len() + more);
                    }
                    Step::Clear => {
                        ring.clear();
                        model.clear();
                    }
                }
                prop_assert!(ring.iter().map(|&(n, _)| n).eq(model.iter().copied()));
                prop_assert_eq!(ring.front().map(|&(n, _)| n), model.front().copied());
                prop_assert_eq!((ring.len(), ring.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(Rc::strong_count(&alive), 1 + model.len(), "each is dropped once");
            }
            drop(ring);
            prop_assert_eq!(Rc::strong_count(&alive), 1);
        }
    }

    #[test]
    fn refused_room_changes_nothing_and_what_needs_none_has_it() {
        let mut ring: Ring<u64> = Ring::new();
        ring.push_back(1);
        let room = ring.capacity();
        for more in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8 - 1000] {
            assert!(!make_room(&mut ring, more) && !ring.grow(more));
        }
        assert_eq!((ring.capacity(), ring.pop_front(), ring.pop_front()), (room, Some(1), None));
        ring.push_back(1); // not at the block's start
        assert_eq!(ring.place().len(), 8 * room);
        assert!(unused(&mut ring).is_empty(), "it has something in it");
        ring.clear();
        assert_eq!(unused(&mut ring), ring.block.start().addr()..ring.block.start().addr() + 8 * room);
        let mut units: Ring<()> = Ring::new();
        (0..100).for_each(|_| units.push_back(()));
        assert_eq!((units.len(), units.count()), (100, 100));
    }
}
