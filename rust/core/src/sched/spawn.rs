//! New goroutines and Ms.

use super::machine::{Machine, run_machine};
use super::net::{ASLEEP, NOTIFIED};
use super::runtime::{REQUEST_STOP, Runtime};
use super::{bubble, current_machine, idle};
use crate::context;
use crate::event;
use crate::goroutine::host::HostThread;
use crate::goroutine::slab::Provider;
use crate::goroutine::{Bundle, Goroutine, status, waiter};
use crate::primitive::atomic::{AtomicU32, Ordering};
use crate::primitive::boxes::try_box;
use crate::sys::{signal, thread};
use std::ptr;

/// How long an M waits where there was no memory for its thread's state, until it asks again.
const HOME_RETRY_NS: u64 = 1_000_000;

impl Runtime {
    /// A new goroutine for `task`, queued to run; null, and `prepare` not called, when memory is refused. Never blocks; no system
    /// call unless a thread has to be woken.
    #[inline]
    pub fn spawn(&'static self, task: *mut u8, prepare: impl FnOnce(*mut Goroutine)) -> *mut Goroutine {
        let g = self.take_descriptor(task);
        if !g.is_null() {
            prepare(g);
            // SAFETY: `g` is new and RUNNABLE.
            unsafe { self.launch(g) };
        }
        g
    }

    /// A new descriptor, null when memory is refused. Queues and heaps shall not ask in the middle of things: where there would
    /// be more goroutines than ever, they make room for them.
    #[inline]
    fn take_descriptor(&self, task: *mut u8) -> *mut Goroutine {
        if bubble::is_any() && !self.bubbles.has_room_for_member() {
            return ptr::null_mut();
        }
        self.registry.take(task, self)
    }

    /// Queues a new goroutine to run.
    ///
    /// # Safety
    /// `g` is of `take_descriptor`, and nobody else's yet.
    #[inline]
    unsafe fn launch(&'static self, g: *mut Goroutine) {
        let starter = caller();
        if event::is_on() {
            self.trace_created(g);
        }
        // SAFETY: the caller's promise; the starter is the running goroutine.
        unsafe {
            if !starter.is_null() && (*starter).bubble.id != 0 {
                self.bubbles.join((*starter).bubble.id, g);
            }
            self.enqueue(g);
        }
        if !self.sysmon_started.load(Ordering::Relaxed) {
            self.start_sysmon();
        }
    }

    /// A new goroutine that runs `body` on a stack of its own of `stack_bytes` and brings the host state `state`, which it
    /// attaches itself. It blocks the signals that the caller does. `false`: memory is refused, or more than the
    /// limit on it. Host attached.
    ///
    /// # Safety
    /// `body` may be run with the goroutine of `task`; it ends attached by `machine::attach_home`.
    pub unsafe fn spawn_thread(
        &'static self,
        task: *mut u8,
        body: unsafe extern "C-unwind" fn(*mut Goroutine) -> bool,
        state: HostThread,
        identity: usize,
        stack_bytes: usize,
    ) -> bool {
        let stack_bytes = stack_bytes as u32; // at most 1 GiB
        if self.is_limited() && !self.makes_room() {
            return false;
        }
        let g = self.take_descriptor(task);
        if g.is_null() {
            return false;
        }
        let _ = self.thread_body.set(body); // the same for all
        // SAFETY: goroutine and bundle are nobody else's yet, and the state nobody's: its thread has not begun.
        unsafe {
            let bundle = self.make_threads_bundle(state, stack_bytes);
            if bundle.is_null() {
                self.registry.give_back(g);
                return false;
            }
            (*bundle).identity = identity;
            (*bundle).mask = signal::mask();
            (*bundle).is_thread = true;
            (*bundle).starts_detached = true;
            (*g).bundle = bundle;
            self.launch(g);
        }
        true
    }

    /// Makes the calling thread, which runs the host's main program, M 0 and its program the main goroutine.
    /// `may_move`: the host lets it go on on another thread. Returns `false` when memory is refused.
    ///
    /// # Safety
    /// On the host's main thread, not yet an M, host attached with `state`; called once.
    pub unsafe fn adopt_main(&'static self, state: HostThread, may_move: bool) -> bool {
        // Whoever returns from the first function of a thread must do so there; only the process's first thread has none. In a
        // forked child this may be another one.
        let may_move = may_move && waiter::epoch() == 1;
        self.main_may_move.store(may_move, Ordering::Relaxed); // published with `main`
        // SAFETY: the caller's promise.
        unsafe {
            let Ok(stack) = self.stacks.allocate() else { return false };
            let g = self.take_descriptor(ptr::null_mut());
            if g.is_null() {
                self.stacks.free(stack);
                return false;
            }
            let m = Machine::new(self, 0);
            let bundle = try_box(Bundle::on_thread(state, (&raw const stack).addr())); // an address of this frame
            let home = if m.is_null() || bundle.is_none() { ptr::null_mut() } else { (self.host.new_home)() };
            let (false, Some(bundle)) = (home.is_null(), bundle) else {
                if !m.is_null() {
                    drop(Box::from_raw(m)); // nobody knows of it yet
                }
                self.registry.give_back(g);
                self.stacks.free(stack);
                return false;
            };
            (*m).home = home;
            self.sampler.machines.add(m);
            (*m).g0 = context::init(stack.top(), main_machine);
            (*m).current_host = state;
            (*m).thread_locals.note();
            (*m).tid.store(thread::tid(), Ordering::Relaxed); // a hint for sysmon, as below
            (*g).bundle = Box::into_raw(bundle);
            (*g).home = m.cast();
            (*g).status.store(status::RUNNING, Ordering::Relaxed);
            (*m).mask = signal::mask();
            (*(*g).bundle).mask = (*m).mask;
            self.mask.store((*m).mask, Ordering::Relaxed);
            (*m).current = g;
            (*m).visible_host.store(state, Ordering::Relaxed);
            (*m).in_scheduler.store(false, Ordering::Relaxed);
            self.machine_count.fetch_add(1, Ordering::Relaxed);
            crate::sys::signal::ensure_alternate_stack();
            let _ = (*m).acquire_idle_processor();
            context::current_set(m.cast());
            self.main_tid.store(thread::tid(), Ordering::Relaxed);
            self.main.store(g, Ordering::Release); // pairs with the Acquire in `serve_requests`
        }
        self.start_sysmon(); // a main goroutine that waits alone is a deadlock too, and has spawned nobody
        true
    }

    /// Starts an OS thread for a new M that sleeps at once; null when the limit or the system says no, or the calling thread is
    /// not fit to start one: sysmon does it then, at its next look (Go's template thread).
    pub(super) fn new_machine(&self) -> *mut Machine {
        let caller = current_machine();
        // SAFETY: this thread's M.
        if !caller.is_null() && unsafe { (*caller).is_altered } {
            return ptr::null_mut();
        }
        let id = self.machine_count.fetch_add(1, Ordering::Relaxed);
        if id >= self.config.max_machines || self.stopping.load(Ordering::Relaxed) {
            self.machine_count.fetch_sub(1, Ordering::Relaxed);
            return ptr::null_mut();
        }
        // SAFETY: runtimes are leaked, so `self` is 'static.
        let rt: &'static Runtime = unsafe { &*ptr::from_ref(self) };
        let mut m = self.reusable_machine();
        if m.is_null() {
            m = Machine::new(rt, id.max(1) as u32);
            if m.is_null() {
                self.machine_count.fetch_sub(1, Ordering::Relaxed);
                return m;
            }
            self.sampler.machines.add(m); // it is never freed
        }
        // SAFETY: the new thread owns the M; `m` is never freed.
        if unsafe { thread::spawn_raw(machine_thread, m.cast()) }.is_err() {
            self.idle.lock().unwrap_or_else(|e| e.into_inner()).reusable.push(m);
            self.machine_count.fetch_sub(1, Ordering::Relaxed);
            return ptr::null_mut();
        }
        m
    }

    /// At the host's exit, on the main goroutine: brings it home to its thread if it can, and from here on no M but the
    /// one it is on runs anything or makes a host state.
    pub fn stop(&self) {
        let main = self.main.load(Ordering::Acquire); // pairs with the Release in `adopt_main`
        if !main.is_null() && ptr::eq(main, running()) {
            // SAFETY: the main goroutine and Ms are never freed; this is the main goroutine.
            unsafe {
                let home = (*main).owner().cast::<Machine>();
                for _ in 0..2 {
                    if !ptr::eq(current_machine(), home) && !(*home).is_stuck.load(Ordering::Relaxed) {
                        super::machine::leave(super::machine::Action::Yield);
                    }
                }
            }
        }
        // Pairs with the Acquire in `search`; SeqCst for `make_home`.
        self.stopping.store(true, Ordering::SeqCst);
        while self.new_homes.load(Ordering::SeqCst) != 0 {
            crate::primitive::thread::yield_now(); // such an M needs no lock that is held here
        }
        drop(self.state_delete.lock()); // who hurries somebody has done so, or will not
        // SAFETY: host attached.
        unsafe { (self.host.end_hurry)() };
        self.requests.fetch_or(REQUEST_STOP, Ordering::AcqRel); // keeps Ms off the short way
    }
}

impl Provider for Runtime {
    fn runtime(&self) -> *const u8 {
        ptr::from_ref(self).cast()
    }

    fn make_room(&self, count: usize) -> bool {
        self.make_room_for(count)
    }

    fn memory(&self, bytes: usize) -> *mut u8 {
        self.take_object(bytes)
    }

    unsafe fn take_back(&self, object: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.give_object(object, bytes) };
    }
}

/// g0 of M 0, which has a stack of its own because the main goroutine uses the thread's.
unsafe extern "C-unwind" fn main_machine(_value: usize) -> ! {
    // SAFETY: entered from the main goroutine's first park, on M 0.
    unsafe { run_machine(current_machine()) };
    unreachable!("the scheduler loop does not end")
}

/// First function of the OS thread of an M. Holds nothing with a destructor: CPython ends threads by unwinding.
unsafe extern "C-unwind" fn machine_thread(argument: *mut u8) {
    let m = argument.cast::<Machine>();
    // SAFETY: the M was made for this thread.
    unsafe {
        context::current_set(m.cast());
        thread::set_name(c"gort-m");
        (*m).tid.store(thread::tid(), Ordering::Relaxed);
        crate::sys::signal::ensure_alternate_stack();
        (*m).home = (*m).wait_for_home();
        (*m).current_host = (*m).home;
        (*m).first_sleep();
        // With the host's lock: this takes a lock of the loader's, and a fork at that moment would leave it locked in the
        // child for ever (glibc 2.36 does not know that one).
        (*m).thread_locals.note();
        run_machine(m);
    }
}

impl Machine {
    /// A host state for this M's thread, once there is memory for one: somebody counts on this M, it may have a P by now. Does not
    /// return where the host exits.
    unsafe fn wait_for_home(&self) -> HostThread {
        loop {
            // SAFETY: the caller's promise.
            let home = unsafe { self.make_home() };
            if !home.is_null() {
                return home;
            }
            if self.rt.stopping.load(Ordering::SeqCst) {
                idle::park_forever();
            }
            let _ = crate::sys::futex::wait(&AtomicU32::new(0), 0, Some(HOME_RETRY_NS));
        }
    }

    /// A host state for this M's thread, not between another thread's fork and its end: up to 3.12 CPython takes the lock of
    /// its list of states in the child before it makes that lock anew. Later ones fork with that lock held: to wait for
    /// it here with ours, which the fork takes next, would be a deadlock.
    ///
    /// Null when memory is refused or the host exits: then there may be nothing left to make it in.
    unsafe fn make_home(&self) -> HostThread {
        let rt = self.rt;
        // SeqCst, here and in `stop`: either this M sees that it stops, or `stop` sees this M and waits.
        rt.new_homes.fetch_add(1, Ordering::SeqCst);
        let home = if rt.stopping.load(Ordering::SeqCst) {
            ptr::null_mut()
        } else {
            let _no_fork = (!rt.host.locks_states_at_fork).then(|| rt.state_delete.lock());
            // SAFETY: on this M's thread, which has no state yet.
            unsafe { (rt.host.new_home)() }
        };
        rt.new_homes.fetch_sub(1, Ordering::SeqCst);
        home
    }

    /// Waits for the errand this M was started for.
    unsafe fn first_sleep(&mut self) {
        // SAFETY: the M is in no list: only its starter knows it and notifies it once.
        unsafe {
            while self.note.swap(ASLEEP, Ordering::Acquire) != NOTIFIED {
                let _ = crate::sys::futex::wait(&self.note, ASLEEP, None);
            }
            self.wake_up();
        }
    }
}

/// The goroutine whose code calls, or null: on a plain thread, and on g0, where timers fire.
#[inline]
pub fn caller() -> *mut Goroutine {
    let m = current_machine();
    // SAFETY: this thread's M. Relaxed: this thread's own store.
    unsafe { if m.is_null() || (*m).in_scheduler.load(Ordering::Relaxed) { ptr::null_mut() } else { (*m).current } }
}

/// The goroutine that runs on this thread, or null on a plain thread. On g0: the one that ran last.
#[inline(always)]
pub fn running() -> *mut Goroutine {
    let m = current_machine();
    if m.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `m` is this thread's M.
    unsafe { (*m).current }
}
