//! A forked child finds a heap that is whole, whatever other threads did in the moment of the fork. In a file of its
//! own: it forks.

use gort_core::alloc::{Cache, Config, DebugConfig, Heap, Report};
use gort_core::primitive::shared::Shared;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const FORKS: usize = 12;

fn wrong(report: &Report) {
    panic!("{report}");
}

/// Allocates and frees in many classes, and large; `false` when something is not as it should be.
fn use_all(cache: &mut Cache, heap: &Heap) -> bool {
    for round in 0..3 {
        let sizes = (1..70).map(|i| 9 * i * i + round);
        let held: Vec<_> = sizes.map(|bytes| (cache.alloc(bytes), bytes)).collect();
        for &(object, bytes) in &held {
            if object.is_null() {
                return false;
            }
            // SAFETY: a live object of `bytes`.
            unsafe { object.write_bytes(round as u8, bytes) };
        }
        for (i, (object, bytes)) in held.into_iter().enumerate() {
            // SAFETY: each once.
            unsafe {
                match i % 3 {
                    0 => heap.free(object),
                    1 => cache.free(object),
                    _ => cache.free_sized(object, bytes),
                }
            }
        }
        heap.release(usize::MAX, round as u64 * 1_000_000_000);
    }
    let stats = heap.stats();
    stats.objects_bytes < 1 << 40
}

fn children_use_the_heap(config: Config) {
    let heap = Heap::new(config).expect("a heap");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            let (heap, done): (Shared<Heap>, _) = (heap.clone(), &done);
            scope.spawn(move || {
                let mut cache = heap.cache().expect("a cache");
                while !done.load(Ordering::Relaxed) {
                    assert!(use_all(&mut cache, &heap));
                }
            });
        }
        let mut cache = heap.cache().expect("a cache");
        for _ in 0..FORKS {
            assert!(use_all(&mut cache, &heap));
            let hold = heap.hold_for_fork();
            // SAFETY: the child uses the heap, and ends without running what a process runs at its end.
            let child = unsafe { libc::fork() };
            drop(hold);
            if child == 0 {
                let (mut other, good) = (heap.cache(), use_all(&mut cache, &heap));
                let good = good && other.as_mut().is_ok_and(|other| use_all(other, &heap));
                // SAFETY: ends the process.
                unsafe { libc::_exit(i32::from(!good)) };
            }
            assert!(child > 0, "fork");
            let mut status = 0;
            // SAFETY: a child of this process.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((waited, status), (child, 0), "the child ended well");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn child_of_a_threaded_program_goes_on_with_the_heap() {
    children_use_the_heap(Config { on_misuse: wrong, ..Config::default() });
}

#[test]
fn child_in_debug_mode_does_too() {
    let debug = Some(DebugConfig { quarantine_bytes: 100_000 });
    children_use_the_heap(Config { on_misuse: wrong, debug, ..Config::default() });
}
