//! A multi-level feedback queue with priorities.
//!
//! Each priority has a level, more urgent ones higher ones, and below it as many as a goroutine can sink. Who has computed for
//! a slice at a level sinks by one; who parks after less than a quarter of one rises. Twice a second all rise to where they
//! began, and ten times a second whoever has waited longest goes first, for a quarter of a slice: nobody starves.
//! Source: Arpaci-Dusseau, Operating Systems: Three Easy Pieces, chapter 8.

use super::LEAST_PRIORITY;
use crate::goroutine::{Goroutine, SchedEntity};
use std::collections::VecDeque;

/// How far a goroutine sinks at most.
const MOST_SUNK: u8 = 7;
const LEVELS: usize = (-2 * LEAST_PRIORITY as isize) as usize + 1 + MOST_SUNK as usize;
/// How often all rise to the level of their priority, ns.
const BOOST_NS: u64 = 500_000_000;
/// How often the one that has waited longest goes first, ns.
const TURN_NS: u64 = 100_000_000;

struct Queued {
    since_ns: u64,
    g: *mut Goroutine,
}

pub(super) struct Mlfq {
    levels: [VecDeque<Queued>; LEVELS],
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
        let levels = std::array::from_fn(|_| VecDeque::new());
        Self { levels, len: 0, slice_ns, boost: 0, next_boost_ns: 0, next_turn_ns: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    /// `g` is the caller's to queue, as everywhere here.
    pub(super) unsafe fn push(&mut self, g: *mut Goroutine, since_ns: u64) {
        // SAFETY: the caller's promise.
        let entity = unsafe { &mut (*g).entity };
        if entity.boost != self.boost {
            (entity.boost, entity.sunk, entity.used_ns) = (self.boost, 0, 0);
        }
        self.levels[level(entity)].push_back(Queued { since_ns, g });
        self.len += 1;
    }

    /// Who is next but for boosts and turns.
    pub(super) fn first(&self) -> Option<*mut Goroutine> {
        self.levels.iter().find_map(VecDeque::front).map(|queued| queued.g)
    }

    pub(super) unsafe fn pop(&mut self, now_ns: u64) -> Option<*mut Goroutine> {
        if now_ns >= self.next_boost_ns {
            // SAFETY: what is queued is this queue's.
            unsafe { self.boost(now_ns) };
        }
        let mut queues = self.levels.iter_mut().filter(|queue| !queue.is_empty());
        let queue = if now_ns >= self.next_turn_ns {
            self.next_turn_ns = now_ns + TURN_NS;
            let queue = queues.min_by_key(|queue| queue[0].since_ns)?;
            // SAFETY: as above.
            unsafe { (*queue[0].g).entity.is_on_turn = self.len > 1 };
            Some(queue)
        } else {
            queues.next()
        };
        let first = queue?.pop_front()?;
        self.len -= 1;
        Some(first.g)
    }

    /// All rise: those queued now, the others when they are.
    unsafe fn boost(&mut self, now_ns: u64) {
        self.next_boost_ns = now_ns + BOOST_NS;
        self.boost = self.boost.wrapping_add(1);
        let mut all: Vec<Queued> = self.levels.iter_mut().flat_map(std::mem::take).collect();
        all.sort_by_key(|queued| queued.since_ns);
        self.len = 0;
        for Queued { since_ns, g } in all {
            // SAFETY: the caller's promise.
            unsafe { self.push(g, since_ns) };
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
    pub(super) unsafe fn requeue(&mut self, g: *mut Goroutine, before: usize) -> bool {
        let queue = &mut self.levels[before];
        let Some(place) = queue.iter().position(|queued| std::ptr::eq(queued.g, g)) else { return false };
        let Some(Queued { since_ns, .. }) = queue.remove(place) else { return false };
        self.len -= 1;
        // SAFETY: it was queued here.
        unsafe { self.push(g, since_ns) };
        true
    }

    pub(super) fn take_all(&mut self) -> Vec<*mut Goroutine> {
        self.len = 0;
        self.levels.iter_mut().flat_map(std::mem::take).map(|queued| queued.g).collect()
    }
}
