//! Layer 5: timers, as in Go's runtime/time.go.
//!
//! A [`Timer`] is a node of one P's [`TimerHeap`] and belongs to whoever set it: it stays in place while it is queued,
//! and its owner takes it out, under the heap's lock, before it goes. There are two kinds. The timer of a blocked wait
//! ends that wait. An [`EventTimer`] does what its [`Event`] says, once or periodically. The heap never calls anybody:
//! it gives back what is due, and sets a periodic timer for its next time.

mod heap;
#[cfg(all(test, not(model)))]
mod tests;

pub use heap::TimerHeap;

const NOT_QUEUED: u32 = u32::MAX;

/// One deadline. Lives in its owner; stays in place while queued.
#[repr(C)]
pub struct Timer {
    /// When, ns of the monotonic clock. Changed by the owner only while it is not queued.
    pub when_ns: u64,
    seq: u64,
    index: u32,
    is_event: bool,
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer {
    /// The timer of a wait, not queued.
    #[inline]
    pub const fn new() -> Self {
        Self { when_ns: 0, seq: 0, index: NOT_QUEUED, is_event: false }
    }

    /// Whether it is in a heap.
    #[inline]
    pub fn is_queued(&self) -> bool {
        self.index != NOT_QUEUED
    }

    /// Whether it is the first field of an [`EventTimer`].
    #[inline]
    pub fn is_event(&self) -> bool {
        self.is_event
    }
}

/// What an [`EventTimer`] does when it is due, in two steps, both with the host attached.
pub struct Event {
    /// Under the heap's lock, so that the timer's owner cannot be gone: gives what `fire` needs, or null for nothing to
    /// do. Sets nothing in motion. A timer that is not periodic is out of the heap by then, and may be freed here.
    pub take: unsafe fn(*mut EventTimer) -> *mut u8,
    /// With the lock free, usually on an M's scheduler stack: may make goroutines runnable and start them; must not park and
    /// must not run code of the host.
    pub fire: unsafe fn(*mut u8),
    /// It is out of its heap and will not fire: frees the timer if nobody owns it any more, and what only its firing would
    /// need. Where code of the host may run.
    pub abandon: unsafe fn(*mut EventTimer),
}

/// A timer with an event, once or every `period_ns`.
#[repr(C)]
pub struct EventTimer {
    /// First field: a due timer is cast back.
    pub timer: Timer,
    /// Time between firings, ns; 0: once.
    pub period_ns: u64,
    /// Whose heap it was put into, an index of the runtime's Ps.
    pub processor: usize,
    /// The bubble whose clock it goes by (`sched::bubble`); 0: the world's.
    pub bubble: u32,
    /// What it does.
    pub event: &'static Event,
}

impl EventTimer {
    /// Not queued; of bubble `bubble`, 0 for none.
    pub const fn new(event: &'static Event, bubble: u32) -> Self {
        Self { timer: Timer { is_event: true, ..Timer::new() }, period_ns: 0, processor: 0, bubble, event }
    }
}
