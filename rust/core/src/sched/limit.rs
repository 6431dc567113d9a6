//! A limit on the memory of goroutines: who would start one too many is refused, or waits until there is room.
//!
//! What counts is what can be known without a look at page tables: what the heap has in use (descriptors, bundles, saved stacks),
//! and a page for each stack that somebody has and that is not saved. A goroutine that has not run yet counts as if it had. Those
//! that have ended leave their bundles to the next ones, and these count as well until they are given back.
//!
//! Without a limit a start pays for one comparison. With one it adds these up, and where they are too much takes back what can be
//! had: bundles that lie idle, what caches keep, stacks of goroutines that are parked. Waiters are let in in order, and the
//! room that one was let in for is his until he has started his goroutine.
//!
//! All of it happens with the host's lock, under an exclusive host.

use super::park::{announce, block, ready_wait, with_place};
use super::runtime::Runtime;
use super::{caller, current_machine};
use crate::goroutine::Goroutine;
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::primitive::exclusive::ShortLock;
use crate::sys::{clock, memory};
use std::ptr;

/// The limit that is none.
pub const UNLIMITED: usize = usize::MAX;
/// Memory is taken back anew once one goroutine in so many has ended, or so much later: it may be a look at all of them.
const ENDED: u64 = 64;
const AGAIN_NS: u64 = 100_000_000;

/// What is known of the limit. Relaxed, all of it: under the host's lock.
pub(super) struct Limit {
    bytes: AtomicUsize,
    page_bytes: usize,
    blocks: AtomicBool,
    /// Somebody stands in the queue.
    is_waited_for: AtomicBool,
    queue: ShortLock<Queue>,
    /// When memory was taken back last, and how many goroutines had ended then.
    reclaimed_ns: AtomicU64,
    reclaimed_at: AtomicU64,
    /// The slab of descriptors that is looked at next.
    slab: AtomicUsize,
    /// Stacks and bytes that goroutines of the process which forked this one have.
    lost_stacks: AtomicUsize,
    lost_bytes: AtomicUsize,
}

struct Queue {
    waiters: WaitQueue,
    /// Waiters that were let in and have not run since.
    promised: usize,
}

/// Why a goroutine may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There is no room for it.
    Away {
        /// What the limit is.
        limit_bytes: usize,
        /// What is in use.
        used_bytes: usize,
    },
    /// The wait for room ended otherwise.
    Back(Outcome),
}

struct Standing {
    wait: Wait,
    node: Node,
}

impl Limit {
    pub(super) fn new() -> Self {
        Self {
            bytes: AtomicUsize::new(UNLIMITED),
            page_bytes: memory::page_bytes(),
            blocks: AtomicBool::new(false),
            is_waited_for: AtomicBool::new(false),
            queue: ShortLock::new(Queue { waiters: WaitQueue::new(), promised: 0 }),
            reclaimed_ns: AtomicU64::new(0),
            reclaimed_at: AtomicU64::new(0),
            slab: AtomicUsize::new(0),
            lost_stacks: AtomicUsize::new(0),
            lost_bytes: AtomicUsize::new(0),
        }
    }
}

impl Runtime {
    /// Whether there is a limit.
    #[inline(always)]
    pub fn is_limited(&self) -> bool {
        self.limit.bytes.load(Ordering::Relaxed) != UNLIMITED
    }

    /// Sets the limit, and whether who would pass it waits. Returns the one before. Host attached, an exclusive one.
    pub fn set_memory_limit(&self, bytes: usize, blocks: bool) -> usize {
        let before = self.limit.bytes.load(Ordering::Relaxed);
        self.limit.bytes.store(bytes, Ordering::Relaxed);
        self.limit.blocks.store(blocks, Ordering::Relaxed);
        self.limit.reclaimed_ns.store(0, Ordering::Relaxed);
        self.let_in();
        before
    }

    /// Bytes in use as the limit counts them. Host attached.
    pub fn goroutine_bytes(&self) -> usize {
        self.bytes_with(0)
    }

    /// The same with `more` goroutines.
    fn bytes_with(&self, more: usize) -> usize {
        let (live, taken) = (self.registry.live() as usize + more, self.stacks_taken());
        let taken = taken.saturating_sub(self.limit.lost_stacks.load(Ordering::Relaxed));
        // Main has none, but the first M's scheduler.
        let stacks = taken.max(live);
        let to_come = (stacks - taken) * self.next_bundle_bytes();
        let pages = stacks.saturating_sub(self.shrink_stats().saved as usize) * self.limit.page_bytes;
        let nobodys = self.limit.lost_bytes.load(Ordering::Relaxed) + self.registry.released_bytes();
        self.heap_bytes().saturating_sub(nobodys) + pages + to_come
    }

    /// What a goroutine that has just begun takes.
    pub fn bytes_of_one(&self) -> usize {
        size_of::<Goroutine>() + self.next_bundle_bytes() + self.limit.page_bytes
    }

    fn fits(&self, more: usize) -> bool {
        self.bytes_with(more) <= self.limit.bytes.load(Ordering::Relaxed)
    }

    /// Whether goroutines that end had better give their memory back.
    pub(super) fn is_over_limit(&self) -> bool {
        self.is_limited() && !self.fits(0)
    }

    /// Whether one more goroutine may be started, once what can be had is taken back. Nobody overtakes those that wait.
    pub(super) fn makes_room(&self) -> bool {
        let (is_waited_for, promised) = {
            let queue = self.limit.queue.lock();
            (!queue.waiters.is_empty(), queue.promised)
        };
        !is_waited_for && (self.fits(1 + promised) || self.reclaim(1 + promised))
    }

    /// Leave to start one goroutine, at once. Parks until there is room if it is to; the calling thread blocks if it is a plain one.
    /// Host attached, on a goroutine or a plain thread.
    #[cold]
    pub fn admit(&'static self) -> Result<(), Turned> {
        if self.makes_room() {
            return Ok(());
        }
        let is_on_g0 = !current_machine().is_null() && caller().is_null();
        if is_on_g0 || !self.limit.blocks.load(Ordering::Relaxed) {
            let limit_bytes = self.limit.bytes.load(Ordering::Relaxed);
            return Err(Turned::Away { limit_bytes, used_bytes: self.goroutine_bytes() });
        }
        // SAFETY: the place is this caller's to the end of the call. The node stays there until it is unlinked, by the claimer or below.
        // No lock is held over the park.
        let outcome = with_place(|place: *mut Standing| unsafe {
            let (wait, node) = (&raw mut (*place).wait, &raw mut (*place).node);
            wait.write(Wait::new());
            node.write(Node::new(wait, ptr::null_mut()));
            announce(&mut *wait);
            self.limit.queue.lock().waiters.push_back(node);
            self.limit.is_waited_for.store(true, Ordering::Relaxed);
            let outcome = block(self, &mut *wait, Reason::Memory, None);
            let mut queue = self.limit.queue.lock();
            if outcome == Outcome::Delivered {
                queue.promised -= 1; // he starts it before anybody else runs
            } else {
                queue.waiters.remove(node);
            }
            outcome
        });
        if outcome == Outcome::Delivered { Ok(()) } else { Err(Turned::Back(outcome)) }
    }

    /// A goroutine has ended, or memory was given back: lets in as many of those that wait as there is room for. Host attached.
    #[inline]
    pub(super) fn let_in(&self) {
        if self.limit.is_waited_for.load(Ordering::Relaxed) {
            self.let_in_waiters();
        }
    }

    #[cold]
    fn let_in_waiters(&self) {
        loop {
            let promised = {
                let queue = self.limit.queue.lock();
                if queue.waiters.is_empty() {
                    self.limit.is_waited_for.store(false, Ordering::Relaxed);
                    return;
                }
                queue.promised
            };
            if !self.fits(1 + promised) && !self.reclaim(1 + promised) {
                return;
            }
            let node = {
                let mut queue = self.limit.queue.lock();
                let node = queue.waiters.claim_front(Outcome::Delivered);
                queue.promised += usize::from(!node.is_null());
                node
            };
            if !node.is_null() {
                // SAFETY: claimed just now, and readied here once.
                unsafe { ready_wait(&*(*node).wait) };
            }
        }
    }

    /// Takes memory back until there is room for `more` goroutines. `false`: there is none, or this was found just before.
    #[cold]
    fn reclaim(&self, more: usize) -> bool {
        self.shed_bundles(true);
        if self.fits(more) {
            return true;
        }
        let (limit, live, now) = (&self.limit, self.registry.live(), clock::now_ns());
        let ended = self.registry.created().saturating_sub(live);
        let is_soon = now.saturating_sub(limit.reclaimed_ns.load(Ordering::Relaxed)) < AGAIN_NS
            && ended.saturating_sub(limit.reclaimed_at.load(Ordering::Relaxed)) <= live / ENDED;
        if is_soon {
            return false;
        }
        // First, so that who is let in meanwhile does not begin anew. A success says nothing about the next time.
        limit.reclaimed_ns.store(now, Ordering::Relaxed);
        limit.reclaimed_at.store(ended, Ordering::Relaxed);
        let has_room = self.reclaim_all(more);
        if has_room {
            limit.reclaimed_ns.store(0, Ordering::Relaxed);
        }
        has_room
    }

    fn reclaim_all(&self, more: usize) -> bool {
        self.release_memory();
        let slabs = self.registry.slab_count();
        for _ in 0..slabs {
            if self.fits(more) {
                return true;
            }
            let slab = self.limit.slab.load(Ordering::Relaxed);
            self.limit.slab.store(if slab + 1 < slabs { slab + 1 } else { 0 }, Ordering::Relaxed);
            self.shrink_slab(slab, true);
        }
        self.release_memory();
        self.fits(more)
    }

    /// In a forked child, where those that waited do not exist, and what goroutines of the parent had is nobody's.
    pub(super) fn forget_limited(&self) {
        *self.limit.queue.lock() = Queue { waiters: WaitQueue::new(), promised: 0 };
        self.limit.is_waited_for.store(false, Ordering::Relaxed);
        self.limit.lost_stacks.store(self.stacks_taken().saturating_sub(1), Ordering::Relaxed);
        self.limit.lost_bytes.store(self.heap_bytes(), Ordering::Relaxed);
    }
}
