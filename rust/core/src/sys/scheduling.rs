//! What the system's scheduler knows of a thread: its CPUs, niceness and policy. Linux, where each belongs to the thread.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Words of a set of CPUs: of as many as a kernel can be built for.
const CPU_WORDS: usize = 128;

/// As one thread has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Scheduling {
    cpus: [u64; CPU_WORDS],
    nice: libc::c_int,
    policy: libc::c_int,
    priority: libc::c_int,
}

/// What threads begin with; null while they begin with what their starter has. What was here is never freed, since a thread
/// may be reading it; changes are few. No lock: a forked child could find it taken.
static FIRST: AtomicPtr<Scheduling> = AtomicPtr::new(ptr::null_mut());

impl Scheduling {
    /// The calling thread's.
    pub fn read() -> Self {
        let mut cpus = [0; CPU_WORDS];
        let mut parameter = libc::sched_param { sched_priority: 0 };
        // SAFETY: buffers of the sizes given. None of these fails for the calling thread; what one could not tell stays 0.
        unsafe {
            libc::sched_getaffinity(0, size_of_val(&cpus), cpus.as_mut_ptr().cast());
            libc::sched_getparam(0, &raw mut parameter);
            let (nice, policy) = (libc::getpriority(libc::PRIO_PROCESS, 0), libc::sched_getscheduler(0));
            Self { cpus, nice, policy, priority: parameter.sched_priority }
        }
    }

    /// How many CPUs it may use, 1 at least.
    pub fn cpu_count(&self) -> usize {
        self.cpus.iter().map(|word| word.count_ones() as usize).sum::<usize>().max(1)
    }

    /// Makes it the calling thread's; `false` if the system refuses a part, as it may to raise a priority.
    pub fn restore(&self) -> bool {
        let parameter = libc::sched_param { sched_priority: self.priority };
        // SAFETY: buffers of the sizes given; what is refused is seen below.
        unsafe {
            libc::sched_setscheduler(0, self.policy, &raw const parameter);
            libc::setpriority(libc::PRIO_PROCESS, 0, self.nice);
            libc::sched_setaffinity(0, size_of_val(&self.cpus), self.cpus.as_ptr().cast());
        }
        Self::read() == *self
    }

    /// Threads of the runtime that are started from here on begin with it, whatever their starters have.
    pub fn make_first(self: Box<Self>) {
        FIRST.store(Box::leak(self), Ordering::Release); // pairs with the Acquire in `begin_thread`
    }

    /// As `make_first`, unless it was called before.
    pub fn make_first_if_none(self: Box<Self>) {
        if FIRST.load(Ordering::Relaxed).is_null() {
            self.make_first();
        }
    }
}

/// On a new thread: gives it what the first ones have.
pub(super) fn begin_thread() {
    // SAFETY: null or a box that was leaked. Acquire: pairs with the Release in `make_first`.
    if let Some(first) = unsafe { FIRST.load(Ordering::Acquire).as_ref() } {
        first.restore();
    }
}
