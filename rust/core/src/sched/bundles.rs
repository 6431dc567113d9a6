//! Bundles: what a started goroutine runs on. Made, kept for the next one, deleted.
//!
//! Bundle and header (the host's, CPython's first data-stack chunk) are one object of the runtime's own memory and not part of the stack:
//! others look at them while the goroutine is parked and the pages of its stack may be given back (`shrink`).

use super::machine::goroutine_main;
use super::runtime::Runtime;
use crate::context;
use crate::goroutine::Bundle;
use crate::goroutine::host::HostThread;
use crate::primitive::boxes::try_box;
use crate::stack::{Stack, StackDepot};
use std::io;
use std::ptr;

/// A header begins where a bundle ends, at a cache line.
const BUNDLE_BYTES: usize = size_of::<Bundle>().next_multiple_of(64);

impl Runtime {
    /// A bundle with a stack of `stack_bytes` (0: the runtime's size, from the pool if one is there); null when memory is
    /// refused. Host attached.
    pub(super) fn take_bundle(&self, stack_bytes: u32) -> *mut Bundle {
        if stack_bytes == 0
            && let Some(bundle) = self.pooled_bundle()
        {
            return bundle;
        }
        // SAFETY: host attached by the caller's contract.
        self.make_bundle(stack_bytes, self.header_bytes(), |stack, header, bytes| unsafe {
            (self.host.new_thread)(stack.base(), stack.top(), header, bytes)
        })
    }

    /// A bundle for a thread of the host's that brings its state, which nobody attached yet; null when memory is refused. Host
    /// attached.
    pub(super) fn make_threads_bundle(&self, state: HostThread, stack_bytes: u32) -> *mut Bundle {
        self.make_bundle(stack_bytes, self.host.thread_header_bytes, |_, header, bytes| {
            // SAFETY: as the caller says; the header is new.
            unsafe { (self.host.give_header)(state, header, bytes) };
            state
        })
    }

    /// A bundle on a new stack. `host` gives its state, with a header of so many bytes; null: memory is refused.
    fn make_bundle(
        &self,
        stack_bytes: u32,
        header_bytes: usize,
        host: impl FnOnce(&Stack, usize, usize) -> HostThread,
    ) -> *mut Bundle {
        let Ok(stack) = self.depot(stack_bytes).and_then(StackDepot::allocate) else { return ptr::null_mut() };
        let block_bytes = BUNDLE_BYTES + header_bytes;
        let bundle = self.take_object(block_bytes).cast::<Bundle>();
        let host = match bundle.is_null() {
            true => ptr::null_mut(),
            false => host(&stack, bundle.expose_provenance() + BUNDLE_BYTES, header_bytes),
        };
        if host.is_null() {
            if !bundle.is_null() {
                // SAFETY: made above.
                unsafe { self.give_object(bundle.cast(), block_bytes) };
            }
            self.free_stack(stack, stack_bytes);
            return ptr::null_mut();
        }
        let top = stack.top();
        // SAFETY: the stack is mapped, nobody's and of 48 KiB at least, its top aligned to 64; the block is aligned and large enough.
        unsafe {
            let context = context::init(top, goroutine_main);
            let (identity, block_bytes) = (host.addr(), block_bytes as u32); // some KiB
            let on_thread = Bundle::on_thread(host, top);
            bundle.write(Bundle { stack: Some(stack), context, identity, stack_bytes, block_bytes, ..on_thread });
        }
        bundle
    }

    /// Where stacks of that size come from and go back to.
    pub(super) fn depot(&self, stack_bytes: u32) -> io::Result<&StackDepot> {
        if stack_bytes == 0 {
            return Ok(&self.stacks);
        }
        let mut depots = self.other_stacks.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(&(_, depot)) = depots.iter().find(|(size, _)| *size == stack_bytes) {
            return Ok(depot);
        }
        let mut depot = StackDepot::new(stack_bytes as usize, self.stacks.mode())?;
        if self.host.counts_calls {
            depot = depot.with_soft_guards();
        }
        depots.try_reserve(1).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let depot: &'static StackDepot = Box::leak(try_box(depot).ok_or(io::ErrorKind::OutOfMemory)?);
        depots.push((stack_bytes, depot));
        Ok(depot)
    }

    fn free_stack(&self, stack: Stack, stack_bytes: u32) {
        // The depot was there when the stack came from it.
        if let Ok(depot) = self.depot(stack_bytes) {
            depot.retire(stack);
        }
    }

    pub(super) fn keep_bundle(&self, bundle: *mut Bundle) {
        self.bundles.lock().idle.push(bundle);
    }

    fn pooled_bundle(&self) -> Option<*mut Bundle> {
        let mut pool = self.bundles.lock();
        let bundle = pool.idle.pop();
        pool.unused = pool.unused.min(pool.idle.len());
        bundle
    }

    /// Deletes pooled bundles: `all`, or half of those that nobody has needed since the last call. Host attached.
    pub(super) fn shed_bundles(&self, all: bool) {
        let count = {
            let mut pool = self.bundles.lock();
            let idle = pool.idle.len();
            let count = if all { idle } else { pool.unused.div_ceil(2) };
            pool.idle.rotate_left(count); // those that have waited for the longest
            pool.unused = idle - count;
            count
        };
        // SAFETY: pooled bundles are nobody's, their states hold nothing; the current one is of a goroutine that has just ended.
        unsafe {
            let current = (self.host.current)();
            for _ in 0..count {
                let Some(bundle) = self.bundles.lock().idle.pop() else { return };
                if (*bundle).host == current {
                    self.keep_bundle(bundle);
                    return;
                }
                (self.host.clear_thread)((*bundle).host);
                self.destroy_bundle(bundle);
            }
        }
    }

    /// Whether enough bundles lie idle that an ending goroutine should give its memory back, or there is no room for one more.
    pub fn should_retire(&self) -> bool {
        let bundles = &mut self.bundles.lock().idle;
        bundles.len() >= self.config.max_idle_bundles || bundles.try_reserve(1).is_err() || self.is_over_limit()
    }

    /// Stacks that somebody has, those of idle bundles among them.
    pub(super) fn stacks_taken(&self) -> usize {
        let others = self.other_stacks.lock().unwrap_or_else(|e| e.into_inner());
        self.stacks.taken() + others.iter().map(|(_, depot)| depot.taken()).sum::<usize>()
    }

    /// Bytes of the object that the next bundle is.
    pub(super) fn next_bundle_bytes(&self) -> usize {
        BUNDLE_BYTES + self.usual_header_bytes()
    }

    /// Deletes a bundle whose state was cleared and is not current.
    ///
    /// # Safety
    /// The caller owns it; host attached on another state.
    pub(super) unsafe fn destroy_bundle(&self, bundle: *mut Bundle) {
        // SAFETY: the caller's promise. sysmon may still look at the state, hence the lock.
        unsafe {
            if !(*bundle).host.is_null() {
                let _guard = self.state_delete.lock().unwrap_or_else(|e| e.into_inner());
                (self.host.delete_thread)((*bundle).host);
            }
            self.give_bundle(bundle);
        }
    }

    /// Gives back what a bundle without a host's state lies on and in.
    ///
    /// # Safety
    /// As for `destroy_bundle`; its state is no more, or nobody's.
    pub(super) unsafe fn give_bundle(&self, place: *mut Bundle) {
        // SAFETY: the caller's promise; `make_bundle` wrote it.
        unsafe {
            let bundle = place.read();
            // Who left for good has no stack to give back, and its header is its frames' for ever.
            if let Some(stack) = bundle.stack {
                self.give_object(place.cast(), bundle.block_bytes as usize);
                self.free_stack(stack, bundle.stack_bytes);
            }
        }
    }
}
