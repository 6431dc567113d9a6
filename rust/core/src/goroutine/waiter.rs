//! One blocked wait of a goroutine or a plain thread, and the queues waits stand in.
//!
//! A [`Wait`] lives on the waiter's stack for one blocking operation. Whoever changes `outcome` away from `PENDING` has
//! claimed it: that caller, and nobody else, readies the waiter. A [`Node`] links a wait into one queue; select has
//! several nodes for one wait. Nodes are linked and unlinked under the lock of the object that owns the queue, and a
//! claim by that object is made under the same lock, so a node it finds linked is alive.
//!
//! Whoever waited when the process forked does not exist in the child, and the memory of its wait may be anybody's there.
//! So nodes and queues are of an epoch, which a fork ends: a queue of another one is empty, a node of another one unlinked.

use super::Goroutine;
use crate::primitive::atomic::{AtomicU32, Ordering};
use crate::primitive::exclusive::change_u32;
use crate::timer::Timer;
use std::marker::PhantomPinned;
use std::ptr;
use std::sync::atomic::AtomicU32 as StdAtomicU32;

/// Forks that led to this process, and one: nothing is of epoch 0. Of std: a static, which a model's cannot be.
static EPOCH: StdAtomicU32 = StdAtomicU32::new(1);

/// The epoch of this process; changes in a forked child only.
#[inline(always)]
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed) // written while there is only one thread
}

/// Forgets, in a forked child, everybody who waits.
pub fn begin_epoch() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// How a wait ended.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet.
    Pending = 0,
    /// What was waited for happened; a value was handed over if there is one.
    Delivered = 1,
    /// The channel was closed.
    Closed = 2,
    /// The deadline passed.
    TimedOut = 3,
    /// The goroutine was cancelled.
    Cancelled = 4,
    /// A signal is pending for the main goroutine.
    Interrupted = 5,
    /// Nothing can ever wake the program.
    Deadlock = 6,
    /// The program is ending: nothing runs any more that could wake anybody.
    Stopped = 7,
    /// Whatever was to end it has (`ender`).
    ContextDone = 8,
}

impl Outcome {
    fn from_u32(v: u32) -> Self {
        match v {
            1 => Self::Delivered,
            2 => Self::Closed,
            3 => Self::TimedOut,
            4 => Self::Cancelled,
            5 => Self::Interrupted,
            6 => Self::Deadlock,
            7 => Self::Stopped,
            8 => Self::ContextDone,
            _ => Self::Pending,
        }
    }
}

/// Why a goroutine is parked, with Go's words.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not parked.
    None = 0,
    /// `chan receive`
    ChanReceive,
    /// `chan send`
    ChanSend,
    /// `select`
    Select,
    /// `select (no cases)`
    SelectNoCases,
    /// `sleep`
    Sleep,
    /// `sync.Mutex.Lock`
    Mutex,
    /// `sync.RWMutex.RLock`
    RwMutexRead,
    /// `sync.RWMutex.Lock`
    RwMutexWrite,
    /// `sync.WaitGroup.Wait`
    WaitGroup,
    /// `sync.Cond.Wait`
    Cond,
    /// `semacquire`
    Semaphore,
    /// `join`
    Join,
    /// `chan receive (nil chan)`
    ChanReceiveNil,
    /// `chan send (nil chan)`
    ChanSendNil,
    /// `IO wait`
    Io,
    /// `lock`, a semaphore of C code
    Lock,
    /// `wait for child`
    Child,
    /// `name resolution`
    Dns,
    /// `synctest.Run`
    SynctestRun,
    /// `synctest.Wait`
    SynctestWait,
    /// `goroutine memory`, of which there is no more than a limit says
    Memory,
}

/// The text of a reason byte, as Go prints it in a dump.
pub fn reason_name(reason: u8) -> &'static str {
    const NAMES: [&str; 22] = [
        "",
        "chan receive",
        "chan send",
        "select",
        "select (no cases)",
        "sleep",
        "sync.Mutex.Lock",
        "sync.RWMutex.RLock",
        "sync.RWMutex.Lock",
        "sync.WaitGroup.Wait",
        "sync.Cond.Wait",
        "semacquire",
        "join",
        "chan receive (nil chan)",
        "chan send (nil chan)",
        "IO wait",
        "lock",
        "wait for child",
        "name resolution",
        "synctest.Run",
        "synctest.Wait",
        "goroutine memory",
    ];
    NAMES.get(reason as usize).copied().unwrap_or("")
}

/// Who waits: a goroutine, or a plain thread on its futex word.
#[derive(Clone, Copy)]
pub enum Who {
    /// A parked goroutine.
    Goroutine(*mut Goroutine),
    /// A plain thread; see `park::READY` for its values.
    Thread(*const AtomicU32),
}

/// Who may end a wait from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    /// Cancellation, signals, the deadlock detector.
    ToAll,
    /// Signals: it is in C code, which cannot be told of anything else (`boundary`).
    ToSignals,
    /// Nobody.
    ToNothing,
}

impl Listens {
    /// Whether `outcome` may end the wait.
    pub fn is_for(self, outcome: Outcome) -> bool {
        match self {
            Self::ToAll => true,
            Self::ToSignals => outcome == Outcome::Interrupted,
            Self::ToNothing => false,
        }
    }
}

/// One blocking operation in progress. Not movable once a node or the timer points at it.
#[repr(C)]
pub struct Wait {
    /// First field: a fired timer is cast back to its wait.
    pub timer: Timer,
    outcome: AtomicU32,
    /// A plain thread's futex word; of a goroutine's wait, when it was readied, where that is looked at (`sched::contention`).
    pub word: AtomicU32,
    /// Who to ready.
    pub who: Who,
    /// The node that was claimed (select's winner), written under the claimer's lock.
    pub winner: *mut Node,
    /// What may end it beside what it waits for.
    pub listens: Listens,
    /// It is for something of the waiter's bubble (`sched::bubble`).
    pub is_durable: bool,
    /// In how many queues it stands while it is pending: for whoever looks for all it waits for.
    pub queue_count: u32,
    /// Others write through pointers while the owner holds a `&mut` over its block: no exclusive access is implied.
    _shared: PhantomPinned,
}

impl Wait {
    /// A pending wait; `sched::announce` fills in who waits.
    #[inline]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            timer: Timer::new(),
            outcome: AtomicU32::new(0),
            word: AtomicU32::new(0),
            who: Who::Goroutine(ptr::null_mut()),
            winner: ptr::null_mut(),
            listens: Listens::ToAll,
            is_durable: false,
            queue_count: 1,
            _shared: PhantomPinned,
        }
    }

    /// Ends the wait if nobody has; on `true` the caller must ready the waiter.
    #[inline]
    #[must_use]
    pub fn claim(&self, outcome: Outcome) -> bool {
        change_u32(&self.outcome, Outcome::Pending as u32, outcome as u32)
    }

    /// How it ended.
    #[inline]
    pub fn outcome(&self) -> Outcome {
        // Acquire: pairs with the claimer's AcqRel change.
        Outcome::from_u32(self.outcome.load(Ordering::Acquire))
    }
}

/// A wait's place in one queue.
pub struct Node {
    /// The wait it belongs to.
    pub wait: *mut Wait,
    next: *mut Node,
    prev: *mut Node,
    /// The epoch in which it was linked; 0: it is not.
    linked: u32,
    /// Which case of a select; in netpoll, which file of the descriptor; of a lock's waiter, when it came, where that is looked at.
    pub case: usize,
    /// Where the value is, to take from or give to; the queue's owner knows its type.
    pub slot: *mut u8,
    /// A number for the queue's owner (a weight, a ticket).
    pub amount: u64,
}

impl Node {
    /// An unlinked node.
    #[inline]
    pub fn new(wait: *mut Wait, slot: *mut u8) -> Self {
        Self { wait, next: ptr::null_mut(), prev: ptr::null_mut(), linked: 0, case: 0, slot, amount: 0 }
    }

    /// Whether it stands in a queue. Under that queue's lock.
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.linked == epoch()
    }
}

/// A FIFO of nodes. Every method is called under the owner's lock.
pub struct WaitQueue {
    head: *mut Node,
    tail: *mut Node,
    /// Of its nodes; another one than the process's: there are none.
    epoch: u32,
}

// SAFETY: the owner's lock serialises every access; nodes outlive their time in the queue (see the module text).
unsafe impl Send for WaitQueue {}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { head: ptr::null_mut(), tail: ptr::null_mut(), epoch: 0 }
    }

    /// Whether nobody stands in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.is_null() || self.epoch != epoch()
    }

    /// Drops who waited before a fork, without a look at them.
    #[inline]
    fn refresh(&mut self) {
        if self.epoch != epoch() {
            *self = Self { epoch: epoch(), ..Self::new() };
        }
    }

    /// How many stand in it. Counts them: for tests and dumps, so that every queue need not keep the number.
    pub fn len(&self) -> usize {
        let (mut count, mut node) = (0, self.front());
        while !node.is_null() {
            count += 1;
            // SAFETY: a linked node is live.
            node = unsafe { (*node).next };
        }
        count
    }

    /// Calls `f` with each node that stands in it, in order. Under the owner's lock.
    pub fn for_each(&self, mut f: impl FnMut(&Node)) {
        let mut node = self.front();
        while !node.is_null() {
            // SAFETY: a linked node is live.
            unsafe {
                f(&*node);
                node = (*node).next;
            }
        }
    }

    /// The first node, or null.
    pub fn front(&self) -> *mut Node {
        if self.is_empty() { ptr::null_mut() } else { self.head }
    }

    /// Appends.
    ///
    /// # Safety
    /// `node` is live, unlinked, and stays in place until it is unlinked.
    #[inline]
    pub unsafe fn push_back(&mut self, node: *mut Node) {
        self.refresh();
        // SAFETY: the caller's promise; `tail`, when not null, is a linked and therefore live node.
        unsafe {
            (*node).next = ptr::null_mut();
            (*node).prev = self.tail;
            (*node).linked = epoch();
            if self.tail.is_null() {
                self.head = node;
            } else {
                (*self.tail).next = node;
            }
        }
        self.tail = node;
    }

    /// Puts in front (a mutex waiter that lost the race).
    ///
    /// # Safety
    /// As for `push_back`.
    pub unsafe fn push_front(&mut self, node: *mut Node) {
        self.refresh();
        // SAFETY: the caller's promise; `head`, when not null, is a linked and therefore live node.
        unsafe {
            (*node).prev = ptr::null_mut();
            (*node).next = self.head;
            (*node).linked = epoch();
            if self.head.is_null() {
                self.tail = node;
            } else {
                (*self.head).prev = node;
            }
        }
        self.head = node;
    }

    /// Takes the node out if it is in.
    ///
    /// # Safety
    /// `node` is live and, if linked, linked in this queue.
    #[inline]
    pub unsafe fn remove(&mut self, node: *mut Node) {
        // SAFETY: the caller's promise; neighbours of a linked node are linked and live.
        unsafe {
            if !(*node).is_linked() {
                return; // and if it was before a fork, this queue has no such node any more
            }
            let (prev, next) = ((*node).prev, (*node).next);
            if prev.is_null() {
                self.head = next;
            } else {
                (*prev).next = next;
            }
            if next.is_null() {
                self.tail = prev;
            } else {
                (*next).prev = prev;
            }
            (*node).linked = 0;
        }
    }

    /// Unlinks and returns the first node whose wait this call could claim with `outcome`; null if there is none.
    #[inline]
    pub fn claim_front(&mut self, outcome: Outcome) -> *mut Node {
        self.refresh();
        while !self.head.is_null() {
            let node = self.head;
            // SAFETY: a linked node is live, and so is its wait.
            unsafe {
                self.remove(node);
                if (*(*node).wait).claim(outcome) {
                    (*(*node).wait).winner = node;
                    return node;
                }
            }
        }
        ptr::null_mut()
    }

    /// The same for the first node with this `amount`.
    pub fn claim_amount(&mut self, amount: u64, outcome: Outcome) -> *mut Node {
        let mut node = self.front();
        while !node.is_null() {
            // SAFETY: a linked node is live, and so is its wait; `next` is read before the node goes.
            unsafe {
                let next = (*node).next;
                if (*node).amount == amount {
                    self.remove(node);
                    if (*(*node).wait).claim(outcome) {
                        (*(*node).wait).winner = node;
                        return node;
                    }
                }
                node = next;
            }
        }
        ptr::null_mut()
    }
}
