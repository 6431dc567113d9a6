//! Signal masks. Faults: a handler for SIGSEGV that may repair, alternate stacks for it, and writing from inside it.
//!
//! What it cannot repair goes to whoever had the signal before, faulthandler or the system's default. Linux.

use crate::primitive::atomic::AtomicU32 as Word;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};

/// A set of signals: bit n - 1 is signal n, as Linux has it.
pub type Mask = u64;

const fn bit(signal: libc::c_int) -> Mask {
    1 << (signal - 1)
}

/// What threads block that are not to take other threads' signals: all but those that a fault of their own raises, those
/// that cannot be blocked, and the C library's own two.
pub const OTHERS: Mask = !(bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS)
    | bit(libc::SIGABRT)
    | bit(libc::SIGKILL)
    | bit(libc::SIGSTOP)
    | bit(32)
    | bit(33));

/// The calling thread's mask.
pub fn mask() -> Mask {
    // SAFETY: a query, which fills the set in and cannot fail; a sigset_t of Linux begins with the kernel's 64 bits.
    unsafe {
        let mut now: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut now);
        (&raw const now).cast::<Mask>().read()
    }
}

/// Sets the calling thread's mask, and gives the one before.
pub fn set_mask(mask: Mask) -> Mask {
    // SAFETY: as in `mask`.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        (&raw mut set).cast::<Mask>().write(mask);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, &raw mut before);
        (&raw const before).cast::<Mask>().read()
    }
}

/// Bytes of an alternate stack: the kernel's frame (up to 12 KiB with the largest register files), and a handler of
/// somebody else's that prints tracebacks.
const ALTERNATE_BYTES: usize = 64 << 10;

/// Looks at a fault at `address`; `true`: repaired, do it again. Runs inside the signal: no lock, no allocation.
pub type Repair = unsafe fn(address: usize) -> bool;

static REPAIR: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::zeroed()));
static INSTALL: Once = Once::new();

/// Who had the signal before.
struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written once, by `INSTALL`, before the handler that reads it is in place.
unsafe impl Sync for Previous {}

/// Puts `repair` in front of the process's handling of SIGSEGV. The first call counts.
pub fn install_repair(repair: Repair) {
    INSTALL.call_once(|| {
        REPAIR.store(repair as *mut (), Ordering::Relaxed); // ordered by the system call below
        // SAFETY: both records are fully initialised; the handler's type is the one SA_SIGINFO asks for.
        unsafe {
            let previous = PREVIOUS.0.get().cast();
            libc::sigaction(libc::SIGSEGV, ptr::null(), previous);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
        }
    });
}

unsafe extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: called by the kernel with valid records; errno is this thread's and put back.
    unsafe {
        let errno = *libc::__errno_location();
        // Sent by a process (si_code <= 0): there is no address.
        if (*info).si_code > 0 {
            let repair = std::mem::transmute::<*mut (), Repair>(REPAIR.load(Ordering::Relaxed));
            if repair((*info).si_addr().addr()) {
                *libc::__errno_location() = errno;
                return;
            }
        }
        let previous: *const libc::sigaction = PREVIOUS.0.get().cast();
        let handler = (*previous).sa_sigaction;
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            // Nobody else wants it: the same instruction faults again, under the system's default.
            libc::sigaction(libc::SIGSEGV, previous, ptr::null_mut());
            if (*info).si_code <= 0 {
                libc::raise(signal);
            }
        } else if (*previous).sa_flags & libc::SA_SIGINFO != 0 {
            type Informed = unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Informed>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<usize, unsafe extern "C" fn(libc::c_int)>(handler)(signal);
        }
        *libc::__errno_location() = errno;
    }
}

/// Gives the calling thread a stack for signal handlers if it has none. Without one an overflow cannot be handled; a
/// refusal of the memory is therefore no error.
pub fn ensure_alternate_stack() {
    // SAFETY: the record is initialised; the memory is given back by `drop_alternate_stack` only.
    unsafe {
        let mut current: libc::stack_t = std::mem::zeroed();
        if libc::sigaltstack(ptr::null(), &raw mut current) != 0 || current.ss_flags & libc::SS_DISABLE == 0 {
            return;
        }
        if let Ok(start) = super::memory::reserve(ALTERNATE_BYTES) {
            let stack =
                libc::stack_t { ss_sp: ptr::with_exposed_provenance_mut(start), ss_flags: 0, ss_size: ALTERNATE_BYTES };
            libc::sigaltstack(&raw const stack, ptr::null_mut());
        }
    }
}

/// Gives that stack back, at the end of the calling thread.
pub fn drop_alternate_stack() {
    // SAFETY: the records are initialised; a stack of this size is one of `ensure_alternate_stack`, and not in use: this is no
    // signal handler.
    unsafe {
        let mut current: libc::stack_t = std::mem::zeroed();
        let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        if libc::sigaltstack(&raw const none, &raw mut current) == 0
            && current.ss_flags & libc::SS_DISABLE == 0
            && current.ss_size == ALTERNATE_BYTES
        {
            super::memory::unmap(current.ss_sp.addr(), ALTERNATE_BYTES);
        }
    }
}

/// Signals that have come and that somebody watches for, as a mask; and the word that he sleeps on.
static CAME: AtomicU64 = AtomicU64::new(0);
static WATCHERS_WORD: OnceLock<&'static Word> = OnceLock::new();

/// Has signal `signal` wake who sleeps on `word`, and do nothing else from now on. One word for all signals: the first counts.
///
/// # Errors
/// What sigaction says.
pub fn watch(signal: i32, word: &'static Word) -> io::Result<()> {
    let _ = WATCHERS_WORD.set(word);
    // SAFETY: the record is fully initialised; the handler's type is the one that goes without SA_SIGINFO.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_watched as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the watched signals that have come since the last call.
pub fn take_watched() -> Mask {
    CAME.swap(0, Ordering::Acquire) // pairs with the Release in `on_watched`
}

/// Sets a bit and wakes a thread: no lock, no memory, and errno stays.
extern "C" fn on_watched(signal: libc::c_int) {
    // SAFETY: errno is this thread's and put back.
    unsafe {
        let errno = *libc::__errno_location();
        CAME.fetch_or(bit(signal), Ordering::Release); // pairs with the Acquire in `take_watched`
        if let Some(word) = WATCHERS_WORD.get() {
            word.fetch_add(1, Ordering::Release); // who is about to sleep does not
            super::futex::wake_one(&raw const **word);
        }
        *libc::__errno_location() = errno;
    }
}

/// What a signal that is watched is called in a dump.
pub fn title(signal: i32) -> &'static str {
    match signal {
        libc::SIGQUIT => "SIGQUIT: quit",
        libc::SIGUSR1 => "SIGUSR1: user-defined signal 1",
        libc::SIGUSR2 => "SIGUSR2: user-defined signal 2",
        libc::SIGHUP => "SIGHUP: hangup",
        libc::SIGINT => "SIGINT: interrupt",
        libc::SIGTERM => "SIGTERM: terminated",
        libc::SIGALRM => "SIGALRM: alarm clock",
        _ => "signal",
    }
}

/// Writes all of it to stderr, as far as that takes it.
pub fn write_all_stderr(mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: the slice is readable; the record is initialised.
        unsafe {
            let count = libc::write(2, text.as_ptr().cast(), text.len());
            if count >= 0 {
                text = &text[count as usize..];
                continue;
            }
            let error = *libc::__errno_location();
            let mut room = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
            let goes_on = error == libc::EINTR || error == libc::EAGAIN && libc::poll(&raw mut room, 1, FULL_MS) != 0;
            if !goes_on {
                return;
            }
        }
    }
}

/// How long it may stay full before what is to be written is given up, ms.
const FULL_MS: libc::c_int = 5_000;

/// Writes to stderr with one system call per piece. Fit for a signal handler.
pub fn write_stderr(pieces: &[&[u8]]) {
    for piece in pieces {
        // SAFETY: the slice is readable; an error leaves nothing to be done.
        unsafe { libc::write(2, piece.as_ptr().cast(), piece.len()) };
    }
}
