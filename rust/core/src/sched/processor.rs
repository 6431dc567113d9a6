//! P: the right to run goroutines, and what goes with it.

use super::local_queue::LocalQueue;
use super::machine::Machine;
use crate::goroutine::Goroutine;
use crate::primitive::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::primitive::exclusive::ShortLock;
use crate::timer::{Timer, TimerHeap};

/// No timer.
pub const NEVER: u64 = u64::MAX;

/// One processor.
pub struct Processor {
    /// Its index.
    pub id: usize,
    /// Runnable goroutines.
    pub queue: LocalQueue<Goroutine>,
    /// Who holds it; null while idle.
    pub machine: AtomicPtr<Machine>,
    /// Goroutines started or resumed here, for sysmon and the 61-tick rule.
    pub ticks: AtomicU32,
    /// Timers of goroutines that parked here.
    timers: ShortLock<TimerHeap>,
    /// The earliest deadline in `timers`, or `NEVER`; read by anyone.
    pub next_when: AtomicU64,
}

impl Processor {
    /// An idle P.
    pub fn new(id: usize) -> Self {
        Self {
            id,
            queue: LocalQueue::new(),
            machine: AtomicPtr::new(std::ptr::null_mut()),
            ticks: AtomicU32::new(0),
            timers: ShortLock::new(TimerHeap::new()),
            next_when: AtomicU64::new(NEVER),
        }
    }

    /// Adds a timer.
    ///
    /// # Safety
    /// The timer stays in place until it fired or was removed here.
    pub unsafe fn add_timer(&self, timer: *mut Timer) {
        let mut heap = self.timers.lock();
        // SAFETY: the caller's promise.
        unsafe { heap.push(timer) };
        // Release: pairs with the Acquire reads of `next_when` by idle Ms.
        self.next_when.store(heap.peek_when().unwrap_or(NEVER), Ordering::Release);
    }

    /// Removes a timer if it is still queued here.
    ///
    /// # Safety
    /// The timer is live and was added here.
    pub unsafe fn remove_timer(&self, timer: *mut Timer) {
        let mut heap = self.timers.lock();
        // SAFETY: the caller's promise.
        unsafe { heap.remove(timer) };
        self.next_when.store(heap.peek_when().unwrap_or(NEVER), Ordering::Release);
    }

    /// Fires what is due. Each fired timer's owner is claimed under the heap's lock, so that the owner, who removes its
    /// timer under the same lock, cannot be gone; the returned waits are then readied by the caller.
    pub fn fire_due(&self, now_ns: u64, mut fired: impl FnMut(*mut Timer)) {
        let mut heap = self.timers.lock();
        while let Some(timer) = heap.pop_due(now_ns) {
            fired(timer);
        }
        self.next_when.store(heap.peek_when().unwrap_or(NEVER), Ordering::Release);
    }
}
