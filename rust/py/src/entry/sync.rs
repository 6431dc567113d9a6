//! The types of gort.sync: a Python object around each of the core's.

use super::{arguments, boolean, deadline, fast, methods, none, plain, runtime};
use crate::error;
use gort_core::goroutine::waiter::{Outcome, Reason};
use gort_core::sync::{Misuse, Mutex, NotifyList, RwMutex, Semaphore, WaitGroup};
use pyo3::ffi;
use std::ptr;

type Object = *mut ffi::PyObject;

#[repr(C)]
struct Holder<T> {
    ob_base: ffi::PyObject,
    inner: T,
}

#[inline(always)]
unsafe fn inner<'a, T>(slf: Object) -> &'a T {
    // SAFETY: the method table of a type is used with objects of that type only; the caller keeps `slf` alive.
    unsafe { &(*slf.cast::<Holder<T>>()).inner }
}

/// Runs a blocking operation until it is done or an exception is set.
#[inline(always)]
unsafe fn wait(
    until: Option<u64>,
    mut op: impl FnMut(&'static gort_core::sched::Runtime, Option<u64>) -> Outcome,
) -> Object {
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

fn done(result: Result<(), Misuse>) -> Object {
    match result {
        Ok(()) => none(),
        // SAFETY: GIL held.
        Err(Misuse(text)) => error::set(unsafe { ffi::PyExc_RuntimeError }, text),
    }
}

unsafe fn alloc<T>(tp: *mut ffi::PyTypeObject, value: T) -> Object {
    // SAFETY: GIL held; the type's basicsize is Holder<T>'s or a subclass's.
    unsafe {
        let obj = ffi::PyType_GenericAlloc(tp, 0);
        if !obj.is_null() {
            ptr::write(&raw mut (*obj.cast::<Holder<T>>()).inner, value);
        }
        obj
    }
}

unsafe extern "C" fn new_default<T: Default>(tp: *mut ffi::PyTypeObject, _: Object, _: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe { alloc(tp, T::default()) }
}

unsafe extern "C" fn dealloc<T>(slf: Object) {
    // SAFETY: the last reference is gone, so nobody waits.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ptr::drop_in_place(&raw mut (*slf.cast::<Holder<T>>()).inner);
        if let Some(free) = (*tp).tp_free {
            free(slf.cast());
        }
        ffi::Py_DECREF(tp.cast());
    }
}

/// `name(timeout=None)` that waits.
macro_rules! waiting {
    ($f:ident, $name:literal, $t:ty, $op:expr) => {
        unsafe extern "C-unwind" fn $f(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
            // SAFETY: a vectorcall with the GIL.
            unsafe {
                let until = if n == 0 && kw.is_null() {
                    None
                } else {
                    let Some([timeout]) = arguments($name, args, n, kw, [c"timeout"], 0) else {
                        return ptr::null_mut();
                    };
                    let Ok(until) = deadline(timeout) else { return ptr::null_mut() };
                    until
                };
                let object = inner::<$t>(slf);
                wait(until, |rt, d| $op(object, rt, d))
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

waiting!(mutex_lock, "lock", Mutex, Mutex::lock);
simple!(mutex_unlock, Mutex, |m: &Mutex| done(m.unlock()));
simple!(mutex_try_lock, Mutex, |m: &Mutex| boolean(m.try_lock()));
waiting!(rw_lock, "lock", RwMutex, RwMutex::lock);
waiting!(rw_rlock, "rlock", RwMutex, RwMutex::rlock);
simple!(rw_unlock, RwMutex, |m: &RwMutex| done(m.unlock()));
simple!(rw_runlock, RwMutex, |m: &RwMutex| done(m.runlock()));
simple!(rw_try_lock, RwMutex, |m: &RwMutex| boolean(m.try_lock()));
simple!(rw_try_rlock, RwMutex, |m: &RwMutex| boolean(m.try_rlock()));
waiting!(group_wait, "wait", WaitGroup, WaitGroup::wait);
simple!(group_done, WaitGroup, |w: &WaitGroup| done(w.add(-1)));

unsafe extern "C-unwind" fn leave_mutex(slf: Object, _: *const Object, _: ffi::Py_ssize_t, _: Object) -> Object {
    // SAFETY: `__exit__` of a Mutex.
    done(unsafe { inner::<Mutex>(slf) }.unlock())
}

unsafe extern "C-unwind" fn leave_rw(slf: Object, _: *const Object, _: ffi::Py_ssize_t, _: Object) -> Object {
    // SAFETY: `__exit__` of an RWMutex.
    done(unsafe { inner::<RwMutex>(slf) }.unlock())
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
            return error::set(ffi::PyExc_ValueError, "semaphore: n < 0");
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
        let Some([amount, timeout]) = arguments("acquire", args, n, kw, [c"n", c"timeout"], 0) else {
            return ptr::null_mut();
        };
        let (Some(amount), Ok(until)) = (units(amount), deadline(timeout)) else { return ptr::null_mut() };
        let s = inner::<Semaphore>(slf);
        wait(until, |rt, d| s.acquire(rt, amount, d))
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

/// A condition variable: the list of waiters and the Python lock it goes with.
struct Cond {
    list: NotifyList,
    lock: Object,
}

unsafe extern "C" fn cond_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let mut lock: Object = ptr::null_mut();
        let mut names = [c"lock".as_ptr().cast_mut(), ptr::null_mut()];
        let format = c"O:Cond".as_ptr();
        if ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format, names.as_mut_ptr().cast(), &raw mut lock) == 0 {
            return ptr::null_mut();
        }
        if ffi::PyObject_HasAttrString(lock, c"lock".as_ptr()) == 0
            || ffi::PyObject_HasAttrString(lock, c"unlock".as_ptr()) == 0
        {
            return error::set(ffi::PyExc_TypeError, "Cond() needs a lock with lock() and unlock()");
        }
        ffi::Py_INCREF(lock);
        alloc(tp, Cond { list: NotifyList::new(), lock })
    }
}

unsafe extern "C" fn cond_dealloc(slf: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let lock = inner::<Cond>(slf).lock;
        dealloc::<Cond>(slf);
        ffi::Py_DECREF(lock);
    }
}

/// Unlocking runs Python code, so it cannot happen while the goroutine is announced as parking: the wait has a ticket of
/// its own instead. A Mutex of ours is unlocked inside; any other lock is unlocked first, under the GIL, which no other
/// goroutine can have before this one parks unless that lock's code parks.
unsafe extern "C-unwind" fn cond_wait(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([timeout]) = arguments("wait", args, n, kw, [c"timeout"], 0) else { return ptr::null_mut() };
        let Ok(until) = deadline(timeout) else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let cond = inner::<Cond>(slf);
        let r = ffi::PyObject_CallMethod(cond.lock, c"unlock".as_ptr(), ptr::null());
        if r.is_null() {
            return r;
        }
        ffi::Py_DECREF(r);
        let outcome = cond.list.wait(rt, Reason::Cond, until, || {});
        // The lock is taken again whatever happened, as Go and threading.Condition do.
        if outcome != Outcome::Delivered {
            error::ended(rt, outcome);
        }
        let pending = crate::host::gort_take_exception();
        let r = ffi::PyObject_CallMethod(cond.lock, c"lock".as_ptr(), ptr::null());
        if !pending.is_null() {
            ffi::Py_XDECREF(r);
            crate::host::gort_raise(pending);
            return ptr::null_mut();
        }
        r
    }
}

simple!(cond_signal, Cond, |c: &Cond| {
    c.list.signal();
    none()
});
simple!(cond_broadcast, Cond, |c: &Cond| {
    c.list.broadcast();
    none()
});

/// Adds the types.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let types = [
        (
            c"gort.Mutex",
            size_of::<Holder<Mutex>>(),
            new_default::<Mutex> as *mut std::ffi::c_void,
            dealloc::<Mutex> as *mut std::ffi::c_void,
            vec![
                fast(c"lock", mutex_lock, c"lock(timeout=None)\n--\n\nLocks; parks while another has it."),
                plain(c"unlock", mutex_unlock, ffi::METH_NOARGS, c"unlock()\n--\n\nUnlocks; any goroutine may."),
                plain(
                    c"try_lock",
                    mutex_try_lock,
                    ffi::METH_NOARGS,
                    c"try_lock()\n--\n\nLocks if it is free; whether it did.",
                ),
                fast(c"__enter__", mutex_lock, c"Locks."),
                fast(c"__exit__", leave_mutex, c"Unlocks."),
            ],
        ),
        (
            c"gort.RWMutex",
            size_of::<Holder<RwMutex>>(),
            new_default::<RwMutex> as *mut _,
            dealloc::<RwMutex> as *mut _,
            vec![
                fast(c"lock", rw_lock, c"lock(timeout=None)\n--\n\nLocks for writing. Parks."),
                fast(
                    c"rlock",
                    rw_rlock,
                    c"rlock(timeout=None)\n--\n\nLocks for reading. Parks while a writer has it or waits.",
                ),
                plain(c"unlock", rw_unlock, ffi::METH_NOARGS, c"unlock()\n--\n\nUnlocks for writing."),
                plain(c"runlock", rw_runlock, ffi::METH_NOARGS, c"runlock()\n--\n\nUnlocks for reading."),
                plain(c"try_lock", rw_try_lock, ffi::METH_NOARGS, c"try_lock()\n--\n\nLocks for writing if free."),
                plain(
                    c"try_rlock",
                    rw_try_rlock,
                    ffi::METH_NOARGS,
                    c"try_rlock()\n--\n\nLocks for reading if no writer has it or waits.",
                ),
                fast(c"__enter__", rw_lock, c"Locks for writing."),
                fast(c"__exit__", leave_rw, c"Unlocks for writing."),
            ],
        ),
        (
            c"gort.WaitGroup",
            size_of::<Holder<WaitGroup>>(),
            new_default::<WaitGroup> as *mut _,
            dealloc::<WaitGroup> as *mut _,
            vec![
                fast(c"add", group_add, c"add(n=1)\n--\n\nAdds n, which may be negative."),
                plain(c"done", group_done, ffi::METH_NOARGS, c"done()\n--\n\nTakes one off."),
                fast(c"wait", group_wait, c"wait(timeout=None)\n--\n\nParks until the counter is zero."),
            ],
        ),
        (
            c"gort.Semaphore",
            size_of::<Holder<Semaphore>>(),
            semaphore_new as *mut _,
            dealloc::<Semaphore> as *mut _,
            vec![
                fast(c"acquire", acquire, c"acquire(n=1, timeout=None)\n--\n\nTakes n units; parks, in order."),
                fast(c"try_acquire", try_acquire, c"try_acquire(n=1)\n--\n\nTakes n units if free and nobody waits."),
                fast(c"release", release, c"release(n=1)\n--\n\nGives n units back."),
                fast(c"__enter__", acquire, c"Takes one unit."),
                fast(c"__exit__", leave_semaphore, c"Gives one unit back."),
            ],
        ),
        (
            c"gort.Cond",
            size_of::<Holder<Cond>>(),
            cond_new as *mut _,
            cond_dealloc as *mut _,
            vec![
                fast(c"wait", cond_wait, c"wait(timeout=None)\n--\n\nUnlocks, parks until signalled, locks again."),
                plain(
                    c"signal",
                    cond_signal,
                    ffi::METH_NOARGS,
                    c"signal()\n--\n\nWakes the goroutine that waits longest.",
                ),
                plain(c"broadcast", cond_broadcast, ffi::METH_NOARGS, c"broadcast()\n--\n\nWakes all."),
            ],
        ),
    ];
    for (name, size, new, dealloc, table) in types {
        let slots = vec![
            slot(ffi::Py_tp_new, new),
            slot(ffi::Py_tp_dealloc, dealloc),
            slot(ffi::Py_tp_methods, methods(table).cast()),
        ];
        // SAFETY: GIL held by the module's init.
        if unsafe { super::add_type(module, name, size, ffi::Py_TPFLAGS_BASETYPE, slots) }.is_null() {
            return false;
        }
    }
    true
}
