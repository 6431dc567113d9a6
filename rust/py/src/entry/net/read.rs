//! Receiving from a stream: `read`, `read_exact`, `readinto`.

use super::buffer::{put_back, receive_some, start_of};
use super::{Call, MOST_AT_ONCE, Object, net, none, runtime, socket_of};
use crate::entry::context::limited_object;
use crate::entry::{arguments, fast};
use crate::error;
use gort_core::goroutine::ender::Until;
use gort_core::netpoll::Side;
use gort_core::sys::socket;
use pyo3::ffi;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

/// How often a number is asked for that says what was done already.
const TRIES: usize = 100;

/// How much was received, and whether that was some, but less than there is room for.
unsafe fn receive(fd: i32, place: *mut u8, bytes: usize) -> Result<(usize, bool), i32> {
    // SAFETY: the caller's: the place has the room.
    let count = unsafe { socket::receive(fd, place, bytes) }?;
    Ok((count, count != 0 && count < bytes))
}

/// How many bytes of before are to be read first; 0 if there are none.
unsafe fn unread_bytes(slf: Object) -> usize {
    // SAFETY: GIL held, `slf` alive.
    unsafe { if net(slf).unread.is_null() { 0 } else { net(slf).unread_to - net(slf).unread_from } }
}

/// Copies up to `bytes` of them to `place`; how many.
unsafe fn take_unread(slf: Object, place: *mut u8, bytes: usize) -> usize {
    // SAFETY: GIL held, `slf` alive; the place has room.
    unsafe {
        let count = unread_bytes(slf).min(bytes);
        if count != 0 {
            let object = net(slf);
            ptr::copy_nonoverlapping(start_of(object.unread).add(object.unread_from), place, count);
            object.unread_from += count;
            if object.unread_from == object.unread_to {
                ffi::Py_DECREF(std::mem::replace(&mut object.unread, ptr::null_mut()));
            }
        }
        count
    }
}

/// Bytes of before, as an object; null with an exception set.
unsafe fn read_unread(slf: Object, bytes: usize) -> Object {
    // SAFETY: GIL held, `slf` alive.
    unsafe {
        let count = unread_bytes(slf).min(bytes);
        let object = ffi::PyBytes_FromStringAndSize(ptr::null(), count as _);
        if !object.is_null() {
            take_unread(slf, start_of(object), count);
        }
        object
    }
}

/// Whether the socket refuses, before bytes of before are given out.
unsafe fn is_open(call: &Call<'_>) -> bool {
    // SAFETY: GIL held, `slf` alive.
    unsafe { call.done(|_| Ok(())).is_some() }
}

/// A number of bytes that is asked for. `None`: an exception is set.
pub(super) unsafe fn size(object: Object) -> Option<usize> {
    // SAFETY: GIL held; a live object.
    unsafe {
        if ffi::PyLong_CheckExact(object) != 0 {
            let bytes = ffi::PyLong_AsSsize_t(object); // a half of what it takes to ask any object
            if bytes >= 0 {
                return Some(bytes as usize);
            }
            ffi::PyErr_Clear();
        }
        let bytes = ffi::PyNumber_AsSsize_t(object, ffi::PyExc_OverflowError);
        if bytes < 0 && ffi::PyErr_Occurred().is_null() {
            error::set(ffi::PyExc_ValueError, format_args!("{bytes} bytes cannot be read"));
        }
        usize::try_from(bytes).ok()
    }
}

fn reading(slf: Object, until: Until, op: &CStr) -> Option<Call<'_>> {
    runtime().map(|rt| Call { rt, slf, side: Side::Read, until, op })
}

unsafe fn read_until(slf: Object, bytes: usize, until: Until) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(call) = reading(slf, until, c"read") else { return ptr::null_mut() };
        if bytes == 0 {
            return ffi::PyBytes_FromStringAndSize(ptr::null(), 0);
        }
        let bytes = bytes.min(MOST_AT_ONCE);
        call.in_turn(ptr::null_mut(), || {
            if unread_bytes(slf) != 0 {
                return if is_open(&call) { read_unread(slf, bytes) } else { ptr::null_mut() };
            }
            let mut is_first = true;
            let read = |fd| receive_some(slf, fd, bytes, std::mem::replace(&mut is_first, false));
            call.done_reading(read).unwrap_or(ptr::null_mut())
        })
    }
}

/// `name(x, timeout=None, ctx=None)` of what `read` makes of x.
macro_rules! receiving {
    ($f:ident, $name:literal, $argument:literal, $read:expr, $op:expr) => {
        pub(super) unsafe extern "C-unwind" fn $f(
            slf: Object,
            args: *const Object,
            n: ffi::Py_ssize_t,
            kw: Object,
        ) -> Object {
            /// Out of line: what it needs would be a part of the stack of everybody who waits.
            #[inline(never)]
            unsafe fn limited(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
                // SAFETY: as below.
                unsafe {
                    let names = [$argument, c"timeout", c"ctx"];
                    let Some([x, timeout, ctx]) = arguments($name, args, n, kw, names, 1) else {
                        return ptr::null_mut();
                    };
                    let Some(x) = $read(x) else { return ptr::null_mut() };
                    limited_object(timeout, ctx, |until| $op(slf, x, until))
                }
            }
            // SAFETY: a vectorcall with the GIL.
            unsafe {
                if n == 1 && kw.is_null() {
                    let Some(x) = $read(*args) else { return ptr::null_mut() };
                    return $op(slf, x, Until::Never);
                }
                limited(slf, args, n, kw)
            }
        }
    };
}
pub(super) use receiving;

receiving!(read, "read", c"n", size, read_until);
receiving!(read_exact, "read_exact", c"n", size, read_exact_until);
receiving!(readinto, "readinto", c"buffer", Some, readinto_until);

unsafe fn read_exact_until(slf: Object, bytes: usize, until: Until) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(call) = reading(slf, until, c"read") else { return ptr::null_mut() };
        if bytes == 0 {
            return ffi::PyBytes_FromStringAndSize(ptr::null(), 0);
        }
        call.in_turn(ptr::null_mut(), || fill(&call, bytes))
    }
}

unsafe fn fill(call: &Call<'_>, bytes: usize) -> Object {
    // SAFETY: GIL held, and it is this call's turn.
    unsafe {
        if !is_open(call) {
            return ptr::null_mut();
        }
        let buffer = ffi::PyBytes_FromStringAndSize(ptr::null(), bytes as _);
        if buffer.is_null() {
            return buffer;
        }
        let mut count = take_unread(call.slf, start_of(buffer), bytes);
        while count < bytes {
            let place = start_of(buffer).add(count);
            match call.done_reading(|fd| receive(fd, place, (bytes - count).min(MOST_AT_ONCE))) {
                Some(0) => {
                    put_back(call.slf, buffer, count);
                    return fail_short(call.slf, count, bytes);
                }
                Some(more) => count += more,
                None => {
                    put_back(call.slf, buffer, count);
                    return ptr::null_mut();
                }
            }
        }
        buffer
    }
}

/// The stream has ended within what was to be read.
#[cold]
unsafe fn fail_short(slf: Object, count: usize, bytes: usize) -> Object {
    // SAFETY: GIL held, `slf` alive.
    unsafe {
        let (count, bytes) = (ffi::PyLong_FromSize_t(count), ffi::PyLong_FromSize_t(bytes));
        let exception = if count.is_null() || bytes.is_null() {
            ptr::null_mut()
        } else {
            crate::entry::facade(c"gort.net._errors", c"ended", &[slf, count, bytes])
        };
        ffi::Py_XDECREF(count);
        ffi::Py_XDECREF(bytes);
        if !exception.is_null() {
            ffi::PyErr_SetObject(ffi::Py_TYPE(exception).cast(), exception);
            ffi::Py_DECREF(exception);
        }
        ptr::null_mut()
    }
}

/// A number that says what was done; asked for again where memory is refused.
pub(super) unsafe fn count_of(count: usize) -> Object {
    for _ in 0..TRIES {
        // SAFETY: GIL held.
        unsafe {
            let object = ffi::PyLong_FromSize_t(count);
            if !object.is_null() {
                return object;
            }
            ffi::PyErr_Clear();
        }
    }
    // SAFETY: GIL held.
    unsafe { ffi::PyErr_NoMemory() }
}

/// Receives into `buffer` by `ask`, which gets where and how much; what that gives.
pub(super) unsafe fn into_buffer(buffer: Object, ask: impl FnOnce(*mut u8, usize) -> Option<usize>) -> Object {
    // SAFETY: GIL held; the view is released here, whatever came of it.
    unsafe {
        let mut view = MaybeUninit::<ffi::Py_buffer>::uninit();
        if ffi::PyObject_GetBuffer(buffer, view.as_mut_ptr(), ffi::PyBUF_WRITABLE) < 0 {
            return ptr::null_mut();
        }
        let (place, bytes) = ((*view.as_ptr()).buf.cast::<u8>(), (*view.as_ptr()).len as usize);
        let count = ask(place, bytes);
        ffi::PyBuffer_Release(view.as_mut_ptr());
        count.map_or(ptr::null_mut(), |count| count_of(count))
    }
}

unsafe fn readinto_until(slf: Object, buffer: Object, until: Until) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(call) = reading(slf, until, c"read") else { return ptr::null_mut() };
        into_buffer(buffer, |place, bytes| {
            if bytes == 0 {
                return Some(0);
            }
            call.in_turn(None, || {
                if unread_bytes(slf) != 0 {
                    return is_open(&call).then(|| take_unread(slf, place, bytes));
                }
                call.done_reading(|fd| receive(fd, place, bytes.min(MOST_AT_ONCE)))
            })
        })
    }
}

unsafe extern "C-unwind" fn close_read(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { shut_down(slf, c"close_read", true) }
}

unsafe extern "C-unwind" fn close_write(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { shut_down(slf, c"close_write", false) }
}

unsafe fn shut_down(slf: Object, op: &CStr, receiving: bool) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        if socket_of(slf).is_closed() {
            return super::fail(slf, op, super::CLOSED, ptr::null_mut());
        }
        match socket::shut_down(socket_of(slf).fd(), receiving) {
            Ok(()) => none(),
            Err(number) => super::fail(slf, op, number, ptr::null_mut()),
        }
    }
}

/// Methods of streams that receive, and those that end a direction.
pub(super) fn stream_methods() -> Vec<ffi::PyMethodDef> {
    vec![
        fast(
            c"read",
            read,
            c"read($self, /, n, timeout=None, ctx=None)\n--\n\nWhat there is, 1 to n bytes; b\"\" at the end. Parks until there is any.",
        ),
        fast(
            c"read_exact",
            read_exact,
            c"read_exact($self, /, n, timeout=None, ctx=None)\n--\n\nn bytes. Parks until they are there.",
        ),
        fast(
            c"readinto",
            readinto,
            c"readinto($self, /, buffer, timeout=None, ctx=None)\n--\n\nReads into a buffer; how many bytes, 0 at the end. Parks.",
        ),
        crate::entry::plain(
            c"close_read",
            close_read,
            ffi::METH_NOARGS,
            c"close_read($self, /)\n--\n\nEnds receiving: reads give b\"\".",
        ),
        crate::entry::plain(
            c"close_write",
            close_write,
            ffi::METH_NOARGS,
            c"close_write($self, /)\n--\n\nEnds sending: the other end reads b\"\" after what was sent.",
        ),
    ]
}
