//! What block and mutex profiles are told.

use super::contention::*;
use super::null_tests::{go, runtime};
use super::runtime::REQUEST_WAITS;
use crate::goroutine::waiter::{Outcome, Reason};
use crate::primitive::Mutex as Lock;
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sync::Mutex as GoMutex;
use crate::sys::clock;
use std::sync::Arc;

static NOTED: Lock<Vec<Delay>> = Lock::new(Vec::new());

unsafe fn note(delay: Delay) {
    NOTED.lock().unwrap().push(delay);
}

#[test]
fn chosen_waits_stand_for_all() {
    let rt = runtime(1);
    let rate = 10_000;
    for ns in [10, 100, 1_000, 9_999, 10_000, 25_000] {
        const N: u64 = 200_000;
        let (mut count, mut sum_ns) = (0.0, 0);
        for _ in 0..N {
            if is_chosen(ns, rate, rt.random()) {
                let weight = Delay { profile: Profile::Block, reason: Reason::ChanReceive, ns, rate }.weight();
                (count, sum_ns) = (count + weight.0, sum_ns + weight.1);
            }
        }
        let close = |found: f64, right: f64| (found / right - 1.0).abs() < 0.4 * (10.0 / ns as f64).sqrt() + 0.01;
        assert!(close(count, N as f64), "{count} of {N} waits of {ns} ns");
        assert!(close(sum_ns as f64, (N * ns) as f64), "{sum_ns} ns for {N} waits of {ns} ns");
    }
    assert!(!is_chosen(u64::MAX, 0, 0));
    let delay = Delay { profile: Profile::Mutex, reason: Reason::Mutex, ns: u64::MAX / 2, rate: 5 };
    assert_eq!(delay.weight(), (5.0, u64::MAX));
}

#[test]
fn waiters_of_a_lock_are_charged_once() {
    let contention = Contention::default();
    let begun_ns = clock::now_ns();
    assert!(contention.enter(8) != 0 && contention.enter(8) != 0 && contention.enter(16) != 0);
    let first = contention.leave(8, 1);
    contention.give_up(8);
    contention.give_up(16);
    assert!(first <= 2 * (clock::now_ns() - begun_ns));
    assert_eq!((contention.leave(8, 1), contention.leave(16, 1)), (0, 0));
    assert!(contention.knows_nobody());
}

#[test]
fn unlocks_and_waits_are_noted_where_they_are_asked_for() {
    let rt = runtime(2);
    let _ = rt.contention.note.set(note);
    let mutex = Arc::new(GoMutex::new());
    let round = || {
        let (held, waits) = (mutex.clone(), mutex.clone());
        let ended = Arc::new(AtomicU64::new(0));
        let ends = ended.clone();
        assert_eq!(held.lock(rt, None), Outcome::Delivered);
        go(rt, move || {
            let _ = waits.lock(rt, None);
            let _ = waits.unlock();
            ends.store(1, Ordering::Release); // pairs with the Acquire below
        });
        while mutex.waiter_count() == 0 {
            std::thread::yield_now();
        }
        let _ = held.unlock();
        while ended.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
    };
    round();
    assert_eq!(rt.set_contention_rates(Some(1), Some(1)), (0, 0));
    round();
    assert_eq!(rt.set_contention_rates(None, Some(0)), (1, 1));
    assert_eq!(rt.set_contention_rates(Some(0), None), (1, 0));
    assert_eq!(rt.requests.load(Ordering::Relaxed) & REQUEST_WAITS, 0);
    round();
    let noted = |profile| NOTED.lock().unwrap().iter().filter(|delay| delay.profile == profile).count();
    while noted(Profile::Block) < 1 || noted(Profile::Mutex) < 1 {
        std::thread::yield_now();
    }
    assert_eq!((noted(Profile::Block), noted(Profile::Mutex)), (1, 1));
}
