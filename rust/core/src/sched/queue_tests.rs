//! The run queues against plain lists: one thread here, so that every step has one right answer. Races: `model`.

use super::inject_queue::{Fifo, InjectQueue};
use super::local_queue::LocalQueue;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::ptr;

const SLOTS: usize = 256;

/// Items are numbers dressed as addresses; nothing is behind them.
fn item(n: usize) -> *mut u64 {
    ptr::without_provenance_mut((n + 1) * 8)
}

#[derive(Debug, Clone)]
enum Step {
    /// So many to the tail of queue 0 or 1.
    PushBack(usize, usize),
    PushNext(usize),
    Pop(usize, usize),
    /// From the queue named to the other, which is emptied first as `steal` demands it.
    Steal(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..2usize, 1..150usize).prop_map(|(q, n)| Step::PushBack(q, n)),
        2 => (0..2usize).prop_map(Step::PushNext),
        3 => (0..2usize, 1..100usize).prop_map(|(q, n)| Step::Pop(q, n)),
        2 => (0..2usize, any::<bool>()).prop_map(|(q, next)| Step::Steal(q, next)),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a queue should hold.
#[derive(Default)]
struct Model {
    ring: VecDeque<*mut u64>,
    next: Option<*mut u64>,
}

impl Model {
    fn push_back(&mut self, item: *mut u64) -> Option<Vec<*mut u64>> {
        if self.ring.len() < SLOTS {
            self.ring.push_back(item);
            return None;
        }
        let mut batch: Vec<_> = self.ring.drain(..SLOTS / 2).collect();
        batch.push(item);
        Some(batch)
    }

    fn pop(&mut self) -> Option<(*mut u64, bool)> {
        self.next.take().map(|i| (i, true)).or_else(|| self.ring.pop_front().map(|i| (i, false)))
    }

    fn len(&self) -> usize {
        self.ring.len() + usize::from(self.next.is_some())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn local_queues_do_what_two_plain_lists_do(steps in steps()) {
        let queues = [LocalQueue::new(), LocalQueue::new()];
        let mut models = [Model::default(), Model::default()];
        let mut made = 0;
        for step in steps {
            match step {
                Step::PushBack(q, count) => for _ in 0..count {
                    made += 1;
                    let mut spilt = None;
                    queues[q].push_back(item(made), |batch| spilt = Some(batch.to_vec()));
                    prop_assert_eq!(spilt, models[q].push_back(item(made)));
                },
                Step::PushNext(q) => {
                    made += 1;
                    prop_assert_eq!(queues[q].push_next(item(made)), models[q].next.replace(item(made)));
                }
                Step::Pop(q, count) => for _ in 0..count {
                    prop_assert_eq!(queues[q].pop(), models[q].pop());
                },
                Step::Steal(from, take_next) => {
                    let to = 1 - from;
                    while let Some(got) = queues[to].pop() {
                        prop_assert_eq!(Some(got), models[to].pop());
                    }
                    let len = models[from].ring.len();
                    let mut moved: VecDeque<_> = models[from].ring.drain(..len - len / 2).collect();
                    let mut expected = moved.pop_back();
                    if len == 0 && take_next {
                        expected = models[from].next.take();
                    }
                    models[to].ring = moved;
                    prop_assert_eq!(queues[from].steal_into(&queues[to], take_next), expected);
                }
            }
            for (queue, model) in queues.iter().zip(&models) {
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.len() == 0);
            }
        }
    }

    /// Positive: push so many in one batch; negative: pop so many in one batch; zero: pop one.
    #[test]
    fn global_queue_does_what_a_plain_list_does(steps in prop::collection::vec(-20i32..20, 1..100)) {
        let (queue, mut model, mut made) = (InjectQueue::new(), VecDeque::new(), 0);
        for step in steps {
            let count = step.unsigned_abs() as usize;
            match step {
                0 => prop_assert_eq!(queue.pop(), model.pop_front()),
                1 => {
                    made += 1;
                    queue.push(item(made));
                    model.push_back(item(made));
                }
                2.. => {
                    let batch: Vec<_> = (made..made + count).map(item).collect();
                    made += count;
                    queue.push_batch(&batch);
                    model.extend(batch);
                }
                _ => {
                    let expected: Vec<_> = model.drain(..count.min(model.len())).collect();
                    let mut places = vec![MaybeUninit::uninit(); count];
                    prop_assert_eq!(queue.pop_batch(&mut places), expected);
                }
            }
            prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
        }
    }

    /// Some: push, behind or not; None: pop. One in eight is of those behind while any stand there.
    #[test]
    fn those_behind_come_last_and_every_eighth_time(steps in prop::collection::vec(any::<Option<bool>>(), 1..200)) {
        let (mut queue, mut first, mut behind) = (Fifo::default(), VecDeque::new(), VecDeque::new());
        let mut since = 0;
        for (n, step) in steps.into_iter().enumerate() {
            if let Some(is_behind) = step {
                queue.push(item(n), is_behind);
                if is_behind { behind.push_back(item(n)) } else { first.push_back(item(n)) }
            } else {
                since += u32::from(!behind.is_empty());
                let turn = since % 8 == 0 && !behind.is_empty();
                let expected = if turn || first.is_empty() { behind.pop_front() } else { first.pop_front() };
                prop_assert_eq!(queue.pop(), expected);
            }
            prop_assert_eq!(queue.len(), first.len() + behind.len());
            prop_assert_eq!(queue.front(), first.front().or(behind.front()).copied());
        }
        let rest = first.iter().map(|&i| (i, false)).chain(behind.iter().map(|&i| (i, true)));
        prop_assert_eq!(queue.drain().collect::<Vec<_>>(), rest.collect::<Vec<_>>());
    }
}

/// Real threads over the full-sized ring: what loom cannot reach for its size.
#[test]
fn queue_robbed_for_a_while_by_real_threads_gives_each_item_once() {
    const ITEMS: usize = 60_000;
    let queue = LocalQueue::<u64>::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut seen = vec![0u8; ITEMS + 1];
    let number = |i: *mut u64| i.addr() / 8 - 1;
    std::thread::scope(|scope| {
        let thieves: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let own = LocalQueue::new();
                    let mut got = Vec::new();
                    while !done.load(std::sync::atomic::Ordering::Acquire) {
                        got.extend(queue.steal_into(&own, true).map(number));
                        while let Some((i, _)) = own.pop() {
                            got.push(number(i));
                        }
                        std::thread::yield_now();
                    }
                    got
                })
            })
            .collect();
        for n in 1..=ITEMS {
            let kicked = queue.push_next(item(n));
            if let Some(kicked) = kicked {
                queue.push_back(kicked, |batch| batch.iter().for_each(|&i| seen[number(i)] += 1));
            }
            if n % 7 == 0 {
                queue.pop().into_iter().for_each(|(i, _)| seen[number(i)] += 1);
            }
        }
        while let Some((i, _)) = queue.pop() {
            seen[number(i)] += 1;
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        thieves.into_iter().flat_map(|t| t.join().expect("no panic")).for_each(|n| seen[n] += 1);
    });
    assert!(seen[1..].iter().all(|&n| n == 1), "an item was lost or given twice");
}
