//! The import-table patcher against objects made for each test with `cc` (or what CC names), loaded into this process.
//!
//! `made` builds and loads them and has the hooks. Every test uses function names of its own, since all share one global
//! scope. What needs another start of a process runs this binary again, see `preload`.
#![cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(model)
))]

mod binding;
mod fixed;
mod lifetime;
mod made;
mod preload;
mod process;
