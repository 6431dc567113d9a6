//! A bounded table that forgets: by SIEVE when it is full, and each entry when its time is up.
//!
//! SIEVE: entries stand in the order they came in; a hit sets a bit and moves nothing. To evict, a hand walks from the
//! oldest to the newest and round again, takes the bit from who has one, and evicts the first it finds without. What was
//! never asked for again so leaves soon, whatever else came in meanwhile.
//! Source: Zhang, Yang, Yue, Vigfusson, Rashmi: SIEVE is Simpler than LRU, NSDI 2024.
//!
//! Nothing here compares keys, which may run the host's code: a look gives candidates, one after the other, and `version`
//! says whether the table is still the same. The caller has the lock. Items are copied; what they own is the caller's.

#![forbid(unsafe_code)]

mod deadlines;
mod index;
#[cfg(all(test, not(model)))]
mod tests;

use crate::primitive::room::make_room;
use deadlines::Deadlines;
use index::Index;
pub use index::Probe;

/// The deadline of what stays until it is evicted.
pub const NEVER: u64 = u64::MAX;
/// No slot.
const NONE: u32 = u32::MAX;
/// Entries a cache can hold.
pub const MOST: usize = 1 << 31;

struct Slot<T> {
    item: T,
    hash: u64,
    deadline_ns: u64,
    /// Its neighbours in the order of coming in. Of a free slot `newer` is the next free one.
    newer: u32,
    older: u32,
    visited: bool,
}

/// Entries found by hash; each has a slot as long as it is in.
pub struct Cache<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    index: Index,
    newest: u32,
    oldest: u32,
    /// Whom SIEVE looks at next; NONE: the oldest.
    hand: u32,
    deadlines: Deadlines,
    used: usize,
    version: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            index: Index::default(),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
            deadlines: Deadlines::default(),
            used: 0,
            version: 0,
        }
    }
}

impl<T: Copy> Cache<T> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Another number after each entry that came or went: slots seen before it may be somebody else's.
    #[inline(always)]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Begins a look for a hash.
    #[inline(always)]
    pub fn probe(&self, hash: u64) -> Probe {
        self.index.probe(hash)
    }

    /// The next slot with that hash; the table is of the version that `probe` saw.
    #[inline(always)]
    pub fn candidate(&self, probe: &mut Probe) -> Option<u32> {
        loop {
            let slot = self.index.candidate(probe)?;
            if self.slots[slot as usize].hash == probe.hash {
                return Some(slot);
            }
        }
    }

    /// What is in a slot.
    #[inline(always)]
    pub fn item(&self, slot: u32) -> T {
        self.slots[slot as usize].item
    }

    /// When its time is up, or NEVER.
    #[inline(always)]
    pub fn deadline_ns(&self, slot: u32) -> u64 {
        self.slots[slot as usize].deadline_ns
    }

    /// It was asked for.
    #[inline(always)]
    pub fn touch(&mut self, slot: u32) {
        self.slots[slot as usize].visited = true;
    }

    /// Whether anything in it has a deadline.
    #[inline(always)]
    pub fn has_deadlines(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// Makes room for `count` entries in all, and for their deadlines. `false`: memory is refused, and nothing is lost.
    pub fn reserve(&mut self, count: usize, with_deadline: bool) -> bool {
        make_room(&mut self.slots, count)
            && self.index.reserve(count)
            && (!with_deadline || self.deadlines.reserve(count.max(self.slots.len())))
    }

    /// Takes an entry in as the newest; there is room, and nothing with an equal key is in.
    pub fn insert(&mut self, hash: u64, item: T, deadline_ns: u64) {
        let new = Slot { item, hash, deadline_ns, newer: NONE, older: self.newest, visited: false };
        let slot = self.free;
        let slot = if slot == NONE {
            self.slots.push(new);
            self.slots.len() as u32 - 1
        } else {
            self.free = self.slots[slot as usize].newer;
            self.slots[slot as usize] = new;
            slot
        };
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.slots[newest as usize].newer = slot,
        }
        self.newest = slot;
        self.index.insert(hash, slot);
        if deadline_ns != NEVER {
            self.deadlines.insert(slot, deadline_ns);
        }
        self.used += 1;
        self.version += 1;
    }

    /// Puts another item in the place of one with an equal key, which counts as asking for it; gives the old one. Where the
    /// deadline is not NEVER, there is room for it.
    pub fn replace(&mut self, slot: u32, item: T, deadline_ns: u64) -> T {
        let entry = &mut self.slots[slot as usize];
        let old = std::mem::replace(&mut entry.item, item);
        entry.visited = true;
        if entry.deadline_ns != deadline_ns {
            entry.deadline_ns = deadline_ns;
            self.deadlines.remove(slot);
            if deadline_ns != NEVER {
                self.deadlines.insert(slot, deadline_ns);
            }
        }
        old
    }

    /// Takes an entry out.
    pub fn remove(&mut self, slot: u32) -> T {
        let Slot { item, hash, newer, older, .. } = self.slots[slot as usize];
        self.index.remove(hash, slot);
        self.deadlines.remove(slot);
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        if self.hand == slot {
            self.hand = newer;
        }
        self.slots[slot as usize].newer = self.free;
        self.free = slot;
        self.used -= 1;
        self.version += 1;
        item
    }

    /// Takes out whom SIEVE chooses; `None`: it is empty. Steps over one entry for each hit since it was last passed.
    pub fn evict(&mut self) -> Option<T> {
        let mut at = if self.hand == NONE { self.oldest } else { self.hand };
        if at == NONE {
            return None;
        }
        while self.slots[at as usize].visited {
            self.slots[at as usize].visited = false;
            at = match self.slots[at as usize].newer {
                NONE => self.oldest,
                newer => newer,
            };
        }
        self.hand = at; // `remove` moves it on
        Some(self.remove(at))
    }

    /// Takes all of it out at once.
    pub fn take(&mut self) -> Self {
        let version = self.version + 1;
        std::mem::replace(self, Self { version, ..Self::default() })
    }

    /// Takes out one whose time is up, the earliest first.
    #[inline]
    pub fn expire(&mut self, now_ns: u64) -> Option<T> {
        match self.deadlines.first() {
            Some((deadline, slot)) if deadline <= now_ns => Some(self.remove(slot)),
            _ => None,
        }
    }

    /// Items from the oldest to the newest.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?; // NONE is out of range
            at = slot.newer;
            Some(slot.item)
        })
    }
}
