//! Block and mutex profiles: what the core chooses of waits and of unlocks, summed by stack. An event costs a walk of the frames and
//! a look into a table; a stack is made into objects when it is seen first.

use super::chan::tuple;
use super::gc::Uncollected;
use super::{arguments, fast, methods, runtime};
use crate::stacks::{key_of, stack_of};
use gort_core::goroutine::waiter::reason_name;
use gort_core::sched::contention::{Delay, Profile};
use pyo3::ffi;
use std::collections::HashMap;
use std::ptr;
use std::sync::{Mutex, MutexGuard};

type Object = *mut ffi::PyObject;

/// What events have in common: an owned tuple of `stack_of`, which keeps alive what the key names by address.
struct Sum {
    stack: Object,
    count: f64,
    ns: u64,
}
// SAFETY: touched with the GIL alone.
unsafe impl Send for Sum {}

/// One profile. Kept to the end of the process, as Go's.
#[derive(Default)]
struct Sums {
    /// By what was waited for and the addresses of the frames.
    stacks: HashMap<Vec<u64>, Sum>,
    /// The key of the event at hand.
    key: Vec<u64>,
    /// Events that memory was refused for.
    lost: u64,
}

/// Of both profiles. Only touched with the GIL held: no thread waits for it.
static PROFILES: Mutex<Option<[Sums; 2]>> = Mutex::new(None);

fn profiles() -> MutexGuard<'static, Option<[Sums; 2]>> {
    PROFILES.lock().unwrap_or_else(|e| e.into_inner())
}

/// Frames deeper than that are left out; Go's number.
const DEPTH: usize = 128;

/// The caller's stack; null when memory is refused. An exception that is set stays set.
unsafe fn stack_here(state: *mut ffi::PyThreadState) -> Object {
    // SAFETY: GIL held; the state is current.
    unsafe {
        let (mut kind, mut value, mut traceback) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        #[allow(deprecated, reason = "what replaces it is not in 3.11")]
        ffi::PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut traceback);
        let _uncollected = Uncollected::begin();
        let stack = stack_of(state, DEPTH);
        #[allow(deprecated, reason = "as above")]
        ffi::PyErr_Restore(kind, value, traceback);
        stack
    }
}

/// Adds an event; `None`: memory is refused.
unsafe fn add(sums: &mut Sums, delay: Delay) -> Option<()> {
    // SAFETY: GIL held: the caller's state is current, and its frames are those that wait or unlock.
    unsafe {
        let state = ffi::PyThreadState_Get();
        sums.key.clear();
        sums.key.try_reserve(1).ok()?;
        sums.key.push(delay.reason as u64);
        if !key_of(state, DEPTH, &mut sums.key) {
            return None;
        }
        let (count, ns) = delay.weight();
        if let Some(known) = sums.stacks.get_mut(&sums.key[..]) {
            known.count += count;
            known.ns = known.ns.saturating_add(ns);
            return Some(());
        }
        let mut key = Vec::new();
        key.try_reserve_exact(sums.key.len()).ok()?;
        key.extend_from_slice(&sums.key);
        sums.stacks.try_reserve(1).ok()?;
        let stack = stack_here(state);
        if stack.is_null() {
            return None;
        }
        sums.stacks.insert(key, Sum { stack, count, ns });
        Some(())
    }
}

/// `Runtime::contention`'s hook.
///
/// # Safety
/// With the GIL, by who waited or unlocks.
unsafe fn note(delay: Delay) {
    if let Some(all) = profiles().as_mut() {
        let sums = &mut all[delay.profile as usize];
        // SAFETY: the caller's promise.
        if unsafe { add(sums, delay) }.is_none() {
            sums.lost += 1;
        }
    }
}

/// A rate; `None` for a negative one, which leaves it as it is. `Err`: an exception is set.
unsafe fn rate_of(object: Object) -> Result<Option<u64>, ()> {
    // SAFETY: GIL held; a live object.
    let n = unsafe { ffi::PyLong_AsLongLong(object) };
    // SAFETY: GIL held.
    if n == -1 && !unsafe { ffi::PyErr_Occurred() }.is_null() { Err(()) } else { Ok(u64::try_from(n).ok()) }
}

/// `_contention_rates(block_ns, mutex)`.
unsafe extern "C-unwind" fn rates(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([block, mutex]) = arguments("_contention_rates", args, nargs, kw, [c"block_ns", c"mutex"], 2) else {
            return ptr::null_mut();
        };
        let (Ok(block), Ok(mutex)) = (rate_of(block), rate_of(mutex)) else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        profiles().get_or_insert_default();
        let _ = rt.contention.note.set(note);
        // Before they are set: where memory is refused for the answer they are as they were.
        let (block_before, mutex_before) = rt.contention.rates();
        let before = [block_before, mutex_before].map(|rate| ffi::PyLong_FromUnsignedLongLong(rate));
        let answer = tuple(before);
        if !answer.is_null() {
            rt.set_contention_rates(block, mutex);
        }
        answer
    }
}

/// `_contention_records(is_mutex)`.
unsafe extern "C-unwind" fn records(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL. The collector is off while records are made, so no code of others runs in between.
    unsafe {
        let Some([which]) = arguments("_contention_records", args, nargs, kw, [c"is_mutex"], 1) else {
            return ptr::null_mut();
        };
        let which = if ffi::PyObject_IsTrue(which) == 1 { Profile::Mutex } else { Profile::Block };
        let _uncollected = Uncollected::begin();
        records_of(which)
    }
}

unsafe fn records_of(which: Profile) -> Object {
    // SAFETY: GIL held, the collector off.
    unsafe {
        let mut all = profiles();
        let list = ffi::PyList_New(0);
        let Some(all) = all.as_mut() else { return tuple([list, ffi::PyLong_FromLong(0)]) };
        let sums = &all[which as usize];
        for (key, sum) in &sums.stacks {
            let reason = reason_name(key[0] as u8);
            let word = ffi::PyUnicode_FromStringAndSize(reason.as_ptr().cast(), reason.len() as _);
            let (count, ns) = (ffi::PyLong_FromDouble(sum.count), ffi::PyLong_FromUnsignedLongLong(sum.ns));
            let item = tuple([word, ffi::Py_NewRef(sum.stack), count, ns]);
            let is_in = !item.is_null() && !list.is_null() && ffi::PyList_Append(list, item) == 0;
            ffi::Py_XDECREF(item);
            if !is_in {
                ffi::Py_XDECREF(list);
                return ptr::null_mut();
            }
        }
        tuple([list, ffi::PyLong_FromUnsignedLongLong(sums.lost)])
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        fast(
            c"_contention_rates",
            rates,
            c"_contention_rates(block_ns, mutex)\n--\n\nSets the rates of the profiles; negative: leaves one. Those before.",
        ),
        fast(
            c"_contention_records",
            records,
            c"_contention_records(is_mutex)\n--\n\nWhat a profile has: (what for, stack, count, ns) each; and events lost.",
        ),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
