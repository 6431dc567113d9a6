//! The tree of contexts that can be cancelled: who stands below whom, and what cancelling does.
//!
//! A context has a reference to its parent, and what can be cancelled has one to each context below it, in a list, as Go has: a
//! child that nobody else knows of may have a function to call. Cancelling goes through the list once; the children of each that it
//! meets go to the list's end, so that neither depth nor number need memory. Then it lets go of all of them.
//!
//! A deadline passes on an M's scheduler stack, where no Python code may run: whoever is below is cancelled there and let go of
//! later (`let_spent_go`), at the next use of a context or pass of the collector.

use super::super::{chan, timer};
use super::{Context, Kind, Object, let_go};
use crate::late;
use crate::task;
use gort_core::sched;
use gort_core::timer::{Event, EventTimer};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Whether a context is done, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Live = 0,
    Canceled = 1,
    /// Its deadline, or that of one above, has passed.
    Expired = 2,
}

/// What ends a context at its deadline; owned by it. While it is set it has a reference to the context.
#[repr(C)]
pub(super) struct Deadline {
    event: EventTimer,
    context: *mut Context,
}

static EXPIRE: Event = Event { take, fire: expire, abandon };

/// Contexts whose deadline has passed and that still have what they are to let go of: linked by `next`, one reference to each.
static SPENT: AtomicPtr<Context> = AtomicPtr::new(ptr::null_mut());

unsafe fn take(timer: *mut EventTimer) -> *mut u8 {
    // SAFETY: the timer of a live context, whose reference goes to `expire`.
    unsafe { (*timer.cast::<Deadline>()).context.cast() }
}

unsafe fn abandon(timer: *mut EventTimer) {
    // SAFETY: out of its heap, where Python code may run.
    unsafe { ffi::Py_DECREF(take(timer).cast()) };
}

/// The deadline of a context passes.
unsafe fn expire(context: *mut u8) {
    let context = context.cast::<Context>();
    // SAFETY: the GIL is held since `take`, whose reference is this one's. What is below has references of its list, and the
    // list of this one had one: none of those let go of here is the last.
    unsafe {
        let cause = ptr::replace(&raw mut (*context).second, ptr::null_mut());
        if (*context).state == State::Live {
            end(context, State::Expired, ptr::null_mut(), cause);
            unlink(context);
        } else {
            (*context).second = cause;
        }
        (*context).next = SPENT.load(Ordering::Relaxed); // under the GIL, here and below
        SPENT.store(context, Ordering::Relaxed);
    }
}

/// Lets go of what contexts kept whose deadline has passed.
///
/// # Safety
/// GIL held, where Python code may run.
pub(crate) unsafe fn let_spent_go() {
    // SAFETY: the caller's promise; the list has a reference to each. It is out of the list before anything runs.
    unsafe {
        loop {
            let context = SPENT.load(Ordering::Relaxed);
            if context.is_null() {
                return;
            }
            SPENT.store((*context).next, Ordering::Relaxed);
            (*context).next = ptr::null_mut();
            release(context);
            ffi::Py_DECREF(context.cast());
        }
    }
}

/// Sets the timer of a live context for `seconds` from now. `false`: memory is refused, and MemoryError is set.
///
/// # Safety
/// GIL held; the context is new.
pub(super) unsafe fn set_deadline(context: *mut Context, seconds: f64) -> bool {
    let Some(rt) = super::super::runtime() else { return false };
    // SAFETY: the caller's promise. The timer is the context's, which frees it when it is not set any more.
    unsafe {
        let event = EventTimer::new(&EXPIRE, sched::current_bubble());
        (*context).timer = timer::boxed(Deadline { event, context });
        if (*context).timer.is_null() {
            ffi::PyErr_NoMemory();
            return false;
        }
        let is_set = timer::start(rt, (*context).timer.cast(), seconds, false);
        if is_set {
            ffi::Py_INCREF(context.cast());
        }
        is_set
    }
}

/// Whether a context's deadline will end it.
///
/// # Safety
/// GIL held; a live context.
pub(super) unsafe fn is_timed(context: *const Context) -> bool {
    // SAFETY: the caller's promise; the timer is the context's.
    unsafe { !(*context).timer.is_null() && (*(*context).timer).event.timer.is_queued() }
}

/// # Safety
/// GIL held; the caller has a reference to the context beside the timer's.
unsafe fn stop_timer(context: *mut Context) {
    // SAFETY: the caller's promise. A timer was set, so there is a runtime.
    unsafe {
        if is_timed(context) && (*task::runtime_or_null()).stop_timer((*context).timer.cast()) {
            ffi::Py_DECREF(context.cast());
        }
    }
}

/// Frees the timer of a context that goes: it is not set, or would keep the context.
///
/// # Safety
/// GIL held; the context's last reference is gone.
pub(super) unsafe fn free_timer(context: *mut Context) {
    // SAFETY: the caller's promise; made by `boxed`.
    unsafe {
        if !(*context).timer.is_null() {
            drop(Box::from_raw((*context).timer));
        }
    }
}

/// Puts `child`, which is new, below `above`; if that is done, so is the child.
///
/// # Safety
/// GIL held; both are alive, and `above` can be cancelled.
pub(super) unsafe fn link(above: *mut Context, child: *mut Context) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*above).state != State::Live {
            (*child).inherits = true;
            end(child, (*above).state, ptr::null_mut(), ffi::Py_XNewRef((*above).cause));
            return;
        }
        ffi::Py_INCREF(child.cast());
        push(above, child);
    }
}

unsafe fn push(above: *mut Context, child: *mut Context) {
    // SAFETY: the callers': `child` is in no list, and one reference to it goes to this one.
    unsafe {
        (*child).above = above;
        (*child).next = ptr::null_mut();
        (*child).previous = (*above).last;
        if (*above).last.is_null() {
            (*above).first_below = child;
        } else {
            (*(*above).last).next = child;
        }
        (*above).last = child;
    }
}

/// Takes a context out of the list it is in, whose reference is the caller's then; whether it was in one.
unsafe fn take_out(child: *mut Context) -> bool {
    // SAFETY: GIL held; neighbours and head of a list are alive while they are in it.
    unsafe {
        let above = (*child).above;
        if above.is_null() {
            return false;
        }
        let (previous, next) = ((*child).previous, (*child).next);
        if previous.is_null() {
            (*above).first_below = next;
        } else {
            (*previous).next = next;
        }
        if next.is_null() {
            (*above).last = previous;
        } else {
            (*next).previous = previous;
        }
        ((*child).above, (*child).next, (*child).previous) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        true
    }
}

/// Takes a context out of the list it is in.
///
/// # Safety
/// GIL held; the caller has a reference of its own.
unsafe fn unlink(child: *mut Context) {
    // SAFETY: the caller's promise.
    unsafe {
        if take_out(child) {
            ffi::Py_DECREF(child.cast());
        }
    }
}

/// Ends a live context and all below it, which stay in its list: `release` follows. Runs no Python code and needs no memory but
/// for starting functions. `err` and `cause` are the context's from here on; either may be null.
///
/// # Safety
/// GIL held; the context is live, and the caller has a reference to it beside its timer's.
unsafe fn end(root: *mut Context, state: State, err: Object, cause: Object) {
    // SAFETY: the caller's promise; whoever is in a list is alive.
    unsafe {
        (*root).err = err;
        (*root).cause = cause;
        finish(root, state);
        let mut at = (*root).first_below;
        while !at.is_null() {
            (*at).inherits = true;
            (*at).cause = ffi::Py_XNewRef(cause);
            finish(at, state);
            loop {
                let below = (*at).first_below;
                if below.is_null() {
                    break;
                }
                take_out(below);
                push(root, below);
            }
            at = (*at).next;
        }
    }
}

/// What ends with a context.
unsafe fn finish(context: *mut Context, state: State) {
    // SAFETY: `end`'s promise; each channel and goroutine is the context's.
    unsafe {
        (*context).state = state;
        sched::end_waits(&(*context).ender);
        if !(*context).chan.is_null() {
            let _ = chan::chan_of((*context).chan).close(); // nobody else does
        }
        stop_timer(context);
        if (*context).kind == Kind::AfterFunc {
            start_function(context);
        }
    }
}

/// The function of `after_func` gets its goroutine, once.
unsafe fn start_function(context: *mut Context) {
    // SAFETY: a goroutine that was never started, and one reference to it; `after_func` saw to it that there is a runtime.
    unsafe {
        let goroutine = ptr::replace(&raw mut (*context).first, ptr::null_mut());
        if goroutine.is_null() {
            return;
        }
        ffi::PyObject_GC_UnTrack(goroutine.cast());
        late::start(goroutine.cast());
    }
}

/// Lets go of all that are below a context that is done, and has a parent of another kind forget it.
unsafe fn release(context: *mut Context) {
    // SAFETY: GIL held by the callers, where Python code may run; the context is alive, also over that.
    unsafe {
        drop_below(context);
        let stop = ptr::replace(&raw mut (*context).stopper, ptr::null_mut());
        if !stop.is_null() {
            let result = ffi::PyObject_CallNoArgs(stop);
            if result.is_null() {
                ffi::PyErr_WriteUnraisable(stop);
            }
            ffi::Py_XDECREF(result);
            ffi::Py_DECREF(stop);
        }
    }
}

/// Lets go of all in the list of a context.
///
/// # Safety
/// GIL held, where Python code may run; the context stays alive over it.
pub(super) unsafe fn drop_below(context: *mut Context) {
    // SAFETY: the caller's promise.
    unsafe {
        loop {
            let below = (*context).first_below;
            if below.is_null() {
                return;
            }
            take_out(below);
            let_go(below.cast()); // by a loop where it is the last of a long branch
        }
    }
}

/// Cancels a context and all below it, unless it is done; takes it out of its parent's list. `err` and `cause` are borrowed, or
/// null.
///
/// # Safety
/// GIL held, where Python code may run; the caller has a reference to the context.
pub(super) unsafe fn cancel(context: *mut Context, state: State, err: Object, cause: Object) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*context).state == State::Live {
            end(context, state, ffi::Py_XNewRef(err), ffi::Py_XNewRef(cause));
            unlink(context);
            release(context);
        }
        let_spent_go();
    }
}
