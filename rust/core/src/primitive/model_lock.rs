//! What stands for the spin lock inside models of other things: it blocks, so that a model does not follow every turn of
//! a spin. The spin lock has a model of its own.

use super::{Condvar, Mutex};

pub(super) struct ModelLock {
    held: Mutex<bool>,
    freed: Condvar,
}

impl ModelLock {
    pub(super) fn new() -> Self {
        Self { held: Mutex::new(false), freed: Condvar::new() }
    }

    pub(super) fn acquire(&self) {
        let mut held = self.held.lock().expect("no holder panics");
        while *held {
            held = self.freed.wait(held).expect("no holder panics");
        }
        *held = true;
    }

    pub(super) fn release(&self) {
        *self.held.lock().expect("no holder panics") = false;
        self.freed.notify_one();
    }
}
