//! The scheduler through its public interface, on a host without a lock: order, fairness, stealing, timers, blocking
//! calls, cancellation, many goroutines, panics.
//!
//! Bodies run many times on one runtime (its threads live as long as the process). Every wait has a limit.

use gort_core::chan::{Chan, RecvError};
use gort_core::goroutine::Goroutine;
use gort_core::goroutine::host::{Host, null_host};
use gort_core::goroutine::status;
use gort_core::goroutine::waiter::Outcome;
use gort_core::sched::blocking::blocking;
use gort_core::sched::config::Config;
use gort_core::sched::{Runtime, gosched, sleep_until};
use gort_core::sync::WaitGroup;
use gort_core::sys::clock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

/// How often each body runs.
const ROUNDS: usize = 50;
/// Longest a test may take; only a hang comes near it.
const LIMIT: Duration = Duration::from_secs(20);

static HOST: Host = null_host();

fn runtime_of(config: Config) -> &'static Runtime {
    Runtime::new(config, &HOST).expect("a runtime")
}

fn runtime(processors: usize) -> &'static Runtime {
    runtime_of(Config { processors, ..Config::default() })
}

fn go(rt: &'static Runtime, body: impl FnOnce() + Send + 'static) -> *mut Goroutine {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    rt.spawn(Box::into_raw(Box::new(body)).cast(), |_| {})
}

/// Runs `body` as a goroutine and waits for what it returns.
fn run<T: Send + 'static>(rt: &'static Runtime, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    go(rt, move || sender.send(body()).expect("the test waits"));
    receiver.recv_timeout(LIMIT).expect("the goroutine ends in time")
}

/// A group of `count` and the call that counts one down.
fn group(count: i64) -> Arc<WaitGroup> {
    let group = Arc::new(WaitGroup::new());
    group.add(count).expect("adds");
    group
}

fn done(group: &WaitGroup) {
    group.add(-1).expect("not negative");
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = clock::now_ns() + LIMIT.as_nanos() as u64;
    while !condition() {
        assert!(clock::now_ns() < end, "never: {what}");
        std::thread::yield_now();
    }
}

/// Waits until no thread of the runtime runs, or is on its way to sleep.
fn all_sleep(rt: &'static Runtime) {
    let all = || rt.machine_count.load(Ordering::Relaxed);
    eventually("all threads sleep", || rt.idle_machine_count() == all());
}

/// A gate that blocks OS threads, not goroutines.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    inside: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        let mut open = self.open.lock().expect("no panic inside");
        self.inside.fetch_add(1, Ordering::Relaxed);
        while !*open {
            open = self.changed.wait(open).expect("no panic inside");
        }
    }

    fn set_open(&self) {
        *self.open.lock().expect("no panic inside") = true;
        self.changed.notify_all();
    }
}

/// The order in which goroutines 0 to `count` run that one goroutine spawns before it blocks.
fn order_of(rt: &'static Runtime, count: usize) -> Vec<usize> {
    run(rt, move || {
        let (order, group) = (Arc::new(Mutex::new(Vec::new())), group(count as i64));
        for i in 0..count {
            let (order, group) = (order.clone(), group.clone());
            go(rt, move || {
                order.lock().expect("no panic inside").push(i);
                done(&group);
            });
        }
        assert_eq!(group.wait(rt, None), Ok(Outcome::Delivered));
        std::mem::take(&mut *order.lock().expect("no panic inside"))
    })
}

#[test]
fn test_spawn_order_on_one_processor_is_last_then_first_to_last() {
    let rt = runtime(1);
    for _ in 0..ROUNDS {
        assert_eq!(order_of(rt, 6), [5, 0, 1, 2, 3, 4]);
    }
}

#[test]
fn test_spawn_order_beyond_the_ring_takes_the_overflow_every_61st_tick() {
    let rt = runtime(1);
    for _ in 0..ROUNDS {
        let order = order_of(rt, 300);
        assert_eq!(order.len(), 300);
        // The next slot goes first, unless the very first tick is a 61st.
        assert!(order[0] == 299 || order[..2] == [0, 299], "{:?}", &order[..2]);
        // The 257th in the ring sent its first half, 0 to 127, and itself to the global queue.
        let in_ring = |i: &usize| (128..256).contains(i) || (257..299).contains(i);
        let ring: Vec<usize> = order.iter().copied().filter(in_ring).collect();
        assert!(ring.is_sorted() && ring.len() == 170, "the ring is a FIFO");
        let global: Vec<usize> = order.iter().copied().filter(|i| *i < 128 || *i == 256).collect();
        assert!(global.is_sorted() && global.len() == 129, "the global queue is a FIFO");
        // While the ring had work, one came from the global queue at every 61st tick.
        let end_of_ring = order.iter().rposition(in_ring).expect("the ring ran");
        // 299 inherited its spawner's slice: no tick.
        let ticked: Vec<usize> = order[..end_of_ring].iter().copied().filter(|i| *i != 299).collect();
        let places: Vec<usize> = (0..ticked.len()).filter(|&at| ticked[at] < 128).collect();
        assert!(!places.is_empty() && places[0] <= 61, "{places:?}");
        assert!(places.windows(2).all(|w| w[1] - w[0] == 61), "{places:?}");
    }
}

#[test]
fn test_gosched_lets_goroutines_of_one_processor_take_turns() {
    const TURNS: u64 = 200;
    let rt = runtime(1);
    for _ in 0..ROUNDS {
        let behind = run(rt, move || {
            let counts: Arc<Vec<AtomicU64>> = Arc::new((0..8).map(|_| AtomicU64::new(0)).collect());
            let (group, least) = (group(8), Arc::new(AtomicU64::new(u64::MAX)));
            for i in 0..8 {
                let (counts, group, least) = (counts.clone(), group.clone(), least.clone());
                go(rt, move || {
                    for _ in 0..TURNS {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                        gosched();
                    }
                    let now = counts.iter().map(|c| c.load(Ordering::Relaxed)).min().expect("eight");
                    least.fetch_min(now, Ordering::Relaxed);
                    done(&group);
                });
            }
            let _ = group.wait(rt, None);
            TURNS - least.load(Ordering::Relaxed)
        });
        // A few: each 61st tick somebody is taken from the global queue before those already in the ring.
        assert!(behind <= 10, "one goroutine was {behind} of {TURNS} turns behind when the first ended");
    }
}

#[test]
fn test_goroutines_spawned_on_a_busy_processor_are_stolen_by_the_others() {
    let rt = runtime(4);
    for _ in 0..ROUNDS {
        let before = rt.counters.steals.load(Ordering::Relaxed);
        let sum = run(rt, move || {
            let (sum, left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(200)));
            for i in 0..200u64 {
                let (sum, left) = (sum.clone(), left.clone());
                go(rt, move || {
                    if i % 3 == 0 {
                        gosched();
                    }
                    sum.fetch_add(i, Ordering::Relaxed);
                    left.fetch_sub(1, Ordering::Relaxed);
                });
            }
            // Keeps its P: all that stands in its queue runs only if others come and take it.
            eventually("all were stolen", || left.load(Ordering::Relaxed) == 0);
            sum.load(Ordering::Relaxed)
        });
        assert_eq!(sum, 200 * 199 / 2);
        assert!(rt.counters.steals.load(Ordering::Relaxed) > before, "they ran, and nothing was counted as stolen");
    }
}

#[test]
fn test_channels_between_goroutines_of_many_processors_and_plain_threads() {
    let rt = runtime(3);
    for _ in 0..ROUNDS {
        let chan = Arc::new(Chan::<u64>::new(2));
        let senders = group(4);
        for s in 0..4u64 {
            let (chan, senders) = (chan.clone(), senders.clone());
            let send = move || {
                (1..=100).for_each(|i| chan.send(rt, s * 1000 + i, None).expect("open"));
                done(&senders);
            };
            if s == 0 {
                std::thread::spawn(send);
            } else {
                go(rt, send);
            }
        }
        let closing = chan.clone();
        go(rt, move || {
            let _ = senders.wait(rt, None);
            closing.close().expect("once");
        });
        let (mut last, mut count) = ([0; 4], 0);
        while let Ok(value) = chan.recv(rt, Some(clock::now_ns() + LIMIT.as_nanos() as u64)) {
            let sender = (value / 1000) as usize;
            assert!(value > last[sender], "the values of one sender changed places");
            last[sender] = value;
            count += 1;
        }
        assert_eq!(count, 400);
    }
}

#[test]
fn test_sleepers_wake_together_and_none_early() {
    let rt = runtime(2);
    for _ in 0..ROUNDS {
        let (group, early, begin) = (group(100), Arc::new(AtomicUsize::new(0)), clock::now_ns());
        for i in 0..100u64 {
            let (group, early) = (group.clone(), early.clone());
            go(rt, move || {
                let when = begin + 20_000_000 + i * 37 % 100 * 10_000;
                assert_eq!(sleep_until(rt, when), Outcome::TimedOut);
                early.fetch_add(usize::from(clock::now_ns() < when), Ordering::Relaxed);
                done(&group);
            });
        }
        let _ = group.wait(rt, None);
        assert_eq!(early.load(Ordering::Relaxed), 0);
        // One after the other they would take two seconds.
        let took_ms = (clock::now_ns() - begin) / 1_000_000;
        assert!(took_ms < 1_000, "took {took_ms} ms");
    }
}

#[test]
fn test_receive_with_a_deadline_beside_a_sender_times_out_or_receives_never_both() {
    let rt = runtime(3);
    for round in 0..ROUNDS as u64 * 4 {
        let (chan, outcome) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::new(1)));
        let (receiving, told) = (chan.clone(), outcome.clone());
        let when = clock::now_ns() + 50_000 + round % 10 * 10_000;
        go(rt, move || told.send(rt, receiving.recv(rt, Some(when)), None).expect("open"));
        let (sending, sent) = (chan.clone(), Arc::new(Chan::new(1)));
        let tell = sent.clone();
        go(rt, move || {
            let _ = sleep_until(rt, when - 5_000);
            let result = sending.send(rt, round, Some(when + 200_000));
            tell.send(rt, result.is_ok(), None).expect("open");
        });
        let received = outcome.recv(rt, None).expect("open");
        let delivered = sent.recv(rt, None).expect("open");
        let expected = if delivered { Ok(round) } else { Err(RecvError::Ended(Outcome::TimedOut)) };
        assert_eq!(received, expected);
        assert!(chan.try_send(0).is_err() && chan.try_recv().is_err(), "a waiter was left behind");
    }
}

#[test]
fn test_cancelled_wait_ends_once_and_leaves_nothing_behind() {
    let rt = runtime(2);
    for _ in 0..ROUNDS {
        let (chan, told) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::new(1)));
        let (receiving, tell) = (chan.clone(), told.clone());
        let g = go(rt, move || tell.send(rt, receiving.recv(rt, None), None).expect("open"));
        // SAFETY: descriptors are never freed; nobody else ends this wait, so it lives until `end_wait` does.
        unsafe {
            eventually("the goroutine is parked", || (*g).status.load(Ordering::Acquire) == status::WAITING);
            assert!(rt.end_wait(g, Outcome::Cancelled));
        }
        assert_eq!(told.recv(rt, None), Ok(Err(RecvError::Ended(Outcome::Cancelled))));
        assert!(chan.try_send(1).is_err(), "the waiter is still in the queue");
    }
}

#[test]
fn test_blocking_calls_of_many_goroutines_leave_the_processor_to_the_others() {
    let rt = runtime(1);
    for _ in 0..ROUNDS {
        let (gate, blocked, counted) = (Arc::new(Gate::default()), group(10), group(1));
        for _ in 0..10 {
            let (gate, blocked) = (gate.clone(), blocked.clone());
            go(rt, move || {
                blocking(|| gate.pass());
                done(&blocked);
            });
        }
        // Runs while all ten block, on the one processor.
        let (g, c) = (gate.clone(), counted.clone());
        go(rt, move || {
            while g.inside.load(Ordering::Relaxed) < 10 {
                gosched();
            }
            done(&c);
        });
        let limit = Some(clock::now_ns() + LIMIT.as_nanos() as u64);
        assert_eq!(counted.wait(rt, limit), Ok(Outcome::Delivered));
        assert_eq!(blocked.count(), 10);
        gate.set_open();
        assert_eq!(blocked.wait(rt, limit), Ok(Outcome::Delivered));
        all_sleep(rt);
    }
    // Ten that block and one more. Whoever was woken for a P, or came back without one, and is still on its way to sleep cannot
    // be used again: there may be one for each call's beginning, and one for its end.
    let count = rt.machine_count.load(Ordering::Relaxed);
    assert!(count <= 31, "{count} threads: they are not used again");
}

#[test]
fn test_threads_that_sleep_are_used_again() {
    let rt = runtime(1);
    for _ in 0..ROUNDS {
        let (gate, passed) = (Arc::new(Gate::default()), group(1));
        let (g, p) = (gate.clone(), passed.clone());
        go(rt, move || {
            blocking(|| g.pass());
            done(&p);
        });
        eventually("the call blocks", || gate.inside.load(Ordering::Relaxed) == 1);
        gate.set_open();
        let limit = Some(clock::now_ns() + LIMIT.as_nanos() as u64);
        assert_eq!(passed.wait(rt, limit), Ok(Outcome::Delivered));
        all_sleep(rt);
        // Who blocks, who is woken for its P, and whom it and sysmon wake for it when it is back, while those go to sleep.
        let count = rt.machine_count.load(Ordering::Relaxed);
        assert!(count <= 5, "{count} threads");
    }
}

#[test]
fn test_work_behind_a_blocking_call_at_the_thread_limit_waits_and_is_not_lost() {
    let rt = runtime_of(Config { max_machines: 1, ..Config::default() });
    for _ in 0..ROUNDS {
        let (gate, both) = (Arc::new(Gate::default()), group(2));
        let (g, b) = (gate.clone(), both.clone());
        go(rt, move || {
            blocking(|| g.pass());
            done(&b);
        });
        eventually("the call blocks", || gate.inside.load(Ordering::Relaxed) == 1);
        let b = both.clone();
        go(rt, move || done(&b));
        gate.set_open();
        let limit = Some(clock::now_ns() + LIMIT.as_nanos() as u64);
        assert_eq!(both.wait(rt, limit), Ok(Outcome::Delivered));
    }
    assert_eq!(rt.machine_count.load(Ordering::Relaxed), 1);
}

#[test]
fn test_hundred_thousand_goroutines_park_and_are_released() {
    const COUNT: i64 = 100_000;
    let rt = runtime_of(Config { processors: 2, stack_bytes: 64 << 10, ..Config::default() });
    let (gate, parked, finished) = (Arc::new(Chan::<u64>::new(0)), Arc::new(AtomicU64::new(0)), group(COUNT));
    for _ in 0..COUNT {
        let (gate, parked, finished) = (gate.clone(), parked.clone(), finished.clone());
        go(rt, move || {
            parked.fetch_add(1, Ordering::Relaxed);
            assert_eq!(gate.recv(rt, None), Err(RecvError::Closed));
            done(&finished);
        });
    }
    eventually("all run", || parked.load(Ordering::Relaxed) == COUNT as u64);
    assert_eq!(rt.registry.live(), COUNT as u64);
    gate.close().expect("once");
    assert_eq!(finished.wait(rt, Some(clock::now_ns() + LIMIT.as_nanos() as u64)), Ok(Outcome::Delivered));
    eventually("all ended", || rt.registry.live() == 0);
}

#[test]
fn test_panic_caught_inside_a_goroutine_that_parks_ends_nothing() {
    let rt = runtime(2);
    for round in 0..ROUNDS {
        let caught = run(rt, move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                gosched();
                let _ = sleep_until(rt, clock::now_ns() + 1_000);
                std::panic::resume_unwind(Box::new(round));
            }));
            result.expect_err("it panics").downcast::<usize>().map(|b| *b).ok()
        });
        assert_eq!(caught, Some(round));
    }
}

/// Go ends the program when a panic reaches the top of a goroutine; so does the core: the base frame of a stack says that
/// unwinding ends there, and the Rust runtime aborts.
#[test]
fn test_panic_nobody_catches_ends_the_process_with_its_message() {
    const CHILD: &str = "GORT_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        run(runtime(1), || panic!("nobody catches this"));
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["test_panic_nobody_catches_ends_the_process_with_its_message", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a child");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("nobody catches this"), "{errors}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(libc::SIGABRT), "{errors}");
}

#[test]
fn test_pair_that_hands_a_value_to_and_fro_does_not_starve_the_rest() {
    let rt = runtime(1);
    for _ in 0..ROUNDS {
        let (there, back) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::<u64>::new(0)));
        let (stop, all) = (Arc::new(AtomicBool::new(false)), group(3));
        let stopping = stop.clone();
        run(rt, move || {
            let (t, b, a) = (there.clone(), back.clone(), all.clone());
            go(rt, move || {
                while let Ok(value) = t.recv(rt, None) {
                    b.send(rt, value, None).expect("open");
                }
                done(&a);
            });
            let a = all.clone();
            go(rt, move || {
                while !stop.load(Ordering::Relaxed) {
                    there.send(rt, 1, None).expect("open");
                    back.recv(rt, None).expect("open");
                }
                there.close().expect("once");
                done(&a);
            });
            let a = all.clone();
            go(rt, move || {
                gosched(); // now the pair runs, and this goroutine is behind it in the global queue
                stopping.store(true, Ordering::Relaxed);
                done(&a);
            });
            assert_eq!(all.wait(rt, None), Ok(Outcome::Delivered));
        });
    }
}
