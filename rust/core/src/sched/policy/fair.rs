//! Fair scheduling by virtual run time: who has run least, as his weight counts it, goes first. A group counts as one among
//! those that have none, and its goroutines share what it gets in the same way.
//! Source: Linux, kernel/sched/fair.c before EEVDF: vruntime, min_vruntime, the credit of sleepers, the granularity of
//! wake-ups.

use super::group::Group;
use super::nodes::{Heap, List, Node, Nodes};
use super::weight_of;
use crate::goroutine::{Goroutine, SchedEntity};
use std::ptr;

/// Weight of a goroutine of priority 0, and of a group that has 100, cgroup's default.
pub(super) const WEIGHT: u64 = 10_000;
/// The credit of who computes and was preempted, in slices. He has not slept; but a long wait for the host's lock looks like a
/// call, his P runs others meanwhile, and without it he would lose what he is behind them.
const SLICES_OWED: u64 = 16;
/// How much less somebody who wakes must have run than who runs, to go before him, ns.
const GRANULARITY_NS: u64 = 1_000_000;

/// Those that share one allotment, by virtual run time.
pub(super) struct Tree {
    heap: Heap,
    /// What the last one taken had run: nobody who comes later begins much below.
    floor_ns: u64,
}

impl Tree {
    pub(super) const fn new() -> Self {
        Self { heap: Heap::new(), floor_ns: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    fn pop(&mut self, nodes: &mut Nodes) -> Option<Node> {
        let first = self.heap.pop(nodes)?;
        self.floor_ns = self.floor_ns.max(first.key_ns);
        Some(first)
    }

    /// The one that runs now has run for `virtual_ns`: the floor is at the least of all.
    fn raise_floor(&mut self, nodes: &Nodes, virtual_ns: u64) {
        let first = self.heap.first(nodes).map_or(virtual_ns, |first| first.key_ns);
        self.floor_ns = self.floor_ns.max(first.min(virtual_ns));
    }

    /// Lets a goroutine in: one that slept has a credit, a new one none.
    unsafe fn admit(&mut self, nodes: &mut Nodes, g: *mut Goroutine, credit_ns: u64) {
        // SAFETY: the caller's to queue.
        let entity = unsafe { &mut *Goroutine::entity(g) };
        let credit_ns = if entity.account().runs == 0 { 0 } else { credit_ns };
        entity.virtual_ns = entity.virtual_ns.max(self.floor_ns.saturating_sub(credit_ns));
        self.heap.push(nodes, Node::of_goroutine(g, entity.virtual_ns));
    }

    /// Nobody is in it any more; its nodes are not given back.
    pub(super) fn forget(&mut self) {
        self.heap = Heap::new();
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
        Self { root: Tree::new(), len: 0, slice_ns }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    /// `g` is the caller's to queue, as everywhere here; the policies' lock is held.
    pub(super) unsafe fn push(&mut self, nodes: &mut Nodes, g: *mut Goroutine, was_preempted: bool) {
        let credit_ns = if was_preempted { self.slice_ns * SLICES_OWED } else { self.slice_ns };
        // SAFETY: the caller's promise; a goroutine has a count of its group.
        unsafe {
            let group = (*Goroutine::entity(g)).group.cast::<Group>();
            if group.is_null() {
                self.root.admit(nodes, g, credit_ns);
                self.len += 1;
                return;
            }
            let state = (*group).state();
            state.tree.admit(nodes, g, credit_ns);
            if state.is_in_root {
                self.len += 1;
            } else if !state.is_throttled {
                self.enter(nodes, group);
            }
        }
    }

    /// `group`, which has goroutines queued and is not throttled, competes with the others.
    pub(super) unsafe fn enter(&mut self, nodes: &mut Nodes, group: *const Group) {
        // SAFETY: as for `push`.
        let state = unsafe { (*group).state() };
        if state.tree.len() != 0 && !state.is_in_root {
            state.is_in_root = true;
            state.virtual_ns = state.virtual_ns.max(self.root.floor_ns.saturating_sub(self.slice_ns));
            self.root.heap.push(nodes, Node::of_group(group, state.virtual_ns));
            self.len += state.tree.len();
        }
    }

    /// Who is next, as far as one look tells.
    pub(super) unsafe fn first(&self, nodes: &Nodes) -> Option<*mut Goroutine> {
        let mut first = self.root.heap.first(nodes)?;
        if !first.group.is_null() {
            // SAFETY: as for `push`: a group with queued goroutines lives.
            first = unsafe { (*first.group).state() }.tree.heap.first(nodes)?;
        }
        Some(first.g)
    }

    pub(super) unsafe fn pop(&mut self, nodes: &mut Nodes) -> Option<*mut Goroutine> {
        loop {
            let first = self.root.pop(nodes)?;
            if first.group.is_null() {
                self.len -= 1;
                return Some(first.g);
            }
            // SAFETY: as for `push`: a group with queued goroutines lives.
            let state = unsafe { (*first.group).state() };
            let again = Node::of_group(first.group, state.virtual_ns);
            if state.is_throttled {
                state.is_in_root = false;
                self.len -= state.tree.len();
            } else if first.key_ns < state.virtual_ns {
                self.root.heap.push(nodes, again); // one of it ran meanwhile
            } else {
                let first = state.tree.pop(nodes);
                self.len -= usize::from(first.is_some());
                state.is_in_root = state.tree.len() != 0;
                if state.is_in_root {
                    self.root.heap.push(nodes, again);
                }
                if let Some(first) = first {
                    return Some(first.g);
                }
            }
        }
    }

    /// `entity` has run for `used_ns`.
    pub(super) unsafe fn charge(&mut self, nodes: &Nodes, entity: &mut SchedEntity, used_ns: u64) {
        entity.virtual_ns += used_ns * WEIGHT / weight_of(entity.priority);
        // SAFETY: a goroutine has a count of its group.
        let Some(group) = (unsafe { entity.group.cast::<Group>().as_ref() }) else {
            return self.root.raise_floor(nodes, entity.virtual_ns);
        };
        // SAFETY: the policies' lock is held.
        let state = unsafe { group.state() };
        state.virtual_ns += used_ns * WEIGHT / state.fair_weight();
        state.tree.raise_floor(nodes, entity.virtual_ns);
        self.root.raise_floor(nodes, state.virtual_ns);
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

    /// Takes everybody out of the groups' trees and the own one, those of groups that are throttled too, into `all`.
    pub(super) unsafe fn take_all(&mut self, nodes: &mut Nodes, groups: &[*const Group], all: &mut List) {
        self.len = 0;
        while let Some(first) = self.root.heap.pop(nodes) {
            if first.group.is_null() {
                all.push(nodes, first.g, 0);
            }
        }
        for &group in groups {
            // SAFETY: groups in the list live.
            let state = unsafe { (*group).state() };
            state.is_in_root = false;
            while let Some(first) = state.tree.heap.pop(nodes) {
                all.push(nodes, first.g, 0);
            }
        }
    }
}

fn precedes(woken_ns: u64, other_ns: u64, ran_ns: u64) -> bool {
    woken_ns + GRANULARITY_NS < other_ns + ran_ns
}
