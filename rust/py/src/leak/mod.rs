//! Which goroutines can never run again: Go's rule (runtime/mgc.go, findGoroutineLeaks) on the graph of Python objects.
//!
//! Suspected are goroutines that are parked for a channel, a lock of gort.sync or the end of a goroutine, with no time-out.
//! What they alone hold is accounted for: every count of an object that comes from another object, or from the frames of a
//! suspect. Who has a count left over is held by somebody else (a goroutine that runs, a thread, C code, the interpreter)
//! and marked, with all it refers to. A suspect one of whose wait objects is marked may be woken: what it holds is marked as
//! well, and so on. Those left over can be woken by each other alone, and never will be.
//!
//! Every doubt leads to a mark. So a leak may be missed, and nothing is called a leak that is none.

pub(crate) mod ages;
mod graph;
mod groups;
mod kind;
mod stack;

pub(crate) use kind::Kinds;
pub(crate) use stack::FLAG_BITS;

use crate::entry::{Value, chan, cond, context, sync};
use crate::task::{CANCEL_ASKED, GoObject, UNREACHABLE};
use gort_core::goroutine::waiter::{Node as Waiter, Outcome, Reason, Wait};
use gort_core::goroutine::{Goroutine, status};
use gort_core::primitive::tries::{try_list, try_push};
use gort_core::sched::Runtime;
use graph::{ByAddress, Graph, Object, add_at};
use kind::Kind;
use pyo3::ffi;
use std::collections::HashMap;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering;

unsafe extern "C" {
    fn gort_is_traced(state: *mut ffi::PyThreadState) -> c_int;
}

/// Whose Goroutine object keeps a goroutine from being a leak, for it can be cancelled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handles {
    Ignored,
    /// That which somebody holds.
    Held,
    /// That which somebody holds, or has a weak reference to.
    All,
}

/// A goroutine that can never run again.
pub(crate) struct Leak {
    pub(crate) task: Object,
    pub(crate) waits_on: Vec<Object>,
    /// The same for those that could reach what another of them reaches.
    pub(crate) group: usize,
}

/// A goroutine that may be a leak.
struct Suspect {
    task: *mut GoObject,
    wait: *mut Wait,
    state: *mut ffi::PyThreadState,
    /// Nodes it owns counts of.
    owned: Vec<u32>,
    /// Addresses of what else it owns counts of, as far as there are objects.
    unsure: Vec<usize>,
    /// Nodes it waits for, one for each queue it stands in.
    waits_on: Vec<u32>,
    /// It may run again.
    is_live: bool,
}

/// Whether it can be told what `g` waits for, and only that can wake it.
fn is_suspect(rt: &Runtime, g: &Goroutine) -> bool {
    const REASONS: [Reason; 13] = [
        Reason::ChanReceive,
        Reason::ChanSend,
        Reason::Select,
        Reason::SelectNoCases,
        Reason::Mutex,
        Reason::RwMutexRead,
        Reason::RwMutexWrite,
        Reason::WaitGroup,
        Reason::Cond,
        Reason::Semaphore,
        Reason::Join,
        Reason::ChanReceiveNil,
        Reason::ChanSendNil,
    ];
    let reason = g.reason.load(Ordering::Relaxed);
    let wait = g.wait.load(Ordering::Acquire); // pairs with the Release in `block_goroutine`
    let is_parked = g.status.load(Ordering::Acquire) == status::WAITING && !wait.is_null(); // the status protocol's
    let is_ours = !g.task.is_null() && !g.is_thread() && !ptr::eq(g, rt.main.load(Ordering::Relaxed));
    // A bubble wakes its goroutines itself when all of them wait.
    if !is_parked || !is_ours || g.bundle.is_null() || g.bubble.id != 0 {
        return false;
    }
    // SAFETY: a parked goroutine's wait and bundle are alive.
    let (wait, bundle) = unsafe { (&*wait, &*g.bundle) };
    REASONS.iter().any(|&known| known as u8 == reason)
        && wait.outcome() == Outcome::Pending
        && !wait.timer.is_queued()
        && !bundle.is_thread
        && g.cancel_requested.load(Ordering::Relaxed) == 0
}

/// The suspects there are. GIL held. `None`: memory is refused.
fn suspects(rt: &Runtime) -> Option<Vec<Suspect>> {
    let (mut found, mut is_whole) = (Vec::new(), true);
    rt.registry.for_each(|g| {
        if is_suspect(rt, g) {
            let suspect = Suspect {
                task: g.task.cast(),
                wait: g.wait.load(Ordering::Relaxed),
                // SAFETY: as in `is_suspect`.
                state: unsafe { (*g.bundle).host.cast() },
                owned: Vec::new(),
                unsure: Vec::new(),
                waits_on: Vec::new(),
                is_live: false,
            };
            is_whole &= try_push(&mut found, suspect).is_some();
        }
    });
    is_whole.then_some(found)
}

/// Has `g`, of which `find` said just now that it can never run again, end by GoroutineExit, after those asked before it; whether
/// it does. Not one that is locked to its thread or that a debugger looks at, nor where the wait does not end so (the lock of a
/// condition).
///
/// # Safety
/// GIL held; `obj` is a Goroutine.
pub(crate) unsafe fn end(rt: &Runtime, obj: *mut GoObject) -> bool {
    // SAFETY: the caller's promise; descriptors are never freed, and a suspect's bundle and state are its own.
    unsafe {
        let g = (*obj).goroutine();
        if g.is_null() || !is_suspect(rt, &*g) {
            return false;
        }
        let bundle = &*(*g).bundle;
        if bundle.wired != 0 || gort_is_traced(bundle.host.cast()) != 0 || !rt.cancel_in_turn(g) {
            return false;
        }
        (*obj).set(CANCEL_ASKED | UNREACHABLE);
        true
    }
}

/// A list of (code, offset) for `find`, whose depth it must be told. Null with an exception set on failure.
///
/// # Safety
/// GIL held.
pub(crate) unsafe fn calls(rt: &Runtime) -> Object {
    // SAFETY: the caller's promise; suspects do not run while this does.
    unsafe {
        let Some(suspects) = suspects(rt) else { return ffi::PyErr_NoMemory() };
        let list = ffi::PyList_New(0);
        if !list.is_null() {
            suspects.iter().for_each(|suspect| stack::add_calls(list, suspect.state));
            if !ffi::PyErr_Occurred().is_null() {
                ffi::Py_DECREF(list);
                return ptr::null_mut();
            }
        }
        list
    }
}

/// The locks of gort.sync that objects refer to, from `all` as for `find`. `None`: memory is refused.
///
/// # Safety
/// As for `find`.
pub(crate) unsafe fn locks(all: Object, kinds: Kinds) -> Option<Vec<Object>> {
    // SAFETY: the caller's promise.
    let graph = unsafe {
        let mut graph = Graph::new(all, kinds);
        graph.follow();
        graph
    };
    let is_lock = |kind| matches!(kind, Kind::Mutex | Kind::RwMutex | Kind::Semaphore | Kind::OtherLock);
    let found = graph.nodes.iter().filter(|node| is_lock(node.kind)).map(|node| node.object);
    if graph.is_refused { None } else { try_list(found) }
}

/// The search in progress.
struct Search {
    graph: Graph,
    suspects: Vec<Suspect>,
    /// Places in `suspects`, by the address of their waits.
    by_wait: ByAddress<usize>,
    /// The same by the address of their Goroutine objects.
    by_task: ByAddress<usize>,
    /// By node: whose frames can be seen through it.
    windows: ByAddress<Vec<usize>>,
    /// By node: who waits for it.
    waiting: ByAddress<Vec<usize>>,
    /// How many nodes were asked already who waits for them.
    asked: usize,
    handles: Handles,
}

/// The goroutines that can never run again, with what each waits for, from `all`, a list of all objects that the collector
/// tracks. `handles`: which may be cancelled, and so are none of them. `None`: memory is refused.
///
/// # Safety
/// GIL held; `all` is a list made just now, and no Python code ran since.
pub(crate) unsafe fn find(
    rt: &Runtime,
    all: Object,
    kinds: Kinds,
    depths: &HashMap<(usize, c_int), c_int>,
    handles: Handles,
) -> Option<Vec<Leak>> {
    let suspects = suspects(rt)?;
    let by_wait = by_address(suspects.iter().map(|suspect| suspect.wait.addr()))?;
    let by_task = by_address(suspects.iter().map(|suspect| suspect.task.addr()))?;
    // SAFETY: the caller's promise; nothing below runs Python code.
    unsafe {
        let mut search = Search {
            graph: Graph::new(all, kinds),
            suspects,
            by_wait,
            by_task,
            windows: ByAddress::default(),
            waiting: ByAddress::default(),
            asked: 0,
            handles,
        };
        search.graph.weak_handles_count = handles != Handles::Held;
        // Whatever is left out for want of memory is noted, and nothing is made of the rest.
        search.account(depths);
        search.mark();
        let leaks = search.leaks();
        if search.graph.is_refused { None } else { leaks }
    }
}

/// The places of these addresses; `None`: memory is refused.
fn by_address(all: impl ExactSizeIterator<Item = usize>) -> Option<ByAddress<usize>> {
    let mut places = ByAddress::default();
    places.try_reserve(all.len()).ok()?;
    places.extend(all.enumerate().map(|(i, address)| (address, i)));
    Some(places)
}

/// Calls `f` with each that waits for an object, and whether it waits to send on a channel.
///
/// # Safety
/// GIL held; `object` is live and of this kind.
unsafe fn for_each_waiter(object: Object, kind: Kind, mut f: impl FnMut(&Waiter, bool)) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Kind::Chan => chan::chan_of(object).for_each_waiter(f),
            Kind::Context => context::for_each_waiter(object, |waiter| f(waiter, false)),
            Kind::Cond => cond::list_of(object).for_each_waiter(|waiter| f(waiter, false)),
            Kind::Goroutine => (*object.cast::<GoObject>()).joiners.for_each_waiter(|waiter| f(waiter, false)),
            _ => sync::for_each_waiter(object, |waiter| f(waiter, false)),
        }
    }
}

impl Search {
    /// Accounts for all counts that objects and suspects have.
    ///
    /// # Safety
    /// As for `find`.
    unsafe fn account(&mut self, depths: &HashMap<(usize, c_int), c_int>) {
        let mut in_with: HashMap<usize, Vec<usize>> = HashMap::new();
        for (i, suspect) in self.suspects.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let found = unsafe {
                self.graph.count(suspect.task.cast()); // the runtime's own
                stack::belongings(&mut self.graph, depths, suspect.state, suspect.task)
            };
            suspect.owned = found.owned;
            suspect.unsure = found.unsure;
            for at in found.windows {
                self.graph.is_refused |= add_at(&mut self.windows, at as usize, i).is_none();
            }
            for manager in found.managers {
                self.graph.is_refused |= add_at(&mut in_with, manager, i).is_none();
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            // Values that wait to be sent are found with who sends them, and may lead to more.
            loop {
                self.graph.follow();
                if self.asked == self.graph.nodes.len() {
                    break;
                }
                self.ask_for_waiters();
            }
            let suspects = &mut self.suspects;
            for suspect in suspects.iter_mut() {
                let has_room = suspect.owned.try_reserve(suspect.unsure.len()).is_ok();
                self.graph.is_refused |= !has_room;
                let unsure = suspect.unsure.iter().filter(|_| has_room);
                suspect.owned.extend(unsure.filter_map(|&address| self.graph.count_known(address)));
            }
            stack::count_bound_methods(&mut self.graph, &in_with, |i, at| try_push(&mut suspects[i].owned, at));
        }
    }

    /// Finds out who waits for the nodes that are new.
    ///
    /// # Safety
    /// As for `find`.
    unsafe fn ask_for_waiters(&mut self) {
        let (mut found, mut is_whole) = (Vec::new(), true);
        while self.asked < self.graph.nodes.len() {
            let at = self.asked as u32;
            let node = &self.graph.nodes[self.asked];
            self.asked += 1;
            if !node.kind.is_waited_for() {
                continue;
            }
            // SAFETY: nodes are live.
            unsafe {
                for_each_waiter(node.object, node.kind, |waiter, sends| {
                    if let Some(&suspect) = self.by_wait.get(&waiter.wait.addr()) {
                        let slot = if sends { waiter.slot } else { ptr::null_mut() };
                        is_whole &= try_push(&mut found, (suspect, at, slot)).is_some();
                    }
                });
            }
        }
        for (i, at, slot) in found {
            is_whole &= try_push(&mut self.suspects[i].waits_on, at).is_some();
            is_whole &= add_at(&mut self.waiting, at as usize, i).is_some();
            // SAFETY: the slot of a sender that waits holds its value, and one count of it.
            let value = if slot.is_null() { None } else { unsafe { *slot.cast::<Option<Value>>() } };
            if let Some(Value(value)) = value {
                // SAFETY: as above.
                let at = unsafe { self.graph.count(value) };
                is_whole &= at.is_none_or(|at| try_push(&mut self.suspects[i].owned, at).is_some());
            }
        }
        self.graph.is_refused |= !is_whole;
    }

    /// Marks what those that may run can reach, and who is woken by them, until there is no more.
    ///
    /// # Safety
    /// As for `find`, after `account`.
    unsafe fn mark(&mut self) {
        // SAFETY: the caller's promise.
        for at in unsafe { self.graph.held_from_outside() } {
            self.graph.mark(at);
        }
        for at in 0..self.graph.nodes.len() {
            let node = &self.graph.nodes[at];
            // SAFETY: nodes are live, and this one a channel.
            if node.kind == Kind::Chan && unsafe { chan::is_fed(node.object) } {
                self.graph.mark(at as u32); // by its timer
            }
        }
        for i in 0..self.suspects.len() {
            // SAFETY: a suspect's wait is alive.
            let queues = unsafe { (*self.suspects[i].wait).queue_count } as usize;
            if self.suspects[i].waits_on.len() != queues {
                self.revive(i); // it waits for something that was not met
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.spread();
            for i in 0..self.suspects.len() {
                self.keep(i);
            }
            self.graph.mark_garbage();
            self.spread();
        }
    }

    /// Follows the marks to their end.
    ///
    /// # Safety
    /// As for `find`, after `account`.
    unsafe fn spread(&mut self) {
        // SAFETY: the caller's promise.
        while let Some(at) = unsafe { self.graph.next() } {
            self.reach(at);
        }
    }

    /// What a suspect owns is no garbage.
    fn keep(&mut self, i: usize) {
        for &at in &self.suspects[i].owned {
            self.graph.keep(at);
        }
        // SAFETY: GIL held; the object of a live goroutine is alive.
        if let Some(at) = unsafe { self.graph.place(self.suspects[i].task.cast()) } {
            self.graph.keep(at);
        }
    }

    /// A node is marked: who is woken by it, or seen through it?
    fn reach(&mut self, at: u32) {
        let at = at as usize;
        let kind = self.graph.nodes[at].kind;
        for i in self.windows.remove(&at).unwrap_or_default() {
            self.show(i);
        }
        let suspect =
            if kind == Kind::Goroutine { self.by_task.get(&self.graph.nodes[at].object.addr()).copied() } else { None };
        match suspect {
            // It can be cancelled by who has its object.
            Some(i) if self.handles != Handles::Ignored => self.revive(i),
            Some(_) => {}
            None => {
                if kind == Kind::Goroutine {
                    // SAFETY: as for `find`, and the graph was followed.
                    unsafe { self.graph.mark_referents(at as u32) };
                }
                self.wake(at);
            }
        }
    }

    /// Somebody can wake those that wait for a node.
    fn wake(&mut self, at: usize) {
        for i in self.waiting.remove(&at).unwrap_or_default() {
            self.revive(i);
        }
    }

    /// Marks what a suspect owns.
    fn show(&mut self, i: usize) {
        for at in std::mem::take(&mut self.suspects[i].owned) {
            self.graph.mark(at);
        }
    }

    /// A suspect may run again.
    fn revive(&mut self, i: usize) {
        if std::mem::replace(&mut self.suspects[i].is_live, true) {
            return;
        }
        self.show(i);
        // SAFETY: GIL held; the object of a live goroutine is alive.
        if let Some(at) = unsafe { self.graph.place(self.suspects[i].task.cast()) } {
            self.graph.mark(at);
            // SAFETY: as above.
            unsafe { self.graph.mark_referents(at) };
            self.wake(at as usize); // it may end: those that join it may go on
        }
    }

    /// Who is left. `None`: memory is refused.
    ///
    /// # Safety
    /// As for `find`, after `mark`.
    unsafe fn leaks(&mut self) -> Option<Vec<Leak>> {
        self.suspects.retain(|suspect| !suspect.is_live);
        let mut reached = Vec::new();
        for suspect in &self.suspects {
            // SAFETY: GIL held; the object of a live goroutine is alive.
            let task = unsafe { self.graph.place(suspect.task.cast()) };
            try_push(&mut reached, try_list(suspect.owned.iter().chain(&suspect.waits_on).copied().chain(task))?)?;
        }
        // SAFETY: the caller's promise.
        let groups = unsafe { groups::groups(&self.graph, reached)? };
        let object = |&at: &u32| self.graph.nodes[at as usize].object;
        let mut leaks = Vec::new();
        for (suspect, group) in self.suspects.iter().zip(groups) {
            let waits_on = try_list(suspect.waits_on.iter().map(object))?;
            try_push(&mut leaks, Leak { task: suspect.task.cast(), waits_on, group })?;
        }
        Some(leaks)
    }
}
