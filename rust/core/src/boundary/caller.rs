//! Who calls a hook, and how that goroutine waits.

use crate::goroutine::host::{HostThread, Standing};
use crate::goroutine::waiter::{Listens, Outcome, Reason, Wait};
use crate::netpoll::NetPoll;
use crate::primitive::atomic::Ordering;
use crate::sched::machine::Machine;
use crate::sched::{self, Runtime, current_machine};
use std::ptr;
use std::sync::atomic::AtomicBool;

/// Whether hooks may park at all: set once they are installed, cleared in a forked child and by `GORT_BOUNDARY=0`.
static PARKING: AtomicBool = AtomicBool::new(false);

/// Lets hooks park, or makes all of them pass through. Fit for a forked child.
pub fn allow_parking(allow: bool) {
    PARKING.store(allow, Ordering::Relaxed); // a hook that sees it late does what was right a moment ago
}

/// Whether hooks may park.
pub fn is_parking_allowed() -> bool {
    PARKING.load(Ordering::Relaxed)
}

/// A goroutine in a C call that let go of the host's lock. Dropped before an original that may block is called.
pub(super) struct Caller {
    rt: &'static Runtime,
    host: HostThread,
}

/// The calling thread's M while it runs a goroutine; null on g0 and on a plain thread. Until the goroutine parks, its
/// descriptor (`current`) and bundle are alive and this thread's. Fit for a signal handler.
#[inline]
pub(super) fn goroutines_machine() -> *mut Machine {
    let m = current_machine();
    // SAFETY: this thread's M.
    if !m.is_null() && unsafe { (*m).in_scheduler.load(Ordering::Relaxed) } { ptr::null_mut() } else { m }
}

/// The goroutine that called a hook, outside of a signal handler, if its host state stands as asked: its M, the runtime and
/// the state. Fit for a signal handler: no lock, no allocation.
#[inline]
fn standing(asked: Standing) -> Option<(*mut Machine, &'static Runtime, HostThread)> {
    let m = goroutines_machine();
    // SAFETY: as `goroutines_machine` says.
    unsafe {
        if m.is_null() || (*m).signal_depth.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let rt = (*m).rt;
        let host = (*(*(*m).current).bundle).host;
        ((rt.host.standing)(host) == asked).then_some((m, rt, host))
    }
}

/// The goroutine that called a hook, if it may park. Fit for a signal handler.
#[inline]
pub(super) fn caller() -> Option<Caller> {
    if !is_parking_allowed() {
        return None;
    }
    let (m, rt, host) = standing(Standing::Detached)?;
    if rt.stopping.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: this thread's M.
    unsafe { (*m).in_hook.store(true, Ordering::Relaxed) };
    Some(Caller { rt, host })
}

/// For sysmon: whether the calling goroutine's call waits for nothing.
#[inline(never)] // the M is asked for anew: the goroutine may have moved
fn set_in_hook(inside: bool) {
    // SAFETY: called on a goroutine's stack: this thread has an M.
    unsafe { (*current_machine()).in_hook.store(inside, Ordering::Relaxed) };
}

impl Drop for Caller {
    /// The call ends, or goes on in the original, which may block.
    fn drop(&mut self) {
        set_in_hook(false);
    }
}

/// The runtime, if the calling thread runs a goroutine that holds the host's lock.
pub(super) fn attached_runtime() -> Option<&'static Runtime> {
    standing(Standing::Attached).map(|(_, rt, _)| rt)
}

impl Caller {
    /// Where descriptors are registered.
    pub(super) fn net(&self) -> &'static NetPoll {
        &self.rt.net
    }

    /// Runs `body` with the host attached, where the goroutine may wait. It may end on another M. Changes errno.
    pub(super) fn attached<R>(&self, body: impl FnOnce(&'static Runtime) -> R) -> R {
        // SAFETY: `caller` found the state detached on this thread, and only this goroutine attaches it; the C code that
        // called the hook expects it detached when the hook returns.
        unsafe {
            (self.rt.host.attach)(self.host);
            set_in_hook(false);
            let result = body(self.rt);
            set_in_hook(true);
            (self.rt.host.detach)(self.host);
            result
        }
    }

    /// Runs `ask`, which may turn out to wait on the OS thread after all: sysmon has to see that.
    pub(super) fn may_block<R>(&self, ask: impl FnOnce() -> R) -> R {
        set_in_hook(false);
        let result = ask();
        set_in_hook(true);
        result
    }

    /// Waits until `deadline_ns`. `false`: a signal for the main goroutine came first.
    pub(super) fn sleep_until(&self, deadline_ns: u64) -> bool {
        self.attached(|rt| {
            // SAFETY: the place is this caller's to the end of the call; announced just now; the wait has no nodes.
            sched::with_place(|wait: *mut Wait| unsafe {
                wait.write(foreign_wait());
                sched::announce(&mut *wait);
                sched::block(rt, &mut *wait, Reason::Sleep, Some(deadline_ns)) == Outcome::TimedOut
            })
        })
    }
}

/// Blocks for something outside of the program: the deadlock detector keeps quiet meanwhile. Host attached.
///
/// # Safety
/// As for `sched::block`.
pub(super) unsafe fn block_foreign(
    rt: &'static Runtime,
    wait: &mut Wait,
    reason: Reason,
    deadline_ns: Option<u64>,
) -> Outcome {
    // A lock of a bubble's goroutine is taken to be the bubble's own.
    let is_foreign = usize::from(reason == Reason::Io || sched::current_bubble() == 0);
    rt.foreign_waits.fetch_add(is_foreign, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    let outcome = unsafe { sched::block(rt, wait, reason, deadline_ns) };
    rt.foreign_waits.fetch_sub(is_foreign, Ordering::Relaxed);
    outcome
}

/// A wait that cannot be cancelled.
pub(super) fn foreign_wait() -> Wait {
    let mut wait = Wait::new();
    wait.listens = Listens::ToSignals;
    wait
}
