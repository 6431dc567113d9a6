//! Channels at one processor: a value to and fro between two goroutines, a buffer filled and drained.

mod measure;
mod runs;

use gort_core::chan::Chan;
use measure::{header, measure};
use runs::{go, run, runtime};
use std::sync::Arc;

const COUNT: u64 = 10_000;

fn main() {
    header("chan");
    let rt = runtime();
    run(rt, move || {
        let (there, back) = (Arc::new(Chan::<u64>::new(0)), Arc::new(Chan::<u64>::new(0)));
        let (t, b) = (there.clone(), back.clone());
        go(rt, move || {
            while let Ok(value) = t.recv(rt, None) {
                b.send(rt, value, None).expect("open");
            }
        });
        measure("unbuffered, there and back", COUNT, || {
            for i in 0..COUNT {
                there.send(rt, i, None).expect("open");
                back.recv(rt, None).expect("open");
            }
        });
        there.close().expect("once");
        let buffered = Chan::<u64>::new(COUNT as usize);
        measure("buffered, send and receive", COUNT, || {
            (0..COUNT).for_each(|i| buffered.send(rt, i, None).expect("open"));
            (0..COUNT).for_each(|_| drop(buffered.recv(rt, None)));
        });
    });
}
