//! Numbers about goroutines that nobody keeps while they run: counted when asked for.

use crate::goroutine::status;
use crate::primitive::atomic::Ordering;
use crate::sched::Runtime;
use crate::sched::machine::Machine;

/// How many goroutines do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// In a queue.
    pub runnable: u64,
    /// On an M with a P.
    pub running: u64,
    /// Parked.
    pub waiting: u64,
    /// In a call that lasts, whose M has lost its P.
    pub outside: u64,
}

/// Looks at each goroutine. Host attached, by the one that is running.
pub fn census(rt: &Runtime) -> Census {
    let here = crate::sched::current_goroutine();
    let mut census = Census::default();
    rt.registry.for_each(|g| {
        let m = g.owner().cast::<Machine>();
        let place = match g.status.load(Ordering::Relaxed) {
            status::RUNNABLE => &mut census.runnable,
            // SAFETY: null or an M, which is never freed.
            status::RUNNING if std::ptr::eq(g, here) || m.is_null() || !unsafe { (*m).p() }.is_null() => {
                &mut census.running
            }
            status::RUNNING => &mut census.outside,
            _ => &mut census.waiting,
        };
        *place += 1;
    });
    census
}
