//! What happens when a goroutine runs out of stack.
//!
//! Hosts that count recursion count calls, not bytes: C code that keeps large frames is at the end of a small stack long
//! before the count says so. So there is a soft guard above the hard one. Its touch opens it and tells the host to
//! let the next recursive call fail (`Host::end_recursion`); the exception unwinds, and the guard closes when the
//! goroutine parks or ends with enough room again. The hard guard is the end: a report that names the goroutine.

use super::machine::Machine;
use super::{Runtime, current_machine};
use crate::goroutine::{Bundle, Goroutine};
use crate::primitive::atomic::Ordering;
use crate::sys::signal;

/// Room above the soft guard that a stack must have for the guard to be closed again.
const CLEARANCE_BYTES: usize = 16 << 10;

impl Runtime {
    /// Takes part in the process's handling of faults, and gives the calling thread a stack for that.
    pub(super) fn watch_for_overflow(&self) {
        signal::install_repair(repair);
        signal::ensure_alternate_stack();
    }

    /// Closes the soft guard again if the goroutine, which is about to leave its stack, is far enough away from it.
    ///
    /// # Safety
    /// On the stack of `bundle`.
    #[inline]
    pub(super) unsafe fn close_soft_guard(&self, bundle: *mut Bundle) {
        // SAFETY: the running goroutine's bundle.
        if unsafe { (*bundle).soft_guard.is_open.load(Ordering::Relaxed) } {
            // SAFETY: as above.
            unsafe { self.close_slow(bundle) };
        }
    }

    #[cold]
    unsafe fn close_slow(&self, bundle: *mut Bundle) {
        let here = 0u8;
        // SAFETY: the running goroutine's bundle; below `end` nothing of the stack is in use.
        unsafe {
            let Some(stack) = &(*bundle).stack else { return };
            let end = self.stacks.soft_guard_of(stack).end;
            if (&raw const here).addr() > end + CLEARANCE_BYTES && self.stacks.close_soft_guard(stack) {
                (*bundle).soft_guard.is_open.store(false, Ordering::Relaxed);
                (self.host.restore_recursion)((*bundle).host, (*bundle).soft_guard.taken.swap(0, Ordering::Relaxed));
            }
        }
    }
}

/// A fault at `address`: of the running goroutine's stack?
///
/// # Safety
/// In the signal handler of the thread that faulted.
unsafe fn repair(address: usize) -> bool {
    let m: *mut Machine = current_machine();
    // SAFETY: this thread's M; while it is not on g0 the current goroutine and its bundle are alive, and nobody else
    // touches them.
    unsafe {
        if m.is_null() || (*m).in_scheduler.load(Ordering::Relaxed) {
            return false;
        }
        let g = (*m).current;
        let bundle = (*g).bundle;
        let Some(stack) = (!bundle.is_null()).then(|| (*bundle).stack.as_ref()).flatten() else { return false };
        let rt = (*m).rt;
        let soft = rt.stacks.soft_guard_of(stack);
        if soft.contains(&address) {
            if !rt.stacks.open_soft_guard(stack, address) {
                return false;
            }
            (*bundle).soft_guard.is_open.store(true, Ordering::Relaxed);
            // At the next page again: the fault may have come between the host's reading of its count and its writing.
            let taken = (rt.host.end_recursion)((*bundle).host);
            (*bundle).soft_guard.taken.fetch_add(taken, Ordering::Relaxed);
            return true;
        }
        if rt.stacks.hard_guard_of(stack).contains(&address) {
            report(g, stack.top() - soft.start);
        }
        false
    }
}

/// Says which goroutine ran out of stack; the process ends after that.
unsafe fn report(g: *const Goroutine, stack_bytes: usize) {
    let (mut id, mut kib) = ([0; 20], [0; 20]);
    signal::write_stderr(&[
        b"gort: stack overflow in goroutine ",
        // SAFETY: the running goroutine's descriptor.
        digits(unsafe { (*g).id }, &mut id),
        b": its stack of ",
        digits((stack_bytes >> 10) as u64, &mut kib),
        b" KiB is used up by native code. Start it with more: gort.spawn(fn, stack_size=bytes), or set GORT_STACK.\n",
    ]);
}

/// Decimal digits without allocation.
fn digits(mut n: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &buffer[at..];
        }
    }
}
