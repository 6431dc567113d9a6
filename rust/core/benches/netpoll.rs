//! A byte to and fro between two goroutines over a socket pair, both parked in netpoll in turns, at one processor; and
//! between two threads that block, for comparison.

mod measure;
mod runs;

use gort_core::goroutine::waiter::{Listens, Outcome};
use gort_core::netpoll::Side;
use gort_core::sched::{Runtime, wait_io};
use measure::{header, measure};
use runs::{go, run, runtime};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

const COUNT: u64 = 2_000;

/// Reads one byte; `false` at the end.
fn read(rt: &'static Runtime, stream: &UnixStream) -> bool {
    loop {
        let desc = rt.net.desc(stream.as_raw_fd()).expect("a socket");
        let seen = desc.seq(Side::Read);
        match (&mut &*stream).read(&mut [0]) {
            Ok(count) => return count == 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert_eq!(wait_io(rt, desc, Side::Read, seen, None, Listens::ToAll), Outcome::Delivered);
    }
}

fn write(mut stream: &UnixStream) {
    assert_eq!(stream.write(b"x").expect("room"), 1);
}

fn main() {
    header("netpoll");
    let rt = runtime();
    run(rt, move || {
        let (a, b) = UnixStream::pair().expect("a pair");
        a.set_nonblocking(true).expect("a socket");
        b.set_nonblocking(true).expect("a socket");
        go(rt, move || {
            while read(rt, &b) {
                write(&b);
            }
        });
        measure("socket pair, goroutines, there and back", COUNT, || {
            for _ in 0..COUNT {
                write(&a);
                assert!(read(rt, &a));
            }
        });
    });
    let (mut a, mut b) = UnixStream::pair().expect("a pair");
    let echo = std::thread::spawn(move || {
        while b.read(&mut [0]).expect("open") == 1 {
            write(&b);
        }
    });
    measure("socket pair, threads, there and back", COUNT, || {
        for _ in 0..COUNT {
            write(&a);
            a.read_exact(&mut [0]).expect("open");
        }
    });
    drop(a);
    echo.join().expect("no panic");
}
