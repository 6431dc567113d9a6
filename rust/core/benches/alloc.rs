//! The allocator beside the process's malloc, which is glibc's or what LD_PRELOAD names:
//!
//!     cargo bench --bench alloc
//!     LD_PRELOAD=libmimalloc.so.2 cargo bench --bench alloc
//!
//! Pairs of alloc and free of one size; a few hundred objects alive of mixed sizes, freed in another order; and objects
//! that one thread allocates and another frees.

mod measure;

use gort_core::alloc::{Cache, Config, Heap};
use gort_core::primitive::shared::Shared;
use measure::{header, measure};
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::thread;

const PAIRS: u64 = 200_000;
const ALIVE: usize = 512;
const PASSED: u64 = 200_000;
/// Objects between the two threads at most.
const RING: usize = 1024;

/// What is measured: one owner's view of an allocator.
trait Memory: Send {
    fn alloc(&mut self, bytes: usize) -> *mut u8;
    fn free(&mut self, object: *mut u8, bytes: usize);
}

/// A cache, with frees that look up the object's class.
struct Ours(Cache);

impl Memory for Ours {
    #[inline(always)]
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        self.0.alloc(bytes)
    }

    #[inline(always)]
    fn free(&mut self, object: *mut u8, _bytes: usize) {
        // SAFETY: from the same heap, freed once.
        unsafe { self.0.free(object) };
    }
}

/// A cache, with frees that know the size.
struct Sized(Cache);

impl Memory for Sized {
    #[inline(always)]
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        self.0.alloc(bytes)
    }

    #[inline(always)]
    fn free(&mut self, object: *mut u8, bytes: usize) {
        // SAFETY: from the same heap, of this size, freed once.
        unsafe { self.0.free_sized(object, bytes) };
    }
}

/// No cache: what a thread pays that is no P.
struct Remote(Cache, Shared<Heap>);

impl Memory for Remote {
    #[inline(always)]
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        self.0.alloc(bytes)
    }

    #[inline(always)]
    fn free(&mut self, object: *mut u8, _bytes: usize) {
        // SAFETY: from this heap, freed once.
        unsafe { self.1.free(object) };
    }
}

struct Malloc;

impl Memory for Malloc {
    #[inline(always)]
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        // SAFETY: malloc.
        unsafe { libc::malloc(bytes) }.cast()
    }

    #[inline(always)]
    fn free(&mut self, object: *mut u8, _bytes: usize) {
        // SAFETY: from malloc, freed once.
        unsafe { libc::free(object.cast()) };
    }
}

/// Writes a word, as whoever allocates does. The compiler no longer knows where the object is from; it stays in a
/// register, where `black_box` would send it by way of memory.
#[inline(always)]
fn touch(object: *mut u8) -> *mut u8 {
    let mut object = object;
    // SAFETY: at least 8 bytes; no instruction at all.
    unsafe {
        object.cast::<u64>().write(1);
        std::arch::asm!("/* {0} */", inout(reg) object, options(readonly, nostack, preserves_flags));
    }
    object
}

fn pairs(name: &str, bytes: usize, memory: &mut impl Memory) {
    measure(&format!("{name}: pair of {bytes} B"), PAIRS, || {
        for _ in 0..PAIRS {
            let object = touch(memory.alloc(black_box(bytes)));
            memory.free(object, bytes);
        }
    });
}

/// 512 objects of 16 to 1,000 bytes alive; each step frees one of them, at random, and allocates another.
fn churn(name: &str, memory: &mut impl Memory) {
    let mut alive = [(ptr::null_mut::<u8>(), 0_usize); ALIVE];
    let mut seed = 1_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let sizes: Vec<usize> = (0..4096).map(|_| 16 + (next() % 32) * (next() % 32)).collect();
    measure(&format!("{name}: 512 alive, mixed sizes"), PAIRS, || {
        for step in 0..PAIRS as usize {
            let slot = &mut alive[next() % ALIVE];
            if !slot.0.is_null() {
                memory.free(slot.0, slot.1);
            }
            let bytes = sizes[step % sizes.len()];
            *slot = (touch(memory.alloc(bytes)), bytes);
        }
    });
    alive.iter().filter(|slot| !slot.0.is_null()).for_each(|&(object, bytes)| memory.free(object, bytes));
}

/// One thread allocates, another frees; the bound is a ring of pointers between them, the same for all.
fn passed(name: &str, producer: &mut impl Memory, consumer: &mut impl Memory) {
    let ring: Vec<_> = (0..RING).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
    let (sent, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    measure(&format!("{name}: freed by another thread, 64 B"), PASSED, || {
        let end = sent.load(Ordering::Relaxed) + PASSED as usize;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut at = taken.load(Ordering::Relaxed);
                while at < end {
                    let there = sent.load(Ordering::Acquire); // pairs with the Release of `sent`
                    if there == at {
                        thread::yield_now();
                    }
                    for i in at..there {
                        consumer.free(ring[i % RING].load(Ordering::Relaxed), 64);
                    }
                    at = there;
                    taken.store(at, Ordering::Release); // pairs with the Acquire of `taken`
                }
            });
            let mut at = sent.load(Ordering::Relaxed);
            while at < end {
                let room = (taken.load(Ordering::Acquire) + RING).min(end);
                if room == at {
                    thread::yield_now();
                }
                for i in at..room {
                    ring[i % RING].store(touch(producer.alloc(64)), Ordering::Relaxed);
                }
                at = room;
                sent.store(at, Ordering::Release);
            }
        });
    });
}

fn main() {
    header("alloc");
    let heap = Heap::new(Config::default()).expect("a heap");
    let cache = || heap.cache().expect("a cache");
    for bytes in [16, 64, 256, 1024, 8192] {
        pairs("malloc", bytes, &mut Malloc);
        pairs("gort", bytes, &mut Ours(cache()));
        pairs("gort, sized", bytes, &mut Sized(cache()));
    }
    churn("malloc", &mut Malloc);
    churn("gort", &mut Ours(cache()));
    churn("gort, sized", &mut Sized(cache()));
    let before = heap.stats();
    passed("malloc", &mut Malloc, &mut Malloc);
    passed("gort", &mut Ours(cache()), &mut Ours(cache()));
    let after = heap.stats();
    passed("gort, without a cache", &mut Ours(cache()), &mut Remote(cache(), heap.clone()));
    let allocs = (after.allocs_objects - before.allocs_objects) as f64;
    let part = |after: u64, before: u64| (after - before) as f64 / allocs;
    let hits = part(after.cache_hits, before.cache_hits) * 100.0;
    let locks = part(after.lock_ops, before.lock_ops);
    measure::print(&format!("freed by another cache: {hits:.2} % hits, a lock per {:.0} allocations", 1.0 / locks));
    let all = heap.stats();
    let (hits, allocs) = (all.cache_hits as f64, all.allocs_objects as f64);
    measure::print(&format!(
        "in all: {:.3} % hits, a lock per {:.0}",
        100.0 * hits / allocs,
        allocs / all.lock_ops as f64
    ));
}
