//! Layer 0: the one door to atomics, locks and cells.
//!
//! Everything above takes its shared state from here, so that `--cfg loom` swaps the whole crate to loom's
//! model-checked versions. Names are std's.

mod door;
pub mod exclusive;
#[cfg(all(test, loom))]
mod model;
#[cfg(loom)]
mod model_lock;
#[cfg(any(not(loom), test))]
mod spin_lock;

pub use door::Door;

#[cfg(not(loom))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub use std::thread;

#[cfg(loom)]
pub use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(loom)]
pub use loom::thread;

/// Atomics: std's, or loom's under `--cfg loom`.
pub mod atomic {
    #[cfg(loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    #[cfg(not(loom))]
    pub use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// One turn of a spin loop: a CPU pause, or a scheduling point of the model.
#[inline]
pub fn spin_hint() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

/// A mark beside data that a lock or a protocol guards: under loom each `touch` is a write the model checks for races,
/// otherwise it is nothing.
pub struct Witness(#[cfg(loom)] loom::cell::UnsafeCell<()>);

impl Witness {
    /// Never touched.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        #[cfg(loom)]
        return Self(loom::cell::UnsafeCell::new(()));
        #[cfg(not(loom))]
        Self()
    }

    /// The guarded data is used here.
    #[inline(always)]
    pub fn touch(&self) {
        #[cfg(loom)]
        self.0.with_mut(|_| ());
    }
}
