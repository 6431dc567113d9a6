//! Time as records have it, in ns: what lies between two looks at both clocks lies there in proportion.

use crate::event::Session;
use crate::sys::clock;

/// Looks of which one is taken.
const LOOKS: u32 = 4;

/// The same moment by both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) time: u64,
    pub(super) ns: u64,
}

impl Moment {
    /// This one.
    pub(super) fn now(session: &Session) -> Self {
        if !session.ticks {
            let ns = clock::now_ns();
            return Self { time: ns, ns };
        }
        // The closest of some looks: the thread may be made to wait between the two clocks.
        let looks = (0..LOOKS).map(|_| {
            let (before, ns, after) = (clock::ticks(), clock::now_ns(), clock::ticks());
            (after.saturating_sub(before), Self { time: before + after.saturating_sub(before) / 2, ns })
        });
        looks.min_by_key(|look| look.0).map_or(Self::default(), |look| look.1)
    }
}

/// The last two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clocks {
    before: Moment,
    last: Moment,
    /// Ns of a unit of time between the two, in units of 2^-32.
    rate: u64,
}

impl Clocks {
    /// A first look.
    pub(super) fn new(first: Moment) -> Self {
        Self { before: first, last: first, rate: 1 << 32 }
    }

    /// Another look, before records are read that were written until now.
    pub(super) fn look(&mut self, now: Moment) {
        if now.time > self.last.time {
            (self.before, self.last) = (self.last, now);
            let (time, ns) = (now.time - self.before.time, now.ns.saturating_sub(self.before.ns));
            self.rate = (u128::from(ns) << 32).checked_div(time.into()).unwrap_or(0) as u64;
        }
    }

    /// When it was, ns. What was written after the last look is told at the same rate.
    #[inline]
    pub(super) fn ns(&self, time: u64) -> u64 {
        let since = time.saturating_sub(self.before.time);
        self.before.ns + ((u128::from(since) * u128::from(self.rate)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_in_proportion_and_what_comes_after_goes_on() {
        let at = |time, ns| Moment { time, ns };
        let mut clocks = Clocks::new(at(1000, 50));
        assert_eq!(clocks.ns(1000), 50);
        clocks.look(at(5000, 2050));
        assert_eq!([900, 1000, 3000, 5000, 5400].map(|t| clocks.ns(t)), [50, 50, 1050, 2050, 2250]);
        clocks.look(at(9000, 4050));
        assert_eq!([5000, 5001, 9000].map(|t| clocks.ns(t)), [2050, 2050, 4050]);
        clocks.look(at(9000, 4060));
        assert_eq!(clocks.ns(9000), 4050, "no time has passed");
    }
}
