//! A multi-level feedback queue with priorities.
//!
//! Each priority has a level, more urgent ones higher ones, and below it as many as a goroutine can sink. Who has computed for
//! a slice at a level sinks by one; who parks after less than a quarter of one rises. Twice a second all rise to where they
//! began, and ten times a second whoever has waited longest goes first, for a quarter of a slice: nobody starves.
//! Source: Arpaci-Dusseau, Operating Systems: Three Easy Pieces, chapter 8.

use super::LEAST_PRIORITY;
use super::nodes::{List, Nodes};
use crate::goroutine::{Goroutine, SchedEntity};

/// How far a goroutine sinks at most.
const MOST_SUNK: u8 = 7;
const LEVELS: usize = (-2 * LEAST_PRIORITY as isize) as usize + 1 + MOST_SUNK as usize;
/// How often all rise to the level of their priority, ns.
const BOOST_NS: u64 = 500_000_000;
/// How often the one that has waited longest goes first, ns.
const TURN_NS: u64 = 100_000_000;

const NO_LEVELS: [List; LEVELS] = [const { List::new() }; LEVELS];

pub(super) struct Mlfq {
    levels: [List; LEVELS],
    len: usize,
    slice_ns: u64,
    boost: u32,
    next_boost_ns: u64,
    next_turn_ns: u64,
}

/// The level a goroutine is at; 0 is the first.
pub(super) fn level(entity: &SchedEntity) -> usize {
    (-LEAST_PRIORITY - entity.priority) as usize + usize::from(entity.sunk)
}

impl Mlfq {
    pub(super) fn new(slice_ns: u64) -> Self {
        Self { levels: NO_LEVELS, len: 0, slice_ns, boost: 0, next_boost_ns: 0, next_turn_ns: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    /// `g` is the caller's to queue, as everywhere here.
    pub(super) unsafe fn push(&mut self, nodes: &mut Nodes, g: *mut Goroutine, since_ns: u64) {
        // SAFETY: the caller's promise.
        let entity = unsafe { &mut *Goroutine::entity(g) };
        if entity.boost != self.boost {
            (entity.boost, entity.sunk, entity.used_ns) = (self.boost, 0, 0);
        }
        self.levels[level(entity)].push(nodes, g, since_ns);
        self.len += 1;
    }

    /// Who is next but for boosts and turns.
    pub(super) fn first(&self, nodes: &Nodes) -> Option<*mut Goroutine> {
        self.levels.iter().find_map(|queue| queue.front(nodes)).map(|queued| queued.g)
    }

    pub(super) unsafe fn pop(&mut self, nodes: &mut Nodes, now_ns: u64) -> Option<*mut Goroutine> {
        if now_ns >= self.next_boost_ns {
            // SAFETY: what is queued is this queue's.
            unsafe { self.boost(nodes, now_ns) };
        }
        let is_turn = now_ns >= self.next_turn_ns;
        let queue = if is_turn {
            self.next_turn_ns = now_ns + TURN_NS;
            longest_waiting(&mut self.levels, nodes)
        } else {
            self.levels.iter_mut().find(|queue| !queue.is_empty())
        };
        let first = queue?.pop(nodes)?;
        if is_turn {
            // SAFETY: as above.
            unsafe { (*Goroutine::entity(first.g)).is_on_turn = self.len > 1 };
        }
        self.len -= 1;
        Some(first.g)
    }

    /// All rise: those queued now, the others when they are.
    unsafe fn boost(&mut self, nodes: &mut Nodes, now_ns: u64) {
        self.next_boost_ns = now_ns + BOOST_NS;
        self.boost = self.boost.wrapping_add(1);
        let mut before = std::mem::replace(&mut self.levels, NO_LEVELS);
        self.len = 0;
        while let Some(queued) = longest_waiting(&mut before, nodes).and_then(|queue| queue.pop(nodes)) {
            // SAFETY: the caller's promise.
            unsafe { self.push(nodes, queued.g, queued.key_ns) };
        }
    }

    /// `entity` has computed for `used_ns` and then parked, or not.
    pub(super) fn charge(&self, entity: &mut SchedEntity, used_ns: u64, has_parked: bool) {
        entity.used_ns += used_ns;
        if entity.used_ns >= self.slice_ns {
            entity.used_ns = 0;
            entity.sunk = (entity.sunk + 1).min(MOST_SUNK);
        } else if has_parked && used_ns < self.slice_ns / 4 {
            entity.used_ns = 0;
            entity.sunk = entity.sunk.saturating_sub(1);
        }
    }

    /// Moves `g`, whose level has changed from `before`, if it is queued; returns whether it is.
    pub(super) unsafe fn requeue(&mut self, nodes: &mut Nodes, g: *mut Goroutine, before: usize) -> bool {
        let Some(queued) = self.levels[before].take(nodes, g) else { return false };
        self.len -= 1;
        // SAFETY: it was queued here.
        unsafe { self.push(nodes, g, queued.key_ns) };
        true
    }

    /// The first of the highest level, whatever the time.
    pub(super) fn take_one(&mut self, nodes: &mut Nodes) -> Option<*mut Goroutine> {
        let first = self.levels.iter_mut().find(|queue| !queue.is_empty())?.pop(nodes)?;
        self.len -= 1;
        Some(first.g)
    }
}

/// Of the queues that are not empty the one whose first has waited longest.
fn longest_waiting<'a>(levels: &'a mut [List; LEVELS], nodes: &Nodes) -> Option<&'a mut List> {
    levels.iter_mut().filter(|queue| !queue.is_empty()).min_by_key(|queue| queue.front(nodes).map(|first| first.key_ns))
}
