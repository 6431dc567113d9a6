//! Loom: the status word between a parker and a waker, and the claim of a wait by several.
//!
//! The parker is the code of `announce` and of an M that left the stack (`commit_park`), the waker that of `ready_wait`;
//! both here without a scheduler around them, so that a model stays small. `sched::model` has the whole way.

use super::Goroutine;
use super::registry::Registry;
use super::slab::Plain;
use super::status::{self, Wake};
use super::waiter::{Node, Outcome, Wait, WaitQueue};
use crate::primitive::Witness;
use crate::primitive::atomic::{AtomicU32, Ordering};
use crate::primitive::exclusive::ShortLock;
use loom::sync::Arc;
use loom::thread;
use std::ptr;

struct Shared {
    g: *mut Goroutine,
    /// The goroutine's stack: touched by its M until it left, and by whoever runs it next.
    stack: Witness,
    wait: Wait,
    queue: ShortLock<WaitQueue>,
    _registry: Registry,
}

// SAFETY: what is shared is atomics, the locked queue, and what the protocol under test hands over.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

fn shared() -> Arc<Shared> {
    let registry = Registry::new();
    let g = registry.take(ptr::null_mut(), &Plain(|_| true));
    let mut wait = Wait::new();
    wait.who = super::waiter::Who::Goroutine(g);
    Arc::new(Shared { g, stack: Witness::new(), wait, queue: ShortLock::new(WaitQueue::new()), _registry: registry })
}

/// The goroutine runs again: whoever dequeued it uses its stack.
fn run_again(shared: &Shared) {
    // SAFETY: the descriptor lives as long as the registry.
    let status = unsafe { (*shared.g).status.load(Ordering::Acquire) };
    assert_eq!(status, status::RUNNABLE);
    shared.stack.touch();
}

/// The waker's part; returns whether it has to run the goroutine.
fn wake(shared: &Shared) -> bool {
    // SAFETY: the descriptor lives as long as the registry.
    status::wake(unsafe { &*shared.g }) == Wake::Enqueue
}

#[test]
fn parker_and_waker_queue_the_goroutine_once_and_its_stack_is_left_by_then() {
    loom::model(|| {
        let shared = shared();
        // SAFETY: the descriptor lives as long as the registry.
        unsafe { (*shared.g).status.store(status::PARKING, Ordering::Release) };
        let other = shared.clone();
        let waker = thread::spawn(move || {
            let mine = wake(&other);
            if mine {
                run_again(&other);
            }
            u32::from(mine)
        });
        shared.stack.touch();
        // SAFETY: as above.
        let queued_by_parker = u32::from(!status::commit_park(unsafe { &*shared.g }));
        if queued_by_parker == 1 {
            run_again(&shared);
        }
        assert_eq!(queued_by_parker + waker.join().expect("no panic"), 1);
    });
}

#[test]
fn wait_ended_by_delivery_timeout_and_cancel_is_claimed_and_readied_once() {
    loom::model(|| {
        let shared = shared();
        let readied = Arc::new(AtomicU32::new(0));
        let mut node = Box::new(Node::new(ptr::from_ref(&shared.wait).cast_mut(), ptr::null_mut()));
        let node_at: *mut Node = &raw mut *node;
        // SAFETY: the node outlives the model's threads; the descriptor lives as long as the registry.
        unsafe {
            (*shared.g).status.store(status::WAITING, Ordering::Release);
            shared.queue.lock().push_back(node_at);
        }
        let threads: Vec<_> = [Outcome::TimedOut, Outcome::Cancelled]
            .into_iter()
            .map(|outcome| {
                let (shared, readied) = (shared.clone(), readied.clone());
                thread::spawn(move || {
                    if shared.wait.claim(outcome) {
                        assert!(wake(&shared));
                        readied.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let delivered = !shared.queue.lock().claim_front(Outcome::Delivered).is_null();
        if delivered {
            assert!(wake(&shared));
            readied.fetch_add(1, Ordering::Relaxed);
        }
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        assert_eq!(readied.load(Ordering::Relaxed), 1);
        assert_eq!(shared.wait.outcome() == Outcome::Delivered, delivered);
        assert_eq!(shared.wait.winner.is_null(), !delivered);
        // SAFETY: the node is live.
        unsafe { shared.queue.lock().remove(node_at) };
        assert!(shared.queue.lock().is_empty());
    });
}

#[test]
fn select_waiting_in_two_queues_is_delivered_by_one() {
    loom::model(|| {
        let shared = shared();
        let second = Arc::new(ShortLock::new(WaitQueue::new()));
        let wait = ptr::from_ref(&shared.wait).cast_mut();
        let mut nodes = [Box::new(Node::new(wait, ptr::null_mut())), Box::new(Node::new(wait, ptr::null_mut()))];
        // SAFETY: the nodes outlive the model's threads; the descriptor lives as long as the registry.
        unsafe {
            (*shared.g).status.store(status::PARKING, Ordering::Release);
            shared.queue.lock().push_back(&raw mut *nodes[0]);
            second.lock().push_back(&raw mut *nodes[1]);
        }
        let (s, q) = (shared.clone(), second.clone());
        let other = thread::spawn(move || {
            let claimed = !q.lock().claim_front(Outcome::Delivered).is_null();
            u32::from(claimed && wake(&s)) << 1 | u32::from(claimed)
        });
        let claimed = !shared.queue.lock().claim_front(Outcome::Closed).is_null();
        let enqueued = claimed && wake(&shared);
        let theirs = other.join().expect("no panic");
        assert_eq!(u32::from(claimed) + (theirs & 1), 1);
        assert!(enqueued || theirs & 2 != 0 || !status::commit_park(unsafe_descriptor(&shared)));
        // SAFETY: the nodes are live, and linked in their queue if anywhere.
        unsafe {
            shared.queue.lock().remove(&raw mut *nodes[0]);
            second.lock().remove(&raw mut *nodes[1]);
        }
    });
}

fn unsafe_descriptor(shared: &Shared) -> &Goroutine {
    // SAFETY: the descriptor lives as long as the registry.
    unsafe { &*shared.g }
}

#[test]
fn registry_hands_each_descriptor_to_one_taker() {
    loom::model(|| {
        let registry = Arc::new(Registry::new());
        let other = registry.clone();
        let thread = thread::spawn(move || other.take(ptr::null_mut(), &Plain(|_| true)).addr());
        let first = registry.take(ptr::null_mut(), &Plain(|_| true));
        let second = thread.join().expect("no panic");
        assert_ne!(first.addr(), second);
        // SAFETY: the descriptor was just taken and is on no queue.
        unsafe { registry.give_back(first) };
        assert_eq!((registry.live(), registry.created()), (1, 2));
    });
}
