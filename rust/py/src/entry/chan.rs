//! The Chan type.

use super::{Value, arguments, boolean, deadline, fast, getters, methods, none, plain, runtime};
use crate::error;
use gort_core::chan::{Chan, RecvError, SendError};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

#[repr(C)]
pub(crate) struct ChanObject {
    ob_base: ffi::PyObject,
    pub(crate) chan: Chan<Value>,
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

unsafe extern "C" fn chan_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let mut cap: isize = 0;
        let mut names = [c"cap".as_ptr().cast_mut(), ptr::null_mut()];
        if ffi::PyArg_ParseTupleAndKeywords(args, kwargs, c"|n:Chan".as_ptr(), names.as_mut_ptr().cast(), &raw mut cap)
            == 0
        {
            return ptr::null_mut();
        }
        if !(0..=MAX_CAPACITY).contains(&cap) {
            return error::set(ffi::PyExc_ValueError, "makechan: size out of range");
        }
        let obj = ffi::PyType_GenericAlloc(tp, 0);
        if !obj.is_null() {
            ptr::write(&raw mut (*obj.cast::<ChanObject>()).chan, Chan::new(cap as usize));
        }
        obj
    }
}

unsafe extern "C" fn chan_traverse(slf: Object, visit: ffi::visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: called by the collector on a live object; the buffer owns one count of each value.
    unsafe {
        let mut result = visit(ffi::Py_TYPE(slf).cast(), arg);
        chan_of(slf).for_each_buffered(|v| {
            if result == 0 {
                result = visit(v.0, arg);
            }
        });
        result
    }
}

unsafe extern "C" fn chan_clear(slf: Object) -> std::ffi::c_int {
    // SAFETY: called by the collector or dealloc; the values are out of the channel before they are let go.
    unsafe {
        for v in chan_of(slf).take_buffered() {
            ffi::Py_DECREF(v.0);
        }
    }
    0
}

unsafe extern "C" fn chan_dealloc(slf: Object) {
    // SAFETY: the last reference is gone, so nobody waits on it: a waiter holds one.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        chan_clear(slf);
        ptr::drop_in_place(&raw mut (*slf.cast::<ChanObject>()).chan);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

unsafe extern "C-unwind" fn send(slf: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller's frame keeps `slf` and the value alive.
    unsafe {
        let (value, until) = if nargs == 1 && kwnames.is_null() {
            (*args, None)
        } else {
            let Some([value, timeout]) = arguments("send", args, nargs, kwnames, [c"value", c"timeout"], 1) else {
                return ptr::null_mut();
            };
            let Ok(until) = deadline(timeout) else { return ptr::null_mut() };
            (value, until)
        };
        let chan = chan_of(slf);
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
        if result.is_err() {
            ffi::Py_DECREF(value);
            return error::set(error::chan_closed(), "send on closed channel");
        }
        none()
    }
}

/// `Ok(null)`: closed and drained. `Err`: an exception is set.
#[inline(always)]
unsafe fn receive(slf: Object, until: Option<u64>) -> Result<Object, ()> {
    // SAFETY: `slf` is a Chan kept alive by the caller.
    let chan = unsafe { chan_of(slf) };
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
            return receive(slf, None);
        }
        let Some([timeout]) = arguments(name, args, nargs, kwnames, [c"timeout"], 0) else { return Err(()) };
        receive(slf, deadline(timeout)?)
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

/// A tuple of owned references; null if any is null or memory is refused.
pub(crate) unsafe fn tuple<const N: usize>(items: [Object; N]) -> Object {
    // SAFETY: GIL held; the references are the caller's and go into the tuple.
    unsafe {
        let t = ffi::PyTuple_New(N as _);
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
        match receive_args("recv_ok", slf, args, nargs, kwnames) {
            Ok(v) if v.is_null() => tuple([none(), boolean(false)]),
            Ok(v) => tuple([v, boolean(true)]),
            Err(()) => ptr::null_mut(),
        }
    }
}

unsafe extern "C-unwind" fn try_send(slf: Object, value: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        ffi::Py_INCREF(value);
        match chan_of(slf).try_send(Value(value)) {
            Ok(()) => boolean(true),
            Err(SendError::Closed(v)) => {
                ffi::Py_DECREF(v.0);
                error::set(error::chan_closed(), "send on closed channel")
            }
            Err(SendError::Full(v) | SendError::Ended(v, _)) => {
                ffi::Py_DECREF(v.0);
                boolean(false)
            }
        }
    }
}

unsafe extern "C-unwind" fn try_recv(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        match chan_of(slf).try_recv() {
            Ok(v) => tuple([v.0, boolean(true), boolean(true)]),
            Err(RecvError::Closed) => tuple([none(), boolean(false), boolean(true)]),
            Err(_) => tuple([none(), boolean(false), boolean(false)]),
        }
    }
}

unsafe extern "C-unwind" fn close(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    match unsafe { chan_of(slf) }.close() {
        Ok(()) => none(),
        Err(_) => error::set(error::chan_closed(), "close of closed channel"),
    }
}

unsafe extern "C-unwind" fn chan_next(slf: Object) -> Object {
    // SAFETY: tp_iternext with the GIL; null without an exception ends the loop.
    unsafe { receive(slf, None) }.unwrap_or(ptr::null_mut())
}

/// `ch.sender()` and `ch.receiver()`: views of `gort.chan`.
unsafe fn view(slf: Object, class: &std::ffi::CStr) -> Object {
    // SAFETY: GIL held.
    unsafe {
        let module = ffi::PyImport_ImportModule(c"gort.chan".as_ptr());
        if module.is_null() {
            return module;
        }
        let function = ffi::PyObject_GetAttrString(module, class.as_ptr());
        ffi::Py_DECREF(module);
        if function.is_null() {
            return function;
        }
        let args = [slf];
        let result = ffi::PyObject_Vectorcall(function, args.as_ptr(), 1, ptr::null_mut());
        ffi::Py_DECREF(function);
        result
    }
}

unsafe extern "C-unwind" fn sender(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { view(slf, c"_sender") }
}

unsafe extern "C-unwind" fn receiver(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { view(slf, c"_receiver") }
}

unsafe extern "C-unwind" fn recv_async(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { view(slf, c"recv_async") }
}

unsafe extern "C-unwind" fn send_async(slf: Object, value: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let function = view_function(c"send_async");
        if function.is_null() {
            return function;
        }
        let args = [slf, value];
        let result = ffi::PyObject_Vectorcall(function, args.as_ptr(), 2, ptr::null_mut());
        ffi::Py_DECREF(function);
        result
    }
}

unsafe fn view_function(name: &std::ffi::CStr) -> Object {
    // SAFETY: GIL held.
    unsafe {
        let module = ffi::PyImport_ImportModule(c"gort.chan".as_ptr());
        if module.is_null() {
            return module;
        }
        let function = ffi::PyObject_GetAttrString(module, name.as_ptr());
        ffi::Py_DECREF(module);
        function
    }
}

unsafe extern "C" fn chan_aiter(slf: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { view(slf, c"_aiter") }
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
        let text = format!("<gort.Chan {}/{}{closed}>", chan.len(), chan.capacity());
        ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as _)
    }
}

/// Adds the type.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut table = vec![
        fast(
            c"send",
            send,
            c"send(value, timeout=None)\n--\n\nSends; parks until it is taken. Raises ChanClosed or TimeoutError.",
        ),
        fast(
            c"recv",
            recv,
            c"recv(timeout=None)\n--\n\nReceives; parks until there is a value. Raises ChanClosed or TimeoutError.",
        ),
        fast(
            c"recv_ok",
            recv_ok,
            c"recv_ok(timeout=None)\n--\n\n(value, True), or (None, False) once closed and drained. Parks.",
        ),
        plain(
            c"try_send",
            try_send,
            ffi::METH_O,
            c"try_send(value, /)\n--\n\nSends if that needs no waiting; whether it did.",
        ),
        plain(c"try_recv", try_recv, ffi::METH_NOARGS, c"try_recv()\n--\n\n(value, ok, ready) without waiting."),
        plain(c"close", close, ffi::METH_NOARGS, c"close()\n--\n\nCloses the channel."),
        plain(c"sender", sender, ffi::METH_NOARGS, c"sender()\n--\n\nA view that can only send."),
        plain(c"receiver", receiver, ffi::METH_NOARGS, c"receiver()\n--\n\nA view that can only receive."),
        plain(c"recv_async", recv_async, ffi::METH_NOARGS, c"recv_async()\n--\n\nAn awaitable receive, for asyncio."),
        plain(c"send_async", send_async, ffi::METH_O, c"send_async(value, /)\n--\n\nAn awaitable send, for asyncio."),
    ];
    table.push(ffi::PyMethodDef {
        ml_name: c"__class_getitem__".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: ffi::Py_GenericAlias },
        ml_flags: ffi::METH_O | ffi::METH_CLASS,
        ml_doc: c"Chan[T]".as_ptr(),
    });
    let slots = vec![
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
        slot(
            ffi::Py_tp_doc,
            c"Chan(cap=0)\n--\n\nA channel: Chan(0) is a rendezvous, Chan(n) holds n values."
                .as_ptr()
                .cast_mut()
                .cast(),
        ),
    ];
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = super::add_type(module, c"gort.Chan", size_of::<ChanObject>(), ffi::Py_TPFLAGS_HAVE_GC, slots);
        CHAN_TYPE.store(tp, Ordering::Release);
        !tp.is_null()
    }
}
