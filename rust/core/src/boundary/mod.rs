//! Layer 9: the libc boundary. What would block an OS thread, and what asks who the thread is, is answered by the scheduler.
//!
//! Calls into libc go through import tables. The tables of the interpreter, its extension modules and the libraries under
//! them get functions of ours for the names in [`hooks`] (`elf` replaces, `install` chooses). A hook answers with the
//! scheduler when its caller is a goroutine whose host state is detached (C code that let go of the GIL), and calls the
//! original otherwise ([`caller`]). To park, it attaches the goroutine's own state again, waits like any other wait, and
//! detaches before it returns: nothing of the scheduler is touched without the host's lock.
//!
//! Every hook first tries without waiting, and a wake-up is only a hint to try again. One that succeeds leaves errno as it
//! found it. In a signal handler, in a forked child, on g0 and on a plain thread every hook passes through.
//!
//! A goroutine that waits here is not cancelled: the C code around it has no way to say so. Its cancellation comes at its
//! next wait in the runtime.

mod blame;
mod caller;
mod clocks;
mod connect;
mod descriptors;
mod dns;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(model)
))]
pub mod elf;
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(model)
)))]
#[path = "elf_unsupported.rs"]
pub mod elf;
mod files;
mod fork;
mod fortified;
pub mod hooks;
mod host_lock;
mod identity;
mod install;
mod io;
mod keys;
mod locals;
mod objects;
mod poll;
mod process;
mod pthreads;
mod scheduling;
mod semaphore;
mod signals;
mod sleep;
#[cfg(all(test, target_os = "linux", not(model)))]
mod tests;
pub mod threads;
mod wait;

pub use caller::{allow_parking, is_parking_allowed};
pub use identity::note_main_thread;
pub use install::{Installed, Left, Placed, add, each_object, install, rescan, scanned_loads};
pub use objects::{Kind, is_driver};

use crate::goroutine::Goroutine;
use crate::sched::Runtime;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The runtime whose goroutines the hooks serve; null until they are installed.
static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());

/// Makes the hooks serve `rt`.
pub fn serve(rt: &'static Runtime) {
    RUNTIME.store(ptr::from_ref(rt).cast_mut(), Ordering::Release); // pairs with the Acquire in `runtime`
}

fn runtime() -> Option<&'static Runtime> {
    // SAFETY: null or a runtime, which is never freed. Acquire: pairs with the Release in `serve`.
    unsafe { RUNTIME.load(Ordering::Acquire).as_ref() }
}

/// What `Runtime::at_end` calls: a goroutine that has state in C code has ended. On its stack.
///
/// # Safety
/// `g` runs here.
unsafe fn at_end(g: *mut Goroutine) {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*(*g).bundle).locals.is_null() {
            // Destructors may be the host's code, or ask for its lock: where it exits, it ends the thread by unwinding.
            crate::context::call_to_the_end(keys::drop_table as *const (), g.expose_provenance(), 0, 0);
        }
        if (*(*g).bundle).wired != 0 {
            scheduling::end((*g).bundle);
        }
    }
}
