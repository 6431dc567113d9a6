//! Half-stealing from a random victim, as Go's stealWork (proc.go): four rounds, the next slot only in the last.

use super::machine::Machine;
use super::processor::Processor;
use crate::goroutine::Goroutine;
use crate::primitive::atomic::Ordering;
use std::ptr;

/// Rounds over all Ps before giving up (Go's stealTries).
const ROUNDS: usize = 4;

impl Machine {
    /// A goroutine stolen from another P, or null.
    ///
    /// # Safety
    /// On g0; `p` is this M's.
    pub(super) unsafe fn steal(&mut self, p: &Processor) -> *mut Goroutine {
        let rt = self.rt;
        let count = rt.processors.len();
        if count == 1 {
            return ptr::null_mut();
        }
        if !self.spinning {
            // At most half of the busy Ps' worth of Ms look about: beyond that they only disturb each other. Under a
            // host's lock only its holder looks, and those that wait for it count as looking: it must not give up.
            let count = rt.processors.in_use();
            let busy = count - rt.idle_processors.load(Ordering::Relaxed).min(count);
            if !rt.host.exclusive && 2 * rt.spinning.load(Ordering::Relaxed) as usize >= busy {
                return ptr::null_mut();
            }
            self.spinning = true;
            rt.counters.spins.fetch_add(1, Ordering::Relaxed);
            rt.spinning.fetch_add(1, Ordering::SeqCst); // pairs with the load in `Runtime::wake_one`
        }
        for round in 0..ROUNDS {
            let start = rt.random() as usize % count;
            for i in 0..count {
                let victim = &rt.processors[(start + i) % count];
                if victim.id == p.id {
                    continue;
                }
                // SAFETY: timers of another P may be run by any M; the heap has its lock.
                unsafe {
                    if round == ROUNDS - 1 {
                        rt.run_timers(victim);
                        if let Some((g, _)) = p.queue.pop() {
                            return g;
                        }
                    }
                }
                if let Some(g) = victim.queue.steal_into(&p.queue, round == ROUNDS - 1) {
                    rt.counters.steals.fetch_add(1, Ordering::Relaxed);
                    return g;
                }
            }
        }
        ptr::null_mut()
    }
}
