//! Raw functions that may park: argument reading, the way to the runtime, and tables of methods.
//!
//! PyO3 counts attachments per OS thread; a stack that parks inside one of its frames and resumes on another thread
//! breaks the count. So nothing here is a `#[pyfunction]`, and nothing here holds a value with a destructor over a park.

pub(crate) mod atomic;
pub(crate) mod boundary;
pub(crate) mod bubble;
pub(crate) mod cache;
pub(crate) mod chan;
pub(crate) mod clock;
pub(crate) mod cond;
pub(crate) mod contention;
pub(crate) mod context;
pub(crate) mod cpu;
mod duration;
mod environment;
pub(crate) mod gc;
pub(crate) mod go;
pub(crate) mod holders;
pub(crate) mod http;
pub(crate) mod labels;
pub(crate) mod leak;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod net;
pub(crate) mod policy;
pub(crate) mod profile;
pub(crate) mod quit;
pub(crate) mod select;
mod shown;
mod start;
pub(crate) mod sync;
pub(crate) mod timer;
pub(crate) mod trace;

use crate::error;
use crate::host;
use crate::task;
use gort_core::sched::config::Config;
use gort_core::sched::{Runtime, current_machine, now_ns};
use gort_core::sys::thread;
use pyo3::ffi;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A Python reference in the core's channels: the channel owns one count of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Value(pub(crate) *mut ffi::PyObject);

/// METH_FASTCALL | METH_KEYWORDS.
pub(crate) type FastCall = unsafe extern "C-unwind" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

static ADOPTED: AtomicBool = AtomicBool::new(false);

/// In a forked child: whether its thread is an M already.
pub(crate) fn set_adopted(adopted: bool) {
    ADOPTED.store(adopted, Ordering::Relaxed);
}

/// The runtime, made on first use; the main thread becomes M 0 on its first use. `None`: an exception is set.
#[inline(always)]
pub(crate) fn runtime() -> Option<&'static Runtime> {
    let rt = task::runtime_or_null();
    // SAFETY: the runtime is leaked. Relaxed: the GIL orders the stop and what comes after it.
    if !rt.is_null() && !current_machine().is_null() && !unsafe { (*rt).stopping.load(Ordering::Relaxed) } {
        // SAFETY: as above.
        return Some(unsafe { &*rt });
    }
    runtime_slow()
}

#[cold]
fn runtime_slow() -> Option<&'static Runtime> {
    let mut rt = task::runtime_or_null();
    if rt.is_null() {
        rt = ptr::from_ref(begin()?).cast_mut();
    }
    // SAFETY: the runtime is leaked.
    let rt: &'static Runtime = unsafe { &*rt };
    // Relaxed, here and below: the GIL orders it.
    if rt.stopping.load(Ordering::Relaxed) {
        error::set(error::runtime_stopped(), "gort has stopped: the interpreter it began in is shutting down, or gone");
        return None;
    }
    if thread::is_main() && !ADOPTED.swap(true, Ordering::Relaxed) {
        // SAFETY: GIL held on the main thread, which is no M yet.
        unsafe {
            // `threading` takes the thread that first imports it for the main thread: that must not be a goroutine's.
            let threading = ffi::PyImport_ImportModule(c"threading".as_ptr());
            if threading.is_null() {
                ADOPTED.store(false, Ordering::Relaxed);
                return None;
            }
            ffi::Py_DECREF(threading);
            let state = ffi::PyThreadState_Get();
            let may_move = host::gort_set_main(state) != 0;
            if !rt.adopt_main(state.cast(), may_move) {
                ADOPTED.store(false, Ordering::Relaxed);
                error::set(ffi::PyExc_MemoryError, "gort cannot start: no memory for the first stack");
                return None;
            }
            boundary::adopt_identity();
        }
    }
    Some(rt)
}

/// A runtime whose hooks are not all in place: memory was refused, and the next call goes on.
static BEGUN: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());

/// Makes the runtime. `None`: an exception is set, and the next call may succeed.
fn begin() -> Option<&'static Runtime> {
    // SAFETY: null or a runtime, which is leaked. Relaxed: the GIL orders it.
    let rt = match unsafe { BEGUN.load(Ordering::Relaxed).as_ref() } {
        Some(begun) => begun,
        None => match Runtime::new(read_config()?, &host::HOST) {
            Ok(new) => new,
            Err(e) => {
                // The kind alone: the system's own text is a String.
                // SAFETY: GIL held.
                error::set(unsafe { ffi::PyExc_MemoryError }, format_args!("gort cannot start: {}", e.kind()));
                return None;
            }
        },
    };
    BEGUN.store(ptr::from_ref(rt).cast_mut(), Ordering::Relaxed);
    if !boundary::install(rt) {
        // SAFETY: GIL held.
        error::set(unsafe { ffi::PyExc_MemoryError }, "gort cannot start: no memory to look at what is loaded");
        return None;
    }
    task::set_runtime(rt);
    // SAFETY: GIL held; once for each process.
    unsafe {
        host::gort_keep_chunks();
        host::gort_knows_frames(); // now that there are some to look at
        host::gort_when_interrupted(go::preempted);
    }
    register_exit();
    gc::install();
    Some(rt)
}

/// Least and most bytes of a goroutine's stack. Below 128 KiB too little is left between the guards.
pub(crate) const STACK_BYTES: (usize, usize) = (128 << 10, 1 << 30);

fn read_config() -> Option<Config> {
    let mut config = Config::default();
    let number = |name: &CStr, low: usize, high: usize, place: &mut usize| {
        let read = |text: &str| match text.parse::<usize>() {
            Ok(n) if (low..=high).contains(&n) => {
                *place = n;
                true
            }
            _ => {
                let name = name.to_str().unwrap_or_default();
                // SAFETY: GIL held.
                error::set(
                    unsafe { ffi::PyExc_ValueError },
                    format_args!("{name}={text}: an integer from {low} to {high} is expected"),
                );
                false
            }
        };
        environment::variable(name, read).unwrap_or(true)
    };
    let ok = number(c"GORT_MAXPROCS", 1, 1024, &mut config.processors)
        && number(c"GORT_MAXTHREADS", 2, 1_000_000, &mut config.max_machines)
        && number(c"GORT_STACK", STACK_BYTES.0, STACK_BYTES.1, &mut config.stack_bytes);
    let (mut seed, mut slice_ms) = (0, config.slice_ns as usize / 1_000_000);
    let ok = ok && number(c"GORT_SEED", 0, usize::MAX, &mut seed) && number(c"GORT_SLICE", 1, 100, &mut slice_ms);
    let mut shrink_ms = config.shrink_ns as usize / 1_000_000;
    let ok = ok && number(c"GORT_SHRINK", 0, 1_000_000, &mut shrink_ms);
    if shrink_ms != config.shrink_ns as usize / 1_000_000 {
        (config.shrink_ns, config.shrink_least) = (shrink_ms as u64 * 1_000_000, 0);
    }
    let mut schedtrace_ms = 0;
    let ok = ok && number(c"GORT_SCHEDTRACE", 0, 1_000_000, &mut schedtrace_ms);
    let ok = ok && policy::read_first(&mut config.policy);
    config.slice_ns = slice_ms as u64 * 1_000_000;
    config.schedtrace_ns = schedtrace_ms as u64 * 1_000_000;
    config.seed = seed as u64;
    config.shuffles = seed != 0;
    config.stack_bytes = config.stack_bytes.next_power_of_two();
    ok.then_some(config)
}

/// Calls a function of the Python side. Null with an exception set on failure.
///
/// # Safety
/// GIL held, where Python code may run; the arguments are alive.
pub(crate) unsafe fn facade(
    module: &std::ffi::CStr,
    function: &std::ffi::CStr,
    args: &[*mut ffi::PyObject],
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let module = ffi::PyImport_ImportModule(module.as_ptr());
        if module.is_null() {
            return module;
        }
        let function = ffi::PyObject_GetAttrString(module, function.as_ptr());
        ffi::Py_DECREF(module);
        if function.is_null() {
            return function;
        }
        let result = ffi::PyObject_Vectorcall(function, args.as_ptr(), args.len(), ptr::null_mut());
        ffi::Py_DECREF(function);
        result
    }
}

/// `atexit.register(_core._shutdown)`.
fn register_exit() {
    // SAFETY: GIL held; a failure only costs the orderly stop.
    unsafe {
        let atexit = ffi::PyImport_ImportModule(c"atexit".as_ptr());
        let core = ffi::PyImport_ImportModule(c"gort._core".as_ptr());
        if !atexit.is_null() && !core.is_null() {
            let function = ffi::PyObject_GetAttrString(core, c"_shutdown".as_ptr());
            if !function.is_null() {
                let r = ffi::PyObject_CallMethod(atexit, c"register".as_ptr(), c"O".as_ptr(), function);
                ffi::Py_XDECREF(r);
                ffi::Py_DECREF(function);
            }
        }
        ffi::Py_XDECREF(atexit);
        ffi::Py_XDECREF(core);
        ffi::PyErr_Clear();
    }
}

/// Reads up to `N` arguments by position or by `names`; absent ones are null. `None`: TypeError is set.
#[inline]
pub(crate) unsafe fn arguments<const N: usize>(
    function: &str,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut ffi::PyObject,
    names: [&CStr; N],
    required: usize,
) -> Option<[*mut ffi::PyObject; N]> {
    let mut out = [ptr::null_mut(); N];
    let nargs = nargs as usize;
    // SAFETY: `args` holds `nargs` references, then one for each keyword.
    unsafe {
        if nargs > N {
            error::set(
                ffi::PyExc_TypeError,
                format_args!("{function}() takes at most {N} positional arguments ({nargs} given)"),
            );
            return None;
        }
        for (i, place) in out.iter_mut().enumerate().take(nargs) {
            *place = *args.add(i);
        }
        if !kwnames.is_null() {
            for k in 0..ffi::PyTuple_GET_SIZE(kwnames) {
                let key = ffi::PyTuple_GET_ITEM(kwnames, k);
                let hit = names.iter().position(|n| ffi::PyUnicode_CompareWithASCIIString(key, n.as_ptr()) == 0);
                match hit {
                    Some(i) if out[i].is_null() => out[i] = *args.add(nargs + k as usize),
                    Some(i) => {
                        let name = names[i].to_string_lossy();
                        error::set(
                            ffi::PyExc_TypeError,
                            format_args!("{function}() got multiple values for argument '{name}'"),
                        );
                        return None;
                    }
                    None => {
                        ffi::PyErr_Format(ffi::PyExc_TypeError, c"unexpected keyword argument '%U'".as_ptr(), key);
                        return None;
                    }
                }
            }
        }
        if let Some(i) = out[..required].iter().position(|p| p.is_null()) {
            let name = names[i].to_string_lossy();
            error::set(ffi::PyExc_TypeError, format_args!("{function}() missing required argument: '{name}'"));
            return None;
        }
    }
    Some(out)
}

/// A time-out argument, seconds or None, as a deadline. `Err`: an exception is set.
#[inline]
pub(crate) unsafe fn deadline(timeout: *mut ffi::PyObject) -> Result<Option<u64>, ()> {
    // SAFETY: `timeout` is null or a live object.
    unsafe {
        if timeout.is_null() || timeout == ffi::Py_None() {
            return Ok(None);
        }
        seconds(timeout, "timeout").map(|ns| Some(now_ns().saturating_add(ns)))
    }
}

/// Seconds as nanoseconds, rounded up. Negative and NaN are ValueErrors.
pub(crate) unsafe fn seconds(value: *mut ffi::PyObject, what: &str) -> Result<u64, ()> {
    // SAFETY: a live object.
    unsafe {
        let s = ffi::PyFloat_AsDouble(value);
        if s == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        if s.is_nan() || s < 0.0 {
            error::set(ffi::PyExc_ValueError, format_args!("{what} must be a non-negative number of seconds"));
            return Err(());
        }
        Ok((s * 1e9).ceil().min(9e18) as u64)
    }
}

/// A new reference to None.
#[inline(always)]
pub(crate) fn none() -> *mut ffi::PyObject {
    // SAFETY: None is alive; GIL held by every caller.
    unsafe {
        let n = ffi::Py_None();
        ffi::Py_INCREF(n);
        n
    }
}

/// A new reference to True or False.
#[inline(always)]
pub(crate) fn boolean(value: bool) -> *mut ffi::PyObject {
    // SAFETY: GIL held by every caller.
    unsafe {
        let b = if value { ffi::Py_True() } else { ffi::Py_False() };
        ffi::Py_INCREF(b);
        b
    }
}

/// A dict of numbers; null with an exception set on failure.
pub(crate) fn counts(pairs: &[(&CStr, u64)]) -> *mut ffi::PyObject {
    // SAFETY: GIL held.
    unsafe {
        let dict = ffi::PyDict_New();
        for &(name, n) in pairs {
            let value = ffi::PyLong_FromUnsignedLongLong(n);
            if dict.is_null() || value.is_null() || ffi::PyDict_SetItemString(dict, name.as_ptr(), value) < 0 {
                ffi::Py_XDECREF(value);
                ffi::Py_XDECREF(dict);
                return ptr::null_mut();
            }
            ffi::Py_DECREF(value);
        }
        dict
    }
}

/// A method table entry. `function` differs from PyO3's type only in that it may unwind: CPython ends threads that way.
fn entry(
    name: &'static CStr,
    function: ffi::PyMethodDefPointer,
    flags: std::ffi::c_int,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: function, ml_flags: flags, ml_doc: doc.as_ptr() }
}

/// A method table entry with keywords.
pub(crate) fn fast(name: &'static CStr, f: FastCall, doc: &'static CStr) -> ffi::PyMethodDef {
    // SAFETY: the same function type but for the unwinding; see `entry`.
    let function = unsafe { std::mem::transmute::<FastCall, ffi::PyCFunctionFastWithKeywords>(f) };
    let function = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function };
    entry(name, function, ffi::METH_FASTCALL | ffi::METH_KEYWORDS, doc)
}

/// METH_FASTCALL.
pub(crate) type Positional =
    unsafe extern "C-unwind" fn(*mut ffi::PyObject, *const *mut ffi::PyObject, ffi::Py_ssize_t) -> *mut ffi::PyObject;

/// A method table entry without keywords.
pub(crate) fn positional(name: &'static CStr, f: Positional, doc: &'static CStr) -> ffi::PyMethodDef {
    // SAFETY: the same function type but for the unwinding; see `entry`.
    let function = unsafe { std::mem::transmute::<Positional, ffi::PyCFunctionFast>(f) };
    entry(name, ffi::PyMethodDefPointer { PyCFunctionFast: function }, ffi::METH_FASTCALL, doc)
}

/// METH_NOARGS or METH_O.
pub(crate) type Plain = unsafe extern "C-unwind" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;

/// A method table entry with `flags` METH_NOARGS or METH_O.
pub(crate) fn plain(name: &'static CStr, f: Plain, flags: std::ffi::c_int, doc: &'static CStr) -> ffi::PyMethodDef {
    // SAFETY: the same function type but for the unwinding; see `entry`.
    let function = unsafe { std::mem::transmute::<Plain, ffi::PyCFunction>(f) };
    entry(name, ffi::PyMethodDefPointer { PyCFunction: function }, flags, doc)
}

/// A leaked, terminated method table.
pub(crate) fn methods(mut table: Vec<ffi::PyMethodDef>) -> *mut ffi::PyMethodDef {
    table.push(ffi::PyMethodDef::zeroed());
    table.leak().as_mut_ptr()
}

/// A leaked, terminated table of read-only attributes.
pub(crate) fn getters(table: &[(&'static CStr, ffi::getter)]) -> *mut ffi::PyGetSetDef {
    let mut out: Vec<ffi::PyGetSetDef> = table
        .iter()
        .map(|(name, get)| ffi::PyGetSetDef { name: name.as_ptr(), get: Some(*get), ..ffi::PyGetSetDef::default() })
        .collect();
    out.push(ffi::PyGetSetDef::default());
    out.leak().as_mut_ptr()
}

/// The slot that lets a type be weakly referenced; `offset` is that of the field, CPython's, which dealloc has cleared.
pub(crate) fn weak_list(offset: usize) -> ffi::PyType_Slot {
    let member = ffi::PyMemberDef {
        name: c"__weaklistoffset__".as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as _,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let members = vec![member, ffi::PyMemberDef::default()].leak();
    ffi::PyType_Slot { slot: ffi::Py_tp_members, pfunc: members.as_mut_ptr().cast() }
}

/// Ends the weak references to an object that is being deallocated.
///
/// # Safety
/// GIL held; `list` is the object's field.
#[inline(always)]
pub(crate) unsafe fn end_weak_references(object: *mut ffi::PyObject, list: *mut ffi::PyObject) {
    if !list.is_null() {
        // SAFETY: the caller's promise.
        unsafe { ffi::PyObject_ClearWeakRefs(object) };
    }
}

/// Makes a heap type and adds it to the module. Null with an exception set on failure.
pub(crate) unsafe fn add_type(
    module: *mut ffi::PyObject,
    name: &'static CStr,
    size: usize,
    flags: std::ffi::c_ulong,
    mut slots: Vec<ffi::PyType_Slot>,
) -> *mut ffi::PyTypeObject {
    // One text only: a type that brings its own keeps it (3.14 refuses a second).
    let has_doc = slots.iter().any(|s| s.slot == ffi::Py_tp_doc);
    if let (false, Some(text)) = (has_doc, crate::doc::of_type(name)) {
        slots.push(ffi::PyType_Slot { slot: ffi::Py_tp_doc, pfunc: text.as_ptr().cast_mut().cast() });
    }
    slots.push(ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() });
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size as _,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | flags) as _,
        slots: slots.leak().as_mut_ptr(),
    };
    // SAFETY: the spec's parts are leaked; GIL held.
    unsafe {
        let tp = ffi::PyType_FromSpec(&raw mut spec);
        if tp.is_null() || ffi::PyModule_AddType(module, tp.cast()) < 0 {
            return ptr::null_mut();
        }
        tp.cast()
    }
}
