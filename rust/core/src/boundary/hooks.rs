//! The names that are answered here: for each the function that stands in for it, where its original is, and its counts.

use super::{
    clocks, connect, descriptors, dns, files, fortified, host_lock, identity, install, io, keys, locals, poll, process,
    pthreads, scheduling, semaphore, signals, sleep, threads,
};
use libc::{
    addrinfo, c_char, c_int, c_uint, c_void, clockid_t, epoll_event, fd_set, id_t, idtype_t, iovec, mmsghdr, msghdr,
    nfds_t, off_t, pid_t, pollfd, pthread_attr_t, pthread_cond_t, pthread_key_t, pthread_mutex_t, rusage, sched_param,
    sem_t, sigaction, siginfo_t, sigset_t, sigval, size_t, sockaddr, socklen_t, ssize_t, time_t, timespec, timeval,
    useconds_t,
};
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a hook is for: `GORT_BOUNDARY=0` leaves some out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Calls that block.
    Blocking,
    /// Calls that must be seen for others to be right, and block nobody.
    Watched,
    /// Who the caller is.
    Identity,
    /// What the caller keeps per thread.
    Keys,
    /// Its thread-locals.
    Locals,
    /// What time it is.
    Clock,
    /// The interpreter's waits for its own lock.
    HostLock,
}

/// How often a hooked call waited.
#[derive(Default)]
pub struct Counts {
    /// As a parked goroutine.
    pub parked: AtomicU64,
    /// In the original, on its OS thread, though a goroutine called: the scheduler hands its P off.
    pub handed_off: AtomicU64,
}

impl Counts {
    pub(super) fn park(&self) {
        self.parked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hand_off(&self) {
        self.handed_off.fetch_add(1, Ordering::Relaxed);
    }
}

/// One name.
pub struct Hook {
    /// As import tables have it.
    pub name: &'static CStr,
    /// See [`Subject`].
    pub subject: Subject,
    /// The function that stands in.
    pub function: *const (),
    /// The original's address; 0 until `install` found it.
    pub original: &'static AtomicUsize,
    /// See [`Counts`].
    pub counts: &'static Counts,
}

// SAFETY: a code address and references to atomics.
unsafe impl Sync for Hook {}

/// One module per name: `original::name::call` calls the original, `COUNTS` are its counts.
macro_rules! hooks {
    ($($subject:ident $name:ident ($($argument:ident: $type:ty),*) -> $result:ty = $function:path;)*) => {
        /// The originals, callable, by name.
        pub(super) mod original {
            $(pub(in crate::boundary) mod $name {
                #[allow(unused_imports)]
                use super::super::*;

                pub(in crate::boundary) static ADDRESS: AtomicUsize = AtomicUsize::new(0);
                pub(in crate::boundary) static COUNTS: Counts =
                    Counts { parked: AtomicU64::new(0), handed_off: AtomicU64::new(0) };

                /// Stands in for a call that blocks: a plain thread goes on to the original, with next to nothing done.
                ///
                /// # Safety
                /// As the C function.
                #[allow(dead_code, reason = "the other subjects are for plain threads, too")]
                pub(in crate::boundary) unsafe extern "C" fn enter($($argument: $type),*) -> $result {
                    // SAFETY: as called.
                    unsafe {
                        if !crate::context::current_get().is_null() { $function($($argument),*) } else { call($($argument),*) }
                    }
                }

                /// # Safety
                /// As the C function; called from its hook only, which is in place after its original was found.
                #[inline]
                #[allow(dead_code, reason = "some hooks never need their original")]
                pub(in crate::boundary) unsafe fn call($($argument: $type),*) -> $result {
                    // SAFETY: the address is that of the C function of this name, whose type this is. Relaxed: written
                    // before the hook was put in place, which the caller has come by.
                    unsafe {
                        let function = std::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> $result>(
                            ADDRESS.load(Ordering::Relaxed),
                        );
                        function($($argument),*)
                    }
                }
            })*
        }

        /// All of them.
        pub static HOOKS: &[Hook] = &[
            $(Hook {
                name: match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name without zeros"),
                },
                subject: Subject::$subject,
                function: {
                    // The type is checked here.
                    let function: unsafe extern "C" fn($($type),*) -> $result = match Subject::$subject {
                        Subject::Blocking => original::$name::enter,
                        _ => $function,
                    };
                    function as *const ()
                },
                original: &original::$name::ADDRESS,
                counts: &original::$name::COUNTS,
            }),*
        ];
    };
}

hooks! {
    Identity pthread_self() -> usize = identity::pthread_self;
    Identity pthread_create(thread: *mut usize, attributes: *const pthread_attr_t, start: *const c_void,
        argument: *mut c_void) -> c_int = threads::pthread_create;
    Identity pthread_exit(result: *mut c_void) -> () = crate::context::pass_on;
    Identity pthread_join(thread: usize, result: *mut *mut c_void) -> c_int = threads::pthread_join;
    Identity pthread_timedjoin_np(thread: usize, result: *mut *mut c_void, until: *const timespec) -> c_int =
        threads::pthread_timedjoin_np;
    Identity pthread_clockjoin_np(thread: usize, result: *mut *mut c_void, clock: clockid_t, until: *const timespec)
        -> c_int = threads::pthread_clockjoin_np;
    Identity pthread_detach(thread: usize) -> c_int = threads::pthread_detach;
    Identity pthread_kill(thread: usize, signal: c_int) -> c_int = pthreads::pthread_kill;
    Identity pthread_sigqueue(thread: usize, signal: c_int, value: sigval) -> c_int = pthreads::pthread_sigqueue;
    Identity pthread_setname_np(thread: usize, name: *const c_char) -> c_int = pthreads::pthread_setname_np;
    Identity pthread_getname_np(thread: usize, buffer: *mut c_char, size: size_t) -> c_int =
        pthreads::pthread_getname_np;
    Identity pthread_getattr_np(thread: usize, attributes: *mut pthread_attr_t) -> c_int =
        pthreads::pthread_getattr_np;
    Identity pthread_getcpuclockid(thread: usize, clock: *mut clockid_t) -> c_int = pthreads::pthread_getcpuclockid;
    Identity pthread_setschedparam(thread: usize, policy: c_int, param: *const sched_param) -> c_int =
        pthreads::pthread_setschedparam;
    Identity pthread_getschedparam(thread: usize, policy: *mut c_int, param: *mut sched_param) -> c_int =
        pthreads::pthread_getschedparam;
    Identity pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int =
        pthreads::pthread_sigmask;
    Watched kill(pid: pid_t, signal: c_int) -> c_int = signals::kill;
    Identity sched_setaffinity(pid: pid_t, size: size_t, set: *const c_void) -> c_int = scheduling::sched_setaffinity;
    Identity sched_setscheduler(pid: pid_t, policy: c_int, param: *const sched_param) -> c_int =
        scheduling::sched_setscheduler;
    Identity sched_setparam(pid: pid_t, param: *const sched_param) -> c_int = scheduling::sched_setparam;
    Identity setpriority(which: c_uint, who: id_t, priority: c_int) -> c_int = scheduling::setpriority;
    Identity nice(increment: c_int) -> c_int = scheduling::nice;
    Keys pthread_getspecific(key: pthread_key_t) -> *mut c_void = keys::pthread_getspecific;
    Keys pthread_setspecific(key: pthread_key_t, value: *const c_void) -> c_int = keys::pthread_setspecific;
    Keys pthread_key_create(key: *mut pthread_key_t, destructor: Option<unsafe extern "C" fn(*mut c_void)>) -> c_int =
        keys::pthread_key_create;
    Keys pthread_key_delete(key: pthread_key_t) -> c_int = keys::pthread_key_delete;
    Locals __tls_get_addr(place: *const locals::Place) -> *mut c_void = locals::tls_get_addr;
    Locals __cxa_thread_atexit(destructor: unsafe extern "C" fn(*mut c_void), object: *mut c_void, library: *mut c_void)
        -> c_int = locals::cxa_thread_atexit;
    Identity dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void = install::dlsym;
    Watched sigaction(signal: c_int, new: *const sigaction, old: *mut sigaction) -> c_int = signals::sigaction;
    Watched signal(signal: c_int, handler: usize) -> usize = signals::signal;
    Watched close(fd: c_int) -> c_int = descriptors::close;
    Watched dup2(from: c_int, to: c_int) -> c_int = descriptors::dup2;
    Watched dup3(from: c_int, to: c_int, flags: c_int) -> c_int = descriptors::dup3;
    Watched close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int = descriptors::close_range;
    Watched closefrom(first: c_int) -> () = descriptors::closefrom;
    Clock clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int = clocks::clock_gettime;
    Clock time(result: *mut time_t) -> time_t = clocks::time;
    HostLock pthread_cond_timedwait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, until: *const timespec)
        -> c_int = host_lock::pthread_cond_timedwait;
    Blocking sleep(seconds: c_uint) -> c_uint = sleep::sleep;
    Blocking usleep(us: useconds_t) -> c_int = sleep::usleep;
    Blocking nanosleep(time: *const timespec, left: *mut timespec) -> c_int = sleep::nanosleep;
    Blocking clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int =
        sleep::clock_nanosleep;
    Blocking sched_yield() -> c_int = sleep::sched_yield;
    Blocking sem_wait(semaphore: *mut sem_t) -> c_int = semaphore::sem_wait;
    Blocking sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int = semaphore::sem_timedwait;
    Blocking sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, until: *const timespec) -> c_int =
        semaphore::sem_clockwait;
    Watched sem_post(semaphore: *mut sem_t) -> c_int = semaphore::sem_post;
    Blocking read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t = files::read;
    Blocking __read_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t) -> ssize_t = fortified::read;
    Blocking readv(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t = files::readv;
    Blocking write(fd: c_int, buffer: *const c_void, size: size_t) -> ssize_t = files::write;
    Blocking writev(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t = files::writev;
    Blocking sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t = files::sendfile;
    Blocking sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t = files::sendfile64;
    Blocking recv(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int) -> ssize_t = io::recv;
    Blocking __recv_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t, flags: c_int) -> ssize_t =
        fortified::recv;
    Blocking recvfrom(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int, from: *mut sockaddr,
        from_size: *mut socklen_t) -> ssize_t = io::recvfrom;
    Blocking __recvfrom_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t, flags: c_int,
        from: *mut sockaddr, from_size: *mut socklen_t) -> ssize_t = fortified::recvfrom;
    Blocking recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t = io::recvmsg;
    Blocking recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, time: *mut timespec) -> c_int =
        io::recvmmsg;
    Blocking send(fd: c_int, buffer: *const c_void, size: size_t, flags: c_int) -> ssize_t = io::send;
    Blocking sendto(fd: c_int, buffer: *const c_void, size: size_t, flags: c_int, to: *const sockaddr,
        to_size: socklen_t) -> ssize_t = io::sendto;
    Blocking sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t = io::sendmsg;
    Blocking sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int = io::sendmmsg;
    Blocking accept(fd: c_int, from: *mut sockaddr, size: *mut socklen_t) -> c_int = connect::accept;
    Blocking accept4(fd: c_int, from: *mut sockaddr, size: *mut socklen_t, flags: c_int) -> c_int = connect::accept4;
    Blocking connect(fd: c_int, to: *const sockaddr, size: socklen_t) -> c_int = connect::connect;
    Blocking poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = poll::poll;
    Blocking __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int = fortified::poll;
    Blocking ppoll(fds: *mut pollfd, count: nfds_t, time: *const timespec, mask: *const sigset_t) -> c_int =
        poll::ppoll;
    Blocking select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, time: *mut timeval)
        -> c_int = poll::select;
    Blocking pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, time: *const timespec,
        mask: *const sigset_t) -> c_int = poll::pselect;
    Blocking epoll_wait(epoll: c_int, events: *mut epoll_event, size: c_int, timeout: c_int) -> c_int =
        poll::epoll_wait;
    Blocking epoll_pwait(epoll: c_int, events: *mut epoll_event, size: c_int, timeout: c_int, mask: *const sigset_t)
        -> c_int = poll::epoll_pwait;
    Blocking epoll_pwait2(epoll: c_int, events: *mut epoll_event, size: c_int, time: *const timespec,
        mask: *const sigset_t) -> c_int = poll::epoll_pwait2;
    Blocking wait(status: *mut c_int) -> pid_t = process::wait;
    Blocking wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t = process::wait3;
    Blocking waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t = process::waitpid;
    Blocking wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t = process::wait4;
    Blocking waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int = process::waitid;
    Blocking getaddrinfo(node: *const c_char, service: *const c_char, hints: *const addrinfo,
        result: *mut *mut addrinfo) -> c_int = dns::getaddrinfo;
    Blocking getnameinfo(address: *const sockaddr, size: socklen_t, host: *mut c_char, host_size: socklen_t,
        service: *mut c_char, service_size: socklen_t, flags: c_int) -> c_int = dns::getnameinfo;
}
