//! Making connections: accepting, and dialling one address.

use super::{Call, NetObject, Object, TYPES, address, again, alloc, fail, net, runtime, socket_of};
use crate::entry::arguments;
use crate::entry::context::limited_object;
use crate::error;
use gort_core::goroutine::ender::Until;
use gort_core::netpoll::Side;
use gort_core::sys::socket::{self, Address, Shown};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::Ordering;

/// Takes the next connection that is still there.
fn accept_live(fd: i32) -> Result<(i32, Address), i32> {
    loop {
        match socket::accept(fd) {
            Err(socket::ABORTED) => {} // who connected has gone: the next one, as in Go
            result => return result,
        }
    }
}

unsafe fn accept_until(slf: Object, until: Until) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let (made, network) = (net(slf).made, net(slf).network);
        if made.is_null() {
            return error::set(ffi::PyExc_RuntimeError, "this listener was made without a class of connections");
        }
        // Made first: a connection that was taken has where to be.
        let new = alloc(made.cast(), -1, network, ptr::null_mut());
        if new.is_null() {
            return new;
        }
        let call = Call { rt, slf, side: Side::Read, until, op: c"accept" };
        let Some((fd, from)) = call.done(accept_live) else {
            ffi::Py_DECREF(new);
            return ptr::null_mut();
        };
        socket_of(new).set_fd(fd);
        (*new.cast::<NetObject>()).remote = from;
        new
    }
}

pub(super) unsafe extern "C-unwind" fn accept(
    slf: Object,
    args: *const Object,
    n: ffi::Py_ssize_t,
    kw: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        if n == 0 && kw.is_null() {
            return accept_until(slf, Until::Never);
        }
        let Some([timeout, ctx]) = arguments("accept", args, n, kw, [c"timeout", c"ctx"], 0) else {
            return ptr::null_mut();
        };
        limited_object(timeout, ctx, |until| accept_until(slf, until))
    }
}

/// Makes the socket of `new` and connects it. `to`: what was asked for, for exceptions.
unsafe fn connect(new: Object, kind: i32, remote: &Address, local: Option<&Address>, until: Until, to: Object) -> bool {
    // SAFETY: GIL held; `new` is ours.
    unsafe {
        let Some(rt) = runtime() else { return false };
        let is_inet = matches!(remote.shown(), Shown::Inet(..));
        let fd = match socket::open(remote.family(), kind) {
            Ok(fd) => fd,
            Err(number) => {
                fail(new, c"dial", number, to);
                return false;
            }
        };
        socket_of(new).set_fd(fd);
        if is_inet && kind == socket::STREAM {
            socket::set_tcp_options(fd);
        } else if is_inet {
            socket::allow_broadcast(fd);
        }
        if let Some(Err(number)) = local.map(|local| socket::bind(fd, local)) {
            fail(new, c"dial", number, to);
            return false;
        }
        let mut result = socket_of(new).connect(rt, remote, until);
        while let Err(stop) = result {
            if !again(rt, new, c"dial", stop, to) {
                return false;
            }
            result = socket_of(new).finish_connect(rt, until); // a signal came: the connect goes on
        }
        (*new.cast::<NetObject>()).remote = *remote;
        true
    }
}

/// `_net_dial(cls, network, kind, remote, local, timeout, ctx)`.
pub(super) unsafe extern "C-unwind" fn dial(_m: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: a fastcall with the GIL.
    unsafe {
        if n != 7 {
            return error::set(ffi::PyExc_TypeError, "_net_dial() takes 7 arguments");
        }
        let [class, network, kind, to, from, timeout, ctx] = std::array::from_fn(|i| *args.add(i));
        let is_ours = |tp: *mut ffi::PyTypeObject| ffi::PyType_IsSubtype(class.cast(), tp) != 0;
        if ffi::PyType_Check(class) == 0
            || !(is_ours(TYPES[0].load(Ordering::Relaxed)) || is_ours(TYPES[2].load(Ordering::Relaxed)))
            || ffi::PyUnicode_Check(network) == 0
        {
            return error::set(ffi::PyExc_TypeError, "_net_dial() needs a class of connections and a network");
        }
        let kind = ffi::PyLong_AsLong(kind);
        let Some(remote) = address::read(to, false) else { return ptr::null_mut() };
        let local = if ffi::Py_IsNone(from) != 0 {
            None
        } else {
            let Some(local) = address::read(from, false) else { return ptr::null_mut() };
            Some(local)
        };
        let new = alloc(class.cast(), -1, network, ptr::null_mut());
        if new.is_null() || !ffi::PyErr_Occurred().is_null() {
            ffi::Py_XDECREF(new);
            return ptr::null_mut();
        }
        let result = limited_object(timeout, ctx, |until| {
            let is_connected = connect(new, kind as i32, &remote, local.as_ref(), until, to);
            if is_connected { ffi::Py_NewRef(new) } else { ptr::null_mut() }
        });
        if result.is_null() {
            super::close_now(new); // before the last reference goes, which would warn
        }
        ffi::Py_DECREF(new);
        result
    }
}
