//! CPython's memory from the core's allocator: what `PyMem_SetAllocator` is told.
//!
//! The mem and obj domains are called with the GIL, so one cache serves them (`alloc::domains`); raw is called by anybody.
//! Interpreters with a GIL of their own share the functions, and are served as those without a lock are. What was
//! allocated before is known by its address, and goes to who served it then.
//!
//! Debug hooks and tracemalloc lie above: they keep their place, and what is beneath them is exchanged. One word at a time,
//! beside threads that use the raw domain: each of CPython's functions and of these works without its `ctx`.
//!
//! Nothing here calls Python or the scheduler. The heap stays for good: finalisation frees through it to the end.

use crate::error;
use gort_core::alloc::{Config, Domains, ForkHold, Stats};
use gort_core::sched::Runtime;
use gort_core::sys::over_fork::OverFork;
use pyo3::ffi;
use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

type Interpreter = *mut ffi::PyInterpreterState;
type Allocator = ffi::PyMemAllocatorEx;

unsafe extern "C" {
    fn gort_newest_interpreter() -> *const AtomicPtr<ffi::PyInterpreterState>;
    fn gort_in_main_interpreter() -> c_int;
    fn gort_beneath(allocator: *mut Allocator, id: c_char, is_tracing: c_int) -> *mut Allocator;
}

/// What a program frees at once it soon wants again: a few thousand objects of each size are then kept by address alone.
const TRANSFER_BATCHES: usize = 32;
const RAW: usize = 0;
const MEM: usize = 1;
const OBJ: usize = 2;
const DOMAINS: [(ffi::PyMemAllocatorDomain, u8); 3] = [
    (ffi::PyMemAllocatorDomain::PYMEM_DOMAIN_RAW, b'r'),
    (ffi::PyMemAllocatorDomain::PYMEM_DOMAIN_MEM, b'm'),
    (ffi::PyMemAllocatorDomain::PYMEM_DOMAIN_OBJ, b'o'),
];
const NO_ALLOCATOR: Allocator =
    Allocator { ctx: ptr::null_mut(), malloc: None, calloc: None, realloc: None, free: None };

/// Written by `install` before the functions below are anybody's to call.
struct Place<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: as its text says; afterwards it is only read.
unsafe impl<T> Sync for Place<T> {}

impl<T> Place<T> {
    const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// # Safety
    /// It was written.
    #[inline(always)]
    unsafe fn get(&self) -> &T {
        // SAFETY: the caller's promise.
        unsafe { (*self.0.get()).assume_init_ref() }
    }
}

static MEMORY: Place<Domains> = Place::new();
/// Who served each domain before.
static BEFORE: Place<[Allocator; 3]> = Place::new();
/// The interpreter whose GIL is the lock of the cache, and where the newest one stands.
static MAIN: Place<(Interpreter, *const AtomicPtr<ffi::PyInterpreterState>)> = Place::new();
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Whether there is one interpreter, so that the caller, in the mem or obj domain, has the lock of the cache.
#[inline(always)]
unsafe fn is_alone() -> bool {
    // SAFETY: written at `install`; the word is CPython's and stays. Who is of another interpreter sees that there is one:
    // its own thread, or the one that started it, wrote it. So Relaxed: nothing else is read by way of the word.
    unsafe {
        let (main, newest) = *MAIN.get();
        (*newest).load(Ordering::Relaxed) == main
    }
}

/// Whether the caller, in the mem or obj domain, has the lock of the cache.
unsafe fn is_locked() -> bool {
    // SAFETY: as above.
    unsafe { is_alone() || gort_in_main_interpreter() != 0 }
}

// SAFETY, of all that follow: CPython's rules for a domain's functions. They are called after `install` wrote the statics;
// mem and obj with the caller's GIL; and with addresses that are live and of this domain.

extern "C" fn malloc(_: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: see above.
    unsafe { if is_alone() { MEMORY.get().alloc(bytes).cast() } else { malloc_among_others(bytes) } }
}

#[cold]
#[inline(never)]
unsafe fn malloc_among_others(bytes: usize) -> *mut c_void {
    // SAFETY: see above.
    let memory = unsafe { MEMORY.get() };
    // SAFETY: see above.
    unsafe { if is_locked() { memory.alloc(bytes) } else { memory.open_alloc(bytes) } }.cast()
}

extern "C" fn calloc(_: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
    let Some(total) = count.checked_mul(bytes) else { return ptr::null_mut() };
    // SAFETY: see above.
    unsafe { if is_locked() { MEMORY.get().alloc_zeroed(total).cast() } else { raw_calloc(ptr::null_mut(), 1, total) } }
}

/// `realloc` of one domain; the domain matters for what is from before.
#[inline(always)]
unsafe fn realloc<const DOMAIN: usize>(object: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: see above.
    unsafe {
        let is_locked = DOMAIN != RAW && is_locked();
        let memory = MEMORY.get();
        let resized = match (object.is_null(), is_locked) {
            (true, true) => Some(memory.alloc(bytes)),
            (true, false) => Some(memory.open_alloc(bytes)),
            (false, true) => memory.resize(object.cast(), bytes),
            (false, false) => memory.open_resize(object.cast(), bytes),
        };
        let before = &BEFORE.get()[DOMAIN];
        match (resized, before.realloc) {
            (Some(resized), _) => resized.cast(),
            (None, Some(realloc)) => realloc(before.ctx, object, bytes),
            (None, None) => ptr::null_mut(),
        }
    }
}

#[cold]
#[inline(never)]
unsafe fn free_slowly(domain: usize, object: *mut c_void) {
    // SAFETY: see above.
    unsafe {
        let (memory, before) = (MEMORY.get(), &BEFORE.get()[domain]);
        let is_locked = domain != RAW && is_locked();
        let done = if is_locked { memory.free(object.cast()) } else { memory.open_free(object.cast()) };
        if !done && let Some(free) = before.free {
            free(before.ctx, object);
        }
    }
}

#[inline(always)]
unsafe fn free<const DOMAIN: usize>(object: *mut c_void) {
    // SAFETY: see above.
    unsafe {
        if DOMAIN == RAW || !is_alone() || !MEMORY.get().free_at_once(object.cast()) {
            free_slowly(DOMAIN, object);
        }
    }
}

extern "C" fn mem_realloc(_: *mut c_void, object: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: see above.
    unsafe { realloc::<MEM>(object, bytes) }
}

extern "C" fn mem_free(_: *mut c_void, object: *mut c_void) {
    // SAFETY: see above.
    unsafe { free::<MEM>(object) }
}

extern "C" fn obj_realloc(_: *mut c_void, object: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: see above.
    unsafe { realloc::<OBJ>(object, bytes) }
}

extern "C" fn obj_free(_: *mut c_void, object: *mut c_void) {
    // SAFETY: see above.
    unsafe { free::<OBJ>(object) }
}

extern "C" fn raw_malloc(_: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: see above.
    unsafe { MEMORY.get().open_alloc(bytes).cast() }
}

extern "C" fn raw_calloc(_: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
    let Some(total) = count.checked_mul(bytes) else { return ptr::null_mut() };
    // SAFETY: see above.
    unsafe { MEMORY.get().open_alloc_zeroed(total).cast() }
}

extern "C" fn raw_realloc(_: *mut c_void, object: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: see above.
    unsafe { realloc::<RAW>(object, bytes) }
}

extern "C" fn raw_free(_: *mut c_void, object: *mut c_void) {
    // SAFETY: see above.
    unsafe { free::<RAW>(object) }
}

fn functions(domain: usize) -> Allocator {
    let (malloc, calloc): (extern "C" fn(_, _) -> _, extern "C" fn(_, _, _) -> _) =
        if domain == RAW { (raw_malloc, raw_calloc) } else { (malloc, calloc) };
    let (realloc, free): (extern "C" fn(_, _, _) -> _, extern "C" fn(_, _)) = match domain {
        RAW => (raw_realloc, raw_free),
        MEM => (mem_realloc, mem_free),
        _ => (obj_realloc, obj_free),
    };
    Allocator {
        ctx: ptr::null_mut(),
        malloc: Some(malloc),
        calloc: Some(calloc),
        realloc: Some(realloc),
        free: Some(free),
    }
}

/// Where a domain's lowest functions stand; `None` if what is above them is unknown. Null: there are no hooks.
unsafe fn lowest(domain: usize, is_tracing: bool) -> Option<*mut Allocator> {
    let mut top = NO_ALLOCATOR;
    let (name, id) = DOMAINS[domain];
    // SAFETY: GIL held; what is found is CPython's own and stays.
    unsafe {
        ffi::PyMem_GetAllocator(name, &mut top);
        let mut found = ptr::null_mut();
        let mut at: *mut Allocator = &mut top;
        // tracemalloc lies above debug hooks, never below: it looks at its own once.
        for is_tracing in [is_tracing, false] {
            match gort_beneath(at, id as c_char, c_int::from(is_tracing)) {
                beneath if beneath.is_null() => return Some(found),
                beneath if beneath.addr() == usize::MAX => return None,
                beneath => (at, found) = (beneath, beneath),
            }
        }
        (*at).ctx.is_null().then_some(found)
    }
}

/// Whether tracemalloc is on; `None` with an exception set.
unsafe fn is_tracing() -> Option<bool> {
    // SAFETY: GIL held.
    unsafe {
        let module = ffi::PyImport_ImportModule(c"_tracemalloc".as_ptr());
        if module.is_null() {
            return None;
        }
        let answer = ffi::PyObject_CallMethod(module, c"is_tracing".as_ptr(), ptr::null());
        ffi::Py_DECREF(module);
        if answer.is_null() {
            return None;
        }
        let is = ffi::PyObject_IsTrue(answer);
        ffi::Py_DECREF(answer);
        (is >= 0).then_some(is != 0)
    }
}

/// Whether the hooks that are on top are tracemalloc's own: it keeps what lies beneath in three neighbours.
unsafe fn is_tracing_on_top() -> Option<bool> {
    // SAFETY: GIL held.
    unsafe {
        let is_tracing = is_tracing()?;
        let places = DOMAINS.map(|(name, _)| {
            let mut top = NO_ALLOCATOR;
            ffi::PyMem_GetAllocator(name, &mut top);
            top.ctx.addr()
        });
        let (first, last) = (places[0].min(places[1]).min(places[2]), places[0].max(places[1]).max(places[2]));
        Some(is_tracing && last - first == 2 * size_of::<Allocator>())
    }
}

/// What a fork holds, of the thread that forks.
static HELD: OverFork<ForkHold<'static>> = OverFork::new();

unsafe extern "C" fn before_fork() {
    // SAFETY: registered after the statics were written.
    let held = unsafe { MEMORY.get() }.hold_for_fork();
    // SAFETY: whoever else comes here waits for the locks that are held.
    unsafe { HELD.put(held) };
}

unsafe extern "C" fn after_fork() {
    if let Some(held) = HELD.take() {
        // SAFETY: as in `before_fork`.
        unsafe { MEMORY.get() }.let_go(held);
    }
}

/// Serves CPython's domains from now on. `Some(false)`: it already did. `None` with an exception set. Main interpreter.
///
/// # Safety
/// GIL held.
pub(crate) unsafe fn install() -> Option<bool> {
    if INSTALLED.load(Ordering::Relaxed) {
        return Some(false); // the GIL orders it, here and below
    }
    // SAFETY: GIL held; nobody calls a function that reads the statics before they are told to CPython.
    unsafe {
        let is_tracing = is_tracing_on_top()?;
        let mut places = [ptr::null_mut(); 3];
        for (domain, place) in places.iter_mut().enumerate() {
            let Some(found) = lowest(domain, is_tracing) else {
                let text = "another tool watches Python's memory: call gort.memory.install() before it begins";
                error::set(ffi::PyExc_RuntimeError, text);
                return None;
            };
            *place = found;
        }
        let memory = match Domains::new(Config {
            transfer_batches: TRANSFER_BATCHES,
            leaves_headroom: false,
            ..Config::default()
        }) {
            Ok(memory) => memory,
            Err(_) => {
                ffi::PyErr_NoMemory();
                return None;
            }
        };
        let mut before = [NO_ALLOCATOR; 3];
        for (domain, old) in before.iter_mut().enumerate() {
            match places[domain].as_ref() {
                Some(place) => *old = *place,
                None => ffi::PyMem_GetAllocator(DOMAINS[domain].0, old),
            }
        }
        (*MEMORY.0.get()).write(memory);
        (*BEFORE.0.get()).write(before);
        (*MAIN.0.get()).write((ffi::PyInterpreterState_Main(), gort_newest_interpreter()));
        if libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) != 0 {
            ffi::PyErr_NoMemory();
            return None;
        }
        INSTALLED.store(true, Ordering::Release); // pairs with nothing but the GIL
        Runtime::release_too(MEMORY.get().heap());
        for (domain, place) in places.into_iter().enumerate() {
            let mut ours = functions(domain);
            if place.is_null() {
                ffi::PyMem_SetAllocator(DOMAINS[domain].0, &mut ours);
            } else {
                place.write(ours);
            }
        }
    }
    Some(true)
}

/// What the heap says of itself; `None` before `install`.
pub(crate) fn stats() -> Option<Stats> {
    // SAFETY: written.
    INSTALLED.load(Ordering::Relaxed).then(|| unsafe { MEMORY.get() }.heap().stats())
}

/// Has the caches give back what they hold.
///
/// # Safety
/// GIL held, the main interpreter's.
pub(crate) unsafe fn flush() {
    if INSTALLED.load(Ordering::Relaxed) {
        // SAFETY: written; the caller's promise.
        unsafe { MEMORY.get().flush() };
    }
}
