//! Fair scheduling by virtual run time: who has run least, as his weight counts it, goes first. A group counts as one among
//! those that have none, and its goroutines share what it gets in the same way.
//! Source: Linux, kernel/sched/fair.c before EEVDF: vruntime, min_vruntime, the credit of sleepers, the granularity of
//! wake-ups.

use super::group::Group;
use super::weight_of;
use crate::goroutine::{Goroutine, SchedEntity};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ptr;

/// Weight of a goroutine of priority 0, and of a group that has 100, cgroup's default.
pub(super) const WEIGHT: u64 = 10_000;
/// The credit of who computes and was preempted, in slices. He has not slept; but a long wait for the host's lock looks like a
/// call, his P runs others meanwhile, and without it he would lose what he is behind them.
const SLICES_OWED: u64 = 16;
/// How much less somebody who wakes must have run than who runs, to go before him, ns.
const GRANULARITY_NS: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Goroutine(*mut Goroutine),
    Group(*const Group),
}

struct Item {
    virtual_ns: u64,
    arrival: u64,
    who: Who,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.virtual_ns, self.arrival).cmp(&(other.virtual_ns, other.arrival))
    }
}

/// Those that share one allotment, by virtual run time.
#[derive(Default)]
pub(super) struct Tree {
    heap: BinaryHeap<Reverse<Item>>,
    /// What the last one taken had run: nobody who comes later begins much below.
    floor_ns: u64,
    arrivals: u64,
}

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    fn push(&mut self, virtual_ns: u64, who: Who) {
        self.arrivals += 1;
        self.heap.push(Reverse(Item { virtual_ns, arrival: self.arrivals, who }));
    }

    fn pop(&mut self) -> Option<Item> {
        let Reverse(item) = self.heap.pop()?;
        self.floor_ns = self.floor_ns.max(item.virtual_ns);
        Some(item)
    }

    /// The one that runs now has run for `virtual_ns`: the floor is at the least of all.
    fn raise_floor(&mut self, virtual_ns: u64) {
        let first = self.heap.peek().map_or(virtual_ns, |Reverse(item)| item.virtual_ns);
        self.floor_ns = self.floor_ns.max(first.min(virtual_ns));
    }

    /// Lets a goroutine in: one that slept has a credit, a new one none.
    unsafe fn admit(&mut self, g: *mut Goroutine, credit_ns: u64) {
        // SAFETY: the caller's to queue.
        let entity = unsafe { &mut (*g).entity };
        let credit_ns = if entity.account().runs == 0 { 0 } else { credit_ns };
        entity.virtual_ns = entity.virtual_ns.max(self.floor_ns.saturating_sub(credit_ns));
        self.push(entity.virtual_ns, Who::Goroutine(g));
    }

    fn first(&self) -> Option<Who> {
        self.heap.peek().map(|Reverse(item)| item.who)
    }

    pub(super) fn forget(&mut self) {
        self.heap.clear();
    }

    fn take_all(&mut self) -> impl Iterator<Item = Who> {
        let mut items = std::mem::take(&mut self.heap).into_vec();
        items.sort_by(|a, b| a.0.cmp(&b.0));
        items.into_iter().map(|Reverse(item)| item.who)
    }
}

pub(super) struct Fair {
    root: Tree,
    /// Goroutines that may run: those of throttled groups do not count.
    len: usize,
    slice_ns: u64,
}

impl Fair {
    pub(super) fn new(slice_ns: u64) -> Self {
        Self { root: Tree::default(), len: 0, slice_ns }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    /// `g` is the caller's to queue, as everywhere here; the policies' lock is held.
    pub(super) unsafe fn push(&mut self, g: *mut Goroutine, was_preempted: bool) {
        let credit_ns = if was_preempted { self.slice_ns * SLICES_OWED } else { self.slice_ns };
        // SAFETY: the caller's promise; a goroutine has a count of its group.
        unsafe {
            let group = (*g).entity.group.cast::<Group>();
            if group.is_null() {
                self.root.admit(g, credit_ns);
                self.len += 1;
                return;
            }
            let state = (*group).state();
            state.tree.admit(g, credit_ns);
            if state.is_in_root {
                self.len += 1;
            } else if !state.is_throttled {
                self.enter(group);
            }
        }
    }

    /// `group`, which has goroutines queued and is not throttled, competes with the others.
    pub(super) unsafe fn enter(&mut self, group: *const Group) {
        // SAFETY: as for `push`.
        let state = unsafe { (*group).state() };
        if state.tree.len() != 0 && !state.is_in_root {
            state.is_in_root = true;
            state.virtual_ns = state.virtual_ns.max(self.root.floor_ns.saturating_sub(self.slice_ns));
            self.root.push(state.virtual_ns, Who::Group(group));
            self.len += state.tree.len();
        }
    }

    /// Who is next, as far as one look tells.
    pub(super) unsafe fn first(&self) -> Option<*mut Goroutine> {
        let mut first = self.root.first()?;
        if let Who::Group(group) = first {
            // SAFETY: as for `push`: a group with queued goroutines lives.
            first = unsafe { (*group).state() }.tree.first()?;
        }
        if let Who::Goroutine(g) = first { Some(g) } else { None }
    }

    pub(super) unsafe fn pop(&mut self) -> Option<*mut Goroutine> {
        loop {
            let item = self.root.pop()?;
            let Who::Group(group) = item.who else {
                let Who::Goroutine(g) = item.who else { unreachable!("two kinds") };
                self.len -= 1;
                return Some(g);
            };
            // SAFETY: as for `push`: a group with queued goroutines lives.
            let state = unsafe { (*group).state() };
            if state.is_throttled {
                state.is_in_root = false;
                self.len -= state.tree.len();
            } else if item.virtual_ns < state.virtual_ns {
                self.root.push(state.virtual_ns, item.who); // one of it ran meanwhile
            } else {
                let first = state.tree.pop();
                self.len -= usize::from(first.is_some());
                state.is_in_root = state.tree.len() != 0;
                if state.is_in_root {
                    self.root.push(state.virtual_ns, item.who);
                }
                if let Some(Item { who: Who::Goroutine(g), .. }) = first {
                    return Some(g);
                }
            }
        }
    }

    /// `entity` has run for `used_ns`.
    pub(super) unsafe fn charge(&mut self, entity: &mut SchedEntity, used_ns: u64) {
        entity.virtual_ns += used_ns * WEIGHT / weight_of(entity.priority);
        // SAFETY: a goroutine has a count of its group.
        let Some(group) = (unsafe { entity.group.cast::<Group>().as_ref() }) else {
            return self.root.raise_floor(entity.virtual_ns);
        };
        // SAFETY: the policies' lock is held.
        let state = unsafe { group.state() };
        state.virtual_ns += used_ns * WEIGHT / state.fair_weight();
        state.tree.raise_floor(entity.virtual_ns);
        self.root.raise_floor(state.virtual_ns);
    }

    /// Whether one that wakes goes before `other`, which has run for `ran_ns` since it was charged.
    pub(super) unsafe fn outranks(&self, woken: &SchedEntity, other: &SchedEntity, ran_ns: u64) -> bool {
        let group = |entity: &SchedEntity| entity.group.cast::<Group>();
        if ptr::eq(group(woken), group(other)) {
            return precedes(woken.virtual_ns, other.virtual_ns, ran_ns * WEIGHT / weight_of(other.priority));
        }
        // SAFETY: as for `charge`. Its virtual run time at the level where the two compete, and its weight there.
        let at_root = |entity: &SchedEntity| match unsafe { group(entity).as_ref() } {
            // SAFETY: as above.
            Some(group) => unsafe { (group.state().virtual_ns, group.state().fair_weight()) },
            None => (entity.virtual_ns, weight_of(entity.priority)),
        };
        let (virtual_ns, weight) = at_root(other);
        precedes(at_root(woken).0, virtual_ns, ran_ns * WEIGHT / weight)
    }

    pub(super) unsafe fn take_all(&mut self, groups: &[*const Group]) -> Vec<*mut Goroutine> {
        self.len = 0;
        let goroutine = |who| if let Who::Goroutine(g) = who { Some(g) } else { None };
        let mut all: Vec<_> = self.root.take_all().filter_map(goroutine).collect();
        for &group in groups {
            // SAFETY: groups in the list live.
            let state = unsafe { (*group).state() };
            state.is_in_root = false;
            all.extend(state.tree.take_all().filter_map(goroutine));
        }
        all
    }
}

fn precedes(woken_ns: u64, other_ns: u64, ran_ns: u64) -> bool {
    woken_ns + GRANULARITY_NS < other_ns + ran_ns
}
