//! Loom: a waiter that queues itself against an event, a close and the look at the registration. Real code on a poller
//! that stands for the system's.

use super::{Event, NetPoll, PollDesc, Side};
use crate::goroutine::waiter::{Node, Outcome, Wait, WaitQueue};
use loom::sync::Arc;
use loom::thread;
use std::ptr;

/// A wait and its node; never freed in a model.
fn waiter() -> (&'static Wait, *mut Node) {
    let wait: *mut Wait = Box::leak(Box::new(Wait::new()));
    // SAFETY: leaked just now.
    (unsafe { &*wait }, Box::leak(Box::new(Node::new(wait, ptr::null_mut()))))
}

fn net() -> Arc<NetPoll> {
    let net = Arc::new(NetPoll::new());
    net.desc(0).expect("every number is a descriptor in a model");
    net
}

fn enqueue(net: &NetPoll, desc: &PollDesc, node: *mut Node, seen: u32) -> bool {
    // SAFETY: a model's host has no lock; nodes of models are never freed.
    unsafe { net.enqueue(desc, Side::Read, node, seen, || 0) }
}

/// What a thread does that found an event.
fn event(net: &NetPoll, tag: u64) {
    let mut events = [Event { tag, readable: true, ..Event::default() }];
    let kept = net.note(&mut events);
    net.claim(&events[..kept], &mut WaitQueue::new(), &mut WaitQueue::new());
}

#[test]
fn waiter_that_queues_during_an_event_is_refused_or_claimed() {
    loom::model(|| {
        let net = net();
        let other = net.clone();
        let poller = thread::spawn(move || event(&other, 0));
        let desc = net.desc(0).expect("registered");
        let (wait, node) = waiter();
        let seen = 0; // read before the event
        let queued = enqueue(&net, desc, node, seen);
        poller.join().expect("no panic");
        assert_eq!(wait.outcome(), if queued { Outcome::Delivered } else { Outcome::Pending });
        assert_eq!((net.waiting(), desc.waiting()), (0, 0));
    });
}

#[test]
fn waiter_that_queues_during_a_close_is_refused_or_closed() {
    loom::model(|| {
        let net = net();
        let other = net.clone();
        let closer = thread::spawn(move || other.retire(0, &mut WaitQueue::new()));
        let (wait, node) = waiter();
        let desc = net.desc(0).expect("registered");
        let queued = enqueue(&net, desc, node, desc.seq(Side::Read));
        closer.join().expect("no panic");
        // One that came wholly after the close waits for the next file, and in the list of those to verify.
        let next_file = queued && wait.outcome() == Outcome::Pending;
        assert!(!queued || next_file || wait.outcome() == Outcome::Closed);
        assert_eq!(net.waiting(), usize::from(next_file));
        if next_file {
            assert!(desc.is_registered());
            event(&net, 1 << 32);
            assert_eq!(wait.outcome(), Outcome::Delivered);
        }
    });
}

#[test]
fn waiter_that_queues_during_a_look_at_its_registration_is_seen_or_listed_again() {
    loom::model(|| {
        let net = net();
        let desc = net.desc(0).expect("registered");
        let (_, first) = waiter();
        assert!(enqueue(&net, desc, first, 0));
        // SAFETY: linked just now.
        unsafe { net.remove(desc, Side::Read, first) };
        let other = net.clone();
        let watcher = thread::spawn(move || {
            let watched = other.next_watched(u64::MAX).expect("listed by the first");
            other.desc(0).expect("registered").unlist(&watched).0
        });
        let (_, second) = waiter();
        assert!(enqueue(&net, desc, second, 0));
        let seen = watcher.join().expect("no panic");
        assert!(seen || net.next_watched(u64::MAX).is_some());
    });
}
