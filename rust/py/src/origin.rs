//! Who started a goroutine: the line of Python code, and the goroutine that ran it. Always known, as in Go.

use crate::entry::{chan, plain};
use crate::task::GoObject;
use gort_core::sched;
use pyo3::ffi;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

type Object = *mut ffi::PyObject;

unsafe extern "C" {
    fn gort_caller(package: *const c_char, bytes: ffi::Py_ssize_t, offset: *mut c_int) -> Object;
    fn PyCode_Addr2Line(code: Object, offset: c_int) -> c_int;
}

/// Code of files in this folder starts goroutines for others. Under the GIL.
static PACKAGE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static PACKAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Where a goroutine was started. All zero: no Python code did it.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    /// A code object, owned, or null.
    code: Object,
    /// How far it was, in bytes.
    offset: c_int,
}

impl Origin {
    /// The line of Python code that is running now, outside of gort's own.
    ///
    /// # Safety
    /// GIL held.
    #[inline]
    pub(crate) unsafe fn here() -> Self {
        // SAFETY: the caller's promise; under the GIL the folder is there or not. The code runs, so it is alive.
        unsafe {
            let mut offset = 0;
            let bytes = PACKAGE_BYTES.load(Ordering::Relaxed) as ffi::Py_ssize_t;
            let code = gort_caller(PACKAGE.load(Ordering::Relaxed).cast(), bytes, &raw mut offset);
            ffi::Py_XINCREF(code);
            Self { code, offset }
        }
    }

    pub(crate) unsafe fn visit(&self, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
        // SAFETY: called from tp_traverse: a code object, owned once, or null.
        if self.code.is_null() { 0 } else { unsafe { visit(self.code, arg) } }
    }

    /// # Safety
    /// GIL held; called once.
    pub(crate) unsafe fn release(&mut self) {
        // SAFETY: the caller's promise; a code object's end runs no code.
        unsafe { ffi::Py_XDECREF(std::mem::replace(&mut self.code, ptr::null_mut())) }
    }

    /// An attribute of the code, and the line; null with an exception set, or none where there is no code.
    unsafe fn parts(&self) -> Option<(Object, Object, c_int)> {
        // SAFETY: GIL held by both callers; the code is alive.
        unsafe {
            if self.code.is_null() {
                return None;
            }
            let name = ffi::PyObject_GetAttrString(self.code, c"co_qualname".as_ptr());
            let file = ffi::PyObject_GetAttrString(self.code, c"co_filename".as_ptr());
            if name.is_null() || file.is_null() {
                ffi::Py_XDECREF(name);
                ffi::Py_XDECREF(file);
                return None;
            }
            Some((name, file, PyCode_Addr2Line(self.code, self.offset)))
        }
    }

    /// A tuple of the function's name, its file and the line; null with or without an exception set.
    ///
    /// # Safety
    /// GIL held; the object it is of is alive.
    pub(crate) unsafe fn tuple(&self) -> Object {
        // SAFETY: the caller's promise; the references of `parts` go into the tuple.
        unsafe {
            let Some((name, file, line)) = self.parts() else { return ptr::null_mut() };
            chan::tuple([name, file, ffi::PyLong_FromLong(line.into())])
        }
    }

    /// A str made of a format with the name of the function, its file and the line; null with or without an exception set.
    unsafe fn text(&self, with: impl FnOnce(Object, Object, c_int) -> Object) -> Object {
        // SAFETY: as for `parts`, whose references are let go here.
        unsafe {
            let Some((name, file, line)) = self.parts() else { return ptr::null_mut() };
            let text = with(name, file, line);
            ffi::Py_DECREF(name);
            ffi::Py_DECREF(file);
            text
        }
    }
}

/// Goroutine.created
pub(crate) unsafe extern "C" fn get_created(slf: Object, _: *mut c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe {
        let text = (*slf.cast::<GoObject>())
            .origin
            .text(|name, file, line| ffi::PyUnicode_FromFormat(c"%U at %U:%d".as_ptr(), name, file, line));
        if text.is_null() && ffi::PyErr_Occurred().is_null() { ffi::Py_NewRef(ffi::Py_None()) } else { text }
    }
}

/// Goroutine.parent
pub(crate) unsafe extern "C" fn get_parent(slf: Object, _: *mut c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe {
        match (*slf.cast::<GoObject>()).parent {
            0 => ffi::Py_NewRef(ffi::Py_None()),
            id => ffi::PyLong_FromUnsignedLongLong(id),
        }
    }
}

/// Notes on the exception that ended a goroutine where that was started. What goes wrong in it is forgotten.
///
/// # Safety
/// GIL held, no exception set, where Python code may run; both are alive.
pub(crate) unsafe fn note(obj: *mut GoObject, exception: Object) {
    // SAFETY: the caller's promise.
    unsafe {
        let (id, has_name) = ((*obj).id, !(*obj).name.is_null());
        let note = (*obj).origin.text(|name, file, line| {
            let place = ffi::PyUnicode_FromFormat(c"  File \"%U\", line %d, in %U".as_ptr(), file, line, name);
            if place.is_null() {
                return place;
            }
            let text = match has_name {
                true => {
                    ffi::PyUnicode_FromFormat(c"goroutine %llu (%U) spawned at\n%U".as_ptr(), id, (*obj).name, place)
                }
                false => ffi::PyUnicode_FromFormat(c"goroutine %llu spawned at\n%U".as_ptr(), id, place),
            };
            ffi::Py_DECREF(place);
            text
        });
        if !note.is_null() {
            let done = ffi::PyObject_CallMethod(exception, c"add_note".as_ptr(), c"O".as_ptr(), note);
            ffi::Py_XDECREF(done);
            ffi::Py_DECREF(note);
        }
        ffi::PyErr_Clear();
    }
}

/// `_note_origin(exception)`: the note of the running goroutine, on an exception that is not to leave it.
unsafe extern "C-unwind" fn note_current(_m: Object, exception: Object) -> Object {
    // SAFETY: METH_O with the GIL; the running goroutine's object is alive. The main goroutine and threads have none.
    unsafe {
        let g = sched::current_goroutine();
        if !g.is_null() && !(*g).task.is_null() && !(*g).is_thread() {
            note((*g).task.cast(), exception);
        }
        ffi::Py_NewRef(ffi::Py_None())
    }
}

/// `_set_package(folder)`.
unsafe extern "C-unwind" fn set_package(_m: Object, folder: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let mut bytes = 0;
        let text = ffi::PyUnicode_AsUTF8AndSize(folder, &raw mut bytes);
        if text.is_null() {
            return ptr::null_mut();
        }
        let kept = ffi::PyMem_RawMalloc(bytes as usize + 1).cast::<u8>();
        if kept.is_null() {
            return ffi::PyErr_NoMemory();
        }
        ptr::copy_nonoverlapping(text.cast::<u8>(), kept, bytes as usize + 1);
        PACKAGE_BYTES.store(bytes as usize, Ordering::Relaxed);
        ffi::PyMem_RawFree(PACKAGE.swap(kept, Ordering::Relaxed).cast()); // gort is imported anew, by another interpreter perhaps
        ffi::Py_NewRef(ffi::Py_None())
    }
}

/// `_set_package` for the module's table.
pub(crate) fn set_package_entry() -> ffi::PyMethodDef {
    let doc = c"_set_package(folder, /)\n--\n\nCode in this folder starts goroutines for its callers.";
    plain(c"_set_package", set_package, ffi::METH_O, doc)
}

/// `_note_origin` for the module's table.
pub(crate) fn note_entry() -> ffi::PyMethodDef {
    let doc = c"_note_origin(exception, /)\n--\n\nNotes on it where the caller's goroutine was started.";
    plain(c"_note_origin", note_current, ffi::METH_O, doc)
}
