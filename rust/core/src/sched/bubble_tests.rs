//! Bubbles under goroutines of several Ms: the clock is exact, and stands while somebody could still do something.

use super::bubble::{Driven, NoWait, START_NS};
use super::null_tests::{go, runtime};
use super::{Runtime, bubble_now_ns, gosched, now_ns, sleep_until};
use crate::chan::{Chan, RecvError};
use crate::goroutine::waiter::Outcome;
use crate::sync::{Mutex, Semaphore, WaitGroup};
use crate::timer::{Event, EventTimer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` in a bubble of its own until that has come to an end.
fn bubble(rt: &'static Runtime, body: impl FnOnce() + Send + 'static) -> Driven {
    let (tell, told) = mpsc::channel();
    go(rt, move || {
        let id = rt.new_bubble();
        rt.in_bubble(id, || go(rt, body));
        let driven = rt.drive(id);
        rt.end_bubble(id);
        tell.send(driven).expect("the test waits");
    });
    told.recv_timeout(PATIENCE).expect("the bubble ends")
}

fn sleep(rt: &'static Runtime, ns: u64) {
    assert_eq!(sleep_until(rt, now_ns() + ns), Outcome::TimedOut);
}

fn passed() -> u64 {
    bubble_now_ns().expect("in a bubble") - START_NS
}

#[test]
fn clock_shows_what_was_slept_for_and_nothing_else() {
    let rt = runtime(2);
    assert!(bubble_now_ns().is_none());
    let driven = bubble(rt, move || {
        assert_eq!(passed(), 0);
        sleep(rt, 3600 * SECOND);
        for _ in 0..100 {
            gosched();
        }
        assert_eq!(passed(), 3600 * SECOND);
        sleep(rt, 1);
        assert_eq!(passed(), 3600 * SECOND + 1);
    });
    assert_eq!(driven, Driven::Done);
    assert!(bubble_now_ns().is_none());
}

#[test]
fn sleepers_wake_each_at_its_time_and_together_in_order() {
    let rt = runtime(1);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = order.clone();
    let driven = bubble(rt, move || {
        for seconds in [5, 1, 3, 1, 4] {
            let seen = seen.clone();
            go(rt, move || {
                sleep(rt, seconds * SECOND);
                assert_eq!(passed(), seconds * SECOND);
                seen.lock().expect("sound").push(seconds);
            });
        }
        sleep(rt, 5 * SECOND);
    });
    assert_eq!(driven, Driven::Done);
    assert_eq!(*order.lock().expect("sound"), [1, 1, 3, 4, 5]);
}

#[test]
fn deadline_of_a_channel_goes_by_the_bubbles_clock() {
    let rt = runtime(2);
    let driven = bubble(rt, move || {
        let chan: Chan<u32> = Chan::new(0);
        let until = now_ns() + 20 * SECOND;
        assert_eq!(chan.recv(rt, Some(until)), Err(RecvError::Ended(Outcome::TimedOut)));
        assert_eq!(passed(), 20 * SECOND);
        let chan = Arc::new(chan);
        let other = chan.clone();
        go(rt, move || {
            sleep(rt, 5 * SECOND);
            other.send(rt, 7, None).expect("received");
        });
        assert_eq!(chan.recv(rt, Some(now_ns() + 10 * SECOND)), Ok(7));
        assert_eq!(passed(), 25 * SECOND);
    });
    assert_eq!(driven, Driven::Done);
}

#[test]
fn waiting_for_others_is_until_they_are_blocked() {
    let rt = runtime(1); // the one that is started waits second
    assert_eq!(rt.wait_for_others(), Err(NoWait::Outside));
    let driven = bubble(rt, move || {
        let (chan, steps) = (Arc::new(Chan::<u32>::new(0)), Arc::new(AtomicU64::new(0)));
        let (other, others_steps) = (chan.clone(), steps.clone());
        go(rt, move || {
            for _ in 0..50 {
                gosched();
                others_steps.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(other.recv(rt, None), Ok(1));
            sleep(rt, SECOND);
            others_steps.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(rt.wait_for_others(), Ok(Outcome::Delivered));
        assert_eq!(steps.load(Ordering::Relaxed), 50);
        chan.send(rt, 1, None).expect("received");
        assert_eq!(rt.wait_for_others(), Ok(Outcome::Delivered));
        assert_eq!((steps.load(Ordering::Relaxed), passed()), (50, 0));
        sleep(rt, SECOND);
        assert_eq!(rt.wait_for_others(), Ok(Outcome::Delivered));
        assert_eq!((steps.load(Ordering::Relaxed), passed()), (51, SECOND));
        let (tell, told) = (Arc::new(Chan::new(1)), Arc::new(Chan::<()>::new(0)));
        let (result, blocked) = (tell.clone(), told.clone());
        go(rt, move || {
            result.try_send(rt.wait_for_others().is_err_and(|why| why == NoWait::Taken)).expect("room");
            let _ = blocked.recv(rt, None);
        });
        let _ = rt.wait_for_others();
        assert_eq!(tell.try_recv(), Ok(true));
        told.close().expect("open");
    });
    assert_eq!(driven, Driven::Done);
}

#[test]
fn those_that_nobody_can_wake_are_a_deadlock() {
    let rt = runtime(2);
    let driven = bubble(rt, move || {
        let chan: Chan<u32> = Chan::new(0);
        go(rt, move || sleep(rt, SECOND));
        let _ = chan.recv(rt, None);
        unreachable!("nobody sends");
    });
    assert_eq!(driven, Driven::Deadlock);
    let driven = bubble(rt, move || {
        let semaphore = Semaphore::new(1);
        let _ = semaphore.acquire(rt, 1, None);
        let _ = semaphore.acquire(rt, 1, None);
    });
    assert_eq!(driven, Driven::Deadlock);
    // The clock stands when the first one has ended.
    let driven = bubble(rt, move || go(rt, move || sleep(rt, SECOND)));
    assert_eq!(driven, Driven::Deadlock);
}

/// What is of the outside holds the clock: it stands until the outside has done its part.
#[test]
fn clock_stands_while_one_waits_for_the_outside() {
    let rt = runtime(2);
    let (chan, group, mutex) = (Arc::new(Chan::<u32>::new(0)), Arc::new(WaitGroup::new()), Arc::new(Mutex::new()));
    group.add(1).expect("counted");
    assert!(mutex.try_lock());
    let (parked, ours) = (Arc::new(AtomicU64::new(0)), (chan.clone(), group.clone(), mutex.clone()));
    let count = parked.clone();
    go(rt, move || {
        while count.load(Ordering::Relaxed) != 3 {
            gosched();
        }
        for _ in 0..1000 {
            gosched(); // time enough for a clock that goes on where it should not
        }
        ours.0.send(rt, 1, None).expect("received");
        ours.1.add(-1).expect("counted");
        ours.2.unlock().expect("locked");
    });
    let driven = bubble(rt, move || {
        let waits: [Box<dyn FnOnce() + Send>; 3] = [
            Box::new(move || assert_eq!(chan.recv(rt, None), Ok(1))),
            Box::new(move || assert_eq!(group.wait(rt, None), Ok(Outcome::Delivered))),
            Box::new(move || assert_eq!(mutex.lock(rt, None), Outcome::Delivered)),
        ];
        for wait in waits {
            let parked = parked.clone();
            go(rt, move || {
                parked.fetch_add(1, Ordering::Relaxed);
                wait();
                assert_eq!(passed(), 0);
            });
        }
        sleep(rt, SECOND);
    });
    assert_eq!(driven, Driven::Done);
}

#[test]
fn wait_group_of_the_bubble_lets_the_clock_go_on() {
    let rt = runtime(2);
    let driven = bubble(rt, move || {
        let group = Arc::new(WaitGroup::new());
        for seconds in 1..=3 {
            group.add(1).expect("counted");
            let group = group.clone();
            go(rt, move || {
                sleep(rt, seconds * SECOND);
                group.add(-1).expect("counted");
            });
        }
        assert_eq!(group.wait(rt, None), Ok(Outcome::Delivered));
        assert_eq!(passed(), 3 * SECOND);
    });
    assert_eq!(driven, Driven::Done);
}

/// A timer that says when it fires, and whether it was abandoned.
#[repr(C)]
struct Telling {
    timer: EventTimer,
    fired: std::sync::Mutex<Vec<u64>>,
    abandoned: AtomicU64,
}

unsafe fn tell(timer: *mut u8) {
    // SAFETY: the timer is leaked.
    unsafe { (*timer.cast::<Telling>()).fired.lock().expect("sound").push(passed() / SECOND) };
}

unsafe fn abandoned(timer: *mut EventTimer) {
    // SAFETY: as above.
    unsafe { (*timer.cast::<Telling>()).abandoned.fetch_add(1, Ordering::Relaxed) };
}

static TELL: Event = Event { take: |timer| timer.cast(), fire: tell, abandon: abandoned };

#[test]
fn timers_of_a_bubble_fire_in_it_and_end_with_it() {
    let rt = runtime(2);
    let (give, given) = mpsc::channel();
    let driven = bubble(rt, move || {
        let new = || {
            let timer = EventTimer::new(&TELL, super::current_bubble());
            Box::leak(Box::new(Telling { timer, fired: Vec::new().into(), abandoned: AtomicU64::new(0) }))
        };
        let (once, often, stopped, late) = (new(), new(), new(), new());
        // SAFETY: leaked, and this goroutine's.
        unsafe {
            rt.start_timer(&raw mut once.timer, now_ns() + 2 * SECOND, 0);
            rt.start_timer(&raw mut often.timer, now_ns() + SECOND, SECOND);
            rt.start_timer(&raw mut stopped.timer, now_ns() + 2 * SECOND, 0);
            rt.start_timer(&raw mut late.timer, now_ns() + 9 * SECOND, 0);
            sleep(rt, SECOND + SECOND / 2);
            assert!(rt.stop_timer(&raw mut stopped.timer));
            assert!(!rt.stop_timer(&raw mut stopped.timer));
        }
        sleep(rt, 2 * SECOND);
        give.send([&*once, often, stopped, late]).expect("the test waits");
    });
    assert_eq!(driven, Driven::Done);
    let told = given.recv().expect("sent");
    assert_eq!(told.map(|t| t.fired.lock().expect("sound").clone()), [vec![2], vec![1, 2, 3], vec![], vec![]]);
    assert_eq!(told.map(|t| t.abandoned.load(Ordering::Relaxed)), [0, 1, 0, 1]);
    assert_eq!(told.map(|t| t.timer.timer.is_queued()), [false; 4]);
}

/// Pairs that sleep and hand values to and fro, on several Ms: each bubble's clock ends where its longest pair does.
#[test]
fn clocks_of_bubbles_side_by_side_are_exact() {
    let rt = runtime(4);
    let (tell, told) = mpsc::channel();
    for which in 1..=20u64 {
        let tell = tell.clone();
        go(rt, move || {
            let id = rt.new_bubble();
            rt.in_bubble(id, || {
                go(rt, move || {
                    let group = Arc::new(WaitGroup::new());
                    for pair in 1..=8u64 {
                        group.add(2).expect("counted");
                        let chan = Arc::new(Chan::new((pair % 2) as usize));
                        let (other, sender, receiver) = (chan.clone(), group.clone(), group.clone());
                        go(rt, move || {
                            for i in 0..20 {
                                sleep(rt, which * pair);
                                chan.send(rt, i, None).expect("received");
                            }
                            sender.add(-1).expect("counted");
                        });
                        go(rt, move || {
                            for i in 0..20 {
                                assert_eq!(other.recv(rt, None), Ok(i));
                                gosched();
                                assert_eq!(passed(), (i + 1) * which * pair);
                            }
                            receiver.add(-1).expect("counted");
                        });
                    }
                    let _ = group.wait(rt, None);
                    assert_eq!(passed(), 20 * which * 8);
                });
            });
            let driven = rt.drive(id);
            rt.end_bubble(id);
            tell.send(driven).expect("the test waits");
        });
    }
    drop(tell);
    for _ in 0..20 {
        assert_eq!(told.recv_timeout(PATIENCE).expect("each ends"), Driven::Done);
    }
}
