//! Who uses the CPU: a thread that looks at the CPU clocks of all threads a hundred times a second while a profile is taken.
//!
//! Each thread is owed a sample for each period of CPU time that it used: counts of samples are CPU time whatever the looks
//! meet, and who waits is owed none. A look that finds something owed sends an M without work for the host's lock, as preemption
//! does; whoever computes gives it up at its next safe point, and the M has the host note what those threads run. A thread that
//! is between two goroutines then is waited for, a moment. While no profile is taken there is no such thread, and nothing else
//! looks at any of this.

use super::idle;
use super::machine::Machine;
use super::processor::Processor;
use super::runtime::{REQUEST_ERRANDS, Runtime};
use crate::goroutine::{Goroutine, status};
use crate::primitive::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::primitive::boxes::try_box;
use crate::primitive::tries::try_push;
use crate::sys::{clock, futex, thread};
use std::collections::HashMap;
use std::ptr;
use std::sync::OnceLock;

/// How often threads that are no Ms are looked for, at least: every so many looks.
const SEARCH: u32 = 10;
/// How long a look waits, at most, for a thread that is owed samples to run something, and in what steps, ns.
const PATIENCE_NS: u64 = 10_000_000;
const STEP_NS: u64 = 250_000;
/// How long who begins or ends a profile waits for its thread, at most, ns.
const LOOK_NS: u64 = 1_000_000_000;
/// A process that used less since the last look has nothing to be looked at, ns.
const IDLE_NS: u64 = 20_000;

/// Samples that a thread is owed.
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    /// The kernel's id of the thread.
    pub tid: u32,
    /// Its M, or null.
    machine: *const Machine,
    /// What that ran at the look, and who that was; null if it ran nothing.
    seen: *const Goroutine,
    seen_id: u64,
    /// How many.
    pub count: u64,
    /// It is noted by who ends the profile: what the M ran at the look tells more than what it runs then.
    is_last: bool,
}
// SAFETY: Ms are never freed, and descriptors neither.
unsafe impl Send for Owed {}

impl Owed {
    /// Whether the thread is an M.
    pub fn is_machine(&self) -> bool {
        !self.machine.is_null()
    }

    /// The P of its M, or null.
    pub(super) fn processor(&self) -> *const Processor {
        // SAFETY: null or an M, which is never freed.
        unsafe { self.machine.as_ref() }.map_or(ptr::null(), |m| m.p().cast_const())
    }

    /// What it runs, or ran at the look if that is still alive; else null. Host attached, an exclusive one.
    pub fn goroutine(&self) -> *const Goroutine {
        // SAFETY: null or an M. The host's lock is held, so one outside g0 stays there, with its goroutine.
        unsafe {
            let Some(m) = self.machine.as_ref() else { return ptr::null() };
            let is_outside = !m.in_scheduler.load(Ordering::Acquire); // pairs with the Release in `execute`
            if is_outside && !self.is_last {
                return m.current;
            }
            let is_alive = self.seen.as_ref().is_some_and(|g| {
                let s = g.status.load(Ordering::Acquire); // pairs with the Release stores of the status protocol
                g.id == self.seen_id && s != status::FREE && s != status::DEAD
            });
            match is_alive {
                true => self.seen,
                false if is_outside => m.current,
                false => ptr::null(),
            }
        }
    }
}

/// What a host notes of samples that are owed. Host attached, on an M's g0 or by who ends the profile; neither parks nor runs code of
/// the host.
pub type Note = unsafe fn(&'static Runtime, &[Owed]);

/// Samples that are noted together.
struct Batch(Vec<Owed>);

/// What is known of profiles.
#[derive(Default)]
pub struct Sampler {
    /// Whether a profile is taken, as its number; 0: none is.
    active: AtomicU32,
    /// How many were begun.
    begun: AtomicU32,
    /// CPU time between two samples of a thread, ns.
    period_ns: AtomicU64,
    /// What an M was sent for and has not noted yet: a box, or null.
    owed: AtomicPtr<Batch>,
    /// What was owed when the profile ended: a box, or null.
    last: AtomicPtr<Batch>,
    /// Twice the number of the last profile whose thread has had its first look, and one more once it has had its last.
    stage: AtomicU32,
    /// All Ms.
    pub(super) machines: AllMachines,
    /// Seconds of the clock as of sysmon's last look.
    clock_s: AtomicU32,
    /// The host's part.
    pub note: OnceLock<Note>,
}

impl Sampler {
    /// The number of the profile that is being taken; 0: none is.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Acquire) // pairs with the stores of `start_sampling` and `stop_sampling`
    }

    /// In a forked child, where the thread is not.
    pub(super) fn forget(&self) {
        self.active.store(0, Ordering::Relaxed);
        drop(Self::take(&self.owed));
        drop(Self::take(&self.last));
    }

    /// Seconds of the clock, some milliseconds late: what a park costs is less than a look at the clock itself.
    #[inline]
    pub fn clock_s(&self) -> u32 {
        self.clock_s.load(Ordering::Relaxed) // a moment's view, for dumps
    }

    pub(super) fn set_clock(&self, now_ns: u64) {
        self.clock_s.store((now_ns / 1_000_000_000) as u32, Ordering::Relaxed); // as above
    }

    /// Waits, with the host's lock, for the thread to get so far: that needs nothing but a moment of a CPU.
    fn wait_for(&self, stage: u32) {
        let until_ns = clock::now_ns() + LOOK_NS;
        loop {
            let now = self.stage.load(Ordering::Acquire); // pairs with the Release of `reach`
            let left_ns = until_ns.saturating_sub(clock::now_ns());
            if now == stage || left_ns == 0 {
                return;
            }
            let _ = futex::wait(&self.stage, now, Some(left_ns));
        }
    }

    fn take(place: &AtomicPtr<Batch>) -> Option<Box<Batch>> {
        let owed = place.swap(ptr::null_mut(), Ordering::AcqRel); // pairs with the stores of `send` and `leave_last`
        // SAFETY: boxes that were let go of there, each taken out once.
        (!owed.is_null()).then(|| unsafe { Box::from_raw(owed) })
    }
}

/// All Ms there ever were, linked by `Machine::next_of_all`.
#[derive(Default)]
pub(super) struct AllMachines(AtomicPtr<Machine>);

impl AllMachines {
    /// Adds one that is new.
    pub(super) fn add(&self, m: *mut Machine) {
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: new, and nobody else's until the exchange.
            unsafe { (*m).next_of_all = first };
            // Release: pairs with the Acquire in `each`.
            match self.0.compare_exchange(first, m, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }

    pub(super) fn each(&self, mut f: impl FnMut(&Machine)) {
        let mut m = self.0.load(Ordering::Acquire).cast_const();
        // SAFETY: Ms are never freed; a link does not change once it is in the list.
        while let Some(this) = unsafe { m.as_ref() } {
            f(this);
            m = this.next_of_all;
        }
    }
}

/// CPU time that the process used, without this thread.
fn process_ns() -> u64 {
    clock::process_cpu_ns().saturating_sub(clock::thread_cpu_ns())
}

/// What the thread keeps of another one.
struct Clock {
    seen_ns: u64,
    /// CPU time that no sample was noted for.
    owed_ns: u64,
    machine: *const Machine,
    /// The look at which it was there last.
    look: u32,
}

/// What the thread keeps.
struct Looks {
    rt: &'static Runtime,
    number: u32,
    period_ns: u64,
    own_tid: u32,
    clocks: HashMap<u32, Clock>,
    /// Threads that a search found.
    others: Vec<u32>,
    /// Whether one has found all of them.
    has_searched: bool,
    look: u32,
    /// What the process had used at the last look, without this thread.
    process_ns: u64,
    /// What the process used since threads were looked for last and none of those that are known did.
    unknown_ns: u64,
}

impl Looks {
    /// Before the first look.
    fn new(rt: &'static Runtime, number: u32, period_ns: u64) -> Looks {
        let (own_tid, clocks, others) = (thread::tid(), HashMap::new(), Vec::new());
        let (has_searched, look, process_ns, unknown_ns) = (false, 0, 0, 0);
        Looks { rt, number, period_ns, own_tid, clocks, others, has_searched, look, process_ns, unknown_ns }
    }

    fn is_wanted(&self) -> bool {
        self.rt.sampler.active() == self.number && !self.rt.stopping.load(Ordering::Acquire) // pairs with `stop`
    }

    /// Sleeps; shorter or longer by up to a quarter, so that it does not keep step with what it looks at.
    fn pause(&self, ns: u64) {
        let quarter = (ns / 4).max(1);
        let _ =
            futex::wait(&self.rt.sampler.active, self.number, Some(ns - quarter + self.rt.random() % (2 * quarter)));
    }

    /// Reads a thread's clock: what it used since the last time. What it used before the first search is not owed.
    fn read(&mut self, tid: u32, machine: *const Machine) -> u64 {
        let Some(now_ns) = clock::cpu_ns_of(tid) else { return 0 };
        if !self.clocks.contains_key(&tid) && self.clocks.try_reserve(1).is_err() {
            return 0;
        }
        let (look, period_ns) = (self.look, self.period_ns);
        let phase_ns = self.rt.random() % period_ns;
        let begun_ns = if self.has_searched { 0 } else { now_ns };
        let new = Clock { seen_ns: begun_ns, owed_ns: phase_ns, machine, look };
        let known = self.clocks.entry(tid).or_insert(new);
        let used_ns = now_ns.saturating_sub(known.seen_ns);
        known.owed_ns += used_ns;
        (known.seen_ns, known.machine, known.look) = (now_ns, machine, look);
        used_ns
    }

    /// Reads the clocks of threads that are no Ms and were not read at this look: what they used.
    fn read_others(&mut self) -> u64 {
        let others = std::mem::take(&mut self.others);
        let mut used_ns = 0;
        for &tid in &others {
            let is_read = self.clocks.get(&tid).is_some_and(|clock| clock.look == self.look);
            if tid != self.own_tid && !is_read {
                used_ns += self.read(tid, ptr::null());
            }
        }
        self.others = others;
        used_ns
    }

    /// Looks for threads. Where the process has no descriptor left for that, those that are known stay: who is forgotten and found
    /// again would be owed all that it ever used.
    fn search(&mut self) {
        let mut found = Vec::new();
        let is_whole = thread::all(&mut found);
        if is_whole || !self.has_searched {
            self.others = found;
        }
        self.read_others();
        self.has_searched |= is_whole;
    }

    /// Reads all clocks. Threads that are no Ms are looked for now and then, and whenever a period of CPU time is nobody's: a
    /// thread may come and go between two searches.
    fn read_all(&mut self) {
        let rt = self.rt;
        let process_ns = process_ns();
        let mut known_ns = 0;
        rt.sampler.machines.each(|m| {
            let tid = m.tid.load(Ordering::Relaxed);
            if tid != 0 {
                known_ns += self.read(tid, m);
            }
        });
        known_ns += self.read_others();
        self.unknown_ns = (self.unknown_ns + process_ns.saturating_sub(self.process_ns)).saturating_sub(known_ns);
        self.process_ns = process_ns;
        if self.look.is_multiple_of(SEARCH) || self.unknown_ns >= self.period_ns {
            self.search();
            self.unknown_ns = 0;
        }
        let (look, period_ns) = (self.look, self.period_ns);
        // What a thread that has ended is owed is noted yet.
        self.clocks.retain(|_, clock| look - clock.look <= SEARCH || clock.owed_ns >= period_ns);
    }

    /// Those who are owed samples, and whether all of them run something.
    fn owed(&self, list: &mut Vec<Owed>) -> bool {
        let mut all_run = true;
        for (&tid, clock) in &self.clocks {
            let count = clock.owed_ns / self.period_ns;
            if count == 0 {
                continue;
            }
            let (mut seen, mut seen_id) = (ptr::null(), 0);
            // SAFETY: null or an M, which is never freed.
            if let Some(m) = unsafe { clock.machine.as_ref() } {
                // SAFETY: a field of it; what it runs may change this moment, so it is read once, and looked at again later.
                seen = unsafe { (&raw const m.current).read_volatile() }.cast_const();
                let runs = !m.in_scheduler.load(Ordering::Relaxed); // a hint
                all_run &= runs;
                seen = if runs { seen } else { ptr::null() }; // it may have been parked for long
                // SAFETY: null or a descriptor, which is never freed.
                seen_id = unsafe { seen.as_ref() }.map_or(0, |g| g.id);
            }
            let _ = try_push(list, Owed { tid, machine: clock.machine, seen, seen_id, count, is_last: false });
        }
        all_run
    }

    /// Sends an M for the host's lock to note what is owed.
    fn send(&mut self, list: Vec<Owed>) {
        let Some(list) = try_box(Batch(list)) else { return };
        let m = idle::sleeper_or_new(self.rt);
        if m.is_null() {
            return; // it stays owed
        }
        for owed in &list.0 {
            if let Some(clock) = self.clocks.get_mut(&owed.tid) {
                clock.owed_ns -= owed.count * self.period_ns;
            }
        }
        // Release: pairs with the swap of `take`. Nobody else puts one in, and the last was taken.
        self.rt.sampler.owed.store(Box::into_raw(list), Ordering::Release);
        // SAFETY: as for `sleeper_or_new`; published by the note.
        unsafe {
            (*m).samples.store(true, Ordering::Relaxed);
            idle::notify(m);
        }
    }

    /// Lets whoever begins or ends the profile go on.
    fn reach(&self, stage: u32) {
        let s = &self.rt.sampler;
        s.stage.store(self.number.wrapping_mul(2) | stage, Ordering::Release); // pairs with the Acquire in `wait_for`
        futex::wake_one(&raw const s.stage);
    }

    /// Leaves all that is owed at the end to who ends the profile.
    fn leave_last(&mut self) {
        self.look = self.look.next_multiple_of(SEARCH); // threads that have begun meanwhile are looked for
        self.read_all();
        let mut list = Vec::new();
        self.owed(&mut list);
        if let Some(list) = try_box(Batch(list)) {
            // Release: pairs with the swap of `take`.
            self.rt.sampler.last.store(Box::into_raw(list), Ordering::Release);
        }
    }

    /// Reads the clocks, and sends an M for what is owed unless one is on its way: it may wait for the host's lock for long.
    fn look(&mut self) {
        if self.look != 0 && process_ns().saturating_sub(self.process_ns) < IDLE_NS {
            return;
        }
        self.read_all();
        self.look += 1;
        if !self.rt.sampler.owed.load(Ordering::Relaxed).is_null() {
            return; // its turn comes with the next
        }
        let mut list = Vec::new();
        let until_ns = clock::now_ns() + PATIENCE_NS;
        while !self.owed(&mut list) && self.is_wanted() && clock::now_ns() < until_ns {
            self.pause(STEP_NS);
            list.clear();
        }
        if !list.is_empty() && self.is_wanted() {
            self.send(list);
        }
    }
}

unsafe extern "C-unwind" fn sampler_thread(argument: *mut u8) {
    // SAFETY: `start_sampling` passes its runtime, which is never freed.
    let rt: &'static Runtime = unsafe { &*argument.cast::<Runtime>() };
    thread::set_name(c"gort-sampler");
    let (number, period_ns) = (rt.sampler.active(), rt.sampler.period_ns.load(Ordering::Relaxed));
    let mut looks = Looks::new(rt, number, period_ns);
    if number == 0 {
        return; // stopped already
    }
    looks.look();
    looks.reach(0);
    while looks.is_wanted() {
        looks.pause(period_ns);
        looks.look();
    }
    if !rt.stopping.load(Ordering::Acquire) {
        looks.leave_last(); // else nobody takes it
    }
    looks.reach(1);
}

impl Runtime {
    /// Begins to take samples; `false`: it is done already, or the system refuses a thread. Host attached.
    pub fn start_sampling(&'static self, period_ns: u64) -> bool {
        let s = &self.sampler;
        if s.active() != 0 {
            return false;
        }
        drop(Sampler::take(&s.owed));
        drop(Sampler::take(&s.last));
        s.period_ns.store(period_ns.max(1), Ordering::Relaxed); // published by `active`
        let number = s.begun.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        s.active.store(number, Ordering::Release); // pairs with the Acquire in `active`
        // SAFETY: runtimes are never freed.
        let started = unsafe { thread::spawn_raw(sampler_thread, ptr::from_ref(self).cast_mut().cast()) };
        match started {
            Ok(()) => s.wait_for(number.wrapping_mul(2)), // what is used from here on is counted
            Err(_) => s.active.store(0, Ordering::Release),
        }
        started.is_ok()
    }

    /// Ends that: what is owed is noted now, and nothing from here on. Waits for the thread's last look. Host attached.
    pub fn stop_sampling(&'static self) {
        let s = &self.sampler;
        let number = s.active.swap(0, Ordering::AcqRel); // pairs with the Acquire in `active`
        if number == 0 {
            return;
        }
        futex::wake_one(&raw const s.active);
        s.wait_for(number.wrapping_mul(2) | 1);
        for mut batch in [Sampler::take(&s.owed), Sampler::take(&s.last)].into_iter().flatten() {
            batch.0.iter_mut().for_each(|owed| owed.is_last = true);
            if let Some(note) = s.note.get() {
                // SAFETY: the host is attached, which is all that a note needs of an M.
                unsafe { note(self, &batch.0) };
            }
        }
    }
}

impl Runtime {
    /// As `call_attached`, but an M goes for the host's lock at once: whoever computes gives it up at its next safe point.
    ///
    /// # Safety
    /// As for `call_attached`.
    pub unsafe fn call_at_once(&'static self, call: unsafe fn(&'static Runtime, usize), argument: usize) {
        // SAFETY: the caller's promise; an M of `sleeper_or_new` is this caller's until it is notified, which publishes the flag.
        unsafe {
            self.call_attached(call, argument);
            let m = idle::sleeper_or_new(self);
            if !m.is_null() {
                (*m).samples.store(true, Ordering::Relaxed);
                idle::notify(m);
            }
        }
    }
}

impl Machine {
    /// Has those give up the host's lock who may have it. This M attaches next.
    pub(super) fn hurry_all(&self) {
        for p in self.rt.processors.iter() {
            // SAFETY: Ms are never freed. Acquire: pairs with the Release of who gave it the P.
            if let Some(m) = unsafe { p.machine.load(Ordering::Acquire).as_ref() } {
                self.rt.hurry_on(m);
            }
        }
    }

    /// Notes the samples that it was sent for, and does what was left to be done with the host's lock.
    ///
    /// # Safety
    /// On g0, host attached.
    pub(super) unsafe fn note_samples(&self) {
        let s = &self.rt.sampler;
        if let (Some(note), Some(list), true) = (s.note.get(), Sampler::take(&s.owed), s.active() != 0) {
            // SAFETY: the caller's promise.
            unsafe { note(self.rt, &list.0) };
        }
        if self.rt.requests.load(Ordering::Relaxed) & REQUEST_ERRANDS != 0 {
            self.rt.run_errands(); // of `call_at_once`
        }
    }
}

/// Whether an M was sent for samples; it is not any more.
pub(super) fn takes_samples(samples: &AtomicBool) -> bool {
    samples.load(Ordering::Relaxed) && samples.swap(false, Ordering::Relaxed) // published by the note
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::super::null_tests::{go, runtime};
    use super::*;
    use std::sync::{Mutex, mpsc};

    const PERIOD_NS: u64 = 1_000_000;

    /// Threads, how many samples each was noted for, and whether they are Ms.
    static NOTED: Mutex<Vec<(u32, u64, bool)>> = Mutex::new(Vec::new());

    unsafe fn note(_rt: &'static Runtime, list: &[Owed]) {
        NOTED.lock().unwrap().extend(list.iter().map(|owed| (owed.tid, owed.count, owed.is_machine())));
    }

    fn noted(tid: u32) -> u64 {
        NOTED.lock().unwrap().iter().filter(|noted| noted.0 == tid).map(|noted| noted.1).sum()
    }

    #[test]
    fn a_thread_is_owed_a_sample_for_each_period_it_used_and_no_more() {
        let rt = runtime(1);
        let _ = rt.sampler.note.set(note);
        go(rt, || {});
        assert!(rt.start_sampling(PERIOD_NS));
        assert!(!rt.start_sampling(PERIOD_NS), "one at a time");
        let (tid, begun_ns) = (thread::tid(), clock::thread_cpu_ns());
        while noted(tid) < 50 {
            assert!(clock::thread_cpu_ns() - begun_ns < 20_000_000_000, "no samples");
        }
        let owed_ns = clock::thread_cpu_ns() - begun_ns;
        rt.stop_sampling();
        let (count, used_ns) = (noted(tid), clock::thread_cpu_ns() - begun_ns);
        assert!(count <= used_ns / PERIOD_NS + 1, "{count} samples for {used_ns} ns");
        // However late the looks were: what was owed at the end is noted, too.
        assert!(count >= owed_ns / PERIOD_NS, "{count} samples for {owed_ns} ns");
        rt.stop_sampling();
        assert_eq!(noted(tid), count, "nothing more");
        assert!(NOTED.lock().unwrap().iter().filter(|noted| noted.0 == tid).all(|noted| !noted.2));
    }

    #[test]
    fn a_thread_that_comes_and_goes_between_two_searches_is_found() {
        let mut looks = Looks::new(runtime(1), 0, PERIOD_NS);
        looks.read_all();
        looks.look += 1;
        let (used, done) = (mpsc::channel(), mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            while clock::thread_cpu_ns() < 5 * PERIOD_NS {}
            used.0.send(thread::tid()).unwrap();
            done.1.recv().unwrap_err(); // once the other end is dropped
        });
        let tid = used.1.recv().unwrap();
        assert!(!looks.look.is_multiple_of(SEARCH));
        let owes = |looks: &Looks| looks.clocks.get(&tid).is_some_and(|clock| clock.owed_ns >= 5 * PERIOD_NS);
        // An M is on its way for samples, for so long that the thread has ended before it is there.
        looks.rt.sampler.owed.store(Box::into_raw(Box::new(Batch(Vec::new()))), Ordering::Release);
        looks.look();
        assert!(looks.look == 2 && owes(&looks));
        drop(done.0);
        thread.join().unwrap();
        looks.look += SEARCH + 1;
        looks.read_all();
        assert!(owes(&looks), "it is not forgotten");
        drop(Sampler::take(&looks.rt.sampler.owed));
        let mut list = Vec::new();
        looks.owed(&mut list);
        assert!(list.iter().any(|owed| owed.tid == tid && owed.count >= 5));
        looks.send(list);
        looks.look += SEARCH + 1;
        looks.read_all();
        assert!(!looks.clocks.contains_key(&tid), "all of it was noted");
    }

    #[test]
    fn clocks_are_those_of_the_threads_asked_for() {
        let mut all = Vec::new();
        assert!(thread::all(&mut all));
        assert!(all.contains(&thread::tid()));
        let before_ns = clock::thread_cpu_ns();
        let other_ns = clock::cpu_ns_of(thread::tid()).unwrap();
        assert!((before_ns..=clock::thread_cpu_ns()).contains(&other_ns));
        assert!(clock::process_cpu_ns() >= other_ns);
        assert_eq!(clock::cpu_ns_of(0x3fff_fff0), None);
    }
}
