//! The objects there are and who refers to whom, as the collector sees it: how many of an object's counts are accounted
//! for, and which objects can be reached from those that somebody unknown holds.
//!
//! Objects the collector does not track are met as referents. Nothing here runs Python code or changes a count, so with
//! the GIL held the picture stands still.

use super::kind::{Kind, Kinds};
use gort_core::primitive::tries::{try_list, try_push};
use pyo3::ffi;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

pub(super) type Object = *mut ffi::PyObject;

/// Hash of an address: a multiplication, as its low bits are alike.
#[derive(Default)]
pub(super) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(byte as usize);
        }
    }

    fn write_usize(&mut self, n: usize) {
        self.0 = (self.0 ^ n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// By address.
pub(super) type ByAddress<V> = HashMap<usize, V, BuildHasherDefault<AddressHasher>>;

/// One object.
pub(super) struct Node {
    pub(super) object: Object,
    /// How many of its counts are accounted for.
    pub(super) known_counts: i64,
    pub(super) kind: Kind,
    pub(super) is_marked: bool,
    /// A suspect keeps it.
    is_kept: bool,
}

/// See the module's text.
pub(super) struct Graph {
    places: ByAddress<u32>,
    pub(super) nodes: Vec<Node>,
    pub(super) kinds: Kinds,
    /// Whoever has a weak reference to a goroutine has the goroutine.
    pub(super) weak_handles_count: bool,
    /// How many nodes were asked already whom they refer to.
    seen: usize,
    pending: Vec<u32>,
    kept: Vec<u32>,
    /// Memory was refused: something is missing in what is told here and in what is made of it.
    pub(super) is_refused: bool,
}

/// Adds to the list at `key`; `None`: memory is refused.
pub(super) fn add_at<K: Eq + Hash, V, S: BuildHasher>(
    lists: &mut HashMap<K, Vec<V>, S>,
    key: K,
    value: V,
) -> Option<()> {
    lists.try_reserve(1).ok()?;
    try_push(lists.entry(key).or_default(), value)
}

unsafe extern "C" {
    fn gort_see_borrowed(generator: Object, see: unsafe extern "C" fn(*mut c_void, c_int, Object), graph: *mut c_void);
    fn gort_weakly_held(reference: Object) -> Object;
}

unsafe extern "C" fn count_referent(object: Object, graph: *mut c_void) -> c_int {
    // SAFETY: called by tp_traverse with a live referent and the graph that `traverse` was given.
    unsafe { (*graph.cast::<Graph>()).count(object) };
    0
}

unsafe extern "C" fn mark_referent(object: Object, graph: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe { (*graph.cast::<Graph>()).mark_object(object) };
    0
}

unsafe extern "C" fn keep_referent(object: Object, graph: *mut c_void) -> c_int {
    // SAFETY: as above.
    let graph = unsafe { &mut *graph.cast::<Graph>() };
    if let Some(&at) = graph.places.get(&object.addr()) {
        graph.keep(at);
    }
    0
}

unsafe extern "C" fn discount(graph: *mut c_void, _what: c_int, object: Object) {
    // SAFETY: called by the shim with the graph below.
    let graph = unsafe { &mut *graph.cast::<Graph>() };
    if let Some(&at) = graph.places.get(&object.addr()) {
        graph.nodes[at as usize].known_counts -= 1;
    }
}

/// Lets an object's type call `visit` with each referent.
///
/// # Safety
/// GIL held; `object` is live and its type has a tp_traverse.
unsafe fn traverse(object: Object, visit: ffi::visitproc, graph: *mut Graph) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(traverse) = (*ffi::Py_TYPE(object)).tp_traverse {
            traverse(object, visit, graph.cast());
        }
    }
}

impl Graph {
    /// Of the objects in `all`, the list of all that the collector tracks.
    ///
    /// # Safety
    /// GIL held; `all` is a list.
    pub(super) unsafe fn new(all: Object, kinds: Kinds) -> Self {
        // SAFETY: the caller's promise.
        let n = unsafe { ffi::PyList_GET_SIZE(all) };
        let mut graph = Self {
            places: HashMap::default(),
            nodes: Vec::new(),
            kinds,
            weak_handles_count: true,
            seen: 0,
            pending: Vec::new(),
            kept: Vec::new(),
            is_refused: false,
        };
        let room = n as usize * 2;
        graph.is_refused = graph.places.try_reserve(room).is_err() || graph.nodes.try_reserve(room).is_err();
        for i in 0..n {
            // SAFETY: `i` is in bounds. The list has one count of each.
            unsafe { graph.count(ffi::PyList_GET_ITEM(all, i)) };
        }
        graph
    }

    /// The node of an object, made if it is not there; `None`: nothing that it refers to, or that waits for it, matters, or memory is
    /// refused.
    ///
    /// # Safety
    /// GIL held; `object` is live.
    pub(super) unsafe fn place(&mut self, object: Object) -> Option<u32> {
        if let Some(&at) = self.places.get(&object.addr()) {
            return Some(at);
        }
        // SAFETY: the caller's promise.
        let kind = unsafe { self.kinds.of(object) };
        if kind == Kind::Leaf {
            return None;
        }
        if self.nodes.try_reserve(1).is_err() || self.places.try_reserve(1).is_err() {
            self.is_refused = true;
            return None;
        }
        let at = self.nodes.len() as u32;
        self.nodes.push(Node { object, known_counts: 0, kind, is_marked: false, is_kept: false });
        self.places.insert(object.addr(), at);
        Some(at)
    }

    /// Accounts for one count of an object.
    ///
    /// # Safety
    /// As for `place`.
    pub(super) unsafe fn count(&mut self, object: Object) -> Option<u32> {
        // SAFETY: the caller's promise.
        let at = unsafe { self.place(object) }?;
        self.nodes[at as usize].known_counts += 1;
        Some(at)
    }

    /// Accounts for one count of the object at an address, if one is known there.
    pub(super) fn count_known(&mut self, address: usize) -> Option<u32> {
        let at = *self.places.get(&address)?;
        self.nodes[at as usize].known_counts += 1;
        Some(at)
    }

    /// Asks every node that was not asked yet whom it refers to, and those it finds, and so on.
    ///
    /// # Safety
    /// GIL held, and no Python code ran since the graph was made.
    pub(super) unsafe fn follow(&mut self) {
        while self.seen < self.nodes.len() {
            let Node { object, kind, .. } = self.nodes[self.seen];
            self.seen += 1;
            // SAFETY: nodes are live: nothing ran that could end one.
            unsafe {
                if self.kinds.has_referents(object, kind) {
                    traverse(object, count_referent, self);
                }
                if kind == Kind::Generator {
                    gort_see_borrowed(object, discount, std::ptr::from_mut(self).cast());
                }
            }
        }
    }

    /// The nodes that somebody holds whom nobody knows.
    ///
    /// # Safety
    /// As for `follow`, after it.
    pub(super) unsafe fn held_from_outside(&mut self) -> Vec<u32> {
        let is_held = |node: &Node| {
            // Less than was counted is impossible, and then nothing is known. SAFETY: nodes are live.
            unsafe { ffi::Py_REFCNT(node.object) as i64 != node.known_counts }
        };
        let held = try_list((0..self.nodes.len() as u32).filter(|&at| is_held(&self.nodes[at as usize])));
        self.is_refused |= held.is_none();
        held.unwrap_or_default()
    }

    /// Marks an object; those it refers to are marked as `next` comes to it.
    fn mark_object(&mut self, object: Object) {
        if let Some(&at) = self.places.get(&object.addr()) {
            self.mark(at);
        }
    }

    /// Marks a node.
    pub(super) fn mark(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        if !node.is_marked {
            node.is_marked = true;
            self.is_refused |= try_push(&mut self.pending, at).is_none();
        }
    }

    /// A suspect keeps a node; `mark_garbage` follows it.
    pub(super) fn keep(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        if !node.is_kept {
            node.is_kept = true;
            self.is_refused |= try_push(&mut self.kept, at).is_none();
        }
    }

    /// Marks what is neither marked nor kept by a suspect: it is garbage, and may run code when it is collected.
    ///
    /// # Safety
    /// As for `follow`, after all marks and all calls of `keep`.
    pub(super) unsafe fn mark_garbage(&mut self) {
        for at in 0..self.nodes.len() as u32 {
            if self.nodes[at as usize].kind == Kind::Report {
                self.keep(at); // and so what it alone describes
            }
        }
        while let Some(at) = self.kept.pop() {
            let Node { object, kind, .. } = self.nodes[at as usize];
            // SAFETY: nodes are live.
            unsafe {
                if self.kinds.has_referents(object, kind) {
                    traverse(object, keep_referent, self);
                }
            }
        }
        for at in 0..self.nodes.len() as u32 {
            if !self.nodes[at as usize].is_kept {
                self.mark(at);
            }
        }
    }

    /// Calls `f` with each node that this one leads to, with or without a count of it.
    ///
    /// # Safety
    /// As for `follow`.
    pub(super) unsafe fn for_each_led_to(&self, at: u32, f: &mut dyn FnMut(u32)) {
        struct See<'a>(&'a Graph, &'a mut dyn FnMut(u32));
        unsafe extern "C" fn see(object: Object, arg: *mut c_void) -> c_int {
            // SAFETY: called by tp_traverse with what is below.
            let See(graph, f) = unsafe { &mut *arg.cast::<See<'_>>() };
            if let Some(&at) = graph.places.get(&object.addr()) {
                f(at);
            }
            0
        }
        let Node { object, kind, .. } = self.nodes[at as usize];
        let mut arg = See(self, f);
        // SAFETY: nodes are live.
        unsafe {
            if self.kinds.has_referents(object, kind)
                && let Some(traverse) = (*ffi::Py_TYPE(object)).tp_traverse
            {
                traverse(object, see, (&raw mut arg).cast());
            }
            let held = if kind == Kind::Weak { gort_weakly_held(object) } else { std::ptr::null_mut() };
            if let Some(&at) = self.places.get(&held.addr()) {
                (arg.1)(at);
            }
        }
    }

    /// Marks what a node refers to.
    ///
    /// # Safety
    /// As for `follow`.
    pub(super) unsafe fn mark_referents(&mut self, at: u32) {
        let Node { object, kind, .. } = self.nodes[at as usize];
        // SAFETY: nodes are live.
        unsafe {
            if self.kinds.has_referents(object, kind) {
                traverse(object, mark_referent, self);
            }
        }
    }

    /// Marks what one more marked node leads to, and gives that node; `None`: there is no more. Not of a goroutine: whoever
    /// has its object does not have what it was started with. Nor of a report.
    ///
    /// # Safety
    /// As for `follow`.
    pub(super) unsafe fn next(&mut self) -> Option<u32> {
        let at = self.pending.pop()?;
        let Node { object, kind, .. } = self.nodes[at as usize];
        // SAFETY: nodes are live. Whoever has a weak reference can get the object.
        unsafe {
            if !matches!(kind, Kind::Report | Kind::Goroutine) {
                self.mark_referents(at);
            }
            if kind == Kind::Weak {
                let held = gort_weakly_held(object);
                let is_seen = self.weak_handles_count || held.is_null() || self.kinds.of(held) != Kind::Goroutine;
                if !held.is_null() && is_seen {
                    self.mark_object(held);
                }
            }
        }
        Some(at)
    }
}
