//! Debug mode: what callers do wrong with memory, found and named.
//!
//! Each object gets a canary behind the bytes that were asked for, up to the end of its slot and at least 16 bytes,
//! looked at when it is freed. What is freed is poisoned and waits in a queue before it can be given again; when it
//! leaves, the poison is looked at. What is live and what waits stands in a table beside, where no stray write reaches
//! it; so a second free and a pointer that is no object's start are known for what they are. All of it is under one
//! lock and slow by intent.
//!
//! Outside debug mode some of this is found, too, where it costs nothing: pointers without a span, and at the spans,
//! when a cache gives objects back, those that are free already or in the middle of another.

use super::heap::Heap;
use crate::primitive::Mutex;
use std::collections::{HashMap, VecDeque};
use std::{fmt, slice};

/// Least bytes behind an object.
const CANARY_BYTES: usize = 16;
const CANARY: u8 = 0xCA;
/// What a new object holds: reading it before writing shows.
const FRESH: u8 = 0xCD;
/// What a freed one holds.
const POISON: u8 = 0xDD;

/// How debug mode is set up.
#[derive(Debug, Clone, Copy)]
pub struct DebugConfig {
    /// Bytes of freed objects that are kept from being given again.
    pub quarantine_bytes: usize,
}

impl Default for DebugConfig {
    fn default() -> Self {
        Self { quarantine_bytes: 1 << 20 }
    }
}

/// What was done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// Freed, and not given again since.
    DoubleFree,
    /// A pointer into the heap that is no object's start.
    NotAnObject,
    /// A pointer to memory that is not this heap's.
    Foreign,
    /// Bytes behind an object were written; `offset` of the first, from its start.
    Overflow {
        /// In bytes.
        offset: usize,
    },
    /// A freed object was written; `offset` of the first byte, from its start.
    WriteAfterFree {
        /// In bytes.
        offset: usize,
    },
    /// Freed with a size that it was not asked for with.
    WrongSize,
}

/// What was done wrong, to which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What.
    pub what: Misuse,
    /// The pointer as it was given.
    pub address: usize,
    /// Bytes of the object's class, or of a large object; 0 if there is no object.
    pub size_bytes: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, address, size_bytes } = self;
        match what {
            Misuse::DoubleFree => write!(f, "double free of {address:#x}")?,
            Misuse::NotAnObject => write!(f, "free of {address:#x}, which is in the heap but no object's start")?,
            Misuse::Foreign => write!(f, "free of {address:#x}, which is not of this heap")?,
            Misuse::Overflow { offset } => {
                write!(f, "bytes behind {address:#x} were written, from offset {offset} on")?
            }
            Misuse::WriteAfterFree { offset } => {
                write!(f, "{address:#x} was written after its free, at offset {offset}")?
            }
            Misuse::WrongSize => write!(f, "{address:#x} was freed with a size it was not asked for with")?,
        }
        if *size_bytes == 0 { Ok(()) } else { write!(f, " (class of {size_bytes} bytes)") }
    }
}

/// The hook of a heap that has no other: says what happened and aborts, for memory can no longer be relied on.
pub fn fatal(report: &Report) {
    eprintln!("gort: fatal: {report}");
    std::process::abort();
}

/// One object, live or waiting.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// As asked for.
    bytes: usize,
    /// Of the slot: the class's size, or the span's.
    capacity: usize,
    is_live: bool,
}

/// Counts as `stats` has them, since objects do not go through caches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DebugCounts {
    pub(super) allocs: u64,
    pub(super) frees: u64,
    pub(super) allocated_bytes: u64,
    pub(super) freed_bytes: u64,
}

/// What the lock guards.
pub(super) struct DebugState {
    records: HashMap<usize, Record>,
    waiting: VecDeque<usize>,
    waiting_bytes: usize,
    /// By class; 0 counts large objects.
    pub(super) counts: [DebugCounts; super::size_class::CLASSES],
}

/// Debug mode of a heap.
pub(super) struct Debug {
    pub(super) state: Mutex<DebugState>,
    quarantine_bytes: usize,
}

/// The first byte of `[from, to)` of the object that is not `value`.
///
/// # Safety
/// The range is of an object nobody else writes, as far as it is used rightly.
unsafe fn first_other(object: usize, from: usize, to: usize, value: u8) -> Option<usize> {
    // SAFETY: the caller's promise; the memory is mapped as long as the object is in the table.
    let bytes = unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(object + from), to - from) };
    bytes.iter().position(|&b| b != value).map(|at| from + at)
}

impl Debug {
    pub(super) fn new(config: DebugConfig) -> Self {
        let state = DebugState {
            records: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            counts: [DebugCounts::default(); super::size_class::CLASSES],
        };
        Self { state: Mutex::new(state), quarantine_bytes: config.quarantine_bytes }
    }

    pub(super) fn lock(&self) -> crate::primitive::MutexGuard<'_, DebugState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// An object with its canary. Null: memory is refused.
    pub(super) fn alloc(&self, heap: &Heap, bytes: usize, align: usize) -> *mut u8 {
        let mut state = self.lock();
        let total = bytes.checked_add(CANARY_BYTES);
        // Room in the tables first: without it the object could not be known.
        let (Some(total), Ok(()), Ok(())) = (total, state.records.try_reserve(1), state.waiting.try_reserve(1)) else {
            return std::ptr::null_mut();
        };
        let (object, class, capacity) = heap.take_raw(total, align);
        if object.is_null() {
            return object;
        }
        state.counts[class].allocs += 1;
        state.counts[class].allocated_bytes += capacity as u64;
        state.records.insert(object.expose_provenance(), Record { bytes, capacity, is_live: true });
        // SAFETY: a new object of `capacity` bytes.
        unsafe {
            object.write_bytes(FRESH, bytes);
            object.add(bytes).write_bytes(CANARY, capacity - bytes);
        }
        object
    }

    /// Takes an object back; `bytes` is what a sized free says.
    pub(super) fn free(&self, heap: &Heap, object: *mut u8, bytes: Option<usize>) -> Result<(), Report> {
        let mut state = self.lock();
        let address = object.addr();
        let Some(record) = state.records.get_mut(&address) else { return Err(heap.explain(address)) };
        let report = |what| Report { what, address, size_bytes: record.capacity };
        if !record.is_live {
            return Err(report(Misuse::DoubleFree));
        }
        record.is_live = false;
        let record = *record;
        // SAFETY: the slot of an object that was live until now.
        let written = unsafe { first_other(address, record.bytes, record.capacity, CANARY) };
        // SAFETY: as above; it is nobody's now.
        unsafe { object.write_bytes(POISON, record.capacity) };
        let counts = &mut state.counts[heap.class_at(address)];
        counts.frees += 1;
        counts.freed_bytes += record.capacity as u64;
        state.waiting.push_back(address);
        state.waiting_bytes += record.capacity;
        let stale = self.shorten(heap, &mut state, self.quarantine_bytes);
        drop(state);
        stale.iter().for_each(|report| heap.misused(report));
        let report = |what| Report { what, address, size_bytes: record.capacity };
        match written {
            Some(offset) => Err(report(Misuse::Overflow { offset })),
            None if bytes.is_some_and(|b| b != record.bytes) => Err(report(Misuse::WrongSize)),
            None => Ok(()),
        }
    }

    /// Lets the oldest leave until at most `most` bytes wait. Returns those that were written meanwhile.
    fn shorten(&self, heap: &Heap, state: &mut DebugState, most: usize) -> Vec<Report> {
        let mut stale = Vec::new();
        while state.waiting_bytes > most {
            let Some(address) = state.waiting.pop_front() else { break };
            let Some(record) = state.records.remove(&address) else { continue };
            state.waiting_bytes -= record.capacity;
            // SAFETY: an object that waits is nobody's, and mapped.
            if let Some(offset) = unsafe { first_other(address, 0, record.capacity, POISON) } {
                let what = Misuse::WriteAfterFree { offset };
                stale.push(Report { what, address, size_bytes: record.capacity });
            }
            heap.give_raw(address);
        }
        stale
    }

    /// Lets everything that waits leave: memory is wanted, or a test asks.
    pub(super) fn drain(&self, heap: &Heap) {
        let mut state = self.lock();
        let stale = self.shorten(heap, &mut state, 0);
        drop(state);
        stale.iter().for_each(|report| heap.misused(report));
    }

    /// Bytes that were asked for of a live object, 0 for any other pointer.
    pub(super) fn usable_size(&self, address: usize) -> usize {
        self.lock().records.get(&address).filter(|r| r.is_live).map_or(0, |r| r.bytes)
    }
}
