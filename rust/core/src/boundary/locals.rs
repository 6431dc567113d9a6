//! Thread-locals per goroutine, for a library that keeps a thread's state in one: greenlet, which calls whoever has another
//! state another thread, and whose greenlets lie on the stack of whoever has theirs.
//!
//! The library asks `__tls_get_addr` for a block of its own. A goroutine gets one that begins as a thread's would, and what
//! was registered to end with it (`__cxa_thread_atexit`) ends with the goroutine. A greenlet that is switched away from keeps
//! C frames in memory where nobody finds them, neither `frames` nor `moving`: who has such a block stays on its M. The main
//! goroutine has the block of the main thread, wherever it runs, and is free to go.

use super::hooks::original;
use super::keys;
use crate::goroutine::Goroutine;
use crate::primitive::atomic::Ordering;
use crate::sys::tls::{self, Image};
use libc::{c_int, c_void};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr;

/// What is asked for: the loader's number of an object, and an offset into its block (`tls_index` in glibc).
#[repr(C)]
pub(super) struct Place {
    pub(super) module: usize,
    pub(super) offset: usize,
}

type Destructor = unsafe extern "C" fn(*mut c_void);

/// One object's thread-locals.
struct Block {
    module: usize,
    start: *mut u8,
    /// How it was allocated; `None` for the main thread's own.
    layout: Option<Layout>,
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            // SAFETY: allocated with this layout in `make`, and nobody's any more.
            unsafe { dealloc(self.start, layout) };
        }
    }
}

/// What one goroutine has: a block of each library that asked, and what ends with them.
#[derive(Default)]
pub(super) struct Locals {
    blocks: Vec<Block>,
    ends: Vec<(Destructor, *mut c_void)>,
    /// One of the reasons in `Bundle::wired`.
    wires: bool,
}

impl Locals {
    fn find(&self, module: usize) -> Option<*mut u8> {
        self.blocks.iter().find(|block| block.module == module).map(|block| block.start)
    }

    fn owns(&self, object: *mut c_void) -> bool {
        let has = |block: &Block| {
            block.layout.is_some_and(|layout| object.addr().wrapping_sub(block.start.addr()) < layout.size())
        };
        self.blocks.iter().any(has)
    }
}

/// A block as a thread would begin with; `None` without memory, or where nothing is known of the object.
fn make(module: usize) -> Option<Block> {
    let Image { start, filled, bytes, align } = tls::image(module)?;
    let layout = Layout::from_size_align(bytes.max(1), align.max(1)).ok()?;
    // SAFETY: of at least one byte; the image is mapped as long as the object is loaded, and `filled` is at most `bytes`.
    unsafe {
        let block = alloc_zeroed(layout);
        if block.is_null() {
            return None;
        }
        ptr::copy_nonoverlapping(start, block, filled);
        Some(Block { module, start: block, layout: Some(layout) })
    }
}

/// `__tls_get_addr`.
pub(super) unsafe extern "C" fn tls_get_addr(place: *const Place) -> *mut c_void {
    // SAFETY: as called; the table is this goroutine's.
    unsafe {
        // Without the other hook a goroutine's block would be ended with some thread.
        let is_whole = original::__cxa_thread_atexit::ADDRESS.load(Ordering::Relaxed) != 0;
        let Some((g, has_thread)) = keys::running().filter(|_| is_whole) else {
            return original::__tls_get_addr::call(place);
        };
        let Place { module, offset } = *place;
        let found = keys::table_of(g).and_then(|table| table.locals.find(module));
        let start = found.unwrap_or_else(|| first_use(g, module, has_thread));
        if start.is_null() { original::__tls_get_addr::call(place) } else { start.add(offset).cast() }
    }
}

/// The block of a goroutine that has none; null where none can be made.
#[cold]
unsafe fn first_use(g: *mut Goroutine, module: usize, has_thread: bool) -> *mut u8 {
    // SAFETY: the promise of `tls_get_addr`.
    unsafe {
        let has_room = keys::table_of(g).is_some_and(|table| table.locals.blocks.try_reserve(1).is_ok());
        if !has_room {
            return ptr::null_mut();
        }
        let block = if has_thread {
            let place = Place { module, offset: 0 };
            let start = original::__tls_get_addr::call(&raw const place);
            Some(Block { module, start: start.cast(), layout: None })
        } else {
            make(module)
        };
        let Some(block) = block else { return ptr::null_mut() };
        let start = block.start;
        let Some(keys::Table { locals, .. }) = keys::table_of(g) else { return ptr::null_mut() };
        locals.blocks.push(block);
        let bundle = (*g).bundle;
        if !locals.wires && !keys::is_main(g) {
            locals.wires = true;
            (*bundle).wired += 1;
        }
        start
    }
}

/// `__cxa_thread_atexit`.
pub(super) unsafe extern "C" fn cxa_thread_atexit(
    destructor: Destructor,
    object: *mut c_void,
    library: *mut c_void,
) -> c_int {
    // SAFETY: as called; the table is this goroutine's.
    unsafe {
        if let Some((g, _)) = keys::running()
            && let Some(keys::Table { locals, .. }) = keys::table_of(g)
            && locals.owns(object)
        {
            if locals.ends.try_reserve(1).is_err() {
                return -1;
            }
            locals.ends.push((destructor, object));
            return 0;
        }
        original::__cxa_thread_atexit::call(destructor, object, library)
    }
}

/// The end of a goroutine: what C++ does at a thread's, the last registered first.
///
/// # Safety
/// On the goroutine's stack, at its end.
pub(super) unsafe fn end(g: *mut Goroutine) {
    // SAFETY: the table is this goroutine's, and is not borrowed while a destructor runs, which may register more.
    unsafe {
        while let Some((destructor, object)) = keys::table_of(g).and_then(|table| table.locals.ends.pop()) {
            destructor(object);
        }
        let locals = keys::table_of(g).map(|table| std::mem::take(&mut table.locals));
        if locals.is_some_and(|locals| locals.wires) {
            (*(*g).bundle).wired -= 1;
        }
    }
}
