//! Waiting for one's own children: a descriptor of the process becomes readable at its end. Waits for any child, or for a
//! group, have no such descriptor and are handed off.

use super::caller::{Caller, caller};
use super::hooks::{Counts, original};
use super::wait::{error_of, park};
use crate::goroutine::waiter::Outcome;
use crate::netpoll::Side;
use crate::sys::errno;
use libc::{c_int, id_t, idtype_t, pid_t, rusage, siginfo_t};

/// Waits for the end of `pid` by `ask(more options)`, which answers 0 while it goes on. `None`: the original is to wait.
fn wait_for(pid: pid_t, counts: &Counts, mut ask: impl FnMut(c_int) -> pid_t) -> Option<pid_t> {
    let caller = caller()?;
    if pid <= 0 {
        counts.hand_off();
        return None;
    }
    let before = errno::get();
    let at_once = ask(libc::WNOHANG);
    if at_once != 0 {
        return Some(at_once);
    }
    // SAFETY: numbers only. Descriptors of processes are close-on-exec.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int;
    if fd < 0 {
        counts.hand_off(); // an old kernel, no descriptor left, or somebody else reaped it: the original tells
        errno::set(before);
        return None;
    }
    counts.park();
    let (done, is_open) = match until_ended(&caller, fd, || ask(libc::WNOHANG)) {
        Ended::Said(done) => (Some(done), true),
        Ended::Closed => (None, false),
        Ended::Unpolled => (None, true),
    };
    let error = if matches!(done, Some(..0)) { errno::get() } else { before };
    if is_open {
        super::descriptors::forget(fd);
        // SAFETY: opened above.
        unsafe { libc::close(fd) };
    }
    errno::set(error);
    done
}

/// How the wait for a process' descriptor ended.
enum Ended {
    /// What the caller gets; errno stands.
    Said(pid_t),
    /// The program closed the descriptor, as it closed all: the number is not ours any more.
    Closed,
    /// It cannot be waited for.
    Unpolled,
}

fn until_ended(caller: &Caller, fd: c_int, mut ask: impl FnMut() -> pid_t) -> Ended {
    loop {
        let Ok(desc) = caller.net().desc(fd) else { return Ended::Unpolled };
        let seen = desc.seq(Side::Read);
        let done = ask();
        if done != 0 {
            return Ended::Said(done);
        }
        match park(caller, desc, Side::Read, seen, None) {
            Outcome::Delivered => {}
            Outcome::Closed => return Ended::Closed,
            outcome => {
                errno::set(error_of(outcome));
                return Ended::Said(-1);
            }
        }
    }
}

/// With these the call ends for something else than the child's end, or at once.
fn is_plain(options: c_int) -> bool {
    options & (libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED) == 0
}

/// `waitpid`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    let done = is_plain(options).then(|| {
        wait_for(pid, &original::waitpid::COUNTS, |more| {
            // SAFETY: as called.
            unsafe { original::waitpid::call(pid, status, options | more) }
        })
    });
    // SAFETY: as called.
    done.flatten().unwrap_or_else(|| unsafe { original::waitpid::call(pid, status, options) })
}

/// `wait4`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    let done = is_plain(options).then(|| {
        wait_for(pid, &original::wait4::COUNTS, |more| {
            // SAFETY: as called.
            unsafe { original::wait4::call(pid, status, options | more, usage) }
        })
    });
    // SAFETY: as called.
    done.flatten().unwrap_or_else(|| unsafe { original::wait4::call(pid, status, options, usage) })
}

/// `waitid`. It answers 0 both for an end and, with WNOHANG, for none: then `si_pid` is 0.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int {
    let plain = options & (libc::WNOHANG | libc::WSTOPPED | libc::WCONTINUED) == 0;
    let done = (plain && kind == libc::P_PID && !info.is_null()).then(|| {
        wait_for(id as pid_t, &original::waitid::COUNTS, |more| {
            // SAFETY: as called; the record is the caller's.
            unsafe {
                info.write(std::mem::zeroed());
                let result = original::waitid::call(kind, id, info, options | more);
                if result == 0 { (*info).si_pid() } else { -1 }
            }
        })
    });
    match done.flatten() {
        Some(pid) if pid >= 0 => 0,
        Some(_) => -1,
        // SAFETY: as called.
        None => unsafe { original::waitid::call(kind, id, info, options) },
    }
}

/// `wait`: for any child.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn wait(status: *mut c_int) -> pid_t {
    if caller().is_some() {
        original::wait::COUNTS.hand_off();
    }
    // SAFETY: as called.
    unsafe { original::wait::call(status) }
}

/// `wait3`: for any child.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    if caller().is_some() {
        original::wait3::COUNTS.hand_off();
    }
    // SAFETY: as called.
    unsafe { original::wait3::call(status, options, usage) }
}
