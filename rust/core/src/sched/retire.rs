//! Ms that have been idle for long end their threads. (Go's never do; a program that once had a thousand calls in progress
//! would keep a thousand threads here, each with a state of the host.)
//!
//! sysmon takes them out of the idle list one at a time. The `Machine` itself is never freed: goroutines that ran on it last
//! tell by its address whether they have moved. Once none does it serves a new thread.

use super::idle;
use super::machine::Machine;
use super::net::ASLEEP;
use super::runtime::Runtime;
use crate::context;
use crate::primitive::atomic::Ordering;
use crate::sys::signal;
use std::ptr;

/// How long an M sleeps before it is one too many, ns. To start one again takes a hundredth of a millisecond.
const IDLE_NS: u64 = 2_000_000_000;
/// How often sysmon ends one, ns: each takes the host's lock once more.
const PERIOD_NS: u64 = 10_000_000;
/// So many stay, beside one for each P.
const SPARE: usize = 4;
/// So many ended ones are looked at together: whether goroutines still tell by them is asked of all goroutines.
const SORT_AT: usize = 64;

impl Runtime {
    /// sysmon: ends the thread of one M that has been idle for long.
    pub(super) fn retire_one(&self, now_ns: u64, last_ns: &mut u64) {
        if now_ns.saturating_sub(*last_ns) < PERIOD_NS || !self.host.exclusive {
            return;
        }
        *last_ns = now_ns;
        let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        if idle.machines.len() <= self.processors.in_use() + SPARE {
            return;
        }
        // M 0 is the main thread. Who watches the timers or the poller stays: nobody would wake to do it instead.
        // SAFETY: Ms are never freed; those that sleep change nothing.
        let is_to_end = |&m: &*mut Machine| unsafe {
            (*m).id != 0
                && now_ns.saturating_sub((*m).idle_since_ns) >= IDLE_NS
                && !idle.is_keeper(m)
                && (*m).note.load(Ordering::Relaxed) == ASLEEP
        };
        let Some(place) = idle.machines.iter().position(is_to_end) else { return };
        let m = idle.machines.remove(place);
        drop(idle);
        // SAFETY: taken out of the list, it is this caller's until it is notified; published by the note.
        unsafe {
            (*m).ends.store(true, Ordering::Relaxed);
            idle::notify(m);
        }
    }

    /// An M whose thread has ended and that no goroutine knows any more, or null.
    pub(super) fn reusable_machine(&self) -> *mut Machine {
        let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        idle.reusable.pop().unwrap_or(ptr::null_mut())
    }

    /// Looks which of the ended Ms no goroutine knows any more. Host attached, which is exclusive.
    fn sort_ended(&self) {
        let (mut ended, mut is_known) = (Vec::new(), Vec::new());
        {
            let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
            let count = idle.ended.len();
            let has_room = ended.try_reserve_exact(count).is_ok() && is_known.try_reserve_exact(count).is_ok();
            if count < SORT_AT || !has_room {
                return;
            }
            ended.append(&mut idle.ended); // which keeps its room for all
            is_known.resize(count, false);
        }
        ended.sort_unstable();
        let mut note = |m: *mut u8| {
            if let Ok(place) = ended.binary_search(&m.cast()) {
                is_known[place] = true;
            }
        };
        self.registry.for_each(|g| {
            note(g.owner());
            // SAFETY: a live goroutine's bundle is alive while the host's lock is held.
            if let Some(bundle) = unsafe { g.bundle.as_ref() } {
                note(bundle.away_on);
            }
        });
        let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        for (m, is_known) in ended.into_iter().zip(is_known) {
            if is_known { idle.ended.push(m) } else { idle.reusable.push(m) }
        }
    }
}

impl Machine {
    /// The end of this M's thread, which returns from its first function next.
    ///
    /// # Safety
    /// On g0, host detached, in no list: sysmon has taken it out.
    #[cold]
    pub(super) unsafe fn end_thread(&mut self) {
        let rt = self.rt;
        // SAFETY: the caller's promise; the bundle is this M's.
        unsafe {
            (rt.host.attach)(self.home);
            if rt.stopping.load(Ordering::Acquire) {
                (rt.host.detach)(self.home); // pairs with the Release in `stop`
                idle::park_forever();
            }
            rt.sort_ended();
            let spare = std::mem::replace(&mut self.spare, ptr::null_mut());
            if !spare.is_null() {
                rt.keep_bundle(spare);
            }
            self.visible_host.store(ptr::null_mut(), Ordering::Relaxed); // nobody looks at an M without a P
            self.current_host = ptr::null_mut();
            self.current = ptr::null_mut();
            (rt.host.end_home)(std::mem::replace(&mut self.home, ptr::null_mut()));
            context::current_set(ptr::null_mut());
        }
        signal::drop_alternate_stack();
        self.meter.forget();
        self.is_altered = false;
        self.mask = signal::OTHERS;
        self.tid.store(0, Ordering::Relaxed);
        self.ends.store(false, Ordering::Relaxed);
        rt.machine_count.fetch_sub(1, Ordering::Relaxed);
        let mut idle = rt.idle.lock().unwrap_or_else(|e| e.into_inner());
        idle.ended.push(self); // from here on it is another thread's
    }
}
