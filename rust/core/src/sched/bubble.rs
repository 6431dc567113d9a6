//! Bubbles: goroutines with a clock of their own, as Go's testing/synctest has them.
//!
//! The clock of a bubble stands still while one of its goroutines runs, is ready, or waits for what only the outside could
//! bring. When all are durably blocked, whoever drives the bubble (`drive`) wakes the one that waits for just that
//! (`wait_for_others`), or else sets the clock to the bubble's next timer and fires what is due. Once the first of them has
//! ended the clock stands for good: whoever still sleeps is left behind.
//!
//! Durable: on a channel of the bubble, a nil channel, a condition variable, a semaphore, a wait group counted up in the bubble,
//! a goroutine's end, or asleep. Not: a mutex, a descriptor, a child process. Loosely blocked is who waits for a lock of the
//! host's C code: condition variables, queues and events of the host are made of those, and so are its mutexes. The clock goes
//! on over them, after everybody else outside had a turn; a deadlock they are only if nothing in the program runs any more.
//!
//! Bubbles have numbers, not addresses: whoever keeps one (a goroutine, a channel, a timer) may outlive it.
//! Source: runtime/synctest.go and time.go of Go 1.25.

use super::Runtime;
use super::park::{announce, block, ready_behind, ready_wait, retract};
use super::processor::{Due, due_of};
use super::spawn::{caller, running};
use crate::goroutine::waiter::{Listens, Outcome, Reason, Wait};
use crate::goroutine::{Blocked, Goroutine, InBubble};
use crate::primitive::atomic::Ordering;
use crate::primitive::{Mutex, MutexGuard};
use crate::sys::clock;
use crate::timer::{EventTimer, Timer, TimerHeap};
use std::ptr;

/// What the clock of a new bubble shows: midnight UTC of 1 January 2000, as ns since 1970.
pub const START_NS: u64 = 946_684_800_000_000_000;

struct Bubble {
    id: u32,
    now_ns: u64,
    timers: TimerHeap,
    /// Its goroutines; who drives it is none.
    members: usize,
    /// The number of its first one, its main goroutine; 0: nobody was in it yet.
    main: u64,
    /// That one has ended: the clock stands for good.
    is_over: bool,
    /// Of those, durably or loosely blocked.
    blocked: usize,
    /// Of those, loosely.
    loose: usize,
    /// Who drives it, while parked; else null.
    driver: *mut Wait,
    /// Who waits for all others to be blocked, or null.
    waiter: *mut Wait,
}

#[derive(Default)]
pub(super) struct All {
    made: u32,
    live: Vec<Bubble>,
}

// SAFETY: waits and timers in it are alive while they stand there, and are touched under the lock it is in.
unsafe impl Send for All {}

impl All {
    /// In a forked child there are none: not even the survivor is in one.
    ///
    /// # Safety
    /// One thread; the memory of all timers is still there.
    pub(super) unsafe fn forget(&mut self, survivor: *mut Goroutine) {
        // SAFETY: the caller's promise.
        unsafe {
            if !survivor.is_null() {
                ((*survivor).bubble, (*survivor).blocked) = (InBubble::default(), Blocked::No);
            }
            for mut bubble in self.live.drain(..) {
                bubble.timers.forget();
            }
        }
        LIVE.store(0, Ordering::Relaxed);
    }
}

/// How many bubbles there are, in all runtimes. Of std: a static, which loom's cannot be.
static LIVE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Whether there is any: a goroutine that is in one sees it.
#[inline]
pub fn is_any() -> bool {
    LIVE.load(Ordering::Relaxed) != 0 // a goroutine of a bubble comes after the bubble
}

/// All bubbles of a runtime.
pub struct Bubbles(Mutex<All>);

/// How far a bubble came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// All its goroutines have ended.
    Done,
    /// All that are left are durably blocked, and no timer fires any more.
    Deadlock,
    /// The wait of who drives it ended early.
    Ended(Outcome),
}

/// Why nobody can wait for the others of a bubble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWait {
    /// The caller is in none.
    Outside,
    /// Another one waits already.
    Taken,
}

/// What whoever drives is to do next.
enum Step {
    Park,
    Ready(*mut Wait),
    /// To this time; others may go first if somebody is loosely blocked.
    Advance(u64, bool),
    End(Driven),
}

impl Bubble {
    fn is_idle(&self) -> bool {
        self.blocked == self.members
    }

    /// The wait of who drives it, claimed, if that one has something to do; else null.
    fn claim_driver(&mut self) -> *mut Wait {
        if !self.is_idle() {
            return ptr::null_mut();
        }
        claim(&mut self.driver)
    }

    fn next_step(&mut self, wait: *mut Wait) -> Step {
        if self.members == 0 {
            return Step::End(Driven::Done);
        }
        if self.is_idle() {
            let waiter = claim(&mut self.waiter);
            if !waiter.is_null() {
                return Step::Ready(waiter);
            }
            if let Some(when_ns) = self.timers.peek_when().filter(|_| !self.is_over) {
                return Step::Advance(when_ns, self.loose != 0);
            }
            if self.loose == 0 {
                return Step::End(Driven::Deadlock);
            }
        }
        self.driver = wait;
        Step::Park
    }

    fn uncount(&mut self, blocked: &mut Blocked) {
        let before = std::mem::replace(blocked, Blocked::No);
        self.blocked -= usize::from(before != Blocked::No);
        self.loose -= usize::from(before == Blocked::Loosely);
    }
}

/// Takes the wait out of its place and claims it; null if there is none, or somebody else has claimed it.
fn claim(place: &mut *mut Wait) -> *mut Wait {
    let wait = std::mem::replace(place, ptr::null_mut());
    // SAFETY: a wait in a place is alive: its owner takes it out, under the same lock, before it goes.
    if !wait.is_null() && unsafe { (*wait).claim(Outcome::Delivered) } { wait } else { ptr::null_mut() }
}

/// # Safety
/// Null, or claimed by the caller, who calls this once; host attached.
unsafe fn ready(wait: *mut Wait) {
    // SAFETY: the caller's promise.
    unsafe {
        if !wait.is_null() {
            ready_wait(&*wait);
        }
    }
}

/// How a goroutine is blocked that parks for `reason`.
fn blocked_by(reason: Reason, wait: &Wait) -> Blocked {
    match reason {
        Reason::ChanReceive | Reason::ChanSend | Reason::Select | Reason::WaitGroup if !wait.is_durable => Blocked::No,
        Reason::Join if wait.listens != Listens::ToAll => Blocked::Loosely, // a thread's, which C code joins
        Reason::Lock => Blocked::Loosely,
        Reason::None
        | Reason::Mutex
        | Reason::RwMutexRead
        | Reason::RwMutexWrite
        | Reason::Io
        | Reason::Child
        | Reason::Dns
        | Reason::Memory
        | Reason::SynctestRun => Blocked::No,
        _ => Blocked::Durably,
    }
}

/// Whether a deadline of such a wait is one of the world's clock, whatever the goroutine's shows.
fn is_timed_outside(reason: Reason) -> bool {
    matches!(reason, Reason::Io | Reason::Child | Reason::Dns)
}

impl Bubbles {
    pub(super) fn new() -> Self {
        Self(Mutex::new(All::default()))
    }

    /// Keeps everybody else out.
    pub(super) fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// `None`: it has ended.
    fn with<R>(&self, id: u32, f: impl FnOnce(&mut Bubble) -> R) -> Option<R> {
        self.lock().live.iter_mut().find(|bubble| bubble.id == id).map(f)
    }

    /// `g`, which is new, is of the bubble.
    ///
    /// # Safety
    /// `g` is the caller's.
    #[cold]
    pub(super) unsafe fn join(&self, id: u32, g: *mut Goroutine) {
        // SAFETY: the caller's promise.
        self.with(id, |bubble| unsafe {
            bubble.members += 1;
            if bubble.main == 0 {
                bubble.main = (*g).id;
            }
            ((*g).bubble, (*g).blocked) = (InBubble { id }, Blocked::No);
        });
    }

    /// `g`, which has ended, is of it no more.
    ///
    /// # Safety
    /// `g` is the caller's; host attached.
    #[cold]
    pub(super) unsafe fn leave(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise.
        unsafe {
            let place = std::mem::take(&mut (*g).bubble);
            let driver = self.with(place.id, |bubble| {
                bubble.members -= 1;
                bubble.is_over |= bubble.main == (*g).id;
                bubble.claim_driver()
            });
            ready(driver.unwrap_or_default());
        }
    }

    /// `g` is about to park. Takes the deadline over, if it is of the bubble's clock. Returns where that clock is to be set to,
    /// should a deadline of the world's pass first; 0: nowhere.
    ///
    /// # Safety
    /// On the stack of `g`, which is of a bubble and has announced `wait`; `leave_wait` follows. Host attached.
    #[cold]
    pub(super) unsafe fn enter_wait(
        &self,
        g: *mut Goroutine,
        wait: &mut Wait,
        reason: Reason,
        deadline_ns: &mut Option<u64>,
        ends_from_outside: bool,
    ) -> u64 {
        // SAFETY: the caller's promise; the timer stays in place until `leave_wait`.
        unsafe {
            let place = &mut (*g).blocked;
            let entered = self.with((*g).bubble.id, |bubble| {
                let mut until_ns = 0;
                if is_timed_outside(reason) {
                    until_ns = deadline_ns.map_or(0, |at| bubble.now_ns + at.saturating_sub(clock::now_ns()));
                } else if let Some(when_ns) = deadline_ns.take() {
                    wait.timer.when_ns = when_ns;
                    bubble.timers.push(&raw mut wait.timer);
                }
                // Whoever claimed it already will find nobody to uncount.
                if wait.outcome() == Outcome::Pending {
                    *place = if ends_from_outside { Blocked::No } else { blocked_by(reason, wait) };
                    bubble.blocked += usize::from(*place != Blocked::No);
                    bubble.loose += usize::from(*place == Blocked::Loosely);
                }
                (until_ns, bubble.claim_driver())
            });
            let (until_ns, driver) = entered.unwrap_or_default();
            ready(driver);
            until_ns
        }
    }

    /// The wait is over.
    ///
    /// # Safety
    /// As for `enter_wait`, which it follows.
    #[cold]
    pub(super) unsafe fn leave_wait(&self, rt: &'static Runtime, id: u32, wait: &mut Wait, until_ns: u64) {
        // SAFETY: the caller's promise; the timer is queued in this bubble, if anywhere.
        unsafe {
            if wait.timer.is_queued() {
                self.with(id, |bubble| bubble.timers.remove(&raw mut wait.timer));
            }
            if until_ns != 0 && wait.outcome() == Outcome::TimedOut {
                rt.advance(id, until_ns);
            }
        }
    }

    /// `g`, whose wait the caller has claimed, is blocked no more.
    ///
    /// # Safety
    /// A parked goroutine of a bubble, or one about to park, that the caller readies next. Host attached.
    #[cold]
    pub(super) unsafe fn note_woken(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise; the place is touched under the lock.
        unsafe { self.with((*g).bubble.id, |bubble| bubble.uncount(&mut (*g).blocked)) };
    }

    /// Whether there is memory for the timer of a wait of one more goroutine that is of the starter's bubble, if that is in one.
    #[cold]
    pub(super) fn has_room_for_member(&self) -> bool {
        let starter = caller();
        // SAFETY: the running goroutine's own descriptor.
        let id = if starter.is_null() { 0 } else { unsafe { (*starter).bubble.id } };
        self.with(id, |bubble| bubble.timers.keep_room(bubble.members + 1)).unwrap_or(true)
    }

    /// Whether there is memory for one more timer of the bubble.
    pub(super) fn has_room_for_timer(&self, id: u32) -> bool {
        self.with(id, |bubble| bubble.timers.make_room()).unwrap_or(true)
    }

    /// Sets a timer of the bubble; nothing if that has ended.
    ///
    /// # Safety
    /// As for `Runtime::start_timer`.
    pub(super) unsafe fn start_timer(&self, timer: *mut EventTimer, when_ns: u64, period_ns: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            self.with((*timer).bubble, |bubble| {
                (*timer).timer.when_ns = when_ns;
                (*timer).period_ns = period_ns;
                bubble.timers.push(timer.cast::<Timer>());
            });
        }
    }

    /// Takes it out; whether it was set.
    ///
    /// # Safety
    /// As for `Runtime::stop_timer`.
    pub(super) unsafe fn stop_timer(&self, timer: *mut EventTimer) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.with((*timer).bubble, |bubble| bubble.timers.remove(timer.cast())).unwrap_or(false) }
    }
}

/// The bubble the calling goroutine is in; 0: none.
#[inline]
pub fn current_bubble() -> u32 {
    let g = running();
    // SAFETY: the running goroutine's own descriptor.
    if g.is_null() { 0 } else { unsafe { (*g).bubble.id } }
}

/// Whether something made in bubble `bubble` (0: in none) belongs to one that the caller is not in: then it is not the caller's
/// to use.
#[inline]
pub fn is_foreign(bubble: u32) -> bool {
    bubble != 0 && bubble != current_bubble()
}

/// The time as the calling goroutine has it, ns: of its bubble, or of the monotonic clock.
#[inline]
pub fn now_ns() -> u64 {
    bubble_now_ns().unwrap_or_else(clock::now_ns)
}

/// The time of the calling goroutine's bubble, ns since 1970; `None`: it is in none. It stands while the caller runs.
#[inline]
pub fn bubble_now_ns() -> Option<u64> {
    let g = running();
    // SAFETY: the running goroutine's own descriptor; runtimes are never freed.
    unsafe {
        if g.is_null() || (*g).bubble.id == 0 {
            return None;
        }
        let rt = &*(*g).runtime().cast::<Runtime>();
        rt.bubbles.with((*g).bubble.id, |bubble| bubble.now_ns)
    }
}

/// What users of the runtime ask for. Host attached, as for all of these.
impl Runtime {
    /// A new bubble, with nobody in it; 0: there is no memory for it.
    pub fn new_bubble(&self) -> u32 {
        let mut all = self.bubbles.lock();
        if all.live.try_reserve(1).is_err() {
            return 0;
        }
        all.made += 1;
        let bubble = Bubble {
            id: all.made,
            now_ns: START_NS,
            timers: TimerHeap::new(),
            members: 0,
            main: 0,
            is_over: false,
            blocked: 0,
            loose: 0,
            driver: ptr::null_mut(),
            waiter: ptr::null_mut(),
        };
        all.live.push(bubble);
        LIVE.fetch_add(1, Ordering::Relaxed);
        all.made
    }

    /// Ends a bubble. Its timers do not fire any more; goroutines that are left wait for ever, unless they are cancelled.
    pub fn end_bubble(&self, id: u32) {
        let found = {
            let mut all = self.bubbles.lock();
            let place = all.live.iter().position(|bubble| bubble.id == id);
            place.map(|i| all.live.swap_remove(i))
        };
        if let Some(mut bubble) = found {
            LIVE.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: what is queued is alive; nobody finds the heap any more.
            unsafe { bubble.timers.abandon() };
        }
    }

    /// Runs `f` as if the calling goroutine were of bubble `id` (0: of none). `f` does not park.
    pub fn in_bubble<R>(&self, id: u32, f: impl FnOnce() -> R) -> R {
        let g = running();
        if g.is_null() {
            return f();
        }
        // SAFETY: the running goroutine's own descriptor; it does not park, so that nobody counts it meanwhile.
        unsafe {
            let before = std::mem::replace(&mut (*g).bubble.id, id);
            let result = f();
            (*g).bubble.id = before;
            result
        }
    }

    /// Lets the bubble run until its end, on a goroutine outside of it.
    pub fn drive(&'static self, id: u32) -> Driven {
        let mut have_others_run = false;
        loop {
            let mut wait = Wait::new();
            announce(&mut wait);
            let at: *mut Wait = &raw mut wait;
            let step = self.bubbles.with(id, |bubble| bubble.next_step(at)).unwrap_or(Step::End(Driven::Done));
            if !matches!(step, Step::Park) {
                retract(&wait);
            }
            match step {
                Step::Park => {
                    // SAFETY: announced above; its place is emptied below, before it goes.
                    let outcome = unsafe { block(self, &mut wait, Reason::SynctestRun, None) };
                    self.bubbles.with(id, |bubble| bubble.driver = ptr::null_mut());
                    if outcome != Outcome::Delivered {
                        return Driven::Ended(outcome);
                    }
                }
                // SAFETY: claimed by the step, and readied here once.
                Step::Ready(waiter) => unsafe { ready(waiter) },
                Step::Advance(_, true) if !std::mem::replace(&mut have_others_run, true) => {
                    super::gosched(); // who holds the lock outside, perhaps
                    continue;
                }
                // SAFETY: host attached.
                Step::Advance(to_ns, _) => unsafe { self.advance(id, to_ns) },
                Step::End(end) => return end,
            }
            have_others_run = false;
        }
    }

    /// Sets the clock of the bubble to `to_ns` unless it shows more, and fires what is due until then, each at its time.
    ///
    /// # Safety
    /// Host attached, on a goroutine's stack.
    unsafe fn advance(&'static self, id: u32, to_ns: u64) {
        let next = || {
            self.bubbles.with(id, |bubble| {
                let when_ns = bubble.timers.peek_when().filter(|&when_ns| when_ns <= to_ns);
                bubble.now_ns = bubble.now_ns.max(when_ns.unwrap_or(to_ns));
                when_ns.map(|_| due_of(&mut bubble.timers, bubble.now_ns))
            })
        };
        while let Some(Some(due)) = next() {
            // SAFETY: a claimed wait and a taken event are this caller's, once.
            self.in_bubble(id, || unsafe {
                match due {
                    Some(Due::Wait(wait)) => ready_behind(self, &*wait),
                    Some(Due::Event(event, what)) => (event.fire)(what),
                    None => {} // claimed by others, or abandoned
                }
            });
        }
    }

    /// Fires what is due in the calling goroutine's bubble, if it is in one.
    ///
    /// # Safety
    /// Host attached.
    pub(super) unsafe fn poll_bubble(&'static self) {
        if let Some(now_ns) = bubble_now_ns() {
            // SAFETY: the caller's promise; the running goroutine is of the bubble.
            unsafe { self.advance(current_bubble(), now_ns) };
        }
    }

    /// Parks until all other goroutines of the bubble are durably blocked.
    ///
    /// # Errors
    /// See [`NoWait`].
    pub fn wait_for_others(&'static self) -> Result<Outcome, NoWait> {
        let id = current_bubble();
        let mut wait = Wait::new();
        let at: *mut Wait = &raw mut wait;
        announce(&mut wait);
        let is_first = self.bubbles.with(id, |bubble| {
            let is_first = bubble.waiter.is_null();
            if is_first {
                bubble.waiter = at;
            }
            is_first
        });
        if is_first != Some(true) {
            retract(&wait);
            return Err(is_first.map_or(NoWait::Outside, |_| NoWait::Taken));
        }
        // SAFETY: announced above; its place is emptied below, before it goes.
        let outcome = unsafe { block(self, &mut wait, Reason::SynctestWait, None) };
        self.bubbles.with(id, |bubble| {
            if ptr::eq(bubble.waiter, at) {
                bubble.waiter = ptr::null_mut();
            }
        });
        Ok(outcome)
    }
}
