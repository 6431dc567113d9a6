//! Dumps that a signal asks for, as Go's on SIGQUIT. The handler wakes a thread and does nothing else. That thread has an M go for the
//! GIL and make the dump, with frames, as `gort.dump` has it; while a C call keeps the GIL it tells what can be told without.

use super::gc::Uncollected;
use super::profile::{all, state_of};
use super::{arguments, fast, labels, methods, none, runtime};
use crate::error;
use crate::stacks::{Stacks, stack_of};
use crate::task::GoObject;
use gort_core::goroutine::{Blocked, Goroutine, status};
use gort_core::observe::{Text, dump_unattached};
use gort_core::primitive::atomic::{AtomicU32, Ordering};
use gort_core::primitive::tries::try_push;
use gort_core::sched::Runtime;
use gort_core::sys::signal::{self, Mask};
use gort_core::sys::{clock, futex, thread};
use pyo3::ffi;
use std::fmt::{Result as Written, Write};
use std::io;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

type Object = *mut ffi::PyObject;

/// What the thread sleeps on; a handler adds to it.
static WORD: AtomicU32 = AtomicU32::new(0);
/// Whether the thread is there.
static IS_THERE: AtomicBool = AtomicBool::new(false);
/// Signals that end the process once the dump is written.
static ENDING: AtomicU64 = AtomicU64::new(0);

/// Four times the number of a dump, and how far it is.
static STEP: AtomicU32 = AtomicU32::new(GIVEN_UP);
const WANTED: u32 = 0;
const TAKEN: u32 = 1;
const MADE: u32 = 2;
const GIVEN_UP: u32 = 3;
/// What was made, for the thread to write. Held for a moment.
static TEXT: Mutex<Option<Text>> = Mutex::new(None);

/// Who keeps the GIL for so long is in a call that does not let go of it, ns.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Bytes of a dump; Go stops there, too.
const MOST_BYTES: usize = 64 << 20;
/// Frames of a goroutine that are shown, the newest.
const DEPTH: usize = 128;

/// A name without what would break a line or a quotation.
struct Printable<'a>(&'a str, bool);

impl std::fmt::Display for Printable<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> Written {
        for c in self.0.chars() {
            match c {
                '"' | '\\' if self.1 => write!(out, "\\{c}")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                c if c.is_control() => write!(out, "\\x{:02x}", c as u32)?,
                c => out.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The text of a str, or a question mark.
///
/// # Safety
/// GIL held; null or a live object, which stays so while the text is used.
unsafe fn text_of<'a>(object: Object) -> &'a str {
    // SAFETY: the caller's promise.
    unsafe {
        if object.is_null() || ffi::PyUnicode_Check(object) == 0 {
            return "?";
        }
        let mut bytes = 0;
        let at = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut bytes);
        if at.is_null() {
            ffi::PyErr_Clear();
            return "?";
        }
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(at.cast(), bytes as usize))
    }
}

/// Writes with an attribute of a code object.
unsafe fn with_attribute(code: Object, name: &std::ffi::CStr, write: impl FnOnce(&str) -> Written) -> Written {
    // SAFETY: GIL held by the caller; the code is alive.
    unsafe {
        let attribute = ffi::PyObject_GetAttrString(code, name.as_ptr());
        if attribute.is_null() {
            ffi::PyErr_Clear();
        }
        let written = write(text_of(attribute));
        ffi::Py_XDECREF(attribute);
        written
    }
}

/// The header of a goroutine, in the order of `gort._dump.header`.
unsafe fn write_header(rt: &Runtime, g: &Goroutine, obj: *mut GoObject, tags: Object, out: &mut Text) -> Written {
    // SAFETY: GIL held and the collector off: nobody else runs, so task, bundle and what they hold stay.
    unsafe {
        let bundle = g.bundle.as_ref();
        write!(out, "goroutine {} [{}", g.id, state_of(g))?;
        if g.blocked == Blocked::Durably {
            out.write_str(" (durable)")?;
        }
        let waits = g.status.load(Ordering::Acquire) == status::WAITING; // pairs with the Release of who parked it
        let minutes = bundle.filter(|_| waits).map_or(0, |b| rt.sampler.clock_s().wrapping_sub(b.parked_s)) / 60;
        if minutes >= 1 {
            write!(out, ", {minutes} minutes")?;
        }
        if bundle.is_some_and(|b| b.locks != 0) {
            out.write_str(", locked to thread")?;
        }
        if g.bubble.id != 0 {
            write!(out, ", synctest bubble {}", g.bubble.id)?;
        }
        let kept_ms = bundle.map_or(0, |b| b.kept_lock_ns.load(Ordering::Relaxed) / 1_000_000);
        if kept_ms != 0 {
            write!(out, ", kept the interpreter's lock for {kept_ms} ms in a call")?;
        }
        if !obj.is_null() && !(*obj).name.is_null() {
            write!(out, ", name \"{}\"", Printable(text_of((*obj).name), true))?;
        }
        write_labels(tags, out)?;
        out.write_str("]:\n")
    }
}

unsafe fn write_labels(tags: Object, out: &mut Text) -> Written {
    // SAFETY: GIL held; null or a live dict, which nobody changes meanwhile.
    unsafe {
        if tags.is_null() || ffi::PyDict_Size(tags) <= 0 {
            return Ok(());
        }
        let (mut at, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        let mut pairs = Vec::new();
        while ffi::PyDict_Next(tags, &raw mut at, &raw mut key, &raw mut value) != 0 {
            try_push(&mut pairs, (text_of(key), text_of(value))).ok_or(std::fmt::Error)?;
        }
        pairs.sort_unstable();
        for (i, (key, value)) in pairs.into_iter().enumerate() {
            let before = if i == 0 { " labels:{" } else { ", " };
            write!(out, "{before}\"{}\": \"{}\"", Printable(key, true), Printable(value, true))?;
        }
        out.write_str("}")
    }
}

/// Its frames, each on two lines, and who started it.
unsafe fn write_stack(obj: *mut GoObject, stack: Object, out: &mut Text) -> Written {
    // SAFETY: GIL held and the collector off; the tuple is one of `stack_of`.
    unsafe {
        for frame in 0..ffi::PyTuple_GET_SIZE(stack) / 4 {
            let item = |i| ffi::PyTuple_GET_ITEM(stack, 4 * frame + i);
            let (code, line, module) = (item(1), ffi::PyLong_AsLong(item(2)), item(3));
            let offset = (ffi::PyLong_AsUnsignedLongLong(item(0)) as usize).wrapping_sub(code.addr());
            if ffi::PyUnicode_Check(module) != 0 {
                write!(out, "{}.", Printable(text_of(module), false))?;
            }
            with_attribute(code, c"co_qualname", |name| writeln!(out, "{}(...)", Printable(name, false)))?;
            with_attribute(code, c"co_filename", |file| {
                writeln!(out, "\t{}:{line} +{offset:#x}", Printable(file, false))
            })?;
        }
        if obj.is_null() {
            return Ok(());
        }
        let origin = (*obj).origin.tuple();
        if origin.is_null() {
            ffi::PyErr_Clear();
            return Ok(());
        }
        let item = |i| ffi::PyTuple_GET_ITEM(origin, i);
        let (name, file) = (Printable(text_of(item(0)), false), Printable(text_of(item(1)), false));
        let mut written = write!(out, "created by {name}");
        if (*obj).parent != 0 {
            written = written.and_then(|()| write!(out, " in goroutine {}", (*obj).parent));
        }
        written = written.and_then(|()| writeln!(out, "\n\t{file}:{}", ffi::PyLong_AsLong(item(2))));
        ffi::Py_DECREF(origin);
        written
    }
}

/// # Safety
/// GIL held and the collector off; `g` is alive.
unsafe fn write_one(rt: &Runtime, g: &Goroutine, stacks: &Stacks, out: &mut Text) -> Written {
    // SAFETY: the caller's promise.
    unsafe {
        let obj = if g.is_thread() { ptr::null_mut() } else { g.task.cast::<GoObject>() };
        let state = stacks.state_of(g);
        let mut tags = ptr::null_mut();
        if !obj.is_null() && !(*obj).context.is_null() {
            tags = labels::of_context((*obj).context);
        } else if !state.is_null() {
            tags = labels::of_state(state);
        }
        let mut written = write_header(rt, g, obj, tags, out);
        ffi::Py_XDECREF(tags);
        let stack = stack_of(state, DEPTH);
        if stack.is_null() {
            ffi::PyErr_Clear();
            return written.and_then(|()| out.write_str("\t(no memory for its frames)\n\n"));
        }
        written = written.and_then(|()| write_stack(obj, stack, out));
        ffi::Py_DECREF(stack);
        ffi::PyErr_Clear();
        written.and_then(|()| out.write_str("\n"))
    }
}

/// The errand: makes the dump of this number, unless the thread has given it up.
///
/// # Safety
/// On an M's g0 with the GIL.
unsafe fn make(rt: &'static Runtime, number: usize) {
    let number = number as u32;
    // Acquire, Release: pair with those of `full_text`.
    if STEP.compare_exchange(number | WANTED, number | TAKEN, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    let mut out = Text::new();
    // SAFETY: the caller's promise. The collector is off and nothing here runs code, so goroutines and states stay.
    unsafe {
        let _uncollected = Uncollected::begin();
        let stacks = Stacks::default();
        match all(rt) {
            Some(mut list) => {
                list.sort_unstable_by_key(|g| (**g).id);
                for g in list {
                    if write_one(rt, &*g, &stacks, &mut out).is_err() || out.text.len() > MOST_BYTES {
                        break;
                    }
                }
            }
            None => out.is_whole = false,
        }
    }
    *TEXT.lock().unwrap_or_else(|e| e.into_inner()) = Some(out);
    STEP.store(number | MADE, Ordering::Release);
    futex::wake_one(&raw const STEP);
}

/// The dump with frames; `None`: nobody got the GIL in time.
fn full_text(rt: &'static Runtime) -> Option<Text> {
    let number = (STEP.load(Ordering::Relaxed) & !3).wrapping_add(4); // this thread alone begins one
    STEP.store(number | WANTED, Ordering::Release);
    // SAFETY: `make` is right at any later time: it looks at the step.
    unsafe { rt.call_at_once(make, number as usize) };
    let until_ns = clock::now_ns() + PATIENCE_NS;
    loop {
        let step = STEP.load(Ordering::Acquire);
        if step == number | MADE {
            return TEXT.lock().unwrap_or_else(|e| e.into_inner()).take();
        }
        let left_ns = until_ns.saturating_sub(clock::now_ns());
        let is_late = left_ns == 0 && step == number | WANTED;
        let given_up =
            || STEP.compare_exchange(number | WANTED, number | GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if is_late && given_up() {
            return None;
        }
        let timeout_ns = if step == number | WANTED { Some(left_ns.max(1)) } else { None };
        let _ = futex::wait(&STEP, step, timeout_ns);
    }
}

fn write(rt: &'static Runtime, came: Mask) {
    let mut head = Text::new();
    for number in (1..=64).filter(|number| came & (1 << (number - 1)) != 0) {
        let _ = writeln!(head, "{}", signal::title(number));
    }
    let full = full_text(rt);
    let is_full = full.is_some();
    let mut body = full.unwrap_or_else(|| {
        let _ = writeln!(
            head,
            "the interpreter's lock was not to be had for {} ms: no Python frames",
            PATIENCE_NS / 1_000_000
        );
        let mut text = Text::new();
        dump_unattached(rt, &mut text);
        text
    });
    if !body.is_whole {
        let _ = body.text.try_reserve(64).map(|()| body.text.push_str("(no memory for the rest)\n"));
    }
    let body = if is_full { body.text.strip_suffix('\n').unwrap_or(&body.text) } else { &body.text };
    signal::write_all_stderr(head.text.as_bytes());
    signal::write_all_stderr(b"\n");
    signal::write_all_stderr(body.as_bytes());
}

unsafe extern "C-unwind" fn dumper_thread(argument: *mut u8) {
    // SAFETY: `start` passes the runtime, which is never freed.
    let rt: &'static Runtime = unsafe { &*argument.cast::<Runtime>() };
    thread::set_name(c"gort-dumper");
    loop {
        let word = WORD.load(Ordering::Acquire); // before the look: who comes after it changes the word
        let came = signal::take_watched();
        if came == 0 {
            let _ = futex::wait(&WORD, word, None);
            continue;
        }
        write(rt, came);
        if came & ENDING.load(Ordering::Relaxed) != 0 {
            thread::end_process(2);
        }
    }
}

fn start(rt: &'static Runtime) -> io::Result<()> {
    if IS_THERE.swap(true, Ordering::Relaxed) {
        return Ok(()); // under the GIL
    }
    // SAFETY: runtimes are never freed.
    let started = unsafe { thread::spawn_raw(dumper_thread, ptr::from_ref(rt).cast_mut().cast()) };
    IS_THERE.store(started.is_ok(), Ordering::Relaxed);
    started
}

/// In a forked child, where the thread is not.
pub(crate) fn forked(rt: &'static Runtime) {
    if IS_THERE.swap(false, Ordering::Relaxed) {
        STEP.store(GIVEN_UP, Ordering::Relaxed);
        let _ = start(rt); // refused: the signal goes unheard
    }
}

/// `_dump_on(signum, ends)`.
unsafe extern "C-unwind" fn dump_on(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([number, ends]) = arguments("_dump_on", args, nargs, kw, [c"signum", c"ends"], 2) else {
            return ptr::null_mut();
        };
        let number = ffi::PyLong_AsLong(number);
        let ends = ffi::PyObject_IsTrue(ends);
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if !(1..=64).contains(&number) || signal::OTHERS & 1 << (number - 1) == 0 {
            return error::set(ffi::PyExc_ValueError, format_args!("signal {number} cannot ask for a dump"));
        }
        match start(rt) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return ffi::PyErr_NoMemory(),
            Err(_) => return error::set(ffi::PyExc_RuntimeError, "the system refuses a thread for dumps"),
            Ok(()) => {}
        }
        let bit = 1u64 << (number - 1);
        match ends {
            0 => ENDING.fetch_and(!bit, Ordering::Relaxed), // read after the signal that comes later
            _ => ENDING.fetch_or(bit, Ordering::Relaxed),
        };
        match signal::watch(number as i32, &WORD) {
            Ok(()) => none(),
            Err(error) => error::set(ffi::PyExc_OSError, format_args!("signal {number}: {}", error.kind())),
        }
    }
}

/// Adds the function.
pub(crate) unsafe fn register(module: Object) -> bool {
    let doc = c"_dump_on(signum, ends)\n--\n\nHas a signal write a dump to stderr, and end the process then.";
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, methods(vec![fast(c"_dump_on", dump_on, doc)])) == 0 }
}
