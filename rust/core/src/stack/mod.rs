//! Layer 3: stack slots. Address space in slabs of 64 slots, a guard at each low end, memory committed by touch.
//!
//! Slots at a power-of-two stride put every stack top in the same cache sets, so the tops are coloured: 32 steps of 64
//! bytes. Guards are MADV_GUARD_INSTALL (Linux 6.13) or mprotect, which splits mappings and therefore ends at a cap.

use crate::primitive::Mutex;
use crate::sys::memory;
use std::io;

/// Slots reserved at a time.
const SLAB_SLOTS: usize = 64;
/// Bytes below each slot that fault.
const GUARD_BYTES: usize = memory::PAGE_BYTES;
/// Slots with mprotect guards: two mappings each, of vm.max_map_count's 65,530.
const PROTECT_CAP: usize = 16_000;
const COLOURS: usize = 32;
const COLOUR_BYTES: usize = 64;

/// How the low end of a slot is made to fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardMode {
    /// MADV_GUARD_INSTALL.
    Install,
    /// mprotect, up to a cap.
    Protect,
    /// Nothing.
    None,
}

impl GuardMode {
    /// The best this kernel has; `GORT_GUARD=install|mprotect|none` forces one.
    pub fn detect() -> Self {
        match std::env::var("GORT_GUARD").as_deref() {
            Ok("install") => return Self::Install,
            Ok("mprotect") => return Self::Protect,
            Ok("none") => return Self::None,
            _ => {}
        }
        let Ok(probe) = memory::reserve(memory::PAGE_BYTES) else { return Self::Protect };
        // SAFETY: the page just reserved; it stays reserved, one page in a process.
        if unsafe { memory::guard_install(probe, memory::PAGE_BYTES) } { Self::Install } else { Self::Protect }
    }
}

/// One stack: usable bytes are `[base, top)`.
#[derive(Debug)]
pub struct Stack {
    base: usize,
    top: usize,
    slot_start: usize,
}

impl Stack {
    /// Lowest usable address, above the guard.
    pub fn base(&self) -> usize {
        self.base
    }

    /// One past the highest usable address; 16-aligned.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Usable bytes.
    pub fn size_bytes(&self) -> usize {
        self.top - self.base
    }
}

/// All slots of one size: free ones in a LIFO, so that warm ones are used first.
pub struct StackDepot {
    slot_bytes: usize,
    mode: GuardMode,
    state: Mutex<DepotState>,
}

struct DepotState {
    free: Vec<usize>,
    made: usize,
}

impl StackDepot {
    /// An empty depot; the first slab is reserved by the first `allocate`.
    ///
    /// # Errors
    /// InvalidInput unless `slot_bytes` is a power of two of at least 64 KiB.
    pub fn new(slot_bytes: usize, mode: GuardMode) -> io::Result<Self> {
        if !slot_bytes.is_power_of_two() || slot_bytes < 64 << 10 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "stack slot: a power of two, 64 KiB or more"));
        }
        Ok(Self { slot_bytes, mode, state: Mutex::new(DepotState { free: Vec::new(), made: 0 }) })
    }

    /// Guard mode in force.
    pub fn mode(&self) -> GuardMode {
        self.mode
    }

    /// A stack.
    ///
    /// # Errors
    /// ENOMEM when address space is refused or the mprotect cap is reached.
    pub fn allocate(&self) -> io::Result<Stack> {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        if state.free.is_empty() {
            self.grow(&mut state)?;
        }
        let slot_start = state.free.pop().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        drop(state);
        let colour = (slot_start / self.slot_bytes) % COLOURS * COLOUR_BYTES;
        Ok(Stack { base: slot_start + GUARD_BYTES, top: slot_start + self.slot_bytes - colour, slot_start })
    }

    /// Gives a stack back; its pages stay until `release_pages` or reuse.
    pub fn free(&self, stack: Stack) {
        self.state.lock().unwrap_or_else(|e| e.into_inner()).free.push(stack.slot_start);
    }

    /// Gives the physical pages of an unused stack back.
    pub fn release_pages(&self, stack: &Stack) {
        // SAFETY: the caller owns the stack and runs nothing on it.
        unsafe { memory::release_pages(stack.base, self.slot_bytes - GUARD_BYTES) };
    }

    fn grow(&self, state: &mut DepotState) -> io::Result<()> {
        if self.mode == GuardMode::Protect && state.made >= PROTECT_CAP {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        // One slot more than is used, so that the slab can start at a multiple of the stride.
        let start = memory::reserve((SLAB_SLOTS + 1) * self.slot_bytes)?.next_multiple_of(self.slot_bytes);
        for i in (0..SLAB_SLOTS).rev() {
            let slot = start + i * self.slot_bytes;
            // SAFETY: inside the slab just reserved, untouched yet.
            let guarded = unsafe {
                match self.mode {
                    GuardMode::Install => memory::guard_install(slot, GUARD_BYTES),
                    GuardMode::Protect => memory::protect_none(slot, GUARD_BYTES),
                    GuardMode::None => true,
                }
            };
            if !guarded {
                return Err(io::Error::last_os_error());
            }
            state.free.push(slot);
        }
        state.made += SLAB_SLOTS;
        Ok(())
    }
}
