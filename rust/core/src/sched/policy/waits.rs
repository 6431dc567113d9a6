//! How long those of each priority, and those of each group, were ready before they ran. All of them are timed while policies are in use.

use super::{Group, LEAST_PRIORITY};
use crate::primitive::boxes::try_box;
use crate::primitive::histogram::{TimeHistogram, Times};
use crate::sched::Runtime;

/// How many priorities there are.
const PRIORITIES: usize = 2 * LEAST_PRIORITY.unsigned_abs() as usize + 1;

/// By priority, from the least; made when the first of one runs.
pub(super) struct Waits([Option<Box<TimeHistogram>>; PRIORITIES]);

fn index_of(priority: i8) -> usize {
    usize::from((priority - LEAST_PRIORITY).unsigned_abs()).min(PRIORITIES - 1)
}

impl Waits {
    pub(super) fn new() -> Self {
        Self([const { None }; PRIORITIES])
    }

    /// Not counted where memory for the first is refused.
    pub(super) fn record(&mut self, priority: i8, ns: u64) {
        let place = &mut self.0[index_of(priority)];
        if place.is_none() {
            *place = try_box(TimeHistogram::new());
        }
        if let Some(times) = place {
            times.record(ns as i64);
        }
    }
}

impl Runtime {
    /// Adds what those of `priority` waited to `sum`; `false`: none has run while it was measured.
    pub fn add_waits_of_priority(&self, priority: i8, sum: &mut Times) -> bool {
        let state = self.policies.lock();
        let waits = &state.waits.0[index_of(priority)];
        if let Some(times) = waits {
            times.add_to(sum);
        }
        waits.is_some()
    }

    /// Adds what those of `group` waited to `sum`.
    pub fn add_waits_of_group(&self, group: &Group, sum: &mut Times) {
        let _state = self.policies.lock();
        // SAFETY: the lock is held.
        unsafe { group.state() }.waits.add_to(sum);
    }
}
