//! Layer 4: the context switch, and the one thread-local of the core.
//!
//! Our own assembly, one file per CPU: callee-saved registers only, because a switch is a function call. Control words
//! of the floating-point unit are not saved: they follow the thread. The base frame of a new stack tells unwinders that
//! the stack ends there, so that CPython's pthread_exit at finalisation, which unwinds, stops in the right place.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{current_get, current_set, init, switch};

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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Context, init, switch};

    static mut MAIN: Context = Context { sp: 0 };
    static mut OTHER: Context = Context { sp: 0 };

    unsafe extern "C-unwind" fn body(value: usize) -> ! {
        let mut v = value;
        loop {
            // SAFETY: one test thread uses the two contexts.
            v = unsafe { switch(&raw mut OTHER, &raw const MAIN, v + 1) };
        }
    }

    #[test]
    fn switch_goes_there_and_back_with_a_value() {
        let mut stack = vec![0u128; 4096];
        let top = stack.as_mut_ptr().addr() + 4096 * 16;
        // SAFETY: the stack outlives every switch; one test thread uses the two contexts.
        unsafe {
            OTHER = init(top, body);
            for i in 0..100_000 {
                assert_eq!(switch(&raw mut MAIN, &raw const OTHER, i), i + 1);
            }
        }
    }
}
