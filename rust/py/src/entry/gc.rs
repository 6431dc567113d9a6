//! Passes of CPython's collector: counted, timed, and undisturbed.
//!
//! `gc.callbacks` calls `_gc_begins` and `_gc_ends`, on the goroutine or thread that collects. In between that goroutine is
//! not preempted: finalizers and other callbacks run there, and as long as one has not come back nobody else can collect. A
//! finalizer that waits of its own accord parks all the same. After a full pass caches are let go of.
//! CPython swallows what is raised in a pass, GoroutineExit of a cancellation included. So `_gc_begins` is the first of all
//! callbacks and `_gc_ends` the last, and who was asked to end is asked again after the pass.
//! All state is read and written with the GIL held, and never over a call that could let go of it.

use super::{counts, none, plain, positional, runtime, select};
use crate::error;
use crate::host;
use crate::task;
use gort_core::event::{self, Kind};
use gort_core::goroutine::Goroutine;
use gort_core::goroutine::host::HostThread;
use gort_core::sched::{self, traced::traced_caller};
use gort_core::sys::clock;
use pyo3::ffi;
use std::cell::UnsafeCell;
use std::fs::File;
use std::io::Read;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

/// While it lives the collector does not run on its own, so that no code of others does: goroutines, states and what is kept of them
/// stay as they are. Begun and dropped with the GIL held, and not kept over a park.
pub(super) struct Uncollected {
    was_on: bool,
}

impl Uncollected {
    /// # Safety
    /// The caller has the GIL until it is dropped.
    pub(super) unsafe fn begin() -> Self {
        // SAFETY: GIL held.
        Self { was_on: unsafe { ffi::PyGC_Disable() } != 0 }
    }
}

impl Drop for Uncollected {
    fn drop(&mut self) {
        if self.was_on {
            // SAFETY: GIL held, by the promise of who began.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

/// Seconds over which the rate of passes is told.
const WINDOW_S: usize = 60;

struct Passes {
    by_generation: [u64; 3],
    collected: u64,
    uncollectable: u64,
    /// Goroutines that ended because nothing could wake them.
    unreachable: u64,
    total_ns: u64,
    /// CPU time of the process in passes.
    cpu_ns: u64,
    last_ns: u64,
    longest_ns: u64,
    /// When the pass in progress began; 0: none is.
    began_ns: u64,
    began_cpu_ns: u64,
    /// Who collects, and its number: descriptors are used again. Null: a plain thread, or nobody.
    collector: (*mut Goroutine, u64),
    /// The collector was asked to end, and CPython swallows what is raised in a pass: it is asked again afterwards.
    is_to_end: bool,
    /// How many began in each of the last `WINDOW_S` seconds, and in which second the newest did.
    per_second: [u32; WINDOW_S],
    second: u64,
}

struct Shared(UnsafeCell<Passes>);
// SAFETY: see the head of this file.
unsafe impl Sync for Shared {}

static PASSES: Shared = Shared(UnsafeCell::new(Passes {
    by_generation: [0; 3],
    collected: 0,
    uncollectable: 0,
    unreachable: 0,
    total_ns: 0,
    cpu_ns: 0,
    last_ns: 0,
    longest_ns: 0,
    began_ns: 0,
    began_cpu_ns: 0,
    collector: (ptr::null_mut(), 0),
    is_to_end: false,
    per_second: [0; WINDOW_S],
    second: 0,
}));

/// `_gc_begins`, `_gc_ends` and gc.callbacks; null until the runtime begins, then owned.
static BEGINS: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static ENDS: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static CALLBACKS: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// A pass that took so long has those wait who are ready: they have their turn after it. A slice, ns.
const LONG_NS: u64 = 10_000_000;

/// What Python code is called after a pass, or null; owned.
static HOOK: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
/// Keys of the dict that the collector passes; interned, never freed.
static KEYS: [AtomicPtr<ffi::PyObject>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

impl Passes {
    /// Forgets the seconds that are out of the window by `now_ns`.
    fn advance(&mut self, now_ns: u64) {
        let second = now_ns / 1_000_000_000;
        let passed = second.saturating_sub(self.second).min(WINDOW_S as u64);
        for back in 0..passed {
            self.per_second[((second - back) % WINDOW_S as u64) as usize] = 0;
        }
        self.second = self.second.max(second);
    }

    /// By `change`, how many reasons the collector has not to be preempted, if it still is who it was.
    ///
    /// # Safety
    /// GIL held.
    unsafe fn hold_collector(&self, change: i32) {
        let (g, id) = self.collector;
        // SAFETY: descriptors are never freed; a bundle is its goroutine's.
        unsafe {
            if !g.is_null()
                && (*g).id == id
                && let Some(bundle) = (*g).bundle.as_mut()
            {
                bundle.no_preempt = bundle.no_preempt.saturating_add_signed(change);
            }
        }
    }

    unsafe fn begin(&mut self) {
        // SAFETY: GIL held; the running goroutine is alive.
        unsafe {
            self.let_go(); // if somebody emptied gc.callbacks in the middle of the last one
            let g = sched::current_goroutine();
            self.collector = (g, if g.is_null() { 0 } else { (*g).id });
            self.hold_collector(1);
            // What was to be raised where the evaluator looks next would be in here.
            self.is_to_end = !g.is_null() && host::gort_is_raised_soon(error::goroutine_exit(), 1) != 0;
        }
        self.began_ns = clock::now_ns();
        self.began_cpu_ns = clock::process_cpu_ns();
        self.advance(self.began_ns);
        self.per_second[(self.second % WINDOW_S as u64) as usize] += 1;
    }

    /// The collector is one like any other again.
    unsafe fn let_go(&mut self) {
        // SAFETY: GIL held; descriptors are never freed, and with a goroutine there is a runtime.
        unsafe {
            self.hold_collector(-1);
            let (g, id) = self.collector;
            if self.is_to_end && !g.is_null() && (*g).id == id {
                (*task::runtime_or_null()).ask_to_end(g);
            }
        }
        (self.collector, self.is_to_end) = ((ptr::null_mut(), 0), false);
    }

    /// The pass in progress is over; how long it was.
    fn end(&mut self, [generation, collected, uncollectable]: [u64; 3]) -> u64 {
        let ns = clock::now_ns().saturating_sub(self.began_ns);
        self.began_ns = 0;
        self.by_generation[(generation as usize).min(2)] += 1;
        self.collected += collected;
        self.uncollectable += uncollectable;
        self.total_ns += ns;
        self.cpu_ns += clock::process_cpu_ns().saturating_sub(self.began_cpu_ns);
        self.last_ns = ns;
        self.longest_ns = self.longest_ns.max(ns);
        ns
    }
}

/// Whether the pass in progress is on the stack of the goroutine with this state. That stack holds heads of the collector's lists,
/// into which others write that let go of an object: it has to stay where it is while its goroutine is parked.
pub(crate) fn is_collector(thread: HostThread) -> bool {
    // SAFETY: GIL held by every caller; descriptors are never freed, and a bundle is its goroutine's.
    unsafe {
        let (g, id) = (*PASSES.0.get()).collector;
        !g.is_null() && (*g).id == id && (*g).bundle.as_ref().is_some_and(|bundle| bundle.host == thread)
    }
}

/// `g` is raised a GoroutineExit. In a finalizer of a pass that is swallowed.
pub(crate) fn note_exit(g: *mut Goroutine) {
    // SAFETY: GIL held by every caller.
    let passes = unsafe { &mut *PASSES.0.get() };
    passes.is_to_end |= passes.collector.0 == g;
}

/// A goroutine that nothing could wake has ended.
#[cold]
pub(crate) fn note_unreachable() {
    // SAFETY: GIL held by every caller.
    unsafe { (*PASSES.0.get()).unreachable += 1 }
}

/// Whether the arguments of a callback are those of the beginning of a pass. `None`: an exception is set.
unsafe fn is_start(args: *const Object, nargs: ffi::Py_ssize_t) -> Option<bool> {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 2 || ffi::PyUnicode_Check(*args) == 0 || ffi::PyDict_Check(*args.add(1)) == 0 {
            error::set(ffi::PyExc_TypeError, "a callback of gc takes a phase and a dict");
            return None;
        }
        Some(ffi::PyUnicode_CompareWithASCIIString(*args, c"start".as_ptr()) == 0)
    }
}

/// `_gc_begins(phase, info)`, in gc.callbacks.
unsafe extern "C-unwind" fn gc_begins(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        match is_start(args, nargs) {
            Some(true) => {
                super::context::let_spent_go();
                (*PASSES.0.get()).begin();
                trace_pass(Kind::CollectBegin);
                keep_order();
            }
            Some(false) => {}
            None => return ptr::null_mut(),
        }
    }
    none()
}

/// Puts our callbacks where they belong, if somebody put others in front or behind. The collector goes through the list by
/// number, and is at ours: none of the others is left out.
#[inline]
unsafe fn keep_order() {
    let [list, begins, ends] = [&CALLBACKS, &BEGINS, &ENDS].map(|place| place.load(Ordering::Relaxed));
    if list.is_null() {
        return; // called by somebody else before the runtime began
    }
    // SAFETY: GIL held; the list is the interpreter's.
    unsafe {
        let n = ffi::PyList_GET_SIZE(list);
        if n > 0 && ffi::PyList_GET_ITEM(list, n - 1) != ends {
            move_in(list, ends, n);
        }
        if n > 0 && ffi::PyList_GET_ITEM(list, 0) != begins {
            move_in(list, begins, 0);
        }
    }
}

/// Moves `item` to `place`, where it is inserted if it was not in the list.
#[cold]
unsafe fn move_in(list: Object, item: Object, place: isize) {
    // SAFETY: GIL held. Inserted first: memory that is refused then leaves everything as it was.
    unsafe {
        if ffi::PyList_Insert(list, place, item) == 0 {
            for i in 0..ffi::PyList_GET_SIZE(list) {
                if ffi::PyList_GET_ITEM(list, i) == item && i != place {
                    ffi::PyList_SetSlice(list, i, i + 1, ptr::null_mut());
                    break;
                }
            }
        }
        ffi::PyErr_Clear();
    }
}

/// `_gc_ends(phase, info)`, in gc.callbacks.
unsafe extern "C-unwind" fn gc_ends(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL; the collector passes a str and a dict.
    unsafe {
        let passes = PASSES.0.get();
        match is_start(args, nargs) {
            Some(false) if (*passes).began_ns != 0 => {}
            Some(_) => return none(), // or it began before we were there
            None => return ptr::null_mut(),
        }
        let mut numbers = [0; 3];
        for (number, key) in numbers.iter_mut().zip(&KEYS) {
            let value = ffi::PyDict_GetItemWithError(*args.add(1), key.load(Ordering::Relaxed));
            if !value.is_null() {
                *number = ffi::PyLong_AsUnsignedLongLong(value);
            }
        }
        ffi::PyErr_Clear(); // another collector's dict has other numbers
        let ns = (*passes).end(numbers);
        if let Some(rt) = task::runtime_or_null().as_ref() {
            rt.note_pass(ns);
        }
        trace_pass(Kind::CollectEnd);
        if numbers[0] >= 2 {
            select::forget_cases();
            host::gort_forget_chunks();
        }
        call_hook(numbers[0], ns);
        let g = (*passes).collector.0;
        (*passes).let_go();
        if ns >= LONG_NS && g == sched::current_goroutine() && !g.is_null() && !(*(*g).bundle).is_thread {
            host::gort_interrupt(ffi::PyThreadState_Get());
        }
        none()
    }
}

/// Notes for a trace that a pass begins or ends, and with an end what gort's heap holds.
#[inline]
unsafe fn trace_pass(kind: Kind) {
    if !event::is_on() {
        return;
    }
    // SAFETY: null or the runtime, which is leaked.
    if let Some(rt) = unsafe { task::runtime_or_null().as_ref() } {
        rt.trace(kind, 0, traced_caller(), 0);
        if kind == Kind::CollectEnd {
            rt.trace(Kind::Heap, 0, rt.heap().used_bytes() as u64, 0);
        }
    }
}

/// Calls the hook, if there is one; it may run anything.
unsafe fn call_hook(generation: u64, ns: u64) {
    let (hook, rt) = (HOOK.load(Ordering::Relaxed), task::runtime_or_null());
    // SAFETY: the runtime is leaked. Relaxed: under the GIL.
    if hook.is_null() || rt.is_null() || unsafe { (*rt).stopping.load(Ordering::Relaxed) } {
        return; // at exit the hook would find nothing to work with
    }
    // SAFETY: GIL held; the hook is kept over the call, which may set another.
    unsafe {
        ffi::Py_INCREF(hook);
        let done = ffi::PyObject_CallFunction(hook, c"KK".as_ptr(), generation, ns);
        if done.is_null() {
            ffi::PyErr_WriteUnraisable(hook);
        }
        ffi::Py_XDECREF(done);
        ffi::Py_DECREF(hook);
    }
}

/// `_gc_hook(function)`: what is called with generation and nanoseconds at the end of each pass; None for nothing.
unsafe extern "C-unwind" fn gc_hook(_m: Object, function: Object) -> Object {
    // SAFETY: METH_O with the GIL. The old one goes last: that may run anything.
    unsafe {
        if runtime().is_none() {
            return ptr::null_mut(); // with it the passes are told of
        }
        let new = if function == ffi::Py_None() { ptr::null_mut() } else { ffi::Py_NewRef(function) };
        ffi::Py_XDECREF(HOOK.swap(new, Ordering::Relaxed));
        none()
    }
}

/// `_gc_stats()`: what was counted since the runtime began.
unsafe extern "C-unwind" fn gc_stats(_m: Object, _: Object) -> Object {
    if runtime().is_none() {
        return ptr::null_mut();
    }
    // SAFETY: GIL held.
    let passes = unsafe { &mut *PASSES.0.get() };
    let now_ns = clock::now_ns();
    passes.advance(now_ns);
    let running_ns = if passes.began_ns == 0 { 0 } else { now_ns - passes.began_ns };
    let last_minute = passes.per_second.iter().map(|&n| u64::from(n)).sum();
    counts(&[
        (c"young", passes.by_generation[0]),
        (c"middle", passes.by_generation[1]),
        (c"full", passes.by_generation[2]),
        (c"collected", passes.collected),
        (c"uncollectable", passes.uncollectable),
        (c"unreachable", passes.unreachable),
        (c"total_ns", passes.total_ns),
        (c"cpu_ns", passes.cpu_ns),
        (c"last_ns", passes.last_ns),
        (c"longest_ns", passes.longest_ns),
        (c"running_ns", running_ns),
        (c"last_minute", last_minute),
    ])
}

/// `_gc_tracked()`: how many objects the collector looks at.
unsafe extern "C-unwind" fn gc_tracked(_m: Object, _: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { ffi::PyLong_FromSsize_t(host::gort_count_tracked()) }
}

/// Resident bytes of this process, 0 where the system does not tell. Asks for no memory, and does not let go of the GIL: it is asked for in passes.
fn resident_bytes() -> u64 {
    let mut text = [0; 256];
    let read = File::open("/proc/self/statm").and_then(|mut file| file.read(&mut text));
    let text = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages * gort_core::sys::memory::page_bytes() as u64
}

unsafe extern "C-unwind" fn resident(_m: Object, _: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { ffi::PyLong_FromUnsignedLongLong(resident_bytes()) }
}

/// Puts both into gc.callbacks. Called once, when the runtime begins: a failure costs what is told here, no more.
pub(super) fn install() {
    // SAFETY: GIL held.
    unsafe {
        let collector = ffi::PyImport_ImportModule(c"gc".as_ptr());
        let core = ffi::PyImport_ImportModule(c"gort._core".as_ptr());
        if !collector.is_null() && !core.is_null() {
            let list = ffi::PyObject_GetAttrString(collector, c"callbacks".as_ptr());
            let begins = ffi::PyObject_GetAttrString(core, c"_gc_begins".as_ptr());
            let ends = ffi::PyObject_GetAttrString(core, c"_gc_ends".as_ptr());
            let complete = ![list, begins, ends].contains(&ptr::null_mut());
            if complete && ffi::PyList_Check(list) != 0 && ffi::PyList_Insert(list, 0, begins) == 0 {
                ffi::PyList_Append(list, ends);
                for (place, object) in [(&CALLBACKS, list), (&BEGINS, begins), (&ENDS, ends)] {
                    place.store(object, Ordering::Relaxed);
                }
            }
        }
        ffi::Py_XDECREF(core);
        ffi::Py_XDECREF(collector);
        ffi::PyErr_Clear();
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let begins = c"_gc_begins(phase, info, /)\n--\n\nThe first of gc.callbacks.";
    let ends = c"_gc_ends(phase, info, /)\n--\n\nThe last of gc.callbacks.";
    let hook =
        c"_gc_hook(function, /)\n--\n\nHas function(generation, ns) called at the end of each pass; None for nothing.";
    let stats = c"_gc_stats()\n--\n\nCounts and nanoseconds of passes since the runtime began.";
    let tracked = c"_gc_tracked()\n--\n\nHow many objects the collector looks at.";
    let functions = super::methods(vec![
        positional(c"_gc_begins", gc_begins, begins),
        positional(c"_gc_ends", gc_ends, ends),
        plain(c"_gc_hook", gc_hook, ffi::METH_O, hook),
        plain(c"_gc_stats", gc_stats, ffi::METH_NOARGS, stats),
        plain(c"_gc_tracked", gc_tracked, ffi::METH_NOARGS, tracked),
        plain(c"_resident_bytes", resident, ffi::METH_NOARGS, c"_resident_bytes()\n--\n\nMemory of this process."),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe {
        for (place, key) in KEYS.iter().zip([c"generation", c"collected", c"uncollectable"]) {
            let key = ffi::PyUnicode_InternFromString(key.as_ptr());
            if key.is_null() {
                return false;
            }
            place.store(key, Ordering::Relaxed);
        }
        ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
