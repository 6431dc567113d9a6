//! Packets: each is read and sent whole. What is longer than a read asked for is cut off and gone, as everywhere.

use super::buffer::{len_of, receive_by, start_of};
use super::read::{into_buffer, receiving, size};
use super::write::{sending, with_bytes};
use super::{Call, MOST_AT_ONCE, Object, address, net, none, runtime};
use crate::entry::context::limited_object;
use crate::entry::{arguments, fast};
use gort_core::goroutine::ender::Until;
use gort_core::netpoll::Side;
use gort_core::sys::socket::{self, Address};
use pyo3::ffi;
use std::ptr;

/// A packet that was received and could not be given out: a new reference, and from whom.
unsafe fn take_unread(slf: Object) -> Option<(Object, Address)> {
    // SAFETY: GIL held, `slf` alive.
    unsafe {
        let object = net(slf);
        let packet = std::mem::replace(&mut object.unread, ptr::null_mut());
        (!packet.is_null()).then_some((packet, object.sender))
    }
}

/// A packet as bytes, and its sender. `None`: an exception is set, or a context ended the wait. The first is null with an exception set
/// where there is no memory for the bytes, before anything is received.
unsafe fn receive(call: &Call<'_>, bytes: usize) -> Option<(Object, Address)> {
    // SAFETY: GIL held, and it is this call's turn.
    unsafe {
        if !net(call.slf).unread.is_null() {
            call.done(|_| Ok(()))?;
            return take_unread(call.slf);
        }
        let mut sender = Address::default();
        let ask = |fd| {
            receive_by(bytes, |place, bytes| {
                let (count, from) = socket::receive_from(fd, place, bytes)?;
                sender = from;
                Ok(count)
            })
        };
        let packet = call.done(ask)?;
        Some((packet, sender))
    }
}

fn reading(slf: Object, until: Until) -> Option<Call<'static>> {
    runtime().map(|rt| Call { rt, slf, side: Side::Read, until, op: c"read" })
}

unsafe fn read_until(slf: Object, bytes: usize, until: Until) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(call) = reading(slf, until) else { return ptr::null_mut() };
        let bytes = bytes.min(MOST_AT_ONCE);
        call.in_turn(ptr::null_mut(), || receive(&call, bytes).map_or(ptr::null_mut(), |(packet, _)| packet))
    }
}

unsafe fn read_from_until(slf: Object, bytes: usize, until: Until) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(call) = reading(slf, until) else { return ptr::null_mut() };
        let bytes = bytes.min(MOST_AT_ONCE);
        call.in_turn(ptr::null_mut(), || {
            let pair = ffi::PyTuple_New(2);
            if pair.is_null() {
                return pair;
            }
            let Some((packet, sender)) = receive(&call, bytes).filter(|(packet, _)| !packet.is_null()) else {
                ffi::Py_DECREF(pair);
                return ptr::null_mut();
            };
            let from = address::show(&sender);
            if from.is_null() {
                let object = net(slf);
                (object.unread, object.sender) = (packet, sender);
                ffi::Py_DECREF(pair);
                return ptr::null_mut();
            }
            ffi::PyTuple_SET_ITEM(pair, 0, packet);
            ffi::PyTuple_SET_ITEM(pair, 1, from);
            pair
        })
    }
}

unsafe fn readinto_until(slf: Object, buffer: Object, until: Until) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(call) = reading(slf, until) else { return ptr::null_mut() };
        into_buffer(buffer, |place, bytes| {
            call.in_turn(None, || {
                if !net(slf).unread.is_null() {
                    call.done(|_| Ok(()))?;
                    let (packet, _) = take_unread(slf)?;
                    let count = len_of(packet).min(bytes);
                    ptr::copy_nonoverlapping(start_of(packet), place, count);
                    ffi::Py_DECREF(packet);
                    return Some(count);
                }
                call.done(|fd| socket::receive(fd, place, bytes.min(MOST_AT_ONCE)))
            })
        })
    }
}

receiving!(read, "read", c"n", size, read_until);
receiving!(read_from, "read_from", c"n", size, read_from_until);
receiving!(readinto, "readinto", c"buffer", Some, readinto_until);

unsafe fn send(slf: Object, start: *const u8, bytes: usize, to: Option<&Address>, until: Until) -> Object {
    // SAFETY: a method with the GIL; the bytes stay where they are.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let call = Call { rt, slf, side: Side::Write, until, op: c"write" };
        let sent = call.in_turn(None, || call.done(|fd| socket::send(fd, start, bytes, to)));
        sent.map_or(ptr::null_mut(), |_| none())
    }
}

unsafe extern "C-unwind" fn write(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"data", c"timeout", c"ctx"];
        let Some([data, timeout, ctx]) = arguments("write", args, n, kw, names, 1) else { return ptr::null_mut() };
        with_bytes(data, |start, bytes| sending(timeout, ctx, |until, _| send(slf, start, bytes, None, until)))
    }
}

unsafe extern "C-unwind" fn write_to(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"data", c"address", c"timeout", c"ctx"];
        let Some([data, to, timeout, ctx]) = arguments("write_to", args, n, kw, names, 2) else {
            return ptr::null_mut();
        };
        let Some(to) = address::read(to, address::is_v6(slf)) else { return ptr::null_mut() };
        with_bytes(data, |start, bytes| sending(timeout, ctx, |until, _| send(slf, start, bytes, Some(&to), until)))
    }
}

/// Methods of packets.
pub(super) fn methods_of() -> Vec<ffi::PyMethodDef> {
    vec![
        fast(
            c"read",
            read,
            c"read($self, /, n, timeout=None, ctx=None)\n--\n\nThe next packet, cut to n bytes. Parks until there is one.",
        ),
        fast(
            c"read_from",
            read_from,
            c"read_from($self, /, n, timeout=None, ctx=None)\n--\n\nThe next packet, cut to n bytes, and its sender. Parks.",
        ),
        fast(
            c"readinto",
            readinto,
            c"readinto($self, /, buffer, timeout=None, ctx=None)\n--\n\nReads the next packet into a buffer; its size there. Parks.",
        ),
        fast(
            c"write",
            write,
            c"write($self, /, data, timeout=None, ctx=None)\n--\n\nSends a packet to the other end. Parks while there is no room.",
        ),
        fast(
            c"write_to",
            write_to,
            c"write_to($self, /, data, address, timeout=None, ctx=None)\n--\n\nSends a packet. Parks while there is no room.",
        ),
    ]
}
