//! Wait queues and the registry against plain lists, and the illegal wake.

use super::registry::Registry;
use super::slab::Plain;
use super::status;
use super::waiter::{Node, Outcome, Wait, WaitQueue, reason_name};
use crate::primitive::atomic::Ordering;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::ptr;

#[derive(Debug, Clone)]
enum Step {
    PushBack(usize),
    PushFront(usize),
    Remove(usize),
    /// Somebody else ends the wait while its node stands in the queue.
    EndElsewhere(usize),
    ClaimFront,
}

const WAITS: usize = 12;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..WAITS).prop_map(Step::PushBack),
        1 => (0..WAITS).prop_map(Step::PushFront),
        2 => (0..WAITS).prop_map(Step::Remove),
        1 => (0..WAITS).prop_map(Step::EndElsewhere),
        3 => Just(Step::ClaimFront),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn wait_queue_does_what_a_plain_list_does(steps in steps()) {
        let mut waits: Vec<Box<Wait>> = (0..WAITS).map(|_| Box::new(Wait::new())).collect();
        let mut nodes: Vec<Box<Node>> =
            waits.iter_mut().map(|w| Box::new(Node::new(&raw mut **w, ptr::null_mut()))).collect();
        let nodes: Vec<*mut Node> = nodes.iter_mut().map(|n| &raw mut **n).collect();
        let (mut queue, mut model, mut ended) = (WaitQueue::new(), VecDeque::new(), [false; WAITS]);
        for step in steps {
            // SAFETY: nodes and waits outlive the queue, one thread uses them, and none is pushed while linked.
            unsafe {
                match step {
                    Step::PushBack(i) if !model.contains(&i) => {
                        queue.push_back(nodes[i]);
                        model.push_back(i);
                    }
                    Step::PushFront(i) if !model.contains(&i) => {
                        queue.push_front(nodes[i]);
                        model.push_front(i);
                    }
                    Step::PushBack(_) | Step::PushFront(_) => {}
                    Step::Remove(i) => {
                        queue.remove(nodes[i]);
                        model.retain(|&j| j != i);
                    }
                    Step::EndElsewhere(i) => {
                        prop_assert_eq!((*(*nodes[i]).wait).claim(Outcome::TimedOut), !ended[i]);
                        ended[i] = true;
                    }
                    Step::ClaimFront => {
                        let got = queue.claim_front(Outcome::Delivered);
                        let first_alive = model.iter().position(|&i| !ended[i]);
                        let expected = first_alive.map(|at| model.drain(..=at).next_back().expect("not empty"));
                        if first_alive.is_none() {
                            model.clear();
                        }
                        match expected {
                            Some(i) => {
                                ended[i] = true;
                                prop_assert_eq!(got, nodes[i]);
                                prop_assert_eq!((*(*got).wait).winner, got);
                                prop_assert_eq!((*(*got).wait).outcome(), Outcome::Delivered);
                            }
                            None => prop_assert!(got.is_null()),
                        }
                    }
                }
            }
            prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
            prop_assert_eq!(queue.front(), model.front().map_or(ptr::null_mut(), |&i| nodes[i]));
        }
    }

    /// `true` takes a descriptor, `false` gives the oldest back.
    #[test]
    fn registry_counts_and_lists_exactly_the_live(steps in prop::collection::vec(any::<bool>(), 1..600)) {
        let registry = Registry::new();
        let (mut live, mut created) = (VecDeque::new(), 0u64);
        for take in steps {
            if take {
                created += 1;
                let g = registry.take(ptr::null_mut(), &Plain(|_| true));
                // SAFETY: a descriptor of this registry.
                prop_assert_eq!(unsafe { (*g).id }, created);
                prop_assert!(!live.contains(&g));
                live.push_back(g);
            } else if let Some(g) = live.pop_front() {
                // SAFETY: taken above, on no queue.
                unsafe { registry.give_back(g) };
            }
        }
        let mut listed = Vec::new();
        registry.for_each(|g| listed.push(g.id));
        listed.sort_unstable();
        // SAFETY: live descriptors of this registry.
        let mut expected: Vec<u64> = live.iter().map(|&g| unsafe { (*g).id }).collect();
        expected.sort_unstable();
        prop_assert_eq!(listed, expected);
        prop_assert_eq!((registry.live(), registry.created()), (live.len() as u64, created));
    }
}

#[test]
fn registry_without_room_gives_none_and_goes_on_when_there_is_some() {
    let registry = Registry::new();
    let asked = std::cell::Cell::new(0);
    let room = Plain(|count: usize| {
        asked.set(count);
        count <= 512
    });
    let taken: Vec<_> = (0..512).map(|_| registry.take(ptr::null_mut(), &room)).collect();
    assert!(taken.iter().all(|g| !g.is_null()));
    assert!(registry.take(ptr::null_mut(), &room).is_null());
    assert_eq!((asked.get(), registry.live()), (768, 512));
    // SAFETY: taken above, on no queue.
    unsafe { registry.give_back(taken[0]) };
    assert_eq!(registry.take(ptr::null_mut(), &room), taken[0]);
    assert!(!registry.take(ptr::null_mut(), &Plain(|_| true)).is_null());
}

#[test]
fn slabs_that_nobody_has_one_of_give_their_memory_back_and_serve_again() {
    let registry = Registry::new();
    let take = || registry.take(ptr::null_mut(), &Plain(|_| true));
    let taken: Vec<_> = (0..20 * 256).map(|_| take()).collect();
    assert!(!registry.is_sparse());
    for &g in &taken[1..] {
        // SAFETY: taken above, on no queue.
        unsafe { registry.give_back(g) };
    }
    assert!(registry.is_sparse());
    let look = |at_once| (0..registry.slab_count()).for_each(|slab| registry.release_if_idle(slab, at_once));
    let written = || {
        let mut count = 0;
        (0..registry.slab_count()).for_each(|slab| assert!(registry.each_of_slab(slab, |_| count += 1)));
        count
    };
    look(false);
    assert_eq!(written(), 20 * 256, "in use a moment ago");
    let again = take();
    look(false);
    // SAFETY: live descriptors of this registry, and one of a slab that was released.
    let slab_of = |g: *mut super::Goroutine| unsafe { (*g).slab };
    assert_eq!(written(), if slab_of(again) == slab_of(taken[0]) { 256 } else { 2 * 256 });
    assert!(!registry.is_sparse());
    let mut listed = 0;
    registry.for_each(|_| listed += 1);
    assert_eq!(listed, 2);
    // SAFETY: memory of a registry stays; nobody has this one.
    assert_eq!(unsafe { (*taken[10 * 256]).status.load(Ordering::Relaxed) }, status::FREE);
    let mut later: Vec<_> = (0..20 * 256).map(|_| take()).collect();
    later.extend([again, taken[0]]);
    later.sort_unstable();
    later.dedup();
    assert_eq!((later.len(), registry.live()), (20 * 256 + 2, 20 * 256 + 2), "each is one goroutine's");
    for g in later {
        // SAFETY: taken above, on no queue.
        unsafe { registry.give_back(g) };
    }
    look(true);
    assert_eq!(written(), 0);
}

#[test]
fn the_survivor_of_a_fork_is_alone_and_its_slab_serves_nobody_else() {
    let registry = Registry::new();
    let take = || registry.take(ptr::null_mut(), &Plain(|_| true));
    let taken: Vec<_> = (0..3).map(|_| take()).collect();
    // SAFETY: taken just now, and there is no other thread that uses the registry.
    unsafe { registry.keep_only(taken[1]) };
    let listed = || {
        let mut listed = Vec::new();
        registry.for_each(|g| listed.push(ptr::from_ref(g).cast_mut()));
        listed
    };
    assert_eq!((listed(), registry.live()), (vec![taken[1]], 1));
    assert!(!taken.contains(&take()), "who knew the others still does");
    // SAFETY: taken above, on no queue.
    unsafe { registry.give_back(taken[1]) };
    assert_eq!((listed().len(), registry.live()), (1, 1));
    assert_eq!(take(), taken[1]);
    assert_eq!((listed().len(), registry.live()), (2, 2));
}

#[test]
#[should_panic(expected = "woken in status")]
fn wake_of_a_running_goroutine_is_told() {
    let registry = Registry::new();
    let g = registry.take(ptr::null_mut(), &Plain(|_| true));
    // SAFETY: the descriptor lives as long as the registry.
    unsafe {
        (*g).status.store(status::RUNNING, Ordering::Relaxed);
        let _ = status::wake(&*g);
    }
}

#[test]
fn reasons_have_gos_words_and_an_unknown_one_none() {
    assert_eq!(reason_name(super::waiter::Reason::ChanReceive as u8), "chan receive");
    assert_eq!(reason_name(super::waiter::Reason::Join as u8), "join");
    assert_eq!((reason_name(0), reason_name(200)), ("", ""));
}
