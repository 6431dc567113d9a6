//! On a host with a lock, sysmon at work: calls that last lose their P, who computes is interrupted, main and others that
//! belong to a thread, cancellation, signals, deadlock.

use super::host::{self, HOST, out, safe_point, start_thread};
use super::{config, done, explore, go, group, wait};
use crate::chan::{Chan, RecvError};
use crate::goroutine::Goroutine;
use crate::goroutine::waiter::Outcome;
use crate::primitive::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::primitive::{Condvar, Mutex, delayed, thread};
use crate::sched::{
    Runtime, current_goroutine, current_machine, gosched, lock_os_thread, sleep_for_ever, sleep_until, unlock_os_thread,
};
use crate::sys::clock;
use std::ptr;
use std::sync::Arc;

/// Shorter than real ones, so that they are over within the steps of a schedule.
const SLICE_NS: u64 = 200_000;

/// A runtime whose main goroutine is the caller.
fn main_of(may_move: bool) -> &'static Runtime {
    let config = super::Config { slice_ns: SLICE_NS, ..config(1) };
    let rt = Runtime::new(config, &HOST).expect("a runtime");
    let state = host::new_state();
    // SAFETY: the first thread of the execution, attached with its new state.
    unsafe {
        host::attach(state);
        assert!(rt.adopt_main(state, may_move));
    }
    rt
}

/// What C code waits for, without the host's lock.
#[derive(Clone)]
struct Gate(Arc<(Mutex<u32>, Condvar)>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(0), Condvar::new())))
    }

    fn pass(&self) {
        let mut open = self.0.0.lock().expect("no panic inside");
        while *open == 0 {
            open = self.0.1.wait(open).expect("no panic inside");
        }
        *open -= 1;
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic inside") += 1;
        self.0.1.notify_one();
    }
}

#[test]
fn calls_that_last_stop_nobody_else() {
    explore(|| {
        host::begin(false);
        let rt = main_of(false);
        let (gate, all) = (Gate::new(), group(6));
        for _ in 0..2 {
            let (g, a) = (gate.clone(), all.clone());
            go(rt, move || {
                out(|| g.pass());
                gosched();
                done(&a);
            });
        }
        for _ in 0..4 {
            let (g, a) = (gate.clone(), all.clone());
            go(rt, move || {
                gosched();
                g.open();
                done(&a);
            });
        }
        out(|| gate.pass()); // main is stuck, too
        wait(rt, &all);
    });
}

#[test]
fn who_computes_is_interrupted_for_who_waits() {
    explore(|| {
        host::begin(false);
        let rt = main_of(false);
        let (flag, all) = (Arc::new(AtomicU64::new(0)), group(3));
        for _ in 0..2 {
            let (f, a) = (flag.clone(), all.clone());
            go(rt, move || {
                while f.load(Ordering::SeqCst) == 0 {
                    let _ = safe_point();
                }
                done(&a);
            });
        }
        let (f, a) = (flag, all.clone());
        go(rt, move || {
            f.store(1, Ordering::SeqCst);
            done(&a);
        });
        wait(rt, &all);
    });
}

/// Has `g` end, as the host's `cancel` does: by the wait it is in, or at its next park or safe point.
fn cancel(rt: &'static Runtime, g: *mut Goroutine) {
    // SAFETY: a live goroutine, with the host attached.
    unsafe {
        rt.ask_to_end(g);
        rt.end_wait(g, Outcome::Cancelled);
    }
}

#[test]
fn who_is_cancelled_ends_wherever_it_is() {
    explore(|| {
        host::begin(false);
        let rt = main_of(true);
        let (chan, all) = (Arc::new(Chan::<u64>::new(0)), group(3));
        let them = Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = |them: &std::sync::Mutex<Vec<usize>>| {
            let g = current_goroutine();
            them.lock().expect("no panic inside").push(g.expose_provenance());
            // By turns it comes in a call before the wait, and in the wait.
            // SAFETY: the running goroutine's own descriptor.
            let is_asked = || unsafe { (*g).cancel_requested.load(Ordering::SeqCst) != 0 };
            if delayed::below(2) == 0 {
                out(|| {
                    while !is_asked() {
                        thread::yield_now();
                    }
                });
            }
        };
        let (c, a, t) = (chan, all.clone(), them.clone());
        go(rt, move || {
            note(&t);
            assert_eq!(c.recv(rt, None), Err(RecvError::Ended(Outcome::Cancelled)));
            done(&a);
        });
        let (a, t) = (all.clone(), them.clone());
        go(rt, move || {
            note(&t);
            let far = clock::now_ns() + 1_000_000_000_000;
            assert_eq!(sleep_until(rt, far), Outcome::Cancelled);
            done(&a);
        });
        let (a, t) = (all.clone(), them.clone());
        go(rt, move || {
            note(&t);
            while !safe_point() {}
            done(&a);
        });
        for _ in 0..3 {
            let g = loop {
                if let Some(g) = them.lock().expect("no panic inside").pop() {
                    break g;
                }
                sleep_until(rt, clock::now_ns() + 10_000);
            };
            cancel(rt, ptr::with_exposed_provenance_mut(g));
        }
        wait(rt, &all);
        rt.stop();
    });
}

#[test]
fn main_that_nobody_can_wake_is_told() {
    explore(|| {
        host::begin(true);
        let rt = main_of(false);
        let chan = Arc::new(Chan::<u64>::new(0));
        let c = chan.clone();
        go(rt, move || {
            let _ = c.recv(rt, None);
        });
        assert_eq!(sleep_for_ever(rt), Outcome::Deadlock);
        // And it is no deadlock any more.
        chan.send(rt, 1, None).expect("open");
    });
}

#[test]
fn signal_ends_the_wait_of_main() {
    explore(|| {
        host::begin(false);
        let rt = main_of(true);
        let ends = Arc::new(AtomicBool::new(false));
        let e = ends.clone();
        go(rt, move || {
            while !e.load(Ordering::SeqCst) {
                let _ = safe_point();
            }
        });
        thread::start(|| host::set_signal(true));
        assert_eq!(sleep_for_ever(rt), Outcome::Interrupted);
        host::set_signal(false);
        ends.store(true, Ordering::SeqCst);
    });
}

#[test]
fn goroutine_locked_to_its_thread_stays_there() {
    explore(|| {
        host::begin(false);
        let rt = main_of(false);
        let (there, back, all) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::<u64>::new(0)), group(3));
        let (t, b, a) = (there.clone(), back.clone(), all.clone());
        go(rt, move || {
            lock_os_thread(rt);
            let mine = current_machine();
            for _ in 0..2 {
                let value = t.recv(rt, None).expect("open");
                assert!(ptr::eq(current_machine(), mine), "on another thread");
                out(thread::yield_now);
                b.send(rt, value + 1, None).expect("open");
                assert!(ptr::eq(current_machine(), mine), "on another thread");
            }
            unlock_os_thread();
            gosched();
            done(&a);
        });
        let a = all.clone();
        go(rt, move || {
            for i in 0..2 {
                there.send(rt, i, None).expect("open");
                assert_eq!(back.recv(rt, None), Ok(i + 1));
            }
            done(&a);
        });
        let a = all.clone();
        go(rt, move || {
            for _ in 0..3 {
                gosched();
            }
            done(&a);
        });
        wait(rt, &all);
    });
}

#[test]
fn main_goes_on_elsewhere_while_its_thread_is_stuck() {
    explore(|| {
        host::begin(false);
        let rt = main_of(true);
        let (gate, all) = (Gate::new(), group(2));
        for _ in 0..2 {
            let (g, a) = (gate.clone(), all.clone());
            go(rt, move || {
                out(|| g.pass());
                done(&a);
            });
        }
        // Whoever runs on main's own thread now sits in a call until main itself comes back.
        for _ in 0..2 {
            sleep_until(rt, clock::now_ns() + 50_000);
            gate.open();
        }
        wait(rt, &all);
        rt.stop();
    });
}

#[test]
fn threads_of_the_host_and_goroutines_wake_each_other() {
    explore(|| {
        host::begin(false);
        let rt = main_of(false);
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
            start_thread(move || {
                for i in 0..2 {
                    t.send(rt, i, None).expect("open");
                    let deadline = (delayed::below(2) == 0).then(|| clock::now_ns() + 1_000_000_000_000);
                    assert!(b.recv(rt, deadline).expect("open") <= 2);
                }
                done(&a);
            });
        }
        wait(rt, &all);
    });
}

#[test]
fn errands_are_run_with_the_lock() {
    explore(|| {
        host::begin(false);
        let rt = main_of(false);
        /// # Safety
        /// `argument` is a group's that lives.
        unsafe fn run(_rt: &'static Runtime, argument: usize) {
            // SAFETY: the promise.
            unsafe {
                assert!((HOST.holds_lock)(), "without the lock");
                done(&*ptr::with_exposed_provenance::<crate::sync::WaitGroup>(argument));
            }
        }
        let all = group(2);
        let address = Arc::as_ptr(&all).expose_provenance();
        for _ in 0..2 {
            // SAFETY: `all` lives until both are done.
            thread::start(move || unsafe { rt.call_attached(run, address) });
        }
        wait(rt, &all);
    });
}
