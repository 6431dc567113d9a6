//! Layer 8: the scheduler.
//!
//! Go's design: an M (OS thread) needs a P to run goroutines; a P has a 256-slot ring and a next slot that inherits the
//! time slice; work overflows by half to the global queue, which is looked at every 61 ticks; an M without work steals
//! half of a random victim's ring. The wake rule: when work appears, a P is idle and nobody spins, wake one M.
//!
//! Every M runs its scheduler on a stack of its own (g0). A goroutine that parks switches to g0, and only there, after
//! the host's thread state was exchanged, does it become visible as parked (`goroutine::status`). The next goroutine is
//! looked for first, so that the exchange goes straight from the old goroutine's state to the new one's.
//!
//! Under an exclusive host (the GIL) one P runs by default, and the host's lock protects what a P owns. An M whose
//! goroutine lets go of that lock in a C call keeps its P in name; `sysmon` sees the detached state and wakes another M,
//! which takes the lock and then, holding it, the P (`blocking`). The first M finds itself without a P at its next
//! scheduling point. Rejected: hooks in the interpreter (none exist), a spare M always waiting for the GIL (costs a
//! forced switch every 5 ms), one state per M (a started goroutine cannot change its state: the evaluator keeps it in a
//! C local).
//!
//! The main goroutine runs on its thread's own stack and is switched away from like any other; its M runs other
//! goroutines meanwhile, which is why a script that never calls `run` is as fast as one that does. It belongs to its M;
//! while that M is stuck in another goroutine's blocking call it goes on elsewhere (`mail`).
//!
//! Descriptors are watched by whoever has nothing else to do (`net`).

pub mod blocking;
pub mod bubble;
#[cfg(all(test, not(model)))]
mod bubble_tests;
mod bundles;
pub mod config;
pub mod contention;
#[cfg(all(test, not(model)))]
mod contention_tests;
pub mod find_work;
pub mod fork;
pub mod idle;
pub mod inject_queue;
pub mod latency;
pub mod limit;
pub mod local_queue;
pub mod machine;
mod mail;
pub mod memory;
#[cfg(all(test, loom))]
mod model;
mod moving;
mod net;
#[cfg(all(test, not(model)))]
pub(crate) mod null_tests;
mod outside;
mod overflow;
pub mod park;
mod pin;
pub mod policy;
mod preempt;
mod pressure;
pub mod processor;
pub mod processors;
#[cfg(all(test, not(model)))]
mod processors_tests;
#[cfg(all(test, not(model)))]
mod queue_tests;
mod retire;
pub mod runtime;
pub mod sampling;
mod schedtrace;
pub mod shrink;
mod shuffle;
#[cfg(all(test, shuttle))]
mod shuttled;
pub mod spawn;
#[cfg(all(test, not(model)))]
mod spawn_tests;
pub mod steal;
pub mod sysmon;
#[cfg(all(test, not(model)))]
mod tests;
pub mod timers;
#[cfg(all(test, not(model)))]
mod timers_tests;
pub mod traced;

pub use bubble::{bubble_now_ns, current_bubble, is_foreign, now_ns};
pub use machine::current_machine;
pub use net::{wait_io, yield_to_acceptor};
pub use park::{
    announce, announce_as, block, current_goroutine, end_waits, gosched, place_to_wait, ready_wait, retract,
    sleep_for_ever, sleep_until, with_place, with_place_beside,
};
pub use pin::{lock_os_thread, unlock_os_thread};
pub use preempt::preempted;
pub use runtime::Runtime;
pub use spawn::caller;
