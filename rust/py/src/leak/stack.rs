//! What a parked goroutine owns: what its frames refer to, and what the calls in between hold for it.

use super::graph::{Graph, Object, add_at};
use super::kind::Kind;
use crate::task::GoObject;
use gort_core::primitive::tries::try_push;
use pyo3::ffi;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr;

/// How many slots of a frame's value stack are owned, by code object and offset of the instruction; see shim/stacks.c.
pub(super) type Depths = HashMap<(usize, c_int), c_int>;

/// Bits of a depth that `_leaks` may be told: IN_WITH and HAS_COPIES of shim/stacks.c.
pub(crate) const FLAG_BITS: [c_int; 3] = [0, 1 << 30, 1 << 29];

/// What `gort_see_stack` tells.
const OWNED: c_int = 0;
const WINDOW: c_int = 1;
const MANAGER: c_int = 2;
const UNSURE: c_int = 3;

unsafe extern "C" {
    fn gort_see_stack(
        state: *mut ffi::PyThreadState,
        call: *const Object,
        depth: unsafe extern "C" fn(*mut c_void, Object, c_int) -> c_int,
        see: unsafe extern "C" fn(*mut c_void, c_int, Object),
        arg: *mut c_void,
    );
    fn gort_manager_of(method: Object, is_exit: *mut c_int) -> Object;
}

/// What the stack of one goroutine refers to.
#[derive(Default)]
pub(super) struct Belongings {
    /// Nodes of which it owns a count; several times if several.
    pub(super) owned: Vec<u32>,
    /// Nodes through which others can see its frames.
    pub(super) windows: Vec<u32>,
    /// Addresses at which there may be objects of which it owns a count.
    pub(super) unsure: Vec<usize>,
    /// Addresses of objects whose __enter__ a `with` statement of it is in.
    pub(super) managers: Vec<usize>,
}

struct Look<'a> {
    graph: &'a mut Graph,
    depths: &'a Depths,
    found: Belongings,
}

unsafe extern "C" fn depth(look: *mut c_void, code: Object, offset: c_int) -> c_int {
    // SAFETY: called by the shim with the look below.
    let look = unsafe { &*look.cast::<Look<'_>>() };
    look.depths.get(&(code.addr(), offset)).copied().unwrap_or(-1)
}

unsafe extern "C" fn see(look: *mut c_void, what: c_int, object: Object) {
    // SAFETY: as above; what is owned or a window is a live object.
    unsafe {
        let look = &mut *look.cast::<Look<'_>>();
        let done = match what {
            OWNED => look.graph.count(object).map_or(Some(()), |at| try_push(&mut look.found.owned, at)),
            WINDOW => look.graph.place(object).map_or(Some(()), |at| try_push(&mut look.found.windows, at)),
            MANAGER => try_push(&mut look.found.managers, object.addr()),
            UNSURE => try_push(&mut look.found.unsure, object.addr()),
            _ => Some(()),
        };
        look.graph.is_refused |= done.is_none();
    }
}

/// Accounts for what the goroutine with this thread state, parked, owns.
///
/// # Safety
/// GIL held; the goroutine has a stack of its own, is parked, and does not run meanwhile.
pub(super) unsafe fn belongings(
    graph: &mut Graph,
    depths: &Depths,
    state: *mut ffi::PyThreadState,
    task: *mut GoObject,
) -> Belongings {
    let mut look = Look { graph, depths, found: Belongings::default() };
    // SAFETY: the caller's promise.
    unsafe {
        let call = [(*task).function, (*task).args, (*task).kwargs];
        gort_see_stack(state, call.as_ptr(), depth, see, (&raw mut look).cast());
    }
    look.found
}

struct Calls(Object);

unsafe extern "C" fn want(calls: *mut c_void, code: Object, offset: c_int) -> c_int {
    // SAFETY: called by the shim with the list below.
    unsafe {
        let pair = ffi::Py_BuildValue(c"(Oi)".as_ptr(), code, offset);
        if !pair.is_null() {
            ffi::PyList_Append((*calls.cast::<Calls>()).0, pair);
            ffi::Py_DECREF(pair);
        }
    }
    -1
}

unsafe extern "C" fn see_nothing(_: *mut c_void, _: c_int, _: Object) {}

/// Appends to the list `calls` which instructions of which code the frames are at whose depth must be told.
///
/// # Safety
/// As for `belongings`.
pub(super) unsafe fn add_calls(calls: Object, state: *mut ffi::PyThreadState) {
    let mut calls = Calls(calls);
    // SAFETY: the caller's promise.
    unsafe {
        let no_call = [ptr::null_mut(); 3];
        gort_see_stack(state, no_call.as_ptr(), want, see_nothing, (&raw mut calls).cast());
    }
}

/// The bound __enter__ and __exit__ that `with` statements in progress hold in C variables: accounts for them where there
/// are not more of them than such statements. `goroutines` are those that are in one, by the manager's address.
///
/// # Safety
/// As for `belongings`, after the graph was followed.
pub(super) unsafe fn count_bound_methods(
    graph: &mut Graph,
    goroutines: &HashMap<usize, Vec<usize>>,
    mut owned_by: impl FnMut(usize, u32) -> Option<()>,
) {
    let mut candidates: HashMap<(usize, c_int), Vec<u32>> = HashMap::new();
    for at in 0..graph.nodes.len() as u32 {
        let node = &graph.nodes[at as usize];
        // SAFETY: nodes are live.
        unsafe {
            // One count is that of the list of all objects, the other the statement's.
            if node.kind != Kind::Method || node.known_counts != 1 || ffi::Py_REFCNT(node.object) != 2 {
                continue;
            }
            let mut is_exit = 0;
            let manager = gort_manager_of(node.object, &raw mut is_exit);
            let in_slot = is_exit != 0 && !cfg!(Py_3_12); // 3.11 has the bound __exit__ on the value stack
            if !manager.is_null() && !in_slot && goroutines.contains_key(&manager.addr()) {
                let is_noted = add_at(&mut candidates, (manager.addr(), is_exit), at).is_some();
                graph.is_refused |= !is_noted;
            }
        }
    }
    for ((manager, _), methods) in candidates {
        let waiting = &goroutines[&manager];
        if methods.len() > waiting.len() {
            continue; // somebody else has one as well, and nobody knows which
        }
        for at in methods {
            graph.nodes[at as usize].known_counts += 1;
            let is_noted = waiting.iter().try_for_each(|&goroutine| owned_by(goroutine, at)).is_some();
            graph.is_refused |= !is_noted;
        }
    }
}
