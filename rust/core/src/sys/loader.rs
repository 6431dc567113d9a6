//! The dynamic loader of glibc: which objects are loaded, references that keep one loaded, symbols by name and version.
//!
//! Everything here may take the loader's lock, which another thread holds while it is inside dlopen. Not for signal
//! handlers.

use crate::primitive::tries::{try_list, try_text};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::{ControlFlow, Range};
use std::ptr::{self, NonNull};

/// A part of an object's file as it lies in memory: addresses and what may be done there, before RELRO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// First to one past the last byte.
    pub range: Range<usize>,
    /// The loader maps it writable.
    pub writable: bool,
    /// The loader maps it executable.
    pub executable: bool,
}

/// How many objects were loaded and unloaded so far. Equal twice: nothing changed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loads {
    /// dlopen's and the start's.
    pub added: u64,
    /// dlclose's.
    pub removed: u64,
}

/// One loaded object, as `each` shows it. The object stays loaded until the visitor returns.
pub struct Loaded<'a> {
    /// The name the loader knows it by; empty for the program.
    pub name: &'a CStr,
    /// What its addresses are relative to.
    pub base: usize,
    headers: &'a [libc::Elf64_Phdr],
}

impl Loaded<'_> {
    fn range_of(&self, header: &libc::Elf64_Phdr) -> Range<usize> {
        let start = self.base.wrapping_add(header.p_vaddr as usize);
        start..start.wrapping_add(header.p_memsz as usize)
    }

    fn first(&self, kind: u32) -> Option<Range<usize>> {
        self.headers.iter().find(|h| h.p_type == kind).map(|h| self.range_of(h))
    }

    /// What is mapped of it. `None`: memory is refused.
    pub fn segments(&self) -> Option<Vec<Segment>> {
        let mapped = self.headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
        let has = |header: &libc::Elf64_Phdr, flag| header.p_flags & flag != 0;
        let segment =
            |h| Segment { range: self.range_of(h), writable: has(h, libc::PF_W), executable: has(h, libc::PF_X) };
        try_list(mapped.map(segment))
    }

    /// Its dynamic section; a static program has none.
    pub fn dynamic(&self) -> Option<Range<usize>> {
        self.first(libc::PT_DYNAMIC)
    }

    /// What its file asks to be read-only after relocation, not rounded to pages.
    pub fn relro(&self) -> Option<Range<usize>> {
        self.first(libc::PT_GNU_RELRO)
    }
}

type Visitor<'a> = &'a mut dyn FnMut(&Loaded<'_>, Loads) -> ControlFlow<()>;

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, bytes: usize, visitor: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid record and what `walk` gave it.
    let (info, visitor) = unsafe { (&*info, &mut *visitor.cast::<Visitor<'_>>()) };
    let counted = bytes >= std::mem::offset_of!(libc::dl_phdr_info, dlpi_subs) + size_of::<u64>();
    let loads = if counted { Loads { added: info.dlpi_adds, removed: info.dlpi_subs } } else { Loads::default() };
    let name = if info.dlpi_name.is_null() {
        c""
    } else {
        // SAFETY: a C string of the loader's, which lives as long as the object.
        unsafe { CStr::from_ptr(info.dlpi_name) }
    };
    let headers = if info.dlpi_phdr.is_null() {
        &[]
    } else {
        // SAFETY: the loader's count of the object's own headers, mapped while the callback runs.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize) }
    };
    c_int::from(visitor(&Loaded { name, base: info.dlpi_addr as usize, headers }, loads).is_break())
}

fn walk(mut visitor: Visitor<'_>) {
    // SAFETY: `visit` gets the visitor back, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut visitor).cast()) };
}

/// Shows every loaded object to `visitor`, the program first. The visitor runs under a lock of the loader's: it must not
/// load, unload or look up anything.
pub fn each(mut visitor: impl FnMut(&Loaded<'_>)) {
    walk(&mut |object, _| {
        visitor(object);
        ControlFlow::Continue(())
    });
}

/// How many objects came and went. Cheap: looks at one object.
pub fn loads() -> Loads {
    let mut out = Loads::default();
    walk(&mut |_, loads| {
        out = loads;
        ControlFlow::Break(())
    });
    out
}

/// An address inside the vdso, if there is one.
pub fn vdso() -> Option<usize> {
    // SAFETY: no pointers.
    let start = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    (start != 0).then_some(start)
}

/// What the last failed call of this thread left, taken away so that nobody else finds it; empty where there is no memory for it.
fn last_error() -> String {
    // SAFETY: the loader's string for this thread, read before the next call can change it.
    let text = unsafe {
        let text = libc::dlerror();
        if text.is_null() { c"no reason given" } else { CStr::from_ptr(text) }
    };
    try_text(text.to_str().unwrap_or("a reason that is no UTF-8")).unwrap_or_default()
}

/// Takes away what the last failed call of this thread left.
fn forget_error() {
    // SAFETY: no arguments; the text is not read.
    unsafe { libc::dlerror() };
}

/// Where the program's file is, in `path`. Empty: the system does not tell, or it is longer.
pub fn program_path(path: &mut [u8]) -> &[u8] {
    // SAFETY: a C string and a buffer of this size.
    let len = unsafe { libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    let len = usize::try_from(len).ok().filter(|&len| len < path.len()).unwrap_or(0);
    &path[..len]
}

/// A reference that keeps an object loaded.
#[derive(Debug)]
pub struct Handle(NonNull<c_void>);

// SAFETY: the loader's handles belong to the process; its functions take their own locks.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The public head of glibc's record of an object (link.h).
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: usize,
}

impl Handle {
    /// A reference on an object that is loaded already, by the loader's name for it; the program's is empty. Waits for a
    /// dlopen of another thread to end, so that the object is not only loaded but relocated.
    ///
    /// # Errors
    /// What the loader says: no object of that name any more.
    pub fn of_loaded(name: &CStr) -> Result<Self, String> {
        let name = if name.is_empty() { ptr::null() } else { name.as_ptr() };
        // SAFETY: a C string or null. Nothing is loaded, so no code of the object's runs.
        let handle = unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        NonNull::new(handle).map(Self).ok_or_else(last_error)
    }

    /// Base and dynamic section of the object: what tells it from others.
    pub fn place(&self) -> Option<(usize, usize)> {
        let mut map: *const LinkMap = ptr::null();
        // SAFETY: a valid handle; the loader writes one pointer to a record that lives as long as the object.
        unsafe {
            if libc::dlinfo(self.0.as_ptr(), libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) != 0 {
                forget_error();
                return None;
            }
            Some(((*map).base, (*map).dynamic))
        }
    }

    /// The address of a symbol in the object or, failing that, in what it depends on.
    pub fn symbol(&self, name: &CStr, version: Option<&CStr>) -> Option<usize> {
        look_up(self.0.as_ptr(), name, version)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the reference taken by `of_loaded`, given back once. If all others are gone by now, the object's
        // destructors run here as they would have at its own dlclose.
        if unsafe { libc::dlclose(self.0.as_ptr()) } != 0 {
            forget_error();
        }
    }
}

fn look_up(scope: *mut c_void, name: &CStr, version: Option<&CStr>) -> Option<usize> {
    // SAFETY: a valid scope and C strings. An IFUNC's resolver may run, which the loader allows at any time.
    let address = unsafe {
        match version {
            Some(version) => libc::dlvsym(scope, name.as_ptr(), version.as_ptr()),
            None => libc::dlsym(scope, name.as_ptr()),
        }
    };
    if address.is_null() {
        forget_error();
        return None;
    }
    Some(address.expose_provenance())
}

/// The address of a symbol in the global scope: the program, what was preloaded, what it depends on, in this order.
/// With a version, only what carries exactly that version or stands in an object that has none at all.
pub fn symbol(name: &CStr, version: Option<&CStr>) -> Option<usize> {
    look_up(libc::RTLD_DEFAULT, name, version)
}
