//! fork: the forking goroutine is the only one that goes on in the child, as the main goroutine of a runtime that is otherwise
//! as new. A forking plain thread finds no goroutine there at all.
//!
//! A child has one thread, whichever called fork. What other threads of the runtime hold without the host's lock is taken
//! before the fork, so that it is whole in the child; what is touched with the host's lock only is whole because the
//! forking thread has that lock. A thread that forks without it (C code on its way to exec) gets a child that knows
//! nothing of the runtime.
//!
//! Nothing of other goroutines is freed or run: their frames lie about on stacks nobody reuses. They stand in queues of
//! channels and locks, which the new epoch empties (`goroutine::waiter`), and in the scheduler's, which are emptied here.
//! Their timers go with them, and so do all others: who set them may be gone.
//!
//! The process ends with its last thread, and ours never end. So the end of the thread that forked is looked for, and that of
//! the goroutine: when the host has no other threads left, the C library's `exit` is called, as it would itself.
//!
//! The host deletes all its states but the current one after this, so the M makes a new home when it needs one.

use super::idle::IdleLists;
use super::inject_queue::Fifo;
use super::machine::{Action, Machine};
use super::outside::NewOutside;
use super::processor::Processor;
use super::runtime::{Errand, LASTING_REQUESTS, Runtime};
use super::{bubble, current_machine, memory, park};
use crate::goroutine::host::{HostThread, Standing};
use crate::goroutine::{Goroutine, waiter};
use crate::netpoll;
use crate::primitive::MutexGuard;
use crate::primitive::atomic::{AtomicU32, Ordering};
use crate::sys::{clock, futex, thread};
use std::collections::VecDeque;
use std::ptr;

/// How often the ended main goroutine of a forked child looks whether the last thread has ended, ns.
const LAST_THREAD_PAUSE_NS: u64 = 2_000_000;

/// Locks held over a fork. No holder of one takes another one.
pub struct Held {
    net: netpoll::Held<'static>,
    errands: MutexGuard<'static, VecDeque<Errand>>,
    outside: MutexGuard<'static, NewOutside>,
    bubbles: MutexGuard<'static, bubble::All>,
    _states: MutexGuard<'static, ()>,
    idle: MutexGuard<'static, IdleLists>,
    inject: MutexGuard<'static, Fifo<Goroutine>>,
    /// Let go of first: what is left of others goes back there.
    memory: Option<memory::Held<'static>>,
}

impl Runtime {
    /// Before a fork, on the forking thread. Blocks for the moment others hold the locks.
    pub fn before_fork(&'static self) -> Held {
        Held {
            net: self.net.hold(),
            errands: self.errands.lock().unwrap_or_else(|e| e.into_inner()),
            outside: self.outside.lock().unwrap_or_else(|e| e.into_inner()),
            bubbles: self.bubbles.lock(),
            _states: self.state_delete.lock().unwrap_or_else(|e| e.into_inner()),
            idle: self.idle.lock().unwrap_or_else(|e| e.into_inner()),
            inject: self.inject.hold(),
            memory: Some(self.memory.hold()),
        }
    }

    /// Whether the calling thread, which forks, has the host's lock.
    pub fn forker_is_attached(&self) -> bool {
        let m = current_machine();
        // SAFETY: this thread's M, on a goroutine's stack: its goroutine and the bundle are alive and this thread's.
        unsafe {
            if m.is_null() {
                return (self.host.holds_lock)();
            }
            (self.host.standing)((*(*(*m).current).bundle).host) == Standing::Attached
        }
    }

    /// In the child: only the calling goroutine or thread is left. Returns the goroutine, null on a plain thread.
    ///
    /// # Safety
    /// Host attached, in a child just forked, before anything else of the runtime is used there.
    pub unsafe fn in_child(&'static self, held: &mut Held) -> *mut Goroutine {
        waiter::begin_epoch();
        held.memory = None;
        let m = current_machine();
        // SAFETY: this thread's M, which runs the caller; everybody else who could touch any of this is gone.
        unsafe {
            let survivor = if m.is_null() { ptr::null_mut() } else { (*m).current };
            self.net.begin_anew(&mut held.net);
            held.errands.clear();
            *held.outside = NewOutside::default();
            self.inject.forget(&mut held.inject);
            self.policies.forget(self, survivor);
            held.bubbles.forget(survivor);
            park::forget_threads();
            self.forget_saved();
            self.registry.keep_only(survivor);
            self.main.store(survivor, Ordering::Relaxed);
            self.main_tid.store(thread::tid(), Ordering::Relaxed);
            if !survivor.is_null() {
                self.mask.store((*(*survivor).bundle).mask, Ordering::Relaxed);
            }
            self.requests.fetch_and(LASTING_REQUESTS, Ordering::Relaxed);
            self.spinning.store(0, Ordering::Relaxed);
            self.new_homes.store(0, Ordering::Relaxed);
            let is_to_end =
                !survivor.is_null() && (*survivor).cancel_requested.load(Ordering::Relaxed) == Goroutine::ASKED_TO_END;
            self.cancels.store(u32::from(is_to_end), Ordering::Relaxed);
            self.foreign_waits.store(0, Ordering::Relaxed);
            self.sysmon_started.store(false, Ordering::Relaxed);
            self.sampler.forget();
            self.contention.forget();
            let _ = self.tracer.end(); // who reads it is not there
            self.machine_count.store(usize::from(!m.is_null()), Ordering::Relaxed);
            if self.config.seed == 0 {
                self.random.store(clock::now_ns() | 1, Ordering::Relaxed);
            }
            let mine = if m.is_null() { None } else { self.processors.first() };
            held.idle.clear();
            for p in self.processors.iter().rev() {
                p.forget();
                if p.id < self.processors.in_use() && mine.is_none_or(|mine| !ptr::eq(mine, p)) {
                    held.idle.processors.push(p);
                }
            }
            self.idle_processors.store(held.idle.processors.len(), Ordering::Relaxed);
            let bundles = std::mem::take(&mut *self.bundles.lock()).idle;
            bundles.into_iter().for_each(|bundle| self.give_bundle(bundle)); // their states are nobody's any more
            self.forget_limited();
            let mut may_move = (self.host.forked)(survivor);
            if let Some(p) = mine {
                (*m).survive(p, survivor);
                // On a thread's own stack only the process's first thread may be left; that was decided at its adoption.
                may_move &= (*(*survivor).bundle).stack.is_some() || self.main_may_move.load(Ordering::Relaxed);
            } else {
                let _ = thread::at_thread_end(thread_ends); // refused: the process stays until somebody ends it
            }
            self.main_may_move.store(may_move, Ordering::Relaxed);
            FORKED.store(ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
            survivor
        }
    }
}

impl Machine {
    /// The only M of a forked child: it runs `g`, which is at home here.
    ///
    /// # Safety
    /// On `g`'s stack, on this M's thread, which is the process's only one.
    unsafe fn survive(&mut self, p: &'static Processor, g: *mut Goroutine) {
        p.machine.store(self, Ordering::Relaxed);
        self.processor.store(ptr::from_ref(p).cast_mut(), Ordering::Relaxed);
        self.home = ptr::null_mut();
        self.note.store(0, Ordering::Relaxed);
        self.handed.store(ptr::null_mut(), Ordering::Relaxed);
        self.retake.store(ptr::null_mut(), Ordering::Relaxed);
        self.interrupts.store(ptr::null_mut(), Ordering::Relaxed);
        self.mail.clear();
        self.mail_count.store(0, Ordering::Relaxed);
        self.is_stuck.store(false, Ordering::Relaxed);
        self.is_outside.store(false, Ordering::Relaxed);
        self.meter.forget();
        self.bound_count = 0;
        self.is_altered = false; // what the forking goroutine has is the whole child's
        self.bound_asleep = false;
        self.previous = ptr::null_mut();
        self.action = Action::None;
        self.spinning = false;
        self.in_hook.store(false, Ordering::Relaxed);
        self.tid.store(thread::tid(), Ordering::Relaxed);
        let spare = std::mem::replace(&mut self.spare, ptr::null_mut());
        // SAFETY: the running goroutine's own; the spare bundle is this M's.
        unsafe {
            if !spare.is_null() {
                self.rt.give_bundle(spare);
            }
            (*g).home = ptr::from_mut(self).cast();
            (*(*g).bundle).away_on = ptr::null_mut();
            (*(*g).bundle).bound = false;
            self.visible_host.store((*(*g).bundle).visible_host(), Ordering::Relaxed);
        }
    }

    /// # Safety
    /// On this M's thread.
    #[cold]
    pub(super) unsafe fn new_home(&mut self) {
        // SAFETY: the caller's promise.
        self.home = unsafe { (self.rt.host.new_home)() };
        if self.home.is_null() {
            crate::sys::signal::write_stderr(&[b"gort: no memory for a thread state after fork\n"]);
            std::process::abort();
        }
    }

    /// The main goroutine has ended, which only happens in a forked child where it was not the parent's main one: the process
    /// ends as with a last thread. Threads that were started meanwhile it outlives; goroutines end with it.
    ///
    /// # Safety
    /// On g0, host attached, `previous` being that goroutine.
    #[cold]
    pub(super) unsafe fn end_process(&mut self) -> ! {
        let rt = self.rt;
        // SAFETY: the caller's promise.
        unsafe {
            let state = (*(*self.previous).bundle).host;
            let home = self.home();
            if self.current_host != home {
                (rt.host.switch)(self.current_host, home);
                self.current_host = home;
            }
            self.release_processor();
            rt.outlive_threads(home, state)
        }
    }

    /// Lets others run what there is.
    fn release_processor(&mut self) {
        let p = self.processor.swap(ptr::null_mut(), Ordering::Relaxed);
        if !p.is_null() {
            // SAFETY: it was this M's; Ps are never freed.
            self.rt.put_idle_processor(unsafe { &*p });
            self.rt.wake_one(ptr::null_mut());
        }
    }
}

/// The runtime of a forked child.
static FORKED: std::sync::atomic::AtomicPtr<Runtime> = std::sync::atomic::AtomicPtr::new(ptr::null_mut());

/// The plain thread that forked this process ends. Host detached, its state of that thread gone.
fn thread_ends() {
    // SAFETY: null or a runtime, which is never freed; this thread's M, if it has become one, is not on g0 and never
    // runs again.
    unsafe {
        let Some(rt) = FORKED.load(Ordering::Relaxed).as_ref() else { return };
        if rt.machine_count.load(Ordering::Relaxed) == 0 && !rt.sysmon_started.load(Ordering::Relaxed) {
            return; // no thread of ours keeps the process
        }
        let m = current_machine();
        let home = if m.is_null() { (rt.host.new_home)() } else { (*m).home() };
        if home.is_null() {
            return;
        }
        if !m.is_null() {
            (*m).in_scheduler.store(true, Ordering::Relaxed);
        }
        (rt.host.attach)(home);
        if !m.is_null() {
            (*m).release_processor();
        }
        rt.outlive_threads(home, ptr::null_mut())
    }
}

impl Runtime {
    /// Ends the process when the host has no threads left but that of `state`, which has ended.
    ///
    /// # Safety
    /// Host attached with `home`; without a P.
    unsafe fn outlive_threads(&self, home: HostThread, state: HostThread) -> ! {
        let pause = AtomicU32::new(0);
        // SAFETY: the caller's promise.
        unsafe {
            while (self.host.has_threads)(state) {
                (self.host.detach)(home);
                let _ = futex::wait(&pause, 0, Some(LAST_THREAD_PAUSE_NS));
                (self.host.attach)(home);
            }
        }
        // With the host's lock: goroutines that are left run no code of the host while the C library ends.
        thread::exit_process()
    }
}
