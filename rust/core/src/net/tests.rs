//! One P of a host without a lock: tries, deadlines that change, closing, turns.

use super::{Socket, Stop};
use crate::goroutine::ender::Until;
use crate::goroutine::waiter::Outcome;
use crate::netpoll::Side;
use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::sched::null_tests::{go, runtime};
use crate::sched::{Runtime, gosched};
use crate::sys::{clock, socket};
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const HOUR_NS: u64 = 3_600_000_000_000;

fn pair() -> (Arc<Socket>, Arc<Socket>) {
    let (a, b) = UnixStream::pair().expect("a pair");
    for stream in [&a, &b] {
        stream.set_nonblocking(true).expect("non-blocking");
    }
    (Arc::new(Socket::new(a.into_raw_fd())), Arc::new(Socket::new(b.into_raw_fd())))
}

fn read(rt: &'static Runtime, s: &Socket, until: Until) -> Result<usize, Stop> {
    let mut place = [0_u8; 16];
    // SAFETY: a place of so many bytes.
    s.done(rt, Side::Read, until, |fd| unsafe { socket::receive(fd, place.as_mut_ptr(), 16) })
}

fn write(rt: &'static Runtime, s: &Socket, bytes: &'static [u8]) -> Result<usize, Stop> {
    // SAFETY: readable bytes.
    s.done(rt, Side::Write, Until::Never, |fd| unsafe { socket::send(fd, bytes.as_ptr(), bytes.len(), None) })
}

fn waiting(rt: &'static Runtime, count: usize) {
    let end = clock::now_ns() + LIMIT.as_nanos() as u64;
    while rt.net.waiting() != count {
        assert!(clock::now_ns() < end, "never {count} waiting");
        gosched();
    }
}

/// Runs `body` on the runtime while one reader waits for `a`, and gives how that ended.
fn while_one_reads(body: impl FnOnce(&'static Runtime, &Socket, &Socket) + Send + 'static) -> Result<usize, Stop> {
    let rt = runtime(1);
    let ((a, b), (sender, receiver)) = (pair(), mpsc::channel());
    let (reader, _end) = (a.clone(), b.clone()); // the other end stays open
    go(rt, move || sender.send(read(rt, &reader, Until::Never)).expect("the test waits"));
    go(rt, move || {
        waiting(rt, 1);
        body(rt, &a, &b);
    });
    receiver.recv_timeout(LIMIT).expect("the reader ends")
}

#[test]
fn a_reader_gets_what_is_sent() {
    assert_eq!(while_one_reads(|rt, _, b| assert_eq!(write(rt, b, b"abc"), Ok(3))), Ok(3));
}

#[test]
fn a_close_ends_the_wait() {
    let ended = while_one_reads(|rt, a, _| {
        assert!(a.close(Some(rt)) && !a.close(Some(rt)));
        assert_eq!((a.fd(), read(rt, a, Until::Never)), (-1, Err(Stop::Closed)));
    });
    assert_eq!(ended, Err(Stop::Closed));
}

#[test]
fn a_deadline_set_meanwhile_ends_the_wait() {
    let past = |rt, a: &Socket, _: &Socket| {
        a.set_deadline(rt, Side::Read, Some(clock::now_ns() + HOUR_NS));
        a.set_deadline(rt, Side::Write, Some(1));
        a.set_deadline(rt, Side::Read, Some(clock::now_ns() + 1_000_000));
    };
    assert_eq!(while_one_reads(past), Err(Stop::DeadlinePassed));
}

#[test]
fn a_deadline_that_is_taken_back_does_not() {
    let ended = while_one_reads(|rt, a, b| {
        a.set_deadline(rt, Side::Read, Some(clock::now_ns() + HOUR_NS));
        a.set_deadline(rt, Side::Read, None);
        assert_eq!(write(rt, b, b"abc"), Ok(3));
    });
    assert_eq!(ended, Ok(3));
}

#[test]
fn a_past_deadline_refuses_what_is_there_and_a_time_out_is_the_calls_own() {
    let rt = runtime(1);
    let (done, over) = mpsc::channel();
    go(rt, move || {
        let (a, b) = pair();
        assert_eq!(read(rt, &a, Until::At(clock::now_ns() + 1_000_000)), Err(Stop::Wait(Outcome::TimedOut)));
        assert_eq!(write(rt, &b, b"abc"), Ok(3));
        a.set_deadline(rt, Side::Read, Some(1));
        assert_eq!(read(rt, &a, Until::Never), Err(Stop::DeadlinePassed));
        assert_eq!(write(rt, &a, b"abc"), Ok(3));
        a.set_deadline(rt, Side::Read, None);
        assert_eq!(read(rt, &a, Until::Never), Ok(3));
        done.send(()).expect("the test waits");
    });
    over.recv_timeout(LIMIT).expect("all of it holds");
}

#[test]
fn the_last_user_closes_the_descriptor() {
    let rt = runtime(1);
    let (done, over) = mpsc::channel();
    go(rt, move || {
        let (a, b) = pair();
        let fd = a.fd();
        let result = a.done_unlocked(rt, Side::Read, Until::Never, |_| {
            assert!(a.close(Some(rt)));
            assert!(!socket::local(fd).is_none(), "closed under its user");
            Err::<(), _>(socket::AGAIN)
        });
        assert_eq!(result, Err(Stop::Closed));
        assert_eq!(read(rt, &b, Until::Never), Ok(0));
        done.send(()).expect("the test waits");
    });
    over.recv_timeout(LIMIT).expect("all of it holds");
}

#[test]
fn turns_come_one_after_another() {
    let rt = runtime(1);
    let (a, _b) = pair();
    assert_eq!(a.begin_turn(rt, Side::Read, Until::Never), Ok(()));
    let soon = Until::At(clock::now_ns() + 1_000_000);
    assert_eq!(a.begin_turn(rt, Side::Read, soon), Err(Stop::Wait(Outcome::TimedOut)));
    assert_eq!(a.begin_turn(rt, Side::Write, Until::Never), Ok(()));
    a.end_turn(Side::Read);
    assert_eq!(a.begin_turn(rt, Side::Read, Until::Never), Ok(()));
}

fn tcp_pair() -> (Arc<Socket>, Arc<Socket>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let a = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (b, _) = listener.accept().expect("the other end");
    for stream in [&a, &b] {
        stream.set_nonblocking(true).expect("non-blocking");
        stream.set_nodelay(true).expect("a TCP socket");
    }
    (Arc::new(Socket::new(a.into_raw_fd())), Arc::new(Socket::new(b.into_raw_fd())))
}

/// What a read of up to 16 bytes gives, and how often it tried.
fn read_counted(rt: &'static Runtime, s: &Socket) -> (Vec<u8>, u32) {
    let (mut place, mut tries) = ([0_u8; 16], 0);
    let attempt = |fd| {
        tries += 1;
        // SAFETY: a place of so many bytes.
        let count = unsafe { socket::receive(fd, place.as_mut_ptr(), 16) }?;
        Ok((count, count != 0 && count < 16))
    };
    let count = s.done_reading(rt, Until::Never, attempt).expect("nothing stops it");
    (place[..count].to_vec(), tries)
}

/// Runs a reader of `a` and `body` beside it, which is told when the reader is about to read once more; what the reads gave.
fn reads(
    pair: (Arc<Socket>, Arc<Socket>),
    count: usize,
    body: impl Fn(&'static Runtime, &Socket, usize) + Send + 'static,
) -> Vec<(Vec<u8>, u32)> {
    let rt = runtime(1);
    let ((a, b), (sender, receiver)) = (pair, mpsc::channel());
    let (reader, done) = (a.clone(), Arc::new(AtomicUsize::new(0)));
    let told = done.clone();
    go(rt, move || {
        let read = |i| {
            told.store(i, Ordering::Relaxed); // one P
            read_counted(rt, &reader)
        };
        let all = (0..count).map(read).collect();
        sender.send(all).expect("the test waits");
    });
    go(rt, move || {
        for i in 0..count {
            while done.load(Ordering::Relaxed) != i {
                gosched();
            }
            waiting(rt, 1);
            body(rt, &b, i);
        }
        drop(a); // it stays open as long
    });
    receiver.recv_timeout(LIMIT).expect("the reader ends")
}

#[test]
fn a_drained_socket_is_not_tried_before_its_next_event() {
    let sends = |rt: &'static Runtime, b: &Socket, _| assert_eq!(write(rt, b, b"abc"), Ok(3));
    let got = reads(tcp_pair(), 5, sends);
    assert!(got.iter().all(|(bytes, _)| bytes == b"abc"));
    // Before it is registered, before its first event, after that.
    assert!(got[0].1 >= 2 && got[1..].iter().all(|&(_, tries)| tries == 1), "{got:?}");
    let got = reads(pair(), 5, sends);
    assert!(got[1..].iter().all(|&(_, tries)| tries == 2), "another kind of socket may have more: {got:?}");
}

#[test]
fn an_end_that_came_with_the_last_of_the_data_is_read() {
    let got = reads(tcp_pair(), 2, |rt, b, i| {
        assert_eq!(write(rt, b, b"abc"), Ok(3));
        if i == 1 {
            assert!(b.close(Some(rt)));
        }
    });
    assert_eq!(got[1].0, b"abc");
    let got = reads_after_the_event(3, |rt, b| {
        assert_eq!((write(rt, b, b"abc"), b.close(Some(rt))), (Ok(3), true));
    });
    assert_eq!(got, [b"abc".to_vec(), vec![], vec![]]);
}

#[test]
fn data_behind_an_urgent_mark_is_read() {
    let got = reads_after_the_event(2, |rt, b| {
        assert_eq!(write(rt, b, b"before"), Ok(6));
        assert!(socket::send_urgent(b.fd()));
        assert_eq!(write(rt, b, b"after"), Ok(5));
    });
    assert_eq!(got, [b"before".to_vec(), b"after".to_vec()]);
}

/// What so many reads give that begin once the event of what `body` has sent is known.
fn reads_after_the_event(count: usize, body: impl Fn(&'static Runtime, &Socket) + Send + 'static) -> Vec<Vec<u8>> {
    let rt = runtime(1);
    let ((a, b), (c, d)) = (tcp_pair(), pair());
    let (sender, receiver) = mpsc::channel();
    go(rt, move || assert_eq!(read(rt, &c, Until::Never), Ok(1))); // has somebody look at the poller
    go(rt, move || {
        assert_eq!(read(rt, &a, Until::At(1)), Err(Stop::Wait(Outcome::TimedOut)));
        let seq = || rt.net.registered(a.fd()).expect("a wait registers it").seq(Side::Read);
        waiting(rt, 1);
        let before = seq();
        body(rt, &b);
        let end = clock::now_ns() + LIMIT.as_nanos() as u64;
        while seq() == before {
            assert!(clock::now_ns() < end, "no event");
            gosched();
        }
        let parked = || rt.net.counters.parked.load(Ordering::Relaxed);
        let before = parked();
        let all = (0..count).map(|_| read_counted(rt, &a).0).collect();
        // Who waits in vain is let go 20 ms later, when his registration is looked at.
        assert_eq!(parked(), before, "a read has waited for what was there");
        sender.send(all).expect("the test waits");
        assert_eq!(write(rt, &d, b"!"), Ok(1));
    });
    receiver.recv_timeout(LIMIT).expect("no read hangs")
}
