//! Every descriptor there is: slabs that are never freed, a free list, and a walk for dumps.

use super::{Goroutine, InBubble, SchedEntity, status};
use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::primitive::exclusive::{ShortLock, add_u64};
use std::ptr;

/// Descriptors per slab: 256 of 128 bytes, one allocation; two in a model, which knows only so many atomics.
const SLAB: usize = if cfg!(model) { 2 } else { 256 };

struct FreeList(*mut Goroutine);
// SAFETY: the list is only touched under its lock.
unsafe impl Send for FreeList {}

/// The table of all goroutines of a runtime.
pub struct Registry {
    free: ShortLock<FreeList>,
    slabs: Mutex<Vec<Box<[Goroutine]>>>,
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
            free: ShortLock::new(FreeList(ptr::null_mut())),
            slabs: Mutex::new(Vec::new()),
            next_id: AtomicU64::new(1),
            live: AtomicU64::new(0),
            survivor: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// A descriptor for `task`, RUNNABLE and on no queue; null when memory is refused. Never blocks for long. Before there are
    /// more than ever, `room` is asked whether so many may be.
    #[inline]
    pub fn take(&self, task: *mut u8, runtime: *const u8, room: impl Fn(usize) -> bool) -> *mut Goroutine {
        let mut free = self.free.lock();
        while free.0.is_null() {
            drop(free);
            if !self.grow(runtime, &room) {
                return ptr::null_mut();
            }
            free = self.free.lock();
        }
        let g = free.0;
        // SAFETY: a descriptor on the free list belongs to the list, and now to this caller.
        unsafe {
            free.0 = (*g).home.cast();
            drop(free);
            (*g).id = add_u64(&self.next_id, 1);
            (*g).task = task;
            (*g).bundle = ptr::null_mut();
            (*g).home = ptr::null_mut();
            (*g).stack_bytes = 0;
            (*g).body = None;
            (*g).cancel_requested.store(0, Ordering::Relaxed);
            (*g).status.store(status::RUNNABLE, Ordering::Relaxed);
        }
        add_u64(&self.live, 1);
        g
    }

    /// Gives an ended goroutine's descriptor back.
    ///
    /// # Safety
    /// `g` is DEAD and on no queue.
    #[inline]
    pub unsafe fn give_back(&self, g: *mut Goroutine) {
        let mut free = self.free.lock();
        // SAFETY: the caller owns the descriptor.
        unsafe {
            (*g).task = ptr::null_mut();
            (*g).status.store(status::FREE, Ordering::Relaxed);
            (*g).home = free.0.cast();
        }
        free.0 = g;
        drop(free);
        add_u64(&self.live, u64::MAX);
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
        let slabs = self.slabs.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: null or a descriptor, which is never freed. Relaxed: written while there was one thread.
        let survivor = unsafe { self.survivor.load(Ordering::Relaxed).as_ref() };
        for g in survivor.into_iter().chain(slabs.iter().flat_map(|slab| slab.iter())) {
            let s = g.status.load(Ordering::Acquire); // pairs with the Release stores of the status protocol
            if s != status::FREE && s != status::DEAD {
                f(g);
            }
        }
    }

    /// How many slabs there are.
    pub fn slab_count(&self) -> usize {
        self.slabs.lock().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// Calls `f` for each descriptor of the slab of this number, in use or not; `false`: there are not so many slabs.
    pub fn each_of_slab(&self, slab: usize, mut f: impl FnMut(&Goroutine)) -> bool {
        let slabs = self.slabs.lock().unwrap_or_else(|e| e.into_inner());
        let Some(slab) = slabs.get(slab) else { return false };
        slab.iter().for_each(&mut f);
        true
    }

    /// In a forked child: there is no goroutine but `survivor`, which may be null. Descriptors of the others stay where they
    /// are and serve nobody again: who knew them still does. The host's lock is held, and there is one thread.
    pub fn keep_only(&self, survivor: *mut Goroutine) {
        let mut slabs = self.slabs.lock().unwrap_or_else(|e| e.into_inner());
        std::mem::forget(std::mem::take(&mut *slabs));
        self.free.lock().0 = ptr::null_mut();
        self.live.store(u64::from(!survivor.is_null()), Ordering::Relaxed);
        self.survivor.store(survivor, Ordering::Relaxed);
    }

    /// More descriptors; `false`: there is no memory, or no room.
    #[cold]
    fn grow(&self, runtime: *const u8, room: impl Fn(usize) -> bool) -> bool {
        let mut slab = Vec::new();
        let mut slabs = self.slabs.lock().unwrap_or_else(|e| e.into_inner());
        let refused = slab.try_reserve_exact(SLAB).is_err() || slabs.try_reserve(1).is_err();
        if refused || !room((slabs.len() + 1) * SLAB) {
            return false;
        }
        slab.extend((0..SLAB).map(|_| Goroutine {
            status: AtomicU32::new(status::FREE),
            reason: AtomicU8::new(0),
            cancel_requested: AtomicU32::new(0),
            stack_bytes: 0,
            bubble: InBubble::default(),
            id: 0,
            bundle: ptr::null_mut(),
            task: ptr::null_mut(),
            home: ptr::null_mut(),
            body: None,
            wait: AtomicPtr::new(ptr::null_mut()),
            runtime,
            entity: SchedEntity::new(),
        }));
        slabs.push(slab.into_boxed_slice());
        let last = slabs.len() - 1;
        let first = slabs[last].as_mut_ptr();
        let mut free = self.free.lock();
        for i in 0..SLAB {
            // SAFETY: `i` is inside the slab just made, which nobody else knows yet.
            unsafe {
                let g = first.add(i);
                (*g).home = free.0.cast();
                free.0 = g;
            }
        }
        true
    }
}
