//! Atomics of the randomised model (`--cfg shuttle`): each use is a point where another thread may go on, and a store may
//! come to others later than it was made, as it does on a CPU with a store buffer. shuttle's own know only sequential
//! consistency, under which no fence is ever missed.
//!
//! What is modelled, all of it allowed by Rust's memory model: a store stays with its thread until that fences with
//! `SeqCst`, until somebody changes the word by a read-modify-write, or until chance lets others see it. Relaxed stores
//! come to others in any order; who reads a Release with Acquire sees all that was stored before it. A `SeqCst` load comes
//! after all `SeqCst` stores of its thread. Loads are not reordered: that is loom's.
//!
//! A thread here is one of the system's (an M): a goroutine that goes on on another M goes on with that one's stores.

use std::cell::{Cell, RefCell};
pub use std::sync::atomic::Ordering;

/// Out of so many loads of a word with delayed stores one sees them, in some executions and in others.
const SEEN_IN: [u64; 2] = [4, 64];
/// Out of eight stores so many are delayed.
const DELAYED_OF_8: [u64; 3] = [1, 4, 7];
/// After so many stores of anybody's it has come: no CPU keeps one for ever.
const LATEST: u64 = 200;

/// All that a thread had stored when it released something.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    thread: usize,
    upto: u64,
}

/// One thread's stores, counted.
#[derive(Clone, Copy, Default)]
struct Stores {
    made: u64,
    /// So many of them have come to everybody.
    seen: u64,
    /// The last one that was `SeqCst`.
    last_seq_cst: u64,
}

#[derive(Default)]
struct Machines {
    /// By the number of the thread.
    stores: Vec<Stores>,
    /// Which thread each task of shuttle's is on.
    threads: Vec<usize>,
    random: u64,
    /// Stores of all threads.
    made: u64,
    seen_in: u64,
    /// 0 with `SHUTTLE_PROMPT`: to see whether a failure needs stores that come late.
    delayed_of_8: u64,
    /// Each use is printed.
    is_traced: bool,
}

std::thread_local! {
    // One execution at a time on a test's thread, whose tasks take turns: a borrow is over before the next turn.
    static MACHINES: RefCell<Machines> = RefCell::default();
    static POINT: shuttle::sync::atomic::AtomicBool = const { shuttle::sync::atomic::AtomicBool::new(false) };
}

impl Machines {
    fn of(&mut self, thread: usize) -> &mut Stores {
        if thread >= self.stores.len() {
            self.stores.resize_with(thread + 1, Stores::default);
        }
        &mut self.stores[thread]
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % n
    }

    fn see(&mut self, mark: Mark) {
        let stores = self.of(mark.thread);
        stores.seen = stores.seen.max(mark.upto);
    }
}

/// A new execution: nothing is delayed, and chance follows `seed`.
pub(super) fn begin(seed: u64) {
    let is_set = |name: &str| std::env::var(name).is_ok_and(|text| !text.is_empty());
    let is_traced = is_set("SHUTTLE_TRACE");
    let (seen_in, delayed_of_8) = (SEEN_IN[(seed >> 40) as usize % 2], DELAYED_OF_8[(seed >> 44) as usize % 3]);
    let delayed_of_8 = if is_set("SHUTTLE_PROMPT") { 0 } else { delayed_of_8 };
    MACHINES.set(Machines { random: seed | 1, seen_in, delayed_of_8, is_traced, ..Machines::default() });
}

/// A number below `n` by chance, as the execution's seed says.
pub(crate) fn below(n: u64) -> u64 {
    MACHINES.with_borrow_mut(|all| all.below(n))
}

/// A point where another thread may go on.
fn point() {
    POINT.with(|p| p.load(Ordering::SeqCst));
}

/// Tells of a step, if `SHUTTLE_TRACE` asks for it.
#[track_caller]
pub(super) fn trace(what: &dyn std::fmt::Debug) {
    if MACHINES.with_borrow(|all| all.is_traced) {
        let (task, at) = (usize::from(shuttle::current::me()), std::panic::Location::caller());
        let file = at.file().rsplit_once("src/").map_or(at.file(), |(_, file)| file);
        eprintln!("task {task} thread {} {file}:{}: {what:?}", current_thread(), at.line());
    }
}

/// The thread the calling task is on; its own until it is told otherwise.
pub(crate) fn current_thread() -> usize {
    let task = usize::from(shuttle::current::me());
    MACHINES.with_borrow(|all| all.threads.get(task).copied()).unwrap_or(task)
}

/// The calling task goes on on `thread`.
pub(crate) fn go_on_thread(thread: usize) {
    let task = usize::from(shuttle::current::me());
    MACHINES.with_borrow_mut(|all| {
        for next in all.threads.len()..=task {
            all.threads.push(next);
        }
        all.threads[task] = thread;
    });
}

/// What the calling thread has stored so far.
pub(super) fn mark() -> Mark {
    let thread = current_thread();
    MACHINES.with_borrow_mut(|all| Mark { thread, upto: all.of(thread).made })
}

/// The caller has acquired what was released with `mark`. Its own release tells nobody anything.
pub(super) fn see(mark: Mark) {
    if mark.thread != current_thread() {
        MACHINES.with_borrow_mut(|all| all.see(mark));
    }
}

/// All that the calling thread has stored comes to everybody: a full fence, a system call, the start of a thread.
pub(crate) fn flush() {
    let mark = mark();
    MACHINES.with_borrow_mut(|all| all.see(mark));
}

/// A fence. Those weaker than `SeqCst` are taken for as strong.
pub fn fence(_order: Ordering) {
    point();
    flush();
}

fn acquires(order: Ordering) -> bool {
    matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst)
}

fn releases(order: Ordering) -> bool {
    matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst)
}

struct Delayed<T> {
    value: T,
    /// The number of the store among those of all threads.
    number: u64,
    mark: Mark,
    releases: bool,
}

/// A word.
pub struct Atomic<T> {
    /// What everybody sees.
    value: Cell<T>,
    /// What comes along for who acquires that.
    released: Cell<Option<Mark>>,
    /// One thread's later stores.
    delayed: RefCell<Vec<Delayed<T>>>,
}

// SAFETY: the tasks of an execution take turns on one thread, and none does in the middle of a method's work.
unsafe impl<T> Send for Atomic<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Atomic<T> {}

impl<T: Copy + PartialEq + std::fmt::Debug> Atomic<T> {
    /// A word with `value`.
    pub fn new(value: T) -> Self {
        Self { value: Cell::new(value), released: Cell::new(None), delayed: RefCell::default() }
    }

    /// Lets others see what they must of the delayed stores; all of them if `all`.
    fn settle(&self, all: bool) {
        let mut delayed = self.delayed.borrow_mut();
        if delayed.is_empty() {
            return;
        }
        MACHINES.with_borrow_mut(|machines| {
            let seen = machines.of(delayed[0].mark.thread).seen;
            let has_come = |d: &Delayed<T>| all || d.mark.upto <= seen || d.number + LATEST < machines.made;
            let count = delayed.partition_point(has_come);
            for d in delayed.drain(..count) {
                self.value.set(d.value);
                self.released.set(d.releases.then_some(d.mark));
                // Before who sees this sees more: what was stored before a Release.
                if d.releases {
                    machines.see(d.mark);
                }
            }
        });
    }

    /// Reads the word.
    #[track_caller]
    pub fn load(&self, order: Ordering) -> T {
        let value = self.read(order);
        trace(&("load", value));
        value
    }

    fn read(&self, order: Ordering) -> T {
        point();
        let me = current_thread();
        if order == Ordering::SeqCst {
            MACHINES.with_borrow_mut(|all| {
                let stores = all.of(me);
                stores.seen = stores.seen.max(stores.last_seq_cst);
            });
        }
        self.settle(false);
        let own = self.delayed.borrow().last().filter(|d| d.mark.thread == me).map(|d| d.value);
        if let Some(value) = own {
            return value;
        }
        if !self.delayed.borrow().is_empty() && below(MACHINES.with_borrow(|all| all.seen_in)) == 0 {
            self.settle(true);
        }
        if acquires(order) {
            self.released.get().into_iter().for_each(see);
        }
        self.value.get()
    }

    /// Writes it.
    #[track_caller]
    pub fn store(&self, value: T, order: Ordering) {
        point();
        trace(&("store", value));
        let me = current_thread();
        if self.delayed.borrow().last().is_some_and(|d| d.mark.thread != me) {
            self.settle(true);
        }
        let (mark, number) = MACHINES.with_borrow_mut(|all| {
            all.made += 1;
            let number = all.made;
            let stores = all.of(me);
            stores.made += 1;
            if order == Ordering::SeqCst {
                stores.last_seq_cst = stores.made;
            }
            (Mark { thread: me, upto: stores.made }, number)
        });
        self.delayed.borrow_mut().push(Delayed { value, number, mark, releases: releases(order) });
        if below(8) >= MACHINES.with_borrow(|all| all.delayed_of_8) {
            self.settle(true);
        }
    }

    /// Reads it and, if `change` says so, writes it, in one.
    #[track_caller]
    fn update(&self, success: Ordering, failure: Ordering, change: impl FnOnce(T) -> Option<T>) -> Result<T, T> {
        point();
        self.settle(true);
        let old = self.value.get();
        let new = change(old);
        trace(&("change", old, new));
        if acquires(if new.is_some() { success } else { failure }) {
            self.released.get().into_iter().for_each(see);
        }
        let Some(new) = new else { return Err(old) };
        self.value.set(new);
        if releases(success) {
            self.released.set(Some(mark())); // a Relaxed one goes on with the release sequence
        }
        Ok(old)
    }

    #[track_caller]
    fn always(&self, order: Ordering, change: impl FnOnce(T) -> T) -> T {
        match self.update(order, Ordering::Relaxed, |old| Some(change(old))) {
            Ok(old) | Err(old) => old,
        }
    }

    /// Writes it; returns what it was.
    #[track_caller]
    pub fn swap(&self, value: T, order: Ordering) -> T {
        self.always(order, |_| value)
    }

    /// Writes `new` if it is `current`.
    ///
    /// # Errors
    /// What it is instead.
    #[track_caller]
    pub fn compare_exchange(&self, current: T, new: T, success: Ordering, failure: Ordering) -> Result<T, T> {
        self.update(success, failure, |old| (old == current).then_some(new))
    }

    /// The value, for who has the only reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.settle(true);
        self.value.get_mut()
    }
}

impl<T: Copy + PartialEq + std::fmt::Debug + Default> Default for Atomic<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> std::fmt::Debug for Atomic<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Atomic")
    }
}

/// A pointer.
pub type AtomicPtr<T> = Atomic<*mut T>;
/// A flag.
pub type AtomicBool = Atomic<bool>;

macro_rules! number {
    ($name:ident, $of:ty) => {
        /// A number.
        pub type $name = Atomic<$of>;

        #[allow(missing_docs, reason = "std's")]
        impl Atomic<$of> {
            #[track_caller]
            pub fn fetch_add(&self, n: $of, order: Ordering) -> $of {
                self.always(order, |old| old.wrapping_add(n))
            }
            #[track_caller]
            pub fn fetch_sub(&self, n: $of, order: Ordering) -> $of {
                self.always(order, |old| old.wrapping_sub(n))
            }
            #[track_caller]
            pub fn fetch_or(&self, n: $of, order: Ordering) -> $of {
                self.always(order, |old| old | n)
            }
            #[track_caller]
            pub fn fetch_and(&self, n: $of, order: Ordering) -> $of {
                self.always(order, |old| old & n)
            }
            #[track_caller]
            pub fn fetch_min(&self, n: $of, order: Ordering) -> $of {
                self.always(order, |old| old.min(n))
            }
            #[track_caller]
            pub fn fetch_max(&self, n: $of, order: Ordering) -> $of {
                self.always(order, |old| old.max(n))
            }
        }
    };
}
number!(AtomicI32, i32);
number!(AtomicI64, i64);
number!(AtomicU8, u8);
number!(AtomicU32, u32);
number!(AtomicU64, u64);
number!(AtomicUsize, usize);
