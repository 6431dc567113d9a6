//! What a forked child finds of those who waited before. In a file of its own: an epoch is the whole process's.

use gort_core::goroutine::waiter::{Node, Outcome, Wait, WaitQueue, begin_epoch};
use gort_core::timer::{Event, EventTimer, Timer, TimerHeap};
use std::ptr;

static EVENT: Event = Event { take: |_| ptr::null_mut(), fire: |_| {}, abandon: |_| {} };

#[test]
fn who_waited_before_a_fork_does_not_wait_after_it() {
    let mut waits = [const { None }; 3].map(|_: Option<Wait>| Wait::new());
    let [mut old, mut other, mut new] = [0, 1, 2].map(|i| Node::new(&raw mut waits[i], ptr::null_mut()));
    let (mut queue, mut elsewhere) = (WaitQueue::new(), WaitQueue::new());
    // SAFETY: the nodes and their waits stay where they are until the end of the test.
    unsafe {
        queue.push_back(&raw mut old);
        elsewhere.push_back(&raw mut other);
        assert!(!queue.is_empty() && old.is_linked());
        begin_epoch();
        assert!(queue.is_empty() && queue.front().is_null());
        assert!(!old.is_linked() && elsewhere.claim_front(Outcome::Delivered).is_null());
        queue.remove(&raw mut old);
        queue.push_back(&raw mut new);
        queue.remove(&raw mut old);
        assert_eq!(queue.len(), 1);
        // The forking goroutine itself may stand in a queue with a ticket: it joins again.
        queue.push_front(&raw mut other);
        assert_eq!(queue.claim_front(Outcome::Delivered), &raw mut other);
        assert_eq!(queue.claim_front(Outcome::Delivered), &raw mut new);
        assert!(queue.claim_front(Outcome::Delivered).is_null());
    }
    assert_eq!(waits.map(|wait| wait.outcome()), [Outcome::Pending, Outcome::Delivered, Outcome::Delivered]);
}

#[test]
fn timers_with_an_event_can_be_set_again_after_all_were_dropped() {
    let (mut heap, mut sleep, mut event) = (TimerHeap::new(), Timer::new(), EventTimer::new(&EVENT, 0));
    // SAFETY: the timers stay where they are until the end of the test.
    unsafe {
        heap.push(&raw mut sleep);
        heap.push(&raw mut event.timer);
        heap.forget();
        assert!(heap.is_empty() && !event.timer.is_queued());
        assert!(!heap.remove(&raw mut event.timer));
        heap.push(&raw mut event.timer);
        assert_eq!(heap.len(), 1);
    }
}
