//! What the scheduler notes for a trace (`event`): each change of a goroutine's state, by whoever makes it, with the host attached.
//!
//! Noted before others can see the change, so that what they do about it comes after it. A call that lets go of the host's lock is
//! not seen from here: that a goroutine is in one is noted when its P is taken, and that it has come back when it does something.

use super::machine::{Action, Machine};
use super::runtime::Runtime;
use super::{caller, current_machine};
use crate::event::{self, Block, Kind, NO_P, NONE, Put, Record, Session};
use crate::goroutine::{Goroutine, status};
use crate::primitive::atomic::Ordering;
use crate::primitive::tries::try_push;
use crate::sys::{futex, thread};

/// How long a writer waits for a reader that is far behind, ns, for each block.
const PATIENCE_NS: u64 = 200_000;

/// A goroutine that is there when a trace begins.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its number.
    pub id: u64,
    /// What it does, as the trace has it.
    pub does: Does,
    /// The thread that it runs on; else 0.
    pub m: u32,
    /// The P of that, or [`NO_P`].
    pub p: u16,
    /// What it began with.
    pub entry: u32,
}

/// What a goroutine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It can run, and does not.
    Ready,
    /// It runs, perhaps in a call.
    Runs,
    /// It waits.
    Waits,
}

impl Runtime {
    /// Notes something that the calling thread does.
    #[cold]
    #[inline(never)]
    pub fn trace(&self, kind: Kind, aux: u8, g: u64, arg: u32) {
        let Some(session) = self.tracer.session() else { return };
        self.trace_with(session, kind, aux, g, arg, &[]);
    }

    /// The same with what belongs to it, and where it happens.
    pub fn trace_with(&self, session: &Session, kind: Kind, aux: u8, g: u64, arg: u32, rest: &[Record]) {
        let m = current_machine();
        // SAFETY: null or this thread's M; Ps are never freed.
        let (tid, p) = unsafe {
            match m.as_ref() {
                Some(m) => (m.tid.load(Ordering::Relaxed), m.p().as_ref().map_or(NO_P, |p| p.id as u16)),
                None => (thread::tid(), NO_P),
            }
        };
        let stack = if Self::has_place(kind) { self.place_of_caller(session) } else { 0 };
        let record = Record { kind: kind as u8, aux, p, m: tid, time: session.time(), g, arg, stack };
        self.put(session, &record, rest);
    }

    /// Whether it matters where it happens.
    fn has_place(kind: Kind) -> bool {
        !matches!(kind, Kind::Start | Kind::End | Kind::Idle | Kind::Take | Kind::CollectEnd | Kind::Heap | Kind::Label)
    }

    fn place_of_caller(&self, session: &Session) -> u32 {
        let Some(eyes) = self.tracer.eyes.get() else { return 0 };
        if !session.sees || (!current_machine().is_null() && caller().is_null()) {
            return 0; // on g0 no code runs
        }
        // SAFETY: on a goroutine's stack, or a plain thread; host attached, as for all that is noted.
        unsafe { (eyes.here)(session) }
    }

    #[inline]
    fn put(&self, session: &Session, record: &Record, rest: &[Record]) {
        let put = session.ring.lock().put(record, rest);
        if put != Put::Written(false) {
            self.put_slowly(session, record, rest, put);
        }
    }

    #[cold]
    fn put_slowly(&self, session: &Session, record: &Record, rest: &[Record], first: Put) {
        if first == Put::Written(true) {
            return session.wake();
        }
        loop {
            let put = {
                let mut ring = session.ring.lock();
                match ring.put(record, rest) {
                    Put::Full if ring.take_back(session) => ring.put(record, rest),
                    put => put,
                }
            };
            match put {
                Put::Written(false) => return,
                Put::Written(true) => return session.wake(),
                Put::Full if self.add_block(session) => {}
                Put::Full => {
                    session.lost.fetch_add(1, Ordering::Relaxed); // a count
                    return session.wake();
                }
            }
        }
    }

    /// One more block to write to, or one that the reader has given back meanwhile.
    #[cold]
    fn add_block(&self, session: &Session) -> bool {
        if session.blocks.load(Ordering::Relaxed) >= event::MANY {
            session.wake();
            let _ = futex::wait(&crate::primitive::atomic::AtomicU32::new(0), 0, Some(PATIENCE_NS));
            if !session.done.load(Ordering::Relaxed).is_null() {
                return true; // a hint: it is asked for again
            }
        }
        let place = if session.may_grow() { self.take_object(event::BLOCK_BYTES) } else { std::ptr::null_mut() };
        if place.is_null() {
            return false;
        }
        session.blocks.fetch_add(1, Ordering::Relaxed); // a count
        // SAFETY: so many bytes, nobody else's; given back when the session has ended.
        unsafe { session.ring.lock().add(Block::make(place)) };
        true
    }

    /// `g` was made, and is not queued yet.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_created(&self, g: *const Goroutine) {
        let Some(session) = self.tracer.session() else { return };
        let entry = self.entry_of(session, g);
        // SAFETY: alive, and the caller's.
        unsafe { self.trace_with(session, Kind::Create, 0, (*g).id, entry, &[]) };
    }

    fn entry_of(&self, session: &Session, g: *const Goroutine) -> u32 {
        // SAFETY: alive, host attached.
        self.tracer.eyes.get().map_or(0, |eyes| unsafe { (eyes.entry)(session, g.cast()) })
    }

    /// The running goroutine `g` leaves its stack.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_left(&self, g: *const Goroutine, action: Action) {
        // SAFETY: the running goroutine.
        let (id, reason) = unsafe { ((*g).id, (*g).reason.load(Ordering::Relaxed)) };
        match action {
            Action::Park => self.trace(Kind::Block, reason, id, 0),
            Action::Yield | Action::Preempt => self.trace(Kind::Stop, u8::from(action == Action::Preempt), id, 0),
            Action::Exit => self.trace(Kind::End, 0, id, 0),
            Action::None => {}
        }
    }

    /// `g` can go on: before it is told so.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_ready(&self, g: *const Goroutine) {
        // SAFETY: it waits for the caller.
        self.trace(Kind::Ready, 0, unsafe { (*g).id }, 0);
    }

    /// Every goroutine there is. Host attached; `None`: memory is refused.
    pub fn find_all(&self, session: &Session) -> Option<Vec<Found>> {
        let mut running: Vec<(u64, u32, u16)> = Vec::new();
        let mut is_whole = true;
        self.sampler.machines.each(|m| {
            // Acquire: pairs with the Release in `execute`.
            if m.in_scheduler.load(Ordering::Acquire) || m.current.is_null() {
                return;
            }
            // SAFETY: outside of the scheduler an M has a goroutine, which stays as long as the host's lock is held.
            let id = unsafe { (*m.current).id };
            // SAFETY: Ps are never freed.
            let p = unsafe { m.p().as_ref() }.map_or(NO_P, |p| p.id as u16);
            is_whole &= try_push(&mut running, (id, m.tid.load(Ordering::Relaxed), p)).is_some();
        });
        let (mut all, mut places) = (Vec::new(), Vec::new());
        self.registry.for_each(|g| {
            let at = running.iter().find(|at| at.0 == g.id);
            let s = g.status.load(Ordering::Acquire); // pairs with the Release stores of the status protocol
            let does = match (at, s) {
                (Some(_), _) => Does::Runs,
                (None, status::WAITING | status::PARKING) => Does::Waits,
                _ => Does::Ready,
            };
            let (m, p) = at.map_or((0, NO_P), |at| (at.1, at.2));
            is_whole &= try_push(&mut all, Found { id: g.id, does, m, p, entry: 0 }).is_some();
            is_whole &= try_push(&mut places, std::ptr::from_ref(g)).is_some();
        });
        if !is_whole {
            return None;
        }
        // Not while the registry's lock is held. Under another than an exclusive host they may be others by now, which nobody has
        // eyes for.
        for (found, g) in all.iter_mut().zip(places) {
            found.entry = self.entry_of(session, g);
        }
        Some(all)
    }
}

impl Machine {
    /// `g` is about to run. If the one before it has just left, it does so at that moment: a look at the clock less.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_start(&self, g: *const Goroutine) {
        let Some(session) = self.rt.tracer.session() else { return };
        let follows = self.action != Action::None && self.rt.host.exclusive;
        // SAFETY: Ps are never freed; the goroutine is this M's.
        let (p, g) = unsafe { (self.p().as_ref().map_or(NO_P, |p| p.id as u16), (*g).id) };
        let time = if follows { session.ring.lock().time } else { session.time() };
        let m = self.tid.load(Ordering::Relaxed);
        self.rt.put(session, &Record { kind: Kind::Start as u8, aux: 0, p, m, time, g, arg: 0, stack: 0 }, &[]);
    }
}

/// The number of the goroutine whose code calls, or none.
pub fn traced_caller() -> u64 {
    let g = caller();
    // SAFETY: null or the running goroutine.
    unsafe { g.as_ref() }.map_or(NONE, |g| g.id)
}
