//! What several own, where memory may be refused: std's `Arc` ends the process then.

use super::boxes::try_box;
use std::ops::Deref;
use std::ptr::NonNull;
// Not a model's: as `Arc`, it may be in a static and outlive an execution.
use std::sync::atomic::{AtomicUsize, Ordering, fence};

struct Counted<T> {
    count: AtomicUsize,
    value: T,
}

/// One count of a value, which goes with the last.
pub struct Shared<T>(NonNull<Counted<T>>);

// SAFETY: as for `Arc`: any thread may use the value, and any may be the one that drops it.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The first count of `value`; `None`: memory is refused.
    pub fn try_new(value: T) -> Option<Self> {
        let counted = try_box(Counted { count: AtomicUsize::new(1), value })?;
        Some(Self(NonNull::from(Box::leak(counted))))
    }
}

impl<T> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: alive by this count. Relaxed: whoever has a count keeps it meanwhile.
        unsafe { self.0.as_ref() }.count.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: alive by this count.
        &unsafe { self.0.as_ref() }.value
    }
}

impl<T> Drop for Shared<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: alive by this count. Release, and Acquire by who was the last: what others did with it comes before its end.
        unsafe {
            if self.0.as_ref().count.fetch_sub(1, Ordering::Release) == 1 {
                fence(Ordering::Acquire);
                drop(Box::from_raw(self.0.as_ptr()));
            }
        }
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::Shared;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counts<'a>(&'a AtomicUsize);

    impl Drop for Counts<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_count_drops_the_value_once() {
        let dropped = AtomicUsize::new(0);
        let first = Shared::try_new(Counts(&dropped)).expect("memory");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let other = first.clone();
                scope.spawn(move || drop((other.clone(), other)));
            }
        });
        assert_eq!((*first).0.load(Ordering::Relaxed), 0);
        drop(first);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
