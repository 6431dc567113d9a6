//! A mutex, not owned by a goroutine: another may unlock it.
//!
//! As Go's it has two modes. Normally an unlock frees it and wakes the first waiter, which competes with whoever runs; one
//! that loses stands at the front again. A waiter that loses after 1 ms of waiting switches to starvation mode, in which
//! an unlock hands the mutex to the first waiter; one that gets it so and has waited for less, or is the last, ends that.
//!
//! Competing pays where the one that unlocked locks again before the woken one has run: otherwise every operation costs
//! a switch once a queue has formed. It does not pay where the holder parks or yields inside, as then the woken one
//! finds it locked, and has parked a second time for nothing. Go cannot tell, and takes it for the first case. Here it is
//! counted how often others had the mutex between a waking and the loss: if hardly ever, the mutex is handed over for
//! some unlocks, twice as many at each loss of that kind in a row. Handing over is what starvation mode does, so whoever
//! waits is never worse off than Go has it.
//!
//! With waiters in starvation mode it is always locked, so that `try_lock` fails then. `woken` is of an epoch, as wait
//! queues are: in a forked child nobody is on its way.

use super::{Misuse, Standing, address_of};
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::{Node, Outcome, Reason, WaitQueue, epoch};
use crate::primitive::exclusive::ShortLock;
use crate::sched::contention::LetGo;
use crate::sched::{self, Runtime};
use crate::sys::clock;

/// Go's starvationThresholdNs.
const STARVES_AFTER_NS: u64 = 1_000_000;
/// So many others must have had the mutex before a loss, for competing to have paid.
const BARGES_THAT_PAY: u32 = 2;
/// At most so many unlocks hand it over because competing did not pay.
const MOST_HAND_OVERS: u32 = 64;

/// `Node::amount` of a waiter that was woken to compete, of one that has the mutex, and of one that has it in starvation mode.
const WOKEN: u64 = 0;
const HANDED: u64 = 1;
const HANDED_STARVING: u64 = 2;

struct State {
    locked: bool,
    starving: bool,
    /// The epoch in which a waiter was woken that has not competed yet; 0: none.
    woken: u32,
    /// How often others had it since then.
    barges: u32,
    /// So many unlocks hand it over, and so many the last such loss was worth.
    hand_overs: u32,
    last_hand_overs: u32,
    waiters: WaitQueue,
}

/// See the module's text.
pub struct Mutex {
    state: ShortLock<State>,
}

impl Default for Mutex {
    fn default() -> Self {
        Self::new()
    }
}

impl Mutex {
    /// Unlocked.
    pub fn new() -> Self {
        let waiters = WaitQueue::new();
        let (locked, starving, woken, barges, hand_overs, last_hand_overs) = (false, false, 0, 0, 0, 0);
        Self { state: ShortLock::new(State { locked, starving, woken, barges, hand_overs, last_hand_overs, waiters }) }
    }

    /// Locks; parks while another has it.
    #[inline(always)]
    pub fn lock(&self, rt: &'static Runtime, until: impl Into<Until>) -> Outcome {
        let until = until.into();
        if self.try_lock() {
            return Outcome::Delivered;
        }
        let (mut since_ns, mut was_woken) = (0, false);
        loop {
            match self.stand(rt, until, &mut since_ns, was_woken) {
                (Outcome::Delivered, WOKEN) => was_woken = true,
                (outcome, _) => return outcome,
            }
        }
    }

    /// Locks if nobody has it.
    #[inline]
    pub fn try_lock(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().locked, true)
    }

    /// Takes it if it is free, else waits once. How that ended, and in which way it was delivered.
    fn stand(&self, rt: &'static Runtime, until: Until, since_ns: &mut u64, was_woken: bool) -> (Outcome, u64) {
        // SAFETY: the place is this caller's to the end of the call. The node stays there until it is unlinked, by the claimer or below. No
        // lock is held over the park.
        sched::with_place(|place: *mut Standing| unsafe {
            let (wait, node) = Standing::begin(place, WOKEN);
            sched::announce(&mut *wait);
            rt.enter_lock(address_of(&self.state), &mut *node);
            let mut state = self.state.lock();
            if state.enter(since_ns, was_woken) {
                drop(state);
                rt.leave_lock(address_of(&self.state), &mut *node);
                sched::retract(&*wait);
                return (Outcome::Delivered, HANDED);
            }
            if was_woken {
                state.waiters.push_front(node);
            } else {
                state.waiters.push_back(node);
            }
            drop(state);
            let began_ns = rt.begin_lock_wait();
            let outcome = sched::block(rt, &mut *wait, Reason::Mutex, until);
            rt.end_lock_wait(began_ns);
            if outcome != Outcome::Delivered {
                self.state.lock().waiters.remove(node);
                rt.leave_lock(address_of(&self.state), &mut *node);
            } else if (*node).amount == HANDED_STARVING {
                let mut state = self.state.lock();
                if state.waiters.is_empty() || clock::now_ns() - *since_ns < STARVES_AFTER_NS {
                    state.starving = false;
                }
            }
            (outcome, (*node).amount)
        })
    }

    /// Unlocks: the first waiter is woken, or has it then.
    ///
    /// # Errors
    /// `sync: unlock of unlocked mutex`.
    #[inline]
    pub fn unlock(&self) -> Result<(), Misuse> {
        {
            let mut state = self.state.lock();
            if state.is_unwanted() {
                state.locked = false;
                return Ok(());
            }
        }
        self.unlock_and_pass_on()
    }

    #[inline(never)]
    fn unlock_and_pass_on(&self) -> Result<(), Misuse> {
        let node = {
            let mut state = self.state.lock();
            if !state.locked {
                return Err(Misuse("sync: unlock of unlocked mutex"));
            }
            state.pass_on()
        };
        if !node.is_null() {
            // SAFETY: claimed above; alive until readied.
            unsafe {
                if (*node).case == 0 {
                    sched::ready_wait(&*(*node).wait);
                } else {
                    self.ready_and_charge(node);
                }
            }
        }
        Ok(())
    }

    /// For a mutex profile. Out of line: an unlock for nobody would have its frame.
    ///
    /// # Safety
    /// The caller has claimed the node's wait, and readies it by this; the lock of the state is free.
    #[cold]
    #[inline(never)]
    unsafe fn ready_and_charge(&self, node: *mut Node) {
        // SAFETY: the caller's promise; it has the host attached, as everybody who calls anything here.
        unsafe {
            let mut let_go = LetGo::default();
            let_go.add(node);
            sched::ready_wait(&*(*node).wait);
            let_go.charge(address_of(&self.state), Reason::Mutex);
        }
    }

    /// Whether somebody has it.
    pub fn is_locked(&self) -> bool {
        self.state.lock().locked
    }

    /// Calls `f` with each waiter.
    pub fn for_each_waiter(&self, f: impl FnMut(&Node)) {
        self.state.lock().waiters.for_each(f);
    }

    /// How many wait.
    #[cfg(all(test, not(model)))]
    pub(crate) fn waiter_count(&self) -> usize {
        self.state.lock().waiters.len()
    }
}

impl State {
    /// Locked, and nobody waits or competes for it.
    #[inline]
    fn is_unwanted(&self) -> bool {
        self.locked && !self.starving && self.woken == 0 && self.waiters.is_empty()
    }

    /// Takes it if it is free; `since_ns` is when the caller began to wait, 0 as long as that does not matter.
    fn enter(&mut self, since_ns: &mut u64, was_woken: bool) -> bool {
        let is_free = !std::mem::replace(&mut self.locked, true);
        if was_woken {
            self.woken = 0;
        }
        if is_free {
            return true;
        }
        let waited_before = *since_ns != 0;
        if !waited_before && (was_woken || self.hand_overs == 0) {
            *since_ns = clock::now_ns();
        }
        if was_woken {
            self.last_hand_overs = match self.barges {
                ..BARGES_THAT_PAY => (self.last_hand_overs * 2).clamp(1, MOST_HAND_OVERS),
                _ => 0,
            };
            self.hand_overs = self.last_hand_overs;
            self.starving |= waited_before && clock::now_ns() - *since_ns >= STARVES_AFTER_NS;
        }
        false
    }

    /// Frees it or hands it over. Gives the node of the waiter to ready, or null.
    fn pass_on(&mut self) -> *mut Node {
        self.locked = false;
        let hands_over = self.starving || self.hand_overs != 0;
        if !hands_over && self.woken == epoch() {
            self.barges = self.barges.saturating_add(1); // one competes already
            return std::ptr::null_mut();
        }
        let node = self.waiters.claim_front(Outcome::Delivered);
        if node.is_null() {
            self.starving = false;
            return node;
        }
        let how = match (self.starving, hands_over) {
            (true, _) => HANDED_STARVING,
            (_, true) => HANDED,
            _ => WOKEN,
        };
        // SAFETY: claimed: unlinked, and alive until its wait is readied.
        unsafe { (*node).amount = how };
        if hands_over {
            self.locked = true;
            self.hand_overs = self.hand_overs.saturating_sub(1);
        } else {
            (self.woken, self.barges) = (epoch(), 0);
        }
        node
    }
}
