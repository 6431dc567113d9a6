//! Execution traces in Go's format: a thread that reads what is noted (`event`) and writes what `go tool trace` reads.
//!
//! The thread neither has nor takes the host's lock. What it makes goes to a file, to memory that somebody empties, and to the
//! flight recorder, which keeps the last generations; each of them, and each snapshot, begins with a generation of its own.
//! A file that cannot be written is given up, and whoever ends the trace is told; nothing else notices.

mod afterwards;
mod clocks;
mod encoder;
mod recorder;
#[cfg(all(test, not(model)))]
mod rules;
mod said;
#[cfg(all(test, not(model)))]
mod tests;
mod wire;

use crate::event::{Block, Record, Session};
use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::primitive::boxes::try_box;
use crate::sched::Runtime;
use crate::sys::{futex, thread};
use clocks::{Clocks, Moment};
use encoder::{Begin, Encoder};
use recorder::Recorder;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::ptr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use recorder::Limits;

/// How long a generation is, ns: Go's second.
pub const PERIOD_NS: u64 = 1_000_000_000;
/// How often the thread looks when nobody wakes it, ns.
const LOOK_NS: u64 = 50_000_000;
/// What is written at once, bytes.
const PIECE: usize = 256 << 10;

/// Where a trace goes.
pub enum Sink {
    /// Into a file.
    File(File),
    /// Into memory: see [`Trace::bytes`].
    Memory,
}

/// What the thread is asked for.
enum Command {
    Open(Sink),
    Close,
    Record(Limits),
    Forget,
    Snapshot,
    Quit,
}

/// For so many commands at once there is memory in any case: whoever ends a trace must not be refused.
const COMMANDS: usize = 16;

/// What the thread and those who ask it share.
struct Shared {
    commands: Mutex<Vec<Command>>,
    /// How many were answered.
    answered: AtomicU32,
    results: Mutex<Results>,
    /// Where the thread has left off.
    block: AtomicPtr<Block>,
    session: &'static Session,
}

#[derive(Default)]
struct Results {
    /// What is written and not taken, where it goes into memory.
    bytes: Vec<u8>,
    snapshot: Option<Vec<u8>>,
    error: Option<io::Error>,
    lost: u64,
}

/// Why a trace is not begun.
#[derive(Debug)]
pub enum Refused {
    /// Memory.
    Memory,
    /// A thread.
    Thread(io::Error),
}

/// How a trace ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Why it is not whole.
    pub error: Option<io::Error>,
    /// Records that were dropped.
    pub lost: u64,
}

/// A trace that is being taken. All but `wait` with the host attached.
pub struct Trace {
    rt: &'static Runtime,
    shared: &'static Shared,
    asked: AtomicU32,
}

/// What to wait for.
#[derive(Clone, Copy)]
pub struct Ticket {
    shared: &'static Shared,
    number: u32,
}

impl Ticket {
    /// Waits until the thread has done it. Blocks the OS thread; the host is detached.
    pub fn wait(self) {
        loop {
            let answered = self.shared.answered.load(Ordering::Acquire); // pairs with the Release in `obey_all`
            if answered.wrapping_sub(self.number) < u32::MAX / 2 {
                return;
            }
            // Somebody else may have been woken in its stead.
            let _ = futex::wait(&self.shared.answered, answered, Some(LOOK_NS));
        }
    }
}

impl Trace {
    /// Begins to note what happens, with the places in the code where it does if `sees`; nothing is written yet. A generation
    /// lasts for `period_ns`.
    ///
    /// # Errors
    /// Memory or a thread is refused: nothing has changed.
    pub fn begin(rt: &'static Runtime, sees: bool, period_ns: u64) -> Result<Self, Refused> {
        let place = rt.take_object(crate::event::BLOCK_BYTES);
        if place.is_null() {
            return Err(Refused::Memory);
        }
        let here = rt.tracer.eyes.get().filter(|_| sees).map(|eyes| eyes.here);
        // SAFETY: nobody else's; given back below or at the end.
        let block = unsafe { Block::make(place) };
        let made = try_box(Session::new(block, here)).map(Box::into_raw);
        let Some(session) = made else {
            // SAFETY: as above.
            unsafe { rt.give_object(place, crate::event::BLOCK_BYTES) };
            return Err(Refused::Memory);
        };
        // SAFETY: leaked; freed at the end, or here, when nobody knows it any more.
        let made = Shared::new(unsafe { &*session }, block);
        let shared = made.and_then(try_box).map(Box::into_raw);
        rt.tracer.begin(session);
        let begun = shared.map_or(Err(Refused::Memory), |shared| Self::start_reader(rt, shared, period_ns));
        if begun.is_err() {
            rt.tracer.end();
            // SAFETY: as above; without a reader all blocks are where it would have begun.
            unsafe {
                Self::free(rt, session, block);
                if let Some(shared) = shared {
                    drop(Box::from_raw(shared));
                }
            }
        }
        begun
    }

    fn start_reader(rt: &'static Runtime, shared: *mut Shared, period_ns: u64) -> Result<Self, Refused> {
        // SAFETY: leaked for as long as the thread is there.
        let shared: &'static Shared = unsafe { &*shared };
        let found = rt.find_all(shared.session).ok_or(Refused::Memory)?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let first = Moment::now(shared.session);
        let now_ns = first.ns;
        let begin = Begin {
            session: shared.session,
            tid: 0,
            found,
            processors: rt.processors.in_use() as u32,
            now_ns,
            wall_ahead_ns: (wall.as_nanos() as u64).wrapping_sub(now_ns),
            period_ns,
            clocks: Clocks::new(first),
        };
        let encoder = Encoder::new(begin).ok_or(Refused::Memory)?;
        let block = shared.block.load(Ordering::Relaxed); // written before
        let reader = Reader {
            shared,
            commands: room_for_commands().ok_or(Refused::Memory)?,
            encoder,
            block,
            at: 0,
            file: None,
            to_memory: false,
            recorder: None,
            failed: false,
        };
        let reader = try_box(reader).map(Box::into_raw).ok_or(Refused::Memory)?;
        // SAFETY: the thread's alone from here on.
        if let Err(error) = unsafe { thread::spawn_raw(reader_thread, reader.cast()) } {
            // SAFETY: there is no thread.
            drop(unsafe { Box::from_raw(reader) });
            return Err(Refused::Thread(error));
        }
        Ok(Self { rt, shared, asked: AtomicU32::new(0) })
    }

    /// Gives the command back where memory is refused.
    fn ask(&self, command: Command) -> Result<Ticket, Command> {
        let mut commands = self.shared.commands.lock().unwrap_or_else(|e| e.into_inner());
        if commands.try_reserve(1).is_err() {
            return Err(command);
        }
        self.shared.session.ring.lock().show(); // before the thread can answer: what it reads until then is all there is
        commands.push(command);
        drop(commands);
        let number = self.asked.fetch_add(1, Ordering::Relaxed).wrapping_add(1); // with the host's lock
        self.shared.session.wake();
        Ok(Ticket { shared: self.shared, number })
    }

    /// Writes to `sink` from here on. `None`: memory is refused, and the file's descriptor is the caller's as before.
    pub fn open(&self, sink: Sink) -> Option<Ticket> {
        let asked = self.ask(Command::Open(sink));
        asked
            .map_err(|command| {
                if let Command::Open(Sink::File(file)) = command {
                    let _ = file.into_raw_fd();
                }
            })
            .ok()
    }

    /// Writes no more to that one.
    pub fn close(&self) -> Option<Ticket> {
        self.ask(Command::Close).ok()
    }

    /// Keeps the last generations from here on.
    pub fn record(&self, limits: Limits) -> Option<Ticket> {
        self.ask(Command::Record(limits)).ok()
    }

    /// Keeps none any more.
    pub fn forget(&self) -> Option<Ticket> {
        self.ask(Command::Forget).ok()
    }

    /// Makes a trace of what is kept, for [`Trace::snapshot`].
    pub fn ask_snapshot(&self) -> Option<Ticket> {
        self.ask(Command::Snapshot).ok()
    }

    /// The trace that was asked for; `None`: memory is refused.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        self.results().snapshot.take()
    }

    /// What was written into memory since the last call.
    pub fn bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.results().bytes)
    }

    /// Gives `take` what was written into memory since the last call, which is gone if that gives something. It must not wait.
    pub fn take_bytes<T>(&self, take: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut results = self.results();
        let taken = take(&results.bytes)?;
        results.bytes = Vec::new();
        Some(taken)
    }

    fn results(&self) -> crate::primitive::MutexGuard<'static, Results> {
        self.shared.results.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How it went so far; that is asked once.
    pub fn outcome(&self) -> Ended {
        let mut results = self.results();
        let lost = self.shared.session.lost.swap(0, Ordering::Relaxed); // a count
        Ended { error: results.error.take(), lost: std::mem::take(&mut results.lost) + lost }
    }

    /// Notes nothing any more; the thread ends. `None`: memory is refused.
    pub fn ask_to_end(&self) -> Option<Ticket> {
        let ticket = self.ask(Command::Quit).ok()?;
        self.rt.tracer.end();
        Some(ticket)
    }

    /// What there was goes back. After the ticket of `ask_to_end`.
    pub fn end(self) {
        let block = self.shared.block.load(Ordering::Acquire); // pairs with the Release at the thread's end
        // SAFETY: the thread has answered and touches nothing any more. Under an exclusive host nobody notes anything, since whoever
        // did had its lock; under another one somebody may still, and all of it stays.
        unsafe {
            if self.rt.host.exclusive {
                Self::free(self.rt, ptr::from_ref(self.shared.session).cast_mut(), block);
            }
            drop(Box::from_raw(ptr::from_ref(self.shared).cast_mut()));
        }
    }

    /// # Safety
    /// Nobody notes in `session` or reads it any more; the reader was at `block`. Host attached.
    unsafe fn free(rt: &Runtime, session: *mut Session, block: *mut Block) {
        // SAFETY: the caller's promise; each block is in one list once.
        unsafe {
            let lists = (*session).ring.lock().dismantle(block, &*session);
            for mut block in lists {
                while let Some(this) = block.as_ref() {
                    let next = this.following();
                    rt.give_object(block.cast(), crate::event::BLOCK_BYTES);
                    block = next;
                }
            }
            drop(Box::from_raw(session));
        }
    }
}

impl Shared {
    /// `None`: memory is refused.
    fn new(session: &'static Session, block: *mut Block) -> Option<Self> {
        Some(Self {
            commands: Mutex::new(room_for_commands()?),
            answered: AtomicU32::new(0),
            results: Mutex::new(Results::default()),
            block: AtomicPtr::new(block),
            session,
        })
    }
}

fn room_for_commands() -> Option<Vec<Command>> {
    let mut commands = Vec::new();
    commands.try_reserve(COMMANDS).ok()?;
    Some(commands)
}

/// The thread.
struct Reader {
    shared: &'static Shared,
    /// Empty, with room: it takes the place of those that are obeyed.
    commands: Vec<Command>,
    encoder: Encoder,
    /// What it reads, and how far it is.
    block: *mut Block,
    at: usize,
    file: Option<File>,
    to_memory: bool,
    recorder: Option<Recorder>,
    /// Memory was refused where it could not go on without.
    failed: bool,
}

unsafe extern "C-unwind" fn reader_thread(reader: *mut u8) {
    thread::set_name(c"gort-trace");
    // SAFETY: `start_reader` passes a box.
    let mut reader = unsafe { Box::from_raw(reader.cast::<Reader>()) };
    while reader.look() {}
    let (shared, block) = (reader.shared, reader.block);
    drop(reader);
    shared.block.store(block, Ordering::Release); // pairs with the Acquire in `end`
    answer(shared); // the last
}

fn answer(shared: &Shared) {
    let word = &raw const shared.answered;
    shared.answered.fetch_add(1, Ordering::Release); // pairs with the Acquire in `wait`
    futex::wake_one(word); // it may be gone
}

impl Reader {
    /// Reads what there is and does what it is asked for. `false`: it is to end.
    fn look(&mut self) -> bool {
        // Before it reads: what was noted before the question is read before the answer. Acquire: pairs with the Release in `wake`.
        self.shared.session.note.swap(0, Ordering::Acquire);
        let mut commands = std::mem::take(&mut self.commands);
        std::mem::swap(&mut commands, &mut *self.shared.commands.lock().unwrap_or_else(|e| e.into_inner()));
        self.encoder.clocks.look(Moment::now(self.shared.session));
        self.read();
        self.deliver();
        if commands.is_empty() {
            let _ = futex::wait(&self.shared.session.note, 0, Some(LOOK_NS));
        }
        for command in commands.drain(..) {
            if matches!(command, Command::Quit) {
                return false;
            }
            self.obey(command);
            answer(self.shared);
        }
        self.commands = commands;
        true
    }

    fn read(&mut self) {
        loop {
            // SAFETY: blocks are there as long as this thread.
            let block = unsafe { &*self.block };
            let next = block.following(); // before what is written: with a next one that is all
            let written = block.written(self.at);
            self.at += written.len();
            self.encode(written);
            if next.is_null() {
                return;
            }
            let read = std::mem::replace(&mut self.block, next);
            self.at = 0;
            // SAFETY: read to its end.
            unsafe { self.shared.session.give_back(read) };
        }
    }

    fn encode(&mut self, records: &[Record]) {
        let mut rest = records;
        while let Some((record, more)) = rest.split_first() {
            let (own, others) = more.split_at(record.following().min(more.len()));
            rest = others;
            self.failed = self.failed || self.encoder.take(record, own).is_none();
            if self.encoder.wire.out.len() >= PIECE {
                self.deliver();
            }
        }
    }

    /// Gives what is written to whoever wants it.
    fn deliver(&mut self) {
        let (out, ends) = (&mut self.encoder.wire.out, &mut self.encoder.ends);
        if let Some(recorder) = &mut self.recorder {
            self.failed |= recorder.take(out, ends).is_none();
        }
        let mut results = self.shared.results.lock().unwrap_or_else(|e| e.into_inner());
        let refused = || Some(io::Error::from(io::ErrorKind::OutOfMemory));
        if self.to_memory {
            if results.bytes.try_reserve(out.len()).is_ok() {
                results.bytes.extend_from_slice(out);
            } else {
                (results.error, self.to_memory) = (refused(), false);
            }
        }
        results.lost += std::mem::take(&mut self.encoder.lost);
        if self.failed && results.error.is_none() {
            results.error = refused();
        }
        drop(results);
        if let Some(mut file) = self.file.take() {
            match file.write_all(out) {
                Ok(()) => self.file = Some(file),
                Err(error) => self.shared.results.lock().unwrap_or_else(|e| e.into_inner()).error = Some(error),
            }
        }
        out.clear();
        ends.clear();
    }

    /// Ends the generation.
    fn cut(&mut self) {
        self.failed = self.failed || self.encoder.end_generation().is_none();
        self.deliver();
    }

    /// Ends the generation, and sees to it that there is one.
    fn cut_some(&mut self) {
        self.failed = self.failed || self.encoder.begin_if_none().is_none();
        self.cut();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open(sink) => {
                self.cut();
                if self.encoder.wire.out.try_reserve(wire::HEADER.len()).is_err() {
                    self.failed = true;
                }
                if !self.failed {
                    self.encoder.wire.out.extend_from_slice(wire::HEADER);
                }
                let recorder = self.recorder.take(); // it has its own
                match sink {
                    Sink::File(file) => self.file = Some(file),
                    Sink::Memory => self.to_memory = true,
                }
                self.deliver();
                self.recorder = recorder;
            }
            Command::Close => {
                self.cut_some();
                (self.file, self.to_memory) = (None, false);
            }
            Command::Record(limits) => {
                self.cut();
                self.recorder = Some(Recorder::new(limits));
            }
            Command::Forget => self.recorder = None,
            Command::Snapshot => {
                self.cut_some();
                let snapshot = self.recorder.as_ref().and_then(Recorder::snapshot);
                self.shared.results.lock().unwrap_or_else(|e| e.into_inner()).snapshot = snapshot;
            }
            Command::Quit => {}
        }
    }
}
