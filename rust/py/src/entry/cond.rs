//! The Cond type: Go's sync.Cond, a list of waiters and the lock it goes with.
//!
//! wait() joins the list, unlocks, parks, and locks again whatever happened. A Mutex is unlocked inside the park; any
//! other lock may run Python code, and park, while it is unlocked, so its waiter holds a ticket meanwhile: in the heap, for others
//! reach it while the waiter's stack may be saved.

use super::context::limited_object;
use super::sync::{Holder, MUTEX_TYPE, alloc, done, inner, lock_mutex, unlock_mutex, wait};
use super::{arguments, fast, methods, none, plain, runtime};
use crate::{error, host};
use gort_core::goroutine::ender::Until;
use gort_core::goroutine::waiter::{Outcome, Reason};
use gort_core::sched::Runtime;
use gort_core::sync::{Mutex, NotifyList, Ticket};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

/// The Cond type.
pub(crate) static COND_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

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
        for name in [c"lock", c"unlock"] {
            let method = ffi::PyObject_GetAttrString(lock, name.as_ptr());
            if method.is_null() {
                if ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) != 0 {
                    error::set(ffi::PyExc_TypeError, "Cond() needs a lock with lock() and unlock()");
                }
                return method;
            }
            ffi::Py_DECREF(method);
        }
        ffi::Py_INCREF(lock);
        let obj = alloc(tp, Cond { list: NotifyList::new(), lock });
        if obj.is_null() {
            ffi::Py_DECREF(lock);
        }
        obj
    }
}

/// Who waits.
///
/// # Safety
/// A live object of the Cond type.
pub(crate) unsafe fn list_of<'a>(slf: Object) -> &'a NotifyList {
    // SAFETY: the caller's promise.
    unsafe { &inner::<Cond>(slf).list }
}

/// No tp_clear: what makes a cycle through a lock is a Python object, which has one.
unsafe extern "C" fn cond_traverse(slf: Object, visit: ffi::visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: called by the collector on a live object, which may be between allocation and the write of its fields.
    unsafe {
        let lock = inner::<Cond>(slf).lock;
        let result = visit(ffi::Py_TYPE(slf).cast(), arg);
        if result != 0 || lock.is_null() { result } else { visit(lock, arg) }
    }
}

unsafe extern "C" fn cond_dealloc(slf: Object) {
    // SAFETY: the last reference is gone, so nobody waits: a waiter holds one.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        super::end_weak_references(slf, (*slf.cast::<Holder<Cond>>()).weak_list);
        let lock = inner::<Cond>(slf).lock;
        ptr::drop_in_place(&raw mut (*slf.cast::<Holder<Cond>>()).inner);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_XDECREF(lock);
        ffi::Py_DECREF(tp.cast());
    }
}

unsafe fn call(lock: Object, method: &std::ffi::CStr) -> bool {
    // SAFETY: GIL held; `lock` is alive.
    unsafe {
        // No bound method is made, which would keep the lock where `leak` does not see it.
        let name = ffi::PyUnicode_InternFromString(method.as_ptr());
        let r = if name.is_null() { name } else { ffi::PyObject_CallMethodNoArgs(lock, name) };
        ffi::Py_XDECREF(name);
        ffi::Py_XDECREF(r);
        !r.is_null()
    }
}

/// The lock as one of ours whose methods are not overridden, or null.
unsafe fn plain_mutex(lock: Object) -> *const Mutex {
    // SAFETY: GIL held; `lock` is alive.
    unsafe {
        if ptr::eq(ffi::Py_TYPE(lock), MUTEX_TYPE.load(Ordering::Relaxed)) { inner::<Mutex>(lock) } else { ptr::null() }
    }
}

/// A ticket in the heap that has joined a list.
struct Joined<'a> {
    rt: &'static Runtime,
    list: &'a NotifyList,
    ticket: *mut Ticket,
}

impl<'a> Joined<'a> {
    /// Joins the list; `None`: memory is refused, and MemoryError set. GIL held.
    fn to(rt: &'static Runtime, list: &'a NotifyList) -> Option<Self> {
        let ticket = rt.take_object(size_of::<Ticket>()).cast::<Ticket>();
        // SAFETY: GIL held. The object is ours, and stays until this is dropped, after it has waited or left.
        unsafe {
            if ticket.is_null() {
                ffi::PyErr_NoMemory();
                return None;
            }
            ticket.write(Ticket::new());
            list.join(ticket);
        }
        Some(Self { rt, list, ticket })
    }

    /// Parks with it.
    fn wait(self, until: Until) -> Outcome {
        // SAFETY: it joined this list, by this goroutine or thread.
        unsafe { self.list.wait_with(self.ticket, self.rt, Reason::Cond, until) }
    }

    /// Gives it up.
    fn leave(self) {
        // SAFETY: as in `wait`.
        unsafe { self.list.leave(self.ticket) }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        // SAFETY: of `to`; it is in no list any more, and nobody's to look at but ours.
        unsafe { self.rt.give_object(self.ticket.cast(), size_of::<Ticket>()) }
    }
}

/// Unlocks and parks until signalled. `None`: an exception is set and the lock still held.
unsafe fn unlock_and_park(rt: &'static Runtime, cond: &Cond, until: Until) -> Option<Outcome> {
    // SAFETY: a caller with the GIL that keeps `cond` alive.
    unsafe {
        let mutex = plain_mutex(cond.lock);
        if !mutex.is_null() {
            if !(*mutex).is_locked() {
                done((*mutex).unlock());
                return None;
            }
            return Some(cond.list.wait(rt, Reason::Cond, until, || {
                let _ = unlock_mutex(&*mutex); // it is locked: nothing ran since
            }));
        }
        let joined = Joined::to(rt, &cond.list)?;
        if !call(cond.lock, c"unlock") {
            joined.leave();
            return None;
        }
        Some(joined.wait(until))
    }
}

/// Goes on waiting, unlocked, after a signal handler ran; it was in the list meanwhile. `None`: the handler raised.
fn wait_on(rt: &'static Runtime, cond: &Cond, until: Until) -> Option<Outcome> {
    let joined = Joined::to(rt, &cond.list)?;
    if error::ended(rt, Outcome::Interrupted) {
        return Some(joined.wait(until));
    }
    joined.leave();
    None
}

/// Locks again; with the exception in flight, if there is one, still in flight. Being cancelled or interrupted does not
/// end this wait: whoever catches that, or a `with` block it leaves, relies on the lock. `false`: no lock, exception set.
unsafe fn lock_again(lock: Object) -> bool {
    // SAFETY: GIL held; `lock` is alive. Exceptions are owned by this function between take and raise.
    unsafe {
        let mut pending = host::gort_take_exception();
        let mutex = plain_mutex(lock);
        loop {
            let locked = if mutex.is_null() {
                call(lock, c"lock")
            } else {
                let r = wait(Until::Never, |rt, d| lock_mutex(&*mutex, rt, d));
                ffi::Py_XDECREF(r);
                !r.is_null()
            };
            if locked {
                break;
            }
            let exception = host::gort_take_exception();
            let passing = ffi::PyErr_GivenExceptionMatches(exception, error::goroutine_exit()) != 0
                || ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_KeyboardInterrupt) != 0;
            if !passing {
                ffi::Py_XDECREF(pending);
                host::gort_raise(exception);
                return false;
            }
            if pending.is_null() {
                pending = exception;
            } else {
                ffi::Py_DECREF(exception);
            }
        }
        if !pending.is_null() {
            host::gort_raise(pending);
        }
        true
    }
}

unsafe extern "C-unwind" fn cond_wait(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller keeps `slf`, and it its lock, alive.
    unsafe {
        let Some([timeout, ctx]) = arguments("wait", args, n, kw, [c"timeout", c"ctx"], 0) else {
            return ptr::null_mut();
        };
        limited_object(timeout, ctx, |until| wait_until(inner::<Cond>(slf), until))
    }
}

unsafe fn wait_until(cond: &Cond, until: Until) -> Object {
    // SAFETY: as in `cond_wait`.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let Some(outcome) = unlock_and_park(rt, cond, until) else { return ptr::null_mut() };
        let mut outcome = Some(outcome);
        while outcome == Some(Outcome::Interrupted) {
            outcome = wait_on(rt, cond, until);
        }
        match outcome {
            Some(Outcome::Delivered) | None => {}
            Some(outcome) => {
                error::ended(rt, outcome);
            }
        }
        let is_locked = lock_again(cond.lock);
        let has_ended = outcome == Some(Outcome::ContextDone);
        if is_locked && !has_ended && ffi::PyErr_Occurred().is_null() { none() } else { ptr::null_mut() }
    }
}

/// Who waits is of a bubble that the caller is not in.
#[cold]
fn foreign() -> Object {
    // SAFETY: GIL held by both callers.
    error::set(unsafe { ffi::PyExc_RuntimeError }, "semaphore wake of synctest goroutine from outside bubble")
}

unsafe extern "C-unwind" fn cond_signal(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    let list = unsafe { &inner::<Cond>(slf).list };
    if list.is_foreign() {
        return foreign();
    }
    list.signal();
    none()
}

unsafe extern "C-unwind" fn cond_broadcast(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    let list = unsafe { &inner::<Cond>(slf).list };
    if list.is_foreign() {
        return foreign();
    }
    list.broadcast();
    none()
}

const DOC: &std::ffi::CStr = c"Cond(lock)\n--\n
A condition variable on a Mutex, an RWMutex or anything else with lock() and unlock().

wait() unlocks, parks until a signal or at most `timeout` seconds (TimeoutError), and locks again
whatever happened; it wants to be called in a loop, with the lock held. signal() wakes who waits
longest, broadcast() all; neither needs the lock, and neither parks.

Example:
    >>> import gort
    >>> m, ready = gort.Mutex(), []
    >>> cond = gort.Cond(m)
    >>> def produce():
    ...     with m:
    ...         ready.append(1)
    ...     cond.signal()
    >>> with m:
    ...     g = gort.go(produce)
    ...     while not ready:
    ...         cond.wait()
    ...     ready
    [1]
";

/// Adds the type.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let table = vec![
        fast(
            c"wait",
            cond_wait,
            c"wait($self, /, timeout=None, ctx=None)\n--\n\nUnlocks, parks until signalled, locks again.",
        ),
        plain(
            c"signal",
            cond_signal,
            ffi::METH_NOARGS,
            c"signal($self, /)\n--\n\nWakes the goroutine that waits longest.",
        ),
        plain(c"broadcast", cond_broadcast, ffi::METH_NOARGS, c"broadcast($self, /)\n--\n\nWakes all."),
    ];
    let slots = vec![
        super::weak_list(std::mem::offset_of!(Holder<Cond>, weak_list)),
        slot(ffi::Py_tp_new, cond_new as *mut _),
        slot(ffi::Py_tp_dealloc, cond_dealloc as *mut _),
        slot(ffi::Py_tp_traverse, cond_traverse as *mut _),
        slot(ffi::Py_tp_methods, methods(table).cast()),
        slot(ffi::Py_tp_doc, DOC.as_ptr().cast_mut().cast()),
    ];
    let flags = ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC;
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = super::add_type(module, c"gort.Cond", size_of::<Holder<Cond>>(), flags, slots);
        COND_TYPE.store(tp, Ordering::Release); // read under the GIL, which orders it
        !tp.is_null()
    }
}
