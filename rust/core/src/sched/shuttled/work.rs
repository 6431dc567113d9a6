//! Spawn, park and ready, channels, select, locks.

use super::{comes_to_rest, done, explore, go, group, runtime, wait};
use crate::chan::Chan;
use crate::chan::select::{Case, Selected, select};
use crate::primitive::thread::yield_now;
use crate::sched::gosched;
use crate::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn goroutines_that_spawn_and_yield_all_run() {
    explore(|| {
        let rt = runtime(3);
        let (all, ran) = (group(9), Arc::new(AtomicU64::new(0)));
        for _ in 0..3 {
            let (all, ran) = (all.clone(), ran.clone());
            go(rt, move || {
                for _ in 0..2 {
                    let (all, ran) = (all.clone(), ran.clone());
                    go(rt, move || {
                        gosched();
                        ran.fetch_add(1, Ordering::Relaxed);
                        done(&all);
                    });
                }
                ran.fetch_add(1, Ordering::Relaxed);
                done(&all);
            });
        }
        wait(rt, &all);
        assert_eq!(ran.load(Ordering::Relaxed), 9);
        comes_to_rest(rt);
    });
}

/// Each comes while the M that ran the one before goes to sleep.
#[test]
fn goroutine_that_comes_while_an_m_goes_to_sleep_is_run() {
    explore(|| {
        let rt = runtime(1);
        for _ in 0..8 {
            let one = group(1);
            let o = one.clone();
            go(rt, move || done(&o));
            wait(rt, &one);
        }
        comes_to_rest(rt);
    });
}

#[test]
fn unbuffered_channel_passes_each_value_once() {
    explore(|| {
        let rt = runtime(2);
        let (chan, all, sum) = (Arc::new(Chan::<u64>::new(0)), group(3), Arc::new(AtomicU64::new(0)));
        for sender in 0..2 {
            let (chan, all) = (chan.clone(), all.clone());
            go(rt, move || {
                for i in 0..3 {
                    chan.send(rt, 1 << (8 * sender + i), None).expect("open");
                }
                done(&all);
            });
        }
        let (c, a, s) = (chan, all.clone(), sum.clone());
        go(rt, move || {
            for _ in 0..6 {
                s.fetch_add(c.recv(rt, None).expect("open"), Ordering::Relaxed);
            }
            done(&a);
        });
        wait(rt, &all);
        assert_eq!(sum.load(Ordering::Relaxed), 0x0707);
        comes_to_rest(rt);
    });
}

#[test]
fn select_takes_each_value_of_two_channels_until_both_are_closed() {
    explore(|| {
        let rt = runtime(3);
        let chans = [Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::<u64>::new(1))];
        let (all, sum) = (group(2), Arc::new(AtomicU64::new(0)));
        for (n, chan) in chans.iter().cloned().enumerate() {
            go(rt, move || {
                for i in 0..2 {
                    chan.send(rt, 1 << (8 * n + i), None).expect("open");
                }
                chan.close().expect("once");
            });
        }
        for _ in 0..2 {
            let (chans, all, sum) = (chans.clone(), all.clone(), sum.clone());
            go(rt, move || {
                let mut open = [true, true];
                while open[0] || open[1] {
                    let mut cases = [0, 1].map(|i| Case::recv(open[i].then_some(&*chans[i])));
                    match select(rt, &mut cases, false, None) {
                        Selected::Received(i) => {
                            sum.fetch_add(cases[i].slot.take().expect("a value"), Ordering::Relaxed);
                        }
                        Selected::ReceivedClosed(i) => open[i] = false,
                        other => panic!("{other:?}"),
                    }
                }
                done(&all);
            });
        }
        wait(rt, &all);
        assert_eq!(sum.load(Ordering::Relaxed), 0x0303);
        comes_to_rest(rt);
    });
}

#[test]
fn mutex_keeps_goroutines_apart() {
    explore(|| {
        let rt = runtime(3);
        let (lock, inside, all) = (Arc::new(Mutex::new()), Arc::new(AtomicU64::new(0)), group(4));
        for _ in 0..4 {
            let (lock, inside, all) = (lock.clone(), inside.clone(), all.clone());
            go(rt, move || {
                for _ in 0..2 {
                    let _ = lock.lock(rt, None);
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two inside");
                    gosched();
                    inside.fetch_sub(1, Ordering::Relaxed);
                    lock.unlock().expect("locked");
                }
                done(&all);
            });
        }
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

/// Nobody lets go of its P before all have one.
fn here(ones: &AtomicU64, count: u64) {
    ones.fetch_add(1, Ordering::Relaxed);
    while ones.load(Ordering::Relaxed) != count {
        yield_now();
    }
}

#[test]
fn goroutines_that_compute_run_at_the_same_time_on_as_many_processors() {
    explore(|| {
        let rt = runtime(3);
        let (ones, all) = (Arc::new(AtomicU64::new(0)), group(3));
        for _ in 0..3 {
            let (ones, all) = (ones.clone(), all.clone());
            go(rt, move || {
                here(&ones, 3);
                done(&all);
            });
        }
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

/// As above, from a queue that is a P's own.
#[test]
fn goroutines_that_one_starts_run_at_the_same_time_as_it() {
    explore(|| {
        let rt = runtime(3);
        let (ones, all) = (Arc::new(AtomicU64::new(0)), group(3));
        let (o, a) = (ones, all.clone());
        go(rt, move || {
            for _ in 0..2 {
                let (ones, all) = (o.clone(), a.clone());
                go(rt, move || {
                    here(&ones, 3);
                    done(&all);
                });
            }
            here(&o, 3);
            done(&a);
        });
        wait(rt, &all);
        comes_to_rest(rt);
    });
}
