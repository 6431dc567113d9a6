//! Originals: what a slot would lead to if nobody had replaced it.
//!
//! Never read from the slot, which in a lazily bound object leads to the resolver, and the resolver would overwrite the
//! replacement at its first call. The loader's lookups are close to what it binds a reference to, but not the same:
//!
//! - dlvsym passes over a function without a version when the object it stands in needs versions of others. That is
//!   what an LD_PRELOAD library looks like, and references do bind to it (glibc's elf/dl-lookup.c, `check_match`: `hidden`).
//! - Both lookups return the PLT entry of a program that is not position independent and takes the function's address.
//!   It leads back through the program's own slot, so a replacement that calls it would call itself.

use super::object::{Object, Role, owner};
use super::tables::Definition;
use crate::sys::loader;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// Where a replaced function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// The function; what a replacement calls, and what goes back into the slot.
    pub address: usize,
    /// What slots hold when they are bound: the function, or the program's PLT entry that stands for it.
    pub(super) bound: usize,
}

impl Original {
    /// A function that references are bound to directly.
    pub(super) fn of_function(address: usize) -> Self {
        Self { address, bound: address }
    }
}

/// Looks originals up in the global scope, each once.
pub struct Originals<'a> {
    objects: &'a [Object],
    found: HashMap<(CString, Option<CString>), Option<Original>>,
}

impl<'a> Originals<'a> {
    /// With all loaded objects, as `objects` lists them.
    pub fn new(objects: &'a [Object]) -> Self {
        Self { objects, found: HashMap::new() }
    }

    /// What references to `symbol` at `version` lead to; `None` when nothing in the global scope has it, and the import
    /// is to be left alone. May run the resolver of an IFUNC.
    pub fn find(&mut self, symbol: &CStr, version: Option<&CStr>) -> Option<Original> {
        let key = (symbol.to_owned(), version.map(CStr::to_owned));
        if let Some(found) = self.found.get(&key) {
            return *found;
        }
        let found = self.look_up(symbol, version);
        self.found.insert(key, found);
        found
    }

    fn look_up(&self, symbol: &CStr, version: Option<&CStr>) -> Option<Original> {
        let first = loader::symbol(symbol, None);
        let exact = if version.is_some() { loader::symbol(symbol, version) } else { first };
        let bound = match (first, exact) {
            (Some(first), _) if Some(first) != exact && self.interposes(symbol, first, exact) => first,
            _ => exact?,
        };
        let address = if self.is_stand_in(symbol, bound) { self.behind_program(symbol, version)? } else { bound };
        Some(Original { address, bound })
    }

    fn definition(&self, object: &Object, symbol: &CStr) -> Definition {
        // An object that went away or whose tables cannot be read defines nothing that could be called.
        let found = object.hold().and_then(|held| Ok(held.tables()?.definition(symbol)));
        found.unwrap_or(Definition::None)
    }

    /// Whether the function at `first` is one without a version that comes before the one with the right version.
    fn interposes(&self, symbol: &CStr, first: usize, exact: Option<usize>) -> bool {
        let Some((place, object)) = owner(self.objects, first) else { return false };
        let exact_place = exact.and_then(|e| owner(self.objects, e)).map_or(usize::MAX, |(place, _)| place);
        place < exact_place && self.definition(object, symbol) == Definition::Unversioned
    }

    /// Whether the address is the program's, which does not define the function: its PLT entry.
    fn is_stand_in(&self, symbol: &CStr, address: usize) -> bool {
        let program = self.objects.first().filter(|o| o.role == Role::Program && o.has_code(address));
        program.is_some_and(|p| self.definition(p, symbol) == Definition::None)
    }

    /// The first definition after the program's that the loader would take.
    fn behind_program(&self, symbol: &CStr, version: Option<&CStr>) -> Option<usize> {
        self.objects.iter().skip(1).find_map(|object| {
            let held = object.hold().ok()?;
            match held.tables().ok()?.definition(symbol) {
                Definition::None => None,
                Definition::Unversioned => held.handle.symbol(symbol, None),
                // The object's own comes first in the scope of its handle; another object's is found in its own turn.
                Definition::Versioned => held.handle.symbol(symbol, version),
            }
        })
    }
}
