//! Timers and tickers on the core's timers, with the rules of Go 1.23.
//!
//! A timer's channel holds one value and owns what feeds it; so a timer is collected with its channel, stopped or not,
//! and nothing of Python is owned by a heap. Firing happens on an M's scheduler stack, where no Python code may run: it
//! gives a float to the channel without waiting, or starts a goroutine. Both were made when the timer was set, so that
//! one that is set fires even where memory is refused (`late`). Everything here happens under the GIL without letting go of it,
//! so stopping excludes firing: after stop() and reset() the channel is empty.

use super::chan::{CHAN_TYPE, ChanObject};
use super::duration::{period, timer_duration};
use super::{Value, arguments, boolean, fast, getters, methods, none, plain, runtime};
use crate::error;
use crate::late;
use crate::task::{self, GoObject};
use crate::tracing;
use gort_core::chan::Chan;
use gort_core::sched::{self, Runtime};
use gort_core::timer::{Event, EventTimer};
use pyo3::ffi;
use std::alloc::{Layout, alloc};
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

type Object = *mut ffi::PyObject;

/// Shortest time between ticks, ns. A ticker that is due again as soon as it has fired would keep an M that looks for
/// work from ever sleeping, and so from letting go of the GIL. sysmon's shortest pause; a wake-up takes about as long.
const MIN_PERIOD_NS: u64 = 20_000;

/// What feeds a channel; owned by it.
#[repr(C)]
pub(crate) struct ChanTimer {
    event: EventTimer,
    chan: *mut ChanObject,
    /// What the next tick gives: a float that nobody else has seen, told the time then. Null: see `feed`.
    tick: Object,
}

/// What starts the goroutine of after_func; owned by its Timer, and by the heap once that is gone.
#[repr(C)]
struct CallTimer {
    event: EventTimer,
    /// Made when the timer is set; owned until the timer fires or is stopped.
    goroutine: *mut GoObject,
    orphan: bool,
}

/// A Timer or Ticker. One of `chan` and `call` is set, until the collector clears it.
#[repr(C)]
struct TimerObject {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    chan: *mut ChanObject,
    call: *mut CallTimer,
    function: Object,
    args: Object,
    kwargs: Object,
}

static FEED: Event = Event { take: take_feed, fire: feed, abandon: |_| {} };
static CALL: Event = Event { take: take_call, fire: start_call, abandon: abandon_call };

unsafe fn take_feed(timer: *mut EventTimer) -> *mut u8 {
    timer.cast()
}

unsafe fn feed(timer: *mut u8) {
    // SAFETY: the GIL is held since `take_feed`, so the channel, which takes its timer out before it goes, is alive.
    unsafe {
        // Where one of a bubble fires, that is the caller's.
        let timer = timer.cast::<ChanTimer>();
        let bubbles = (*timer).event.bubble != 0;
        let now = match sched::bubble_now_ns().filter(|_| bubbles) {
            Some(ns) => ns as f64 / 1e9,
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()),
        };
        if !has_tick(timer) {
            ffi::PyErr_Clear(); // not the first tick of a ticker: it is lost, as on a slow reader
            return;
        }
        (*(*timer).tick.cast::<ffi::PyFloatObject>()).ob_fval = now;
        if (*(*timer).chan).chan.try_send(Value((*timer).tick)).is_ok() {
            (*timer).tick = ptr::null_mut();
        }
    }
}

/// Whether there is a float for the next tick, made now if need be. `false`: MemoryError is set.
unsafe fn has_tick(timer: *mut ChanTimer) -> bool {
    // SAFETY: GIL held; a live channel's.
    unsafe {
        if (*timer).tick.is_null() {
            (*timer).tick = ffi::PyFloat_FromDouble(0.0);
        }
        !(*timer).tick.is_null()
    }
}

unsafe fn take_call(timer: *mut EventTimer) -> *mut u8 {
    let call = timer.cast::<CallTimer>();
    // SAFETY: out of the heap; an orphan belongs to nobody else.
    unsafe {
        let goroutine = std::mem::replace(&mut (*call).goroutine, ptr::null_mut());
        if (*call).orphan {
            drop(Box::from_raw(call));
        }
        goroutine.cast()
    }
}

unsafe fn abandon_call(timer: *mut EventTimer) {
    // SAFETY: out of its heap, with the GIL, where Python code may run.
    unsafe { ffi::Py_XDECREF(take_call(timer).cast()) };
}

unsafe fn start_call(goroutine: *mut u8) {
    // SAFETY: GIL held; a goroutine that was never started, and one reference to it. A timer was set, so there is a runtime.
    unsafe { late::start(goroutine.cast()) };
}

/// Whether a channel's timer will feed it.
///
/// # Safety
/// GIL held; `timer` is null or that of a live channel.
pub(crate) unsafe fn is_set(timer: *const ChanTimer) -> bool {
    // SAFETY: the caller's promise.
    !timer.is_null() && unsafe { (*timer).event.timer.is_queued() }
}

/// Takes a channel's timer out and frees it.
///
/// # Safety
/// GIL held; the channel is going, and `timer` is null or its.
pub(crate) unsafe fn release(timer: *mut ChanTimer) {
    if timer.is_null() {
        return;
    }
    // SAFETY: the caller's promise; a timer was set, so there is a runtime.
    unsafe {
        (*task::runtime_or_null()).stop_timer(timer.cast());
        ffi::Py_XDECREF((*timer).tick);
        drop(Box::from_raw(timer));
    }
}

/// A value on the heap, as a box has it; null where memory is refused.
pub(super) fn boxed<T>(value: T) -> *mut T {
    // SAFETY: none of the types here is empty; what is written to is new, and of its layout.
    unsafe {
        let place = alloc(Layout::new::<T>()).cast::<T>();
        if !place.is_null() {
            place.write(value);
        }
        place
    }
}

/// Sets a timer for `seconds` from now, and every so many if it is periodic. `false`: there is no memory for one more, and
/// MemoryError is set.
pub(super) unsafe fn start(rt: &'static Runtime, timer: *mut EventTimer, seconds: f64, periodic: bool) -> bool {
    let ns = (seconds.max(0.0) * 1e9).ceil() as u64;
    // SAFETY: the caller's: GIL held, `timer` not queued and in place until it is stopped.
    unsafe {
        if !rt.has_room_for_timer() {
            ffi::PyErr_NoMemory();
            return false;
        }
        rt.start_timer(timer, sched::now_ns() + ns, if periodic { ns.max(MIN_PERIOD_NS) } else { 0 });
    }
    true
}

/// A channel that is fed after `seconds`; null with an exception set on failure.
unsafe fn new_channel(seconds: f64, periodic: bool) -> *mut ChanObject {
    // SAFETY: GIL held; the type is ready once the module is.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let chan = ffi::PyType_GenericAlloc(CHAN_TYPE.load(Ordering::Relaxed), 0).cast::<ChanObject>();
        if !chan.is_null() {
            ptr::write(&raw mut (*chan).chan, Chan::new(1));
            tracing::begin_chan(&(*chan).chan);
            let event = EventTimer::new(&FEED, sched::current_bubble());
            (*chan).timer = boxed(ChanTimer { event, chan, tick: ptr::null_mut() });
            if (*chan).timer.is_null() {
                ffi::Py_DECREF(chan.cast());
                return ffi::PyErr_NoMemory().cast();
            }
            if !has_tick((*chan).timer) || !start(rt, (*chan).timer.cast(), seconds, periodic) {
                ffi::Py_DECREF(chan.cast());
                return ptr::null_mut();
            }
        }
        chan
    }
}

/// An object of type `tp` around a new channel.
unsafe fn new_object(tp: *mut ffi::PyTypeObject, seconds: f64, periodic: bool) -> Object {
    // SAFETY: GIL held; `tp` is one of the types below or a subclass.
    unsafe {
        let chan = new_channel(seconds, periodic);
        if chan.is_null() {
            return ptr::null_mut();
        }
        let obj = ffi::PyType_GenericAlloc(tp, 0).cast::<TimerObject>();
        if obj.is_null() {
            ffi::Py_DECREF(chan.cast());
        } else {
            (*obj).chan = chan;
        }
        obj.cast()
    }
}

unsafe fn only_argument(args: Object, kwargs: Object, format: &std::ffi::CStr) -> Object {
    let mut value: Object = ptr::null_mut();
    let mut names = [c"seconds".as_ptr().cast_mut(), ptr::null_mut()];
    // SAFETY: tp_new with the GIL. A failure leaves `value` null.
    unsafe {
        ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format.as_ptr(), names.as_mut_ptr().cast(), &raw mut value);
    }
    value
}

unsafe extern "C" fn timer_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let value = only_argument(args, kwargs, c"O:Timer");
        if value.is_null() {
            return value;
        }
        timer_duration(value).map_or(ptr::null_mut(), |seconds| new_object(tp, seconds, false))
    }
}

unsafe extern "C" fn ticker_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let value = only_argument(args, kwargs, c"O:Ticker");
        if value.is_null() {
            return value;
        }
        period(value, "NewTicker").map_or(ptr::null_mut(), |seconds| new_object(tp, seconds, true))
    }
}

/// `_after_func(cls, seconds, fn, args, kwargs)`: a Timer without a channel.
unsafe extern "C-unwind" fn after_func(_m: Object, args: *const Object, n: ffi::Py_ssize_t, _: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the facade passes a subclass of Timer, a tuple and a dict.
    unsafe {
        if n != 5 {
            return error::set(ffi::PyExc_TypeError, "_after_func() takes exactly 5 arguments");
        }
        let [tp, seconds, function, call_args, kwargs] = [0, 1, 2, 3, 4].map(|i| *args.add(i));
        let Some(seconds) = timer_duration(seconds) else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let goroutine = task::new_object(function, call_args, kwargs);
        if goroutine.is_null() {
            return ptr::null_mut();
        }
        let obj = ffi::PyType_GenericAlloc(tp.cast(), 0).cast::<TimerObject>();
        if obj.is_null() {
            ffi::Py_DECREF(goroutine.cast());
            return ptr::null_mut();
        }
        for reference in [function, call_args, kwargs] {
            ffi::Py_INCREF(reference);
        }
        ((*obj).function, (*obj).args, (*obj).kwargs) = (function, call_args, kwargs);
        let event = EventTimer::new(&CALL, sched::current_bubble());
        (*obj).call = boxed(CallTimer { event, goroutine, orphan: false });
        if (*obj).call.is_null() {
            ffi::PyErr_NoMemory();
        } else if start(rt, (*obj).call.cast(), seconds, false) {
            return obj.cast();
        }
        ffi::Py_DECREF(obj.cast());
        ffi::Py_DECREF(goroutine.cast());
        ptr::null_mut()
    }
}

/// `_time_chan(seconds, periodic)`: the channel of a timer or ticker that nobody will stop.
unsafe extern "C-unwind" fn time_chan(_m: Object, args: *const Object, n: ffi::Py_ssize_t, _: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        if n != 2 {
            return error::set(ffi::PyExc_TypeError, "_time_chan() takes exactly 2 arguments");
        }
        let periodic = ffi::PyObject_IsTrue(*args.add(1)) == 1;
        let seconds = if periodic { period(*args, "NewTicker") } else { timer_duration(*args) };
        seconds.map_or(ptr::null_mut(), |seconds| new_channel(seconds, periodic).cast())
    }
}

/// `_poll_timers()`: what is due fires now, even where nobody schedules for a while.
unsafe extern "C-unwind" fn poll_timers(_m: Object, _: Object) -> Object {
    let rt = task::runtime_or_null();
    if !rt.is_null() {
        // SAFETY: the runtime is leaked; GIL held.
        unsafe { (*rt).poll_timers() };
    }
    none()
}

/// Stops the timer of a channel and empties the channel; whether that prevented a value from being received.
unsafe fn stop_channel(rt: &'static Runtime, chan: *mut ChanObject) -> bool {
    // SAFETY: GIL held; the channel is alive. Letting a float go runs no code.
    unsafe {
        let queued = rt.stop_timer((*chan).timer.cast());
        let unread = (*chan).chan.try_recv().map(|value| ffi::Py_DECREF(value.0)).is_ok();
        queued || unread
    }
}

/// Whether a timer is one of a bubble that the caller is not in: an exception is set then.
unsafe fn is_foreign(obj: *mut TimerObject, verb: &str) -> bool {
    // SAFETY: GIL held; a live timer, whose parts are null or its.
    let bubble = unsafe {
        match ((*obj).chan.is_null(), (*obj).call.is_null()) {
            (false, _) => (*(*(*obj).chan).timer).event.bubble,
            (true, false) => (*(*obj).call).event.bubble,
            (true, true) => 0,
        }
    };
    let foreign = sched::is_foreign(bubble);
    if foreign {
        // SAFETY: GIL held.
        error::set(unsafe { ffi::PyExc_RuntimeError }, format_args!("{verb} of synctest timer from outside bubble"));
    }
    foreign
}

unsafe fn uninitialised(method: &str) -> Object {
    // SAFETY: GIL held.
    error::set(unsafe { ffi::PyExc_RuntimeError }, format_args!("time: {method} called on uninitialized Timer"))
}

unsafe extern "C-unwind" fn timer_stop(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL. The goroutine is let go last: that may run anything.
    unsafe {
        let obj = slf.cast::<TimerObject>();
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if is_foreign(slf.cast(), "stop") {
            return ptr::null_mut();
        }
        if !(*obj).chan.is_null() {
            return boolean(stop_channel(rt, (*obj).chan));
        }
        let call = (*obj).call;
        if call.is_null() {
            return uninitialised("Stop");
        }
        let prevented = rt.stop_timer(call.cast());
        ffi::Py_XDECREF(std::mem::replace(&mut (*call).goroutine, ptr::null_mut()).cast());
        boolean(prevented)
    }
}

unsafe extern "C-unwind" fn timer_reset(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL. Making the new goroutine and letting the old one go may run anything, also this;
    // in between nothing does.
    unsafe {
        let obj = slf.cast::<TimerObject>();
        let Some([value]) = arguments("reset", args, n, kw, [c"seconds"], 1) else { return ptr::null_mut() };
        let Some(seconds) = timer_duration(value) else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if is_foreign(slf.cast(), "reset") {
            return ptr::null_mut();
        }
        if !(*obj).chan.is_null() {
            if !has_tick((*(*obj).chan).timer) {
                return ptr::null_mut();
            }
            let prevented = stop_channel(rt, (*obj).chan);
            let is_set = start(rt, (*(*obj).chan).timer.cast(), seconds, false);
            return if is_set { boolean(prevented) } else { ptr::null_mut() };
        }
        if (*obj).call.is_null() || (*obj).function.is_null() {
            return uninitialised("Reset");
        }
        let goroutine = task::new_object((*obj).function, (*obj).args, (*obj).kwargs);
        if goroutine.is_null() {
            return ptr::null_mut();
        }
        let call = (*obj).call;
        let prevented = rt.stop_timer(call.cast());
        let mut old = std::mem::replace(&mut (*call).goroutine, goroutine);
        let is_set = start(rt, call.cast(), seconds, false);
        if !is_set {
            ffi::Py_XDECREF(old.cast());
            old = std::mem::replace(&mut (*call).goroutine, ptr::null_mut());
        }
        ffi::Py_XDECREF(old.cast());
        if is_set { boolean(prevented) } else { ptr::null_mut() }
    }
}

unsafe extern "C-unwind" fn ticker_stop(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if is_foreign(slf.cast(), "stop") {
            return ptr::null_mut();
        }
        let chan = (*slf.cast::<TimerObject>()).chan;
        if !chan.is_null() {
            stop_channel(rt, chan);
        }
        none()
    }
}

unsafe extern "C-unwind" fn ticker_reset(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([value]) = arguments("reset", args, n, kw, [c"seconds"], 1) else { return ptr::null_mut() };
        let Some(seconds) = period(value, "Ticker.Reset") else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if is_foreign(slf.cast(), "reset") {
            return ptr::null_mut();
        }
        let chan = (*slf.cast::<TimerObject>()).chan;
        if chan.is_null() {
            return uninitialised("Reset");
        }
        if !has_tick((*chan).timer) {
            return ptr::null_mut();
        }
        stop_channel(rt, chan);
        if start(rt, (*chan).timer.cast(), seconds, true) { none() } else { ptr::null_mut() }
    }
}

unsafe extern "C" fn get_chan(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: a getter with the GIL.
    unsafe {
        let chan = (*slf.cast::<TimerObject>()).chan.cast::<ffi::PyObject>();
        if chan.is_null() {
            return none();
        }
        ffi::Py_INCREF(chan);
        chan
    }
}

unsafe extern "C" fn traverse(slf: Object, visit: ffi::visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: called by the collector on a live object; the goroutine of a set timer is the heap's, which is no object.
    unsafe {
        let obj = slf.cast::<TimerObject>();
        for field in [ffi::Py_TYPE(slf).cast(), (*obj).chan.cast(), (*obj).function, (*obj).args, (*obj).kwargs] {
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

unsafe extern "C" fn clear(slf: Object) -> std::ffi::c_int {
    // SAFETY: called by the collector or dealloc; each field is cleared before its referent is let go.
    unsafe {
        let obj = slf.cast::<TimerObject>();
        ffi::Py_XDECREF(std::mem::replace(&mut (*obj).chan, ptr::null_mut()).cast());
        for field in [&raw mut (*obj).function, &raw mut (*obj).args, &raw mut (*obj).kwargs] {
            ffi::Py_XDECREF(std::mem::replace(&mut *field, ptr::null_mut()));
        }
        0
    }
}

unsafe extern "C" fn dealloc(slf: Object) {
    // SAFETY: the last reference is gone. A call that is still to come is the heap's from here on.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        super::end_weak_references(slf, (*slf.cast::<TimerObject>()).weak_list);
        let call = (*slf.cast::<TimerObject>()).call;
        if !call.is_null() {
            if (*call).event.timer.is_queued() {
                (*call).orphan = true;
            } else {
                drop(Box::from_raw(call));
            }
        }
        clear(slf);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

unsafe fn add_type(
    module: Object,
    name: &'static std::ffi::CStr,
    doc: &'static std::ffi::CStr,
    new: *mut std::ffi::c_void,
    table: Vec<ffi::PyMethodDef>,
) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let slots = vec![
        super::weak_list(std::mem::offset_of!(TimerObject, weak_list)),
        slot(ffi::Py_tp_new, new),
        slot(ffi::Py_tp_dealloc, dealloc as *mut _),
        slot(ffi::Py_tp_traverse, traverse as *mut _),
        slot(ffi::Py_tp_clear, clear as *mut _),
        slot(ffi::Py_tp_methods, methods(table).cast()),
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
        slot(ffi::Py_tp_getset, getters(&[(c"_chan", get_chan)]).cast()),
    ];
    let flags = ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC;
    // SAFETY: GIL held by the module's init.
    unsafe { !super::add_type(module, name, size_of::<TimerObject>(), flags, slots).is_null() }
}

/// Adds the types and functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        fast(
            c"_after_func",
            after_func,
            c"_after_func(cls, seconds, fn, args, kwargs, /)\n--\n\nA Timer that calls a function.",
        ),
        fast(c"_time_chan", time_chan, c"_time_chan(seconds, periodic, /)\n--\n\nThe channel of a timer or ticker."),
        plain(c"_poll_timers", poll_timers, ffi::METH_NOARGS, c"_poll_timers()\n--\n\nFires what is due."),
    ]);
    let timer = vec![
        plain(
            c"stop",
            timer_stop,
            ffi::METH_NOARGS,
            c"stop($self, /)\n--\n\nStops it; whether that prevented it from firing.",
        ),
        fast(c"reset", timer_reset, c"reset($self, /, seconds)\n--\n\nSets it anew; what stop() would have returned."),
    ];
    let ticker = vec![
        plain(
            c"stop",
            ticker_stop,
            ffi::METH_NOARGS,
            c"stop($self, /)\n--\n\nStops ticking; does not close the channel.",
        ),
        fast(c"reset", ticker_reset, c"reset($self, /, seconds)\n--\n\nTicks every so many seconds from now on."),
    ];
    // SAFETY: GIL held by the module's init.
    unsafe {
        add_type(
            module,
            c"gort.Timer",
            c"Timer(seconds)\n--\n\nA timer; gort.Timer adds c.",
            timer_new as *mut _,
            timer,
        ) && add_type(
            module,
            c"gort.Ticker",
            c"Ticker(seconds)\n--\n\nA ticker; gort.Ticker adds c.",
            ticker_new as *mut _,
            ticker,
        ) && ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
