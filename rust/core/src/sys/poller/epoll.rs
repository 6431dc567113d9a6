//! Linux: epoll, and an eventfd for `wake`.
//!
//! The eventfd is level-triggered and only a wait with time empties it (as Go's netpollBreak): it stays ready until the
//! thread it is meant for has seen it.

use super::{BATCH, Error, Event, WAKE_TAG};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

const BOTH_EDGES: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET).cast_unsigned();
const READABLE: u32 =
    (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();
const ENDED: u32 = READABLE & !libc::EPOLLIN.cast_unsigned();
const WRITABLE: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();

/// Set once the kernel has refused epoll_pwait2 (before 5.11, or a filter that does not know it).
static NO_PWAIT2: AtomicBool = AtomicBool::new(false);

/// Whether this kernel's waits end on whole milliseconds only; known after the first wait with time.
#[cfg(test)]
pub(super) fn rounds_to_ms() -> bool {
    NO_PWAIT2.load(Ordering::Relaxed)
}

/// The least number of an instance's descriptors, where the limit allows it: programs count on small ones, and put files
/// of their own at them.
const LEAST_NUMBER: libc::c_int = 64;

/// The same file at a number that programs do not ask for; or where it was.
fn out_of_the_way(fd: libc::c_int) -> libc::c_int {
    if !(0..LEAST_NUMBER).contains(&fd) {
        return fd;
    }
    // SAFETY: the descriptor was made just now, and nobody else knows it.
    unsafe {
        let moved = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, LEAST_NUMBER);
        if moved < 0 {
            return fd;
        }
        libc::close(fd);
        moved
    }
}

/// One epoll instance.
pub struct Poller {
    epoll: libc::c_int,
    wake: libc::c_int,
}

impl Poller {
    /// An instance without registrations.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Error> {
        // SAFETY: no pointers.
        let epoll = out_of_the_way(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
        if epoll < 0 {
            return Err(Error::last());
        }
        // SAFETY: no pointers.
        let wake = out_of_the_way(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) });
        if wake < 0 {
            let error = Error::last();
            // SAFETY: made above, nobody else knows it.
            unsafe { libc::close(epoll) };
            return Err(error);
        }
        let poller = Self { epoll, wake };
        poller.control(libc::EPOLL_CTL_ADD, wake, libc::EPOLLIN.cast_unsigned(), WAKE_TAG)?;
        Ok(poller)
    }

    fn control(&self, operation: libc::c_int, fd: i32, events: u32, tag: u64) -> Result<(), Error> {
        let mut event = libc::epoll_event { events, u64: tag };
        // SAFETY: the record outlives the call; a bad descriptor is an error.
        let rc = unsafe { libc::epoll_ctl(self.epoll, operation, fd, &raw mut event) };
        if rc == 0 { Ok(()) } else { Err(Error::last()) }
    }

    /// Watches `fd`; its events carry `tag`. What is ready already is an event.
    ///
    /// # Errors
    /// `NotPollable`, EBADF, ENOMEM, ENOSPC.
    pub fn register(&self, fd: i32, tag: u64) -> Result<(), Error> {
        match self.control(libc::EPOLL_CTL_ADD, fd, BOTH_EDGES, tag) {
            Err(Error::Os(libc::EEXIST)) => self.control(libc::EPOLL_CTL_MOD, fd, BOTH_EDGES, tag),
            other => other,
        }
    }

    /// Makes sure `fd` is watched: the kernel drops a registration with the last close, which nobody may have seen. What
    /// is ready is an event again.
    ///
    /// # Errors
    /// As for `register`.
    pub fn verify(&self, fd: i32, tag: u64) -> Result<(), Error> {
        match self.control(libc::EPOLL_CTL_MOD, fd, BOTH_EDGES, tag) {
            Err(Error::Os(libc::ENOENT)) => self.register(fd, tag),
            other => other,
        }
    }

    /// Watches `fd` no more. Events of it may be on their way.
    ///
    /// # Errors
    /// ENOENT or EBADF: it was not watched.
    pub fn unregister(&self, fd: i32) -> Result<(), Error> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits until something happens, at most `timeout_ns`, and fills `out` from its start; returns how many. 0: the time
    /// ran out, or `wake`. Blocks the OS thread, but not for a time-out of 0. One thread at a time may wait with time.
    ///
    /// # Errors
    /// `Interrupted`; anything else means that the instance is gone.
    pub fn wait(&self, timeout_ns: Option<u64>, out: &mut [Event]) -> Result<usize, Error> {
        let mut raw = [const { MaybeUninit::<libc::epoll_event>::uninit() }; BATCH];
        let room = out.len().min(BATCH) as libc::c_int;
        let count = self.wait_raw(timeout_ns, raw.as_mut_ptr().cast(), room)?;
        let mut filled = 0;
        for event in &raw[..count] {
            // SAFETY: the kernel filled the first `count`.
            let event = unsafe { event.assume_init() };
            let (tag, events) = (event.u64, event.events);
            if tag == WAKE_TAG {
                if timeout_ns != Some(0) {
                    self.empty_wake();
                }
                continue;
            }
            let has = |bits| events & bits != 0;
            out[filled] = Event { tag, readable: has(READABLE), writable: has(WRITABLE), ended: has(ENDED) };
            filled += 1;
        }
        Ok(filled)
    }

    fn wait_raw(&self, timeout_ns: Option<u64>, out: *mut libc::epoll_event, room: i32) -> Result<usize, Error> {
        // Relaxed: a hint. Nothing to gain without a time-out.
        if timeout_ns.is_some_and(|ns| ns != 0) && !NO_PWAIT2.load(Ordering::Relaxed) {
            let ns = timeout_ns.unwrap_or(0);
            let (s, ns) = ((ns / 1_000_000_000) as libc::time_t, (ns % 1_000_000_000) as libc::c_long);
            let ts = libc::timespec { tv_sec: s, tv_nsec: ns };
            let no_mask = ptr::null::<libc::sigset_t>();
            // By number: the C library this is linked against may be older. SAFETY: `out` has `room` places.
            let rc =
                unsafe { libc::syscall(libc::SYS_epoll_pwait2, self.epoll, out, room, &raw const ts, no_mask, 8usize) };
            if rc >= 0 {
                return Ok(rc as usize);
            }
            match Error::last() {
                Error::Os(libc::ENOSYS) | Error::NotPollable => NO_PWAIT2.store(true, Ordering::Relaxed),
                error => return Err(error),
            }
        }
        // Rounded up: a timer must not find itself too early.
        let ms = timeout_ns.map_or(-1, |ns| i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: `out` has `room` places.
        let rc = unsafe { libc::epoll_wait(self.epoll, out, room, ms) };
        if rc >= 0 { Ok(rc as usize) } else { Err(Error::last()) }
    }

    /// Ends the wait of the thread that waits with time, or that of the next one.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight readable bytes. It fails only when the counter is full: then it is ready anyway.
        unsafe { libc::write(self.wake, (&raw const one).cast(), 8) };
    }

    fn empty_wake(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes; nothing to read is no harm.
        unsafe { libc::read(self.wake, (&raw mut count).cast(), 8) };
    }

    /// The instance's own descriptors, which no program may close.
    pub fn own_descriptors(&self) -> [i32; 2] {
        [self.epoll, self.wake]
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // SAFETY: the instance's own descriptors.
        unsafe {
            libc::close(self.wake);
            libc::close(self.epoll);
        }
    }
}
