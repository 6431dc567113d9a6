//! Goroutines that wait for descriptors, on a host without a lock: echo, close, reuse, deadlines, fairness, and that an M
//! asleep in the poller misses neither timers nor wake-ups.

use gort_core::goroutine::Goroutine;
use gort_core::goroutine::host::{Host, null_host};
use gort_core::goroutine::status;
use gort_core::goroutine::waiter::{Listens, Outcome};
use gort_core::netpoll::{Error, Side};
use gort_core::sched::blocking::blocking;
use gort_core::sched::config::Config;
use gort_core::sched::{Runtime, gosched, sleep_until, wait_io};
use gort_core::sync::WaitGroup;
use gort_core::sys::clock;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

/// Longest a test may take; only a hang comes near it.
const LIMIT: Duration = Duration::from_secs(30);

static HOST: Host = null_host();

fn runtime(processors: usize) -> &'static Runtime {
    Runtime::new(Config { processors, stack_bytes: 64 << 10, ..Config::default() }, &HOST).expect("a runtime")
}

fn go(rt: &'static Runtime, body: impl FnOnce() + Send + 'static) -> *mut Goroutine {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    rt.spawn(Box::into_raw(Box::new(body)).cast(), |_| {})
}

/// Starts `body` as a goroutine; what it returns comes out of the channel.
fn start<T: Send + 'static>(
    rt: &'static Runtime,
    body: impl FnOnce() -> T + Send + 'static,
) -> (*mut Goroutine, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let g = go(rt, move || sender.send(body()).expect("the test waits"));
    (g, receiver)
}

fn run<T: Send + 'static>(rt: &'static Runtime, body: impl FnOnce() -> T + Send + 'static) -> T {
    start(rt, body).1.recv_timeout(LIMIT).expect("the goroutine ends in time")
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = clock::now_ns() + LIMIT.as_nanos() as u64;
    while !condition() {
        assert!(clock::now_ns() < end, "never: {what}");
        std::thread::yield_now();
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().expect("a pair");
    a.set_nonblocking(true).expect("non-blocking");
    b.set_nonblocking(true).expect("non-blocking");
    (a, b)
}

/// How a call ended that could not be done.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Wait(Outcome),
    Errno(i32),
}

/// `call` until it does not say EAGAIN, waiting in between.
fn io(
    rt: &'static Runtime,
    fd: RawFd,
    side: Side,
    deadline_ns: Option<u64>,
    mut call: impl FnMut() -> isize,
) -> Result<usize, Ended> {
    loop {
        let desc = rt.net.desc(fd).map_err(|e| Ended::Errno(e.errno()))?;
        let seen = desc.seq(side);
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN) => {}
            other => return Err(Ended::Errno(other.unwrap_or(0))),
        }
        match wait_io(rt, desc, side, seen, deadline_ns, Listens::ToAll) {
            Outcome::Delivered => {}
            other => return Err(Ended::Wait(other)),
        }
    }
}

fn read(rt: &'static Runtime, fd: RawFd, into: &mut [u8], deadline_ns: Option<u64>) -> Result<usize, Ended> {
    // SAFETY: the slice is writable; a bad descriptor is an error.
    io(rt, fd, Side::Read, deadline_ns, || unsafe { libc::read(fd, into.as_mut_ptr().cast(), into.len()) })
}

fn write_all(rt: &'static Runtime, fd: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the slice is readable.
        let n = io(rt, fd, Side::Write, None, || unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) });
        bytes = &bytes[n.expect("an open peer")..];
    }
}

fn read_exact(rt: &'static Runtime, fd: RawFd, into: &mut [u8]) {
    let mut filled = 0;
    while filled < into.len() {
        let n = read(rt, fd, &mut into[filled..], None).expect("an open peer");
        assert_ne!(n, 0, "the peer ended");
        filled += n;
    }
}

fn byte(rt: &'static Runtime, fd: RawFd) -> Result<usize, Ended> {
    read(rt, fd, &mut [0], None)
}

/// A goroutine that reads one byte of `fd`, parked there.
fn parked_reader(rt: &'static Runtime, fd: RawFd) -> (*mut Goroutine, mpsc::Receiver<Result<usize, Ended>>) {
    let before = rt.net.waiting();
    let (g, result) = start(rt, move || byte(rt, fd));
    eventually("the reader is parked", || rt.net.waiting() > before);
    // SAFETY: descriptors are never freed.
    eventually("it left its stack", || unsafe { (*g).status.load(Ordering::Acquire) } == status::WAITING);
    (g, result)
}

fn ended(result: &mpsc::Receiver<Result<usize, Ended>>) -> Result<usize, Ended> {
    result.recv_timeout(LIMIT).expect("the reader ends in time")
}

fn send(stream: &UnixStream) {
    assert_eq!(io::Write::write(&mut &*stream, b"x").expect("room"), 1);
}

/// Each of `pairs` exchanges `rounds` messages between two goroutines.
fn echo(processors: usize, pairs: usize, rounds: u64) {
    let rt = runtime(processors);
    let (left, clients) = (Arc::new(AtomicUsize::new(pairs)), Arc::new(WaitGroup::new()));
    clients.add(pairs as i64).expect("adds");
    for _ in 0..pairs {
        let (a, b) = pair();
        let (left, clients) = (left.clone(), clients.clone());
        go(rt, move || {
            let mut message = [0; 8];
            for _ in 0..rounds {
                read_exact(rt, b.as_raw_fd(), &mut message);
                write_all(rt, b.as_raw_fd(), &message);
            }
            rt.net.forget(b.as_raw_fd());
        });
        go(rt, move || {
            for i in 0..rounds {
                let mut back = [0; 8];
                write_all(rt, a.as_raw_fd(), &i.to_ne_bytes());
                read_exact(rt, a.as_raw_fd(), &mut back);
                assert_eq!(u64::from_ne_bytes(back), i);
            }
            rt.net.forget(a.as_raw_fd());
            left.fetch_sub(1, Ordering::Relaxed);
            clients.add(-1).expect("not negative");
        });
    }
    let outcome = clients.wait(rt, Some(clock::now_ns() + LIMIT.as_nanos() as u64));
    assert_eq!(outcome, Ok(Outcome::Delivered), "{} pairs did not end", left.load(Ordering::Relaxed));
    assert_eq!(rt.net.waiting(), 0);
}

#[test]
fn test_pairs_echo_on_one_processor() {
    echo(1, 1, 2_000);
    echo(1, 20, 200);
}

#[test]
fn test_pairs_echo_on_four_processors() {
    echo(4, 1, 2_000);
    echo(4, 20, 200);
}

#[test]
fn test_thousand_pairs_echo_at_once() {
    limit();
    echo(1, 1_000, 5);
    echo(4, 1_000, 5);
}

#[test]
fn test_writer_waits_for_room_and_sides_do_not_disturb_each_other() {
    const BYTES: usize = 4 << 20;
    for processors in [1, 2] {
        let rt = runtime(processors);
        let (a, b) = pair();
        let (_, back) = parked_reader(rt, a.as_raw_fd());
        let fd = a.as_raw_fd();
        let (_, written) = start(rt, move || write_all(rt, fd, &vec![7; BYTES]));
        eventually("the buffer is full", || rt.net.waiting() == 2);
        let sum = run(rt, move || {
            let mut buffer = vec![0; 64 << 10];
            let mut sum = 0;
            while sum < BYTES {
                sum += read(rt, b.as_raw_fd(), &mut buffer, None).expect("open");
            }
            write_all(rt, b.as_raw_fd(), b"x");
            sum
        });
        assert_eq!(sum, BYTES);
        written.recv_timeout(LIMIT).expect("all is written");
        assert_eq!(ended(&back), Ok(1));
    }
}

#[test]
fn test_several_readers_of_one_descriptor_each_get_a_byte() {
    for processors in [1, 3] {
        let rt = runtime(processors);
        let (a, b) = pair();
        let readers: Vec<_> = (0..5).map(|_| parked_reader(rt, a.as_raw_fd()).1).collect();
        for _ in &readers {
            send(&b);
        }
        for reader in &readers {
            assert_eq!(ended(reader), Ok(1));
        }
        assert_eq!(rt.net.waiting(), 0);
    }
}

#[test]
fn test_descriptor_closed_while_somebody_waits_ends_the_wait() {
    for processors in [1, 3] {
        let rt = runtime(processors);
        for _ in 0..50 {
            let (a, _b) = pair();
            let fd = a.as_raw_fd();
            let readers = [parked_reader(rt, fd), parked_reader(rt, fd)];
            run(rt, move || {
                // SAFETY: this host has no lock to hold.
                unsafe { rt.retire_descriptor(fd) };
                drop(a);
            });
            for (_, reader) in &readers {
                assert_eq!(ended(reader), Err(Ended::Wait(Outcome::Closed)));
            }
        }
        assert_eq!(rt.net.waiting(), 0);
    }
}

/// Whatever runs beside this test, `number` is its own: a copy of `stream`'s file.
fn at_number(stream: &UnixStream, number: RawFd) -> OwnedFd {
    // SAFETY: numbers of tests lie above those the system gives out by itself.
    unsafe {
        assert_eq!(libc::dup2(stream.as_raw_fd(), number), number);
        OwnedFd::from_raw_fd(number)
    }
}

/// How many descriptors there may be: what the thousand pairs of one test need, and more, if the system lets us.
fn limit() -> RawFd {
    static LIMIT: OnceLock<RawFd> = OnceLock::new();
    // SAFETY: the record is initialised; a refusal shows where the descriptors are made.
    *LIMIT.get_or_init(|| unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max.min(8192);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        limit.rlim_cur as RawFd
    })
}

/// A number below the limit that only one test uses: more than all of them together have open.
fn high(number: RawFd) -> RawFd {
    limit() - 1 - number
}

#[test]
fn test_number_used_again_after_a_close_serves_its_new_file() {
    let rt = runtime(2);
    let fd = high(0);
    for _ in 0..50 {
        let (a, b) = pair();
        let (c, d) = pair();
        let old = at_number(&a, fd);
        drop(a);
        let (_, reader) = parked_reader(rt, fd);
        // SAFETY: this host has no lock to hold.
        unsafe { rt.retire_descriptor(fd) };
        drop(old);
        let new = at_number(&c, fd);
        drop(c);
        assert_eq!(ended(&reader), Err(Ended::Wait(Outcome::Closed)));
        let (_, reader) = parked_reader(rt, fd);
        drop(b); // an event of the old file, if it were still watched
        send(&d);
        assert_eq!(ended(&reader), Ok(1));
        // SAFETY: as above.
        unsafe { rt.retire_descriptor(fd) };
        drop(new);
    }
}

#[test]
fn test_close_that_nobody_saw_leaves_nobody_waiting() {
    let rt = runtime(1);
    let fd = high(1);
    let (a, _b) = pair();
    let mut held = at_number(&a, fd);
    drop(a);
    let mut peers = Vec::new();
    for _ in 0..5 {
        let (c, d) = pair();
        let _ = run(rt, move || read(rt, fd, &mut [0], Some(clock::now_ns() + 1_000_000))); // registers it
        std::mem::forget(std::mem::replace(&mut held, at_number(&c, fd))); // closed and used again in one step
        drop(c);
        let (_, reader) = parked_reader(rt, fd);
        send(&d);
        assert_eq!(ended(&reader), Ok(1));
        peers.push(d); // an end would be read at once
    }
    // Closed for good: whoever waits is told by the system.
    let (_, reader) = parked_reader(rt, fd);
    drop(held);
    assert_eq!(ended(&reader), Err(Ended::Errno(libc::EBADF)));
    assert_eq!(rt.net.desc(fd).err(), Some(Error::BAD_DESCRIPTOR));
}

#[test]
fn test_wait_ends_at_its_deadline_or_by_cancellation_and_leaves_nothing_behind() {
    for processors in [1, 2] {
        let rt = runtime(processors);
        let (a, b) = pair();
        let fd = a.as_raw_fd();
        for _ in 0..20 {
            let when = clock::now_ns() + 2_000_000;
            let (result, now) = run(rt, move || (read(rt, fd, &mut [0], Some(when)), clock::now_ns()));
            assert_eq!(result, Err(Ended::Wait(Outcome::TimedOut)));
            assert!(now >= when);
            let (g, reader) = parked_reader(rt, fd);
            // SAFETY: nobody else ends this wait.
            assert!(unsafe { rt.end_wait(g, Outcome::Cancelled) });
            assert_eq!(ended(&reader), Err(Ended::Wait(Outcome::Cancelled)));
            assert_eq!(rt.net.waiting(), 0);
        }
        let (_, reader) = parked_reader(rt, fd);
        send(&b);
        assert_eq!(ended(&reader), Ok(1));
    }
}

#[test]
fn test_timers_are_exact_while_an_m_sleeps_in_the_poller() {
    let rt = runtime(1);
    let (a, b) = pair();
    let (_, reader) = parked_reader(rt, a.as_raw_fd());
    let mut best = u64::MAX;
    for i in 0..50 {
        eventually("the poller is slept in", || rt.net.is_seat_taken());
        let late = run(rt, move || {
            let when = clock::now_ns() + 300_000 + i * 7_000;
            assert_eq!(sleep_until(rt, when), Outcome::TimedOut);
            let now = clock::now_ns();
            assert!(now >= when, "early");
            now - when
        });
        best = best.min(late);
    }
    assert!(best < 1_000_000, "the best of 50 was {best} ns late");
    send(&b);
    assert_eq!(ended(&reader), Ok(1));
}

#[test]
fn test_wake_ups_by_threads_reach_an_m_in_the_poller() {
    for processors in [1, 2] {
        let rt = runtime(processors);
        let (a, b) = pair();
        let (_, reader) = parked_reader(rt, a.as_raw_fd());
        for i in 0..5_000 {
            if i % 2 == 0 {
                eventually("the poller is slept in", || rt.net.is_seat_taken());
            }
            assert_eq!(run(rt, move || i), i);
        }
        send(&b);
        assert_eq!(ended(&reader), Ok(1));
    }
}

#[test]
fn test_wake_ups_and_events_at_once_lose_neither() {
    let rt = runtime(1);
    let (a, b) = pair();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let spawner = std::thread::spawn(move || {
        let mut ran = 0u64;
        while !stopping.load(Ordering::Relaxed) {
            ran += run(rt, || 1);
        }
        ran
    });
    for _ in 0..5_000 {
        let (_, reader) = start(rt, {
            let fd = a.as_raw_fd();
            move || byte(rt, fd)
        });
        send(&b);
        assert_eq!(ended(&reader), Ok(1));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(spawner.join().expect("no panic") > 0);
}

#[test]
fn test_goroutines_that_take_turns_for_ever_do_not_starve_the_network() {
    let rt = runtime(1);
    let stop = Arc::new(AtomicBool::new(false));
    for _ in 0..3 {
        let stop = stop.clone();
        go(rt, move || {
            while !stop.load(Ordering::Relaxed) {
                gosched();
            }
        });
    }
    let (a, b) = pair();
    let (_, reader) = parked_reader(rt, a.as_raw_fd());
    let looks = rt.net.counters.polls.load(Ordering::Relaxed);
    eventually("the busy processor looks", || rt.net.counters.polls.load(Ordering::Relaxed) > looks + 100);
    send(&b);
    assert_eq!(ended(&reader), Ok(1));
    stop.store(true, Ordering::Relaxed);
    // One alone comes back from `gosched` at once when nobody else could run.
    let (_, reader) = parked_reader(rt, a.as_raw_fd());
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = stopping.clone();
    let (_, alone) = start(rt, move || {
        while !stop.load(Ordering::Relaxed) {
            gosched();
        }
    });
    send(&b);
    assert_eq!(ended(&reader), Ok(1));
    stopping.store(true, Ordering::Relaxed);
    alone.recv_timeout(LIMIT).expect("it ends");
}

#[test]
fn test_event_during_a_computation_waits_for_the_processor_and_no_longer() {
    for processors in [1, 2] {
        let rt = runtime(processors);
        let (a, b) = pair();
        let (_, reader) = parked_reader(rt, a.as_raw_fd());
        let (computing, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (c, s) = (computing.clone(), stop.clone());
        let (_, computed) = start(rt, move || {
            c.store(true, Ordering::Relaxed);
            while !s.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        });
        eventually("it computes", || computing.load(Ordering::Relaxed));
        let looked = rt.net.counters.events.load(Ordering::Relaxed);
        send(&b);
        eventually("the event is seen", || rt.net.counters.events.load(Ordering::Relaxed) > looked);
        if processors == 2 {
            assert_eq!(ended(&reader), Ok(1));
        }
        stop.store(true, Ordering::Relaxed);
        computed.recv_timeout(LIMIT).expect("it ends");
        if processors == 1 {
            assert_eq!(ended(&reader), Ok(1));
        }
    }
}

#[test]
fn test_blocking_call_leaves_the_poller_watched() {
    let rt = runtime(1);
    for _ in 0..50 {
        let (a, b) = pair();
        let (_, reader) = parked_reader(rt, a.as_raw_fd());
        let (unblock, blocked) = mpsc::channel::<()>();
        let (_, call) = start(rt, move || blocking(|| blocked.recv().expect("told")));
        send(&b);
        assert_eq!(ended(&reader), Ok(1));
        unblock.send(()).expect("it waits");
        call.recv_timeout(LIMIT).expect("it ends");
        rt.net.forget(a.as_raw_fd());
    }
}

#[test]
fn test_runtime_without_waiters_never_looks() {
    let rt = runtime(2);
    let (a, b) = pair();
    assert!(rt.net.desc(a.as_raw_fd()).is_ok());
    send(&b);
    for _ in 0..500 {
        run(rt, || (0..100).for_each(|_| gosched()));
    }
    assert_eq!(rt.net.counters.polls.load(Ordering::Relaxed), 0);
    assert_eq!(run(rt, move || byte(rt, a.as_raw_fd())), Ok(1));
}
