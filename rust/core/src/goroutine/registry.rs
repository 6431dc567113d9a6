//! Every descriptor there is: slabs that are never freed, a free list, and a walk for dumps.

use super::slab::{self, Provider, SLAB, Slab};
use super::{Goroutine, status};
use crate::primitive::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::primitive::exclusive::{ShortLock, add_u64};
use crate::primitive::{Mutex, MutexGuard};
use std::ptr;

/// The first of the slabs with room, linked by `next`.
struct WithRoom(*mut Slab);
// SAFETY: the list is only touched under its lock.
unsafe impl Send for WithRoom {}

/// All slabs.
#[derive(Default)]
struct Slabs {
    all: Vec<*mut Slab>,
    /// Whether each has entities.
    have_entities: bool,
}

/// The table of all goroutines of a runtime.
pub struct Registry {
    with_room: ShortLock<WithRoom>,
    slabs: Mutex<Slabs>,
    /// How many slabs have descriptors in them, and so memory.
    resident: AtomicUsize,
    next_id: AtomicU64,
    live: AtomicU64,
    /// The one goroutine older than the last fork, or null.
    survivor: AtomicPtr<Goroutine>,
}

// SAFETY: slabs are behind a mutex; descriptors follow the status protocol.
unsafe impl Send for Registry {}
// SAFETY: as above.
unsafe impl Sync for Registry {}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            with_room: ShortLock::new(WithRoom(ptr::null_mut())),
            slabs: Mutex::new(Slabs::default()),
            resident: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            live: AtomicU64::new(0),
            survivor: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// A descriptor for `task`, RUNNABLE and on no queue; null when memory is refused. Never blocks for long. Before there are
    /// more than ever, `provider` is asked whether so many may be.
    #[inline]
    pub fn take(&self, task: *mut u8, provider: &impl Provider) -> *mut Goroutine {
        let mut list = self.with_room.lock();
        while list.0.is_null() {
            drop(list);
            if !self.grow(provider) {
                return ptr::null_mut();
            }
            list = self.with_room.lock();
        }
        let slab = list.0;
        // SAFETY: slabs in the list have room; what was taken is this caller's.
        unsafe {
            let g = Slab::take(slab, &self.resident);
            if (*slab).is_full() {
                list.0 = (*slab).next;
            }
            drop(list);
            (*g).id = add_u64(&self.next_id, 1);
            (*g).task = task;
            (*g).bundle = ptr::null_mut();
            (*g).home = ptr::null_mut();
            (*g).stack_shift = 0;
            (*g).ready_at = 0;
            (*g).cancel_requested.store(0, Ordering::Relaxed);
            (*g).status.store(status::RUNNABLE, Ordering::Relaxed);
            add_u64(&self.live, 1);
            g
        }
    }

    /// Gives an ended goroutine's descriptor back.
    ///
    /// # Safety
    /// `g` is DEAD and on no queue.
    #[inline]
    pub unsafe fn give_back(&self, g: *mut Goroutine) {
        let mut list = self.with_room.lock();
        // SAFETY: the caller owns the descriptor.
        unsafe {
            (*g).task = ptr::null_mut();
            (*g).status.store(status::FREE, Ordering::Relaxed);
            let (slab, was_full) = Slab::give_back(g);
            if was_full {
                (*slab).next = std::mem::replace(&mut list.0, slab);
            }
        }
        drop(list);
        add_u64(&self.live, u64::MAX);
    }

    fn lock_slabs(&self) -> MutexGuard<'_, Slabs> {
        self.slabs.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How many goroutines are alive.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// How many were ever made.
    pub fn created(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed) - 1
    }

    /// Calls `f` for each live descriptor. A snapshot only under an exclusive host.
    pub fn for_each(&self, mut f: impl FnMut(&Goroutine)) {
        let mut look = |g: &Goroutine| {
            let s = g.status.load(Ordering::Acquire); // pairs with the Release stores of the status protocol
            if s != status::FREE && s != status::DEAD {
                f(g);
            }
        };
        let slabs = self.lock_slabs();
        // SAFETY: null or a descriptor, which is never freed; nor are slabs. Relaxed: written while there was one thread.
        unsafe {
            if let Some(survivor) = self.survivor.load(Ordering::Relaxed).as_ref() {
                look(survivor);
            }
            slabs.all.iter().for_each(|&slab| Slab::each(slab, &mut look));
        }
    }

    /// From now on there is an entity for each goroutine. `false`: memory is refused.
    pub fn keep_entities(&self, provider: &impl Provider) -> bool {
        let mut slabs = self.lock_slabs();
        // SAFETY: slabs are never freed. The survivor of a fork is in one that is not listed.
        unsafe {
            let survivor = self.survivor.load(Ordering::Relaxed);
            slabs.have_entities = (survivor.is_null() || Slab::keep_entities(Slab::of(survivor), provider))
                && slabs.all.iter().all(|&slab| Slab::keep_entities(slab, provider));
        }
        slabs.have_entities
    }

    /// How many slabs there are.
    pub fn slab_count(&self) -> usize {
        self.lock_slabs().all.len()
    }

    /// Whether most of the memory of descriptors is nobody's. A hint.
    pub fn is_sparse(&self) -> bool {
        /// As many slabs may be idle in any case.
        const SPARE: usize = 8;
        let needed = self.live.load(Ordering::Relaxed) as usize / SLAB as usize;
        self.resident.load(Ordering::Relaxed) > 2 * needed + SPARE
    }

    /// Bytes of slabs that the system has the pages of.
    pub fn released_bytes(&self) -> usize {
        let resident = self.resident.load(Ordering::Relaxed); // a count
        self.slab_count().saturating_sub(resident) * slab::BYTES
    }

    /// Calls `f` for each descriptor of the slab of this number that somebody had; `false`: there are not so many slabs.
    pub fn each_of_slab(&self, slab: usize, f: impl FnMut(&Goroutine)) -> bool {
        let slabs = self.lock_slabs();
        let Some(&slab) = slabs.all.get(slab) else { return false };
        // SAFETY: slabs are never freed.
        unsafe { Slab::each(slab, f) };
        true
    }

    /// Gives the system the memory of the slab of this number, if nobody has a descriptor of it, nor, unless `at_once`, had at
    /// the last look.
    pub fn release_if_idle(&self, slab: usize, at_once: bool) {
        let slabs = self.lock_slabs();
        let Some(&slab) = slabs.all.get(slab) else { return };
        let _list = self.with_room.lock();
        // SAFETY: slabs are never freed; the lock is held.
        if unsafe { Slab::release_if_idle(slab, at_once) } {
            self.resident.fetch_sub(1, Ordering::Relaxed); // a count
        }
    }

    /// In a forked child: there is no goroutine but `survivor`, which may be null. Descriptors of the others stay where they
    /// are and serve nobody again: who knew them still does.
    ///
    /// # Safety
    /// The host's lock is held, and there is one thread; `survivor` is a live goroutine of this registry.
    pub unsafe fn keep_only(&self, survivor: *mut Goroutine) {
        let mut slabs = self.lock_slabs();
        slabs.all.clear();
        self.with_room.lock().0 = ptr::null_mut();
        self.resident.store(0, Ordering::Relaxed);
        if !survivor.is_null() {
            // SAFETY: the caller's promise.
            unsafe { Slab::keep_only(survivor) };
        }
        self.live.store(u64::from(!survivor.is_null()), Ordering::Relaxed);
        self.survivor.store(survivor, Ordering::Relaxed);
    }

    /// One more slab; `false`: there is no memory, or no room.
    #[cold]
    fn grow(&self, provider: &impl Provider) -> bool {
        let mut slabs = self.lock_slabs();
        if slabs.all.try_reserve(1).is_err() || !provider.make_room((slabs.all.len() + 1) * SLAB as usize) {
            return false;
        }
        let slab = Slab::make(provider, slabs.have_entities);
        if slab.is_null() {
            return false;
        }
        slabs.all.push(slab);
        let mut list = self.with_room.lock();
        // SAFETY: just made, and nobody else's.
        unsafe { (*slab).next = std::mem::replace(&mut list.0, slab) };
        true
    }
}
