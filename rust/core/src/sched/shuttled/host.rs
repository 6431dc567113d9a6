//! A host with one lock for all goroutine code, as CPython has it: what the core may rely on is checked at each call.
//!
//! A state is current with the lock held (attached) or not. A goroutine lets go of the lock in a call that waits (`out`) and,
//! when it is asked to or by chance, at a safe point.

use crate::goroutine::Goroutine;
use crate::goroutine::host::{Host, HostThread, Standing, null_host};
use crate::primitive::atomic::{AtomicBool, Ordering};
use crate::primitive::{Condvar, Mutex, delayed, thread};
use crate::sched::{current_goroutine, preempted};
use std::cell::Cell;
use std::ptr;

/// A state. Never freed, so that a use after its end is seen.
struct State {
    is_attached: AtomicBool,
    is_interrupted: AtomicBool,
    is_hurried: AtomicBool,
    is_deleted: AtomicBool,
}

struct Lock {
    /// The state that has it, 0 for none.
    holder: Mutex<usize>,
    freed: Condvar,
}

shuttle::lazy_static! {
    static ref LOCK: Lock = Lock { holder: Mutex::new(0), freed: Condvar::new() };
    static ref SIGNAL: AtomicBool = AtomicBool::new(false);
}

std::thread_local! {
    /// Whether no plain thread will ever wake anybody.
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

pub(super) static HOST: Host = Host {
    exclusive: true,
    new_thread: |_, _, _, _| new_state(),
    clear_thread,
    delete_thread,
    new_home: || new_state(),
    end_home,
    switch,
    attach,
    detach,
    is_detached,
    seems_detached: is_detached,
    current,
    standing,
    interrupt,
    hurry,
    run,
    signals_pending: || SIGNAL.load(Ordering::SeqCst),
    is_alone: |_| IS_ALONE.get(),
    holds_lock: || !current_unlocked().is_null(),
    leave_thread,
    return_thread: attach,
    ..null_host()
};

/// What holds for the execution that begins.
pub(super) fn begin(is_alone: bool) {
    IS_ALONE.set(is_alone);
}

/// A signal comes, or was handled.
pub(super) fn set_signal(is_pending: bool) {
    SIGNAL.store(is_pending, Ordering::SeqCst);
}

pub(super) fn new_state() -> HostThread {
    let no = || AtomicBool::new(false);
    let state = State { is_attached: no(), is_interrupted: no(), is_hurried: no(), is_deleted: no() };
    Box::into_raw(Box::new(state)).cast()
}

fn state<'a>(thread: HostThread) -> &'a State {
    assert!(!thread.is_null(), "no state");
    // SAFETY: made by `new_state`, never freed.
    let state = unsafe { &*thread.cast::<State>() };
    assert!(!state.is_deleted.load(Ordering::SeqCst), "a deleted state is used");
    state
}

pub(super) unsafe fn attach(thread: HostThread) {
    let state = state(thread);
    let mut holder = LOCK.holder.lock().expect("no panic inside");
    while *holder != 0 {
        holder = LOCK.freed.wait(holder).expect("no panic inside");
    }
    *holder = thread.expose_provenance();
    state.is_attached.store(true, Ordering::SeqCst);
}

fn give_up(thread: HostThread) {
    state(thread).is_attached.store(false, Ordering::SeqCst);
    let mut holder = LOCK.holder.lock().expect("no panic inside");
    assert_eq!(*holder, thread.addr(), "the lock is let go of by who does not have it");
    *holder = 0;
    LOCK.freed.notify_one();
}

pub(super) unsafe fn detach(thread: HostThread) {
    give_up(thread);
}

/// By turns as CPython 3.11 and 3.12 do it, and as 3.13 and later: these let go of the lock in between.
unsafe fn switch(from: HostThread, to: HostThread) {
    let (old, new) = (state(from), state(to));
    if delayed::below(2) == 0 {
        give_up(from);
        assert!(!new.is_attached.load(Ordering::SeqCst), "a state is current twice");
        // SAFETY: a state of the caller's, who is not attached any more.
        return unsafe { attach(to) };
    }
    let mut holder = LOCK.holder.lock().expect("no panic inside");
    assert_eq!(*holder, from.addr(), "states are exchanged by who does not have the lock");
    *holder = to.expose_provenance();
    assert!(!new.is_attached.load(Ordering::SeqCst), "a state is current twice");
    old.is_attached.store(false, Ordering::SeqCst);
    new.is_attached.store(true, Ordering::SeqCst);
}

unsafe fn clear_thread(thread: HostThread) {
    assert!(!state(thread).is_attached.load(Ordering::SeqCst), "the current state is cleared");
}

unsafe fn delete_thread(thread: HostThread) {
    let state = state(thread);
    assert!(!state.is_attached.load(Ordering::SeqCst), "the current state is deleted");
    assert!(!current_unlocked().is_null(), "a state is deleted without the lock");
    state.is_deleted.store(true, Ordering::SeqCst);
}

unsafe fn end_home(thread: HostThread) {
    let state = state(thread);
    give_up(thread);
    state.is_deleted.store(true, Ordering::SeqCst);
}

unsafe fn is_detached(thread: HostThread) -> bool {
    !state(thread).is_attached.load(Ordering::SeqCst)
}

fn current_unlocked() -> HostThread {
    ptr::with_exposed_provenance_mut(*LOCK.holder.lock().expect("no panic inside"))
}

unsafe fn current() -> HostThread {
    current_unlocked()
}

unsafe fn standing(thread: HostThread) -> Standing {
    match ptr::eq(current_unlocked(), thread) {
        true => Standing::Attached,
        false => Standing::Detached,
    }
}

unsafe fn interrupt(thread: HostThread) -> bool {
    assert!(!ptr::eq(current_unlocked(), thread), "who computes is interrupted by another thread");
    state(thread).is_interrupted.store(true, Ordering::SeqCst);
    true
}

unsafe fn hurry(thread: HostThread) {
    state(thread).is_hurried.store(true, Ordering::SeqCst);
}

unsafe fn leave_thread() -> *mut u8 {
    let own = current_unlocked();
    give_up(own);
    own
}

/// `task` is as for the null host. Some states serve no other goroutine.
unsafe extern "C-unwind" fn run(g: *mut Goroutine) -> bool {
    // SAFETY: as for the null host.
    let body = unsafe { Box::from_raw((*g).task.cast::<Box<dyn FnOnce() + Send>>()) };
    body();
    delayed::below(4) != 0
}

/// The state of the goroutine that runs here.
fn own() -> HostThread {
    // SAFETY: the running goroutine's bundle.
    unsafe { (*(*current_goroutine()).bundle).host }
}

/// A call of the goroutine's that may wait: without the lock.
pub(super) fn out<R>(call: impl FnOnce() -> R) -> R {
    let own = own();
    // SAFETY: the running goroutine's state, attached.
    unsafe { detach(own) };
    let result = call();
    // SAFETY: as above, on the same thread.
    unsafe { attach(own) };
    result
}

/// What a goroutine that computes passes now and then; returns whether it has to end.
pub(super) fn safe_point() -> bool {
    thread::yield_now(); // who computes takes no other thread's time
    let state = state(own());
    if state.is_hurried.swap(false, Ordering::SeqCst) || delayed::below(8) == 0 {
        out(|| ()); // whoever waits for the lock may have it
    }
    state.is_interrupted.swap(false, Ordering::SeqCst) && preempted()
}

/// A plain thread of the host's that runs `body`.
pub(super) fn start_thread(body: impl FnOnce() + 'static) {
    thread::start(move || {
        let own = new_state();
        // SAFETY: this thread's state.
        unsafe { attach(own) };
        body();
        // SAFETY: as above.
        unsafe { detach(own) };
    });
}
