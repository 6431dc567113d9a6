//! Locks and threads of the randomised model (`--cfg shuttle`): shuttle's, which also carry what `delayed` keeps.

use super::delayed::{self, Mark};
use std::cell::Cell;
use std::sync::LockResult;

/// A lock that knows what its last holder had stored.
pub struct Mutex<T> {
    inner: shuttle::sync::Mutex<T>,
    released: Cell<Option<Mark>>,
}

// SAFETY: the cell is touched by the holder of the lock only.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Mutex<T> {
    /// A free lock around `value`.
    pub fn new(value: T) -> Self {
        Self { inner: shuttle::sync::Mutex::new(value), released: Cell::new(None) }
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// None: a model that panicked is over.
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        delayed::trace(&"lock");
        let inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        self.released.get().into_iter().for_each(delayed::see);
        Ok(MutexGuard { inner: Some(inner), released: &self.released })
    }
}

/// The lock, held.
pub struct MutexGuard<'a, T> {
    /// Empty while it waits for a [`Condvar`].
    inner: Option<shuttle::sync::MutexGuard<'a, T>>,
    released: &'a Cell<Option<Mark>>,
}

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("held")
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("held")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.released.set(Some(delayed::mark()));
        }
    }
}

/// Waits beside a [`Mutex`].
pub struct Condvar(shuttle::sync::Condvar);

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Condvar {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    /// Lets go of the lock, waits, and takes it again.
    ///
    /// # Errors
    /// None.
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        guard.released.set(Some(delayed::mark()));
        let inner = self.0.wait(guard.inner.take().expect("held")).unwrap_or_else(|e| e.into_inner());
        guard.released.get().into_iter().for_each(delayed::see);
        guard.inner = Some(inner);
        Ok(guard)
    }

    /// Wakes one.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Threads of an execution.
pub mod thread {
    pub use shuttle::thread::yield_now;

    /// Starts a thread that runs `main`, and is never waited for.
    pub fn start(main: impl FnOnce() + 'static) {
        /// Tasks take turns on one thread of the system.
        struct Anything<F>(F);
        // SAFETY: as said: nothing is sent anywhere.
        unsafe impl<F> Send for Anything<F> {}
        impl<F: FnOnce()> Anything<F> {
            fn call(self) {
                (self.0)();
            }
        }
        super::super::delayed::flush();
        let main = Anything(main);
        drop(shuttle::thread::spawn(move || main.call()));
    }
}
