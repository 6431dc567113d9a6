//! Which of the leaks could touch each other if one of them ran: what its end does concerns those of its group alone.

use super::graph::{ByAddress, Graph};
use gort_core::primitive::tries::{try_list, try_push};

/// Numbers by place in `reached`, the same for those that lead to a common node that is not marked. `reached` has the nodes each
/// begins with. `None`: memory is refused.
///
/// # Safety
/// As for `Graph::follow`, after all marks.
pub(super) unsafe fn groups(graph: &Graph, reached: Vec<Vec<u32>>) -> Option<Vec<usize>> {
    let mut groups = try_list(0..reached.len())?;
    let mut first: ByAddress<usize> = ByAddress::default();
    for (i, mut pending) in reached.into_iter().enumerate() {
        while let Some(at) = pending.pop() {
            if graph.nodes[at as usize].is_marked {
                continue; // whoever may run has that anyway
            }
            if let Some(&other) = first.get(&(at as usize)) {
                let (a, b) = (root(&mut groups, i), root(&mut groups, other));
                groups[a.max(b)] = a.min(b);
                continue;
            }
            first.try_reserve(1).ok()?;
            first.insert(at as usize, i);
            let mut is_whole = true;
            // SAFETY: the caller's promise.
            unsafe { graph.for_each_led_to(at, &mut |next| is_whole &= try_push(&mut pending, next).is_some()) };
            is_whole.then_some(())?;
        }
    }
    try_list((0..groups.len()).map(|i| root(&mut groups, i)))
}

/// The least of a group; the way there is halved.
fn root(groups: &mut [usize], mut i: usize) -> usize {
    while groups[i] != i {
        groups[i] = groups[groups[i]];
        i = groups[i];
    }
    i
}
