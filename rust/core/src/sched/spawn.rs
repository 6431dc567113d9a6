//! New goroutines, bundles and Ms.

use super::machine::{Machine, goroutine_main, run_machine};
use super::moving::ThreadLocals;
use super::net::{ASLEEP, NOTIFIED};
use super::runtime::{REQUEST_STOP, Runtime};
use super::{current_machine, idle};
use crate::context;
use crate::goroutine::host::HostThread;
use crate::goroutine::{Bundle, Goroutine, status, waiter};
use crate::primitive::atomic::Ordering;
use crate::stack::{Stack, StackDepot};
use crate::sys::{signal, thread};
use std::io;
use std::ptr;

/// Bundles start a cache line.
const BUNDLE_ALIGN: usize = 64;

/// Where the bundle of a stack lies: at its high end. The host's header comes below it and the usable stack below that:
/// one page holds all of them and is touched anyway, and its goroutine's switch finds it in the TLB.
fn bundle_place(stack: &Stack) -> usize {
    stack.top() - size_of::<Bundle>().next_multiple_of(BUNDLE_ALIGN)
}

/// Writes the bundle of a stack to its place; what runs on it begins at `top`.
///
/// # Safety
/// The stack is mapped, nobody's and of 48 KiB at least; `top` is at its bundle's place or below, and aligned to 16.
unsafe fn place_bundle(stack: Stack, top: usize, host: HostThread, stack_bytes: u32) -> *mut Bundle {
    let bundle: *mut Bundle = ptr::with_exposed_provenance_mut(bundle_place(&stack));
    // SAFETY: the caller's promise; the place is aligned to BUNDLE_ALIGN, as the stack's top is to its colour's step.
    unsafe {
        let context = context::init(top, goroutine_main);
        let identity = host.addr();
        bundle.write(Bundle { stack: Some(stack), context, identity, stack_bytes, ..Bundle::on_thread(host, top) });
    }
    bundle
}

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

    /// A new descriptor, null when memory is refused. The global queue shall not ask in the middle of things: where there would
    /// be more goroutines than ever, it makes room for them.
    #[inline]
    fn take_descriptor(&self, task: *mut u8) -> *mut Goroutine {
        self.registry.take(task, ptr::from_ref(self).cast(), |count| self.inject.make_room(count))
    }

    /// Queues a new goroutine to run.
    ///
    /// # Safety
    /// `g` is of `take_descriptor`, and nobody else's yet.
    #[inline]
    unsafe fn launch(&'static self, g: *mut Goroutine) {
        let starter = caller();
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

    /// A bundle with a stack of `stack_bytes` (0: the runtime's size, from the pool if one is there); null when memory is
    /// refused. Host attached.
    pub(super) fn take_bundle(&self, stack_bytes: u32) -> *mut Bundle {
        if stack_bytes == 0
            && let Some(bundle) = self.bundles.lock().0.pop()
        {
            return bundle;
        }
        match self.depot(stack_bytes).and_then(StackDepot::allocate) {
            Ok(stack) => self.make_bundle(stack, stack_bytes),
            Err(_) => ptr::null_mut(),
        }
    }

    /// Where stacks of that size come from and go back to.
    fn depot(&self, stack_bytes: u32) -> io::Result<&StackDepot> {
        if stack_bytes == 0 {
            return Ok(&self.stacks);
        }
        let mut depots = self.other_stacks.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(&(_, depot)) = depots.iter().find(|(size, _)| *size == stack_bytes) {
            return Ok(depot);
        }
        let mut depot = StackDepot::new(stack_bytes as usize, self.stacks.mode())?;
        if self.host.counts_calls {
            depot = depot.with_soft_guards();
        }
        let depot: &'static StackDepot = Box::leak(Box::new(depot));
        depots.push((stack_bytes, depot));
        Ok(depot)
    }

    /// A bundle of the host's state on an unused stack; null when memory is refused. Host attached.
    fn make_bundle(&self, stack: Stack, stack_bytes: u32) -> *mut Bundle {
        let top = bundle_place(&stack) - self.host.header_bytes;
        // SAFETY: host attached by the caller's contract; the stack is unused, and of 48 KiB at least.
        unsafe {
            let host = (self.host.new_thread)(stack.base(), top);
            if host.is_null() {
                self.free_stack(stack, stack_bytes);
                return ptr::null_mut();
            }
            place_bundle(stack, top, host, stack_bytes)
        }
    }

    /// A new goroutine that runs `body` on a stack of its own of `stack_bytes` and brings the host state `state`, which it
    /// attaches itself. It blocks the signals that the caller does. `false`: memory is refused. Host attached.
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
        let Ok(stack) = self.depot(stack_bytes).and_then(StackDepot::allocate) else { return false };
        let g = self.take_descriptor(task);
        if g.is_null() {
            self.free_stack(stack, stack_bytes);
            return false;
        }
        let top = bundle_place(&stack) - self.host.thread_header_bytes;
        // SAFETY: the stack is unused; goroutine and bundle are nobody else's yet, and the state nobody's: its thread has not begun.
        unsafe {
            (self.host.give_header)(state, top);
            let bundle = place_bundle(stack, top, state, stack_bytes);
            (*bundle).identity = identity;
            (*bundle).mask = signal::mask();
            (*bundle).is_thread = true;
            (*bundle).starts_detached = true;
            (*g).body = Some(body);
            (*g).stack_bytes = stack_bytes;
            (*g).bundle = bundle;
            self.launch(g);
        }
        true
    }

    fn free_stack(&self, stack: Stack, stack_bytes: u32) {
        // The depot was there when the stack came from it.
        if let Ok(depot) = self.depot(stack_bytes) {
            depot.retire(stack);
        }
    }

    pub(super) fn keep_bundle(&self, bundle: *mut Bundle) {
        self.bundles.lock().0.push(bundle);
    }

    /// Whether enough bundles lie idle that an ending goroutine should give its memory back.
    pub fn should_retire(&self) -> bool {
        self.bundles.lock().0.len() >= self.config.max_idle_bundles
    }

    /// Deletes a bundle whose state was cleared and is not current.
    ///
    /// # Safety
    /// The caller owns it; host attached on another state.
    pub(super) unsafe fn destroy_bundle(&self, bundle: *mut Bundle) {
        // SAFETY: the caller's promise; `place_bundle` wrote it, and it is read before its stack goes. sysmon may still
        // look at the state, hence the lock.
        unsafe {
            let bundle = bundle.read();
            if !bundle.host.is_null() {
                let _guard = self.state_delete.lock().unwrap_or_else(|e| e.into_inner());
                (self.host.delete_thread)(bundle.host);
            }
            if let Some(stack) = bundle.stack {
                self.free_stack(stack, bundle.stack_bytes);
            }
        }
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
            (*m).home = (self.host.new_home)();
            if (*m).home.is_null() {
                return false;
            }
            (*m).g0 = context::init(stack.top(), main_machine);
            (*m).current_host = state;
            (*m).thread_locals = ThreadLocals::of_this_thread();
            (*m).tid.store(thread::tid(), Ordering::Relaxed); // a hint for sysmon, as below
            let top = (&raw const stack).addr(); // an address of this frame
            (*g).bundle = Box::into_raw(Box::new(Bundle::on_thread(state, top)));
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
        thread::set_name("gort-m");
        (*m).tid.store(thread::tid(), Ordering::Relaxed);
        crate::sys::signal::ensure_alternate_stack();
        (*m).home = (*m).make_home();
        if (*m).home.is_null() {
            idle::park_forever();
        }
        (*m).current_host = (*m).home;
        (*m).first_sleep();
        // With the host's lock: this takes a lock of the loader's, and a fork at that moment would leave it locked in the
        // child for ever (glibc 2.36 does not know that one).
        (*m).thread_locals = ThreadLocals::of_this_thread();
        run_machine(m);
    }
}

impl Machine {
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
