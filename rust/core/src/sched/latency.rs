//! How long it took: from being ready to running, for the host's lock, in passes of the host's collector, stopped by us.
//!
//! Of those that become ready one in `EVERY` is timed, Go's way (it takes one in eight; runtime/proc.go, casgstatus): two looks
//! at the clock for each would be as much as a switch costs. The descriptor keeps since when, in steps of 64 ns, the least that
//! the histogram tells apart: who waits for more than four and a half minutes is counted with what is over.
//! Each P has histograms of its own, which are added up when somebody asks.

#![cfg_attr(model, allow(dead_code, reason = "a model has no boundary, which tells of waits for the host's lock"))]

use super::machine::Machine;
use super::processor::Processor;
use super::runtime::Runtime;
use crate::event;
use crate::goroutine::Goroutine;
use crate::primitive::histogram::{TimeHistogram, Times};
use crate::sys::clock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering}; // counts that order nothing: no model need step through them

/// A prime: it does not fall in step with a program's rounds.
const EVERY: u32 = 53;
/// Of the waits for a lock of `gort.sync` so many count for one that is timed.
const LOCKS_EVERY: u32 = 32;
/// `Goroutine::ready_at` is in steps of so many ns, as a power of two.
const STEP_BIT: u32 = 6;
/// Who waits for the host's lock asks again at once when its time is up: what comes later is another wait.
const SAME_WAIT_NS: u64 = 100_000;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// From being ready to running: woken, new, or after others had their turn.
    Ready,
    /// The same of those only that were woken.
    WakeUp,
    /// A thread of the runtime's for the host's lock, where somebody else had it.
    HostLock,
    /// A pass of the host's collector.
    Collector,
    /// Everything stopped for something else than the collector.
    Stopped,
}

/// A P's part.
#[derive(Default)]
pub(super) struct OfProcessor {
    /// How many that become ready here are not timed before the next that is.
    turn: AtomicU32,
    ready: TimeHistogram,
    wake_up: TimeHistogram,
    host_lock: TimeHistogram,
}

/// A wait for the host's lock, in parts. Its M's thread touches it, also where that M is borrowed further out.
#[derive(Default)]
pub(super) struct LockWait {
    /// 0: there is none.
    began_ns: AtomicU64,
    last_ns: AtomicU64,
    /// The longest that a goroutine had here and a trace was not told of, and when it was over, ns; 0: there is none.
    untold_ns: AtomicU64,
    untold_until_ns: AtomicU64,
}

impl LockWait {
    /// A goroutine has waited, for a trace that is told of it when this thread notes something next: now it has not got the lock.
    #[cold]
    fn keep(&self, ns: u64, until_ns: u64) {
        if ns >= self.untold_ns.load(Ordering::Relaxed) {
            self.untold_ns.store(ns.max(1), Ordering::Relaxed);
            self.untold_until_ns.store(until_ns, Ordering::Relaxed);
        }
    }

    /// Whether there is one to be told.
    #[inline(always)]
    pub(super) fn is_untold(&self) -> bool {
        self.untold_ns.load(Ordering::Relaxed) != 0
    }

    /// For how long, and until when; from here on it is told.
    pub(super) fn take_untold(&self) -> (u64, u64) {
        let ns = self.untold_ns.load(Ordering::Relaxed);
        self.untold_ns.store(0, Ordering::Relaxed);
        (ns, self.untold_until_ns.load(Ordering::Relaxed))
    }
}

/// The rest.
pub struct Latencies {
    collector: TimeHistogram,
    stopped: TimeHistogram,
    lock_turn: AtomicU32,
    locks_ns: AtomicU64,
    began_cpu_ns: u64,
    /// Since when there are as many Ps as now, and what all had until then, ns. Written under the lock of who changes that.
    changed_ns: AtomicU64,
    available_ns: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            collector: TimeHistogram::new(),
            stopped: TimeHistogram::new(),
            lock_turn: AtomicU32::new(0),
            locks_ns: AtomicU64::new(0),
            began_cpu_ns: clock::process_cpu_ns(),
            changed_ns: AtomicU64::new(clock::now_ns()),
            available_ns: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    /// There were `count` Ps until now.
    pub(super) fn note_processors(&self, count: usize) {
        let now = clock::now_ns();
        // Relaxed: one writer; a reader in between is wrong by what it just missed.
        let since = self.changed_ns.swap(now, Ordering::Relaxed);
        self.available_ns.fetch_add(now.saturating_sub(since) * count as u64, Ordering::Relaxed);
    }
}

fn steps(ns: u64) -> u32 {
    (ns >> STEP_BIT) as u32
}

impl OfProcessor {
    /// `g` is about to be queued, on this P or by who has it: times it if it is its turn.
    ///
    /// # Safety
    /// `g` is the caller's, and so is the P or, under an exclusive host, its lock.
    #[inline(always)]
    pub(super) unsafe fn note_ready(&self, g: *mut Goroutine) {
        // Relaxed: one owner; where there are more they time a few more or less.
        let (turn, is_due) = self.turn.load(Ordering::Relaxed).overflowing_sub(1);
        self.turn.store(turn, Ordering::Relaxed);
        if is_due {
            // SAFETY: the caller's promise.
            unsafe { self.stamp(g) }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn stamp(&self, g: *mut Goroutine) {
        self.turn.store(EVERY - 1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe {
            if (*g).ready_at == 0 {
                (*g).ready_at = steps(clock::now_ns()).max(1);
            }
        }
    }
}

impl Machine {
    /// `g`, which is timed, runs.
    ///
    /// # Safety
    /// It is this M's.
    #[cold]
    pub(super) unsafe fn note_runs(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise.
        unsafe {
            let since = std::mem::take(&mut (*g).ready_at);
            let ns = i64::from(steps(clock::now_ns()).wrapping_sub(since)) << STEP_BIT;
            let all = &self.processor_or_first().latency;
            all.ready.record(ns);
            // One that parked finds its wait where it left it, and takes it away when it runs.
            if !(*g).wait.load(crate::primitive::atomic::Ordering::Relaxed).is_null() {
                all.wake_up.record(ns);
            }
        }
    }

    fn processor_or_first(&self) -> &Processor {
        // SAFETY: Ps are never freed.
        unsafe { self.p().as_ref() }.unwrap_or(&self.rt.processors[0])
    }

    /// Its thread has waited for the host's lock, since `began_ns`; it goes on to wait if its time was up.
    pub(crate) fn note_lock_wait(&self, began_ns: u64, is_time_up: bool) {
        let now = clock::now_ns();
        let wait = &self.lock_wait;
        let (since_ns, last_ns) = (wait.began_ns.load(Ordering::Relaxed), wait.last_ns.load(Ordering::Relaxed));
        let is_same = since_ns != 0 && began_ns.saturating_sub(last_ns) < SAME_WAIT_NS;
        let all = &self.processor_or_first().latency.host_lock;
        if since_ns != 0 && !is_same {
            all.record(last_ns.saturating_sub(since_ns) as i64); // the lock was free when its time was up
        }
        let since_ns = if is_same { since_ns } else { began_ns };
        if event::is_on() && !self.in_scheduler.load(Ordering::Relaxed) {
            wait.keep(now.saturating_sub(since_ns), now);
        }
        if !is_time_up {
            all.record(now.saturating_sub(since_ns) as i64);
        }
        wait.began_ns.store(if is_time_up { since_ns } else { 0 }, Ordering::Relaxed);
        wait.last_ns.store(now, Ordering::Relaxed);
    }
}

impl Runtime {
    /// All times of a kind so far, added to `sum`. Any thread.
    pub fn add_latencies(&self, kind: Latency, sum: &mut Times) {
        let of_all = |part: fn(&OfProcessor) -> &TimeHistogram, sum: &mut Times| {
            self.processors.iter().for_each(|p| part(&p.latency).add_to(sum));
        };
        match kind {
            Latency::Ready => of_all(|p| &p.ready, sum),
            Latency::WakeUp => of_all(|p| &p.wake_up, sum),
            Latency::HostLock => of_all(|p| &p.host_lock, sum),
            Latency::Collector => self.counters.latencies.collector.add_to(sum),
            Latency::Stopped => self.counters.latencies.stopped.add_to(sum),
        }
    }

    /// A pass of the host's collector is over.
    pub fn note_pass(&self, ns: u64) {
        self.counters.latencies.collector.record(ns as i64);
    }

    /// Everything was stopped since `began_ns`.
    pub fn note_stopped(&self, began_ns: u64) {
        self.counters.latencies.stopped.record(clock::now_ns().saturating_sub(began_ns) as i64);
    }

    /// The caller begins to wait for a lock: what `end_lock_wait` is to be given.
    #[inline]
    pub(crate) fn begin_lock_wait(&self) -> u64 {
        // Relaxed: two at a time take the same turn, which does no harm.
        let (turn, is_due) = self.counters.latencies.lock_turn.load(Ordering::Relaxed).overflowing_sub(1);
        self.counters.latencies.lock_turn.store(turn, Ordering::Relaxed);
        if is_due { self.begin_timed_lock_wait() } else { 0 }
    }

    #[cold]
    #[inline(never)]
    fn begin_timed_lock_wait(&self) -> u64 {
        self.counters.latencies.lock_turn.store(LOCKS_EVERY - 1, Ordering::Relaxed);
        clock::now_ns()
    }

    /// The wait is over.
    #[inline]
    pub(crate) fn end_lock_wait(&self, began_ns: u64) {
        if began_ns != 0 {
            self.end_timed_lock_wait(began_ns);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_timed_lock_wait(&self, began_ns: u64) {
        let ns = clock::now_ns().saturating_sub(began_ns) * u64::from(LOCKS_EVERY);
        self.counters.latencies.locks_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// How long goroutines and threads have waited for locks, as estimated from some of these waits, ns.
    pub fn lock_wait_ns(&self) -> u64 {
        self.counters.latencies.locks_ns.load(Ordering::Relaxed)
    }

    /// CPU time since the runtime began: what Ps could have had, and what the process used, ns.
    pub fn cpu_ns(&self) -> (u64, u64) {
        let all = &self.counters.latencies;
        let since = clock::now_ns().saturating_sub(all.changed_ns.load(Ordering::Relaxed));
        let available = all.available_ns.load(Ordering::Relaxed) + since * self.processors.in_use() as u64;
        (available, clock::process_cpu_ns().saturating_sub(all.began_cpu_ns))
    }
}
