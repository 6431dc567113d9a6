//! The page heap: best fit, neighbours joined in every order, exact counts of what the system has, release and its
//! rate.

use super::super::page_heap::PageHeap;
use super::super::span::{PAGE_BYTES, SpanRef};
use super::{assert_empty, cache, cases, check_pages, heap};
use proptest::prelude::*;

fn pages() -> Box<PageHeap> {
    PageHeap::new(usize::MAX).expect("a page heap")
}

/// Of committed pages so many are free, and none in use.
fn assert_all_free(heap: &PageHeap) {
    let counts = heap.check();
    assert_eq!((counts.in_use, heap.counts.in_use), (0, 0));
    assert_eq!((counts.free, counts.released), (heap.counts.free, heap.counts.released));
}

#[test]
fn neighbours_are_joined_in_every_order_of_frees() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut heap = pages();
        let spans = [3, 5, 7].map(|n| heap.allocate(n, 1, 0).expect("pages"));
        assert_eq!(spans[0].end(), spans[1].start.get());
        let start = spans[0].start.get();
        for i in order {
            heap.free(spans[i]);
            heap.check();
        }
        assert_all_free(&heap);
        let all = heap.allocate(heap.counts.free, 1, 0).expect("one run");
        assert_eq!(all.start.get(), start);
    }
}

#[test]
fn shortest_run_that_fits_is_taken_also_of_long_ones() {
    let mut heap = pages();
    let lengths = [300, 10, 290, 12, 295, 20];
    let spans: Vec<_> = lengths
        .iter()
        .map(|&n| {
            let span = heap.allocate(n, 1, 0).expect("pages");
            heap.allocate(1, 1, 0).expect("a page between");
            span
        })
        .collect();
    let starts: Vec<_> = spans.iter().map(|span| span.start.get()).collect();
    spans.into_iter().for_each(|span| heap.free(span));
    for (pages, at) in [(11, 3), (9, 1), (291, 4), (289, 2), (296, 0), (20, 5)] {
        assert_eq!(heap.allocate(pages, 1, 0).expect("pages").start.get(), starts[at], "{pages} pages");
    }
}

#[test]
fn pages_are_released_once_and_counted_when_used_again() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    let objects = [(); 3].map(|()| cache.alloc(1 << 20));
    // SAFETY: live objects; each freed once.
    unsafe {
        objects.iter().for_each(|o| o.write_bytes(1, 1 << 20));
        cache.free(objects[0]);
        cache.free(objects[2]);
    }
    assert_eq!(heap.stats().free_bytes, 2 << 20);
    assert_eq!(heap.release(100_000, 0), 100_000 / PAGE_BYTES * PAGE_BYTES);
    assert_eq!(heap.release(usize::MAX, 0), (2 << 20) - 100_000 / PAGE_BYTES * PAGE_BYTES);
    assert_eq!(heap.release(usize::MAX, 1_000_000_000), 0, "there is no more");
    let stats = heap.stats();
    assert_eq!((stats.free_bytes, stats.released_total_bytes), (0, 2 << 20));
    check_pages(&heap);
    let again = cache.alloc(1 << 20);
    // SAFETY: a live object, then freed once; the second is live as before.
    unsafe {
        assert_eq!(again.read(), 0, "what was given back reads as zero");
        assert_eq!(objects[1].add(1000).read(), 1);
        cache.free(again);
        cache.free(objects[1]);
    }
    drop(cache);
    assert_empty(&heap);
}

#[test]
fn release_keeps_to_its_rate() {
    let heap = heap(|c| c.release_bytes_per_s = 1 << 20);
    let mut cache = cache(&heap);
    let object = cache.alloc(4 << 20);
    // SAFETY: once.
    unsafe { cache.free(object) };
    assert_eq!(heap.release(usize::MAX, 0), 1 << 20);
    assert_eq!(heap.release(usize::MAX, 1000), 0);
    assert_eq!(heap.release(usize::MAX, 500_001_000), 1 << 19);
    assert_eq!(heap.release(usize::MAX, 60_000_000_000), 1 << 20, "at most a second's worth at once");
}

#[test]
fn objects_larger_than_a_region_and_reservations_that_follow() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    if cfg!(miri) {
        return; // which would touch all of it
    }
    let objects = [(1 << 30) + 1, 700 << 20, 700 << 20, 100].map(|bytes| cache.alloc(bytes));
    for object in objects {
        assert!(!object.is_null());
        // SAFETY: live, then freed once.
        unsafe {
            object.add(99).write(1);
            cache.free(object);
        }
    }
    drop(cache);
    assert_empty(&heap);
}

proptest! {
    #![proptest_config(cases(60))]

    /// Runs of pages never overlap, counts stay exact, all comes together at the end.
    #[test]
    fn runs_never_overlap_and_counts_are_exact(
        steps in prop::collection::vec((0_u8..10, 1_usize..400, any::<prop::sample::Index>()), 1..150),
    ) {
        let mut heap = pages();
        let mut held: Vec<SpanRef> = Vec::new();
        for (what, pages, index) in steps {
            match what {
                0..=4 => {
                    let align = if what == 0 { 64 } else { 1 };
                    let span = heap.allocate(pages, align, 0).expect("pages");
                    prop_assert!(span.start.get().is_multiple_of(align * PAGE_BYTES));
                    let apart = |other: &SpanRef| other.end() <= span.start.get() || span.end() <= other.start.get();
                    prop_assert!(held.iter().all(apart));
                    held.push(span);
                }
                5..=7 if !held.is_empty() => {
                    let span = held.swap_remove(index.index(held.len()));
                    heap.free(span);
                }
                _ => {
                    if let Some(span) = heap.take_resident(pages) {
                        heap.check();
                        heap.give_released(span);
                    }
                }
            }
            let counts = heap.check();
            prop_assert_eq!((counts.free, counts.released), (heap.counts.free, heap.counts.released));
            prop_assert_eq!(counts.in_use, heap.counts.in_use);
            prop_assert_eq!(counts.in_use, held.iter().map(|s| s.pages.get()).sum::<usize>());
        }
        held.into_iter().for_each(|span| heap.free(span));
        assert_all_free(&heap);
    }
}
