//! No answers on systems whose hooks are not written: nobody asks.

/// Nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Scheduling;

impl Scheduling {
    /// Nothing.
    pub fn read() -> Self {
        Self
    }

    /// How many CPUs there are.
    pub fn cpu_count(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Nothing to do.
    pub fn restore(&self) -> bool {
        true
    }

    /// Nothing to do.
    pub fn make_first(&self) {}

    /// Nothing to do.
    pub fn make_first_if_none(&self) {}
}

#[cfg(not(shuttle))]
pub(super) fn begin_thread() {}
