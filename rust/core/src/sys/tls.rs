//! Where the calling thread keeps the thread-locals of each loaded object.

use std::ffi::c_void;

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
            (*out.cast::<Vec<Block>>()).push(block);
        }
    }
    0
}

/// The blocks the calling thread has by now, in order of address. An object's may come with its first use.
pub fn blocks() -> Vec<Block> {
    let mut out: Vec<Block> = Vec::new();
    // SAFETY: the callback matches its argument.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut out).cast()) };
    out.sort_unstable_by_key(|block| block.start);
    out
}
