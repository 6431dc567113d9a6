//! The watcher: a thread without a P and without the host's lock. Retakes Ps of blocked Ms, backs up the timers and
//! the poller, passes signals on to a parked main goroutine, and suspects deadlock.

use super::machine::Machine;
use super::net::NetWatch;
use super::outside::Outside;
use super::pressure::PressureWatch;
use super::processor::{NEVER, Processor};
use super::runtime::{REQUEST_DEADLOCK, REQUEST_ERRANDS, REQUEST_NET, REQUEST_SIGNAL, Runtime};
use super::schedtrace::SchedTrace;
use crate::goroutine::{Bundle, status};
use crate::primitive::atomic::Ordering;
use crate::sys::signal::{self, Mask};
use crate::sys::{clock, futex, thread};
use std::ptr;

/// Shortest pause between looks, ns. Go's 20 µs: the time after which a call counts as blocking.
const MIN_PAUSE_NS: u64 = 20_000;
/// Longest pause while nothing waits, ns. Go's 10 ms.
const MAX_PAUSE_NS: u64 = 10_000_000;
/// Longest pause while a goroutine waits for a P, or a P's goroutine is out, ns.
const WAITING_PAUSE_NS: u64 = 500_000;
/// Longest pause while goroutines wait for a P on which others take turns, ns: a call that lasts is handed off within 1 ms.
const TURNS_PAUSE_NS: u64 = 900_000;
/// So many turns between two looks: whoever waits waits for turns much shorter than the pause.
const TURNS: u32 = 16;
/// The part of the time since the last call that lasted which the next may cost who waits, a pause: less than what p99 sees.
const STALL_PART: u64 = 100;
/// Quiet rounds before the pause doubles. Go's number.
const QUIET_ROUNDS: u32 = 50;
/// A P out for this long is handed off even if nobody waits, so that the next to come finds it idle, ns.
const HAND_OFF_NS: u64 = 1_000_000;

/// Shortest pause for the sake of a timer whose owner may go before who computes, ns: the system's own slack.
const WAKE_PAUSE_NS: u64 = 50_000;
/// Longest pause while somebody who waits for a descriptor may go before who computes, ns.
const NET_PAUSE_NS: u64 = 1_000_000;

#[derive(Clone)]
struct Seen {
    host: *mut u8,
    ticks: u32,
    since_ns: u64,
    /// When the goroutine that runs was first seen, later by its time in hooks: waits for the host's lock among them.
    begun_ns: u64,
    looked_ns: u64,
    /// Whose state was on its M; another one may run in the same tick.
    who: *mut u8,
    /// It was asked to let others run, and has not. When it seems to be out it most likely waits for the host's lock.
    is_asked: bool,
}

impl Seen {
    const NEVER: Seen = Seen {
        host: ptr::null_mut(),
        ticks: 0,
        since_ns: 0,
        begun_ns: 0,
        looked_ns: 0,
        who: ptr::null_mut(),
        is_asked: false,
    };
}

/// What a look at a P found; the most urgent of all Ps decides when to look again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    /// Nothing to watch.
    Quiet,
    /// Goroutines wait while others take turns.
    Turns,
    /// Goroutines wait while one runs.
    Waiting,
    /// Its goroutine is out in a call: one more look says whether the call lasts.
    Out,
    /// An M was sent to take it: calls that last come in groups.
    HandedOff,
}

impl Runtime {
    #[cold]
    pub(super) fn start_sysmon(&'static self) {
        if !self.sysmon_started.swap(true, Ordering::AcqRel) {
            // SAFETY: runtimes are never freed.
            let started = unsafe { thread::spawn_raw(sysmon_thread, ptr::from_ref(self).cast_mut().cast()) };
            if started.is_err() {
                self.sysmon_started.store(false, Ordering::Release); // the next spawn tries again
            }
        }
    }

    /// The main goroutine blocks `mask` now. Waits until sysmon takes no signal of those.
    pub fn set_mains_mask(&self, mask: Mask) {
        self.mask.store(mask, Ordering::Relaxed); // asked for again until it is seen
        // Acquire: pairs with the Release in `block_as_main`.
        let is_there = || self.sysmon_started.load(Ordering::Relaxed) && !self.stopping.load(Ordering::Relaxed);
        while is_there() && mask & !self.sysmon_mask.load(Ordering::Acquire) != 0 {
            self.sysmon_note.store(1, Ordering::Relaxed);
            futex::wake_one(&self.sysmon_note);
            crate::primitive::thread::yield_now();
        }
    }

    /// sysmon takes the signals that main does not block: main's thread may be running a goroutine that does.
    fn block_as_main(&self) {
        let mask = self.mask.load(Ordering::Relaxed);
        if self.sysmon_mask.load(Ordering::Relaxed) != mask {
            signal::set_mask(mask);
            self.sysmon_mask.store(mask, Ordering::Release); // pairs with the Acquire in `set_mains_mask`
        }
    }

    /// Whether there is something for an M with `p` to do.
    fn is_wanted(&self, p: &Processor, now: u64) -> bool {
        let next = p.next_when.load(Ordering::Acquire); // pairs with the Release stores under the heap's lock
        !self.inject.is_empty()
            || !self.policies.is_empty()
            || !p.queue.is_empty()
            || (next != NEVER && next <= now)
            || self.requests.load(Ordering::Relaxed) & (REQUEST_NET | REQUEST_ERRANDS) != 0
            || p.id >= self.processors.in_use()
    }

    /// One look at all Ps; those that `seen` has no memory for are looked at later.
    fn look_at_all(&self, seen: &mut Vec<Seen>, now: u64) -> Look {
        let missing = self.processors.len() - seen.len(); // they are never fewer
        if seen.try_reserve(missing).is_ok() {
            seen.resize(self.processors.len(), Seen::NEVER);
        }
        self.processors.iter().zip(seen).map(|(p, s)| self.look_at(p, s, now)).max().unwrap_or(Look::Quiet)
    }

    /// One look at `p`.
    fn look_at(&self, p: &Processor, seen: &mut Seen, now: u64) -> Look {
        let m: *mut Machine = p.machine.load(Ordering::Acquire); // pairs with the Release of who gave the P away
        if m.is_null() {
            let is_idle = p.id < self.processors.in_use() || p.next_when.load(Ordering::Acquire) <= now;
            if is_idle && self.is_wanted(p, now) {
                self.wake_one(ptr::null_mut());
            }
            seen.host = ptr::null_mut();
            return Look::Quiet;
        }
        // SAFETY: Ms are never freed. Relaxed: a hint; a call that lasts is seen at the next look.
        let in_hook = unsafe { (*m).in_hook.load(Ordering::Relaxed) };
        // SAFETY: as above.
        let out = self.host_out(unsafe { &*m });
        let ticks = p.ticks.load(Ordering::Relaxed);
        // SAFETY: as above. Relaxed: compared only.
        let who = unsafe { (*m).visible_host.load(Ordering::Relaxed) };
        if ticks != seen.ticks || who != seen.who {
            (seen.begun_ns, seen.who, seen.is_asked) = (now, who, false);
        } else if in_hook {
            seen.begun_ns += now - seen.looked_ns;
        }
        seen.looked_ns = now;
        // SAFETY: as above.
        if out.is_null() && unsafe { self.may_be_outranked(p, &*m, now) } && self.ask_to_look(p) {
            return Look::HandedOff;
        }
        // SAFETY: Ms are never freed.
        if out.is_null() && unsafe { self.computes_too_long(p, &*m, seen, now) } && self.ask_to_preempt(p) {
            seen.begun_ns = now; // it has a slice to come to a safe point
            seen.is_asked = true;
            return Look::Waiting; // it is no call, which would be followed by others
        }
        if out.is_null() || out != seen.host || ticks != seen.ticks {
            let turns = ticks.wrapping_sub(seen.ticks);
            *seen = Seen { host: out, ticks, since_ns: now, ..*seen };
            return match (out.is_null(), p.queue.is_empty()) {
                (false, _) => Look::Out,
                (true, false) if turns >= TURNS => Look::Turns,
                (true, false) => Look::Waiting,
                (true, true) => Look::Quiet,
            };
        }
        let wanted = self.is_wanted(p, now);
        let age = now.saturating_sub(seen.since_ns);
        let lasts = match seen.is_asked {
            true => age >= self.config.slice_ns,
            false => wanted && age >= MIN_PAUSE_NS || age >= HAND_OFF_NS,
        };
        if lasts && self.send_taker(p) {
            seen.host = ptr::null_mut();
            // SAFETY: Ms are never freed.
            self.tell_of_call(unsafe { &*m });
            return Look::HandedOff;
        }
        Look::Out
    }

    /// The state of the goroutine on `m` while it is in a call that may wait; null while it computes, waits for the host's
    /// lock, or is on g0.
    fn host_out(&self, m: &Machine) -> *mut u8 {
        // Held so that a state looked at is not deleted meanwhile.
        let _guard = self.state_delete.lock().unwrap_or_else(|e| e.into_inner());
        // Relaxed: a hint. Acquire: pairs with the Release in `execute`. Before the state: on g0 an M still shows that of the last
        // goroutine it ran, which may be deleted; off g0 it shows one that is alive, and stays so under the guard.
        let inside = m.in_hook.load(Ordering::Relaxed) || m.in_scheduler.load(Ordering::Acquire);
        let host = m.visible_host.load(Ordering::Acquire);
        let state = host.map_addr(|address| address & !Bundle::MAY_BE_GONE);
        let detached = || {
            // SAFETY: the state is alive under the guard, or marked as one that may be gone.
            unsafe { if host == state { (self.host.is_detached)(state) } else { (self.host.seems_detached)(state) } }
        };
        if inside || state.is_null() || !detached() { ptr::null_mut() } else { host }
    }

    /// Whether the goroutine on `m` is in a call that may wait.
    pub fn is_out(&self, m: &Machine) -> bool {
        !self.host_out(m).is_null()
    }

    /// Whether the goroutine on `p` and `m` has computed for a slice and keeps others waiting, or may have to end.
    fn computes_too_long(&self, p: &Processor, m: &Machine, seen: &Seen, now: u64) -> bool {
        let slice_ns = match m.slice_ns.load(Ordering::Relaxed) {
            0 => self.config.slice_ns,
            slice_ns => slice_ns, // while others wait, or its group has no more time
        };
        self.host.exclusive
            && now.saturating_sub(seen.begun_ns) >= slice_ns
            && !m.in_scheduler.load(Ordering::Acquire) // pairs with the Release in `execute`
            && (self.is_wanted(p, now)
                || m.mail_count.load(Ordering::Relaxed) != 0
                || self.cancels.load(Ordering::Relaxed) != 0
                || slice_ns < self.config.slice_ns)
    }

    /// Whether somebody is due who may go before the goroutine on `p` and `m`.
    fn may_be_outranked(&self, p: &Processor, m: &Machine, now: u64) -> bool {
        self.policies.watches_wakes()
            && !m.in_scheduler.load(Ordering::Acquire) // pairs with the Release in `execute`
            && (p.next_when.load(Ordering::Acquire) <= now // pairs with the Release stores under the heap's lock
                || !self.inject.is_empty()
                || self.requests.load(Ordering::Relaxed) & REQUEST_NET != 0)
    }

    /// The goroutine on `m` is in a call that lasts.
    fn tell_of_call(&self, m: &Machine) {
        if let Some(tell) = self.on_lasting_call.get() {
            tell(m.tid.load(Ordering::Relaxed));
        }
    }

    /// Whether the main goroutine is on an M.
    fn main_runs(&self) -> bool {
        let main = self.main.load(Ordering::Acquire); // pairs with the Release in `adopt_main`
        // SAFETY: the main goroutine's descriptor is never freed.
        !main.is_null() && unsafe { (*main).status.load(Ordering::Acquire) == status::RUNNING }
    }

    /// The OS thread that the main goroutine runs on, perhaps in a call, if main does not block `signals`. Fit for a signal
    /// handler.
    pub fn mains_thread(&self, signals: Mask) -> Option<u32> {
        if self.stopping.load(Ordering::Relaxed) || self.mask.load(Ordering::Relaxed) & signals != 0 {
            return None;
        }
        let tid = self.main_tid.load(Ordering::Relaxed); // a main that moves meanwhile is not in a call that lasts
        self.main_runs().then_some(tid)
    }

    /// A signal waits for the main goroutine and nobody comes to a scheduling point: preempts those that compute.
    fn preempt_computing(&self, seen: &[Seen]) {
        for (p, s) in self.processors.iter().zip(seen) {
            if p.ticks.load(Ordering::Relaxed) == s.ticks && !p.machine.load(Ordering::Acquire).is_null() {
                let _ = self.ask_to_preempt(p);
            }
        }
    }

    /// Whether every M sleeps, nothing is timed, nobody waits for a descriptor and the main goroutine is parked.
    fn all_asleep(&self) -> bool {
        let main = self.main.load(Ordering::Acquire);
        if main.is_null() || self.idle_processors.load(Ordering::SeqCst) != self.processors.in_use() {
            return false;
        }
        // SAFETY: the main goroutine's descriptor is never freed.
        let parked = unsafe { (*main).status.load(Ordering::Acquire) == status::WAITING };
        parked
            && self.foreign_waits.load(Ordering::Relaxed) == 0
            && self.next_timer() == NEVER
            && self.net.waiting() == 0
            && !self.has_work()
            && self.idle_machine_count() == self.machine_count.load(Ordering::Relaxed)
    }

    fn ticks(&self) -> u64 {
        self.processors.iter().map(|p| u64::from(p.ticks.load(Ordering::Relaxed))).sum()
    }
}

unsafe extern "C-unwind" fn sysmon_thread(argument: *mut u8) {
    // SAFETY: `start_sysmon` passes its runtime, which is never freed.
    let rt: &'static Runtime = unsafe { &*argument.cast::<Runtime>() };
    thread::set_name(c"gort-sysmon");
    rt.sysmon_mask.store(signal::OTHERS, Ordering::Relaxed); // every thread begins with that
    let mut seen = Vec::new();
    let mut schedtrace = SchedTrace::new();
    let (mut outside, mut pressure) = (Outside::default(), PressureWatch::default());
    rt.forget_pressure();
    let (mut pause_ns, mut quiet, mut handed_ns) = (MIN_PAUSE_NS, 0u32, clock::now_ns());
    let (mut asleep_rounds, mut asked_at_ticks) = (0u32, u64::MAX);
    let mut net = NetWatch::default();
    let (mut last_ask_ns, mut signal_since_ns, mut retired_ns, mut released_ns) = (0, u64::MAX, 0, 0);
    while !rt.stopping.load(Ordering::Acquire) {
        rt.block_as_main();
        pause_ns = schedtrace.print_if_due(rt, clock::now_ns(), pause_ns);
        let _ = futex::wait(&rt.sysmon_note, 0, Some(pause_ns));
        rt.sysmon_note.store(0, Ordering::Relaxed);
        let now = clock::now_ns();
        rt.sampler.set_clock(now);
        let mut look = rt.look_at_all(&mut seen, now);
        rt.watch_net(now, &mut net);
        rt.retire_one(now, &mut retired_ns);
        rt.watch_pressure(now, &mut pressure);
        rt.ask_to_shrink();
        rt.release_some(now, &mut released_ns);
        // SAFETY: any thread may ask.
        if rt.host.exclusive && unsafe { (rt.host.signals_pending)() } {
            rt.requests.fetch_or(REQUEST_SIGNAL, Ordering::AcqRel);
            rt.wake_one(ptr::null_mut());
            signal_since_ns = signal_since_ns.min(now);
            if now - signal_since_ns > MAX_PAUSE_NS && !rt.main_runs() {
                rt.preempt_computing(&seen);
                signal_since_ns = now;
            }
            look = look.max(Look::Waiting);
        } else {
            signal_since_ns = u64::MAX;
        }
        // Two looks in a row, and once more only after something ran or a second went by: the answer needs the host's lock.
        asleep_rounds = if rt.host.exclusive && rt.all_asleep() { asleep_rounds + 1 } else { 0 };
        if asleep_rounds >= 2 && (rt.ticks() != asked_at_ticks || now - last_ask_ns > 1_000_000_000) {
            asked_at_ticks = rt.ticks();
            last_ask_ns = now;
            rt.requests.fetch_or(REQUEST_DEADLOCK, Ordering::AcqRel);
            rt.wake_one(ptr::null_mut());
        }
        if rt.rescue_main(now) | (rt.host.exclusive && rt.watch_outside(&mut outside, now)) {
            look = look.max(Look::Waiting);
        }
        (quiet, handed_ns) = if look == Look::HandedOff { (0, now) } else { (quiet + 1, handed_ns) };
        pause_ns = match look {
            Look::Out | Look::HandedOff => MIN_PAUSE_NS,
            _ if quiet <= QUIET_ROUNDS => MIN_PAUSE_NS,
            Look::Waiting => (pause_ns * 2).min(WAITING_PAUSE_NS),
            Look::Turns => (pause_ns * 2).min(((now - handed_ns) / STALL_PART).clamp(WAITING_PAUSE_NS, TURNS_PAUSE_NS)),
            Look::Quiet => (pause_ns * 2).min(MAX_PAUSE_NS),
        };
        if rt.policies.watches_wakes() {
            pause_ns = pause_ns.min(rt.next_timer().saturating_sub(clock::now_ns()).max(WAKE_PAUSE_NS));
            pause_ns = if rt.net.waiting() == 0 { pause_ns } else { pause_ns.min(NET_PAUSE_NS) };
        }
    }
}
