//! What ends a wait that nobody serves: a time, or an [`Ender`], which ends many waits at once.
//!
//! A wait that an ender may end stands in that one's list while it is blocked, beside the queues of what it waits for. Its node
//! there lies in an [`EnderPlace`], which others reach and which therefore lies beside the waiter's stack, as the wait itself.
//! Ending claims each wait; who was claimed by somebody else is passed over, and takes its node out itself.

use super::waiter::{Node, Outcome, Wait, WaitQueue};
use crate::primitive::exclusive::ShortLock;
use std::ptr;

struct State {
    ended: bool,
    waiters: WaitQueue,
}

/// See the module's text. Lives longer than the waits in its list.
pub struct Ender {
    /// The bubble it is of (`sched::bubble`), which alone ends it; 0: anybody may.
    pub bubble: u32,
    state: ShortLock<State>,
}

impl Ender {
    /// Nothing has ended yet.
    pub fn new(bubble: u32) -> Self {
        Self { bubble, state: ShortLock::new(State { ended: false, waiters: WaitQueue::new() }) }
    }

    /// Ends all waits that stand in it, and those still to come at once. Gives the nodes of those it claimed, whose waits the caller
    /// readies; it does not touch a node after that.
    #[must_use]
    pub fn end(&self) -> WaitQueue {
        // They chain up through their own nodes: no memory is asked for.
        let mut claimed = WaitQueue::new();
        let mut state = self.state.lock();
        state.ended = true;
        loop {
            let node = state.waiters.front();
            if node.is_null() {
                return claimed;
            }
            // SAFETY: a linked node and its wait are alive; claimed, they are until the wait is readied. Not `claim_front`: of a
            // select, none of the cases has won.
            unsafe {
                state.waiters.remove(node);
                if (*(*node).wait).claim(Outcome::ContextDone) {
                    claimed.push_back(node);
                }
            }
        }
    }

    /// Calls `f` with each waiter.
    pub fn for_each_waiter(&self, f: impl FnMut(&Node)) {
        self.state.lock().waiters.for_each(f);
    }
}

/// A place in the list of an ender, for one wait at a time.
pub struct EnderPlace {
    ender: *const Ender,
    /// The latest end, of the waiter's clock.
    deadline_ns: Option<u64>,
    node: Node,
}

impl EnderPlace {
    /// In no list.
    pub fn new(ender: *const Ender, deadline_ns: Option<u64>) -> Self {
        Self { ender, deadline_ns, node: Node::new(ptr::null_mut(), ptr::null_mut()) }
    }

    /// The latest end.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.deadline_ns
    }

    /// The bubble of the ender.
    ///
    /// # Safety
    /// The ender is alive.
    pub unsafe fn bubble(&self) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { (*self.ender).bubble }
    }

    /// Puts the wait into the list. `false`: the ender has ended already, and the wait is in no list.
    ///
    /// # Safety
    /// The ender is alive. `place` is in no list, and it and `wait`, which is announced, stay where they are until `leave`.
    pub unsafe fn join(place: *mut Self, wait: *mut Wait) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let mut state = (*(*place).ender).state.lock();
            if state.ended {
                return false;
            }
            (*place).node.wait = wait;
            (*wait).queue_count += 1;
            state.waiters.push_back(&raw mut (*place).node);
            true
        }
    }

    /// The wait is over: it is in the list no more.
    ///
    /// # Safety
    /// As for `join`, which may have refused.
    pub unsafe fn leave(place: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { (*(*place).ender).state.lock().waiters.remove(&raw mut (*place).node) };
    }
}

/// When a wait ends at the latest.
#[derive(Clone, Copy)]
pub enum Until {
    /// Never.
    Never,
    /// At this time of the waiter's clock, ns.
    At(u64),
    /// When an ender ends it, or at the time in its place. The ender and the place outlive the wait.
    Ended(*mut EnderPlace),
}

impl Until {
    /// The time, and the place in an ender's list, or null.
    #[inline]
    pub(crate) fn parts(self) -> (Option<u64>, *mut EnderPlace) {
        match self {
            Self::Never => (None, ptr::null_mut()),
            Self::At(ns) => (Some(ns), ptr::null_mut()),
            // SAFETY: the maker's promise.
            Self::Ended(place) => (unsafe { (*place).deadline_ns() }, place),
        }
    }
}

impl Until {
    /// The time, without the ender.
    pub fn deadline_ns(self) -> Option<u64> {
        self.parts().0
    }

    /// The same end, but at `deadline_ns`. A place is set to that, for this wait and those after it.
    ///
    /// # Safety
    /// No wait is in the list of the place's ender.
    pub unsafe fn at(self, deadline_ns: Option<u64>) -> Self {
        match self {
            Self::Never | Self::At(_) => deadline_ns.into(),
            Self::Ended(place) => {
                // SAFETY: the maker's promise, and the caller's.
                unsafe { (*place).deadline_ns = deadline_ns };
                self
            }
        }
    }
}

impl From<u64> for Until {
    #[inline(always)]
    fn from(deadline_ns: u64) -> Self {
        Self::At(deadline_ns)
    }
}

impl From<Option<u64>> for Until {
    #[inline(always)]
    fn from(deadline_ns: Option<u64>) -> Self {
        deadline_ns.map_or(Self::Never, Self::At)
    }
}
