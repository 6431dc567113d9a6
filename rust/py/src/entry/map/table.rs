//! The table of a Map: open addressing over entries that stand in the order they came in.
//!
//! Comparing keys may run Python code, which may park, and change the table. So every change of which keys there are, or
//! of where they stand, changes `version`, and a search that ran such code begins again if the version is another. When
//! `find` returns, no Python code has run since what it found was true: what the caller does next with no such code in
//! between is one step with the search. Nothing else here runs Python code; what is taken out is let go of by the caller.
//!
//! An entry has a number that never comes again. A cursor ends at the number that was the next when it began, so that a
//! key deleted and stored again meanwhile is not seen twice, and finds its place by number after entries have moved.

use pyo3::ffi;
use std::collections::TryReserveError;
use std::ptr;

pub(super) type Object = *mut ffi::PyObject;

/// Places in the index are numbers of 32 bits.
const MOST: usize = u32::MAX as usize / 4;
const LEAST: usize = 8;
/// The golden ratio: neighbouring hashes, as small ints have them, lie apart in its multiples.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// A key and its value, one count of each; both null once deleted.
pub(super) struct Entry {
    pub(super) key: Object,
    pub(super) value: Object,
    hash: ffi::Py_hash_t,
    number: u64,
}

/// See the module's text.
pub(super) struct Table {
    /// By number, ascending; a deleted one stays until the next rebuild.
    entries: Vec<Entry>,
    /// Twice as long as there may be entries; 0: free, else a place in `entries`, plus one.
    index: Vec<u32>,
    live: usize,
    next_number: u64,
    version: u64,
    /// Changes when entries move.
    layout: u64,
}

/// Where a walk through the entries stands.
pub(super) struct Cursor {
    next: u64,
    end: u64,
    place: usize,
    layout: u64,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), index: Vec::new(), live: 0, next_number: 0, version: 0, layout: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// What `find`'s answer is good for.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Bytes of what it has asked for.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.index.capacity() * size_of::<u32>()
    }

    pub(super) fn value_at(&self, place: usize) -> Object {
        self.entries[place].value
    }

    /// Puts a value in the place of another, which is the caller's then.
    pub(super) fn replace(&mut self, place: usize, value: Object) -> Object {
        std::mem::replace(&mut self.entries[place].value, value)
    }

    fn first_slot(&self, hash: ffi::Py_hash_t) -> usize {
        let bits = self.index.len().trailing_zeros();
        ((hash as u64).wrapping_mul(SPREAD) >> (64 - bits)) as usize
    }

    /// Adds a key that `find` did not find; the counts go over to the table.
    ///
    /// # Errors
    /// Memory is refused; nothing changed.
    pub(super) fn insert(&mut self, hash: ffi::Py_hash_t, key: Object, value: Object) -> Result<(), ()> {
        if self.entries.len() * 2 >= self.index.len() {
            let capacity = (self.live * 2).next_power_of_two().max(LEAST);
            if capacity > MOST || self.rebuild(capacity).is_err() {
                return Err(());
            }
        }
        self.entries.push(Entry { key, value, hash, number: self.next_number }); // `rebuild` has made room
        self.next_number += 1;
        self.live += 1;
        self.version += 1;
        self.enter(self.entries.len() - 1);
        Ok(())
    }

    /// Writes an entry's place into the index.
    fn enter(&mut self, place: usize) {
        let mask = self.index.len() - 1;
        let mut slot = self.first_slot(self.entries[place].hash);
        while self.index[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.index[slot] = place as u32 + 1;
    }

    /// Takes an entry out; its key and value are the caller's then.
    pub(super) fn remove(&mut self, place: usize) -> (Object, Object) {
        let entry = &mut self.entries[place];
        let taken = (entry.key, entry.value);
        (entry.key, entry.value) = (ptr::null_mut(), ptr::null_mut());
        self.live -= 1;
        self.version += 1;
        if self.entries.len() > 8 * LEAST && self.live * 8 < self.entries.len() {
            let _ = self.rebuild((self.live * 2).next_power_of_two().max(LEAST)); // else it stays as it is
        }
        taken
    }

    /// Takes all entries out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Object, Object)> + use<> {
        self.index = Vec::new();
        self.live = 0;
        self.version += 1;
        self.layout += 1;
        let entries = std::mem::take(&mut self.entries);
        entries.into_iter().filter(|entry| !entry.key.is_null()).map(|entry| (entry.key, entry.value))
    }

    /// Drops the deleted entries and makes room for `capacity` in all; fails with nothing changed.
    fn rebuild(&mut self, capacity: usize) -> Result<(), TryReserveError> {
        if self.index.len() == 2 * capacity {
            self.entries.retain(|entry| !entry.key.is_null());
            self.index.fill(0);
        } else {
            let (mut entries, mut index) = (Vec::new(), Vec::new());
            entries.try_reserve_exact(capacity)?;
            index.try_reserve_exact(2 * capacity)?;
            index.resize(2 * capacity, 0);
            entries.extend(self.entries.drain(..).filter(|entry| !entry.key.is_null()));
            (self.entries, self.index) = (entries, index);
        }
        self.version += 1;
        self.layout += 1;
        (0..self.entries.len()).for_each(|place| self.enter(place));
        Ok(())
    }

    /// Calls `f` with every key and value; `f` runs no Python code.
    pub(super) fn for_each(&self, mut f: impl FnMut(Object)) {
        for entry in self.entries.iter().filter(|entry| !entry.key.is_null()) {
            f(entry.key);
            f(entry.value);
        }
    }

    /// A walk through what is there now.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { next: 0, end: self.next_number, place: 0, layout: self.layout }
    }

    /// The next entry of a walk.
    pub(super) fn step(&self, cursor: &mut Cursor) -> Option<&Entry> {
        if cursor.layout != self.layout {
            cursor.place = self.entries.partition_point(|entry| entry.number < cursor.next);
            cursor.layout = self.layout;
        }
        while let Some(entry) = self.entries.get(cursor.place).filter(|entry| entry.number < cursor.end) {
            cursor.place += 1;
            if !entry.key.is_null() {
                cursor.next = entry.number + 1;
                return Some(entry);
            }
        }
        None
    }
}

/// One look at an entry during a search.
enum Look {
    Same,
    Other,
    /// The table changed meanwhile.
    Changed,
    /// An exception is set.
    Failed,
}

/// The place of a key. `Err`: an exception is set.
///
/// # Safety
/// GIL held; `table` stays in place, its owner alive; `key` is alive, and `hash` its hash.
pub(super) unsafe fn find(table: *mut Table, key: Object, hash: ffi::Py_hash_t) -> Result<Option<usize>, ()> {
    // SAFETY: the caller's promise. No reference into the table is held while `compare` runs.
    unsafe {
        'again: loop {
            if (*table).index.is_empty() {
                return Ok(None);
            }
            let mask = (*table).index.len() - 1;
            let mut slot = (*table).first_slot(hash);
            loop {
                let place = match (&(*table).index)[slot] {
                    0 => return Ok(None), // at least half of them are free
                    place => place as usize - 1,
                };
                let entry = &raw const (&(*table).entries)[place];
                if (*entry).hash == hash && !(*entry).key.is_null() {
                    if (*entry).key == key {
                        return Ok(Some(place));
                    }
                    match compare(table, (*entry).key, key) {
                        Look::Same => return Ok(Some(place)),
                        Look::Other => {}
                        Look::Changed => continue 'again,
                        Look::Failed => return Err(()),
                    }
                }
                slot = (slot + 1) & mask;
            }
        }
    }
}

unsafe fn compare(table: *mut Table, theirs: Object, key: Object) -> Look {
    // SAFETY: as in `find`.
    unsafe {
        let version = (*table).version;
        ffi::Py_INCREF(theirs); // the comparison may delete it
        let same = ffi::PyObject_RichCompareBool(theirs, key, ffi::Py_EQ);
        ffi::Py_DECREF(theirs); // may run Python code as well
        match same {
            ..0 => Look::Failed,
            _ if (*table).version != version => Look::Changed,
            0 => Look::Other,
            _ => Look::Same,
        }
    }
}
