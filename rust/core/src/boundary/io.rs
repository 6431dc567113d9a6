//! Receiving and sending on sockets: the same call with MSG_DONTWAIT, and what blocking sockets promise beyond one try:
//! all bytes of a stream are sent, MSG_WAITALL fills the buffer, SO_RCVTIMEO ends the wait.

use super::caller::{Caller, caller};
use super::hooks::{Counts, original};
use super::wait::{Tried, until_done, until_done_in};
use crate::netpoll::Side;
use crate::sys::errno;
use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use std::ptr;

/// Flags with which a call does not wait anyway, or waits for something that has no event of its own.
const NEVER_PARKS: c_int = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;

/// One receive. `None`: the original is to be called.
fn receive(fd: c_int, flags: c_int, counts: &Counts, attempt: impl FnMut() -> isize) -> Option<ssize_t> {
    let caller = caller()?;
    if flags & NEVER_PARKS != 0 {
        return None;
    }
    finish(until_done(&caller, fd, Side::Read, || counts.park(), attempt), counts)
}

fn finish(tried: Tried, counts: &Counts) -> Option<ssize_t> {
    match tried {
        Tried::Done(n) => Some(n),
        Tried::Failed => Some(-1),
        Tried::Unpolled => {
            counts.hand_off();
            None
        }
    }
}

/// Repeats `attempt(bytes so far)` until `wanted` bytes are through, the other side has ended, or an error comes: then what
/// is through counts, if anything.
fn through(
    caller: &Caller,
    fd: c_int,
    side: Side,
    wanted: usize,
    counts: &Counts,
    mut attempt: impl FnMut(usize) -> isize,
) -> Option<ssize_t> {
    let mut done = 0;
    let mut waits = None;
    let before = errno::get();
    loop {
        let tried = until_done_in(&mut waits, caller, fd, side, || counts.park(), || attempt(done));
        match tried {
            Tried::Done(n) => done += n as usize,
            Tried::Failed if done != 0 => {}
            other => return if done == 0 { finish(other, counts) } else { Some(done as ssize_t) },
        }
        if done >= wanted || !matches!(tried, Tried::Done(1..)) {
            errno::set(before);
            return Some(done as ssize_t);
        }
    }
}

/// Whether MSG_WAITALL means anything: messages come one at a time.
fn is_stream(fd: c_int) -> bool {
    let mut kind: c_int = 0;
    let mut size = size_of::<c_int>() as socklen_t;
    // SAFETY: the record and its size are ours.
    let rc = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast::<c_void>(), &raw mut size)
    };
    rc == 0 && kind == libc::SOCK_STREAM
}

/// Flags for the part of a send that follows `done` bytes: what is through is the answer, and no signal.
fn now_after(flags: c_int, done: usize) -> c_int {
    flags | libc::MSG_DONTWAIT | if done == 0 { 0 } else { libc::MSG_NOSIGNAL }
}

/// Receives with MSG_WAITALL from a stream.
fn receive_all(
    fd: c_int,
    flags: c_int,
    wanted: usize,
    counts: &Counts,
    attempt: impl FnMut(usize) -> isize,
) -> Option<ssize_t> {
    let caller = caller()?;
    if flags & (NEVER_PARKS | libc::MSG_PEEK) != 0 {
        return None;
    }
    through(&caller, fd, Side::Read, wanted, counts, attempt)
}

/// `recv`, and `__recv_chk` behind its check.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn recv(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    let counts = &original::recv::COUNTS;
    let now = flags | libc::MSG_DONTWAIT;
    let done = if flags & libc::MSG_WAITALL != 0 && is_stream(fd) {
        receive_all(fd, flags, size, counts, |done| {
            // SAFETY: as called; it writes into the part of the buffer that is still empty.
            unsafe { libc::recv(fd, buffer.byte_add(done), size - done, now) }
        })
    } else {
        // SAFETY: as called.
        receive(fd, flags, counts, || unsafe { libc::recv(fd, buffer, size, now) })
    };
    // SAFETY: as called.
    done.unwrap_or_else(|| unsafe { original::recv::call(fd, buffer, size, flags) })
}

/// `recvfrom`, and `__recvfrom_chk` behind its check.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_size: *mut socklen_t,
) -> ssize_t {
    let now = flags | libc::MSG_DONTWAIT;
    let counts = &original::recvfrom::COUNTS;
    let done = if flags & libc::MSG_WAITALL != 0 && is_stream(fd) {
        receive_all(fd, flags, size, counts, |done| {
            // SAFETY: as in `recv`.
            unsafe { libc::recvfrom(fd, buffer.byte_add(done), size - done, now, address, address_size) }
        })
    } else {
        // SAFETY: as called.
        receive(fd, flags, counts, || unsafe { libc::recvfrom(fd, buffer, size, now, address, address_size) })
    };
    // SAFETY: as called.
    done.unwrap_or_else(|| unsafe { original::recvfrom::call(fd, buffer, size, flags, address, address_size) })
}

/// `recvmsg`. MSG_WAITALL into several buffers is left to the kernel, on the OS thread.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let done = if flags & libc::MSG_WAITALL != 0 && is_stream(fd) {
        None
    } else {
        // SAFETY: as called.
        receive(fd, flags, &original::recvmsg::COUNTS, || unsafe {
            libc::recvmsg(fd, message, flags | libc::MSG_DONTWAIT)
        })
    };
    // SAFETY: as called.
    done.unwrap_or_else(|| unsafe { original::recvmsg::call(fd, message, flags) })
}

/// `recvmmsg`: waits for the first message as a goroutine; for all of them, or with a time-out, only the kernel can.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let first_only = count == 1 || flags & libc::MSG_WAITFORONE != 0;
    let done = if first_only && timeout.is_null() {
        receive(fd, flags, &original::recvmmsg::COUNTS, || {
            // SAFETY: as called.
            unsafe { libc::recvmmsg(fd, messages, count, (flags | libc::MSG_DONTWAIT) as _, ptr::null_mut()) as isize }
        })
    } else {
        None
    };
    // SAFETY: as called.
    done.map_or_else(|| unsafe { original::recvmmsg::call(fd, messages, count, flags, timeout) }, |n| n as c_int)
}

/// `send`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn send(fd: c_int, buffer: *const c_void, size: size_t, flags: c_int) -> ssize_t {
    // SAFETY: as called.
    unsafe { send_to(fd, buffer, size, flags, ptr::null(), 0, &original::send::COUNTS) }
        // SAFETY: as called.
        .unwrap_or_else(|| unsafe { original::send::call(fd, buffer, size, flags) })
}

/// `sendto`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_size: socklen_t,
) -> ssize_t {
    // SAFETY: as called.
    unsafe { send_to(fd, buffer, size, flags, address, address_size, &original::sendto::COUNTS) }
        // SAFETY: as called.
        .unwrap_or_else(|| unsafe { original::sendto::call(fd, buffer, size, flags, address, address_size) })
}

/// # Safety
/// As for `sendto`.
unsafe fn send_to(
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_size: socklen_t,
    counts: &Counts,
) -> Option<ssize_t> {
    let caller = caller()?;
    if flags & NEVER_PARKS != 0 {
        return None;
    }
    through(&caller, fd, Side::Write, size, counts, |done| {
        // SAFETY: the caller's promise; what is sent already is left out.
        unsafe { libc::sendto(fd, buffer.byte_add(done), size - done, now_after(flags, done), address, address_size) }
    })
}

/// The buffers without their first `done` bytes; `None`, and ENOMEM, where there is no memory for that.
pub(super) unsafe fn rest_of(buffers: *const iovec, count: usize, mut done: usize) -> Option<Vec<iovec>> {
    // SAFETY: the caller's array of that many.
    let all = unsafe { std::slice::from_raw_parts(buffers, count) };
    let mut rest = Vec::new();
    if rest.try_reserve_exact(count).is_err() {
        errno::set(libc::ENOMEM);
        return None;
    }
    for part in all {
        let skip = done.min(part.iov_len);
        done -= skip;
        if skip < part.iov_len {
            // SAFETY: inside the buffer.
            rest.push(iovec { iov_base: unsafe { part.iov_base.byte_add(skip) }, iov_len: part.iov_len - skip });
        }
    }
    Some(rest)
}

/// `sendmsg`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: as called.
    let done = unsafe { send_message(fd, message, flags) };
    // SAFETY: as called.
    done.unwrap_or_else(|| unsafe { original::sendmsg::call(fd, message, flags) })
}

unsafe fn send_message(fd: c_int, message: *const msghdr, flags: c_int) -> Option<ssize_t> {
    let caller = caller()?;
    if flags & NEVER_PARKS != 0 || message.is_null() {
        return None;
    }
    let now = flags | libc::MSG_DONTWAIT;
    // SAFETY: the C function's own contract: the message and its buffers are readable.
    unsafe {
        let (buffers, count) = ((*message).msg_iov, (*message).msg_iovlen);
        let size = (0..count).map(|i| (*buffers.add(i)).iov_len).sum();
        through(&caller, fd, Side::Write, size, &original::sendmsg::COUNTS, |done| {
            if done == 0 {
                return libc::sendmsg(fd, message, now);
            }
            // The ancillary data went with the first bytes.
            let Some(mut rest) = rest_of(buffers, count, done) else { return -1 };
            let mut part = *message;
            part.msg_iov = rest.as_mut_ptr();
            part.msg_iovlen = rest.len() as _;
            part.msg_control = ptr::null_mut();
            part.msg_controllen = 0;
            libc::sendmsg(fd, &raw const part, now_after(flags, done))
        })
    }
}

/// `sendmmsg`: waits until the first message is through; the kernel says how many followed it.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    let done = caller().filter(|_| flags & NEVER_PARKS == 0).and_then(|caller| {
        through(&caller, fd, Side::Write, count as usize, &original::sendmmsg::COUNTS, |done| {
            // SAFETY: as called; the messages sent already are left out.
            unsafe {
                libc::sendmmsg(fd, messages.add(done), count - done as c_uint, (flags | libc::MSG_DONTWAIT) as _)
                    as isize
            }
        })
    });
    // SAFETY: as called.
    done.map_or_else(|| unsafe { original::sendmmsg::call(fd, messages, count, flags) }, |n| n as c_int)
}
