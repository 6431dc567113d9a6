//! Park and ready: how a goroutine or a plain thread blocks in one wait, and how it is woken.

use super::machine::{Action, leave};
use super::processor::Processor;
use super::runtime::{REQUEST_STOP, REQUEST_WAITS};
use super::{Runtime, current_machine};
use crate::event;
use crate::goroutine::Goroutine;
use crate::goroutine::ender::{Ender, EnderPlace, Until};
use crate::goroutine::status::{self, Wake};
use crate::goroutine::waiter::{Outcome, Reason, Wait, Who};
use crate::primitive::atomic::Ordering;
use crate::sys::{clock, futex};
use std::mem::MaybeUninit;
use std::ptr;

pub use super::spawn::running as current_goroutine;

/// Prepares to block: fills in who waits. Call before the wait can be found by anybody; `block` must follow.
#[inline]
pub fn announce(wait: &mut Wait) {
    // SAFETY: asked just now.
    unsafe { announce_as(current_goroutine(), wait) }
}

/// The same where it is known who runs.
///
/// # Safety
/// `g` is the running goroutine, or null on a plain thread.
#[inline(always)]
pub unsafe fn announce_as(g: *mut Goroutine, wait: &mut Wait) {
    if g.is_null() {
        wait.who = Who::Thread(&raw const wait.word);
    } else {
        wait.who = Who::Goroutine(g);
        // SAFETY: the running goroutine's own descriptor. Release: pairs with the Acquire in `status::wake`.
        unsafe { (*g).status.store(status::PARKING, Ordering::Release) };
    }
}

/// A place for a wait of the calling goroutine's and what others reach through it, beside its stack, so that this can be saved
/// while it waits (`shrink`); with who that is. One wait at a time, over which the caller does nothing else that waits. Null on a
/// plain thread, and where a `T` is too large.
#[inline(always)]
pub fn place_to_wait<T>() -> (*mut Goroutine, *mut T) {
    let g = current_goroutine();
    // SAFETY: the running goroutine's own bundle.
    (g, if g.is_null() { ptr::null_mut() } else { unsafe { (*(*g).bundle).place() } })
}

/// Calls `wait` with such a place, or one on the caller's stack.
#[inline(always)]
pub fn with_place<T, R>(wait: impl FnOnce(*mut T) -> R) -> R {
    let (_, place): (_, *mut T) = place_to_wait();
    if place.is_null() { with_local_place(wait) } else { wait(place) }
}

/// The same for a wait that lets others use what is at `address` meanwhile: if that is on the caller's stack, this has to stay where
/// it is, and so the place is there, too.
pub fn with_place_beside<T, R>(address: usize, wait: impl FnOnce(*mut T) -> R) -> R {
    let (g, place): (_, *mut T) = place_to_wait();
    // SAFETY: the running goroutine's own bundle.
    let is_off = !place.is_null() && unsafe { (*(*g).bundle).stack.as_ref().is_none_or(|stack| !stack.holds(address)) };
    if is_off { wait(place) } else { with_local_place(wait) }
}

/// Out of line: the place would be a part of every goroutine's stack.
#[cold]
#[inline(never)]
fn with_local_place<T, R>(wait: impl FnOnce(*mut T) -> R) -> R {
    let mut local = MaybeUninit::uninit();
    wait(local.as_mut_ptr())
}

/// Takes an announcement back: the operation needed no waiting, and nobody could have found the wait.
#[inline]
pub fn retract(wait: &Wait) {
    if let Who::Goroutine(g) = wait.who {
        // SAFETY: the running goroutine's own descriptor.
        unsafe { (*g).status.store(status::RUNNING, Ordering::Relaxed) };
    }
}

/// Blocks until the announced wait is claimed; at the latest until `until`. Returns how it ended.
///
/// # Safety
/// `announce(wait)` was called on this thread and nothing parked since; no lock is held; nodes of the wait are unlinked
/// by the caller before `wait` goes out of scope.
#[inline]
pub unsafe fn block(rt: &'static Runtime, wait: &mut Wait, reason: Reason, until: impl Into<Until>) -> Outcome {
    let until = until.into();
    // SAFETY: the caller's promise; the running goroutine is its own.
    unsafe {
        match wait.who {
            Who::Goroutine(g) => {
                (*g).reason.store(reason as u8, Ordering::Relaxed);
                (*g).wait.store(wait, Ordering::Release); // pairs with the Acquire in `end_wait`
                // In the caller's own frame, since what lies below it while it waits is kept for long.
                let is_simple = matches!(until, Until::Never)
                    // Acquire: pairs with the AcqRel in `stop`.
                    && rt.requests.load(Ordering::Acquire) & (REQUEST_STOP | REQUEST_WAITS) == 0
                    && (*g).cancel_requested.load(Ordering::Relaxed) == 0
                    && (*g).bubble.id == 0;
                if is_simple {
                    leave(Action::Park);
                    (*g).wait.store(ptr::null_mut(), Ordering::Release);
                    (*g).reason.store(0, Ordering::Relaxed);
                } else {
                    block_goroutine(rt, g, wait, reason, until);
                }
            }
            Who::Thread(_) => block_thread(rt, wait, reason, until),
        }
    }
    wait.outcome()
}

/// The rest of `block`, for a goroutine with a deadline or something else to be seen to.
#[inline(never)]
unsafe fn block_goroutine(rt: &'static Runtime, g: *mut Goroutine, wait: &mut Wait, reason: Reason, until: Until) {
    let (mut deadline_ns, place) = until.parts();
    // SAFETY: `g` is the running goroutine; `wait` outlives the park.
    unsafe {
        if rt.stopping.load(Ordering::Acquire) && ptr::eq(g, rt.main.load(Ordering::Relaxed)) {
            // Pairs with the Release in `stop`. Nobody else runs any more: it would never wake.
            let _ = wait.claim(Outcome::Stopped);
            (*g).wait.store(ptr::null_mut(), Ordering::Release);
            (*g).reason.store(0, Ordering::Relaxed);
            retract(wait);
            return;
        }
        if (*g).cancel_requested.load(Ordering::Relaxed) != 0 {
            rt.cancel_at_park(g, wait);
        }
        enter(place, wait);
        let begun_ns = rt.begin_wait(reason);
        let bubble = (*g).bubble.id;
        let until_ns = if bubble == 0 { 0 } else { enter_in_bubble(rt, g, wait, reason, &mut deadline_ns, place) };
        let mut heap: *const Processor = ptr::null();
        if let Some(when) = deadline_ns {
            let p = (*current_machine()).p();
            heap = if p.is_null() { &raw const rt.processors[0] } else { p };
            wait.timer.when_ns = when;
            (*heap).add_timer(&raw mut wait.timer);
            if p.is_null() {
                rt.wake_one(ptr::null_mut());
            }
        }
        leave(Action::Park);
        if !heap.is_null() {
            (*heap).remove_timer(&raw mut wait.timer);
        }
        if !place.is_null() {
            EnderPlace::leave(place);
        }
        if bubble != 0 {
            rt.bubbles.leave_wait(rt, bubble, wait, until_ns);
        }
        (*g).wait.store(ptr::null_mut(), Ordering::Release);
        (*g).reason.store(0, Ordering::Relaxed);
        if begun_ns != 0 {
            rt.end_wait_begun(begun_ns, reason, wait);
        }
    }
}

/// Has the ender of `place`, unless that is null, end the wait; at once, if it has ended.
///
/// # Safety
/// The wait is announced and about to block; `EnderPlace::leave` follows if `place` is not null.
#[inline]
unsafe fn enter(place: *mut EnderPlace, wait: &mut Wait) {
    // SAFETY: the caller's promise; place and ender outlive the wait.
    unsafe {
        if !place.is_null() && !EnderPlace::join(place, wait) && wait.claim(Outcome::ContextDone) {
            ready_wait(wait);
        }
    }
}

/// `Bubbles::enter_wait`: a wait that an ender outside of the bubble may end is not durable.
///
/// # Safety
/// As for that.
#[cold]
unsafe fn enter_in_bubble(
    rt: &'static Runtime,
    g: *mut Goroutine,
    wait: &mut Wait,
    reason: Reason,
    deadline_ns: &mut Option<u64>,
    place: *const EnderPlace,
) -> u64 {
    // SAFETY: the caller's promise; the ender outlives the wait.
    unsafe {
        let ends_from_outside = !place.is_null() && (*place).bubble() != (*g).bubble.id;
        rt.bubbles.enter_wait(g, wait, reason, deadline_ns, ends_from_outside)
    }
}

/// Ends all waits that stand in the list of `ender`, and those still to come. Host attached; runs nothing of the host.
pub fn end_waits(ender: &Ender) {
    let mut claimed = ender.end();
    while !claimed.is_empty() {
        let node = claimed.front();
        // SAFETY: claimed, and readied here once; the node is not touched after its owner may run.
        unsafe {
            claimed.remove(node);
            ready_wait(&*(*node).wait);
        }
    }
}

/// Plain threads whose wait only a wake-up of ours can end. Atomics of std: a static, which a model's cannot be.
static STUCK_THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Values of a waiting thread's word: it waits; it waits and is in `STUCK_THREADS`; it may go on.
const WAITS: u32 = 0;
const STUCK: u32 = 2;
const READY: u32 = 1;

/// How many plain threads wait without a deadline for somebody to wake them. Exact while the host's lock is held.
pub fn stuck_threads() -> usize {
    STUCK_THREADS.load(Ordering::Relaxed)
}

/// In a forked child there are no such threads.
pub(super) fn forget_threads() {
    STUCK_THREADS.store(0, Ordering::Relaxed);
}

#[cold]
unsafe fn block_thread(rt: &'static Runtime, wait: &mut Wait, reason: Reason, until: Until) {
    let (deadline_ns, place) = until.parts();
    // SAFETY: a plain thread with the host attached, before and after it sleeps.
    unsafe {
        enter(place, wait);
        let begun_ns = rt.begin_wait(reason);
        sleep_on_futex(rt, wait, deadline_ns);
        if !place.is_null() {
            EnderPlace::leave(place);
        }
        if begun_ns != 0 {
            rt.end_wait_begun(begun_ns, reason, wait);
        }
    }
}

unsafe fn sleep_on_futex(rt: &'static Runtime, wait: &mut Wait, deadline_ns: Option<u64>) {
    let mut expected = WAITS;
    // Counted until it is readied, not until it runs: a thread that only waits for the host's lock is not stuck.
    // Relaxed: the word publishes nothing yet.
    if deadline_ns.is_none() && wait.word.compare_exchange(WAITS, STUCK, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        STUCK_THREADS.fetch_add(1, Ordering::Relaxed);
        expected = STUCK;
    }
    // SAFETY: a plain thread with the host attached; the token goes back below.
    let token = unsafe { (rt.host.leave_thread)() };
    let mut timed_out = false;
    // Acquire: pairs with the Release in `ready_wait`.
    while wait.word.load(Ordering::Acquire) != READY {
        let left = if timed_out { None } else { deadline_ns.map(|d| d.saturating_sub(clock::now_ns())) };
        if left == Some(0) {
            timed_out = true;
            // Claiming is a locked step under an exclusive host: take the host's lock for it.
            // SAFETY: token of this thread.
            unsafe {
                (rt.host.return_thread)(token);
                if wait.claim(Outcome::TimedOut) {
                    return;
                }
                (rt.host.leave_thread)();
            }
            continue;
        }
        let _ = futex::wait(&wait.word, expected, left);
    }
    // SAFETY: as above.
    unsafe { (rt.host.return_thread)(token) };
}

/// Makes the owner of a claimed wait runnable. The wait may be gone when this returns.
///
/// # Safety
/// The caller claimed the wait, and calls this once.
#[inline]
pub unsafe fn ready_wait(wait: &Wait) {
    // SAFETY: a claimed wait stays alive until its owner is readied by the claimer, this caller.
    unsafe {
        match wait.who {
            Who::Goroutine(g) => {
                note_in_bubble(g);
                if event::is_on() {
                    runtime_of(g).trace_ready(g);
                }
                if status::wake(&*g) == Wake::Enqueue {
                    let m = current_machine();
                    if m.is_null() { runtime_of(g).inject_goroutine(g) } else { (*m).rt.enqueue(g) }
                }
            }
            Who::Thread(word) => {
                // Release: pairs with the Acquire in `block_thread`. The word may be gone before the wake: harmless.
                if (*word).swap(READY, Ordering::Release) == STUCK {
                    STUCK_THREADS.fetch_sub(1, Ordering::Relaxed);
                }
                futex::wake_one(word);
            }
        }
    }
}

/// As `ready_wait`, behind what is queued: who slept is not part of what runs now, and those due together stay in order.
///
/// # Safety
/// As for `ready_wait`.
pub(super) unsafe fn ready_behind(rt: &Runtime, wait: &Wait) {
    // SAFETY: as in `ready_wait`.
    unsafe {
        match wait.who {
            Who::Goroutine(g) => {
                note_in_bubble(g);
                if event::is_on() {
                    runtime_of(g).trace_ready(g);
                }
                if status::wake(&*g) == Wake::Enqueue {
                    rt.enqueue_behind(g);
                }
            }
            Who::Thread(_) => ready_wait(wait),
        }
    }
}

/// `g` is about to be woken: its bubble, if it is in one, does not count it as blocked any more.
#[inline]
unsafe fn note_in_bubble(g: *mut Goroutine) {
    // SAFETY: the caller has claimed the wait of `g`, which does not run before it is woken.
    unsafe {
        if (*g).bubble.id != 0 {
            runtime_of(g).bubbles.note_woken(g);
        }
    }
}

unsafe fn runtime_of(g: *mut Goroutine) -> &'static Runtime {
    // SAFETY: what the runtime says of itself (`Provider`) for every goroutine; runtimes are never freed.
    unsafe { &*(*g).runtime().cast::<Runtime>() }
}

/// Lets others run: the goroutine goes to the tail of the global queue. Returns at once when nobody else could run.
pub fn gosched() {
    give_way(Action::Yield);
}

/// Leaves the stack by `action`, `Yield` or `Preempt`, unless nobody else could run.
pub(super) fn give_way(action: Action) {
    let m = current_machine();
    if m.is_null() {
        return;
    }
    // SAFETY: this thread's M, on a goroutine's stack.
    unsafe {
        let p = (*m).p();
        let rt = (*m).rt;
        if rt.stopping.load(Ordering::Relaxed) && ptr::eq((*m).current, rt.main.load(Ordering::Relaxed)) {
            return;
        }
        let idle = !p.is_null() && (*p).queue.is_empty() && rt.inject.is_empty();
        if idle && (*m).mail_count.load(Ordering::Relaxed) == 0 {
            // Acquire: pairs with the Release stores under the heap's lock.
            let next = (*p).next_when.load(Ordering::Acquire);
            if (next == super::processor::NEVER || next > clock::now_ns())
                && rt.requests.load(Ordering::Relaxed) & !REQUEST_WAITS == 0
                && rt.processors.len() == 1
                && rt.net.waiting() == 0
            {
                rt.close_soft_guard((*(*m).current).bundle);
                return;
            }
        }
        leave(action);
    }
}

/// Waits for nothing; ends by cancellation or, on the main goroutine, by a signal or because nothing else runs any more.
pub fn sleep_for_ever(rt: &'static Runtime) -> Outcome {
    sleep(rt, Reason::SelectNoCases, Until::Never)
}

/// Sleeps until `until`, a time or the place of an ender with one; ends early by cancellation or, on the main goroutine, a signal.
pub fn sleep_until(rt: &'static Runtime, until: impl Into<Until>) -> Outcome {
    sleep(rt, Reason::Sleep, until.into())
}

#[inline]
fn sleep(rt: &'static Runtime, reason: Reason, until: Until) -> Outcome {
    // SAFETY: the place is this caller's until `block` returns. Announced just before it; the wait has no nodes.
    with_place(|place: *mut Wait| unsafe {
        place.write(Wait::new());
        announce(&mut *place);
        block(rt, &mut *place, reason, until)
    })
}
