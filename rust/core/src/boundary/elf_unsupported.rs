//! `elf` where entries cannot be replaced: other systems, other C libraries, other CPUs, and models.
//!
//! The same names, no objects: a caller's loop over them does nothing. `SUPPORTED` tells.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Whether entries can be replaced here.
pub const SUPPORTED: bool = false;

/// What there is none of.
#[derive(Debug, Clone, Copy)]
enum Never {}

/// How many objects came and went: not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loads {
    /// Always 0.
    pub added: u64,
    /// Always 0.
    pub removed: u64,
}

/// Always the same.
pub fn loads() -> Loads {
    Loads::default()
}

/// Why an object could not be changed.
#[derive(Debug)]
pub enum Error {
    /// Memory is refused.
    NoMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory")
    }
}

impl std::error::Error for Error {}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What was executed.
    Program,
    /// The kernel's.
    Vdso,
    /// The loader.
    Loader,
    /// libc and its parts.
    CLibrary,
    /// Any other.
    Library,
}

/// What may be done with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Written at any time.
    Writable,
    /// Read only.
    ReadOnly,
    /// Nothing.
    Untouchable,
}

/// A loaded object.
#[derive(Debug)]
pub struct Object {
    /// Where it comes from.
    pub path: PathBuf,
    /// What it is.
    pub role: Role,
    /// What its addresses are relative to.
    pub base: usize,
    never: Never,
}

/// None.
///
/// # Errors
/// None here.
pub fn objects() -> Result<Vec<Object>, Error> {
    Ok(Vec::new())
}

impl Object {
    /// The file's name without its folders.
    pub fn file_name(&self) -> &OsStr {
        match self.never {}
    }
    /// Libc or one of its parts.
    pub fn is_c_library(&self) -> bool {
        match self.never {}
    }
    /// Whether code of this object stands at `address`.
    pub fn has_code(&self, _address: usize) -> bool {
        match self.never {}
    }
    /// Where its code is.
    pub fn code(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        std::iter::empty()
    }
    /// What is read-only since relocation.
    pub fn relro(&self) -> Range<usize> {
        match self.never {}
    }
    /// What may be done with the page of `address`.
    pub fn page(&self, _address: usize) -> Page {
        match self.never {}
    }
    /// Keeps the object loaded.
    ///
    /// # Errors
    /// None here.
    pub fn hold(&self) -> Result<Held<'_>, Error> {
        match self.never {}
    }
}

/// An object that stays loaded.
#[derive(Debug)]
pub struct Held<'a>(&'a Object);

impl Held<'_> {
    /// The object.
    pub fn object(&self) -> &Object {
        self.0
    }
    /// Its import tables.
    ///
    /// # Errors
    /// None here.
    pub fn imports(&self) -> Result<Vec<Import<'_>>, Error> {
        match self.0.never {}
    }
    /// The beginning of a change.
    pub fn edit(&self) -> Edit<'_> {
        Edit(self)
    }
}

/// How an object reaches what an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// Calls go through it.
    Call,
    /// The address is taken.
    Address,
}

/// One entry of an object's import tables.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The name.
    pub symbol: &'a CStr,
    /// The version.
    pub version: Option<&'a CStr>,
    /// The kind of entry.
    pub kind: ImportKind,
    /// Address of the pointer.
    pub slot: usize,
    /// The object has a definition of its own.
    pub is_defined: bool,
}

/// Where a replaced function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// The function.
    pub address: usize,
}

/// Finds nothing.
pub struct Originals<'a>(#[allow(dead_code)] &'a [Object]);

impl<'a> Originals<'a> {
    /// With no objects.
    pub fn new(objects: &'a [Object]) -> Self {
        Self(objects)
    }
    /// Nothing.
    ///
    /// # Errors
    /// None here.
    pub fn find(&mut self, _symbol: &CStr, _version: Option<&CStr>) -> Result<Option<Original>, Error> {
        Ok(None)
    }
}

/// Why an entry is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftAlone {
    /// The object defines the function itself.
    DefinedHere,
    /// It holds somebody else's function.
    Foreign(usize),
    /// It is replaced already.
    Already,
    /// It stands where code does.
    InCode,
    /// Memory is refused.
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

/// A change of one object's entries.
pub struct Edit<'a>(&'a Held<'a>);

impl Edit<'_> {
    /// Asks for `hook` in place of an import.
    ///
    /// # Errors
    /// None here.
    pub fn replace(&mut self, _import: &Import<'_>, _original: Original, _hook: usize) -> Result<(), LeftAlone> {
        match self.0.0.never {}
    }
    /// Replaces all that was asked for.
    ///
    /// # Errors
    /// None here.
    pub fn apply(self) -> Result<Patched, Error> {
        match self.0.0.never {}
    }
}

/// What `Patched::undo` did.
#[derive(Debug, Default)]
pub struct Undone {
    /// Entries that hold the original again.
    pub restored_count: usize,
    /// Entries somebody else has changed.
    pub foreign: Vec<CString>,
    /// The object is no longer loaded.
    pub is_unloaded: bool,
}

/// The replaced entries of one object.
#[derive(Debug)]
pub struct Patched {
    never: Never,
    /// Not replaced.
    pub left: Vec<(CString, LeftAlone)>,
    /// Pages that stayed writable.
    pub left_writable: Option<Error>,
}

impl Patched {
    /// The object.
    pub fn object(&self) -> &Object {
        match self.never {}
    }
    /// What is replaced.
    pub fn entries(&self) -> &[Entry] {
        match self.never {}
    }
    /// Keeps the object loaded.
    ///
    /// # Errors
    /// None here.
    pub fn keep_loaded(&mut self) -> Result<(), Error> {
        match self.never {}
    }
    /// Entries that do not hold our function any more.
    ///
    /// # Errors
    /// None here.
    pub fn missing(&self) -> Result<Vec<&Entry>, Error> {
        match self.never {}
    }
    /// Whether every entry holds our function.
    pub fn is_in_place(&self) -> bool {
        match self.never {}
    }
    /// Replaces again what was put back.
    ///
    /// # Errors
    /// None here.
    pub fn reapply(&self) -> Result<usize, Error> {
        match self.never {}
    }
    /// The same.
    ///
    /// # Errors
    /// None here.
    pub fn reapply_among(&self, _all: &[Object]) -> Result<usize, Error> {
        match self.never {}
    }
    /// Puts the originals back.
    ///
    /// # Errors
    /// None here.
    pub fn undo(&mut self) -> Result<Undone, Error> {
        match self.never {}
    }
}
