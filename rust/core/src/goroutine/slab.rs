//! A slab of descriptors: memory that stays theirs for good, whether the system keeps pages for it or not.
//!
//! A descriptor is written when it is first taken, so that the memory of those that never were is not touched. Whoever still knows one
//! that nobody has may look at it: it is [`status::FREE`], which is 0, also where the system has taken the pages.

use super::{Blocked, Goroutine, InBubble, SchedEntity, status};
use crate::primitive::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::sys::memory;
use std::ptr;

/// Descriptors per slab: 256 of 64 bytes; two in a model, which knows only so many atomics.
pub(super) const SLAB: u32 = if cfg!(model) { 2 } else { 256 };

/// Bytes of its descriptors.
pub(super) const BYTES: usize = SLAB as usize * size_of::<Goroutine>();
const ENTITIES_BYTES: usize = (SLAB as usize * size_of::<SchedEntity>()).next_multiple_of(64);

/// What a registry asks of those it is for.
pub trait Provider {
    /// What descriptors have as their runtime.
    fn runtime(&self) -> *const u8;
    /// Whether so many goroutines in all may be; asked before there are more than ever.
    fn make_room(&self, count: usize) -> bool;
    /// Memory aligned to 64 bytes, of which `bytes` are a multiple; null: refused.
    fn memory(&self, bytes: usize) -> *mut u8;
    /// Takes it back.
    ///
    /// # Safety
    /// `object` is of `memory(bytes)`, and nobody uses it again.
    unsafe fn take_back(&self, object: *mut u8, bytes: usize);
}

/// What is known of a slab. Never freed.
#[repr(align(64))]
pub struct Slab {
    runtime: *const u8,
    descriptors: *mut Goroutine,
    /// One for each descriptor, once policies are in use; null before.
    entities: *mut SchedEntity,
    /// The next one that has room.
    pub(super) next: *mut Slab,
    /// Those that were taken and given back, linked by `home`.
    free: *mut Goroutine,
    used: u32,
    /// So many have been written, the first ones.
    begun: AtomicU32,
    /// Nobody had one when somebody looked last.
    is_idle: bool,
}

impl Slab {
    /// The slab whose descriptor it is.
    pub(super) fn of(g: *mut Goroutine) -> *mut Slab {
        // SAFETY: a descriptor's slab is written before anybody can have it.
        unsafe { (*g).slab.cast_mut() }
    }

    /// A new one; null: memory is refused.
    pub(super) fn make(provider: &impl Provider, with_entities: bool) -> *mut Slab {
        let slab = provider.memory(size_of::<Slab>()).cast::<Slab>();
        let descriptors = provider.memory(BYTES).cast::<Goroutine>();
        // SAFETY: memory for one, just now; what was granted before something else was refused is nobody's.
        unsafe {
            if !slab.is_null() && !descriptors.is_null() {
                slab.write(Slab {
                    runtime: provider.runtime(),
                    descriptors,
                    entities: ptr::null_mut(),
                    next: ptr::null_mut(),
                    free: ptr::null_mut(),
                    used: 0,
                    begun: AtomicU32::new(0),
                    is_idle: false,
                });
                if !with_entities || Slab::keep_entities(slab, provider) {
                    return slab;
                }
            }
            for (object, bytes) in [(slab.cast(), size_of::<Slab>()), (descriptors.cast::<u8>(), BYTES)] {
                if !object.is_null() {
                    provider.take_back(object, bytes);
                }
            }
        }
        ptr::null_mut()
    }

    /// Makes its descriptors' entities if there are none. `false`: memory is refused.
    ///
    /// # Safety
    /// `slab` is alive; under the lock of the registry's slabs.
    pub(super) unsafe fn keep_entities(slab: *mut Slab, provider: &impl Provider) -> bool {
        // SAFETY: the caller's promise; nobody looks at entities before all slabs have them.
        unsafe {
            if (*slab).entities.is_null() {
                let entities = provider.memory(ENTITIES_BYTES).cast::<SchedEntity>();
                if entities.is_null() {
                    return false;
                }
                (0..SLAB as usize).for_each(|i| entities.add(i).write(SchedEntity::new()));
                (*slab).entities = entities;
            }
            true
        }
    }

    /// The entity of `g`.
    ///
    /// # Safety
    /// A live goroutine of a slab that has entities.
    #[inline]
    pub(super) unsafe fn entity(g: *const Goroutine) -> *mut SchedEntity {
        // SAFETY: the caller's promise: both are of the same slab.
        unsafe {
            let slab = (*g).slab;
            (*slab).entities.offset(g.offset_from((*slab).descriptors))
        }
    }

    /// The runtime of its descriptors.
    ///
    /// # Safety
    /// `slab` is alive.
    pub(super) unsafe fn runtime(slab: *const Slab) -> *const u8 {
        // SAFETY: the caller's promise; never changed.
        unsafe { (*slab).runtime }
    }

    /// Whether all of its descriptors are taken.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.used == SLAB
    }

    /// Takes one; `resident` counts the slabs of which one has been written. Under the registry's lock.
    ///
    /// # Safety
    /// `slab` is not full.
    #[inline]
    pub(super) unsafe fn take(slab: *mut Slab, resident: &AtomicUsize) -> *mut Goroutine {
        // SAFETY: the registry's lock; descriptors in the list are the list's.
        unsafe {
            let g = (*slab).free;
            (*slab).used += 1;
            (*slab).is_idle = false;
            if g.is_null() {
                return Slab::begin_one(slab, resident);
            }
            (*slab).free = (*g).home.cast();
            g
        }
    }

    /// # Safety
    /// As for `take`; all that were given back are taken.
    unsafe fn begin_one(slab: *mut Slab, resident: &AtomicUsize) -> *mut Goroutine {
        // SAFETY: as in `take`: some are not begun, since none is in the list and not all are taken.
        unsafe {
            let begun = (*slab).begun.load(Ordering::Relaxed); // stored under the same lock
            if begun == 0 {
                resident.fetch_add(1, Ordering::Relaxed); // a count
            }
            let g = (*slab).descriptors.add(begun as usize);
            g.write(Goroutine {
                status: AtomicU32::new(status::FREE),
                reason: AtomicU8::new(0),
                cancel_requested: AtomicU8::new(0),
                stack_shift: 0,
                blocked: Blocked::No,
                bubble: InBubble::default(),
                ready_at: 0,
                id: 0,
                bundle: ptr::null_mut(),
                task: ptr::null_mut(),
                home: ptr::null_mut(),
                wait: AtomicPtr::new(ptr::null_mut()),
                slab,
            });
            (*slab).begun.store(begun + 1, Ordering::Release); // pairs with the Acquire in `each`
            g
        }
    }

    /// Takes `g` back; returns its slab, and whether that was full. Under the registry's lock.
    ///
    /// # Safety
    /// `g` was taken, and nobody has it.
    #[inline]
    pub(super) unsafe fn give_back(g: *mut Goroutine) -> (*mut Slab, bool) {
        let slab = Slab::of(g);
        // SAFETY: the registry's lock; the descriptor is the caller's.
        unsafe {
            let was_full = (*slab).is_full();
            (*g).home = (*slab).free.cast();
            (*slab).free = g;
            (*slab).used -= 1;
            (slab, was_full)
        }
    }

    /// Calls `f` for each descriptor that somebody had.
    ///
    /// # Safety
    /// `slab` is alive.
    pub(super) unsafe fn each<'a>(slab: *mut Slab, f: impl FnMut(&'a Goroutine)) {
        // SAFETY: so many are written, and stay descriptors for good: zeroed, they are free ones. The header is not borrowed:
        // others change it meanwhile.
        unsafe {
            let begun = (*slab).begun.load(Ordering::Acquire); // pairs with the Release in `begin_one`
            std::slice::from_raw_parts((*slab).descriptors, begun as usize).iter().for_each(f);
        }
    }

    /// Whether nobody has any of it, nor had at the last look, or now is enough: then the system gets the pages. Returns whether it
    /// does. Under the registry's lock.
    ///
    /// # Safety
    /// `slab` is alive.
    pub(super) unsafe fn release_if_idle(slab: *mut Slab, at_once: bool) -> bool {
        // SAFETY: the registry's lock; who still looks at the descriptors sees them free, before and after.
        unsafe {
            if (*slab).used != 0 || (*slab).begun.load(Ordering::Relaxed) == 0 {
                return false;
            }
            if !at_once && !std::mem::replace(&mut (*slab).is_idle, true) {
                return false;
            }
            (*slab).free = ptr::null_mut();
            (*slab).begun.store(0, Ordering::Relaxed); // who sees the old number looks at free ones
            let start = (*slab).descriptors.expose_provenance();
            memory::release_within(start..start + BYTES);
            true
        }
    }

    /// In a forked child: nobody but `survivor` has a descriptor of its slab, and nobody will.
    ///
    /// # Safety
    /// `survivor` was taken.
    pub(super) unsafe fn keep_only(survivor: *mut Goroutine) {
        let slab = Slab::of(survivor);
        // SAFETY: one thread.
        unsafe { ((*slab).free, (*slab).used) = (ptr::null_mut(), SLAB) };
    }
}

#[cfg(all(test, not(shuttle)))]
fn layout(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes, 64).expect("a size of ours")
}

/// A provider for tests: `0` answers for room, memory is the allocator's.
#[cfg(all(test, not(shuttle)))]
pub(crate) struct Plain<F: Fn(usize) -> bool>(pub(crate) F);

#[cfg(all(test, not(shuttle)))]
impl<F: Fn(usize) -> bool> Provider for Plain<F> {
    fn runtime(&self) -> *const u8 {
        ptr::null()
    }

    fn make_room(&self, count: usize) -> bool {
        (self.0)(count)
    }

    fn memory(&self, bytes: usize) -> *mut u8 {
        // SAFETY: never of no size. Leaked, as all of a registry is.
        unsafe { std::alloc::alloc(layout(bytes)) }
    }

    unsafe fn take_back(&self, object: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::dealloc(object, layout(bytes)) };
    }
}
