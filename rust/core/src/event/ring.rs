//! The list of blocks that records are written to: one writer at a time, one reader behind it.
//!
//! A writer publishes how far a block is full; the reader reads so far, at any time, and goes to the next block once there is
//! one. What it has read goes back through a stack of its own, which the writer empties as a whole.

use super::{Record, Session, Words};
use crate::primitive::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::primitive::prefetch_to_write;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64 << 10;
const RECORDS: usize = (BLOCK_BYTES - 64) / size_of::<Record>();
/// Most blocks there are at a time: 64 MiB.
const MOST: u32 = 1024;
/// With so many blocks that are not read the writer waits a moment for each one more.
pub const MANY: u32 = 256;

/// The reader is woken for so many full blocks: that costs the writer a system call, and the reader looks from time to time anyway.
const WORTH_A_WAKE: u32 = 8;

/// A record's line of the cache is asked for so many records before: the reader's processor has it, and without that a writer waited
/// until that one has given it up.
const AHEAD: usize = 16;

/// A block.
#[repr(C, align(64))]
pub struct Block {
    /// So many the reader is shown.
    used: AtomicU32,
    /// The next one, or null.
    next: AtomicPtr<Block>,
    records: UnsafeCell<[MaybeUninit<Record>; RECORDS]>,
}

#[cfg(not(model))] // whose words are larger, and which has no blocks
const _: () = assert!(size_of::<Block>() <= BLOCK_BYTES);
const _: () = assert!(std::mem::offset_of!(Record, time) == 8 && align_of::<Record>() == align_of::<Words>());

impl Block {
    /// Makes a block of memory.
    ///
    /// # Safety
    /// `place` has [`BLOCK_BYTES`], aligned to 64, and is nobody else's.
    pub unsafe fn make(place: *mut u8) -> *mut Block {
        let block = place.cast::<Block>();
        // SAFETY: the caller's promise; records are not read before they are written.
        unsafe {
            (&raw mut (*block).used).write(AtomicU32::new(0));
            (&raw mut (*block).next).write(AtomicPtr::new(ptr::null_mut()));
        }
        block
    }

    /// The next one of a list of blocks that nobody writes to any more.
    pub fn following(&self) -> *mut Block {
        self.next.load(Ordering::Acquire) // pairs with the Release in `put`
    }

    /// Records from `from` on that are written.
    pub fn written(&self, from: usize) -> &[Record] {
        let used = self.used.load(Ordering::Acquire) as usize; // pairs with the Release in `put`
        // SAFETY: so many are written, and are not written again before the reader has given the block back.
        unsafe {
            let all = self.records.get().cast::<Record>();
            std::slice::from_raw_parts(all.add(from), used.saturating_sub(from))
        }
    }
}

/// The writers' end.
pub struct Ring {
    /// What is written to.
    block: *mut Block,
    /// So many are written there; one more than the reader is shown, while the last is held back.
    used: u32,
    /// Blocks that may be written to next.
    spare: *mut Block,
    /// Blocks that were filled.
    filled: u32,
    /// The time of the last record.
    pub time: u64,
}
// SAFETY: under the session's lock, or the host's.
unsafe impl Send for Ring {}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is written; whether so many blocks are full that the reader is worth a wake.
    Written(bool),
    /// There is no block for it.
    Full,
}

impl Ring {
    /// A list of one block, nobody else's, at which the reader begins.
    pub fn new(block: *mut Block) -> Self {
        Self { block, used: 0, spare: ptr::null_mut(), filled: 0, time: 0 }
    }

    /// Writes a record and what belongs to it, if there is room in the block. `false`: there is not. The reader is not shown one
    /// that is held back before `starts` has added to it, or something else was written, or `show`.
    #[inline(always)]
    pub fn put_here(&mut self, words: Words, rest: &[Record], is_held_back: bool) -> bool {
        let count = 1 + rest.len();
        // SAFETY: blocks of the list are alive while there is a session; the writer's part is this caller's.
        unsafe {
            let block = &*self.block;
            let used = self.used as usize;
            if used + count > RECORDS {
                return false;
            }
            let place = block.records.get().cast::<Record>().add(used);
            prefetch_to_write(place.wrapping_add(AHEAD));
            place.cast::<Words>().write(words); // as large, and aligned so
            self.time = words[1];
            if count > 1 {
                ptr::copy_nonoverlapping(rest.as_ptr(), place.add(1), rest.len()); // a call, even for none
            }
            self.used = (used + count) as u32;
            if !is_held_back {
                block.used.store(self.used, Ordering::Release); // pairs with the Acquire in `written`
            }
        }
        true
    }

    /// Adds to what was just written, if that is held back and of the thread `m` with `p`: that `g` runs there from the same moment
    /// on. `false`: it is not, or has no room for such a number.
    #[inline(always)]
    pub fn starts(&mut self, m: u32, p: u16, g: u64) -> bool {
        // SAFETY: as in `put_here`; a record that the reader is not shown is this caller's.
        unsafe {
            let block = &*self.block;
            if block.used.load(Ordering::Relaxed) == self.used || g > u64::from(u32::MAX) {
                return false; // Relaxed: our own store
            }
            let last = block.records.get().cast::<Record>().add(self.used as usize - 1);
            if (*last).m != m || (*last).p != p {
                return false;
            }
            (*last).arg = g as u32;
        }
        self.show();
        true
    }

    /// Shows the reader all that is written.
    #[inline(always)]
    pub fn show(&mut self) {
        // SAFETY: as in `put_here`. Release: pairs with the Acquire in `written`.
        unsafe { (*self.block).used.store(self.used, Ordering::Release) };
    }

    /// Writes a record and what belongs to it, if there is room.
    #[inline(always)]
    pub fn put(&mut self, words: Words, rest: &[Record], is_held_back: bool) -> Put {
        if self.put_here(words, rest, is_held_back) {
            return Put::Written(false);
        }
        let [a, b, c, d] = words; // in registers: what has an address is written there first, for each record
        self.put_in_next(a, b, c, d, rest)
    }

    #[cold]
    #[inline(never)]
    fn put_in_next(&mut self, a: u64, b: u64, c: u64, d: u64, rest: &[Record]) -> Put {
        self.show();
        if self.spare.is_null() {
            return Put::Full;
        }
        // SAFETY: as in `put_here`.
        unsafe {
            let new = self.spare;
            self.spare = (*new).next.load(Ordering::Relaxed); // the writer's alone
            (*new).next.store(ptr::null_mut(), Ordering::Relaxed); // as above, and below
            (*new).used.store(0, Ordering::Relaxed);
            (*self.block).next.store(new, Ordering::Release); // pairs with the Acquire in `following`
            (self.block, self.used) = (new, 0);
            (0..AHEAD).step_by(2).for_each(|i| prefetch_to_write((*new).records.get().cast::<Record>().add(i)));
        }
        self.put_here([a, b, c, d], rest, false); // it is empty
        self.filled = self.filled.wrapping_add(1);
        Put::Written(self.filled.is_multiple_of(WORTH_A_WAKE))
    }

    /// Takes what the reader has done with. Whether there is a block to be written to.
    pub fn take_back(&mut self, session: &Session) -> bool {
        if self.spare.is_null() {
            // Acquire: pairs with the Release in `give_back`.
            self.spare = session.done.swap(ptr::null_mut(), Ordering::Acquire);
        }
        !self.spare.is_null()
    }

    /// One more block, which nobody else knows.
    ///
    /// # Safety
    /// Made by [`Block::make`], with a place for as long as there is a session.
    pub unsafe fn add(&mut self, block: *mut Block) {
        // SAFETY: the caller's promise. Relaxed: the writer's alone.
        unsafe { (*block).next.store(self.spare, Ordering::Relaxed) };
        self.spare = block;
    }

    /// All blocks that are left when nobody writes or reads any more: lists of them.
    pub fn dismantle(&mut self, reader: *mut Block, session: &Session) -> [*mut Block; 3] {
        let spare = std::mem::replace(&mut self.spare, ptr::null_mut());
        [reader, spare, session.done.swap(ptr::null_mut(), Ordering::Acquire)]
    }
}

impl Session {
    /// Whether there may be one more block.
    pub fn may_grow(&self) -> bool {
        self.blocks.load(Ordering::Relaxed) < MOST // a count
    }

    /// The reader has done with a block. Only the reader puts some here.
    ///
    /// # Safety
    /// Of the list, and read to its end; the next one is there.
    pub unsafe fn give_back(&self, block: *mut Block) {
        let mut first = self.done.load(Ordering::Relaxed);
        loop {
            // SAFETY: the reader's until the exchange.
            unsafe { (*block).next.store(first, Ordering::Relaxed) };
            // Release: pairs with the Acquire in `take_back`.
            match self.done.compare_exchange(first, block, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::super::Kind;
    use super::*;

    #[repr(align(64))]
    struct Place(#[allow(dead_code, reason = "only where it is matters")] [u8; BLOCK_BYTES]);

    fn block() -> *mut Block {
        // SAFETY: leaked, aligned, of that size.
        unsafe { Block::make(ptr::from_mut(Box::leak(Box::new(Place([0; BLOCK_BYTES])))).cast()) }
    }

    fn record(g: u64) -> Record {
        Record { kind: Kind::Start as u8, g, ..Record::default() }
    }

    #[test]
    fn records_are_read_in_order_and_blocks_go_round() {
        let first = block();
        let session = Session::new(first, None);
        let mut ring = session.ring.lock();
        for g in 0..RECORDS as u64 {
            assert_eq!(ring.put(record(g).words(), &[], false), Put::Written(false));
        }
        assert_eq!((ring.put(record(7).words(), &[], false), ring.take_back(&session)), (Put::Full, false));
        // SAFETY: made for this; the reader below is at the end of the first one.
        unsafe {
            ring.add(block());
            ring.filled = WORTH_A_WAKE - 1;
            let rest = [record(1), record(2)];
            assert_eq!(ring.put(record(RECORDS as u64).words(), &rest, false), Put::Written(true));
            let read: Vec<u64> = (*first).written(0).iter().map(|record| record.g).collect();
            assert_eq!(read, (0..RECORDS as u64).collect::<Vec<_>>());
            let second = (*first).following();
            assert_eq!((*second).written(1).iter().map(|record| record.g).collect::<Vec<_>>(), [1, 2]);
            session.give_back(first);
            assert!(ring.take_back(&session), "the first is written to again");
            let lists = ring.dismantle(second, &session);
            assert_eq!(lists, [second, first, ptr::null_mut()]);
        }
    }

    #[test]
    fn what_is_held_back_is_shown_with_who_starts_after_it() {
        let first = block();
        let session = Session::new(first, None);
        let mut ring = session.ring.lock();
        // SAFETY: a block of the list.
        let shown = || unsafe { (*first).written(0) }.iter().map(|r| (r.g, r.arg)).collect::<Vec<_>>();
        let left = |g| Record { kind: Kind::Block as u8, m: 5, p: 1, g, ..Record::default() }.words();
        assert_eq!((ring.put(left(7), &[], true), shown()), (Put::Written(false), vec![]));
        assert!(!ring.starts(6, 1, 8) && !ring.starts(5, 0, 8) && !ring.starts(5, 1, 1 << 32) && shown().is_empty());
        assert!(ring.starts(5, 1, 8) && !ring.starts(5, 1, 9), "once");
        assert_eq!(shown(), [(7, 8)]);
        ring.put(left(8), &[], true);
        assert_eq!((ring.put(record(3).words(), &[], false), ring.starts(5, 1, 9)), (Put::Written(false), false));
        assert_eq!(shown(), [(7, 8), (8, 0), (3, 0)]);
        ring.put(left(9), &[], true);
        ring.show();
        assert_eq!((ring.starts(5, 1, 9), shown().len()), (false, 4));
    }

    #[test]
    fn there_are_no_more_blocks_than_so_many() {
        let session = Session::new(block(), None);
        session.blocks.store(MOST - 1, Ordering::Relaxed);
        assert!(session.may_grow());
        session.blocks.store(MOST, Ordering::Relaxed);
        assert!(!session.may_grow());
    }
}
