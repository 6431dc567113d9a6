//! Giving unused pages back to the system: an explicit step, a little at a time, at a rate that is bounded.
//!
//! Whoever calls it (a background thread, later) says what time it is and how much at most. The longest free runs go
//! first, of those the ones that are free for longest. A piece leaves the free pages while the system call runs,
//! without the page heap's lock, so that nobody waits for the kernel. `Pacer` is a token bucket that holds one second's
//! worth.

use super::heap::Heap;
use super::span::{PAGE_BYTES, PAGE_SHIFT};
use crate::sys::memory;

/// Given back with one system call at most: some tens of microseconds.
const PIECE_BYTES: usize = 1 << 20;
const NS_PER_S: u128 = 1_000_000_000;

/// How much may be given back now.
pub(super) struct Pacer {
    bytes_per_s: u64,
    tokens: u64,
    last_ns: Option<u64>,
}

impl Pacer {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, tokens: 0, last_ns: None }
    }

    /// Bytes that may be given back at `now_ns`.
    fn allowed(&mut self, now_ns: u64) -> u64 {
        let earned = match self.last_ns {
            None => self.bytes_per_s,
            Some(last) => {
                let ns = u128::from(now_ns.saturating_sub(last));
                (ns * u128::from(self.bytes_per_s) / NS_PER_S).min(u128::from(self.bytes_per_s)) as u64
            }
        };
        // Time that earned less than a byte still counts: the clock then stays where it is.
        if earned != 0 || self.last_ns.is_none() {
            self.last_ns = Some(self.last_ns.unwrap_or(0).max(now_ns));
            self.tokens = self.tokens.saturating_add(earned).min(self.bytes_per_s);
        }
        self.tokens
    }
}

impl Heap {
    /// Gives unused memory back to the system: at most `max_bytes`, and not more than the configured rate allows at
    /// `now_ns`, a monotonic time. First settles what threads without a cache freed and what central lists kept unused.
    /// Returns bytes given back, whole pages. Blocks for the system calls; any thread, with or without the host's lock.
    pub fn release(&self, max_bytes: usize, now_ns: u64) -> usize {
        let mut pacer = self.pacer.lock().unwrap_or_else(|e| e.into_inner());
        self.tidy();
        let most = max_bytes.min(usize::try_from(pacer.allowed(now_ns)).unwrap_or(usize::MAX));
        let released = self.release_pages(most);
        pacer.tokens -= released as u64;
        released
    }

    /// Gives all unused memory back to the system at once. Otherwise as `release`.
    pub fn release_all(&self) -> usize {
        let _pacer = self.pacer.lock().unwrap_or_else(|e| e.into_inner());
        self.tidy();
        self.tidy(); // the first call only notes what is not used
        self.release_pages(usize::MAX)
    }

    fn release_pages(&self, most: usize) -> usize {
        // A page of the system that is larger than ours holds others of ours as well.
        if memory::page_bytes() > PAGE_BYTES {
            return 0;
        }
        let mut released = 0;
        while most - released >= PAGE_BYTES {
            let pages = (most - released).min(PIECE_BYTES) >> PAGE_SHIFT;
            let Some(span) = self.pages.lock_counted().take_resident(pages) else { break };
            // SAFETY: free pages that are in no bin: nobody's but this loop's.
            unsafe { memory::release_pages(span.start.get(), span.bytes()) };
            released += span.bytes();
            self.pages.lock_counted().give_released(span);
        }
        released
    }

    /// Settles what threads without a cache freed, and gives spans what central lists had unused since the last call.
    /// Part of `release`.
    pub fn tidy(&self) {
        self.centrals().for_each(|(_, central)| central.tidy());
    }

    /// In debug mode, ends the waiting of all freed objects; what was written meanwhile is reported. Else nothing.
    pub fn end_quarantine(&self) {
        if let Some(debug) = &self.debug {
            debug.drain(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pacer_gives_a_second_at_first_and_then_what_time_earns() {
        let mut pacer = Pacer::new(1000);
        assert_eq!(pacer.allowed(5), 1000);
        pacer.tokens = 0;
        assert_eq!(pacer.allowed(5 + 500_000), 0);
        assert_eq!(pacer.allowed(5 + 1_000_000), 1, "half a byte was not forgotten");
        assert_eq!(pacer.allowed(0), 1, "time that goes back earns nothing");
        assert_eq!(pacer.allowed(u64::MAX), 1000, "and never more than a second's worth");
    }
}
