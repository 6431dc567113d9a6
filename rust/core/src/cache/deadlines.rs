//! Which slot's time is up first: a heap of deadlines that knows where each slot lies, so that one can be taken out.

use super::NONE;
use crate::primitive::room::make_room;

/// Slots with a deadline, the earliest first.
#[derive(Default)]
pub(super) struct Deadlines {
    heap: Vec<(u64, u32)>,
    /// Where a slot lies in the heap, by slot; NONE or out of range: it has no deadline.
    places: Vec<u32>,
}

impl Deadlines {
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest deadline and whose it is.
    #[inline]
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        self.heap.first().copied()
    }

    /// Makes room for `count` slots. `false`: memory is refused.
    pub(super) fn reserve(&mut self, count: usize) -> bool {
        make_room(&mut self.heap, count) && make_room(&mut self.places, count)
    }

    /// Gives a slot that has none a deadline; there is room.
    pub(super) fn insert(&mut self, slot: u32, deadline: u64) {
        while self.places.len() <= slot as usize {
            self.places.push(NONE);
        }
        self.heap.push((deadline, slot));
        self.rise(self.heap.len() - 1);
    }

    /// Takes the deadline of a slot away, if it has one.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(&place) = self.places.get(slot as usize) else { return };
        if place == NONE {
            return;
        }
        self.places[slot as usize] = NONE;
        let place = place as usize;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.sink(place);
            self.rise(place);
        }
    }

    fn note(&mut self, place: usize) {
        self.places[self.heap[place].1 as usize] = place as u32;
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.heap[place] < self.heap[(place - 1) / 2] {
            let parent = (place - 1) / 2;
            self.heap.swap(place, parent);
            self.note(place);
            place = parent;
        }
        self.note(place);
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.heap.len() && self.heap[child] < self.heap[least] {
                    least = child;
                }
            }
            if least == place {
                return self.note(place);
            }
            self.heap.swap(place, least);
            self.note(place);
            place = least;
        }
    }
}
