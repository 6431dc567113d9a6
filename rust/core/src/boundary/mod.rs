//! Layer 9: the libc boundary, where the interpreter and its libraries enter libc.
//!
//! What would block an OS thread, and what asks who the thread is, reaches libc through the import tables of the objects
//! that call it. `elf` replaces entries of those tables, and knows nothing of goroutines.

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(loom)
))]
pub mod elf;
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(loom)
)))]
#[path = "elf_unsupported.rs"]
pub mod elf;
