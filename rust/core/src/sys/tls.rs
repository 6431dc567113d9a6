//! Where the calling thread keeps the thread-locals of each loaded object.

use crate::primitive::tries::try_push;
use std::ffi::c_void;
use std::ptr;

/// One object's block of thread-locals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The loader's number for the object.
    pub module: usize,
    /// Where it starts in the thread that asked.
    pub start: usize,
    /// Its size.
    pub bytes: usize,
}

unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _size: usize, out: *mut c_void) -> libc::c_int {
    // SAFETY: called by dl_iterate_phdr with a live record; `out` is the caller's vector.
    unsafe {
        let info = &*info;
        if !info.dlpi_tls_data.is_null() {
            let headers = (0..info.dlpi_phnum).map(|i| &*info.dlpi_phdr.add(i as usize));
            let bytes: usize = headers.filter(|h| h.p_type == libc::PT_TLS).map(|h| h.p_memsz as usize).sum();
            let block = Block { module: info.dlpi_tls_modid, start: info.dlpi_tls_data.addr(), bytes };
            libc::c_int::from(try_push(&mut *out.cast::<Vec<Block>>(), block).is_none())
        } else {
            0
        }
    }
}

/// Puts the blocks the calling thread has by now into `out`, which is empty, in order of address. An object's may come with its
/// first use. Those of the objects that were loaded first, where memory is refused for all.
pub fn blocks(out: &mut Vec<Block>) {
    // SAFETY: the callback matches its argument.
    unsafe { libc::dl_iterate_phdr(Some(note), ptr::from_mut(out).cast()) };
    out.sort_unstable_by_key(|block| block.start);
}

/// What a thread's block of an object begins with.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The bytes that are not zero at first.
    pub start: *const u8,
    /// How many those are.
    pub filled: usize,
    /// The block's size.
    pub bytes: usize,
    /// What its address is a multiple of.
    pub align: usize,
}

/// The loader's number for an object, and what was found.
type Search = (usize, Option<Image>);

unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> libc::c_int {
    // SAFETY: called by dl_iterate_phdr with a live record; `search` is the caller's.
    unsafe {
        let (info, (module, found)) = (&*info, &mut *search.cast::<Search>());
        if info.dlpi_tls_modid == *module {
            let mut headers = (0..info.dlpi_phnum).map(|i| &*info.dlpi_phdr.add(i as usize));
            *found = headers.find(|h| h.p_type == libc::PT_TLS).map(|h| Image {
                start: ptr::with_exposed_provenance((info.dlpi_addr + h.p_vaddr) as usize),
                filled: h.p_filesz as usize,
                bytes: h.p_memsz as usize,
                align: h.p_align as usize,
            });
        }
        libc::c_int::from(found.is_some())
    }
}

/// That of the object with the loader's number `module`.
pub fn image(module: usize) -> Option<Image> {
    let mut search: Search = (module, None);
    // SAFETY: the callback matches its argument.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.1
}
