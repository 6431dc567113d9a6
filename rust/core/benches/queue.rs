//! The run queues, uncontended: what the owner pays, and what a thief pays for half of a full ring.

mod measure;

use gort_core::sched::inject_queue::InjectQueue;
use gort_core::sched::local_queue::LocalQueue;
use measure::{header, measure};
use std::hint::black_box;
use std::ptr;

const ROUNDS: u64 = 100_000;

fn main() {
    header("queue");
    let item: *mut u64 = ptr::without_provenance_mut(8);
    let (queue, other, global) = (LocalQueue::new(), LocalQueue::new(), InjectQueue::new());
    measure("next slot: put and take", ROUNDS, || {
        for _ in 0..ROUNDS {
            black_box(queue.push_next(item));
            black_box(queue.pop());
        }
    });
    measure("ring: append and take", ROUNDS, || {
        for _ in 0..ROUNDS {
            queue.push_back(black_box(item), |_| ());
            black_box(queue.pop());
        }
    });
    measure("ring: fill 256, steal 128, drain both", ROUNDS / 256, || {
        for _ in 0..ROUNDS / 256 {
            (0..256).for_each(|_| queue.push_back(item, |_| ()));
            black_box(queue.steal_into(&other, false));
            while queue.pop().is_some() {}
            while other.pop().is_some() {}
        }
    });
    measure("global queue: append and take", ROUNDS, || {
        for _ in 0..ROUNDS {
            global.push(item);
            black_box(global.pop());
        }
    });
}
