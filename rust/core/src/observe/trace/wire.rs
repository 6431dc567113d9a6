//! Bytes of Go's execution trace, version 2 as of Go 1.26: batches of events by M, and the tables of a generation.
//!
//! Source: internal/trace/tracev2 and the reader beside it. Integers are LEB128. Room is asked for where a refusal can be
//! answered (`Wire::has_room`, `Batch::new`); what is written afterwards asks for none.

use crate::event::{MOST_TEXT, Tables};
use crate::primitive::tries::{try_copy, try_push};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The first bytes of a trace.
pub(super) const HEADER: &[u8; 16] = b"go 1.26 trace\0\0\0";
/// Units of time in a second.
const FREQUENCY: u64 = 1_000_000_000;
/// The M of batches that are no M's.
pub(super) const NO_M: u64 = u64::MAX;

/// Types of events.
pub(super) mod ev {
    pub(in super::super) const BATCH: u8 = 1;
    pub(in super::super) const STACKS: u8 = 2;
    pub(in super::super) const STACK: u8 = 3;
    pub(in super::super) const STRINGS: u8 = 4;
    pub(in super::super) const STRING: u8 = 5;
    pub(in super::super) const SAMPLES: u8 = 6;
    pub(in super::super) const SAMPLE: u8 = 7;
    pub(in super::super) const FREQUENCY: u8 = 8;
    pub(in super::super) const PROCS_CHANGE: u8 = 9;
    pub(in super::super) const PROC_START: u8 = 10;
    pub(in super::super) const PROC_STOP: u8 = 11;
    pub(in super::super) const PROC_STEAL: u8 = 12;
    pub(in super::super) const PROC_STATUS: u8 = 13;
    pub(in super::super) const GO_CREATE: u8 = 14;
    pub(in super::super) const GO_START: u8 = 16;
    pub(in super::super) const GO_DESTROY: u8 = 17;
    pub(in super::super) const GO_STOP: u8 = 19;
    pub(in super::super) const GO_BLOCK: u8 = 20;
    pub(in super::super) const GO_UNBLOCK: u8 = 21;
    pub(in super::super) const SYSCALL_BEGIN: u8 = 22;
    pub(in super::super) const SYSCALL_END_BLOCKED: u8 = 24;
    pub(in super::super) const GO_STATUS: u8 = 25;
    pub(in super::super) const STW_BEGIN: u8 = 26;
    pub(in super::super) const STW_END: u8 = 27;
    pub(in super::super) const GC_ACTIVE: u8 = 28;
    pub(in super::super) const GC_BEGIN: u8 = 29;
    pub(in super::super) const GC_END: u8 = 30;
    pub(in super::super) const SWEEP_BEGIN: u8 = 32;
    pub(in super::super) const SWEEP_END: u8 = 33;
    pub(in super::super) const HEAP_ALLOC: u8 = 37;
    pub(in super::super) const GO_LABEL: u8 = 39;
    pub(in super::super) const TASK_BEGIN: u8 = 40;
    pub(in super::super) const TASK_END: u8 = 41;
    pub(in super::super) const REGION_BEGIN: u8 = 42;
    pub(in super::super) const REGION_END: u8 = 43;
    pub(in super::super) const USER_LOG: u8 = 44;
    pub(in super::super) const GO_STATUS_STACK: u8 = 48;
    pub(in super::super) const SYNC: u8 = 50;
    pub(in super::super) const CLOCK: u8 = 51;
    pub(in super::super) const END_OF_GENERATION: u8 = 52;
}

/// Most bytes of a batch: half of Go's, so that what is written there at once need not be counted.
const MOST_BATCH: usize = 32 << 10;
/// More than any one event with its numbers, and more than any header.
const EVENT_BYTES: usize = 72;
/// Most frames of a stack that are told: Go's.
const MOST_FRAMES: usize = 128;
/// So many batches can be finished between two looks at the room there is.
const BATCHES: usize = 6;

/// A hasher for numbers that are handed out one by one.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(b.into()));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

/// A table by such numbers.
pub(super) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Writes an integer where there is room for it.
#[inline]
pub(super) fn varint(to: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

/// Events of one M that are no batch yet.
pub(super) struct Batch {
    bytes: Vec<u8>,
    began_ns: u64,
    last_ns: u64,
}

impl Batch {
    /// `None`: memory is refused.
    pub(super) fn new() -> Option<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(MOST_BATCH).ok()?;
        Some(Self { bytes, began_ns: 0, last_ns: 0 })
    }

    /// The earliest time, from `ns` on, that its next event may have.
    pub(super) fn earliest(&self, ns: u64) -> u64 {
        ns.max(self.last_ns)
    }

    /// Bytes of the batch that it would make, at most; 0: there would be none.
    pub(super) fn bytes(&self) -> usize {
        if self.bytes.is_empty() { 0 } else { self.bytes.len() + EVENT_BYTES }
    }
}

/// What is written of a generation, and its tables.
#[derive(Default)]
pub(super) struct Wire {
    /// Finished batches.
    pub(super) out: Vec<u8>,
    /// The number of the generation.
    pub(super) generation: u64,
    strings: HashMap<Vec<u8>, u64>,
    /// Strings and stacks as their batches will have them, each with where one may end.
    string_table: Table,
    stack_table: Table,
    samples: Table,
    /// In which generation a stack was told last, by its number.
    told: Vec<u64>,
    scratch: Vec<u8>,
}

/// A list of entries that must not be split.
#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Table {
    /// Adds what `write` writes, at most `most` bytes.
    fn add(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> Option<()> {
        self.bytes.try_reserve(most).ok()?;
        self.ends.try_reserve(1).ok()?;
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
        Some(())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl Wire {
    /// Whether there is room for what one record leads to.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        let most = BATCHES * (MOST_BATCH + EVENT_BYTES);
        self.out.capacity() - self.out.len() >= most || self.out.try_reserve(most).is_ok()
    }

    /// Writes an event of `m`, for which there is room.
    #[inline]
    pub(super) fn event(&mut self, m: u64, batch: &mut Batch, now_ns: u64, event: u8, args: &[u64]) {
        if batch.bytes.len() + EVENT_BYTES > MOST_BATCH {
            self.finish(m, batch);
        }
        if batch.bytes.is_empty() {
            (batch.began_ns, batch.last_ns) = (now_ns, now_ns);
        }
        batch.bytes.push(event);
        varint(&mut batch.bytes, now_ns - batch.last_ns);
        batch.last_ns = now_ns;
        for &arg in args {
            varint(&mut batch.bytes, arg);
        }
    }

    /// Makes a batch of the events of `m`, for which there is room.
    pub(super) fn finish(&mut self, m: u64, batch: &mut Batch) {
        if !batch.bytes.is_empty() {
            self.batch(m, batch.began_ns, batch.bytes.len());
            self.out.extend_from_slice(&batch.bytes);
            batch.bytes.clear();
        }
    }

    fn batch(&mut self, m: u64, ns: u64, bytes: usize) {
        self.out.push(ev::BATCH);
        [self.generation, m, ns, bytes as u64].into_iter().for_each(|n| varint(&mut self.out, n));
    }

    /// The number of a text, cut where Go cuts it; 0, the empty one, where memory is refused.
    pub(super) fn string(&mut self, text: &[u8]) -> u64 {
        let mut text = &text[..text.len().min(MOST_TEXT)];
        while text.last().is_some_and(|&b| b >= 0x80) && std::str::from_utf8(text).is_err() {
            text = &text[..text.len() - 1]; // not in the middle of a character
        }
        if text.is_empty() {
            return 0;
        }
        self.strings.get(text).copied().unwrap_or_else(|| self.new_string(text).unwrap_or(0))
    }

    fn new_string(&mut self, text: &[u8]) -> Option<u64> {
        let key = try_copy(text)?;
        self.strings.try_reserve(1).ok()?;
        let number = self.strings.len() as u64 + 1;
        self.string_table.add(text.len() + EVENT_BYTES, |to| {
            to.push(ev::STRING);
            varint(to, number);
            varint(to, text.len() as u64);
            to.extend_from_slice(text);
        })?;
        self.strings.insert(key, number);
        Some(number)
    }

    /// Tells of a stack unless that was done; its number, or 0.
    #[inline]
    pub(super) fn stack(&mut self, stack: u32, tables: &crate::primitive::Mutex<Tables>) -> u64 {
        if stack == 0 || self.told.get(stack as usize) == Some(&self.generation) {
            return stack.into();
        }
        self.new_stack(stack, &tables.lock().unwrap_or_else(|e| e.into_inner())).unwrap_or(0)
    }

    #[cold]
    fn new_stack(&mut self, stack: u32, tables: &Tables) -> Option<u64> {
        let more = (stack as usize + 1).saturating_sub(self.told.len());
        self.told.try_reserve(more).ok()?;
        self.told.resize(self.told.len() + more, 0);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.try_reserve(MOST_FRAMES * EVENT_BYTES).ok()?;
        let mut count = 0;
        for (number, frame) in tables.frames_of(stack).take(MOST_FRAMES) {
            let (name, file) = (self.string(frame.name.as_bytes()), self.string(frame.file.as_bytes()));
            [u64::from(number) + 1, name, file, frame.line.into()].into_iter().for_each(|n| varint(&mut scratch, n));
            count += 1;
        }
        if count == 0 {
            return None;
        }
        self.stack_table.add(scratch.len() + EVENT_BYTES, |to| {
            to.push(ev::STACK);
            varint(to, stack.into());
            varint(to, count);
            to.extend_from_slice(&scratch);
        })?;
        self.scratch = scratch;
        self.told[stack as usize] = self.generation;
        Some(stack.into())
    }

    /// Notes a sample of the CPU profile.
    pub(super) fn sample(&mut self, parts: [u64; 5]) -> Option<()> {
        self.samples.add(EVENT_BYTES, |to| {
            to.push(ev::SAMPLE);
            parts.into_iter().for_each(|n| varint(to, n));
        })
    }

    /// How many there are in this generation.
    #[cfg(test)]
    pub(super) fn samples(&self) -> usize {
        self.samples.ends.len()
    }

    /// Ends the generation, whose batches are finished: its tables and clocks. `None`: memory is refused.
    pub(super) fn end_generation(&mut self, began_ns: u64, wall_ns: u64) -> Option<()> {
        let tables = [&self.string_table, &self.stack_table, &self.samples];
        let bytes: usize = tables.iter().map(|table| table.bytes.len() + table.ends.len().min(1) * EVENT_BYTES).sum();
        self.out.try_reserve(bytes + bytes / MOST_BATCH * 2 * EVENT_BYTES + 4 * EVENT_BYTES).ok()?;
        for (kind, table) in [
            (ev::STRINGS, std::mem::take(&mut self.string_table)),
            (ev::STACKS, std::mem::take(&mut self.stack_table)),
            (ev::SAMPLES, std::mem::take(&mut self.samples)),
        ] {
            self.table(kind, &table, began_ns);
            let place = match kind {
                ev::STRINGS => &mut self.string_table,
                ev::STACKS => &mut self.stack_table,
                _ => &mut self.samples,
            };
            *place = table; // with its room
            place.clear();
        }
        let mut sync = Vec::new();
        sync.try_reserve_exact(EVENT_BYTES).ok()?;
        sync.extend([ev::SYNC, ev::FREQUENCY]);
        varint(&mut sync, FREQUENCY);
        sync.extend([ev::CLOCK, 0]);
        [began_ns, wall_ns / 1_000_000_000, wall_ns % 1_000_000_000].into_iter().for_each(|n| varint(&mut sync, n));
        self.batch(NO_M, began_ns, sync.len());
        self.out.extend_from_slice(&sync);
        self.out.push(ev::END_OF_GENERATION);
        self.strings.clear();
        Some(())
    }

    /// Writes a table as batches, for which there is room.
    fn table(&mut self, kind: u8, table: &Table, ns: u64) {
        let (mut from, mut at) = (0, 0);
        while at < table.ends.len() {
            let mut to = table.ends[at];
            at += 1;
            while at < table.ends.len() && table.ends[at] - from < MOST_BATCH {
                to = table.ends[at];
                at += 1;
            }
            self.batch(NO_M, ns, to - from + 1);
            self.out.push(kind);
            self.out.extend_from_slice(&table.bytes[from..to]);
            from = to;
        }
    }

    /// A list of numbers with one more.
    pub(super) fn push<T>(list: &mut Vec<T>, item: T) -> Option<()> {
        try_push(list, item)
    }
}
