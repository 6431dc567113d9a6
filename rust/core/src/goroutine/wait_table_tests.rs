//! The table against plain lists, over more waiters than its first array is for.

use super::wait_table::WaitTable;
use super::waiter::{Node, Outcome, Wait};
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::ptr;

struct Waiter {
    node: Box<Node>,
    wait: Box<Wait>,
}

fn waiter(address: u64) -> Waiter {
    let mut wait = Box::new(Wait::new());
    let mut node = Box::new(Node::new(&raw mut *wait, ptr::null_mut()));
    node.amount = address;
    Waiter { node, wait }
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u64),
    /// Whoever entered so long ago.
    Leave(usize),
    Claim(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..8_000_u64).prop_map(|n| Step::Enter(n * 16)),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Leave(i.index(1 << 20))),
        2 => (0..8_000_u64).prop_map(|n| Step::Claim(n * 16)),
    ];
    prop::collection::vec(step, 2_000..12_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn table_does_what_a_map_of_lists_does(steps in steps()) {
        let table = WaitTable::new();
        let mut standing: Vec<Waiter> = Vec::new();
        let mut model: HashMap<u64, VecDeque<*const Node>> = HashMap::new();
        for step in steps {
            match step {
                Step::Enter(address) => {
                    let mut new = waiter(address);
                    // SAFETY: boxed, and alive until it leaves.
                    let entered = unsafe { table.enter(&raw mut *new.node) };
                    prop_assert!(entered);
                    model.entry(address).or_default().push_back(&raw const *new.node);
                    standing.push(new);
                }
                Step::Leave(index) if !standing.is_empty() => {
                    let mut gone = standing.swap_remove(index % standing.len());
                    // SAFETY: it entered.
                    unsafe { table.leave(&raw mut *gone.node) };
                    let node = &raw const *gone.node;
                    model.entry(gone.node.amount).or_default().retain(|other| *other != node);
                }
                Step::Leave(_) => {}
                Step::Claim(address) => {
                    let node = table.claim(address, Outcome::Delivered);
                    let expected = model.entry(address).or_default().pop_front();
                    prop_assert_eq!(node.cast_const(), expected.unwrap_or(ptr::null()));
                }
            }
        }
        for (address, nodes) in &model {
            prop_assert!(nodes.is_empty() || table.is_used(*address));
        }
        for mut waiter in standing {
            let address = waiter.node.amount;
            let waits = model[&address].contains(&(&raw const *waiter.node));
            prop_assert_eq!(waiter.wait.outcome(), if waits { Outcome::Pending } else { Outcome::Delivered });
            // SAFETY: it entered.
            unsafe { table.leave(&raw mut *waiter.node) };
        }
        prop_assert!(model.keys().all(|address| !table.is_used(*address)));
    }
}

#[test]
fn nobody_stands_in_a_forked_child() {
    let table = WaitTable::new();
    let mut one = waiter(64);
    // SAFETY: boxed, and alive to the end.
    assert!(unsafe { table.enter(&raw mut *one.node) });
    table.forget();
    assert!(!table.is_used(64));
    assert!(table.claim(64, Outcome::Delivered).is_null());
    let mut two = waiter(64);
    // SAFETY: as above.
    assert!(unsafe { table.enter(&raw mut *two.node) });
    assert!(ptr::eq(table.claim(64, Outcome::Delivered), &raw const *two.node));
}
