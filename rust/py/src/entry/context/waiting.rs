//! `ctx=` of a call that waits: the wait ends when the context is done, and the call raises why.
//!
//! A wait joins the list of its context in the core (`goroutine::ender`), by a place of its own that lies in memory of the
//! runtime's for the length of the call. A context of another kind is waited for by one of ours below it.

use super::super::{deadline, runtime};
use super::ask::err_of;
use super::make::{cancellable, is_context_like};
use super::tree::{self, State};
use super::{Context, Object, Reach, reach_of};
use crate::{error, host};
use gort_core::goroutine::ender::{EnderPlace, Until};
use gort_core::sched;
use pyo3::ffi;
use std::ptr;

/// What a place needs, of which objects are aligned to 64.
const PLACE_BYTES: usize = size_of::<EnderPlace>().next_multiple_of(64);

/// Calls `op` with what ends its wait: the time-out, and `ctx`, of which either may be null or None. Where the context ends the
/// wait, `op` fails without an exception, which is set here. `Err`: an exception is set.
///
/// # Safety
/// GIL held; both are null or alive, also over the call.
#[inline]
pub(crate) unsafe fn limited<R>(
    timeout: Object,
    ctx: Object,
    op: impl FnOnce(Until) -> Result<R, ()>,
) -> Result<R, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let deadline_ns = deadline(timeout)?;
        if ctx.is_null() || ctx == ffi::Py_None() { op(deadline_ns.into()) } else { limited_by(ctx, deadline_ns, op) }
    }
}

/// The same with a time in place of a time-out.
///
/// # Safety
/// As for `limited`.
pub(crate) unsafe fn limited_until(deadline_ns: u64, ctx: Object, op: impl FnOnce(Until) -> Object) -> Object {
    // SAFETY: the caller's promise.
    unsafe {
        if ctx.is_null() || ctx == ffi::Py_None() {
            return op(deadline_ns.into());
        }
        limited_by(ctx, Some(deadline_ns), |until| checked(op(until))).unwrap_or(ptr::null_mut())
    }
}

fn checked(object: Object) -> Result<Object, ()> {
    if object.is_null() { Err(()) } else { Ok(object) }
}

/// The same for what gives an object, null if it fails.
///
/// # Safety
/// As for `limited`.
#[inline]
pub(crate) unsafe fn limited_object(timeout: Object, ctx: Object, op: impl FnOnce(Until) -> Object) -> Object {
    // SAFETY: the caller's promise.
    unsafe { limited(timeout, ctx, |until| checked(op(until))) }.unwrap_or(ptr::null_mut())
}

#[inline(never)]
unsafe fn limited_by<R>(
    ctx: Object,
    deadline_ns: Option<u64>,
    op: impl FnOnce(Until) -> Result<R, ()>,
) -> Result<R, ()> {
    // SAFETY: GIL held; the caller keeps `ctx`, and that those above it.
    unsafe {
        if !is_context_like(ctx) {
            let text = c"ctx must be a Context, not %.200s".as_ptr();
            ffi::PyErr_Format(ffi::PyExc_TypeError, text, (*ffi::Py_TYPE(ctx)).tp_name);
            return Err(());
        }
        match reach_of(ctx) {
            Reach::Never => op(deadline_ns.into()),
            Reach::Ours(context) => limited_by_ours(context, deadline_ns, op),
            Reach::Theirs(_) => {
                let pair = cancellable(ctx, false);
                if pair.is_null() {
                    return Err(());
                }
                let context = ffi::PyTuple_GET_ITEM(pair, 0).cast::<Context>();
                let result = limited_by_ours(context, deadline_ns, op);
                let exception = if result.is_err() { host::gort_take_exception() } else { ptr::null_mut() };
                tree::cancel(context, State::Canceled, ptr::null_mut(), ptr::null_mut());
                ffi::Py_DECREF(pair);
                if !exception.is_null() {
                    host::gort_raise(exception);
                }
                result
            }
        }
    }
}

unsafe fn limited_by_ours<R>(
    context: *mut Context,
    deadline_ns: Option<u64>,
    op: impl FnOnce(Until) -> Result<R, ()>,
) -> Result<R, ()> {
    // SAFETY: GIL held; the context outlives the call. The place is this call's; nothing here has a destructor.
    unsafe {
        if (*context).state != State::Live {
            raise(context);
            return Err(());
        }
        if sched::is_foreign((*context).bubble) {
            error::set(ffi::PyExc_RuntimeError, "receive on synctest channel from outside bubble");
            return Err(());
        }
        let rt = runtime().ok_or(())?;
        let place = rt.take_object(PLACE_BYTES).cast::<EnderPlace>();
        if place.is_null() {
            ffi::PyErr_NoMemory();
            return Err(());
        }
        place.write(EnderPlace::new(&raw const (*context).ender, deadline_ns));
        let result = op(Until::Ended(place));
        rt.give_object(place.cast(), PLACE_BYTES);
        if result.is_err() && ffi::PyErr_Occurred().is_null() {
            raise(context);
        }
        result
    }
}

/// Raises why a context is done: a new exception each time, caused by its cause if that is another. An exception of a context of
/// another kind is raised itself.
unsafe fn raise(context: *mut Context) {
    // SAFETY: GIL held; the context is alive and done.
    unsafe {
        let err = err_of(context);
        if err.is_null() {
            return;
        }
        let class = ffi::Py_TYPE(err).cast::<ffi::PyObject>();
        let is_known = class == error::context_canceled() || class == error::deadline_exceeded();
        let raised = if is_known { ffi::PyObject_CallNoArgs(class) } else { ffi::Py_NewRef(err) };
        ffi::Py_DECREF(err);
        if raised.is_null() {
            return;
        }
        let cause = (*context).cause;
        if is_known && !cause.is_null() && cause != (*context).err {
            ffi::PyException_SetCause(raised, ffi::Py_NewRef(cause));
        }
        if !is_known {
            ffi::PyException_SetTraceback(raised, ffi::Py_None());
        }
        host::gort_raise(raised);
    }
}
