//! The poller on real descriptors.

use super::{Error, Event, Poller};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn poll(poller: &Poller) -> Vec<Event> {
    let mut out = [Event::default(); 8];
    let count = poller.wait(Some(0), &mut out).expect("an instance");
    out[..count].to_vec()
}

fn event(tag: u64, readable: bool, writable: bool) -> Event {
    Event { tag, readable, writable, ended: false }
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().expect("a pair");
    a.set_nonblocking(true).expect("non-blocking");
    b.set_nonblocking(true).expect("non-blocking");
    (a, b)
}

#[test]
fn edge_is_reported_once_and_again_when_more_comes() {
    let poller = Poller::new().expect("an instance");
    let (a, mut b) = pair();
    poller.register(a.as_raw_fd(), 7).expect("pollable");
    assert_eq!(poll(&poller), [event(7, false, true)]);
    assert!(poll(&poller).is_empty());
    b.write_all(b"x").expect("room");
    assert_eq!(poll(&poller), [event(7, true, true)]);
    assert!(poll(&poller).is_empty(), "an edge, not a level");
    b.write_all(b"y").expect("room");
    assert!(poll(&poller)[0].readable);
}

#[test]
fn hang_up_of_the_peer_is_both_readable_and_writable() {
    let poller = Poller::new().expect("an instance");
    let (a, b) = pair();
    poller.register(a.as_raw_fd(), 1).expect("pollable");
    poll(&poller);
    drop(b);
    assert_eq!(poll(&poller), [Event { ended: true, ..event(1, true, true) }]);
}

#[test]
fn pipe_without_readers_is_an_error_for_its_writer() {
    let poller = Poller::new().expect("an instance");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    poller.register(writer.as_raw_fd(), 2).expect("pollable");
    assert_eq!(poll(&poller), [event(2, false, true)]);
    drop(reader);
    assert_eq!(poll(&poller), [Event { ended: true, ..event(2, true, true) }]);
}

#[test]
fn files_and_bad_descriptors_are_told_apart() {
    let poller = Poller::new().expect("an instance");
    let file = std::fs::File::open("/proc/self/exe").expect("a file");
    assert_eq!(poller.register(file.as_raw_fd(), 1), Err(Error::NotPollable));
    for fd in [-1, i32::MAX, i32::MIN] {
        assert_eq!(poller.register(fd, 1), Err(Error::BAD_DESCRIPTOR));
        assert_eq!(poller.verify(fd, 1), Err(Error::BAD_DESCRIPTOR));
    }
    assert!(poller.unregister(file.as_raw_fd()).is_err());
}

#[test]
fn verify_finds_a_registration_lost_by_a_close_and_reports_what_is_ready() {
    let poller = Poller::new().expect("an instance");
    let (a, mut b) = pair();
    let fd = a.as_raw_fd();
    poller.register(fd, 1).expect("pollable");
    poll(&poller);
    assert_eq!(poller.verify(fd, 1), Ok(()));
    assert_eq!(poll(&poller), [event(1, false, true)], "verified: reported again");
    let (c, mut d) = pair();
    b.write_all(b"old").expect("room");
    // SAFETY: both are open; the number of `a` is `c`'s file from here on, and `a` owns it.
    assert_eq!(unsafe { libc::dup2(c.as_raw_fd(), fd) }, fd);
    drop(c);
    d.write_all(b"new").expect("room");
    assert!(poll(&poller).is_empty(), "the registration went with the file");
    assert_eq!(poller.verify(fd, 9), Ok(()));
    assert_eq!(poll(&poller), [event(9, true, true)]);
    let mut text = [0; 8];
    assert_eq!((&a).read(&mut text).expect("data"), 3);
    assert_eq!(poller.unregister(fd), Ok(()));
}

#[test]
fn registering_twice_takes_the_second_tag() {
    let poller = Poller::new().expect("an instance");
    let (a, _b) = pair();
    poller.register(a.as_raw_fd(), 1).expect("pollable");
    poller.register(a.as_raw_fd(), 2).expect("pollable");
    assert_eq!(poll(&poller), [event(2, false, true)]);
}

#[test]
fn wake_is_kept_for_a_wait_with_time_and_ends_one() {
    let poller = Arc::new(Poller::new().expect("an instance"));
    poller.wake();
    poller.wake();
    assert!(poll(&poller).is_empty(), "who only looks does not take it");
    let mut out = [Event::default(); 8];
    assert_eq!(poller.wait(None, &mut out), Ok(0));
    assert_eq!(poller.wait(Some(1_000), &mut out), Ok(0), "one wait took both");
    let other = poller.clone();
    let sleeper = std::thread::spawn(move || other.wait(None, &mut [Event::default(); 8]));
    poller.wake();
    assert_eq!(sleeper.join().expect("no panic"), Ok(0));
}

#[test]
fn time_out_is_not_early_and_finer_than_a_millisecond_where_the_kernel_can() {
    let poller = Poller::new().expect("an instance");
    let mut out = [Event::default(); 8];
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        let begin = Instant::now();
        assert_eq!(poller.wait(Some(200_000), &mut out), Ok(0));
        shortest = shortest.min(begin.elapsed());
    }
    assert!(shortest >= Duration::from_micros(200), "{shortest:?}");
    if !super::system::rounds_to_ms() {
        assert!(shortest < Duration::from_millis(1), "{shortest:?}");
    }
}

#[test]
fn descriptors_of_the_instance_are_its_own() {
    let poller = Poller::new().expect("an instance");
    let (a, _b) = pair();
    let own = poller.own_descriptors();
    assert!(!own.contains(&a.as_raw_fd()) && own.iter().any(|&fd| fd >= 0));
}
