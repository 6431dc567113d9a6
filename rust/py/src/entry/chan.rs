//! The Chan type.
//!
//! A channel owns one count of each value it holds. The caller's frame keeps the channel alive over a park, and a waiter
//! on the stack is invisible to the collector, which therefore counts the channel as reachable from outside.

use super::context::{limited, limited_object};
use super::{Value, arguments, atomic, boolean, fast, getters, map, methods, none, plain, positional, runtime, select};
use crate::error;
use crate::tracing;
use gort_core::chan::{Chan, RecvError, SendError};
use gort_core::goroutine::ender::Until;
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

#[repr(C)]
pub(crate) struct ChanObject {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    pub(crate) chan: Chan<Value>,
    /// What feeds it, if it is a timer's channel; else null.
    pub(crate) timer: *mut super::timer::ChanTimer,
}

/// The Chan type.
pub(crate) static CHAN_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// Largest capacity: what a buffer of pointers could ever hold.
const MAX_CAPACITY: isize = isize::MAX / 16;

#[inline(always)]
pub(crate) unsafe fn chan_of<'a>(slf: Object) -> &'a Chan<Value> {
    // SAFETY: `slf` is a Chan that the caller keeps alive.
    unsafe { &(*slf.cast::<ChanObject>()).chan }
}

/// Whether a timer will send on it.
///
/// # Safety
/// GIL held; `slf` is a Chan.
pub(crate) unsafe fn is_fed(slf: Object) -> bool {
    // SAFETY: the caller's promise; the timer belongs to the channel.
    unsafe { super::timer::is_set((*slf.cast::<ChanObject>()).timer) }
}

/// The same, unless it belongs to a bubble that the caller is not in: then an exception says so, and it is `None`.
#[inline(always)]
pub(crate) unsafe fn usable_chan<'a>(slf: Object, what: &str) -> Option<&'a Chan<Value>> {
    // SAFETY: the caller's promise.
    let chan = unsafe { chan_of(slf) };
    if chan.is_foreign() { foreign(what) } else { Some(chan) }
}

#[cold]
fn foreign(what: &str) -> Option<&'static Chan<Value>> {
    // SAFETY: GIL held by every caller.
    error::set(unsafe { ffi::PyExc_RuntimeError }, format_args!("{what} synctest channel from outside bubble"));
    None
}

/// The capacity in `cap`, which may be null. `None`: an exception is set.
unsafe fn capacity(cap: Object) -> Option<usize> {
    // SAFETY: GIL held, `cap` null or alive.
    unsafe {
        if cap.is_null() {
            return Some(0);
        }
        let number = ffi::PyNumber_Index(cap);
        if number.is_null() {
            return None; // TypeError: a float has no index
        }
        let n = ffi::PyLong_AsSsize_t(number);
        ffi::Py_DECREF(number);
        if !(0..=MAX_CAPACITY).contains(&n) {
            // -1 may come with an OverflowError, which this replaces.
            error::set(ffi::PyExc_ValueError, "makechan: size out of range");
            return None;
        }
        Some(n as usize)
    }
}

unsafe extern "C" fn chan_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let mut cap: Object = ptr::null_mut();
        let mut names = [c"cap".as_ptr().cast_mut(), ptr::null_mut()];
        let given = ffi::PyTuple_GET_SIZE(args) != 0 || !kwargs.is_null();
        if given
            && ffi::PyArg_ParseTupleAndKeywords(
                args,
                kwargs,
                c"|O:Chan".as_ptr(),
                names.as_mut_ptr().cast(),
                &raw mut cap,
            ) == 0
        {
            return ptr::null_mut();
        }
        let Some(cap) = capacity(cap) else { return ptr::null_mut() };
        let obj = ffi::PyType_GenericAlloc(tp, 0);
        if !obj.is_null() {
            ptr::write(&raw mut (*obj.cast::<ChanObject>()).chan, Chan::new(cap));
            tracing::begin_chan(&(*obj.cast::<ChanObject>()).chan);
        }
        obj
    }
}

unsafe extern "C" fn chan_traverse(slf: Object, visit: ffi::visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: called by the collector on a live object; the buffer owns one count of each value.
    unsafe {
        let mut result = visit(ffi::Py_TYPE(slf).cast(), arg);
        chan_of(slf).for_each_held(|v| {
            if result == 0 {
                result = visit(v.0, arg);
            }
        });
        result
    }
}

/// Lets go of a reference a channel or a case held.
#[inline(always)]
pub(crate) unsafe fn let_go(object: Object) {
    // SAFETY: GIL held; one count of `object` belongs to the caller.
    unsafe { if ffi::Py_REFCNT(object) == 1 { take_apart(object) } else { ffi::Py_DECREF(object) } }
}

/// The last reference of an object goes. Channels, cases, maps and atomic values are taken apart in a loop, not by
/// recursion: nested a million deep they would overflow the stack.
#[inline(never)]
unsafe fn take_apart(first: Object) {
    let mut pending: Vec<Object> = Vec::new();
    let mut next = Some(first);
    while let Some(object) = next {
        // SAFETY: GIL held; one count of each pending object belongs to the loop.
        unsafe {
            if ffi::Py_REFCNT(object) == 1 {
                if ffi::Py_TYPE(object) == CHAN_TYPE.load(Ordering::Relaxed) {
                    let (returned, buffer) = chan_of(object).take_held();
                    let has_room = pending.try_reserve(returned.len() + buffer.len()).is_ok();
                    for v in returned.into_iter().map(|(_, v)| v).chain(buffer) {
                        // Without memory by recursion, after all.
                        if has_room { pending.push(v.0) } else { ffi::Py_DECREF(v.0) }
                    }
                } else {
                    select::take_apart(object, &mut pending);
                    map::take_apart(object, &mut pending);
                    atomic::take_apart(object, &mut pending);
                }
            }
            ffi::Py_DECREF(object);
        }
        next = pending.pop();
    }
}

unsafe extern "C" fn chan_clear(slf: Object) -> std::ffi::c_int {
    // SAFETY: called by the collector or dealloc; the values are out of the channel before they are let go.
    unsafe {
        let (returned, buffer) = chan_of(slf).take_held();
        returned.into_iter().for_each(|(_, v)| let_go(v.0));
        buffer.for_each(|v| let_go(v.0));
    }
    0
}

unsafe extern "C" fn chan_dealloc(slf: Object) {
    // SAFETY: the last reference is gone, so nobody waits on it: a waiter holds one.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        super::end_weak_references(slf, (*slf.cast::<ChanObject>()).weak_list);
        super::timer::release((*slf.cast::<ChanObject>()).timer);
        chan_clear(slf);
        tracing::end_chan(&(*slf.cast::<ChanObject>()).chan);
        ptr::drop_in_place(&raw mut (*slf.cast::<ChanObject>()).chan);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

/// Sets what a refused send raises, lets go of the value, and returns null.
#[cold]
unsafe fn refused(failure: SendError<Value>) -> Object {
    let no_memory = matches!(failure, SendError::NoMemory(_));
    let (SendError::Closed(v) | SendError::Full(v) | SendError::Ended(v, _) | SendError::NoMemory(v)) = failure;
    // SAFETY: GIL held; the value's count came back with the failure.
    unsafe {
        ffi::Py_DECREF(v.0);
        if no_memory {
            return ffi::PyErr_NoMemory();
        }
        error::set(error::chan_closed(), "send on closed channel")
    }
}

unsafe extern "C-unwind" fn send(slf: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller's frame keeps `slf` and the value alive.
    unsafe {
        if nargs == 1 && kwnames.is_null() {
            return send_until(slf, *args, Until::Never);
        }
        send_limited(slf, args, nargs, kwnames)
    }
}

/// Out of line: what it needs would be a part of the stack of everybody who sends.
#[inline(never)]
unsafe fn send_limited(slf: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: as in `send`.
    unsafe {
        let names = [c"value", c"timeout", c"ctx"];
        let Some([value, timeout, ctx]) = arguments("send", args, nargs, kwnames, names, 1) else {
            return ptr::null_mut();
        };
        limited_object(timeout, ctx, |until| send_until(slf, value, until))
    }
}

#[inline(always)]
unsafe fn send_until(slf: Object, value: Object, until: Until) -> Object {
    // SAFETY: GIL held; `slf` is a Chan, which, as the value, the caller keeps alive.
    unsafe {
        let Some(chan) = usable_chan(slf, "send on") else { return ptr::null_mut() };
        ffi::Py_INCREF(value);
        let mut result = chan.try_send(Value(value));
        if let Err(SendError::Full(_)) = result {
            let Some(rt) = runtime() else {
                ffi::Py_DECREF(value);
                return ptr::null_mut();
            };
            loop {
                result = chan.send(rt, Value(value), until);
                match result {
                    Err(SendError::Ended(_, outcome)) => {
                        if !error::ended(rt, outcome) {
                            ffi::Py_DECREF(value);
                            return ptr::null_mut();
                        }
                    }
                    _ => break,
                }
            }
        }
        match result {
            Ok(()) => none(),
            Err(failure) => refused(failure),
        }
    }
}

/// `Ok(null)`: closed and drained. `Err`: an exception is set, or is by `limited`.
#[inline(always)]
unsafe fn receive(slf: Object, until: Until) -> Result<Object, ()> {
    // SAFETY: `slf` is a Chan kept alive by the caller.
    let chan = unsafe { usable_chan(slf, "receive on") }.ok_or(())?;
    let mut result = chan.try_recv();
    if result == Err(RecvError::Empty) {
        let Some(rt) = runtime() else { return Err(()) };
        loop {
            result = chan.recv(rt, until);
            match result {
                Err(RecvError::Ended(outcome)) => {
                    if !error::ended(rt, outcome) {
                        return Err(());
                    }
                }
                _ => break,
            }
        }
    }
    Ok(result.map_or(ptr::null_mut(), |v| v.0))
}

#[inline(always)]
unsafe fn receive_args(
    name: &str,
    slf: Object,
    args: *const Object,
    nargs: ffi::Py_ssize_t,
    kwnames: Object,
) -> Result<Object, ()> {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        if nargs == 0 && kwnames.is_null() {
            return receive(slf, Until::Never);
        }
        receive_limited(name, slf, args, nargs, kwnames)
    }
}

/// Out of line, as `send_limited`.
#[inline(never)]
unsafe fn receive_limited(
    name: &str,
    slf: Object,
    args: *const Object,
    nargs: ffi::Py_ssize_t,
    kwnames: Object,
) -> Result<Object, ()> {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"timeout", c"ctx"];
        let Some([timeout, ctx]) = arguments(name, args, nargs, kwnames, names, 0) else { return Err(()) };
        limited(timeout, ctx, |until| receive(slf, until))
    }
}

unsafe extern "C-unwind" fn recv(slf: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    match unsafe { receive_args("recv", slf, args, nargs, kwnames) } {
        Ok(v) if v.is_null() => error::set(error::chan_closed(), "receive on closed channel"),
        Ok(v) => v,
        Err(()) => ptr::null_mut(),
    }
}

/// Fills the places of a new tuple with owned references. Where a value is received the tuple is made before: memory that
/// runs out after would lose the value. Whoever may wait in between hides it from the collector, or others would find it.
#[inline(always)]
pub(crate) unsafe fn fill<const N: usize>(t: Object, items: [Object; N]) -> Object {
    // SAFETY: GIL held; the tuple is the caller's, and so are the references, which go into it.
    unsafe {
        for (i, item) in items.into_iter().enumerate() {
            ffi::PyTuple_SET_ITEM(t, i as _, item);
        }
    }
    t
}

/// A tuple of owned references; null if any is null or memory is refused.
pub(crate) unsafe fn tuple<const N: usize>(items: [Object; N]) -> Object {
    // SAFETY: GIL held; the references are the caller's and go into the tuple.
    unsafe {
        let is_whole = items.iter().all(|item| !item.is_null());
        let t = if is_whole { ffi::PyTuple_New(N as _) } else { ptr::null_mut() };
        for (i, item) in items.into_iter().enumerate() {
            if t.is_null() {
                ffi::Py_XDECREF(item);
            } else {
                ffi::PyTuple_SET_ITEM(t, i as _, item);
            }
        }
        t
    }
}

unsafe extern "C-unwind" fn recv_ok(
    slf: Object,
    args: *const Object,
    nargs: ffi::Py_ssize_t,
    kwnames: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some(chan) = usable_chan(slf, "receive on") else { return ptr::null_mut() };
        let reply = ffi::PyTuple_New(2);
        if reply.is_null() {
            return reply;
        }
        if nargs == 0 && kwnames.is_null() {
            match chan.try_recv() {
                Ok(v) => return fill(reply, [v.0, boolean(true)]),
                Err(RecvError::Closed) => return fill(reply, [none(), boolean(false)]),
                Err(_) => {}
            }
        }
        ffi::PyObject_GC_UnTrack(reply.cast());
        let Ok(v) = receive_args("recv_ok", slf, args, nargs, kwnames) else {
            ffi::Py_DECREF(reply);
            return ptr::null_mut();
        };
        ffi::PyObject_GC_Track(reply.cast());
        let (value, ok) = if v.is_null() { (none(), false) } else { (v, true) };
        fill(reply, [value, boolean(ok)])
    }
}

unsafe extern "C-unwind" fn try_send(slf: Object, value: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Some(chan) = usable_chan(slf, "send on") else { return ptr::null_mut() };
        ffi::Py_INCREF(value);
        match chan.try_send(Value(value)) {
            Ok(()) => boolean(true),
            Err(SendError::Full(v)) => {
                ffi::Py_DECREF(v.0);
                boolean(false)
            }
            Err(failure) => refused(failure),
        }
    }
}

/// `_unrecv(value, stamp)`: takes back what `_recv_until` gave.
unsafe extern "C-unwind" fn unrecv(slf: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 2 {
            return error::set(ffi::PyExc_TypeError, "_unrecv() takes a value and its stamp");
        }
        let (value, stamp) = (*args, ffi::PyLong_AsUnsignedLongLong(*args.add(1)));
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        ffi::Py_INCREF(value);
        match chan_of(slf).unrecv(Value(value), stamp) {
            Ok(()) => none(),
            Err(v) => refused(SendError::NoMemory(v)),
        }
    }
}

unsafe extern "C-unwind" fn try_recv(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let Some(chan) = usable_chan(slf, "receive on") else { return ptr::null_mut() };
        let reply = ffi::PyTuple_New(3);
        if reply.is_null() {
            return reply;
        }
        let (value, ok, ready) = match chan.try_recv() {
            Ok(v) => (v.0, true, true),
            Err(RecvError::Closed) => (none(), false, true),
            Err(_) => (none(), false, false),
        };
        fill(reply, [value, boolean(ok), boolean(ready)])
    }
}

unsafe extern "C-unwind" fn close(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    let Some(chan) = (unsafe { usable_chan(slf, "close of") }) else { return ptr::null_mut() };
    match chan.close() {
        Ok(()) => none(),
        Err(_) => error::set(error::chan_closed(), "close of closed channel"),
    }
}

unsafe extern "C-unwind" fn chan_next(slf: Object) -> Object {
    // SAFETY: tp_iternext with the GIL; null without an exception ends the loop.
    unsafe { receive(slf, Until::Never) }.unwrap_or(ptr::null_mut())
}

/// Calls a function of `gort.chan` with the channel and, unless it is null, `value`.
pub(super) unsafe fn facade(slf: Object, function: &std::ffi::CStr, value: Object) -> Object {
    let args = [slf, value];
    let n = if value.is_null() { 1 } else { 2 };
    // SAFETY: GIL held; `slf` and `value` alive.
    unsafe { super::facade(c"gort.chan", function, &args[..n]) }
}

unsafe extern "C-unwind" fn sender(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { facade(slf, c"_sender", ptr::null_mut()) }
}

unsafe extern "C-unwind" fn receiver(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { facade(slf, c"_receiver", ptr::null_mut()) }
}

unsafe extern "C-unwind" fn recv_async(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { facade(slf, c"recv_async", ptr::null_mut()) }
}

unsafe extern "C-unwind" fn send_async(slf: Object, value: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { facade(slf, c"send_async", value) }
}

unsafe extern "C" fn chan_aiter(slf: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { facade(slf, c"_aiter", ptr::null_mut()) }
}

unsafe extern "C" fn chan_len(slf: Object) -> ffi::Py_ssize_t {
    // SAFETY: GIL held.
    unsafe { chan_of(slf).len() as ffi::Py_ssize_t }
}

unsafe extern "C" fn chan_bool(_slf: Object) -> std::ffi::c_int {
    1 // an empty channel is a channel
}

unsafe extern "C" fn get_cap(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: GIL held.
    unsafe { ffi::PyLong_FromSize_t(chan_of(slf).capacity()) }
}

unsafe extern "C" fn get_closed(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: GIL held.
    unsafe { boolean(chan_of(slf).is_closed()) }
}

unsafe extern "C" fn chan_repr(slf: Object) -> Object {
    // SAFETY: GIL held.
    unsafe {
        let chan = chan_of(slf);
        let closed = if chan.is_closed() { ", closed" } else { "" };
        error::text(format_args!("<gort.Chan {}/{}{closed}>", chan.len(), chan.capacity()))
    }
}

/// Adds the type.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut table = vec![
        fast(
            c"send",
            send,
            c"send($self, value, timeout=None, ctx=None)\n--\n\nSends; parks until it is taken, at most `timeout` seconds and until `ctx` is done. Raises ChanClosed, TimeoutError or what ctx says.",
        ),
        fast(
            c"recv",
            recv,
            c"recv($self, timeout=None, ctx=None)\n--\n\nReceives; parks until there is a value, at most `timeout` seconds and until `ctx` is done. Raises ChanClosed, TimeoutError or what ctx says.",
        ),
        fast(
            c"recv_ok",
            recv_ok,
            c"recv_ok($self, timeout=None, ctx=None)\n--\n\n(value, True), or (None, False) once closed and drained. Parks.",
        ),
        plain(
            c"try_send",
            try_send,
            ffi::METH_O,
            c"try_send($self, value, /)\n--\n\nSends if that needs no waiting; whether it did.",
        ),
        plain(c"try_recv", try_recv, ffi::METH_NOARGS, c"try_recv($self)\n--\n\n(value, ok, ready) without waiting."),
        plain(c"close", close, ffi::METH_NOARGS, c"close($self)\n--\n\nCloses the channel."),
        plain(c"sender", sender, ffi::METH_NOARGS, c"sender($self)\n--\n\nA view that can only send."),
        plain(c"receiver", receiver, ffi::METH_NOARGS, c"receiver($self)\n--\n\nA view that can only receive."),
        plain(c"recv_async", recv_async, ffi::METH_NOARGS, c"recv_async($self)\n--\n\nAn awaitable receive, for asyncio."),
        plain(c"send_async", send_async, ffi::METH_O, c"send_async($self, value, /)\n--\n\nAn awaitable send, for asyncio."),
        plain(
            c"_recv_until",
            select::recv_until,
            ffi::METH_O,
            c"_recv_until($self, stop, /)\n--\n\n(value, ok, stamp), or None once stop is closed. Parks.",
        ),
        positional(c"_unrecv", unrecv, c"_unrecv($self, value, stamp, /)\n--\n\nTakes back what _recv_until gave."),
    ];
    table.push(ffi::PyMethodDef {
        ml_name: c"__class_getitem__".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: ffi::Py_GenericAlias },
        ml_flags: ffi::METH_O | ffi::METH_CLASS,
        ml_doc: c"Chan[T]".as_ptr(),
    });
    let slots = vec![
        super::weak_list(std::mem::offset_of!(ChanObject, weak_list)),
        slot(ffi::Py_tp_new, chan_new as *mut _),
        slot(ffi::Py_tp_dealloc, chan_dealloc as *mut _),
        slot(ffi::Py_tp_traverse, chan_traverse as *mut _),
        slot(ffi::Py_tp_clear, chan_clear as *mut _),
        slot(ffi::Py_tp_repr, chan_repr as *mut _),
        slot(ffi::Py_tp_iter, ffi::PyObject_SelfIter as *mut _),
        slot(ffi::Py_tp_iternext, chan_next as *mut _),
        slot(ffi::Py_am_aiter, chan_aiter as *mut _),
        slot(ffi::Py_sq_length, chan_len as *mut _),
        slot(ffi::Py_nb_bool, chan_bool as *mut _),
        slot(ffi::Py_tp_methods, methods(table).cast()),
        slot(ffi::Py_tp_getset, getters(&[(c"cap", get_cap), (c"closed", get_closed)]).cast()),
    ];
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = super::add_type(module, c"gort.Chan", size_of::<ChanObject>(), ffi::Py_TPFLAGS_HAVE_GC, slots);
        CHAN_TYPE.store(tp, Ordering::Release);
        !tp.is_null()
    }
}
