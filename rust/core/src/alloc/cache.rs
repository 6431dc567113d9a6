//! A cache: per class a stack of free objects that belongs to whoever has the cache (a P), without locks or locked
//! instructions; `&mut` is the proof of owning it. Under a host with a lock of its own that lock keeps the owners
//! apart.
//!
//! A stack is filled from the central list and flushed to it in batches. How many objects it may keep grows with use,
//! as in TCMalloc: one at first, twice as many at each refill up to a batch (slow start), then a batch more each; frees
//! that find it full too often take a batch away again. All of them together keep at most `cache_bytes`: a stack grows
//! by the room of others that were not used lately. A flush gives back the oldest objects; the newest are in the CPU's
//! caches.
//!
//! The newest object stands twice, in its slot and as `head`: an allocation that follows a free then waits for one
//! load of what the free stored, not for the count and after it the slot.
//!
//! In debug mode, and for what has no class, the stacks have no room: every call takes the slow path, and the fast one
//! need not ask. Frees are not counted: they follow from what else is (`stats`).

use super::debug::Report;
use super::heap::Heap;
use super::page_map::{LeafHint, PageMap};
use super::size_class::{CLASS, CLASSES, MAX_CACHED, MAX_SMALL_BYTES, class_of, class_of_aligned, fine_class_aligned};
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::primitive::shared::Shared;
use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::slice;

/// Flushes of a full stack, beyond a batch, after which it may keep a batch less (TCMalloc's kMaxOverages).
const MAX_OVERAGES: u32 = 3;

/// Between the slots of one class and the next: room for the null, and five cache lines, or stacks of 4 KiB each would
/// all be used in the same cache sets.
const COLOUR_SLOTS: usize = 40;

/// The stack of one class: one cache line. All zero is an empty one without room.
///
/// Atomics are written by the owner alone, with a load and a store; others read them for statistics. Relaxed
/// throughout: what they say is exact when the owner is idle and was waited for.
#[repr(C, align(64))]
pub(super) struct Bin {
    /// The newest object; null if there is none.
    head: Cell<*mut u8>,
    /// A null, and after it the objects, the newest last.
    slots: Cell<*mut *mut u8>,
    /// Objects that may be here.
    max: Cell<u32>,
    /// Allocations ever, and in the low `LEN_BITS` how many objects are here: an allocation changes both with one store.
    counts: AtomicU64,
    /// Objects from the central list, and to it.
    pub(super) refilled: AtomicU64,
    pub(super) flushed: AtomicU64,
    /// Allocations that found nothing here.
    pub(super) misses: AtomicU64,
    overages: Cell<u32>,
    /// The low half of the allocations when this bin was last looked at for room.
    seen: Cell<u32>,
}

/// Bits for the objects of a stack; the others count allocations, for five years at 10^8 a second.
const LEN_BITS: u32 = 10;
const LEN_MASK: u64 = (1 << LEN_BITS) - 1;

const _: () = assert!(size_of::<Bin>() == 64 && (MAX_CACHED as u64) <= LEN_MASK);

/// What a cache is, in the heap's own memory and never unmapped before it. All zero is an empty one.
pub(super) struct CacheBody {
    pub(super) bins: [Bin; CLASSES],
    /// Bytes by which stacks may still grow.
    room: Cell<usize>,
    /// Where the next look for room begins.
    hand: Cell<usize>,
    /// The next of all caches, and of those nobody has. Under the lock of the heap's caches.
    pub(super) next: Cell<*const CacheBody>,
    pub(super) next_spare: Cell<*const CacheBody>,
}

#[inline(always)]
fn add(counter: &AtomicU64, n: u64) {
    // Relaxed: see `Bin`.
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl Bin {
    #[inline(always)]
    fn counts(&self) -> u64 {
        self.counts.load(Ordering::Relaxed)
    }

    /// Objects here.
    #[inline(always)]
    pub(super) fn len(&self) -> u32 {
        (self.counts() & LEN_MASK) as u32
    }

    /// Allocations ever, and objects here, as they were at one moment.
    pub(super) fn allocs_and_len(&self) -> (u64, u64) {
        let counts = self.counts();
        (counts >> LEN_BITS, counts & LEN_MASK)
    }

    /// The first `count` slots for objects; they hold objects or null.
    ///
    /// # Safety
    /// The caller owns the cache, has no other such slice, and `count` is at most the class's `cached_max`.
    unsafe fn slots<'a>(&self, count: u32) -> &'a mut [*mut u8] {
        // SAFETY: `CacheBody::prepare` made `cached_max` and one of them in zeroed memory, which lives as long as the
        // heap.
        unsafe { slice::from_raw_parts_mut(self.slots.get().add(1), count as usize) }
    }

    /// Sets how many of the slots hold objects.
    fn set_filled(&self, len: u32) {
        self.counts.store(self.counts() & !LEN_MASK | u64::from(len), Ordering::Relaxed);
        // SAFETY: `len` is at most `cached_max`; the null before the first is there for 0.
        self.head.set(unsafe { self.slots.get().add(len as usize).read() });
    }
}

impl CacheBody {
    /// Slots for each class, from one run of memory for `slots_needed()`; room for `cache_bytes`.
    pub(super) fn prepare(&self, slots: NonNull<*mut u8>, cache_bytes: usize) {
        self.room.set(cache_bytes);
        let mut offset = 0;
        for (bin, class) in self.bins.iter().zip(&CLASS) {
            // SAFETY: inside the run the caller brought.
            bin.slots.set(unsafe { slots.as_ptr().add(offset) });
            offset += class.cached_max as usize + COLOUR_SLOTS;
        }
    }

    /// Pointers that the stacks of a cache may hold.
    pub(super) fn slots_needed() -> usize {
        CLASS.iter().map(|class| class.cached_max as usize + COLOUR_SLOTS).sum()
    }
}

/// A cache of free objects of a heap. Dropped, it gives them back.
pub struct Cache {
    body: NonNull<CacheBody>,
    map: PageMap,
    near: LeafHint,
    heap: Shared<Heap>,
}

// SAFETY: a cache has no ties to the thread that made it; only who owns it changes it.
unsafe impl Send for Cache {}

impl Cache {
    pub(super) fn of(heap: Shared<Heap>, body: NonNull<CacheBody>, map: PageMap) -> Self {
        Self { body, map, near: LeafHint::new(), heap }
    }

    /// The heap this is a cache of.
    pub fn heap(&self) -> &Shared<Heap> {
        &self.heap
    }

    #[inline(always)]
    fn body(&self) -> &CacheBody {
        // SAFETY: bodies live as long as the heap, and this cache alone has this one.
        unsafe { self.body.as_ref() }
    }

    #[inline(always)]
    fn bin(&self, class: usize) -> &Bin {
        debug_assert!(class < CLASSES);
        // SAFETY: classes come from tables that hold none but these.
        unsafe { self.body().bins.get_unchecked(class) }
    }

    /// Memory for `bytes`, 16-aligned from 16 bytes on, 8-aligned below. Null: memory is refused.
    #[inline(always)]
    pub fn alloc(&mut self, bytes: usize) -> *mut u8 {
        let class = class_of(bytes);
        self.pop(class).unwrap_or_else(|| self.alloc_slowly(class, bytes, 1))
    }

    /// Memory for `bytes`, aligned to `align`, a power of two. Null: memory is refused, or no such alignment. To be freed
    /// by `free`: `free_sized` would not know the alignment.
    #[inline]
    pub fn alloc_aligned(&mut self, bytes: usize, align: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            return ptr::null_mut();
        }
        let class = class_of_aligned(bytes, align);
        self.pop(class).unwrap_or_else(|| self.alloc_slowly(class, bytes, align))
    }

    /// Memory for `bytes` of zeroes. Null: memory is refused.
    pub fn alloc_zeroed(&mut self, bytes: usize) -> *mut u8 {
        if class_of(bytes) == 0 && !self.heap.is_debug() {
            return self.heap.alloc_large_zeroed(bytes);
        }
        let object = self.alloc(bytes);
        if !object.is_null() {
            // SAFETY: an object of at least `bytes`, the caller's to be.
            unsafe { object.write_bytes(0, bytes) };
        }
        object
    }

    #[inline(always)]
    fn pop(&self, class: usize) -> Option<*mut u8> {
        let bin = self.bin(class);
        let object = bin.head.get();
        if object.is_null() {
            return None;
        }
        // One more allocation, one object less.
        let counts = bin.counts() + (1 << LEN_BITS) - 1;
        bin.counts.store(counts, Ordering::Relaxed);
        // SAFETY: the slots hold a null, objects and this object; of these the last but one.
        bin.head.set(unsafe { *bin.slots.get().add((counts & LEN_MASK) as usize) });
        Some(object)
    }

    /// Takes an object back, whichever cache of the heap it came from. Null is nothing.
    ///
    /// # Safety
    /// `object` is null or came from this heap, was not freed since, and nobody uses it again.
    #[inline(always)]
    pub unsafe fn free(&mut self, object: *mut u8) {
        let class = self.map.class_near(object.addr(), &self.near);
        if !self.push(class, object) {
            self.free_slowly(class, object, None);
        }
    }

    /// `free` of an object that was asked for with `bytes`: faster, for it need not look up where the object is.
    ///
    /// # Safety
    /// As `free`; and `bytes` is what `alloc` was called with, or of the same class.
    #[inline(always)]
    pub unsafe fn free_sized(&mut self, object: *mut u8, bytes: usize) {
        let class = class_of(bytes);
        debug_assert!(self.heap.is_debug() || object.is_null() || class == self.map.class_at(object.addr()));
        if object.is_null() || !self.push(class, object) {
            self.free_slowly(class, object, Some(bytes));
        }
    }

    /// `free` that says what is wrong with the pointer instead of calling the hook. In debug mode it finds all that
    /// debug mode can, else only what is no object of this heap at all.
    ///
    /// # Errors
    /// What was done wrong. After an `Overflow` or a `WrongSize` the object is freed, else nothing was done.
    ///
    /// # Safety
    /// Outside debug mode as `free`.
    pub unsafe fn try_free(&mut self, object: *mut u8) -> Result<(), Report> {
        let class = self.map.class_near(object.addr(), &self.near);
        if class == 0 || self.heap.is_debug() {
            // SAFETY: the caller's promise.
            return unsafe { self.heap.try_free(object) };
        }
        if !self.push(class, object) {
            self.free_slowly(class, object, None);
        }
        Ok(())
    }

    /// An object for at most a KiB, aligned to 16, if one is here; null sends the caller the slow way.
    #[inline(always)]
    pub(super) fn take_aligned(&self, bytes: usize) -> *mut u8 {
        // Class 0 has none.
        self.pop(fine_class_aligned(bytes)).unwrap_or(ptr::null_mut())
    }

    /// Takes back what is of this heap if there is room at once. `false` sends the caller the slow way.
    ///
    /// # Safety
    /// As `free` if it is of this heap; otherwise none.
    #[inline(always)]
    pub(super) unsafe fn keep(&self, object: *mut u8) -> bool {
        // Class 0, of whatever is from elsewhere, has no room.
        self.push(PageMap::class_hinted(object.addr(), &self.near), object)
    }

    /// `free` of what may be from elsewhere. `false`: it is not of this heap, and nothing was done.
    ///
    /// # Safety
    /// As `free` if it is of this heap; otherwise none.
    pub(super) unsafe fn free_if_ours(&mut self, object: *mut u8) -> bool {
        let class = self.map.class_near(object.addr(), &self.near);
        // SAFETY: the caller's promise.
        self.push(class, object) || unsafe { self.free_if_ours_slowly(class, object) }
    }

    #[cold]
    #[inline(never)]
    unsafe fn free_if_ours_slowly(&self, class: usize, object: *mut u8) -> bool {
        // SAFETY: of an address that is from elsewhere the heap knows no size, and looks no further.
        if class == 0 && !object.is_null() && unsafe { self.heap.usable_size(object) } == 0 {
            return false;
        }
        self.free_slowly(class, object, None);
        true
    }

    /// `realloc` of what may be from elsewhere. `None`: it is not of this heap, and nothing was done.
    ///
    /// # Safety
    /// As `realloc` if it is of this heap; otherwise none. The object is not null.
    pub(super) unsafe fn resize_if_ours(&mut self, object: *mut u8, bytes: usize) -> Option<*mut u8> {
        // SAFETY: as in `free_if_ours_slowly`.
        let usable = unsafe { self.usable_size(object) };
        if usable == 0 {
            return None;
        }
        // Who grows a large object grows it again soon, and it is copied each time: it gets an eighth more.
        let wanted = if bytes > usable && usable >= MAX_SMALL_BYTES { bytes.saturating_add(bytes / 8) } else { bytes };
        // SAFETY: the caller's promise; a null left the object as it was.
        unsafe {
            let resized = self.realloc(object, wanted);
            Some(if resized.is_null() && wanted != bytes { self.realloc(object, bytes) } else { resized })
        }
    }

    #[inline(always)]
    fn push(&self, class: usize, object: *mut u8) -> bool {
        let bin = self.bin(class);
        let counts = bin.counts();
        let len = (counts & LEN_MASK) as u32;
        if len >= bin.max.get() {
            return false;
        }
        bin.head.set(object);
        bin.counts.store(counts + 1, Ordering::Relaxed); // see `Bin`
        // SAFETY: `len` is below `max`, which is at most the slots for objects, which come after a null.
        unsafe { bin.slots.get().add(len as usize + 1).write(object) };
        true
    }

    /// Bytes that may be used of an object: its class or pages, in debug mode what was asked for. 0 for null.
    ///
    /// # Safety
    /// `object` is null or a live object of this heap.
    #[inline]
    pub unsafe fn usable_size(&self, object: *mut u8) -> usize {
        let class = self.map.class_near(object.addr(), &self.near);
        if class != 0 && !self.heap.is_debug() {
            return CLASS[class].bytes as usize;
        }
        // SAFETY: the caller's promise.
        unsafe { self.heap.usable_size(object) }
    }

    /// Makes an object of `bytes` of one of another size; what both have room for is kept. It stays where it is if it
    /// fits and does not waste half. Null: memory is refused, the object stays. A null object is `alloc`; alignment
    /// above 16 is not kept.
    ///
    /// # Safety
    /// As `free`, unless null is returned.
    pub unsafe fn realloc(&mut self, object: *mut u8, bytes: usize) -> *mut u8 {
        if object.is_null() {
            return self.alloc(bytes);
        }
        // SAFETY: the caller's promise.
        let usable = unsafe { self.usable_size(object) };
        if bytes <= usable && bytes > usable / 2 && !self.heap.is_debug() {
            return object;
        }
        let moved = self.alloc(bytes);
        if !moved.is_null() {
            // SAFETY: both objects have room for the lesser of their sizes, and they are two.
            unsafe {
                ptr::copy_nonoverlapping(object, moved, usable.min(bytes));
                self.free(object);
            }
        }
        moved
    }

    /// Gives back all free objects. The cache stays usable.
    pub fn flush(&mut self) {
        for class in 1..CLASSES {
            let bin = self.bin(class);
            self.flush_oldest(class, bin.len());
            self.shrink(class, bin.max.get());
        }
    }

    /// Gives back what was not used since the last call: for a caller that comes by now and then (a GC pass, an idle
    /// P).
    pub fn decay(&mut self) {
        for class in 1..CLASSES {
            let bin = self.bin(class);
            if !self.was_used(class) {
                self.flush_oldest(class, bin.len());
                self.shrink(class, bin.max.get());
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_slowly(&self, class: usize, bytes: usize, align: usize) -> *mut u8 {
        if class == 0 || self.heap.is_debug() {
            return self.heap.alloc_aligned(bytes, align);
        }
        self.refill(class)
    }

    /// An object of a class whose stack is empty, and more to fill the stack with.
    fn refill(&self, class: usize) -> *mut u8 {
        self.grow(class);
        let bin = self.bin(class);
        let want = bin.max.get().clamp(1, CLASS[class].batch);
        // SAFETY: a batch at most, of the bin of a cache that is borrowed mutably.
        let slots = unsafe { bin.slots(want) };
        let got = self.heap.central(class).refill(slots);
        if got == 0 {
            return ptr::null_mut();
        }
        add(&bin.misses, 1);
        add(&bin.refilled, got as u64);
        slots[..got].reverse(); // taken from the end, objects then come in the order of their addresses
        bin.set_filled(got as u32);
        self.pop(class).unwrap_or(ptr::null_mut())
    }

    #[cold]
    #[inline(never)]
    fn free_slowly(&self, class: usize, object: *mut u8, bytes: Option<usize>) {
        if object.is_null() {
            return;
        }
        if class == 0 || self.heap.is_debug() {
            // SAFETY: the promise of who called `free`.
            let result = unsafe { self.heap.try_free_sized(object, bytes) };
            return result.unwrap_or_else(|report| self.heap.misused(&report));
        }
        let (bin, batch) = (self.bin(class), CLASS[class].batch);
        if bin.max.get() < batch {
            self.grow(class);
        } else {
            self.flush_oldest(class, batch);
            bin.overages.set(bin.overages.get() + 1);
            if bin.overages.get() > MAX_OVERAGES && bin.max.get() > batch {
                bin.overages.set(0);
                self.shrink(class, batch.min(bin.max.get() - batch));
            }
        }
        if !self.push(class, object) {
            // No room for this class at all, or not enough: what is here and the object go back.
            self.flush_oldest(class, bin.len());
            if !self.push(class, object) {
                self.heap.central(class).flush(&[object]);
                add(&bin.flushed, 1);
            }
        }
    }

    /// Gives the `count` objects that are here for longest to the central list.
    fn flush_oldest(&self, class: usize, count: u32) {
        let bin = self.bin(class);
        let (len, count) = (bin.len(), count.min(bin.len()));
        if count == 0 {
            return;
        }
        // SAFETY: what a bin holds is at most what it may hold; the callers own the cache and have no slice.
        let slots = unsafe { bin.slots(len) };
        self.heap.central(class).flush(&slots[..count as usize]);
        slots.copy_within(count as usize.., 0);
        bin.set_filled(len - count);
        add(&bin.flushed, u64::from(count));
    }

    /// Lets a stack keep more: twice as much up to a batch, then a batch more, if there is room.
    fn grow(&self, class: usize) {
        let (bin, of) = (self.bin(class), &CLASS[class]);
        let max = bin.max.get();
        let new = if max < of.batch { (2 * max).clamp(1, of.batch) } else { (max + of.batch).min(of.cached_max) };
        let bytes = (new - max) as usize * of.bytes as usize;
        if bytes <= self.body().room.get() || self.find_room(bytes, class) {
            self.body().room.set(self.body().room.get() - bytes);
            bin.max.set(new);
        }
    }

    /// Lets a stack keep `count` less. What it keeps beyond that goes back.
    fn shrink(&self, class: usize, count: u32) {
        let bin = self.bin(class);
        let max = bin.max.get() - count;
        self.flush_oldest(class, bin.len().saturating_sub(max));
        bin.max.set(max);
        self.body().room.set(self.body().room.get() + count as usize * CLASS[class].bytes as usize);
    }

    /// Whether the class was allocated from since this was last asked.
    fn was_used(&self, class: usize) -> bool {
        let bin = self.bin(class);
        let allocs = bin.allocs_and_len().0 as u32; // the low half is enough to see a change
        bin.seen.replace(allocs) != allocs
    }

    /// Takes room from stacks that were not used lately until there is room for `bytes`; each is looked at once. When
    /// all are in use, from that which may keep most, if it is much more than who asks would then have.
    fn find_room(&self, bytes: usize, wanted_by: usize) -> bool {
        let room = || self.body().room.get() >= bytes;
        let mut most = (0, 0);
        for _ in 1..CLASSES {
            let class = self.body().hand.get() % (CLASSES - 1) + 1;
            self.body().hand.set(class);
            if class == wanted_by || self.bin(class).max.get() == 0 {
                continue;
            }
            if !self.was_used(class) {
                self.shrink(class, CLASS[class].batch.min(self.bin(class).max.get()));
            }
            if room() {
                return true;
            }
            most = most.max((self.kept_bytes(class), class));
        }
        let (kept, class) = most;
        if kept > 2 * (self.kept_bytes(wanted_by) + bytes) {
            self.shrink(class, CLASS[class].batch.min(self.bin(class).max.get()));
        }
        room()
    }

    /// Bytes that the stack of a class may keep.
    fn kept_bytes(&self, class: usize) -> usize {
        self.bin(class).max.get() as usize * CLASS[class].bytes as usize
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
        self.heap.take_back(self.body);
    }
}
