//! Who waits for a change of what word: a hash table by the word's address.
//!
//! There is no lock between the word and the table. Who waits stands in the table and looks at the word once more; who
//! changed the word looks at the table: one sees the other. It grows with the number of those who wait, so that who
//! changes a word meets hardly anybody who waits for another one: every node is on a stack of its own, and a look at it
//! a cache miss.

use super::waiter::{Node, Outcome, WaitQueue};
use crate::primitive::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use crate::primitive::boxes::try_box;
use crate::primitive::exclusive::{ShortGuard, ShortLock};
use std::ptr;

/// Buckets of the first array, a power of two.
#[cfg(not(model))]
const FIRST: usize = 512;
#[cfg(model)]
const FIRST: usize = 2;
/// Each array is this many times the one before: half as many buckets as it grew at.
const GROWTH: usize = 4;
/// It grows when as many stand in it for each bucket.
#[cfg(not(model))]
const LOAD: usize = 2;
#[cfg(model)]
const LOAD: usize = 1;

/// Who waits for the words of one hash.
struct Bucket {
    /// Somebody stands here; changed with the lock held, looked at without.
    used: AtomicBool,
    queue: ShortLock<WaitQueue>,
}

/// All buckets: leaked, because who looks without a lock may still look at an array that was replaced.
type Array = Box<[Bucket]>;

/// An array with nobody in it; `None` when memory is refused.
fn array(buckets: usize) -> Option<Box<Array>> {
    let mut made = Vec::new();
    made.try_reserve_exact(buckets).ok()?;
    made.extend((0..buckets).map(|_| Bucket { used: AtomicBool::new(false), queue: ShortLock::new(WaitQueue::new()) }));
    try_box(made.into_boxed_slice())
}

/// The bucket of an address in an array of a power of two.
fn bucket(array: &Array, address: u64) -> &Bucket {
    // Fibonacci hashing: the low bits of addresses are alike.
    &array[(address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (array.len() - 1)]
}

/// The table; [`Node::amount`] is the address.
pub struct WaitTable {
    /// Null until somebody waits.
    current: AtomicPtr<Array>,
    standing: AtomicUsize,
}

impl WaitTable {
    /// Nobody waits.
    #[cfg(not(model))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { current: AtomicPtr::new(ptr::null_mut()), standing: AtomicUsize::new(0) }
    }

    /// Nobody waits.
    #[cfg(model)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { current: AtomicPtr::new(ptr::null_mut()), standing: AtomicUsize::new(0) }
    }

    fn current(&self) -> Option<&'static Array> {
        // SAFETY: arrays are leaked. Acquire pairs with the Release where one is put in place.
        unsafe { self.current.load(Ordering::Acquire).as_ref() }
    }

    /// The bucket of an address, locked; `None` while nobody ever waited.
    fn locked(&self, address: u64) -> Option<(&'static Bucket, ShortGuard<'static, WaitQueue>)> {
        loop {
            let array = self.current()?;
            let bucket = bucket(array, address);
            let queue = bucket.queue.lock();
            // Who replaces an array holds all locks of it: whoever has one afterwards reads the new one.
            if self.current().is_some_and(|now| ptr::eq(now, array)) {
                return Some((bucket, queue));
            }
        }
    }

    /// Stands in the table, for whoever changes the word at `Node::amount` from now on. The caller looks at the word after
    /// that. `false` when the first array was refused: then it does not stand there.
    ///
    /// # Safety
    /// Host attached. `node` is live, unlinked, and stays in place until `leave`.
    pub unsafe fn enter(&self, node: *mut Node) -> bool {
        if self.current().is_none() && !self.replace(None, FIRST) {
            return false;
        }
        // SAFETY: the caller's promise.
        let Some((bucket, mut queue)) = self.locked(unsafe { (*node).amount }) else { return false };
        // SAFETY: the caller's promise.
        unsafe { queue.push_back(node) };
        bucket.used.store(true, Ordering::Relaxed);
        drop(queue);
        fence(Ordering::SeqCst); // pairs with the fence in `is_used`: stands there before the look
        let standing = self.standing.fetch_add(1, Ordering::Relaxed) + 1; // a measure of load, no more
        let now = self.current();
        if let Some(array) = now
            && standing > array.len() * LOAD
        {
            self.replace(now, array.len() * GROWTH);
        }
        true
    }

    /// The end of a stay, claimed or not.
    ///
    /// # Safety
    /// Host attached. `enter` took the node, and in this process.
    pub unsafe fn leave(&self, node: *mut Node) {
        self.standing.fetch_sub(1, Ordering::Relaxed); // as above
        // SAFETY: the caller's promise.
        if let Some((bucket, mut queue)) = self.locked(unsafe { (*node).amount }) {
            // SAFETY: as above; linked here if anywhere.
            unsafe { queue.remove(node) };
            bucket.used.store(!queue.is_empty(), Ordering::Relaxed);
        }
    }

    /// After the change of a word: whether somebody may be waiting for it. Takes no lock.
    #[inline]
    pub fn is_used(&self, address: u64) -> bool {
        // Pairs with the fence in `enter`: the change before the look. Who read an older array than `enter` did has fenced
        // before it, and `enter`'s caller sees the change.
        fence(Ordering::SeqCst);
        self.current().is_some_and(|array| bucket(array, address).used.load(Ordering::Relaxed))
    }

    /// Claims the first that waits for the word at `address`; null when nobody does. Host attached.
    pub fn claim(&self, address: u64, outcome: Outcome) -> *mut Node {
        let Some((bucket, mut queue)) = self.locked(address) else { return ptr::null_mut() };
        let node = queue.claim_amount(address, outcome);
        bucket.used.store(!queue.is_empty(), Ordering::Relaxed);
        node
    }

    /// In a forked child nobody stands here any more.
    pub fn forget(&self) {
        // Relaxed: the child has one thread. The array stays behind, untouched: its pages are the parent's.
        self.current.store(ptr::null_mut(), Ordering::Relaxed);
        self.standing.store(0, Ordering::Relaxed);
    }

    /// Puts an array of so many buckets in the place of `old`, with all who stand there; whether there is one now. Refused
    /// memory leaves the old one, which works.
    #[cold]
    fn replace(&self, old: Option<&'static Array>, buckets: usize) -> bool {
        let Some(new) = array(buckets) else { return old.is_some() };
        let new: *mut Array = Box::into_raw(new);
        let before = old.map_or(ptr::null_mut(), |array| ptr::from_ref(array).cast_mut());
        let locked = old.map_or(&[][..], |array| &array[..]);
        locked.iter().for_each(|bucket| bucket.queue.raw_lock());
        // Relaxed: with the locks of the current array held nobody else replaces it.
        let is_current = self.current.load(Ordering::Relaxed) == before;
        if is_current {
            // SAFETY: all locks of the old array are held; the new one is known to nobody.
            unsafe { locked.iter().for_each(|bucket| Self::hand_over(bucket, &*new)) };
        }
        // Release pairs with the Acquire in `current`. The first array is put in place without a lock.
        let done =
            is_current && self.current.compare_exchange(before, new, Ordering::Release, Ordering::Relaxed).is_ok();
        // SAFETY: locked above, and no reference into a queue is left.
        locked.iter().for_each(|bucket| unsafe { bucket.queue.raw_unlock() });
        if !done {
            // SAFETY: from `into_raw`, and nobody's.
            drop(unsafe { Box::from_raw(new) });
        }
        true
    }

    /// Moves who stands in a bucket to another array, in order.
    ///
    /// # Safety
    /// The bucket is locked by `raw_lock`, the array known to nobody else.
    unsafe fn hand_over(from: &Bucket, to: &Array) {
        // SAFETY: the caller's promise; linked nodes are live.
        unsafe {
            let queue = from.queue.value_ptr();
            loop {
                let node = (*queue).front();
                if node.is_null() {
                    return;
                }
                (*queue).remove(node);
                let bucket = bucket(to, (*node).amount);
                (*bucket.queue.value_ptr()).push_back(node);
                bucket.used.store(true, Ordering::Relaxed);
            }
        }
    }
}
