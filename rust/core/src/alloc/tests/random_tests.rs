//! Random programs against a plain model: objects held at once never overlap and keep what was written into them,
//! alignment is kept, and the statistics are the model's. Several caches, frees without one, refusals, debug mode.

use super::super::size_class::{CLASS, CLASSES, class_of_aligned};
use super::{assert_empty, cache, cases, check_pages, heap, reports};
use crate::alloc::{Cache, DebugConfig, Heap, PAGE_BYTES};
use crate::primitive::shared::Shared;
use proptest::prelude::*;
use std::collections::BTreeMap;

const CACHES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Alloc { cache: usize, bytes: usize, align: usize },
    Zeroed { cache: usize, bytes: usize },
    Direct { bytes: usize },
    Free { cache: usize, which: usize },
    FreeSized { cache: usize, which: usize },
    FreeRemote { which: usize },
    Realloc { cache: usize, which: usize, bytes: usize },
    Flush { cache: usize },
    Decay { cache: usize },
    Renew { cache: usize },
    Release { bytes: usize },
    Refuse { passes: u64, count: u64 },
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0_usize..200, 3 => 0_usize..3000, 1 => 0_usize..100_000]
}

fn aligned((cache, bytes, shift): (usize, usize, i32)) -> Step {
    Step::Alloc { cache, bytes, align: 1 << shift }
}

fn step() -> impl Strategy<Value = Step> {
    let (cache, which) = (0..CACHES, any::<usize>());
    prop_oneof![
        12 => (cache.clone(), size(), 0..5).prop_map(aligned),
        1 => (cache.clone(), size(), 0..16).prop_map(aligned),
        1 => (cache.clone(), size()).prop_map(|(cache, bytes)| Step::Zeroed { cache, bytes }),
        1 => size().prop_map(|bytes| Step::Direct { bytes }),
        5 => (cache.clone(), which).prop_map(|(cache, which)| Step::Free { cache, which }),
        3 => (cache.clone(), which).prop_map(|(cache, which)| Step::FreeSized { cache, which }),
        2 => which.prop_map(|which| Step::FreeRemote { which }),
        2 => (cache.clone(), which, size()).prop_map(|(cache, which, bytes)| Step::Realloc { cache, which, bytes }),
        1 => cache.clone().prop_map(|cache| Step::Flush { cache }),
        1 => cache.clone().prop_map(|cache| Step::Decay { cache }),
        1 => cache.prop_map(|cache| Step::Renew { cache }),
        1 => (0_usize..1 << 20).prop_map(|bytes| Step::Release { bytes }),
        1 => (0_u64..3, 0_u64..3).prop_map(|(passes, count)| Step::Refuse { passes, count }),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Held {
    object: *mut u8,
    bytes: usize,
    /// It was served from; 0: large.
    class: usize,
    fill: u8,
}

/// A heap and what a plain program would know of it.
struct Program {
    heap: Shared<Heap>,
    caches: Vec<Cache>,
    held: Vec<Held>,
    /// Start to end of what is held.
    ranges: BTreeMap<usize, usize>,
    /// By class; 0 counts large objects.
    allocs: [u64; CLASSES],
    frees: [u64; CLASSES],
    debug: bool,
    may_refuse: bool,
    fill: u8,
}

impl Program {
    fn new(debug: bool, cache_bytes: usize) -> Self {
        let heap = heap(|c| {
            c.debug = debug.then_some(DebugConfig { quarantine_bytes: 20_000 });
            c.cache_bytes = cache_bytes;
        });
        let caches = (0..CACHES).map(|_| cache(&heap)).collect();
        let (held, ranges) = (Vec::new(), BTreeMap::new());
        let counts = [0; CLASSES];
        Self { heap, caches, held, ranges, allocs: counts, frees: counts, debug, may_refuse: false, fill: 0 }
    }

    /// Which class the heap serves a request from.
    fn class(&self, bytes: usize, align: usize) -> usize {
        class_of_aligned(bytes + if self.debug { 16 } else { 0 }, align)
    }

    fn came(&mut self, object: *mut u8, bytes: usize, align: usize) {
        if object.is_null() {
            assert!(self.may_refuse, "{bytes} bytes refused");
            return;
        }
        let natural = if bytes > 8 { 16 } else { 8 };
        assert!(object.addr().is_multiple_of(align.max(natural)));
        // SAFETY: a live object.
        let usable = unsafe { self.caches[0].usable_size(object) };
        assert!(usable >= bytes);
        let (start, end) = (object.addr(), object.addr() + usable.max(1));
        let overlaps = self.ranges.range(..end).next_back().is_some_and(|(_, &e)| e > start);
        assert!(!overlaps, "{start:#x} to {end:#x} is in use");
        let class = self.class(bytes, align);
        self.allocs[class] += 1;
        self.hold(object, bytes, class);
    }

    /// Into the model, with contents of its own.
    fn hold(&mut self, object: *mut u8, bytes: usize, class: usize) {
        self.fill = self.fill.wrapping_add(1);
        // SAFETY: a live object of `bytes`.
        let usable = unsafe {
            object.write_bytes(self.fill, bytes);
            self.caches[0].usable_size(object)
        };
        self.ranges.insert(object.addr(), object.addr() + usable.max(1));
        self.held.push(Held { object, bytes, class, fill: self.fill });
    }

    /// Takes an object out of the model, with its contents as they were left.
    fn pick(&mut self, which: usize) -> Option<Held> {
        if self.held.is_empty() {
            return None;
        }
        let held = self.held.swap_remove(which % self.held.len());
        self.assert_filled(held.object, held.bytes, held.fill);
        self.ranges.remove(&held.object.addr());
        Some(held)
    }

    fn assert_filled(&self, object: *mut u8, bytes: usize, fill: u8) {
        // SAFETY: a live object of `bytes`.
        let contents = unsafe { std::slice::from_raw_parts(object, bytes) };
        assert!(contents.iter().all(|&b| b == fill), "contents changed");
    }

    fn free(&mut self, which: usize, free: impl FnOnce(&mut Self, Held)) {
        if let Some(held) = self.pick(which) {
            self.frees[held.class] += 1;
            free(self, held);
        }
    }

    fn realloc(&mut self, cache: usize, which: usize, bytes: usize) {
        let Some(held) = self.pick(which) else { return };
        // SAFETY: live, and out of the model.
        let moved = unsafe { self.caches[cache].realloc(held.object, bytes) };
        if moved.is_null() {
            assert!(self.may_refuse);
            self.assert_filled(held.object, held.bytes, held.fill);
            self.hold(held.object, held.bytes, held.class);
            return;
        }
        self.assert_filled(moved, held.bytes.min(bytes), held.fill);
        if moved == held.object {
            // It stayed in its class, which may not be the one its new size would get.
            self.hold(moved, bytes, held.class);
        } else {
            self.frees[held.class] += 1;
            self.came(moved, bytes, 1);
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Alloc { cache, bytes, align } => {
                let cache = &mut self.caches[cache];
                let object = if align <= 8 { cache.alloc(bytes) } else { cache.alloc_aligned(bytes, align) };
                self.came(object, bytes, if align <= 8 { 1 } else { align });
            }
            Step::Zeroed { cache, bytes } => {
                let object = self.caches[cache].alloc_zeroed(bytes);
                if !object.is_null() {
                    self.assert_filled(object, bytes, 0);
                }
                self.came(object, bytes, 1);
            }
            Step::Direct { bytes } => {
                let object = self.heap.alloc(bytes);
                self.came(object, bytes, 1);
            }
            // What `free` picks is out of the model, so it is freed once.
            Step::Free { cache, which } => self.free(which, |p, held| {
                // SAFETY: as above.
                unsafe { p.caches[cache].free(held.object) }
            }),
            Step::FreeSized { cache, which } => self.free(which, |p, held| {
                let (same_class, cache) = (held.class == p.class(held.bytes, 1), &mut p.caches[cache]);
                // SAFETY: as above, and the size is one of its class.
                unsafe { if same_class { cache.free_sized(held.object, held.bytes) } else { cache.free(held.object) } }
            }),
            Step::FreeRemote { which } => self.free(which, |p, held| {
                // SAFETY: as above.
                unsafe { p.heap.free(held.object) }
            }),
            Step::Realloc { cache, which, bytes } => self.realloc(cache, which, bytes),
            Step::Flush { cache } => self.caches[cache].flush(),
            Step::Decay { cache } => self.caches[cache].decay(),
            Step::Renew { cache: which } => self.caches[which] = cache(&self.heap),
            Step::Release { bytes } => assert!(self.heap.release(bytes, 0) <= bytes),
            Step::Refuse { passes, count } => {
                self.heap.fail_page_requests(passes, count);
                self.may_refuse = true;
            }
        }
    }

    fn check_stats(&self) {
        let stats = self.heap.stats();
        for (class, of) in stats.classes.iter().enumerate().skip(1) {
            assert_eq!((of.allocs, of.frees), (self.allocs[class], self.frees[class]), "class of {}", of.bytes);
            let objects = (of.spans * CLASS[class].objects as usize) as u64;
            assert_eq!(of.live_objects() + of.free_objects as u64, objects);
        }
        assert_eq!((stats.large_allocs, stats.large_frees), (self.allocs[0], self.frees[0]));
        let pages = self.heap.pages.lock().counts;
        let in_use = (pages.in_use * PAGE_BYTES) as u64;
        assert!(stats.objects_bytes + stats.unused_bytes == in_use);
        check_pages(&self.heap);
    }

    fn end(mut self) {
        self.heap.fail_page_requests(0, 0);
        while !self.held.is_empty() {
            self.free(0, |p, held| {
                // SAFETY: as in `run`.
                unsafe { p.caches[held.fill as usize % CACHES].free(held.object) }
            });
        }
        self.check_stats();
        self.caches.clear();
        assert_empty(&self.heap);
        assert_eq!(reports(), []);
    }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn random_programs_agree_with_the_model(
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 60 } else { 600 }),
        debug in prop::bool::weighted(0.3),
        cache_bytes in prop::sample::select(vec![0, 5_000, 100_000, 4 << 20]),
    ) {
        let mut program = Program::new(debug, cache_bytes);
        for (n, step) in steps.into_iter().enumerate() {
            program.run(step);
            if n % 64 == 0 {
                program.check_stats();
            }
        }
        program.check_stats();
        program.end();
    }
}
