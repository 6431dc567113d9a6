//! What the host does when the process forks. CPython's part (`PyOS_AfterFork_Child`: a new GIL, the other thread states
//! deleted, `threading` told) comes after all of this; nothing here runs Python code.

use crate::entry::{boundary, go, quit, set_adopted};
use crate::host::OUR_STATES;
use crate::task::{self, GoObject};
use gort_core::goroutine::Goroutine;
use gort_core::goroutine::host::HostThread;
use gort_core::goroutine::waiter;
use pyo3::ffi;
use std::ffi::c_ulong;
use std::sync::atomic::Ordering;

unsafe extern "C" {
    fn gort_holds_gil() -> i32;
    fn gort_forked(state: *mut ffi::PyThreadState, identity: c_ulong) -> i32;
    fn gort_has_threads(besides: *mut ffi::PyThreadState) -> i32;
}

/// `Host::holds_lock`.
pub(crate) unsafe fn holds_lock() -> bool {
    // SAFETY: looks at the calling thread only.
    unsafe { gort_holds_gil() != 0 }
}

/// `Host::forked`. A child that no goroutine forked makes its first use of gort as every main thread does.
pub(crate) unsafe fn forked(survivor: *mut Goroutine) -> bool {
    let rt = task::runtime_or_null();
    // SAFETY: null or a runtime, which is never freed.
    if let Some(rt) = unsafe { rt.as_ref() } {
        quit::forked(rt);
    }
    OUR_STATES.store(0, Ordering::Relaxed); // the main goroutine's, whatever it was made for, does not count
    set_adopted(!survivor.is_null());
    // SAFETY: GIL held; the survivor runs, and its object with it. The main goroutine of the parent has none, nor has a
    // thread that is a goroutine.
    unsafe {
        if survivor.is_null() {
            go::forget_run();
            gort_forked(std::ptr::null_mut(), 0);
            return false;
        }
        let bundle = (*survivor).bundle;
        if (*bundle).stack.is_some() {
            go::forget_run(); // it is not the one that runs on a thread's own stack
        }
        if !(*survivor).task.is_null() && !(*survivor).is_thread() {
            (*(*survivor).task.cast::<GoObject>()).epoch = waiter::epoch();
        }
        let identity = if boundary::has_identity() { (*bundle).identity as c_ulong } else { 0 };
        gort_forked(ffi::PyThreadState_Get(), identity) != 0
    }
}

/// `Host::has_threads`.
pub(crate) unsafe fn has_threads(besides: HostThread) -> bool {
    // SAFETY: GIL held by the core's contract.
    unsafe { gort_has_threads(besides.cast()) != 0 }
}
