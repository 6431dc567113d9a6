//! What `gort.pprof` is made of: what every goroutine does, with its Python frames, and the bytes of a profile. Nothing here parks.

use super::chan::tuple;
use super::gc::Uncollected;
use super::metrics::Stopped;
use super::{arguments, boolean, fast, labels, methods, none, runtime};
use crate::error;
use crate::stacks::{Stacks, stack_of};
use crate::task::GoObject;
use gort_core::goroutine::{Blocked, Goroutine, status};
use gort_core::observe::pprof_proto::{Frame, Label, Profile};
use gort_core::primitive::tries::try_push;
use gort_core::sched::{self, Runtime};
use pyo3::ffi;
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::Ordering;

type Object = *mut ffi::PyObject;

/// A new reference to an object that may be null, else to None.
unsafe fn or_none(object: Object) -> Object {
    // SAFETY: GIL held by every caller.
    if object.is_null() { none() } else { unsafe { ffi::Py_NewRef(object) } }
}

/// A reference that may be null: then None, unless an exception is set.
unsafe fn optional(object: Object) -> Object {
    // SAFETY: GIL held by every caller.
    if object.is_null() && unsafe { ffi::PyErr_Occurred() }.is_null() { none() } else { object }
}

unsafe fn text(text: &str) -> Object {
    // SAFETY: GIL held by every caller; the text is UTF-8.
    unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as _) }
}

unsafe fn number(n: u64) -> Object {
    // SAFETY: GIL held by every caller.
    unsafe { ffi::PyLong_FromUnsignedLongLong(n) }
}

/// Every live goroutine; `None`: memory is refused.
pub(super) fn all(rt: &Runtime) -> Option<Vec<*const Goroutine>> {
    let mut list = Vec::new();
    let mut is_whole = true;
    // Only noted: the registry's lock is held meanwhile, and what makes objects may want to start a goroutine.
    rt.registry.for_each(|g| is_whole &= try_push(&mut list, ptr::from_ref(g)).is_some());
    is_whole.then_some(list)
}

/// The word for what it does. One whose M has lost its P in a call that lasts is in that call.
///
/// # Safety
/// GIL held; `g` is alive.
pub(super) unsafe fn state_of(g: &Goroutine) -> &'static str {
    let is_running = g.status.load(Ordering::Relaxed) == status::RUNNING;
    let m = g.owner().cast::<sched::machine::Machine>();
    let is_here = ptr::eq(g, sched::current_goroutine());
    // SAFETY: null or an M, which is never freed.
    let is_out = is_running && !is_here && !m.is_null() && unsafe { (*m).p() }.is_null();
    if is_out { "syscall" } else { g.word() }
}

/// One goroutine as `_goroutine_records` gives it; null with an exception set on failure.
///
/// # Safety
/// GIL held, the collector off; `g` is alive.
unsafe fn record(rt: &Runtime, g: &Goroutine, stacks: &Stacks, depth: usize) -> Object {
    // SAFETY: the caller's promise: nobody else runs, so task, bundle and state stay what they are.
    unsafe {
        let bundle = g.bundle.as_ref();
        let obj = if g.is_thread() { ptr::null_mut() } else { g.task.cast::<GoObject>() };
        let waits = g.status.load(Ordering::Acquire) == status::WAITING; // pairs with the Release of who parked it
        let since_s = bundle.filter(|_| waits).map_or(0, |b| rt.sampler.clock_s().wrapping_sub(b.parked_s));
        let kept_ms = bundle.map_or(0, |b| b.kept_lock_ns.load(Ordering::Relaxed) / 1_000_000);
        let state = stacks.state_of(g);
        let (mut tags, mut name, mut origin, mut parent) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0);
        if !state.is_null() {
            tags = labels::of_state(state);
        }
        if !obj.is_null() {
            if !(*obj).context.is_null() {
                tags = labels::of_context((*obj).context);
            }
            (name, parent) = ((*obj).name, (*obj).parent);
            origin = (*obj).origin.tuple();
        }
        tuple([
            number(g.id),
            or_none(name),
            text(state_of(g)),
            number(since_s.into()),
            boolean(bundle.is_some_and(|b| b.locks != 0)),
            number(kept_ms),
            number(g.bubble.id.into()),
            boolean(g.blocked == Blocked::Durably),
            optional(tags),
            optional(origin),
            number(parent),
            stack_of(state, depth),
            boolean(ptr::eq(g, sched::current_goroutine())),
        ])
    }
}

/// `_goroutine_records(depth)`: a tuple for each goroutine; see gort._dump.
unsafe extern "C-unwind" fn records(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL. The collector is off while records are made, so no code of others runs in between.
    unsafe {
        let Some([depth]) = arguments("_goroutine_records", args, nargs, kw, [c"depth"], 1) else {
            return ptr::null_mut();
        };
        let depth = ffi::PyLong_AsSize_t(depth);
        if depth == usize::MAX && !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let _stopped = Stopped::begin(rt);
        let uncollected = Uncollected::begin();
        let stacks = Stacks::default();
        let list = match all(rt) {
            Some(all) => {
                let mut list = ffi::PyList_New(all.len() as _);
                for (i, g) in all.into_iter().enumerate() {
                    let record = if list.is_null() { list } else { record(rt, &*g, &stacks, depth) };
                    if record.is_null() {
                        ffi::Py_XDECREF(std::mem::replace(&mut list, ptr::null_mut()));
                        break;
                    }
                    ffi::PyList_SET_ITEM(list, i as _, record);
                }
                list
            }
            None => ffi::PyErr_NoMemory(),
        };
        drop(uncollected);
        if stacks.is_refused() && !list.is_null() {
            ffi::Py_DECREF(list);
            return ffi::PyErr_NoMemory();
        }
        list
    }
}

/// What an argument of `_pprof_encode` lacks; an exception is set.
struct Refused;

/// Whether memory was refused; then MemoryError is set.
fn kept<T>(made: Option<T>) -> Result<T, Refused> {
    made.ok_or_else(|| {
        // SAFETY: GIL held by every caller.
        unsafe { ffi::PyErr_NoMemory() };
        Refused
    })
}

/// The text of a str, alive as long as that is. Surrogates are no UTF-8: such a name is not shown.
unsafe fn str_of<'a>(object: Object) -> Result<&'a str, Refused> {
    // SAFETY: GIL held; a live object.
    unsafe {
        let mut bytes = 0;
        let at = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut bytes);
        if !at.is_null() {
            return Ok(std::str::from_utf8_unchecked(std::slice::from_raw_parts(at.cast(), bytes as usize)));
        }
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_UnicodeEncodeError) != 0 {
            ffi::PyErr_Clear();
            return Ok("?");
        }
        Err(Refused)
    }
}

unsafe fn number_of(object: Object) -> Result<i64, Refused> {
    // SAFETY: GIL held; a live object.
    unsafe {
        let n = ffi::PyLong_AsLongLong(object);
        if n == -1 && !ffi::PyErr_Occurred().is_null() { Err(Refused) } else { Ok(n) }
    }
}

/// The items of a tuple of at least so many.
unsafe fn items<'a>(object: Object, least: usize) -> Result<&'a [Object], Refused> {
    // SAFETY: GIL held; a live object, which the caller's argument keeps alive.
    unsafe {
        if ffi::PyTuple_Check(object) == 0 || ffi::PyTuple_GET_SIZE(object) < least as isize {
            error::set(ffi::PyExc_TypeError, format_args!("_pprof_encode() needs tuples of {least} there"));
            return Err(Refused);
        }
        let count = ffi::PyTuple_GET_SIZE(object) as usize;
        Ok(std::slice::from_raw_parts((&raw const (*object.cast::<ffi::PyTupleObject>()).ob_item).cast(), count))
    }
}

/// Samples in the making; frames are told by their objects.
struct Encoder {
    profile: Profile,
    locations: HashMap<usize, u64>,
    stack: Vec<u64>,
    values: Vec<i64>,
}

impl Encoder {
    /// The location of a frame: (address, name, system name, file, line, first line).
    unsafe fn location(&mut self, frame: Object) -> Result<u64, Refused> {
        if let Some(&id) = self.locations.get(&frame.addr()) {
            return Ok(id);
        }
        // SAFETY: GIL held; the frame is alive as long as the argument it is in.
        let id = unsafe {
            let parts = items(frame, 6)?;
            let frame = Frame {
                address: number_of(parts[0])? as u64,
                name: str_of(parts[1])?,
                system_name: str_of(parts[2])?,
                file: str_of(parts[3])?,
                line: number_of(parts[4])?,
                start_line: number_of(parts[5])?,
            };
            kept(self.profile.location(&frame))?
        };
        kept(self.locations.try_reserve(1).ok())?;
        self.locations.insert(frame.addr(), id);
        Ok(id)
    }

    /// A sample: (frames, values, labels), labels of (name, text or number, unit).
    unsafe fn sample(&mut self, sample: Object) -> Result<(), Refused> {
        // SAFETY: GIL held; the argument keeps what is in it alive.
        unsafe {
            let parts = items(sample, 3)?;
            self.stack.clear();
            for &frame in items(parts[0], 0)? {
                let id = self.location(frame)?;
                kept(try_push(&mut self.stack, id))?;
            }
            self.values.clear();
            for &value in items(parts[1], 1)? {
                kept(try_push(&mut self.values, number_of(value)?))?;
            }
            let mut labels = Vec::new();
            for &label in items(parts[2], 0)? {
                let [name, value, unit] = *items(label, 3)? else { continue };
                let label = match ffi::PyUnicode_Check(value) {
                    0 => Label::Number(str_of(name)?, number_of(value)?, str_of(unit)?),
                    _ => Label::Text(str_of(name)?, str_of(value)?),
                };
                kept(try_push(&mut labels, label))?;
            }
            kept(self.profile.sample(&self.stack, &self.values, &labels))
        }
    }
}

unsafe fn kind_of<'a>(object: Object) -> Result<(&'a str, &'a str), Refused> {
    // SAFETY: GIL held; a live object.
    unsafe {
        let parts = items(object, 2)?;
        Ok((str_of(parts[0])?, str_of(parts[1])?))
    }
}

/// The bytes, from `_pprof_encode`'s arguments.
unsafe fn encoded(given: &[Object; 8]) -> Result<Vec<u8>, Refused> {
    let [kinds, samples, period_kind, period, times, default, comments, program] = *given;
    // SAFETY: GIL held; arguments are alive for the call, and no code of others runs in it.
    unsafe {
        let mut profile = kept(Profile::new(str_of(program)?))?;
        for &kind in items(kinds, 1)? {
            kept(profile.sample_type(kind_of(kind)?))?;
        }
        kept(profile.period(kind_of(period_kind)?, number_of(period)?))?;
        let times = items(times, 2)?;
        kept(profile.times(number_of(times[0])?, number_of(times[1])?))?;
        kept(profile.default_type(str_of(default)?))?;
        for &comment in items(comments, 0)? {
            kept(profile.comment(str_of(comment)?))?;
        }
        let mut encoder = Encoder { profile, locations: HashMap::new(), stack: Vec::new(), values: Vec::new() };
        for &sample in items(samples, 0)? {
            encoder.sample(sample)?;
        }
        kept(encoder.profile.finish())
    }
}

/// `_pprof_encode(kinds, samples, period_kind, period, times, default, comments, program)`.
unsafe extern "C-unwind" fn encode(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let names = [c"kinds", c"samples", c"period_kind", c"period", c"times", c"default", c"comments", c"program"];
        let Some(given) = arguments("_pprof_encode", args, nargs, kw, names, 8) else { return ptr::null_mut() };
        match encoded(&given) {
            Ok(bytes) => ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as _),
            Err(Refused) => ptr::null_mut(),
        }
    }
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        fast(
            c"_goroutine_records",
            records,
            c"_goroutine_records(depth)\n--\n\nWhat each goroutine does, with its newest frames: see gort._dump.",
        ),
        fast(
            c"_pprof_encode",
            encode,
            c"_pprof_encode(kinds, samples, period_kind, period, times, default, comments, program)\n--\n
The bytes of a profile; see gort.pprof.",
        ),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
