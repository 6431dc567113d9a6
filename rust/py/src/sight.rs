//! Where Python code is, for execution traces: stacks by number, looked up by the addresses of code objects, which are kept alive as
//! long as the trace is. All with the GIL; nothing here runs code or parks.

use crate::host;
use crate::task::GoObject;
use gort_core::event::{Eyes, Frame, Session};
use gort_core::goroutine::Goroutine;
use gort_core::primitive::tries::{try_copy, try_push, try_text};
use pyo3::ffi;
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::MaybeUninit;
use std::ptr;

type Object = *mut ffi::PyObject;
type State = *mut ffi::PyThreadState;

unsafe extern "C" {
    fn gort_places(state: State, words: *mut u64, most: c_int, hash: *mut u64) -> c_int;
    fn gort_here(session: *const u8) -> u32;
    fn gort_set_recent(
        table: *const Recent,
        look_up: unsafe extern "C" fn(session: *const u8, state: State, place: u32) -> u32,
    );
    fn gort_walk_stack(
        state: State,
        see: unsafe extern "C" fn(*mut c_void, Object, c_int, Object) -> c_int,
        arg: *mut c_void,
    );
    fn PyCode_Addr2Line(code: Object, offset: c_int) -> c_int;
}

/// Frames of a stack that are told, the newest: Go's number.
const DEPTH: usize = 128;
/// Keys of frames that are of no code.
const MAIN: (u64, u64) = (1, 0);
const THREAD: (u64, u64) = (2, 0);

/// Takes numbers that are hashes already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word ^ (word >> 4); // an address ends in zeros
    }
}

/// How many stacks are found at once; as in shim/stacks.c.
const RECENT: usize = 1 << 10;

/// A stack that is found at once; as there.
#[repr(C)]
#[derive(Clone, Copy)]
struct Recent {
    /// Of a `Known`, which stays.
    words: *const u64,
    count: u32,
    number: u32,
}

/// A stack that was seen: the instructions that its frames were at.
struct Known {
    words: Vec<u64>,
    number: u32,
}

/// What was seen since the trace began.
struct Seen {
    stacks: HashMap<u64, Known, BuildHasherDefault<AsIs>>,
    /// Some of them, by their newest frames; none: memory was refused.
    recent: Vec<Recent>,
    /// What began as a function or an instance of a type.
    entries: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// Code objects and functions that are named by their addresses: owned.
    kept: Vec<Object>,
}

struct Shared(UnsafeCell<Option<Seen>>);
// SAFETY: touched with the GIL alone.
unsafe impl Sync for Shared {}

static SEEN: Shared = Shared(UnsafeCell::new(None));

/// What there is to look with.
pub(crate) const EYES: Eyes = Eyes { here: gort_here, entry };

/// A trace begins: nothing was seen yet.
///
/// # Safety
/// GIL held, no trace is being taken.
pub(crate) unsafe fn begin() {
    // SAFETY: the caller's promise.
    unsafe {
        forget();
        let mut recent = Vec::new();
        if recent.try_reserve_exact(RECENT).is_ok() {
            recent.resize(RECENT, Recent { words: ptr::null(), count: 0, number: 0 });
            gort_set_recent(recent.as_ptr(), look_up_here); // which stays where it is
        }
        *SEEN.0.get() =
            Some(Seen { stacks: HashMap::default(), recent, entries: HashMap::default(), kept: Vec::new() });
    }
}

/// It has ended: what was kept alive for it need not be any more.
///
/// # Safety
/// As for `begin`; Python code may run here.
pub(crate) unsafe fn forget() {
    // SAFETY: the caller's promise; owned references, each once. Taken out first: what ends here may run anything.
    unsafe {
        gort_set_recent(ptr::null(), look_up_here);
        let seen = (*SEEN.0.get()).take();
        seen.into_iter().flat_map(|seen| seen.kept).for_each(|object| ffi::Py_DECREF(object));
    }
}

/// Text of a str.
unsafe fn text_of(object: Object) -> Option<String> {
    // SAFETY: GIL held; null or a live object.
    unsafe {
        if object.is_null() || ffi::PyUnicode_Check(object) == 0 {
            ffi::PyErr_Clear();
            return try_text("?");
        }
        let mut bytes = 0;
        let at = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut bytes);
        if at.is_null() {
            ffi::PyErr_Clear(); // surrogates are no UTF-8
            return try_text("?");
        }
        try_text(std::str::from_utf8_unchecked(std::slice::from_raw_parts(at.cast(), bytes as usize)))
    }
}

/// The name of a function as profiles show it.
unsafe fn name_of(module: Object, code: Object) -> Option<String> {
    // SAFETY: GIL held; live objects, the module's name null or borrowed.
    unsafe {
        let name = ffi::PyObject_GetAttrString(code, c"co_qualname".as_ptr());
        let text = text_of(name);
        ffi::Py_XDECREF(name);
        let (text, module) = (text?, text_of(module)?);
        let mut whole = String::new();
        whole.try_reserve(text.len() + module.len() + 1).ok()?;
        if module != "?" {
            whole.push_str(&module);
            whole.push('.');
        }
        whole.push_str(&text);
        Some(whole)
    }
}

unsafe fn file_of(code: Object) -> Option<String> {
    // SAFETY: GIL held; a live code object.
    unsafe {
        let file = ffi::PyObject_GetAttrString(code, c"co_filename".as_ptr());
        let text = text_of(file);
        ffi::Py_XDECREF(file);
        text
    }
}

/// Frames of a stack that is new, while they are told of.
struct Telling<'a> {
    session: &'a Session,
    frames: Vec<u32>,
    kept: &'a mut Vec<Object>,
}

impl Telling<'_> {
    unsafe fn frame(&mut self, code: Object, line: c_int, module: Object) -> Option<u32> {
        let mut tables = self.session.tables.lock().unwrap_or_else(|e| e.into_inner());
        let kept = &mut *self.kept;
        // SAFETY: GIL held; a live code object.
        tables.frame((code.addr() as u64, line as u64), || unsafe {
            let frame = Frame { name: name_of(module, code)?, file: file_of(code)?, line: line.max(0) as u32 };
            try_push(kept, code)?;
            ffi::Py_INCREF(code);
            Some(frame)
        })
    }
}

unsafe extern "C" fn tell(arg: *mut c_void, code: Object, offset: c_int, globals: Object) -> c_int {
    // SAFETY: the telling below; code and globals are alive while the frame is.
    unsafe {
        let telling = &mut *arg.cast::<Telling<'_>>();
        let name = ffi::PyUnicode_InternFromString(c"__name__".as_ptr());
        let is_known = !name.is_null() && !globals.is_null() && ffi::PyDict_Check(globals) != 0;
        let module = if is_known { ffi::PyDict_GetItemWithError(globals, name) } else { ptr::null_mut() };
        ffi::Py_XDECREF(name);
        ffi::PyErr_Clear();
        let known = telling.frame(code, PyCode_Addr2Line(code, offset), module);
        let done = known.and_then(|number| try_push(&mut telling.frames, number));
        c_int::from(done.is_some() && telling.frames.len() < DEPTH)
    }
}

/// The rest of `gort_here`, for a stack that is not in its place.
unsafe extern "C" fn look_up_here(session: *const u8, state: State, place: u32) -> u32 {
    // SAFETY: GIL held, the state is the caller's, and so is the `Session`.
    unsafe {
        let session = &*session.cast::<Session>();
        (*SEEN.0.get()).as_mut().map_or(0, |seen| look_up(session, seen, state, place as usize))
    }
}

/// The number of the stack of a state, for who is not it; 0: it is not known.
///
/// # Safety
/// GIL held; the state is null, or alive and off its processor, or the caller's.
pub(crate) unsafe fn number_of(session: &Session, state: State) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        match (*SEEN.0.get()).as_mut() {
            Some(seen) if session.sees() && !state.is_null() => look_up(session, seen, state, usize::MAX),
            _ => 0,
        }
    }
}

/// By all its frames; from here on it is in its place, if that is one.
#[inline(never)]
unsafe fn look_up(session: &Session, seen: &mut Seen, state: State, place: usize) -> u32 {
    // SAFETY: GIL held, a state as for `number_of`. So many words are written as there are frames.
    unsafe {
        let (mut words, mut hash) = ([const { MaybeUninit::<u64>::uninit() }; DEPTH], 0);
        let count = gort_places(state, words.as_mut_ptr().cast(), DEPTH as c_int, &raw mut hash) as usize;
        if count == 0 {
            return 0;
        }
        let words = std::slice::from_raw_parts(words.as_ptr().cast::<u64>(), count);
        let is_known = |seen: &Seen| seen.stacks.get(&hash).is_some_and(|known| known.words == words);
        if !is_known(seen) {
            let number = new_stack(session, seen, state, hash, words).unwrap_or(0);
            if !is_known(seen) {
                return number;
            }
        }
        let Some(known) = seen.stacks.get(&hash) else { return 0 };
        if let Some(place) = seen.recent.get_mut(place) {
            *place = Recent { words: known.words.as_ptr(), count: count as u32, number: known.number };
        }
        known.number
    }
}

#[cold]
unsafe fn new_stack(session: &Session, seen: &mut Seen, state: State, hash: u64, words: &[u64]) -> Option<u32> {
    // SAFETY: GIL held; the state is the caller's. An exception that is set is kept.
    unsafe {
        let raised = host::gort_take_exception();
        let mut telling = Telling { session, frames: Vec::new(), kept: &mut seen.kept };
        gort_walk_stack(state, tell, (&raw mut telling).cast());
        let frames = telling.frames;
        if !raised.is_null() {
            host::gort_raise(raised);
        }
        let number = session.tables.lock().unwrap_or_else(|e| e.into_inner()).stack(&frames);
        seen.stacks.try_reserve(1).ok()?;
        // One whose hash another has is told anew each time: that one's words may be in use. So is one that memory was refused for in
        // the middle: not all its codes are kept.
        if number != 0 && frames.len() == words.len() && !seen.stacks.contains_key(&hash) {
            seen.stacks.insert(hash, Known { words: try_copy(words)?, number });
        }
        Some(number)
    }
}

/// A stack of one frame that is no code's.
unsafe fn one(session: &Session, key: (u64, u64), name: &str) -> u32 {
    let mut tables = session.tables.lock().unwrap_or_else(|e| e.into_inner());
    let frame = tables.frame(key, || Some(Frame { name: try_text(name)?, file: String::new(), line: 0 }));
    frame.map_or(0, |frame| tables.stack(&[frame]))
}

/// `Eyes::entry`.
unsafe fn entry(session: &Session, g: *const u8) -> u32 {
    // SAFETY: GIL held; a live goroutine, whose object is alive while it is.
    unsafe {
        let g = &*g.cast::<Goroutine>();
        if g.is_thread() {
            return one(session, THREAD, "threading.Thread");
        }
        let Some(object) = g.task.cast::<GoObject>().as_ref() else { return one(session, MAIN, "main") };
        let Some(seen) = (*SEEN.0.get()).as_mut() else { return 0 };
        let mut function = object.function;
        if function.is_null() {
            return 0; // it is ending
        }
        if ptr::eq(ffi::Py_TYPE(function), &raw const PyMethod_Type) {
            function = PyMethod_Function(function);
        }
        let is_plain = ffi::PyFunction_Check(function) != 0;
        let named = if is_plain { PyFunction_GetCode(function) } else { ffi::Py_TYPE(function).cast() };
        if let Some(&known) = seen.entries.get(&(named.addr() as u64)) {
            return known;
        }
        new_entry(session, seen, function, named, is_plain).unwrap_or(0)
    }
}

unsafe extern "C" {
    fn PyFunction_GetCode(function: Object) -> Object;
    fn PyFunction_GetModule(function: Object) -> Object;
    static PyMethod_Type: ffi::PyTypeObject;
    fn PyMethod_Function(method: Object) -> Object;
}

#[cold]
unsafe fn new_entry(
    session: &Session,
    seen: &mut Seen,
    function: Object,
    named: Object,
    is_plain: bool,
) -> Option<u32> {
    // SAFETY: GIL held; `named` is the code of the function, or the type of what is called.
    unsafe {
        seen.entries.try_reserve(1).ok()?;
        let raised = host::gort_take_exception();
        let number = if is_plain {
            let line = ffi::PyObject_GetAttrString(named, c"co_firstlineno".as_ptr());
            let first = if line.is_null() { 0 } else { ffi::PyLong_AsLong(line) };
            ffi::Py_XDECREF(line);
            ffi::PyErr_Clear();
            let module = PyFunction_GetModule(function);
            let mut telling = Telling { session, frames: Vec::new(), kept: &mut seen.kept };
            let frame = telling.frame(named, first as c_int, module);
            frame.map_or(0, |frame| session.tables.lock().unwrap_or_else(|e| e.into_inner()).stack(&[frame]))
        } else {
            let name = std::ffi::CStr::from_ptr((*named.cast::<ffi::PyTypeObject>()).tp_name);
            try_push(&mut seen.kept, ffi::Py_NewRef(named)); // a type, or it is not kept
            one(session, (named.addr() as u64, 0), name.to_str().unwrap_or("?"))
        };
        if !raised.is_null() {
            host::gort_raise(raised);
        }
        seen.entries.insert(named.addr() as u64, number);
        Some(number)
    }
}
