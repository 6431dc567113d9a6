//! What a saved stack is kept as: a map with a bit for each of its words, and the words that are set in it.
//!
//! More than half of the words on the stack of a goroutine that waits are zero: what a C frame reserves for paths not taken lies on a
//! page that was fresh. Those are not kept, unless somebody reads them in the copy (`Packing::keep`).

use crate::sys::valgrind;
use std::{ptr, slice};

/// Bytes of stack that are saved at most; more is left where it is.
pub const MOST: usize = 16 << 10;
const WORD: usize = size_of::<u64>();
/// Words that one word of the map stands for.
const LINE: usize = u64::BITS as usize;

/// Which words of a stack will be kept. The stack is `[from, from + bytes)`, of whole words, `MOST` bytes at most.
pub struct Packing {
    from: usize,
    bytes: usize,
    map: [u64; MOST / WORD / LINE],
}

impl Packing {
    /// Those that are not zero.
    ///
    /// # Safety
    /// The stack is mapped, and nobody runs on it as long as this is used.
    pub unsafe fn of(from: usize, bytes: usize) -> Self {
        debug_assert!(bytes <= MOST && bytes.is_multiple_of(WORD) && from.is_multiple_of(WORD));
        valgrind::note_defined(from, from + bytes); // what no frame has written yet is looked at, too
        let mut map = [0; MOST / WORD / LINE];
        let stack = ptr::with_exposed_provenance::<u64>(from);
        for index in 0..bytes / WORD {
            // SAFETY: mapped by the caller's promise. Volatile: whatever lies there is a word.
            let word = unsafe { stack.add(index).read_volatile() };
            map[index / LINE] |= u64::from(word != 0) << (index % LINE);
        }
        Self { from, bytes, map }
    }

    /// Keeps `[at, at + bytes)` whatever it is, as far as it is of this stack: side by side in the object.
    pub fn keep(&mut self, at: usize, bytes: usize) {
        let first = at.max(self.from).saturating_sub(self.from) / WORD;
        let end = at.saturating_add(bytes).min(self.from + self.bytes).saturating_sub(self.from).div_ceil(WORD);
        for index in first..end {
            self.map[index / LINE] |= 1 << (index % LINE);
        }
    }

    /// Bytes of the object that holds it.
    pub fn object_bytes(&self) -> usize {
        (self.lines().len() + count(self.lines())) * WORD
    }

    fn lines(&self) -> &[u64] {
        &self.map[..self.bytes.div_ceil(WORD * LINE)]
    }

    /// Puts map and words into the object.
    ///
    /// # Safety
    /// As for `of`; the object is of `object_bytes`, aligned to a word, and nobody else's.
    pub unsafe fn pack(&self, object: *mut u8) -> Packed {
        let mut to = object.cast::<u64>();
        let stack = ptr::with_exposed_provenance::<u64>(self.from);
        // SAFETY: the caller's promise: the object has room for the lines and each word set in them.
        unsafe {
            ptr::copy_nonoverlapping(self.lines().as_ptr(), to, self.lines().len());
            to = to.add(self.lines().len());
            for (line, &bits) in self.lines().iter().enumerate() {
                for bit in ones(bits) {
                    to.write(stack.add(line * LINE + bit).read_volatile());
                    to = to.add(1);
                }
            }
            Packed::at(object, self.from, self.bytes)
        }
    }
}

/// A saved stack in its object.
pub struct Packed {
    object: *const u64,
    from: usize,
    bytes: usize,
}

impl Packed {
    /// The one in `object`, which was at `[from, from + bytes)`.
    ///
    /// # Safety
    /// `Packing::pack` put it there, and it stays as long as this is used.
    pub unsafe fn at(object: *const u8, from: usize, bytes: usize) -> Self {
        Self { object: object.cast(), from, bytes }
    }

    fn lines(&self) -> &[u64] {
        // SAFETY: the object begins with them, by the promise of `at`.
        unsafe { slice::from_raw_parts(self.object, self.bytes.div_ceil(WORD * LINE)) }
    }

    /// Where the words begin.
    fn words(&self) -> usize {
        self.object.addr() + size_of_val(self.lines())
    }

    /// Bytes of the object.
    pub fn object_bytes(&self) -> usize {
        (self.lines().len() + count(self.lines())) * WORD
    }

    /// Where what was at `at` on the stack is in the object; `at` itself if it is not of this stack, or not kept.
    pub fn in_object(&self, at: usize) -> usize {
        let index = at.wrapping_sub(self.from) / WORD;
        if at < self.from || at >= self.from + self.bytes || self.lines()[index / LINE] >> (index % LINE) & 1 == 0 {
            return at;
        }
        let below = self.lines()[index / LINE] & ((1 << (index % LINE)) - 1);
        let rank = count(&self.lines()[..index / LINE]) + below.count_ones() as usize;
        self.words() + rank * WORD + at % WORD
    }

    /// The way back: where on the stack what is at `at` in the object was; `at` itself if it is not of this object.
    pub fn on_stack(&self, at: usize) -> usize {
        let mut rank = at.wrapping_sub(self.words()) / WORD;
        if at < self.words() || at >= self.object.addr() + self.object_bytes() {
            return at;
        }
        for (line, &bits) in self.lines().iter().enumerate() {
            let ones_here = bits.count_ones() as usize;
            if rank < ones_here {
                let bit = ones(bits).nth(rank).unwrap_or(0); // there are more than `rank`
                return self.from + (line * LINE + bit) * WORD + at % WORD;
            }
            rank -= ones_here;
        }
        at
    }

    /// Puts the words back onto the stack, zeros between them.
    ///
    /// # Safety
    /// The stack is mapped and nobody runs on it.
    pub unsafe fn unpack(&self) {
        let stack = ptr::with_exposed_provenance_mut::<u64>(self.from);
        // SAFETY: the caller's promise, and that of `at`.
        unsafe {
            stack.write_bytes(0, self.bytes / WORD);
            let mut word = self.object.add(self.lines().len());
            for (line, &bits) in self.lines().iter().enumerate() {
                for bit in ones(bits) {
                    stack.add(line * LINE + bit).write(word.read());
                    word = word.add(1);
                }
            }
        }
    }
}

fn count(lines: &[u64]) -> usize {
    lines.iter().map(|bits| bits.count_ones() as usize).sum()
}

/// The numbers of the bits that are set, lowest first.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        lowest
    })
}
