//! Address space: reserve, guard, release. Sizes in bytes, whole pages.

use std::io;
use std::ptr;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
const MADV_GUARD_INSTALL: libc::c_int = 102; // Linux 6.13; not in libc 0.2.191

/// Reserves zeroed memory without committing it.
///
/// # Errors
/// ENOMEM and what else mmap says.
pub fn reserve(bytes: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping.
    let p = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping just made; a refusal only costs memory.
    unsafe { libc::madvise(p, bytes, libc::MADV_NOHUGEPAGE) };
    Ok(p.addr())
}

/// Gives the physical pages of a range back; it reads as zero afterwards. Guards stay.
///
/// # Safety
/// The range is mapped and nobody needs its contents.
pub unsafe fn release_pages(start: usize, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), bytes, libc::MADV_DONTNEED) };
}

/// Makes a range fault without splitting the mapping. `false`: this kernel cannot.
///
/// # Safety
/// The range is mapped and nobody needs its contents.
pub unsafe fn guard_install(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), bytes, MADV_GUARD_INSTALL) == 0 }
}

/// Makes a range inaccessible by splitting the mapping.
///
/// # Safety
/// The range is mapped and nobody needs its contents.
pub unsafe fn protect_none(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(start), bytes, libc::PROT_NONE) == 0 }
}
