//! The poller in a model: descriptors are ready when a model says so (`post`), and a wake-up stays until a wait with time
//! takes it.

use super::{Error, Event};
use crate::primitive::{Condvar, Mutex};

#[derive(Default)]
struct State {
    woken: bool,
    events: Vec<Event>,
}

/// Stands for one instance.
pub struct Poller {
    state: Mutex<State>,
    changed: Condvar,
}

#[allow(clippy::unnecessary_wraps, reason = "the system's can fail")]
impl Poller {
    /// Nothing ready.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { state: Mutex::new(State::default()), changed: Condvar::new() })
    }

    /// Nothing.
    ///
    /// # Errors
    /// None.
    pub fn register(&self, _fd: i32, _tag: u64) -> Result<(), Error> {
        Ok(())
    }

    /// Nothing.
    ///
    /// # Errors
    /// None.
    pub fn verify(&self, _fd: i32, _tag: u64) -> Result<(), Error> {
        Ok(())
    }

    /// Nothing.
    ///
    /// # Errors
    /// None.
    pub fn unregister(&self, _fd: i32) -> Result<(), Error> {
        Ok(())
    }

    /// Something happened to a descriptor.
    pub fn post(&self, event: Event) {
        self.state.lock().expect("no model panics here").events.push(event);
        self.changed.notify_all();
    }

    /// Waits for an event or a wake-up; with a time-out only looks.
    ///
    /// # Errors
    /// None.
    pub fn wait(&self, timeout_ns: Option<u64>, out: &mut [Event]) -> Result<usize, Error> {
        #[cfg(loom)]
        if timeout_ns.is_some_and(|ns| ns != 0) {
            loom::thread::yield_now();
        }
        #[cfg(shuttle)]
        self.wait_until(timeout_ns);
        let mut state = self.state.lock().expect("no model panics here");
        while timeout_ns.is_none() && !state.woken && state.events.is_empty() {
            state = self.changed.wait(state).expect("no model panics here");
        }
        if timeout_ns != Some(0) {
            state.woken = false;
        }
        let count = state.events.len().min(out.len());
        for (place, event) in out.iter_mut().zip(state.events.drain(..count)) {
            *place = event;
        }
        Ok(count)
    }

    /// Waits, if a time is given, until it is over or there is something to take.
    #[cfg(shuttle)]
    fn wait_until(&self, timeout_ns: Option<u64>) {
        use crate::sys::clock;
        crate::primitive::delayed::flush(); // a system call
        let Some(timeout_ns) = timeout_ns.filter(|&ns| ns != 0) else { return };
        let deadline_ns = clock::now_ns().saturating_add(timeout_ns);
        let _sleep = clock::Sleep::begin(deadline_ns);
        let is_quiet = || {
            let state = self.state.lock().expect("no model panics here");
            !state.woken && state.events.is_empty()
        };
        while clock::now_ns() < deadline_ns && is_quiet() {
            clock::pass();
        }
    }

    /// Ends the wait of who waits with time, or that of the next one.
    pub fn wake(&self) {
        self.state.lock().expect("no model panics here").woken = true;
        self.changed.notify_all();
    }

    /// It has none.
    pub fn own_descriptors(&self) -> [i32; 2] {
        [-1; 2]
    }
}
