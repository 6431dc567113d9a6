//! Blocking calls: an M that may sit in one for long does without its P.
//!
//! Announced calls (`blocking`) give the P up at once. Unannounced ones are CPython's: the goroutine's C code let go of
//! the GIL. sysmon sees the detached state, and an M that then holds the GIL takes the P (`take_over`): with the GIL
//! held, the blocked M can be neither in Python nor in the runtime, unless it is on g0 in the middle of an exchange of
//! states, which `in_scheduler` tells.

use super::machine::{self, Action, Machine};
use super::processor::Processor;
use crate::event::{self, Kind, NONE};
use crate::primitive::atomic::Ordering;
use std::ptr;

impl Machine {
    /// Takes `p` from an M whose goroutine is detached. This M has waited `waited_ns` for the host's lock.
    ///
    /// # Safety
    /// Host attached with this M's home state; the host is exclusive.
    pub(super) unsafe fn take_over(&mut self, p: &Processor, waited_ns: u64) {
        p.taker_sent.store(false, Ordering::Relaxed); // a hint for sysmon
        let is_overdue = p.is_overdue.swap(false, Ordering::Relaxed);
        let is_looked_at = p.is_looked_at.swap(false, Ordering::Relaxed);
        let victim = p.machine.load(Ordering::Acquire); // pairs with the Release of who gave it the P
        if victim.is_null() || ptr::eq(victim, self) || !self.p().is_null() {
            return;
        }
        // SAFETY: Ms are never freed. The host's lock is held, so a victim outside g0 cannot move.
        unsafe {
            let v = &*victim;
            // Acquire: pairs with the Release in `execute`.
            if !ptr::eq(v.p(), p) || v.in_scheduler.load(Ordering::Acquire) {
                return;
            }
            if is_looked_at {
                self.rt.ready_due(p);
                if !is_overdue {
                    return;
                }
            }
            if is_overdue && self.interrupt(v, waited_ns) {
                return;
            }
            if event::is_on() {
                self.rt.trace(Kind::Take, 0, NONE, p.id as u32);
            }
            v.processor.store(ptr::null_mut(), Ordering::Relaxed);
            self.rt.note_outside(v);
        }
        p.machine.store(self, Ordering::Release);
        self.processor.store(ptr::from_ref(p).cast_mut(), Ordering::Relaxed);
        self.rt.counters.hand_offs.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `call`, which may block the OS thread, without a P. For hosts without a lock of their own.
pub fn blocking<R>(call: impl FnOnce() -> R) -> R {
    let m = super::current_machine();
    if m.is_null() {
        return call();
    }
    // SAFETY: `m` is this thread's M; the goroutine stays on it during the call.
    unsafe {
        let p = (*m).processor.swap(ptr::null_mut(), Ordering::Relaxed);
        if !p.is_null() {
            let rt = (*m).rt;
            rt.put_idle_processor(&*p);
            if rt.needs_watching() {
                rt.wake_one(ptr::null_mut());
            }
        }
        let result = call();
        rejoin();
        result
    }
}

/// A goroutine without a P gets one, or waits in the global queue for one.
///
/// # Safety
/// On a goroutine's stack.
#[inline(never)]
unsafe fn rejoin() {
    let m = super::current_machine();
    // SAFETY: the caller's promise.
    unsafe {
        if (*m).p().is_null() && !(*m).acquire_idle_processor() {
            machine::leave(Action::Yield);
        } else if event::is_on() {
            (*m).trace_start((*m).current);
        }
    }
}
