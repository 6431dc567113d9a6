//! Originals: what a slot would lead to if nobody had replaced it.
//!
//! Never read from the slot, which in a lazily bound object leads to the resolver, and the resolver would overwrite the
//! replacement at its first call. The loader's lookups are close to what it binds a reference to, but not the same:
//!
//! - dlvsym passes over a function without a version when the object it stands in needs versions of others. That is
//!   what an LD_PRELOAD library looks like, and references do bind to it (glibc's elf/dl-lookup.c, `check_match`: `hidden`).
//! - Both lookups return the PLT entry of a program that is not position independent and takes the function's address.
//!   It leads back through the program's own slot, so a replacement that calls it would call itself.

use super::Error;
use super::object::{Object, Role, owner, try_name};
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
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn find(&mut self, symbol: &CStr, version: Option<&CStr>) -> Result<Option<Original>, Error> {
        let copied = |text| try_name(text).ok_or(Error::NoMemory);
        let key = (copied(symbol)?, version.map(copied).transpose()?);
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        self.found.try_reserve(1).map_err(|_| Error::NoMemory)?;
        let found = self.look_up(symbol, version)?;
        self.found.insert(key, found);
        Ok(found)
    }

    fn look_up(&self, symbol: &CStr, version: Option<&CStr>) -> Result<Option<Original>, Error> {
        let first = loader::symbol(symbol, None);
        let exact = if version.is_some() { loader::symbol(symbol, version) } else { first };
        let bound = match (first, exact) {
            (Some(first), _) if Some(first) != exact && self.interposes(symbol, first, exact)? => first,
            (_, Some(exact)) => exact,
            (_, None) => return Ok(None),
        };
        let address =
            if self.is_stand_in(symbol, bound)? { self.behind_program(symbol, version)? } else { Some(bound) };
        Ok(address.map(|address| Original { address, bound }))
    }

    fn definition(&self, object: &Object, symbol: &CStr) -> Result<Definition, Error> {
        match object.hold().and_then(|held| Ok(held.tables()?.definition(symbol))) {
            Err(Error::NoMemory) => Err(Error::NoMemory),
            // An object that went away or whose tables cannot be read defines nothing that could be called.
            found => Ok(found.unwrap_or(Definition::None)),
        }
    }

    /// Whether the function at `first` is one without a version that comes before the one with the right version.
    fn interposes(&self, symbol: &CStr, first: usize, exact: Option<usize>) -> Result<bool, Error> {
        let Some((place, object)) = owner(self.objects, first) else { return Ok(false) };
        let exact_place = exact.and_then(|e| owner(self.objects, e)).map_or(usize::MAX, |(place, _)| place);
        Ok(place < exact_place && self.definition(object, symbol)? == Definition::Unversioned)
    }

    /// Whether the address is the program's, which does not define the function: its PLT entry.
    fn is_stand_in(&self, symbol: &CStr, address: usize) -> Result<bool, Error> {
        let program = self.objects.first().filter(|o| o.role == Role::Program && o.has_code(address));
        let Some(program) = program else { return Ok(false) };
        Ok(self.definition(program, symbol)? == Definition::None)
    }

    /// The first definition after the program's that the loader would take.
    fn behind_program(&self, symbol: &CStr, version: Option<&CStr>) -> Result<Option<usize>, Error> {
        for object in self.objects.iter().skip(1) {
            let Ok(held) = object.hold() else { continue };
            let found = match self.definition(object, symbol)? {
                Definition::None => None,
                Definition::Unversioned => held.handle.symbol(symbol, None),
                // The object's own comes first in the scope of its handle; another object's is found in its own turn.
                Definition::Versioned => held.handle.symbol(symbol, version),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
