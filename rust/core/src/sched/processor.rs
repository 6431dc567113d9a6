//! P: the right to run goroutines, and what goes with it.

use super::latency;
use super::local_queue::LocalQueue;
use super::machine::Machine;
use super::memory::CacheCell;
use crate::goroutine::Goroutine;
use crate::goroutine::waiter::{Outcome, Wait};
use crate::primitive::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::primitive::exclusive::ShortLock;
use crate::timer::{Event, EventTimer, Timer, TimerHeap};

/// No timer.
pub const NEVER: u64 = u64::MAX;

/// What a due timer asks for, once its heap's lock is free.
pub enum Due {
    /// Ready this wait: it was claimed as timed out.
    Wait(*mut Wait),
    /// Call the event's `fire` with this.
    Event(&'static Event, *mut u8),
}

/// The first timer of `heap` that is due and has something to do. A wait is claimed, and an event taken, under the heap's lock,
/// which the caller holds: an owner, who removes its timer under the same lock, cannot be gone.
pub(super) fn due_of(heap: &mut TimerHeap, now_ns: u64) -> Option<Due> {
    let mut due = None;
    while due.is_none()
        && let Some(timer) = heap.pop_due(now_ns)
    {
        // SAFETY: a queued timer is live, and the first field of what its kind says.
        unsafe {
            if (*timer).is_event() {
                // `take` may free a timer that nobody owns any more.
                let event = (*timer.cast::<EventTimer>()).event;
                let what = (event.take)(timer.cast());
                due = (!what.is_null()).then_some(Due::Event(event, what));
            } else {
                let wait = timer.cast::<Wait>();
                due = (*wait).claim(Outcome::TimedOut).then_some(Due::Wait(wait));
            }
        }
    }
    due
}

/// One processor.
pub struct Processor {
    /// Its index.
    pub id: usize,
    /// Runnable goroutines.
    pub queue: LocalQueue<Goroutine>,
    /// Who holds it; null while idle.
    pub machine: AtomicPtr<Machine>,
    /// An M is on its way to take this P from the one that blocks with it.
    pub(super) taker_sent: AtomicBool,
    /// That M is to interrupt who computes on it, not to take the P.
    pub(super) is_overdue: AtomicBool,
    /// That M is to see who is due, and whether he goes before who computes on it.
    pub(super) is_looked_at: AtomicBool,
    /// Goroutines started or resumed here, for sysmon and the 61-tick rule.
    pub ticks: AtomicU32,
    /// Goroutines taken from `queue` by its owner.
    pub local_pops: AtomicU64,
    /// Goroutines in a row that came by the next slot and inherited the time slice.
    pub(super) inherited: AtomicU32,
    /// How long things took here.
    pub(super) latency: latency::OfProcessor,
    /// Timers of goroutines that parked here, and those set here.
    timers: ShortLock<TimerHeap>,
    /// Memory that whoever has this P takes and gives without a lock.
    #[cfg_attr(model, allow(dead_code, reason = "a model knows no heap"))]
    pub(super) cache: CacheCell,
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
            taker_sent: AtomicBool::new(false),
            is_overdue: AtomicBool::new(false),
            is_looked_at: AtomicBool::new(false),
            ticks: AtomicU32::new(0),
            local_pops: AtomicU64::new(0),
            inherited: AtomicU32::new(0),
            latency: latency::OfProcessor::default(),
            timers: ShortLock::new(TimerHeap::new()),
            cache: CacheCell::default(),
            next_when: AtomicU64::new(NEVER),
        }
    }

    /// Whether there is memory for one more timer with an event.
    pub fn has_room_for_timer(&self) -> bool {
        self.timers.lock().make_room()
    }

    /// Keeps room for the timers of `count` waits. `false`: memory is refused.
    pub(super) fn keep_room(&self, count: usize) -> bool {
        self.timers.lock().keep_room(count)
    }

    /// While there are no timers: gives the system the memory of the room for them, which stays.
    #[cfg(not(model))]
    pub(super) fn release_room(&self) {
        self.timers.lock().release_room();
    }

    /// Adds a timer.
    ///
    /// # Safety
    /// The timer stays in place until it fired (a periodic one: for ever) or was removed here.
    pub unsafe fn add_timer(&self, timer: *mut Timer) {
        let mut heap = self.timers.lock();
        // SAFETY: the caller's promise.
        unsafe { heap.push(timer) };
        self.publish_next(&heap);
    }

    /// Removes a timer if it is still queued here; returns whether it was.
    ///
    /// # Safety
    /// The timer is live and was added here.
    pub unsafe fn remove_timer(&self, timer: *mut Timer) -> bool {
        let mut heap = self.timers.lock();
        // SAFETY: the caller's promise.
        let was_queued = unsafe { heap.remove(timer) };
        self.publish_next(&heap);
        was_queued
    }

    /// The first timer that is due and has something to do.
    pub fn pop_due(&self, now_ns: u64) -> Option<Due> {
        let mut heap = self.timers.lock();
        let due = due_of(&mut heap, now_ns);
        self.publish_next(&heap);
        due
    }

    /// How many timers are queued here.
    pub fn timer_count(&self) -> usize {
        self.timers.lock().len()
    }

    /// What a forked child begins with: nothing queued, nothing timed, nobody's. One thread only.
    ///
    /// # Safety
    /// Whoever is queued or timed here does not exist any more, but his memory.
    pub(super) unsafe fn forget(&self) {
        self.queue.forget();
        self.machine.store(std::ptr::null_mut(), Ordering::Relaxed);
        self.taker_sent.store(false, Ordering::Relaxed);
        self.inherited.store(0, Ordering::Relaxed);
        let mut heap = self.timers.lock();
        // SAFETY: the caller's promise.
        unsafe { heap.forget() };
        self.publish_next(&heap);
    }

    fn publish_next(&self, heap: &TimerHeap) {
        // Release: pairs with the Acquire reads of `next_when` by idle Ms.
        self.next_when.store(heap.peek_when().unwrap_or(NEVER), Ordering::Release);
    }
}
