//! Sleep, deadlines, descriptors, calls that block, threads from outside, a changing GOMAXPROCS.

use super::{comes_to_rest, done, explore, go, group, runtime, runtime_with_sysmon, wait};
use crate::chan::{Chan, RecvError, SendError};
use crate::goroutine::waiter::{Listens, Outcome};
use crate::netpoll::{Event, Side};
use crate::primitive::{Condvar, Mutex, delayed, thread};
use crate::sched::blocking::blocking;
use crate::sched::{Runtime, gosched, sleep_until, wait_io};
use crate::sys::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn sleepers_wake_and_none_too_early() {
    explore(|| {
        let rt = runtime(2);
        let all = group(4);
        for i in 0..4u64 {
            let all = all.clone();
            go(rt, move || {
                for _ in 0..2 {
                    let when = clock::now_ns() + 1 + delayed::below(4) * 100_000 + i;
                    assert_eq!(sleep_until(rt, when), Outcome::TimedOut);
                    assert!(clock::now_ns() >= when, "woken too early");
                }
                done(&all);
            });
        }
        wait(rt, &all);
        assert_eq!(rt.timer_count(), 0);
        comes_to_rest(rt);
    });
}

#[test]
fn value_sent_while_deadlines_pass_is_taken_once_or_given_back() {
    explore(|| {
        let rt = runtime(2);
        let (chan, all, balance) = (Arc::new(Chan::<u64>::new(0)), group(4), Arc::new(AtomicU64::new(0)));
        let deadline = |i: u64| Some(clock::now_ns() + 1 + i * 20_000);
        for i in 0..2 {
            let (c, a, b) = (chan.clone(), all.clone(), balance.clone());
            go(rt, move || {
                match c.recv(rt, deadline(i)) {
                    Ok(value) => drop(b.fetch_sub(value, Ordering::Relaxed)),
                    Err(e) => assert_eq!(e, RecvError::Ended(Outcome::TimedOut)),
                }
                done(&a);
            });
            let (c, a, b) = (chan.clone(), all.clone(), balance.clone());
            go(rt, move || {
                match c.send(rt, 1 << (8 * i), deadline(1 - i)) {
                    Ok(()) => drop(b.fetch_add(1 << (8 * i), Ordering::Relaxed)),
                    Err(e) => assert_eq!(e, SendError::Ended(1 << (8 * i), Outcome::TimedOut)),
                }
                done(&a);
            });
        }
        wait(rt, &all);
        assert_eq!(balance.load(Ordering::Relaxed), 0);
        assert_eq!(rt.timer_count(), 0);
        comes_to_rest(rt);
    });
}

/// A descriptor of the poller's model that bytes come to.
struct Pipe {
    fd: i32,
    bytes: Mutex<u64>,
}

impl Pipe {
    fn write(&self, rt: &Runtime) {
        *self.bytes.lock().expect("no panic inside") += 1;
        let tag = u64::from(self.fd.cast_unsigned());
        rt.net.model_poller().post(Event { tag, readable: true, ..Event::default() });
    }

    fn read(&self, rt: &'static Runtime) {
        loop {
            let desc = rt.net.desc(self.fd).expect("every number is a descriptor in a model");
            let seen = desc.seq(Side::Read);
            {
                let mut bytes = self.bytes.lock().expect("no panic inside");
                if *bytes != 0 {
                    *bytes -= 1;
                    return;
                }
            }
            let outcome = wait_io(rt, desc, Side::Read, seen, None, Listens::ToAll);
            assert_eq!(outcome, Outcome::Delivered);
        }
    }
}

fn readers_get_what_is_written(rt: &'static Runtime) {
    let pipes = [0, 1].map(|fd| Arc::new(Pipe { fd, bytes: Mutex::new(0) }));
    pipes.iter().for_each(|pipe| assert!(rt.net.desc(pipe.fd).is_ok()));
    let all = group(5);
    for pipe in &pipes {
        for _ in 0..2 {
            let (pipe, all) = (pipe.clone(), all.clone());
            go(rt, move || {
                pipe.read(rt);
                done(&all);
            });
        }
    }
    // One writer is a thread, as the network is; the other one a goroutine of the program.
    let [outside, inside] = pipes;
    thread::start(move || (0..2).for_each(|_| outside.write(rt)));
    let a = all.clone();
    go(rt, move || {
        for _ in 0..2 {
            inside.write(rt);
            gosched();
        }
        done(&a);
    });
    wait(rt, &all);
    assert_eq!(rt.net.waiting(), 0);
}

#[test]
fn readers_are_woken_by_events() {
    explore(|| {
        let rt = runtime_with_sysmon(2);
        readers_get_what_is_written(rt);
        rt.stop();
    });
}

/// Nobody looks after an M that sleeps in the poller: whoever brings work has to wake it.
#[test]
fn work_wakes_the_m_that_sleeps_in_the_poller() {
    explore(|| {
        let rt = runtime(1 + delayed::below(2) as usize);
        readers_get_what_is_written(rt);
        comes_to_rest(rt);
    });
}

#[test]
fn calls_that_block_leave_their_processor_to_others() {
    explore(|| {
        let rt = runtime(1);
        let gate = Arc::new((Mutex::new(0), Condvar::new()));
        let all = group(4);
        for _ in 0..2 {
            let (g, a) = (gate.clone(), all.clone());
            go(rt, move || {
                blocking(|| {
                    let mut open = g.0.lock().expect("no panic inside");
                    while *open == 0 {
                        open = g.1.wait(open).expect("no panic inside");
                    }
                    *open -= 1;
                });
                gosched();
                done(&a);
            });
            let (g, a) = (gate.clone(), all.clone());
            go(rt, move || {
                gosched();
                *g.0.lock().expect("no panic inside") += 1;
                g.1.notify_one();
                done(&a);
            });
        }
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

#[test]
fn plain_threads_and_goroutines_wake_each_other() {
    explore(|| {
        let rt = runtime(2);
        let (there, back, all) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::<u64>::new(1)), group(4));
        for _ in 0..2 {
            let (t, b, a) = (there.clone(), back.clone(), all.clone());
            go(rt, move || {
                for _ in 0..2 {
                    b.send(rt, t.recv(rt, None).expect("open") + 1, None).expect("open");
                }
                done(&a);
            });
            let (t, b, a) = (there.clone(), back.clone(), all.clone());
            thread::start(move || {
                for i in 0..2 {
                    t.send(rt, i, None).expect("open");
                    assert!(b.recv(rt, None).expect("open") <= 2);
                }
                done(&a);
            });
        }
        wait(rt, &all);
        comes_to_rest(rt);
    });
}

#[test]
fn processors_come_and_go_while_goroutines_run() {
    explore(|| {
        let rt = runtime(2);
        let (chan, all) = (Arc::new(Chan::<u64>::new(1)), group(5));
        for i in 0..4 {
            let (c, a) = (chan.clone(), all.clone());
            go(rt, move || {
                for _ in 0..2 {
                    if i % 2 == 0 {
                        c.send(rt, 1, None).expect("open");
                        gosched();
                    } else {
                        assert_eq!(c.recv(rt, None), Ok(1));
                        sleep_until(rt, clock::now_ns() + 10_000);
                    }
                }
                done(&a);
            });
        }
        let a = all.clone();
        let change = move || {
            (0..3).for_each(|_| assert!(rt.set_processors(1 + delayed::below(4) as usize) <= 4));
            done(&a);
        };
        if delayed::below(2) == 0 {
            thread::start(change)
        } else {
            go(rt, change)
        }
        wait(rt, &all);
        comes_to_rest(rt);
    });
}
