//! Layer 9: what Go's sync package has, on waits; all FIFO.
//!
//! Every type is one lock around a few words and a wait queue, so that misuse is told, never undefined.

use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::{self, Runtime};
use std::ptr;

/// Misuse, with Go's words.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Misuse(pub &'static str);

/// Blocks in `queue`-like state unless `enter` says it need not. The shared shape of every wait in this folder.
fn wait_in<S>(
    rt: &'static Runtime,
    lock: &ShortLock<S>,
    amount: u64,
    reason: Reason,
    deadline_ns: Option<u64>,
    enter: impl FnOnce(&mut S) -> bool,
    queue: impl Fn(&mut S) -> &mut WaitQueue,
) -> Outcome {
    let mut wait = Wait::new();
    let mut node = Node::new(&raw mut wait, ptr::null_mut());
    node.amount = amount;
    sched::announce(&mut wait);
    let mut state = lock.lock();
    if enter(&mut state) {
        drop(state);
        sched::retract(&wait);
        return Outcome::Delivered;
    }
    // SAFETY: the node stays on this stack until it is unlinked, by the claimer or below.
    unsafe { queue(&mut state).push_back(&raw mut node) };
    drop(state);
    // SAFETY: announced above; no lock is held.
    let outcome = unsafe { sched::block(rt, &mut wait, reason, deadline_ns) };
    if outcome != Outcome::Delivered {
        // SAFETY: the node is live, and linked here if anywhere.
        unsafe { queue(&mut lock.lock()).remove(&raw mut node) };
    }
    outcome
}

fn ready_all(claimed: Vec<*mut Wait>) {
    for wait in claimed {
        // SAFETY: each was claimed by the caller, once.
        unsafe { sched::ready_wait(&*wait) };
    }
}

struct SemaphoreState {
    free: u64,
    waiters: WaitQueue,
}

/// A weighted semaphore; waiters are served in order, none overtakes (x/sync semaphore.Weighted).
pub struct Semaphore {
    size: u64,
    state: ShortLock<SemaphoreState>,
}

impl Semaphore {
    /// `size` units, all free.
    pub fn new(size: u64) -> Self {
        Self { size, state: ShortLock::new(SemaphoreState { free: size, waiters: WaitQueue::new() }) }
    }

    /// Takes `n` units; parks until they are free. More than the size waits until the deadline, or for ever.
    pub fn acquire(&self, rt: &'static Runtime, n: u64, deadline_ns: Option<u64>) -> Outcome {
        if self.try_acquire(n) {
            return Outcome::Delivered;
        }
        let enter = |s: &mut SemaphoreState| take_units(s, n);
        let outcome = wait_in(rt, &self.state, n, Reason::Semaphore, deadline_ns, enter, |s| &mut s.waiters);
        if outcome != Outcome::Delivered {
            // A waiter that gave up may have stood in front of smaller ones.
            self.serve();
        }
        outcome
    }

    /// Takes `n` units if they are free and nobody waits.
    pub fn try_acquire(&self, n: u64) -> bool {
        take_units(&mut self.state.lock(), n)
    }

    /// Gives `n` units back.
    ///
    /// # Errors
    /// `semaphore: released more than held`.
    pub fn release(&self, n: u64) -> Result<(), Misuse> {
        {
            let mut state = self.state.lock();
            if state.free + n > self.size {
                return Err(Misuse("semaphore: released more than held"));
            }
            state.free += n;
        }
        self.serve();
        Ok(())
    }

    fn serve(&self) {
        let mut claimed = Vec::new();
        {
            let mut state = self.state.lock();
            loop {
                let node = state.waiters.front();
                // SAFETY: a linked node is live.
                if node.is_null() || unsafe { (*node).amount } > state.free.min(self.size) {
                    break;
                }
                // SAFETY: as above; removed before its owner can go.
                unsafe {
                    state.waiters.remove(node);
                    if (*(*node).wait).claim(Outcome::Delivered) {
                        state.free -= (*node).amount;
                        claimed.push((*node).wait);
                    }
                }
            }
        }
        ready_all(claimed);
    }
}

fn take_units(state: &mut SemaphoreState, n: u64) -> bool {
    let ok = state.free >= n && state.waiters.is_empty();
    if ok {
        state.free -= n;
    }
    ok
}

struct MutexState {
    locked: bool,
    waiters: WaitQueue,
}

/// A mutex, not owned by a goroutine: another may unlock it. Handed to the first waiter when it is contended, which is
/// Go's starvation mode always: with one P nothing is gained by letting the runner barge in.
pub struct Mutex {
    state: ShortLock<MutexState>,
}

impl Default for Mutex {
    fn default() -> Self {
        Self::new()
    }
}

impl Mutex {
    /// Unlocked.
    pub fn new() -> Self {
        Self { state: ShortLock::new(MutexState { locked: false, waiters: WaitQueue::new() }) }
    }

    /// Locks; parks while another has it.
    pub fn lock(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Outcome {
        if self.try_lock() {
            return Outcome::Delivered;
        }
        wait_in(
            rt,
            &self.state,
            0,
            Reason::Mutex,
            deadline_ns,
            |s| !std::mem::replace(&mut s.locked, true),
            |s| &mut s.waiters,
        )
    }

    /// Locks if nobody has it.
    pub fn try_lock(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().locked, true)
    }

    /// Unlocks.
    ///
    /// # Errors
    /// `sync: unlock of unlocked mutex`.
    pub fn unlock(&self) -> Result<(), Misuse> {
        let node = {
            let mut state = self.state.lock();
            if !state.locked {
                return Err(Misuse("sync: unlock of unlocked mutex"));
            }
            let node = state.waiters.claim_front(Outcome::Delivered);
            state.locked = !node.is_null();
            node
        };
        if !node.is_null() {
            // SAFETY: claimed above; alive until readied.
            unsafe { sched::ready_wait(&*(*node).wait) };
        }
        Ok(())
    }

    /// Whether somebody has it.
    pub fn is_locked(&self) -> bool {
        self.state.lock().locked
    }
}

struct RwState {
    readers: u64,
    writer: bool,
    waiting_readers: WaitQueue,
    waiting_writers: WaitQueue,
}

/// A reader/writer mutex: a waiting writer keeps new readers out; its unlock lets all waiting readers in first.
pub struct RwMutex {
    state: ShortLock<RwState>,
}

impl Default for RwMutex {
    fn default() -> Self {
        Self::new()
    }
}

impl RwMutex {
    /// Unlocked.
    pub fn new() -> Self {
        Self {
            state: ShortLock::new(RwState {
                readers: 0,
                writer: false,
                waiting_readers: WaitQueue::new(),
                waiting_writers: WaitQueue::new(),
            }),
        }
    }

    /// Locks for writing; parks.
    pub fn lock(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Outcome {
        if self.try_lock() {
            return Outcome::Delivered;
        }
        let outcome = wait_in(rt, &self.state, 0, Reason::RwMutexWrite, deadline_ns, RwState::enter_writer, |s| {
            &mut s.waiting_writers
        });
        if outcome != Outcome::Delivered {
            self.admit_readers(); // they stood behind this writer
        }
        outcome
    }

    /// Locks for writing if nobody has it.
    pub fn try_lock(&self) -> bool {
        self.state.lock().enter_writer()
    }

    /// Locks for reading; parks while a writer has it or waits for it.
    pub fn rlock(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Outcome {
        if self.try_rlock() {
            return Outcome::Delivered;
        }
        wait_in(rt, &self.state, 0, Reason::RwMutexRead, deadline_ns, RwState::enter_reader, |s| &mut s.waiting_readers)
    }

    /// Locks for reading if no writer has it or waits.
    pub fn try_rlock(&self) -> bool {
        self.state.lock().enter_reader()
    }

    /// Unlocks for writing.
    ///
    /// # Errors
    /// `sync: Unlock of unlocked RWMutex`.
    pub fn unlock(&self) -> Result<(), Misuse> {
        let mut claimed = Vec::new();
        {
            let mut state = self.state.lock();
            if !state.writer {
                return Err(Misuse("sync: Unlock of unlocked RWMutex"));
            }
            state.writer = false;
            state.let_readers_in(&mut claimed);
            if state.readers == 0 {
                state.let_writer_in(&mut claimed);
            }
        }
        ready_all(claimed);
        Ok(())
    }

    /// Unlocks for reading.
    ///
    /// # Errors
    /// `sync: RUnlock of unlocked RWMutex`.
    pub fn runlock(&self) -> Result<(), Misuse> {
        let mut claimed = Vec::new();
        {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(Misuse("sync: RUnlock of unlocked RWMutex"));
            }
            state.readers -= 1;
            if state.readers == 0 {
                state.let_writer_in(&mut claimed);
            }
        }
        ready_all(claimed);
        Ok(())
    }

    fn admit_readers(&self) {
        let mut claimed = Vec::new();
        {
            let mut state = self.state.lock();
            if !state.writer && state.waiting_writers.is_empty() {
                state.let_readers_in(&mut claimed);
            }
        }
        ready_all(claimed);
    }
}

impl RwState {
    fn enter_writer(&mut self) -> bool {
        let ok = !self.writer && self.readers == 0;
        self.writer |= ok;
        ok
    }

    fn enter_reader(&mut self) -> bool {
        let ok = !self.writer && self.waiting_writers.is_empty();
        self.readers += u64::from(ok);
        ok
    }

    fn let_readers_in(&mut self, claimed: &mut Vec<*mut Wait>) {
        loop {
            let node = self.waiting_readers.claim_front(Outcome::Delivered);
            if node.is_null() {
                return;
            }
            self.readers += 1;
            // SAFETY: claimed above; alive until readied.
            claimed.push(unsafe { (*node).wait });
        }
    }

    fn let_writer_in(&mut self, claimed: &mut Vec<*mut Wait>) {
        let node = self.waiting_writers.claim_front(Outcome::Delivered);
        if !node.is_null() {
            self.writer = true;
            // SAFETY: claimed above; alive until readied.
            claimed.push(unsafe { (*node).wait });
        }
    }
}

struct GroupState {
    count: i64,
    waiters: WaitQueue,
}

/// A counter to wait for.
pub struct WaitGroup {
    state: ShortLock<GroupState>,
}

impl Default for WaitGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitGroup {
    /// Zero.
    pub fn new() -> Self {
        Self { state: ShortLock::new(GroupState { count: 0, waiters: WaitQueue::new() }) }
    }

    /// Adds `n`, which may be negative; at zero all waiters go on.
    ///
    /// # Errors
    /// `sync: negative WaitGroup counter`; `…Add called concurrently with Wait` cannot happen under one lock.
    pub fn add(&self, n: i64) -> Result<(), Misuse> {
        let mut claimed = Vec::new();
        {
            let mut state = self.state.lock();
            state.count += n;
            if state.count < 0 {
                return Err(Misuse("sync: negative WaitGroup counter"));
            }
            if state.count == 0 {
                drain(&mut state.waiters, &mut claimed);
            }
        }
        ready_all(claimed);
        Ok(())
    }

    /// Parks until the counter is zero.
    pub fn wait(&self, rt: &'static Runtime, deadline_ns: Option<u64>) -> Outcome {
        wait_in(rt, &self.state, 0, Reason::WaitGroup, deadline_ns, |s| s.count == 0, |s| &mut s.waiters)
    }

    /// The counter.
    pub fn count(&self) -> i64 {
        self.state.lock().count
    }
}

fn drain(queue: &mut WaitQueue, claimed: &mut Vec<*mut Wait>) {
    loop {
        let node = queue.claim_front(Outcome::Delivered);
        if node.is_null() {
            return;
        }
        // SAFETY: claimed above; alive until readied.
        claimed.push(unsafe { (*node).wait });
    }
}

/// A list of waiters to signal: Go's notifyList, the heart of Cond.
pub struct NotifyList {
    waiters: ShortLock<WaitQueue>,
}

impl Default for NotifyList {
    fn default() -> Self {
        Self::new()
    }
}

impl NotifyList {
    /// Nobody waits.
    pub fn new() -> Self {
        Self { waiters: ShortLock::new(WaitQueue::new()) }
    }

    /// Joins the list, then calls `unlock`, then parks: a signal after `unlock` is not lost.
    pub fn wait(
        &self,
        rt: &'static Runtime,
        reason: Reason,
        deadline_ns: Option<u64>,
        unlock: impl FnOnce(),
    ) -> Outcome {
        let mut wait = Wait::new();
        let mut node = Node::new(&raw mut wait, ptr::null_mut());
        sched::announce(&mut wait);
        // SAFETY: the node stays on this stack until it is unlinked, by the claimer or below.
        unsafe { self.waiters.lock().push_back(&raw mut node) };
        unlock();
        // SAFETY: announced above; no lock is held.
        let outcome = unsafe { sched::block(rt, &mut wait, reason, deadline_ns) };
        if outcome != Outcome::Delivered {
            // SAFETY: the node is live, and linked here if anywhere.
            unsafe { self.waiters.lock().remove(&raw mut node) };
        }
        outcome
    }

    /// Wakes the one that waits longest; returns whether there was one.
    pub fn signal(&self) -> bool {
        let node = self.waiters.lock().claim_front(Outcome::Delivered);
        if node.is_null() {
            return false;
        }
        // SAFETY: claimed above; alive until readied.
        unsafe { sched::ready_wait(&*(*node).wait) };
        true
    }

    /// Wakes all.
    pub fn broadcast(&self) {
        let mut claimed = Vec::new();
        drain(&mut self.waiters.lock(), &mut claimed);
        ready_all(claimed);
    }
}
