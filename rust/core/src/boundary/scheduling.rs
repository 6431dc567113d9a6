//! CPUs, niceness and policy belong to an OS thread. A goroutine that changes its own keeps its M for itself until they are
//! as it found them, and its M gets them back at its end. What the main goroutine changes is for the OS threads that are
//! started later, too, as it is with a main thread, and wires nobody.

use super::caller::goroutines_machine;
use super::descriptors::is_this_process;
use super::hooks::original;
use crate::goroutine::Bundle;
use crate::primitive::atomic::Ordering;
use crate::primitive::boxes::try_box;
use crate::sched::machine::Machine;
use crate::sys::errno;
use crate::sys::scheduling::Scheduling;
use libc::{c_int, c_uint, c_void, id_t, pid_t, sched_param, size_t};
use std::ptr;

/// Makes a call that may change the calling thread's scheduling, whoever it names, and notes it if it did. Where there is no
/// memory for that note it fails, with ENOMEM, and nothing is changed.
pub(super) fn noted(call: impl FnOnce() -> c_int) -> c_int {
    let m = goroutines_machine();
    if m.is_null() || !is_this_process() {
        return call();
    }
    let (Some(before), Some(first)) = (try_box(Scheduling::read()), try_box(Scheduling::read())) else {
        errno::set(libc::ENOMEM);
        return -1;
    };
    let result = call();
    let now = Scheduling::read();
    if now != *before {
        // SAFETY: as `goroutines_machine` says.
        unsafe { note(m, before, first, &now) };
    }
    result
}

/// `first` is the same as `before`.
unsafe fn note(m: *mut Machine, before: Box<Scheduling>, mut first: Box<Scheduling>, now: &Scheduling) {
    // SAFETY: the caller's promise.
    unsafe {
        let g = (*m).current;
        if ptr::eq(g, (*m).rt.main.load(Ordering::Relaxed)) {
            *first = now.clone();
            first.make_first();
            return;
        }
        first.make_first_if_none();
        let bundle = &mut *(*g).bundle;
        match &bundle.scheduling_before {
            None => {
                bundle.scheduling_before = Some(before);
                bundle.wired += 1;
                (*m).is_altered = true;
            }
            Some(first) if **first == *now => {
                bundle.scheduling_before = None;
                bundle.wired -= 1;
                (*m).is_altered = false;
            }
            Some(_) => {}
        }
    }
}

/// The goroutine of `bundle`, which is wired, ends: its M goes back to what it was for others, or serves nobody any more
/// where the system refuses that.
///
/// # Safety
/// The running goroutine's.
pub(super) unsafe fn end(bundle: *mut Bundle) {
    let m = goroutines_machine();
    // SAFETY: the caller's promise.
    unsafe {
        (*bundle).wired = 0;
        let Some(before) = (*bundle).scheduling_before.take() else { return };
        if before.restore() {
            (*m).is_altered = false;
        } else {
            (*m).serve_nobody_else();
        }
    }
}

/// `sched_setaffinity`.
pub(super) unsafe extern "C" fn sched_setaffinity(pid: pid_t, size: size_t, set: *const c_void) -> c_int {
    // SAFETY: as called.
    noted(|| unsafe { original::sched_setaffinity::call(pid, size, set) })
}

/// `sched_setscheduler`.
pub(super) unsafe extern "C" fn sched_setscheduler(pid: pid_t, policy: c_int, param: *const sched_param) -> c_int {
    // SAFETY: as called.
    noted(|| unsafe { original::sched_setscheduler::call(pid, policy, param) })
}

/// `sched_setparam`.
pub(super) unsafe extern "C" fn sched_setparam(pid: pid_t, param: *const sched_param) -> c_int {
    // SAFETY: as called.
    noted(|| unsafe { original::sched_setparam::call(pid, param) })
}

/// `setpriority`.
pub(super) unsafe extern "C" fn setpriority(which: c_uint, who: id_t, priority: c_int) -> c_int {
    // SAFETY: as called.
    noted(|| unsafe { original::setpriority::call(which, who, priority) })
}

/// `nice`.
pub(super) unsafe extern "C" fn nice(increment: c_int) -> c_int {
    // SAFETY: as called.
    noted(|| unsafe { original::nice::call(increment) })
}
