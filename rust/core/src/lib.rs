//! The goroutine runtime, without Python.
//!
//! Words: G, goroutine, one call in progress. M, machine, an OS thread. P, processor, the right to run goroutines, with
//! its local queue, timers and caches. Host: the language runtime goroutines run code of (CPython), seen from here only
//! through a table of functions. Slot: the virtual address range of one stack.
//!
//! Layers are folders; a folder uses only those above it (held by `tests/structure.rs`):
//!
//! | layer | folder | what |
//! |---|---|---|
//! | 0 | primitive | atomics and locks: std's or a model's |
//! | 1 | sys | memory, futex, threads, clock, poller: the only place that names libc |
//! | 2 | event | records of what happens to goroutines, for traces |
//! | 3 | alloc | size classes, caches, central lists, spans, page heap |
//! | 3 | cache | a bounded table that forgets by SIEVE and by time |
//! | 3 | stack | slots with guards, pool |
//! | 4 | context | init, switch |
//! | 5 | timer | per-P heap; returns ready lists |
//! | 6 | goroutine | descriptor, status, waiter, host table, registry |
//! | 7 | netpoll | who waits for which descriptor; returns claimed waiters |
//! | 8 | sched | processor, machine, queues, find_work, steal, idle, park, blocking, sysmon |
//! | 9 | chan, sync, boundary | use park, ready and waiter; know no queue and no P |
//! | 10 | net | sockets whose calls park: deadlines, closing, one reader and one writer at a time |
//! | 10 | observe | dump, metrics: read only |

#![deny(clippy::too_many_lines)] // clippy.toml says how many
#![cfg_attr(all(model, not(test)), allow(dead_code))] // a model is for its tests

pub mod primitive;

pub mod sys;

pub mod event;

pub mod alloc;

pub mod cache;

pub mod stack;

pub mod context;

pub mod timer;

pub mod goroutine;

pub mod netpoll;

pub mod sched;

#[cfg(not(model))]
pub mod boundary;
pub mod chan;
pub mod sync;

#[cfg(all(target_os = "linux", not(model), not(miri)))]
pub mod net;

pub mod observe;
