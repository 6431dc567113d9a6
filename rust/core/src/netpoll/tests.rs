//! Netpoll without a scheduler: queues, generations, registrations; against a plain model, and on real descriptors.

use super::{BATCH, Error, Event, NetPoll, PollDesc, Side, VERIFY_AFTER_NS};
use crate::goroutine::waiter::{Node, Outcome, Wait, WaitQueue};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;

/// A wait of nobody, and its node.
struct Waiter {
    wait: Wait,
    node: Node,
}

impl Waiter {
    fn new() -> Box<Self> {
        let mut waiter = Box::new(Self { wait: Wait::new(), node: Node::new(ptr::null_mut(), ptr::null_mut()) });
        waiter.node.wait = &raw mut waiter.wait;
        waiter
    }

    fn queue(&mut self, net: &NetPoll, desc: &PollDesc, side: Side, seen: u32) -> bool {
        // SAFETY: the tests keep their boxes until the node is out; nobody is woken.
        unsafe { net.enqueue(desc, side, &raw mut self.node, seen, || 0) }
    }

    fn queued(net: &NetPoll, desc: &PollDesc, side: Side) -> Box<Self> {
        let mut waiter = Self::new();
        assert!(waiter.queue(net, desc, side, desc.seq(side)));
        waiter
    }
}

fn tag(desc: &PollDesc) -> u64 {
    desc.tag()
}

fn happen(net: &NetPoll, tag: u64, readable: bool, writable: bool) -> usize {
    let mut events = [Event { tag, readable, writable, ended: false }];
    let kept = net.note(&mut events);
    taken(net, &events[..kept])
}

/// Claims, and takes the waiters out as who readies them does; returns how many.
fn taken(net: &NetPoll, events: &[Event]) -> usize {
    let (mut claimed, mut count) = (WaitQueue::new(), 0);
    net.claim(events, &mut claimed, &mut WaitQueue::new());
    while !claimed.is_empty() {
        // SAFETY: it stands in front.
        unsafe { claimed.remove(claimed.front()) };
        count += 1;
    }
    count
}

/// Looks at registrations; what is gone.
fn verify(net: &NetPoll, now_ns: u64) -> Vec<Event> {
    let mut gone = [Event::default(); BATCH];
    let count = net.verify_some(now_ns, 9, &mut gone);
    gone[..count].to_vec()
}

/// Looks at the poller and claims; returns how many.
fn poll(net: &NetPoll) -> usize {
    let mut events = [Event::default(); BATCH];
    let count = net.poll(Some(0), &mut events).expect("a poller");
    taken(net, &events[..count])
}

#[test]
fn numbers_that_are_no_descriptors_are_errors() {
    let net = NetPoll::new();
    for fd in [-1, i32::MIN] {
        assert_eq!(net.desc(fd).err(), Some(Error::BAD_DESCRIPTOR));
        assert!(!net.forget(fd));
    }
    assert_eq!(net.desc(i32::MAX).err(), Some(Error::NotPollable));
    assert!(!net.forget(i32::MAX));
    assert_eq!(net.desc(1_000_000).err(), Some(Error::BAD_DESCRIPTOR));
    net.close_waiters(-1, &mut WaitQueue::new());
    let file = std::fs::File::open("/proc/self/exe").expect("a file");
    assert_eq!(net.desc(file.as_raw_fd()).err(), Some(Error::NotPollable));
    assert_eq!(net.note(&mut [Event { tag: u64::MAX, readable: true, writable: true, ended: true }]), 0);
}

#[test]
fn event_wakes_all_of_its_side_in_order_and_none_of_the_other() {
    let (net, (a, _b)) = (NetPoll::new(), UnixStream::pair().expect("a pair"));
    let desc = net.desc(a.as_raw_fd()).expect("pollable");
    let mut readers: Vec<_> = (0..3).map(|_| Waiter::queued(&net, desc, Side::Read)).collect();
    let writer = Waiter::queued(&net, desc, Side::Write);
    assert_eq!((net.waiting(), desc.waiting()), (4, 4));
    let mut events = [Event { tag: tag(desc), readable: true, ..Event::default() }];
    assert_eq!(net.note(&mut events), 1);
    let mut claimed = WaitQueue::new();
    net.claim(&events, &mut claimed, &mut WaitQueue::new());
    for reader in &mut readers {
        assert_eq!(claimed.front(), &raw mut reader.node);
        // SAFETY: it stands there.
        unsafe { claimed.remove(&raw mut reader.node) };
        assert_eq!(reader.wait.outcome(), Outcome::Delivered);
        assert_eq!(reader.wait.winner, &raw mut reader.node);
    }
    assert!(claimed.is_empty());
    assert_eq!((writer.wait.outcome(), net.waiting()), (Outcome::Pending, 1));
}

#[test]
fn event_between_attempt_and_queue_refuses_the_wait() {
    let (net, (a, _b)) = (NetPoll::new(), UnixStream::pair().expect("a pair"));
    let desc = net.desc(a.as_raw_fd()).expect("pollable");
    let (read, write) = (desc.seq(Side::Read), desc.seq(Side::Write));
    assert_eq!(happen(&net, tag(desc), true, false), 0);
    assert!(!Waiter::new().queue(&net, desc, Side::Read, read));
    let mut writer = Waiter::new();
    assert!(writer.queue(&net, desc, Side::Write, write), "the sides are independent");
    assert_eq!(happen(&net, tag(desc), true, true), 1);
}

#[test]
fn retired_number_closes_both_sides_and_begins_anew() {
    let (net, (a, _b)) = (NetPoll::new(), UnixStream::pair().expect("a pair"));
    let fd = a.as_raw_fd();
    let desc = net.desc(fd).expect("pollable");
    let (old, seen) = (tag(desc), desc.seq(Side::Read));
    let waiters = [Waiter::queued(&net, desc, Side::Read), Waiter::queued(&net, desc, Side::Write)];
    let mut claimed = WaitQueue::new();
    net.retire(fd, &mut claimed);
    assert_eq!((claimed.len(), net.waiting()), (2, 0));
    assert!(waiters.iter().all(|w| w.wait.outcome() == Outcome::Closed));
    assert!(!Waiter::new().queue(&net, desc, Side::Read, seen), "a wait begun before the close");
    assert!(!Waiter::new().queue(&net, desc, Side::Read, desc.seq(Side::Read)), "not registered");
    let again = net.desc(fd).expect("pollable");
    assert!(ptr::eq(again, desc));
    let mut reader = Waiter::queued(&net, desc, Side::Read);
    assert_eq!(happen(&net, old, true, true), 0, "an event of the file before");
    assert_eq!(reader.wait.outcome(), Outcome::Pending);
    assert_eq!(happen(&net, tag(desc), true, true), 1);
    // SAFETY: the node is out already: nothing happens.
    unsafe { net.remove(desc, Side::Read, &raw mut reader.node) };
    assert_eq!(net.waiting(), 0);
}

#[test]
fn close_on_a_thread_that_may_not_claim_leaves_new_waiters_alone() {
    let (net, (a, _b)) = (NetPoll::new(), UnixStream::pair().expect("a pair"));
    let desc = net.desc(a.as_raw_fd()).expect("pollable");
    let old = Waiter::queued(&net, desc, Side::Read);
    assert!(net.forget(a.as_raw_fd()) && !net.forget(a.as_raw_fd()));
    let desc = net.desc(a.as_raw_fd()).expect("pollable");
    let new = Waiter::queued(&net, desc, Side::Read);
    let mut claimed = WaitQueue::new();
    net.close_waiters(a.as_raw_fd(), &mut claimed);
    assert_eq!((old.wait.outcome(), new.wait.outcome()), (Outcome::Closed, Outcome::Pending));
    assert_eq!((claimed.len(), net.waiting()), (1, 1));
}

#[test]
fn system_events_reach_the_waiters_of_a_pipe() {
    let net = NetPoll::new();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let (r, w) = (net.desc(reader.as_raw_fd()).expect("pollable"), net.desc(writer.as_raw_fd()).expect("pollable"));
    assert_eq!(poll(&net), 0, "the room in the pipe, which nobody waits for");
    assert_eq!(w.seq(Side::Write), 1);
    let waiter = Waiter::queued(&net, r, Side::Read);
    writer.write_all(b"x").expect("room");
    assert_eq!(poll(&net), 1);
    assert_eq!(waiter.wait.outcome(), Outcome::Delivered);
    let waiter = Waiter::queued(&net, r, Side::Read);
    drop(writer);
    assert_eq!(poll(&net), 1, "its end");
    assert_eq!(waiter.wait.outcome(), Outcome::Delivered);
}

#[test]
fn unseen_close_is_found_once_per_wait_and_the_new_file_registered() {
    let net = NetPoll::new();
    let (a, _b) = UnixStream::pair().expect("a pair");
    let fd = 998; // a number nobody else comes to
    // SAFETY: this test's own copy.
    let high = unsafe { OwnedFd::from_raw_fd(crate::sys::poller::duplicate_for_test(a.as_raw_fd(), fd)) };
    drop(a);
    let desc = net.desc(fd).expect("pollable");
    poll(&net);
    let (c, mut d) = UnixStream::pair().expect("a pair");
    // Another file under that number, and nobody is told.
    assert_eq!(crate::sys::poller::duplicate_for_test(c.as_raw_fd(), high.as_raw_fd()), fd);
    let waiter = Waiter::queued(&net, net.desc(fd).expect("as far as it knows"), Side::Read);
    d.write_all(b"x").expect("room");
    assert_eq!(poll(&net), 0, "the registration is gone");
    assert_eq!(verify(&net, VERIFY_AFTER_NS - 1).len(), 0);
    assert_eq!(poll(&net), 0, "too early to look");
    assert_eq!(verify(&net, VERIFY_AFTER_NS).len(), 0);
    assert_eq!(poll(&net), 1);
    assert_eq!((waiter.wait.outcome(), desc.waiting()), (Outcome::Delivered, 0));
    assert!(net.next_watched(u64::MAX).is_none(), "once per wait");
}

#[test]
fn waiters_of_a_number_that_is_nobodys_are_told_to_try_again() {
    let net = NetPoll::new();
    let (a, _b) = UnixStream::pair().expect("a pair");
    // A number nobody else comes to.
    // SAFETY: `high` is this test's own copy.
    let high = unsafe { OwnedFd::from_raw_fd(crate::sys::poller::duplicate_for_test(a.as_raw_fd(), 999)) };
    let desc = net.desc(999).expect("pollable");
    let waiter = Waiter::queued(&net, desc, Side::Read);
    drop(high);
    let mut gone = verify(&net, u64::MAX);
    assert_eq!(gone.len(), 1);
    assert_eq!(net.note(&mut gone), 1);
    net.leave_pending(&gone);
    let mut claimed = WaitQueue::new();
    net.claim_pending(&mut claimed, &mut WaitQueue::new());
    assert_eq!((claimed.len(), waiter.wait.outcome()), (1, Outcome::Delivered));
    assert_eq!(net.desc(999).err(), Some(Error::BAD_DESCRIPTOR), "registered anew at the next use, or not");
}

#[test]
fn all_who_wait_try_again_where_no_event_could_be_kept_and_where_the_poller_is_gone() {
    for is_abandoned in [false, true] {
        let (net, (a, b)) = (NetPoll::new(), UnixStream::pair().expect("a pair"));
        let (a, b) = (net.desc(a.as_raw_fd()).expect("pollable"), net.desc(b.as_raw_fd()).expect("pollable"));
        let waiters =
            [(a, Side::Read), (a, Side::Write), (b, Side::Read)].map(|(d, side)| Waiter::queued(&net, d, side));
        if is_abandoned {
            net.abandon();
            assert!(!Waiter::new().queue(&net, a, Side::Read, a.seq(Side::Read)), "nobody would wake it");
        } else {
            net.pending.lock().expect("no panic").is_everything = true;
        }
        let mut claimed = WaitQueue::new();
        net.claim_pending(&mut claimed, &mut WaitQueue::new());
        assert_eq!((claimed.len(), net.waiting()), (3, 0));
        assert!(waiters.iter().all(|w| w.wait.outcome() == Outcome::Delivered));
        let mut again = WaitQueue::new();
        let _late = (!is_abandoned).then(|| Waiter::queued(&net, a, Side::Read));
        net.claim_pending(&mut again, &mut WaitQueue::new());
        assert!(again.is_empty(), "told once");
    }
}

#[test]
fn busy_descriptor_is_listed_again_and_not_looked_at() {
    let (net, (a, _b)) = (NetPoll::new(), UnixStream::pair().expect("a pair"));
    let desc = net.desc(a.as_raw_fd()).expect("pollable");
    let mut waiters = vec![Waiter::queued(&net, desc, Side::Read)];
    happen(&net, tag(desc), true, false);
    waiters.push(Waiter::queued(&net, desc, Side::Read));
    assert_eq!(net.to_verify.lock().expect("no panic").len(), 1);
    let now = 2 * VERIFY_AFTER_NS;
    assert_eq!(verify(&net, now).len(), 0);
    let listed: Vec<u64> = net.to_verify.lock().expect("no panic").iter().map(|w| w.since_ns).collect();
    assert_eq!(listed, [now]);
    assert_eq!(verify(&net, now + VERIFY_AFTER_NS).len(), 0);
    assert!(net.to_verify.lock().expect("no panic").is_empty(), "looked at, once");
    happen(&net, tag(desc), true, false);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    ReadSeq(Side),
    Enqueue(Side),
    Event { readable: bool, writable: bool, old: bool },
    Forget,
    CloseWaiters,
    Use,
    EndByOther(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let side = prop_oneof![Just(Side::Read), Just(Side::Write)];
    prop_oneof![
        2 => side.clone().prop_map(Step::ReadSeq),
        6 => side.prop_map(Step::Enqueue),
        3 => any::<(bool, bool, bool)>().prop_map(|(readable, writable, old)| Step::Event { readable, writable, old }),
        1 => Just(Step::Forget),
        1 => Just(Step::CloseWaiters),
        2 => Just(Step::Use),
        2 => any::<prop::sample::Index>().prop_map(Step::EndByOther),
    ]
}

/// What a descriptor is, without locks and nodes: per side a counter and who waits, by number and generation.
#[derive(Default)]
struct Plain {
    generation: u32,
    registered: bool,
    seq: [u32; 2],
    queues: [VecDeque<(usize, u32)>; 2],
    outcomes: Vec<Outcome>,
}

impl Plain {
    fn event(&mut self, wanted: [bool; 2]) {
        for side in [0, 1].into_iter().filter(|&s| wanted[s]) {
            self.seq[side] += 1;
            for (who, generation) in self.queues[side].drain(..) {
                let outcome = if generation == self.generation { Outcome::Delivered } else { Outcome::Closed };
                self.outcomes[who] = outcome;
            }
        }
    }

    fn close_waiters(&mut self) {
        for queue in &mut self.queues {
            let generation = self.generation;
            queue.iter().filter(|w| w.1 != generation).for_each(|w| self.outcomes[w.0] = Outcome::Closed);
            queue.retain(|w| w.1 == generation);
        }
    }
}

proptest! {
    #[test]
    fn descriptor_does_what_the_plain_model_does(steps in prop::collection::vec(step(), 0..80)) {
        let (net, (a, _b)) = (NetPoll::new(), UnixStream::pair().expect("a pair"));
        let fd = a.as_raw_fd();
        let desc = net.desc(fd).expect("pollable");
        let mut plain = Plain { registered: true, ..Plain::default() };
        let mut waiters: Vec<Box<Waiter>> = Vec::new();
        let mut seen = [0u32; 2];
        for step in steps {
            let mut claimed = WaitQueue::new();
            match step {
                Step::ReadSeq(side) => seen[side as usize] = desc.seq(side),
                Step::Enqueue(side) => {
                    let s = side as usize;
                    let mut waiter = Waiter::new();
                    let enters = waiter.queue(&net, desc, side, seen[s]);
                    prop_assert_eq!(enters, plain.registered && plain.seq[s] == seen[s]);
                    if enters {
                        plain.queues[s].push_back((waiters.len(), plain.generation));
                        plain.outcomes.push(Outcome::Pending);
                        waiters.push(waiter);
                    }
                }
                Step::Event { readable, writable, old } => {
                    let tag = if old { tag(desc) ^ 1 << 32 } else { tag(desc) };
                    let mut events = [Event { tag, readable, writable, ended: false }];
                    let kept = net.note(&mut events);
                    net.claim(&events[..kept], &mut claimed, &mut WaitQueue::new());
                    if !old {
                        plain.event([readable, writable]);
                    }
                }
                Step::Forget => {
                    let waits = plain.queues.iter().any(|q| !q.is_empty());
                    prop_assert_eq!(net.forget(fd), plain.registered && waits);
                    if plain.registered {
                        plain.registered = false;
                        plain.generation += 1;
                        plain.seq = plain.seq.map(|s| s + 1);
                    }
                }
                Step::CloseWaiters => {
                    net.close_waiters(fd, &mut claimed);
                    plain.close_waiters();
                }
                Step::Use => {
                    prop_assert!(net.desc(fd).is_ok());
                    plain.registered = true;
                }
                Step::EndByOther(index) if !waiters.is_empty() => {
                    let who = index.index(waiters.len());
                    let ended = waiters[who].wait.claim(Outcome::TimedOut);
                    prop_assert_eq!(ended, plain.outcomes[who] == Outcome::Pending);
                    if ended {
                        plain.outcomes[who] = Outcome::TimedOut;
                        let side = if plain.queues[0].iter().any(|w| w.0 == who) { Side::Read } else { Side::Write };
                        plain.queues[side as usize].retain(|w| w.0 != who);
                        // SAFETY: the node is live and stands in that queue.
                        unsafe { net.remove(desc, side, &raw mut waiters[who].node) };
                    }
                }
                Step::EndByOther(_) => {}
            }
            let waiting: usize = plain.queues.iter().map(VecDeque::len).sum();
            prop_assert_eq!((net.waiting(), desc.waiting() as usize), (waiting, waiting));
            prop_assert_eq!(desc.generation(), plain.generation);
            prop_assert_eq!([desc.seq(Side::Read), desc.seq(Side::Write)], plain.seq);
            for (waiter, outcome) in waiters.iter().zip(&plain.outcomes) {
                prop_assert_eq!(waiter.wait.outcome(), *outcome);
            }
        }
    }
}
