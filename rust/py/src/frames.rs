//! Whether a goroutine that parks may go on on another OS thread: are there frames of foreign libraries on its stack?
//!
//! The interpreter, its own extension modules, the C library, the drivers that the boundary knows and this module hold
//! nothing of a thread over a call that can park; any other library may (counts of attachments, error queues, C++
//! exceptions in flight). The live part of the stack is read as words. If one points into a foreign library's code, it is
//! either a return address or what was left of one by an earlier, deeper call: then the frames are walked by their unwind
//! tables, those of a parked goroutine on its stack. A walk that does not come to the end (code made at run time has no
//! tables) counts as foreign.

use gort_core::sys::loader;
use gort_core::{boundary, context};
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::sync::{Mutex, MutexGuard};

/// Libraries that belong to the C run time: their frames hold nothing of a thread while they call back.
const C_RUN_TIME: [&[u8]; 9] =
    [b"libc.so", b"libc-", b"libm.so", b"libm-", b"libpthread", b"libdl", b"librt", b"ld-linux", b"linux-vdso"];

/// OpenSSL, whoever brought it: what it keeps per thread it keeps in pthread keys, which are the goroutine's, and it holds
/// no address of a thread-local over a call that parks (tools/audit_moving.py).
const OPEN_SSL: [&[u8]; 2] = [b"libssl", b"libcrypto"];

/// Executable pieces that one library has, at most.
const PIECES: usize = 8;

/// CPython's own extension modules lie in this directory.
const STANDARD_MODULES: &[u8] = b"/lib-dynload/";

/// Code of foreign libraries as address ranges, and how many had been loaded and unloaded when that was seen.
struct Foreign {
    loads: u64,
    removed: u64,
    ranges: Vec<(usize, usize)>,
    /// There was memory to look: otherwise any frame may be foreign.
    is_known: bool,
}

static FOREIGN: Mutex<Foreign> = Mutex::new(Foreign { loads: 0, removed: 0, ranges: Vec::new(), is_known: true });

unsafe extern "C" fn add_object(info: *mut libc::dl_phdr_info, _size: usize, out: *mut c_void) -> c_int {
    // SAFETY: called by dl_iterate_phdr with a live record; `out` is the caller's `Foreign`.
    unsafe {
        let info = &*info;
        let found = &mut *out.cast::<Foreign>();
        let (mut code, mut count) = ([(0, 0); PIECES], 0);
        for i in 0..info.dlpi_phnum {
            let header = &*info.dlpi_phdr.add(i as usize);
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
                let start = (info.dlpi_addr + header.p_vaddr) as usize;
                code[count.min(PIECES - 1)] = (start, start + header.p_memsz as usize);
                count += 1;
            }
        }
        let code = &code[..count.min(PIECES)];
        let name = CStr::from_ptr(info.dlpi_name).to_bytes();
        let has = |address: usize| code.iter().any(|&(start, end)| (start..end).contains(&address));
        if !is_ours(name) && !has(ffi::PyObject_Call as *const () as usize) && !has(is_movable as *const () as usize) {
            found.is_known &= count <= PIECES && found.ranges.try_reserve(code.len()).is_ok();
            if found.is_known {
                found.ranges.extend(code);
            }
        }
    }
    0
}

/// By name: the C run time, OpenSSL, a driver that was read or one of CPython's extension modules.
fn is_ours(path: &[u8]) -> bool {
    let name = path.rsplit(|&c| c == b'/').next().unwrap_or(path);
    let is_standard = || path.windows(STANDARD_MODULES.len()).any(|part| part == STANDARD_MODULES);
    C_RUN_TIME.iter().chain(&OPEN_SSL).any(|known| name.starts_with(known))
        || boundary::is_driver(name)
        || is_standard()
}

impl Foreign {
    /// Looks at what is loaded, which is as of that many loads.
    fn look(&mut self, loads: u64) {
        let mut found = Self { loads, removed: loader::loads().removed, ranges: Vec::new(), is_known: true };
        // SAFETY: the callback matches its argument.
        unsafe { libc::dl_iterate_phdr(Some(add_object), (&raw mut found).cast()) };
        found.ranges.sort_unstable();
        found.loads = if found.is_known { loads } else { 0 }; // the next look tries again
        *self = found;
    }

    fn has(&self, address: usize) -> bool {
        let i = self.ranges.partition_point(|&(start, _)| start <= address);
        i != 0 && address < self.ranges[i - 1].1
    }
}

/// `Host::is_movable`. Allocates only when a library was loaded or unloaded since the last call.
///
/// # Safety
/// On the goroutine's stack, of which `[sp, top)` is in use.
pub(crate) unsafe fn is_movable(sp: usize, top: usize) -> bool {
    // SAFETY: the caller's promise.
    let signs = unsafe { signs_of_foreign(sp, top) };
    signs.is_none_or(|foreign| {
        // SAFETY: a walk, as asked for.
        !Walk::new(&foreign, top).finds_foreign(|walk| unsafe { walk_from_here(walk) })
    })
}

/// The same of a goroutine that is parked.
///
/// # Safety
/// It stays so; below `sp` there is room for the walk.
pub(crate) unsafe fn is_plain(sp: usize, top: usize) -> bool {
    // SAFETY: the caller's promise: a switch saved that stack pointer.
    unsafe {
        let signs = signs_of_foreign(sp, top);
        signs.is_none_or(|foreign| {
            !Walk::new(&foreign, top).finds_foreign(|walk| context::call_on(sp, walk_from_here, walk))
        })
    }
}

/// What is known of foreign code, if words of the stack point into it.
///
/// # Safety
/// `[sp, top)` is mapped stack.
unsafe fn signs_of_foreign(sp: usize, top: usize) -> Option<MutexGuard<'static, Foreign>> {
    let mut foreign = foreign_now();
    // SAFETY: the caller's promise.
    unsafe {
        if !looks_foreign(&foreign, sp, top) {
            return None;
        }
        // Where an unloaded library was may be the host's memory by now, and every pointer into that a sign.
        if foreign.removed != loader::loads().removed {
            let loads = foreign.loads;
            foreign.look(loads);
            return looks_foreign(&foreign, sp, top).then_some(foreign);
        }
        Some(foreign)
    }
}

/// What is known of foreign code, of all libraries that are loaded. It may be of some more that were unloaded since.
fn foreign_now() -> MutexGuard<'static, Foreign> {
    let mut foreign = FOREIGN.lock().unwrap_or_else(|e| e.into_inner());
    let loads = boundary::scanned_loads().unwrap_or_else(|| loader::loads().added);
    if loads != foreign.loads {
        foreign.look(loads);
    }
    foreign
}

/// # Safety
/// `[sp, top)` is mapped stack.
unsafe fn looks_foreign(foreign: &Foreign, sp: usize, top: usize) -> bool {
    if !foreign.is_known {
        return true;
    }
    let (Some(&(low, _)), Some(&(_, high))) = (foreign.ranges.first(), foreign.ranges.last()) else { return false };
    (sp..top).step_by(size_of::<usize>()).any(|at| {
        // SAFETY: inside the stack. Volatile: dead words are read as well.
        let word = unsafe { std::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
        (low..high).contains(&word) && foreign.has(word)
    })
}

/// A walk over frames up to `top`.
struct Walk<'a> {
    foreign: &'a Foreign,
    top: usize,
    is_complete: bool,
    found: bool,
}

impl<'a> Walk<'a> {
    fn new(foreign: &'a Foreign, top: usize) -> Self {
        Self { foreign, top, is_complete: false, found: false }
    }

    /// Whether a frame of foreign code is found below `top`, or it cannot be told. `walk` calls `walk_from_here` with its argument.
    fn finds_foreign(mut self, walk: impl FnOnce(*mut c_void)) -> bool {
        walk((&raw mut self).cast());
        self.found || !self.is_complete || !self.foreign.is_known
    }
}

/// Above this many bytes below the top there are frames of the runtime only.
const BASE_BYTES: usize = 256;

type UnwindContext = c_void;
const GO_ON: c_int = 0; // _URC_NO_REASON
const STOP: c_int = 4; // _URC_NORMAL_STOP

// The Itanium C++ ABI's interface to the unwinder that Rust's own library is linked with.
unsafe extern "C" {
    fn _Unwind_Backtrace(
        see: unsafe extern "C" fn(*mut UnwindContext, *mut c_void) -> c_int,
        walk: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut UnwindContext) -> usize;
    fn _Unwind_GetCFA(context: *mut UnwindContext) -> usize;
}

unsafe extern "C" fn see_frame(context: *mut UnwindContext, walk: *mut c_void) -> c_int {
    // SAFETY: called by `_Unwind_Backtrace` with a live context and the argument given below.
    let (address, end, walk) =
        unsafe { (_Unwind_GetIP(context), _Unwind_GetCFA(context), &mut *walk.cast::<Walk<'_>>()) };
    walk.found |= walk.foreign.has(address);
    walk.is_complete |= end >= walk.top.saturating_sub(BASE_BYTES);
    if walk.found || walk.is_complete { STOP } else { GO_ON }
}

/// # Safety
/// `walk` is a `Walk`.
unsafe extern "C" fn walk_from_here(walk: *mut c_void) {
    // SAFETY: the callback matches its argument, which lives through the call.
    unsafe { _Unwind_Backtrace(see_frame, walk) };
}
