//! The types of gort.atomic: Go's sync/atomic. Each operation is one step to all goroutines and threads, and all see them in
//! one order: the GIL, under which no Python code runs between a look and a change, is what makes them so.

use super::chan::let_go;
use super::map::{are_equal, is_comparable};
use super::{boolean, methods, none, plain, positional};
use crate::error;
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

static VALUE_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// An Int or a Bool.
#[repr(C)]
struct Number {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    value: i64,
}

#[repr(C)]
struct ValueObject {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    /// Null until the first store.
    value: Object,
}

unsafe fn number<'a>(slf: Object) -> &'a mut i64 {
    // SAFETY: a method of Int or Bool with the GIL; nobody keeps the reference while Python code runs.
    unsafe { &mut (*slf.cast::<Number>()).value }
}

/// The place of a Value's object.
unsafe fn held(slf: Object) -> *mut Object {
    // SAFETY: a method of Value with the GIL.
    unsafe { &raw mut (*slf.cast::<ValueObject>()).value }
}

/// An integer of 64 bits. `None`: TypeError or OverflowError is set.
unsafe fn integer(value: Object) -> Option<i64> {
    // SAFETY: GIL held, `value` alive.
    unsafe {
        let n = ffi::PyLong_AsLongLong(value);
        (n != -1 || ffi::PyErr_Occurred().is_null()).then_some(n)
    }
}

/// Exactly True or False. `None`: TypeError is set.
unsafe fn truth(value: Object) -> Option<i64> {
    // SAFETY: GIL held, `value` alive.
    unsafe {
        if value == ffi::Py_True() || value == ffi::Py_False() {
            return Some(i64::from(value == ffi::Py_True()));
        }
        let text = c"gort.atomic.Bool takes True or False, not %.200s".as_ptr();
        ffi::PyErr_Format(ffi::PyExc_TypeError, text, (*ffi::Py_TYPE(value)).tp_name);
        None
    }
}

/// The two arguments of a method. `None`: TypeError is set.
unsafe fn pair(name: &str, args: *const Object, n: ffi::Py_ssize_t) -> Option<(Object, Object)> {
    if n != 2 {
        // SAFETY: GIL held by every caller.
        error::set(unsafe { ffi::PyExc_TypeError }, format_args!("{name}() takes 2 arguments ({n} given)"));
        return None;
    }
    // SAFETY: `args` holds two references.
    unsafe { Some((*args, *args.add(1))) }
}

/// A METH_O method of Int: the number before and the argument give the number after; gives what `$gives` makes of both.
macro_rules! int_method {
    ($f:ident, $after:expr, $gives:expr) => {
        unsafe extern "C-unwind" fn $f(slf: Object, argument: Object) -> Object {
            // SAFETY: METH_O with the GIL; reading the argument may run Python code, what follows does not.
            unsafe {
                let Some(operand) = integer(argument) else { return ptr::null_mut() };
                let before = *number(slf);
                let after: i64 = $after(before, operand);
                let given = ffi::PyLong_FromLongLong($gives(before, after));
                if !given.is_null() {
                    *number(slf) = after; // where memory is refused nothing is changed
                }
                given
            }
        }
    };
}

int_method!(int_add, i64::wrapping_add, |_, after| after);
int_method!(int_swap, |_, operand| operand, |before, _| before);
int_method!(int_and, |before: i64, operand: i64| before & operand, |before, _| before);
int_method!(int_or, |before: i64, operand: i64| before | operand, |before, _| before);

unsafe extern "C-unwind" fn int_load(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { ffi::PyLong_FromLongLong(*number(slf)) }
}

unsafe extern "C-unwind" fn int_store(slf: Object, value: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Some(value) = integer(value) else { return ptr::null_mut() };
        *number(slf) = value;
        none()
    }
}

/// Sets `new` if the number is `old`.
unsafe fn exchange(slf: Object, old: Option<i64>, new: Option<i64>) -> Object {
    let (Some(old), Some(new)) = (old, new) else { return ptr::null_mut() };
    // SAFETY: GIL held.
    let place = unsafe { number(slf) };
    let is_old = *place == old;
    if is_old {
        *place = new;
    }
    boolean(is_old)
}

unsafe extern "C-unwind" fn int_exchange(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        let Some((old, new)) = pair("compare_and_swap", args, n) else { return ptr::null_mut() };
        let Some(old) = integer(old) else { return ptr::null_mut() };
        exchange(slf, Some(old), integer(new))
    }
}

unsafe extern "C-unwind" fn bool_load(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    boolean(unsafe { *number(slf) } != 0)
}

unsafe extern "C-unwind" fn bool_store(slf: Object, value: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Some(value) = truth(value) else { return ptr::null_mut() };
        *number(slf) = value;
        none()
    }
}

unsafe extern "C-unwind" fn bool_swap(slf: Object, value: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Some(value) = truth(value) else { return ptr::null_mut() };
        boolean(std::mem::replace(number(slf), value) != 0)
    }
}

unsafe extern "C-unwind" fn bool_exchange(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        let Some((old, new)) = pair("compare_and_swap", args, n) else { return ptr::null_mut() };
        let Some(old) = truth(old) else { return ptr::null_mut() };
        exchange(slf, Some(old), truth(new))
    }
}

/// Whether a Value that has `before` may get `new`; else TypeError with Go's words.
unsafe fn may_hold(what: &str, before: Object, new: Object) -> bool {
    // SAFETY: GIL held; `before` is null or alive, `new` alive.
    unsafe {
        if new == ffi::Py_None() {
            error::set(ffi::PyExc_TypeError, format_args!("sync/atomic: {what} of nil value into Value"));
            return false;
        }
        if !before.is_null() && ffi::Py_TYPE(before) != ffi::Py_TYPE(new) {
            error::set(
                ffi::PyExc_TypeError,
                format_args!("sync/atomic: {what} of inconsistently typed value into Value"),
            );
            return false;
        }
        true
    }
}

/// Puts `new` in, with a count of its own. Gives what was there, the caller's, or null.
unsafe fn put(slf: Object, new: Object) -> Object {
    // SAFETY: GIL held, `new` alive.
    unsafe {
        ffi::Py_INCREF(new);
        held(slf).replace(new)
    }
}

unsafe extern "C-unwind" fn value_load(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe {
        let value = *held(slf);
        ffi::Py_XINCREF(value);
        if value.is_null() { none() } else { value }
    }
}

unsafe extern "C-unwind" fn value_store(slf: Object, new: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        if !may_hold("store", *held(slf), new) {
            return ptr::null_mut();
        }
        let before = put(slf, new);
        if !before.is_null() {
            let_go(before);
        }
        none()
    }
}

unsafe extern "C-unwind" fn value_swap(slf: Object, new: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        if !may_hold("swap", *held(slf), new) {
            return ptr::null_mut();
        }
        let before = put(slf, new);
        if before.is_null() { none() } else { before }
    }
}

unsafe extern "C-unwind" fn value_exchange(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL; the value is counted while it is compared, which may run Python code.
    unsafe {
        let Some((old, new)) = pair("compare_and_swap", args, n) else { return ptr::null_mut() };
        let what = "compare and swap";
        if !may_hold(what, ptr::null_mut(), new) {
            return ptr::null_mut();
        }
        let wants_none = old == ffi::Py_None();
        if !wants_none && ffi::Py_TYPE(old) != ffi::Py_TYPE(new) {
            return error::set(ffi::PyExc_TypeError, "sync/atomic: compare and swap of inconsistently typed values");
        }
        loop {
            let value = *held(slf);
            if value.is_null() && wants_none {
                put(slf, new);
                return boolean(true);
            }
            if value.is_null() {
                return boolean(false);
            }
            if !may_hold(what, value, new) || (!wants_none && !is_comparable(old)) {
                return ptr::null_mut();
            }
            ffi::Py_INCREF(value);
            let same = if wants_none { 0 } else { are_equal(value, old) };
            let is_still = *held(slf) == value;
            if same > 0 && is_still {
                let_go(put(slf, new));
            }
            let_go(value);
            match same {
                ..0 => return ptr::null_mut(),
                0 => return boolean(false),
                _ if is_still => return boolean(true),
                _ => {} // it is another by now
            }
        }
    }
}

unsafe extern "C" fn value_traverse(slf: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector on a live object.
    unsafe {
        let result = visit(ffi::Py_TYPE(slf).cast(), arg);
        let value = *held(slf);
        if result == 0 && !value.is_null() { visit(value, arg) } else { result }
    }
}

unsafe extern "C" fn value_clear(slf: Object) -> c_int {
    // SAFETY: called by the collector or dealloc.
    unsafe {
        let value = held(slf).replace(ptr::null_mut());
        if !value.is_null() {
            let_go(value);
        }
    }
    0
}

/// Moves what a Value holds to `pending`, if the object is one: see `chan::let_go`.
pub(super) unsafe fn take_apart(object: Object, pending: &mut Vec<Object>) {
    // SAFETY: GIL held, `object` alive, and nobody else's.
    unsafe {
        if ffi::Py_TYPE(object) != VALUE_TYPE.load(Ordering::Relaxed) {
            return; // the GIL orders it
        }
        let value = held(object).replace(ptr::null_mut());
        if !value.is_null() {
            // Without memory by recursion, after all.
            if pending.try_reserve(1).is_ok() { pending.push(value) } else { ffi::Py_DECREF(value) }
        }
    }
}

unsafe extern "C" fn value_dealloc(slf: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        super::end_weak_references(slf, (*slf.cast::<ValueObject>()).weak_list);
        value_clear(slf);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

unsafe extern "C" fn number_dealloc(slf: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        super::end_weak_references(slf, (*slf.cast::<Number>()).weak_list);
        ffi::PyObject_Free(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

/// The argument of a constructor, if one is given. `None`: TypeError is set.
unsafe fn initial(args: Object, kwargs: Object, format: &CStr) -> Option<Object> {
    let (mut value, mut names) = (ptr::null_mut::<ffi::PyObject>(), [c"".as_ptr().cast_mut(), ptr::null_mut()]);
    // SAFETY: tp_new with the GIL.
    let ok = unsafe {
        ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format.as_ptr(), names.as_mut_ptr().cast(), &raw mut value)
    };
    (ok != 0).then_some(value)
}

unsafe fn new_number(tp: *mut ffi::PyTypeObject, value: Option<i64>) -> Object {
    let Some(value) = value else { return ptr::null_mut() };
    // SAFETY: tp_new with the GIL.
    unsafe {
        let object = ffi::PyType_GenericAlloc(tp, 0);
        if !object.is_null() {
            *number(object) = value;
        }
        object
    }
}

unsafe extern "C" fn int_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let Some(value) = initial(args, kwargs, c"|O:Int") else { return ptr::null_mut() };
        new_number(tp, if value.is_null() { Some(0) } else { integer(value) })
    }
}

unsafe extern "C" fn bool_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let Some(value) = initial(args, kwargs, c"|O:Bool") else { return ptr::null_mut() };
        new_number(tp, if value.is_null() { Some(0) } else { truth(value) })
    }
}

unsafe extern "C" fn value_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL; the object is made with a null for its value.
    unsafe {
        if ffi::PyTuple_GET_SIZE(args) != 0 || (!kwargs.is_null() && ffi::PyDict_Size(kwargs) != 0) {
            return error::set(ffi::PyExc_TypeError, "gort.atomic.Value() takes no arguments");
        }
        ffi::PyType_GenericAlloc(tp, 0)
    }
}

unsafe extern "C" fn int_repr(slf: Object) -> Object {
    // SAFETY: GIL held.
    error::text(format_args!("gort.atomic.Int({})", unsafe { *number(slf) }))
}

unsafe extern "C" fn bool_repr(slf: Object) -> Object {
    // SAFETY: GIL held.
    error::text(format_args!("gort.atomic.Bool({})", if unsafe { *number(slf) } != 0 { "True" } else { "False" }))
}

const INT_DOC: &CStr = c"Int(value=0, /)\n--\n
Go's atomic.Int64: an integer of 64 bits that goroutines and threads change in single steps.

Sums wrap around at 2**63, as in Go. and_() and or_() give the number before, add() the one after.

Args:
    value: int from -2**63 to 2**63 - 1, as all arguments.

Raises:
    TypeError: an argument is no integer.
    OverflowError: it does not fit.

Example:
    >>> import gort
    >>> hits = gort.atomic.Int()
    >>> hits.add(2), hits.or_(5), hits.load()
    (2, 2, 7)
    >>> hits.compare_and_swap(7, 2**63 - 1), hits.add(1) == -2**63
    (True, True)
";

const BOOL_DOC: &CStr = c"Bool(value=False, /)\n--\n
Go's atomic.Bool: a flag that goroutines and threads change in single steps.

Args:
    value: bool, as all arguments; anything else raises TypeError.

Example:
    >>> import gort
    >>> started = gort.atomic.Bool()
    >>> started.swap(True), started.swap(True)
    (False, True)
";

const VALUE_DOC: &CStr = c"Value()\n--\n
Go's atomic.Value: an object that goroutines and threads replace in single steps.

load() gives None before the first store. All that is stored is of the type of the first, and not
None: else TypeError with Go's words. compare_and_swap(old, new) compares as Map does: of one type,
and equal; old=None means that nothing is stored yet.

Example:
    >>> import gort
    >>> config = gort.atomic.Value()
    >>> config.store((1, 2))
    >>> config.compare_and_swap((1, 2), (3,)), config.load()
    (True, (3,))
    >>> config.store('text')
    Traceback (most recent call last):
    TypeError: sync/atomic: store of inconsistently typed value into Value
";

fn int_methods() -> Vec<ffi::PyMethodDef> {
    let cas = c"compare_and_swap($self, old, new, /)\n--\n\nSets new if the number is old; whether it did.";
    vec![
        plain(c"load", int_load, ffi::METH_NOARGS, c"load($self, /)\n--\n\nThe number."),
        plain(c"store", int_store, ffi::METH_O, c"store($self, value, /)\n--\n\nSets the number."),
        plain(c"add", int_add, ffi::METH_O, c"add($self, delta, /)\n--\n\nAdds, wrapping; the number after."),
        plain(c"swap", int_swap, ffi::METH_O, c"swap($self, new, /)\n--\n\nSets the number; the one before."),
        plain(c"and_", int_and, ffi::METH_O, c"and_($self, mask, /)\n--\n\nBitwise and; the number before."),
        plain(c"or_", int_or, ffi::METH_O, c"or_($self, mask, /)\n--\n\nBitwise or; the number before."),
        positional(c"compare_and_swap", int_exchange, cas),
    ]
}

fn bool_methods() -> Vec<ffi::PyMethodDef> {
    let cas = c"compare_and_swap($self, old, new, /)\n--\n\nSets new if the flag is old; whether it did.";
    vec![
        plain(c"load", bool_load, ffi::METH_NOARGS, c"load($self, /)\n--\n\nThe flag."),
        plain(c"store", bool_store, ffi::METH_O, c"store($self, value, /)\n--\n\nSets the flag."),
        plain(c"swap", bool_swap, ffi::METH_O, c"swap($self, new, /)\n--\n\nSets the flag; the one before."),
        positional(c"compare_and_swap", bool_exchange, cas),
    ]
}

fn value_methods() -> Vec<ffi::PyMethodDef> {
    let cas = c"compare_and_swap($self, old, new, /)\n--\n\nStores new if the object is old; whether it did.";
    vec![
        plain(c"load", value_load, ffi::METH_NOARGS, c"load($self, /)\n--\n\nThe object, or None if none was stored."),
        plain(c"store", value_store, ffi::METH_O, c"store($self, value, /)\n--\n\nStores an object."),
        plain(
            c"swap",
            value_swap,
            ffi::METH_O,
            c"swap($self, new, /)\n--\n\nStores an object; the one before, or None.",
        ),
        positional(c"compare_and_swap", value_exchange, cas),
        ffi::PyMethodDef {
            ml_name: c"__class_getitem__".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: ffi::Py_GenericAlias },
            ml_flags: ffi::METH_O | ffi::METH_CLASS,
            ml_doc: c"Value[T]".as_ptr(),
        },
    ]
}

/// Adds the types.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let number = |new: ffi::newfunc, repr: ffi::reprfunc, doc: &'static CStr, table| {
        vec![
            super::weak_list(std::mem::offset_of!(Number, weak_list)),
            slot(ffi::Py_tp_new, new as *mut _),
            slot(ffi::Py_tp_repr, repr as *mut _),
            slot(ffi::Py_tp_dealloc, number_dealloc as *mut _),
            slot(ffi::Py_tp_methods, methods(table).cast()),
            slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
        ]
    };
    let value = vec![
        super::weak_list(std::mem::offset_of!(ValueObject, weak_list)),
        slot(ffi::Py_tp_new, value_new as *mut _),
        slot(ffi::Py_tp_dealloc, value_dealloc as *mut _),
        slot(ffi::Py_tp_traverse, value_traverse as *mut _),
        slot(ffi::Py_tp_clear, value_clear as *mut _),
        slot(ffi::Py_tp_methods, methods(value_methods()).cast()),
        slot(ffi::Py_tp_doc, VALUE_DOC.as_ptr().cast_mut().cast()),
    ];
    let int = number(int_new, int_repr, INT_DOC, int_methods());
    let flag = number(bool_new, bool_repr, BOOL_DOC, bool_methods());
    let size = size_of::<Number>();
    // SAFETY: GIL held by the module's init.
    unsafe {
        let size_of_value = size_of::<ValueObject>();
        let tp = super::add_type(module, c"gort.atomic.Value", size_of_value, ffi::Py_TPFLAGS_HAVE_GC, value);
        VALUE_TYPE.store(tp, Ordering::Release); // read under the GIL, which orders it
        !tp.is_null()
            && !super::add_type(module, c"gort.atomic.Int", size, 0, int).is_null()
            && !super::add_type(module, c"gort.atomic.Bool", size, 0, flag).is_null()
    }
}
