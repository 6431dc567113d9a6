//! The hooks called as C code calls them, by goroutines of a host that can be detached and that counts how often it is
//! attached. Nothing is patched: originals are looked up, hooks are called by name.

use super::hooks::HOOKS;
use super::{allow_parking, host_lock, is_driver, keys, poll, semaphore, serve, signals, sleep};
use crate::goroutine::Goroutine;
use crate::goroutine::host::{Host, HostThread, Standing, null_host};
use crate::sched::config::Config;
use crate::sched::machine::Machine;
use crate::sched::{Runtime, current_machine, gosched};
use crate::sys::{clock, errno, loader};
use libc::{c_int, c_void, fd_set, pollfd, sem_t, sigaction as Action, siginfo_t, timespec, timeval};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::Duration;

mod locals_tests;

const LIMIT: Duration = Duration::from_secs(30);
const MS: u64 = 1_000_000;

/// A goroutine's state of the test host.
struct State {
    attached: AtomicBool,
}

static ATTACHED: AtomicUsize = AtomicUsize::new(0);
static DETACHED: AtomicUsize = AtomicUsize::new(0);

unsafe fn new_thread(_base: usize, _top: usize, _header: usize, _bytes: usize) -> HostThread {
    ptr::from_mut(Box::leak(Box::new(State { attached: AtomicBool::new(true) }))).cast()
}

fn state(thread: HostThread) -> &'static State {
    // SAFETY: made by `new_thread` and never freed.
    unsafe { &*thread.cast::<State>() }
}

unsafe fn attach(thread: HostThread) {
    assert!(!state(thread).attached.swap(true, Ordering::SeqCst), "attached twice");
    ATTACHED.fetch_add(1, Ordering::SeqCst);
}

unsafe fn detach(thread: HostThread) {
    assert!(state(thread).attached.swap(false, Ordering::SeqCst), "detached twice");
    DETACHED.fetch_add(1, Ordering::SeqCst);
}

unsafe fn standing(thread: HostThread) -> Standing {
    if state(thread).attached.load(Ordering::SeqCst) { Standing::Attached } else { Standing::Detached }
}

static HOST: Host = Host { new_thread, attach: attach_any, detach: detach_any, standing, ..null_host() };

/// Homes of OS threads are the null host's: they have no state.
unsafe fn attach_any(thread: HostThread) {
    if thread != ptr::dangling_mut() {
        // SAFETY: as called.
        unsafe { attach(thread) };
    }
}

unsafe fn detach_any(thread: HostThread) {
    if thread != ptr::dangling_mut() {
        // SAFETY: as called.
        unsafe { detach(thread) };
    }
}

static RUNTIME: LazyLock<&'static Runtime> = LazyLock::new(|| {
    let rt = Runtime::new(Config { processors: 2, ..Config::default() }, &HOST).expect("a runtime");
    for hook in HOOKS {
        if let Some(address) = loader::symbol(hook.name, None) {
            hook.original.store(address, Ordering::SeqCst);
        }
    }
    rt.at_end.set(super::at_end).expect("set once");
    serve(rt);
    allow_parking(true);
    rt
});

fn go(body: impl FnOnce() + Send + 'static) -> *mut Goroutine {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    RUNTIME.spawn(Box::into_raw(Box::new(body)).cast(), |_| {})
}

/// Runs `body` as a goroutine in C code that let go of the host's lock.
fn start<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    go(move || {
        // SAFETY: on a goroutine's stack; its state is the test host's.
        let mine = unsafe { state((*(*(*current_machine()).current).bundle).host) };
        mine.attached.store(false, Ordering::SeqCst);
        let result = body();
        assert!(!mine.attached.swap(true, Ordering::SeqCst), "a hook left the state attached");
        let _ = sender.send(result); // a test that failed waits no more
    });
    receiver
}

fn run<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    start(body).recv_timeout(LIMIT).expect("the goroutine ends in time")
}

/// A semaphore that goroutines and threads share.
struct Semaphore(UnsafeCell<MaybeUninit<sem_t>>);
// SAFETY: the C library's functions are for all threads.
unsafe impl Sync for Semaphore {}
// SAFETY: as above; nobody moves it while it is in an Arc.
unsafe impl Send for Semaphore {}

impl Semaphore {
    fn new(value: u32) -> Arc<Self> {
        let made = Arc::new(Self(UnsafeCell::new(MaybeUninit::uninit())));
        // SAFETY: memory of its own.
        assert_eq!(unsafe { libc::sem_init(made.at(), 0, value) }, 0);
        made
    }

    fn at(&self) -> *mut sem_t {
        self.0.get().cast()
    }

    fn wait(&self) -> c_int {
        // SAFETY: initialised.
        unsafe { semaphore::sem_wait(self.at()) }
    }

    fn wait_ns(&self, ns: u64) -> c_int {
        let until = at(libc::CLOCK_MONOTONIC, ns);
        // SAFETY: initialised.
        unsafe { semaphore::sem_clockwait(self.at(), libc::CLOCK_MONOTONIC, &raw const until) }
    }

    fn post(&self) {
        // SAFETY: initialised.
        assert_eq!(unsafe { semaphore::sem_post(self.at()) }, 0);
    }

    fn value(&self) -> c_int {
        let mut value = -1;
        // SAFETY: initialised.
        unsafe { libc::sem_getvalue(self.at(), &raw mut value) };
        value
    }
}

/// The time `ns` from now.
fn at(clock: c_int, ns: u64) -> timespec {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a record of ours.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let ns = now.tv_nsec as u64 + ns;
    timespec { tv_sec: now.tv_sec + (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 }
}

#[test]
fn every_post_of_a_thread_or_a_goroutine_is_taken_once() {
    const EACH: usize = 300;
    let sem = Semaphore::new(0);
    let takers: Vec<_> = (0..12)
        .map(|_| {
            let sem = sem.clone();
            start(move || (0..EACH).all(|_| sem.wait() == 0))
        })
        .collect();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let sem = sem.clone();
            std::thread::spawn(move || (0..EACH * 3).for_each(|_| sem.post()))
        })
        .collect();
    let poster = sem.clone();
    let posts = start(move || (0..EACH * 3).for_each(|_| poster.post()));
    for taker in takers {
        assert!(taker.recv_timeout(LIMIT).expect("nobody waits for a post that came"));
    }
    posts.recv_timeout(LIMIT).expect("posts");
    threads.into_iter().for_each(|t| t.join().expect("no panic"));
    assert_eq!(sem.value(), 0);
}

#[test]
fn timed_waits_lose_no_post() {
    let sem = Semaphore::new(0);
    let takers: Vec<_> = (0..8u64)
        .map(|i| {
            let sem = sem.clone();
            start(move || (0..100).filter(|k| sem.wait_ns((i * 37 + k * 11) % 97 * 1_000) == 0).count())
        })
        .collect();
    for i in 0..400 {
        sem.post();
        if i % 8 == 0 {
            std::thread::yield_now();
        }
    }
    let taken: usize = takers.iter().map(|t| t.recv_timeout(LIMIT).expect("ends")).sum();
    assert_eq!(taken + sem.value() as usize, 400);
}

#[test]
fn threads_and_goroutines_wait_at_one_semaphore() {
    let sem = Semaphore::new(0);
    let (one, two) = (sem.clone(), sem.clone());
    let goroutine = start(move || (0..500).all(|_| one.wait() == 0));
    let thread = std::thread::spawn(move || (0..500).all(|_| two.wait() == 0)); // passes through
    (0..1000).for_each(|_| sem.post());
    assert!(goroutine.recv_timeout(LIMIT).expect("ends") && thread.join().expect("no panic"));
    assert_eq!(sem.value(), 0);
}

#[test]
fn semaphores_tell_errors_and_leave_errno_alone_otherwise() {
    let sem = Semaphore::new(1);
    assert_eq!(
        run(move || {
            errno::set(77);
            let taken = (sem.wait_ns(MS), errno::get());
            errno::set(77);
            let late = (sem.wait_ns(MS), errno::get());
            let over = (sem.wait_ns(0), errno::get());
            let bad = timespec { tv_sec: 0, tv_nsec: -1 };
            // SAFETY: initialised; a record of ours.
            let refused = unsafe { semaphore::sem_timedwait(sem.at(), &raw const bad) };
            (taken, late, over, (refused, errno::get()))
        }),
        ((0, 77), (-1, libc::ETIMEDOUT), (-1, libc::ETIMEDOUT), (-1, libc::EINVAL))
    );
}

#[test]
fn a_wait_attaches_and_detaches_as_often() {
    run(|| {
        let time = timespec { tv_sec: 0, tv_nsec: 1_000 };
        // SAFETY: records of ours.
        (0..50).for_each(|_| assert_eq!(unsafe { sleep::nanosleep(&raw const time, ptr::null_mut()) }, 0));
    });
    assert!(ATTACHED.load(Ordering::SeqCst) >= 50 && DETACHED.load(Ordering::SeqCst) >= 50);
}

#[test]
fn sleeps_are_long_enough_and_refuse_what_is_no_time() {
    run(|| {
        // SAFETY: records of ours, here and below.
        let sleep = |clock, flags, time: &timespec| unsafe {
            sleep::clock_nanosleep(clock, flags, ptr::from_ref(time), ptr::null_mut())
        };
        let begun = clock::now_ns();
        errno::set(77);
        let time = timespec { tv_sec: 0, tv_nsec: 2 * MS as i64 };
        assert_eq!(sleep(libc::CLOCK_MONOTONIC, 0, &time), 0);
        for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
            assert_eq!(sleep(clock, libc::TIMER_ABSTIME, &at(clock, 2 * MS)), 0);
        }
        // SAFETY: no pointers.
        assert_eq!(unsafe { (sleep::usleep(2_000), sleep::sleep(0)) }, (0, 0));
        assert_eq!(errno::get(), 77);
        assert!(clock::now_ns() - begun >= 10 * MS);
        for bad in [timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }, timespec { tv_sec: -1, tv_nsec: 0 }] {
            for flags in [0, libc::TIMER_ABSTIME] {
                assert_eq!(sleep(libc::CLOCK_MONOTONIC, flags, &bad), libc::EINVAL);
            }
            // SAFETY: as above.
            assert_eq!(unsafe { sleep::nanosleep(&raw const bad, ptr::null_mut()) }, -1);
            assert_eq!(errno::get(), libc::EINVAL);
        }
        assert_eq!(sleep(-99, 0, &time), libc::EINVAL);
    });
}

#[test]
fn attached_goroutines_and_threads_pass_through() {
    let (sender, receiver) = mpsc::channel();
    go(move || {
        let before = super::hooks::original::nanosleep::COUNTS.parked.load(Ordering::SeqCst);
        let time = timespec { tv_sec: 0, tv_nsec: 1_000 };
        // SAFETY: records of ours. The state is attached: the original sleeps.
        sender.send((unsafe { sleep::nanosleep(&raw const time, ptr::null_mut()) }, before)).expect("waited for");
    });
    assert_eq!(receiver.recv_timeout(LIMIT).expect("ends").0, 0);
    let sem = Semaphore::new(1);
    assert_eq!((sem.wait(), sem.wait_ns(1_000)), (0, -1));
}

// keys

static ORDER: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
static KEYS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

#[test]
fn a_wait_for_the_hosts_lock_is_no_call_that_lasts() {
    let woken = run(|| {
        let (mutex, condition) = (libc::PTHREAD_MUTEX_INITIALIZER, libc::PTHREAD_COND_INITIALIZER);
        let (mutex, condition) = (UnsafeCell::new(mutex), UnsafeCell::new(condition));
        let (m, mutex_at, condition_at) = (
            current_machine().expose_provenance(),
            mutex.get().expose_provenance(),
            condition.get().expose_provenance(),
        );
        // SAFETY: the goroutine keeps its M, the mutex and the condition until this thread has ended.
        let watcher = std::thread::spawn(move || unsafe {
            let m: *mut Machine = ptr::with_exposed_provenance_mut(m);
            wait_until(|| (*m).in_hook.load(Ordering::SeqCst));
            libc::pthread_mutex_lock(ptr::with_exposed_provenance_mut(mutex_at)); // once the wait has let go of it
            libc::pthread_cond_signal(ptr::with_exposed_provenance_mut(condition_at));
            libc::pthread_mutex_unlock(ptr::with_exposed_provenance_mut(mutex_at));
        });
        let until = at(libc::CLOCK_REALTIME, LIMIT.as_nanos() as u64);
        // SAFETY: both are initialised; the mutex is this thread's while it is locked.
        unsafe {
            libc::pthread_mutex_lock(mutex.get());
            let result = host_lock::pthread_cond_timedwait(condition.get(), mutex.get(), &raw const until);
            libc::pthread_mutex_unlock(mutex.get());
            watcher.join().expect("the watcher saw the wait");
            (result, (*current_machine()).in_hook.load(Ordering::SeqCst))
        }
    });
    assert_eq!(woken, (0, false));
}

fn key(i: usize) -> libc::pthread_key_t {
    KEYS[i].load(Ordering::SeqCst) as libc::pthread_key_t
}

/// Notes its value and what the other key holds; sets its own key anew while the value is small.
unsafe extern "C" fn first_destructor(value: *mut c_void) {
    // SAFETY: keys of the test.
    unsafe {
        ORDER.lock().expect("no panic").push((value.addr(), keys::pthread_getspecific(key(1)).addr()));
        if value.addr() < 3 {
            keys::pthread_setspecific(key(0), ptr::without_provenance(value.addr() + 1));
        }
    }
}

unsafe extern "C" fn no_destructor_runs(_value: *mut c_void) {
    ORDER.lock().expect("no panic").push((99, 99));
}

#[test]
fn keys_are_each_goroutines_own_and_end_in_rounds() {
    // SAFETY: keys of the test, here and below.
    unsafe {
        LazyLock::force(&RUNTIME);
        for (i, destructor) in
            [Some(first_destructor as unsafe extern "C" fn(*mut c_void)), None].into_iter().enumerate()
        {
            let mut made = 0;
            assert_eq!(keys::pthread_key_create(&raw mut made, destructor), 0);
            KEYS[i].store(made as usize, Ordering::SeqCst);
        }
        assert_eq!(keys::pthread_setspecific(key(1), ptr::without_provenance(5)), 0); // this thread's
        run(|| {
            assert!(keys::pthread_getspecific(key(1)).is_null());
            keys::pthread_setspecific(key(0), ptr::without_provenance(1));
            keys::pthread_setspecific(key(1), ptr::without_provenance(7));
            gosched_detached();
            assert_eq!(keys::pthread_getspecific(key(1)).addr(), 7);
        });
        wait_until(|| ORDER.lock().expect("no panic").len() >= 3);
        let order = std::mem::take(&mut *ORDER.lock().expect("no panic"));
        assert_eq!(order[0], (1, 7), "a destructor finds the other keys");
        assert_eq!(order.iter().map(|entry| entry.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(keys::pthread_getspecific(key(1)).addr(), 5);
        keys::pthread_setspecific(key(1), ptr::null());

        // A key made anew with the number of one that was deleted.
        run(|| {
            let mut made = 0;
            assert_eq!(keys::pthread_key_create(&raw mut made, None), 0);
            keys::pthread_setspecific(made, ptr::without_provenance(8));
            assert_eq!(keys::pthread_key_delete(made), 0);
            let mut again = 0;
            assert_eq!(keys::pthread_key_create(&raw mut again, Some(no_destructor_runs)), 0);
            if again == made {
                assert!(keys::pthread_getspecific(again).is_null());
            }
            KEYS[1].store(again as usize, Ordering::SeqCst);
        });
        run(|| ()); // the one before has ended, or does beside this
        assert!(ORDER.lock().expect("no panic").is_empty());
    }
}

/// Lets others run though the state is detached.
fn gosched_detached() {
    // SAFETY: no arguments.
    assert_eq!(unsafe { sleep::sched_yield() }, 0);
}

fn wait_until(condition: impl Fn() -> bool) {
    let end = clock::now_ns() + LIMIT.as_nanos() as u64;
    while !condition() {
        assert!(clock::now_ns() < end, "never came");
        std::thread::yield_now();
    }
}

// signals

static SEEN: AtomicI32 = AtomicI32::new(0);
static DEPTH: AtomicI32 = AtomicI32::new(-1);

unsafe extern "C" fn informed(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel's record; this thread's M.
    unsafe {
        SEEN.store((*info).si_signo, Ordering::SeqCst);
        let m = current_machine();
        let depth =
            if m.is_null() { -1 } else { (*m).signal_depth.load(crate::primitive::atomic::Ordering::SeqCst) as i32 };
        DEPTH.store(depth, Ordering::SeqCst);
        assert!(super::caller::caller().is_none(), "a handler would park");
    }
}

extern "C" fn plain(signal: c_int) {
    SEEN.store(-signal, Ordering::SeqCst);
}

fn change(handler: usize, flags: c_int) -> Action {
    // SAFETY: records of ours; zeroes are a valid record.
    unsafe {
        let (mut new, mut old): (Action, Action) = (std::mem::zeroed(), std::mem::zeroed());
        new.sa_sigaction = handler;
        new.sa_flags = flags;
        assert_eq!(signals::sigaction(libc::SIGWINCH, &raw const new, &raw mut old), 0);
        old
    }
}

#[test]
fn handlers_are_shown_as_given_and_run_with_hooks_off() {
    LazyLock::force(&RUNTIME);
    let informed = informed as *const () as usize;
    let plain = plain as *const () as usize;
    assert_eq!(change(informed, libc::SA_SIGINFO | libc::SA_RESTART).sa_sigaction, libc::SIG_DFL);
    // SAFETY: a query; then a signal for this thread.
    unsafe {
        let mut now: Action = std::mem::zeroed();
        assert_eq!(signals::sigaction(libc::SIGWINCH, ptr::null(), &raw mut now), 0);
        assert_eq!(now.sa_sigaction, informed);
        assert_eq!(now.sa_flags & (libc::SA_SIGINFO | libc::SA_RESTART), libc::SA_SIGINFO | libc::SA_RESTART);
        assert_ne!(now.sa_flags & libc::SA_RESTART, 0);
        libc::raise(libc::SIGWINCH);
    }
    assert_eq!((SEEN.load(Ordering::SeqCst), DEPTH.load(Ordering::SeqCst)), (libc::SIGWINCH, -1));
    // On a goroutine's stack: its M counts.
    // SAFETY: a signal for the calling thread.
    run(|| unsafe { libc::raise(libc::SIGWINCH) });
    assert_eq!(DEPTH.load(Ordering::SeqCst), 1);
    assert_eq!(change(plain, 0).sa_sigaction, informed);
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGWINCH) };
    assert_eq!(SEEN.load(Ordering::SeqCst), -libc::SIGWINCH);
    let old = change(libc::SIG_IGN, 0);
    assert_eq!((old.sa_sigaction, old.sa_flags & libc::SA_SIGINFO), (plain, 0));
    // SAFETY: numbers only.
    unsafe {
        assert_eq!(signals::signal(libc::SIGWINCH, plain), libc::SIG_IGN);
        assert_eq!(signals::signal(libc::SIGWINCH, libc::SIG_DFL), plain);
        assert_eq!(signals::signal(libc::SIGKILL, plain), libc::SIG_ERR);
        assert_eq!(signals::signal(1000, plain), libc::SIG_ERR);
        assert_eq!(signals::signal(libc::SIGWINCH, libc::SIG_DFL), libc::SIG_DFL);
    }
}

// poll and select

fn pipe() -> (c_int, c_int) {
    let mut ends = [0; 2];
    // SAFETY: room for two numbers.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    (ends[0], ends[1])
}

fn close(fds: [c_int; 2]) {
    for fd in fds {
        // SAFETY: the test's own.
        assert_eq!(unsafe { super::descriptors::close(fd) }, 0);
    }
}

#[test]
fn poll_takes_what_the_kernel_takes() {
    run(|| {
        let (r, w) = pipe();
        let one = |fd, events, timeout| {
            let mut entry = pollfd { fd, events, revents: -1 };
            errno::set(77);
            // SAFETY: one record.
            let n = unsafe { poll::poll(&raw mut entry, 1, timeout) };
            (n, entry.revents, errno::get())
        };
        assert_eq!(one(r, libc::POLLIN, 0), (0, 0, 77));
        assert_eq!(one(r, libc::POLLIN, 3), (0, 0, 77));
        assert_eq!(one(r, 0, 1), (0, 0, 77));
        assert_eq!(one(-1, libc::POLLIN, 1), (0, 0, 77));
        assert_eq!(one(9999, libc::POLLIN, -1), (1, libc::POLLNVAL, 77));
        assert_eq!(one(w, libc::POLLOUT, -1), (1, libc::POLLOUT, 77));
        // SAFETY: no records.
        assert_eq!(unsafe { poll::poll(ptr::null_mut(), 0, 2) }, 0);
        // SAFETY: the test's own.
        let closer = start(move || unsafe { super::descriptors::close(w) });
        assert_eq!(one(r, libc::POLLIN, -1).1 & libc::POLLHUP, libc::POLLHUP);
        drop(closer);
        // SAFETY: as above.
        unsafe { super::descriptors::close(r) };
    });
}

#[test]
fn select_tells_the_time_left_and_refuses_what_is_wrong() {
    run(|| {
        let (r, w) = pipe();
        // SAFETY: sets and times of ours, here and below.
        unsafe {
            let select = |count, fd: c_int, us: i64| {
                let mut set: fd_set = std::mem::zeroed();
                libc::FD_SET(fd, &raw mut set);
                let mut time = timeval { tv_sec: 0, tv_usec: us };
                let n = poll::select(count, &raw mut set, ptr::null_mut(), ptr::null_mut(), &raw mut time);
                (n, libc::FD_ISSET(fd, &raw const set), time.tv_usec)
            };
            assert_eq!(select(r + 1, r, 2_000), (0, false, 0));
            assert_eq!(select(0, r, 1_000), (0, true, 0), "a set beyond the count is not looked at");
            assert_eq!(libc::write(w, b"x".as_ptr().cast(), 1), 1);
            let (n, is_set, left) = select(r + 1, r, 900_000);
            assert!(n == 1 && is_set && left > 0 && left <= 900_000);
            assert_eq!(select(-1, r, 1_000).0, -1);
            assert_eq!(errno::get(), libc::EINVAL);
            assert_eq!(select(r + 1, r, -1).0, -1);
            assert_eq!(errno::get(), libc::EINVAL);
        }
        // A closed descriptor; the kernel looks at none beyond the greatest there ever was.
        // SAFETY: as above.
        unsafe {
            assert_eq!(libc::dup2(r, 900), 900);
            close([900, w]);
            let mut set: fd_set = std::mem::zeroed();
            libc::FD_SET(900, &raw mut set);
            let n = poll::select(901, &raw mut set, ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            assert_eq!((n, errno::get()), (-1, libc::EBADF));
            super::descriptors::close(r);
        }
    });
}

#[test]
fn a_poll_of_many_goroutines_is_woken_by_its_own_descriptor() {
    let pairs: Vec<_> = (0..40).map(|_| pipe()).collect();
    let polls: Vec<_> = pairs
        .iter()
        .map(|&(r, _)| {
            start(move || {
                let mut entry = pollfd { fd: r, events: libc::POLLIN, revents: 0 };
                // SAFETY: one record.
                unsafe { poll::poll(&raw mut entry, 1, -1) }
            })
        })
        .collect();
    for (&(_, w), poll) in pairs.iter().zip(&polls) {
        // SAFETY: one byte.
        assert_eq!(unsafe { libc::write(w, b"x".as_ptr().cast(), 1) }, 1);
        assert_eq!(poll.recv_timeout(LIMIT).expect("woken"), 1);
    }
    pairs.into_iter().for_each(|(r, w)| close([r, w]));
    run(gosched_detached);
    go(gosched);
}

#[test]
fn drivers_are_known_by_the_whole_name() {
    for name in ["libpq.so.5", "libpq-e9b5c9ac.so.5.18", "_psycopg.cpython-311-x86_64-linux-gnu.so", "libcurl.so.4"] {
        assert!(is_driver(name.as_bytes()), "{name}");
    }
    for name in ["libpqtypes.so", "libpq-oauth-18.so", "libcurl-gnutls.so.4", "_mysql_connector.so", "xlibpq.so", ""] {
        assert!(!is_driver(name.as_bytes()), "{name}");
    }
}
