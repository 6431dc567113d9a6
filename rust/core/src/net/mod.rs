//! Layer 10: a socket whose calls park the goroutine: what gort.net stands on.
//!
//! The descriptor does not block. A call tries first and parks after EAGAIN only, until an event of its side; then it tries again.
//! What may end it stands in [`Stop`]. As in Go, sending is one call at a time, so that what one writes stays in one piece, and so
//! is receiving; who waits for its turn looks at everything anew when it comes.
//!
//! - **Deadlines** are of the socket, one for each side, and are looked at before each try: past ones refuse, whatever there is to
//!   read. To set one has those who wait try again, by which they go by it.
//! - **Closing** ends the waits at the descriptor. Its number may be anybody's from then on; so calls that use it without the host's
//!   lock are counted, and the last of them closes it.
//!
//! - **Drained** is what a TCP socket is once it gave less than it was asked for: until its next event there is nothing to try, and the
//!   next call parks at once. Not after an event that told of more than data (`PollDesc::has_ended`): the end that came
//!   with the last of the data has no event of its own. Nor with sockets of other kinds: a Unix one stops between messages.
//!
//! The order in which a call looks, the descriptor's sequence number first, is why nothing is missed: who changes the rest raises
//! that number afterwards, and a wait is refused if it was raised (`netpoll`).

#[cfg(test)]
mod tests;

use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Listens, Outcome};
use crate::netpoll::{Error, PollDesc, Side};
use crate::primitive::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sched::{self, Runtime, now_ns};
use crate::sync::Mutex;
use crate::sys::socket;

/// Why a call did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The socket is closed.
    Closed,
    /// The socket's deadline has passed.
    DeadlinePassed,
    /// The wait ended by something else than the socket.
    Wait(Outcome),
    /// The system's errno.
    Os(i32),
}

/// No deadline.
const NONE: u64 = 0;

/// Events of one call to write after which there was no room, before it pauses at each, and for how long, ns. A datagram that a
/// full queue refuses has an event of its own as it is freed: without a pause who sends it tries all the time, and an M that does
/// nothing else never lets go of the host's lock, which who would empty the queue may be waiting for.
const FUTILE: u32 = 8;
const PAUSE_NS: u64 = 200_000;

/// No sequence number: it may have something to read.
const NOT_DRAINED: u64 = u64::MAX;
/// What is known of the socket's kind: nothing yet, it is one of TCP, it is another.
const UNKNOWN: u8 = 0;
const TCP: u8 = 1;
const OTHER: u8 = 2;

/// See the module's text.
pub struct Socket {
    /// -1: it is closed, also for the system.
    fd: AtomicI32,
    is_closed: AtomicBool,
    /// Calls that use the descriptor without the host's lock.
    users: AtomicU32,
    /// By side, in the time of the waiter's clock.
    deadlines_ns: [AtomicU64; 2],
    turns: [Mutex; 2],
    /// The sequence number since which there is nothing to read. Of whose turn it is.
    drained_at: AtomicU64,
    kind: AtomicU8,
}

impl Socket {
    /// Around a descriptor that does not block and is this one's from here on; -1: there is none yet.
    pub fn new(fd: i32) -> Self {
        Self {
            fd: AtomicI32::new(fd),
            is_closed: AtomicBool::new(false),
            users: AtomicU32::new(0),
            deadlines_ns: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            turns: [Mutex::new(), Mutex::new()],
            drained_at: AtomicU64::new(NOT_DRAINED),
            kind: AtomicU8::new(UNKNOWN),
        }
    }

    /// Takes `fd` for its descriptor; there was none.
    pub fn set_fd(&self, fd: i32) {
        self.fd.store(fd, Ordering::Relaxed); // nobody else has it yet
    }

    /// The descriptor; -1 once it is closed.
    #[inline]
    pub fn fd(&self) -> i32 {
        // Relaxed, as all here: the host's lock orders it.
        if self.is_closed() { -1 } else { self.fd.load(Ordering::Relaxed) }
    }

    /// Whether `close` was called.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// When calls of `side` give up, ns.
    pub fn deadline_ns(&self, side: Side) -> Option<u64> {
        let ns = self.deadlines_ns[side as usize].load(Ordering::Relaxed);
        (ns != NONE).then_some(ns)
    }

    /// Has calls of `side` give up at that time, also those that wait. Host attached.
    pub fn set_deadline(&self, rt: &'static Runtime, side: Side, deadline_ns: Option<u64>) {
        let ns = deadline_ns.map_or(NONE, |ns| ns.max(1));
        self.deadlines_ns[side as usize].store(ns, Ordering::Relaxed);
        // SAFETY: host attached.
        unsafe { rt.retry_waiters(self.fd(), side) };
    }

    /// Closes it, and ends the waits there; `false`: it was closed. Host attached. `rt` is missing where none was ever made.
    pub fn close(&self, rt: Option<&'static Runtime>) -> bool {
        let fd = self.fd();
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return false;
        }
        if let (0.., Some(rt)) = (fd, rt) {
            // SAFETY: host attached.
            unsafe { rt.retire_descriptor(fd) };
        }
        self.close_if_unused();
        true
    }

    fn close_if_unused(&self) {
        if self.users.load(Ordering::Relaxed) == 0 {
            let fd = self.fd.swap(-1, Ordering::Relaxed);
            if fd >= 0 {
                socket::close(fd);
            }
        }
    }

    /// Waits until it is the caller's turn at `side`; `end_turn` follows, unless this fails. Host attached.
    ///
    /// # Errors
    /// What ended the wait.
    #[inline(always)]
    pub fn begin_turn(&self, rt: &'static Runtime, side: Side, until: Until) -> Result<(), Stop> {
        if self.turns[side as usize].try_lock() { Ok(()) } else { self.wait_for_turn(rt, side, until) }
    }

    #[inline(never)] // as `wait`
    fn wait_for_turn(&self, rt: &'static Runtime, side: Side, until: Until) -> Result<(), Stop> {
        match self.turns[side as usize].lock(rt, until) {
            Outcome::Delivered => Ok(()),
            outcome => Err(Stop::Wait(outcome)),
        }
    }

    /// The next may come.
    #[inline]
    pub fn end_turn(&self, side: Side) {
        let _ = self.turns[side as usize].unlock(); // it is locked
    }

    /// What stops a call before it has tried.
    #[inline(always)]
    fn check(&self, side: Side) -> Result<(), Stop> {
        if self.is_closed() {
            return Err(Stop::Closed);
        }
        self.deadline_ns(side).map_or(Ok(()), Self::check_deadline)
    }

    #[inline(never)]
    fn check_deadline(deadline_ns: u64) -> Result<(), Stop> {
        if deadline_ns <= now_ns() { Err(Stop::DeadlinePassed) } else { Ok(()) }
    }

    /// Calls `attempt` with the descriptor until it does something but EAGAIN; parks meanwhile, at most until `until`. Host attached.
    ///
    /// # Errors
    /// Why it gave up; nothing was done then.
    #[inline]
    pub fn done<R>(
        &self,
        rt: &'static Runtime,
        side: Side,
        until: Until,
        mut attempt: impl FnMut(i32) -> Result<R, i32>,
    ) -> Result<R, Stop> {
        let mut futile = 0;
        loop {
            let fd = self.fd();
            let known = rt.net.registered(fd);
            let seen = known.map(|desc| desc.seq(side));
            self.check(side)?;
            match attempt(fd) {
                Ok(result) => return Ok(result),
                Err(socket::AGAIN) => {}
                Err(socket::INTERRUPTED) => continue,
                Err(error) => return Err(Stop::Os(error)),
            }
            if side == Side::Write && futile >= FUTILE {
                Self::pause(rt, until)?;
            }
            futile = u32::min(futile + 1, FUTILE);
            self.wait(rt, side, until, seen)?;
        }
    }

    /// Lets time pass, in which others have the processor and the host's lock.
    #[cold]
    fn pause(rt: &'static Runtime, until: Until) -> Result<(), Stop> {
        let (own_ns, end_ns) = (until.deadline_ns(), now_ns() + PAUSE_NS);
        let earliest_ns = own_ns.map_or(end_ns, |own_ns| own_ns.min(end_ns));
        // SAFETY: no wait is in the list of the place's ender: this goroutine's only one begins here.
        let outcome = unsafe {
            let outcome = sched::sleep_until(rt, until.at(Some(earliest_ns)));
            let _ = until.at(own_ns);
            outcome
        };
        match outcome {
            Outcome::TimedOut if own_ns.is_none_or(|ns| ns > now_ns()) => Ok(()),
            outcome => Err(Stop::Wait(outcome)),
        }
    }

    /// The same for an `attempt` to read from a stream, in the caller's turn; it also says whether it got some, and less than there was
    /// room for.
    ///
    /// # Errors
    /// As for `done`.
    #[inline]
    pub fn done_reading<R>(
        &self,
        rt: &'static Runtime,
        until: Until,
        mut attempt: impl FnMut(i32) -> Result<(R, bool), i32>,
    ) -> Result<R, Stop> {
        loop {
            let fd = self.fd();
            let known = rt.net.registered(fd);
            let seen = known.map(|desc| desc.seq(Side::Read));
            self.check(Side::Read)?;
            let is_drained = seen.is_some_and(|seq| self.drained_at.load(Ordering::Relaxed) == seq.into())
                && !known.is_some_and(PollDesc::has_ended);
            if !is_drained {
                match attempt(fd) {
                    Ok((result, is_short)) => {
                        self.note_read(fd, seen.filter(|_| is_short));
                        return Ok(result);
                    }
                    Err(socket::AGAIN) => {}
                    Err(socket::INTERRUPTED) => continue,
                    Err(error) => return Err(Stop::Os(error)),
                }
            }
            self.note_read(fd, None); // whatever ends the wait, the next look tries
            self.wait(rt, Side::Read, until, seen)?;
        }
    }

    /// A read has drained the socket since the event of this number, or may have left something.
    #[inline]
    fn note_read(&self, fd: i32, drained_at: Option<u32>) {
        let now = match drained_at {
            Some(seq) if self.is_tcp(fd) => seq.into(),
            _ => NOT_DRAINED,
        };
        self.drained_at.store(now, Ordering::Relaxed);
    }

    fn is_tcp(&self, fd: i32) -> bool {
        let mut kind = self.kind.load(Ordering::Relaxed);
        if kind == UNKNOWN {
            kind = if socket::is_tcp(fd) { TCP } else { OTHER };
            self.kind.store(kind, Ordering::Relaxed);
        }
        kind == TCP
    }

    /// The same for an `attempt` that lets go of the host's lock, over which others may close the socket.
    ///
    /// # Errors
    /// As for `done`.
    pub fn done_unlocked<R>(
        &self,
        rt: &'static Runtime,
        side: Side,
        until: Until,
        mut attempt: impl FnMut(i32) -> Result<R, i32>,
    ) -> Result<R, Stop> {
        self.done(rt, side, until, |fd| {
            self.users.fetch_add(1, Ordering::Relaxed);
            let result = attempt(fd);
            if self.users.fetch_sub(1, Ordering::Relaxed) == 1 && self.is_closed() {
                self.close_if_unused();
            }
            result
        })
    }

    /// Waits for an event of `side` after the one that `seen` stands for; `None`: the descriptor was not registered then.
    #[inline(never)] // what it needs is a part of the stack of who waits, not of who tries
    fn wait(&self, rt: &'static Runtime, side: Side, until: Until, seen: Option<u32>) -> Result<(), Stop> {
        if self.is_closed() {
            return Err(Stop::Closed); // while the host's lock was away
        }
        let fd = self.fd();
        let (Some(desc), Some(seen)) = (rt.net.registered(fd), seen) else {
            // Its first event may come with the registration: try once more with the number in hand.
            return match rt.net.desc(fd) {
                Ok(_) => Ok(()),
                Err(Error::Os(error)) => Err(Stop::Os(error)),
                Err(_) => Err(Stop::Os(socket::INVALID)),
            };
        };
        let own_ns = until.deadline_ns();
        let earliest_ns = match (own_ns, self.deadline_ns(side)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        // SAFETY: no wait is in the list of the place's ender: this goroutine's only one begins here.
        let outcome = unsafe {
            let outcome = sched::wait_io(rt, desc, side, seen, until.at(earliest_ns), Listens::ToAll);
            let _ = until.at(own_ns);
            outcome
        };
        match outcome {
            Outcome::Delivered => Ok(()),
            Outcome::Closed => Err(Stop::Closed),
            // The socket's, which may be another by now: the next look tells.
            Outcome::TimedOut if own_ns.is_none_or(|ns| ns > now_ns()) => Ok(()),
            outcome => Err(Stop::Wait(outcome)),
        }
    }

    /// Connects a socket that is not connected. Host attached.
    ///
    /// # Errors
    /// Why not. EAGAIN is for Unix sockets whose listener's queue is full: no event tells when there is room.
    pub fn connect(&self, rt: &'static Runtime, address: &socket::Address, until: Until) -> Result<(), Stop> {
        self.check(Side::Write)?;
        match socket::connect(self.fd(), address) {
            Ok(()) => {}
            Err(socket::IN_PROGRESS) => self.finish_connect(rt, until)?,
            Err(error) => return Err(Stop::Os(error)),
        }
        // The listener may be this program's, and its queue short: who accepts goes first, as the kernel would have it.
        // A plain thread is none that others wait behind.
        if rt.net.waiting() != 0 && !sched::current_goroutine().is_null() {
            sched::yield_to_acceptor(rt);
        }
        Ok(())
    }

    /// Waits for the end of a connect that was begun.
    ///
    /// # Errors
    /// Why it failed, or what ended the wait; the connect goes on then.
    pub fn finish_connect(&self, rt: &'static Runtime, until: Until) -> Result<(), Stop> {
        self.done(rt, Side::Write, until, socket::connected)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let fd = self.fd.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            socket::close(fd);
        }
    }
}
