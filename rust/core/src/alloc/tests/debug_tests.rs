//! Debug mode names each misuse, with the object; what is used rightly it never blames.

use super::{assert_empty, cache, heap, keep, reports};
use crate::alloc::{Cache, Config, DebugConfig, Heap, Misuse, Report};
use crate::primitive::shared::Shared;

fn debug_heap(quarantine_bytes: usize) -> (Shared<Heap>, Cache) {
    let heap = heap(|c| c.debug = Some(DebugConfig { quarantine_bytes }));
    let cache = cache(&heap);
    (heap, cache)
}

#[test]
fn second_free_is_found_in_quarantine_and_after_it() {
    for quarantine_bytes in [1 << 20, 0] {
        let (_heap, mut cache) = debug_heap(quarantine_bytes);
        let (object, other) = (cache.alloc(100), cache.alloc(100));
        // SAFETY: debug mode looks before it touches.
        let again = unsafe {
            assert_eq!(cache.try_free(object), Ok(()));
            cache.try_free(object)
        };
        let report = again.expect_err("freed twice");
        assert_eq!((report.what, report.address), (Misuse::DoubleFree, object.addr()));
        assert_eq!(report.size_bytes, 128, "100 bytes and a canary of 16");
        assert!(report.to_string().contains("double free") && report.to_string().contains("128"));
        // SAFETY: live.
        assert_eq!(unsafe { cache.try_free(other) }, Ok(()));
        assert_eq!(reports(), []);
    }
}

#[test]
fn large_objects_are_watched_alike() {
    let (heap, mut cache) = debug_heap(0);
    let object = cache.alloc(100_000);
    // SAFETY: debug mode looks before it touches; the byte behind the object is its canary's.
    unsafe {
        let inside = cache.try_free(object.add(50_000)).expect_err("no start");
        assert_eq!((inside.what, inside.size_bytes), (Misuse::NotAnObject, 13 * 8192));
        object.add(100_000).write(0);
        let report = cache.try_free(object).expect_err("overflow");
        assert_eq!(report.what, Misuse::Overflow { offset: 100_000 });
        assert_eq!(cache.try_free(object).map_err(|r| r.what), Err(Misuse::DoubleFree));
    }
    drop(cache);
    assert_empty(&heap);
}

#[test]
fn pointers_that_are_no_objects_are_told_apart() {
    let (heap, mut cache) = debug_heap(1 << 20);
    let (before, object) = (cache.alloc(200), cache.alloc(200));
    let mut foreign = 0_u64;
    let mut what = |p: *mut u8| {
        // SAFETY: debug mode looks before it touches.
        unsafe { cache.try_free(p) }.map_err(|report| report.what)
    };
    assert_eq!(what(object.wrapping_add(16)), Err(Misuse::NotAnObject));
    assert_eq!(what(object.wrapping_sub(1)), Err(Misuse::NotAnObject));
    assert_eq!(what((&raw mut foreign).cast()), Err(Misuse::Foreign));
    assert_eq!(what(std::ptr::without_provenance_mut(8)), Err(Misuse::Foreign));
    assert_eq!(what(std::ptr::without_provenance_mut(usize::MAX)), Err(Misuse::Foreign));
    assert_eq!((what(object), what(before)), (Ok(()), Ok(())));
    drop(cache);
    assert_empty(&heap);
}

#[test]
fn writes_behind_an_object_are_found_from_the_first_byte_on() {
    for bytes in [0, 1, 8, 100, 240, 32_750] {
        let (_heap, mut cache) = debug_heap(1 << 20);
        for offset in [bytes, bytes + 7, bytes + 15] {
            let object = cache.alloc(bytes);
            // SAFETY: the slot has 16 bytes more.
            let report = unsafe {
                assert_eq!(cache.usable_size(object), bytes);
                object.add(offset).write(0x55);
                cache.try_free(object).expect_err("overflow")
            };
            assert_eq!((report.what, report.address), (Misuse::Overflow { offset }, object.addr()));
        }
    }
}

#[test]
fn writes_after_free_are_found_when_quarantine_ends() {
    let (heap, mut cache) = debug_heap(1 << 20);
    let object = cache.alloc(64);
    // SAFETY: waiting objects stay mapped; the stray write is what is tested.
    unsafe {
        cache.free(object);
        assert_eq!(object.add(10).read(), 0xDD, "poisoned");
        object.add(10).write(1);
    }
    assert_eq!(reports(), []);
    heap.end_quarantine();
    let what = Misuse::WriteAfterFree { offset: 10 };
    assert_eq!(reports(), [Report { what, address: object.addr(), size_bytes: 80 }]);
}

#[test]
fn wrong_sizes_are_named_and_the_object_is_freed() {
    let (heap, mut cache) = debug_heap(1 << 20);
    let object = cache.alloc(64);
    // SAFETY: once; the size is what is tested.
    unsafe { cache.free_sized(object, 65) };
    assert_eq!(reports().iter().map(|r| r.what).collect::<Vec<_>>(), [Misuse::WrongSize]);
    drop(cache);
    assert_empty(&heap);
}

#[test]
fn freed_objects_wait_their_turn() {
    let (_heap, mut cache) = debug_heap(10 * 64);
    let first = cache.alloc(48);
    // SAFETY: each once.
    unsafe {
        cache.free(first);
        for _ in 0..9 {
            let next = cache.alloc(48);
            assert_ne!(next, first, "still waiting");
            cache.free(next);
        }
    }
    assert_eq!(reports(), []);
}

#[test]
fn without_debug_mode_what_is_seen_for_nothing_is_named() {
    let heap = heap(|_| ());
    let mut cache = cache(&heap);
    let (small, large) = (cache.alloc(100), cache.alloc(100_000));
    let mut foreign = 0_u64;
    // SAFETY: pointers without a class are looked at, not touched; the stray ones among the others stop at the spans.
    unsafe {
        assert_eq!(cache.try_free((&raw mut foreign).cast()).map_err(|r| r.what), Err(Misuse::Foreign));
        assert_eq!(cache.try_free(large.add(8192)).map_err(|r| r.what), Err(Misuse::NotAnObject));
        assert_eq!(cache.try_free(large), Ok(()));
        cache.free(large);
        assert_eq!(reports().iter().map(|r| r.what).collect::<Vec<_>>(), [Misuse::DoubleFree]);
        cache.free(small);
        cache.free(small);
        cache.free(small.add(16));
    }
    cache.flush();
    (0..2).for_each(|_| heap.tidy());
    let found: Vec<_> = reports().iter().map(|r| (r.what, r.address - small.addr())).collect();
    assert!(found.contains(&(Misuse::DoubleFree, 0)) && found.contains(&(Misuse::NotAnObject, 16)), "{found:?}");
}

#[test]
fn refusals_in_debug_mode_are_null() {
    let config = DebugConfig::default();
    let heap = Heap::new(Config { debug: Some(config), on_misuse: keep, ..Config::default() }).expect("a heap");
    let mut cache = cache(&heap);
    heap.fail_page_requests(0, 2);
    assert!(cache.alloc(10).is_null() && cache.alloc(100_000).is_null() && cache.alloc(usize::MAX).is_null());
    let object = cache.alloc_zeroed(100_000);
    // SAFETY: live, freed once.
    unsafe {
        assert_eq!(object.add(99_999).read(), 0);
        cache.free(object);
    }
    drop(cache);
    assert_empty(&heap);
}
