//! Threads with caches pass objects around; some free without one, one releases and reads statistics all the while.
//! Every object keeps its contents until its one free, and in the end nothing is left.

use super::{assert_empty, cache, heap, reports};
use crate::alloc::{Cache, DebugConfig, Heap};
use crate::primitive::shared::Shared;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

const WORKERS: usize = 3;
const ROUNDS: u64 = if cfg!(miri) { 60 } else { 30_000 };

/// An object on its way: its address and size; its contents say the size again.
type Parcel = (usize, usize);

fn mark(bytes: usize) -> u8 {
    (bytes * 31 % 251) as u8
}

fn fill((address, bytes): Parcel) {
    let object = std::ptr::with_exposed_provenance_mut::<u8>(address);
    // SAFETY: a live object of this thread's.
    unsafe { object.write_bytes(mark(bytes), bytes) };
}

fn check((address, bytes): Parcel) -> *mut u8 {
    let object = std::ptr::with_exposed_provenance_mut::<u8>(address);
    // SAFETY: a live object, handed to this thread.
    let contents = unsafe { std::slice::from_raw_parts(object, bytes) };
    assert!(contents.iter().all(|&b| b == mark(bytes)), "{bytes} bytes changed");
    object
}

/// A small generator, so that each thread has its own order.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn work(cache: &mut Cache, seed: u64, inbox: &Receiver<Parcel>, outboxes: &[Sender<Parcel>]) {
    let (mut seed, mut mine) = (seed, Vec::new());
    for round in 0..ROUNDS {
        let random = next(&mut seed);
        let bytes = match random % 100 {
            0 => 40_000,
            1..20 => (random >> 8) as usize % 4000,
            _ => (random >> 8) as usize % 200,
        };
        let object = cache.alloc(bytes);
        assert!(!object.is_null());
        let parcel = (object.expose_provenance(), bytes);
        fill(parcel);
        match random % 3 {
            // The last outbox is a thread's without a cache.
            0 => outboxes[(random >> 20) as usize % outboxes.len()].send(parcel).unwrap_or_else(|_| mine.push(parcel)),
            _ => mine.push(parcel),
        }
        while mine.len() > 300 || (round % 7 == 0 && !mine.is_empty()) {
            let at = next(&mut seed) as usize % mine.len();
            let parcel = mine.swap_remove(at);
            // SAFETY: this thread's, once.
            unsafe { cache.free_sized(check(parcel), parcel.1) };
        }
        // SAFETY: as above.
        inbox.try_iter().for_each(|parcel| unsafe { cache.free(check(parcel)) });
    }
    // SAFETY: as above.
    mine.into_iter().for_each(|parcel| unsafe { cache.free(check(parcel)) });
}

fn run(heap: &Shared<Heap>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..=WORKERS).map(|_| channel::<Parcel>()).unzip();
    let mut receivers = receivers.into_iter();
    let (start, done) = (Barrier::new(WORKERS), AtomicBool::new(false));
    thread::scope(|scope| {
        let workers: Vec<_> = receivers
            .by_ref()
            .take(WORKERS)
            .enumerate()
            .map(|(i, inbox)| {
                let (outboxes, start) = (senders.clone(), &start);
                scope.spawn(move || {
                    let mut cache = cache(heap);
                    start.wait();
                    work(&mut cache, i as u64 + 1, &inbox, &outboxes);
                    drop(outboxes);
                    // Until every worker has dropped its outboxes.
                    // SAFETY: handed to this thread, once.
                    inbox.iter().for_each(|parcel| unsafe { cache.free(check(parcel)) });
                    assert_eq!(reports(), []);
                })
            })
            .collect();
        let inbox = receivers.next().expect("one more");
        // SAFETY: as above.
        let remote = scope.spawn(move || inbox.iter().for_each(|parcel| unsafe { heap.free(check(parcel)) }));
        let done = &done;
        let keeper = scope.spawn(move || {
            let mut now_ns = 0;
            while !done.load(Ordering::Acquire) {
                heap.release(1 << 20, now_ns);
                let stats = heap.stats();
                assert!(stats.objects_bytes < 1 << 40);
                drop(heap.hold_for_fork());
                now_ns += 1_000_000;
                thread::yield_now();
            }
        });
        drop(senders);
        workers.into_iter().for_each(|w| w.join().expect("no panic"));
        remote.join().expect("no panic");
        done.store(true, Ordering::Release);
        keeper.join().expect("no panic");
    });
    let stats = heap.stats();
    assert_eq!(stats.allocs_objects, ROUNDS * WORKERS as u64);
    assert_empty(heap);
}

#[test]
fn threads_pass_objects_around_and_nothing_is_lost() {
    run(&heap(|_| ()));
}

#[test]
fn threads_with_small_caches_do_the_same() {
    run(&heap(|c| c.cache_bytes = 10_000));
}

#[test]
fn threads_in_debug_mode_are_not_blamed() {
    if cfg!(miri) {
        return;
    }
    run(&heap(|c| c.debug = Some(DebugConfig::default())));
}
