//! From hashes to slots: open addressing, one line of memory for most looks.
//!
//! A bucket holds 32 mixed bits of its slot's hash, of which the first are its home; probing is linear, and a removal moves
//! back what had to give way, so there are no tombstones. At most two of three buckets are in use, so that each look ends.

use super::NONE;

/// 2^64 over the golden ratio: neighbouring hashes, as those of Python's ints are, come to lie far apart.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
/// Buckets of the smallest index.
const LEAST_BITS: u32 = 3;

#[derive(Clone, Copy)]
struct Bucket {
    tag: u32,
    /// NONE: the bucket is empty.
    slot: u32,
}

/// The index of a cache.
#[derive(Default)]
pub(super) struct Index {
    /// None, or a power of two.
    buckets: Vec<Bucket>,
    bits: u32,
}

/// Where a look goes on.
pub struct Probe {
    at: usize,
    tag: u32,
    pub(super) hash: u64,
}

impl Index {
    fn home(&self, tag: u32) -> usize {
        (tag >> (32 - self.bits)) as usize
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    /// Begins a look.
    #[inline(always)]
    pub(super) fn probe(&self, hash: u64) -> Probe {
        let tag = (hash.wrapping_mul(MIX) >> 32) as u32;
        Probe { at: if self.bits == 0 { 0 } else { self.home(tag) }, tag, hash }
    }

    /// The next slot that may have the hash.
    #[inline(always)]
    pub(super) fn candidate(&self, probe: &mut Probe) -> Option<u32> {
        loop {
            let bucket = *self.buckets.get(probe.at)?; // none while there are no buckets
            if bucket.slot == NONE {
                return None;
            }
            probe.at = self.after(probe.at);
            if bucket.tag == probe.tag {
                return Some(bucket.slot);
            }
        }
    }

    /// Makes room for `count` slots in all. `false`: memory is refused, and nothing is changed.
    pub(super) fn reserve(&mut self, count: usize) -> bool {
        let wanted = count.saturating_mul(3) / 2;
        if wanted < self.buckets.len() {
            return true;
        }
        let mut bits = (self.bits + 1).max(LEAST_BITS);
        while bits < 32 && wanted >= 1 << bits {
            bits += 1;
        }
        let mut buckets = Vec::new();
        if wanted >= 1 << bits || buckets.try_reserve_exact(1 << bits).is_err() {
            return false;
        }
        buckets.resize(1 << bits, Bucket { tag: 0, slot: NONE });
        let old = std::mem::replace(&mut self.buckets, buckets);
        self.bits = bits;
        for bucket in old {
            if bucket.slot != NONE {
                self.place(bucket);
            }
        }
        true
    }

    fn place(&mut self, bucket: Bucket) {
        let mut at = self.home(bucket.tag);
        while self.buckets[at].slot != NONE {
            at = self.after(at);
        }
        self.buckets[at] = bucket;
    }

    /// Enters a slot; there is room.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        let tag = self.probe(hash).tag;
        self.place(Bucket { tag, slot });
    }

    /// Takes out a slot that was entered with this hash.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let mask = self.buckets.len() - 1;
        let mut hole = self.probe(hash).at;
        while self.buckets[hole].slot != slot {
            hole = self.after(hole);
        }
        let mut at = self.after(hole);
        while self.buckets[at].slot != NONE {
            let home = self.home(self.buckets[at].tag);
            // It may lie in the hole unless its home is behind that.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.buckets[hole] = self.buckets[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.buckets[hole].slot = NONE;
    }
}
