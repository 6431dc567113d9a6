//! Who the caller is to C code that asks for its thread: each goroutine somebody else, the main goroutine the main thread.

use super::caller::goroutines_machine;
use super::hooks::original;
use crate::goroutine::Goroutine;
use crate::primitive::atomic::Ordering;
use crate::sched::current_machine;
use crate::sys::thread;
use std::sync::atomic::AtomicUsize;

/// The main thread as C code knows it.
static MAIN: AtomicUsize = AtomicUsize::new(0);

/// The main goroutine as C code knows it: the main thread, or, in a child that another goroutine forked, what that one was.
static MAIN_GOROUTINE: AtomicUsize = AtomicUsize::new(0);

/// Notes the main thread's number. On the main thread.
pub fn note_main_thread() {
    begin(thread::identity());
}

/// On the main thread, whose main goroutine is known as `me`: at the start, and in a forked child.
pub(super) fn begin(me: usize) {
    MAIN.store(thread::identity(), Ordering::Relaxed); // read by threads that learn of it later
    MAIN_GOROUTINE.store(me, Ordering::Relaxed);
}

/// The number of a running goroutine, or, if that is null, of the calling thread.
///
/// # Safety
/// It runs on this thread.
pub(super) unsafe fn of(g: *mut Goroutine) -> usize {
    // SAFETY: a running goroutine has a bundle.
    if g.is_null() { thread::identity() } else { unsafe { (*(*g).bundle).identity } }
}

/// Whether `thread` is the main goroutine's number, and no thread's.
pub(super) fn is_main_goroutine(thread: usize) -> bool {
    thread == MAIN_GOROUTINE.load(Ordering::Relaxed) && thread != main_thread()
}

/// The main thread's number; 0 while it is unknown.
pub(super) fn main_thread() -> usize {
    MAIN.load(Ordering::Relaxed)
}

/// The running goroutine's stack, its base and bytes; `None` on a thread's own.
pub(super) fn stack_bounds() -> Option<(usize, usize)> {
    let m = goroutines_machine();
    if m.is_null() {
        return None;
    }
    // SAFETY: as `goroutines_machine` says.
    let stack = unsafe { (*(*(*m).current).bundle).stack.as_ref() }?;
    Some((stack.base(), stack.size_bytes()))
}

/// `pthread_self`: the goroutine's own number. On g0 and on plain threads the thread's, unless that is the main goroutine's,
/// who may be elsewhere: CPython spares whoever has the number of the goroutine that finalises.
pub(super) extern "C" fn pthread_self() -> usize {
    let m = goroutines_machine();
    // SAFETY: as `goroutines_machine` says.
    unsafe {
        if m.is_null() {
            let (thread, m) = (original::pthread_self::call(), current_machine());
            let is_mains = thread == MAIN_GOROUTINE.load(Ordering::Relaxed);
            return if is_mains && !m.is_null() { m.addr() } else { thread };
        }
        let bundle = (*(*m).current).bundle;
        (*bundle).identity_asked = true;
        (*bundle).identity
    }
}
