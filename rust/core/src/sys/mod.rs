//! Layer 1: the operating system. The only place that names libc.

pub mod clock;
#[cfg(not(loom))]
pub mod futex;
#[cfg(loom)]
#[path = "futex_model.rs"]
pub mod futex;
pub mod memory;
pub mod signal;
pub mod thread;
