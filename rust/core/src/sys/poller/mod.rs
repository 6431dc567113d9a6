//! Waiting for many descriptors at once: one registration per descriptor, for reading and writing, edge-triggered.
//!
//! An edge is reported once, to one of the threads that wait: whoever gets it has to tell everybody it concerns. `wake`
//! ends the wait of the one thread that may be in a wait with time; a wait without time neither ends by it nor takes it
//! away, so that the sleeper's wake-up cannot go to somebody who only had a look. Any thread may call anything.

#[cfg(all(not(model), target_os = "linux"))]
#[path = "epoll.rs"]
mod system;
#[cfg(all(not(model), any(target_os = "macos", target_os = "freebsd")))]
#[path = "kqueue.rs"]
mod system;
#[cfg(model)]
#[path = "model.rs"]
mod system;
#[cfg(all(test, not(model)))]
mod tests;

pub use system::Poller;

/// Most events of one wait. Go's number; a batch of them is 2 KiB of stack.
pub const BATCH: usize = 128;

/// The tag of the descriptor that `wake` writes to; its lower half, as a descriptor, is -1.
#[cfg(not(model))]
const WAKE_TAG: u64 = u64::MAX;

/// What happened to a descriptor since it was last reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event {
    /// What it was registered with.
    pub tag: u64,
    /// A read would not block: data, its end, an error, urgent data.
    pub readable: bool,
    /// A write would not block: room, a hang-up, an error.
    pub writable: bool,
    /// There is something other than data to read: the end of it, an error, an urgent mark.
    pub ended: bool,
}

/// Why a call did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The descriptor is of a kind that is always ready (a regular file).
    NotPollable,
    /// A signal handler ran.
    Interrupted,
    /// Everything else, by its errno.
    Os(i32),
}

#[cfg(not(model))]
impl Error {
    /// The calling thread's errno.
    fn last() -> Self {
        Self::of(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    fn of(errno: i32) -> Self {
        match errno {
            libc::EPERM => Self::NotPollable,
            libc::EINTR => Self::Interrupted,
            other => Self::Os(other),
        }
    }
}

impl Error {
    /// It as an errno.
    pub fn errno(self) -> i32 {
        match self {
            Self::NotPollable => libc::EPERM,
            Self::Interrupted => libc::EINTR,
            Self::Os(errno) => errno,
        }
    }

    /// The descriptor is out of range, or nobody's.
    pub const BAD_DESCRIPTOR: Self = Self::Os(libc::EBADF);
    /// Memory was refused.
    pub const NO_MEMORY: Self = Self::Os(libc::ENOMEM);
}

/// Makes `to` another name of `from`'s file, closing what it was without telling anybody.
#[cfg(all(test, not(model)))]
pub(crate) fn duplicate_for_test(from: i32, to: i32) -> i32 {
    // SAFETY: no pointers; the caller owns `to`.
    unsafe { libc::dup2(from, to) }
}

/// Whether connections come to `fd`: it is a socket, and listens.
pub fn is_listener(fd: i32) -> bool {
    let mut listens: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the record and its size are ours.
    let rc = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listens).cast::<libc::c_void>(),
            &raw mut size,
        )
    };
    rc == 0 && listens != 0
}
