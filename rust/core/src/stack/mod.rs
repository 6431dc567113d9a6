//! Layer 3: stack slots. Address space in slabs of 64 slots, a guard at each low end, memory committed by touch.
//!
//! Slots at a power-of-two stride put every stack top in the same cache sets, so the tops are coloured: 12 steps of 64
//! bytes, which leaves four fifths of the first page to every goroutine. Guards are MADV_GUARD_INSTALL (Linux 6.13) or
//! mprotect, which splits mappings and therefore ends at a cap.
//!
//! Where the system accounts for what is reserved (overcommit_memory=2, RLIMIT_DATA) and refuses a slab, the slab is
//! reserved inaccessible and each slot made usable when it is first asked for: its guard is what stays inaccessible.
//!
//! Stacks are refused before the last of the memory is theirs: what runs on those that are there has to go on.

pub mod packed;
#[cfg(all(test, not(model)))]
mod packed_tests;
#[cfg(all(test, not(model)))]
mod tests;

use crate::primitive::Mutex;
use crate::primitive::room::make_room;
use crate::sys::{memory, valgrind};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;

/// Slots reserved at a time.
const SLAB_SLOTS: usize = 64;

/// Slabs of large slots have fewer: most bytes of a slab of more than one slot.
const SLAB_BYTES: usize = 64 << 20;
/// Bytes below each slot that fault, rounded up to a page. C compilers do not probe frames, so a frame larger than the
/// guard could step over it; 16 KiB is twice the buffers C code usually keeps on its stack (BUFSIZ, PATH_MAX twice).
const GUARD_BYTES: usize = 16 << 10;
/// Bytes above the guard that fault once (`sched::overflow`): what raising an exception and unwinding may need.
/// It opens page by page.
const SOFT_GUARD_BYTES: usize = 64 << 10;
/// Slots whose guards split a mapping: two mappings each, of vm.max_map_count's 65,530, with half left to the program.
const SPLIT_CAP: usize = 16_000;
/// Slots whose pages are released together. Each release interrupts every CPU that runs a thread of the process; the
/// goroutines of a batch that end together lie side by side, so that a few calls do. `benches` parked would move it.
const RELEASE_BATCH: usize = 256;
/// Slots after which slabs that follow get the top page of every slot at once: a goroutine touches it in any case, and a
/// page fault costs more than its share of the call. A slab is then at most a 16th of what is there, used or not.
const POPULATE_AFTER: usize = 16 * SLAB_SLOTS;
/// What one page table of the lowest level maps, with pages of 4 KiB.
const TABLE_BYTES: usize = 2 << 20;
/// What the system must have left besides when it gives stacks. Hosts ask for memory by the MiB (CPython's arenas); without
/// any, 3.11 ends the process when it cannot make one more MemoryError.
const HEADROOM_BYTES: usize = 8 << 20;
const COLOURS: usize = 12;
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
        let page = memory::page_bytes();
        let Ok(probe) = memory::reserve(page) else { return Self::Protect };
        // SAFETY: the page just reserved, given back unused.
        let works = unsafe {
            let works = memory::guard_install(probe, page);
            memory::unmap(probe, page);
            works
        };
        if works { Self::Install } else { Self::Protect }
    }
}

/// One stack: usable bytes are `[base, top)`, those below `soft_end` once the soft guard is open.
#[derive(Debug)]
pub struct Stack {
    slot_start: NonZeroUsize,
    // Offsets in the slot, of 1 GiB at most: there is one of these for every started goroutine.
    base: u32,
    soft_end: u32,
    top: u32,
}

impl Stack {
    /// Where its slot begins, for `StackDepot::release_slots`.
    pub fn slot_start(&self) -> usize {
        self.slot_start.get()
    }

    /// Lowest usable address, above the guard.
    pub fn base(&self) -> usize {
        self.slot_start.get() + self.base as usize
    }

    /// One past the highest usable address; 16-aligned.
    pub fn top(&self) -> usize {
        self.slot_start.get() + self.top as usize
    }

    /// Whether `address` is in its usable part.
    pub fn holds(&self, address: usize) -> bool {
        (self.base()..self.top()).contains(&address)
    }

    /// Bytes between what does not fault and `sp`, which is in the usable part.
    pub fn room_below(&self, sp: usize) -> usize {
        sp.saturating_sub(self.soft_end())
    }

    /// End of the soft guard, `base` if there is none.
    fn soft_end(&self) -> usize {
        self.slot_start.get() + self.soft_end as usize
    }

    /// Usable bytes.
    pub fn size_bytes(&self) -> usize {
        self.top() - self.base()
    }
}

/// All slots of one size: free ones in a LIFO, so that warm ones are used first.
pub struct StackDepot {
    slot_bytes: usize,
    guard_bytes: usize,
    /// 0: no soft guard.
    soft_bytes: usize,
    page_bytes: usize,
    mode: GuardMode,
    state: Mutex<DepotState>,
}

struct DepotState {
    /// Usable slots nobody has.
    free: Vec<usize>,
    /// Usable slots nobody has, whose pages are to be released.
    retired: Vec<usize>,
    /// Reserved slots that are still inaccessible.
    cold: Vec<usize>,
    /// Usable slots nobody has, side by side, without guards and page tables.
    bare: Vec<Range<usize>>,
    /// Slots ever made whose guard splits a mapping.
    split: usize,
    /// Slabs ever made of usable slots.
    slabs: usize,
    /// Slots that somebody has.
    taken: usize,
    /// Slots ever made: each list has room for all, so that who gives a stack back asks for no memory.
    made: usize,
}

impl DepotState {
    /// Room in the lists for so many more slots.
    fn make_room(&mut self, slots: usize) -> io::Result<()> {
        let all = self.made + slots;
        let has_room = make_room(&mut self.free, all)
            && make_room(&mut self.retired, RELEASE_BATCH)
            && self.cold.try_reserve(slots).is_ok();
        if has_room { Ok(()) } else { Err(refused()) }
    }
}

fn refused() -> io::Error {
    io::Error::from(io::ErrorKind::OutOfMemory)
}

/// `reserve(bytes)` that leaves the headroom. It is cut off at the low end: the system maps downwards, and slabs that follow
/// each other stay one mapping.
fn reserve_with_headroom(reserve: fn(usize) -> io::Result<usize>, bytes: usize) -> io::Result<usize> {
    let start = reserve(HEADROOM_BYTES + bytes)?;
    // SAFETY: a part of what was just reserved.
    unsafe { memory::unmap(start, HEADROOM_BYTES) };
    Ok(start + HEADROOM_BYTES)
}

/// Slots that nobody has go back to the system; a stack that somebody has stays.
#[cfg(not(any(model, miri)))]
impl Drop for StackDepot {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|e| e.into_inner());
        let slots =
            state.free.iter().chain(&state.retired).chain(&state.cold).map(|&start| start..start + self.slot_bytes);
        // SAFETY: reserved by `grow`, in one list each, and nobody's.
        slots.chain(state.bare.iter().cloned()).for_each(|slots| unsafe { memory::unmap(slots.start, slots.len()) });
    }
}

impl StackDepot {
    /// An empty depot; the first slab is reserved by the first `allocate`.
    ///
    /// # Errors
    /// InvalidInput unless `slot_bytes` is a power of two of at least 64 KiB and four guards, at most 1 GiB.
    pub fn new(slot_bytes: usize, mode: GuardMode) -> io::Result<Self> {
        let guard_bytes = GUARD_BYTES.next_multiple_of(memory::page_bytes());
        let sizes = (64 << 10).max(4 * guard_bytes)..=1 << 30;
        if !slot_bytes.is_power_of_two() || !sizes.contains(&slot_bytes) {
            let text = "stack slot: a power of two from 64 KiB to 1 GiB";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let state = Mutex::new(DepotState {
            free: Vec::new(),
            retired: Vec::new(),
            cold: Vec::new(),
            bare: Vec::new(),
            split: 0,
            slabs: 0,
            taken: 0,
            made: 0,
        });
        Ok(Self { slot_bytes, guard_bytes, soft_bytes: 0, page_bytes: memory::page_bytes(), mode, state })
    }

    /// The same with a soft guard above the guard of each slot: 64 KiB, or a quarter of a small slot.
    #[must_use]
    pub fn with_soft_guards(mut self) -> Self {
        if self.mode != GuardMode::None {
            self.soft_bytes = SOFT_GUARD_BYTES.min(self.slot_bytes / 4).next_multiple_of(memory::page_bytes());
        }
        self
    }

    /// Addresses of a stack's guard.
    pub fn hard_guard_of(&self, stack: &Stack) -> Range<usize> {
        stack.slot_start.get()..stack.base()
    }

    /// Addresses of a stack's soft guard.
    pub fn soft_guard_of(&self, stack: &Stack) -> Range<usize> {
        stack.base()..stack.soft_end()
    }

    /// Lets the page of the soft guard that holds `address`, and all above it, be used as stack. `false`: the system
    /// refuses. Fit for a signal handler.
    pub fn open_soft_guard(&self, stack: &Stack, address: usize) -> bool {
        let start = stack.base() + (address - stack.base()) / self.page_bytes * self.page_bytes;
        let bytes = stack.soft_end() - start;
        // SAFETY: a part of the caller's stack. A slot of an inaccessible slab has another protection, not a guard.
        unsafe {
            if self.mode == GuardMode::Install {
                memory::guard_remove(start, bytes);
            }
            memory::commit(start, bytes)
        }
    }

    /// Makes the soft guard fault again. `false`: the system refuses.
    pub fn close_soft_guard(&self, stack: &Stack) -> bool {
        // SAFETY: a part of the caller's stack that is not in use.
        unsafe { self.guard(stack.base(), stack.soft_end() - stack.base()) }
    }

    /// # Safety
    /// The range is of a slot of this depot, and nobody needs its contents.
    unsafe fn guard(&self, start: usize, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match self.mode {
                GuardMode::Install => memory::guard_install(start, bytes),
                GuardMode::Protect => memory::protect_none(start, bytes),
                GuardMode::None => true,
            }
        }
    }

    /// Guard mode in force.
    pub fn mode(&self) -> GuardMode {
        self.mode
    }

    /// A stack.
    ///
    /// # Errors
    /// OutOfMemory when address space, memory or a guard is refused, or the cap of split mappings is reached. Nothing is
    /// lost: a later call may succeed once stacks were freed.
    pub fn allocate(&self) -> io::Result<Stack> {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let slot_start = match state.free.pop().or_else(|| state.retired.pop()) {
            Some(slot) => slot,
            None => {
                if !self.guard_some(&mut state) && state.cold.is_empty() {
                    self.grow(&mut state)?;
                }
                match state.free.pop() {
                    Some(slot) => slot,
                    None => self.warm(&mut state)?,
                }
            }
        };
        state.taken += 1;
        drop(state);
        let colour = (slot_start / self.slot_bytes) % COLOURS * COLOUR_BYTES;
        let slot_start = NonZeroUsize::new(slot_start).ok_or_else(refused)?;
        let soft_end = self.guard_bytes + self.soft_bytes;
        // Below 1 GiB, by `new`.
        let top = (self.slot_bytes - colour) as u32;
        Ok(Stack { base: self.guard_bytes as u32, soft_end: soft_end as u32, top, slot_start })
    }

    /// How many stacks somebody has.
    pub fn taken(&self) -> usize {
        self.state.lock().unwrap_or_else(|e| e.into_inner()).taken
    }

    /// Gives a stack back to be the next one given; its pages stay.
    pub fn free(&self, stack: Stack) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.taken -= 1;
        state.free.push(stack.slot_start.get());
    }

    /// Gives a stack back whose memory is not wanted: its pages go back to the system with those of a whole batch.
    pub fn retire(&self, stack: Stack) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.taken -= 1;
        state.retired.push(stack.slot_start.get());
        if state.retired.len() < RELEASE_BATCH {
            return;
        }
        let mut slots = [0; RELEASE_BATCH];
        slots.copy_from_slice(&state.retired);
        state.retired.clear();
        drop(state);
        // SAFETY: in no list and in nobody's hands.
        unsafe { self.release_slots(&mut slots) };
        self.state.lock().unwrap_or_else(|e| e.into_inner()).free.extend_from_slice(&slots);
    }

    /// Gives what nobody's stacks have back to the system: pages, and where they fill whole page tables guards and tables as well.
    pub fn release_free(&self) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let DepotState { free, retired, bare, .. } = &mut *state;
        free.append(retired);
        let before = bare.len();
        // SAFETY: nobody's, and not given while the lock is held.
        unsafe {
            self.empty(
                free,
                |&slot| slot,
                |whole, _| {
                    let is_listed = bare.try_reserve(1).is_ok();
                    if is_listed {
                        bare.push(whole);
                    }
                    is_listed
                },
            );
        }
        let mut taken = bare[before..].iter().peekable();
        free.retain(|slot| {
            while taken.next_if(|range| range.end <= *slot).is_some() {}
            taken.peek().is_none_or(|range| !range.contains(slot))
        });
        let spare = free.spare_capacity_mut().as_mut_ptr_range();
        // SAFETY: the list's own memory, in which nothing is.
        unsafe { memory::release_within(spare.start.expose_provenance()..spare.end.expose_provenance()) };
    }

    /// Gives some of the slots without guards theirs, so that they are free ones. `false`: there are none, or the system refuses.
    fn guard_some(&self, state: &mut DepotState) -> bool {
        let Some(last) = state.bare.last_mut() else { return false };
        let slots = (last.len() / self.slot_bytes).min(RELEASE_BATCH);
        let start = last.end - slots * self.slot_bytes;
        let each = (0..slots).rev().map(|i| start + i * self.slot_bytes);
        // SAFETY: slots of this depot that nobody has. Where the kernel knows no call for many, one at a time has to do.
        let guarded = unsafe {
            let guard = self.guard_bytes + self.soft_bytes;
            match memory::guard_install_each(each.clone(), guard) {
                0 => usize::from(self.guard(last.end - self.slot_bytes, guard)),
                many => many,
            }
        };
        last.end -= guarded * self.slot_bytes;
        if last.start == last.end {
            state.bare.pop();
        }
        state.free.extend(each.take(guarded));
        guarded != 0
    }

    /// Gives the pages of slots, by where they begin, back to the system, those of neighbours together; guards stay.
    ///
    /// # Safety
    /// They are of this depot, and nobody needs what is in them.
    unsafe fn release_slots(&self, slots: &mut [usize]) {
        slots.sort_unstable();
        for run in slots.chunk_by(|a, b| a + self.slot_bytes == *b) {
            // SAFETY: the caller's promise, of neighbours.
            unsafe { memory::release_pages(run[0], run.len() * self.slot_bytes) };
        }
    }

    /// The same for slots that stay somebody's, given with who that is, and will not be used for long. Where they fill whole page
    /// tables their guards go, too, which are entries there, and the kernel gives the tables back (Linux 6.14). Calls `bared` for
    /// the owner of each such slot: it needs `guard_again` before it is used.
    ///
    /// # Safety
    /// As for `release_slots`.
    pub unsafe fn empty_slots<T>(&self, slots: &mut [(usize, T)], mut bared: impl FnMut(&T)) {
        // SAFETY: the caller's promise.
        unsafe {
            self.empty(
                slots,
                |&(slot, _)| slot,
                |_, owners| {
                    owners.iter().for_each(|(_, owner)| bared(owner));
                    true
                },
            );
        }
    }

    /// Gives the pages of slots back, and guards and page tables of runs of them that fill tables if `strip` of such a run agrees.
    ///
    /// # Safety
    /// As for `release_slots`.
    unsafe fn empty<S>(
        &self,
        slots: &mut [S],
        start_of: impl Fn(&S) -> usize,
        mut strip: impl FnMut(Range<usize>, &[S]) -> bool,
    ) {
        slots.sort_unstable_by_key(&start_of);
        for run in slots.chunk_by(|a, b| start_of(a) + self.slot_bytes == start_of(b)) {
            let (start, end) = (start_of(&run[0]), start_of(&run[0]) + run.len() * self.slot_bytes);
            let whole = start.next_multiple_of(TABLE_BYTES)..end / TABLE_BYTES * TABLE_BYTES;
            let inside = (whole.start.saturating_sub(start) / self.slot_bytes).min(run.len())
                ..(whole.end.saturating_sub(start) / self.slot_bytes).min(run.len());
            // SAFETY: the caller's promise, of neighbours.
            unsafe {
                if self.mode == GuardMode::Install && !whole.is_empty() && strip(whole.clone(), &run[inside]) {
                    memory::guard_remove(whole.start, whole.len());
                }
                memory::release_pages(start, end - start);
            }
        }
    }

    /// Makes the low end of a slot fault again whose guards `empty_slots` took. `false`: the system has no memory for a page table;
    /// then the first touch of the stack fails as well.
    pub fn guard_again(&self, stack: &Stack) -> bool {
        // SAFETY: a part of the caller's stack, not in use.
        unsafe { self.guard(stack.slot_start.get(), self.guard_bytes + self.soft_bytes) }
    }

    /// Gives the whole pages of a stack below `end` back to the system; guards stay.
    ///
    /// # Safety
    /// Nobody needs what is in them.
    pub unsafe fn release_below(&self, stack: &Stack, end: usize) {
        let end = end / self.page_bytes * self.page_bytes;
        if end > stack.base() {
            // SAFETY: the caller's promise.
            unsafe { memory::release_pages(stack.base(), end - stack.base()) };
        }
    }

    /// Makes one inaccessible slot usable.
    fn warm(&self, state: &mut DepotState) -> io::Result<usize> {
        if state.split >= SPLIT_CAP {
            return Err(refused());
        }
        let slot = *state.cold.last().ok_or_else(refused)?;
        let guard = self.guard_bytes + self.soft_bytes;
        let usable = self.slot_bytes - guard;
        // SAFETY: a slot of an inaccessible slab that nobody has.
        if !memory::is_left(HEADROOM_BYTES + usable) || !unsafe { memory::commit(slot + guard, usable) } {
            return Err(refused());
        }
        valgrind::note_stack(slot + self.guard_bytes, slot + self.slot_bytes);
        state.cold.pop();
        state.split += 1;
        Ok(slot)
    }

    /// One more slab: usable slots, or inaccessible ones where the system refuses those.
    fn grow(&self, state: &mut DepotState) -> io::Result<()> {
        if self.mode == GuardMode::Protect && state.split >= SPLIT_CAP {
            return Err(refused());
        }
        let slots = (SLAB_BYTES / self.slot_bytes).clamp(1, SLAB_SLOTS);
        match self.grow_by(state, slots) {
            Err(_) if slots > 1 => self.grow_by(state, 1), // near a limit on address space
            result => result,
        }
    }

    fn grow_by(&self, state: &mut DepotState, slots: usize) -> io::Result<()> {
        // More than is used, so that the slab can start at a multiple of the stride, and of what a page table is for.
        let align =
            if slots * self.slot_bytes >= TABLE_BYTES { self.slot_bytes.max(TABLE_BYTES) } else { self.slot_bytes };
        let bytes = slots * self.slot_bytes + align;
        state.make_room(slots)?;
        match reserve_with_headroom(memory::reserve, bytes) {
            Ok(start) => self.guard_slab(state, start.next_multiple_of(align), slots)?,
            Err(_) => {
                let start = reserve_with_headroom(memory::reserve_inaccessible, bytes)?;
                let start = start.next_multiple_of(align);
                state.cold.extend((0..slots).rev().map(|i| start + i * self.slot_bytes));
            }
        }
        state.made += slots;
        Ok(())
    }

    /// Guards the slots of a fresh slab, from the top. When a guard is refused, the slots above stay in use and the
    /// rest of the slab goes back to the system; it is an error only if there is no slot at all.
    fn guard_slab(&self, state: &mut DepotState, start: usize, slots: usize) -> io::Result<()> {
        let guard = self.guard_bytes + self.soft_bytes;
        let each = (0..slots).rev().map(|i| start + i * self.slot_bytes);
        let mut guarded = 0;
        if self.mode == GuardMode::Install {
            // SAFETY: inside the slab just reserved, untouched yet.
            guarded = unsafe { memory::guard_install_each(each.clone(), guard) };
        }
        for i in (0..slots).rev() {
            let slot = start + i * self.slot_bytes;
            // SAFETY: as above.
            if i + guarded < slots && !unsafe { self.guard(slot, guard) } {
                // SAFETY: `[start, slot + slot_bytes)` is of this slab and in nobody's hands.
                unsafe { memory::unmap(start, (i + 1) * self.slot_bytes) };
                return if i + 1 == slots { Err(refused()) } else { Ok(()) };
            }
            state.split += usize::from(self.mode == GuardMode::Protect);
            valgrind::note_stack(slot + self.guard_bytes, slot + self.slot_bytes);
            state.free.push(slot);
        }
        // Where the kernel took one call for the guards it takes one for this.
        if guarded == slots && slots > 1 && state.slabs * slots >= POPULATE_AFTER {
            let tops = each.map(|slot| slot + self.slot_bytes - self.page_bytes);
            // SAFETY: usable parts of the slab.
            unsafe { memory::populate_each(tops, self.page_bytes) };
        }
        state.slabs += 1;
        Ok(())
    }
}
