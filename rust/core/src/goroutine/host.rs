//! The table of functions through which the core reaches the host. `rust/py` installs CPython's; tests a [`null_host`].

use super::Goroutine;
use std::ptr;

/// A host's thread state (CPython: `PyThreadState *`). Opaque here.
pub type HostThread = *mut u8;

/// Whether the calling thread holds the host's lock, and with which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// With the state asked about.
    Attached,
    /// It holds no state.
    Detached,
    /// With another one, or about to let go of it for good.
    Other,
}

/// Answers where `Host::lead` leads a pointer: its address, and the bytes that are read from there on.
pub type Lead<'a> = &'a mut dyn FnMut(usize, usize) -> usize;

/// What the core asks of the host. Plain function pointers; none may unwind.
pub struct Host {
    /// One lock serialises all goroutine code (the GIL): see `primitive::exclusive`.
    pub exclusive: bool,
    /// Bytes beside each bundle that are the host's as long as the state of `new_thread` lives, a multiple of 64: the least and
    /// the most it can use. How many it gets follows what others use (`sched::shrink`).
    pub header_bytes: (usize, usize),
    /// The same for a goroutine that is a thread of the host's.
    pub thread_header_bytes: usize,
    /// Gives the state of such a thread, which nobody attached yet, its header. Host attached.
    pub give_header: unsafe fn(thread: HostThread, header: usize, bytes: usize),
    /// Bytes of its header that a goroutine with this state, which is parked, uses; `usize::MAX` if it needs more than it has.
    /// Host attached.
    pub header_used: unsafe fn(HostThread) -> usize,
    /// A thread state for a goroutine on the stack `[base, top)`, with its header; null when memory is refused. Host attached.
    pub new_thread: unsafe fn(base: usize, top: usize, header: usize, bytes: usize) -> HostThread,
    /// Clears the state of a goroutine that has ended, which holds nothing, and is not current. Host attached on another state.
    pub clear_thread: unsafe fn(HostThread),
    /// Deletes a state that was cleared and is not current. Host attached on another state.
    pub delete_thread: unsafe fn(HostThread),
    /// The home state of the calling OS thread, made detached; null when refused. No state is current.
    pub new_home: unsafe fn() -> HostThread,
    /// Deletes the home state of the calling thread, with which it is attached, and lets go of the host's lock.
    pub end_home: unsafe fn(HostThread),
    /// Whether a forking thread holds the lock of the list of states itself, so that `new_home` waits for the end of the fork.
    pub locks_states_at_fork: bool,
    /// Makes `to` current instead of `from` on this OS thread. Host attached.
    pub switch: unsafe fn(from: HostThread, to: HostThread),
    /// Takes the host's lock with this state (blocks).
    pub attach: unsafe fn(HostThread),
    /// Releases the host's lock, this state being current.
    pub detach: unsafe fn(HostThread),
    /// Whether this state, last seen current on some M, has let go of the host's lock. Any thread, no lock; a hint.
    pub is_detached: unsafe fn(HostThread) -> bool,
    /// The same for a state that may be deleted any moment: reads it only if that cannot fault.
    pub seems_detached: unsafe fn(HostThread) -> bool,
    /// The state current on the calling thread. Host attached.
    pub current: unsafe fn() -> HostThread,
    /// Where the calling thread stands; the state is its running goroutine's, or null where that is gone: `Other`. Fit for a
    /// signal handler.
    pub standing: unsafe fn(HostThread) -> Standing,
    /// Whether the host counts recursion by calls, not by bytes of stack, so that stacks need a soft guard.
    pub counts_calls: bool,
    /// Makes the next recursive call on this state fail; returns what that took from the count. In a signal handler.
    pub end_recursion: unsafe fn(HostThread) -> i32,
    /// Gives that back. Host attached.
    pub restore_recursion: unsafe fn(HostThread, taken: i32),
    /// Has the goroutine of this state, which computes and waits for the host's lock, call `sched::preempted` at its next safe
    /// point. `false`: there will be none. Host attached with another state.
    pub interrupt: unsafe fn(HostThread) -> bool,
    /// Whether the host still has to raise in the running goroutine what `sched::preempted` asked for; with `take` it will not.
    /// Host attached.
    pub ends_soon: unsafe fn(take: bool) -> bool,
    /// Whoever has the host's lock with this state, if it does, lets go of it at its next safe point, and waits until another
    /// thread has it. Any thread; it attaches next. The state is alive.
    pub hurry: unsafe fn(HostThread),
    /// Takes that back from the calling thread's state. Host attached.
    pub end_hurry: unsafe fn(),
    /// Whether the calling goroutine, on whose stack `[sp, top)` is in use, may go on on another OS thread: nothing there
    /// belongs to this one. Host attached.
    pub is_movable: unsafe fn(sp: usize, top: usize) -> bool,
    /// Whether the bytes of a parked goroutine's stack `[sp, top)` may lie elsewhere until it runs: nobody but its own frames and
    /// `lead` knows their addresses. Below `sp` there is room for a look at the frames. Host attached.
    pub may_move_stack: unsafe fn(thread: HostThread, sp: usize, top: usize) -> bool,
    /// Asks for each pointer that others follow from this state, of a parked goroutine, to something that may lie on its stack: where
    /// what is there, and is read up to so many bytes on, is to be found from now on. It is readable at both places. Host attached.
    pub lead: unsafe fn(thread: HostThread, place: Lead<'_>),
    /// Runs the goroutine's function on its own stack; returns `true` when its thread state may serve another goroutine.
    pub run: unsafe extern "C-unwind" fn(*mut Goroutine) -> bool,
    /// The goroutine could not start: no memory for its stack or state. Host attached; must not park.
    pub start_failed: unsafe fn(*mut Goroutine),
    /// Whether signals wait for the main goroutine. Any thread, no lock.
    pub signals_pending: unsafe fn() -> bool,
    /// The main goroutine went on on another OS thread. Called on its stack, host attached.
    pub main_moved: unsafe fn(),
    /// Whether no plain thread of the host could wake a goroutine. Host attached.
    pub is_alone: unsafe fn(blocked_threads: usize) -> bool,
    /// Whether the calling thread, which runs no goroutine, holds the host's lock.
    pub holds_lock: unsafe fn() -> bool,
    /// In a forked child, host attached: its only thread runs `survivor`, the main goroutine from now on, or none if that is
    /// null. All other states are gone, or will be. Returns whether that goroutine may go on on another thread.
    pub forked: unsafe fn(survivor: *mut Goroutine) -> bool,
    /// Whether plain threads of the host, or threads that are goroutines, exist beside the state given. Host attached.
    pub has_threads: unsafe fn(HostThread) -> bool,
    /// Lets go of the host's lock on a plain thread; returns a token.
    pub leave_thread: unsafe fn() -> *mut u8,
    /// Takes it back.
    pub return_thread: unsafe fn(*mut u8),
}

unsafe fn null_new_thread(_base: usize, _top: usize, _header: usize, _bytes: usize) -> HostThread {
    ptr::dangling_mut()
}
unsafe fn null_home() -> HostThread {
    ptr::dangling_mut()
}
unsafe fn null_thread(_thread: HostThread) {}
unsafe fn null_header(_thread: HostThread, _header: usize, _bytes: usize) {}
unsafe fn null_used(_thread: HostThread) -> usize {
    0
}
unsafe fn null_switch(_from: HostThread, _to: HostThread) {}
unsafe fn null_is_detached(_thread: HostThread) -> bool {
    false
}
unsafe fn null_current() -> HostThread {
    ptr::dangling_mut()
}
unsafe fn null_standing(_thread: HostThread) -> Standing {
    Standing::Attached
}
unsafe fn null_end_recursion(_thread: HostThread) -> i32 {
    0
}
unsafe fn null_restore_recursion(_thread: HostThread, _taken: i32) {}
unsafe fn null_movable(_sp: usize, _top: usize) -> bool {
    true
}
unsafe fn null_may_move(_thread: HostThread, _sp: usize, _top: usize) -> bool {
    true
}
unsafe fn null_lead(_thread: HostThread, _place: Lead<'_>) {}
unsafe fn null_fail(_g: *mut Goroutine) {}
unsafe fn null_moved() {}
unsafe fn null_ends(_take: bool) -> bool {
    false
}
unsafe fn null_false() -> bool {
    false
}
unsafe fn null_alone(_blocked: usize) -> bool {
    false
}
unsafe fn null_true() -> bool {
    true
}
unsafe fn null_forked(_survivor: *mut Goroutine) -> bool {
    false
}
unsafe fn null_has_threads(_besides: HostThread) -> bool {
    false
}
unsafe fn null_leave() -> *mut u8 {
    ptr::null_mut()
}

/// A goroutine body for the null host: `task` is a `Box<Box<dyn FnOnce()>>`, leaked.
unsafe extern "C-unwind" fn null_run(g: *mut Goroutine) -> bool {
    // SAFETY: tests spawn only such tasks, and a goroutine runs once.
    let body = unsafe { Box::from_raw((*g).task.cast::<Box<dyn FnOnce() + Send>>()) };
    body();
    true
}

/// A host without a language and without a lock: goroutines are Rust closures. For tests of the core.
pub const fn null_host() -> Host {
    Host {
        exclusive: false,
        header_bytes: (0, 0),
        thread_header_bytes: 0,
        give_header: null_header,
        header_used: null_used,
        new_thread: null_new_thread,
        clear_thread: null_thread,
        delete_thread: null_thread,
        new_home: null_home,
        end_home: null_thread,
        locks_states_at_fork: false,
        switch: null_switch,
        attach: null_thread,
        detach: null_thread,
        is_detached: null_is_detached,
        seems_detached: null_is_detached,
        current: null_current,
        standing: null_standing,
        counts_calls: false,
        end_recursion: null_end_recursion,
        restore_recursion: null_restore_recursion,
        interrupt: null_is_detached,
        ends_soon: null_ends,
        hurry: null_thread,
        end_hurry: null_moved,
        is_movable: null_movable,
        may_move_stack: null_may_move,
        lead: null_lead,
        run: null_run,
        start_failed: null_fail,
        signals_pending: null_false,
        main_moved: null_moved,
        is_alone: null_alone,
        holds_lock: null_true,
        forked: null_forked,
        has_threads: null_has_threads,
        leave_thread: null_leave,
        return_thread: null_thread,
    }
}
