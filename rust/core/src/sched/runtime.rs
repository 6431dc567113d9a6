//! The runtime: what all Ms and Ps share; built once, never freed.

use super::bubble::Bubbles;
use super::config::Config;
use super::contention::Contention;
use super::idle::IdleLists;
use super::inject_queue::InjectQueue;
use super::latency::Latencies;
use super::limit::Limit;
use super::machine::Machine;
use super::memory::Memory;
use super::outside::NewOutside;
use super::policy::Policies;
use super::processor::Processor;
use super::processors::{MOST, Processors};
use super::sampling::Sampler;
use super::shrink::Shrinker;
use crate::event::Tracer;
use crate::goroutine::host::Host;
use crate::goroutine::registry::Registry;
use crate::goroutine::waiter::{Outcome, Wait};
use crate::goroutine::{Bundle, Goroutine};
use crate::netpoll::NetPoll;
use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use crate::primitive::boxes::try_box;
use crate::primitive::exclusive::{ShortLock, is_exclusive, set_exclusive};
use crate::stack::{GuardMode, StackDepot};
use crate::sys::pressure::Pressure;
use crate::sys::signal;
use std::collections::VecDeque;
use std::io;
use std::ptr;
use std::sync::OnceLock;

/// Somebody wants the main goroutine's signals looked at.
pub const REQUEST_SIGNAL: u32 = 1;
/// sysmon thinks everything is asleep.
pub const REQUEST_DEADLOCK: u32 = 2;
/// Events of descriptors wait for an M with the host's lock.
pub const REQUEST_NET: u32 = 8;
/// The host is ending. Never taken back.
pub const REQUEST_STOP: u32 = 4;
/// A thread without the host's lock left an errand (`call_attached`).
pub const REQUEST_ERRANDS: u32 = 16;

/// The seeded mode is on: see `sched::shuffle`. Never taken back.
pub const REQUEST_SHUFFLE: u32 = 32;
/// Ps beyond GOMAXPROCS have an M, or timers.
pub const REQUEST_PROCESSORS: u32 = 64;
/// Whoever is ready goes through the lists of `sched::policy`. Stays until those are not needed any more.
pub const REQUEST_POLICY: u32 = 128;
/// A look at parked goroutines is due: see `sched::shrink`.
pub const REQUEST_SHRINK: u32 = 256;
/// Waits are looked at: see `sched::contention`. Stays until they are not any more.
pub const REQUEST_WAITS: u32 = 512;
/// Those that are no work for an M that has none.
pub(super) const QUIET_REQUESTS: u32 = REQUEST_SHUFFLE | REQUEST_PROCESSORS | REQUEST_POLICY | REQUEST_WAITS;
/// Those that stay, and ask for nothing.
pub(super) const LASTING_REQUESTS: u32 = REQUEST_STOP | REQUEST_SHUFFLE | REQUEST_POLICY | REQUEST_WAITS;

/// There is room for so many of them from the start.
const ERRANDS: usize = 256;

/// A function to be called with the host attached, on any M's g0, and its argument.
pub(super) struct Errand {
    pub(super) call: unsafe fn(&'static Runtime, usize),
    pub(super) argument: usize,
}

/// Counts for `stats`.
#[derive(Default)]
pub struct Counters {
    /// Goroutines taken from other Ps (batches).
    pub steals: AtomicU64,
    /// Ps handed from a blocked M to another.
    pub hand_offs: AtomicU64,
    /// Goroutines taken from the global queue.
    pub global_pops: AtomicU64,
    /// Ms that began to look for work.
    pub spins: AtomicU64,
    /// How often memory was given back because the system was short of it.
    pub pressures: AtomicU64,
    /// Goroutines that let others run at a safe point, because their slice was over.
    pub preemptions: AtomicU64,
    /// How long things took that no P has a part in.
    pub(super) latencies: Latencies,
}

/// Bundles that wait for a goroutine; the last is taken first.
#[derive(Default)]
pub(super) struct BundlePool {
    pub(super) idle: Vec<*mut Bundle>,
    /// So many nobody needed since they were last asked for.
    pub(super) unused: usize,
}
// SAFETY: bundles in the pool belong to the pool; it is only touched under its lock.
unsafe impl Send for BundlePool {}

/// Everything shared.
pub struct Runtime {
    /// The host.
    pub host: &'static Host,
    /// Settings.
    pub config: Config,
    /// All goroutines.
    pub registry: Registry,
    /// Who waits for descriptors.
    pub net: NetPoll,
    /// Where the runtime's own objects lie.
    pub(super) memory: Memory,
    /// The trace that is taken, if any.
    pub tracer: Tracer,
    /// What dumps and profiles of the CPU go by.
    pub sampler: Sampler,
    /// What block and mutex profiles go by.
    pub contention: Contention,
    /// Who gives memory back while he is parked.
    pub(super) shrinker: Shrinker,
    /// What tells of the system's lack of memory, or null; sysmon's.
    pub(super) pressure: AtomicPtr<Pressure>,
    /// How much memory goroutines may have.
    pub(super) limit: Limit,
    /// Stack slots.
    pub stacks: StackDepot,
    pub(super) other_stacks: Mutex<Vec<(u32, &'static StackDepot)>>,
    /// The global queue.
    pub inject: InjectQueue<Goroutine>,
    /// In which order those that are ready go on, if not in that of the queues.
    pub policies: Policies,
    /// Goroutines with clocks of their own.
    pub(super) bubbles: Bubbles,
    /// All Ps.
    pub processors: Processors,
    /// Idle Ps and Ms.
    pub(super) idle: Mutex<IdleLists>,
    /// How many Ps are idle; read without the lock.
    pub idle_processors: AtomicUsize,
    /// How many Ms exist.
    pub machine_count: AtomicUsize,
    /// Ms looking for work.
    pub spinning: AtomicU32,
    /// `REQUEST_` bits for whoever schedules next.
    pub requests: AtomicU32,
    /// The main goroutine, or null.
    pub main: AtomicPtr<Goroutine>,
    /// The OS thread that it runs on, or ran on last: read by signal handlers.
    pub(super) main_tid: AtomicU32,
    /// Whether the host lets the main goroutine go on on another thread.
    pub(super) main_may_move: AtomicBool,
    /// Signals that goroutines block at their start: those that main does.
    pub(super) mask: AtomicU64,
    /// Signals that sysmon blocks: those that main does, or did until just now.
    pub(super) sysmon_mask: AtomicU64,
    /// What sysmon sleeps on; 1: look at once.
    pub(super) sysmon_note: AtomicU32,
    /// Set at exit: no M takes the host's lock again.
    pub stopping: AtomicBool,
    /// New Ms that make their home states right now; `stop` waits for them.
    pub(super) new_homes: AtomicU32,
    /// Ms whose Ps were taken, for sysmon.
    pub(super) outside: Mutex<NewOutside>,
    /// Goroutines that were asked to end and have not noticed yet.
    pub(super) cancels: AtomicU32,
    /// Called with a goroutine that ends and has `locals` or is wired, on its stack.
    pub at_end: OnceLock<unsafe fn(*mut Goroutine)>,
    /// What goroutines that are threads run.
    pub(super) thread_body: OnceLock<unsafe extern "C-unwind" fn(*mut Goroutine) -> bool>,
    /// What sysmon tells of a call that lasts: the id of its thread.
    pub on_lasting_call: OnceLock<fn(u32)>,
    /// What threads without the host's lock want done with it.
    pub(super) errands: Mutex<VecDeque<Errand>>,
    /// Goroutines that wait for something outside the program: the deadlock detector keeps quiet.
    pub foreign_waits: AtomicUsize,
    /// Counts.
    pub counters: Counters,
    /// Held while a host state is deleted, while an M makes its own, and while sysmon looks at one.
    pub(super) state_delete: Mutex<()>,
    pub(super) bundles: ShortLock<BundlePool>,
    pub(super) random: AtomicU64,
    pub(super) sysmon_started: AtomicBool,
}

/// Lists with room for so many idle Ps, and for errands; `None`: memory is refused.
fn empty_lists(processors: usize) -> Option<(IdleLists, VecDeque<Errand>)> {
    let (mut idle, mut errands) = (IdleLists::default(), VecDeque::new());
    idle.processors.try_reserve(processors).ok()?;
    errands.try_reserve(ERRANDS).ok()?;
    Some((idle, errands))
}

/// A seed whose neighbours begin other sequences; never 0 (the finalizer of splitmix64, a bijection that keeps only 0).
fn mixed(seed: u64) -> u64 {
    let mut x = seed;
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Runtime {
    /// A runtime on `host`, without threads yet.
    ///
    /// # Errors
    /// The error of the first stack arena's `mmap`, or OutOfMemory: nothing is left of it then.
    pub fn new(config: Config, host: &'static Host) -> io::Result<&'static Runtime> {
        if host.exclusive {
            set_exclusive(true);
        }
        let count = config.processors.clamp(1, MOST);
        let mut stacks = StackDepot::new(config.stack_bytes, GuardMode::detect())?;
        if host.counts_calls {
            stacks = stacks.with_soft_guards();
        }
        // Stacks leave memory to others, so to what is made here: the first one is asked for before.
        stacks.free(stacks.allocate()?);
        let (idle, errands) = empty_lists(count).ok_or(io::ErrorKind::OutOfMemory)?;
        let random = if config.seed == 0 { crate::sys::clock::now_ns() | 1 } else { mixed(config.seed) };
        let processors = Processors::new(count).ok_or(io::ErrorKind::OutOfMemory)?;
        let rt = try_box(Runtime {
            host,
            registry: Registry::new(),
            memory: Memory::new()?,
            tracer: Tracer::default(),
            sampler: Sampler::default(),
            contention: Contention::default(),
            shrinker: Shrinker::new(host.header_bytes.1),
            pressure: AtomicPtr::new(ptr::null_mut()),
            limit: Limit::new(),
            stacks,
            other_stacks: Mutex::new(Vec::new()),
            inject: InjectQueue::new(),
            policies: Policies::new(config.slice_ns),
            bubbles: Bubbles::new(),
            net: NetPoll::new(),
            processors,
            idle: Mutex::new(idle),
            idle_processors: AtomicUsize::new(0),
            machine_count: AtomicUsize::new(0),
            spinning: AtomicU32::new(0),
            requests: AtomicU32::new(if config.shuffles { REQUEST_SHUFFLE } else { 0 }),
            main: AtomicPtr::new(ptr::null_mut()),
            main_tid: AtomicU32::new(0),
            mask: AtomicU64::new(signal::mask()),
            sysmon_mask: AtomicU64::new(signal::OTHERS),
            sysmon_note: AtomicU32::new(0),
            main_may_move: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            new_homes: AtomicU32::new(0),
            outside: Mutex::new(NewOutside::default()),
            cancels: AtomicU32::new(0),
            at_end: OnceLock::new(),
            thread_body: OnceLock::new(),
            on_lasting_call: OnceLock::new(),
            errands: Mutex::new(errands),
            foreign_waits: AtomicUsize::new(0),
            counters: Counters::default(),
            state_delete: Mutex::new(()),
            bundles: ShortLock::new(BundlePool::default()),
            random: AtomicU64::new(random),
            sysmon_started: AtomicBool::new(false),
            config,
        })
        .ok_or(io::ErrorKind::OutOfMemory)?;
        rt.set_policy(rt.config.policy).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Box::leak(rt).begin())
    }

    /// What a new one needs that is in its place. Nothing of it is refused.
    fn begin(&'static self) -> &'static Runtime {
        self.memory.begin_to_serve();
        self.sampler.set_clock(crate::sys::clock::now_ns());
        self.watch_for_overflow();
        self.processors.iter().rev().for_each(|p| self.put_idle_processor(p));
        self
    }

    /// A random number (xorshift64*, whose state must not be 0). Races only make it more random.
    #[inline]
    pub fn random(&self) -> u64 {
        let mut x = self.random.load(Ordering::Relaxed);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.store(x, Ordering::Relaxed);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Puts a runnable goroutine where this thread should: its P's next slot, or the global queue. Wakes an M by the rule.
    ///
    /// # Safety
    /// The caller owns `g`, whose status is RUNNABLE.
    #[inline]
    pub unsafe fn enqueue(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise; the P is this thread's to use.
        unsafe {
            let p = self.usable_processor();
            if p.is_null() {
                return self.inject_goroutine(g);
            }
            self.note_if_watched(g);
            (*p).latency.note_ready(g);
            if let Some(kicked) = (*p).queue.push_next(g) {
                self.push_kicked(p, kicked);
            } else {
                self.wake_for_queued();
            }
        }
    }

    /// The end of `enqueue` where the next slot was taken. Out of line: what it keeps in registers is not for the other case.
    #[inline(never)]
    unsafe fn push_kicked(&self, p: *const Processor, kicked: *mut Goroutine) {
        // SAFETY: as for `enqueue`.
        unsafe { self.push_back(&*p, kicked) };
        self.wake_for_queued();
    }

    /// As `enqueue`, but behind what is queued: for who was woken by the clock and not by what runs now.
    ///
    /// # Safety
    /// As for `enqueue`.
    pub(super) unsafe fn enqueue_behind(&self, g: *mut Goroutine) {
        // SAFETY: as in `enqueue`.
        unsafe {
            let p = self.usable_processor();
            if p.is_null() {
                self.inject_goroutine(g);
                return;
            }
            self.note_if_watched(g);
            (*p).latency.note_ready(g);
            self.push_back(&*p, g);
        }
        self.wake_for_queued();
    }

    /// The P whose queue this thread may use, or null.
    #[inline]
    pub(super) fn usable_processor(&self) -> *const Processor {
        let m = super::current_machine();
        if m.is_null() {
            return ptr::null();
        }
        // SAFETY: this thread's M; its P, if any, is this thread's.
        let p = unsafe { (*m).p() }.cast_const();
        if p.is_null() && is_exclusive() {
            // It lost its P in a call that lasted. With the host's lock it may use any: in the global queue, behind all
            // others, a thread that waits for the one it starts would wait for a whole round.
            return &raw const self.processors[0];
        }
        p
    }

    /// Puts `g` behind what `p` has queued; half of a full queue goes to the global one. Wakes nobody.
    ///
    /// # Safety
    /// As for `enqueue`; the queue of `p` is this thread's to use.
    #[inline]
    pub(super) unsafe fn push_back(&self, p: &Processor, g: *mut Goroutine) {
        p.queue.push_back(g, |batch| self.inject.push_batch(batch));
    }

    /// `g` was woken: tells the policies, if any is in use, and the profiles.
    #[inline]
    pub(super) unsafe fn note_if_watched(&self, g: *mut Goroutine) {
        let requests = self.requests.load(Ordering::Relaxed);
        if requests & (REQUEST_POLICY | REQUEST_WAITS) != 0 {
            // SAFETY: the caller's promise.
            unsafe { self.note_watched(g, requests) }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn note_watched(&self, g: *mut Goroutine, requests: u32) {
        // SAFETY: the caller owns `g`, and under an exclusive host has that one's lock.
        unsafe {
            if requests & REQUEST_WAITS != 0 {
                self.note_readied(g);
            }
            if requests & REQUEST_POLICY != 0 && is_exclusive() {
                self.note_woken(g);
            }
        }
    }

    #[inline]
    fn wake_for_queued(&self) {
        if !is_exclusive() {
            fence(Ordering::SeqCst); // pairs with the fence in `release_and_recheck`: the push before the look
        }
        if self.idle_processors.load(Ordering::Relaxed) != 0 {
            self.wake_one(ptr::null_mut());
        }
    }

    /// Puts a runnable goroutine on the global queue and wakes an M by the rule.
    ///
    /// # Safety
    /// As for `enqueue`.
    #[cold]
    #[inline(never)]
    pub unsafe fn inject_goroutine(&self, g: *mut Goroutine) {
        // SAFETY: the caller's promise.
        unsafe { self.inject_at_once(g) }
    }

    /// The same, in the caller's own frame: for who comes this way often.
    ///
    /// # Safety
    /// As for `enqueue`.
    #[inline(always)]
    pub(super) unsafe fn inject_at_once(&self, g: *mut Goroutine) {
        // SAFETY: the caller owns `g` until it is pushed. Whose turn of the first P's it is matters to nobody.
        let owner = unsafe {
            self.processors[0].latency.note_ready(g);
            (*g).owner().cast::<Machine>()
        };
        self.inject.push(g);
        self.wake_one(owner);
    }

    /// Has some M call `call(runtime, argument)` with the host attached, soon. Any thread, with the host's lock or without.
    ///
    /// # Safety
    /// The call is right at any later time, on any M's g0; it does not park and does not run code of the host.
    pub unsafe fn call_attached(&'static self, call: unsafe fn(&'static Runtime, usize), argument: usize) {
        let mut errands = self.errands.lock().unwrap_or_else(|e| e.into_inner());
        while errands.try_reserve(1).is_err() {
            // Refused: once those that wait are run there is room.
            drop(errands);
            self.requests.fetch_or(REQUEST_ERRANDS, Ordering::AcqRel); // as below
            self.wake_one(ptr::null_mut());
            crate::primitive::thread::yield_now();
            errands = self.errands.lock().unwrap_or_else(|e| e.into_inner());
        }
        errands.push_back(Errand { call, argument });
        drop(errands);
        self.requests.fetch_or(REQUEST_ERRANDS, Ordering::AcqRel); // pairs with `serve_requests`
        self.wake_one(ptr::null_mut());
    }

    #[cold]
    pub(super) fn run_errands(&'static self) {
        let next = || self.errands.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
        let count = self.errands.lock().unwrap_or_else(|e| e.into_inner()).len();
        for errand in std::iter::from_fn(next).take(count) {
            // SAFETY: the promise of who left it.
            unsafe { (errand.call)(self, errand.argument) };
        }
    }

    /// Serves what sysmon and others asked for. Host attached.
    pub(super) fn serve_requests(&'static self) {
        // AcqRel: pairs with sysmon's fetch_or.
        let requests = self.requests.fetch_and(LASTING_REQUESTS, Ordering::AcqRel);
        if requests & REQUEST_ERRANDS != 0 {
            self.run_errands();
        }
        if requests & REQUEST_NET != 0 {
            self.serve_net();
        }
        if requests & REQUEST_PROCESSORS != 0 {
            self.serve_retired();
        }
        if requests & REQUEST_SHRINK != 0 {
            self.shrink_next();
        }
        let main = self.main.load(Ordering::Acquire); // pairs with the Release in `adopt_main`
        if main.is_null() {
            return;
        }
        // SAFETY: the main goroutine's descriptor is never freed; its wait is alive while the pointer is set, and both
        // only change with the host attached (exclusive hosts are the only ones that request).
        unsafe {
            if requests & REQUEST_SIGNAL != 0 && (self.host.signals_pending)() {
                self.end_wait(main, Outcome::Interrupted);
            }
            // Since sysmon looked, a plain thread may have readied somebody and gone to wait again.
            let alone = || self.nothing_runs() && (self.host.is_alone)(super::park::stuck_threads());
            if requests & REQUEST_DEADLOCK != 0 && alone() {
                self.end_wait(main, Outcome::Deadlock);
            }
        }
    }

    /// Whether no goroutine runs, is queued, timed or waits for a descriptor, and every M but the calling one sleeps. Host attached.
    fn nothing_runs(&self) -> bool {
        self.inject.is_empty()
            && self.policies.is_empty()
            && self.processors.iter().all(|p| p.queue.is_empty())
            && self.next_timer() == super::processor::NEVER
            && self.net.waiting() == 0
            && self.idle_machine_count() + 1 == self.machine_count.load(Ordering::Relaxed)
    }

    /// Ends the wait `g` is blocked in, if it is blocked and nobody else has ended it. Returns whether this call did.
    ///
    /// # Safety
    /// `g` is a descriptor of this runtime; host attached.
    pub unsafe fn end_wait(&self, g: *mut Goroutine, outcome: Outcome) -> bool {
        // SAFETY: the caller's promise; a claimed wait is alive until its goroutine is readied.
        unsafe {
            let wait = Self::claim_wait(g, outcome);
            if !wait.is_null() {
                super::park::ready_wait(&*wait);
            }
            !wait.is_null()
        }
    }

    /// As `end_wait`, for many that are to run in the order in which they are asked to end, which this does if their waits can be
    /// ended by it.
    ///
    /// # Safety
    /// As for `end_wait`.
    pub unsafe fn cancel_in_turn(&self, g: *mut Goroutine) -> bool {
        // SAFETY: as in `end_wait`.
        unsafe {
            let wait = Self::claim_wait(g, Outcome::Cancelled);
            if !wait.is_null() {
                self.ask_to_end(g);
                super::park::ready_behind(self, &*wait);
            }
            !wait.is_null()
        }
    }

    /// Claims the wait `g` is blocked in; null if there is none, it does not end so, or somebody was faster.
    unsafe fn claim_wait(g: *mut Goroutine, outcome: Outcome) -> *const Wait {
        // SAFETY: `wait` is set while the wait is alive; changes happen with the host attached.
        unsafe {
            let wait = (*g).wait.load(Ordering::Acquire); // pairs with the Release in `park::block`
            let is_claimed = !wait.is_null() && (*wait).listens.is_for(outcome) && (*wait).claim(outcome);
            if is_claimed { wait } else { ptr::null() }
        }
    }
}
