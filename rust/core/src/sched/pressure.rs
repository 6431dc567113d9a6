//! When the system is short of memory, what can be had is given back at once: stacks of all that are parked, the heap's free pages.
//!
//! sysmon looks ten times a second, once there are goroutines enough to matter; where the kernel tells of pressure by a
//! trigger that is one system call or two. What comes of it is a pass of `shrink` without its pauses that takes cold ones and others
//! alike. The next one comes `AGAIN_NS` later at the earliest, whatever the pressure: a stack that is taken from
//! somebody who wakes soon is work, and touches memory again.

use super::runtime::Runtime;
use crate::primitive::atomic::Ordering;
use crate::primitive::boxes::try_box;
use crate::sys::pressure::Pressure;
use std::ptr;

/// How often sysmon looks, ns.
const EVERY_NS: u64 = 100_000_000;
/// From one pass for the sake of pressure to the next, ns.
const AGAIN_NS: u64 = 2_000_000_000;

/// What sysmon keeps of it, beside the file, which is the runtime's: after a fork the child's sysmon closes it.
#[derive(Default)]
pub(super) struct PressureWatch {
    looked_ns: u64,
    served_ns: u64,
    /// It was looked for, found or not.
    was_opened: bool,
}

impl Runtime {
    /// sysmon begins: what was open is the parent's.
    pub(super) fn forget_pressure(&self) {
        let before = self.pressure.swap(ptr::null_mut(), Ordering::Relaxed); // sysmon's alone
        if !before.is_null() {
            // SAFETY: made below, by a sysmon that is no more.
            unsafe { Box::from_raw(before) }.close();
        }
    }

    /// sysmon: has memory given back if the system is short of it.
    pub(super) fn watch_pressure(&self, now_ns: u64, watch: &mut PressureWatch) {
        let is_due = now_ns.saturating_sub(watch.looked_ns) >= EVERY_NS;
        if !is_due
            || self.config.shrink_ns == 0
            || !self.host.exclusive
            || self.registry.live() < self.config.shrink_least
        {
            return;
        }
        watch.looked_ns = now_ns;
        if !watch.was_opened {
            watch.was_opened = true;
            let opened = Pressure::open("/", true).and_then(try_box);
            self.pressure.store(opened.map_or(ptr::null_mut(), Box::into_raw), Ordering::Relaxed);
        }
        // SAFETY: null, or made above; sysmon's alone.
        let Some(pressure) = (unsafe { self.pressure.load(Ordering::Relaxed).as_mut() }) else { return };
        match pressure.look(now_ns) {
            Some(true) if now_ns.saturating_sub(watch.served_ns) >= AGAIN_NS => {
                watch.served_ns = now_ns;
                self.counters.pressures.fetch_add(1, Ordering::Relaxed);
                self.give_all_back();
            }
            Some(_) => {}
            None => self.forget_pressure(),
        }
    }

    /// Has all memory given back that can be had: the heap's now, what needs the host's lock soon. Any thread.
    pub fn give_all_back(&self) {
        self.release_all_of_heaps();
        self.hurry_shrinking();
    }
}
