//! Replacing entries, looking after them, and putting them back.
//!
//! A lazily bound slot is first bound to the original. A thread that is inside the loader's resolver for it at that
//! moment still stores what it found, at any later time: `Patched::reapply` repairs that, and callers repeat it whenever
//! they look at the objects again. Every store is a compare-and-swap against what the slot may rightly hold, so that
//! whoever else replaced the entry, before us or on top of us, keeps his.

use super::Error;
use super::object::{Held, Object, Page, objects, try_name};
use super::symbols::Original;
use super::tables::{Import, ImportKind};
use crate::primitive::tries::{try_list, try_push};
use crate::primitive::{Mutex, MutexGuard};
use crate::sys::loader::Handle;
use crate::sys::memory::{page_bytes, set_writable};
use crate::sys::thread::fence_all;
use std::ffi::CString;
use std::io::ErrorKind;
use std::ops::Range;
use std::ptr;
// Not primitive's: the slots are memory of the loader's.
use std::sync::atomic::{AtomicUsize, Ordering};

/// Who makes pages writable. Two at once could take each other's permission away between it and the store.
static EDITING: Mutex<()> = Mutex::new(());

/// Keeps others from it; also over a fork.
pub(in crate::boundary) fn editing() -> MutexGuard<'static, ()> {
    EDITING.lock().unwrap_or_else(|e| e.into_inner())
}

/// Why an entry is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftAlone {
    /// The object defines the function itself.
    DefinedHere,
    /// It holds neither the original nor the way to the resolver: somebody else's function, or 0 for a weak reference
    /// that nothing satisfied.
    Foreign(usize),
    /// It is replaced already.
    Already,
    /// It stands where code does.
    InCode,
    /// Memory is refused, now.
    NoMemory,
}

/// One replaced entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The function's name.
    pub symbol: CString,
    /// The kind of entry.
    pub kind: ImportKind,
    /// Address of the pointer.
    pub slot: usize,
    /// Our function.
    pub hook: usize,
    /// What it replaces.
    pub original: Original,
}

impl Entry {
    fn slot(&self, _held: &Object) -> &AtomicUsize {
        // SAFETY: an aligned pointer inside a segment of the object, which the caller holds; the loader and its resolver
        // store whole pointers there.
        unsafe { AtomicUsize::from_ptr(ptr::with_exposed_provenance_mut(self.slot)) }
    }

    fn is_original(&self, value: usize) -> bool {
        value == self.original.address || value == self.original.bound
    }

    fn may_replace(&self, object: &Object, value: usize) -> bool {
        let is_unbound = self.kind == ImportKind::Call && object.has_code(value);
        self.is_original(value) || is_unbound
    }

    /// Stores `new` where something stands that we may replace. `Err`: what stands there instead.
    fn store(&self, object: &Object, new: usize) -> Result<(), usize> {
        let slot = self.slot(object);
        let mut value = slot.load(Ordering::Relaxed); // only compared
        loop {
            if value == new {
                return Ok(());
            }
            if !self.may_replace(object, value) {
                return Err(value);
            }
            // Release: with the fence of `apply`, a thread that comes through the slot sees what the hook needs.
            match slot.compare_exchange_weak(value, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => value = now,
            }
        }
    }
}

/// Pages of an object made writable for a moment.
struct Window<'a> {
    object: &'a Object,
    open: Vec<Range<usize>>,
}

impl<'a> Window<'a> {
    /// Opens the pages of these slots, those that are not writable anyway.
    fn open(object: &'a Object, slots: impl Iterator<Item = usize>) -> Result<Self, Error> {
        let page = page_bytes();
        let read_only = slots.filter(|s| object.page(*s) == Page::ReadOnly).map(|s| s / page * page);
        let mut pages = try_list(read_only).ok_or(Error::NoMemory)?;
        pages.sort_unstable();
        pages.dedup();
        let mut window = Self { object, open: Vec::new() };
        window.open.try_reserve(pages.len()).map_err(|_| Error::NoMemory)?;
        for run in pages.chunk_by(|a, b| a + page == *b) {
            let range = run[0]..run[run.len() - 1] + page;
            if let Err(error) = window.set(&range, true) {
                // The first reason is the one to tell; what was open closes or stays writable, which harms nobody.
                let _ = window.close();
                return Err(match error {
                    // To split a mapping the kernel needs memory, too.
                    Error::Protection { source, .. } if source.kind() == ErrorKind::OutOfMemory => Error::NoMemory,
                    error => error,
                });
            }
            window.open.push(range);
        }
        Ok(window)
    }

    fn set(&self, range: &Range<usize>, writable: bool) -> Result<(), Error> {
        let (start, bytes) = (range.start, range.len());
        // SAFETY: whole pages of a held object without code; read-only is what they were before, see `Object::page`.
        unsafe { set_writable(start, bytes, writable) }
            .map_err(|source| self.object.error(|object| Error::Protection { object, start, bytes, source }))
    }

    fn close(&mut self) -> Result<(), Error> {
        let open = std::mem::take(&mut self.open);
        open.iter().map(|range| self.set(range, false)).fold(Ok(()), Result::and)
    }
}

/// A change of one object's entries, collected before it is made.
pub struct Edit<'a> {
    held: &'a Held<'a>,
    entries: Vec<Entry>,
}

impl<'a> Edit<'a> {
    pub(super) fn new(held: &'a Held<'a>) -> Self {
        Self { held, entries: Vec::new() }
    }

    /// Asks for `hook` in place of an import of this object.
    ///
    /// # Errors
    /// Why it stays as it is.
    pub fn replace(&mut self, import: &Import<'_>, original: Original, hook: usize) -> Result<(), LeftAlone> {
        let object = self.held.object;
        if import.is_defined {
            return Err(LeftAlone::DefinedHere);
        }
        if object.page(import.slot) == Page::Untouchable {
            return Err(LeftAlone::InCode);
        }
        let symbol = try_name(import.symbol).ok_or(LeftAlone::NoMemory)?;
        let (kind, slot) = (import.kind, import.slot);
        let entry = Entry { symbol, kind, slot, hook, original };
        let value = entry.slot(object).load(Ordering::Relaxed); // only compared
        if value == hook {
            return Err(LeftAlone::Already);
        }
        if !entry.may_replace(object, value) {
            return Err(LeftAlone::Foreign(value));
        }
        try_push(&mut self.entries, entry).ok_or(LeftAlone::NoMemory)
    }

    /// Replaces all that was asked for. The hooks may be entered before this returns, so what they need is there before.
    ///
    /// # Errors
    /// `Protection`, `NoMemory`: nothing was replaced.
    pub fn apply(self) -> Result<Patched, Error> {
        let Self { held, entries } = self;
        let object = held.object;
        let mut out = Patched {
            object: object.try_clone().ok_or(Error::NoMemory)?,
            handle: None,
            entries: Vec::new(),
            left: Vec::new(),
            left_writable: None,
        };
        let count = entries.len();
        if out.entries.try_reserve_exact(count).is_err() || out.left.try_reserve_exact(count).is_err() {
            return Err(Error::NoMemory);
        }
        if entries.is_empty() {
            return Ok(out);
        }
        let _editing = editing();
        let mut window = Window::open(object, entries.iter().map(|e| e.slot))?;
        // Bound first, so that only threads already inside the resolver can still overwrite the hook.
        for entry in &entries {
            let _ = entry.store(object, entry.original.bound);
        }
        // A thread that enters a hook through its slot has acquired nothing. On x86-64 it cannot see the slot and miss
        // what was stored before; elsewhere it can unless it has fenced since. Where the system does not do it, that
        // takes a load speculated across the call by a core that has not seen the older store for as long.
        if cfg!(not(target_arch = "x86_64")) {
            fence_all();
        }
        for entry in entries {
            match entry.store(object, entry.hook) {
                Ok(()) => out.entries.push(entry),
                Err(value) => out.left.push((entry.symbol, LeftAlone::Foreign(value))),
            }
        }
        out.left_writable = window.close().err();
        Ok(out)
    }
}

/// What `Patched::undo` did.
#[derive(Debug, Default)]
pub struct Undone {
    /// Entries that hold the original again.
    pub restored_count: usize,
    /// Entries somebody else has changed on top of ours, by name; left alone. Our function stays in use through them.
    pub foreign: Vec<CString>,
    /// The object is no longer loaded: nothing was touched.
    pub is_unloaded: bool,
}

/// The replaced entries of one object.
#[derive(Debug)]
pub struct Patched {
    object: Object,
    handle: Option<Handle>,
    entries: Vec<Entry>,
    /// Asked for and not replaced, as somebody else changed the entry meanwhile.
    pub left: Vec<(CString, LeftAlone)>,
    /// The pages could not be made read-only again. The entries are replaced nonetheless.
    pub left_writable: Option<Error>,
}

impl Patched {
    /// The object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// What is replaced.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Keeps the object loaded from now on, so that its dlclose does not unload it.
    ///
    /// # Errors
    /// `Gone`, `NoMemory`.
    pub fn keep_loaded(&mut self) -> Result<(), Error> {
        if self.handle.is_none() {
            self.handle = Some(self.object.hold()?.into_handle());
        }
        Ok(())
    }

    /// Holds the object for a while, if it is the one that was changed. Another may be at its place under its name: the
    /// file was replaced between a dlclose and a dlopen. Its slots are only touched where they hold our functions.
    fn while_loaded<T>(&self, work: impl FnOnce(&Object) -> T) -> Result<Option<T>, Error> {
        if self.handle.is_some() {
            return Ok(Some(work(&self.object)));
        }
        self.while_among(&objects()?, work)
    }

    /// The same with all objects that are loaded now.
    fn while_among<T>(&self, all: &[Object], work: impl FnOnce(&Object) -> T) -> Result<Option<T>, Error> {
        let Some(now) = all.iter().find(|o| o.is(&self.object)) else { return Ok(None) };
        match now.hold() {
            Ok(held) => Ok(Some(work(held.object()))),
            Err(Error::NoMemory) => Err(Error::NoMemory),
            Err(_) => Ok(None),
        }
    }

    fn missing_in(&self, object: &Object) -> Result<Vec<&Entry>, Error> {
        let reads_hook = |e: &&Entry| e.slot(object).load(Ordering::Relaxed) == e.hook; // only compared
        let here = |e: &&Entry| object.page(e.slot) != Page::Untouchable;
        try_list(self.entries.iter().filter(|e| !here(e) || !reads_hook(e))).ok_or(Error::NoMemory)
    }

    /// Entries that do not hold our function any more; all of them when the object is unloaded.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn missing(&self) -> Result<Vec<&Entry>, Error> {
        let found = self.while_loaded(|object| self.missing_in(object))?;
        found.unwrap_or_else(|| try_list(&self.entries).ok_or(Error::NoMemory))
    }

    /// Whether every entry holds our function, as far as there is memory to see.
    pub fn is_in_place(&self) -> bool {
        self.missing().is_ok_and(|missing| missing.is_empty())
    }

    /// Replaces again what a late resolver put back, and gives the number of entries. What somebody else put there stays.
    ///
    /// # Errors
    /// `Protection`, `NoMemory`.
    pub fn reapply(&self) -> Result<usize, Error> {
        self.while_loaded(|object| self.reapply_in(object))?.unwrap_or(Ok(0))
    }

    /// The same where `all` is what `objects` listed just now.
    ///
    /// # Errors
    /// As those of `reapply`.
    pub fn reapply_among(&self, all: &[Object]) -> Result<usize, Error> {
        self.while_among(all, |object| self.reapply_in(object))?.unwrap_or(Ok(0))
    }

    fn reapply_in(&self, object: &Object) -> Result<usize, Error> {
        let missing = self.missing_in(object)?;
        let ours = missing.iter().filter(|e| object.page(e.slot) != Page::Untouchable);
        Self::exchange(object, ours.copied(), |entry| {
            let slot = entry.slot(object);
            let value = slot.load(Ordering::Relaxed); // only compared
            // Only what a resolver stores. The way to the resolver would mean that this is another object.
            entry.is_original(value)
                // Release: as in `store`.
                && slot.compare_exchange(value, entry.hook, Ordering::Release, Ordering::Relaxed).is_ok()
        })
    }

    /// Puts the originals back where our functions stand. Threads may be inside them still, and come to them later from
    /// an address they loaded before.
    ///
    /// # Errors
    /// `NoMemory`: nothing was put back. `Protection`: nothing was, and undo may be tried again; or everything was, and pages stay
    /// writable.
    pub fn undo(&mut self) -> Result<Undone, Error> {
        let done = self.while_loaded(|object| {
            let here = |e: &&Entry| object.page(e.slot) != Page::Untouchable;
            let ours = self.entries.iter().filter(here);
            let mut foreign = Vec::new();
            foreign.try_reserve(ours.clone().count()).map_err(|_| Error::NoMemory)?;
            let restored_count = Self::exchange(object, ours, |entry| {
                let (ours, theirs) = (entry.hook, entry.original.bound);
                // Nothing to publish: the original is older than we are.
                let put = entry.slot(object).compare_exchange(ours, theirs, Ordering::Relaxed, Ordering::Relaxed);
                if put.is_err_and(|value| !entry.may_replace(object, value)) {
                    foreign.extend(try_name(&entry.symbol)); // where there is no memory it is not told
                }
                put.is_ok()
            })?;
            Ok(Undone { restored_count, foreign, is_unloaded: false })
        });
        let done = done?.unwrap_or(Ok(Undone { is_unloaded: true, ..Undone::default() }))?;
        self.entries.clear();
        self.handle = None;
        Ok(done)
    }

    fn exchange<'e>(
        object: &Object,
        entries: impl Iterator<Item = &'e Entry> + Clone,
        mut store: impl FnMut(&Entry) -> bool,
    ) -> Result<usize, Error> {
        let _editing = editing();
        let mut window = Window::open(object, entries.clone().map(|e| e.slot))?;
        let count = entries.filter(|e| store(e)).count();
        window.close()?;
        Ok(count)
    }
}
