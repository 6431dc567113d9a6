//! Whether a parked goroutine may go on on another OS thread: are there return addresses of foreign libraries on its stack?
//!
//! The interpreter, its own extension modules, the C library and this module hold nothing of a thread over a call that can
//! park; any other library may (counts of attachments, error queues, C++ exceptions in flight). The live part of the
//! stack is read as words; one that points into a foreign library's code counts as a return address. That errs on the safe
//! side: a stale word keeps a goroutine on its thread for nothing.

use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::sync::Mutex;

/// Libraries that belong to the C run time: their frames hold nothing of a thread while they call back.
const C_RUN_TIME: [&str; 9] =
    ["libc.so", "libc-", "libm.so", "libm-", "libpthread", "libdl", "librt", "ld-linux", "linux-vdso"];

/// OpenSSL, whoever brought it: what it keeps per thread it keeps in pthread keys, which are the goroutine's, and it holds
/// no address of a thread-local over a call that parks (tools/audit_moving.py).
const OPEN_SSL: [&str; 2] = ["libssl", "libcrypto"];

/// CPython's own extension modules lie in this directory.
const STANDARD_MODULES: &str = "/lib-dynload/";

/// Code of foreign libraries as address ranges, and the number of libraries loaded so far when that was seen.
struct Foreign {
    loads: u64,
    ranges: Vec<(usize, usize)>,
}

static FOREIGN: Mutex<Foreign> = Mutex::new(Foreign { loads: 0, ranges: Vec::new() });

unsafe extern "C" fn count_loads(info: *mut libc::dl_phdr_info, _size: usize, out: *mut c_void) -> c_int {
    // SAFETY: called by dl_iterate_phdr with a live record; `out` is the caller's u64.
    unsafe { *out.cast::<u64>() = (*info).dlpi_adds };
    1 // the number is the same in every record
}

unsafe extern "C" fn add_object(info: *mut libc::dl_phdr_info, _size: usize, out: *mut c_void) -> c_int {
    // SAFETY: called by dl_iterate_phdr with a live record; `out` is the caller's vector.
    unsafe {
        let info = &*info;
        let mut code = Vec::new();
        for i in 0..info.dlpi_phnum {
            let header = &*info.dlpi_phdr.add(i as usize);
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
                let start = (info.dlpi_addr + header.p_vaddr) as usize;
                code.push((start, start + header.p_memsz as usize));
            }
        }
        let name = CStr::from_ptr(info.dlpi_name).to_string_lossy();
        let has = |address: usize| code.iter().any(|&(start, end)| (start..end).contains(&address));
        if !is_ours(&name) && !has(ffi::PyObject_Call as *const () as usize) && !has(is_movable as *const () as usize) {
            (*out.cast::<Vec<(usize, usize)>>()).extend(code);
        }
    }
    0
}

/// By name: the C run time, OpenSSL or one of CPython's extension modules.
fn is_ours(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    C_RUN_TIME.iter().chain(&OPEN_SSL).any(|known| name.starts_with(known)) || path.contains(STANDARD_MODULES)
}

/// `Host::is_movable`. Allocates only when a library was loaded since the last call.
///
/// # Safety
/// `[sp, top)` is the stack of a parked goroutine that nobody runs meanwhile.
pub(crate) unsafe fn is_movable(sp: usize, top: usize) -> bool {
    let mut foreign = FOREIGN.lock().unwrap_or_else(|e| e.into_inner());
    let mut loads = 0u64;
    // SAFETY: the callbacks match their arguments.
    unsafe {
        libc::dl_iterate_phdr(Some(count_loads), (&raw mut loads).cast());
        if loads != foreign.loads {
            let mut ranges: Vec<(usize, usize)> = Vec::new();
            libc::dl_iterate_phdr(Some(add_object), (&raw mut ranges).cast());
            ranges.sort_unstable();
            *foreign = Foreign { loads, ranges };
        }
    }
    let ranges = &foreign.ranges;
    let (Some(&(low, _)), Some(&(_, high))) = (ranges.first(), ranges.last()) else { return true };
    (sp..top).step_by(size_of::<usize>()).all(|at| {
        // SAFETY: inside the stack; suspended, so nobody writes it. Volatile: dead words are read as well.
        let word = unsafe { std::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
        if !(low..high).contains(&word) {
            return true;
        }
        let i = ranges.partition_point(|&(start, _)| start <= word);
        i == 0 || word >= ranges[i - 1].1
    })
}
