//! What the allocator promises, call by call. Random programs: random_tests; misuse: debug_tests; pages: page_tests.

mod debug_tests;
mod page_tests;
mod random_tests;
mod thread_tests;

use super::size_class::{CLASS, CLASSES, MAX_SMALL_BYTES};
use super::{Cache, Config, Heap, PAGE_BYTES, Report};
use crate::primitive::shared::Shared;
use proptest::prelude::ProptestConfig;
use std::cell::RefCell;

thread_local! {
    static REPORTS: RefCell<Vec<Report>> = const { RefCell::new(Vec::new()) };
}

/// A hook that keeps what it is told.
fn keep(report: &Report) {
    REPORTS.with_borrow_mut(|reports| reports.push(*report));
}

/// What the hook was told on this thread since the last call.
fn reports() -> Vec<Report> {
    REPORTS.take()
}

/// So many random cases; two under miri, where a step takes a thousand times as long.
fn cases(count: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { count };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn heap(change: impl FnOnce(&mut Config)) -> Shared<Heap> {
    let mut config = Config { on_misuse: keep, ..Config::default() };
    change(&mut config);
    Heap::new(config).expect("a heap")
}

fn cache(heap: &Shared<Heap>) -> Cache {
    heap.cache().expect("a cache")
}

/// Flushes what lists and remote frees keep, and counts the pages again.
fn assert_empty(heap: &Heap) {
    heap.end_quarantine();
    // Twice: the first call learns what is idle, the second gives it back.
    (0..2).for_each(|_| heap.tidy());
    let stats = heap.stats();
    assert_eq!(stats.allocs_objects, stats.frees_objects);
    assert_eq!((stats.objects_bytes, stats.unused_bytes), (0, 0), "{stats:?}");
    assert!(stats.classes.iter().all(|c| c.spans == 0 && c.free_objects == 0));
    check_pages(heap);
}

/// The page heap's counts, counted again.
fn check_pages(heap: &Heap) {
    let pages = heap.pages.lock();
    let (counted, kept) = (pages.check(), pages.counts);
    assert_eq!((counted.in_use, counted.free, counted.released), (kept.in_use, kept.free, kept.released));
}

#[test]
fn every_size_is_given_aligned_and_usable() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    for bytes in (0..300).chain((300..MAX_SMALL_BYTES + 9000).step_by(if cfg!(miri) { 7919 } else { 61 })) {
        let object = cache.alloc(bytes);
        assert!(!object.is_null());
        assert!(object.addr().is_multiple_of(if bytes > 8 { 16 } else { 8 }), "{bytes}");
        // SAFETY: a live object of `bytes`.
        unsafe {
            assert!(cache.usable_size(object) >= bytes);
            object.write_bytes(1, bytes);
            cache.free(object);
        }
    }
    drop(cache);
    assert_empty(&heap);
}

#[test]
fn alignment_is_kept_up_to_mebibytes() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    let mut held = Vec::new();
    for shift in 0..=20 {
        for bytes in [1, 24, 100, 5000, 40_000] {
            let object = cache.alloc_aligned(bytes, 1 << shift);
            assert!(object.addr().is_multiple_of(1 << shift) && !object.is_null());
            // SAFETY: a live object of `bytes`.
            unsafe { object.write_bytes(2, bytes) };
            held.push(object);
        }
    }
    assert!(cache.alloc_aligned(8, 3).is_null() && heap.alloc_aligned(8, 0).is_null());
    // SAFETY: each once.
    held.into_iter().for_each(|object| unsafe { cache.free(object) });
    drop(cache);
    assert_empty(&heap);
}

#[test]
fn zeroed_memory_is_zero_whatever_was_there() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    for _ in 0..3 {
        for bytes in [8, 100, 4000, 200_000] {
            let object = cache.alloc_zeroed(bytes);
            // SAFETY: a live object of `bytes`.
            unsafe {
                assert!(std::slice::from_raw_parts(object, bytes).iter().all(|&b| b == 0));
                object.write_bytes(0xff, bytes);
                cache.free(object);
            }
        }
        heap.release(usize::MAX, 0);
    }
}

#[test]
fn realloc_keeps_contents_and_stays_where_it_can() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    // SAFETY: the object is live, and followed where it goes.
    unsafe {
        let mut object = cache.realloc(std::ptr::null_mut(), 10);
        object.write_bytes(7, 10);
        assert_eq!(cache.realloc(object, 16), object, "the class has room");
        for bytes in [1000, 100_000, 60_000, 12, 0] {
            object = cache.realloc(object, bytes);
            assert!((0..bytes.min(10)).all(|i| object.add(i).read() == 7));
        }
        cache.free(object);
        cache.free(std::ptr::null_mut());
        heap.free(std::ptr::null_mut());
    }
    drop(cache);
    assert_empty(&heap);
}

#[test]
fn refused_memory_is_null_and_nothing_is_lost() {
    let heap = heap(|c| c.limit_bytes = 4 << 20);
    let mut cache = cache(&heap);
    assert!(cache.alloc(usize::MAX).is_null() && cache.alloc(isize::MAX as usize).is_null());
    assert!(cache.alloc(5 << 20).is_null() && cache.alloc_zeroed(5 << 20).is_null());
    assert!(cache.alloc_aligned(8, 1 << 62).is_null());
    for bytes in [8, 100, 3000, 100_000] {
        let mut held = Vec::new();
        loop {
            let object = cache.alloc(bytes);
            if object.is_null() {
                break;
            }
            held.push(object);
            if cfg!(miri) && held.len() > 300 {
                break;
            }
        }
        assert!(cfg!(miri) || held.len() * bytes > 3 << 20, "most of the limit can be used");
        // SAFETY: the last is live, and stays where it is.
        assert!(cfg!(miri) || unsafe { cache.realloc(held[0], 2 << 20) }.is_null());
        // SAFETY: each once.
        held.into_iter().for_each(|object| unsafe { cache.free(object) });
        cache.flush();
        (0..2).for_each(|_| heap.tidy());
    }
    heap.fail_page_requests(1, 2);
    let large = [(); 4].map(|()| cache.alloc(40_000).is_null());
    assert_eq!(large, [false, true, true, false]);
}

#[test]
fn caches_hit_and_seldom_lock() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    let rounds = if cfg!(miri) { 20 } else { 200 };
    for round in 0..rounds {
        let mut held: Vec<_> = (0..500).map(|i| cache.alloc((i * 7 + round) % 400 + 1)).collect();
        held.reverse();
        // SAFETY: each once.
        held.into_iter().for_each(|object| unsafe { cache.free(object) });
    }
    let stats = heap.stats();
    let hits = stats.cache_hits as f64 / stats.allocs_objects as f64;
    let locks = stats.lock_ops as f64 / stats.allocs_objects as f64;
    assert!(hits >= 0.95 || cfg!(miri), "{hits}");
    assert!(locks < 1.0 / 32.0 || cfg!(miri), "{locks}");
}

#[test]
fn frees_elsewhere_pay_a_lock_per_batch_and_come_back() {
    let heap = heap(|_| ());
    let (mut producer, mut consumer) = (cache(&heap), cache(&heap));
    let rounds = if cfg!(miri) { 300 } else { 100_000 };
    for _ in 0..rounds {
        // SAFETY: each once.
        unsafe { consumer.free(producer.alloc(48)) };
    }
    let stats = heap.stats();
    assert!(cfg!(miri) || (stats.lock_ops as f64) < rounds as f64 / 32.0, "{} locks", stats.lock_ops);
    assert!(stats.classes[4].spans <= 16, "objects go round: {} spans", stats.classes[4].spans);
    // The same without a cache: the remote list is settled by its pushers and by refills.
    for _ in 0..rounds {
        // SAFETY: each once.
        unsafe { heap.free(producer.alloc(48)) };
    }
    let stats = heap.stats();
    assert_eq!(stats.remote_frees, rounds as u64);
    assert!(stats.classes[4].spans <= 16, "objects go round: {} spans", stats.classes[4].spans);
    drop((producer, consumer));
    assert_empty(&heap);
}

#[test]
fn cache_keeps_no_more_than_it_may() {
    let cache_bytes = 64 << 10;
    let heap = heap(|c| c.cache_bytes = cache_bytes);
    let mut cache = cache(&heap);
    for bytes in [64, 1000, 30_000, 16, 8000, 300, 64] {
        let held: Vec<_> = (0..200).map(|_| cache.alloc(bytes)).collect();
        // SAFETY: each once.
        held.into_iter().for_each(|object| unsafe { cache.free_sized(object, bytes) });
        let kept: usize = heap.stats().classes.iter().map(|c| c.cached_objects * c.bytes).sum();
        // A refill of a stack that may keep nothing still brings the one object that is asked for.
        assert!(kept <= cache_bytes, "{kept} after {bytes}");
    }
    let of_64 = heap.stats().classes[5];
    assert_eq!(of_64.bytes, 64);
    assert!(of_64.cached_objects > 0, "room is taken from those who do not use it");
    (0..2).for_each(|_| cache.decay());
    assert!(heap.stats().classes.iter().all(|c| c.cached_objects == 0), "what is not used is given back");
}

#[test]
fn ended_caches_leave_their_counts_and_their_memory() {
    let heap = heap(|_| ());
    for _ in 0..10 {
        let mut cache = cache(&heap);
        let object = cache.alloc(100);
        // SAFETY: once.
        unsafe { cache.free(object) };
    }
    let stats = heap.stats();
    assert_eq!((stats.allocs_objects, stats.frees_objects), (10, 10));
    let more = heap.stats().metadata_bytes;
    drop((cache(&heap), cache(&heap)));
    assert!(heap.stats().metadata_bytes > more, "a second cache at a time is a second body");
    let both = heap.stats().metadata_bytes;
    drop((cache(&heap), cache(&heap)));
    assert_eq!(heap.stats().metadata_bytes, both, "and both are used again");
}

#[test]
fn stats_are_by_class_and_add_up() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    let small: Vec<_> = (0..100).map(|_| cache.alloc(33)).collect();
    let large = cache.alloc(MAX_SMALL_BYTES + 1);
    let direct = heap.alloc(33);
    // SAFETY: each once.
    unsafe {
        small[..40].iter().for_each(|&object| cache.free(object));
        heap.free(small[40]);
    }
    let stats = heap.stats();
    let of = stats.classes[4];
    assert_eq!((of.bytes, of.allocs, of.frees, of.live_objects()), (48, 101, 41, 60));
    assert_eq!(of.free_objects, of.spans * CLASS[4].objects as usize - 60);
    assert_eq!((stats.large_allocs, stats.large_frees, stats.large_allocated_bytes), (1, 0, 5 * PAGE_BYTES as u64));
    assert_eq!((stats.allocs_objects, stats.frees_objects, stats.remote_frees), (102, 41, 1));
    assert_eq!(stats.objects_bytes, 60 * 48 + 5 * PAGE_BYTES as u64);
    assert_eq!(stats.objects_bytes + stats.unused_bytes, (of.spans + 5) as u64 * PAGE_BYTES as u64);
    assert_eq!(stats.cache_hits + stats.cache_refills, 100);
    assert!(stats.free_bytes == 0 && stats.released_bytes > 0, "what was never touched is the system's");
    assert_eq!(stats.classes[0], Default::default());
    assert_eq!(stats.classes.len(), CLASSES);
    // SAFETY: each once.
    unsafe {
        small[41..].iter().chain([&large, &direct]).for_each(|&object| cache.free(object));
    }
    drop(cache);
    assert_empty(&heap);
}
