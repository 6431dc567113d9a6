//! Free spans by length, for best fit: a list for each length below 128 pages, sixteen per doubling above.
//!
//! A bit per bin says whether it holds anything, so that short runs are found in a few instructions; of the few long
//! ones a bin is looked through for the shortest that will do. New spans are put in front: what is at the end of a list
//! has been free for longest.

use super::span::{SpanList, SpanRef};

/// Lengths below have a bin each.
const EXACT: usize = 128;
const SUB_BITS: u32 = 4;
/// Addresses have 48 bits, so lengths have 35: doublings from 2^7 on.
const BINS: usize = EXACT + ((35 - 7 + 1) << SUB_BITS);
const WORDS: usize = BINS.div_ceil(64);

/// All free spans of one kind.
pub(super) struct Bins {
    lists: [SpanList; BINS],
    occupied: [u64; WORDS],
}

fn bin_of(pages: usize) -> usize {
    if pages < EXACT {
        return pages;
    }
    let log = pages.ilog2();
    // The four bits below the highest, and which doubling it is.
    let step = (pages >> (log - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    EXACT + (((log - EXACT.ilog2()) as usize) << SUB_BITS) + step
}

impl Bins {
    pub(super) const fn new() -> Self {
        Self { lists: [const { SpanList::new() }; BINS], occupied: [0; WORDS] }
    }

    pub(super) fn insert(&mut self, span: SpanRef) {
        let bin = bin_of(span.pages.get());
        self.lists[bin].push_front(span);
        self.occupied[bin / 64] |= 1 << (bin % 64);
    }

    /// The span is in here, and its length has not changed since.
    pub(super) fn remove(&mut self, span: SpanRef) {
        let bin = bin_of(span.pages.get());
        self.lists[bin].remove(span);
        if self.lists[bin].is_empty() {
            self.occupied[bin / 64] &= !(1 << (bin % 64));
        }
    }

    /// The first bin from `bin` on that holds something.
    fn occupied_from(&self, bin: usize) -> Option<usize> {
        let mut mask = u64::MAX << (bin % 64);
        for word in bin / 64..WORDS {
            let bits = self.occupied[word] & mask;
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The shortest span of at least `pages`; of equal ones that which is free for the shortest time.
    pub(super) fn best_fit(&self, pages: usize) -> Option<SpanRef> {
        let mut bin = self.occupied_from(bin_of(pages))?;
        loop {
            if bin < EXACT {
                return self.lists[bin].first();
            }
            let fits = self.lists[bin].iter().filter(|span| span.pages.get() >= pages);
            match fits.min_by_key(|span| span.pages.get()) {
                Some(span) => return Some(span),
                None => bin = self.occupied_from(bin + 1)?,
            }
        }
    }

    /// Of the longest spans that which is free for the longest time.
    pub(super) fn oldest_long(&self) -> Option<SpanRef> {
        let word = self.occupied.iter().rposition(|&bits| bits != 0)?;
        self.lists[word * 64 + self.occupied[word].ilog2() as usize].last()
    }

    /// All of them: for tests.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = SpanRef> {
        self.lists.iter().flat_map(SpanList::iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_in_order_of_length_and_within_bounds() {
        let lengths = (1..5000).chain((13..35).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1]));
        let mut last = 0;
        for pages in lengths {
            let bin = bin_of(pages);
            assert!(bin >= last && bin < BINS, "{pages}");
            last = bin;
        }
        assert!(bin_of((1 << 36) - 1) < BINS);
    }
}
