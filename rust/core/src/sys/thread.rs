//! OS threads. Started by pthread_create itself: the host may end them by unwinding, which `std::thread` does not allow.

#[cfg(not(shuttle))]
use crate::primitive::boxes::try_box;
use crate::primitive::tries::try_push;
use std::ffi::CStr;
use std::io;
#[cfg(target_os = "linux")]
use std::io::{Read, Write};
use std::sync::OnceLock;

/// The ids of all threads of this process; `false`: not all of them, for lack of a descriptor or of memory. Reads /proc; none where
/// that is not.
#[must_use]
pub fn all(ids: &mut Vec<u32>) -> bool {
    ids.clear();
    let mut is_whole = true;
    // SAFETY: a folder that is open until `closedir`; an entry is valid until the next call.
    unsafe {
        let folder = libc::opendir(c"/proc/self/task".as_ptr());
        if folder.is_null() {
            return false;
        }
        while let Some(entry) = libc::readdir(folder).as_ref() {
            let name = CStr::from_ptr(entry.d_name.as_ptr()).to_str();
            if let Some(id) = name.ok().and_then(|name| name.parse().ok()) {
                is_whole &= try_push(ids, id).is_some();
            }
        }
        libc::closedir(folder);
    }
    is_whole
}

/// Names the calling thread (15 bytes are kept).
pub fn set_name(name: &CStr) {
    // SAFETY: PR_SET_NAME reads a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// The kernel's id of the calling thread.
pub fn tid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Sends a signal to the thread `tid` of this process, with `si_code` and `si_errno` as given: a code of the system's own, such as
/// SI_USER, to the calling thread only. Gives what the system call does. Fit for a signal handler.
pub fn send_signal(tid: u32, signal: i32, si_code: i32, si_errno: i32) -> i32 {
    // SAFETY: the record is filled in as the kernel's is: process and user id follow the three numbers (signal, errno, code) at the
    // next multiple of 8.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        info.si_errno = si_errno;
        info.si_code = si_code;
        let sender = (&raw mut info).cast::<i32>().add(4);
        sender.write(libc::getpid());
        sender.cast::<libc::uid_t>().add(1).write(libc::getuid());
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), tid, signal, &raw const info) as i32
    }
}

/// The calling thread as C code knows it: its `pthread_t`.
pub fn identity() -> usize {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::pthread_self() as usize }
}

/// Whether the calling thread is the process's first.
pub fn is_main() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { tid() == libc::getpid() as u32 }
}

/// Has `end` called, once, when the calling thread returns or is ended by pthread_exit. `false`: the system refuses.
pub fn at_thread_end(end: fn()) -> bool {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
    unsafe extern "C" fn destructor(end: *mut libc::c_void) {
        // SAFETY: the value is the function set below.
        unsafe { std::mem::transmute::<*mut libc::c_void, fn()>(end)() };
    }
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the key is ours, and its values are functions.
        (unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) } == 0).then_some(key)
    });
    // SAFETY: our own key.
    key.is_some_and(|key| unsafe { libc::pthread_setspecific(key, end as *const libc::c_void) } == 0)
}

/// Ends the process at once.
pub fn end_process(code: i32) -> ! {
    // SAFETY: nothing of the process runs any more.
    unsafe { libc::_exit(code) }
}

/// Ends the process as the end of its last thread does: with code 0.
pub fn exit_process() -> ! {
    // SAFETY: what C code left for the end runs, as it does then.
    unsafe { libc::exit(0) }
}

// linux/membarrier.h; not in libc 0.2.191.
const MEMBARRIER_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// A full fence in every thread of this process before it returns. `false`: this system does not do it.
pub fn fence_all() -> bool {
    let command = |command: libc::c_int| {
        // SAFETY: no pointers.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    };
    command(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED) && command(MEMBARRIER_PRIVATE_EXPEDITED)
}

#[cfg(not(shuttle))]
struct Start {
    main: unsafe extern "C-unwind" fn(*mut u8),
    argument: *mut u8,
}

#[cfg(not(shuttle))]
extern "C-unwind" fn trampoline(start: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `spawn_raw` passed a leaked box; taken back before `main`, which may not return.
    let (main, argument) = unsafe {
        let start = Box::from_raw(start.cast::<Start>());
        (start.main, start.argument)
    };
    super::signal::set_mask(super::signal::OTHERS);
    super::scheduling::begin_thread();
    // SAFETY: the contract of `spawn_raw`.
    unsafe { main(argument) };
    std::ptr::null_mut()
}

/// Starts a detached thread that runs `main(argument)` and takes nobody's signals.
///
/// # Errors
/// What pthread_create says (EAGAIN at a limit), or OutOfMemory.
///
/// # Safety
/// `main` may be called with `argument` on another thread.
#[cfg(not(shuttle))]
pub unsafe fn spawn_raw(main: unsafe extern "C-unwind" fn(*mut u8), argument: *mut u8) -> io::Result<()> {
    let start = try_box(Start { main, argument }).ok_or(io::ErrorKind::OutOfMemory)?;
    let start = Box::into_raw(start);
    // SAFETY: attributes are initialised before use and destroyed after; the function type differs from libc's only in
    // that it may unwind, which pthread_exit needs.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        libc::pthread_attr_init(&raw mut attr);
        libc::pthread_attr_setdetachstate(&raw mut attr, libc::PTHREAD_CREATE_DETACHED);
        let mut id: libc::pthread_t = std::mem::zeroed();
        let function: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void =
            std::mem::transmute(trampoline as extern "C-unwind" fn(*mut libc::c_void) -> *mut libc::c_void);
        let rc = libc::pthread_create(&raw mut id, &raw const attr, function, start.cast());
        libc::pthread_attr_destroy(&raw mut attr);
        if rc != 0 {
            drop(Box::from_raw(start));
            return Err(io::Error::from_raw_os_error(rc));
        }
    }
    Ok(())
}

/// Starts a thread of the model's.
///
/// # Errors
/// None.
///
/// # Safety
/// As for the system's.
#[cfg(shuttle)]
pub unsafe fn spawn_raw(main: unsafe extern "C-unwind" fn(*mut u8), argument: *mut u8) -> io::Result<()> {
    // SAFETY: the caller's promise.
    crate::primitive::thread::start(move || unsafe { main(argument) });
    Ok(())
}

/// Where the stack of a thread of this process ends that is in a system call; `None` if it runs, or nobody tells. Asks for no memory.
#[cfg(target_os = "linux")]
pub fn stack_in_call(tid: u32) -> Option<usize> {
    // "number, six arguments, stack pointer, program counter", or "running"
    let mut path = [0; 64];
    let mut rest = &mut path[..];
    write!(rest, "/proc/self/task/{tid}/syscall").ok()?;
    let unused = rest.len();
    let path = std::str::from_utf8(&path[..path.len() - unused]).ok()?;
    let mut text = [0; 256];
    let len = std::fs::File::open(path).and_then(|mut file| file.read(&mut text)).ok()?;
    let text = std::str::from_utf8(&text[..len]).ok()?;
    let pointer = text.split_ascii_whitespace().rev().nth(1)?;
    usize::from_str_radix(pointer.strip_prefix("0x")?, 16).ok()
}

/// Not told here.
#[cfg(not(target_os = "linux"))]
pub fn stack_in_call(_tid: u32) -> Option<usize> {
    None
}

/// Reads memory that may be gone, or change meanwhile; returns how many words there were.
#[cfg(target_os = "linux")]
pub fn peek(address: usize, words: &mut [usize]) -> usize {
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(words) };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: local.iov_len };
    // SAFETY: the kernel writes into `words` only, and reads what is mapped of the rest.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).unwrap_or(0) / size_of::<usize>()
}

/// Nothing is read here.
#[cfg(not(target_os = "linux"))]
pub fn peek(_address: usize, _words: &mut [usize]) -> usize {
    0
}
