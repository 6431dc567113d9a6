//! Who has which Mutex and RWMutex, kept while `gort.deadlock.track` is on; off it costs one load for each operation.
//!
//! Locks of gort.sync belong to nobody: another may unlock them. So who has one is who took it last and has not let go.
//! All state is read and written with the GIL held, and never over a call that could let go of it. What memory is refused for is
//! not kept.

use super::chan::tuple;
use super::gc::Uncollected;
use super::sync::{for_each_waiter, object_of};
use super::{boolean, methods, none, plain, runtime};
use crate::task::GoObject;
use gort_core::goroutine::Goroutine;
use gort_core::goroutine::waiter::{Node, Outcome, Who};
use gort_core::primitive::tries::{try_list, try_push};
use gort_core::sched;
use gort_core::sys::clock;
use pyo3::ffi;
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

/// What is kept of a lock.
#[derive(Default)]
struct Lock {
    /// Who has it, by number, a reader once for each time; 0 is a plain thread.
    holders: Vec<u64>,
    /// How often somebody waited for it, and for how long in all.
    waits: u64,
    waited_ns: u64,
    /// Locks that were taken by who had this one.
    followers: Vec<usize>,
}

#[derive(Default)]
struct Table {
    /// By address.
    locks: HashMap<usize, Lock>,
    /// By goroutine: what it has, in the order in which it took it.
    held: HashMap<u64, Vec<usize>>,
    /// Pairs that the hook was not told of yet.
    untold: Vec<(usize, usize)>,
}

struct Shared(UnsafeCell<Option<Table>>);
// SAFETY: see the head of this file.
unsafe impl Sync for Shared {}

static TABLE: Shared = Shared(UnsafeCell::new(None));
static ON: AtomicBool = AtomicBool::new(false);
/// Called with two locks when the second is taken by who has the first, for the first time; owned, or null.
static HOOK: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Relaxed: the GIL orders it.
#[inline(always)]
fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The table, made when first needed.
///
/// # Safety
/// GIL held; no other reference to it is in use, nor code of others called while this one is.
#[allow(clippy::mut_from_ref)]
unsafe fn table() -> &'static mut Table {
    // SAFETY: the caller's promise.
    unsafe { (*TABLE.0.get()).get_or_insert_with(Table::default) }
}

/// The number of the running goroutine; 0 on a plain thread.
fn here() -> u64 {
    // SAFETY: the running goroutine's descriptor, or null.
    unsafe { sched::current_goroutine().as_ref() }.map_or(0, |g| g.id)
}

/// The entry for a key, made if there is none; `None`: memory is refused.
fn entry<K: std::hash::Hash + Eq, V: Default>(map: &mut HashMap<K, V>, key: K) -> Option<&mut V> {
    map.try_reserve(1).ok()?;
    Some(map.entry(key).or_default())
}

/// Does `take`, which may park, on a lock; `try_take` is the same without waiting.
#[inline(always)]
pub(super) fn taking<T>(lock: &T, try_take: impl FnOnce() -> bool, take: impl FnOnce() -> Outcome) -> Outcome {
    if is_on() { take_noted(ptr::from_ref(lock).addr(), try_take, take) } else { take() }
}

#[cold]
#[inline(never)]
fn take_noted(lock: usize, try_take: impl FnOnce() -> bool, take: impl FnOnce() -> Outcome) -> Outcome {
    if try_take() {
        // SAFETY: GIL held by whoever takes a lock.
        unsafe { note_taken(lock, None) };
        return Outcome::Delivered;
    }
    let began_ns = clock::now_ns();
    let outcome = take();
    if outcome == Outcome::Delivered {
        // SAFETY: as above.
        unsafe { note_taken(lock, Some(clock::now_ns().saturating_sub(began_ns))) };
    }
    outcome
}

/// `is_taken`, of a lock that was tried.
#[inline(always)]
pub(super) fn tried<T>(lock: &T, is_taken: bool) -> bool {
    if is_taken && is_on() {
        // SAFETY: GIL held by whoever takes a lock.
        unsafe { note_taken(ptr::from_ref(lock).addr(), None) };
    }
    is_taken
}

/// The caller has it, for which it waited so long.
#[cold]
#[inline(never)]
unsafe fn note_taken(lock: usize, waited_ns: Option<u64>) {
    let me = here();
    // SAFETY: GIL held. The table is let go of before the hook is called.
    unsafe {
        let table = table();
        if let Some(held) = entry(&mut table.held, me) {
            for &before in held.iter().filter(|&&before| before != lock) {
                if let Some(before_lock) = table.locks.get_mut(&before)
                    && !before_lock.followers.contains(&lock)
                    && try_push(&mut before_lock.followers, lock).is_some()
                {
                    let _ = try_push(&mut table.untold, (before, lock)); // or it is not told of
                }
            }
            let _ = try_push(held, lock);
        }
        if let Some(kept) = entry(&mut table.locks, lock) {
            let _ = try_push(&mut kept.holders, me);
            kept.waits += u64::from(waited_ns.is_some());
            kept.waited_ns += waited_ns.unwrap_or(0);
        }
        while let Some((before, lock)) = next_untold() {
            tell(before, lock);
        }
    }
}

/// Not a part of who calls the hook, which may park: nothing with an end of its own stays over that.
unsafe fn next_untold() -> Option<(usize, usize)> {
    // SAFETY: GIL held.
    let table = unsafe { table() };
    while let Some(pair) = table.untold.pop() {
        if table.locks.contains_key(&pair.0) && table.locks.contains_key(&pair.1) {
            return Some(pair);
        }
    }
    None
}

/// Calls the hook; what it raises is nobody's here.
unsafe fn tell(before: usize, lock: usize) {
    // SAFETY: GIL held; both are in the table, from which a lock goes before its object does.
    unsafe {
        let hook = HOOK.load(Ordering::Relaxed);
        if hook.is_null() {
            return;
        }
        ffi::Py_INCREF(hook);
        let (first, second) = (ffi::Py_NewRef(object_of(before)), ffi::Py_NewRef(object_of(lock)));
        let saved = crate::host::gort_take_exception();
        let done = ffi::PyObject_CallFunctionObjArgs(hook, first, second, ptr::null_mut::<ffi::PyObject>());
        if done.is_null() {
            ffi::PyErr_WriteUnraisable(hook);
        }
        if !saved.is_null() {
            crate::host::gort_raise(saved);
        }
        ffi::Py_XDECREF(done);
        ffi::Py_DECREF(first);
        ffi::Py_DECREF(second);
        ffi::Py_DECREF(hook);
    }
}

/// The caller lets go of it.
#[inline(always)]
pub(super) fn letting_go<T>(lock: &T) {
    if is_on() {
        // SAFETY: GIL held by whoever lets go of a lock.
        unsafe { note_freed(ptr::from_ref(lock).addr()) };
    }
}

fn remove_last<T: PartialEq>(list: &mut Vec<T>, item: &T) -> bool {
    let place = list.iter().rposition(|other| other == item);
    if let Some(at) = place {
        list.remove(at);
    }
    place.is_some()
}

#[cold]
#[inline(never)]
unsafe fn note_freed(lock: usize) {
    let me = here();
    // SAFETY: GIL held.
    unsafe {
        let table = table();
        let Some(kept) = table.locks.get_mut(&lock) else { return };
        // Another than who took it may.
        let who = if remove_last(&mut kept.holders, &me) { Some(me) } else { kept.holders.pop() };
        if let Some(who) = who
            && let Some(held) = table.held.get_mut(&who)
        {
            remove_last(held, &lock);
            if held.is_empty() {
                table.held.remove(&who);
            }
        }
    }
}

/// The lock goes.
#[inline(always)]
pub(super) fn forgetting<T>(lock: *const T) {
    #[cold]
    #[inline(never)]
    unsafe fn forget(lock: usize) {
        // SAFETY: GIL held.
        unsafe {
            let table = table();
            if table.locks.remove(&lock).is_some() {
                table.locks.values_mut().for_each(|other| other.followers.retain(|&follower| follower != lock));
                table.held.values_mut().for_each(|held| held.retain(|&one| one != lock));
            }
        }
    }
    if is_on() {
        // SAFETY: GIL held by whoever drops the last reference.
        unsafe { forget(lock.addr()) };
    }
}

/// Who waits in a queue and can be woken by nothing else: without a time-out, a context or other cases.
fn stuck(node: &Node) -> Option<u64> {
    // SAFETY: a linked node's wait is alive, and so is who waits.
    unsafe {
        let wait = &*node.wait;
        let Who::Goroutine(g) = wait.who else { return None };
        let is_stuck = wait.outcome() == Outcome::Pending
            && wait.queue_count == 1
            && !wait.timer.is_queued()
            && (*g).bubble.id == 0
            && (*g).cancel_requested.load(Ordering::Relaxed) == 0;
        is_stuck.then_some((*g).id)
    }
}

/// A list of numbers.
unsafe fn ids(all: &[u64]) -> Object {
    // SAFETY: GIL held.
    unsafe {
        let list = ffi::PyList_New(0);
        for &id in all {
            let number = if list.is_null() { list } else { ffi::PyLong_FromUnsignedLongLong(id) };
            if number.is_null() || ffi::PyList_Append(list, number) < 0 {
                ffi::Py_XDECREF(number);
                ffi::Py_XDECREF(list);
                return ptr::null_mut();
            }
            ffi::Py_DECREF(number);
        }
        list
    }
}

/// Appends what is made; `false`: an exception is set.
unsafe fn append(list: Object, item: Object) -> bool {
    // SAFETY: GIL held; null or a new reference.
    unsafe {
        let is_done = !list.is_null() && !item.is_null() && ffi::PyList_Append(list, item) == 0;
        ffi::Py_XDECREF(item);
        is_done
    }
}

/// `_lock_holders()`: (lock, who has it, who waits for it and nothing else, waits, ns waited) for each lock that was taken.
unsafe extern "C-unwind" fn holders(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL. The collector is off, so no code of others runs, and what is in the table lives.
    unsafe {
        let _uncollected = Uncollected::begin();
        let mut all: Vec<Object> = Vec::new();
        let is_whole = table().locks.keys().all(|&lock| try_push(&mut all, object_of(lock)).is_some());
        let mut list = if is_whole { ffi::PyList_New(0) } else { ffi::PyErr_NoMemory() };
        for &object in &all {
            let (mut waiting, mut is_whole) = (Vec::new(), true);
            for_each_waiter(object, |node| {
                if let Some(id) = stuck(node) {
                    is_whole &= try_push(&mut waiting, id).is_some();
                }
            });
            let Some(kept) = table().locks.get(&super::sync::address_of(object)) else { continue };
            let (waits, waited_ns) = (kept.waits, kept.waited_ns);
            let item = match try_list(kept.holders.iter().copied()) {
                Some(holders) if is_whole => tuple([
                    ffi::Py_NewRef(object),
                    ids(&holders),
                    ids(&waiting),
                    ffi::PyLong_FromUnsignedLongLong(waits),
                    ffi::PyLong_FromUnsignedLongLong(waited_ns),
                ]),
                _ => ffi::PyErr_NoMemory(),
            };
            if !append(list, item) {
                ffi::Py_XDECREF(std::mem::replace(&mut list, ptr::null_mut()));
                break;
            }
        }
        list
    }
}

/// `_joins()`: (goroutine, the numbers of those that wait for its end and nothing else) where there are any.
unsafe extern "C-unwind" fn joins(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_NOARGS with the GIL. The collector is off, so no code of others runs: goroutines and their objects stay.
    unsafe {
        let _uncollected = Uncollected::begin();
        let (mut found, mut is_whole): (Vec<(Object, Vec<u64>)>, bool) = (Vec::new(), true);
        rt.registry.for_each(|g: &Goroutine| {
            let object = if g.is_thread() { ptr::null_mut() } else { g.task };
            if object.is_null() {
                return;
            }
            let mut waiting = Vec::new();
            (*object.cast::<GoObject>()).joiners.for_each_waiter(|node| {
                if let Some(id) = stuck(node) {
                    is_whole &= try_push(&mut waiting, id).is_some();
                }
            });
            if !waiting.is_empty() {
                let object: Object = object.cast();
                is_whole &= try_push(&mut found, (object, waiting)).is_some();
            }
        });
        let mut list = if is_whole { ffi::PyList_New(0) } else { ffi::PyErr_NoMemory() };
        for (object, waiting) in found {
            let item = if list.is_null() { list } else { tuple([ffi::Py_NewRef(object), ids(&waiting)]) };
            if !list.is_null() && !append(list, item) {
                ffi::Py_XDECREF(std::mem::replace(&mut list, ptr::null_mut()));
            }
        }
        list
    }
}

/// `_track_holders(hook)`: keeps from now on who has which lock, and calls the hook; None stops it. Whether it was on.
unsafe extern "C-unwind" fn track(_m: Object, hook: Object) -> Object {
    // SAFETY: METH_O with the GIL. The old hook goes last: that may run anything.
    unsafe {
        let is_wanted = hook != ffi::Py_None();
        let was_on = ON.swap(is_wanted, Ordering::Relaxed);
        if !is_wanted {
            *TABLE.0.get() = None;
        }
        let new = if is_wanted { ffi::Py_NewRef(hook) } else { ptr::null_mut() };
        ffi::Py_XDECREF(HOOK.swap(new, Ordering::Relaxed));
        boolean(was_on)
    }
}

/// In a forked child others do not run any more: what they had is nobody's.
unsafe extern "C-unwind" fn forked(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        if !is_on() {
            return none();
        }
        let me = here();
        let table = table();
        table.held.retain(|&id, _| id == me);
        table.locks.values_mut().for_each(|lock| lock.holders.retain(|&id| id == me));
        none()
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let table = vec![
        plain(
            c"_track_holders",
            track,
            ffi::METH_O,
            c"_track_holders(hook, /)\n--\n\nKeeps who has which lock; None stops it.",
        ),
        plain(
            c"_lock_holders",
            holders,
            ffi::METH_NOARGS,
            c"_lock_holders()\n--\n\n(lock, holders, waiters, waits, ns) of locks that were taken; see gort.deadlock.",
        ),
        plain(
            c"_joins",
            joins,
            ffi::METH_NOARGS,
            c"_joins()\n--\n\n(goroutine, waiters) where somebody waits for its end.",
        ),
        plain(c"_holders_forked", forked, ffi::METH_NOARGS, c"_holders_forked()\n--\n\nKeeps what the caller has."),
    ];
    // SAFETY: GIL held by the module's init; the table is leaked.
    unsafe { ffi::PyModule_AddFunctions(module, methods(table)) == 0 }
}
