//! Python frames of goroutines, as tuples: four items a frame, the newest first, that tell where it is without a frame object.

use gort_core::goroutine::Goroutine;
use pyo3::ffi;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr;

type Object = *mut ffi::PyObject;
type State = *mut ffi::PyThreadState;

unsafe extern "C" {
    fn gort_walk_stack(
        state: State,
        see: unsafe extern "C" fn(*mut c_void, Object, c_int, Object) -> c_int,
        arg: *mut c_void,
    );
    fn gort_each_state(see: unsafe extern "C" fn(*mut c_void, State, std::ffi::c_ulong), arg: *mut c_void);
    fn PyCode_Addr2Line(code: Object, offset: c_int) -> c_int;
}

/// States by who their threads are.
#[derive(Default)]
struct ByIdentity {
    states: HashMap<usize, State>,
    is_refused: bool,
}

unsafe extern "C" fn note_state(table: *mut c_void, state: State, identity: std::ffi::c_ulong) {
    // SAFETY: the table of a call that is in progress.
    let table = unsafe { &mut *table.cast::<ByIdentity>() };
    if table.states.try_reserve(1).is_ok() {
        table.states.insert(identity as usize, state);
    } else {
        table.is_refused = true;
    }
}

/// Which states goroutines have. Those that are threads have what their code made: it is found by who they are, once it is asked for.
#[derive(Default)]
pub(crate) struct Stacks {
    threads: OnceCell<ByIdentity>,
}

impl Stacks {
    /// The state of a goroutine; null before it has one, and where memory is refused.
    ///
    /// # Safety
    /// GIL held since `self` was made; `g` is alive.
    pub(crate) unsafe fn state_of(&self, g: &Goroutine) -> State {
        // SAFETY: the caller's promise: no state goes.
        unsafe {
            let Some(bundle) = g.bundle.as_ref() else { return ptr::null_mut() };
            if !bundle.is_thread {
                return bundle.host.cast();
            }
            let table = self.threads.get_or_init(|| {
                let mut table = ByIdentity::default();
                gort_each_state(note_state, (&raw mut table).cast());
                table
            });
            table.states.get(&bundle.identity).copied().unwrap_or(ptr::null_mut())
        }
    }

    /// Whether memory was refused for it.
    pub(crate) fn is_refused(&self) -> bool {
        self.threads.get().is_some_and(|table| table.is_refused)
    }
}

/// Frames while they are collected.
struct Walk {
    /// References to code and module names, with address and line in between.
    frames: Vec<(Object, u64, c_int, Object)>,
    depth: usize,
    is_refused: bool,
}

unsafe extern "C" fn see(walk: *mut c_void, code: Object, offset: c_int, globals: Object) -> c_int {
    // SAFETY: the walk below; code and globals are alive while the frame is, and the GIL is held. The name is an exact str.
    unsafe {
        let walk = &mut *walk.cast::<Walk>();
        let name = ffi::PyUnicode_InternFromString(c"__name__".as_ptr());
        let is_known = !name.is_null() && !globals.is_null() && ffi::PyDict_Check(globals) != 0;
        let module = if is_known { ffi::PyDict_GetItemWithError(globals, name) } else { ptr::null_mut() };
        ffi::Py_XDECREF(name);
        if walk.frames.try_reserve(1).is_err() || !ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_Clear();
            walk.is_refused = true;
            return 0;
        }
        let is_text = !module.is_null() && ffi::PyUnicode_Check(module) != 0;
        let module = if is_text { module } else { ffi::Py_None() };
        let address = code.addr() as u64 + offset as u64;
        walk.frames.push((code, address, PyCode_Addr2Line(code, offset), module));
        c_int::from(walk.frames.len() < walk.depth)
    }
}

/// A tuple of address, code, line and name of the module, for each of the newest frames; the empty one for a null state. The address
/// is that of the code and how many bytes it is in. Null with an exception set when memory is refused.
///
/// # Safety
/// GIL held, the collector off; the state is alive, and its goroutine off its processor or the caller.
pub(crate) unsafe fn stack_of(state: State, depth: usize) -> Object {
    // SAFETY: the caller's promise. What the walk notes is borrowed from frames that stay: nothing here runs code.
    unsafe {
        let mut walk = Walk { frames: Vec::new(), depth, is_refused: false };
        if !state.is_null() && depth != 0 {
            gort_walk_stack(state, see, (&raw mut walk).cast());
        }
        if walk.is_refused {
            return ffi::PyErr_NoMemory();
        }
        let tuple = ffi::PyTuple_New((walk.frames.len() * 4) as _);
        let mut at = 0;
        for (code, address, line, module) in walk.frames {
            let (address, line) = (ffi::PyLong_FromUnsignedLongLong(address), ffi::PyLong_FromLong(line.into()));
            if tuple.is_null() || address.is_null() || line.is_null() {
                ffi::Py_XDECREF(address);
                ffi::Py_XDECREF(line);
                ffi::Py_XDECREF(tuple);
                return ptr::null_mut();
            }
            for item in [address, ffi::Py_NewRef(code), line, ffi::Py_NewRef(module)] {
                ffi::PyTuple_SET_ITEM(tuple, at, item);
                at += 1;
            }
        }
        tuple
    }
}

/// A key in the making.
struct Addresses<'a> {
    key: &'a mut Vec<u64>,
    left: usize,
    is_refused: bool,
}

unsafe extern "C" fn see_address(arg: *mut c_void, code: Object, offset: c_int, _globals: Object) -> c_int {
    // SAFETY: the walk below.
    let addresses = unsafe { &mut *arg.cast::<Addresses<'_>>() };
    if addresses.key.try_reserve(1).is_err() {
        addresses.is_refused = true;
        return 0;
    }
    addresses.key.push(code.addr() as u64 + offset as u64);
    addresses.left -= 1;
    c_int::from(addresses.left != 0)
}

/// Adds the addresses of the newest frames, at least one, as `stack_of` has them, to `key`. `false`: memory is refused. Makes no objects.
///
/// # Safety
/// As for `stack_of`; the collector does not matter.
pub(crate) unsafe fn key_of(state: State, depth: usize, key: &mut Vec<u64>) -> bool {
    let mut addresses = Addresses { key, left: depth.max(1), is_refused: false };
    // SAFETY: the caller's promise.
    unsafe { gort_walk_stack(state, see_address, (&raw mut addresses).cast()) };
    !addresses.is_refused
}
