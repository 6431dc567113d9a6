//! Threads as goroutines: pthread_create of the host's own start routine makes a goroutine with the stack a thread would
//! have. All others, and all in a program that did not ask for it, stay real.
//!
//! Such a goroutine brings its host state along: it starts detached, the C code it runs attaches and in the end deletes
//! it, and the scheduler takes for its state whatever is current when it parks. Its pthread_t is the address of a record
//! that lives until the thread has ended and was joined or detached.

use super::caller::{block_foreign, caller, foreign_wait, goroutines_machine};
use super::hooks::original;
use crate::goroutine::Goroutine;
use crate::goroutine::host::{HostThread, Standing};
use crate::goroutine::waiter::{Node, Outcome, Reason, Wait, WaitQueue};
use crate::primitive::atomic::Ordering;
use crate::primitive::boxes::try_box;
use crate::sched::{self, Runtime};
use crate::sys::{clock, errno};
use libc::{c_int, c_void, clockid_t, pthread_attr_t, timespec};
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

unsafe extern "C" {
    fn pthread_attr_getdetachstate(attributes: *const pthread_attr_t, state: *mut c_int) -> c_int; // not in libc 0.2.191
}

/// Least and most bytes of such a stack, and what it is where the limit is none: Linux's usual 8 MiB.
const LEAST_BYTES: usize = 128 << 10;
const MOST_BYTES: usize = 1 << 30;
const USUAL_BYTES: usize = 8 << 20;

/// Bytes of a thread's name, the zero at its end included.
pub(super) const NAME_BYTES: usize = 16;

/// A start routine of a thread.
pub type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// Tells the host state that the new thread will attach, of the start routine's argument; null: it is none of the host's
/// ordinary threads and stays real. Called with the host attached.
pub type StateOf = unsafe fn(argument: *mut c_void) -> HostThread;

/// One thread.
struct Record {
    start: Start,
    argument: *mut c_void,
    result: *mut c_void,
    is_done: bool,
    is_detached: bool,
    /// Goroutines that join it; the host's lock guards it as well.
    joiners: WaitQueue,
    name: [u8; NAME_BYTES],
}

// SAFETY: the pointers are the threads' affair; the rest is under `RECORDS`.
unsafe impl Send for Record {}

type Records = HashMap<usize, Box<Record>>;

static RECORDS: Mutex<Option<Records>> = Mutex::new(None);
/// Plain threads that join wait here.
static ENDED: Condvar = Condvar::new();
/// How many records there are: a look that costs nothing while there are none.
static COUNT: AtomicUsize = AtomicUsize::new(0);

static ENABLED: AtomicBool = AtomicBool::new(false);
static STATE_OF: AtomicUsize = AtomicUsize::new(0);
/// Who asked for real threads, by identity, and how often.
static REAL: Mutex<Vec<(usize, u32)>> = Mutex::new(Vec::new());
static REAL_COUNT: AtomicU32 = AtomicU32::new(0);

fn records() -> MutexGuard<'static, Option<Records>> {
    RECORDS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Both lists' locks, held over a fork.
pub(super) struct Held {
    records: MutexGuard<'static, Option<Records>>,
    real: MutexGuard<'static, Vec<(usize, u32)>>,
}

pub(super) fn hold() -> Held {
    Held { records: records(), real: REAL.lock().unwrap_or_else(|e| e.into_inner()) }
}

/// In a forked child: of all threads and goroutines only `me` is left. Records of others stay in memory, so that their
/// numbers, which Python code may know, are not those of new threads.
pub(super) fn forget(held: &mut Held, me: usize) {
    if let Some(all) = held.records.as_mut() {
        let mine = all.remove_entry(&me);
        all.drain().for_each(std::mem::forget);
        all.extend(mine); // there is room: it was there before
        COUNT.store(all.len(), Ordering::Relaxed);
    }
    held.real.retain(|(who, _)| *who == me);
    REAL_COUNT.store(held.real.len() as u32, Ordering::Relaxed);
}

/// The record of a thread that is a goroutine.
fn with_record<R>(thread: usize, see: impl FnOnce(&mut Record) -> R) -> Option<R> {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None; // whoever knows a thread of ours has learnt of it after it was counted
    }
    records().as_mut()?.get_mut(&thread).map(|record| see(record))
}

/// Makes every thread from now on a goroutine for which `state_of` finds a state; or none any more.
pub fn enable(state_of: Option<StateOf>) {
    if let Some(state_of) = state_of {
        STATE_OF.store(state_of as usize, Ordering::Relaxed);
    }
    ENABLED.store(state_of.is_some(), Ordering::Release); // pairs with the Acquire in `pthread_create`
}

/// `state_of` finds the states of threads that goroutines of a bubble start: those become goroutines of it in any case.
pub fn learn(state_of: StateOf) {
    STATE_OF.store(state_of as usize, Ordering::Release); // pairs with the Acquire in `is_to_become_goroutine`
}

/// Whether a thread that the caller starts is to be a goroutine, as far as it is known how.
fn is_to_become_goroutine() -> bool {
    // Acquire: pairs with the Release in `enable`, and in `learn`.
    ENABLED.load(Ordering::Acquire) || (STATE_OF.load(Ordering::Acquire) != 0 && sched::current_bubble() != 0)
}

/// Whether threads become goroutines.
pub fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Has the calling goroutine or thread start real ones (`more`), until it takes that back as often. `false`: memory is refused.
pub fn want_real(more: bool) -> bool {
    let me = super::identity::pthread_self();
    let mut all = REAL.lock().unwrap_or_else(|e| e.into_inner());
    let place = all.iter().position(|(who, _)| *who == me);
    match (place, more) {
        (Some(i), true) => all[i].1 += 1,
        (None, true) if all.try_reserve(1).is_err() => return false,
        (None, true) => all.push((me, 1)),
        (Some(i), false) if all[i].1 > 1 => all[i].1 -= 1,
        (Some(i), false) => drop(all.swap_remove(i)),
        (None, false) => {}
    }
    REAL_COUNT.store(all.len() as u32, Ordering::Relaxed); // read by the same thread, or as a hint
    true
}

/// A thread that has ended wants nothing any more.
fn forget_real(thread: usize) {
    if REAL_COUNT.load(Ordering::Relaxed) != 0 {
        let mut all = REAL.lock().unwrap_or_else(|e| e.into_inner());
        all.retain(|(who, _)| *who != thread);
        REAL_COUNT.store(all.len() as u32, Ordering::Relaxed); // as in `want_real`
    }
}

/// Whether threads that the caller starts stay real.
pub fn wants_real() -> bool {
    let me = super::identity::pthread_self();
    REAL_COUNT.load(Ordering::Relaxed) != 0
        && REAL.lock().unwrap_or_else(|e| e.into_inner()).iter().any(|(who, _)| *who == me)
}

/// The stack a thread of these attributes would have, as a power of two.
unsafe fn stack_bytes(attributes: *const pthread_attr_t) -> usize {
    let mut bytes = 0;
    // SAFETY: null or initialised attributes; the results are ours.
    unsafe {
        if attributes.is_null() || libc::pthread_attr_getstacksize(attributes, &raw mut bytes) != 0 {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            let known =
                libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) == 0 && limit.rlim_cur != libc::RLIM_INFINITY;
            bytes = if known { limit.rlim_cur as usize } else { USUAL_BYTES };
        }
    }
    bytes.clamp(LEAST_BYTES, MOST_BYTES).next_power_of_two()
}

/// `pthread_create`.
pub(super) unsafe extern "C" fn pthread_create(
    thread: *mut usize,
    attributes: *const pthread_attr_t,
    start: *const c_void,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: as called, here and below.
    unsafe {
        if is_to_become_goroutine()
            && super::caller::is_parking_allowed()
            && let Some(rt) = super::runtime()
            && !rt.stopping.load(Ordering::Relaxed)
            && !wants_real()
        {
            let state_of = std::mem::transmute::<usize, StateOf>(STATE_OF.load(Ordering::Relaxed));
            let state = state_of(argument);
            if !state.is_null() {
                return begin(
                    rt,
                    thread,
                    attributes,
                    std::mem::transmute::<*const c_void, Start>(start),
                    argument,
                    state,
                );
            }
        }
        original::pthread_create::call(thread, attributes, start, argument)
    }
}

unsafe fn begin(
    rt: &'static Runtime,
    thread: *mut usize,
    attributes: *const pthread_attr_t,
    start: Start,
    argument: *mut c_void,
    state: HostThread,
) -> c_int {
    // SAFETY: as called; the host is attached (`StateOf`).
    unsafe {
        let mut detach = libc::PTHREAD_CREATE_JOINABLE;
        if !attributes.is_null() {
            pthread_attr_getdetachstate(attributes, &raw mut detach);
        }
        let Some(record) = try_box(Record {
            start,
            argument,
            result: ptr::null_mut(),
            is_done: false,
            is_detached: detach == libc::PTHREAD_CREATE_DETACHED,
            joiners: WaitQueue::new(),
            name: [0; NAME_BYTES],
        }) else {
            return libc::EAGAIN;
        };
        if records().get_or_insert_default().try_reserve(1).is_err() {
            return libc::EAGAIN;
        }
        let identity = ptr::from_ref(&*record).addr();
        let task = ptr::from_ref(&*record).cast_mut().cast::<u8>();
        records().get_or_insert_default().insert(identity, record);
        COUNT.fetch_add(1, Ordering::Relaxed); // before anybody knows of it
        if rt.spawn_thread(task, run, state, identity, stack_bytes(attributes)) {
            *thread = identity;
            return 0;
        }
        remove(identity);
        libc::EAGAIN
    }
}

fn remove(identity: usize) -> Option<Box<Record>> {
    let removed = records().as_mut().and_then(|all| all.remove(&identity));
    if removed.is_some() {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
    removed
}

/// The body of such a goroutine, entered detached; it ends attached with the M's home state.
unsafe extern "C-unwind" fn run(g: *mut Goroutine) -> bool {
    // SAFETY: the task is a record that lives until the thread has ended. What may end the thread by unwinding (the host's
    // finalisation) stops in `call_to_the_end`.
    unsafe {
        let record = (*g).task.cast::<Record>();
        let (start, argument) = ((*record).start, (*record).argument);
        let result = crate::context::call_to_the_end(start as *const (), argument.expose_provenance(), 0, 0);
        end(g, ptr::with_exposed_provenance_mut(result));
        false
    }
}

/// The thread has ended with `result`; its host state is gone or never current again.
unsafe fn end(g: *mut Goroutine, result: *mut c_void) {
    // SAFETY: on the goroutine's stack, detached. The M is asked for anew: the thread may have moved.
    unsafe {
        (*(*g).bundle).host = ptr::null_mut(); // nobody looks into it any more, and hooks that destructors call pass through
        super::at_end(g);
        forget_real((*g).task.addr());
        sched::machine::attach_home();
        let identity = (*g).task.addr();
        let joiners = with_record(identity, |record| {
            record.result = result;
            record.is_done = true;
            std::mem::take(&mut record.joiners)
        });
        ENDED.notify_all();
        ready_all(joiners.unwrap_or_default());
        if with_record(identity, |record| record.is_detached) == Some(true) {
            remove(identity);
        }
    }
}

/// Host attached.
fn ready_all(mut waiters: WaitQueue) {
    loop {
        let node = waiters.claim_front(Outcome::Delivered);
        if node.is_null() {
            return;
        }
        // SAFETY: claimed just now: alive until its owner is readied, here, once.
        unsafe { sched::ready_wait(&*(*node).wait) };
    }
}

/// What `pthread_exit(result)` goes on with (`context::pass_on`): the original, which unwinds; a frame of ours below it
/// would be unwound too. A goroutine that is a thread leaves for good here; its C frames are abandoned, as a thread's are.
pub(super) unsafe extern "C" fn before_exit(result: usize) -> usize {
    let m = goroutines_machine();
    // SAFETY: as `goroutines_machine` says.
    unsafe {
        if !m.is_null() && !(*m).rt.stopping.load(Ordering::Relaxed) {
            let g = (*m).current;
            let host = (*(*g).bundle).host;
            if (*(*g).bundle).is_thread {
                if ((*m).rt.host.standing)(host) == Standing::Attached {
                    ((*m).rt.host.detach)(host);
                }
                end(g, ptr::with_exposed_provenance_mut(result));
                // Its state stays in the host's list, as a thread's does that ends so, with frames in its header and on its
                // stack.
                (*(*g).bundle).stack = None;
                sched::machine::exit_for_good(g);
            }
        }
    }
    original::pthread_exit::ADDRESS.load(Ordering::Relaxed) // as in `call`
}

/// Waits for the end of a thread that is a goroutine; `None`: it is none.
fn join(thread: usize, result: *mut *mut c_void, deadline_ns: Option<u64>) -> Option<c_int> {
    if thread == super::identity::pthread_self() {
        return with_record(thread, |_| libc::EDEADLK);
    }
    if with_record(thread, |record| record.is_detached)? {
        return Some(libc::EINVAL);
    }
    let before = errno::get();
    let outcome = if let Some(caller) = caller() {
        caller.attached(|rt| join_parked(rt, thread, deadline_ns))
    } else {
        join_blocked(thread, deadline_ns)
    };
    errno::set(before);
    if !outcome {
        return Some(libc::ETIMEDOUT);
    }
    let record = remove(thread)?;
    if !result.is_null() {
        // SAFETY: the C function's own contract.
        unsafe { *result = record.result };
    }
    Some(0)
}

/// As a goroutine. Signals do not end it, as they do not end pthread_join.
fn join_parked(rt: &'static Runtime, thread: usize, deadline_ns: Option<u64>) -> bool {
    loop {
        // SAFETY: the place is this caller's to the end of the call; the node stays there until it is unlinked, by the claimer or
        // below; announced, and no lock is held.
        let outcome = sched::with_place(|place: *mut (Wait, Node)| unsafe {
            let (wait, node) = (&raw mut (*place).0, &raw mut (*place).1);
            wait.write(foreign_wait());
            node.write(Node::new(wait, ptr::null_mut()));
            sched::announce(&mut *wait);
            let is_done = with_record(thread, |record| {
                if !record.is_done {
                    record.joiners.push_back(node);
                }
                record.is_done
            });
            if is_done != Some(false) {
                sched::retract(&*wait);
                return Outcome::Delivered;
            }
            let outcome = block_foreign(rt, &mut *wait, Reason::Join, deadline_ns);
            if outcome != Outcome::Delivered {
                with_record(thread, |record| record.joiners.remove(node));
            }
            outcome
        });
        match outcome {
            Outcome::Delivered => return true,
            Outcome::TimedOut => return false,
            _ => {}
        }
    }
}

/// As a plain thread, or a goroutine that cannot park.
fn join_blocked(thread: usize, deadline_ns: Option<u64>) -> bool {
    let mut all = records();
    while all.as_ref().and_then(|all| all.get(&thread)).is_some_and(|record| !record.is_done) {
        let left = deadline_ns.map_or(u64::MAX, |deadline| deadline.saturating_sub(clock::now_ns()));
        if left == 0 {
            return false;
        }
        let waited = ENDED.wait_timeout(all, Duration::from_nanos(left.min(3_600_000_000_000)));
        all = waited.unwrap_or_else(|e| e.into_inner()).0;
    }
    true
}

/// `pthread_join`.
pub(super) unsafe extern "C" fn pthread_join(thread: usize, result: *mut *mut c_void) -> c_int {
    // SAFETY: as called.
    join(thread, result, None).unwrap_or_else(|| unsafe { original::pthread_join::call(thread, result) })
}

/// `pthread_timedjoin_np`.
pub(super) unsafe extern "C" fn pthread_timedjoin_np(
    thread: usize,
    result: *mut *mut c_void,
    until: *const timespec,
) -> c_int {
    // SAFETY: as called, here and below.
    unsafe {
        let deadline = super::sleep::deadline_of(libc::CLOCK_REALTIME, until);
        let done = deadline.and_then(|deadline| join(thread, result, Some(deadline)));
        done.unwrap_or_else(|| original::pthread_timedjoin_np::call(thread, result, until))
    }
}

/// `pthread_clockjoin_np`.
pub(super) unsafe extern "C" fn pthread_clockjoin_np(
    thread: usize,
    result: *mut *mut c_void,
    clock_id: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as called, here and below.
    unsafe {
        let deadline = super::sleep::deadline_of(clock_id, until);
        let done = deadline.and_then(|deadline| join(thread, result, Some(deadline)));
        done.unwrap_or_else(|| original::pthread_clockjoin_np::call(thread, result, clock_id, until))
    }
}

/// `pthread_detach`.
pub(super) unsafe extern "C" fn pthread_detach(thread: usize) -> c_int {
    let found = with_record(thread, |record| (std::mem::replace(&mut record.is_detached, true), record.is_done));
    match found {
        // SAFETY: as called.
        None => unsafe { original::pthread_detach::call(thread) },
        Some((true, _)) => libc::EINVAL,
        Some((false, is_done)) => {
            if is_done {
                remove(thread);
            }
            0
        }
    }
}

/// Whether `thread` is a goroutine's.
pub(super) fn is_known(thread: usize) -> bool {
    with_record(thread, |_| ()).is_some()
}

/// Reads or writes the name of a thread that is a goroutine.
pub(super) fn with_name<R>(thread: usize, see: impl FnOnce(&mut [u8; NAME_BYTES]) -> R) -> Option<R> {
    with_record(thread, |record| see(&mut record.name))
}
