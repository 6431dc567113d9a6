//! Semaphores of C code: CPython's locks are made of them (and from 3.13 on its parking lot).
//!
//! The semaphore's own value stays the truth. A goroutine that finds it zero stands in a table by its address and parks; a
//! post raises the value first and then wakes one that stands there, which tries again. So a wake-up may be spurious, a
//! post may be taken by a plain thread, and the memory may be another semaphore's by the time of the wake-up: it only
//! costs a try. That no wake-up is lost is `goroutine::wait_table`'s.
//!
//! CPython's parking lot, of which locks are made from 3.14 on, has the semaphore on the waiting goroutine's stack and other threads
//! write to it: such a stack must stay where it is and keep its pages while its goroutine is parked here. One whose
//! semaphore is elsewhere may be saved.

use super::caller::{Caller, attached_runtime, block_foreign, caller, foreign_wait};
use super::hooks::{Counts, original};
use super::sleep::deadline_of;
use crate::goroutine::wait_table::WaitTable;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait};
use crate::sched::{self, Runtime};
use crate::sys::errno;
use libc::{c_int, clockid_t, sem_t, timespec};
use std::ptr;

/// Who waits for which semaphore.
static WAITERS: WaitTable = WaitTable::new();

/// In a forked child nobody stands in the table.
pub(super) fn forget() {
    WAITERS.forget();
}

/// Whether processes share it: then nobody here would hear of its posts. glibc keeps the flag behind the value.
unsafe fn is_shared(semaphore: *const sem_t) -> bool {
    // SAFETY: an initialised semaphore; struct new_sem of glibc since 2.21: 8 bytes of value and waiters, then `private`,
    // which is 0 for a semaphore of one process (sem_init.c).
    cfg!(target_env = "gnu") && unsafe { *semaphore.cast::<c_int>().add(2) != 0 }
}

/// Takes one without waiting; changes errno when it cannot.
unsafe fn try_take(semaphore: *mut sem_t) -> bool {
    // SAFETY: the caller's semaphore.
    unsafe { libc::sem_trywait(semaphore) == 0 }
}

/// How one park for a semaphore ended.
enum Parked {
    /// One was taken.
    Taken,
    /// It was not there any more when the goroutine woke.
    Missed,
    /// The error number of what ended the wait.
    Ended(c_int),
    /// There was no memory to note that somebody waits.
    Refused,
}

/// Parks until the semaphore was taken or the deadline is over; the error number, 0 for taken. `None`: there was no memory
/// to note that somebody waits.
unsafe fn take(caller: &Caller, semaphore: *mut sem_t, deadline_ns: Option<u64>) -> Option<c_int> {
    caller.attached(|rt| {
        loop {
            // SAFETY: the caller's semaphore; the place is this caller's to the end of the call.
            let parked =
                sched::with_place_beside(semaphore.addr(), |place| unsafe { park(rt, place, semaphore, deadline_ns) });
            match parked {
                Parked::Taken => return Some(0),
                Parked::Missed => {}
                Parked::Ended(error) => return Some(error),
                Parked::Refused => return None,
            }
        }
    })
}

/// Stands in the table and parks, once.
///
/// # Safety
/// `semaphore` is one, and `place` stays this caller's alone until it returns. Host attached.
unsafe fn park(
    rt: &'static Runtime,
    place: *mut (Wait, Node),
    semaphore: *mut sem_t,
    deadline_ns: Option<u64>,
) -> Parked {
    // SAFETY: the caller's promise; the node stays in its place until it leaves the table, below, and the wait until nobody can
    // claim it; no lock is held.
    unsafe {
        let (wait, node) = (&raw mut (*place).0, &raw mut (*place).1);
        wait.write(foreign_wait());
        node.write(Node::new(wait, ptr::null_mut()));
        (*node).amount = semaphore.addr() as u64;
        sched::announce(&mut *wait);
        if !WAITERS.enter(node) {
            sched::retract(&*wait);
            return Parked::Refused;
        }
        let at_once = try_take(semaphore);
        let outcome = if at_once && (*wait).claim(Outcome::Delivered) {
            sched::retract(&*wait);
            Outcome::Pending
        } else {
            // A wait that a poster claimed meanwhile comes back at once.
            block_foreign(rt, &mut *wait, Reason::Lock, deadline_ns)
        };
        WAITERS.leave(node); // a forked child has none of those who waited
        if at_once && outcome == Outcome::Delivered {
            wake(rt, semaphore.addr()); // a poster woke this one for what another one can have
        }
        // A post and the end of the time may come together: who has a unit has not timed out.
        if at_once || try_take(semaphore) {
            return Parked::Taken;
        }
        match outcome {
            Outcome::Delivered => Parked::Missed,
            Outcome::TimedOut => Parked::Ended(libc::ETIMEDOUT),
            _ => Parked::Ended(libc::EINTR),
        }
    }
}

/// Wakes one goroutine that waits for the semaphore at `address`. Host attached.
fn wake(_rt: &'static Runtime, address: usize) {
    let node = WAITERS.claim(address as u64, Outcome::Delivered);
    if !node.is_null() {
        // SAFETY: claimed just now: alive until its owner is readied, here, once.
        unsafe { sched::ready_wait(&*(*node).wait) };
    }
}

/// What the three waits share; `Err` is for the original.
unsafe fn wait_for(
    semaphore: *mut sem_t,
    counts: &Counts,
    until: Option<(clockid_t, *const timespec)>,
) -> Option<c_int> {
    let caller = caller()?;
    // SAFETY: the C functions' own contract, here and below.
    if unsafe { is_shared(semaphore) } {
        counts.hand_off();
        return None;
    }
    let before = errno::get();
    // SAFETY: as above.
    let error = if unsafe { try_take(semaphore) } {
        0
    } else {
        let deadline = match until {
            // SAFETY: as above. What is wrong with it is the original's to say.
            Some((clock, until)) => Some(unsafe { deadline_of(clock, until) }?),
            None => None,
        };
        counts.park();
        // SAFETY: as above.
        unsafe { take(&caller, semaphore, deadline) }?
    };
    errno::set(if error == 0 { before } else { error });
    Some(if error == 0 { 0 } else { -1 })
}

/// `sem_wait`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: as called, here and in the next two.
    unsafe {
        let done = wait_for(semaphore, &original::sem_wait::COUNTS, None);
        done.unwrap_or_else(|| original::sem_wait::call(semaphore))
    }
}

/// `sem_timedwait`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int {
    // SAFETY: as called.
    unsafe {
        let done = wait_for(semaphore, &original::sem_timedwait::COUNTS, Some((libc::CLOCK_REALTIME, until)));
        done.unwrap_or_else(|| original::sem_timedwait::call(semaphore, until))
    }
}

/// `sem_clockwait`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as called.
    unsafe {
        let done = wait_for(semaphore, &original::sem_clockwait::COUNTS, Some((clock, until)));
        done.unwrap_or_else(|| original::sem_clockwait::call(semaphore, clock, until))
    }
}

/// `sem_post`. The semaphore may be gone once the original has returned: only its address is used.
pub(super) unsafe extern "C" fn sem_post(semaphore: *mut sem_t) -> c_int {
    // SAFETY: as called.
    let result = unsafe { original::sem_post::call(semaphore) };
    if WAITERS.is_used(semaphore.addr() as u64) {
        wake_from_anywhere(semaphore.addr());
    }
    result
}

#[cold]
fn wake_from_anywhere(address: usize) {
    let before = errno::get();
    if let Some(rt) = attached_runtime() {
        wake(rt, address);
    } else if let Some(rt) = super::runtime() {
        // SAFETY: `wake` takes any address at any time.
        unsafe { rt.call_attached(wake, address) };
    }
    errno::set(before);
}
