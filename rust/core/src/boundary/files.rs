//! read, write and their kin on pipes, sockets and terminals. What epoll refuses (regular files, directories) goes to the
//! original at once: the kernel never says that such a read would wait.
//!
//! There is no flag like MSG_DONTWAIT for read(2); preadv2 and pwritev2 have RWF_NOWAIT, which pipes and sockets know.
//! Where they do not (terminals, older kernels) poll(2) tells whether the call would wait.

use super::caller::{Caller, caller};
use super::hooks::{Counts, original};
use super::io::rest_of;
use super::wait::{Tried, until_done, until_done_in};
use crate::netpoll::Side;
use crate::sys::errno;
use libc::{c_int, c_long, c_short, c_void, iovec, off_t, pollfd, size_t, ssize_t};
use std::mem::MaybeUninit;

/// Bytes that a pipe takes whole, without waiting, once poll(2) says it can be written to.
const PIPE_BUF: usize = libc::PIPE_BUF;

/// Whether a call of this kind would not wait just now.
pub(super) fn is_ready(fd: c_int, events: c_short) -> bool {
    let mut one = pollfd { fd, events, revents: 0 };
    // SAFETY: one record, no time.
    unsafe { libc::poll(&raw mut one, 1, 0) == 1 }
}

/// `ask` if poll says it does not wait; else EAGAIN. It may wait all the same: somebody else was faster, or a terminal has
/// room for a part.
fn if_ready(caller: &Caller, fd: c_int, side: Side, ask: impl FnOnce() -> isize) -> isize {
    let events = if side == Side::Read { libc::POLLIN } else { libc::POLLOUT };
    if is_ready(fd, events) {
        return caller.may_block(ask);
    }
    errno::set(libc::EAGAIN);
    -1
}

/// Whether the kernel or the file does not know RWF_NOWAIT.
fn is_unsupported() -> bool {
    matches!(errno::get(), libc::EOPNOTSUPP | libc::ENOSYS)
}

/// Does `ask`, the plain call, where RWF_NOWAIT came to nothing: once it would not wait, or at once if it is wrong anyway.
fn plainly(caller: &Caller, fd: c_int, side: Side, ask: impl FnOnce() -> isize) -> isize {
    match errno::get() {
        _ if is_unsupported() => if_ready(caller, fd, side, ask),
        libc::EINVAL => caller.may_block(ask),
        _ => -1,
    }
}

/// preadv2 or pwritev2 at the file's own position, by number: the C library this is linked against may be older.
unsafe fn without_waiting(call: c_long, fd: c_int, buffers: *const iovec, count: c_int) -> isize {
    // SAFETY: the caller's buffers. The position is in two halves, of which a 64-bit kernel takes the first.
    unsafe {
        let (fd, count, flags) = (c_long::from(fd), c_long::from(count), c_long::from(libc::RWF_NOWAIT));
        libc::syscall(call, fd, buffers, count, -1 as c_long, 0 as c_long, flags) as isize
    }
}

unsafe fn read_now(caller: &Caller, fd: c_int, buffers: *const iovec, count: c_int) -> isize {
    // SAFETY: the caller's buffers.
    unsafe {
        let n = without_waiting(libc::SYS_preadv2, fd, buffers, count);
        if n < 0 { plainly(caller, fd, Side::Read, || libc::readv(fd, buffers, count)) } else { n }
    }
}

/// Whether a write to the file may be cut in parts: a pipe's or a terminal's. A device may take one write for one message.
fn takes_parts(fd: c_int) -> bool {
    let mut file = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the record is ours.
    let known = unsafe { libc::fstat(fd, file.as_mut_ptr()) } == 0;
    // SAFETY: zeroed, or filled in by the kernel.
    let kind = unsafe { file.assume_init() }.st_mode & libc::S_IFMT;
    // SAFETY: no pointers.
    known && (kind == libc::S_IFIFO || kind == libc::S_IFCHR && unsafe { libc::isatty(fd) } == 1)
}

unsafe fn write_now(caller: &Caller, fd: c_int, buffers: *const iovec, count: c_int) -> isize {
    // SAFETY: the caller's buffers.
    unsafe {
        let n = without_waiting(libc::SYS_pwritev2, fd, buffers, count);
        if n >= 0 {
            return n;
        }
        let is_right = errno::get() != libc::EINVAL;
        plainly(caller, fd, Side::Write, || {
            let some = (0..count as usize).map(|i| *buffers.add(i)).find(|buffer| buffer.iov_len != 0);
            match some.filter(|_| is_right && takes_parts(fd)) {
                Some(some) => libc::write(fd, some.iov_base, some.iov_len.min(PIPE_BUF)),
                None => libc::writev(fd, buffers, count),
            }
        })
    }
}

/// A caller who may park on `fd`.
fn parker(fd: c_int, counts: &Counts) -> Option<Caller> {
    let caller = caller()?;
    let before = errno::get();
    let known = caller.net().desc(fd).is_ok();
    errno::set(before);
    if !known {
        counts.hand_off();
    }
    known.then_some(caller)
}

/// # Safety
/// The buffers are writable.
unsafe fn read_into(fd: c_int, buffers: *const iovec, count: c_int, counts: &Counts) -> Option<ssize_t> {
    let caller = parker(fd, counts)?;
    // SAFETY: the caller's promise.
    match until_done(&caller, fd, Side::Read, || counts.park(), || unsafe { read_now(&caller, fd, buffers, count) }) {
        Tried::Done(n) => Some(n),
        Tried::Failed => Some(-1),
        Tried::Unpolled => None,
    }
}

/// Writes all, as a descriptor without O_NONBLOCK does; a part only if an error comes after it.
///
/// # Safety
/// The buffers are readable.
unsafe fn write_from(fd: c_int, buffers: *const iovec, count: c_int, counts: &Counts) -> Option<ssize_t> {
    let caller = parker(fd, counts)?;
    let before = errno::get();
    let (mut done, mut waits) = (0usize, None);
    // SAFETY: the caller's promise.
    let size: usize = (0..count as usize).map(|i| unsafe { (*buffers.add(i)).iov_len }).sum();
    loop {
        let attempt = || {
            // SAFETY: the caller's promise.
            unsafe {
                if done == 0 {
                    return write_now(&caller, fd, buffers, count);
                }
                let Some(rest) = rest_of(buffers, count as usize, done) else { return -1 };
                write_now(&caller, fd, rest.as_ptr(), rest.len() as c_int)
            }
        };
        match until_done_in(&mut waits, &caller, fd, Side::Write, || counts.park(), attempt) {
            Tried::Done(n) => done += n as usize,
            Tried::Failed if done == 0 => return Some(-1),
            Tried::Unpolled if done == 0 => return None,
            _ => break,
        }
        if done >= size || waits.is_none() && super::wait::is_nonblocking(fd) {
            break; // O_NONBLOCK takes a part
        }
    }
    errno::set(before);
    Some(done as ssize_t)
}

/// `read`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t {
    let one = iovec { iov_base: buffer, iov_len: size };
    // SAFETY: as called, here and in the next ones.
    unsafe {
        let done = read_into(fd, &raw const one, 1, &original::read::COUNTS);
        done.unwrap_or_else(|| original::read::call(fd, buffer, size))
    }
}

/// `readv`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn readv(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: as called.
    unsafe {
        let done = read_into(fd, buffers, count, &original::readv::COUNTS);
        done.unwrap_or_else(|| original::readv::call(fd, buffers, count))
    }
}

/// `write`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, size: size_t) -> ssize_t {
    let one = iovec { iov_base: buffer.cast_mut(), iov_len: size };
    // SAFETY: as called; a write only reads the buffer.
    unsafe {
        let done = write_from(fd, &raw const one, 1, &original::write::COUNTS);
        done.unwrap_or_else(|| original::write::call(fd, buffer, size))
    }
}

/// `writev`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn writev(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: as called.
    unsafe {
        let done = write_from(fd, buffers, count, &original::writev::COUNTS);
        done.unwrap_or_else(|| original::writev::call(fd, buffers, count))
    }
}

/// Bytes that a sendfile asks for at once: the kernel takes a socket for writable when a third of its buffer is free, and
/// what does not fit is waited for on the OS thread.
const SENDFILE_BYTES: usize = 64 << 10;

fn send_file(to: c_int, count: size_t, counts: &Counts, ask: impl Fn(size_t) -> ssize_t) -> ssize_t {
    let Some(caller) = parker(to, counts) else { return ask(count) };
    let attempt = || if_ready(&caller, to, Side::Write, || ask(count.min(SENDFILE_BYTES)));
    let tried = until_done(&caller, to, Side::Write, || counts.park(), attempt);
    drop(caller);
    match tried {
        Tried::Done(n) => n,
        Tried::Failed => -1,
        Tried::Unpolled => ask(count),
    }
}

/// `sendfile`: waits until the receiver takes some.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: as called.
    send_file(to, count, &original::sendfile::COUNTS, |n| unsafe { original::sendfile::call(to, from, offset, n) })
}

/// `sendfile64`, the same where off_t has 64 bits anyway.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: as called.
    send_file(to, count, &original::sendfile64::COUNTS, |n| unsafe { original::sendfile64::call(to, from, offset, n) })
}
