//! The functions that make contexts, and those that cancel them.

use super::super::{arguments, boolean, fast, methods, none, plain, positional, runtime};
use super::ask::{cause_of, deadline_of, view};
use super::tree::{self, State};
use super::waiting::limited_object;
use super::{CONTEXT_TYPE, Context, Kind, Object, ROOTS, Reach, is_ours, let_spent_go, now, reach_of};
use crate::task;
use crate::{error, host};
use gort_core::goroutine::ender::Ender;
use gort_core::sched;
use pyo3::ffi;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::Ordering;

/// A new context of ours; null with an exception set on failure.
unsafe fn new_context(kind: Kind, parent: Object) -> *mut Context {
    // SAFETY: GIL held; null or alive. The memory is zeroed, which is a context without anything.
    unsafe {
        let context = ffi::PyType_GenericAlloc(CONTEXT_TYPE.load(Ordering::Relaxed), 0).cast::<Context>();
        if !context.is_null() {
            (*context).kind = kind;
            (*context).bubble = sched::current_bubble();
            ptr::write(&raw mut (*context).ender, Ender::new((*context).bubble));
            (*context).parent = ffi::Py_XNewRef(parent);
        }
        context
    }
}

/// Makes background() and todo(). `false`: an exception is set.
pub(super) unsafe fn roots() -> bool {
    [Kind::Background, Kind::Todo].into_iter().zip(&ROOTS).all(|(kind, place)| {
        // SAFETY: GIL held by the module's init.
        let root = unsafe { new_context(kind, ptr::null_mut()) };
        place.store(root.cast(), Ordering::Relaxed); // the module is not there yet: nobody can read it
        !root.is_null()
    })
}

/// Whether an object is a context, ours or not.
///
/// # Safety
/// GIL held; `object` is alive.
pub(super) unsafe fn is_context_like(object: Object) -> bool {
    let has = |name: &CStr| {
        // SAFETY: the caller's promise.
        unsafe { ffi::PyObject_HasAttrString(object, name.as_ptr()) != 0 }
    };
    // SAFETY: as above.
    unsafe { is_ours(object) || [c"done", c"err", c"deadline", c"value"].into_iter().all(has) }
}

/// Whether an object may be a parent; if not, an exception is set.
unsafe fn is_parent(object: Object, function: &CStr) -> bool {
    // SAFETY: GIL held; `object` is alive.
    unsafe {
        if object == ffi::Py_None() {
            error::set(ffi::PyExc_TypeError, "cannot create context from nil parent");
            return false;
        }
        let is_one = is_context_like(object);
        if !is_one {
            let text = c"%s() needs a Context, not %.200s".as_ptr();
            ffi::PyErr_Format(ffi::PyExc_TypeError, text, function.as_ptr(), (*ffi::Py_TYPE(object)).tp_name);
        }
        is_one
    }
}

/// Puts a new context below its parent. `false`: an exception is set.
unsafe fn join(child: *mut Context) -> bool {
    // SAFETY: GIL held, where Python code may run; the child is the caller's, and keeps its parent.
    unsafe {
        match reach_of((*child).parent) {
            Reach::Never => true,
            Reach::Ours(above) => {
                tree::link(above, child);
                true
            }
            Reach::Theirs(_) => {
                let result = super::facade(c"_join", [child.cast(), (*child).parent]);
                ffi::Py_XDECREF(result);
                !result.is_null()
            }
        }
    }
}

/// `Context(inner=None)`, of a subclass.
pub(super) unsafe extern "C" fn new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL. As object.__new__: what else there is is for an __init__ of the subclass.
    unsafe {
        if ptr::eq(tp, CONTEXT_TYPE.load(Ordering::Relaxed)) {
            return error::set(
                ffi::PyExc_TypeError,
                "Context is made by the functions of gort.context; subclass it for one of your own",
            );
        }
        let own_init = (*tp).tp_init.map(|f| f as usize) != ffi::PyBaseObject_Type.tp_init.map(|f| f as usize);
        let n = ffi::PyTuple_GET_SIZE(args);
        let any_name = !kwargs.is_null() && ffi::PyDict_Size(kwargs) != 0;
        if !own_init && (n > 1 || any_name) {
            return error::set(ffi::PyExc_TypeError, "Context() takes a context, or nothing");
        }
        let inner = if n > 0 { ffi::PyTuple_GET_ITEM(args, 0) } else { ptr::null_mut() };
        let is_given = !inner.is_null() && (!own_init || is_context(inner));
        if is_given && !is_parent(inner, c"Context") {
            return ptr::null_mut();
        }
        let context = ffi::PyType_GenericAlloc(tp, 0);
        if !context.is_null() {
            let context = context.cast::<Context>();
            (*context).kind = Kind::Theirs;
            (*context).parent = if is_given { ffi::Py_NewRef(inner) } else { ptr::null_mut() };
            ptr::write(&raw mut (*context).ender, Ender::new(0)); // nobody waits for it, but for one below
        }
        context
    }
}

unsafe fn is_context(object: Object) -> bool {
    // SAFETY: GIL held; `object` is alive.
    unsafe { ffi::PyObject_TypeCheck(object, CONTEXT_TYPE.load(Ordering::Relaxed)) != 0 }
}

unsafe fn as_number(value: Object, what: &CStr) -> Option<f64> {
    // SAFETY: GIL held; `value` is alive.
    unsafe {
        if ffi::PyNumber_Check(value) == 0 || ffi::PyBool_Check(value) != 0 {
            let text = c"%s must be a number of seconds, not %.200s".as_ptr();
            ffi::PyErr_Format(ffi::PyExc_TypeError, text, what.as_ptr(), (*ffi::Py_TYPE(value)).tp_name);
            return None;
        }
        let seconds = ffi::PyFloat_AsDouble(value);
        if !ffi::PyErr_Occurred().is_null() {
            return None;
        }
        if seconds.is_nan() {
            ffi::PyErr_Format(ffi::PyExc_ValueError, c"%s must not be nan".as_ptr(), what.as_ptr());
            return None;
        }
        Some(seconds)
    }
}

/// An exception, or null for None. `None`: TypeError is set.
unsafe fn as_cause(object: Object) -> Option<Object> {
    // SAFETY: GIL held; null or alive.
    unsafe {
        if object.is_null() || object == ffi::Py_None() {
            return Some(ptr::null_mut());
        }
        if ffi::PyExceptionInstance_Check(object) == 0 {
            let text = c"a cause must be an exception or None, not %.200s".as_ptr();
            ffi::PyErr_Format(ffi::PyExc_TypeError, text, (*ffi::Py_TYPE(object)).tp_name);
            return None;
        }
        Some(object)
    }
}

/// Takes a context that was made in vain, and the caller's reference, out of everything; the exception in flight stays.
unsafe fn give_up(context: *mut Context) {
    // SAFETY: GIL held, an exception set; the reference is the caller's.
    unsafe {
        let exception = host::gort_take_exception();
        tree::cancel(context, State::Canceled, ptr::null_mut(), ptr::null_mut());
        ffi::Py_DECREF(context.cast());
        host::gort_raise(exception);
    }
}

/// The pair of a context, whose reference goes into it, and the function that cancels it.
unsafe fn pair(context: *mut Context, cancel: &'static Function) -> Object {
    // SAFETY: GIL held; the table is static.
    unsafe {
        let function = ffi::PyCFunction_NewEx(cancel.get(), context.cast(), ptr::null_mut());
        let pair = if function.is_null() { ptr::null_mut() } else { ffi::PyTuple_New(2) };
        if pair.is_null() {
            ffi::Py_XDECREF(function);
            give_up(context);
            return pair;
        }
        super::super::chan::fill(pair, [context.cast(), function])
    }
}

/// `_with_cancel(parent, caused)`: the pair for `with_cancel`, or `with_cancel_cause`.
unsafe extern "C-unwind" fn with_cancel(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 2 {
            return error::set(ffi::PyExc_TypeError, "_with_cancel() takes a parent and whether there are causes");
        }
        let is_caused = ffi::PyObject_IsTrue(*args.add(1)) == 1;
        if !is_parent(*args, if is_caused { c"with_cancel_cause" } else { c"with_cancel" }) {
            return ptr::null_mut();
        }
        cancellable(*args, is_caused)
    }
}

/// The pair for a new context below `parent`, which is a context.
pub(super) unsafe fn cancellable(parent: Object, is_caused: bool) -> Object {
    // SAFETY: GIL held; the parent is a context.
    unsafe {
        let_spent_go();
        let context = new_context(Kind::Cancel, parent);
        if context.is_null() || !join(context) {
            ffi::Py_XDECREF(context.cast());
            return ptr::null_mut();
        }
        pair(context, if is_caused { &CANCEL_CAUSE } else { &CANCEL })
    }
}

/// `_with_deadline(parent, seconds, is_from_now, cause)`.
unsafe extern "C-unwind" fn with_deadline(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 4 {
            return error::set(ffi::PyExc_TypeError, "_with_deadline() takes 4 arguments");
        }
        let [parent, seconds, is_from_now, cause] = [0, 1, 2, 3].map(|i| *args.add(i));
        let is_from_now = ffi::PyObject_IsTrue(is_from_now) == 1;
        let (function, what) =
            if is_from_now { (c"with_timeout", c"the time-out") } else { (c"with_deadline", c"the deadline") };
        if !is_parent(parent, function) {
            return ptr::null_mut();
        }
        let (Some(seconds), Some(cause)) = (as_number(seconds, what), as_cause(cause)) else { return ptr::null_mut() };
        let Some(earlier) = deadline_of(parent) else { return ptr::null_mut() };
        let (left, when) = if is_from_now { (seconds, now() + seconds) } else { (seconds - now(), seconds) };
        if earlier < when {
            return cancellable(parent, false);
        }
        let_spent_go();
        let context = new_context(Kind::Deadline, parent);
        if context.is_null() {
            return ptr::null_mut();
        }
        (*context).deadline = when;
        if !join(context) {
            ffi::Py_DECREF(context.cast());
            return ptr::null_mut();
        }
        if left <= 0.0 {
            tree::cancel(context, State::Expired, ptr::null_mut(), cause);
        } else if (*context).state == State::Live {
            (*context).second = ffi::Py_XNewRef(cause);
            if left < f64::INFINITY && !tree::set_deadline(context, left) {
                give_up(context);
                return ptr::null_mut();
            }
        }
        pair(context, &CANCEL)
    }
}

/// `_with_value(parent, key, value)`.
unsafe extern "C-unwind" fn with_value(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 3 {
            return error::set(ffi::PyExc_TypeError, "_with_value() takes 3 arguments");
        }
        let [parent, key, value] = [0, 1, 2].map(|i| *args.add(i));
        if !is_parent(parent, c"with_value") {
            return ptr::null_mut();
        }
        if key == ffi::Py_None() {
            return error::set(ffi::PyExc_TypeError, "nil key");
        }
        if ffi::PyObject_Hash(key) == -1 {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_TypeError) != 0 {
                error::set(ffi::PyExc_TypeError, "key is not comparable");
            }
            return ptr::null_mut();
        }
        let context = new_context(Kind::Value, parent);
        if !context.is_null() {
            (*context).first = ffi::Py_NewRef(key);
            (*context).second = ffi::Py_NewRef(value);
            if let Reach::Ours(above) = reach_of(parent) {
                (*context).canceller = ffi::Py_NewRef(above.cast()).cast();
            }
        }
        context.cast()
    }
}

/// `without_cancel(parent)`.
unsafe extern "C-unwind" fn without_cancel(_m: Object, parent: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        if is_parent(parent, c"without_cancel") {
            new_context(Kind::WithoutCancel, parent).cast()
        } else {
            ptr::null_mut()
        }
    }
}

/// `_after_func(parent, function, args, kwargs)`: the function that stops it.
unsafe extern "C-unwind" fn after_func(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL; the facade passes a callable, a tuple and a dict.
    unsafe {
        if nargs != 4 {
            return error::set(ffi::PyExc_TypeError, "_context_after_func() takes 4 arguments");
        }
        let [parent, function, call_args, kwargs] = [0, 1, 2, 3].map(|i| *args.add(i));
        if !is_parent(parent, c"after_func") || runtime().is_none() {
            return ptr::null_mut();
        }
        let_spent_go();
        let context = new_context(Kind::AfterFunc, parent);
        if context.is_null() {
            return ptr::null_mut();
        }
        let goroutine = task::new_object(function, call_args, kwargs);
        let stop = ffi::PyCFunction_NewEx(STOP.get(), context.cast(), ptr::null_mut());
        if goroutine.is_null() || stop.is_null() {
            ffi::Py_XDECREF(goroutine.cast());
            ffi::Py_XDECREF(stop);
            ffi::Py_DECREF(context.cast());
            return ptr::null_mut();
        }
        ffi::PyObject_GC_Track(goroutine.cast()); // until it starts: it may be what keeps the context alive
        (*context).first = goroutine.cast();
        let is_below = join(context);
        ffi::Py_DECREF(context.cast());
        if is_below {
            return stop;
        }
        ffi::Py_DECREF(stop);
        ptr::null_mut()
    }
}

unsafe extern "C-unwind" fn stop(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL; the function keeps its context.
    unsafe {
        let context = slf.cast::<Context>();
        let goroutine = ptr::replace(&raw mut (*context).first, ptr::null_mut());
        if goroutine.is_null() {
            return boolean(false);
        }
        ffi::Py_INCREF(slf);
        tree::cancel(context, State::Canceled, ptr::null_mut(), ptr::null_mut());
        ffi::Py_DECREF(goroutine);
        ffi::Py_DECREF(slf);
        boolean(true)
    }
}

unsafe extern "C-unwind" fn cancel(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL; the function keeps its context.
    unsafe {
        ffi::Py_INCREF(slf);
        tree::cancel(slf.cast(), State::Canceled, ptr::null_mut(), ptr::null_mut());
        ffi::Py_DECREF(slf);
    }
    none()
}

unsafe extern "C-unwind" fn cancel_cause(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    // SAFETY: a vectorcall with the GIL; the function keeps its context.
    unsafe {
        let Some([cause]) = arguments("cancel", args, n, kw, [c"cause"], 0) else { return ptr::null_mut() };
        let Some(cause) = as_cause(cause) else { return ptr::null_mut() };
        ffi::Py_INCREF(slf);
        tree::cancel(slf.cast(), State::Canceled, ptr::null_mut(), cause);
        ffi::Py_DECREF(slf);
    }
    none()
}

/// `_context_end(context, err, cause)`: it ends as its parent, of another kind, has.
unsafe extern "C-unwind" fn end(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 3 || !is_ours(*args) {
            return error::set(ffi::PyExc_TypeError, "_context_end() takes a context, an exception and a cause");
        }
        let (Some(err), Some(cause)) = (as_cause(*args.add(1)), as_cause(*args.add(2))) else { return ptr::null_mut() };
        let is_late = !err.is_null() && ffi::PyObject_IsInstance(err, error::deadline_exceeded()) == 1;
        tree::cancel((*args).cast(), if is_late { State::Expired } else { State::Canceled }, err, cause);
        none()
    }
}

/// `_context_link(above, child)`: `above` says when the child is done.
unsafe extern "C-unwind" fn link(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 2 || !is_ours(*args) || !is_ours(*args.add(1)) {
            return error::set(ffi::PyExc_TypeError, "_context_link() takes two contexts");
        }
        match reach_of(*args) {
            Reach::Ours(above) => tree::link(above, (*args.add(1)).cast()),
            Reach::Never | Reach::Theirs(_) => return error::set(ffi::PyExc_ValueError, "it cannot be cancelled"),
        }
        none()
    }
}

/// `_context_stopper(context, stop)`: `stop` is called at the context's end.
unsafe extern "C-unwind" fn stopper(_m: Object, args: *const Object, nargs: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if nargs != 2 || !is_ours(*args) {
            return error::set(ffi::PyExc_TypeError, "_context_stopper() takes a context and a callable");
        }
        let context = (*args).cast::<Context>();
        if (*context).state == State::Live {
            let before = ptr::replace(&raw mut (*context).stopper, ffi::Py_NewRef(*args.add(1)));
            ffi::Py_XDECREF(before);
        }
        none()
    }
}

/// `_context_done(context)`: what is closed at the end of the context itself, also of one that nobody sees.
unsafe extern "C-unwind" fn done(_m: Object, context: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        if !is_ours(context) {
            return error::set(ffi::PyExc_TypeError, "_context_done() takes a context");
        }
        view(context.cast())
    }
}

/// `_check_context(ctx)`: raises as a wait with `ctx` would that need not wait.
unsafe extern "C-unwind" fn check(_m: Object, ctx: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { limited_object(ptr::null_mut(), ctx, |_| none()) }
}

unsafe extern "C-unwind" fn clock(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { ffi::PyFloat_FromDouble(now()) }
}

unsafe fn root(i: usize) -> Object {
    // SAFETY: GIL held; made by the module's init, and never let go.
    unsafe { ffi::Py_NewRef(ROOTS[i].load(Ordering::Relaxed)) }
}

unsafe extern "C-unwind" fn background(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { root(0) }
}

unsafe extern "C-unwind" fn todo(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { root(1) }
}

unsafe extern "C-unwind" fn cause(_m: Object, context: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { if is_parent(context, c"cause") { cause_of(context) } else { ptr::null_mut() } }
}

/// A table entry, which never changes once it is made.
struct Entry(ffi::PyMethodDef);

// SAFETY: only read, and what it refers to is static.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// A function that is made with its context as `self`: a static table entry, made without memory.
struct Function(std::sync::OnceLock<Entry>, fn() -> ffi::PyMethodDef);

impl Function {
    fn get(&self) -> *mut ffi::PyMethodDef {
        (&raw const self.0.get_or_init(|| Entry((self.1)())).0).cast_mut()
    }
}

static CANCEL: Function = Function(std::sync::OnceLock::new(), || {
    plain(c"cancel", cancel, ffi::METH_NOARGS, c"cancel()\n--\n\nEnds the context and all made from it. Never parks.")
});
static CANCEL_CAUSE: Function = Function(std::sync::OnceLock::new(), || {
    fast(
        c"cancel",
        cancel_cause,
        c"cancel(cause=None)\n--\n\nEnds the context and all made from it, for this reason. Never parks.",
    )
});
static STOP: Function = Function(std::sync::OnceLock::new(), || {
    plain(c"stop", stop, ffi::METH_NOARGS, c"stop()\n--\n\nPrevents the call; whether it did. Never parks.")
});

const BACKGROUND_DOC: &CStr = c"background()\n--\n
The context that is never done, has no values and no deadline: where all others begin. Never parks.

Example:
    >>> import gort
    >>> print(gort.context.background())
    context.Background
";

const TODO_DOC: &CStr = c"todo()\n--\n
The same as background(), for where it is not clear yet which context to use. Never parks.

Example:
    >>> import gort
    >>> print(gort.context.todo())
    context.TODO
";

const CAUSE_DOC: &CStr = c"cause(ctx, /)\n--\n
Why a context is done: what its cancel was called with, or that of the first above it; else err(). None before. Never parks.

Example:
    >>> import gort
    >>> ctx, cancel = gort.context.with_cancel_cause(gort.context.background())
    >>> cancel(OSError('disk full'))
    >>> ctx.err(), gort.context.cause(ctx)
    (ContextCanceled('context canceled'), OSError('disk full'))
";

const WITHOUT_CANCEL_DOC: &CStr = c"without_cancel(parent, /)\n--\n
A context with the values of `parent` that is not done when that is, and has no deadline. Never parks.

Raises:
    TypeError: parent is None or no context.

Example:
    >>> import gort
    >>> ctx, cancel = gort.context.with_cancel(gort.context.background())
    >>> kept = gort.context.without_cancel(ctx)
    >>> cancel()
    >>> ctx.err(), kept.err()
    (ContextCanceled('context canceled'), None)
";

/// Adds the functions.
pub(super) unsafe fn register(module: Object) -> bool {
    let table = methods(vec![
        plain(c"background", background, ffi::METH_NOARGS, BACKGROUND_DOC),
        plain(c"todo", todo, ffi::METH_NOARGS, TODO_DOC),
        plain(c"cause", cause, ffi::METH_O, CAUSE_DOC),
        plain(c"without_cancel", without_cancel, ffi::METH_O, WITHOUT_CANCEL_DOC),
        positional(c"_with_cancel", with_cancel, c"_with_cancel(parent, caused, /)\n--\n\nA context and its cancel."),
        positional(
            c"_with_deadline",
            with_deadline,
            c"_with_deadline(parent, seconds, from_now, cause, /)\n--\n\nA context and its cancel.",
        ),
        positional(c"_with_value", with_value, c"_with_value(parent, key, value, /)\n--\n\nA context with a value."),
        positional(
            c"_context_after_func",
            after_func,
            c"_context_after_func(parent, fn, args, kwargs, /)\n--\n\nA function that stops it.",
        ),
        plain(c"_check_context", check, ffi::METH_O, c"_check_context(ctx, /)\n--\n\nRaises why it is done, if it is."),
        plain(c"_context_done", done, ffi::METH_O, c"_context_done(ctx, /)\n--\n\nIts own channel."),
        plain(c"_context_now", clock, ffi::METH_NOARGS, c"_context_now()\n--\n\nSeconds since 1970, also of a bubble."),
        positional(c"_context_end", end, c"_context_end(ctx, err, cause, /)\n--\n\nEnds it as its parent has."),
        positional(c"_context_link", link, c"_context_link(above, ctx, /)\n--\n\nPuts it below another."),
        positional(c"_context_stopper", stopper, c"_context_stopper(ctx, stop, /)\n--\n\nHas stop called at its end."),
    ]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, table) == 0 }
}
