//! What stands for address space under miri, which knows neither protections nor advice: memory of Rust's allocator,
//! zeroed when it is given back. Guards and commits always succeed and do nothing. Functions as in memory.rs.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::io;
use std::ptr;
use std::sync::Mutex;

const PAGE_BYTES: usize = 4096;
/// Sizes by start: miri wants each `dealloc` to say what the `alloc` said.
static RESERVED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// Nothing is given back.
///
/// # Safety
/// None is needed here.
pub unsafe fn release_within(_place: std::ops::Range<usize>) {}

/// There is nothing to trim.
pub fn trim_allocator() {}

/// Bytes of a page.
pub fn page_bytes() -> usize {
    PAGE_BYTES
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE_BYTES).expect("a size that can be")
}

/// Zeroed memory.
///
/// # Errors
/// OutOfMemory beyond 64 MiB: what is reserved here is there.
pub fn reserve(bytes: usize) -> io::Result<usize> {
    if bytes > 64 << 20 {
        return Err(io::Error::from(io::ErrorKind::OutOfMemory));
    }
    // SAFETY: not of no size.
    let start = unsafe { alloc_zeroed(layout(bytes.max(1))) }.expose_provenance();
    RESERVED.lock().expect("no panic").insert(start, bytes.max(1));
    Ok(start)
}

/// As `reserve`.
///
/// # Errors
/// As `reserve`.
pub fn reserve_inaccessible(bytes: usize) -> io::Result<usize> {
    reserve(bytes)
}

/// # Safety
/// None here.
pub unsafe fn commit(_start: usize, _bytes: usize) -> bool {
    true
}

/// Gives back what `reserve` gave, as a whole.
///
/// # Safety
/// Nobody uses it again.
pub unsafe fn unmap(start: usize, _bytes: usize) {
    let bytes = RESERVED.lock().expect("no panic").remove(&start).expect("reserved as a whole");
    // SAFETY: made by `reserve` with this layout.
    unsafe { dealloc(ptr::with_exposed_provenance_mut(start), layout(bytes)) };
}

/// The range reads as zero afterwards.
///
/// # Safety
/// The range is reserved and nobody needs its contents.
pub unsafe fn release_pages(start: usize, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(start).write_bytes(0, bytes) };
}

/// # Safety
/// None here.
pub unsafe fn guard_install(_start: usize, _bytes: usize) -> bool {
    true
}

/// # Safety
/// None here.
pub unsafe fn guard_install_each(starts: impl ExactSizeIterator<Item = usize>, _bytes: usize) -> usize {
    starts.len()
}

/// # Safety
/// None here.
pub unsafe fn populate_each(_starts: impl ExactSizeIterator<Item = usize>, _bytes: usize) {}

/// # Safety
/// None here.
pub unsafe fn guard_remove(_start: usize, _bytes: usize) -> bool {
    true
}

/// # Safety
/// None here.
pub unsafe fn protect_none(_start: usize, _bytes: usize) -> bool {
    true
}

/// # Errors
/// None here.
///
/// # Safety
/// None here.
pub unsafe fn set_writable(_start: usize, _bytes: usize, _writable: bool) -> io::Result<()> {
    Ok(())
}
