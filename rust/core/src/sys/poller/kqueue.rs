//! macOS and FreeBSD: kqueue, and a user event for `wake`.
//!
//! A registration is two filters with one tag; the kernel drops both with the descriptor's close. A user event is
//! reported once: a wait without time that gets it passes it on (as Go's processWakeupEvent).

use super::{BATCH, Error, Event, WAKE_TAG};
use std::mem::MaybeUninit;
use std::ptr;

/// The user event's number.
const WAKE_IDENT: usize = 0;

/// One kqueue.
pub struct Poller {
    queue: libc::c_int,
}

fn change(ident: usize, filter: i16, flags: u16, fflags: u32, tag: u64) -> libc::kevent {
    // SAFETY: a record of integers and a pointer, all of which may be zero.
    let mut change: libc::kevent = unsafe { std::mem::zeroed() };
    change.ident = ident as _;
    change.filter = filter;
    change.flags = flags;
    change.fflags = fflags;
    change.udata = ptr::without_provenance_mut(tag as usize);
    change
}

impl Poller {
    /// An instance without registrations.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Error> {
        // SAFETY: no arguments.
        let queue = unsafe { libc::kqueue() };
        if queue < 0 {
            return Err(Error::last());
        }
        let poller = Self { queue };
        // SAFETY: the descriptor just made.
        if unsafe { libc::fcntl(queue, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(Error::last());
        }
        poller.apply(&[change(WAKE_IDENT, libc::EVFILT_USER, libc::EV_ADD | libc::EV_CLEAR, 0, WAKE_TAG)])?;
        Ok(poller)
    }

    fn apply(&self, changes: &[libc::kevent]) -> Result<(), Error> {
        let (at, count) = (changes.as_ptr(), changes.len() as libc::c_int);
        // SAFETY: `count` readable records; no room for events, so that an error is this call's.
        let rc = unsafe { libc::kevent(self.queue, at, count, ptr::null_mut(), 0, ptr::null()) };
        if rc == 0 { Ok(()) } else { Err(Error::last()) }
    }

    /// Watches `fd`; its events carry `tag`. What is ready already is an event.
    ///
    /// # Errors
    /// `NotPollable`, EBADF, ENOMEM.
    pub fn register(&self, fd: i32, tag: u64) -> Result<(), Error> {
        let Ok(ident) = usize::try_from(fd) else { return Err(Error::BAD_DESCRIPTOR) };
        let flags = libc::EV_ADD | libc::EV_CLEAR;
        let both = [libc::EVFILT_READ, libc::EVFILT_WRITE].map(|filter| change(ident, filter, flags, 0, tag));
        self.apply(&both).map_err(|error| match error {
            Error::Os(libc::EINVAL | libc::ENODEV) => Error::NotPollable,
            other => other,
        })
    }

    /// Makes sure `fd` is watched, which is to register it: that does nothing to filters that are there.
    ///
    /// # Errors
    /// As for `register`.
    pub fn verify(&self, fd: i32, tag: u64) -> Result<(), Error> {
        self.register(fd, tag)
    }

    /// Watches `fd` no more. Events of it may be on their way.
    ///
    /// # Errors
    /// ENOENT or EBADF: it was not watched.
    pub fn unregister(&self, fd: i32) -> Result<(), Error> {
        let Ok(ident) = usize::try_from(fd) else { return Err(Error::BAD_DESCRIPTOR) };
        let [read, write] = [libc::EVFILT_READ, libc::EVFILT_WRITE]
            .map(|filter| self.apply(&[change(ident, filter, libc::EV_DELETE, 0, 0)]));
        read.and(write)
    }

    /// Waits until something happens, at most `timeout_ns`, and fills `out` from its start; returns how many. 0: the time
    /// ran out, or `wake`. Blocks the OS thread, but not for a time-out of 0. One thread at a time may wait with time.
    ///
    /// # Errors
    /// `Interrupted`; anything else means that the instance is gone.
    pub fn wait(&self, timeout_ns: Option<u64>, out: &mut [Event]) -> Result<usize, Error> {
        let mut raw = [const { MaybeUninit::<libc::kevent>::uninit() }; BATCH];
        let room = out.len().min(BATCH) as libc::c_int;
        let ts = timeout_ns.map(|ns| libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        });
        let ts_at = ts.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `raw` has `room` places.
        let count = unsafe { libc::kevent(self.queue, ptr::null(), 0, raw.as_mut_ptr().cast(), room, ts_at) };
        if count < 0 {
            return Err(Error::last());
        }
        let mut filled = 0;
        for event in &raw[..count as usize] {
            // SAFETY: the kernel filled the first `count`.
            let event = unsafe { event.assume_init() };
            if event.filter == libc::EVFILT_USER {
                if timeout_ns == Some(0) {
                    self.wake();
                }
                continue;
            }
            // An error shows at the end of a side as well; both sides try again then.
            let ended = event.flags & (libc::EV_EOF | libc::EV_ERROR) != 0;
            let (readable, writable) =
                (ended || event.filter == libc::EVFILT_READ, ended || event.filter == libc::EVFILT_WRITE);
            out[filled] = Event { tag: event.udata.addr() as u64, readable, writable, ended };
            filled += 1;
        }
        Ok(filled)
    }

    /// Ends the wait of the thread that waits with time, or that of the next one.
    pub fn wake(&self) {
        // The user event is there as long as the queue: it cannot fail.
        let _ = self.apply(&[change(WAKE_IDENT, libc::EVFILT_USER, 0, libc::NOTE_TRIGGER, WAKE_TAG)]);
    }

    /// The instance's own descriptor, which no program may close.
    pub fn own_descriptors(&self) -> [i32; 2] {
        [self.queue, -1]
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // SAFETY: the instance's own descriptor.
        unsafe { libc::close(self.queue) };
    }
}
