//! Records made into events that a reader of Go's traces takes: what it will think of each G, M and P is kept here, and an event
//! is only written where it fits. What a record supposes and nobody has noted (a record was dropped; a goroutine came back from a
//! call) is written before it. So there is no list of records that gives a trace which is refused.
//!
//! The rules are those of internal/trace/order.go. Sequence numbers begin anew in each generation, which begins with the state of
//! every G and P; those of an M that runs something stand first in that one's own batch.

use super::clocks::Clocks;
use super::wire::{Batch, ByNumber, NO_M, Wire, ev};
use crate::event::{Kind, NO_P, Record, Session};
use crate::goroutine::waiter::reason_name;
use crate::sched::processors::MOST;
use crate::sched::traced::{Does, Found};

/// Statuses of goroutines.
const RUNNABLE: u8 = 1;
const RUNNING: u8 = 2;
const SYSCALL: u8 = 3;
const WAITING: u8 = 4;
/// Statuses of Ps.
const P_UNKNOWN: u8 = 0;
const P_RUNNING: u8 = 1;
const P_IDLE: u8 = 2;

/// What the reader knows of a goroutine.
#[derive(Clone, Copy)]
struct Gor {
    status: u8,
    /// Woken before it has blocked.
    woken: bool,
    /// Number of the last event about it in this generation that has one.
    sequence: u32,
    /// Where it runs: an index.
    m: u32,
    /// What it began with.
    entry: u32,
}

/// What it knows of a thread.
pub(super) struct Mach {
    tid: u32,
    /// Its P.
    p: Option<u32>,
    /// What it runs, perhaps in a call; 0: nobody.
    pub(super) g: u64,
    batch: Batch,
}

#[derive(Clone, Copy, Default)]
struct Proc {
    status: u8,
    sequence: u32,
    m: u32,
}

/// A pass of the host's collector.
#[derive(Clone, Copy)]
struct Pass {
    g: u64,
    /// The generation in which the reader was told of it.
    told: u64,
}

/// Makes events.
pub(super) struct Encoder {
    session: &'static Session,
    pub(super) wire: Wire,
    gs: ByNumber<u64, Gor>,
    pub(super) ms: Vec<Mach>,
    by_tid: ByNumber<u32, u32>,
    ps: Vec<Proc>,
    pub(super) now_ns: u64,
    pub(super) began_ns: u64,
    /// What the wall's clock is ahead of the other one.
    wall_ahead_ns: u64,
    period_ns: u64,
    pub(super) clocks: Clocks,
    is_open: bool,
    /// GOMAXPROCS, and whether the reader of this generation knows.
    processors: u32,
    processors_told: bool,
    pass: Option<Pass>,
    collections: u64,
    /// Whose pass has stopped the world, or 0.
    stopper: u64,
    /// Regions that goroutines are in, the innermost last: their tasks, and what their names are told by.
    pub(super) regions: ByNumber<u64, Vec<(u64, u64)>>,
    /// Records that memory was refused for.
    pub(super) lost: u64,
    /// Generations that have ended in what is written.
    pub(super) ends: Vec<End>,
}

/// The end of a generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Where it is in what is written.
    pub(super) at: usize,
    pub(super) ended_ns: u64,
}

/// What an encoder is made of.
pub(super) struct Begin {
    pub(super) session: &'static Session,
    pub(super) tid: u32,
    pub(super) found: Vec<Found>,
    pub(super) processors: u32,
    pub(super) now_ns: u64,
    pub(super) wall_ahead_ns: u64,
    pub(super) period_ns: u64,
    pub(super) clocks: Clocks,
}

impl Encoder {
    /// `None`: memory is refused.
    pub(super) fn new(begin: Begin) -> Option<Self> {
        let mut encoder = Self {
            session: begin.session,
            wire: Wire::default(),
            gs: ByNumber::default(),
            ms: Vec::new(),
            by_tid: ByNumber::default(),
            ps: Vec::new(),
            now_ns: begin.now_ns,
            began_ns: begin.now_ns,
            wall_ahead_ns: begin.wall_ahead_ns,
            period_ns: begin.period_ns,
            clocks: begin.clocks,
            is_open: false,
            processors: begin.processors,
            processors_told: false,
            pass: None,
            collections: 0,
            stopper: 0,
            regions: ByNumber::default(),
            lost: 0,
            ends: Vec::new(),
        };
        encoder.ps.try_reserve(MOST + 1).ok()?;
        encoder.ps.resize(MOST + 1, Proc::default());
        encoder.machine(begin.tid)?; // the reader's own thread, for what is nobody's
        encoder.gs.try_reserve(begin.found.len()).ok()?;
        for found in begin.found {
            encoder.add_found(found)?;
        }
        Some(encoder)
    }

    fn add_found(&mut self, found: Found) -> Option<()> {
        let (mut status, mut m) = (if found.does == Does::Waits { WAITING } else { RUNNABLE }, 0);
        if found.does == Does::Runs {
            m = self.machine(found.m)?;
            let at = &mut self.ms[m];
            let is_free = at.g == 0 && at.p.is_none();
            let p = u32::from(found.p);
            if is_free && found.p != NO_P && self.ps[p as usize].status != P_RUNNING {
                (at.g, at.p, status) = (found.id, Some(p), RUNNING);
                self.ps[p as usize] = Proc { status: P_RUNNING, sequence: 0, m: m as u32 };
            } else if is_free {
                (at.g, status) = (found.id, SYSCALL);
            }
        }
        self.gs.insert(found.id, Gor { status, woken: false, sequence: 0, m: m as u32, entry: found.entry });
        Some(())
    }

    /// The index of a thread.
    fn machine(&mut self, tid: u32) -> Option<usize> {
        if let Some(&known) = self.by_tid.get(&tid) {
            return Some(known as usize);
        }
        self.by_tid.try_reserve(1).ok()?;
        let batch = Batch::new()?;
        Wire::push(&mut self.ms, Mach { tid, p: None, g: 0, batch })?;
        let index = self.ms.len() - 1;
        self.by_tid.insert(tid, index as u32);
        Some(index)
    }

    #[inline]
    pub(super) fn emit(&mut self, m: usize, event: u8, args: &[u64]) {
        let at = &mut self.ms[m];
        self.wire.event(at.tid.into(), &mut at.batch, self.now_ns, event, args);
    }

    /// The same for what was at `ns`, or if something else was since then on that M, after that.
    pub(super) fn emit_late(&mut self, m: usize, ns: u64, event: u8, args: &[u64]) {
        let at = &mut self.ms[m];
        let ns = at.batch.earliest(ns.max(self.began_ns)).min(self.now_ns);
        self.wire.event(at.tid.into(), &mut at.batch, ns, event, args);
    }

    pub(super) fn string(&mut self, text: &str) -> u64 {
        self.wire.string(text.as_bytes())
    }

    pub(super) fn stack(&mut self, stack: u32) -> u64 {
        self.wire.stack(stack, &self.session.tables)
    }

    fn status(&self, g: u64) -> u8 {
        self.gs.get(&g).map_or(0, |g| g.status)
    }

    fn set(&mut self, g: u64, status: u8, m: usize) {
        if let Some(g) = self.gs.get_mut(&g) {
            (g.status, g.m) = (status, m as u32);
        }
    }

    /// The next number for an event about `g`.
    fn next_of(&mut self, g: u64) -> u64 {
        let Some(g) = self.gs.get_mut(&g) else { return 0 };
        g.sequence += 1;
        g.sequence.into()
    }

    fn next_of_p(&mut self, p: u32) -> u64 {
        let p = &mut self.ps[p as usize];
        p.sequence += 1;
        p.sequence.into()
    }

    /// Begins a generation: with the state of everything. `None`: memory is refused.
    pub(super) fn begin_generation(&mut self) -> Option<()> {
        self.wire.generation += 1;
        (self.began_ns, self.is_open) = (self.now_ns, true);
        self.processors_told = false;
        self.wire.out.try_reserve((self.gs.len() + self.ps.len() + self.ms.len()) * 80).ok()?;
        for m in 0..self.ms.len() {
            let (p, g) = (self.ms[m].p, self.ms[m].g);
            if let Some(p) = p {
                self.ps[p as usize].sequence = 0;
                self.emit(m, ev::PROC_STATUS, &[p.into(), P_RUNNING.into()]);
            }
            if let Some(found) = self.gs.get(&g).copied() {
                self.tell(m, g, found, u64::from(self.ms[m].tid));
            }
        }
        for p in 0..self.ps.len() {
            if self.ps[p].status == P_IDLE {
                self.ps[p].sequence = 0;
                self.emit(0, ev::PROC_STATUS, &[p as u64, P_IDLE.into()]);
            }
        }
        let mut gs = std::mem::take(&mut self.gs);
        for (&id, g) in &mut gs {
            g.sequence = 0;
            if g.status == RUNNABLE || g.status == WAITING {
                self.tell(0, id, *g, NO_M);
            }
        }
        self.gs = gs;
        Some(())
    }

    fn tell(&mut self, m: usize, id: u64, g: Gor, tid: u64) {
        match self.stack(g.entry) {
            0 => self.emit(m, ev::GO_STATUS, &[id, tid, g.status.into()]),
            entry => self.emit(m, ev::GO_STATUS_STACK, &[id, tid, g.status.into(), entry]),
        }
    }

    /// Begins a generation unless one has begun. `None`: memory is refused.
    pub(super) fn begin_if_none(&mut self) -> Option<()> {
        if self.is_open { Some(()) } else { self.begin_generation() }
    }

    /// Ends the generation if one has begun. `None`: memory is refused.
    pub(super) fn end_generation(&mut self) -> Option<()> {
        if !std::mem::take(&mut self.is_open) {
            return Some(());
        }
        if !self.wire.has_room() {
            return None;
        }
        self.start_world();
        let bytes: usize = self.ms.iter().map(|m| m.batch.bytes()).sum();
        self.wire.out.try_reserve(bytes).ok()?;
        for m in &mut self.ms {
            self.wire.finish(m.tid.into(), &mut m.batch);
        }
        self.wire.end_generation(self.began_ns, self.began_ns.wrapping_add(self.wall_ahead_ns))?;
        let end = End { at: self.wire.out.len(), ended_ns: self.now_ns };
        Wire::push(&mut self.ends, end)
    }

    /// Takes the next record, and the text that belongs to it. `None`: the trace cannot go on, memory is refused.
    pub(super) fn take(&mut self, record: &Record, rest: &[Record]) -> Option<()> {
        self.take_one(record, rest)?;
        let Some(g) = record.starts() else { return Some(()) };
        self.take_one(&Record { kind: Kind::Start as u8, g, ..*record }, &[])
    }

    fn take_one(&mut self, record: &Record, rest: &[Record]) -> Option<()> {
        self.now_ns = self.now_ns.max(self.clocks.ns(record.time));
        if self.is_open && self.now_ns - self.began_ns >= self.period_ns {
            self.end_generation()?;
        }
        if !self.is_open {
            self.begin_generation()?;
        }
        let fits = self.wire.has_room() && self.gs.try_reserve(1).is_ok() && self.ps.try_reserve(1).is_ok();
        match self.machine(record.m) {
            Some(m) if fits => self.note(m, record, rest),
            _ => self.lost += 1,
        }
        Some(())
    }

    fn note(&mut self, m: usize, record: &Record, rest: &[Record]) {
        let p = (record.p != NO_P).then_some(u32::from(record.p));
        let g = record.g;
        match record.kind() {
            Kind::None => {}
            Kind::Create | Kind::Block | Kind::Stop | Kind::End if g == 0 => {} // nobody notes that
            Kind::Create => self.created(m, p, record),
            Kind::Start => self.run(m, p, g),
            Kind::Block | Kind::Stop | Kind::End => self.left(m, p, record),
            Kind::Ready => self.ready(m, p, record),
            Kind::Idle => self.idle(record.arg),
            Kind::Take => self.taken(m, record.arg),
            Kind::Processors => (self.processors, self.processors_told) = (record.arg, false),
            Kind::CollectBegin | Kind::CollectEnd => self.collect(m, p, record),
            Kind::Heap if self.ms[m].p.is_some() => self.emit(m, ev::HEAP_ALLOC, &[g]),
            Kind::Heap => {}
            Kind::Sample => self.sampled(p, record),
            Kind::HostLock => self.waited(m, p, record),
            Kind::Shrink => self.shrunk(m, p, record),
            _ => self.user(m, p, record, rest),
        }
        self.tell_processors(m);
    }

    fn tell_processors(&mut self, m: usize) {
        if !self.processors_told && self.ms[m].p.is_some() && self.status(self.ms[m].g) == RUNNING {
            self.processors_told = true;
            self.emit(m, ev::PROCS_CHANGE, &[self.processors.into(), 0]);
        }
    }

    /// `g` runs on `m`, with `p` if that is known.
    pub(super) fn run(&mut self, m: usize, p: Option<u32>, g: u64) {
        if g == 0 {
            return;
        }
        if self.ms[m].g == g && self.status(g) == RUNNING {
            if p.is_none() || self.ms[m].p == p {
                return;
            }
            self.lose(m);
        }
        if self.ms[m].g != g {
            self.clear(m);
        }
        match self.status(g) {
            WAITING => self.unblock(m, g, 0),
            RUNNING | SYSCALL => {
                let at = self.gs.get(&g).map_or(m, |g| g.m as usize);
                self.clear(at);
            }
            _ => {}
        }
        self.hold(m, p);
        if self.status(g) == 0 {
            self.add(m, g, 0, 0);
        }
        let sequence = self.next_of(g);
        self.emit(m, ev::GO_START, &[g, sequence]);
        self.set(g, RUNNING, m);
        self.ms[m].g = g;
    }

    /// A goroutine that the reader does not know, made on `m`, which has a P.
    fn add(&mut self, m: usize, g: u64, entry: u32, stack: u64) {
        let begins = self.stack(entry);
        self.emit(m, ev::GO_CREATE, &[g, begins, stack]);
        self.gs.insert(g, Gor { status: RUNNABLE, woken: false, sequence: 0, m: 0, entry });
    }

    /// Nobody runs on `m`: whoever seemed to can go on.
    fn clear(&mut self, m: usize) {
        let g = std::mem::take(&mut self.ms[m].g);
        match self.status(g) {
            RUNNING => self.stop_where(m, g),
            SYSCALL => self.emit(m, ev::SYSCALL_END_BLOCKED, &[]),
            _ => return,
        }
        self.set(g, RUNNABLE, 0);
        self.drop_lent(m);
    }

    fn stop_where(&mut self, m: usize, g: u64) {
        self.start_world_for(m, g);
        let reason = self.string("unknown");
        self.emit(m, ev::GO_STOP, &[reason, 0]);
    }

    /// The goroutine of `m` is in a call, and its P is nobody's.
    fn lose(&mut self, m: usize) {
        let (Some(p), g) = (self.ms[m].p.take(), self.ms[m].g) else { return };
        self.start_world_for(m, g);
        let sequence = self.next_of_p(p);
        self.emit(m, ev::SYSCALL_BEGIN, &[sequence, 0]);
        self.emit(m, ev::PROC_STOP, &[]);
        self.ps[p as usize].status = P_IDLE;
        self.set(g, SYSCALL, m);
    }

    /// The P of `from`, whose goroutine is in a call, is taken by `m`.
    fn steal(&mut self, m: usize, from: usize) {
        let (Some(p), g) = (self.ms[from].p.take(), self.ms[from].g) else { return };
        self.start_world_for(from, g);
        let sequence = self.next_of_p(p);
        self.emit(from, ev::SYSCALL_BEGIN, &[sequence, 0]);
        let (sequence, tid) = (self.next_of_p(p), self.ms[from].tid);
        self.emit(m, ev::PROC_STEAL, &[p.into(), sequence, tid.into()]);
        self.ps[p as usize].status = P_IDLE;
        self.set(g, SYSCALL, from);
    }

    /// `m`, which runs nobody, has the P `p`, or if that is not known any: one beyond all there are stands for the right to run
    /// that a goroutine has which came back from a call without its P.
    pub(super) fn hold(&mut self, m: usize, p: Option<u32>) {
        let own = self.ms[m].p;
        let wanted = p.or(own).unwrap_or_else(|| self.lent());
        if own == Some(wanted) {
            return;
        }
        if let Some(own) = own {
            self.release(m, own);
        }
        let at = self.ps[wanted as usize];
        match at.status {
            P_RUNNING if self.ms[at.m as usize].g != 0 => self.steal(m, at.m as usize),
            P_RUNNING => self.release(at.m as usize, wanted),
            P_UNKNOWN => self.emit(m, ev::PROC_STATUS, &[wanted.into(), P_IDLE.into()]),
            _ => {}
        }
        let sequence = self.next_of_p(wanted);
        self.emit(m, ev::PROC_START, &[wanted.into(), sequence]);
        let place = &mut self.ps[wanted as usize];
        (place.status, place.m) = (P_RUNNING, m as u32);
        self.ms[m].p = Some(wanted);
    }

    fn release(&mut self, m: usize, p: u32) {
        self.emit(m, ev::PROC_STOP, &[]);
        self.ms[m].p = None;
        self.ps[p as usize].status = P_IDLE;
    }

    /// A P that there is not.
    fn lent(&mut self) -> u32 {
        let free = (MOST..self.ps.len()).find(|&p| self.ps[p].status != P_RUNNING);
        free.unwrap_or_else(|| {
            self.ps.push(Proc::default()); // there is room for one
            self.ps.len() - 1
        }) as u32
    }

    /// `m` runs nobody: it gives back a P that there is not.
    pub(super) fn drop_lent(&mut self, m: usize) {
        if let Some(p) = self.ms[m].p.filter(|&p| p as usize >= MOST) {
            self.release(m, p);
        }
    }

    fn unblock(&mut self, m: usize, g: u64, stack: u64) {
        let sequence = self.next_of(g);
        self.emit(m, ev::GO_UNBLOCK, &[g, sequence, stack]);
        self.set(g, RUNNABLE, 0);
    }

    /// Who runs on `m` does something: it has come back, if it was in a call.
    fn act(&mut self, m: usize, p: Option<u32>) {
        self.run(m, p, self.ms[m].g);
    }

    fn created(&mut self, m: usize, p: Option<u32>, record: &Record) {
        if self.status(record.g) != 0 {
            return;
        }
        self.act(m, p);
        if self.ms[m].g == 0 {
            self.hold(m, p);
        }
        let stack = self.stack(record.stack);
        self.add(m, record.g, record.arg, stack);
        if self.ms[m].g == 0 {
            self.drop_lent(m);
        }
    }

    fn left(&mut self, m: usize, p: Option<u32>, record: &Record) {
        let g = record.g;
        self.run(m, p, g);
        self.start_world_for(m, g);
        let stack = self.stack(record.stack);
        self.ms[m].g = 0;
        match record.kind() {
            Kind::Block => {
                let reason = self.string(reason_name(record.aux));
                self.emit(m, ev::GO_BLOCK, &[reason, stack]);
                self.set(g, WAITING, 0);
                if self.gs.get_mut(&g).is_some_and(|g| std::mem::take(&mut g.woken)) {
                    self.unblock(m, g, 0);
                }
            }
            Kind::Stop => {
                let reason = self.string(if record.aux == 1 { "preempted" } else { "runtime.Gosched" });
                self.emit(m, ev::GO_STOP, &[reason, stack]);
                self.set(g, RUNNABLE, 0);
            }
            _ => {
                self.emit(m, ev::GO_DESTROY, &[]);
                self.gs.remove(&g);
                self.regions.remove(&g);
            }
        }
        self.drop_lent(m);
    }

    fn ready(&mut self, m: usize, p: Option<u32>, record: &Record) {
        self.act(m, p);
        match self.status(record.g) {
            WAITING => {
                let stack = self.stack(record.stack);
                self.unblock(m, record.g, stack);
            }
            RUNNING | SYSCALL => {
                if let Some(g) = self.gs.get_mut(&record.g) {
                    g.woken = true;
                }
            }
            _ => {}
        }
    }

    fn idle(&mut self, p: u32) {
        let at = self.ps[p as usize];
        if at.status == P_RUNNING {
            match self.ms[at.m as usize].g {
                0 => self.release(at.m as usize, p),
                _ => self.lose(at.m as usize),
            }
        }
    }

    fn taken(&mut self, m: usize, p: u32) {
        let at = self.ps[p as usize];
        if at.status == P_RUNNING && at.m as usize != m {
            match self.ms[at.m as usize].g {
                0 => self.release(at.m as usize, p),
                _ => self.steal(m, at.m as usize),
            }
        }
    }

    fn collect(&mut self, m: usize, p: Option<u32>, record: &Record) {
        let g = record.g;
        if record.kind() == Kind::CollectBegin {
            if g == 0 || self.pass.is_some() {
                return; // a plain thread's: Go's passes are goroutines'
            }
            self.run(m, p, g);
            let (kind, stack) = (self.string("GC pass"), self.stack(record.stack));
            self.emit(m, ev::STW_BEGIN, &[kind, stack]);
            self.stopper = g;
            self.collections += 1;
            self.emit(m, ev::GC_BEGIN, &[self.collections, stack]);
            self.pass = Some(Pass { g, told: self.wire.generation });
        } else if let Some(pass) = self.pass.take_if(|pass| pass.g == g) {
            self.run(m, p, g);
            if pass.told != self.wire.generation {
                self.collections += 1;
                self.emit(m, ev::GC_ACTIVE, &[self.collections]);
            }
            self.collections += 1;
            self.emit(m, ev::GC_END, &[self.collections]);
            self.start_world_for(m, g);
        }
    }

    /// The world is not stopped while who stopped it does not run.
    fn start_world_for(&mut self, m: usize, g: u64) {
        if self.stopper == g && g != 0 {
            self.stopper = 0;
            self.emit(m, ev::STW_END, &[]);
        }
    }

    fn start_world(&mut self) {
        let m = self.gs.get(&self.stopper).map_or(0, |g| g.m as usize);
        self.start_world_for(m, self.stopper);
    }
}
