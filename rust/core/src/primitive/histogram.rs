//! A histogram of times, with the buckets of Go's (runtime/histogram.go): each power of two from 512 ns on is cut in four, and
//! what is shorter in steps of 64 ns. 1.3 KiB, exact to a quarter, and as cheap to add to as one count.

use std::sync::atomic::{AtomicU64, Ordering}; // counts that order nothing, in arrays no model need step through

/// The first bit that has buckets of its own, and the first that has none any more: 2^47 ns are a day and a half.
const LEAST_BIT: u32 = 9;
const MOST_BIT: u32 = 48;
/// Each power of two is cut in so many, as a power of two.
const PARTS_BIT: u32 = 2;
const PARTS: usize = 1 << PARTS_BIT;

/// Buckets of times, from 0 up.
const TIMES: usize = (MOST_BIT - LEAST_BIT + 1) as usize * PARTS;
/// All: the first is for what is below 0, the last for what is too long.
pub const BUCKETS: usize = TIMES + 2;

/// Times by length. Any thread adds and reads.
pub struct TimeHistogram {
    counts: [AtomicU64; BUCKETS],
    total_ns: AtomicU64,
}

impl Default for TimeHistogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket that a time is counted in.
fn bucket_of(ns: i64) -> usize {
    if ns < 0 {
        return 0;
    }
    let ns = ns as u64;
    let bits = u64::BITS - ns.leading_zeros();
    let power = if bits < LEAST_BIT { 0 } else { bits - LEAST_BIT + 1 };
    let part = (ns >> (bits.max(LEAST_BIT) - 1 - PARTS_BIT)) as usize % PARTS;
    (power as usize * PARTS + part).min(TIMES) + 1
}

/// The least time of a bucket but the first, ns.
pub fn least_ns(bucket: usize) -> u64 {
    let at = bucket - 1;
    let (power, part) = ((at / PARTS) as u32, (at % PARTS) as u64);
    if power == 0 {
        return part << (LEAST_BIT - 1 - PARTS_BIT);
    }
    let bit = power + LEAST_BIT - 2;
    (1 << bit) | (part << (bit - PARTS_BIT))
}

impl TimeHistogram {
    /// Without any times.
    pub const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], total_ns: AtomicU64::new(0) }
    }

    /// Counts a time.
    pub fn record(&self, ns: i64) {
        // Relaxed, as all here: a count says nothing of anything else.
        self.counts[bucket_of(ns)].fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(ns.max(0) as u64, Ordering::Relaxed);
    }

    /// Adds what is counted here to `sum`; what is added meanwhile may be in it.
    pub fn add_to(&self, sum: &mut Times) {
        for (sum, count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        sum.total_ns += self.total_ns.load(Ordering::Relaxed);
    }
}

/// What histograms hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many in each bucket.
    pub counts: [u64; BUCKETS],
    /// All of them, ns.
    pub total_ns: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total_ns: 0 }
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_whose_bounds_are_around_it() {
        let mut times = vec![0, 1, 63, 64, 127, 255, 256, 511, 512, 639, 640, 1023, 1024, i64::MAX];
        times.extend((9..62).flat_map(|bit| [(1i64 << bit) - 1, 1 << bit, (1 << bit) + (1 << (bit - 1))]));
        for ns in times {
            let bucket = bucket_of(ns);
            assert!(least_ns(bucket) <= ns as u64, "{ns} in {bucket}");
            if bucket < BUCKETS - 1 {
                assert!((ns as u64) < least_ns(bucket + 1), "{ns} in {bucket}");
            }
        }
        assert_eq!(bucket_of(-1), 0);
        assert_eq!((least_ns(1), least_ns(2), least_ns(BUCKETS - 1)), (0, 64, 1 << 47));
        assert_eq!(bucket_of(i64::MAX), BUCKETS - 1);
    }

    #[test]
    fn histograms_are_added_up() {
        let (one, other) = (TimeHistogram::new(), TimeHistogram::new());
        [5, 700, -3].into_iter().for_each(|ns| one.record(ns));
        other.record(700);
        let mut sum = Times::default();
        [&one, &other].into_iter().for_each(|all| all.add_to(&mut sum));
        assert_eq!((sum.counts[bucket_of(700)], sum.counts[0], sum.total_ns), (2, 1, 1405));
        assert_eq!(sum.counts.iter().sum::<u64>(), 4);
    }
}
