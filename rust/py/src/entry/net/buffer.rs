//! Where bytes go that are received.
//!
//! A bytes object is made before anything is received, so that there is one to put it into:
//!
//! - the **spare** one, up to [`SPARE_BYTES`], which is always the same, and of which what came is copied out: who waits holds no
//!   buffer, and a small answer to a large request takes little memory;
//! - or one **of its own**, where the connection's last reads gave much, and of a little more than that: what does not fill it is all
//!   there was. A large copy costs more than what else is to be done, because it goes to memory that was last used some connections ago
//!   and is in no cache. What comes beyond its room goes to the spare one, by a second call, and is put behind it. Rejected: both in one
//!   call, recvmsg, which costs 0.2 µs more each time.
//!
//! Nothing here fails once something was received.

use super::{Object, net};
use gort_core::sys::socket::{self, AGAIN};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Size of the bytes object that is used again.
const SPARE_BYTES: usize = 64 << 10;
/// What is longer is not copied out of it, but given away with it, cut to size: a copy takes longer than a new one.
const MOST_COPIED: usize = 32 << 10;
/// From here on a read is expected to give as much as the last one.
const LEAST_EXPECTED: usize = 4 << 10;
/// Less than this part of a room is not worth cutting off, and what is expected falls by it with each read that gives less.
const EIGHTH: usize = 8;

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

/// Says that it has `bytes` bytes, for which there is room.
unsafe fn set_len(buffer: Object, bytes: usize) {
    // SAFETY: GIL held; a bytes object that nobody else has and nobody has hashed.
    unsafe {
        (*buffer.cast::<ffi::PyVarObject>()).ob_size = bytes as _;
        *start_of(buffer).add(bytes) = 0;
    }
}

/// The buffer with room for `bytes`, maybe elsewhere; null, and it is as it was, where memory is refused.
unsafe fn moved(buffer: Object, bytes: usize) -> Object {
    // SAFETY: GIL held; a bytes object that nobody else has and nobody has hashed, as `_PyBytes_Resize` wants it; that one lets go of it
    // on failure. The bytes begin at the same place in each.
    unsafe {
        let header = start_of(buffer).byte_offset_from_unsigned(buffer);
        ffi::PyObject_Realloc(buffer.cast(), header + bytes + 1).cast()
    }
}

/// The buffer, cut to `bytes`. Never fails: where memory for a smaller one is refused, it keeps what it has.
unsafe fn cut(buffer: Object, bytes: usize) -> Object {
    // SAFETY: as above; it had room for as many.
    unsafe {
        let smaller = moved(buffer, bytes);
        let buffer = if smaller.is_null() { buffer } else { smaller };
        set_len(buffer, bytes);
        buffer
    }
}

/// The first `bytes` of it as an object of their own; null without an exception where memory is refused.
unsafe fn copied(buffer: Object, bytes: usize) -> Object {
    // SAFETY: GIL held; the buffer is ours.
    unsafe {
        let copy = ffi::PyBytes_FromStringAndSize(start_of(buffer).cast(), bytes as _);
        if copy.is_null() {
            ffi::PyErr_Clear();
        }
        copy
    }
}

/// What to give out of the first `bytes` of `buffer`. Never fails.
unsafe fn deliver(buffer: Object, bytes: usize) -> Object {
    // SAFETY: GIL held; the buffer is ours.
    unsafe {
        if bytes <= MOST_COPIED && bytes != len_of(buffer) {
            let copy = copied(buffer, bytes);
            if !copy.is_null() {
                give_buffer(buffer);
                return copy;
            }
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

/// Keeps the first `bytes` of `buffer`, which is ours, for the next to read; there are none of before.
pub(super) unsafe fn put_back(slf: Object, buffer: Object, bytes: usize) {
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

/// How much of `bytes` gets a room of its own, where so many are expected: more than those; 0: all of it goes to the spare one.
fn room_for(expected: usize, bytes: usize) -> usize {
    if expected < LEAST_EXPECTED { 0 } else { bytes.min(expected + expected / EIGHTH) }
}

/// How much was received, and whether that was less than there was room for.
#[derive(Clone, Copy, Default)]
struct Received {
    count: usize,
    is_short: bool,
}

impl Received {
    fn of(count: usize, room: usize) -> Self {
        Self { count, is_short: count < room }
    }
}

/// Receives up to `bytes` bytes of a stream that has none of before. A bytes object, or null with an exception set; and whether it got
/// some, but less than was asked for. `is_first`: the call has not waited yet.
pub(super) unsafe fn receive_some(slf: Object, fd: i32, bytes: usize, is_first: bool) -> Result<(Object, bool), i32> {
    // SAFETY: GIL held, `slf` alive, and this call has its turn; nothing here parks or runs Python code.
    unsafe {
        let object = net(slf);
        let room = room_for(object.expected, bytes);
        let mut received = Received::default();
        // Messages that are as long as what is asked for: after each there is nothing, and room for nothing need not be made.
        let result = if room == 0 || (is_first && object.was_empty) {
            receive_by(bytes, |place, bytes| {
                let count = socket::receive(fd, place, bytes)?;
                received = Received::of(count, bytes);
                Ok(count)
            })
        } else {
            receive_expected(slf, fd, room, bytes, &mut received)
        };
        let object = net(slf);
        if is_first {
            object.was_empty = result.as_ref().is_err_and(|&number| number == AGAIN);
        }
        let Received { count, is_short } = received;
        if count != 0 {
            let fallen = object.expected - object.expected / EIGHTH;
            object.expected = if count < LEAST_EXPECTED { 0 } else { count.max(fallen) };
        }
        Ok((result?, count != 0 && is_short))
    }
}

/// The same with `room` bytes of its own.
#[inline(never)] // as above
unsafe fn receive_expected(
    slf: Object,
    fd: i32,
    room: usize,
    bytes: usize,
    received: &mut Received,
) -> Result<Object, i32> {
    // SAFETY: as above.
    unsafe {
        let own = ffi::PyBytes_FromStringAndSize(ptr::null(), room as _);
        if own.is_null() {
            return Ok(own);
        }
        match socket::receive(fd, start_of(own), room) {
            Ok(count) => {
                *received = Received::of(count, room);
                Ok(if count == room && room < bytes {
                    with_rest(slf, fd, own, bytes, received)
                } else {
                    fitted(own, room, count)
                })
            }
            Err(number) => {
                ffi::Py_DECREF(own);
                Err(number)
            }
        }
    }
}

/// What fills its own room, with what else there is of `bytes`. That is asked for first: a call for nothing could be told an error of
/// the connection, which only one call is told, and which the next read has to give.
#[cold]
unsafe fn with_rest(slf: Object, fd: i32, own: Object, bytes: usize, received: &mut Received) -> Object {
    // SAFETY: as above; the object is ours.
    unsafe {
        let room = len_of(own);
        let rest = socket::available(fd).min(bytes - room);
        if rest == 0 {
            return own;
        }
        let spare = take_buffer(rest);
        if spare.is_null() {
            ffi::PyErr_Clear();
            return own;
        }
        match socket::receive(fd, start_of(spare), rest) {
            Ok(count @ 1..) => {
                *received = Received { count: room + count, is_short: false };
                joined(slf, own, room, spare, room + count)
            }
            _ => {
                give_buffer(spare);
                own
            }
        }
    }
}

/// What to give out of the first `bytes` of the `room` of an object of its own. Never fails.
unsafe fn fitted(own: Object, room: usize, bytes: usize) -> Object {
    // SAFETY: GIL held; the object is ours.
    unsafe {
        if bytes < LEAST_EXPECTED && bytes != room {
            let copy = copied(own, bytes);
            if !copy.is_null() {
                ffi::Py_DECREF(own);
                return copy;
            }
        } else if room - bytes <= room / EIGHTH {
            set_len(own, bytes);
            return own;
        }
        cut(own, bytes)
    }
}

/// Puts what the spare one has of `bytes` behind the `room` that is full. Where memory is refused, that is what is read next.
#[cold]
unsafe fn joined(slf: Object, own: Object, room: usize, spare: Object, bytes: usize) -> Object {
    // SAFETY: as for `receive_some`; nothing of before is unread.
    unsafe {
        let whole = moved(own, bytes);
        if whole.is_null() {
            put_back(slf, spare, bytes - room);
            return own;
        }
        ptr::copy_nonoverlapping(start_of(spare), start_of(whole).add(room), bytes - room);
        set_len(whole, bytes);
        give_buffer(spare);
        whole
    }
}
