//! The seeded mode: whoever is ready may be next, as the seed says. The same seed gives the same order again as long as
//! goroutines wait only for each other; another seed shows a program another one. For tests of programs, on one P.
//!
//! It costs the other mode nothing: a request that nobody takes back keeps Ms off the short way, and `search` picks here.

use super::machine::Machine;
use super::processor::Processor;
use crate::goroutine::Goroutine;
use std::ptr;

impl Machine {
    /// What `quick` does, in another order: mail and due timers first, then anybody. Null when nobody is ready.
    ///
    /// # Safety
    /// On g0, host attached; this M owns `p`.
    pub(super) unsafe fn pick(&mut self, p: &Processor) -> *mut Goroutine {
        // SAFETY: the caller's promise.
        unsafe {
            let g = self.take_due_in_turn(p);
            if !g.is_null() {
                return g;
            }
            // What overflowed is in the global queue, half of the ring at a time: its first stands for all of it.
            let (here, shared) = (p.queue.len(), self.rt.inject.len());
            if here + shared == 0 {
                return ptr::null_mut();
            }
            let chosen = if here + shared == 1 { 0 } else { self.rt.random() as usize % (here + shared) };
            if chosen >= here
                && let Some(g) = self.pop_global()
            {
                return g;
            }
            self.turn_to(p, chosen)
        }
    }

    /// Takes the one that stands at `place`, counted from the next slot; those before it go behind the others.
    ///
    /// # Safety
    /// As for `pick`.
    unsafe fn turn_to(&self, p: &Processor, place: usize) -> *mut Goroutine {
        let mut taken = p.queue.pop();
        for _ in 0..place {
            if let Some((g, _)) = taken {
                // SAFETY: this M owns `p`, and `g` came from its queue.
                unsafe { self.rt.push_back(p, g) };
            }
            taken = p.queue.pop();
        }
        taken.map_or(ptr::null_mut(), |(g, _)| g)
    }
}
