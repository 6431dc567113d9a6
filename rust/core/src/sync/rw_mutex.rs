//! A reader/writer mutex: a waiting writer keeps new readers out, and its unlock lets all waiting readers in before the
//! next writer, so that neither side starves. Not owned by a goroutine; a reader that reads again while a writer waits
//! deadlocks, as in Go.
//!
//! Invariants: a writer has it, or readers, or nobody; readers wait only while a writer has it or waits for it.

use super::{Claimed, Misuse, wait_in};
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use crate::sched::Runtime;

struct State {
    readers: u64,
    writer: bool,
    waiting_readers: WaitQueue,
    waiting_writers: WaitQueue,
}

/// See the module's text.
pub struct RwMutex {
    state: ShortLock<State>,
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
            state: ShortLock::new(State {
                readers: 0,
                writer: false,
                waiting_readers: WaitQueue::new(),
                waiting_writers: WaitQueue::new(),
            }),
        }
    }

    /// Locks for writing; parks.
    pub fn lock(&self, rt: &'static Runtime, until: impl Into<Until>) -> Outcome {
        let until = until.into();
        if self.try_lock() {
            return Outcome::Delivered;
        }
        let enter = |state: &mut State, _: &mut Wait| state.enter_writer();
        let outcome = wait_in(rt, &self.state, 0, Reason::RwMutexWrite, until, enter, |s| &mut s.waiting_writers);
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
    pub fn rlock(&self, rt: &'static Runtime, until: impl Into<Until>) -> Outcome {
        let until = until.into();
        if self.try_rlock() {
            return Outcome::Delivered;
        }
        let enter = |state: &mut State, _: &mut Wait| state.enter_reader();
        wait_in(rt, &self.state, 0, Reason::RwMutexRead, until, enter, |s| &mut s.waiting_readers)
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
        let mut claimed = Claimed::new();
        {
            let mut state = self.state.lock();
            if !state.writer {
                return Err(Misuse("sync: Unlock of unlocked RWMutex"));
            }
            state.writer = false;
            state.let_readers_in(&mut claimed);
            state.let_writer_in(&mut claimed);
        }
        // SAFETY: the caller has the host attached, as for every call here, and the lock is free again.
        unsafe { claimed.ready_at_lock(&self.state, Reason::RwMutexWrite) };
        Ok(())
    }

    /// Unlocks for reading.
    ///
    /// # Errors
    /// `sync: RUnlock of unlocked RWMutex`.
    pub fn runlock(&self) -> Result<(), Misuse> {
        let mut claimed = Claimed::new();
        {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(Misuse("sync: RUnlock of unlocked RWMutex"));
            }
            state.readers -= 1;
            state.let_writer_in(&mut claimed);
        }
        // SAFETY: as in `unlock`.
        unsafe { claimed.ready_at_lock(&self.state, Reason::RwMutexRead) };
        Ok(())
    }

    /// Calls `f` with each waiter.
    pub fn for_each_waiter(&self, mut f: impl FnMut(&Node)) {
        let state = self.state.lock();
        state.waiting_readers.for_each(&mut f);
        state.waiting_writers.for_each(f);
    }

    /// Whether a writer or a reader has it.
    pub fn is_locked(&self) -> bool {
        let state = self.state.lock();
        state.writer || state.readers != 0
    }

    /// After a writer gave up: the readers that waited only for it go on.
    fn admit_readers(&self) {
        let mut claimed = Claimed::new();
        {
            let mut state = self.state.lock();
            if !state.writer && state.waiting_writers.is_empty() {
                state.let_readers_in(&mut claimed);
            }
        }
        // SAFETY: as in `unlock`. It is the caller who kept them out, by waiting in front of them.
        unsafe { claimed.ready_at_lock(&self.state, Reason::RwMutexWrite) };
    }
}

impl State {
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

    fn let_readers_in(&mut self, claimed: &mut Claimed) {
        while claimed.take_from(&mut self.waiting_readers) {
            self.readers += 1;
        }
    }

    fn let_writer_in(&mut self, claimed: &mut Claimed) {
        if self.readers == 0 {
            self.writer = claimed.take_from(&mut self.waiting_writers);
        }
    }
}
