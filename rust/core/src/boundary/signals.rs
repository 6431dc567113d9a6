//! Signal handlers run on whatever stack is there, a goroutine's included, and call hooked functions (CPython writes to its
//! wake-up descriptor). While one runs on an M's thread every hook there passes through: nothing parks in a handler, and no
//! lock that the interrupted code may hold is taken.
//!
//! For that, handlers set by known objects are kept here, and the system gets [`on_signal`] in their place.

use super::hooks::original;
use crate::primitive::atomic::Ordering;
use crate::sched::current_machine;
use crate::sys::signal::{Mask, OTHERS, set_mask};
use crate::sys::{errno, thread};
use libc::{c_int, c_void, pid_t, sigaction as Action, siginfo_t};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize};
use std::sync::{Mutex, MutexGuard};

/// One more than the greatest signal number of Linux.
const SIGNALS: usize = 65;

/// The handler that `on_signal` calls for each signal, and the flags it was set with.
static HANDLERS: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(0) }; SIGNALS];
static FLAGS: [AtomicI32; SIGNALS] = [const { AtomicI32::new(0) }; SIGNALS];
/// Held while a handler is exchanged, so that what is kept here and what the system has agree.
static EXCHANGE: Mutex<()> = Mutex::new(());

/// Keeps others from exchanging handlers, over a fork.
pub(super) fn hold() -> MutexGuard<'static, ()> {
    EXCHANGE.lock().unwrap_or_else(|e| e.into_inner())
}

fn is_handler(handler: usize) -> bool {
    handler != libc::SIG_DFL && handler != libc::SIG_IGN
}

/// What the system calls: the kept handler, with the hooks passing through.
unsafe extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let handler = HANDLERS[signal as usize].load(Ordering::Acquire); // pairs with the Release in `sigaction`
    if !is_handler(handler) {
        return; // taken away between the signal and here
    }
    // SAFETY: the kernel's record.
    if unsafe { (*info).si_errno } == POKE {
        return; // it has interrupted a call
    }
    let m = current_machine();
    // SAFETY: this thread's M; handlers on one thread nest. The handler was given with the type its flags say.
    unsafe {
        if !m.is_null() {
            (*m).signal_depth.fetch_add(1, Ordering::Relaxed);
        }
        if FLAGS[signal as usize].load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
            type Informed = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            std::mem::transmute::<usize, Informed>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<usize, unsafe extern "C" fn(c_int)>(handler)(signal);
        }
        if !m.is_null() {
            (*m).signal_depth.fetch_sub(1, Ordering::Relaxed);
        }
        if (*info).si_code != libc::SI_TKILL {
            interrupt_main(signal); // what is sent to a thread stays there
        }
    }
}

/// `si_errno` of a signal that is sent to interrupt a call and for nothing else.
const POKE: c_int = c_int::from_be_bytes(*b"gort");

/// Where main runs, if that is known and main does not block `signal`.
fn mains_thread(signal: c_int) -> Option<u32> {
    let bit = 1 << (signal - 1);
    if OTHERS & bit == 0 { None } else { super::runtime()?.mains_thread(bit) }
}

/// A signal of the process comes to any thread that does not block it, though the main thread is asked first: each thread that
/// changes its mask may be faster. Main may be elsewhere, too, and in a call that the signal is to interrupt. That call is
/// interrupted then, once the handler has run here: if main leaves its thread meanwhile, nothing is lost.
fn interrupt_main(signal: c_int) {
    if let Some(tid) = mains_thread(signal)
        && tid != thread::tid()
    {
        let error = errno::get();
        thread::send_signal(tid, signal, libc::SI_QUEUE, POKE);
        errno::set(error);
    }
}

/// `kill`. A signal that main sends to its own process is handled before the call returns, as it is where a main thread sends it,
/// though main may run on another thread than the kernel asks first.
pub(super) unsafe extern "C" fn kill(pid: pid_t, signal: c_int) -> c_int {
    // SAFETY: as called.
    unsafe {
        let is_own = (1..SIGNALS as c_int).contains(&signal) && pid == libc::getpid();
        if is_own && mains_thread(signal) == Some(thread::tid()) {
            return thread::send_signal(thread::tid(), signal, libc::SI_USER, 0);
        }
        original::kill::call(pid, signal)
    }
}

/// `sigaction`, with handlers kept here and shown as they were given.
pub(super) unsafe extern "C" fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    // SAFETY: as called; the records are the caller's.
    unsafe {
        // SIGSEGV has a chain of its own (`sys::signal`).
        if !(1..SIGNALS as c_int).contains(&signal) || signal == libc::SIGSEGV {
            return original::sigaction::call(signal, new, old);
        }
        let before = block_signals();
        let result = {
            let _exchange = EXCHANGE.lock().unwrap_or_else(|e| e.into_inner());
            exchange(signal as usize, new, old)
        };
        let error = errno::get();
        set_mask(before);
        errno::set(error);
        result
    }
}

/// No handler may come to wait for the lock its own thread holds. Gives the mask to go back to.
pub(super) fn block_signals() -> Mask {
    set_mask(Mask::MAX)
}

unsafe fn exchange(signal: usize, new: *const Action, old: *mut Action) -> c_int {
    // SAFETY: as called.
    unsafe {
        let (kept, kept_flags) = (HANDLERS[signal].load(Ordering::Relaxed), FLAGS[signal].load(Ordering::Relaxed));
        let mut ours = MaybeUninit::<Action>::uninit();
        let mut given = new;
        if let Some(new) = new.as_ref()
            && is_handler(new.sa_sigaction)
        {
            // Kept first: the system may call `on_signal` before its own change is known here.
            HANDLERS[signal].store(new.sa_sigaction, Ordering::Release); // pairs with the Acquire in `on_signal`
            FLAGS[signal].store(new.sa_flags, Ordering::Relaxed);
            ours.write(*new);
            (*ours.as_mut_ptr()).sa_sigaction = on_signal as *const () as usize;
            (*ours.as_mut_ptr()).sa_flags |= libc::SA_SIGINFO;
            given = ours.as_ptr();
        }
        let mut before = MaybeUninit::<Action>::uninit();
        let result = original::sigaction::call(signal as c_int, given, before.as_mut_ptr());
        if result != 0 {
            HANDLERS[signal].store(kept, Ordering::Release);
            FLAGS[signal].store(kept_flags, Ordering::Relaxed);
        } else if !old.is_null() {
            old.write(before.assume_init());
            if (*old).sa_sigaction == on_signal as *const () as usize {
                (*old).sa_sigaction = kept;
                (*old).sa_flags = kept_flags;
            }
        }
        result
    }
}

/// `signal`, by way of `sigaction`, as glibc has it.
pub(super) unsafe extern "C" fn signal(signal: c_int, handler: usize) -> usize {
    // SAFETY: both records are filled in; signal() of glibc restarts calls and masks the signal itself.
    unsafe {
        let mut new: Action = std::mem::zeroed();
        let mut old: Action = std::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut new.sa_mask);
        if sigaction(signal, &raw const new, &raw mut old) != 0 { libc::SIG_ERR } else { old.sa_sigaction }
    }
}

/// Takes over the handlers that `is_known` code set before the hooks were there.
///
/// # Safety
/// The originals are known.
pub(super) unsafe fn adopt_handlers(is_known: impl Fn(usize) -> bool) {
    for signal in 1..SIGNALS as c_int {
        // SAFETY: the record is filled in by a call that succeeds; the handler goes back in through our own `sigaction`.
        unsafe {
            let mut now: Action = std::mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &raw mut now) == 0
                && is_handler(now.sa_sigaction)
                && now.sa_sigaction != on_signal as *const () as usize
                && is_known(now.sa_sigaction)
            {
                sigaction(signal, &raw const now, ptr::null_mut());
            }
        }
    }
}
