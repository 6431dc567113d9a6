//! The types of gort.sync but Cond: a Python object around each of the core's. Misuse is a RuntimeError with Go's words
//! and changes nothing; an argument that is wrong by itself is a TypeError or ValueError.

use super::context::limited_object;
use super::{arguments, boolean, fast, holders, methods, none, plain, runtime};
use crate::error;
use gort_core::goroutine::ender::Until;
use gort_core::goroutine::waiter::{Node, Outcome};
use gort_core::sched::Runtime;
use gort_core::sync::{Misuse, Mutex, RwMutex, Semaphore, WaitGroup};
use pyo3::ffi;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

/// The Mutex type, for Cond's short way.
pub(super) static MUTEX_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// The RWMutex, WaitGroup and Semaphore types of the core.
static OTHER_TYPES: [AtomicPtr<ffi::PyTypeObject>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

/// Mutex, RWMutex, WaitGroup and Semaphore; null before they are made.
pub(crate) fn types() -> [*mut ffi::PyTypeObject; 4] {
    let [rw_mutex, wait_group, semaphore] = &OTHER_TYPES;
    [&MUTEX_TYPE, rw_mutex, wait_group, semaphore].map(|tp| tp.load(Ordering::Relaxed)) // the GIL orders it
}

/// Which of them an object is of: its place there.
unsafe fn which(object: Object) -> Option<usize> {
    // SAFETY: GIL held, `object` alive; the types are null or alive.
    types().iter().position(|&tp| !tp.is_null() && unsafe { ffi::PyObject_TypeCheck(object, tp) } != 0)
}

/// Calls `f` with each that waits for an object of one of these types.
///
/// # Safety
/// GIL held; `object` is alive.
pub(crate) unsafe fn for_each_waiter(object: Object, f: impl FnMut(&Node)) {
    // SAFETY: the type says what is in the object.
    unsafe {
        match which(object) {
            Some(0) => inner::<Mutex>(object).for_each_waiter(f),
            Some(1) => inner::<RwMutex>(object).for_each_waiter(f),
            Some(2) => inner::<WaitGroup>(object).for_each_waiter(f),
            Some(3) => inner::<Semaphore>(object).for_each_waiter(f),
            _ => {}
        }
    }
}

/// Whether somebody has the lock, or units of the semaphore; for other objects `None`.
///
/// # Safety
/// GIL held; `object` is alive.
pub(crate) unsafe fn is_taken(object: Object) -> Option<bool> {
    // SAFETY: the type says what is in the object.
    unsafe {
        match which(object)? {
            0 => Some(inner::<Mutex>(object).is_locked()),
            1 => Some(inner::<RwMutex>(object).is_locked()),
            3 => Some(inner::<Semaphore>(object).taken() != 0),
            _ => None,
        }
    }
}

#[repr(C)]
pub(super) struct Holder<T> {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    pub(super) weak_list: Object,
    pub(super) inner: T,
}

/// Where the object is whose Mutex or RwMutex is at this address.
pub(super) fn object_of(inner: usize) -> Object {
    // They lie at the same place in both.
    const { assert!(std::mem::offset_of!(Holder<Mutex>, inner) == std::mem::offset_of!(Holder<RwMutex>, inner)) };
    ptr::with_exposed_provenance_mut(inner - std::mem::offset_of!(Holder<Mutex>, inner))
}

/// The other way round.
pub(super) fn address_of(object: Object) -> usize {
    object.expose_provenance() + std::mem::offset_of!(Holder<Mutex>, inner)
}

#[inline(always)]
pub(super) unsafe fn inner<'a, T>(slf: Object) -> &'a T {
    // SAFETY: the method table of a type is used with objects of that type only; the caller keeps `slf` alive.
    unsafe { &(*slf.cast::<Holder<T>>()).inner }
}

/// Runs a blocking operation until it is done or an exception is set.
#[inline(always)]
pub(super) unsafe fn wait(until: Until, mut op: impl FnMut(&'static Runtime, Until) -> Outcome) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    loop {
        let outcome = op(rt, until);
        if outcome == Outcome::Delivered {
            return none();
        }
        if !error::ended(rt, outcome) {
            return ptr::null_mut();
        }
    }
}

pub(super) fn done(result: Result<(), Misuse>) -> Object {
    match result {
        Ok(()) => none(),
        // SAFETY: GIL held.
        Err(Misuse(text)) => error::set(unsafe { ffi::PyExc_RuntimeError }, text),
    }
}

pub(super) unsafe fn alloc<T>(tp: *mut ffi::PyTypeObject, value: T) -> Object {
    // SAFETY: GIL held; the type's basicsize is Holder<T>'s or a subclass's.
    unsafe {
        let obj = ffi::PyType_GenericAlloc(tp, 0);
        if !obj.is_null() {
            ptr::write(&raw mut (*obj.cast::<Holder<T>>()).inner, value);
        }
        obj
    }
}

unsafe extern "C" fn new_default<T: Default>(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        // As object.__new__: arguments are for an __init__ of a subclass, if it has one.
        let any = ffi::PyTuple_GET_SIZE(args) != 0 || (!kwargs.is_null() && ffi::PyDict_Size(kwargs) != 0);
        let own_init = (*tp).tp_init.map(|f| f as usize) != ffi::PyBaseObject_Type.tp_init.map(|f| f as usize);
        if any && !own_init {
            ffi::PyErr_Format(ffi::PyExc_TypeError, c"%s() takes no arguments".as_ptr(), (*tp).tp_name);
            return ptr::null_mut();
        }
        alloc(tp, T::default())
    }
}

unsafe extern "C" fn dealloc<T>(slf: Object) {
    // SAFETY: the last reference is gone, so nobody waits.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        super::end_weak_references(slf, (*slf.cast::<Holder<T>>()).weak_list);
        holders::forgetting(&raw const (*slf.cast::<Holder<T>>()).inner);
        ptr::drop_in_place(&raw mut (*slf.cast::<Holder<T>>()).inner);
        if let Some(free) = (*tp).tp_free {
            free(slf.cast());
        }
        ffi::Py_DECREF(tp.cast());
    }
}

/// `name(timeout=None, ctx=None)` that waits.
macro_rules! waiting {
    ($f:ident, $name:literal, $t:ty, $op:expr) => {
        unsafe extern "C-unwind" fn $f(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
            /// Out of line: what it needs would be a part of the stack of everybody who waits.
            #[inline(never)]
            unsafe fn limited(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
                // SAFETY: as below.
                unsafe {
                    let Some([timeout, ctx]) = arguments($name, args, n, kw, [c"timeout", c"ctx"], 0) else {
                        return ptr::null_mut();
                    };
                    let object = inner::<$t>(slf);
                    limited_object(timeout, ctx, |until| wait(until, |rt, until| $op(object, rt, until)))
                }
            }
            // SAFETY: a vectorcall with the GIL.
            unsafe {
                if n == 0 && kw.is_null() {
                    let object = inner::<$t>(slf);
                    return wait(Until::Never, |rt, until| $op(object, rt, until));
                }
                limited(slf, args, n, kw)
            }
        }
    };
}

/// `__enter__`: waits without a time-out and gives the object itself.
macro_rules! enter {
    ($f:ident, $t:ty, $op:expr) => {
        unsafe extern "C-unwind" fn $f(slf: Object, _: Object) -> Object {
            // SAFETY: METH_NOARGS with the GIL.
            unsafe {
                let object = inner::<$t>(slf);
                let entered = wait(Until::Never, |rt, d| $op(object, rt, d));
                if !entered.is_null() {
                    ffi::Py_DECREF(entered);
                    ffi::Py_INCREF(slf);
                    return slf;
                }
                entered
            }
        }
    };
}

/// A METH_NOARGS method.
macro_rules! simple {
    ($f:ident, $t:ty, $op:expr) => {
        unsafe extern "C-unwind" fn $f(slf: Object, _: Object) -> Object {
            // SAFETY: METH_NOARGS with the GIL.
            $op(unsafe { inner::<$t>(slf) })
        }
    };
}

/// `Mutex::lock`, with a note of who has it.
#[inline(always)]
pub(super) fn lock_mutex(m: &Mutex, rt: &'static Runtime, until: Until) -> Outcome {
    holders::taking(m, || m.try_lock(), || m.lock(rt, until))
}

#[inline(always)]
fn lock_rw(m: &RwMutex, rt: &'static Runtime, until: Until) -> Outcome {
    holders::taking(m, || m.try_lock(), || m.lock(rt, until))
}

#[inline(always)]
fn rlock_rw(m: &RwMutex, rt: &'static Runtime, until: Until) -> Outcome {
    holders::taking(m, || m.try_rlock(), || m.rlock(rt, until))
}

/// Unlocks; the note goes first, as whoever is woken may run before this returns.
#[inline(always)]
pub(super) fn unlock_mutex(m: &Mutex) -> Result<(), Misuse> {
    holders::letting_go(m);
    m.unlock()
}

#[inline(always)]
fn unlock_rw(m: &RwMutex) -> Result<(), Misuse> {
    holders::letting_go(m);
    m.unlock()
}

waiting!(mutex_lock, "lock", Mutex, lock_mutex);
simple!(mutex_unlock, Mutex, |m: &Mutex| done(unlock_mutex(m)));
simple!(mutex_try_lock, Mutex, |m: &Mutex| boolean(holders::tried(m, m.try_lock())));
waiting!(rw_lock, "lock", RwMutex, lock_rw);
waiting!(rw_rlock, "rlock", RwMutex, rlock_rw);
simple!(rw_unlock, RwMutex, |m: &RwMutex| done(unlock_rw(m)));
simple!(rw_runlock, RwMutex, |m: &RwMutex| {
    holders::letting_go(m);
    done(m.runlock())
});
simple!(rw_try_lock, RwMutex, |m: &RwMutex| boolean(holders::tried(m, m.try_lock())));
simple!(rw_try_rlock, RwMutex, |m: &RwMutex| boolean(holders::tried(m, m.try_rlock())));
enter!(enter_mutex, Mutex, lock_mutex);
enter!(enter_rw, RwMutex, lock_rw);
enter!(enter_semaphore, Semaphore, |s: &Semaphore, rt, d| s.acquire(rt, 1, d));
simple!(group_done, WaitGroup, |w: &WaitGroup| done(w.add(-1)));

unsafe extern "C-unwind" fn leave_mutex(slf: Object, _: *const Object, _: ffi::Py_ssize_t, _: Object) -> Object {
    // SAFETY: `__exit__` of a Mutex.
    done(unlock_mutex(unsafe { inner::<Mutex>(slf) }))
}

unsafe extern "C-unwind" fn leave_rw(slf: Object, _: *const Object, _: ffi::Py_ssize_t, _: Object) -> Object {
    // SAFETY: `__exit__` of an RWMutex.
    done(unlock_rw(unsafe { inner::<RwMutex>(slf) }))
}

unsafe extern "C-unwind" fn group_add(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([delta]) = arguments("add", args, n, kw, [c"n"], 0) else { return ptr::null_mut() };
        let delta = if delta.is_null() { 1 } else { ffi::PyLong_AsLongLong(delta) };
        if delta == -1 && !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        done(inner::<WaitGroup>(slf).add(delta))
    }
}

unsafe extern "C-unwind" fn group_wait(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([timeout, ctx]) = arguments("wait", args, n, kw, [c"timeout", c"ctx"], 0) else {
            return ptr::null_mut();
        };
        let group = inner::<WaitGroup>(slf);
        limited_object(timeout, ctx, |until| {
            let Some(rt) = runtime() else { return ptr::null_mut() };
            loop {
                match group.wait(rt, until) {
                    Ok(Outcome::Delivered) => return none(),
                    Ok(outcome) if error::ended(rt, outcome) => {}
                    Ok(_) => return ptr::null_mut(),
                    Err(misuse) => return done(Err(misuse)),
                }
            }
        })
    }
}

unsafe extern "C" fn semaphore_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let mut n: std::ffi::c_longlong = 0;
        let mut names = [c"n".as_ptr().cast_mut(), ptr::null_mut()];
        let format = c"L:Semaphore".as_ptr();
        if ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format, names.as_mut_ptr().cast(), &raw mut n) == 0 {
            return ptr::null_mut();
        }
        if n < 0 {
            return error::set(ffi::PyExc_ValueError, "semaphore: size < 0");
        }
        alloc(tp, Semaphore::new(n as u64))
    }
}

unsafe fn units(value: Object) -> Option<u64> {
    // SAFETY: GIL held; null or a live object.
    unsafe {
        let n = if value.is_null() { 1 } else { ffi::PyLong_AsLongLong(value) };
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return None;
        }
        if n < 0 {
            error::set(ffi::PyExc_ValueError, "semaphore: n < 0");
            return None;
        }
        Some(n as u64)
    }
}

unsafe extern "C-unwind" fn acquire(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"n", c"timeout", c"ctx"];
        let Some([amount, timeout, ctx]) = arguments("acquire", args, n, kw, names, 0) else {
            return ptr::null_mut();
        };
        let Some(amount) = units(amount) else { return ptr::null_mut() };
        let s = inner::<Semaphore>(slf);
        limited_object(timeout, ctx, |until| wait(until, |rt, until| s.acquire(rt, amount, until)))
    }
}

unsafe extern "C-unwind" fn try_acquire(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([amount]) = arguments("try_acquire", args, n, kw, [c"n"], 0) else { return ptr::null_mut() };
        let Some(amount) = units(amount) else { return ptr::null_mut() };
        boolean(inner::<Semaphore>(slf).try_acquire(amount))
    }
}

unsafe extern "C-unwind" fn release(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([amount]) = arguments("release", args, n, kw, [c"n"], 0) else { return ptr::null_mut() };
        let Some(amount) = units(amount) else { return ptr::null_mut() };
        done(inner::<Semaphore>(slf).release(amount))
    }
}

unsafe extern "C-unwind" fn leave_semaphore(slf: Object, _: *const Object, _: ffi::Py_ssize_t, _: Object) -> Object {
    // SAFETY: `__exit__` of a Semaphore.
    done(unsafe { inner::<Semaphore>(slf) }.release(1))
}

fn mutex_methods() -> Vec<ffi::PyMethodDef> {
    let try_lock = c"try_lock($self, /)\n--\n\nLocks if it is free; whether it did. Never parks.";
    vec![
        fast(c"lock", mutex_lock, c"lock($self, /, timeout=None, ctx=None)\n--\n\nLocks; parks while another has it."),
        plain(c"unlock", mutex_unlock, ffi::METH_NOARGS, c"unlock($self, /)\n--\n\nUnlocks; any goroutine may."),
        plain(c"try_lock", mutex_try_lock, ffi::METH_NOARGS, try_lock),
        plain(c"__enter__", enter_mutex, ffi::METH_NOARGS, c"Locks."),
        fast(c"__exit__", leave_mutex, c"Unlocks."),
    ]
}

fn rw_methods() -> Vec<ffi::PyMethodDef> {
    let rlock =
        c"rlock($self, /, timeout=None, ctx=None)\n--\n\nLocks for reading. Parks while a writer has it or waits.";
    let try_lock = c"try_lock($self, /)\n--\n\nLocks for writing if free. Never parks.";
    let try_rlock = c"try_rlock($self, /)\n--\n\nLocks for reading if no writer has it or waits. Never parks.";
    vec![
        fast(c"lock", rw_lock, c"lock($self, /, timeout=None, ctx=None)\n--\n\nLocks for writing. Parks."),
        fast(c"rlock", rw_rlock, rlock),
        plain(c"unlock", rw_unlock, ffi::METH_NOARGS, c"unlock($self, /)\n--\n\nUnlocks for writing."),
        plain(c"runlock", rw_runlock, ffi::METH_NOARGS, c"runlock($self, /)\n--\n\nUnlocks for reading."),
        plain(c"try_lock", rw_try_lock, ffi::METH_NOARGS, try_lock),
        plain(c"try_rlock", rw_try_rlock, ffi::METH_NOARGS, try_rlock),
        plain(c"__enter__", enter_rw, ffi::METH_NOARGS, c"Locks for writing."),
        fast(c"__exit__", leave_rw, c"Unlocks for writing."),
    ]
}

fn group_methods() -> Vec<ffi::PyMethodDef> {
    vec![
        fast(c"add", group_add, c"add($self, /, n=1)\n--\n\nAdds n, which may be negative. Never parks."),
        plain(c"done", group_done, ffi::METH_NOARGS, c"done($self, /)\n--\n\nTakes one off. Never parks."),
        fast(c"wait", group_wait, c"wait($self, /, timeout=None, ctx=None)\n--\n\nParks until the counter is zero."),
    ]
}

fn semaphore_methods() -> Vec<ffi::PyMethodDef> {
    let try_acquire_doc = c"try_acquire($self, /, n=1)\n--\n\nTakes n units if free and nobody waits. Never parks.";
    vec![
        fast(
            c"acquire",
            acquire,
            c"acquire($self, /, n=1, timeout=None, ctx=None)\n--\n\nTakes n units; parks, in order.",
        ),
        fast(c"try_acquire", try_acquire, try_acquire_doc),
        fast(c"release", release, c"release($self, /, n=1)\n--\n\nGives n units back. Never parks."),
        plain(c"__enter__", enter_semaphore, ffi::METH_NOARGS, c"Takes one unit."),
        fast(c"__exit__", leave_semaphore, c"Gives one unit back."),
    ]
}

const MUTEX_DOC: &CStr = c"Mutex()\n--\n
A lock: not re-entrant, not owned by a goroutine; waiters get it in order.

`with m:` locks and unlocks. lock() parks, at most `timeout` seconds (TimeoutError). unlock() of an
unlocked mutex raises RuntimeError \"sync: unlock of unlocked mutex\".

Example:
    >>> import gort
    >>> m = gort.Mutex()
    >>> with m:
    ...     m.try_lock()
    False
";

const RW_DOC: &CStr = c"RWMutex()\n--\n
Go's sync.RWMutex; gort.RWMutex adds reading().";

const GROUP_DOC: &CStr = c"WaitGroup()\n--\n
Go's sync.WaitGroup; gort.WaitGroup adds go().";

const SEMAPHORE_DOC: &CStr = c"Semaphore(n)\n--\n
A weighted semaphore of `n` units; waiters are served in order, none overtakes.

`with s:` takes one unit and gives it back. acquire() parks, at most `timeout` seconds
(TimeoutError); a request for more than n blocks nobody but itself. release() of more than is held
raises RuntimeError \"semaphore: released more than held\", a negative n ValueError.

Example:
    >>> import gort
    >>> s = gort.Semaphore(3)
    >>> s.acquire(2)
    >>> s.try_acquire(2), s.try_acquire()
    (False, True)
    >>> s.release(3)
";

/// Adds a type around a `T`; null with an exception set on failure.
unsafe fn add<T>(
    module: Object,
    name: &'static CStr,
    new: ffi::newfunc,
    doc: &'static CStr,
    table: Vec<ffi::PyMethodDef>,
) -> *mut ffi::PyTypeObject {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let slots = vec![
        super::weak_list(std::mem::offset_of!(Holder<T>, weak_list)),
        slot(ffi::Py_tp_new, new as *mut _),
        slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut _),
        slot(ffi::Py_tp_methods, methods(table).cast()),
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
    ];
    // SAFETY: GIL held by the module's init.
    unsafe { super::add_type(module, name, size_of::<Holder<T>>(), ffi::Py_TPFLAGS_BASETYPE, slots) }
}

/// Adds the types.
pub(crate) unsafe fn register(module: Object) -> bool {
    // SAFETY: GIL held by the module's init.
    unsafe {
        let mutex = add::<Mutex>(module, c"gort.Mutex", new_default::<Mutex>, MUTEX_DOC, mutex_methods());
        MUTEX_TYPE.store(mutex, Ordering::Release); // read under the GIL, which orders it
        let others = [
            add::<RwMutex>(module, c"gort.RWMutex", new_default::<RwMutex>, RW_DOC, rw_methods()),
            add::<WaitGroup>(module, c"gort.WaitGroup", new_default::<WaitGroup>, GROUP_DOC, group_methods()),
            add::<Semaphore>(module, c"gort.Semaphore", semaphore_new, SEMAPHORE_DOC, semaphore_methods()),
        ];
        for (place, tp) in OTHER_TYPES.iter().zip(others) {
            place.store(tp, Ordering::Release); // read under the GIL, which orders it
        }
        !mutex.is_null() && others.iter().all(|tp| !tp.is_null())
    }
}
