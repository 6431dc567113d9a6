//! The host table over CPython: one `PyThreadState` per goroutine, the GIL as the host's lock.

use crate::{entry, fork, frames, task};
use gort_core::context;
use gort_core::goroutine::host::{Host, HostThread, Lead, Standing};
use pyo3::ffi;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicIsize, Ordering};

// What may end the calling thread by unwinding while the interpreter exits: called through `call_to_the_end` only.
unsafe extern "C-unwind" {
    fn gort_attach(t: *mut ffi::PyThreadState);
    fn gort_switch(to: *mut ffi::PyThreadState);
    fn PyObject_Call(
        function: *mut ffi::PyObject,
        args: *mut ffi::PyObject,
        kwargs: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
    fn PyObject_CallNoArgs(function: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// `function(*args, **kwargs)` as the body of a goroutine; `args` may be null, `kwargs` too.
///
/// # Safety
/// GIL held; `function` is callable, `args` a tuple, `kwargs` a dict.
pub(crate) unsafe fn call_body(
    function: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let callee = if args.is_null() { PyObject_CallNoArgs as *const () } else { PyObject_Call as *const () };
    // SAFETY: both take pointers and return one; the first ignores two of them.
    let result = unsafe {
        context::call_to_the_end(
            callee,
            function.expose_provenance(),
            args.expose_provenance(),
            kwargs.expose_provenance(),
        )
    };
    ptr::with_exposed_provenance_mut(result)
}

/// Takes the GIL with the state `t`, which no thread has.
///
/// # Safety
/// The calling thread has no state current.
unsafe fn take_gil(t: *mut ffi::PyThreadState) {
    // SAFETY: one pointer, no result.
    unsafe { context::call_to_the_end(gort_attach as *const (), t.expose_provenance(), 0, 0) };
}

unsafe extern "C" {
    fn gort_new_thread(base: usize, top: usize, chunk: usize, chunk_bytes: usize) -> *mut ffi::PyThreadState;
    fn gort_give_chunk(t: *mut ffi::PyThreadState, chunk: usize, chunk_bytes: usize);
    fn gort_lead(
        t: *mut ffi::PyThreadState,
        place: unsafe extern "C" fn(*mut c_void, usize, usize) -> usize,
        arg: *mut c_void,
    );
    pub(crate) fn gort_knows_frames() -> i32;
    fn gort_chunk_used(t: *mut ffi::PyThreadState) -> usize;
    fn gort_new_home() -> *mut ffi::PyThreadState;
    pub(crate) fn gort_forget_states();
    pub(crate) fn gort_keep_chunks();
    pub(crate) fn gort_forget_chunks();
    pub(crate) fn gort_count_tracked() -> isize;
    pub(crate) fn gort_dealloc_in_turn(
        object: *mut ffi::PyObject,
        outer: ffi::destructor,
        inner: unsafe extern "C" fn(*mut ffi::PyObject),
    );
    fn gort_hurry(t: *mut ffi::PyThreadState);
    fn gort_end_hurry();
    pub(crate) fn gort_interrupt(t: *mut ffi::PyThreadState) -> i32;
    pub(crate) fn gort_when_interrupted(let_others_run: unsafe extern "C-unwind" fn());
    pub(crate) fn gort_raise_soon(exception: *mut ffi::PyObject);
    pub(crate) fn gort_is_raised_soon(exception: *mut ffi::PyObject, take: i32) -> i32;
    fn gort_delete_thread(t: *mut ffi::PyThreadState);
    fn gort_end_home(t: *mut ffi::PyThreadState);
    fn gort_end_recursion(t: *mut ffi::PyThreadState) -> i32;
    fn gort_restore_recursion(t: *mut ffi::PyThreadState, taken: i32);
    fn gort_is_detached(t: *mut ffi::PyThreadState) -> i32;
    fn gort_seems_detached(t: *mut ffi::PyThreadState) -> i32;
    fn gort_current_state() -> *mut ffi::PyThreadState;
    pub(crate) fn gort_state_of_thread(argument: *mut std::ffi::c_void) -> *mut ffi::PyThreadState;
    pub(crate) fn gort_probe_threads(on: i32);
    pub(crate) fn gort_knows_threads() -> i32;
    fn gort_standing(t: *mut ffi::PyThreadState) -> i32;
    pub(crate) fn gort_set_identity(identity: std::ffi::c_ulong);
    fn gort_signals_pending() -> i32;
    fn gort_count_threads() -> isize;
    pub(crate) fn gort_set_main(t: *mut ffi::PyThreadState) -> i32;
    pub(crate) fn gort_begin_tools();
    pub(crate) fn gort_is_pristine(t: *mut ffi::PyThreadState) -> i32;
    pub(crate) fn gort_copy_context() -> *mut ffi::PyObject;
    pub(crate) fn gort_set_context(context: *mut ffi::PyObject);
    pub(crate) fn gort_take_exception() -> *mut ffi::PyObject;
    pub(crate) fn gort_raise(value: *mut ffi::PyObject);
}

/// Bytes of a goroutine's first data-stack chunk: from three small frames to eight. Deeper code goes on in CPython's own 16 KiB.
const ROOT_CHUNK_BYTES: (usize, usize) = (384, 960);

/// The same for a thread that is a goroutine, below whose code lie four frames of `threading`'s.
const THREAD_CHUNK_BYTES: usize = 1472;

/// Thread states made here, for telling plain threads' from ours. GIL held at every change.
pub(crate) static OUR_STATES: AtomicIsize = AtomicIsize::new(0);

unsafe fn new_thread(base: usize, top: usize, header: usize, bytes: usize) -> HostThread {
    // SAFETY: GIL held by the core's contract.
    let state = unsafe { gort_new_thread(base, top, header, bytes) };
    if !state.is_null() {
        OUR_STATES.fetch_add(1, Ordering::Relaxed);
    }
    state.cast()
}

unsafe fn give_header(thread: HostThread, header: usize, bytes: usize) {
    // SAFETY: the state of a thread that has not begun, by the core's contract; the GIL is held.
    unsafe { gort_give_chunk(thread.cast(), header, bytes) }
}

unsafe fn header_used(thread: HostThread) -> usize {
    // SAFETY: the state of a parked goroutine; the GIL is held.
    unsafe { gort_chunk_used(thread.cast()) }
}

unsafe fn may_move_stack(thread: HostThread, sp: usize, top: usize) -> bool {
    // SAFETY: a parked goroutine's stack, by the core's contract; the GIL is held.
    unsafe { gort_knows_frames() != 0 && !entry::gc::is_collector(thread) && frames::is_plain(sp, top) }
}

unsafe fn lead(thread: HostThread, mut place: Lead<'_>) {
    unsafe extern "C" fn ask(arg: *mut c_void, at: usize, bytes: usize) -> usize {
        // SAFETY: `arg` is the one given below, whose call is in progress.
        unsafe { (*arg.cast::<Lead<'_>>())(at, bytes) }
    }
    // SAFETY: what pointers lead to is readable, by the core's contract; the GIL is held.
    unsafe { gort_lead(thread.cast(), ask, (&raw mut place).cast()) }
}

unsafe fn clear_thread(thread: HostThread) {
    // SAFETY: GIL held, by the core's contract; nothing lies in it whose end would run code.
    unsafe { ffi::PyThreadState_Clear(thread.cast()) }
}

unsafe fn delete_thread(thread: HostThread) {
    OUR_STATES.fetch_sub(1, Ordering::Relaxed);
    // SAFETY: cleared at its goroutine's end and not current, by the core's contract.
    unsafe { gort_delete_thread(thread.cast()) }
}

unsafe fn new_home() -> HostThread {
    // SAFETY: the interpreter lives as long as the process does anything here.
    let state = unsafe { gort_new_home() };
    if !state.is_null() {
        OUR_STATES.fetch_add(1, Ordering::Release); // pairs with the Acquire in `is_alone`
    }
    state.cast()
}

unsafe fn end_home(state: HostThread) {
    OUR_STATES.fetch_sub(1, Ordering::Relaxed);
    // SAFETY: current on the calling thread, by the core's contract.
    unsafe { gort_end_home(state.cast()) }
}

unsafe fn switch(_from: HostThread, to: HostThread) {
    if cfg!(Py_3_12) {
        // Since 3.12 the exchange lets go of the GIL and takes it again.
        // SAFETY: one pointer, no result; GIL held with the old state current, by the core's contract.
        unsafe { context::call_to_the_end(gort_switch as *const (), to.expose_provenance(), 0, 0) };
    } else {
        // SAFETY: as above.
        unsafe { gort_switch(to.cast()) }
    }
}

unsafe fn attach(thread: HostThread) {
    // SAFETY: this thread has no state current.
    unsafe { take_gil(thread.cast()) }
}

unsafe fn detach(_thread: HostThread) {
    // SAFETY: the state is current on this thread.
    unsafe { ffi::PyEval_SaveThread() };
}

unsafe fn end_recursion(thread: HostThread) -> i32 {
    // SAFETY: the state current on the thread that faulted.
    unsafe { gort_end_recursion(thread.cast()) }
}

unsafe fn restore_recursion(thread: HostThread, taken: i32) {
    // SAFETY: the state current on this thread.
    unsafe { gort_restore_recursion(thread.cast(), taken) }
}

unsafe fn is_detached(thread: HostThread) -> bool {
    // SAFETY: the state is alive: sysmon holds the lock that deletion takes.
    unsafe { gort_is_detached(thread.cast()) != 0 }
}

unsafe fn seems_detached(thread: HostThread) -> bool {
    // SAFETY: made for states that may be gone.
    unsafe { gort_seems_detached(thread.cast()) != 0 }
}

unsafe fn current() -> HostThread {
    // SAFETY: GIL held by the core's contract.
    unsafe { gort_current_state().cast() }
}

unsafe fn standing(thread: HostThread) -> Standing {
    // SAFETY: reads one word; the state is the calling thread's goroutine's.
    match unsafe { gort_standing(thread.cast()) } {
        0 => Standing::Attached,
        1 => Standing::Detached,
        _ => Standing::Other,
    }
}

unsafe fn signals_pending() -> bool {
    // SAFETY: reads one word.
    unsafe { gort_signals_pending() != 0 }
}

/// `threading` finds its main thread by the id of the OS thread: tells it the new one, or `current_thread()` would not be
/// the main thread and the interpreter of 3.11 and 3.12 would wait for it at exit. No Python code runs here: a pending
/// signal would end it.
unsafe fn main_moved() {
    // SAFETY: GIL held on the main goroutine's stack; each reference is checked and let go.
    unsafe {
        let saved = gort_take_exception();
        let name = ffi::PyUnicode_FromString(c"threading".as_ptr());
        let module = if name.is_null() { ptr::null_mut() } else { ffi::PyImport_GetModule(name) };
        if !module.is_null() {
            let main = ffi::PyObject_GetAttrString(module, c"_main_thread".as_ptr());
            let active = ffi::PyObject_GetAttrString(module, c"_active".as_ptr());
            let ident = ffi::PyLong_FromUnsignedLong(ffi::PyThread_get_thread_ident());
            if !main.is_null() && !active.is_null() && !ident.is_null() && ffi::PyDict_Check(active) != 0 {
                let old = ffi::PyObject_GetAttrString(main, c"_ident".as_ptr());
                if !old.is_null() && ffi::PyDict_GetItemWithError(active, old) == main {
                    ffi::PyDict_DelItem(active, old);
                }
                ffi::Py_XDECREF(old);
                ffi::PyObject_SetAttrString(main, c"_ident".as_ptr(), ident);
                ffi::PyDict_SetItem(active, ident, main);
            }
            ffi::Py_XDECREF(ident);
            ffi::Py_XDECREF(active);
            ffi::Py_XDECREF(main);
            ffi::Py_DECREF(module);
        }
        ffi::Py_XDECREF(name);
        ffi::PyErr_Clear(); // a `threading` that is built otherwise has nothing to be told
        if !saved.is_null() {
            gort_raise(saved);
        }
    }
}

/// Drops the object that `threading` made for the goroutine of this identity, which ends. Until 3.13 it kept such objects
/// for ever, and the next goroutine of the same identity would find this one's.
///
/// # Safety
/// GIL held on the goroutine's stack, where Python code may run; no exception is set.
pub(crate) unsafe fn forget_thread_object(identity: usize) {
    if cfg!(Py_3_13) {
        return;
    }
    // SAFETY: each reference is checked and let go.
    unsafe {
        let name = ffi::PyUnicode_InternFromString(c"threading".as_ptr());
        let module = if name.is_null() { ptr::null_mut() } else { ffi::PyImport_GetModule(name) };
        ffi::Py_XDECREF(name);
        if !module.is_null() {
            let active = ffi::PyObject_GetAttrString(module, c"_active".as_ptr());
            let ident = ffi::PyLong_FromSize_t(identity);
            if !active.is_null() && !ident.is_null() && ffi::PyDict_Check(active) != 0 {
                let object = ffi::PyDict_GetItemWithError(active, ident);
                // A Thread object proper is its own thread's to drop.
                let dummy = ffi::PyObject_GetAttrString(module, c"_DummyThread".as_ptr());
                if !object.is_null() && ffi::Py_TYPE(object).cast() == dummy {
                    ffi::PyDict_DelItem(active, ident);
                }
                ffi::Py_XDECREF(dummy);
            }
            ffi::Py_XDECREF(ident);
            ffi::Py_XDECREF(active);
            ffi::Py_DECREF(module);
        }
        ffi::PyErr_Clear(); // a `threading` that is built otherwise keeps nothing by identity
    }
}

unsafe fn interrupt(thread: HostThread) -> bool {
    // SAFETY: the state of a live goroutine; GIL held, both by the core's contract.
    unsafe { gort_interrupt(thread.cast()) != 0 }
}

unsafe fn ends_soon(take: bool) -> bool {
    // SAFETY: GIL held.
    unsafe { gort_is_raised_soon(crate::error::goroutine_exit(), take.into()) != 0 }
}

unsafe fn hurry(thread: HostThread) {
    // SAFETY: a live state, by the core's contract.
    unsafe { gort_hurry(thread.cast()) }
}

unsafe fn end_hurry() {
    // SAFETY: GIL held by the core's contract.
    unsafe { gort_end_hurry() }
}

unsafe fn is_alone(blocked_threads: usize) -> bool {
    // Ours first: a new M makes its home state without the GIL, and must not count here and be missed there.
    let ours = OUR_STATES.load(Ordering::Acquire); // pairs with the Release in `new_home`
    // SAFETY: GIL held by the core's contract.
    let all = unsafe { gort_count_threads() };
    // One of the others is the main goroutine's.
    all - ours - 1 <= blocked_threads as isize
}

unsafe fn leave_thread() -> *mut u8 {
    // SAFETY: called by a plain thread with the GIL.
    unsafe { ffi::PyEval_SaveThread().cast() }
}

unsafe fn return_thread(token: *mut u8) {
    // SAFETY: the token of `leave_thread` on this thread.
    unsafe { take_gil(token.cast()) }
}

/// The table.
pub(crate) static HOST: Host = Host {
    exclusive: true,
    header_bytes: ROOT_CHUNK_BYTES,
    thread_header_bytes: THREAD_CHUNK_BYTES,
    give_header,
    header_used,
    new_thread,
    clear_thread,
    delete_thread,
    new_home,
    end_home,
    locks_states_at_fork: cfg!(Py_3_13), // PyOS_BeforeFork
    switch,
    attach,
    detach,
    is_detached,
    seems_detached,
    current,
    standing,
    counts_calls: !cfg!(Py_3_14), // since then the bounds of the stack itself are looked at
    end_recursion,
    restore_recursion,
    interrupt,
    ends_soon,
    hurry,
    end_hurry,
    is_movable: frames::is_movable,
    may_move_stack,
    lead,
    run: task::run,
    start_failed: task::start_failed,
    signals_pending,
    main_moved,
    is_alone,
    holds_lock: fork::holds_lock,
    forked: fork::forked,
    has_threads: fork::has_threads,
    leave_thread,
    return_thread,
};
