//! Memory that is not Python's, told to tracemalloc in a domain of its own: by the line that asked for it.
//!
//! A goroutine counts from the call that describes it to its end, with what it takes once it runs: a descriptor, a bundle and one
//! page of stack. A channel counts as long as it lives, with its buffer: while tracemalloc traces, that is there at once, as in
//! Go, so that the number is right. While it does not trace each call here returns at once (1 ns on CPython 3.11 to 3.15), so
//! that nobody needs to know whether it does; what it was not told of it is not asked to forget: that does nothing.

use crate::task;
use gort_core::chan::Chan;
use gort_core::goroutine::Goroutine;
use std::ffi::{c_int, c_uint};
use std::ptr;

/// The domain: "gort" in ASCII.
pub(crate) const DOMAIN: c_uint = 0x676F_7274;
/// Values that a traced channel has room for from the start, at most.
const RESERVED: usize = 1 << 16;

unsafe extern "C" {
    fn PyTraceMalloc_Track(domain: c_uint, address: usize, bytes: usize) -> c_int;
    fn PyTraceMalloc_Untrack(domain: c_uint, address: usize) -> c_int;
}

/// The goroutine that `object` describes belongs to the running line. GIL held.
#[inline]
pub(crate) fn begin_goroutine(object: *const task::GoObject) {
    // SAFETY: GIL held by the caller; the runtime is leaked. Refused memory costs the trace only.
    unsafe {
        let is_traced = PyTraceMalloc_Track(DOMAIN, object.addr(), size_of::<Goroutine>()) == 0;
        if is_traced && let Some(rt) = task::runtime_or_null().as_ref() {
            PyTraceMalloc_Track(DOMAIN, object.addr(), rt.bytes_of_one()); // instead
        }
    }
}

/// It has ended, or never will begin. GIL held.
#[inline]
pub(crate) fn end_goroutine(object: *const task::GoObject) {
    // SAFETY: GIL held by the caller.
    unsafe { PyTraceMalloc_Untrack(DOMAIN, object.addr()) };
}

/// A channel that the running line made. GIL held.
#[inline]
pub(crate) fn begin_chan<T>(chan: &Chan<T>) {
    let address = ptr::from_ref(chan).addr();
    // SAFETY: GIL held by the caller.
    let is_traced = unsafe { PyTraceMalloc_Track(DOMAIN, address, size_of::<Chan<T>>()) == 0 };
    if is_traced && chan.capacity() != 0 {
        let bytes = chan.reserve(RESERVED) * size_of::<T>();
        // SAFETY: as above: the same once more, with its buffer.
        unsafe { PyTraceMalloc_Track(DOMAIN, address, size_of::<Chan<T>>() + bytes) };
    }
}

/// It goes. GIL held.
#[inline]
pub(crate) fn end_chan<T>(chan: &Chan<T>) {
    // SAFETY: GIL held by the caller.
    unsafe { PyTraceMalloc_Untrack(DOMAIN, ptr::from_ref(chan).addr()) };
}
