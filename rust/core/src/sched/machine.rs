//! M: an OS thread that runs goroutines, and the loop it runs.

use super::latency::LockWait;
use super::moving::ThreadLocals;
use super::pin::unlock_at_end;
use super::policy::{self, Meter};
use super::processor::Processor;
use super::runtime::Runtime;
use crate::context::{self, Context};
use crate::event;
use crate::goroutine::host::HostThread;
use crate::goroutine::{Bundle, Goroutine, status};
use crate::primitive::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::primitive::boxes::try_box;
use crate::sys::signal::{self, Mask};
use std::ptr;

/// Why a goroutine came to g0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing pending.
    None,
    /// It waits for a waker.
    Park,
    /// It goes to the global queue.
    Yield,
    /// It goes there behind those that have not used up a slice.
    Preempt,
    /// It ended.
    Exit,
}

/// One OS thread of the runtime. Never freed: sysmon and stale wake-ups may look at it at any time.
pub struct Machine {
    /// The runtime it belongs to.
    pub rt: &'static Runtime,
    /// Its number; 0 is the main thread's.
    pub id: u32,
    /// Where its scheduler left off.
    pub g0: Context,
    /// The host state it idles on; null in a forked child until `home` is called.
    pub home: HostThread,
    /// The host state current on this thread.
    pub current_host: HostThread,
    /// The same while a goroutine runs, for sysmon; null on g0.
    pub visible_host: AtomicPtr<u8>,
    /// The goroutine running.
    pub current: *mut Goroutine,
    /// Its P, or null. Written by itself, and by an M that takes the P while holding the host's lock.
    pub processor: AtomicPtr<Processor>,
    /// On g0 (true) or on a goroutine's stack.
    pub in_scheduler: AtomicBool,
    /// Futex word, and where it sleeps: values in `net`.
    pub note: AtomicU32,
    /// A P handed to it while it sleeps.
    pub handed: AtomicPtr<Processor>,
    /// A P it is asked to take from an M that blocks.
    pub retake: AtomicPtr<Processor>,
    /// Another M, without a P, whose goroutine it is asked to interrupt.
    pub interrupts: AtomicPtr<Machine>,
    /// It is asked to go for the host's lock at once (`sampling`).
    pub(super) samples: AtomicBool,
    /// The next of all Ms.
    pub(super) next_of_all: *const Machine,
    /// Its thread is to end (`retire`).
    pub(super) ends: AtomicBool,
    /// When it went to sleep; under the idle lock.
    pub(super) idle_since_ns: u64,
    /// sysmon watches it because it has no P.
    pub(super) is_outside: AtomicBool,
    /// Runnable goroutines that only this M should run; under the idle lock.
    pub(super) mail: Vec<*mut Goroutine>,
    /// How many those are; read without the lock.
    pub(super) mail_count: AtomicU32,
    /// When the first of them came, ns.
    pub(super) mail_since_ns: AtomicU64,
    /// Without a P, in a call that lasts: the main goroutine runs elsewhere meanwhile. Set by sysmon.
    pub(super) is_stuck: AtomicBool,
    /// Goroutines that parked here with foreign frames on their stacks; while there are any, it runs nothing else.
    pub(super) bound_count: u32,
    /// Its thread has CPUs or a priority of a goroutine's choice: it starts no threads, which would begin with the same.
    pub is_altered: bool,
    /// The signal mask of its thread.
    pub mask: Mask,
    /// Asleep for one of them; under the idle lock.
    pub(super) bound_asleep: bool,
    /// The goroutine that came to g0 and what to do with it once its state is swapped out.
    pub previous: *mut Goroutine,
    /// What to do with `previous`.
    pub action: Action,
    /// How long its goroutine may compute while others wait, ns; 0: as everybody.
    pub(super) slice_ns: AtomicU64,
    /// What its goroutine is charged with.
    pub(super) meter: Meter,
    /// What it waits for the host's lock, as far as that is known.
    #[cfg_attr(model, allow(dead_code, reason = "a model has no boundary"))]
    pub(super) lock_wait: LockWait,
    /// One bundle kept at hand.
    pub spare: *mut Bundle,
    /// Found work without a queue; see the wake rule.
    pub spinning: bool,
    /// Signal handlers in progress on its thread (`boundary::signals`).
    pub signal_depth: AtomicU32,
    /// Its goroutine, detached, is in a call that does not wait, or waits for the host's lock (`boundary`): there is nothing
    /// to hand off.
    pub in_hook: AtomicBool,
    /// The kernel's id of its thread; 0 until that has started.
    pub tid: AtomicU32,
    /// Set by its thread before it runs anything.
    pub(super) thread_locals: ThreadLocals,
}

// SAFETY: fields that other threads touch are atomics; the rest belongs to the M's own thread.
unsafe impl Send for Machine {}
// SAFETY: as above.
unsafe impl Sync for Machine {}

/// The calling thread's M, or null on a plain thread.
#[inline(always)]
pub fn current_machine() -> *mut Machine {
    context::current_get().cast()
}

impl Machine {
    /// A new M of `rt`, without a thread yet; null when memory is refused.
    pub fn new(rt: &'static Runtime, id: u32) -> *mut Machine {
        let Some(thread_locals) = ThreadLocals::new() else { return ptr::null_mut() };
        if !rt.idle.lock().unwrap_or_else(|e| e.into_inner()).make_room() {
            return ptr::null_mut();
        }
        let made = try_box(Machine {
            rt,
            id,
            g0: Context::default(),
            home: ptr::null_mut(),
            current_host: ptr::null_mut(),
            visible_host: AtomicPtr::new(ptr::null_mut()),
            current: ptr::null_mut(),
            processor: AtomicPtr::new(ptr::null_mut()),
            in_scheduler: AtomicBool::new(true),
            note: AtomicU32::new(0),
            handed: AtomicPtr::new(ptr::null_mut()),
            retake: AtomicPtr::new(ptr::null_mut()),
            interrupts: AtomicPtr::new(ptr::null_mut()),
            samples: AtomicBool::new(false),
            next_of_all: ptr::null(),
            ends: AtomicBool::new(false),
            idle_since_ns: 0,
            is_outside: AtomicBool::new(false),
            mail: Vec::new(),
            mail_count: AtomicU32::new(0),
            mail_since_ns: AtomicU64::new(0),
            is_stuck: AtomicBool::new(false),
            bound_count: 0,
            is_altered: false,
            mask: signal::OTHERS,
            bound_asleep: false,
            previous: ptr::null_mut(),
            action: Action::None,
            slice_ns: AtomicU64::new(0),
            meter: Meter::default(),
            lock_wait: LockWait::default(),
            spare: ptr::null_mut(),
            spinning: false,
            signal_depth: AtomicU32::new(0),
            in_hook: AtomicBool::new(false),
            tid: AtomicU32::new(0),
            thread_locals,
        });
        made.map_or(ptr::null_mut(), Box::into_raw)
    }

    /// Makes `mask` its thread's.
    #[inline]
    pub(super) fn block(&mut self, mask: Mask) {
        if self.mask != mask {
            self.mask = mask;
            signal::set_mask(mask);
        }
    }

    /// Its P, or null.
    #[inline(always)]
    pub fn p(&self) -> *mut Processor {
        // Relaxed: written by this thread, or by another under the host's lock, which this thread has taken since.
        self.processor.load(Ordering::Relaxed)
    }

    /// The host state it idles on, made anew if a fork has taken it away.
    ///
    /// # Safety
    /// On this M's thread.
    #[inline]
    pub(super) unsafe fn home(&mut self) -> HostThread {
        if self.home.is_null() {
            // SAFETY: this M's thread.
            unsafe { self.new_home() };
        }
        self.home
    }

    /// Makes `to` the current host state and then finishes what the previous goroutine came for.
    ///
    /// # Safety
    /// On this M's g0, host attached.
    #[inline]
    pub unsafe fn settle(&mut self, to: HostThread) {
        if self.current_host != to {
            // SAFETY: attached with `current_host`; `to` is a state of a goroutine this M owns, or its home.
            unsafe { (self.rt.host.switch)(self.current_host, to) };
            self.current_host = to;
        }
        if self.action != Action::None {
            // SAFETY: the state of `previous` is no longer current (or its bundle stays with this M).
            unsafe { self.finish_previous() };
        }
    }

    /// # Safety
    /// On g0, after the exchange of host states.
    #[inline]
    unsafe fn finish_previous(&mut self) {
        let g = self.previous;
        let action = std::mem::replace(&mut self.action, Action::None);
        self.previous = ptr::null_mut();
        // SAFETY: `g` just left its stack on this M, which owns it until the lines below publish it.
        unsafe {
            match action {
                Action::Park => {
                    let bound = (*(*g).bundle).bound;
                    (*(*g).bundle).parked_s = self.rt.sampler.clock_s();
                    if status::commit_park(&*g) {
                        // It may be gone already.
                    } else if bound {
                        let rt = self.rt;
                        let _idle = rt.idle.lock().unwrap_or_else(|e| e.into_inner());
                        self.put_mail(g);
                    } else {
                        self.rt.enqueue(g);
                    }
                }
                Action::Yield => {
                    // Release, here and below: pairs with the Acquire of the M that takes it from the queue.
                    (*g).status.store(status::RUNNABLE, Ordering::Release);
                    self.rt.inject_at_once(g);
                }
                Action::Preempt => {
                    (*g).status.store(status::RUNNABLE, Ordering::Release);
                    self.put_behind(g);
                }
                Action::Exit => self.retire(g),
                Action::None => {}
            }
        }
    }

    /// The end of a goroutine: descriptor and bundle go back.
    ///
    /// # Safety
    /// `g` is DEAD, off its stack, and its state not current unless its bundle is fit for reuse.
    pub unsafe fn retire(&mut self, g: *mut Goroutine) {
        // SAFETY: this M owns the ended goroutine and its bundle.
        unsafe {
            let bundle = (*g).bundle;
            (*g).bundle = ptr::null_mut();
            self.give_back(g);
            if (*bundle).spoiled {
                self.rt.destroy_bundle(bundle);
            } else if self.spare.is_null() {
                self.spare = bundle;
            } else {
                self.rt.keep_bundle(bundle);
            }
        }
    }

    /// The descriptor of `g`, which has ended or cannot begin, goes back, and what counts it is told.
    ///
    /// # Safety
    /// This M owns `g`; host attached.
    unsafe fn give_back(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise.
        unsafe {
            policy::leave(g, &self.rt.policies);
            if (*g).bubble.id != 0 {
                self.rt.bubbles.leave(g);
            }
            self.rt.registry.give_back(g);
            self.rt.let_in();
        }
    }

    /// Runs `g` until it comes back to g0.
    ///
    /// # Safety
    /// On g0, host attached, with a P, `g` taken from a queue.
    #[inline]
    pub unsafe fn execute(&mut self, g: *mut Goroutine) {
        // SAFETY: a goroutine taken from a queue belongs to the taker; see the status table.
        unsafe {
            // An ended goroutine's bundle goes to the next one that needs one, its state still current: no exchange.
            if self.action == Action::Exit && !(*(*self.previous).bundle).spoiled {
                self.finish_previous();
            }
            if (*g).bundle.is_null() {
                if !self.equip(g) {
                    return;
                }
                (*g).home = ptr::from_mut(self).cast();
            }
            let bundle = (*g).bundle;
            self.rt.rouse(bundle);
            self.block((*bundle).mask);
            if (*bundle).bound {
                (*bundle).bound = false;
                self.bound_count -= 1;
            }
            if event::is_on() {
                self.trace_start(g);
            }
            if (*bundle).starts_detached {
                self.start_detached(g);
            } else {
                self.settle((*bundle).host);
            }
            (*g).status.store(status::RUNNING, Ordering::Relaxed);
            self.current = g;
            if (*g).ready_at != 0 {
                self.note_runs(g);
            }
            let p = self.p();
            if !p.is_null() {
                let ticks = (*p).ticks.load(Ordering::Relaxed);
                (*p).ticks.store(ticks.wrapping_add(1), Ordering::Relaxed);
            }
            self.visible_host.store((*bundle).visible_host(), Ordering::Relaxed);
            self.in_scheduler.store(false, Ordering::Release); // pairs with the Acquire in `blocking::take_over`
            context::switch(&raw mut self.g0, &raw const (*bundle).context, g as usize);
        }
    }

    /// First run of a thread that is a goroutine: it will attach its own state.
    #[cold]
    unsafe fn start_detached(&mut self, g: *mut Goroutine) {
        // SAFETY: on g0, attached; `g` belongs to this M.
        unsafe {
            let home = self.home();
            self.settle(home);
            (self.rt.host.detach)(home);
            (*g).home = ptr::from_mut(self).cast();
            (*(*g).bundle).starts_detached = false;
            self.current_host = (*(*g).bundle).host;
        }
    }

    /// Gives an unstarted goroutine its bundle.
    #[inline]
    unsafe fn equip(&mut self, g: *mut Goroutine) -> bool {
        // SAFETY: `g` and the spare bundle belong to this M, and so does one from the pool.
        unsafe {
            let spare = (*g).stack_shift == 0 && !self.spare.is_null();
            let bundle = match spare {
                true => std::mem::replace(&mut self.spare, ptr::null_mut()),
                false => self.rt.take_bundle((*g).stack_bytes()),
            };
            if bundle.is_null() {
                let home = self.home();
                self.settle(home);
                if event::is_on() {
                    self.trace_start(g);
                    self.trace_left(g, Action::Exit);
                }
                (self.rt.host.start_failed)(g);
                self.give_back(g);
                return false;
            }
            (*bundle).mask = self.rt.mask.load(Ordering::Relaxed);
            (*bundle).movable_at = [0; 4]; // the last goroutine's, as these
            (*bundle).migrations = 0;
            (*bundle).kept_lock_ns.store(0, Ordering::Relaxed);
            (*bundle).no_preempt = 0;
            (*g).bundle = bundle;
            true
        }
    }
}

/// Leaves the running goroutine's stack for its M's g0; returns when it runs again, perhaps on another M.
///
/// # Safety
/// On a goroutine's stack; for `Park` the status is PARKING.
#[inline(never)]
pub unsafe fn leave(action: Action) {
    let m = current_machine();
    // SAFETY: `m` is this thread's M and `current` the caller.
    unsafe {
        let g = (*m).current;
        (*m).previous = g;
        (*m).action = action;
        if event::is_on() {
            (*m).trace_left(g, (*m).action); // read again, so that nothing is kept for a call that mostly is not made
        }
        (*m).in_scheduler.store(true, Ordering::Relaxed);
        let bundle = (*g).bundle;
        (*m).note_binding(&mut *bundle, (&raw const m).addr()); // an address of this frame
        (*m).rt.close_soft_guard(bundle);
        if (*bundle).is_thread {
            (*bundle).host = ((*m).rt.host.current)();
            (*m).current_host = (*bundle).host;
        }
        context::switch(&raw mut (*bundle).context, &raw const (*m).g0, 0);
        if current_machine() != m {
            arrive_elsewhere(g);
        }
    }
}

/// The goroutine came back on another M than it left.
#[cold]
unsafe fn arrive_elsewhere(g: *mut Goroutine) {
    // SAFETY: on the running goroutine's stack with the host attached.
    unsafe {
        let rt = (*current_machine()).rt;
        if ptr::eq(g, rt.main.load(Ordering::Relaxed)) {
            rt.main_tid.store((*current_machine()).tid.load(Ordering::Relaxed), Ordering::Relaxed);
            (rt.host.main_moved)();
        }
    }
}

/// First frame of every goroutine stack: runs one goroutine after another as the stack is reused.
///
/// # Safety
/// Entered by `context::switch` only, `value` being the goroutine.
pub(super) unsafe extern "C-unwind" fn goroutine_main(value: usize) -> ! {
    let mut g = value as *mut Goroutine;
    loop {
        // SAFETY: `g` is RUNNING here, on its own stack; the M is asked for anew after the run, it may be another.
        unsafe {
            let rt = (*current_machine()).rt;
            let thread_body = if (*(*g).bundle).is_thread { rt.thread_body.get() } else { None };
            let reusable = thread_body.map_or_else(|| (rt.host.run)(g), |body| body(g));
            let bundle = (*g).bundle;
            (*bundle).spoiled = !reusable;
            unlock_at_end(&mut *bundle);
            if (!(*bundle).locals.is_null() || (*bundle).wired != 0)
                && let Some(at_end) = rt.at_end.get()
            {
                at_end(g);
            }
            rt.close_soft_guard(bundle);
            if event::is_on() {
                (*current_machine()).trace_left(g, Action::Exit);
            }
            (*g).status.store(status::DEAD, Ordering::Release); // pairs with the Acquire in `Registry::for_each`
            let m = current_machine();
            (*m).previous = g;
            (*m).action = Action::Exit;
            (*m).in_scheduler.store(true, Ordering::Relaxed);
            g = context::switch(&raw mut (*bundle).context, &raw const (*m).g0, 0) as *mut Goroutine;
        }
    }
}

/// Attaches the home state of the M the calling goroutine is on: the goroutine's own is gone. Returns the runtime.
///
/// # Safety
/// On the stack of a goroutine that is a thread, detached, whose bundle has no host state any more.
#[inline(never)]
pub unsafe fn attach_home() -> &'static Runtime {
    let m = current_machine();
    // SAFETY: this thread's M; nobody else uses its home state.
    unsafe {
        let home = (*m).home();
        ((*m).rt.host.attach)(home);
        (*m).current_host = home;
        (*m).visible_host.store(home, Ordering::Relaxed);
        (*(*(*m).current).bundle).is_thread = false;
        (*m).rt
    }
}

/// Ends the calling goroutine where it is: its frames are abandoned, nothing of them is unwound.
///
/// # Safety
/// On its stack, after `attach_home`.
pub unsafe fn exit_for_good(g: *mut Goroutine) -> ! {
    // SAFETY: as at the end of `goroutine_main`; the bundle is spoiled, so nobody switches back.
    unsafe {
        let bundle = (*g).bundle;
        (*bundle).spoiled = true;
        let m = current_machine();
        (*m).rt.close_soft_guard(bundle);
        if event::is_on() {
            (*m).trace_left(g, Action::Exit);
        }
        (*g).status.store(status::DEAD, Ordering::Release); // pairs with the Acquire in `Registry::for_each`
        (*m).previous = g;
        (*m).action = Action::Exit;
        (*m).in_scheduler.store(true, Ordering::Relaxed);
        context::switch(&raw mut (*bundle).context, &raw const (*m).g0, 0);
    }
    unreachable!("a goroutine that has ended is not switched to")
}

/// The scheduler loop of an M, on its g0. Returns when its thread is to end.
///
/// # Safety
/// `m` is this thread's M, host attached with `current_host`.
pub(super) unsafe fn run_machine(m: *mut Machine) {
    loop {
        // SAFETY: only this thread runs this M; no reference into it is kept over `execute`.
        unsafe {
            let g = (*m).find_work();
            if g.is_null() {
                return;
            }
            (*m).execute(g);
        }
    }
}
