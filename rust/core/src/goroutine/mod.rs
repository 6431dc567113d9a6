//! Layer 6: the goroutine descriptor, its status machine, waiters and the host table.
//!
//! A descriptor is small and type-stable: it comes from slabs that are never returned, so a stale pointer reads a
//! descriptor, never other memory. A goroutine owns a [`Bundle`] (stack, saved context, host thread state) from its
//! first run to its end; a queued goroutine that never ran owns none.

pub mod ender;
pub mod host;
#[cfg(all(test, loom))]
mod model;
pub mod registry;
mod sched_entity;
pub mod slab;
pub mod status;
#[cfg(all(test, not(model)))]
mod tests;
pub mod wait_table;
#[cfg(all(test, loom))]
mod wait_table_model;
#[cfg(all(test, not(model)))]
mod wait_table_tests;
pub mod waiter;

pub use sched_entity::{Account, SchedEntity};

use crate::context::Context;
use crate::primitive::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::stack::Stack;
use crate::sys::scheduling::Scheduling;
use crate::sys::signal::Mask;
use host::HostThread;
use slab::Slab;
use std::cell::UnsafeCell;
use std::marker::PhantomPinned;
use std::mem::MaybeUninit;
use waiter::Wait;

/// The soft guard of one stack. Touched by the thread that runs on the stack, and by its signal handler.
#[derive(Default)]
pub struct SoftGuard {
    /// A page of it was opened by a fault, and it was not closed since.
    pub is_open: AtomicBool,
    /// What `Host::end_recursion` took from the host's count.
    pub taken: AtomicI32,
}

/// What a started goroutine runs on. Pooled; moves between Ms as a whole.
pub struct Bundle {
    /// The native stack; `None` for the main goroutine, which runs on its thread's own.
    pub stack: Option<Stack>,
    /// Where the goroutine left off.
    pub context: Context,
    /// The host's thread state, current on the M while the goroutine runs.
    pub host: HostThread,
    /// End of the stack as far as it matters here: for the main goroutine where it was when it became one.
    pub top: usize,
    /// Who the goroutine is to C code that asks for its thread (`boundary::identity`): unlike any thread's id.
    pub identity: usize,
    /// Somebody has asked for it since the goroutine began: there may be something that is kept by it.
    pub identity_asked: bool,
    /// See [`SoftGuard`].
    pub soft_guard: SoftGuard,
    /// The depths of stack, in bytes, at which no foreign frames were found last: where a loop parks, it parks again.
    pub movable_at: [u32; 4],
    /// Where the main goroutine ran last when that was not its home; null otherwise.
    pub away_on: *mut u8,
    /// The size its stack was asked for with, at most 1 GiB; 0 for the runtime's own.
    pub stack_bytes: u32,
    /// Bytes of the object that it and the host's header are.
    pub block_bytes: u32,
    /// A thread of the host's (`boundary::threads`): its state is whatever is current when it parks.
    pub is_thread: bool,
    /// That, before its first run.
    pub starts_detached: bool,
    /// While this is not 0 it stays on its M, which runs nobody else (Go's LockOSThread).
    pub wired: u8,
    /// How often it was locked to its OS thread (`sched::pin`): while not 0, one of the reasons in `wired`.
    pub locks: u32,
    /// Signals it blocks: the mask of its M's thread while it runs.
    pub mask: Mask,
    /// CPUs and priority of its M's thread before it changed those; `boundary::scheduling`.
    pub scheduling_before: Option<Box<Scheduling>>,
    /// Parked with foreign frames: its M waits for it (`sched::mail`).
    pub bound: bool,
    /// Set at a goroutine's end when the host's state may not serve another goroutine.
    pub spoiled: bool,
    /// What C code keeps for its goroutine (`boundary::keys`), or null.
    pub locals: *mut u8,
    /// The longest time its goroutine kept the host's lock while an M waited for it to preempt it, ns; 0: never for long.
    pub kept_lock_ns: AtomicU64,
    /// While it is not 0 its goroutine is not preempted.
    pub no_preempt: u32,
    /// How often its goroutine went on on another M than before.
    pub migrations: u32,
    /// When its goroutine parked last, by `Sampler::clock_s`.
    pub parked_s: u32,
    /// Whether its pages are wanted: see [`Rest`]. Not `Awake` until the goroutine runs again.
    pub rest: Rest,
    /// Where the used part of its stack is kept while `rest` says `Saved`.
    pub saved: *mut u8,
    /// What one wait needs that others reach: see [`Bundle::place`].
    pub place: Place,
    /// They do so while its owner holds a `&mut` over all of it: no exclusive access is implied.
    pub shared: PhantomPinned,
}

/// How long a goroutine has been parked, as `sched::shrink` sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// It has run since the last look.
    #[default]
    Awake,
    /// It was parked then.
    Parked,
    /// Pages below its stack pointer are given back.
    Trimmed,
    /// So are those of its stack, whose bytes are in `saved`.
    Saved,
    /// So are the stack's guards and page table.
    Bared,
}

/// Bytes for a wait, a node and a slot for a value of two words.
const PLACE_BYTES: usize = 144;

/// Memory for what a wait needs; [`Bundle::place`].
#[repr(C, align(16))]
pub struct Place(UnsafeCell<MaybeUninit<[u8; PLACE_BYTES]>>);

impl Bundle {
    /// A bundle whose goroutine runs on the stack of the calling thread, which reaches up to `top`, and has its identity.
    pub fn on_thread(host: HostThread, top: usize) -> Self {
        Self {
            stack: None,
            context: Context::default(),
            host,
            top,
            identity: crate::sys::thread::identity(),
            identity_asked: false,
            soft_guard: SoftGuard::default(),
            movable_at: [0; 4],
            away_on: std::ptr::null_mut(),
            stack_bytes: 0,
            block_bytes: 0,
            is_thread: false,
            starts_detached: false,
            wired: 0,
            locks: 0,
            mask: 0,
            scheduling_before: None,
            bound: false,
            spoiled: false,
            locals: std::ptr::null_mut(),
            kept_lock_ns: AtomicU64::new(0),
            no_preempt: 0,
            migrations: 0,
            parked_s: 0,
            rest: Rest::Awake,
            saved: std::ptr::null_mut(),
            place: Place(UnsafeCell::new(MaybeUninit::uninit())),
            shared: PhantomPinned,
        }
    }

    /// Mark in `visible_host`: the state may be deleted at any moment.
    pub const MAY_BE_GONE: usize = 1;

    /// Room for a `T` beside the stack, so that a goroutine that waits there may have its stack saved (`sched::shrink`); null if
    /// it is too large. One wait at a time uses it.
    pub fn place<T>(&self) -> *mut T {
        if size_of::<T>() <= PLACE_BYTES && align_of::<T>() <= 16 {
            self.place.0.get().cast()
        } else {
            std::ptr::null_mut()
        }
    }

    /// What sysmon is shown of the state.
    #[inline]
    pub fn visible_host(&self) -> HostThread {
        self.host.map_addr(|address| address | if self.is_thread { Self::MAY_BE_GONE } else { 0 })
    }
}

/// How a goroutine of a bubble is blocked, as far as its clock is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocked {
    /// It runs, is ready, or waits for the outside.
    #[default]
    No,
    /// Only the bubble can wake it.
    Durably,
    /// The same as far as one can tell.
    Loosely,
}

/// A goroutine's place in a bubble (`sched::bubble`).
#[derive(Clone, Copy, Debug, Default)]
pub struct InBubble {
    /// The bubble's number; 0: in none. The goroutine's own, and before it is queued for the first time its maker's.
    pub id: u32,
}

/// A goroutine descriptor: one cache line.
#[repr(C, align(64))]
pub struct Goroutine {
    /// See [`status`].
    pub status: AtomicU32,
    /// Why it is parked: a [`waiter::Reason`].
    pub reason: AtomicU8,
    /// [`Goroutine::ASKED_TO_END`] once a cancellation is asked for and not yet delivered; [`Goroutine::ENDS_SOON`] once the
    /// host was told to raise it, which it has done by now, or not; else 0.
    pub cancel_requested: AtomicU8,
    /// Virtual bytes of the stack it asked for, as a power of two; 0 takes the runtime's. A thread has its stack from the start.
    pub stack_shift: u8,
    /// How it is blocked, for its bubble; touched under the bubbles' lock.
    pub blocked: Blocked,
    /// The bubble it is in.
    pub bubble: InBubble,
    /// Since when it is ready, in the steps of `sched::latency`; 0: it is not timed. Whose the goroutine is may touch it.
    pub ready_at: u32,
    /// Unique for the life of the process; 1 is the main goroutine.
    pub id: u64,
    /// Null until the first run and after the end.
    pub bundle: *mut Bundle,
    /// The host's object for this goroutine.
    pub task: *mut u8,
    /// The M it last ran on, null before its first run; for the main goroutine always M 0, with [`Goroutine::AWAY`] set
    /// after it ran elsewhere. An M that this is not asks before it runs this goroutine (`sched::mail`). In the free list, which
    /// is next.
    pub home: *mut u8,
    /// The wait it is blocked in, for cancellation; null while it runs.
    pub wait: AtomicPtr<Wait>,
    /// The slab it is in.
    pub slab: *const Slab,
}

#[cfg(not(model))]
const _: () = assert!(size_of::<Goroutine>() == 64);

impl Goroutine {
    /// Value of `cancel_requested`.
    pub const ASKED_TO_END: u8 = 1;
    /// Value of `cancel_requested`.
    pub const ENDS_SOON: u8 = 2;

    /// Bit of `home`: the stack's addresses are those of another M's thread.
    pub const AWAY: usize = 1;

    /// What it does, in a dump's words: why it waits, or its status. One that was woken and has not run yet is runnable.
    pub fn word(&self) -> &'static str {
        let status = self.status.load(Ordering::Relaxed);
        let reason = waiter::reason_name(self.reason.load(Ordering::Relaxed));
        if status == status::RUNNABLE || reason.is_empty() { status::name(status) } else { reason }
    }

    /// Whether it is a thread of the host's (`boundary::threads`), which has no object there. Host attached.
    pub fn is_thread(&self) -> bool {
        // SAFETY: null or a live goroutine's bundle, which its end gives back with the host's lock.
        unsafe { self.bundle.as_ref() }.is_some_and(|bundle| bundle.is_thread)
    }

    /// Bytes of the stack it asked for; 0: the runtime's size.
    pub fn stack_bytes(&self) -> u32 {
        if self.stack_shift == 0 { 0 } else { 1 << self.stack_shift }
    }

    /// How `g` stands with the policies.
    ///
    /// # Safety
    /// A live goroutine of a registry that keeps entities (`Registry::keep_entities`).
    #[inline]
    pub unsafe fn entity(g: *const Goroutine) -> *mut SchedEntity {
        // SAFETY: the caller's promise.
        unsafe { Slab::entity(g) }
    }

    /// The runtime, for threads that are no M.
    pub fn runtime(&self) -> *const u8 {
        // SAFETY: set where the descriptor was made; slabs are never freed.
        unsafe { Slab::runtime(self.slab) }
    }

    /// The M it belongs to, null before its first run.
    #[inline]
    pub fn owner(&self) -> *mut u8 {
        self.home.map_addr(|address| address & !Self::AWAY)
    }
}
