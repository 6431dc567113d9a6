//! The reader's rules, for tests: internal/trace of Go 1.26 (order.go, generation.go) as far as our events go. What it takes
//! `go tool trace` takes, and the other way round.

use super::wire::{HEADER, NO_M, ev};
use std::collections::HashMap;

/// What went on, as it was put in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: u8,
    pub(super) ns: u64,
    pub(super) m: u64,
    /// Who ran there before.
    pub(super) g: u64,
    pub(super) p: Option<u64>,
    pub(super) args: Vec<u64>,
    /// Texts of its arguments.
    pub(super) texts: Vec<String>,
    pub(super) generation: u64,
}

/// Time, kind and arguments of an event.
type Written = (u64, u8, Vec<u64>);

#[derive(Default)]
struct Generation {
    number: u64,
    strings: HashMap<u64, String>,
    stacks: HashMap<u64, Vec<u64>>,
    frames: HashMap<u64, (u64, u64)>,
    /// Events of each M, in its order: time, kind, arguments.
    events: Vec<(u64, Vec<Written>)>,
    synced: bool,
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Result<u8, String> {
        let (&b, rest) = self.0.split_first().ok_or("the end in the middle of something")?;
        self.0 = rest;
        Ok(b)
    }

    fn number(&mut self) -> Result<u64, String> {
        let (mut n, mut shift) = (0, 0);
        loop {
            let b = self.byte()?;
            n |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(n);
            }
            shift += 7;
        }
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u64; N], String> {
        let mut all = [0; N];
        for n in &mut all {
            *n = self.number()?;
        }
        Ok(all)
    }

    fn slice(&mut self, count: u64) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(count as usize).ok_or("the end in the middle of bytes")?;
        self.0 = rest;
        Ok(head)
    }
}

/// How many arguments follow the time, and which of them are strings.
fn shape(kind: u8) -> Result<(usize, &'static [usize], Option<usize>), String> {
    Ok(match kind {
        ev::PROC_STOP | ev::GO_DESTROY | ev::SYSCALL_END_BLOCKED | ev::STW_END => (0, &[], None),
        ev::GC_ACTIVE | ev::GC_END | ev::HEAP_ALLOC => (1, &[], None),
        ev::SWEEP_BEGIN => (1, &[], Some(0)),
        ev::SWEEP_END => (2, &[], None),
        ev::GO_LABEL => (1, &[0], None),
        ev::PROCS_CHANGE | ev::SYSCALL_BEGIN | ev::GC_BEGIN | ev::TASK_END => (2, &[], Some(1)),
        ev::PROC_START | ev::PROC_STATUS | ev::GO_START => (2, &[], None),
        ev::GO_STOP | ev::GO_BLOCK | ev::STW_BEGIN => (2, &[0], Some(1)),
        ev::GO_CREATE | ev::GO_UNBLOCK => (3, &[], Some(2)),
        ev::PROC_STEAL | ev::GO_STATUS => (3, &[], None),
        ev::REGION_BEGIN | ev::REGION_END => (3, &[1], Some(2)),
        ev::GO_STATUS_STACK => (4, &[], Some(3)),
        ev::TASK_BEGIN => (4, &[2], Some(3)),
        ev::USER_LOG => (4, &[1, 2], Some(3)),
        other => return Err(format!("an event of type {other}")),
    })
}

fn read_batch(generation: &mut Generation, bytes: &mut Bytes<'_>) -> Result<(), String> {
    let [number, m, ns, size] = bytes.numbers()?;
    if generation.number == 0 {
        generation.number = number;
    }
    if number != generation.number || number == 0 || size > 65536 {
        return Err(format!("a batch of generation {number}, {size} bytes, in generation {}", generation.number));
    }
    let mut data = Bytes(bytes.slice(size)?);
    match data.0.first() {
        Some(&ev::STRINGS) => read_strings(generation, &mut data),
        Some(&ev::STACKS) => read_stacks(generation, &mut data),
        Some(&ev::SAMPLES) => Ok(()),
        Some(&ev::SYNC) => {
            let is_second = std::mem::replace(&mut generation.synced, true);
            if is_second || data.0[1] != ev::FREQUENCY || m != NO_M {
                return Err("clocks told twice, or wrongly".into());
            }
            Ok(())
        }
        _ => read_events(generation, m, ns, &mut data),
    }
}

fn read_strings(generation: &mut Generation, data: &mut Bytes<'_>) -> Result<(), String> {
    data.byte()?;
    while !data.0.is_empty() {
        let (kind, [id, size]) = (data.byte()?, data.numbers()?);
        let text = String::from_utf8(data.slice(size)?.to_vec()).map_err(|e| e.to_string())?;
        if kind != ev::STRING || size > 1024 || generation.strings.insert(id, text).is_some() {
            return Err(format!("string {id}"));
        }
    }
    Ok(())
}

fn read_stacks(generation: &mut Generation, data: &mut Bytes<'_>) -> Result<(), String> {
    data.byte()?;
    while !data.0.is_empty() {
        let (kind, [id, count]) = (data.byte()?, data.numbers()?);
        let mut frames = Vec::new();
        for _ in 0..count {
            let [pc, name, file, _line] = data.numbers()?;
            generation.frames.insert(pc, (name, file));
            frames.push(pc);
        }
        if kind != ev::STACK || count > 128 || generation.stacks.insert(id, frames).is_some() {
            return Err(format!("stack {id}"));
        }
    }
    Ok(())
}

fn read_events(generation: &mut Generation, m: u64, mut ns: u64, data: &mut Bytes<'_>) -> Result<(), String> {
    let place = match generation.events.iter().position(|of| of.0 == m) {
        Some(place) => place,
        None => {
            generation.events.push((m, Vec::new()));
            generation.events.len() - 1
        }
    };
    let list = &mut generation.events[place].1;
    if list.last().is_some_and(|last| last.0 > ns) {
        return Err(format!("batches of M {m} are out of order"));
    }
    while !data.0.is_empty() {
        let kind = data.byte()?;
        ns += data.number()?;
        let args = (0..shape(kind)?.0).map(|_| data.number()).collect::<Result<_, _>>()?;
        list.push((ns, kind, args));
    }
    Ok(())
}

/// `None`: there are no more.
fn read_generation(bytes: &mut Bytes<'_>) -> Result<Option<Generation>, String> {
    let mut generation = Generation::default();
    if bytes.0.is_empty() {
        return Ok(None);
    }
    loop {
        match bytes.byte()? {
            ev::BATCH => read_batch(&mut generation, bytes)?,
            ev::END_OF_GENERATION => break,
            other => return Err(format!("{other} instead of a batch")),
        }
    }
    if !generation.synced {
        return Err("no clocks".into());
    }
    for (id, frames) in &generation.stacks {
        for pc in frames {
            let (name, file) = generation.frames[pc];
            if [name, file].iter().any(|id| *id != 0 && !generation.strings.contains_key(id)) {
                return Err(format!("stack {id} names a string that there is not"));
            }
        }
    }
    Ok(Some(generation))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct G {
    status: u64,
    seq: (u64, u64),
}

#[derive(Clone, Copy)]
struct P {
    status: u64,
    seq: (u64, u64),
}

#[derive(Clone, Copy, Default)]
struct M {
    p: Option<u64>,
    g: u64,
}

#[derive(Default)]
struct Order {
    gs: HashMap<u64, G>,
    ps: HashMap<u64, P>,
    ms: HashMap<u64, M>,
    first: u64,
    /// Whether a pass is in progress, if that is known, and the number of its last event.
    pass: (Option<bool>, u64),
    stopped: Vec<u64>,
    /// Ps that sweep.
    sweeping: Vec<Option<u64>>,
    tasks: Vec<u64>,
    regions: HashMap<u64, Vec<(u64, String)>>,
}

const RUNNABLE: u64 = 1;
const RUNNING: u64 = 2;
const SYSCALL: u64 = 3;
const WAITING: u64 = 4;
const P_RUNNING: u64 = 1;
const P_IDLE: u64 = 2;
const P_SYSCALL: u64 = 3;

/// Whether an event could be next; an error is one whatever comes first.
type Advanced = Result<bool, String>;

impl Order {
    fn needs(&self, m: &M, g: bool) -> Result<(), String> {
        let status = self.gs.get(&m.g).map(|g| g.status);
        if m.p.is_none() || (g && status != Some(RUNNING)) {
            return Err(format!("P {:?}, G {} ({status:?})", m.p, m.g));
        }
        Ok(())
    }

    fn sweep(&mut self, m: &M, kind: u8) -> Advanced {
        let before = self.sweeping.iter().position(|&p| p == m.p);
        match (kind, before) {
            (ev::SWEEP_BEGIN, None) => self.sweeping.push(m.p),
            (ev::SWEEP_END, Some(place)) => drop(self.sweeping.remove(place)),
            _ => return Err("it sweeps, or does not".into()),
        }
        Ok(true)
    }

    fn advance(&mut self, generation: u64, id: u64, kind: u8, args: &[u64], texts: &[String]) -> Advanced {
        let mut m = self.ms.get(&id).copied().unwrap_or_default();
        let done = match kind {
            ev::PROC_START | ev::PROC_STOP | ev::PROC_STEAL | ev::PROC_STATUS => {
                self.proc(generation, id, &mut m, kind, args)
            }
            ev::GO_STATUS | ev::GO_STATUS_STACK => self.go_status(generation, id, &mut m, args),
            ev::GO_CREATE | ev::GO_START | ev::GO_UNBLOCK => self.go(generation, &mut m, kind, args),
            ev::GO_STOP | ev::GO_BLOCK | ev::GO_DESTROY => self.leave(&mut m, kind),
            ev::SYSCALL_BEGIN | ev::SYSCALL_END_BLOCKED => self.call(generation, &mut m, kind, args),
            ev::GC_ACTIVE | ev::GC_BEGIN | ev::GC_END => self.collect(generation, &m, kind, args),
            ev::HEAP_ALLOC => self.needs(&m, false).map(|()| true),
            ev::SWEEP_BEGIN | ev::SWEEP_END => self.needs(&m, false).and_then(|()| self.sweep(&m, kind)),
            _ => self.needs(&m, true).and_then(|()| self.user(m.g, kind, args, texts)),
        }
        .map_err(|e| format!("event {kind} {args:?} {texts:?} of M {id} in generation {generation}: {e}"))?;
        if done && id != NO_M {
            self.ms.insert(id, m);
        }
        Ok(done)
    }

    fn proc(&mut self, generation: u64, id: u64, m: &mut M, kind: u8, args: &[u64]) -> Advanced {
        match kind {
            ev::PROC_STATUS => {
                let p = self.ps.entry(args[0]).or_insert(P { status: args[1], seq: (0, 0) });
                if p.status != args[1] {
                    return Err(format!("the P's status is {}", p.status));
                }
                p.seq = (generation, 0);
                if args[1] != P_IDLE {
                    m.p = Some(args[0]);
                }
            }
            ev::PROC_START => {
                let fits = |p: &&mut P| p.status == P_IDLE && p.seq == (generation, args[1].wrapping_sub(1));
                let Some(p) = self.ps.get_mut(&args[0]).filter(fits) else { return Ok(false) };
                if m.p.is_some() {
                    return Ok(false);
                }
                *p = P { status: P_RUNNING, seq: (generation, args[1]) };
                m.p = Some(args[0]);
            }
            ev::PROC_STOP => {
                let p = m.p.take().and_then(|p| self.ps.get_mut(&p)).ok_or("there is no P")?;
                if p.status != P_RUNNING && p.status != P_SYSCALL {
                    return Err("it is not running".into());
                }
                p.status = P_IDLE;
            }
            _ => {
                let fits = |p: &&mut P| p.status == P_SYSCALL && p.seq == (generation, args[1].wrapping_sub(1));
                let Some(p) = self.ps.get_mut(&args[0]).filter(fits) else { return Ok(false) };
                *p = P { status: P_IDLE, seq: (generation, args[1]) };
                let other = if args[2] == id { &mut *m } else { self.ms.get_mut(&args[2]).ok_or("no such M")? };
                if other.p.take() != Some(args[0]) {
                    return Err("that M had another P".into());
                }
            }
        }
        Ok(true)
    }

    fn go_status(&mut self, generation: u64, id: u64, m: &mut M, args: &[u64]) -> Advanced {
        let [g, at, status] = [args[0], args[1], args[2]];
        let is_first = generation == self.first;
        match self.gs.get_mut(&g) {
            Some(known) if known.status == status => known.seq = (generation, 0),
            Some(known) => return Err(format!("its status is {}", known.status)),
            None if is_first => drop(self.gs.insert(g, G { status, seq: (generation, 0) })),
            None => return Err("a new goroutine after the first generation".into()),
        }
        match status {
            RUNNING => m.g = g,
            SYSCALL if at == id => {
                if !is_first && m.g != g {
                    return Err(format!("the thread has {}", m.g));
                }
                m.g = g;
            }
            SYSCALL => return Err("a call that is told of by another M".into()),
            _ => {}
        }
        Ok(true)
    }

    fn go(&mut self, generation: u64, m: &mut M, kind: u8, args: &[u64]) -> Advanced {
        let seq = (generation, args[1].wrapping_sub(1));
        match kind {
            ev::GO_CREATE => {
                self.needs(m, m.g != 0)?;
                let new = G { status: RUNNABLE, seq: (generation, 0) };
                if self.gs.insert(args[0], new).is_some() {
                    return Err("it is there already".into());
                }
            }
            ev::GO_START => {
                let fits = |g: &&mut G| g.status == RUNNABLE && g.seq == seq;
                let Some(g) = self.gs.get_mut(&args[0]).filter(fits) else { return Ok(false) };
                *g = G { status: RUNNING, seq: (generation, args[1]) };
                if m.g != 0 || m.p.is_none() {
                    return Err(format!("P {:?}, G {}", m.p, m.g));
                }
                m.g = args[0];
            }
            _ => {
                let fits = |g: &&mut G| g.status == WAITING && g.seq == seq;
                let Some(g) = self.gs.get_mut(&args[0]).filter(fits) else { return Ok(false) };
                *g = G { status: RUNNABLE, seq: (generation, args[1]) };
            }
        }
        Ok(true)
    }

    fn leave(&mut self, m: &mut M, kind: u8) -> Advanced {
        self.needs(m, true)?;
        let g = std::mem::take(&mut m.g);
        if self.stopped.contains(&g) {
            return Err("it has stopped the world".into());
        }
        match kind {
            ev::GO_DESTROY => drop((self.gs.remove(&g), self.regions.remove(&g))),
            ev::GO_STOP => self.gs.get_mut(&g).expect("running").status = RUNNABLE,
            _ => self.gs.get_mut(&g).expect("running").status = WAITING,
        }
        Ok(true)
    }

    fn call(&mut self, generation: u64, m: &mut M, kind: u8, args: &[u64]) -> Advanced {
        if kind == ev::SYSCALL_BEGIN {
            self.needs(m, true)?;
            let p = self.ps.get_mut(&m.p.expect("there is one")).ok_or("an unknown P")?;
            if p.seq != (generation, args[0].wrapping_sub(1)) {
                return Err(format!("the P is at {:?}", p.seq));
            }
            *p = P { status: P_SYSCALL, seq: (generation, args[0]) };
            self.gs.get_mut(&m.g).expect("running").status = SYSCALL;
            return Ok(true);
        }
        if m.p.is_some_and(|p| self.ps[&p].status == P_SYSCALL) {
            return Ok(false);
        }
        let g = self.gs.get_mut(&m.g).filter(|g| g.status == SYSCALL).ok_or("it is in no call")?;
        g.status = RUNNABLE;
        m.g = 0;
        Ok(true)
    }

    fn collect(&mut self, generation: u64, m: &M, kind: u8, args: &[u64]) -> Advanced {
        let is_first =
            self.pass.0.is_none() && kind != ev::GC_END && (kind == ev::GC_BEGIN || generation == self.first);
        if !is_first && args[0] != self.pass.1 + 1 {
            return Ok(false);
        }
        if !is_first && self.pass.0 != Some(kind != ev::GC_BEGIN) {
            return Err("a pass in the wrong place".into());
        }
        self.needs(m, true)?;
        self.pass = (Some(kind != ev::GC_END), args[0]);
        Ok(true)
    }

    fn user(&mut self, g: u64, kind: u8, args: &[u64], texts: &[String]) -> Advanced {
        match kind {
            ev::STW_BEGIN if self.stopped.contains(&g) => return Err("it is stopped".into()),
            ev::STW_BEGIN => self.stopped.push(g),
            ev::STW_END => {
                let at = self.stopped.iter().position(|&one| one == g).ok_or("it is not stopped")?;
                self.stopped.remove(at);
            }
            ev::TASK_BEGIN if self.tasks.contains(&args[0]) => return Err("it has begun".into()),
            ev::TASK_BEGIN => self.tasks.push(args[0]),
            ev::TASK_END => self.tasks.retain(|&task| task != args[0]),
            ev::REGION_BEGIN => self.regions.entry(g).or_default().push((args[0], texts[0].clone())),
            ev::REGION_END => {
                let last = self.regions.entry(g).or_default().pop();
                if last.is_some_and(|last| last != (args[0], texts[0].clone())) {
                    return Err("it is not the innermost".into());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// Reads a trace; the events in the order of the rules, or what is wrong with it.
pub(super) fn check(trace: &[u8]) -> Result<Vec<Event>, String> {
    let mut bytes = Bytes(trace.strip_prefix(HEADER).ok_or("the header")?);
    let (mut order, mut all, mut last) = (Order::default(), Vec::new(), 0);
    while let Some(generation) = read_generation(&mut bytes)? {
        if last != 0 && generation.number != last + 1 {
            return Err(format!("generation {} after {last}", generation.number));
        }
        last = generation.number;
        order.first = if order.first == 0 { last } else { order.first };
        put_in_order(&generation, &mut order, &mut all)?;
    }
    if last == 0 { Err("no generation".into()) } else { Ok(all) }
}

fn put_in_order(generation: &Generation, order: &mut Order, all: &mut Vec<Event>) -> Result<(), String> {
    let mut next = vec![0; generation.events.len()];
    loop {
        let mut open: Vec<usize> = (0..next.len()).filter(|&i| next[i] < generation.events[i].1.len()).collect();
        if open.is_empty() {
            return Ok(());
        }
        open.sort_by_key(|&i| generation.events[i].1[next[i]].0);
        let mut done = false;
        for &i in &open {
            let (m, events) = &generation.events[i];
            let (ns, kind, args) = &events[next[i]];
            let (_, strings, stack) = shape(*kind)?;
            let text = |&at: &usize| match args[at] {
                0 => Ok(String::new()),
                id => generation.strings.get(&id).cloned().ok_or(format!("string {id} of event {kind}")),
            };
            let texts: Vec<String> = strings.iter().map(text).collect::<Result<_, _>>()?;
            if stack.is_some_and(|at| args[at] != 0 && !generation.stacks.contains_key(&args[at])) {
                return Err(format!("the stack of event {kind} {args:?}"));
            }
            let before = order.ms.get(m).copied().unwrap_or_default();
            if order.advance(generation.number, *m, *kind, args, &texts)? {
                let (args, generation) = (args.clone(), generation.number);
                all.push(Event { kind: *kind, ns: *ns, m: *m, g: before.g, p: before.p, args, texts, generation });
                next[i] += 1;
                done = true;
                break;
            }
        }
        if !done {
            let front: Vec<_> =
                open.iter().map(|&i| (generation.events[i].0, &generation.events[i].1[next[i]])).collect();
            return Err(format!("nothing can be next in generation {}: {front:?}", generation.number));
        }
    }
}
