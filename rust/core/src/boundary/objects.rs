//! Which loaded objects are known, and what may be replaced in each.
//!
//! Known means read: that a call which waits holds no lock of the object and no address of a thread-local that `moving`
//! would not find. Everything else keeps its calls, and is handed off when it blocks.

use super::elf::{Object, Role};
use super::hooks::{Hook, Subject};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What an object is to the boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The interpreter: the program itself, or its shared library.
    Interpreter,
    /// One of its own extension modules.
    Module,
    /// libssl or libcrypto, whoever brought it.
    OpenSsl,
    /// greenlet, which keeps a thread's state in a thread-local.
    Greenlet,
    /// A driver of databases or HTTP that was read, or the library under it.
    Driver,
    /// Opted in by the program.
    Added,
    /// Anything else: nothing is replaced.
    Unknown,
}

impl Kind {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interpreter => "interpreter",
            Self::Module => "standard module",
            Self::OpenSsl => "OpenSSL",
            Self::Greenlet => "greenlet",
            Self::Driver => "driver",
            Self::Added => "added",
            Self::Unknown => "unknown",
        }
    }
}

/// CPython's own extension modules lie in this directory.
const STANDARD_MODULES: &[u8] = b"/lib-dynload/";

/// Modules in which no call may wait as a goroutine: `_posixsubprocess` calls from a child that shares this memory,
/// `_multiprocessing` waits for semaphores of other processes, SQLite holds locks over its calls.
const KEEP_BLOCKING: [&[u8]; 3] = [b"_posixsubprocess", b"_multiprocessing", b"_sqlite3"];

fn contains(path: &OsStr, part: &[u8]) -> bool {
    path.as_bytes().windows(part.len()).any(|w| w == part)
}

/// The file's name up to its first dot.
pub(super) fn stem(object: &Object) -> &[u8] {
    object.file_name().as_bytes().split(|&c| c == b'.').next().unwrap_or_default()
}

/// Bundled copies have a hash behind the name: `libssl-1f2e3d.so.3`.
fn is_whole(rest: &[u8]) -> bool {
    rest.is_empty() || rest.starts_with(b"-")
}

fn is_open_ssl(stem: &[u8]) -> bool {
    [&b"libssl"[..], b"libcrypto"].iter().any(|name| stem.strip_prefix(*name).is_some_and(is_whole))
}

/// psycopg 2 and 3, mysqlclient and pycurl with what they wait in: no thread-locals but errno, and no lock that is held over a
/// wait but a connection's own, which its other users wait for on their OS threads, without the host's lock: docs/drivers.md.
const DRIVERS: [&[u8]; 7] = [b"_psycopg", b"libpq", b"_mysql", b"libmariadb", b"_pycurl", b"pycurl", b"libcurl"];

/// Whether the library of that file holds nothing of its thread over a call that parks, as one of the drivers that were read.
pub fn is_driver(file_name: &[u8]) -> bool {
    let stem = file_name.split(|&c| c == b'.').next().unwrap_or_default();
    // No other one of such a name: libpq-oauth, libcurl-gnutls.
    let is_hash = |rest: &[u8]| is_whole(rest) && rest.iter().skip(1).all(u8::is_ascii_hexdigit);
    DRIVERS.iter().any(|name| stem.strip_prefix(*name).is_some_and(is_hash))
}

/// What `object` is; `interpreter` is an address in the interpreter's code.
pub(super) fn kind_of(object: &Object, interpreter: usize, added: &[String]) -> Kind {
    if object.has_code(interpreter) {
        return Kind::Interpreter;
    }
    if !matches!(object.role, Role::Program | Role::Library) || object.has_code(kind_of as *const () as usize) {
        return Kind::Unknown; // the C library, the loader, the kernel's, and this library
    }
    let stem = stem(object);
    if contains(object.path.as_os_str(), STANDARD_MODULES) {
        Kind::Module
    } else if is_open_ssl(stem) {
        Kind::OpenSsl
    } else if stem == b"_greenlet" {
        Kind::Greenlet
    } else if is_driver(object.file_name().as_bytes()) {
        Kind::Driver
    } else if added.iter().any(|name| stem.starts_with(name.as_bytes())) {
        Kind::Added
    } else {
        Kind::Unknown
    }
}

/// Libraries between a caller and the C library, by the start of their names; the last holds locks over its calls, which
/// nobody should be advised to let park.
const BETWEEN: [&[u8]; 5] = [b"libffi", b"libgcc_s", b"libstdc++", b"libc++", b"libsqlite3"];

/// Whether what calls from `object` is somebody else: the C library and the like, and this library.
pub(super) fn calls_for_others(object: &Object) -> bool {
    !matches!(object.role, Role::Program | Role::Library)
        || object.has_code(calls_for_others as *const () as usize)
        || BETWEEN.iter().any(|name| stem(object).starts_with(name))
}

/// Whether `hook` may stand in an object of that kind.
pub(super) fn allows(kind: Kind, object: &Object, hook: &Hook, parking: bool) -> bool {
    // The interpreter's own keys stay the thread's: they say which state is the thread's.
    let has_keys = matches!(kind, Kind::OpenSsl | Kind::Driver | Kind::Added);
    match (kind, hook.subject) {
        (Kind::Unknown, _) => false,
        (_, Subject::Locals) => kind == Kind::Greenlet,
        (Kind::Greenlet, _) => false, // nothing of it has been read but how it keeps its state
        (_, Subject::Identity) => true,
        (_, Subject::Keys) => has_keys,
        (_, _) if !parking => false,
        (_, Subject::HostLock) => kind == Kind::Interpreter,
        (Kind::OpenSsl | Kind::Driver | Kind::Added, Subject::Clock) => false, // theirs are the world's
        (Kind::Module, _) => !KEEP_BLOCKING.contains(&stem(object)),
        // Their semaphores are their own affair.
        (Kind::OpenSsl | Kind::Driver | Kind::Added, _) => !hook.name.to_bytes().starts_with(b"sem_"),
        (Kind::Interpreter, _) => true,
    }
}
