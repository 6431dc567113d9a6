//! A changing GOMAXPROCS: who is queued or timed on a P that goes is not lost, and Ps that come have Ms.

use super::{comes_to_rest, done, explore, go, group, runtime, wait};
use crate::goroutine::waiter::Outcome;
use crate::primitive::thread;
use crate::sched::blocking::blocking;
use crate::sched::{Runtime, gosched, sleep_until};
use crate::sync::WaitGroup;
use crate::sys::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn processors_that_come_run_what_is_queued() {
    explore(|| {
        let rt = runtime(1);
        let (here, all) = (Arc::new(AtomicU64::new(0)), group(2));
        for _ in 0..2 {
            let (here, all) = (here.clone(), all.clone());
            go(rt, move || {
                here.fetch_add(1, Ordering::Relaxed);
                while here.load(Ordering::Relaxed) != 2 {
                    thread::yield_now();
                }
                done(&all);
            });
        }
        assert_eq!(rt.set_processors(2), 1);
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

/// Keeps the P that stays busy until `all` but itself are done: no thief comes by what the others left.
fn keep_busy(rt: &'static Runtime, all: &Arc<WaitGroup>) {
    let all = all.clone();
    go(rt, move || {
        while all.count() != 1 {
            gosched();
        }
        done(&all);
    });
}

/// The P is given up before a call with somebody in its queue, and goes before another M has it.
#[test]
fn queue_of_a_processor_that_goes_is_everybodys() {
    explore(|| {
        let rt = runtime(3);
        let all = group(5);
        keep_busy(rt, &all);
        for _ in 0..2 {
            let all = all.clone();
            go(rt, move || {
                let other = all.clone();
                go(rt, move || done(&other));
                blocking(thread::yield_now);
                done(&all);
            });
        }
        assert_eq!(rt.set_processors(1), 3);
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

#[test]
fn timers_of_a_processor_that_goes_fire_on_time() {
    explore(|| {
        let rt = runtime(2);
        let all = group(3);
        keep_busy(rt, &all);
        for _ in 0..2 {
            let all = all.clone();
            go(rt, move || {
                assert_eq!(sleep_until(rt, clock::now_ns() + 10_000), Outcome::TimedOut);
                done(&all);
            });
        }
        assert_eq!(rt.set_processors(1), 2);
        wait(rt, &all);
        comes_to_rest(rt);
    });
}
