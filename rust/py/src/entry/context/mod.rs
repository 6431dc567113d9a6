//! The Context type: Go's package context (context/context.go).
//!
//! One type for all that gort makes, told apart by `kind`; what it does with them is compiled. A subclass of it is somebody
//! else's context, as is any object with the methods: those are asked by calling them (`gort.context._join` puts ours below
//! theirs). An instance of a subclass that does not say otherwise answers what the context says that it was made with.
//!
//! `reach` is the way up: the context whose end is that of another. A value's is known from the start.

mod ask;
mod make;
mod tree;
mod waiting;

pub(crate) use tree::let_spent_go;
pub(crate) use waiting::{limited, limited_object, limited_until};

use super::{fast, methods, plain};
use gort_core::goroutine::ender::Ender;
use gort_core::goroutine::waiter::Node;
use gort_core::sched;
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tree::State;

type Object = *mut ffi::PyObject;

/// What a context is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    /// An instance of a subclass.
    Theirs = 0,
    Background,
    Todo,
    Cancel,
    Deadline,
    Value,
    WithoutCancel,
    /// Not seen by anybody: a function that stands below a context.
    AfterFunc,
}

#[repr(C)]
pub(crate) struct Context {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    kind: Kind,
    state: State,
    /// Its end is that of the one above.
    inherits: bool,
    /// Where it was made, and its channel is of.
    bubble: u32,
    /// What it was made from, or null.
    parent: Object,
    /// Of a value: what can be cancelled above it, as far as that is known; else null.
    canceller: *mut Context,
    /// In whose list it is, and its neighbours there.
    above: *mut Context,
    next: *mut Context,
    previous: *mut Context,
    /// Its own list.
    first_below: *mut Context,
    last: *mut Context,
    /// What is closed at its end, and what is shown of it, once somebody asked for it.
    chan: Object,
    view: Object,
    /// The exception that says that it is done, once somebody asked for it or if it is another context's.
    err: Object,
    cause: Object,
    /// A value's key; the Goroutine of `after_func`, not started.
    first: Object,
    /// A value; the cause if the deadline passes.
    second: Object,
    /// Called at its end: has a parent of another kind forget it.
    stopper: Object,
    /// When, s since 1970; of the kind Deadline.
    deadline: f64,
    timer: *mut tree::Deadline,
    /// Ends the waits that are to end with it.
    ender: Ender,
}

/// The Context type.
pub(crate) static CONTEXT_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// background() and todo().
static ROOTS: [AtomicPtr<ffi::PyObject>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
/// A key to which a context answers with what can be cancelled; an object of its own.
static CANCEL_KEY: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
/// The context variable behind `run` and `current_context`.
static CURRENT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Who says whether a context is done.
enum Reach {
    /// It never is.
    Never,
    /// One of ours, borrowed.
    Ours(*mut Context),
    /// Somebody else's, borrowed.
    Theirs(Object),
}

/// Whether it is one of ours, and no instance of a subclass.
#[inline(always)]
unsafe fn is_ours(object: Object) -> bool {
    // SAFETY: GIL held; `object` is alive.
    unsafe { ptr::eq(ffi::Py_TYPE(object), CONTEXT_TYPE.load(Ordering::Relaxed)) }
}

/// See the module's text. A context answers for itself, whatever its type.
unsafe fn reach(context: *mut Context) -> Reach {
    let mut at = context;
    // SAFETY: GIL held; the caller keeps the context, which keeps those above it, alive.
    unsafe {
        loop {
            match (*at).kind {
                Kind::Background | Kind::Todo | Kind::WithoutCancel => return Reach::Never,
                Kind::Cancel | Kind::Deadline | Kind::AfterFunc => return Reach::Ours(at),
                Kind::Value if !(*at).canceller.is_null() => return Reach::Ours((*at).canceller),
                Kind::Value | Kind::Theirs => {}
            }
            let parent = (*at).parent;
            if parent.is_null() {
                return Reach::Never;
            }
            if !is_ours(parent) {
                return Reach::Theirs(parent);
            }
            at = parent.cast();
        }
    }
}

/// The same of any object.
unsafe fn reach_of(object: Object) -> Reach {
    // SAFETY: GIL held; `object` is alive.
    unsafe { if is_ours(object) { reach(object.cast()) } else { Reach::Theirs(object) } }
}

/// Seconds since 1970 by the caller's clock.
pub(crate) fn now() -> f64 {
    match sched::bubble_now_ns() {
        Some(ns) => ns as f64 / 1e9,
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()),
    }
}

/// Calls `f` with each wait that the context will end.
///
/// # Safety
/// GIL held; a live object of the Context type.
pub(crate) unsafe fn for_each_waiter(context: Object, f: impl FnMut(&Node)) {
    // SAFETY: the caller's promise.
    unsafe { (*context.cast::<Context>()).ender.for_each_waiter(f) };
}

/// Lets go of a reference; where it was the last of a context, by a loop over those above it and not by recursion.
unsafe fn let_go(first: Object) {
    let mut object = first;
    // SAFETY: GIL held, where Python code may run; one count of `object` belongs to the loop.
    unsafe {
        while !object.is_null() {
            let mut next = ptr::null_mut();
            if ffi::Py_REFCNT(object) == 1 && is_ours(object) {
                next = ptr::replace(&raw mut (*object.cast::<Context>()).parent, ptr::null_mut());
            }
            ffi::Py_DECREF(object);
            object = next;
        }
    }
}

/// Calls a function of `gort.context`.
unsafe fn facade<const N: usize>(function: &CStr, args: [Object; N]) -> Object {
    // SAFETY: GIL held; the arguments are alive.
    unsafe { super::facade(c"gort.context", function, &args) }
}

unsafe extern "C" fn str_of(slf: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { facade(c"_text", [slf]) }
}

unsafe extern "C" fn repr(slf: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { facade(c"_repr", [slf]) }
}

unsafe extern "C" fn traverse(slf: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector on a live object; who is in the list is alive, and the list has a reference to each.
    unsafe {
        let context = slf.cast::<Context>();
        let fields = [
            ffi::Py_TYPE(slf).cast(),
            (*context).parent,
            (*context).canceller.cast(),
            (*context).chan,
            (*context).view,
            (*context).err,
            (*context).cause,
            (*context).first,
            (*context).second,
            (*context).stopper,
        ];
        for field in fields {
            let r = if field.is_null() { 0 } else { visit(field, arg) };
            if r != 0 {
                return r;
            }
        }
        let mut below = (*context).first_below;
        while !below.is_null() {
            let r = visit(below.cast(), arg);
            if r != 0 {
                return r;
            }
            below = (*below).next;
        }
        0
    }
}

unsafe extern "C" fn clear(slf: Object) -> c_int {
    // SAFETY: called by the collector or dealloc; each field is cleared before its referent is let go.
    unsafe {
        let context = slf.cast::<Context>();
        tree::drop_below(context);
        let canceller = ptr::replace(&raw mut (*context).canceller, ptr::null_mut());
        ffi::Py_XDECREF(canceller.cast());
        let fields = [
            &raw mut (*context).chan,
            &raw mut (*context).view,
            &raw mut (*context).err,
            &raw mut (*context).cause,
            &raw mut (*context).first,
            &raw mut (*context).second,
            &raw mut (*context).stopper,
        ];
        for field in fields {
            ffi::Py_XDECREF(ptr::replace(field, ptr::null_mut()));
        }
        let_go(ptr::replace(&raw mut (*context).parent, ptr::null_mut()));
        0
    }
}

unsafe extern "C" fn dealloc(slf: Object) {
    // SAFETY: the last reference is gone: it is in no list, and its timer is not set, for both would have one.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        super::end_weak_references(slf, (*slf.cast::<Context>()).weak_list);
        clear(slf);
        tree::free_timer(slf.cast());
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

const DOC: &CStr = c"Context(inner=None, /)\n--\n
A context: when work is to end, why, and values for it, as Go's context.Context.

Contexts are made by the functions of gort.context. A subclass is a context of your own: its methods
answer what `inner` says, or background() without one, as far as it has none of its own. Any object
with done(), err(), deadline() and value() will do as a parent as well.

Raises:
    TypeError: made itself and not by a subclass, or `inner` is not a context.

Example:
    >>> import gort
    >>> class Named(gort.context.Context):
    ...     def value(self, key, default=None):
    ...         return 'mine' if key == 'name' else super().value(key, default)
    >>> with gort.context.with_cancel(Named()) as ctx:
    ...     ctx.value('name')
    'mine'
";

fn method_table() -> Vec<ffi::PyMethodDef> {
    vec![
        plain(
            c"done",
            ask::done,
            ffi::METH_NOARGS,
            c"done($self, /)\n--\n\nA channel that is closed when the context is done; None if it never is. Never parks.",
        ),
        plain(
            c"err",
            ask::err,
            ffi::METH_NOARGS,
            c"err($self, /)\n--\n\nContextCanceled or DeadlineExceeded once it is done, before that None. Never parks.",
        ),
        plain(
            c"cause",
            ask::cause,
            ffi::METH_NOARGS,
            c"cause($self, /)\n--\n\nWhy it is done: what cancel was called with, else err(). None before. Never parks.",
        ),
        plain(
            c"deadline",
            ask::deadline,
            ffi::METH_NOARGS,
            c"deadline($self, /)\n--\n\nWhen it ends by itself, in seconds since 1970 as time.time() has them; None for never.",
        ),
        fast(
            c"value",
            ask::value,
            c"value($self, /, key, default=None)\n--\n\nThe value that with_value gave it for key, else default. Never parks.",
        ),
        fast(
            c"run",
            ask::run,
            c"run($self, fn, /, *args, **kwargs)\n--\n\nCalls fn, in which, and in goroutines from there, current_context() is this one.",
        ),
        plain(c"_parts", ask::parts, ffi::METH_NOARGS, c"_parts($self, /)\n--\n\nWhat str() tells of it."),
    ]
}

const CURRENT_DOC: &CStr = c"current_context()\n--\n
The context that Context.run() put in force here; background() outside of it. Never parks.

Example:
    >>> import gort
    >>> ctx = gort.context.with_value(gort.context.background(), 'user', 'gopher')
    >>> ctx.run(lambda: gort.go(lambda: gort.current_context().value('user')).join())
    'gopher'
";

/// Adds the type and the functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let slots = vec![
        super::weak_list(std::mem::offset_of!(Context, weak_list)),
        slot(ffi::Py_tp_new, make::new as *mut _),
        slot(ffi::Py_tp_dealloc, dealloc as *mut _),
        slot(ffi::Py_tp_traverse, traverse as *mut _),
        slot(ffi::Py_tp_clear, clear as *mut _),
        slot(ffi::Py_tp_str, str_of as *mut _),
        slot(ffi::Py_tp_repr, repr as *mut _),
        slot(ffi::Py_tp_methods, methods(method_table()).cast()),
        slot(ffi::Py_tp_doc, DOC.as_ptr().cast_mut().cast()),
    ];
    let functions = methods(vec![plain(c"current_context", ask::current_context, ffi::METH_NOARGS, CURRENT_DOC)]);
    let flags = ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC;
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = super::add_type(module, c"gort.context.Context", size_of::<Context>(), flags, slots);
        CONTEXT_TYPE.store(tp, Ordering::Release); // read under the GIL, which orders it
        if tp.is_null() || !make::roots() {
            return false;
        }
        let key = ffi::PyObject_CallNoArgs((&raw mut ffi::PyBaseObject_Type).cast());
        let variable = ffi::PyContextVar_New(c"gort.context".as_ptr(), ptr::null_mut());
        CANCEL_KEY.store(key, Ordering::Relaxed);
        CURRENT.store(variable, Ordering::Relaxed);
        !key.is_null()
            && !variable.is_null()
            && ffi::PyModule_AddObjectRef(module, c"_CANCEL_KEY".as_ptr(), key) == 0
            && ffi::PyModule_AddFunctions(module, functions) == 0
            && make::register(module)
    }
}
