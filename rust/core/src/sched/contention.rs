//! Who waits for whom, and for how long: what block and mutex profiles are made of, by the rules of Go's runtime/mprof.go.
//!
//! A wait is charged to who waited, once that one goes on: from the park to when somebody readied it. A lock is charged to who
//! unlocks it: with all that the waiters of the lock have waited since its last unlock that woke one. Each waiter's time is in
//! one of those sums, as in Go, which takes the mean of the first and the last waiter for that of all.
//!
//! While neither profile is on nothing is kept: `block` reads a word of requests where it would else read whether the runtime
//! stops, `enqueue` and an unlock that wakes somebody look at a bit of what they have read.

use super::runtime::{REQUEST_WAITS, Runtime};
use crate::goroutine::Goroutine;
use crate::goroutine::waiter::{Node, Reason, Wait, Who};
use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sys::clock;
use std::collections::HashMap;
use std::ptr;
use std::sync::OnceLock;

/// Which profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What goroutines wait for.
    Block = 0,
    /// Who holds locks that others wait for.
    Mutex = 1,
}

/// One event of a profile, chosen by its rate.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// The profile it is for.
    pub profile: Profile,
    /// What was waited for; of a mutex profile, how it was locked by who unlocks it.
    pub reason: Reason,
    /// How long.
    pub ns: u64,
    /// The rate of the profile.
    pub rate: u64,
}

impl Delay {
    /// How many events it stands for, and how long those were together, without the bias of the choice.
    pub fn weight(&self) -> (f64, u64) {
        match self.profile {
            Profile::Block if self.ns < self.rate => (self.rate as f64 / self.ns as f64, self.rate),
            Profile::Block => (1.0, self.ns),
            Profile::Mutex => (self.rate as f64, self.rate.saturating_mul(self.ns)),
        }
    }
}

/// What a host notes of an event, of whoever calls. Host attached; neither parks nor runs code of the host.
pub type NoteDelay = unsafe fn(Delay);

/// What those who wait for one lock have waited.
#[derive(Default)]
struct Waiters {
    count: u64,
    /// Up to when `sum_ns` tells.
    until_ns: u64,
    /// Since the last unlock that was charged.
    sum_ns: u64,
}

impl Waiters {
    fn advance(&mut self, now_ns: u64) {
        self.sum_ns = self.sum_ns.saturating_add(self.count.saturating_mul(now_ns.saturating_sub(self.until_ns)));
        self.until_ns = now_ns;
    }
}

/// What is known of contention.
#[derive(Default)]
pub struct Contention {
    /// Waits shorter than that are chosen in proportion to their length, ns; 0: no block profile.
    block_ns: AtomicU64,
    /// One of so many unlocks that woke somebody is chosen; 0: no mutex profile.
    mutex: AtomicU64,
    /// By the addresses of locks. Touched with the host attached.
    locks: Mutex<HashMap<usize, Waiters>>,
    /// The host's part.
    pub note: OnceLock<NoteDelay>,
}

impl Contention {
    /// The rates of the block profile, ns, and of the mutex profile.
    pub fn rates(&self) -> (u64, u64) {
        (self.block_ns.load(Ordering::Relaxed), self.mutex.load(Ordering::Relaxed)) // settings: a late reader is none too late
    }

    /// Whether nobody is known to wait for any lock.
    #[cfg(all(test, not(model)))]
    pub(super) fn knows_nobody(&self) -> bool {
        self.with_locks(|locks| locks.is_empty())
    }

    /// In a forked child nobody waits.
    pub(super) fn forget(&self) {
        self.with_locks(HashMap::clear);
    }

    fn with_locks<R>(&self, f: impl FnOnce(&mut HashMap<usize, Waiters>) -> R) -> R {
        f(&mut self.locks.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// One more waits for the lock at `lock`; the time, 0 when memory is refused.
    pub(super) fn enter(&self, lock: usize) -> u64 {
        let now_ns = clock::now_ns();
        self.with_locks(|locks| {
            if locks.try_reserve(1).is_err() {
                return 0;
            }
            let waiters = locks.entry(lock).or_default();
            waiters.advance(now_ns);
            waiters.count += 1;
            now_ns
        })
    }

    /// So many do not any more. Gives what is to be charged to who let them go.
    pub(super) fn leave(&self, lock: usize, count: u64) -> u64 {
        self.with_locks(|locks| {
            let Some(waiters) = locks.get_mut(&lock) else { return 0 };
            waiters.advance(clock::now_ns());
            waiters.count = waiters.count.saturating_sub(count);
            let sum_ns = std::mem::take(&mut waiters.sum_ns);
            if waiters.count == 0 {
                locks.remove(&lock);
            }
            sum_ns
        })
    }

    /// One gave up: what it has waited stays with the lock, as long as others wait.
    #[cold]
    #[inline(never)]
    pub(super) fn give_up(&self, lock: usize) {
        self.with_locks(|locks| {
            let Some(waiters) = locks.get_mut(&lock) else { return };
            waiters.advance(clock::now_ns());
            waiters.count = waiters.count.saturating_sub(1);
            if waiters.count == 0 {
                locks.remove(&lock);
            }
        });
    }
}

/// Whether a block profile counts such waits: those for other goroutines, as in Go.
fn is_for_others(reason: Reason) -> bool {
    use Reason::*;
    matches!(
        reason,
        ChanReceive
            | ChanSend
            | Select
            | Mutex
            | RwMutexRead
            | RwMutexWrite
            | WaitGroup
            | Cond
            | Semaphore
            | Join
            | Lock
    )
}

/// Whether a block profile of this rate has such a wait: the shorter, the less likely.
pub(super) fn is_chosen(ns: u64, rate: u64, random: u64) -> bool {
    rate != 0 && (ns >= rate || random % rate < ns)
}

/// Microseconds, for `Wait::word`; never 0.
fn stamp(now_ns: u64) -> u32 {
    (now_ns / 1000) as u32 | 1
}

impl Runtime {
    /// Sets the rates that are given, and gives those before. Host attached.
    pub fn set_contention_rates(&self, block_ns: Option<u64>, mutex: Option<u64>) -> (u64, u64) {
        let before = self.contention.rates();
        if let Some(rate) = block_ns {
            self.contention.block_ns.store(rate, Ordering::Relaxed); // as in `rates`
        }
        if let Some(rate) = mutex {
            self.contention.mutex.store(rate, Ordering::Relaxed);
        }
        if self.contention.rates() == (0, 0) {
            self.requests.fetch_and(!REQUEST_WAITS, Ordering::Relaxed); // under the host's lock, as who looks
        } else {
            self.requests.fetch_or(REQUEST_WAITS, Ordering::Relaxed);
        }
        before
    }

    #[inline]
    fn looks_at_waits(&self) -> bool {
        self.requests.load(Ordering::Relaxed) & REQUEST_WAITS != 0 // as above
    }

    /// A wait is about to begin: the time, or 0 where it is not looked at.
    #[inline]
    pub(super) fn begin_wait(&self, reason: Reason) -> u64 {
        let is_seen = self.looks_at_waits() && self.contention.rates().0 != 0 && is_for_others(reason);
        if is_seen { clock::now_ns() } else { 0 }
    }

    /// It is over, and its owner runs. The wait is still alive.
    ///
    /// # Safety
    /// By who waited, host attached; no lock is held.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn end_wait_begun(&self, begun_ns: u64, reason: Reason, wait: &Wait) {
        let now_ns = clock::now_ns();
        // A thread's word says something else, and is not asked: it goes on at once.
        let readied = if matches!(wait.who, Who::Goroutine(_)) {
            wait.word.load(Ordering::Relaxed) // written by who readied it, whom it runs behind
        } else {
            0
        };
        let late_ns = if readied == 0 { 0 } else { u64::from(stamp(now_ns).wrapping_sub(readied)) * 1000 };
        let ns = now_ns.saturating_sub(begun_ns).saturating_sub(late_ns).max(1);
        let rate = self.contention.rates().0;
        if is_chosen(ns, rate, self.random()) {
            // SAFETY: the caller's promise.
            unsafe { self.note_delay(Delay { profile: Profile::Block, reason, ns, rate }) };
        }
    }

    /// `g`, which waits, was made runnable: the rest of its time is not its waiting.
    ///
    /// # Safety
    /// The caller owns `g`.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn note_readied(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise; the wait is alive while the pointer is set, and `g` clears it when it runs.
        unsafe {
            if self.contention.rates().0 == 0 {
                return;
            }
            if let Some(wait) = (*g).wait.load(Ordering::Acquire).as_ref() {
                wait.word.store(stamp(clock::now_ns()), Ordering::Relaxed); // published with `g` itself
            }
        }
    }

    unsafe fn note_delay(&self, delay: Delay) {
        if let Some(note) = self.contention.note.get() {
            // SAFETY: the promise of both callers.
            unsafe { note(delay) };
        }
    }

    /// Whoever stands at `node` is about to wait for the lock at `lock`; `leave_lock` follows, or an unlock that finds it.
    #[inline]
    pub(crate) fn enter_lock(&'static self, lock: usize, node: &mut Node) {
        if self.looks_at_waits() {
            self.enter_lock_seen(lock, node);
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_lock_seen(&'static self, lock: usize, node: &mut Node) {
        if self.contention.rates().1 != 0 {
            node.case = self.contention.enter(lock) as usize;
            node.slot = ptr::from_ref(self).cast_mut().cast();
        }
    }

    /// It does not wait for it any more, and nobody let it go.
    #[inline]
    pub(crate) fn leave_lock(&self, lock: usize, node: &mut Node) {
        if node.case != 0 {
            node.case = 0;
            self.contention.give_up(lock);
        }
    }
}

/// Those who were let go by one unlock.
#[derive(Default)]
pub(crate) struct LetGo {
    rt: Option<&'static Runtime>,
    count: u64,
}

impl LetGo {
    /// `node` is one of them.
    ///
    /// # Safety
    /// It was claimed, and is not readied yet.
    #[inline]
    pub(crate) unsafe fn add(&mut self, node: *mut Node) {
        // SAFETY: the caller's promise; who entered has left its runtime there, and those are never freed.
        unsafe {
            if (*node).case != 0 {
                (*node).case = 0;
                self.rt = (*node).slot.cast::<Runtime>().as_ref();
                self.count += 1;
            }
        }
    }

    /// Charges the caller, who has unlocked the lock at `lock`.
    ///
    /// # Safety
    /// Host attached; no lock is held.
    #[inline]
    pub(crate) unsafe fn charge(self, lock: usize, reason: Reason) {
        if let Some(rt) = self.rt {
            // SAFETY: the caller's promise.
            unsafe { charge(rt, lock, self.count, reason) };
        }
    }
}

#[cold]
#[inline(never)]
unsafe fn charge(rt: &'static Runtime, lock: usize, count: u64, reason: Reason) {
    let ns = rt.contention.leave(lock, count);
    let rate = rt.contention.rates().1;
    if rate != 0 && rt.random().is_multiple_of(rate) {
        // SAFETY: the caller's promise.
        unsafe { rt.note_delay(Delay { profile: Profile::Mutex, reason, ns, rate }) };
    }
}
