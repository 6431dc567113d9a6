//! A test-and-test-and-set spin lock that yields the CPU after a while: critical sections are tens of nanoseconds, and a
//! preempted holder is the only reason to wait longer.

use super::Witness;
use super::atomic::{AtomicU32, Ordering};

/// Turns between two yields of the CPU: about a microsecond of pauses, several critical sections.
const SPINS: u32 = 64;

pub(super) struct SpinLock {
    held: AtomicU32,
    witness: Witness,
}

impl SpinLock {
    pub(super) fn new() -> Self {
        Self { held: AtomicU32::new(0), witness: Witness::new() }
    }

    #[inline]
    pub(super) fn acquire(&self) {
        let mut spins = 0u32;
        // Acquire: pairs with the Release in `release`.
        while self.held.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // Relaxed: only when to try again.
            while self.held.load(Ordering::Relaxed) != 0 {
                spins += 1;
                if spins.is_multiple_of(SPINS) {
                    super::thread::yield_now();
                } else {
                    super::spin_hint();
                }
            }
        }
        self.witness.touch();
    }

    #[inline]
    pub(super) fn release(&self) {
        self.witness.touch();
        // Release: pairs with the Acquire in `acquire`.
        self.held.store(0, Ordering::Release);
    }
}
