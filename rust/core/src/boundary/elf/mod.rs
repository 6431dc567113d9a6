//! The import-table patcher: entries of loaded ELF objects are replaced by functions of ours, by name and version.
//!
//! ```
//! # use gort_core::boundary::elf::{Error, Originals, Patched, Role, objects};
//! # use std::{ffi::c_int, mem::transmute, sync::atomic::{AtomicUsize, Ordering::Relaxed}};
//! static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
//! extern "C" fn hook() -> c_int {
//!     let original: extern "C" fn() -> c_int = unsafe { transmute(ORIGINAL.load(Relaxed)) };
//!     -original()
//! }
//!
//! let objects = objects()?;
//! let mut originals = Originals::new(&objects);
//! let mut kept: Vec<Patched> = Vec::new();
//! for object in objects.iter().filter(|o| o.role == Role::Program) {
//!     let held = object.hold()?;
//!     let mut edit = held.edit();
//!     for import in held.imports()?.iter().filter(|i| i.symbol == c"getppid") {
//!         let Some(original) = originals.find(import.symbol, import.version)? else { continue };
//!         ORIGINAL.store(original.address, Relaxed); // before the hook can be entered
//!         edit.replace(import, original, hook as *const () as usize).expect("as the loader left it");
//!     }
//!     kept.push(edit.apply()?);
//! }
//! assert!(kept.iter().all(Patched::is_in_place));
//! # unsafe extern "C" { safe fn getppid() -> c_int; }
//! assert!(getppid() <= 0);
//! kept.iter_mut().try_for_each(|p| p.undo().map(drop))?;
//! assert!(getppid() >= 0);
//! # Ok::<(), Error>(())
//! ```
//!
//! Which objects and which names is the caller's choice; the vdso and the loader refuse. Threads may run the code all the
//! while: entries change by one aligned store. What does not look as it should is left alone and reported.
//! A change may wait for a dlopen of another thread, and takes a lock a forked child must not need.
//!
//! What this cannot reach: calls inside libc, addresses kept in data (R_X86_64_64, R_AARCH64_ABS64) or found by dlsym, and
//! an address that a loop or a struct holds already.

mod edit;
mod object;
mod symbols;
mod tables;

pub use crate::sys::loader::{Loads, loads};
pub(super) use edit::editing as hold;
pub use edit::{Edit, Entry, LeftAlone, Patched, Undone};
pub use object::{Held, Object, Page, Role, objects};
pub use symbols::{Original, Originals};
pub use tables::{Import, ImportKind};

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Whether entries can be replaced here.
pub const SUPPORTED: bool = true;

/// Why an object could not be changed. It then is as it was before.
#[derive(Debug)]
pub enum Error {
    /// The vdso or the loader.
    Protected {
        /// Its path.
        object: PathBuf,
    },
    /// It is no longer loaded.
    Gone {
        /// Its path.
        object: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// Its tables cannot be read.
    Malformed {
        /// Its path.
        object: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// Memory is refused, now.
    NoMemory,
    /// The system does not let its pages be made writable, or read-only again.
    Protection {
        /// Its path.
        object: PathBuf,
        /// The first page's address.
        start: usize,
        /// Their size.
        bytes: usize,
        /// mprotect's.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protected { object } => write!(f, "{}: is never changed", object.display()),
            Self::Gone { object, reason } => write!(f, "{}: not loaded: {reason}", object.display()),
            Self::Malformed { object, what } => write!(f, "{}: {what}", object.display()),
            Self::NoMemory => f.write_str("no memory"),
            Self::Protection { object, start, bytes, source } => {
                write!(f, "{}: mprotect of {bytes} bytes at {start:#x}: {source}", object.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Protection { source, .. } => Some(source),
            _ => None,
        }
    }
}
