//! New goroutines, bundles and Ms.

use super::machine::{Machine, goroutine_main, run_machine};
use super::runtime::Runtime;
use super::{current_machine, idle};
use crate::context::{self, Context};
use crate::goroutine::host::HostThread;
use crate::goroutine::{Bundle, Goroutine, status};
use crate::primitive::atomic::Ordering;
use crate::stack::Stack;
use crate::sys::thread;
use std::ptr;

impl Runtime {
    /// A new goroutine for `task`, queued to run. Never blocks; no system call unless a thread has to be woken.
    #[inline]
    pub fn spawn(&'static self, task: *mut u8, prepare: impl FnOnce(*mut Goroutine)) -> *mut Goroutine {
        let g = self.registry.take(task, ptr::from_ref(self).cast());
        prepare(g);
        // SAFETY: `g` is new and RUNNABLE.
        unsafe { self.enqueue(g) };
        if !self.sysmon_started.load(Ordering::Relaxed) {
            self.start_sysmon();
        }
        g
    }

    /// A bundle from the pool, or a new one; null when memory is refused. Host attached.
    pub(super) fn take_bundle(&self) -> *mut Bundle {
        if let Some(bundle) = self.bundles.lock().0.pop() {
            return bundle;
        }
        match self.stacks.allocate() {
            Ok(stack) => self.make_bundle(stack),
            Err(_) => ptr::null_mut(),
        }
    }

    /// A bundle on `stack`; null when the host refuses a state.
    pub fn make_bundle(&self, stack: Stack) -> *mut Bundle {
        // SAFETY: host attached by the caller's contract; the stack is unused.
        unsafe {
            let host = (self.host.new_thread)(stack.base(), stack.top());
            if host.is_null() {
                self.stacks.free(stack);
                return ptr::null_mut();
            }
            let context = context::init(stack.top(), goroutine_main);
            Box::into_raw(Box::new(Bundle { stack: Some(stack), context, host, spoiled: false }))
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
        // SAFETY: the caller's promise; sysmon may still look at the state, hence the lock.
        unsafe {
            let bundle = Box::from_raw(bundle);
            {
                let _guard = self.state_delete.lock().unwrap_or_else(|e| e.into_inner());
                (self.host.delete_thread)(bundle.host);
            }
            if let Some(stack) = bundle.stack {
                self.stacks.release_pages(&stack);
                self.stacks.free(stack);
            }
        }
    }

    /// Makes the calling thread, which runs the host's main program, M 0 and its program the main goroutine.
    /// Returns `false` when memory is refused.
    ///
    /// # Safety
    /// On the host's main thread, not yet an M, host attached with `state`; called once.
    pub unsafe fn adopt_main(&'static self, state: HostThread) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let Ok(stack) = self.stacks.allocate() else { return false };
            let m = Machine::new(self, 0);
            (*m).home = (self.host.new_home)();
            if (*m).home.is_null() {
                return false;
            }
            (*m).g0 = context::init(stack.top(), main_machine);
            (*m).current_host = state;
            let g = self.registry.take(ptr::null_mut(), ptr::from_ref(self).cast());
            (*g).bundle = Box::into_raw(Box::new(Bundle {
                stack: None,
                context: Context::default(),
                host: state,
                spoiled: false,
            }));
            (*g).locked_machine = m.cast();
            (*g).status.store(status::RUNNING, Ordering::Relaxed);
            (*m).current = g;
            (*m).visible_host.store(state, Ordering::Relaxed);
            (*m).in_scheduler.store(false, Ordering::Relaxed);
            self.machine_count.fetch_add(1, Ordering::Relaxed);
            let _ = (*m).acquire_idle_processor();
            context::current_set(m.cast());
            self.main.store(g, Ordering::Release); // pairs with the Acquire in `serve_requests`
        }
        true
    }

    /// Starts an OS thread for a new M that sleeps at once; null when the limit or the system says no.
    pub(super) fn new_machine(&self) -> *mut Machine {
        let id = self.machine_count.fetch_add(1, Ordering::Relaxed);
        if id >= self.config.max_machines || self.stopping.load(Ordering::Relaxed) {
            self.machine_count.fetch_sub(1, Ordering::Relaxed);
            return ptr::null_mut();
        }
        // SAFETY: runtimes are leaked, so `self` is 'static.
        let rt: &'static Runtime = unsafe { &*ptr::from_ref(self) };
        let m = Machine::new(rt, id.max(1) as u32);
        // SAFETY: the new thread owns the new M; `m` is never freed.
        if unsafe { thread::spawn_raw(machine_thread, m.cast()) }.is_err() {
            self.machine_count.fetch_sub(1, Ordering::Relaxed);
            return ptr::null_mut();
        }
        m
    }

    /// At the host's exit: from here on no M runs anything.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release); // pairs with the Acquire in `sleep_without_work`
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
        let rt = (*m).rt;
        (*m).home = (rt.host.new_home)();
        if (*m).home.is_null() {
            idle::park_forever();
        }
        (*m).current_host = (*m).home;
        (*m).first_sleep();
        run_machine(m);
    }
}

impl Machine {
    /// Waits for the errand this M was started for.
    unsafe fn first_sleep(&mut self) {
        // SAFETY: the M is in no list: only its starter knows it and notifies it once.
        unsafe {
            while self.note.swap(0, Ordering::Acquire) != 1 {
                let _ = crate::sys::futex::wait(&self.note, 0, None);
            }
            if self.rt.stopping.load(Ordering::Acquire) {
                idle::park_forever();
            }
            (self.rt.host.attach)(self.home);
            let p = self.handed.swap(ptr::null_mut(), Ordering::Relaxed);
            if !p.is_null() {
                self.processor.store(p, Ordering::Relaxed);
            }
            let wanted = self.retake.swap(ptr::null_mut(), Ordering::Relaxed);
            if !wanted.is_null() {
                self.take_over(&*wanted);
            }
        }
    }
}

/// The goroutine that runs on this thread, or null on a plain thread.
#[inline(always)]
pub fn running() -> *mut Goroutine {
    let m = current_machine();
    if m.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `m` is this thread's M.
    unsafe { (*m).current }
}
