//! Layer 0: the one door to atomics, locks and cells.
//!
//! Everything above takes its shared state from here, so that a build with `--cfg model` swaps the whole crate: with
//! `--cfg loom` to loom's model-checked versions, with `--cfg shuttle` to those of the randomised model. Names are std's.

#[cfg(all(model, not(any(loom, shuttle))))]
compile_error!("--cfg model goes with --cfg loom or --cfg shuttle");

pub mod boxes;
#[cfg(shuttle)]
pub(crate) mod delayed;
pub mod exclusive;
pub mod histogram;
#[cfg(all(test, loom))]
mod model;
#[cfg(model)]
mod model_lock;
pub mod room;
pub mod shared;
#[cfg(shuttle)]
mod shuttled;
#[cfg(any(not(model), all(test, loom)))]
mod spin_lock;
pub mod tries;

#[cfg(not(model))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(model))]
pub use std::thread;

#[cfg(loom)]
pub use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(loom)]
pub use loom::thread;

#[cfg(shuttle)]
pub use shuttled::{Condvar, Mutex, MutexGuard, thread};

/// A new execution of a model begins; what it leaves to chance follows `seed`.
#[cfg(shuttle)]
pub(crate) fn begin_execution(seed: u64) {
    delayed::begin(seed);
}

/// Atomics: std's, or a model's.
pub mod atomic {
    #[cfg(shuttle)]
    pub use super::delayed::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    #[cfg(loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    #[cfg(not(model))]
    pub use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// One turn of a spin loop: a CPU pause, or a scheduling point of the model.
#[inline]
pub fn spin_hint() {
    #[cfg(model)]
    thread::yield_now();
    #[cfg(not(model))]
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

/// The same for a line that is to be written: other caches give it up.
#[inline(always)]
pub fn prefetch_to_write<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint; it never faults. Processors that do not know it do nothing: it was reserved as such.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

/// Asks for the cache line of an address, which need not be valid, without waiting for it.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}
