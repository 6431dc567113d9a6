//! Making connections: accept waits for the listener to be readable, connect for the socket to be writable.

use super::caller::{Caller, caller};
use super::files::is_ready;
use super::hooks::{Counts, original};
use super::wait::{Tried, until_done};
use crate::netpoll::{Side, is_listener};
use crate::sched;
use crate::sys::errno;
use libc::{c_int, sockaddr, socklen_t};

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

/// After a connect, whose listener may be this program's, and have room for few connections (socketserver: five): who
/// accepts them comes before the next to connect, as the kernel would have woken a thread. Leaves `error` in errno.
fn yield_to_acceptor(caller: &Caller, error: c_int) {
    if caller.net().waiting() != 0 {
        caller.attached(sched::yield_to_acceptor);
    }
    errno::set(error);
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
    let before = errno::get();
    if super::wait::is_nonblocking(fd) {
        // SAFETY: as called.
        let result = unsafe { original::connect::call(fd, address, size) };
        let error = if result == 0 { before } else { errno::get() };
        yield_to_acceptor(&caller, error);
        return Some(result);
    }
    // SAFETY: as called.
    let mut result = unsafe { connect_now(fd, address, size) };
    if result != 0 && errno::get() == libc::EAGAIN {
        // A Unix socket whose listener's queue is full: who accepts makes room.
        yield_to_acceptor(&caller, before);
        // SAFETY: as called.
        result = unsafe { connect_now(fd, address, size) };
    }
    if result == 0 {
        yield_to_acceptor(&caller, before);
        return Some(0);
    }
    match errno::get() {
        libc::EINPROGRESS => {}
        libc::EAGAIN => {
            // Still full, and no event tells when there is room.
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
        Tried::Done(_) => {
            yield_to_acceptor(&caller, before);
            Some(0)
        }
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
