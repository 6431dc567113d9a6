//! The libc boundary for Python: what is in place, and opting objects in.

use super::gc::Uncollected;
use super::{boolean, methods, none, plain, runtime};
use crate::{error, host};
use gort_core::boundary::hooks::HOOKS;
use gort_core::boundary::{self, Kind, Placed, threads};
use gort_core::goroutine::host::HostThread;
use gort_core::primitive::tries::try_list;
use gort_core::sched::Runtime;
use gort_core::sys::thread;
use pyo3::ffi;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

type Object = *mut ffi::PyObject;

static HAS_IDENTITY: AtomicBool = AtomicBool::new(false);

/// Puts the hooks in place; `GORT_BOUNDARY=0` (looked at when the runtime begins) those of identity only. `false`: memory is refused,
/// and the next call goes on, with the same runtime.
pub(super) fn install(rt: &'static Runtime) -> bool {
    let parking = super::environment::variable(c"GORT_BOUNDARY", |text| text != "0").unwrap_or(true);
    let installed = boundary::install(rt, ffi::PyObject_Call as *const () as usize, parking);
    if let Some(installed) = installed {
        HAS_IDENTITY.store(installed.identity, Ordering::Relaxed); // the GIL orders it
    }
    installed.is_some()
}

/// On the main thread, once its goroutine is known: from here on goroutines are told apart by identity, not by thread.
pub(crate) fn adopt_identity() {
    boundary::note_main_thread();
    if HAS_IDENTITY.load(Ordering::Relaxed) {
        // SAFETY: GIL held.
        unsafe { host::gort_set_identity(thread::identity() as _) };
    }
}

/// Whether goroutines are told apart by identity.
pub(crate) fn has_identity() -> bool {
    HAS_IDENTITY.load(Ordering::Relaxed)
}

/// A str, with a mark for what is no UTF-8. Null with an exception set on failure.
unsafe fn text(text: &[u8]) -> Object {
    // SAFETY: GIL held; so many bytes.
    unsafe { ffi::PyUnicode_DecodeUTF8(text.as_ptr().cast(), text.len() as _, c"replace".as_ptr()) }
}

/// A tuple of what `each` gives for all `items`; null with an exception set where that is.
unsafe fn tuple_of<T>(items: &[T], each: impl Fn(&T) -> Object) -> Object {
    // SAFETY: GIL held; `each` gives owned references.
    unsafe {
        let out = ffi::PyTuple_New(items.len() as _);
        for (i, item) in items.iter().enumerate() {
            let item = if out.is_null() { return out } else { each(item) };
            if item.is_null() {
                ffi::Py_DECREF(out);
                return item;
            }
            ffi::PyTuple_SET_ITEM(out, i as _, item);
        }
        out
    }
}

/// A tuple of what is stolen from `items`; null if one of them is.
unsafe fn tuple(items: &[Object]) -> Object {
    // SAFETY: GIL held; each item is owned or null.
    unsafe {
        let out =
            if items.iter().any(|item| item.is_null()) { ptr::null_mut() } else { ffi::PyTuple_New(items.len() as _) };
        for (i, item) in items.iter().enumerate() {
            if out.is_null() {
                ffi::Py_XDECREF(*item);
            } else {
                ffi::PyTuple_SET_ITEM(out, i as _, *item);
            }
        }
        out
    }
}

/// Appends what is stolen; `false`: an exception is set.
unsafe fn append(list: Object, item: Object) -> bool {
    // SAFETY: GIL held; the list is alive.
    unsafe {
        let ok = !item.is_null() && ffi::PyList_Append(list, item) == 0;
        ffi::Py_XDECREF(item);
        ok
    }
}

unsafe fn path(placed: &Placed) -> Object {
    // SAFETY: GIL held by the caller.
    unsafe { text(placed.path.as_os_str().as_bytes()) }
}

/// (path, kind, names replaced, ((name, why not), ...), error)
unsafe fn object_record(placed: &Placed) -> Object {
    // SAFETY: GIL held; `tuple` takes nulls.
    unsafe {
        let entries = placed.patched.iter().flat_map(|patched| patched.entries());
        let Some(mut names) = try_list(entries.map(|entry| entry.symbol.to_bytes())) else {
            return ffi::PyErr_NoMemory();
        };
        names.sort_unstable();
        names.dedup();
        let names = tuple_of(&names, |name| text(name));
        let left = tuple_of(&placed.left, |(name, why)| tuple(&[text(name.to_bytes()), error::text(why)]));
        let error = placed.error.as_ref().map_or_else(none, error::text);
        tuple(&[path(placed), text(placed.kind.name().as_bytes()), names, left, error])
    }
}

unsafe extern "C-unwind" fn status(_m: Object, _: Object) -> Object {
    if runtime().is_none() {
        return ptr::null_mut();
    }
    // SAFETY: GIL held; lists are ours.
    unsafe {
        let (objects, calls, lasting) = (ffi::PyList_New(0), ffi::PyList_New(0), ffi::PyList_New(0));
        // A collection could run code that forks, and the fork would wait for the list that is held here.
        let uncollected = Uncollected::begin();
        let mut ok = !objects.is_null() && !calls.is_null() && !lasting.is_null();
        let seen = boundary::each_object(|placed| {
            if placed.kind != Kind::Unknown {
                ok = ok && append(objects, object_record(placed));
            } else if ok && placed.lasting != 0 {
                let count = ffi::PyLong_FromUnsignedLongLong(placed.lasting);
                ok = append(lasting, tuple(&[path(placed), count]));
            }
        });
        drop(uncollected);
        if ok && seen.is_none() {
            ffi::PyErr_NoMemory();
            ok = false;
        }
        for hook in HOOKS {
            let (parked, handed) = (&hook.counts.parked, &hook.counts.handed_off);
            let (parked, handed) = (parked.load(Ordering::Relaxed), handed.load(Ordering::Relaxed));
            if ok && (parked != 0 || handed != 0) {
                let numbers = [ffi::PyLong_FromUnsignedLongLong(parked), ffi::PyLong_FromUnsignedLongLong(handed)];
                ok = append(calls, tuple(&[text(hook.name.to_bytes()), numbers[0], numbers[1]]));
            }
        }
        if !ok {
            ffi::Py_XDECREF(objects);
            ffi::Py_XDECREF(calls);
            ffi::Py_XDECREF(lasting);
            return ptr::null_mut();
        }
        let identity = boolean(HAS_IDENTITY.load(Ordering::Relaxed));
        tuple(&[boolean(boundary::is_parking_allowed()), identity, objects, calls, lasting])
    }
}

unsafe extern "C-unwind" fn add(_m: Object, name: Object) -> Object {
    // SAFETY: GIL held; a live argument.
    unsafe {
        let mut size = 0;
        let bytes = ffi::PyUnicode_AsUTF8AndSize(name, &raw mut size);
        if bytes.is_null() || runtime().is_none() {
            return ptr::null_mut();
        }
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), size as usize);
        let Ok(name) = std::str::from_utf8(bytes) else {
            return error::set(ffi::PyExc_ValueError, "a name in UTF-8 is expected");
        };
        boundary::add(name).map_or_else(|| ffi::PyErr_NoMemory(), |count| ffi::PyLong_FromSize_t(count))
    }
}

/// `boundary::threads::StateOf`: called by pthread_create of the interpreter, which holds the GIL.
unsafe fn state_of_thread(argument: *mut std::ffi::c_void) -> HostThread {
    // SAFETY: the interpreter's own argument.
    unsafe { host::gort_state_of_thread(argument).cast() }
}

/// `_threads(mode)`: 0 off, 1 on, 2 probe begins, 3 probe ends, 4 real ones more, 5 real ones no more, 6 those of bubbles.
unsafe extern "C-unwind" fn threads_mode(_m: Object, mode: Object) -> Object {
    if runtime().is_none() {
        return ptr::null_mut();
    }
    // SAFETY: GIL held; a live argument.
    unsafe {
        match ffi::PyLong_AsLong(mode) {
            0 => threads::enable(None),
            1 => threads::enable(Some(state_of_thread)),
            2 | 3 => {
                host::gort_probe_threads(i32::from(ffi::PyLong_AsLong(mode) == 2));
                threads::enable((ffi::PyLong_AsLong(mode) == 2).then_some(state_of_thread as threads::StateOf));
            }
            4 => {
                if !threads::want_real(true) {
                    return ffi::PyErr_NoMemory();
                }
            }
            5 => {
                threads::want_real(false);
            }
            6 => {
                if host::gort_knows_threads() != 0 {
                    threads::learn(state_of_thread);
                }
            }
            _ => {
                return error::set(ffi::PyExc_ValueError, "a mode from 0 to 6 is expected");
            }
        }
        boolean(host::gort_knows_threads() != 0 && boundary::is_parking_allowed())
    }
}

unsafe extern "C-unwind" fn threads_enabled(_m: Object, _: Object) -> Object {
    boolean(threads::is_enabled() && !threads::wants_real())
}

/// Adds the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        plain(
            c"_boundary_status",
            status,
            ffi::METH_NOARGS,
            c"_boundary_status()\n--\n\nWhat gort.boundary.status() is made of.",
        ),
        plain(
            c"_threads_mode",
            threads_mode,
            ffi::METH_O,
            c"_threads_mode(mode, /)\n--\n\nSwitches threads as goroutines; whether they can be had.",
        ),
        plain(
            c"_threads_enabled",
            threads_enabled,
            ffi::METH_NOARGS,
            c"_threads_enabled()\n--\n\nWhether new threads are goroutines.",
        ),
        plain(
            c"_boundary_add",
            add,
            ffi::METH_O,
            c"_boundary_add(name, /)\n--\n\nOpts objects in by the start of their file name; how many are loaded.",
        ),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
