//! What the scheduler notes for a trace (`event`): each change of a goroutine's state, by whoever makes it, with the host attached.
//!
//! Noted before others can see the change, so that what they do about it comes after it. A call that lets go of the host's lock is
//! not seen from here: that a goroutine is in one is noted when its P is taken, and that it has come back when it does something.

use super::machine::{Action, Machine};
use super::runtime::Runtime;
use super::sampling::Owed;
use super::{caller, current_machine};
use crate::event::{self, Block, Kind, NO_P, NONE, Put, Record, Session};
use crate::goroutine::{Goroutine, status};
use crate::primitive::atomic::Ordering;
use crate::primitive::tries::try_push;
use crate::sys::{clock, futex, thread};

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
        self.note(session, kind, aux, g, arg, &[]);
    }

    /// The same with what belongs to it, and where it happens.
    pub fn trace_with(&self, session: &Session, kind: Kind, aux: u8, g: u64, arg: u32, rest: &[Record]) {
        self.note(session, kind, aux, g, arg, rest);
    }

    /// In each of its callers: what need not be done for a kind is left out there.
    #[inline(always)]
    fn note(&self, session: &Session, kind: Kind, aux: u8, g: u64, arg: u32, rest: &[Record]) {
        // SAFETY: null or this thread's M.
        let m = unsafe { current_machine().as_ref() };
        let (tid, p) = Self::place_of(m);
        if let Some(m) = m
            && m.lock_wait.is_untold()
        {
            self.trace_lock_wait(session, m, tid, p);
        }
        let stack = if Self::has_place(kind) { self.place_of_caller(session) } else { 0 };
        let record = Record { kind: kind as u8, aux, p, m: tid, time: session.time(), g, arg, stack };
        self.put(session, record, rest);
    }

    /// The same in general, where it is not the usual.
    #[cold]
    #[inline(never)]
    fn note_at_length(&self, session: &Session, kind: Kind, aux: u8, g: u64) {
        self.note(session, kind, aux, g, 0, &[]);
    }

    /// The goroutine of `m`, this thread's, has waited for the host's lock before what it does now.
    #[cold]
    #[inline(never)]
    fn trace_lock_wait(&self, session: &Session, m: &Machine, tid: u32, p: u16) {
        let (ns, until_ns) = m.lock_wait.take_untold();
        // SAFETY: null or a descriptor; it has not left since, or that would have been noted.
        let g = unsafe { m.current.as_ref() }.map_or(NONE, |g| g.id);
        let (arg, stack) = (event::steps(ns), event::steps(clock::now_ns().saturating_sub(until_ns)));
        let kind = Kind::HostLock as u8;
        self.put(session, Record { kind, aux: 0, p, m: tid, time: session.time(), g, arg, stack }, &[]);
    }

    /// Stacks were shrunk, since `began_ns`: `count`, of which `bytes` are kept elsewhere.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_shrunk(&self, began_ns: u64, count: u64, bytes: u64) {
        let Some(session) = self.tracer.session().filter(|_| count != 0) else { return };
        // SAFETY: null or this thread's M.
        let (m, p) = Self::place_of(unsafe { current_machine().as_ref() });
        let (arg, stack) = (event::steps(clock::now_ns().saturating_sub(began_ns)), count as u32);
        let kind = Kind::Shrink as u8;
        self.put(session, Record { kind, aux: 0, p, m, time: session.time(), g: bytes, arg, stack }, &[]);
    }

    /// Samples of the CPU profile, with the place they are owed to. Host attached.
    pub fn trace_samples(&self, session: &Session, owed: &Owed, stack: u32) {
        // SAFETY: null or alive, as the host is attached. Ps are never freed.
        let (g, p) = unsafe { (owed.goroutine().as_ref().map_or(NONE, |g| g.id), owed.processor().as_ref()) };
        let p = p.map_or(NO_P, |p| p.id as u16);
        let arg = u32::try_from(owed.count).unwrap_or(u32::MAX);
        let kind = Kind::Sample as u8;
        self.put(session, Record { kind, aux: 0, p, m: owed.tid, time: session.time(), g, arg, stack }, &[]);
    }

    /// The calling thread, whose M that is, and its P.
    #[inline(always)]
    fn place_of(m: Option<&Machine>) -> (u32, u16) {
        let Some(m) = m else { return (thread::tid(), NO_P) };
        // SAFETY: Ps are never freed.
        (m.tid.load(Ordering::Relaxed), unsafe { m.p().as_ref() }.map_or(NO_P, |p| p.id as u16))
    }

    /// Whether it matters where it happens.
    #[inline(always)]
    fn has_place(kind: Kind) -> bool {
        !matches!(kind, Kind::Start | Kind::End | Kind::Idle | Kind::Take | Kind::CollectEnd | Kind::Heap | Kind::Label)
    }

    #[inline(always)]
    fn place_of_caller(&self, session: &Session) -> u32 {
        if !session.sees() || (!current_machine().is_null() && caller().is_null()) {
            return 0; // on g0 no code runs
        }
        // SAFETY: on a goroutine's stack, or a plain thread; host attached, as for all that is noted.
        unsafe { session.look() }
    }

    #[inline(always)]
    fn put(&self, session: &Session, record: Record, rest: &[Record]) {
        let (words, is_held_back) = (record.words(), record.kind().leaves());
        let put = session.ring.lock().put(words, rest, is_held_back);
        if put == Put::Full {
            let [a, b, c, d] = words; // as in `Ring::put`
            self.put_slowly(session, a, b, c, d, rest);
        } else if put == Put::Written(true) {
            session.wake();
        }
    }

    /// As many arguments as there are registers for them.
    #[cold]
    #[inline(never)]
    fn put_in_next(&self, session: &Session, a: u64, b: u64, c: u64, d: u64) {
        self.put_slowly(session, a, b, c, d, &[]);
    }

    #[cold]
    #[inline(never)]
    fn put_slowly(&self, session: &Session, a: u64, b: u64, c: u64, d: u64, rest: &[Record]) {
        loop {
            let put = {
                let mut ring = session.ring.lock();
                match ring.put([a, b, c, d], rest, false) {
                    Put::Full if ring.take_back(session) => ring.put([a, b, c, d], rest, false),
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

    /// `g` can go on: before it is told so.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_ready(&self, g: *const Goroutine) {
        let Some(session) = self.tracer.session() else { return };
        // SAFETY: it waits for the caller; null or this thread's M.
        let (id, m) = unsafe { ((*g).id, current_machine().as_ref()) };
        match m {
            // Relaxed: this thread's own store.
            Some(m) if !m.in_scheduler.load(Ordering::Relaxed) => m.note_briefly(session, Kind::Ready, 0, id),
            _ => self.note_at_length(session, Kind::Ready, 0, id),
        }
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
    /// Notes something that the running goroutine does. In each of its callers: where stacks are not asked for it is a look at the
    /// processor's count and a store.
    #[inline(always)]
    fn note_briefly(&self, session: &Session, kind: Kind, aux: u8, g: u64) {
        if !session.is_brief || self.lock_wait.is_untold() {
            self.rt.note_at_length(session, kind, aux, g);
        } else if session.sees() {
            self.note_with_place(session, kind, aux, g);
        } else {
            self.put_briefly(session, kind, aux, g, 0);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_with_place(&self, session: &Session, kind: Kind, aux: u8, g: u64) {
        // SAFETY: on a goroutine's stack, host attached.
        let stack = unsafe { session.look() };
        self.put_briefly(session, kind, aux, g, stack);
    }

    #[inline(always)]
    fn put_briefly(&self, session: &Session, kind: Kind, aux: u8, g: u64, stack: u32) {
        let (m, p) = Runtime::place_of(Some(self));
        let words = Record { kind: kind as u8, aux, p, m, time: clock::ticks(), g, arg: 0, stack }.words();
        // SAFETY: with the host's lock, as `is_brief` says.
        let is_put = unsafe { (*session.ring.value_ptr()).put_here(words, &[], kind.leaves()) };
        if !is_put {
            let [a, b, c, d] = words;
            self.rt.put_in_next(session, a, b, c, d);
        }
    }

    /// The running goroutine `g` leaves its stack.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_left(&self, g: *const Goroutine, action: Action) {
        let Some(session) = self.rt.tracer.session() else { return };
        // SAFETY: the running goroutine.
        let (id, reason) = unsafe { ((*g).id, (*g).reason.load(Ordering::Relaxed)) };
        match action {
            Action::Park => self.note_briefly(session, Kind::Block, reason, id),
            Action::Yield | Action::Preempt => {
                self.rt.note_at_length(session, Kind::Stop, u8::from(action == Action::Preempt), id);
            }
            Action::Exit => self.rt.note_at_length(session, Kind::End, 0, id),
            Action::None => {}
        }
    }

    /// `g` is about to run. If the one before it has just left, it does so at that moment: the same record tells of both.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_start(&self, g: *const Goroutine) {
        let Some(session) = self.rt.tracer.session() else { return };
        // SAFETY: the goroutine is this M's.
        let id = unsafe { (*g).id };
        if session.is_brief && self.action != Action::None {
            let (m, p) = Runtime::place_of(Some(self));
            // SAFETY: with the host's lock, as `is_brief` says.
            if unsafe { (*session.ring.value_ptr()).starts(m, p, id) } {
                return;
            }
        }
        self.trace_start_at_length(session, id);
    }

    #[cold]
    #[inline(never)]
    fn trace_start_at_length(&self, session: &Session, g: u64) {
        let (m, p) = Runtime::place_of(Some(self));
        let follows = self.action != Action::None;
        if follows && session.ring.lock().starts(m, p, g) {
            return;
        }
        let is_last = follows && self.rt.host.exclusive; // what was noted last
        let time = if is_last { session.ring.lock().time } else { session.time() };
        self.rt.put(session, Record { kind: Kind::Start as u8, aux: 0, p, m, time, g, arg: 0, stack: 0 }, &[]);
    }
}

/// The number of the goroutine whose code calls, or none.
pub fn traced_caller() -> u64 {
    let g = caller();
    // SAFETY: null or the running goroutine.
    unsafe { g.as_ref() }.map_or(NONE, |g| g.id)
}
