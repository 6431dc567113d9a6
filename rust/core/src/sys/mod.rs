//! Layer 1: the operating system. The only place that names libc.

pub mod clock;
pub mod futex;
pub mod memory;
pub mod thread;
