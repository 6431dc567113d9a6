//! Layer 2: what happens to goroutines, as records of fixed size in the order in which it happened.
//!
//! Records are written low, by whoever changes a state, and made into a trace high (`observe::trace`), on a thread of its own.
//! All of a runtime go into one list of blocks: under an exclusive host whoever changes a state holds that one's lock, so the
//! order of the list is the order of the changes, for a store and no locked instruction; elsewhere a lock makes it so. The one
//! reader follows behind without a lock. Where memory is refused, or the reader falls behind too far, records are dropped and
//! counted: the reader makes sense of what is left.
//!
//! While no trace is taken this costs one load of a word that never changes.

mod ring;
mod tables;

pub use ring::{BLOCK_BYTES, Block, MANY, Put, Ring};
pub use tables::{Frame, Tables};

use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::primitive::exclusive::{ShortLock, is_exclusive};
use crate::sys::{clock, futex};
use std::sync::OnceLock;

/// Whether any runtime of the process is traced. Atomics of std: a static, which a model's cannot be.
static ON: AtomicUsizeOfStd = AtomicUsizeOfStd::new(0);
type AtomicUsizeOfStd = std::sync::atomic::AtomicUsize;

/// Whether there is anybody to note something for: one load, of a word that is written when a trace begins or ends.
#[inline(always)]
pub fn is_on() -> bool {
    // Relaxed: who begins a trace holds the host's lock; without one the first records may be missed.
    cfg!(not(model)) && ON.load(std::sync::atomic::Ordering::Relaxed) != 0
}

/// No goroutine, M, P or stack.
pub const NONE: u64 = 0;
/// Ns of a step in which records tell how long something took: up to a minute.
pub const STEP_NS: u64 = 16;

/// How many steps that is.
pub fn steps(ns: u64) -> u32 {
    u32::try_from(ns / STEP_NS).unwrap_or(u32::MAX)
}

/// No P.
pub const NO_P: u16 = u16::MAX;

/// What a record tells of.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that is known.
    None = 0,
    /// `g` was made by who runs on the M; `arg`: what it begins with, a stack of one frame.
    Create,
    /// `g` begins or goes on on the M and its P.
    Start,
    /// `g` waits; `aux` says for what. `arg`, here and in the two below: who runs there from then on, or 0: see [`Ring::starts`].
    Block,
    /// `g` lets others run; `aux` is 1 if it was made to.
    Stop,
    /// `g` has ended.
    End,
    /// `g` can go on.
    Ready,
    /// The P `arg` is nobody's.
    Idle,
    /// The P `arg` is taken from another M, whose goroutine is in a call.
    Take,
    /// `arg` Ps may run goroutines.
    Processors,
    /// A pass of the host's collector begins on `g`.
    CollectBegin,
    /// It is over.
    CollectEnd,
    /// `g` bytes are in use.
    Heap,
    /// `arg` samples of the CPU profile: `g` runs on the M, with `p`.
    Sample,
    /// `g` has waited for the host's lock: for `arg` steps of [`STEP_NS`], until `stack` of them ago.
    HostLock,
    /// Stacks were shrunk, for `arg` steps until now: `g` bytes of them are kept elsewhere. `stack`: how many stacks.
    Shrink,
    /// A task begins: a [`User`] and text follow, as many records as `aux` says. So for all from here on.
    TaskBegin,
    /// It ends.
    TaskEnd,
    /// A region begins.
    RegionBegin,
    /// It ends.
    RegionEnd,
    /// A message.
    Log,
    /// What `g` is labelled with.
    Label,
}

impl Kind {
    /// Whether `g` does not run any more.
    #[inline(always)]
    pub fn leaves(self) -> bool {
        matches!(self, Self::Block | Self::Stop | Self::End)
    }
}

const KINDS: [Kind; 22] = [
    Kind::None,
    Kind::Create,
    Kind::Start,
    Kind::Block,
    Kind::Stop,
    Kind::End,
    Kind::Ready,
    Kind::Idle,
    Kind::Take,
    Kind::Processors,
    Kind::CollectBegin,
    Kind::CollectEnd,
    Kind::Heap,
    Kind::Sample,
    Kind::HostLock,
    Kind::Shrink,
    Kind::TaskBegin,
    Kind::TaskEnd,
    Kind::RegionBegin,
    Kind::RegionEnd,
    Kind::Log,
    Kind::Label,
];

/// One record: 32 bytes, of which any value is one, so that text may stand in its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Its kind.
    pub kind: u8,
    /// By kind.
    pub aux: u8,
    /// The P of the M, or [`NO_P`].
    pub p: u16,
    /// The kernel's id of the thread.
    pub m: u32,
    /// When, by the session's clock.
    pub time: u64,
    /// The goroutine it tells of; [`NONE`]: a plain thread, or the scheduler itself.
    pub g: u64,
    /// By kind.
    pub arg: u32,
    /// Where it happened, in [`Tables`]; 0: not known.
    pub stack: u32,
}

const _: () = assert!(size_of::<Record>() == 32);

/// A record in four words, which is how it is written: as parts of it, it could not be read again as a whole at once.
pub type Words = [u64; 4];

impl Record {
    /// Its words.
    #[inline(always)]
    pub fn words(self) -> Words {
        // SAFETY: as large, without padding, and any bytes are words.
        unsafe { std::mem::transmute(self) }
    }

    /// Who runs there from the same moment on, if it says so: a switch from one goroutine to the next is one record.
    #[inline]
    pub fn starts(&self) -> Option<u64> {
        (self.kind().leaves() && self.arg != 0).then_some(self.arg.into())
    }

    /// Its kind.
    #[inline]
    pub fn kind(&self) -> Kind {
        KINDS.get(self.kind as usize).copied().unwrap_or(Kind::None)
    }

    /// How many records follow that belong to it.
    #[inline]
    pub fn following(&self) -> usize {
        if self.kind >= Kind::TaskBegin as u8 { self.aux.into() } else { 0 }
    }
}

/// What follows a record about tasks, regions and messages, before the text of both words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The task.
    pub task: u64,
    /// The one it is part of; for others 0.
    pub parent: u64,
    /// Bytes of the first word: a name, or a message's key.
    pub first: u32,
    /// Bytes of the second one: a message.
    pub second: u32,
    /// Fills up 32 bytes.
    pub unused: u64,
}

/// Most bytes of a word: Go's.
pub const MOST_TEXT: usize = 1024;
/// Records that two words and what stands before them take, at most.
pub const MOST_FOLLOWING: usize = 1 + 2 * MOST_TEXT / size_of::<Record>();

impl User {
    /// It and two words, of which as much is kept as Go keeps, as records; how many they are.
    pub fn pack(task: u64, parent: u64, first: &[u8], second: &[u8], to: &mut [Record; MOST_FOLLOWING]) -> usize {
        let (first, second) = (&first[..first.len().min(MOST_TEXT)], &second[..second.len().min(MOST_TEXT)]);
        let user = User { task, parent, first: first.len() as u32, second: second.len() as u32, unused: 0 };
        // SAFETY: a `User` is as large as a record, both words fit behind it, and records may have any bytes.
        unsafe {
            let place = to.as_mut_ptr();
            place.cast::<User>().write(user);
            let text = place.add(1).cast::<u8>();
            text.copy_from_nonoverlapping(first.as_ptr(), first.len());
            text.add(first.len()).copy_from_nonoverlapping(second.as_ptr(), second.len());
        }
        1 + (first.len() + second.len()).div_ceil(size_of::<Record>())
    }

    /// What was packed; `None`: it was something else.
    pub fn unpack(records: &[Record]) -> Option<(User, &[u8], &[u8])> {
        let (head, text) = records.split_first()?;
        // SAFETY: as large as a record, whose bytes are all written, and any bytes are a `User`; so for bytes of text.
        let (user, text) = unsafe {
            let text = std::slice::from_raw_parts(text.as_ptr().cast::<u8>(), size_of_val(text));
            (std::ptr::from_ref(head).cast::<User>().read(), text)
        };
        let (first, text) = text.split_at_checked(user.first as usize)?;
        Some((user, first, text.get(..user.second as usize)?))
    }
}

/// Where the running code is, as a number of [`Tables`]; 0: not known. The argument is a [`Session`].
pub type Here = unsafe extern "C" fn(session: *const u8) -> u32;

/// Who stacks are asked of: with the host attached, on the stack of what runs.
pub struct Eyes {
    /// Where that is.
    pub here: Here,
    /// What a goroutine begins with: its function, a stack of one frame. The argument is a `Goroutine`.
    pub entry: unsafe fn(&Session, g: *const u8) -> u32,
}

/// A trace in the making: what is noted, and what stands for it.
pub struct Session {
    /// The records.
    pub ring: ShortLock<Ring>,
    /// Stacks.
    pub tables: Mutex<Tables>,
    /// What the reader sleeps on; 1: there is something to read.
    pub note: AtomicU32,
    /// Records that were dropped.
    pub lost: AtomicU64,
    /// Blocks that the reader has done with.
    pub done: AtomicPtr<Block>,
    /// How many blocks there are.
    pub blocks: AtomicU32,
    /// What is asked where code is; `None`: stacks are not noted.
    here: Option<Here>,
    /// Whether whoever notes something may do so without a lock, and time is told by `ticks`.
    pub is_brief: bool,
    /// Whether time is told by `sys::clock::ticks`; else it is ns of the monotonic clock.
    pub ticks: bool,
}

impl Session {
    /// A trace that is noted in `block`, of [`Block::make`], and more like it.
    pub fn new(block: *mut Block, here: Option<Here>) -> Self {
        let ticks = clock::has_ticks();
        Self {
            ring: ShortLock::new(Ring::new(block)),
            tables: Mutex::new(Tables::default()),
            note: AtomicU32::new(0),
            lost: AtomicU64::new(0),
            done: AtomicPtr::new(std::ptr::null_mut()),
            blocks: AtomicU32::new(1),
            here,
            is_brief: ticks && is_exclusive(),
            ticks,
        }
    }

    /// Whether stacks are noted.
    #[inline(always)]
    pub fn sees(&self) -> bool {
        self.here.is_some()
    }

    /// Where the running code is, as a number of `tables`; 0: not known, or stacks are not noted.
    ///
    /// # Safety
    /// On the stack of what runs, host attached.
    #[inline(always)]
    pub unsafe fn look(&self) -> u32 {
        // SAFETY: the caller's promise.
        self.here.map_or(0, |here| unsafe { here(std::ptr::from_ref(self).cast()) })
    }

    /// Now, as records have it.
    #[inline]
    pub fn time(&self) -> u64 {
        if self.ticks { clock::ticks() } else { clock::now_ns() }
    }

    /// There is something for the reader.
    #[cold]
    pub fn wake(&self) {
        // Release: pairs with the Acquire of the reader, who reads blocks after it.
        if self.note.swap(1, Ordering::Release) == 0 {
            futex::wake_one(&raw const self.note);
        }
    }
}

/// What a runtime knows of traces.
#[derive(Default)]
pub struct Tracer {
    /// The trace that is taken, or null. Written with the host attached.
    session: AtomicPtr<Session>,
    /// The host's part.
    pub eyes: OnceLock<Eyes>,
}

impl Tracer {
    /// What to note in, if a trace of this runtime is taken.
    #[inline]
    pub fn session(&self) -> Option<&'static Session> {
        // Acquire: pairs with the Release in `begin`. SAFETY: null or leaked; who ends a trace frees it when nobody notes any more.
        unsafe { self.session.load(Ordering::Acquire).as_ref() }
    }

    /// From here on it is noted in `session`, which lives on. Host attached.
    pub fn begin(&self, session: *mut Session) {
        if self.session.swap(session, Ordering::AcqRel).is_null() {
            ON.fetch_add(1, std::sync::atomic::Ordering::SeqCst); // before what the caller sees of states
        }
    }

    /// From here on nothing is noted. Host attached; gives what was noted in.
    pub fn end(&self) -> *mut Session {
        let session = self.session.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if !session.is_null() {
            ON.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        }
        session
    }
}
