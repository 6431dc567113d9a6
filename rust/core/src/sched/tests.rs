//! The scheduler with a host that has no lock: several Ms and Ps, stealing, blocking calls.

use super::null_tests::{go, runtime};
use super::{blocking, gosched};
use crate::chan::{Chan, RecvError, select};
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, WaitGroup};
use crate::sys::clock;
use std::sync::Arc;

#[test]
fn spawned_goroutines_all_run_on_many_processors() {
    let rt = runtime(4);
    let group = Arc::new(WaitGroup::new());
    let sum = Arc::new(AtomicU64::new(0));
    for i in 0..10_000u64 {
        group.add(1).expect("adds");
        let (group, sum) = (group.clone(), sum.clone());
        go(rt, move || {
            if i % 3 == 0 {
                gosched();
            }
            sum.fetch_add(i, Ordering::Relaxed);
            group.done_for_test();
        });
    }
    let _ = group.wait(rt, None);
    assert_eq!(sum.load(Ordering::Relaxed), 10_000 * 9_999 / 2);
}

#[test]
fn unbuffered_channel_passes_every_value_once_between_many_goroutines() {
    let rt = runtime(4);
    let chan = Arc::new(Chan::<u64>::new(0));
    let group = Arc::new(WaitGroup::new());
    let (senders, each) = (8u64, 2_000u64);
    let sum = Arc::new(AtomicU64::new(0));
    for s in 0..senders {
        let chan = chan.clone();
        go(rt, move || {
            for i in 0..each {
                chan.send(rt, s * each + i, None).expect("open");
            }
        });
    }
    for _ in 0..4 {
        group.add(1).expect("adds");
        let (chan, group, sum) = (chan.clone(), group.clone(), sum.clone());
        go(rt, move || {
            for _ in 0..senders * each / 4 {
                sum.fetch_add(chan.recv(rt, None).expect("open"), Ordering::Relaxed);
            }
            group.done_for_test();
        });
    }
    let _ = group.wait(rt, None);
    let n = senders * each;
    assert_eq!(sum.load(Ordering::Relaxed), n * (n - 1) / 2);
}

#[test]
fn select_receives_from_whichever_is_ready_until_both_are_closed() {
    let rt = runtime(3);
    let (a, b) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::<u64>::new(2)));
    for chan in [a.clone(), b.clone()] {
        go(rt, move || {
            for i in 1..=500 {
                chan.send(rt, i, None).expect("open");
            }
            chan.close().expect("once");
        });
    }
    let (mut sum, mut open) = (0, [true, true]);
    while open[0] || open[1] {
        let mut cases = [select::Case::recv(open[0].then_some(&*a)), select::Case::recv(open[1].then_some(&*b))];
        match select::select(rt, &mut cases, false, None) {
            select::Selected::Received(i) => sum += cases[i].slot.take().expect("a value"),
            select::Selected::ReceivedClosed(i) => open[i] = false,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sum, 2 * 500 * 501 / 2);
}

#[test]
fn mutex_keeps_goroutines_of_many_processors_apart() {
    struct Shared(std::cell::UnsafeCell<u64>);
    // SAFETY: only touched with the mutex held; that this is enough is what is tested.
    unsafe impl Sync for Shared {}
    let rt = runtime(4);
    let shared = Arc::new((Mutex::new(), Shared(std::cell::UnsafeCell::new(0))));
    let group = Arc::new(WaitGroup::new());
    for _ in 0..16 {
        group.add(1).expect("adds");
        let (shared, group) = (shared.clone(), group.clone());
        go(rt, move || {
            for _ in 0..1_000 {
                let _ = shared.0.lock(rt, None);
                // SAFETY: the mutex is held.
                unsafe { *shared.1.0.get() += 1 };
                shared.0.unlock().expect("locked");
            }
            group.done_for_test();
        });
    }
    let _ = group.wait(rt, None);
    // SAFETY: everybody is done.
    assert_eq!(unsafe { *shared.1.0.get() }, 16_000);
}

#[test]
fn receive_with_a_deadline_times_out_and_leaves_no_waiter() {
    let rt = runtime(2);
    let chan = Arc::new(Chan::<u64>::new(0));
    let group = Arc::new(WaitGroup::new());
    for _ in 0..100 {
        group.add(1).expect("adds");
        let (chan, group) = (chan.clone(), group.clone());
        go(rt, move || {
            let result = chan.recv(rt, Some(clock::now_ns() + 1_000_000));
            assert!(matches!(result, Err(RecvError::Ended(_))));
            group.done_for_test();
        });
    }
    let _ = group.wait(rt, None);
    assert!(chan.try_send(1).is_err(), "a waiter was left behind");
}

#[test]
fn blocking_call_lets_the_others_of_its_processor_run() {
    let rt = runtime(1);
    let (gate, opened) =
        (Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new())), Arc::new(WaitGroup::new()));
    opened.add(2).expect("adds");
    let (g, o) = (gate.clone(), opened.clone());
    go(rt, move || {
        blocking::blocking(|| {
            let mut open = g.0.lock().expect("lock");
            while !*open {
                open = g.1.wait(open).expect("wait");
            }
        });
        o.done_for_test();
    });
    let (g, o) = (gate, opened.clone());
    go(rt, move || {
        *g.0.lock().expect("lock") = true;
        g.1.notify_all();
        o.done_for_test();
    });
    let _ = opened.wait(rt, None);
    assert_eq!(opened.count(), 0);
}

impl WaitGroup {
    pub(super) fn done_for_test(&self) {
        self.add(-1).expect("not negative");
    }
}
