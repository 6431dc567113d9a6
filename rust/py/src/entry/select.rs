//! select, and the cases `recv(ch)` and `send(ch, v)` make.
//!
//! A select makes its cases anew each time it runs, so what they cost counts: cases that end go to a short free list, and
//! up to `INLINE` of them are read into a buffer on the stack. That buffer holds one count of each value to be sent until
//! the value is taken; it has no destructor, for the thread may be ended in the park.

use super::chan::{CHAN_TYPE, chan_of, fill, let_go, usable_chan};
use super::context::limited_object;
use super::{Value, arguments, boolean, fast, methods, none, plain, positional, runtime};
use crate::doc;
use crate::error;
use gort_core::chan::select::{Case, Selected, select as core_select};
use gort_core::goroutine::ender::Until;
use gort_core::goroutine::waiter::Outcome;
use gort_core::sched::Runtime;
use pyo3::ffi;
use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;
type CoreCase = Case<'static, Value>;

#[repr(C)]
struct CaseObject {
    ob_base: ffi::PyObject,
    /// A Chan, or None for the nil channel.
    chan: Object,
    /// The value of a send; null for a receive.
    value: Object,
}

static CASE_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// Names of what a view gives its channel by; interned, never freed.
static RECV_CHAN: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
static SEND_CHAN: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Go's limit.
const MAX_CASES: usize = 65_536;
/// Cases read without memory from the heap.
const INLINE: usize = 8;
/// Ended cases kept.
const KEPT: usize = 64;

/// Ended cases that the list keeps alive: untracked, with nothing in them, one count each.
struct FreeList {
    len: usize,
    cases: [Object; KEPT],
}

struct Free(UnsafeCell<FreeList>);
// SAFETY: only touched with the GIL held, and never over a call that could release it.
unsafe impl Sync for Free {}

static FREE: Free = Free(UnsafeCell::new(FreeList { len: 0, cases: [ptr::null_mut(); KEPT] }));

/// The channel to receive from (or to send on) in `ch`: a Chan, None, or what a one-way view gives out. Owned; null with
/// TypeError set for anything else, and for a view of the other direction.
#[inline]
unsafe fn channel(ch: Object, is_send: bool) -> Object {
    // SAFETY: GIL held, `ch` alive.
    unsafe {
        if ffi::Py_TYPE(ch) == CHAN_TYPE.load(Ordering::Relaxed) || ch == ffi::Py_None() {
            ffi::Py_INCREF(ch);
            return ch;
        }
        channel_of_view(ch, is_send)
    }
}

#[cold]
unsafe fn channel_of_view(view: Object, is_send: bool) -> Object {
    // SAFETY: GIL held, `view` alive.
    unsafe {
        let name = if is_send { &SEND_CHAN } else { &RECV_CHAN };
        let inner = ffi::PyObject_GetAttr(view, name.load(Ordering::Relaxed));
        if !inner.is_null() && ffi::Py_TYPE(inner) == CHAN_TYPE.load(Ordering::Relaxed) {
            return inner;
        }
        if inner.is_null() && ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return inner; // the view said no in its own words
        }
        ffi::Py_XDECREF(inner);
        ffi::PyErr_Clear();
        let tp = ffi::PyType_GetName(ffi::Py_TYPE(view));
        if !tp.is_null() {
            let (function, side) = if is_send { (c"send", c"SendChan") } else { (c"recv", c"RecvChan") };
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"gort.%s() needs a Chan, a %s or None, not %U".as_ptr(),
                function.as_ptr(),
                side.as_ptr(),
                tp,
            );
            ffi::Py_DECREF(tp);
        }
        ptr::null_mut()
    }
}

#[inline]
unsafe fn new_case(ch: Object, value: Object) -> Object {
    // SAFETY: GIL held. A case from the list comes with the list's count, a new one with its first.
    unsafe {
        let chan = channel(ch, !value.is_null());
        if chan.is_null() {
            return chan;
        }
        let tp = CASE_TYPE.load(Ordering::Relaxed);
        let free = &mut *FREE.0.get();
        let obj = if free.len > 0 {
            free.len -= 1;
            free.cases[free.len]
        } else {
            let new = ffi::PyObject_GC_New::<ffi::PyObject>(tp);
            if new.is_null() {
                ffi::Py_DECREF(chan);
                return new;
            }
            new
        };
        let case = obj.cast::<CaseObject>();
        (*case).chan = chan;
        ffi::Py_XINCREF(value);
        (*case).value = value;
        ffi::PyObject_GC_Track(obj.cast());
        obj
    }
}

unsafe extern "C-unwind" fn recv(_m: Object, ch: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { new_case(ch, ptr::null_mut()) }
}

unsafe extern "C-unwind" fn send(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 2 {
            return error::set(
                ffi::PyExc_TypeError,
                format_args!("send() takes a channel and a value ({nargs} given)"),
            );
        }
        new_case(*args, *args.add(1))
    }
}

/// What `select` was asked besides its cases.
struct Request {
    rt: &'static Runtime,
    has_default: bool,
    until: Until,
}

unsafe extern "C-unwind" fn select(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the caller's frame keeps the cases, and they their channels, alive.
    unsafe {
        let n = nargs as usize;
        if kw.is_null() {
            return select_among(args, n, false, Until::Never);
        }
        let names = [c"default", c"timeout", c"ctx"];
        let Some([default, timeout, ctx]) = arguments("select", args.add(n), 0, kw, names, 0) else {
            return ptr::null_mut();
        };
        let truth = if default.is_null() { 0 } else { ffi::PyObject_IsTrue(default) };
        if truth < 0 {
            return ptr::null_mut();
        }
        limited_object(timeout, ctx, |until| select_among(args, n, truth != 0, until))
    }
}

#[inline(always)]
unsafe fn select_among(args: *const Object, n: usize, has_default: bool, until: Until) -> Object {
    // SAFETY: `select`'s.
    unsafe {
        if n <= INLINE {
            let mut room = [const { MaybeUninit::<CoreCase>::uninit() }; INLINE];
            return select_in(&mut room[..n], args, has_default, until);
        }
        if n > MAX_CASES {
            return error::set(ffi::PyExc_ValueError, "select: more than 65536 cases");
        }
        let mut room: ManuallyDrop<Vec<CoreCase>> = ManuallyDrop::new(Vec::new());
        if room.try_reserve_exact(n).is_err() {
            return ffi::PyErr_NoMemory();
        }
        let result = select_in(&mut room.spare_capacity_mut()[..n], args, has_default, until);
        ManuallyDrop::drop(&mut room);
        result
    }
}

/// Reads the cases in `args` into `room`, which has a place for each, and selects.
#[inline(always)]
unsafe fn select_in(
    room: &mut [MaybeUninit<CoreCase>],
    args: *const Object,
    has_default: bool,
    until: Until,
) -> Object {
    // SAFETY: `args` holds as many objects as `room` has places; the first `i` places are written in the loop.
    unsafe {
        let tp = CASE_TYPE.load(Ordering::Relaxed);
        let n = room.len();
        let cases = room.as_mut_ptr().cast::<CoreCase>();
        for i in 0..n {
            let arg = *args.add(i);
            if ffi::Py_TYPE(arg) != tp {
                return_values(std::slice::from_raw_parts_mut(cases, i));
                return error::set(ffi::PyExc_TypeError, "select() takes cases made by gort.recv() and gort.send()");
            }
            let case = arg.cast::<CaseObject>();
            let mut chan = None;
            if (*case).chan != ffi::Py_None() {
                chan = usable_chan((*case).chan, "select on");
                if chan.is_none() {
                    return_values(std::slice::from_raw_parts_mut(cases, i));
                    return ptr::null_mut();
                }
            }
            let value = (*case).value;
            cases.add(i).write(if value.is_null() {
                Case::recv(chan)
            } else {
                ffi::Py_INCREF(value);
                Case::send(chan, Value(value))
            });
        }
        let cases = std::slice::from_raw_parts_mut(cases, n);
        let reply = ffi::PyTuple_New(3);
        let Some(rt) = runtime().filter(|_| !reply.is_null()) else {
            ffi::Py_XDECREF(reply);
            return_values(cases);
            return ptr::null_mut();
        };
        if !has_default {
            ffi::PyObject_GC_UnTrack(reply.cast()); // it may wait
        }
        let selected = run(&Request { rt, has_default, until }, cases);
        if !has_default {
            ffi::PyObject_GC_Track(reply.cast());
        }
        finish(selected, cases, reply)
    }
}

/// Selects until something other than a signal ends it. `None`: an exception is set.
#[inline(always)]
fn run(request: &Request, cases: &mut [CoreCase]) -> Option<Selected> {
    loop {
        match core_select(request.rt, cases, request.has_default, request.until) {
            Selected::Ended(outcome) if outcome != Outcome::TimedOut => {
                if !error::ended(request.rt, outcome) {
                    return None;
                }
            }
            selected => return Some(selected),
        }
    }
}

/// The result of a select as Python sees it, in the new tuple `reply`; lets go of the values that were not sent.
#[inline(always)]
unsafe fn finish(selected: Option<Selected>, cases: &mut [CoreCase], reply: Object) -> Object {
    // SAFETY: GIL held.
    unsafe {
        let (index, value, ok) = match selected {
            Some(Selected::Received(i)) => (i as isize, cases[i].slot.take().map_or_else(none, |v| v.0), true),
            Some(Selected::ReceivedClosed(i)) => (i as isize, none(), false),
            Some(Selected::Sent(i)) => (i as isize, none(), true),
            Some(Selected::Default) => (-1, none(), false),
            Some(Selected::Ended(_)) => (-2, none(), false),
            Some(Selected::SendOnClosed(_)) => {
                error::set(error::chan_closed(), "send on closed channel");
                (0, ptr::null_mut(), false)
            }
            Some(Selected::NoMemory) => (0, ffi::PyErr_NoMemory(), false),
            None => (0, ptr::null_mut(), false),
        };
        return_values(cases);
        if value.is_null() {
            ffi::Py_DECREF(reply);
            return value;
        }
        let number = ffi::PyLong_FromSsize_t(index);
        if number.is_null() {
            ffi::Py_DECREF(reply);
            let case = &cases[index as usize]; // small numbers, and negative ones, are always there
            if ok && !case.is_send {
                take_back(case, value)
            } else {
                ffi::Py_DECREF(value)
            }
            return number;
        }
        fill(reply, [number, value, boolean(ok)])
    }
}

/// Gives the value of a receive back to its channel: there is no memory to tell of it.
#[cold]
unsafe fn take_back(case: &CoreCase, value: Object) {
    // SAFETY: GIL held; one count of the value belongs to the caller. The exception in flight says what happened.
    unsafe {
        if let Err(v) = case.chan.map_or(Err(Value(value)), |chan| chan.unrecv(Value(value), case.stamp)) {
            ffi::Py_DECREF(v.0);
        }
    }
}

/// Lets go of the values that were not sent, keeping the exception that may be set.
#[inline(always)]
unsafe fn return_values(cases: &mut [CoreCase]) {
    for case in cases {
        if let Some(v) = case.slot.take() {
            // SAFETY: GIL held; the slot owned one count, and the Case object, alive in the caller's frame, has its own.
            unsafe { ffi::Py_DECREF(v.0) };
        }
    }
}

/// `ch._recv_until(stop)`: receives from `ch` unless `stop` is closed first. (value, ok, stamp), or None. For a wait
/// that may have to give back what it received.
pub(crate) unsafe extern "C-unwind" fn recv_until(slf: Object, stop: Object) -> Object {
    // SAFETY: METH_O with the GIL; the caller's frame keeps both channels alive.
    unsafe {
        if ffi::Py_TYPE(stop) != CHAN_TYPE.load(Ordering::Relaxed) {
            return error::set(ffi::PyExc_TypeError, "_recv_until() needs a Chan");
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let reply = ffi::PyTuple_New(3);
        if reply.is_null() {
            return reply;
        }
        ffi::PyObject_GC_UnTrack(reply.cast());
        let mut cases = [Case::recv(Some(chan_of(slf))), Case::recv(Some(chan_of(stop)))];
        match run(&Request { rt, has_default: false, until: Until::Never }, &mut cases) {
            Some(Selected::Received(0)) => {
                let value = cases[0].slot.take().map_or_else(none, |v| v.0);
                let stamp = ffi::PyLong_FromUnsignedLongLong(cases[0].stamp);
                if stamp.is_null() {
                    ffi::Py_DECREF(reply);
                    take_back(&cases[0], value);
                    return stamp;
                }
                ffi::PyObject_GC_Track(reply.cast());
                fill(reply, [value, boolean(true), stamp])
            }
            Some(Selected::ReceivedClosed(0)) => {
                ffi::PyObject_GC_Track(reply.cast());
                fill(reply, [none(), boolean(false), ffi::PyLong_FromLong(0)]) // a small one is always there
            }
            other => {
                ffi::Py_DECREF(reply);
                return_values(&mut cases);
                if other.is_some() { none() } else { ptr::null_mut() }
            }
        }
    }
}

unsafe extern "C" fn case_traverse(slf: Object, visit: ffi::visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: called by the collector on a live object.
    unsafe {
        let case = slf.cast::<CaseObject>();
        for field in [ffi::Py_TYPE(slf).cast(), (*case).chan, (*case).value] {
            if !field.is_null() {
                let r = visit(field, arg);
                if r != 0 {
                    return r;
                }
            }
        }
        0
    }
}

/// If `object` is a case, moves its references to `pending`. For an object about to end: nobody else sees it empty.
pub(crate) unsafe fn take_apart(object: Object, pending: &mut Vec<Object>) {
    // SAFETY: GIL held, `object` alive.
    unsafe {
        if ffi::Py_TYPE(object) != CASE_TYPE.load(Ordering::Relaxed) {
            return;
        }
        let case = object.cast::<CaseObject>();
        for field in [&raw mut (*case).chan, &raw mut (*case).value] {
            let reference = field.replace(ptr::null_mut());
            if !reference.is_null() {
                // Without memory by recursion, after all.
                if pending.try_reserve(1).is_ok() { pending.push(reference) } else { ffi::Py_DECREF(reference) }
            }
        }
    }
}

unsafe extern "C" fn case_dealloc(slf: Object) {
    // SAFETY: the last reference is gone. The object goes to the list last, when nothing that could use the list runs
    // any more; there it is alive again, as after a finaliser that kept it, and keeps its type.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let case = slf.cast::<CaseObject>();
        for field in [(*case).chan, (*case).value] {
            if !field.is_null() {
                let_go(field);
            }
        }
        let free = &mut *FREE.0.get();
        if free.len < KEPT {
            ffi::Py_INCREF(slf);
            free.cases[free.len] = slf;
            free.len += 1;
            return;
        }
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

/// Frees the ended cases that are kept.
pub(super) unsafe fn forget_cases() {
    // SAFETY: GIL held; the list owns the one count of each, and freeing one runs no code.
    unsafe {
        let free = &mut *FREE.0.get();
        while free.len > 0 {
            free.len -= 1;
            let case = free.cases[free.len];
            let tp = ffi::Py_TYPE(case);
            ffi::PyObject_GC_Del(case.cast());
            ffi::Py_DECREF(tp.cast());
        }
    }
}

/// Adds the functions and the Case type.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        fast(c"select", select, doc::SELECT),
        plain(c"recv", recv, ffi::METH_O, doc::RECV),
        positional(c"send", send, doc::SEND),
    ]);
    let slots = vec![
        ffi::PyType_Slot { slot: ffi::Py_tp_traverse, pfunc: case_traverse as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_dealloc, pfunc: case_dealloc as *mut _ },
    ];
    let flags = ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    // SAFETY: GIL held by the module's init.
    unsafe {
        for (place, name) in [(&RECV_CHAN, c"_recv_chan"), (&SEND_CHAN, c"_send_chan")] {
            let name = ffi::PyUnicode_InternFromString(name.as_ptr());
            if name.is_null() {
                return false;
            }
            place.store(name, Ordering::Relaxed);
        }
        let tp = super::add_type(module, c"gort.Case", size_of::<CaseObject>(), flags, slots);
        CASE_TYPE.store(tp, Ordering::Release);
        !tp.is_null() && ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
