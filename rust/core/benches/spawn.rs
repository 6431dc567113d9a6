//! A goroutine from its start to its end, and a yield, at one processor.

mod measure;
mod runs;

use gort_core::sched::gosched;
use gort_core::sync::WaitGroup;
use measure::{header, measure};
use runs::{go, run, runtime};
use std::sync::Arc;

const COUNT: u64 = 10_000;

fn main() {
    header("spawn");
    let rt = runtime();
    run(rt, move || {
        let group = Arc::new(WaitGroup::new());
        measure("spawn, run, end (with a WaitGroup)", COUNT, || {
            group.add(COUNT as i64).expect("adds");
            for _ in 0..COUNT {
                let group = group.clone();
                go(rt, move || group.add(-1).expect("not negative"));
            }
            let _ = group.wait(rt, None);
        });
        group.add(1).expect("adds");
        let others = group.clone();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        go(rt, move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                gosched();
            }
            others.add(-1).expect("not negative");
        });
        measure("gosched between two", COUNT * 2, || (0..COUNT).for_each(|_| gosched()));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = group.wait(rt, None);
    });
}
