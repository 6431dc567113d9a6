//! Slots never overlap, whatever is asked for and given back in whatever order. Faults and limits: tests/stack_guards.rs.

use super::{GuardMode, SLAB_SLOTS, Stack, StackDepot};
use proptest::prelude::*;

const SLOT_BYTES: usize = 64 << 10;

fn write(stack: &Stack, value: usize) {
    for at in [stack.base(), stack.top() - 8] {
        // SAFETY: the two ends of a stack this test owns.
        unsafe { std::ptr::with_exposed_provenance_mut::<usize>(at).write(value) };
    }
}

fn holds(stack: &Stack, value: usize) -> bool {
    [stack.base(), stack.top() - 8]
        .iter()
        // SAFETY: as in `write`.
        .all(|&at| unsafe { std::ptr::with_exposed_provenance::<usize>(at).read() } == value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// `Some(i)` gives back the i-th of those held (modulo their number), `None` asks for one.
    #[test]
    fn stacks_held_at_once_never_overlap(
        steps in prop::collection::vec(prop::option::weighted(0.45, any::<usize>()), 1..400),
        mode in prop::sample::select(vec![GuardMode::Install, GuardMode::Protect, GuardMode::None]),
    ) {
        let mode = if GuardMode::detect() == GuardMode::Protect { GuardMode::Protect } else { mode };
        let depot = StackDepot::new(SLOT_BYTES, mode).expect("a depot");
        let mut held: Vec<(Stack, usize)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Some(i) if !held.is_empty() => {
                    let (stack, value) = held.swap_remove(i % held.len());
                    prop_assert!(holds(&stack, value));
                    if n % 2 == 0 { depot.retire(stack) } else { depot.free(stack) }
                }
                _ => {
                    let stack = depot.allocate().expect("memory");
                    prop_assert!(stack.top().is_multiple_of(16) && stack.size_bytes() >= SLOT_BYTES / 2);
                    for (other, _) in &held {
                        prop_assert!(stack.top() <= other.base() || other.top() <= stack.base());
                    }
                    write(&stack, n + 1);
                    held.push((stack, n + 1));
                }
            }
        }
        prop_assert!(held.iter().all(|(stack, value)| holds(stack, *value)));
    }
}

#[test]
fn freed_stack_is_the_next_one_given() {
    let depot = StackDepot::new(SLOT_BYTES, GuardMode::detect()).expect("a depot");
    let (first, second) = (depot.allocate().expect("memory"), depot.allocate().expect("memory"));
    let base = first.base();
    depot.free(second);
    depot.free(first);
    assert_eq!(depot.allocate().expect("memory").base(), base);
}

#[test]
fn tops_are_spread_over_cache_sets() {
    let depot = StackDepot::new(SLOT_BYTES, GuardMode::detect()).expect("a depot");
    let stacks: Vec<Stack> = (0..SLAB_SLOTS).map(|_| depot.allocate().expect("memory")).collect();
    let mut sets: Vec<usize> = stacks.iter().map(|s| s.top() % 4096).collect();
    sets.sort_unstable();
    sets.dedup();
    assert_eq!(sets.len(), super::COLOURS);
}

#[test]
fn slot_size_that_is_no_power_of_two_or_too_small_is_refused() {
    for bytes in [0, 1, 32 << 10, 96 << 10] {
        assert!(StackDepot::new(bytes, GuardMode::None).is_err(), "{bytes}");
    }
}

#[test]
fn retired_stacks_of_a_batch_read_as_zero_and_leave_those_in_use_alone() {
    let depot = StackDepot::new(SLOT_BYTES, GuardMode::detect()).expect("a depot");
    let stacks: Vec<Stack> = (0..super::RELEASE_BATCH + 40).map(|_| depot.allocate().expect("memory")).collect();
    let (mut kept, mut written) = (Vec::new(), Vec::new());
    for (i, stack) in stacks.into_iter().enumerate() {
        write(&stack, i + 1);
        if i % 14 == 0 {
            kept.push((stack, i + 1));
        } else {
            written.push(stack.base());
            depot.retire(stack);
        }
    }
    // The last batch may not be full; what was retired is given out again, zeroed if its batch was.
    let again: Vec<Stack> = written.iter().map(|_| depot.allocate().expect("memory")).collect();
    assert!(again.iter().filter(|stack| holds(stack, 0)).count() >= super::RELEASE_BATCH);
    assert!(again.iter().all(|stack| kept.iter().all(|(other, _)| stack.base() != other.base())));
    assert!(kept.iter().all(|(stack, value)| holds(stack, *value)));
}

#[test]
fn released_below_keeps_what_is_in_use() {
    let depot = StackDepot::new(SLOT_BYTES, GuardMode::detect()).expect("a depot");
    let stack = depot.allocate().expect("memory");
    write(&stack, 5);
    // SAFETY: this test's; below the top word nothing is needed.
    unsafe { depot.release_below(&stack, stack.top() - 8) };
    let read = |at: usize| {
        // SAFETY: inside the stack.
        unsafe { std::ptr::with_exposed_provenance::<usize>(at).read() }
    };
    assert_eq!((read(stack.base()), read(stack.top() - 8)), (0, 5));
}
