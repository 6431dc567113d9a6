//! Loaded objects: what is mapped where, who they are, and holding one so that its tables may be read and changed.
//!
//! An `Object` is a description and may outlive what it describes. A `Held` keeps the object loaded. Taking it waits for
//! a dlopen in another thread, which shows its objects before it has relocated them: a slot replaced then would be
//! overwritten, or worse, a lazy one gets the base added to our address.

use super::Error;
use super::edit::Edit;
use super::symbols::Original;
use super::tables::{Import, Tables, Unreadable, own_name};
use crate::primitive::tries::{try_copy, try_list, try_path, try_push, try_text};
use crate::sys::loader::{self, Handle, Loaded, Segment};
use crate::sys::memory::page_bytes;
use std::ffi::{CStr, CString, OsStr};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

/// Parts of the C library that glibc before 2.34 keeps in files of their own, which call each other.
const C_LIBRARY: [&[u8]; 4] = [b"libc.so.6", b"libpthread.so.0", b"librt.so.1", b"libdl.so.2"];

/// As long as a path that the system gives may be.
const PATH_BYTES: usize = 4096;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What was executed.
    Program,
    /// The kernel's.
    Vdso,
    /// ld.so.
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
    /// Read only: by its segment, or because the loader protected it after relocation (RELRO).
    ReadOnly,
    /// Executable, or nothing of this object's.
    Untouchable,
}

/// A loaded object, as it was when it was listed.
#[derive(Debug)]
pub struct Object {
    /// Where it comes from; the program's from /proc/self/exe.
    pub path: PathBuf,
    /// What it is.
    pub role: Role,
    /// What its addresses are relative to.
    pub base: usize,
    pub(super) dynamic: Option<Range<usize>>,
    segments: Vec<Segment>,
    relro: Option<Range<usize>>,
    /// The loader's name, by which it finds the object again.
    name: CString,
}

/// All loaded objects in the loader's order: the program, what was preloaded, what they depend on, what was opened later.
///
/// # Errors
/// `NoMemory`.
pub fn objects() -> Result<Vec<Object>, Error> {
    let (mut out, mut is_whole) = (Vec::new(), Some(()));
    loader::each(|loaded| {
        let is_program = out.is_empty();
        let add = |out| try_push(out, Object::new(loaded, is_program)?);
        is_whole = is_whole.and_then(|()| add(&mut out));
    });
    is_whole.ok_or(Error::NoMemory)?;
    if let Some(program) = out.first_mut().filter(|o: &&mut Object| o.name.is_empty()) {
        // Asked outside of the loader's lock. Without /proc it stays nameless, which harms nothing.
        let mut path = [0; PATH_BYTES];
        program.path = path_of(loader::program_path(&mut path)).ok_or(Error::NoMemory)?;
    }
    Ok(out)
}

/// A path of these bytes; `None`: memory is refused.
fn path_of(bytes: &[u8]) -> Option<PathBuf> {
    try_path(Path::new(OsStr::from_bytes(bytes)))
}

/// A copy of `text`; `None`: memory is refused.
pub(super) fn try_name(text: &CStr) -> Option<CString> {
    // SAFETY: a copy of a C string, its end included; exactly as long as its memory, which `CString` would otherwise exchange.
    Some(unsafe { CString::from_vec_with_nul_unchecked(try_copy(text.to_bytes_with_nul())?) })
}

impl Object {
    /// `None`: memory is refused.
    fn new(loaded: &Loaded<'_>, is_program: bool) -> Option<Self> {
        let mut object = Self {
            path: path_of(loaded.name.to_bytes())?,
            role: Role::Library,
            base: loaded.base,
            dynamic: loaded.dynamic(),
            segments: loaded.segments()?,
            relro: loaded.relro(),
            name: try_name(loaded.name)?,
        };
        object.role = if is_program { Role::Program } else { object.role_of_library() };
        Some(object)
    }

    /// Another description of the same; `None`: memory is refused.
    pub(super) fn try_clone(&self) -> Option<Self> {
        Some(Self {
            path: try_path(&self.path)?,
            role: self.role,
            base: self.base,
            dynamic: self.dynamic.clone(),
            segments: try_list(self.segments.iter().cloned())?,
            relro: self.relro.clone(),
            name: try_name(&self.name)?,
        })
    }

    /// An error about this object, whose path `make` is given; `NoMemory` where there is none for that.
    pub(super) fn error(&self, make: impl FnOnce(PathBuf) -> Error) -> Error {
        try_path(&self.path).map_or(Error::NoMemory, make)
    }

    fn role_of_library(&self) -> Role {
        if loader::vdso().is_some_and(|address| self.segment(address, 1).is_some()) {
            return Role::Vdso;
        }
        // SAFETY: called inside the loader's walk, which keeps the object until its visitor returns.
        let name = own_name(unsafe { Mapped::new(self) }).map_or(&b""[..], CStr::to_bytes);
        if name.starts_with(b"ld-linux") || name.starts_with(b"ld.so") {
            Role::Loader
        } else if C_LIBRARY.contains(&name) {
            Role::CLibrary
        } else {
            Role::Library
        }
    }

    /// Libc or one of its parts, whose calls must stay as they are.
    pub fn is_c_library(&self) -> bool {
        self.role == Role::CLibrary
    }

    /// The file's name without its folders.
    pub fn file_name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Whether code of this object stands at `address`.
    pub fn has_code(&self, address: usize) -> bool {
        self.segment(address, 1).is_some_and(|s| s.executable)
    }

    /// Where its code is.
    pub fn code(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.segments.iter().filter(|s| s.executable).map(|s| s.range.clone())
    }

    /// What is read-only since relocation: whole pages, as the loader rounds them.
    pub fn relro(&self) -> Range<usize> {
        let page = page_bytes();
        self.relro.as_ref().map_or(0..0, |r| r.start / page * page..r.end / page * page)
    }

    /// What may be done with the page of `address`.
    pub fn page(&self, address: usize) -> Page {
        match self.segment(address, size_of::<usize>()) {
            Some(segment) if segment.executable => Page::Untouchable,
            Some(segment) if segment.writable && !self.relro().contains(&address) => Page::Writable,
            Some(_) => Page::ReadOnly,
            None => Page::Untouchable,
        }
    }

    /// The segment the bytes lie in.
    fn segment(&self, address: usize, bytes: usize) -> Option<&Segment> {
        let end = address.checked_add(bytes)?;
        self.segments.iter().find(|s| s.range.start <= address && end <= s.range.end)
    }

    /// Whether the other description is of the same object.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.place() == other.place() && self.name == other.name
    }

    fn place(&self) -> (usize, usize) {
        (self.base, self.dynamic.as_ref().map_or(0, |d| d.start))
    }

    /// Keeps the object loaded until the result is dropped. Waits for a dlopen of another thread to end.
    ///
    /// # Errors
    /// `Protected` for the vdso and the loader, `Gone` when the object is no longer loaded; `NoMemory`.
    pub fn hold(&self) -> Result<Held<'_>, Error> {
        if matches!(self.role, Role::Vdso | Role::Loader) {
            return Err(self.error(|object| Error::Protected { object }));
        }
        let gone = |reason| self.error(|object| Error::Gone { object, reason });
        let handle = Handle::of_loaded(&self.name).map_err(gone)?;
        if handle.place() != Some(self.place()) {
            return Err(gone(try_text("another object has its name").unwrap_or_default()));
        }
        Ok(Held { object: self, handle })
    }
}

/// An object that stays loaded as long as this lives.
#[derive(Debug)]
pub struct Held<'a> {
    pub(super) object: &'a Object,
    pub(super) handle: Handle,
}

impl Held<'_> {
    /// The object.
    pub fn object(&self) -> &Object {
        self.object
    }

    pub(super) fn tables(&self) -> Result<Tables<'_>, Error> {
        // SAFETY: the object is loaded as long as the handle in `self` lives.
        let mapped = unsafe { Mapped::new(self.object) };
        Tables::read(mapped).map_err(|why| match why {
            Unreadable::Malformed(what) => self.object.error(|object| Error::Malformed { object, what }),
            Unreadable::NoMemory => Error::NoMemory,
        })
    }

    /// The entries of its import tables; none for a static program.
    ///
    /// # Errors
    /// `Malformed` when the tables are of a kind this CPU's ABI does not have, or point outside of the object; `NoMemory`.
    pub fn imports(&self) -> Result<Vec<Import<'_>>, Error> {
        if self.object.dynamic.is_none() {
            return Ok(Vec::new());
        }
        try_list(self.tables()?.imports()).ok_or(Error::NoMemory)
    }

    /// The beginning of a change of this object's entries.
    pub fn edit(&self) -> Edit<'_> {
        Edit::new(self)
    }

    /// The address of a function of the object, or of one it depends on, by the name it exports.
    pub fn symbol(&self, name: &CStr) -> Option<usize> {
        self.handle.symbol(name, None)
    }

    /// The same, as the original of an import that the global scope does not have.
    pub fn original(&self, name: &CStr) -> Option<Original> {
        self.symbol(name).map(Original::of_function)
    }

    /// Keeps it loaded after the description is gone.
    pub(super) fn into_handle(self) -> Handle {
        self.handle
    }
}

/// The memory of an object that is known to be loaded. Reads what lies within one segment.
#[derive(Clone, Copy)]
pub(super) struct Mapped<'a>(&'a Object);

impl<'a> Mapped<'a> {
    /// # Safety
    /// The object stays loaded for `'a`.
    pub(super) unsafe fn new(object: &'a Object) -> Self {
        Self(object)
    }

    pub(super) fn base(self) -> usize {
        self.0.base
    }

    pub(super) fn dynamic(self) -> Option<Range<usize>> {
        self.0.dynamic.clone()
    }

    /// What an address of the dynamic section means. glibc rewrites them to absolute ones, except in the vdso's and in
    /// other dynamic sections it cannot write to.
    pub(super) fn absolute(self, address: usize) -> usize {
        if self.0.segment(address, 1).is_some() { address } else { self.0.base.wrapping_add(address) }
    }

    /// A table of integers or records of integers that the file has there and nothing writes to after loading.
    pub(super) fn slice<T: Copy>(self, address: usize, count: usize) -> Option<&'a [T]> {
        let bytes = count.checked_mul(size_of::<T>())?;
        if address == 0 || !address.is_multiple_of(align_of::<T>()) || self.0.segment(address, bytes).is_none() {
            return None;
        }
        // SAFETY: mapped by the promise of `new`, readable as every segment is, aligned; any bits are a `T` of integers.
        Some(unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance(address), count) })
    }

    pub(super) fn read<T: Copy>(self, address: usize) -> Option<T> {
        self.slice(address, 1).map(|found| found[0])
    }
}

/// The object in `objects` that has `address` among its code, and its place in the list.
pub(super) fn owner(objects: &[Object], address: usize) -> Option<(usize, &Object)> {
    objects.iter().enumerate().find(|(_, o)| o.has_code(address))
}
