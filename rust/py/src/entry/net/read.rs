//! Receiving from a stream: `read`, `read_exact`, `readinto`.
//!
//! A bytes object is made before anything is received, so that there is one to put it into. Up to [`SPARE_BYTES`] that is always the
//! same one, of which what came is copied out: who waits holds no buffer, and a small answer to a large request takes little memory.

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
use std::sync::atomic::{AtomicPtr, Ordering};

/// Size of the bytes object that is used again.
const SPARE_BYTES: usize = 64 << 10;
/// What is longer is not copied out of it, but given away with it, cut to size: a copy takes longer than a new one.
const MOST_COPIED: usize = 32 << 10;
/// How often a number is asked for that says what was done already.
const TRIES: usize = 100;

/// Nobody else has it: it is taken, received into, and put back or given away, all with the GIL.
static SPARE: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// A bytes object of at least `bytes`; null with an exception set.
unsafe fn take_buffer(bytes: usize) -> Object {
    // SAFETY: GIL held.
    unsafe {
        if bytes > SPARE_BYTES {
            return ffi::PyBytes_FromStringAndSize(ptr::null(), bytes as _);
        }
        let spare = SPARE.swap(ptr::null_mut(), Ordering::Relaxed); // the GIL orders it
        if spare.is_null() { ffi::PyBytes_FromStringAndSize(ptr::null(), SPARE_BYTES as _) } else { spare }
    }
}

unsafe fn give_buffer(buffer: Object) {
    // SAFETY: GIL held; of `take_buffer`, and nobody else has it.
    unsafe {
        if len_of(buffer) == SPARE_BYTES {
            let other = SPARE.swap(buffer, Ordering::Relaxed);
            ffi::Py_XDECREF(other);
        } else {
            ffi::Py_DECREF(buffer);
        }
    }
}

/// Where a bytes object has its bytes.
pub(super) unsafe fn start_of(bytes: Object) -> *mut u8 {
    // SAFETY: GIL held; a live bytes object.
    unsafe { ffi::PyBytes_AS_STRING(bytes).cast_mut().cast() }
}

/// How many bytes it has.
pub(super) unsafe fn len_of(bytes: Object) -> usize {
    // SAFETY: GIL held; a live bytes object.
    unsafe { (*bytes.cast::<ffi::PyVarObject>()).ob_size as usize }
}

/// The buffer, cut to `bytes`. Never fails: where memory for a smaller one is refused, it keeps what it has.
unsafe fn cut(buffer: Object, bytes: usize) -> Object {
    // SAFETY: GIL held; a bytes object that nobody else has and nobody has hashed, as `_PyBytes_Resize` wants it; that one lets go of it
    // on failure. The bytes begin at the same place in each.
    unsafe {
        let header = start_of(buffer).byte_offset_from_unsigned(buffer);
        let moved = ffi::PyObject_Realloc(buffer.cast(), header + bytes + 1).cast::<ffi::PyObject>();
        let buffer = if moved.is_null() { buffer } else { moved };
        (*buffer.cast::<ffi::PyVarObject>()).ob_size = bytes as _;
        *start_of(buffer).add(bytes) = 0;
        buffer
    }
}

/// What to give out of the first `bytes` of `buffer`. Never fails.
unsafe fn deliver(buffer: Object, bytes: usize) -> Object {
    // SAFETY: GIL held; the buffer is ours.
    unsafe {
        if bytes <= MOST_COPIED && bytes != len_of(buffer) {
            let copy = ffi::PyBytes_FromStringAndSize(start_of(buffer).cast(), bytes as _);
            if !copy.is_null() {
                give_buffer(buffer);
                return copy;
            }
            ffi::PyErr_Clear();
        }
        cut(buffer, bytes)
    }
}

/// Receives up to `bytes` bytes by `ask`; as its result a bytes object, or null with an exception set.
#[inline(never)] // what it needs is no part of the stack of who waits
pub(super) unsafe fn receive_by(
    bytes: usize,
    ask: impl FnOnce(*mut u8, usize) -> Result<usize, i32>,
) -> Result<Object, i32> {
    // SAFETY: GIL held.
    unsafe {
        let buffer = take_buffer(bytes);
        if buffer.is_null() {
            return Ok(buffer);
        }
        match ask(start_of(buffer), bytes) {
            Ok(count) => Ok(deliver(buffer, count)),
            Err(number) => {
                give_buffer(buffer);
                Err(number)
            }
        }
    }
}

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

/// Keeps the first `bytes` of `buffer`, which is ours, for the next to read; there are none of before.
unsafe fn put_back(slf: Object, buffer: Object, bytes: usize) {
    // SAFETY: GIL held, `slf` alive, and this call has its turn: nobody else has put anything there.
    unsafe {
        if bytes == 0 {
            ffi::Py_DECREF(buffer);
            return;
        }
        let object = net(slf);
        (object.unread, object.unread_from, object.unread_to) = (buffer, 0, bytes);
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
            let read = |fd| {
                let mut is_short = false;
                let received = receive_by(bytes, |place, bytes| {
                    let (count, short) = receive(fd, place, bytes)?;
                    is_short = short;
                    Ok(count)
                })?;
                Ok((received, is_short))
            };
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
