//! The heap against a sorted list, under every operation in any order.

use super::{Event, EventTimer, Timer, TimerHeap};
use proptest::prelude::*;
use std::ptr;

static SILENT: Event = Event { take: |_| ptr::null_mut(), fire: |_| {}, abandon: |_| {} };

#[derive(Debug, Clone)]
enum Step {
    /// Set timer `.0` for now + `.1`, every `.2` (0: once); taken out first if it is queued.
    Set(usize, u64, u64),
    /// Take timer `.0` out.
    Remove(usize),
    /// Let `.0` go by and take what is due, at most `.1`.
    PopDue(u64, usize),
}

fn step(timers: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..timers, 0u64..40, prop_oneof![2 => Just(0u64), 1 => 1u64..15]).prop_map(|(i, d, p)| Step::Set(i, d, p)),
        2 => (0..timers).prop_map(Step::Remove),
        3 => (0u64..20, 0usize..6).prop_map(|(d, n)| Step::PopDue(d, n)),
    ]
}

/// One queued timer of the model: deadline, order of setting, which, period.
type Entry = (u64, u64, usize, u64);

#[derive(Default)]
struct Model {
    queued: Vec<Entry>,
    seq: u64,
}

impl Model {
    fn set(&mut self, which: usize, when: u64, period: u64) {
        self.seq += 1;
        self.queued.push((when, self.seq, which, period));
    }

    fn remove(&mut self, which: usize) -> bool {
        let before = self.queued.len();
        self.queued.retain(|e| e.2 != which);
        self.queued.len() != before
    }

    fn pop_due(&mut self, now: u64) -> Option<usize> {
        let first = *self.queued.iter().min()?;
        let (when, _, which, period) = first;
        if when > now {
            return None;
        }
        self.remove(which);
        if period != 0 {
            let next = (1..).map(|k| when + k * period).find(|&w| w > now).expect("some multiple is later");
            self.set(which, next, period);
        }
        Some(which)
    }
}

proptest! {
    #[test]
    fn heap_does_what_a_sorted_list_does(steps in prop::collection::vec(step(12), 1..300)) {
        let mut timers: Vec<EventTimer> = (0..12).map(|_| EventTimer::new(&SILENT, 0)).collect();
        let base = timers.as_mut_ptr();
        let (mut heap, mut model, mut now) = (TimerHeap::new(), Model::default(), 1_000);
        for step in steps {
            // SAFETY: `timers` is only touched through `base`, and not moved, while its elements are queued.
            unsafe {
                match step {
                    Step::Set(i, delay, period) => {
                        prop_assert_eq!(heap.remove(base.add(i).cast()), model.remove(i));
                        (*base.add(i)).timer.when_ns = now + delay;
                        (*base.add(i)).period_ns = period;
                        heap.push(base.add(i).cast());
                        model.set(i, now + delay, period);
                    }
                    Step::Remove(i) => prop_assert_eq!(heap.remove(base.add(i).cast()), model.remove(i)),
                    Step::PopDue(gone, most) => {
                        now += gone;
                        for _ in 0..most {
                            let popped = heap.pop_due(now).map(|t| t.cast::<EventTimer>().offset_from(base) as usize);
                            prop_assert_eq!(popped, model.pop_due(now));
                        }
                    }
                }
                for i in 0..12 {
                    prop_assert_eq!((*base.add(i)).timer.is_queued(), model.queued.iter().any(|e| e.2 == i));
                }
            }
            prop_assert!(heap.is_sound());
            prop_assert_eq!(heap.len(), model.queued.len());
            prop_assert_eq!(heap.peek_when(), model.queued.iter().map(|e| e.0).min());
        }
    }
}

#[test]
fn who_has_room_kept_sets_timers_without_asking_for_memory() {
    const WAITS: usize = 100;
    let mut heap = TimerHeap::new();
    let mut waits: Vec<Timer> = (0..WAITS).map(|_| Timer::new()).collect();
    let mut events: Vec<EventTimer> = (0..WAITS).map(|_| EventTimer::new(&SILENT, 0)).collect();
    assert!(heap.keep_room(WAITS));
    let set_all = |heap: &mut TimerHeap, events: &mut [EventTimer]| {
        for event in events {
            assert!(heap.make_room());
            // SAFETY: in place until it is taken out below.
            unsafe { heap.push(&raw mut event.timer) };
        }
    };
    set_all(&mut heap, &mut events);
    for _ in 0..2 {
        let room = heap.room();
        // SAFETY: as above.
        waits.iter_mut().for_each(|wait| unsafe { heap.push(wait) });
        assert_eq!(heap.room(), room, "events have used up the room of waits");
        // SAFETY: as above.
        waits.iter_mut().for_each(|wait| assert!(unsafe { heap.remove(wait) }));
        let (gone, left) = events.split_at_mut(WAITS / 2);
        // SAFETY: as above.
        gone.iter_mut().for_each(|event| assert!(unsafe { heap.remove(&raw mut event.timer) }));
        set_all(&mut heap, gone);
        assert_eq!(heap.len(), gone.len() + left.len());
    }
}
