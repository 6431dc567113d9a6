//! Address space: reserve, guard, release. Sizes in bytes, whole pages.

use std::io;
use std::ptr;

// Linux 6.13; not in libc 0.2.191.
const MADV_GUARD_INSTALL: libc::c_int = 102;
const MADV_GUARD_REMOVE: libc::c_int = 103;

// The calling thread, and so its memory, where a pidfd is asked for (Linux 6.14, for process_madvise 6.15); not in libc 0.2.191 either. An
// opened pidfd would still mean the parent after a fork.
const PIDFD_SELF_THREAD: libc::c_int = -10_000;

/// Ranges of one `advise_each`: the kernel's UIO_MAXIOV is 1,024, these lie on the caller's stack.
const VECTOR: usize = 64;

/// Bytes of a page, asked from the system: 4 KiB on x86-64, up to 64 KiB on AArch64.
pub fn page_bytes() -> usize {
    // SAFETY: no pointers; the name is known to every Unix.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// What the executions of a model have mapped on this thread, by size, and how much of that the current one has: there are
/// many executions, none of which gives anything back.
#[cfg(shuttle)]
#[derive(Default)]
struct Mapped {
    all: std::collections::HashMap<usize, Vec<usize>>,
    used: std::collections::HashMap<usize, usize>,
}
#[cfg(shuttle)]
std::thread_local!(static MAPPED: std::cell::RefCell<Mapped> = std::cell::RefCell::default());

/// A new execution.
#[cfg(shuttle)]
pub(crate) fn begin() {
    MAPPED.with_borrow_mut(|mapped| mapped.used.clear());
}

#[cfg(shuttle)]
fn map(bytes: usize, protection: libc::c_int) -> io::Result<usize> {
    MAPPED.with_borrow_mut(|mapped| {
        let (all, used) = (mapped.all.entry(bytes).or_default(), mapped.used.entry(bytes).or_default());
        if *used == all.len() {
            all.push(map_anew(bytes, protection)?);
        }
        *used += 1;
        Ok(all[*used - 1])
    })
}

#[cfg(not(shuttle))]
fn map(bytes: usize, protection: libc::c_int) -> io::Result<usize> {
    map_anew(bytes, protection)
}

fn map_anew(bytes: usize, protection: libc::c_int) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping.
    let p = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping just made; a refusal only costs memory.
    unsafe { libc::madvise(p, bytes, libc::MADV_NOHUGEPAGE) };
    Ok(p.expose_provenance())
}

/// Gives the whole pages within `place` back to the system: they are zeros when somebody looks next.
///
/// # Safety
/// Private memory of the caller's, in which nothing is of value.
pub unsafe fn release_within(place: std::ops::Range<usize>) {
    let page = page_bytes();
    let (start, end) = (place.start.next_multiple_of(page), place.end / page * page);
    if start < end {
        // SAFETY: the caller's promise.
        unsafe { release_pages(start, end - start) };
    }
}

/// Gives the system what the C library's allocator has free.
pub fn trim_allocator() {
    // SAFETY: no pointers. Others know no such function.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Reserves zeroed memory, each page committed by its first touch.
///
/// # Errors
/// ENOMEM and what else mmap says. A system that accounts for what is reserved (overcommit_memory=2, RLIMIT_DATA)
/// may refuse this and still grant `reserve_inaccessible`.
pub fn reserve(bytes: usize) -> io::Result<usize> {
    map(bytes, libc::PROT_READ | libc::PROT_WRITE)
}

/// Reserves address space that faults until parts of it are given to `commit`. Counts against no memory limit.
///
/// # Errors
/// ENOMEM and what else mmap says.
pub fn reserve_inaccessible(bytes: usize) -> io::Result<usize> {
    map(bytes, libc::PROT_NONE)
}

/// Whether the system would give that much memory now.
pub fn is_left(bytes: usize) -> bool {
    let Ok(start) = reserve(bytes) else { return false };
    // SAFETY: just reserved, untouched.
    unsafe { unmap(start, bytes) };
    true
}

/// Makes a part of what `reserve_inaccessible` gave usable. `false`: the system refuses the memory, or the mappings.
///
/// # Safety
/// The range is mapped by `reserve_inaccessible`.
pub unsafe fn commit(start: usize, bytes: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller's promise.
    unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(start), bytes, protection) == 0 }
}

/// Gives a range of addresses back to the system.
///
/// # Safety
/// The range is mapped here and nobody uses it again.
pub unsafe fn unmap(start: usize, bytes: usize) {
    if cfg!(shuttle) {
        return; // the next execution has it
    }
    // SAFETY: the caller's promise. It can only fail for want of mappings; the range then stays reserved, untouched.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start), bytes) };
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

/// Gives one advice for ranges of `bytes` at each of `starts` with one system call for many of them. Returns for how many,
/// from the first, it was taken: fewer than all where the kernel has no such call or it is refused.
unsafe fn advise_each(starts: impl ExactSizeIterator<Item = usize>, bytes: usize, advice: libc::c_int) -> usize {
    let mut starts = starts;
    let mut taken = 0;
    while starts.len() != 0 {
        let empty = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let mut ranges = [empty; VECTOR];
        let mut count = 0;
        for (range, start) in ranges.iter_mut().zip(&mut starts) {
            *range = libc::iovec { iov_base: ptr::with_exposed_provenance_mut(start), iov_len: bytes };
            count += 1;
        }
        // SAFETY: the advice is the caller's to give for these ranges; the vector lives through the call.
        let done =
            unsafe { libc::syscall(libc::SYS_process_madvise, PIDFD_SELF_THREAD, ranges.as_ptr(), count, advice, 0) };
        let whole = usize::try_from(done).unwrap_or(0) / bytes;
        taken += whole;
        if whole < count {
            break;
        }
    }
    taken
}

/// `guard_install` for ranges of `bytes` at each of `starts` with one system call. Returns how many of them, from the first,
/// it guarded: fewer than all where the kernel has no such call (before 6.15) or it is refused.
///
/// # Safety
/// The ranges are mapped and nobody needs their contents.
pub unsafe fn guard_install_each(starts: impl ExactSizeIterator<Item = usize>, bytes: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { advise_each(starts, bytes, MADV_GUARD_INSTALL) }
}

/// Commits ranges of `bytes` at each of `starts` as touching them would, with one system call instead of a fault each. Where
/// the kernel cannot, the touch does it.
///
/// # Safety
/// The ranges are mapped and usable.
pub unsafe fn populate_each(starts: impl ExactSizeIterator<Item = usize>, bytes: usize) {
    // SAFETY: changes no contents.
    unsafe { advise_each(starts, bytes, libc::MADV_POPULATE_WRITE) };
}

/// Takes back what `guard_install` did. Fit for a signal handler.
///
/// # Safety
/// The range is mapped.
pub unsafe fn guard_remove(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), bytes, MADV_GUARD_REMOVE) == 0 }
}

/// Makes a range inaccessible by splitting the mapping.
///
/// # Safety
/// The range is mapped and nobody needs its contents.
pub unsafe fn protect_none(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(start), bytes, libc::PROT_NONE) == 0 }
}

/// Makes pages readable and writable, or readable only.
///
/// # Errors
/// What mprotect says: ENOMEM at the limit of mappings, EPERM for sealed ones, EACCES by a security module.
///
/// # Safety
/// The range is whole pages, mapped, and nobody needs to execute there, nor to write once it is read-only.
pub unsafe fn set_writable(start: usize, bytes: usize, writable: bool) -> io::Result<()> {
    let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    // SAFETY: the caller's promise.
    if unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(start), bytes, protection) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
