//! The orders against plain models, quotas by made-up time, and all of it under goroutines of many Ms.

use super::fair::{Fair, WEIGHT};
use super::group::{GroupRef, PERIOD_NS};
use super::mlfq::{self, Mlfq};
use super::nodes::{Heap, List, Node, Nodes};
use super::{Policy, State, join_group, weight_of};
use crate::chan::Chan;
use crate::goroutine::Goroutine;
use crate::goroutine::registry::Registry;
use crate::goroutine::slab::Plain;
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::sched::gosched;
use crate::sched::null_tests::{go, runtime};
use crate::sync::WaitGroup;
use proptest::prelude::*;
use std::sync::Arc;

const SLICE_NS: u64 = 10_000_000;

/// Descriptors to queue.
struct Many(Registry);

impl Many {
    fn new() -> Self {
        let registry = Registry::new();
        assert!(registry.keep_entities(&Plain(|_| true)));
        Self(registry)
    }

    fn one(&self, priority: i8) -> *mut Goroutine {
        let g = self.0.take(std::ptr::null_mut(), &Plain(|_| true));
        // SAFETY: taken just now.
        unsafe { (*Goroutine::entity(g)).priority = priority };
        g
    }
}

fn id(g: *mut Goroutine) -> u64 {
    // SAFETY: descriptors of a live registry.
    unsafe { (*g).id }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A heap and a list of the same nodes against sorted ones.
    #[test]
    fn heaps_give_the_least_and_lists_the_first(steps in prop::collection::vec((0u8..5, 0u64..20), 1..300)) {
        let (many, mut nodes, mut heap, mut list) = (Many::new(), Nodes::new(), Heap::new(), List::new());
        let mut model: Vec<(u64, u64)> = Vec::new();
        let mut row: Vec<(*mut Goroutine, u64)> = Vec::new();
        for (what, key) in steps {
            match what {
                0 | 1 => {
                    let g = many.one(0);
                    heap.push(&mut nodes, Node::of_goroutine(g, key));
                    model.push((key, id(g)));
                }
                2 => {
                    let least = model.iter().copied().min();
                    model.retain(|&entry| Some(entry) != least);
                    prop_assert_eq!(heap.first(&nodes).map(|node| node.key_ns), least.map(|(key, _)| key));
                    prop_assert_eq!(heap.pop(&mut nodes).map(|node| (node.key_ns, id(node.g))), least);
                }
                3 => {
                    let g = many.one(0);
                    list.push(&mut nodes, g, key);
                    row.push((g, key));
                }
                _ if key < 10 && !row.is_empty() => {
                    let (g, key) = row.remove(key as usize % row.len());
                    prop_assert_eq!(list.take(&mut nodes, g).map(|node| node.key_ns), Some(key));
                    prop_assert!(list.take(&mut nodes, g).is_none());
                }
                _ => {
                    let first = if row.is_empty() { None } else { Some(row.remove(0)) };
                    prop_assert_eq!(list.front(&nodes).map(|node| (node.g, node.key_ns)), first);
                    prop_assert_eq!(list.pop(&mut nodes).map(|node| (node.g, node.key_ns)), first);
                }
            }
            prop_assert_eq!((heap.len(), list.len()), (model.len(), row.len()));
        }
    }

    /// Between boosts and turns: by level, and in each level first come first served.
    #[test]
    fn mlfq_takes_the_first_of_the_highest_level(steps in prop::collection::vec((any::<bool>(), -20i8..=20, 0u8..=7), 1..200)) {
        let (many, mut nodes) = (Many::new(), Nodes::new());
        let mut queue = Mlfq::new(SLICE_NS);
        let now = 1;
        // SAFETY: descriptors of this test, each queued once; the first pop is the first boost and turn.
        unsafe {
            prop_assert!(queue.pop(&mut nodes, now).is_none());
            let mut model: Vec<(usize, u64)> = Vec::new();
            for (is_push, priority, sunk) in steps {
                if is_push {
                    let g = many.one(priority);
                    (*Goroutine::entity(g)).boost = 1;
                    (*Goroutine::entity(g)).sunk = sunk;
                    queue.push(&mut nodes, g, now);
                    model.push((mlfq::level(&*Goroutine::entity(g)), id(g)));
                } else {
                    let first = model.iter().copied().min();
                    model.retain(|&entry| Some(entry) != first);
                    prop_assert_eq!(queue.pop(&mut nodes, now).map(id), first.map(|(_, id)| id));
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            let mut rest: Vec<u64> = std::iter::from_fn(|| queue.take_one(&mut nodes)).map(id).collect();
            model.sort_unstable_by_key(|&(_, id)| id);
            rest.sort_unstable();
            prop_assert_eq!(rest, model.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
        }
    }

    /// What was queued comes out once, whoever was throttled meanwhile, and never one that is.
    #[test]
    fn fair_loses_nobody(steps in prop::collection::vec((0u8..6, 0usize..4, 1u64..30_000_000), 1..200)) {
        let rt = runtime(1);
        let groups: Vec<GroupRef> = (0..3).map(|i| rt.new_group(100 * (i + 1), 0).expect("memory")).collect();
        let (many, mut nodes) = (Many::new(), Nodes::new());
        let mut fair = Fair::new(SLICE_NS);
        let mut queued: Vec<u64> = Vec::new();
        let mut running: Vec<*mut Goroutine> = Vec::new();
        let in_group = |g: *mut Goroutine, group: &GroupRef| {
            // SAFETY: a descriptor of this test.
            std::ptr::eq(unsafe { (*Goroutine::entity(g)).group }.cast(), GroupRef::as_ptr(group))
        };
        // SAFETY: one thread, and goroutines of this test.
        unsafe {
            for (what, which, ns) in steps {
                match what {
                    0 | 1 => {
                        let g = many.one(which as i8);
                        if let Some(group) = groups.get(which) {
                            join_group(g, GroupRef::as_ptr(group));
                        }
                        fair.push(&mut nodes, g, false);
                        queued.push(id(g));
                    }
                    2 | 3 => {
                        if let Some(g) = fair.pop(&mut nodes) {
                            prop_assert!(queued.contains(&id(g)));
                            prop_assert!(!groups.iter().any(|group| in_group(g, group) && group.state().is_throttled));
                            queued.retain(|&other| other != id(g));
                            running.push(g);
                        }
                    }
                    4 => {
                        if let Some(g) = running.pop() {
                            fair.charge(&nodes, &mut *Goroutine::entity(g), ns);
                            fair.push(&mut nodes, g, false);
                            queued.push(id(g));
                        }
                    }
                    _ => {
                        if let Some(group) = groups.get(which) {
                            let was = std::mem::replace(&mut group.state().is_throttled, true);
                            if was {
                                group.state().is_throttled = false;
                                fair.enter(&mut nodes, GroupRef::as_ptr(group));
                            }
                        }
                    }
                }
            }
            for group in &groups {
                group.state().is_throttled = false;
                fair.enter(&mut nodes, GroupRef::as_ptr(group));
            }
            prop_assert_eq!(fair.len(), queued.len());
            let mut rest = Vec::new();
            while let Some(g) = fair.pop(&mut nodes) {
                rest.push(id(g));
            }
            rest.sort_unstable();
            queued.sort_unstable();
            prop_assert_eq!(rest, queued);
            prop_assert_eq!(fair.len(), 0);
        }
    }

    /// However it is used, a group gets no more than its quota but for the last use, and is let on as soon as there is time.
    #[test]
    fn a_quota_holds_in_the_long_run(quota_ns in 100_000u64..200_000_000, uses in prop::collection::vec((1u64..20_000_000, 0u64..50_000_000), 1..300)) {
        let rt = runtime(1);
        let group = rt.new_group(100, quota_ns).expect("memory");
        // SAFETY: one thread.
        let state = unsafe { group.state() };
        let begun = crate::sys::clock::now_ns();
        let (mut now, mut used, mut most) = (begun, 0u64, 0u64);
        for (use_ns, pause_ns) in uses {
            now += use_ns;
            used += use_ns;
            most = most.max(use_ns);
            if let Some(at_ns) = state.charge(use_ns, now) {
                prop_assert!(state.is_throttled && at_ns > now);
                prop_assert!(at_ns == 1 || state.end_throttling(at_ns - PERIOD_NS).is_err());
                now = at_ns;
                prop_assert!(state.end_throttling(now).is_ok(), "no time at the time it named");
            }
            let periods = (now - begun) / PERIOD_NS + 2;
            prop_assert!(used <= periods * quota_ns + most, "{used} of {periods} periods of {quota_ns}");
            now += pause_ns;
        }
        prop_assert_eq!(state.account.run_ns, used);
    }
}

#[test]
fn weights_grow_by_a_quarter_with_each_step() {
    assert_eq!(weight_of(0), WEIGHT);
    for priority in -19..=20i8 {
        let ratio = weight_of(priority) as f64 / weight_of(priority - 1) as f64;
        assert!((ratio - 1.25).abs() < 0.02, "{priority}: {ratio}");
    }
}

#[test]
fn mlfq_lets_hogs_sink_and_waiters_rise() {
    let queue = Mlfq::new(SLICE_NS);
    let many = Many::new();
    // SAFETY: this test's.
    let entity = unsafe { &mut *Goroutine::entity(many.one(0)) };
    for slices in 1..20u8 {
        queue.charge(entity, SLICE_NS, false);
        assert_eq!(entity.sunk, slices.min(7));
    }
    queue.charge(entity, SLICE_NS / 2, true);
    queue.charge(entity, SLICE_NS / 2, true); // who parks shortly before the end of each slice sinks as well
    assert_eq!(entity.sunk, 7);
    for left in (0..7).rev() {
        queue.charge(entity, 1000, true);
        assert_eq!(entity.sunk, left);
    }
}

#[test]
fn mlfq_boosts_and_gives_a_turn_to_who_waits_longest() {
    let (many, mut nodes) = (Many::new(), Nodes::new());
    let mut queue = Mlfq::new(SLICE_NS);
    let ms = 1_000_000;
    // SAFETY: descriptors of this test, each queued once at a time.
    unsafe {
        assert!(queue.pop(&mut nodes, 0).is_none());
        let (low, high) = (many.one(-20), many.one(20));
        queue.push(&mut nodes, low, 0);
        let mut turns = 0;
        for now in (1..1000).map(|i| i * ms) {
            queue.push(&mut nodes, high, now);
            let first = queue.pop(&mut nodes, now).expect("two are queued");
            if std::ptr::eq(first, low) {
                assert!(std::mem::take(&mut (*Goroutine::entity(low)).is_on_turn));
                turns += 1;
                queue.push(&mut nodes, low, now);
                assert!(std::ptr::eq(queue.pop(&mut nodes, now).expect("one more"), high));
            }
        }
        assert!((8..=11).contains(&turns), "{turns} turns in a second");
        (*Goroutine::entity(low)).sunk = 7;
        while queue.take_one(&mut nodes).is_some() {}
        queue.push(&mut nodes, low, 0);
        queue.push(&mut nodes, many.one(-20), 1);
        assert!(queue.pop(&mut nodes, 2_000 * ms).is_some(), "boosts first");
        queue.push(&mut nodes, low, 2_001 * ms);
        assert_eq!((*Goroutine::entity(low)).sunk, 0);
    }
}

/// Runs `fair` for `rounds` slices; what each of `all` got.
fn shares(fair: &mut Fair, nodes: &mut Nodes, all: &[*mut Goroutine], rounds: usize) -> Vec<u64> {
    let mut got = vec![0; all.len()];
    // SAFETY: descriptors of the test.
    unsafe {
        all.iter().for_each(|&g| fair.push(nodes, g, false));
        for _ in 0..rounds {
            let g = fair.pop(nodes).expect("all are ready");
            (*Goroutine::entity(g)).measure().expect("memory").runs += 1;
            fair.charge(nodes, &mut *Goroutine::entity(g), SLICE_NS);
            got[all.iter().position(|&other| std::ptr::eq(other, g)).expect("one of them")] += 1;
            fair.push(nodes, g, false);
        }
    }
    got
}

#[test]
fn fair_shares_by_weight_among_goroutines_and_among_groups() {
    let (rt, many) = (runtime(1), Many::new());
    let got = shares(&mut Fair::new(SLICE_NS), &mut Nodes::new(), &[many.one(0), many.one(5), many.one(-5)], 10_000);
    for (got, weight) in got.iter().zip([100.0, 305.0, 32.0]) {
        let expected = 10_000.0 * weight / 437.0;
        assert!((*got as f64 / expected - 1.0).abs() < 0.05, "{got} for {expected}");
    }
    let (few, other) = (rt.new_group(300, 0).expect("memory"), rt.new_group(100, 0).expect("memory"));
    let all: Vec<_> = (0..6).map(|_| many.one(0)).collect();
    // SAFETY: new ones.
    unsafe {
        join_group(all[0], GroupRef::as_ptr(&few));
        all[1..5].iter().for_each(|&g| join_group(g, GroupRef::as_ptr(&other)));
    }
    let got = shares(&mut Fair::new(SLICE_NS), &mut Nodes::new(), &all, 10_000);
    let by_group = [got[0], got[1..5].iter().sum(), got[5]];
    for (got, expected) in by_group.iter().zip([6_000.0, 2_000.0, 2_000.0]) {
        assert!((*got as f64 / expected - 1.0).abs() < 0.05, "{by_group:?}");
    }
    assert!(got[1..5].iter().all(|&one| one.abs_diff(500) < 30), "{got:?}");
}

#[test]
fn one_that_slept_goes_before_those_who_computed_but_not_for_long() {
    let (many, mut nodes) = (Many::new(), Nodes::new());
    let mut fair = Fair::new(SLICE_NS);
    let (hog, sleeper) = (many.one(0), many.one(0));
    shares(&mut fair, &mut nodes, &[hog], 100);
    // SAFETY: this test's.
    unsafe {
        (*Goroutine::entity(sleeper)).measure().expect("memory").runs = 1;
        assert!(fair.outranks(&*Goroutine::entity(sleeper), &*Goroutine::entity(hog), 0));
        fair.push(&mut nodes, sleeper, false);
        assert!(std::ptr::eq(fair.pop(&mut nodes).expect("two"), sleeper));
        fair.charge(&nodes, &mut *Goroutine::entity(sleeper), 3 * SLICE_NS);
        fair.push(&mut nodes, sleeper, false);
        assert!(std::ptr::eq(fair.pop(&mut nodes).expect("two"), hog), "a credit of one slice, however long it slept");
    }
}

/// It was not in the queue while another one ran: its M waited for the host's lock, and lost its P.
#[test]
fn one_that_was_preempted_keeps_what_it_is_behind() {
    let (many, mut nodes) = (Many::new(), Nodes::new());
    let mut fair = Fair::new(SLICE_NS);
    let (hog, other) = (many.one(0), many.one(0));
    shares(&mut fair, &mut nodes, &[hog], 10);
    // SAFETY: this test's.
    unsafe {
        (*Goroutine::entity(other)).measure().expect("memory").runs = 1;
        let mut turns = 0;
        fair.push(&mut nodes, other, true);
        while std::ptr::eq(fair.pop(&mut nodes).expect("two"), other) {
            fair.charge(&nodes, &mut *Goroutine::entity(other), SLICE_NS);
            fair.push(&mut nodes, other, true);
            turns += 1;
        }
        assert_eq!(turns, 10, "as many as the hog had had");
    }
}

#[test]
fn work_goes_on_while_policies_and_quotas_change() {
    let rt = runtime(4);
    let (group, sum) = (Arc::new(WaitGroup::new()), Arc::new(AtomicU64::new(0)));
    let few = rt.new_group(50, 50_000_000).expect("memory");
    let chan = Arc::new(Chan::<u64>::new(1));
    let (pairs, each) = (8u64, 2_000u64);
    for pair in 0..pairs {
        let (to, from, sum) = (chan.clone(), chan.clone(), sum.clone());
        group.add(2).expect("adds");
        let (mine, others) = (group.clone(), group.clone());
        go(rt, move || {
            for i in 0..each {
                to.send(rt, i, None).expect("open");
            }
            mine.done_for_test();
        });
        let body: Box<dyn FnOnce() + Send> = Box::new(move || {
            for i in 0..each {
                sum.fetch_add(from.recv(rt, None).expect("open"), Ordering::Relaxed);
                if i % 50 == 0 {
                    gosched();
                }
            }
            others.done_for_test();
        });
        let few = if pair % 2 == 0 { GroupRef::as_ptr(&few) } else { std::ptr::null() };
        rt.spawn(Box::into_raw(Box::new(body)).cast(), |g| {
            // SAFETY: new, and the group is alive.
            unsafe {
                (*Goroutine::entity(g)).priority = pair as i8;
                join_group(g, few);
            }
        });
    }
    for turn in 0..600 {
        rt.set_policy([Policy::Mlfq, Policy::Fair, Policy::Fifo][turn % 3]);
        rt.set_group(&few, 1 + turn as u32, [0, 1_000_000, 80_000_000][turn % 3]);
        std::thread::yield_now();
    }
    rt.set_group(&few, 100, 0);
    let _ = group.wait(rt, None);
    assert_eq!(sum.load(Ordering::Relaxed), pairs * each * (each - 1) / 2);
    assert!(rt.group_account(&few).run_ns > 0);
    drop(few);
    rt.set_policy(Policy::Fifo);
    assert!(rt.policies.is_empty());
}

#[test]
fn the_state_says_what_it_holds() {
    let rt = runtime(1);
    let many = Many::new();
    let mut state: State = State::new(SLICE_NS);
    // SAFETY: this test's.
    unsafe {
        let (first, second, reserved) = (many.one(0), many.one(0), many.one(0));
        (*Goroutine::entity(reserved)).is_reserved = true;
        let slow = rt.new_group(100, 1).expect("memory");
        join_group(second, GroupRef::as_ptr(&slow));
        slow.state().is_throttled = true;
        for g in [second, first, reserved] {
            state.add(g, 5, false);
        }
        assert_eq!(state.len(), 3);
        assert!(std::ptr::eq(state.next(6), reserved));
        assert!(std::ptr::eq(state.next(6), first));
        assert!(state.next(6).is_null());
        assert_eq!((state.len(), slow.state().aside.len()), (0, 1));
        assert!(slow.state().aside.pop(&mut state.nodes).is_some());
    }
}

#[test]
fn who_has_room_is_queued_under_every_policy_without_asking_for_memory() {
    const COUNT: usize = 1_000;
    let (rt, many) = (runtime(1), Many::new());
    let groups: Vec<_> = (0..3).map(|_| rt.new_group(100, 0).expect("memory")).collect();
    let mut state = State::new(SLICE_NS);
    state.groups = groups.iter().map(GroupRef::as_ptr).collect();
    assert!(state.make_room(COUNT, groups.len()));
    let room = state.nodes.room();
    let all: Vec<_> = (0..COUNT).map(|i| many.one((i % 41) as i8 - 20)).collect();
    // SAFETY: this test's, each queued once at a time.
    unsafe {
        for (i, &g) in all.iter().enumerate() {
            (*Goroutine::entity(g)).is_reserved = i % 7 == 0;
            join_group(g, groups.get(i % 5).map_or(std::ptr::null(), GroupRef::as_ptr));
        }
        groups[0].state().is_throttled = true;
        for policy in [Policy::Mlfq, Policy::Fair, Policy::Fifo, Policy::Fair, Policy::Mlfq] {
            let mut before = state.take_ordered();
            while before.pop(&mut state.nodes).is_some() {}
            state.policy = policy;
            state.begin_order();
            all.iter().enumerate().for_each(|(i, &g)| state.add(g, i as u64 + 1, i % 3 == 0));
            let mut came = 0;
            for now in 1_000_000_000.. {
                came += usize::from(!state.next(now).is_null());
                if state.len() == 0 {
                    break;
                }
            }
            while groups[0].state().aside.pop(&mut state.nodes).is_some() {
                came += 1;
            }
            let waiting = if policy == Policy::Fair { groups[0].state().tree.len() } else { 0 };
            assert_eq!(came + waiting, COUNT, "{policy:?}");
            assert_eq!(state.nodes.room(), room, "{policy:?}");
        }
        state.take_ordered();
    }
}
