//! How hooked calls on descriptors wait: try without waiting, register, try again, park until the descriptor's next event.

use super::caller::Caller;
use crate::goroutine::waiter::{Listens, Outcome};
use crate::netpoll::{PollDesc, Side};
use crate::sched;
use crate::sys::{clock, errno};
use libc::{c_int, c_void, timeval};

/// What a call on a descriptor came to.
pub(super) enum Tried {
    /// This is the answer; errno is the caller's business no more.
    Done(isize),
    /// It failed with the errno that stands.
    Failed,
    /// It waits for nothing that can be polled: the original is to wait, on the OS thread.
    Unpolled,
}

/// One attempt: bytes or a number of its own, or -1 and errno.
pub(super) trait Attempt: FnMut() -> isize {}
impl<F: FnMut() -> isize> Attempt for F {}

/// Whether descriptor's calls return instead of waiting; also when it cannot be asked.
pub(super) fn is_nonblocking(fd: c_int) -> bool {
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags < 0 || flags & libc::O_NONBLOCK != 0
}

/// When a call on the socket gives up by SO_RCVTIMEO or SO_SNDTIMEO; `None`: never, or no socket.
fn socket_deadline(fd: c_int, side: Side) -> Option<u64> {
    let option = if side == Side::Read { libc::SO_RCVTIMEO } else { libc::SO_SNDTIMEO };
    let mut time = timeval { tv_sec: 0, tv_usec: 0 };
    let mut size = size_of::<timeval>() as libc::socklen_t;
    // SAFETY: the record and its size are ours.
    let rc = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut time).cast::<c_void>(), &raw mut size) };
    let ns = time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    (rc == 0 && ns != 0).then(|| clock::now_ns().saturating_add(ns))
}

/// Parks until the next event of that side, unless one came since `seen`.
pub(super) fn park(caller: &Caller, desc: &PollDesc, side: Side, seen: u32, deadline_ns: Option<u64>) -> Outcome {
    caller.attached(|rt| sched::wait_io(rt, desc, side, seen, deadline_ns, Listens::ToSignals))
}

/// The error number of a wait that did not end by an event.
pub(super) fn error_of(outcome: Outcome) -> c_int {
    match outcome {
        Outcome::Closed => libc::EBADF,
        Outcome::TimedOut => libc::EAGAIN, // what SO_RCVTIMEO gives
        _ => libc::EINTR,
    }
}

/// What a call learns when it would wait for the first time: that it may, and when it gives up.
pub(super) type MayWait = Option<Option<u64>>;

/// Does `attempt`, which never waits, until it does not end with EAGAIN; parks between attempts. A descriptor with
/// O_NONBLOCK gets its EAGAIN. `parked` is called once, before the first park. On success errno is as before.
pub(super) fn until_done(caller: &Caller, fd: c_int, side: Side, parked: impl Fn(), attempt: impl Attempt) -> Tried {
    until_done_in(&mut None, caller, fd, side, parked, attempt)
}

/// One part of a call that has several: what a socket's options and flags say is asked once.
pub(super) fn until_done_in(
    waits: &mut MayWait,
    caller: &Caller,
    fd: c_int,
    side: Side,
    parked: impl Fn(),
    mut attempt: impl Attempt,
) -> Tried {
    let before = errno::get();
    loop {
        let known = caller.net().registered(fd);
        let seen = known.map(|desc| desc.seq(side));
        let n = attempt();
        if n >= 0 {
            errno::set(before);
            return Tried::Done(n);
        }
        if errno::get() != libc::EAGAIN {
            return Tried::Failed;
        }
        let deadline = match *waits {
            Some(deadline) => deadline,
            None => {
                if is_nonblocking(fd) {
                    errno::set(libc::EAGAIN);
                    return Tried::Failed;
                }
                parked();
                *waits.insert(socket_deadline(fd, side))
            }
        };
        let (Some(desc), Some(seen)) = (known, seen) else {
            // Its first event may come with the registration: try once more with the sequence in hand.
            if caller.net().desc(fd).is_err() {
                errno::set(before);
                return Tried::Unpolled;
            }
            continue;
        };
        let outcome = park(caller, desc, side, seen, deadline);
        if outcome != Outcome::Delivered {
            errno::set(error_of(outcome));
            return Tried::Failed;
        }
    }
}
