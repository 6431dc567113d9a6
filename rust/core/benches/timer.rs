//! The timer heap of a P: set and take out among many, and set and fire in order.

mod measure;

use gort_core::timer::{Timer, TimerHeap};
use measure::{header, measure};

const TIMERS: usize = 10_000;

/// Deadlines in no order, the same each time.
fn timers() -> Vec<Timer> {
    let mut x = 1u64;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        x >> 40
    };
    (0..TIMERS)
        .map(|_| {
            let mut timer = Timer::new();
            timer.when_ns = next();
            timer
        })
        .collect()
}

fn main() {
    header("timer");
    let mut all = timers();
    let first = all.as_mut_ptr();
    let mut heap = TimerHeap::new();
    // SAFETY: `all` is neither moved nor touched otherwise while its timers are queued.
    unsafe {
        measure("set 10,000, fire all in order", TIMERS as u64, || {
            (0..TIMERS).for_each(|i| heap.push(first.add(i)));
            while heap.pop_due(u64::MAX).is_some() {}
        });
        (1..TIMERS).for_each(|i| heap.push(first.add(i)));
        measure("set and take out one among 10,000", 1_000, || {
            for _ in 0..1_000 {
                heap.push(first);
                heap.remove(first);
            }
        });
        while heap.pop_due(u64::MAX).is_some() {}
    }
}
