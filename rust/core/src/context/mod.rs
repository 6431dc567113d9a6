//! Layer 4: the context switch, and the one thread-local of the core.
//!
//! Our own assembly, one file per CPU: callee-saved registers only, because a switch is a function call. Control words
//! of the floating-point unit are not saved: they follow the thread (docs/design/001-context-switch.md). The base frame
//! of a new stack tells unwinders that the stack ends there, so that CPython's pthread_exit at finalisation, which
//! unwinds, stops in the right place.

#[cfg(all(target_arch = "aarch64", not(loom)))]
mod aarch64;
#[cfg(all(target_arch = "aarch64", not(loom)))]
use aarch64 as machine;
#[cfg(all(target_arch = "x86_64", not(loom)))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", not(loom)))]
use x86_64 as machine;
#[cfg(loom)]
#[path = "model.rs"]
mod machine;
#[cfg(all(test, not(loom)))]
mod tests;

pub use machine::{current_get, current_set, init, switch};

/// A suspended stack: where its stack pointer was.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    sp: usize,
}

impl Context {
    /// The stack pointer it was suspended with.
    pub fn stack_pointer(&self) -> usize {
        self.sp
    }
}
