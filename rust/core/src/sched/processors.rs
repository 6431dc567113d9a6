//! GOMAXPROCS: all Ps, how many of them may run goroutines, and changing that while the program runs.
//!
//! Ps are made when first wanted and never freed. Where Go stops the world to change their number, here each P beyond it is
//! given up by the M that holds it, at that M's next scheduling point: its queue goes into the global one. Its timers stay
//! in its heap, where their owners look for them, and whoever schedules fires them until there are none.

use super::machine::Machine;
use super::processor::{NEVER, Processor};
use super::runtime::{REQUEST_PROCESSORS, Runtime};
use super::traced::traced_caller;
use crate::event::{self, Kind};
use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicUsize, Ordering};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::ptr;

/// Most Ps (Go has no limit since 1.10; the memory is only touched for those that are made).
pub const MOST: usize = if cfg!(shuttle) { 8 } else { 1024 };

/// All Ps made so far; as a slice, those in use first.
pub struct Processors {
    slots: *mut MaybeUninit<Processor>,
    made: AtomicUsize,
    in_use: AtomicUsize,
    /// Held while their number changes: for how many waits each keeps room.
    changing: Mutex<usize>,
}

// SAFETY: a P may be used by any thread as its fields say; slots are written once, before `made` publishes them.
unsafe impl Send for Processors {}
// SAFETY: as above.
unsafe impl Sync for Processors {}

impl Processors {
    /// `count` Ps, 1 to `MOST`; `None`: memory is refused.
    pub(super) fn new(count: usize) -> Option<Self> {
        let mut room: Vec<MaybeUninit<Processor>> = Vec::new();
        room.try_reserve_exact(MOST).ok()?;
        let slots = ManuallyDrop::new(room).as_mut_ptr();
        let all = Self { slots, made: AtomicUsize::new(0), in_use: AtomicUsize::new(0), changing: Mutex::new(0) };
        all.in_use.store(all.make(count, 0), Ordering::Relaxed); // nobody else knows them yet
        (all.in_use() == count).then_some(all)
    }

    /// Makes those up to `count` that are not there yet, with room for `waits`; fewer where memory is refused. Returns how many
    /// of `count` there are. One caller at a time.
    fn make(&self, count: usize, waits: usize) -> usize {
        for id in self.made.load(Ordering::Relaxed)..count {
            let p = Processor::new(id);
            if !p.keep_room(waits) {
                return id;
            }
            // SAFETY: within the slots, which nobody sees before `made` says so.
            unsafe { self.slots.add(id).write(MaybeUninit::new(p)) };
            self.made.store(id + 1, Ordering::Release); // pairs with the Acquire in `deref`
        }
        count
    }

    /// Keeps room for the timers of `waits` on each. `false`: memory is refused.
    pub(super) fn keep_room(&self, waits: usize) -> bool {
        let mut kept = self.changing.lock().unwrap_or_else(|e| e.into_inner());
        *kept = waits.max(*kept);
        self.iter().all(|p| p.keep_room(waits))
    }

    /// How many may run goroutines: GOMAXPROCS.
    #[inline]
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed) // a count; what depends on it is under the idle lock
    }
}

/// A runtime whose start was refused: others are never freed.
impl Drop for Processors {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this room; so many are written, and nobody else's.
        unsafe {
            let made = self.made.load(Ordering::Relaxed);
            ptr::slice_from_raw_parts_mut(self.slots.cast::<Processor>(), made).drop_in_place();
            drop(Vec::from_raw_parts(self.slots, 0, MOST));
        }
    }
}

impl Deref for Processors {
    type Target = [Processor];

    #[inline]
    fn deref(&self) -> &[Processor] {
        // SAFETY: so many slots are written, and stay.
        unsafe { std::slice::from_raw_parts(self.slots.cast(), self.made.load(Ordering::Acquire)) }
    }
}

impl Runtime {
    /// Lets `count` Ps, 1 to `MOST`, run goroutines, or as many as there is memory for; returns how many it were.
    pub fn set_processors(&'static self, count: usize) -> usize {
        let all = &self.processors;
        let changing = all.changing.lock().unwrap_or_else(|e| e.into_inner());
        let count = all.make(count, *changing);
        let mut gone = Vec::new();
        let before = {
            let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
            let room = all.len() - idle.processors.len();
            if idle.processors.try_reserve(room).is_err() || gone.try_reserve(idle.processors.len()).is_err() {
                return all.in_use();
            }
            let before = all.in_use.swap(count, Ordering::Relaxed); // under the idle lock
            self.counters.latencies.note_processors(before);
            // SAFETY: Ps are never freed.
            let is_beyond = |p: &mut *const Processor| unsafe { (**p).id >= count };
            gone.extend(idle.processors.extract_if(.., is_beyond));
            for p in all.iter().take(count).skip(before).rev() {
                // Relaxed: who takes or gives a P does it under this lock.
                if p.machine.load(Ordering::Relaxed).is_null() {
                    idle.processors.push(p);
                }
            }
            self.idle_processors.store(idle.processors.len(), Ordering::SeqCst); // pairs with `wake_one`'s load
            before
        };
        for p in gone {
            // SAFETY: as above; it is in no list, so that nobody else gets it before `changing` is free.
            self.queue_to_all(unsafe { &*p });
        }
        if count < all.len() {
            self.requests.fetch_or(REQUEST_PROCESSORS, Ordering::AcqRel); // pairs with `serve_requests`
        }
        if event::is_on() {
            self.trace(Kind::Processors, 0, traced_caller(), count as u32);
        }
        for _ in before..count {
            if !self.has_work() {
                break;
            }
            self.wake_one(ptr::null_mut());
        }
        before
    }

    /// Moves what is queued on the caller's `p` into the global queue, behind what is there.
    pub(super) fn queue_to_all(&self, p: &Processor) {
        let mut batch = [ptr::null_mut(); 64];
        loop {
            let mut count = 0;
            while count < batch.len()
                && let Some((g, _)) = p.queue.pop()
            {
                batch[count] = g;
                count += 1;
            }
            if count == 0 {
                return;
            }
            self.inject.push_batch(&batch[..count]);
        }
    }

    /// Fires the timers of Ps beyond GOMAXPROCS. Asks for itself again while one of those has any, or an M. Host attached.
    #[cold]
    pub(super) fn serve_retired(&self) {
        let mut is_done = true;
        for p in self.processors.iter().skip(self.processors.in_use()) {
            // Before its timers: an M sets those of its goroutine and then gives the P up. Acquire: pairs with the Release of
            // that.
            is_done &= p.machine.load(Ordering::Acquire).is_null();
            // SAFETY: host attached, by the caller's promise.
            unsafe { self.run_timers(p) };
            is_done &= p.next_when.load(Ordering::Acquire) == NEVER;
        }
        if !is_done {
            self.requests.fetch_or(REQUEST_PROCESSORS, Ordering::AcqRel);
        }
    }
}

impl Machine {
    /// Gives the P up if it is one beyond GOMAXPROCS, its queue to all.
    ///
    /// # Safety
    /// On g0, host attached.
    pub(super) unsafe fn leave_retired_processor(&mut self) {
        // SAFETY: Ps are never freed; this one is the M's.
        unsafe {
            let Some(p) = self.p().as_ref() else { return };
            if p.id >= self.rt.processors.in_use() {
                self.processor.store(ptr::null_mut(), Ordering::Relaxed);
                self.rt.put_idle_processor(p);
            }
        }
    }
}
