//! go, spawn, join, cancel, gosched, goexit, sleep, current, and the Goroutine type.

use super::context::{limited_object, limited_until};
use super::start::{self, started};
use super::{arguments, boolean, counts, fast, getters, labels, methods, none, plain, policy, runtime, seconds, shown};
use crate::doc;
use crate::error;
use crate::host;
use crate::origin;
use crate::task::{self, CANCEL_ASKED, CANCELLED, DONE, GO_TYPE, GoObject, JOINED, LOCKED, Place, RESERVED};
use gort_core::goroutine::Goroutine;
use gort_core::goroutine::ender::Until;
use gort_core::goroutine::waiter::{Outcome, Reason};
use gort_core::sched::processors::MOST;
use gort_core::sched::{self, Runtime};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::Ordering;

type Object = *mut ffi::PyObject;

unsafe extern "C-unwind" fn go(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        if nargs < 1 || ffi::PyCallable_Check(*args) == 0 {
            return error::set(ffi::PyExc_TypeError, "go() needs a callable as its first argument");
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let (mut tuple, mut kwargs) = (ptr::null_mut(), ptr::null_mut());
        if nargs > 1 || !kwnames.is_null() {
            tuple = ffi::PyTuple_New(nargs - 1);
            if tuple.is_null() {
                return tuple;
            }
            for i in 1..nargs {
                let arg = *args.offset(i);
                ffi::Py_INCREF(arg);
                ffi::PyTuple_SET_ITEM(tuple, i - 1, arg);
            }
        }
        if !kwnames.is_null() {
            kwargs = ffi::PyDict_New();
            for i in 0..ffi::PyTuple_GET_SIZE(kwnames) {
                let key = ffi::PyTuple_GET_ITEM(kwnames, i);
                if kwargs.is_null() || ffi::PyDict_SetItem(kwargs, key, *args.offset(nargs + i)) < 0 {
                    ffi::Py_DECREF(tuple);
                    ffi::Py_XDECREF(kwargs);
                    return ptr::null_mut();
                }
            }
        }
        let obj = task::new_object(*args, tuple, kwargs);
        ffi::Py_XDECREF(tuple);
        ffi::Py_XDECREF(kwargs);
        started(rt, obj, 0, Place::default())
    }
}

/// Whether an argument is true; one that is absent is not. `None`: an exception is set.
unsafe fn truth(value: Object) -> Option<bool> {
    // SAFETY: GIL held; null or a live object.
    let truth = if value.is_null() { 0 } else { unsafe { ffi::PyObject_IsTrue(value) } };
    (truth >= 0).then_some(truth != 0)
}

/// A stack size argument, bytes or None, as the exponent of the power of two that holds it; 0 for None. `None`: an exception is set.
unsafe fn stack_shift(value: Object) -> Option<u8> {
    // SAFETY: GIL held; null or a live object.
    unsafe {
        if value.is_null() || value == ffi::Py_None() {
            return Some(0);
        }
        let bytes = ffi::PyNumber_AsSsize_t(value, ffi::PyExc_ValueError);
        if bytes == -1 && !ffi::PyErr_Occurred().is_null() {
            return None;
        }
        let (least, most) = super::STACK_BYTES;
        match usize::try_from(bytes) {
            Ok(bytes) if (least..=most).contains(&bytes) => Some(bytes.next_power_of_two().trailing_zeros() as u8),
            _ => {
                error::set(
                    ffi::PyExc_ValueError,
                    format_args!("spawn(): stack_size must be from {least} to {most} bytes, not {bytes}"),
                );
                None
            }
        }
    }
}

unsafe extern "C-unwind" fn spawn(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [
            c"fn",
            c"args",
            c"kwargs",
            c"name",
            c"stack_size",
            c"locked",
            c"reserve",
            c"priority",
            c"group",
            c"labels",
        ];
        let Some([function, call_args, call_kwargs, name, stack_size, locked, reserve, priority, group, tags]) =
            arguments("spawn", args, nargs, kwnames, names, 1)
        else {
            return ptr::null_mut();
        };
        if ffi::PyCallable_Check(function) == 0 {
            return error::set(ffi::PyExc_TypeError, "spawn() needs a callable as its first argument");
        }
        let no_kwargs = call_kwargs.is_null() || call_kwargs == ffi::Py_None();
        if !no_kwargs && ffi::PyDict_Check(call_kwargs) == 0 {
            return error::set(ffi::PyExc_TypeError, "spawn(): kwargs must be a dict or None");
        }
        let has_name = !name.is_null() && name != ffi::Py_None();
        if has_name && ffi::PyUnicode_Check(name) == 0 {
            return error::set(ffi::PyExc_TypeError, "spawn(): name must be a str or None");
        }
        let Some(stack_shift) = stack_shift(stack_size) else { return ptr::null_mut() };
        let (Some(is_locked), Some(is_reserved)) = (truth(locked), truth(reserve)) else { return ptr::null_mut() };
        if is_reserved && !is_locked {
            return error::set(ffi::PyExc_ValueError, "spawn(): reserve needs locked=True");
        }
        let Some(place) = policy::place(priority, group) else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let tuple = if call_args.is_null() { ffi::PyTuple_New(0) } else { ffi::PySequence_Tuple(call_args) };
        if tuple.is_null() {
            return tuple;
        }
        let kwargs = if no_kwargs { ptr::null_mut() } else { ffi::PyDict_Copy(call_kwargs) };
        if kwargs.is_null() && !no_kwargs {
            ffi::Py_DECREF(tuple);
            return kwargs;
        }
        let obj = task::new_object(function, tuple, kwargs);
        ffi::Py_DECREF(tuple);
        ffi::Py_XDECREF(kwargs);
        if !obj.is_null() && !tags.is_null() && tags != ffi::Py_None() {
            let context = labels::context_with(tags);
            if context.is_null() {
                ffi::Py_DECREF(obj.cast());
                return context;
            }
            ffi::Py_XDECREF(std::mem::replace(&mut (*obj).context, context));
        }
        if !obj.is_null() {
            if has_name {
                ffi::Py_INCREF(name);
                (*obj).name = name;
            }
            (*obj).set(if is_locked { LOCKED } else { 0 } | if is_reserved { RESERVED } else { 0 });
        }
        started(rt, obj, stack_shift, place)
    }
}

unsafe extern "C-unwind" fn join(slf: Object, args: *const Object, nargs: ffi::Py_ssize_t, kwnames: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; `slf` is a Goroutine and stays alive for the call.
    unsafe {
        let Some([timeout, ctx]) = arguments("join", args, nargs, kwnames, [c"timeout", c"ctx"], 0) else {
            return ptr::null_mut();
        };
        limited_object(timeout, ctx, |until| join_until(slf.cast(), until))
    }
}

unsafe fn join_until(obj: *mut GoObject, until: Until) -> Object {
    // SAFETY: as in `join`.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if !(*obj).has(DONE) && !(*obj).g.is_null() && (*obj).goroutine() == sched::current_goroutine() {
            return error::set(ffi::PyExc_RuntimeError, "a goroutine cannot join itself");
        }
        while !(*obj).has(DONE) {
            if (*obj).is_left_behind() {
                return error::set(
                    error::runtime_stopped(),
                    "the goroutine stayed in the process that forked this one",
                );
            }
            let outcome = (*obj).joiners.wait(rt, Reason::Join, until, || {});
            if outcome != Outcome::Delivered && !(*obj).has(DONE) && !error::ended(rt, outcome) {
                return ptr::null_mut();
            }
        }
        (*obj).set(JOINED);
        let result = if (*obj).result.is_null() { ffi::Py_None() } else { (*obj).result };
        if !(*obj).exception.is_null() {
            ffi::PyException_SetTraceback((*obj).exception, result);
            host::gort_raise(error::to_raise((*obj).exception));
            return ptr::null_mut();
        }
        if (*obj).has(CANCELLED) {
            return error::set(error::cancelled(), "the goroutine was cancelled");
        }
        ffi::Py_INCREF(result);
        result
    }
}

unsafe extern "C-unwind" fn cancel(slf: Object, _: Object) -> Object {
    // SAFETY: GIL held; `slf` is a Goroutine.
    unsafe {
        let obj = slf.cast::<GoObject>();
        let g = (*obj).goroutine();
        if g.is_null() {
            return boolean(false);
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        (*obj).set(CANCEL_ASKED);
        rt.ask_to_end(g);
        rt.end_wait(g, Outcome::Cancelled);
        boolean(true)
    }
}

unsafe extern "C-unwind" fn gosched(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let g = sched::current_goroutine();
    sched::gosched();
    // SAFETY: GIL held; `g` is the running goroutine.
    if !g.is_null() && unsafe { rt.take_request_to_end(g) } {
        super::gc::note_exit(g);
        return error::set(error::goroutine_exit(), "goroutine cancelled");
    }
    none()
}

/// At a safe point of a goroutine whose slice is over. It ends at its next one if it was asked to: what an event of
/// sys.monitoring raises passes by the `finally` blocks around a jump.
pub(super) unsafe extern "C-unwind" fn preempted() {
    if sched::preempted() {
        // SAFETY: GIL held.
        unsafe { host::gort_raise_soon(error::goroutine_exit()) };
    }
}

/// By `change`, how many reasons the calling goroutine has not to be preempted; on a plain thread nothing. False: less than none.
unsafe extern "C-unwind" fn no_preempt(_m: Object, change: Object) -> Object {
    // SAFETY: GIL held; the running goroutine is alive.
    unsafe {
        let change = ffi::PyLong_AsLong(change);
        if (change == -1 && !ffi::PyErr_Occurred().is_null()) || runtime().is_none() {
            return ptr::null_mut();
        }
        let g = sched::current_goroutine();
        if g.is_null() {
            return boolean(true);
        }
        let count = (*(*g).bundle).no_preempt.checked_add_signed(change as i32);
        if let Some(count) = count {
            (*(*g).bundle).no_preempt = count;
        }
        boolean(count.is_some())
    }
}

unsafe extern "C-unwind" fn lock_os_thread(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    sched::lock_os_thread(rt);
    none()
}

unsafe extern "C-unwind" fn unlock_os_thread(_m: Object, _: Object) -> Object {
    sched::unlock_os_thread();
    none()
}

unsafe extern "C-unwind" fn goexit(_m: Object, _: Object) -> Object {
    error::set(error::goroutine_exit(), "goexit")
}

unsafe extern "C-unwind" fn sleep(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        if nargs != 1 {
            return error::set(
                ffi::PyExc_TypeError,
                format_args!("sleep() takes 1 positional argument ({nargs} given)"),
            );
        }
        let Ok(ns) = seconds(*args, "sleep") else { return ptr::null_mut() };
        let until_ns = sched::now_ns().saturating_add(ns);
        if kw.is_null() {
            return sleep_until(until_ns.into());
        }
        let Some([ctx]) = arguments("sleep", args.add(1), 0, kw, [c"ctx"], 0) else { return ptr::null_mut() };
        limited_until(until_ns, ctx, |until| sleep_until(until))
    }
}

unsafe fn sleep_until(until: Until) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    loop {
        let outcome = sched::sleep_until(rt, until);
        if outcome == Outcome::TimedOut {
            return none();
        }
        if !error::ended(rt, outcome) {
            return ptr::null_mut();
        }
    }
}

unsafe extern "C-unwind" fn current(_m: Object, _: Object) -> Object {
    let g = sched::current_goroutine();
    // SAFETY: GIL held; the running goroutine's object is alive. The main goroutine and threads have none.
    unsafe {
        if g.is_null() || (*g).task.is_null() || (*g).is_thread() {
            return none();
        }
        let obj = (*g).task.cast::<ffi::PyObject>();
        ffi::Py_INCREF(obj);
        obj
    }
}

unsafe extern "C-unwind" fn num_goroutine(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: GIL held.
    unsafe { ffi::PyLong_FromUnsignedLongLong(rt.registry.live()) }
}

unsafe extern "C-unwind" fn goroutines(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: GIL held.
    unsafe { list_of(rt, |_| true) }
}

/// A list of the Goroutine objects that `is_wanted`: without the main goroutine and those that are threads, which have none.
/// Null with an exception set when memory is refused.
///
/// # Safety
/// GIL held.
pub(super) unsafe fn list_of(rt: &Runtime, is_wanted: impl Fn(&Goroutine) -> bool) -> Object {
    // SAFETY: the caller's promise; tasks of live goroutines are alive.
    unsafe {
        let mut list = ffi::PyList_New(0);
        rt.registry.for_each(|g| {
            let is_ours = !g.task.is_null() && !g.is_thread() && is_wanted(g);
            if is_ours && !list.is_null() && ffi::PyList_Append(list, g.task.cast()) < 0 {
                ffi::Py_DECREF(std::mem::replace(&mut list, ptr::null_mut()));
            }
        });
        list
    }
}

unsafe extern "C-unwind" fn gomaxprocs(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([n]) = arguments("gomaxprocs", args, nargs, kw, [c"n"], 0) else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if !n.is_null() && n != ffi::Py_None() {
            let wanted = ffi::PyLong_AsSsize_t(n);
            if wanted == -1 && !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            if wanted > MOST as isize {
                return error::set(ffi::PyExc_ValueError, format_args!("gomaxprocs({wanted}): {MOST} is the most"));
            }
            if wanted > 0 {
                return ffi::PyLong_FromSize_t(rt.set_processors(wanted as usize));
            }
        }
        ffi::PyLong_FromSize_t(rt.processors.in_use())
    }
}

/// CPUs this process may use by Go's rule.
unsafe extern "C-unwind" fn usable_cpus(_m: Object, _: Object) -> Object {
    let cpus = gort_core::sys::cgroup::usable_cpus();
    // SAFETY: GIL held.
    cpus.map_or_else(|_| unsafe { ffi::PyErr_NoMemory() }, |cpus| unsafe { ffi::PyLong_FromSize_t(cpus) })
}

/// Main called goexit: the others go on, and when nothing runs any more that is a deadlock, as in Go. Sets the exception.
///
/// # Safety
/// GIL held, on the main goroutine.
unsafe fn outlive_all(rt: &'static Runtime) {
    loop {
        let outcome = sched::sleep_for_ever(rt);
        if outcome == Outcome::Deadlock && rt.registry.live() == 1 {
            error::set(error::deadlock(), "no goroutines (main called runtime.Goexit) - deadlock!");
            return;
        }
        if !error::ended(rt, outcome) {
            return;
        }
    }
}

/// In a child that another goroutine than main forked: whoever called `run` stayed behind.
pub(crate) fn forget_run() {
    RUNNING_MAIN.store(false, Ordering::Relaxed);
}

/// Set while `run` is in progress. GIL held at every change.
static RUNNING_MAIN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

unsafe extern "C-unwind" fn run_main(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller's frame keeps the arguments alive.
    unsafe {
        let names = [c"fn", c"args", c"kwargs"];
        let Some([function, call_args, call_kwargs]) = arguments("run_main", args, nargs, kw, names, 2) else {
            return ptr::null_mut();
        };
        if ffi::PyCallable_Check(function) == 0 {
            return error::set(ffi::PyExc_TypeError, "run() needs a callable as its first argument");
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if RUNNING_MAIN.swap(true, Ordering::Relaxed) {
            return error::set(
                ffi::PyExc_RuntimeError,
                "gort.run() cannot be called while another run() is in progress",
            );
        }
        let kwargs = if call_kwargs == ffi::Py_None() { ptr::null_mut() } else { call_kwargs };
        let result = ffi::PyObject_Call(function, call_args, kwargs);
        let is_main = ptr::eq(sched::current_goroutine(), rt.main.load(Ordering::Relaxed));
        if result.is_null() && is_main && ffi::PyErr_ExceptionMatches(error::goroutine_exit()) != 0 {
            ffi::PyErr_Clear();
            outlive_all(rt);
        }
        RUNNING_MAIN.store(false, Ordering::Relaxed);
        result
    }
}

unsafe extern "C-unwind" fn are_parked(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    boolean(gort_core::observe::are_parked(rt, sched::current_goroutine()))
}

unsafe extern "C-unwind" fn ident(_m: Object, goroutine: Object) -> Object {
    // SAFETY: METH_O with the GIL; the bundle of a goroutine that has begun is alive while that is.
    unsafe {
        if ffi::Py_TYPE(goroutine) != GO_TYPE.load(Ordering::Relaxed) {
            return error::set(ffi::PyExc_TypeError, "_ident() needs a Goroutine");
        }
        let g = (*goroutine.cast::<GoObject>()).goroutine();
        if g.is_null() || (*g).bundle.is_null() {
            return none();
        }
        ffi::PyLong_FromSize_t((*(*g).bundle).identity)
    }
}

unsafe extern "C-unwind" fn stats(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let pairs = [
        (c"goroutines", rt.registry.live()),
        (c"created", rt.registry.created()),
        (c"processors", rt.processors.in_use() as u64),
        (c"machines", rt.machine_count.load(Ordering::Relaxed) as u64),
        (c"idle_machines", rt.idle_machine_count() as u64),
        (c"steals", rt.counters.steals.load(Ordering::Relaxed)),
        (c"timers", rt.timer_count() as u64),
        (c"hand_offs", rt.counters.hand_offs.load(Ordering::Relaxed)),
        (c"local_pops", rt.processors.iter().map(|p| p.local_pops.load(Ordering::Relaxed)).sum()),
        (c"global_pops", rt.counters.global_pops.load(Ordering::Relaxed)),
        (c"spins", rt.counters.spins.load(Ordering::Relaxed)),
        (c"preemptions", rt.counters.preemptions.load(Ordering::Relaxed)),
    ];
    counts(&pairs)
}

unsafe extern "C-unwind" fn shutdown(_m: Object, _: Object) -> Object {
    let rt = task::runtime_or_null();
    if !rt.is_null() {
        // SAFETY: the runtime is leaked; after `stop` no M but this one makes or deletes a state.
        unsafe {
            (*rt).stop();
            host::gort_forget_states();
        }
    }
    none()
}

/// Adds the functions and the Goroutine type.
pub(crate) unsafe fn register(module: Object) -> bool {
    let [unstarted, start] = start::entries();
    let functions = methods(vec![
        unstarted,
        start,
        fast(c"go", go, doc::GO),
        fast(c"spawn", spawn, doc::SPAWN),
        fast(
            c"run_main",
            run_main,
            c"run_main(fn, args, kwargs=None)\n--\n\nCalls fn as the main goroutine; refuses to nest.",
        ),
        fast(c"gomaxprocs", gomaxprocs, doc::GOMAXPROCS),
        plain(c"gosched", gosched, ffi::METH_NOARGS, doc::GOSCHED),
        plain(c"lock_os_thread", lock_os_thread, ffi::METH_NOARGS, doc::LOCK_OS_THREAD),
        plain(c"unlock_os_thread", unlock_os_thread, ffi::METH_NOARGS, doc::UNLOCK_OS_THREAD),
        plain(c"goexit", goexit, ffi::METH_NOARGS, doc::GOEXIT),
        fast(c"sleep", sleep, doc::SLEEP),
        plain(c"current", current, ffi::METH_NOARGS, doc::CURRENT),
        plain(c"num_goroutine", num_goroutine, ffi::METH_NOARGS, doc::NUM_GOROUTINE),
        plain(c"goroutines", goroutines, ffi::METH_NOARGS, doc::GOROUTINES),
        plain(c"stats", stats, ffi::METH_NOARGS, doc::STATS),
        plain(
            c"_are_parked",
            are_parked,
            ffi::METH_NOARGS,
            c"_are_parked()\n--\n\nWhether all goroutines but the calling one are parked.",
        ),
        plain(
            c"_ident",
            ident,
            ffi::METH_O,
            c"_ident(goroutine, /)\n--\n\nWho it is to sys._current_frames; None before it begins, and afterwards.",
        ),
        plain(
            c"_usable_cpus",
            usable_cpus,
            ffi::METH_NOARGS,
            c"_usable_cpus()\n--\n\nCPUs of the mask, or of the control group's quota if that is less, by Go's rule.",
        ),
        plain(
            c"_no_preempt",
            no_preempt,
            ffi::METH_O,
            c"_no_preempt(change, /)\n--\n\nCounts why the goroutine is not preempted.",
        ),
        origin::set_package_entry(),
        origin::note_entry(),
        plain(c"_shutdown", shutdown, ffi::METH_NOARGS, c"_shutdown()\n--\n\nStops the scheduler at exit."),
    ]);
    let mut slots = task::slots().to_vec();
    slots.push(ffi::PyType_Slot {
        slot: ffi::Py_tp_methods,
        pfunc: methods(vec![
            fast(
                c"join",
                join,
                c"join($self, timeout=None, ctx=None)\n--\n\nWaits for the end; returns the result or raises the exception. Parks.",
            ),
            plain(c"cancel", cancel, ffi::METH_NOARGS, c"cancel($self)\n--\n\nAsks the goroutine to end; False if it has."),
            plain(c"set_priority", policy::set_priority, ffi::METH_O, doc::SET_PRIORITY),
            plain(c"stats", policy::goroutine_stats, ffi::METH_NOARGS, doc::GOROUTINE_STATS),
        ])
        .cast(),
    });
    slots.push(ffi::PyType_Slot {
        slot: ffi::Py_tp_getset,
        pfunc: getters(&[
            (c"id", shown::get_id),
            (c"name", shown::get_name),
            (c"done", shown::get_done),
            (c"status", shown::get_status),
            (c"priority", policy::get_priority),
            (c"group", policy::get_group),
            (c"labels", labels::get_labels),
            (c"created", origin::get_created),
            (c"parent", origin::get_parent),
        ])
        .cast(),
    });
    slots.push(ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: shown::go_repr as *mut _ });
    // SAFETY: GIL held by the module's init.
    unsafe {
        let flags = ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        let tp = super::add_type(module, c"gort.Goroutine", size_of::<GoObject>(), flags, slots);
        GO_TYPE.store(tp, Ordering::Release);
        !tp.is_null() && ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
