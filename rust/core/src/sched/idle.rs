//! Idle Ps and Ms, the wake rule, and how an M sleeps.
//!
//! A producer puts work on a queue and then reads how many Ps are idle; an M that runs out puts its P on the idle list
//! and then reads the queues again. Both fence in between, so one of them sees the other.

use super::machine::Machine;
use super::net::{ASLEEP, Found, IN_POLLER, NOTIFIED};
use super::processor::{NEVER, Processor};
use super::runtime::{QUIET_REQUESTS, REQUEST_SIGNAL, Runtime};
use super::sampling::takes_samples;
use crate::event::{self, Kind, NONE};
use crate::primitive::atomic::{Ordering, fence};
use crate::sys::{clock, futex, signal};
use std::ptr;

/// What is idle; under the runtime's `idle` lock.
#[derive(Default)]
pub(super) struct IdleLists {
    pub(super) processors: Vec<*const Processor>,
    pub(super) machines: Vec<*mut Machine>,
    /// Ms whose threads have ended, and those of them that no goroutine knows any more (`retire`).
    pub(super) ended: Vec<*mut Machine>,
    pub(super) reusable: Vec<*mut Machine>,
    /// Ms asleep for goroutines that are bound to them.
    pub(super) bound_asleep: usize,
    /// Ms ever made: each list of them has room for all, so that who goes to sleep asks for no memory.
    made: usize,
    /// The sleeping M that watches the earliest timer, and the deadline it sleeps until.
    keeper: usize,
    keeper_when: u64,
}

// SAFETY: Ps and Ms are never freed.
unsafe impl Send for IdleLists {}

impl IdleLists {
    /// Whether `m` watches the earliest timer.
    pub(super) fn is_keeper(&self, m: *mut Machine) -> bool {
        self.keeper == m.addr()
    }

    /// Room for one more M in each list; `false`: memory is refused.
    pub(super) fn make_room(&mut self) -> bool {
        let all = self.made + 1;
        let lists = [&mut self.machines, &mut self.ended, &mut self.reusable];
        let has_room = lists.into_iter().all(|list| list.try_reserve(all - list.len()).is_ok());
        self.made += usize::from(has_room);
        has_room
    }

    /// Nobody is idle, in a forked child; the room stays.
    pub(super) fn clear(&mut self) {
        self.processors.clear();
        self.machines.clear();
        self.ended.clear();
        self.reusable.clear();
        (self.bound_asleep, self.keeper, self.keeper_when) = (0, 0, 0);
    }

    /// Takes `m` out of its sleep; `false`: it does not sleep. The caller must then give it a P and notify it.
    ///
    /// # Safety
    /// `m` is an M of this runtime.
    pub(super) unsafe fn take_sleeper(&mut self, m: *mut Machine) -> bool {
        // SAFETY: Ms are never freed; the flag is touched under this lock only.
        unsafe {
            if (*m).bound_asleep {
                (*m).bound_asleep = false;
                self.bound_asleep -= 1;
                return true;
            }
        }
        let place = self.machines.iter().position(|&other| ptr::eq(other, m));
        place.map(|i| self.machines.remove(i)).is_some() // those longest idle stay first
    }
}

impl Runtime {
    /// Gives the caller's `p` up. One beyond GOMAXPROCS goes to nobody, and its queue to all.
    pub(super) fn put_idle_processor(&self, p: &Processor) {
        if event::is_on() {
            self.trace(Kind::Idle, 0, NONE, p.id as u32);
        }
        let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        if p.id >= self.processors.in_use() {
            drop(idle);
            self.queue_to_all(p);
            idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        }
        // Release: pairs with the Acquire of whoever takes it next. Under the lock, as all changes: see `set_processors`.
        p.machine.store(ptr::null_mut(), Ordering::Release);
        if p.id >= self.processors.in_use() {
            return;
        }
        idle.processors.push(p);
        self.idle_processors.store(idle.processors.len(), Ordering::SeqCst); // pairs with `wake_one`'s load
    }

    /// An idle P for `m`, or null.
    fn pop_idle_processor(&self, idle: &mut IdleLists, m: *mut Machine) -> *const Processor {
        let p = idle.processors.pop().unwrap_or(ptr::null());
        // SAFETY: Ps are never freed. Release: pairs with sysmon's Acquire.
        if let Some(p) = unsafe { p.as_ref() } {
            p.machine.store(m, Ordering::Release);
        }
        self.idle_processors.store(idle.processors.len(), Ordering::SeqCst);
        p
    }

    /// Wakes one M (`prefer` if it sleeps) for new work, if a P is idle and nobody looks for work already.
    pub fn wake_one(&self, prefer: *mut Machine) {
        fence(Ordering::SeqCst); // pairs with the fence in `release_and_recheck`
        if self.idle_processors.load(Ordering::SeqCst) == 0 {
            return;
        }
        if self.processors.in_use() > 1 && self.spinning.load(Ordering::SeqCst) != 0 {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        if idle.processors.is_empty() || self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let m = take_machine(&mut idle, prefer);
        let m = if m.is_null() {
            drop(idle);
            let m = self.new_machine();
            if m.is_null() {
                return;
            }
            idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
            m
        } else {
            m
        };
        let p = self.pop_idle_processor(&mut idle, m);
        drop(idle);
        // SAFETY: an M taken from the idle list (or new) sleeps until its note is set; its fields are this caller's.
        unsafe {
            if !p.is_null() {
                (*m).handed.store(p.cast_mut(), Ordering::Relaxed); // published by the note
                if self.processors.in_use() > 1 {
                    (*m).spinning = true;
                    self.counters.spins.fetch_add(1, Ordering::Relaxed);
                    self.spinning.fetch_add(1, Ordering::SeqCst);
                }
            }
            notify(m);
        }
    }

    /// The earliest deadline of all timers, or `NEVER`.
    pub fn next_timer(&self) -> u64 {
        // Acquire: pairs with the Release stores under the heaps' locks.
        self.processors.iter().map(|p| p.next_when.load(Ordering::Acquire)).min().unwrap_or(NEVER)
    }

    /// Whether any queue holds work or a timer is due.
    pub(super) fn has_work(&self) -> bool {
        !self.inject.is_empty()
            || !self.policies.is_empty()
            || self.processors.iter().any(|p| !p.queue.is_empty())
            || self.requests.load(Ordering::Relaxed) & !QUIET_REQUESTS != 0
            || (self.next_timer() != NEVER && self.next_timer() <= clock::now_ns())
    }

    /// Ms asleep without work.
    pub fn idle_machine_count(&self) -> usize {
        let idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        idle.machines.len() + idle.bound_asleep
    }

    /// An M that sleeps, or a new one, to take `p` from an M that blocks; one at a time, for it may wait long for the
    /// host's lock. `false`: none could be had.
    pub(super) fn send_taker(&self, p: &Processor) -> bool {
        if p.taker_sent.swap(true, Ordering::Relaxed) {
            return true;
        }
        let m = sleeper_or_new(self);
        if m.is_null() {
            p.taker_sent.store(false, Ordering::Relaxed);
            return false;
        }
        // SAFETY: as in `wake_one`.
        unsafe {
            (*m).retake.store(ptr::from_ref(p).cast_mut(), Ordering::Relaxed); // published by the note
            notify(m);
        }
        true
    }
}

/// An M that sleeps, or a new one, for an errand; null if none can be had. The caller gives it the errand and notifies it.
pub(super) fn sleeper_or_new(rt: &Runtime) -> *mut Machine {
    let m = take_machine(&mut rt.idle.lock().unwrap_or_else(|e| e.into_inner()), ptr::null_mut());
    if m.is_null() { rt.new_machine() } else { m }
}

fn take_machine(idle: &mut IdleLists, prefer: *mut Machine) -> *mut Machine {
    if let Some(i) = idle.machines.iter().rposition(|&m| !prefer.is_null() && ptr::eq(m, prefer)) {
        return idle.machines.remove(i);
    }
    idle.machines.pop().unwrap_or(ptr::null_mut())
}

/// # Safety
/// `m` was taken from the idle list by this caller, or is new.
pub(super) unsafe fn notify(m: *mut Machine) {
    // SAFETY: Ms are never freed. AcqRel: pairs with the swaps in `sleep_without_work` and `sleep_in_poller`: the errand is
    // seen by the M, and where the M sleeps by us.
    unsafe {
        if (*m).note.swap(NOTIFIED, Ordering::AcqRel) == IN_POLLER {
            (*m).rt.net.wake();
        } else {
            futex::wake_one(&raw const (*m).note);
        }
    }
}

impl Machine {
    /// Takes an idle P, if there is one.
    pub(super) fn acquire_idle_processor(&mut self) -> bool {
        let rt = self.rt;
        let mut idle = rt.idle.lock().unwrap_or_else(|e| e.into_inner());
        let p = rt.pop_idle_processor(&mut idle, self);
        drop(idle);
        if p.is_null() {
            return false;
        }
        self.processor.store(p.cast_mut(), Ordering::Relaxed);
        true
    }

    pub(super) fn stop_spinning(&mut self) {
        self.spinning = false;
        // SeqCst: pairs with the load in `wake_one`: a producer that saw us spin is seen by our next look.
        if self.rt.spinning.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.rt.wake_one(ptr::null_mut());
        }
    }

    /// Gives the P up and looks once more; `true`: there is work and this M has a P again.
    pub(super) fn release_and_recheck(&mut self) -> bool {
        let p = self.processor.swap(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: it was this M's P.
        self.rt.put_idle_processor(unsafe { &*p });
        let spun = self.spinning;
        if spun {
            self.spinning = false;
            self.rt.spinning.fetch_sub(1, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst); // pairs with the fence in `wake_one`
        let is_needed = self.rt.has_work() && self.acquire_idle_processor();
        if is_needed && spun {
            self.spin(); // who put the work there saw this M spin and woke nobody: it wakes the next
        }
        is_needed
    }

    fn spin(&mut self) {
        self.spinning = true;
        self.rt.spinning.fetch_add(1, Ordering::SeqCst); // pairs with the load in `wake_one`
    }

    /// Sleeps, host detached, until somebody has a P or an errand for this M. `false`: its thread is to end, and it is no M any
    /// more.
    ///
    /// # Safety
    /// On g0 with the home state current and no P.
    pub(super) unsafe fn sleep_without_work(&mut self) -> bool {
        let rt = self.rt;
        let me: *mut Machine = self;
        // A thread that waits takes no signals, but main's those that main does not block.
        let main = rt.main.load(Ordering::Relaxed);
        // SAFETY: the main goroutine is never freed.
        let is_mains = !main.is_null() && unsafe { ptr::eq((*main).owner().cast(), me) };
        self.block(if is_mains { rt.mask.load(Ordering::Relaxed) } else { signal::OTHERS });
        // SAFETY: `home` is current.
        unsafe { (rt.host.detach)(self.home) };
        let mine = {
            let mut idle = rt.idle.lock().unwrap_or_else(|e| e.into_inner());
            if self.bound_count == 0 {
                self.idle_since_ns = clock::now_ns();
                idle.machines.push(me);
            } else {
                self.bound_asleep = true;
                idle.bound_asleep += 1;
            }
            self.mail_count.store(0, Ordering::Relaxed); // the idle lock orders it
            std::mem::take(&mut self.mail)
        };
        for g in mine {
            // Whoever takes it from the queue finds this M asleep and hands it a P.
            // SAFETY: whoever put it into the mail owned it, and gave it to this M.
            unsafe { rt.inject_goroutine(g) };
        }
        let mut found = Found::new();
        self.sleep_until_wanted(&mut found);
        self.drop_keeper();
        // SAFETY: the host was detached above, and is attached then.
        unsafe {
            if self.ends.load(Ordering::Relaxed) {
                rt.leave_events(found.take());
                self.end_thread();
                return false;
            }
            self.wake_up();
            if !found.is_empty() {
                rt.ready_events(found.take());
            }
        }
        true
    }

    /// The sleep itself, in the idle list and with the host detached. Leaves events that nobody has been readied for.
    fn sleep_until_wanted(&mut self, found: &mut Found) {
        let rt = self.rt;
        fence(Ordering::SeqCst); // pairs with the fence in `wake_one`
        loop {
            // A producer that came between the recheck and the push found a P but no M asleep, and perhaps could not
            // start one (the limit, EAGAIN): its work is seen here.
            if rt.has_work() && self.wake_self() {
                break;
            }
            let next = rt.next_timer();
            let timeout = self.keep_timers(next);
            let interrupted = if self.may_poll() {
                self.sleep_in_poller(timeout, found)
            } else {
                matches!(futex::wait(&self.note, ASLEEP, timeout), futex::WaitResult::Interrupted)
            };
            // AcqRel: pairs with the swap in `notify`.
            if self.note.swap(ASLEEP, Ordering::AcqRel) == NOTIFIED {
                break;
            }
            if !found.is_empty() {
                if self.wake_self() {
                    break;
                }
                rt.leave_events(found.take());
            }
            // SAFETY: any thread may ask.
            let signal = interrupted && unsafe { (rt.host.signals_pending)() };
            if signal {
                rt.requests.fetch_or(REQUEST_SIGNAL, Ordering::AcqRel); // counts as work
                rt.wake_one(ptr::null_mut()); // this M waits for a goroutine of its own
            }
        }
    }

    /// Takes the host's lock again after a sleep, and what this M was woken for: a P, or the errand to take one.
    ///
    /// # Safety
    /// On g0, host detached.
    pub(super) unsafe fn wake_up(&mut self) {
        let rt = self.rt;
        if rt.stopping.load(Ordering::Acquire) {
            park_forever(); // pairs with the Release in `stop`
        }
        // Published by the note, as is `handed`.
        let wanted = self.retake.swap(ptr::null_mut(), Ordering::Relaxed);
        let begun_ns = if wanted.is_null() { 0 } else { clock::now_ns() };
        let whom = self.interrupts.swap(ptr::null_mut(), Ordering::Relaxed);
        let takes_samples = takes_samples(&self.samples);
        // SAFETY: Ps and Ms are never freed. The host lock is free of this thread; `home` is its state.
        unsafe {
            if let Some(p) = wanted.as_ref() {
                rt.hurry(p);
            }
            if let Some(m) = whom.as_ref() {
                rt.hurry_on(m);
            }
            if takes_samples {
                self.hurry_all();
            }
            (rt.host.attach)(self.home);
        }
        let p = self.handed.swap(ptr::null_mut(), Ordering::Relaxed);
        if !p.is_null() {
            self.processor.store(p, Ordering::Relaxed);
        }
        if !wanted.is_null() {
            // SAFETY: Ps are never freed; host attached.
            unsafe { self.take_over(&*wanted, clock::now_ns() - begun_ns) };
        }
        if !whom.is_null() {
            // SAFETY: as above.
            unsafe { self.interrupt_outsider(whom) };
        }
        if takes_samples {
            // SAFETY: as above.
            unsafe { self.note_samples() };
        }
    }

    /// Becomes the M that watches the timers, if there are any and nobody watches for one this early; returns its time-out
    /// in ns. A keeper that was set for later sleeps on and finds itself replaced, or the keeper again.
    fn keep_timers(&mut self, next: u64) -> Option<u64> {
        if next == NEVER {
            self.drop_keeper(); // it will sleep for longer than the next timer that is set
            return None;
        }
        if self.bound_count != 0 {
            return None;
        }
        let me = ptr::from_mut(self).addr();
        let mut idle = self.rt.idle.lock().unwrap_or_else(|e| e.into_inner());
        if idle.processors.is_empty() {
            // Who has a P looks at the timers at every scheduling point, and watches them once it has none.
            if idle.keeper == me {
                idle.keeper = 0;
            }
            return None;
        }
        if idle.keeper == 0 || next < idle.keeper_when {
            idle.keeper = me;
        }
        if idle.keeper != me {
            return None;
        }
        idle.keeper_when = next;
        drop(idle);
        Some(next.saturating_sub(clock::now_ns()).max(1))
    }

    fn drop_keeper(&mut self) {
        let me = ptr::from_mut(self).addr();
        let mut idle = self.rt.idle.lock().unwrap_or_else(|e| e.into_inner());
        if idle.keeper == me {
            idle.keeper = 0;
        }
    }

    /// Leaves the idle list on its own account, with a P if one is idle. `false`: stay asleep.
    fn wake_self(&mut self) -> bool {
        let rt = self.rt;
        let me: *mut Machine = self;
        let mut idle = rt.idle.lock().unwrap_or_else(|e| e.into_inner());
        if idle.processors.is_empty() {
            return false;
        }
        let Some(i) = idle.machines.iter().position(|&m| ptr::eq(m, me)) else {
            return false; // somebody took this M: the note comes
        };
        idle.machines.remove(i);
        let p = rt.pop_idle_processor(&mut idle, me);
        drop(idle);
        self.handed.store(p.cast_mut(), Ordering::Relaxed);
        if rt.processors.in_use() > 1 {
            self.spin(); // as who is woken by `wake_one`
        }
        true
    }
}

/// The end of an M whose process is exiting: it never touches the host again.
pub(super) fn park_forever() -> ! {
    let word = crate::primitive::atomic::AtomicU32::new(0);
    loop {
        let _ = futex::wait(&word, 0, None);
    }
}
