//! The type under gort.cache.ConcurrentCache: the core's cache with Python's keys and values in it.
//!
//! A key's `__hash__` and `__eq__`, a value's `__del__` and `on_evict` may do anything: park, raise, use the cache. So a
//! comparison is believed only if nothing came or went meanwhile, no borrow of the state lives over a call into Python, and
//! what an operation takes out it lets go last, when the table is whole again.

mod loads;
mod object;
mod whole;

use super::{arguments, boolean, none, seconds};
use crate::{error, host};
use gort_core::cache::{Cache, NEVER};
use gort_core::sched::now_ns;
use loads::overtake;
pub(crate) use object::register;
use pyo3::ffi;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

type Object = *mut ffi::PyObject;

/// Two references, which the cache owns.
#[derive(Clone, Copy)]
struct Pair {
    key: Object,
    value: Object,
}

struct State {
    cache: Cache<Pair>,
    max_size: usize,
    /// NEVER: entries have no deadline unless they bring one.
    ttl_ns: u64,
    /// Null, or what is called with each pair that is evicted or expires.
    on_evict: Object,
    /// The loads in progress by key: a dict.
    loads: Object,
    hits: u64,
    misses: u64,
    loaded: u64,
    failed: u64,
    evicted: u64,
    expired: u64,
}

#[repr(C)]
struct CacheObject {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    state: State,
}

/// Entries that one operation takes out because their time is up. What more there is goes with the operations after it.
const DUE_AT_ONCE: usize = 4;
/// And those it evicts: two while there are too many, after a `resize` that was left half done.
const EVICTED_AT_ONCE: usize = 2;
/// And one that it came for.
const GONE: usize = DUE_AT_ONCE + EVICTED_AT_ONCE + 1;

/// What an operation took out and has to let go: `on_evict` is told of it. No destructor: to let go may park.
struct Gone {
    pairs: [MaybeUninit<Pair>; GONE],
    count: usize,
}

impl Gone {
    #[inline(always)]
    fn new() -> Self {
        Self { pairs: [MaybeUninit::uninit(); GONE], count: 0 }
    }

    fn push(&mut self, pair: Pair) {
        self.pairs[self.count].write(pair);
        self.count += 1;
    }
}

#[inline(always)]
unsafe fn state(slf: Object) -> *mut State {
    // SAFETY: the method table of the type is used with objects of it only.
    unsafe { &raw mut (*slf.cast::<CacheObject>()).state }
}

/// The time, where the cache needs it.
#[inline(always)]
unsafe fn clock(s: *mut State) -> u64 {
    // SAFETY: GIL held, the state of a live object.
    if unsafe { (*s).cache.has_deadlines() } { now_ns() } else { 0 }
}

/// Takes out what is due, a few at most.
#[inline(always)]
unsafe fn take_due(s: *mut State, now_ns: u64, gone: &mut Gone) {
    // SAFETY: as in `clock`; no Python runs.
    unsafe {
        if (*s).cache.has_deadlines() {
            while gone.count < DUE_AT_ONCE {
                let Some(pair) = (*s).cache.expire(now_ns) else { break };
                (*s).expired += 1;
                gone.push(pair);
            }
        }
    }
}

/// Evicts, a few at most, until there are at most `most`.
unsafe fn take_surplus(s: *mut State, most: usize, at_once: usize, gone: &mut Gone) {
    // SAFETY: as in `clock`; no Python runs.
    unsafe {
        for _ in 0..at_once {
            if (*s).cache.len() <= most {
                break;
            }
            let Some(pair) = (*s).cache.evict() else { break };
            (*s).evicted += 1;
            gone.push(pair);
        }
    }
}

/// Tells `on_evict` of what is gone and lets it go; `result` is the operation's, null with an exception set where it failed.
/// The operation is over: an exception of `on_evict` goes to the caller instead of the result, the first of several.
#[inline(always)]
unsafe fn settle(s: *mut State, result: Object, gone: &Gone) -> Object {
    // SAFETY: as in `settle_all`.
    if gone.count == 0 { result } else { unsafe { settle_all(s, result, gone) } }
}

#[cold]
#[inline(never)]
unsafe fn settle_all(s: *mut State, mut result: Object, gone: &Gone) -> Object {
    // SAFETY: GIL held, the caller keeps the object alive; the pairs are owned by `gone` alone.
    unsafe {
        let mut pending = if result.is_null() { host::gort_take_exception() } else { ptr::null_mut() };
        let on_evict = (*s).on_evict;
        ffi::Py_XINCREF(on_evict);
        for place in &gone.pairs[..gone.count] {
            let Pair { key, value } = place.assume_init();
            if !on_evict.is_null() {
                let no_more: Object = ptr::null_mut();
                let told = ffi::PyObject_CallFunctionObjArgs(on_evict, key, value, no_more);
                if told.is_null() && pending.is_null() {
                    pending = host::gort_take_exception();
                } else if told.is_null() {
                    ffi::PyErr_WriteUnraisable(on_evict);
                }
                ffi::Py_XDECREF(told);
            }
            ffi::Py_DECREF(key);
            ffi::Py_DECREF(value);
        }
        ffi::Py_XDECREF(on_evict);
        if !pending.is_null() {
            ffi::Py_XDECREF(result);
            result = ptr::null_mut();
            host::gort_raise(pending);
        }
        result
    }
}

/// What a look gives.
enum Found {
    At(u32),
    Absent,
    /// An exception is set.
    Failed,
}

/// Looks for a key. Whatever its comparisons do, the slot is right when this returns.
#[inline(always)]
unsafe fn find(s: *mut State, hash: u64, key: Object) -> Found {
    // SAFETY: GIL held, the caller keeps the object alive. A known key is kept over its comparison, after which the table is
    // read only if it is the same.
    unsafe {
        'again: loop {
            let mut probe = (*s).cache.probe(hash);
            while let Some(slot) = (*s).cache.candidate(&mut probe) {
                let known = (*s).cache.item(slot).key;
                if ptr::eq(known, key) {
                    return Found::At(slot);
                }
                let version = (*s).cache.version();
                ffi::Py_INCREF(known);
                let equal = ffi::PyObject_RichCompareBool(known, key, ffi::Py_EQ);
                let is_same = version == (*s).cache.version();
                ffi::Py_DECREF(known);
                if equal < 0 {
                    return Found::Failed;
                }
                if !is_same {
                    continue 'again;
                }
                if equal != 0 {
                    return Found::At(slot);
                }
            }
            return Found::Absent;
        }
    }
}

/// As `find`, for a key without its hash yet; one whose time is up by `now_ns` is taken out and not found.
#[inline(always)]
unsafe fn look(s: *mut State, key: Object, now_ns: u64, gone: &mut Gone) -> (u64, Found) {
    // SAFETY: as in `find`.
    unsafe {
        let hash = ffi::PyObject_Hash(key);
        if hash == -1 {
            return (0, Found::Failed);
        }
        let hash = hash as u64;
        let found = find(s, hash, key);
        if let Found::At(slot) = found
            && (*s).cache.deadline_ns(slot) <= now_ns
        {
            gone.push((*s).cache.remove(slot));
            (*s).expired += 1;
            return (hash, Found::Absent);
        }
        (hash, found)
    }
}

/// A value that was asked for, a new reference; null: it is absent, or an exception is set and the second is true.
#[inline(always)]
unsafe fn ask(s: *mut State, key: Object, gone: &mut Gone) -> (Object, bool) {
    // SAFETY: as in `find`.
    unsafe {
        let now_ns = clock(s);
        take_due(s, now_ns, gone);
        match look(s, key, now_ns, gone).1 {
            Found::At(slot) => {
                (*s).cache.touch(slot);
                (*s).hits += 1;
                let value = (*s).cache.item(slot).value;
                ffi::Py_INCREF(value);
                (value, false)
            }
            Found::Absent => {
                (*s).misses += 1;
                (ptr::null_mut(), false)
            }
            Found::Failed => (ptr::null_mut(), true),
        }
    }
}

/// (value, True), which takes the reference over; or (None, False) for null.
#[inline(always)]
unsafe fn pair_of(value: Object) -> Object {
    // SAFETY: GIL held.
    unsafe {
        let pair = ffi::PyTuple_New(2);
        if pair.is_null() {
            ffi::Py_XDECREF(value);
            return pair;
        }
        ffi::PyTuple_SET_ITEM(pair, 1, boolean(!value.is_null()));
        ffi::PyTuple_SET_ITEM(pair, 0, if value.is_null() { none() } else { value });
        pair
    }
}

unsafe extern "C-unwind" fn get(slf: Object, key: Object) -> Object {
    // SAFETY: METH_O with the GIL; the caller keeps both alive.
    unsafe {
        let s = state(slf);
        let mut gone = Gone::new();
        let (value, has_failed) = ask(s, key, &mut gone);
        settle(s, if has_failed { value } else { pair_of(value) }, &gone)
    }
}

/// `cache[key]`.
unsafe extern "C-unwind" fn subscript(slf: Object, key: Object) -> Object {
    // SAFETY: mp_subscript with the GIL.
    unsafe {
        let s = state(slf);
        let mut gone = Gone::new();
        let (value, has_failed) = ask(s, key, &mut gone);
        if value.is_null() && !has_failed {
            ffi::PyErr_SetObject(ffi::PyExc_KeyError, key);
        }
        settle(s, value, &gone)
    }
}

/// Whether a key is in, without asking for it; as the result of an operation.
unsafe fn peek_at(slf: Object, key: Object, as_pair: bool) -> Object {
    // SAFETY: as in `find`.
    unsafe {
        let s = state(slf);
        let mut gone = Gone::new();
        let result = match look(s, key, clock(s), &mut gone).1 {
            Found::At(slot) if as_pair => {
                let value = (*s).cache.item(slot).value;
                ffi::Py_INCREF(value);
                pair_of(value)
            }
            Found::Absent if as_pair => pair_of(ptr::null_mut()),
            Found::At(_) => boolean(true),
            Found::Absent => boolean(false),
            Found::Failed => ptr::null_mut(),
        };
        settle(s, result, &gone)
    }
}

/// `_peek(key)`: as get(), without a hit or a miss.
unsafe extern "C-unwind" fn peek(slf: Object, key: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { peek_at(slf, key, true) }
}

/// `key in cache`.
unsafe extern "C-unwind" fn contains(slf: Object, key: Object) -> c_int {
    // SAFETY: sq_contains with the GIL.
    unsafe {
        let answer = peek_at(slf, key, false);
        if answer.is_null() {
            return -1;
        }
        ffi::Py_DECREF(answer);
        c_int::from(ptr::eq(answer, ffi::Py_True()))
    }
}

/// Seconds an entry lives as ns, where `None` is the cache's own. `Err`: an exception is set.
unsafe fn ttl_ns(ttl: Object, default: u64) -> Result<u64, ()> {
    // SAFETY: GIL held; null or a live object.
    unsafe {
        if ttl.is_null() || ttl == ffi::Py_None() {
            return Ok(default);
        }
        match seconds(ttl, "ttl")? {
            0 => {
                error::set(ffi::PyExc_ValueError, "ttl must be more than 0 seconds");
                Err(())
            }
            9_000_000_000_000_000_000.. => Ok(NEVER), // `seconds` goes no further: infinity
            ns => Ok(ns),
        }
    }
}

/// Puts a pair in; `None`, or null with an exception set and nothing changed.
unsafe fn put_pair(s: *mut State, key: Object, value: Object, ttl_ns: u64) -> Object {
    // SAFETY: as in `find`; after the look nothing runs until the table is whole.
    unsafe {
        let has_deadline = ttl_ns != NEVER;
        let now_ns = if has_deadline { now_ns() } else { clock(s) };
        let deadline_ns = if has_deadline { now_ns.saturating_add(ttl_ns) } else { NEVER };
        let mut gone = Gone::new();
        take_due(s, now_ns, &mut gone);
        let (hash, found) = look(s, key, now_ns, &mut gone);
        let result = match found {
            Found::Failed => ptr::null_mut(),
            _ if !(*s).cache.reserve(((*s).cache.len() + 1).min((*s).max_size), has_deadline) => ffi::PyErr_NoMemory(),
            Found::At(slot) => {
                let known = (*s).cache.item(slot).key;
                ffi::Py_INCREF(value);
                let old = (*s).cache.replace(slot, Pair { key: known, value }, deadline_ns).value;
                // The only reference that is let go without `on_evict`; the table is whole.
                ffi::Py_DECREF(old);
                none()
            }
            Found::Absent => {
                take_surplus(s, (*s).max_size - 1, EVICTED_AT_ONCE, &mut gone);
                ffi::Py_INCREF(key);
                ffi::Py_INCREF(value);
                (*s).cache.insert(hash, Pair { key, value }, deadline_ns);
                none()
            }
        };
        settle(s, result, &gone)
    }
}

unsafe extern "C-unwind" fn put(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller keeps the arguments alive.
    unsafe {
        let names = [c"key", c"value", c"ttl"];
        let Some([key, value, ttl]) = arguments("put", args, n, kw, names, 2) else { return ptr::null_mut() };
        let s = state(slf);
        let Ok(ttl_ns) = ttl_ns(ttl, (*s).ttl_ns) else { return ptr::null_mut() };
        if overtake(s, key) { put_pair(s, key, value, ttl_ns) } else { ptr::null_mut() }
    }
}

/// Whether it was there; null with an exception set.
unsafe fn delete_key(slf: Object, key: Object) -> Object {
    // SAFETY: as in `find`.
    unsafe {
        let s = state(slf);
        if !overtake(s, key) {
            return ptr::null_mut();
        }
        let mut gone = Gone::new();
        let now_ns = clock(s);
        take_due(s, now_ns, &mut gone);
        let result = match look(s, key, now_ns, &mut gone).1 {
            Found::At(slot) => {
                let Pair { key, value } = (*s).cache.remove(slot);
                ffi::Py_DECREF(key);
                ffi::Py_DECREF(value);
                boolean(true)
            }
            Found::Absent => boolean(false),
            Found::Failed => ptr::null_mut(),
        };
        settle(s, result, &gone)
    }
}

unsafe extern "C-unwind" fn delete(slf: Object, key: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { delete_key(slf, key) }
}

/// `cache[key] = value` and `del cache[key]`.
unsafe extern "C-unwind" fn assign(slf: Object, key: Object, value: Object) -> c_int {
    // SAFETY: mp_ass_subscript with the GIL.
    unsafe {
        let s = state(slf);
        let done = if value.is_null() {
            delete_key(slf, key)
        } else if overtake(s, key) {
            put_pair(s, key, value, (*s).ttl_ns)
        } else {
            ptr::null_mut()
        };
        if done.is_null() {
            return -1;
        }
        ffi::Py_DECREF(done);
        if ptr::eq(done, ffi::Py_False()) {
            ffi::PyErr_SetObject(ffi::PyExc_KeyError, key);
            return -1;
        }
        0
    }
}
