//! Making connections: accept waits for the listener to be readable, connect for the socket to be writable.

use super::caller::caller;
use super::files::is_ready;
use super::hooks::{Counts, original};
use super::wait::{Tried, until_done};
use crate::netpoll::Side;
use crate::sys::errno;
use libc::{c_int, c_void, sockaddr, socklen_t};

/// Whether connections come to the socket at all.
fn is_listener(fd: c_int) -> bool {
    let mut listens: c_int = 0;
    let mut size = size_of::<c_int>() as socklen_t;
    // SAFETY: the record and its size are ours.
    let rc = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut listens).cast::<c_void>(), &raw mut size)
    };
    rc == 0 && listens != 0
}

/// Accepts by `ask` once there is somebody. Another thread or process may be faster: `ask` then waits, on the OS thread.
fn accept_by(fd: c_int, counts: &Counts, ask: impl Fn() -> c_int) -> Option<c_int> {
    let caller = caller()?;
    let attempt = || {
        if !is_ready(fd, libc::POLLIN) && !super::wait::is_nonblocking(fd) && is_listener(fd) {
            errno::set(libc::EAGAIN);
            return -1;
        }
        caller.may_block(&ask) as isize
    };
    match until_done(&caller, fd, Side::Read, || counts.park(), attempt) {
        Tried::Done(new) => Some(new as c_int),
        Tried::Failed => Some(-1),
        Tried::Unpolled => None,
    }
}

/// `accept`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn accept(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    // SAFETY: as called, here and below.
    let ask = || unsafe { original::accept::call(fd, address, size) };
    accept_by(fd, &original::accept::COUNTS, ask).unwrap_or_else(ask)
}

/// `accept4`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    size: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: as called, here and below.
    let ask = || unsafe { original::accept4::call(fd, address, size, flags) };
    accept_by(fd, &original::accept4::COUNTS, ask).unwrap_or_else(ask)
}

/// Starts to connect without waiting: the descriptor is O_NONBLOCK meanwhile.
unsafe fn connect_now(fd: c_int, address: *const sockaddr, size: socklen_t) -> c_int {
    // SAFETY: as called; the flags are put back.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        if flags < 0 || libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) < 0 {
            return -1;
        }
        let result = original::connect::call(fd, address, size);
        let error = errno::get();
        libc::fcntl(fd, libc::F_SETFL, flags);
        errno::set(error);
        result
    }
}

/// `connect`. Interrupted, the connection is made all the same, as the kernel does it.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, size: socklen_t) -> c_int {
    // SAFETY: as called.
    let done = unsafe { connect_parked(fd, address, size) };
    // SAFETY: as called.
    done.unwrap_or_else(|| unsafe { original::connect::call(fd, address, size) })
}

unsafe fn connect_parked(fd: c_int, address: *const sockaddr, size: socklen_t) -> Option<c_int> {
    let caller = caller()?;
    if super::wait::is_nonblocking(fd) {
        return None;
    }
    let before = errno::get();
    // SAFETY: as called.
    if unsafe { connect_now(fd, address, size) } == 0 {
        errno::set(before);
        return Some(0);
    }
    match errno::get() {
        libc::EINPROGRESS => {}
        libc::EAGAIN => {
            // A Unix socket whose listener's queue is full: no event tells when there is room.
            original::connect::COUNTS.hand_off();
            errno::set(before);
            return None;
        }
        _ => return Some(-1),
    }
    let attempt = || {
        if !is_ready(fd, libc::POLLOUT) {
            errno::set(libc::EAGAIN);
            return -1;
        }
        // Asked again the kernel tells the outcome, and the socket is what it is after a connect that waited: connected, or
        // fit for another try. SO_ERROR would leave it between the two.
        // SAFETY: as called.
        match unsafe { connect_now(fd, address, size) } {
            0 => 0,
            _ => {
                if errno::get() == libc::EALREADY {
                    errno::set(libc::EAGAIN);
                }
                -1
            }
        }
    };
    match until_done(&caller, fd, Side::Write, || original::connect::COUNTS.park(), attempt) {
        Tried::Done(_) => Some(0),
        Tried::Failed => {
            if errno::get() == libc::EAGAIN {
                errno::set(libc::EINPROGRESS); // SO_SNDTIMEO: connect has its own word for it
            }
            Some(-1)
        }
        // SAFETY: as called: the kernel goes on with the connection that is in progress.
        Tried::Unpolled => None,
    }
}
