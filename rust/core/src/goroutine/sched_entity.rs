//! What the scheduler's policies keep of a goroutine.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr;

/// How a goroutine stands with the policies (`sched::policy`), who alone touch it, under their lock; before it is queued for
/// the first time it is its maker's.
pub struct SchedEntity {
    /// -20 to 20; higher is more urgent.
    pub priority: i8,
    /// Goes before everybody, the moment it wakes.
    pub is_reserved: bool,
    /// It goes on out of turn, for a part of a slice.
    pub is_on_turn: bool,
    /// How many levels it has sunk below that of its priority.
    pub sunk: u8,
    /// The last boost it has seen.
    pub boost: u32,
    /// Computed at this level, ns.
    pub used_ns: u64,
    /// Run time as its weight counts it, ns.
    pub virtual_ns: u64,
    /// Its group (one count of it), or null.
    pub group: *const u8,
    /// It is ready since then, ns; 0: it is not, or nobody looked at the clock.
    pub ready_since_ns: u64,
    /// What is measured while anything of this is in use: null before, and where memory was refused.
    account: *mut Account,
}

/// What was measured of a goroutine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// CPU time, ns.
    pub run_ns: u64,
    /// How often it went on.
    pub runs: u64,
    /// From being woken to running, ns, in total.
    pub wait_ns: u64,
    /// The longest of those, ns.
    pub longest_wait_ns: u64,
    /// How often it went on with another P than before.
    pub p_migrations: u64,
    /// The P it ran with last.
    pub last_processor: u32,
}

impl SchedEntity {
    /// Of a goroutine that has not run yet.
    pub fn new() -> Self {
        Self {
            priority: 0,
            is_reserved: false,
            is_on_turn: false,
            sunk: 0,
            boost: 0,
            used_ns: 0,
            virtual_ns: 0,
            group: ptr::null(),
            ready_since_ns: 0,
            account: ptr::null_mut(),
        }
    }

    /// What was measured so far.
    pub fn account(&self) -> Account {
        // SAFETY: null or made by `measure`, and this entity's.
        unsafe { self.account.as_ref() }.copied().unwrap_or_default()
    }

    /// What is measured, made if there is none yet; `None`: memory is refused.
    pub fn measure(&mut self) -> Option<&mut Account> {
        if self.account.is_null() {
            let layout = Layout::new::<Account>();
            // SAFETY: a type that has a size; zero bytes are an account.
            self.account = unsafe { alloc_zeroed(layout) }.cast();
        }
        // SAFETY: as in `account`.
        unsafe { self.account.as_mut() }
    }

    /// As new; its group is its user's to leave.
    pub fn reset(&mut self) {
        if !self.account.is_null() {
            // SAFETY: made by `measure` with this layout.
            unsafe { dealloc(self.account.cast(), Layout::new::<Account>()) };
        }
        *self = Self::new();
    }

    /// Whether those it starts stand otherwise than a new one.
    #[inline]
    pub fn is_inherited(&self) -> bool {
        self.priority != 0 || !self.group.is_null()
    }
}

impl Default for SchedEntity {
    fn default() -> Self {
        Self::new()
    }
}
