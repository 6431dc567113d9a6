//! Layer 4: the context switch, and the one thread-local of the core.
//!
//! Our own assembly, one file per CPU: callee-saved registers only, because a switch is a function call. Control words
//! of the floating-point unit are not saved: they follow the thread (docs/design/001-context-switch.md). The base frame
//! of a new stack tells unwinders that the stack ends there.

#[cfg(all(target_arch = "aarch64", not(model)))]
mod aarch64;
#[cfg(all(target_arch = "aarch64", not(model)))]
use aarch64 as machine;
#[cfg(all(target_arch = "x86_64", not(model)))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", not(model)))]
use x86_64 as machine;
#[cfg(loom)]
#[path = "model.rs"]
mod machine;
#[cfg(shuttle)]
#[path = "thread_backed.rs"]
pub(crate) mod machine;
#[cfg(all(test, not(model)))]
mod tests;

#[cfg(not(model))]
mod calls;
#[cfg(not(model))]
pub use calls::{call_on, call_to_the_end, current_set, pass_on, set_filter, switch};
#[cfg(model)]
pub use machine::{call_to_the_end, current_set, switch};
pub use machine::{current_get, init, set_stack_word, stack_word};

/// What an unwinder meets at the frame of `call_to_the_end`: here the thread stays, for good.
///
/// A host that exits may end its other threads by pthread_exit, which unwinds their stacks (CPython up to 3.13, in a thread
/// that wants the GIL). Further up it must not come: the frames there are Rust's, whose personality routine may belong to
/// another unwinder than the one at work, and behind the first frame of a goroutine's stack pthread_exit would jump to
/// that of the thread's own, which for the main thread is the one the main goroutine uses.
#[cfg(not(model))]
extern "C" fn stay_here() -> ! {
    let word = crate::primitive::atomic::AtomicU32::new(0);
    loop {
        let _ = crate::sys::futex::wait(&word, 0, None);
    }
}

/// See [`pass_on`].
#[cfg(not(model))]
static FILTER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// A suspended stack: where its stack pointer was.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    sp: usize,
}

impl Context {
    /// The stack pointer it was suspended with.
    pub fn stack_pointer(&self) -> usize {
        // A thread-backed one has none: above all stacks, so that nothing is found from there to the top.
        if cfg!(shuttle) { usize::MAX } else { self.sp }
    }
}
