//! Name resolution: getaddrinfo and getnameinfo talk to servers inside the C library, out of reach of the hooks. A small pool
//! of threads does it, so that a thousand goroutines that resolve names take a few threads, not a thousand.

use super::caller::{Caller, block_foreign, caller, foreign_wait};
use super::hooks::original;
use crate::goroutine::waiter::{Listens, Outcome, Reason, Wait};
use crate::sched::{self, Runtime};
use crate::sys::{errno, thread};
use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};
use std::collections::VecDeque;
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard};

/// Threads at most. Resolvers wait for answers most of the time; C libraries lock some of their state.
const THREADS: usize = 8;

/// A question, on the asking goroutine's stack until it is answered.
struct Question<'a> {
    ask: &'a (dyn Fn() -> c_int + Sync),
    answer: c_int,
    error: c_int,
    wait: *mut Wait,
}

pub(super) struct Pool {
    questions: VecDeque<usize>,
    threads: usize,
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { questions: VecDeque::new(), threads: 0, idle: 0 });
static ASKED: Condvar = Condvar::new();

unsafe extern "C-unwind" fn resolver(_: *mut u8) {
    thread::set_name(c"gort-dns");
    let mut pool = POOL.lock().unwrap_or_else(|e| e.into_inner());
    loop {
        let Some(address) = pool.questions.pop_front() else {
            pool.idle += 1;
            pool = ASKED.wait(pool).unwrap_or_else(|e| e.into_inner());
            pool.idle -= 1;
            continue;
        };
        drop(pool);
        let question: *mut Question = ptr::with_exposed_provenance_mut(address);
        // SAFETY: the asking goroutine waits until it is readied, by the errand.
        unsafe {
            (*question).answer = ((*question).ask)();
            (*question).error = errno::get();
            if let Some(rt) = super::runtime() {
                rt.call_attached(answered, address);
            }
        }
        pool = POOL.lock().unwrap_or_else(|e| e.into_inner());
    }
}

/// Readies who asked. Host attached.
fn answered(_rt: &'static Runtime, address: usize) {
    let question: *mut Question = ptr::with_exposed_provenance_mut(address);
    // SAFETY: the question is there until its goroutine is readied, which is done here alone: its wait ends by nothing else.
    unsafe {
        let wait = (*question).wait;
        if (*wait).claim(Outcome::Delivered) {
            sched::ready_wait(&*wait);
        }
    }
}

/// The pool's lock, held over a fork.
pub(super) type Held = MutexGuard<'static, Pool>;

pub(super) fn hold() -> Held {
    POOL.lock().unwrap_or_else(|e| e.into_inner())
}

/// In a forked child: who asked is gone, and so are the threads that answer.
pub(super) fn forget(pool: &mut Held) {
    pool.questions.clear();
    pool.threads = 0;
    pool.idle = 0;
}

/// Hands a question to the pool. `false`: no thread could be had.
fn submit(address: usize) -> bool {
    let mut pool = POOL.lock().unwrap_or_else(|e| e.into_inner());
    if pool.questions.try_reserve(1).is_err() {
        return false;
    }
    if pool.idle <= pool.questions.len() && pool.threads < THREADS {
        // SAFETY: takes no argument.
        match unsafe { thread::spawn_raw(resolver, ptr::null_mut()) } {
            Ok(()) => pool.threads += 1,
            Err(_) if pool.threads == 0 => return false,
            Err(_) => {}
        }
    }
    pool.questions.push_back(address);
    ASKED.notify_one();
    true
}

/// Asks in the pool, and parks. Not interrupted: resolvers are not either. `None`: the original is to be called here.
fn in_pool(caller: &Caller, ask: &(dyn Fn() -> c_int + Sync)) -> Option<c_int> {
    let before = errno::get();
    let mut question = Question { ask, answer: 0, error: 0, wait: ptr::null_mut() };
    let done = caller.attached(|rt| {
        let mut wait = foreign_wait();
        wait.listens = Listens::ToNothing;
        question.wait = &raw mut wait;
        sched::announce(&mut wait);
        if !submit((&raw mut question).expose_provenance()) {
            sched::retract(&wait);
            return false;
        }
        // SAFETY: announced above; no lock is held.
        let outcome = unsafe { block_foreign(rt, &mut wait, Reason::Dns, None) };
        debug_assert_eq!(outcome, Outcome::Delivered);
        true
    });
    if !done {
        errno::set(before);
        return None;
    }
    errno::set(if question.answer == libc::EAI_SYSTEM { question.error } else { before });
    Some(question.answer)
}

/// Pointers of the caller's, for the thread that uses them while the caller waits.
struct Lent<T>(T);
// SAFETY: the lender waits until the borrower has done.
unsafe impl<T> Sync for Lent<T> {}

impl<T: Copy> Lent<T> {
    /// A closure that used the field itself would capture the pointers, which are not for other threads.
    fn get(&self) -> T {
        self.0
    }
}

/// `getaddrinfo`. What asks no server is answered at once.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: null or the caller's record.
    let is_local = node.is_null() || unsafe { hints.as_ref() }.is_some_and(|h| h.ai_flags & libc::AI_NUMERICHOST != 0);
    let lent = Lent((node, service, hints, result));
    let ask = || {
        let (node, service, hints, result) = lent.get();
        // SAFETY: as called.
        unsafe { original::getaddrinfo::call(node, service, hints, result) }
    };
    let Some(caller) = caller().filter(|_| !is_local) else { return ask() };
    // A numeric address asks nobody either; whatever else comes of this, the pool says it again.
    // SAFETY: as called; the copy of the hints is ours.
    unsafe {
        let mut numeric: addrinfo = hints.as_ref().map_or_else(|| std::mem::zeroed(), |hints| *hints);
        numeric.ai_flags |= libc::AI_NUMERICHOST;
        if original::getaddrinfo::call(node, service, &raw const numeric, result) == 0 {
            return 0;
        }
    }
    original::getaddrinfo::COUNTS.park();
    let answer = in_pool(&caller, &ask);
    drop(caller);
    answer.unwrap_or_else(ask)
}

/// `getnameinfo`.
#[inline(never)] // of `hooks::enter`
pub(super) unsafe extern "C" fn getnameinfo(
    address: *const sockaddr,
    size: socklen_t,
    host: *mut c_char,
    host_size: socklen_t,
    service: *mut c_char,
    service_size: socklen_t,
    flags: c_int,
) -> c_int {
    let lent = Lent((address, host, service));
    let ask = || {
        let (address, host, service) = lent.get();
        // SAFETY: as called.
        unsafe { original::getnameinfo::call(address, size, host, host_size, service, service_size, flags) }
    };
    let is_local = flags & (libc::NI_NUMERICHOST | libc::NI_NUMERICSERV) == libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    let Some(caller) = caller().filter(|_| !is_local) else { return ask() };
    original::getnameinfo::COUNTS.park();
    let answer = in_pool(&caller, &ask);
    drop(caller);
    answer.unwrap_or_else(ask)
}
