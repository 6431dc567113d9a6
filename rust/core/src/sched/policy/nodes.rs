//! Places in the policies' lists: one table of nodes for all of them, with room for everybody before he is there.
//!
//! Who is ready stands in one list, and a group in at most one; a list is a chain of nodes by their numbers. So nobody who is
//! queued asks for memory, in whichever of the lists he is: `make_room` was asked when he was started.

use super::group::Group;
use crate::goroutine::Goroutine;
use crate::primitive::room::make_room;
use std::ptr;

const NONE: u32 = u32::MAX;

/// Somebody in a list: a goroutine, or a group and no goroutine.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) g: *mut Goroutine,
    pub(super) group: *const Group,
    /// Since when, ns, in a list; virtual run time in a heap.
    pub(super) key_ns: u64,
    /// In a heap: of those with equal keys the first comes first.
    arrival: u64,
    /// The one behind it, in a heap the next child of the same parent.
    next: u32,
    /// The first of those below it in a heap.
    child: u32,
}

impl Node {
    pub(super) fn of_goroutine(g: *mut Goroutine, key_ns: u64) -> Self {
        Self { g, group: ptr::null(), key_ns, arrival: 0, next: NONE, child: NONE }
    }

    pub(super) fn of_group(group: *const Group, key_ns: u64) -> Self {
        Self { g: ptr::null_mut(), group, key_ns, arrival: 0, next: NONE, child: NONE }
    }
}

/// The table.
pub(super) struct Nodes {
    all: Vec<Node>,
    /// The first of those in no list.
    free: u32,
}

impl Nodes {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), free: NONE }
    }

    /// Makes room for `count` in all. `false`: memory is refused.
    pub(super) fn make_room(&mut self, count: usize) -> bool {
        make_room(&mut self.all, count)
    }

    /// Nobody is in any list any more; the room stays.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.free = NONE;
    }

    #[cfg(all(test, not(model)))]
    pub(super) fn room(&self) -> usize {
        self.all.capacity()
    }

    fn add(&mut self, node: Node) -> u32 {
        let place = self.free;
        if place == NONE {
            self.all.push(node);
            return self.all.len() as u32 - 1;
        }
        self.free = self.at(place).next;
        *self.at(place) = node;
        place
    }

    fn take(&mut self, place: u32) -> Node {
        let free = std::mem::replace(&mut self.free, place);
        let node = *self.at(place);
        self.at(place).next = free;
        node
    }

    fn at(&mut self, place: u32) -> &mut Node {
        &mut self.all[place as usize]
    }

    fn precedes(&self, a: u32, b: u32) -> bool {
        let key = |place: u32| (self.all[place as usize].key_ns, self.all[place as usize].arrival);
        key(a) < key(b)
    }
}

/// First come, first served.
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(super) const fn new() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, nodes: &mut Nodes, g: *mut Goroutine, since_ns: u64) {
        let place = nodes.add(Node::of_goroutine(g, since_ns));
        match self.tail {
            NONE => self.head = place,
            tail => nodes.at(tail).next = place,
        }
        self.tail = place;
        self.len += 1;
    }

    pub(super) fn front<'a>(&self, nodes: &'a Nodes) -> Option<&'a Node> {
        nodes.all.get(self.head as usize)
    }

    pub(super) fn pop(&mut self, nodes: &mut Nodes) -> Option<Node> {
        (!self.is_empty()).then(|| self.remove(nodes, NONE, self.head))
    }

    /// Takes `g` out, wherever it stands.
    pub(super) fn take(&mut self, nodes: &mut Nodes, g: *mut Goroutine) -> Option<Node> {
        let (mut before, mut place) = (NONE, self.head);
        while place != NONE {
            if ptr::eq(nodes.at(place).g, g) {
                return Some(self.remove(nodes, before, place));
            }
            (before, place) = (place, nodes.at(place).next);
        }
        None
    }

    fn remove(&mut self, nodes: &mut Nodes, before: u32, place: u32) -> Node {
        let node = nodes.take(place);
        match before {
            NONE => self.head = node.next,
            before => nodes.at(before).next = node.next,
        }
        if place == self.tail {
            self.tail = before;
        }
        self.len -= 1;
        node
    }
}

/// By `key_ns`, the least first: a pairing heap (Fredman, Sedgewick, Sleator and Tarjan, 1986).
pub(super) struct Heap {
    root: u32,
    len: u32,
    arrivals: u64,
}

impl Heap {
    pub(super) const fn new() -> Self {
        Self { root: NONE, len: 0, arrivals: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn push(&mut self, nodes: &mut Nodes, node: Node) {
        self.arrivals += 1;
        let place = nodes.add(Node { arrival: self.arrivals, ..node });
        self.root = meld(nodes, self.root, place);
        self.len += 1;
    }

    pub(super) fn first<'a>(&self, nodes: &'a Nodes) -> Option<&'a Node> {
        nodes.all.get(self.root as usize)
    }

    pub(super) fn pop(&mut self, nodes: &mut Nodes) -> Option<Node> {
        if self.root == NONE {
            return None;
        }
        let first = nodes.take(self.root);
        // Its children in pairs, and those into one, the last first.
        let (mut rest, mut pairs) = (first.child, NONE);
        while rest != NONE {
            let (one, other) = (rest, nodes.at(rest).next);
            rest = if other == NONE { NONE } else { nodes.at(other).next };
            let pair = meld(nodes, one, other);
            nodes.at(pair).next = pairs;
            pairs = pair;
        }
        self.root = NONE;
        while pairs != NONE {
            let next = nodes.at(pairs).next;
            self.root = meld(nodes, self.root, pairs);
            pairs = next;
        }
        self.len -= 1;
        Some(first)
    }
}

/// One heap of two, by their roots. The root's `next` means nothing.
fn meld(nodes: &mut Nodes, one: u32, other: u32) -> u32 {
    if one == NONE || other == NONE {
        return if one == NONE { other } else { one };
    }
    let (first, second) = if nodes.precedes(other, one) { (other, one) } else { (one, other) };
    nodes.at(second).next = nodes.at(first).child;
    nodes.at(first).child = second;
    first
}
