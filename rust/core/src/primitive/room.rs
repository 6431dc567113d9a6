//! Room in lists: asked for before it is needed, so that a refusal comes where it can be answered.

use std::ops::Range;

/// A list that can be asked for room.
pub trait Room: Default {
    /// How many are in it.
    fn used(&self) -> usize;
    /// How many it holds without asking for memory.
    fn room(&self) -> usize;
    /// Makes room for `more` than are in it. `false`: memory is refused, and nothing is changed.
    fn grow(&mut self, more: usize) -> bool;
    /// The addresses of its room.
    fn place(&mut self) -> Range<usize>;
}

impl<T> Room for Vec<T> {
    fn place(&mut self) -> Range<usize> {
        let start = self.as_mut_ptr().expose_provenance();
        start..start + self.capacity() * size_of::<T>()
    }

    fn used(&self) -> usize {
        self.len()
    }

    fn room(&self) -> usize {
        self.capacity()
    }

    fn grow(&mut self, more: usize) -> bool {
        self.try_reserve_exact(more).is_ok()
    }
}

/// Makes room for `count` in all in `list`, and for twice as many as before where there is memory. `false`: memory is refused, and
/// there is as much room as before.
///
/// An empty list is replaced by another one: to grow it would copy the whole room, and so touch memory that nobody has used.
pub fn make_room<L: Room>(list: &mut L, count: usize) -> bool {
    let room = list.room();
    if room >= count {
        return true;
    }
    let plenty = count.max(2 * room);
    let used = list.used();
    if used != 0 {
        return list.grow(plenty - used) || list.grow(count - used);
    }
    let mut other = L::default();
    let is_there = other.grow(plenty) || other.grow(count);
    if is_there {
        *list = other;
    }
    is_there
}

/// Where the room of a list lies, if it is empty: memory whose content nobody needs.
pub fn unused<L: Room>(list: &mut L) -> Range<usize> {
    if list.used() == 0 { list.place() } else { 0..0 }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    /// More than any machine has.
    const TOO_MANY: usize = isize::MAX as usize / 8 - 1000;

    fn grows_and_is_refused<L: Room>(mut list: L, push: fn(&mut L, u64)) {
        assert!(make_room(&mut list, 100) && list.room() >= 100);
        let room = list.room();
        assert!(make_room(&mut list, 50) && list.room() == room, "there is room enough");
        assert!(!make_room(&mut list, TOO_MANY) && list.room() == room, "an empty list keeps what it has");
        push(&mut list, 7);
        assert!(!make_room(&mut list, TOO_MANY) && list.room() == room && list.used() == 1);
        assert!(
            make_room(&mut list, room + 1) && list.room() >= 2 * room,
            "one that grows by ones is not copied each time"
        );
        assert_eq!(list.used(), 1);
        assert!(unused(&mut list).is_empty(), "it has something in it");
    }

    #[test]
    fn room_of_an_empty_list_is_all_of_its_memory() {
        let mut list: Vec<u64> = Vec::with_capacity(100);
        assert_eq!(unused(&mut list), list.as_ptr().addr()..list.as_ptr().addr() + 800);
    }

    #[test]
    fn a_list_that_is_refused_more_room_keeps_what_it_has() {
        grows_and_is_refused(Vec::new(), Vec::push);
    }
}
