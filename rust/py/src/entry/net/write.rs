//! Sending to a stream: all of it, or an exception that says how much.

use super::buffer::len_of;
use super::read::{count_of, size};
use super::{Call, MOST_AT_ONCE, Object, again, none, note_sent, runtime, socket_of};
use crate::entry::context::limited_object;
use crate::entry::{arguments, fast};
use crate::error;
use gort_core::goroutine::ender::Until;
use gort_core::netpoll::Side;
use gort_core::sys::socket::{self, Part};
use pyo3::ffi;
use std::mem::MaybeUninit;
use std::ptr;

/// Parts of one call of the system: 1 KiB of stack while it is tried.
const PARTS: usize = 64;

/// Calls `f` with where the bytes of `data` are and how many; null with an exception set where it has none.
pub(super) unsafe fn with_bytes(data: Object, f: impl FnOnce(*const u8, usize) -> Object) -> Object {
    // SAFETY: GIL held; the caller keeps `data`; a view is released here, whatever came of it.
    unsafe {
        if ffi::PyBytes_CheckExact(data) != 0 {
            return f(ffi::PyBytes_AS_STRING(data).cast(), len_of(data));
        }
        if ffi::PyUnicode_Check(data) != 0 {
            return error::set(ffi::PyExc_TypeError, "bytes are expected, not str");
        }
        let mut view = MaybeUninit::<ffi::Py_buffer>::uninit();
        if ffi::PyObject_GetBuffer(data, view.as_mut_ptr(), ffi::PyBUF_SIMPLE) < 0 {
            return ptr::null_mut();
        }
        let result = f((*view.as_ptr()).buf.cast(), (*view.as_ptr()).len as usize);
        ffi::PyBuffer_Release(view.as_mut_ptr());
        result
    }
}

/// Sends all `bytes` bytes at `start`; `sent` says how many when it fails. With LAST the connection ends right after.
unsafe fn send_all<const LAST: bool>(
    slf: Object,
    start: *const u8,
    bytes: usize,
    until: Until,
    sent: &mut usize,
) -> Object {
    // SAFETY: a method with the GIL; the bytes stay where they are.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let call = Call { rt, slf, side: Side::Write, until, op: c"write" };
        call.in_turn(ptr::null_mut(), || {
            loop {
                let (from, most) = (start.add(*sent), (bytes - *sent).min(MOST_AT_ONCE));
                // Nothing to send is sent as nothing: a closed socket refuses that, too.
                let attempt = |fd| match most {
                    0 => Ok(0),
                    _ if LAST => socket::send_last(fd, from, most),
                    _ => socket::send(fd, from, most, None),
                };
                match call.done(attempt) {
                    Some(count) => *sent += count,
                    None => return ptr::null_mut(),
                }
                if *sent == bytes {
                    return none();
                }
            }
        })
    }
}

/// `f(until, sent)` with the limits; where it fails, the exception says how much was sent.
pub(super) unsafe fn sending(timeout: Object, ctx: Object, f: impl FnOnce(Until, &mut usize) -> Object) -> Object {
    let mut sent = 0;
    // SAFETY: a method with the GIL.
    unsafe {
        let result = if timeout.is_null() && ctx.is_null() {
            f(Until::Never, &mut sent)
        } else {
            limited_object(timeout, ctx, |until| f(until, &mut sent))
        };
        if result.is_null() && sent != 0 {
            note_sent(sent);
        }
        result
    }
}

unsafe extern "C-unwind" fn write<const LAST: bool>(
    slf: Object,
    args: *const Object,
    n: ffi::Py_ssize_t,
    kw: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let (data, timeout, ctx) = if n == 1 && kw.is_null() {
            (*args, ptr::null_mut(), ptr::null_mut())
        } else {
            let names = [c"data", c"timeout", c"ctx"];
            let Some([data, timeout, ctx]) =
                arguments(if LAST { "_write_last" } else { "write" }, args, n, kw, names, 1)
            else {
                return ptr::null_mut();
            };
            (data, timeout, ctx)
        };
        with_bytes(data, |start, bytes| {
            sending(timeout, ctx, |until, sent| send_all::<LAST>(slf, start, bytes, until, sent))
        })
    }
}

/// Views of all that is to be sent, in memory of their own.
struct Views {
    views: *mut ffi::Py_buffer,
    count: usize,
}

impl Views {
    /// `None`: an exception is set.
    unsafe fn of(items: Object) -> Option<Self> {
        // SAFETY: GIL held; a tuple.
        unsafe {
            let most = ffi::PyTuple_GET_SIZE(items) as usize;
            let views = ffi::PyMem_Malloc(most * size_of::<ffi::Py_buffer>()).cast::<ffi::Py_buffer>();
            if views.is_null() {
                ffi::PyErr_NoMemory();
                return None;
            }
            let mut all = Self { views, count: 0 };
            for i in 0..most {
                let item = ffi::PyTuple_GET_ITEM(items, i as _);
                if ffi::PyObject_GetBuffer(item, views.add(i), ffi::PyBUF_SIMPLE) < 0 {
                    all.release();
                    return None;
                }
                all.count += 1;
            }
            Some(all)
        }
    }

    /// Not by dropping it: nothing here is dropped over a park.
    unsafe fn release(self) {
        // SAFETY: GIL held; made by `of`.
        unsafe {
            for i in 0..self.count {
                ffi::PyBuffer_Release(self.views.add(i));
            }
            ffi::PyMem_Free(self.views.cast());
        }
    }

    /// The parts from byte `skip` of view `first` on, as many as fit; how many, and how many bytes.
    unsafe fn parts(&self, first: usize, skip: usize, parts: &mut [Part; PARTS]) -> (usize, usize) {
        let (mut used, mut bytes, mut skip) = (0, 0, skip);
        for i in first..self.count.min(first + PARTS) {
            // SAFETY: made by `of`; `skip` is inside of the first.
            unsafe {
                let view = &*self.views.add(i);
                let rest = (view.len as usize - skip).min(MOST_AT_ONCE - bytes);
                parts[used] = Part::new(view.buf.cast::<u8>().add(skip), rest);
                bytes += rest;
                used += 1;
                if skip + rest < view.len as usize {
                    break; // that is all for one call
                }
                skip = 0;
            }
        }
        (used, bytes)
    }

    /// Where `count` bytes further on lie.
    unsafe fn advance(&self, first: &mut usize, skip: &mut usize, mut count: usize) {
        while *first < self.count {
            // SAFETY: made by `of`.
            let rest = unsafe { (*self.views.add(*first)).len as usize } - *skip;
            if count < rest {
                *skip += count;
                return;
            }
            count -= rest;
            (*first, *skip) = (*first + 1, 0);
        }
    }

    /// Sends what the parts from there on are, as much as goes at once.
    #[inline(never)] // the parts are no part of the stack of who waits
    unsafe fn send(&self, fd: i32, first: usize, skip: usize) -> Result<usize, i32> {
        let mut parts = [Part::new(ptr::null(), 0); PARTS];
        // SAFETY: the views are readable.
        unsafe {
            let (used, bytes) = self.parts(first, skip, &mut parts);
            if bytes == 0 { Ok(0) } else { socket::send_parts(fd, &parts[..used]) }
        }
    }
}

unsafe fn send_views(slf: Object, views: &Views, until: Until, sent: &mut usize) -> Object {
    // SAFETY: a method with the GIL; the views stay.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let call = Call { rt, slf, side: Side::Write, until, op: c"write" };
        call.in_turn(ptr::null_mut(), || {
            let (mut first, mut skip) = (0, 0);
            loop {
                views.advance(&mut first, &mut skip, 0); // over what is empty
                match call.done(|fd| views.send(fd, first, skip)) {
                    Some(count) => {
                        *sent += count;
                        views.advance(&mut first, &mut skip, count);
                    }
                    None => return ptr::null_mut(),
                }
                if first == views.count {
                    return none();
                }
            }
        })
    }
}

unsafe extern "C-unwind" fn writev(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"parts", c"timeout", c"ctx"];
        let Some([parts, timeout, ctx]) = arguments("writev", args, n, kw, names, 1) else { return ptr::null_mut() };
        let items = ffi::PySequence_Tuple(parts); // whoever changes the list meanwhile changes nothing here
        if items.is_null() {
            return items;
        }
        let Some(views) = Views::of(items) else {
            ffi::Py_DECREF(items);
            return ptr::null_mut();
        };
        let result = sending(timeout, ctx, |until, sent| send_views(slf, &views, until, sent));
        views.release();
        ffi::Py_DECREF(items);
        result
    }
}

/// One call of the system without the GIL: the file's bytes may have to come from a disk.
#[inline(never)]
unsafe fn send_file_once(fd: i32, file: i32, offset: u64, bytes: usize) -> Result<usize, i32> {
    // SAFETY: GIL held before and after.
    unsafe {
        let state = ffi::PyEval_SaveThread();
        let result = socket::send_file(fd, file, offset, bytes);
        ffi::PyEval_RestoreThread(state);
        result
    }
}

/// Sends up to `bytes` bytes of a file; ends early at its end.
unsafe fn send_file_part(slf: Object, file: i32, from: u64, bytes: usize, until: Until, sent: &mut usize) -> Object {
    // SAFETY: a method with the GIL.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let call = Call { rt, slf, side: Side::Write, until, op: c"sendfile" };
        call.in_turn(ptr::null_mut(), || {
            while *sent < bytes {
                let attempt = |fd| send_file_once(fd, file, from + *sent as u64, (bytes - *sent).min(MOST_AT_ONCE));
                match socket_of(slf).done_unlocked(rt, Side::Write, until, attempt) {
                    Ok(0) => break,
                    Ok(count) => *sent += count,
                    Err(stop) if again(rt, slf, call.op, stop, ptr::null_mut()) => {}
                    Err(_) => return ptr::null_mut(),
                }
            }
            count_of(*sent)
        })
    }
}

unsafe extern "C-unwind" fn send_file(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"fd", c"offset", c"count", c"timeout", c"ctx"];
        let Some([file, offset, count, timeout, ctx]) = arguments("_send_file", args, n, kw, names, 3) else {
            return ptr::null_mut();
        };
        let file = ffi::PyLong_AsLong(file);
        let (Some(offset), Some(count)) = (size(offset), size(count)) else {
            return ptr::null_mut();
        };
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let file = i32::try_from(file).unwrap_or(-1);
        sending(timeout, ctx, |until, sent| send_file_part(slf, file, offset as u64, count, until, sent))
    }
}

/// Methods of streams that send.
pub(super) fn stream_methods() -> Vec<ffi::PyMethodDef> {
    vec![
        fast(
            c"write",
            write::<false>,
            c"write($self, /, data, timeout=None, ctx=None)\n--\n\nSends all of it. Parks while there is no room.",
        ),
        fast(
            c"_write_last",
            write::<true>,
            c"_write_last($self, /, data, timeout=None, ctx=None)\n--\n\nSends all of it: `close` or `close_write` follows at once.",
        ),
        fast(
            c"writev",
            writev,
            c"writev($self, /, parts, timeout=None, ctx=None)\n--\n\nSends all parts, one after another. Parks while there is no room.",
        ),
        fast(
            c"_send_file",
            send_file,
            c"_send_file($self, /, fd, offset, count, timeout=None, ctx=None)\n--\n\nSends a part of a file; how much.",
        ),
    ]
}
