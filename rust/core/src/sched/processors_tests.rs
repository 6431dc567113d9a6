//! GOMAXPROCS changed while goroutines of many Ms run: nothing queued or timed is lost, and no more Ps run than there are.

use super::null_tests::{go, runtime};
use super::{gosched, sleep_until};
use crate::chan::Chan;
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sync::WaitGroup;
use crate::sys::clock;
use std::sync::Arc;

#[test]
fn work_goes_on_while_their_number_changes() {
    let rt = runtime(1);
    let group = Arc::new(WaitGroup::new());
    let sum = Arc::new(AtomicU64::new(0));
    let chan = Arc::new(Chan::<u64>::new(1));
    let (pairs, each) = (8u64, 3_000u64);
    for _ in 0..pairs {
        let (to, from) = (chan.clone(), chan.clone());
        group.add(2).expect("adds");
        let (mine, others) = (group.clone(), group.clone());
        let sum = sum.clone();
        go(rt, move || {
            for i in 0..each {
                to.send(rt, i, None).expect("open");
                if i % 64 == 0 {
                    sleep_until(rt, clock::now_ns() + 20_000);
                }
            }
            mine.done_for_test();
        });
        go(rt, move || {
            for i in 0..each {
                sum.fetch_add(from.recv(rt, None).expect("open"), Ordering::Relaxed);
                if i % 50 == 0 {
                    gosched();
                }
            }
            others.done_for_test();
        });
    }
    let counts = [4, 1, 8, 2, 3, 1, 16, 5];
    let mut before = 1;
    for turn in 0..400 {
        let count = counts[turn % counts.len()];
        assert_eq!(rt.set_processors(count), before);
        before = count;
        std::thread::yield_now();
        assert!(rt.idle_processors.load(Ordering::SeqCst) <= 16);
    }
    let _ = group.wait(rt, None);
    assert_eq!(sum.load(Ordering::Relaxed), pairs * each * (each - 1) / 2);
}

#[test]
fn all_of_them_are_idle_again_once_nothing_runs() {
    let rt = runtime(2);
    for count in [7, 1, 3, 12, 2] {
        rt.set_processors(count);
        let group = Arc::new(WaitGroup::new());
        for _ in 0..200 {
            group.add(1).expect("adds");
            let group = group.clone();
            go(rt, move || {
                sleep_until(rt, clock::now_ns() + 100_000);
                group.done_for_test();
            });
        }
        let _ = group.wait(rt, None);
        let end = clock::now_ns() + 20_000_000_000;
        while rt.idle_processors.load(Ordering::SeqCst) != count {
            assert!(clock::now_ns() < end, "{} of {count} idle", rt.idle_processors.load(Ordering::SeqCst));
            std::thread::yield_now();
        }
    }
}
