//! Layer 1: the operating system. The only place that names libc.

pub mod cgroup;
#[cfg(not(shuttle))]
pub mod clock;
#[cfg(shuttle)]
#[path = "clock_model.rs"]
pub mod clock;
pub mod errno;
#[cfg(not(model))]
pub mod futex;
#[cfg(model)]
#[path = "futex_model.rs"]
pub mod futex;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(model)
))]
pub mod loader;
#[cfg(not(miri))]
pub mod memory;
#[cfg(miri)]
#[path = "memory_miri.rs"]
pub mod memory;
pub mod over_fork;
pub mod poller;
#[cfg(all(target_os = "linux", not(model), not(miri)))]
pub mod pressure;
#[cfg(not(all(target_os = "linux", not(model), not(miri))))]
#[path = "pressure_none.rs"]
pub mod pressure;
#[cfg(all(target_os = "linux", not(model)))]
pub mod scheduling;
#[cfg(not(all(target_os = "linux", not(model))))]
#[path = "scheduling_none.rs"]
pub mod scheduling;
pub mod signal;
#[cfg(all(target_os = "linux", not(model), not(miri)))]
pub mod socket;
pub mod thread;
#[cfg(all(target_os = "linux", not(model)))]
pub mod tls;
#[cfg(not(all(target_os = "linux", not(model))))]
#[path = "tls_none.rs"]
pub mod tls;
pub mod valgrind;
