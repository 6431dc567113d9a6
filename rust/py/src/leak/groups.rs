//! Which of the leaks could touch each other if one of them ran: what its end does concerns those of its group alone.

use super::graph::{ByAddress, Graph};

/// Numbers by place in `reached`, the same for those that lead to a common node that is not marked. `reached` has the nodes each
/// begins with.
///
/// # Safety
/// As for `Graph::follow`, after all marks.
pub(super) unsafe fn groups(graph: &Graph, reached: Vec<Vec<u32>>) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..reached.len()).collect();
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
            first.insert(at as usize, i);
            // SAFETY: the caller's promise.
            unsafe { graph.for_each_led_to(at, &mut |next| pending.push(next)) };
        }
    }
    (0..groups.len()).map(|i| root(&mut groups, i)).collect()
}

/// The least of a group; the way there is halved.
fn root(groups: &mut [usize], mut i: usize) -> usize {
    while groups[i] != i {
        groups[i] = groups[groups[i]];
        i = groups[i];
    }
    i
}
