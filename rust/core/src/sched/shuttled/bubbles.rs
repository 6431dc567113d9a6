//! Bubbles: whoever blocks last sees to it that the clock goes on, and it never does while one is ready.

use super::{comes_to_rest, done, explore, go, group, runtime, wait};
use crate::chan::Chan;
use crate::goroutine::waiter::Outcome;
use crate::sched::Runtime;
use crate::sched::bubble::{Driven, START_NS};
use crate::sched::{bubble_now_ns, gosched, now_ns, sleep_until};
use crate::sync::WaitGroup;
use std::sync::Arc;

fn passed() -> u64 {
    bubble_now_ns().expect("in a bubble") - START_NS
}

fn sleep(rt: &'static Runtime, ns: u64) {
    assert_eq!(sleep_until(rt, now_ns() + ns), Outcome::TimedOut);
}

fn run(rt: &'static Runtime, all: Arc<WaitGroup>, body: impl FnOnce() + Send + 'static, expected: Driven) {
    go(rt, move || {
        let id = rt.new_bubble();
        rt.in_bubble(id, || go(rt, body));
        assert_eq!(rt.drive(id), expected);
        rt.end_bubble(id);
        done(&all);
    });
}

#[test]
fn clocks_of_bubbles_go_on_when_all_are_blocked_and_never_before() {
    explore(|| {
        let rt = runtime(2);
        let all = group(2);
        for step in 1..=2u64 {
            let body = move || {
                let chan = Arc::new(Chan::new(0));
                let to = chan.clone();
                go(rt, move || {
                    for i in 1..=2 {
                        sleep(rt, step);
                        to.send(rt, i, None).expect("received");
                    }
                });
                for i in 1..=2 {
                    assert_eq!(chan.recv(rt, None), Ok(i));
                    gosched();
                    assert_eq!(passed(), i * step);
                }
                assert_eq!(rt.wait_for_others(), Ok(Outcome::Delivered));
                assert_eq!(passed(), 2 * step);
            };
            run(rt, all.clone(), body, Driven::Done);
        }
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

/// The sender does not sleep before it sends, so that its value may come between the receiver's announcement and its park.
#[test]
fn clock_stands_for_one_that_was_served_before_it_parked() {
    explore(|| {
        let rt = runtime(2);
        let all = group(1);
        let body = move || {
            let chan = Arc::new(Chan::new(0));
            let from = chan.clone();
            go(rt, move || {
                for i in 0..3 {
                    assert_eq!(from.recv(rt, None), Ok(i));
                    gosched();
                    assert_eq!(passed(), i);
                }
            });
            for i in 0..3 {
                chan.send(rt, i, None).expect("received");
                sleep(rt, 1);
            }
        };
        run(rt, all.clone(), body, Driven::Done);
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

#[test]
fn clock_stands_until_the_outside_has_come() {
    explore(|| {
        let rt = runtime(2);
        let all = group(2);
        let (outside, other) = (Arc::new(Chan::<u64>::new(0)), all.clone());
        let from = outside.clone();
        let body = move || {
            go(rt, move || {
                assert_eq!(from.recv(rt, None), Ok(7));
                assert_eq!(passed(), 0);
            });
            sleep(rt, 5);
            assert_eq!(passed(), 5);
        };
        run(rt, all.clone(), body, Driven::Done);
        go(rt, move || {
            outside.send(rt, 7, None).expect("received");
            done(&other);
        });
        wait(rt, &all);
        comes_to_rest(rt);
    });
}
