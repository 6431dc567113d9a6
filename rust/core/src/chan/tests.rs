//! Channel rules of SEMANTICS C2 to C9 and S1 to S6: first without waiting, then with goroutines on several processors
//! under a host that has no lock.

use super::select::{Case, Selected, select};
use super::{Chan, RecvError, SendError};
use crate::goroutine::waiter::Outcome;
use crate::primitive::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sched::null_tests::{go, runtime};
use crate::sched::{Runtime, gosched};
use crate::sys::clock;
use std::sync::Arc;

/// Runs `bodies` as goroutines and waits for all of them.
fn all(rt: &'static Runtime, bodies: Vec<Box<dyn FnOnce() + Send>>) {
    let (done, n) = (Arc::new(Chan::new(0)), bodies.len());
    for body in bodies {
        let done = done.clone();
        go(rt, move || {
            body();
            done.send(rt, (), None).expect("open");
        });
    }
    for _ in 0..n {
        done.recv(rt, None).expect("open");
    }
}

fn soon() -> Option<u64> {
    Some(clock::now_ns() + 20_000)
}

#[test]
fn full_channel_gives_the_value_back() {
    let chan = Chan::new(1);
    assert!(chan.try_send("a").is_ok());
    assert_eq!(chan.try_send("b"), Err(SendError::Full("b")));
    assert_eq!(chan.len(), 1);
}

#[test]
fn closed_channel_drains_in_order_then_says_closed() {
    let chan = Chan::new(3);
    for i in 0..3 {
        assert!(chan.try_send(i).is_ok());
    }
    assert!(chan.close().is_ok());
    assert!(chan.close().is_err());
    assert_eq!(chan.try_send(9), Err(SendError::Closed(9)));
    assert_eq!((chan.try_recv(), chan.try_recv(), chan.try_recv()), (Ok(0), Ok(1), Ok(2)));
    assert_eq!(chan.try_recv(), Err(RecvError::Closed));
}

#[test]
fn empty_channel_has_nothing_and_an_unbuffered_one_no_room() {
    let chan = Chan::<u8>::new(0);
    assert_eq!(chan.try_recv(), Err(RecvError::Empty));
    assert_eq!(chan.try_send(1), Err(SendError::Full(1)));
}

#[test]
fn huge_capacity_asks_for_no_memory() {
    let chan = Chan::new(usize::MAX / 2);
    assert!(chan.try_send(1).is_ok());
    assert_eq!((chan.len(), chan.capacity()), (1, usize::MAX / 2));
}

#[test]
fn values_put_back_come_before_the_buffer_in_the_order_of_their_stamps() {
    for capacity in [0, 1, 4] {
        let chan = Chan::new(capacity);
        let buffered: Vec<i32> = (10..10 + capacity as i32).collect();
        buffered.iter().for_each(|&v| assert!(chan.try_send(v).is_ok()));
        chan.close().expect("once");
        for stamp in [2, 5, 1, 3] {
            chan.unrecv(stamp as i32, stamp).expect("memory");
        }
        let all: Vec<i32> = std::iter::from_fn(|| chan.try_recv().ok()).collect();
        assert_eq!(all, [vec![1, 2, 3, 5], buffered].concat());
    }
}

#[test]
fn stamps_of_selects_grow_with_the_receives() {
    let (rt, chan) = (runtime(1), Chan::new(3));
    (0..3).for_each(|v| chan.try_send(v).expect("room"));
    let mut last = 0;
    for want in 0..3 {
        let mut cases = [Case::recv(Some(&chan)), Case::recv(None)];
        assert_eq!(select(rt, &mut cases, true, None), Selected::Received(0));
        assert_eq!(cases[0].slot, Some(want));
        assert!(cases[0].stamp > last);
        last = cases[0].stamp;
    }
}

#[test]
fn one_case_select_is_the_plain_operation() {
    let (rt, chan) = (runtime(1), Chan::new(1));
    let one = |case: Case<'_, u8>, default| {
        let mut cases = [case];
        let selected = select(rt, &mut cases, default, Some(0));
        (selected, cases[0].slot)
    };
    assert_eq!(one(Case::recv(Some(&chan)), true), (Selected::Default, None));
    assert_eq!(one(Case::recv(Some(&chan)), false), (Selected::Ended(Outcome::TimedOut), None));
    assert_eq!(one(Case::send(Some(&chan), 7), true), (Selected::Sent(0), None));
    assert_eq!(one(Case::send(Some(&chan), 8), true), (Selected::Default, Some(8)));
    assert_eq!(one(Case::send(Some(&chan), 8), false), (Selected::Ended(Outcome::TimedOut), Some(8)));
    assert_eq!(one(Case::recv(Some(&chan)), false), (Selected::Received(0), Some(7)));
    assert_eq!(one(Case::recv(None), true), (Selected::Default, None));
    chan.close().expect("once");
    assert_eq!(one(Case::recv(Some(&chan)), true), (Selected::ReceivedClosed(0), None));
    assert_eq!(one(Case::send(Some(&chan), 9), true), (Selected::SendOnClosed(0), Some(9)));
}

#[test]
fn select_of_ready_cases_is_fair_inline_and_beyond() {
    for n in [2usize, 3, 7, 8, 9, 20] {
        let (rt, rounds) = (runtime(1), 2_000 * n);
        let chans: Vec<Chan<()>> = (0..n).map(|_| Chan::new(1)).collect();
        chans.iter().for_each(|c| c.try_send(()).expect("room"));
        let mut counts = vec![0f64; n];
        for _ in 0..rounds {
            let mut cases: Vec<_> = chans.iter().map(|c| Case::recv(Some(c))).collect();
            let Selected::Received(i) = select(rt, &mut cases, false, None) else { panic!("all are ready") };
            counts[i] += 1.0;
            chans[i].try_send(()).expect("just emptied");
        }
        let chi: f64 = counts.iter().map(|c| (c - 2_000.0).powi(2) / 2_000.0).sum();
        let (k, mean) = (n as f64 - 1.0, n as f64 - 1.0);
        assert!(chi < mean + 7.0 * (2.0 * k).sqrt() + 10.0, "{n} cases: chi-square {chi}");
    }
}

#[test]
fn close_wakes_every_waiter_on_either_side() {
    let rt = runtime(4);
    for _ in 0..20 {
        let (empty, full) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::<u64>::new(1)));
        full.try_send(0).expect("room");
        let started = Arc::new(AtomicUsize::new(0));
        let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for i in 0..30 {
            let (empty, full, started) = (empty.clone(), full.clone(), started.clone());
            bodies.push(Box::new(move || {
                started.fetch_add(1, Ordering::Relaxed);
                match i % 3 {
                    0 => assert_eq!(empty.recv(rt, None), Err(RecvError::Closed)),
                    1 => assert_eq!(full.send(rt, i, None), Err(SendError::Closed(i))),
                    _ => {
                        let mut cases = [Case::recv(Some(&*empty)), Case::send(Some(&*full), i)];
                        let selected = select(rt, &mut cases, false, None);
                        assert!(matches!(selected, Selected::ReceivedClosed(0) | Selected::SendOnClosed(1)));
                        assert_eq!(cases[1].slot, Some(i), "a value that was not sent comes back");
                    }
                }
            }));
        }
        bodies.push(Box::new(move || {
            while started.load(Ordering::Relaxed) < 30 {
                gosched();
            }
            empty.close().expect("once");
            full.close().expect("once");
            assert_eq!((full.try_recv(), full.try_recv()), (Ok(0), Err(RecvError::Closed)));
        }));
        all(rt, bodies);
    }
}

/// Four senders and four receivers over the same channels, each giving up again and again; every value arrives once.
fn nothing_is_lost(capacity: usize, width: usize) {
    const EACH: u64 = 1_000;
    let rt = runtime(4);
    let chans: Arc<Vec<Chan<u64>>> = Arc::new((0..width).map(|_| Chan::new(capacity)).collect());
    let (sum, count) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for s in 0..4u64 {
        let chans = chans.clone();
        bodies.push(Box::new(move || {
            for v in s * EACH..(s + 1) * EACH {
                let mut value = Some(v);
                while let Some(v) = value.take() {
                    // Odd senders select over all channels in reverse order; even ones send on one.
                    if s % 2 == 0 {
                        match chans[v as usize % width].send(rt, v, soon()) {
                            Err(SendError::Ended(v, Outcome::TimedOut)) => value = Some(v),
                            other => assert_eq!(other, Ok(())),
                        }
                        continue;
                    }
                    let mut cases: Vec<_> = chans.iter().rev().map(|c| Case::send(Some(c), v)).collect();
                    match select(rt, &mut cases, false, soon()) {
                        Selected::Sent(i) => {
                            assert!(cases.iter().enumerate().all(|(j, c)| c.slot.is_none() == (i == j)));
                        }
                        Selected::Ended(Outcome::TimedOut) => value = Some(v),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }));
    }
    for r in 0..4 {
        let (chans, sum, count) = (chans.clone(), sum.clone(), count.clone());
        bodies.push(Box::new(move || {
            while count.load(Ordering::Relaxed) < 4 * EACH {
                let got = if r == 0 {
                    chans[0].recv(rt, soon()).ok()
                } else {
                    let mut cases: Vec<_> = chans.iter().map(|c| Case::recv(Some(c))).collect();
                    match select(rt, &mut cases, false, soon()) {
                        Selected::Received(i) => cases[i].slot.take(),
                        Selected::Ended(Outcome::TimedOut) => None,
                        other => panic!("{other:?}"),
                    }
                };
                if let Some(v) = got {
                    sum.fetch_add(v, Ordering::Relaxed);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    all(rt, bodies);
    let n = 4 * EACH;
    assert_eq!((count.load(Ordering::Relaxed), sum.load(Ordering::Relaxed)), (n, n * (n - 1) / 2));
    assert!(chans.iter().all(|c| c.try_recv() == Err(RecvError::Empty)));
}

#[test]
fn timeouts_racing_with_hand_overs_lose_and_double_nothing() {
    nothing_is_lost(0, 1);
    nothing_is_lost(0, 3);
    nothing_is_lost(2, 3);
    nothing_is_lost(0, 11);
}

#[test]
fn select_on_both_sides_of_a_channel_never_receives_its_own_value() {
    let rt = runtime(4);
    let chan = Arc::new(Chan::<u64>::new(0));
    let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let bodies = (0..4u64)
        .map(|me| {
            let (chan, sent, received) = (chan.clone(), sent.clone(), received.clone());
            Box::new(move || {
                for _ in 0..2_000 {
                    let mut cases = [Case::send(Some(&*chan), me), Case::recv(Some(&*chan))];
                    match select(rt, &mut cases, false, Some(clock::now_ns() + 1_000_000)) {
                        Selected::Sent(0) => drop(sent.fetch_add(1, Ordering::Relaxed)),
                        Selected::Received(1) => {
                            assert_ne!(cases[1].slot, Some(me));
                            received.fetch_add(1, Ordering::Relaxed);
                        }
                        Selected::Ended(Outcome::TimedOut) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }) as Box<dyn FnOnce() + Send>
        })
        .collect();
    all(rt, bodies);
    assert_eq!(sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    assert!(sent.load(Ordering::Relaxed) > 0);
}
