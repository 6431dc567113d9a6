//! Descriptors that end: what is registered for them goes, and who waits at them hears EBADF. A number may be somebody
//! else's the moment the kernel has closed it, so all this comes before the call itself.
//!
//! The poller's own descriptors are no program's to close: "close everything from 3 on" leaves them out, and to put a file
//! in their place is refused.
//!
//! A child between vfork and exec shares this memory and closes its own descriptors: nothing here is for it.

use super::caller::{attached_runtime, caller};
use super::hooks::original;
use crate::goroutine::waiter::WaitQueue;
use crate::sched::Runtime;
use crate::sys::errno;
use libc::{c_int, c_uint, pid_t};
use std::sync::atomic::{AtomicI32, Ordering};

/// The process the hooks are for.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Says which process this is: at the installation, and in a forked child that goes on with gort.
pub(super) fn note_process() {
    // SAFETY: no arguments.
    PROCESS.store(unsafe { libc::getpid() }, Ordering::Relaxed); // known before the first hook is in place
}

/// Descriptors that the kernel's table has room for from the start: half a MiB of the kernel's memory.
const ROOM: u64 = 65_536;

/// Lets the kernel grow the process's table of descriptors now. A process with threads waits tens of milliseconds each time
/// it grows (Linux: `expand_fdtable` waits for a grace period of RCU), and every goroutine that opens something meanwhile
/// would hold an OS thread; one that has a single thread does not wait. A refusal leaves that as it is.
pub(super) fn make_room() {
    // SAFETY: a valid record and a name; descriptors of our own, which are closed again.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return;
        }
        let any = libc::open(c"/".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let high = libc::fcntl(any, libc::F_DUPFD_CLOEXEC, limit.rlim_cur.min(ROOM) as c_int - 1);
        for fd in [any, high] {
            if fd >= 0 {
                libc::close(fd);
            }
        }
    }
}

/// `false` in a child between vfork and exec.
pub(super) fn is_this_process() -> bool {
    // SAFETY: no arguments. The system call itself: a C library may remember the number over vfork.
    unsafe { libc::syscall(libc::SYS_getpid) as pid_t == PROCESS.load(Ordering::Relaxed) }
}

/// The descriptor `fd` is about to end.
pub(super) fn forget(fd: c_int) {
    let Some(rt) = super::runtime() else { return };
    if rt.net.registered(fd).is_none() || !is_this_process() {
        return;
    }
    let before = errno::get();
    if rt.net.forget(fd) {
        if let Some(caller) = caller() {
            caller.attached(|rt| close_waiters(rt, fd as usize));
        } else if attached_runtime().is_some() {
            close_waiters(rt, fd as usize);
        } else {
            // SAFETY: `close_waiters` takes any number at any time.
            unsafe { rt.call_attached(close_waiters, fd as usize) };
        }
    }
    errno::set(before);
}

/// Ends the waits for files that `fd` was before. Host attached.
fn close_waiters(rt: &'static Runtime, fd: usize) {
    let mut claimed = WaitQueue::new();
    rt.net.close_waiters(fd as c_int, &mut claimed);
    // SAFETY: claimed just now.
    unsafe { rt.ready_claimed(&mut claimed) };
}

/// Whether `fd` is the poller's, in this process.
fn is_ours(fd: c_int) -> bool {
    super::runtime().is_some_and(|rt| rt.net.owns(fd)) && is_this_process()
}

/// `close`. To the program the poller's descriptors are not open.
pub(super) unsafe extern "C" fn close(fd: c_int) -> c_int {
    if is_ours(fd) {
        errno::set(libc::EBADF);
        return -1;
    }
    forget(fd);
    // SAFETY: as called.
    unsafe { original::close::call(fd) }
}

/// `dup2`: the second descriptor ends if it was open, and the first is. EBUSY is Linux's word for a number that the
/// kernel is about to give to somebody.
pub(super) unsafe extern "C" fn dup2(from: c_int, to: c_int) -> c_int {
    if is_ours(to) {
        errno::set(libc::EBUSY);
        return -1;
    }
    forget_replaced(from, to);
    // SAFETY: as called.
    unsafe { original::dup2::call(from, to) }
}

/// `dup3`.
pub(super) unsafe extern "C" fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
    if is_ours(to) {
        errno::set(libc::EBUSY);
        return -1;
    }
    forget_replaced(from, to);
    // SAFETY: as called.
    unsafe { original::dup3::call(from, to, flags) }
}

fn forget_replaced(from: c_int, to: c_int) {
    let before = errno::get();
    // SAFETY: numbers only.
    if from != to && unsafe { libc::fcntl(from, libc::F_GETFD) } >= 0 {
        forget(to);
    }
    errno::set(before);
}

/// `close_range`. With CLOSE_RANGE_CLOEXEC nothing is closed.
pub(super) unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if flags & libc::CLOSE_RANGE_CLOEXEC as c_int != 0 || first > last {
        // SAFETY: as called.
        return unsafe { original::close_range::call(first, last, flags) };
    }
    forget_range(first, last);
    // SAFETY: as called, but for the poller's descriptors.
    around_ours(first, last, |first, last| unsafe { original::close_range::call(first, last, flags) })
}

/// `closefrom`.
pub(super) unsafe extern "C" fn closefrom(first: c_int) {
    let first = first.max(0) as c_uint;
    forget_range(first, c_uint::MAX);
    // SAFETY: numbers only; what lies behind the last one of ours is closed as called.
    let close = |first: c_uint, last: c_uint| unsafe {
        if last == c_uint::MAX {
            original::closefrom::call(first as c_int);
        } else {
            // As glibc does it, which has no other call for a range where the kernel has none.
            for fd in first..=last {
                libc::close(fd as c_int);
            }
        }
        0
    };
    around_ours(first, c_uint::MAX, close);
}

/// Calls `close` for the parts of the range between the poller's descriptors, until one fails.
fn around_ours(mut first: c_uint, last: c_uint, close: impl Fn(c_uint, c_uint) -> c_int) -> c_int {
    let mut ours = super::runtime().map_or([-1; 2], |rt| rt.net.own_descriptors());
    if ours != [-1; 2] && !is_this_process() {
        ours = [-1; 2];
    }
    ours.sort_unstable();
    for fd in ours.into_iter().filter_map(|fd| c_uint::try_from(fd).ok()) {
        if !(first..=last).contains(&fd) {
            continue;
        }
        if fd > first && close(first, fd - 1) != 0 {
            return -1;
        }
        first = fd + 1;
    }
    if first > last { 0 } else { close(first, last) }
}

fn forget_range(first: c_uint, last: c_uint) {
    let Some(rt) = super::runtime() else { return };
    let end = rt.net.limit().min(last.saturating_add(1) as usize);
    for fd in first as usize..end {
        forget(fd as c_int);
    }
}
