//! Stacks of goroutines that stay parked give their memory back, and get it again before they run.
//!
//! Growth is the kernel's: a page is there once it is touched. This is the way back. A goroutine that was parked at one look
//! and has not run by the next is cold. The used part of its stack, some hundred bytes, goes into an object of the
//! runtime's memory, and its pages to the system, those of neighbours with one call. Before it runs the bytes go back to
//! the same addresses, so that no pointer into the stack needs to be known, but those that others follow meanwhile: the
//! host's (`Host::lead`) and what a wait shares with who ends it, which lies beside the stack
//! (`sched::with_place`). Whose wait is on the stack, or whose stack may be known to foreign code, keeps the used
//! pages; those below its stack pointer go all the same.
//!
//! All of it happens with the host's lock, which keeps who is saved from running: under an exclusive host only. A goroutine
//! that wakes often is never cold and pays for one comparison at each resume.
//!
//! Looks are at one slab of descriptors each. A pass over all begins `Config::shrink_ns` after the last, so that two make a goroutine
//! cold 1 to 2 s after it parked, or later if passes are in vain: sysmon asks for a look now and
//! then while there is other work, and an M that has none goes through the rest of the pass before it sleeps.

use super::runtime::{REQUEST_SHRINK, Runtime};
use crate::event;
use crate::goroutine::{Bundle, Goroutine, Rest, status};
use crate::primitive::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::stack::packed::{self, Packed, Packing};
use crate::sys::clock;
use std::ptr;

/// A pass that saved fewer than one in this many makes the time to the next twice as long, up to this many times.
const FRUITFUL: u64 = 64;
const SLOWEST: u32 = 5;
/// Looks that sysmon asks for are so far apart while there is other work: a look with much to save takes half a millisecond.
const LOOK_NS: u64 = 10_000_000;
/// The same while the system is short of memory.
const URGENT_NS: u64 = 1_000_000;
/// Bytes below the stack pointer that code may still count on: the red zone of x86-64, and of others.
const RED_ZONE: usize = 256;
/// Room that the host's look at a stack's frames needs, below the stack pointer.
const LOOK_BYTES: usize = 16 << 10;

/// What is known of passes. Under the host's lock, but for what sysmon reads.
pub(super) struct Shrinker {
    /// The slab that comes next; those of the pass are done when there is none of that number.
    next_slab: AtomicUsize,
    /// When the next look may be.
    due_ns: AtomicU64,
    /// The same, if so many goroutines have come meanwhile that it is worth it.
    early_ns: AtomicU64,
    early_at: AtomicU64,
    /// A pass is to begin that takes also those that have run since the last look: the system is short of memory. Any thread
    /// asks; who begins the pass takes this back.
    is_urgent: AtomicBool,
    /// Such a pass is in progress.
    takes_all: AtomicBool,
    /// How often in a row a pass was in vain, and what had been saved before this one.
    in_vain: AtomicU32,
    saves_before: AtomicU64,
    /// Goroutines whose stacks are saved.
    saved: AtomicU64,
    saved_bytes: AtomicU64,
    /// How often stacks were saved, and came back.
    saves: AtomicU64,
    restores: AtomicU64,
    /// Bytes that the header of a new bundle gets.
    header_bytes: AtomicUsize,
    /// A slab with parked goroutines in it, at the last look.
    header_slab: AtomicUsize,
    /// Bundles made, for when to look at what headers are used for.
    bundles: AtomicUsize,
}

impl Shrinker {
    pub(super) fn new(header_bytes: usize) -> Self {
        Self {
            next_slab: AtomicUsize::new(0),
            due_ns: AtomicU64::new(0),
            early_ns: AtomicU64::new(0),
            early_at: AtomicU64::new(0),
            is_urgent: AtomicBool::new(false),
            takes_all: AtomicBool::new(false),
            in_vain: AtomicU32::new(0),
            saves_before: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            saved_bytes: AtomicU64::new(0),
            saves: AtomicU64::new(0),
            restores: AtomicU64::new(0),
            header_bytes: AtomicUsize::new(header_bytes),
            header_slab: AtomicUsize::new(0),
            bundles: AtomicUsize::new(0),
        }
    }
}

/// What the stacks of parked goroutines have given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShrinkStats {
    /// Goroutines whose stacks are saved now.
    pub saved: u64,
    /// Bytes they are kept in.
    pub saved_bytes: u64,
    /// Stacks ever saved.
    pub saves: u64,
    /// Stacks ever brought back.
    pub restores: u64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed); // under the host's lock
}

impl Runtime {
    /// Whether a look at some goroutines is due. Any thread; a hint.
    fn may_shrink(&self) -> bool {
        let is_worth_it = self.registry.live() >= self.config.shrink_least || self.registry.is_sparse();
        if !self.host.exclusive || self.config.shrink_ns == 0 || !is_worth_it {
            return false;
        }
        let (s, now) = (&self.shrinker, clock::now_ns());
        s.is_urgent.load(Ordering::Relaxed)
            || now >= s.due_ns.load(Ordering::Relaxed)
            || now >= s.early_ns.load(Ordering::Relaxed)
                && self.registry.created() >= s.early_at.load(Ordering::Relaxed)
    }

    /// For sysmon: asks for a look if one is due.
    pub(super) fn ask_to_shrink(&self) {
        if self.may_shrink() {
            self.requests.fetch_or(REQUEST_SHRINK, Ordering::AcqRel); // pairs with `serve_requests`
            self.wake_one(ptr::null_mut());
        }
    }

    /// Has a pass begin at once that takes all who are parked, in place of one in progress. Any thread.
    pub(super) fn hurry_shrinking(&self) {
        self.shrinker.is_urgent.store(true, Ordering::Relaxed); // no more than this: a look in progress writes all else
    }

    /// For an M without other work, host attached, on g0: goes on with a pass that has begun, or is due. `false`: there is none.
    pub(super) fn shrink_idly(&self) -> bool {
        let goes_on = self.shrinker.next_slab.load(Ordering::Relaxed) != 0 || self.may_shrink();
        if goes_on {
            self.shrink_next();
        }
        goes_on
    }

    /// Looks at the next slab. Host attached, on g0.
    pub(super) fn shrink_next(&self) {
        let s = &self.shrinker;
        let begins_anew = s.is_urgent.swap(false, Ordering::Relaxed);
        if begins_anew {
            s.takes_all.store(true, Ordering::Relaxed);
        }
        let takes_all = s.takes_all.load(Ordering::Relaxed);
        let slab = if begins_anew { 0 } else { s.next_slab.load(Ordering::Relaxed) };
        let more = self.shrink_slab(slab, takes_all);
        s.next_slab.store(if more { slab + 1 } else { 0 }, Ordering::Relaxed);
        let now = clock::now_ns();
        if more {
            let pause_ns = if takes_all { URGENT_NS } else { LOOK_NS };
            s.due_ns.store(now + pause_ns.min(self.config.shrink_ns), Ordering::Relaxed);
            return;
        }
        if takes_all {
            self.release_memory();
            s.takes_all.store(false, Ordering::Relaxed);
        } else {
            self.shed_bundles(false);
            self.decay_caches();
        }
        let (live, saves) = (self.registry.live(), s.saves.load(Ordering::Relaxed));
        let is_fruitful = (saves - s.saves_before.load(Ordering::Relaxed)) * FRUITFUL >= live;
        let in_vain = if is_fruitful { 0 } else { (s.in_vain.load(Ordering::Relaxed) + 1).min(SLOWEST) };
        s.saves_before.store(saves, Ordering::Relaxed);
        s.in_vain.store(in_vain, Ordering::Relaxed);
        s.due_ns.store(now + (self.config.shrink_ns << in_vain), Ordering::Relaxed);
        s.early_ns.store(now + self.config.shrink_ns, Ordering::Relaxed);
        s.early_at.store(self.registry.created() + (live / 8).max(self.config.shrink_least), Ordering::Relaxed);
    }

    /// Has the goroutines of one slab that are parked give back what they can, and the slab if there are none; `at_once`: also
    /// what was in use since the last look. `false`: there are not so many slabs. Host attached; under another host than an exclusive one nothing is done.
    pub fn shrink_slab(&self, slab: usize, at_once: bool) -> bool {
        if !self.host.exclusive {
            return false;
        }
        let mut saved = Vec::new();
        let before = event::is_on().then(|| (clock::now_ns(), self.shrink_stats()));
        let more = self.registry.each_of_slab(slab, |g| {
            // SAFETY: the host's lock is held: what is parked stays so.
            unsafe { self.shrink(g, at_once, &mut saved) }
        });
        // SAFETY: nothing of these stacks is in use: their goroutines' bytes are kept elsewhere. The bundles are alive.
        unsafe { self.stacks.empty_slots(&mut saved, |&bundle: &*mut Bundle| (*bundle).rest = Rest::Bared) };
        self.registry.release_if_idle(slab, at_once);
        if let Some((began_ns, before)) = before {
            let now = self.shrink_stats();
            self.trace_shrunk(began_ns, now.saves - before.saves, now.saved_bytes - before.saved_bytes);
        }
        self.let_in();
        more
    }

    /// # Safety
    /// Host attached, an exclusive one.
    unsafe fn shrink(&self, g: &Goroutine, at_once: bool, saved: &mut Vec<(usize, *mut Bundle)>) {
        // Acquire: pairs with the Release of who parked it.
        if g.status.load(Ordering::Acquire) != status::WAITING || g.bundle.is_null() {
            return;
        }
        // SAFETY: a parked goroutine's bundle is alive, and nobody else's while the host's lock is held.
        unsafe {
            let bundle = g.bundle;
            match (*bundle).rest {
                Rest::Awake if !at_once => (*bundle).rest = Rest::Parked,
                Rest::Saved | Rest::Bared => {}
                rest => {
                    if self.save(g, bundle) {
                        (*bundle).rest = Rest::Saved;
                        let Some(stack) = &(*bundle).stack else { return };
                        if (*bundle).stack_bytes == 0 && saved.try_reserve(1).is_ok() {
                            saved.push((stack.slot_start(), bundle));
                        } else if let Ok(depot) = self.depot((*bundle).stack_bytes) {
                            depot.empty_slots(&mut [(stack.slot_start(), bundle)], |&bundle| {
                                (*bundle).rest = Rest::Bared
                            });
                        }
                    } else if rest != Rest::Trimmed {
                        (*bundle).rest = Rest::Trimmed;
                        self.trim(bundle);
                    }
                }
            }
        }
    }

    /// Gives back the pages below the used part of a stack.
    ///
    /// # Safety
    /// Its goroutine is parked, and stays so.
    unsafe fn trim(&self, bundle: *mut Bundle) {
        // SAFETY: the caller's promise.
        unsafe {
            let Some(stack) = &(*bundle).stack else { return };
            if let Ok(depot) = self.depot((*bundle).stack_bytes) {
                depot.release_below(stack, (*bundle).context.stack_pointer() - RED_ZONE);
            }
        }
    }

    /// Puts the used part of a stack into an object. `false`: it has to stay, or there is no memory.
    ///
    /// # Safety
    /// `bundle` is of `g`, which is parked and stays so; host attached.
    unsafe fn save(&self, g: &Goroutine, bundle: *mut Bundle) -> bool {
        // SAFETY: the caller's promise: nobody runs on the stack, and it is mapped from its stack pointer up.
        unsafe {
            let Some(stack) = &(*bundle).stack else { return false };
            let (sp, top) = ((*bundle).context.stack_pointer(), stack.top());
            let wait = g.wait.load(Ordering::Relaxed);
            let keeps = (*bundle).is_thread
                || (*bundle).bound
                || (*bundle).wired != 0
                || g.bubble.id != 0
                || wait.is_null()
                || stack.holds(wait.addr())
                || !stack.holds(sp)
                || top - sp > packed::MOST
                || stack.room_below(sp) < LOOK_BYTES
                || (*bundle).soft_guard.is_open.load(Ordering::Relaxed);
            if keeps || !(self.host.may_move_stack)((*bundle).host, sp, top) {
                return false;
            }
            let mut packing = Packing::of(sp, top - sp);
            (self.host.lead)((*bundle).host, &mut |at, bytes| {
                packing.keep(at, bytes);
                at
            });
            let bytes = packing.object_bytes();
            let object = self.take_object(bytes);
            if object.is_null() {
                return false;
            }
            let packed = packing.pack(object);
            (self.host.lead)((*bundle).host, &mut |at, _| packed.in_object(at));
            (*bundle).saved = object;
            add(&self.shrinker.saved, 1);
            add(&self.shrinker.saved_bytes, bytes as u64);
            add(&self.shrinker.saves, 1);
            true
        }
    }

    /// Before a goroutine runs, or its stack is looked at: brings back what was saved.
    ///
    /// # Safety
    /// The caller owns the bundle's goroutine, which is off its stack; host attached.
    #[inline]
    pub(super) unsafe fn rouse(&self, bundle: *mut Bundle) {
        // SAFETY: the caller's promise.
        unsafe {
            if (*bundle).rest != Rest::Awake {
                self.restore(bundle);
            }
        }
    }

    #[cold]
    unsafe fn restore(&self, bundle: *mut Bundle) {
        // SAFETY: the caller's promise; `save` kept what was from there to the top.
        unsafe {
            let rest = std::mem::replace(&mut (*bundle).rest, Rest::Awake);
            let (Rest::Saved | Rest::Bared, Some(stack)) = (rest, &(*bundle).stack) else { return };
            if rest == Rest::Bared
                && let Ok(depot) = self.depot((*bundle).stack_bytes)
            {
                let _ = depot.guard_again(stack);
            }
            let sp = (*bundle).context.stack_pointer();
            let object = (*bundle).saved;
            let packed = Packed::at(object, sp, stack.top() - sp);
            packed.unpack();
            (self.host.lead)((*bundle).host, &mut |at, _| packed.on_stack(at));
            let bytes = packed.object_bytes();
            (*bundle).saved = ptr::null_mut();
            self.give_object(object, bytes);
            add(&self.shrinker.saved, u64::MAX);
            add(&self.shrinker.saved_bytes, (bytes as u64).wrapping_neg());
            add(&self.shrinker.restores, 1);
        }
    }

    /// What was given back so far. Host attached.
    pub fn shrink_stats(&self) -> ShrinkStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let s = &self.shrinker;
        ShrinkStats {
            saved: get(&s.saved),
            saved_bytes: get(&s.saved_bytes),
            saves: get(&s.saves),
            restores: get(&s.restores),
        }
    }

    /// In a forked child, where those that were saved do not exist.
    pub(super) fn forget_saved(&self) {
        self.shrinker.saved.store(0, Ordering::Relaxed);
        self.shrinker.saved_bytes.store(0, Ordering::Relaxed);
        self.shrinker.next_slab.store(0, Ordering::Relaxed);
    }

    /// How many bytes the host's header of a new bundle gets: what parked goroutines use, as Go's first stacks follow what
    /// others needed. Host attached.
    pub(super) fn header_bytes(&self) -> usize {
        const LOOK_EVERY: usize = 64;
        let made = self.shrinker.bundles.load(Ordering::Relaxed).wrapping_add(1);
        self.shrinker.bundles.store(made, Ordering::Relaxed);
        if made.is_multiple_of(LOOK_EVERY) && self.host.exclusive && self.host.header_bytes.1 != 0 {
            self.look_at_headers();
        }
        self.usual_header_bytes()
    }

    /// The same without a look at others.
    pub(super) fn usual_header_bytes(&self) -> usize {
        self.shrinker.header_bytes.load(Ordering::Relaxed)
    }

    #[cold]
    fn look_at_headers(&self) {
        const ENOUGH: usize = 16;
        let (least, most) = self.host.header_bytes;
        let (mut seen, mut short, mut used) = (0, 0, 0);
        // One slab at random, and the one that had parked goroutines last: of many that were queued at once the first ones wait first.
        let slabs = [
            self.shrinker.header_slab.load(Ordering::Relaxed),
            self.random() as usize % self.registry.slab_count().max(1),
        ];
        for slab in slabs {
            let before = seen;
            self.registry.each_of_slab(slab, |g| {
                // SAFETY: the host's lock is held: what is parked stays so, and its state is alive.
                unsafe {
                    let is_parked = g.status.load(Ordering::Acquire) == status::WAITING && !g.bundle.is_null();
                    if !is_parked || (*g.bundle).is_thread || (*g.bundle).stack.is_none() {
                        return;
                    }
                    seen += 1;
                    match (self.host.header_used)((*g.bundle).host) {
                        usize::MAX => short += 1,
                        bytes => used = used.max(bytes),
                    }
                }
            });
            if seen - before >= ENOUGH {
                self.shrinker.header_slab.store(slab, Ordering::Relaxed);
            }
        }
        if seen < ENOUGH {
            return;
        }
        let now = self.shrinker.header_bytes.load(Ordering::Relaxed);
        // One in eight that goes on in memory of its own costs more than what the others save.
        let wanted = if short * 8 > seen { now + 192 } else { (used + 64).next_multiple_of(64) };
        self.shrinker.header_bytes.store(wanted.clamp(least, most), Ordering::Relaxed);
    }
}
