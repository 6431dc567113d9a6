//! Groups: goroutines that share a weight, and a quota of CPU time as cgroup's cpu.max has it.
//!
//! In each period of 100 ms a group may compute for its quota of it, on all Ps together. Who comes to a scheduling point when
//! that is used up is set aside, with all of the group that are ready, until a timer fires at the beginning of a period in
//! which there is time again. What was used too much is a debt: in the long run the quota holds.
//! Source: Linux, kernel/sched/fair.c (CFS bandwidth), without its slack and bursts.

use super::fair::{Tree, WEIGHT};
use super::nodes::List;
use crate::primitive::atomic::{AtomicUsize, Ordering, fence};
use crate::primitive::boxes::try_box;
use crate::primitive::histogram::TimeHistogram;
use crate::sched::Runtime;
use crate::sys::clock;
use crate::timer::{Event, EventTimer};
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr::NonNull;

/// The period of quotas, ns; cpu.max has the same by default.
pub const PERIOD_NS: u64 = 100_000_000;

/// What policies keep of a group, under their lock.
pub(super) struct State {
    pub(super) weight: u32,
    /// CPU time for each period, ns; 0: as much as there is.
    pub(super) quota_ns: u64,
    /// What is left of it, ns; negative: too much was used.
    left_ns: i64,
    period_began_ns: u64,
    pub(super) is_throttled: bool,
    throttled_since_ns: u64,
    /// Those that are ready and wait for the next period; the fair policy keeps them in `tree`.
    pub(super) aside: List,
    /// Those that are ready, under the fair policy.
    pub(super) tree: Tree,
    pub(super) virtual_ns: u64,
    pub(super) is_in_root: bool,
    pub(super) account: GroupAccount,
    /// How long its goroutines were ready before they ran.
    pub(super) waits: TimeHistogram,
}

/// What was measured of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupAccount {
    /// CPU time, ns.
    pub run_ns: u64,
    /// How often it had used up its quota.
    pub throttled: u64,
    /// How long it was throttled, ns.
    pub throttled_ns: u64,
}

/// A group of goroutines.
#[repr(C)]
pub struct Group {
    /// First field: a due timer is cast back.
    timer: UnsafeCell<EventTimer>,
    rt: &'static Runtime,
    count: AtomicUsize,
    state: UnsafeCell<State>,
}

/// One count of a group, as an `Arc` has it; that one's memory cannot be refused.
pub struct GroupRef(NonNull<Group>);

// SAFETY: as for a group.
unsafe impl Send for GroupRef {}
// SAFETY: as above.
unsafe impl Sync for GroupRef {}

impl GroupRef {
    /// One more count of a group.
    ///
    /// # Safety
    /// It is alive.
    pub(super) unsafe fn to(group: *const Group) -> Self {
        // SAFETY: the caller's promise. Relaxed: whoever has a count keeps it meanwhile.
        unsafe {
            (*group).count.fetch_add(1, Ordering::Relaxed);
            Self::from_count(group)
        }
    }

    /// Where the group is.
    pub fn as_ptr(&self) -> *const Group {
        self.0.as_ptr()
    }

    /// A count that was forgotten.
    ///
    /// # Safety
    /// It is the caller's.
    pub(super) unsafe fn from_count(group: *const Group) -> Self {
        // SAFETY: a group that is alive.
        Self(unsafe { NonNull::new_unchecked(group.cast_mut()) })
    }
}

impl Deref for GroupRef {
    type Target = Group;

    fn deref(&self) -> &Group {
        // SAFETY: alive by this count.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for GroupRef {
    fn drop(&mut self) {
        // Release, and Acquire by who was the last: what others did with it comes before its end.
        if self.count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: made by `Group::make` as a box, and nobody else's.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

// SAFETY: the state is touched under the policies' lock, the timer with the host attached and that lock held.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

static REFILL: Event = Event { take: |timer| timer.cast(), fire: refill, abandon: |_| {} };

/// # Safety
/// By the timer of a live group, host attached.
unsafe fn refill(group: *mut u8) {
    // SAFETY: the caller's promise. The count keeps it while this readies its goroutines.
    unsafe {
        let group = group.cast_const().cast::<Group>();
        let group = GroupRef::to(group);
        group.rt.refill(&group);
    }
}

impl Group {
    pub(super) fn make(rt: &'static Runtime, weight: u32, quota_ns: u64) -> Option<GroupRef> {
        let now = clock::now_ns();
        let group = try_box(Group {
            timer: UnsafeCell::new(EventTimer::new(&REFILL, 0)),
            rt,
            count: AtomicUsize::new(1),
            state: UnsafeCell::new(State {
                weight,
                quota_ns,
                left_ns: quota_ns as i64,
                period_began_ns: now,
                is_throttled: false,
                throttled_since_ns: 0,
                aside: List::new(),
                tree: Tree::new(),
                virtual_ns: 0,
                is_in_root: false,
                account: GroupAccount::default(),
                waits: TimeHistogram::new(),
            }),
        })?;
        // SAFETY: the count it begins with.
        Some(unsafe { GroupRef::from_count(Box::into_raw(group)) })
    }

    /// # Safety
    /// The policies' lock is held, and no other reference to the state is in use.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn state(&self) -> &mut State {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.state.get() }
    }

    /// Fires when there is time again. Nothing while it is set already.
    ///
    /// # Safety
    /// As for `state`; host attached.
    pub(super) unsafe fn wait_for_time(&self, at_ns: u64) {
        // SAFETY: the caller's promise serialises it; the group outlives its timer (`drop`).
        unsafe {
            if !(*self.timer.get()).timer.is_queued() {
                self.rt.start_timer(self.timer.get(), at_ns, 0);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.rt.policies.forget_group(self.rt, self);
        // SAFETY: the last count is gone: nobody else uses it. Host attached, as whoever drops a count promises.
        unsafe { self.rt.stop_timer(self.timer.get()) };
    }
}

impl State {
    /// Its weight as goroutines have theirs.
    pub(super) fn fair_weight(&self) -> u64 {
        u64::from(self.weight) * WEIGHT / 100
    }

    /// Gives it the time of the periods that began since.
    fn begin_periods(&mut self, now_ns: u64) {
        let periods = now_ns.saturating_sub(self.period_began_ns) / PERIOD_NS;
        self.period_began_ns += periods * PERIOD_NS;
        let quota = self.quota_ns as i64;
        self.left_ns = quota.min(self.left_ns.saturating_add(quota.saturating_mul(periods as i64)));
    }

    /// It has computed for `used_ns`. Returns when there is time again, if there is none now.
    pub(super) fn charge(&mut self, used_ns: u64, now_ns: u64) -> Option<u64> {
        self.account.run_ns += used_ns;
        if self.quota_ns == 0 {
            return None;
        }
        self.begin_periods(now_ns);
        self.left_ns -= used_ns as i64;
        if self.left_ns > 0 {
            return None;
        }
        if !self.is_throttled {
            self.is_throttled = true;
            self.throttled_since_ns = now_ns;
            self.account.throttled += 1;
        }
        Some(self.time_again_ns())
    }

    /// When a period begins in which there is time.
    fn time_again_ns(&self) -> u64 {
        let debt = self.left_ns.unsigned_abs();
        self.period_began_ns + PERIOD_NS * (debt / self.quota_ns.max(1) + 1)
    }

    /// It may compute again, or it is said when.
    pub(super) fn end_throttling(&mut self, now_ns: u64) -> Result<(), u64> {
        if self.quota_ns != 0 {
            self.begin_periods(now_ns);
            if self.left_ns <= 0 {
                return Err(self.time_again_ns());
            }
        }
        if self.is_throttled {
            self.is_throttled = false;
            self.account.throttled_ns += now_ns.saturating_sub(self.throttled_since_ns);
        }
        Ok(())
    }

    /// How long one of it may compute, at most `slice_ns` and at least 1, ns.
    pub(super) fn allowance_ns(&mut self, slice_ns: u64, now_ns: u64) -> u64 {
        if self.quota_ns == 0 {
            return slice_ns;
        }
        self.begin_periods(now_ns);
        slice_ns.min(self.left_ns.max(1) as u64)
    }

    /// Its quota is another one from now on; what was used of this period stays used.
    pub(super) fn set_quota(&mut self, quota_ns: u64, now_ns: u64) {
        let used = if self.quota_ns == 0 { 0 } else { self.quota_ns as i64 - self.left_ns };
        self.begin_periods(now_ns);
        self.quota_ns = quota_ns;
        self.left_ns = quota_ns as i64 - used.max(0);
        if quota_ns == 0 {
            self.left_ns = 0;
        }
    }

    /// In a forked child: nobody is ready. The nodes of its lists are not given back.
    pub(super) fn forget(&mut self) {
        self.aside = List::new();
        self.tree.forget();
        (self.is_throttled, self.is_in_root) = (false, false);
        self.left_ns = self.quota_ns as i64;
    }
}
