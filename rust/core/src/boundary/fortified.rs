//! The names that compilers with _FORTIFY_SOURCE call instead: the size of the buffer is checked, then it is the plain call.
//! A buffer that is too small is the original's to end the process for.

use super::hooks::original;
use super::{files, io, poll};
use libc::{c_int, c_void, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t};

/// `__read_chk`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t) -> ssize_t {
    // SAFETY: as called, here and in the next ones.
    unsafe {
        if size > room { original::__read_chk::call(fd, buffer, size, room) } else { files::read(fd, buffer, size) }
    }
}

/// `__recv_chk`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn recv(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: as called.
    unsafe {
        if size > room {
            original::__recv_chk::call(fd, buffer, size, room, flags)
        } else {
            io::recv(fd, buffer, size, flags)
        }
    }
}

/// `__recvfrom_chk`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_size: *mut socklen_t,
) -> ssize_t {
    // SAFETY: as called.
    unsafe {
        if size > room {
            original::__recvfrom_chk::call(fd, buffer, size, room, flags, address, address_size)
        } else {
            io::recvfrom(fd, buffer, size, flags, address, address_size)
        }
    }
}

/// `__poll_chk`; `room` is in bytes.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int {
    // SAFETY: as called.
    unsafe {
        if room / size_of::<pollfd>() < count as usize {
            original::__poll_chk::call(fds, count, timeout, room)
        } else {
            poll::poll(fds, count, timeout)
        }
    }
}
