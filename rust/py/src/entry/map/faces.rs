//! What a Map has of a dict: `m[k]`, `in`, len, iteration, get, pop, setdefault, update, keys, values, items.

use super::iter::{self, What};
use super::table::Object;
use super::{add, is_map, look_up, set, table_of, take, takes, value_of};
use crate::entry::chan::{let_go, tuple};
use crate::entry::{none, plain, positional};
use crate::error;
use pyo3::ffi;
use std::ffi::c_int;
use std::ptr;

/// Sets `KeyError(key)`, of a tuple as well.
#[cold]
unsafe fn no_such(key: Object) -> Object {
    // SAFETY: GIL held, `key` alive.
    unsafe {
        ffi::Py_INCREF(key);
        let arguments = tuple([key]);
        if !arguments.is_null() {
            ffi::PyErr_SetObject(ffi::PyExc_KeyError, arguments);
            ffi::Py_DECREF(arguments);
        }
        ptr::null_mut()
    }
}

unsafe extern "C-unwind" fn get_item(slf: Object, key: Object) -> Object {
    // SAFETY: mp_subscript with the GIL.
    unsafe {
        match value_of(slf, key) {
            Ok(value) if value.is_null() => no_such(key),
            Ok(value) => value,
            Err(()) => ptr::null_mut(),
        }
    }
}

/// `m[key] = value`; a null value: `del m[key]`.
unsafe extern "C-unwind" fn set_item(slf: Object, key: Object, value: Object) -> c_int {
    // SAFETY: mp_ass_subscript with the GIL.
    unsafe {
        let before = if value.is_null() { take(slf, key) } else { set(slf, key, value) };
        let Ok(before) = before else { return -1 };
        if !before.is_null() {
            let_go(before);
        } else if value.is_null() {
            no_such(key);
            return -1;
        }
        0
    }
}

unsafe extern "C-unwind" fn contains(slf: Object, key: Object) -> c_int {
    // SAFETY: sq_contains with the GIL.
    match unsafe { look_up(slf, key) } {
        Ok((_, place)) => c_int::from(place.is_some()),
        Err(()) => -1,
    }
}

unsafe extern "C" fn length(slf: Object) -> ffi::Py_ssize_t {
    // SAFETY: GIL held.
    unsafe { (*table_of(slf)).len() as ffi::Py_ssize_t }
}

unsafe extern "C" fn repr(slf: Object) -> Object {
    // SAFETY: GIL held.
    error::text(format_args!("<gort.Map of {}>", unsafe { (*table_of(slf)).len() }))
}

unsafe extern "C" fn iterate(slf: Object) -> Object {
    // SAFETY: GIL held.
    unsafe { iter::new(slf, What::Keys) }
}

unsafe extern "C-unwind" fn keys(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { iter::new(slf, What::Keys) }
}

unsafe extern "C-unwind" fn values(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { iter::new(slf, What::Values) }
}

unsafe extern "C-unwind" fn items(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { iter::new(slf, What::Items) }
}

/// The second argument, a new reference; null if there is none.
unsafe fn second(args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: `args` holds `n` references.
    unsafe {
        let given = if n > 1 { *args.add(1) } else { ptr::null_mut() };
        ffi::Py_XINCREF(given);
        given
    }
}

unsafe extern "C-unwind" fn get(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if !takes("get", n, 1, 2) {
            return ptr::null_mut();
        }
        let Ok(value) = value_of(slf, *args) else { return ptr::null_mut() };
        if !value.is_null() {
            return value;
        }
        let default = second(args, n);
        if default.is_null() { none() } else { default }
    }
}

unsafe extern "C-unwind" fn pop(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if !takes("pop", n, 1, 2) {
            return ptr::null_mut();
        }
        let Ok(value) = take(slf, *args) else { return ptr::null_mut() };
        if !value.is_null() {
            return value;
        }
        let default = second(args, n);
        if default.is_null() { no_such(*args) } else { default }
    }
}

unsafe extern "C-unwind" fn setdefault(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL; nothing runs between the search and what follows.
    unsafe {
        if !takes("setdefault", n, 1, 2) {
            return ptr::null_mut();
        }
        let value = if n > 1 { *args.add(1) } else { ffi::Py_None() };
        let Ok((hash, place)) = look_up(slf, *args) else { return ptr::null_mut() };
        if place.is_none() && !add(slf, hash, *args, value) {
            return ptr::null_mut();
        }
        let actual = place.map_or(value, |place| (*table_of(slf)).value_at(place));
        ffi::Py_INCREF(actual);
        actual
    }
}

/// Whether an object is a mapping, as dict.update() sees it. `Err`: an exception is set.
unsafe fn has_keys(items: Object) -> Result<bool, ()> {
    // SAFETY: GIL held, `items` alive.
    unsafe {
        if ffi::PyDict_Check(items) != 0 {
            return Ok(true);
        }
        let keys = ffi::PyObject_GetAttrString(items, c"keys".as_ptr());
        if keys.is_null() && ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return Err(());
        }
        ffi::PyErr_Clear();
        ffi::Py_XDECREF(keys);
        Ok(!keys.is_null())
    }
}

/// A dict of what `items` gives, a Map, a mapping or pairs; null with an exception set on failure.
unsafe fn dict_of(items: Object) -> Object {
    // SAFETY: GIL held, `items` alive.
    unsafe {
        let dict = ffi::PyDict_New();
        if dict.is_null() {
            return dict;
        }
        let done = if is_map(items) {
            let pairs = iter::new(items, What::Items); // not by keys: one may be gone by the time it is asked for
            let done = if pairs.is_null() { -1 } else { ffi::PyDict_MergeFromSeq2(dict, pairs, 1) };
            ffi::Py_XDECREF(pairs);
            done
        } else {
            match has_keys(items) {
                Ok(true) => ffi::PyDict_Update(dict, items),
                Ok(false) => ffi::PyDict_MergeFromSeq2(dict, items, 1),
                Err(()) => -1,
            }
        };
        if done < 0 {
            ffi::Py_DECREF(dict);
            return ptr::null_mut();
        }
        dict
    }
}

/// Stores what `items` gives, one after another. `false`: an exception is set.
pub(super) unsafe fn take_over(map: Object, items: Object) -> bool {
    // SAFETY: GIL held, both alive. The dict is nobody else's, so that it keeps the keys and values alive and stands still.
    unsafe {
        let dict = dict_of(items);
        if dict.is_null() {
            return false;
        }
        let (mut at, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        let mut ok = true;
        while ok && ffi::PyDict_Next(dict, &raw mut at, &raw mut key, &raw mut value) != 0 {
            match set(map, key, value) {
                Ok(before) if before.is_null() => {}
                Ok(before) => let_go(before),
                Err(()) => ok = false,
            }
        }
        ffi::Py_DECREF(dict);
        ok
    }
}

unsafe extern "C-unwind" fn update(slf: Object, items: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    if unsafe { take_over(slf, items) } { none() } else { ptr::null_mut() }
}

unsafe extern "C-unwind" fn size_of_map(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { ffi::PyLong_FromSize_t(size_of::<super::MapObject>() + (*table_of(slf)).bytes()) }
}

pub(super) fn method_table() -> Vec<ffi::PyMethodDef> {
    let get_doc = c"get($self, key, default=None, /)\n--\n\nThe value of a key, or the default.";
    let pop_doc = c"pop(key[, default])\n\nDeletes a key and gives its value, else the default, else KeyError.";
    let default_doc =
        c"setdefault($self, key, default=None, /)\n--\n\nThe value of a key, which is set to the default first.";
    let update_doc = c"update($self, items, /)\n--\n\nStores what a mapping or pairs give, one after another.";
    let keys_doc = c"keys($self, /)\n--\n\nAn iterator over the keys.";
    let values_doc = c"values($self, /)\n--\n\nAn iterator over the values.";
    let items_doc = c"items($self, /)\n--\n\nAn iterator over pairs of key and value.";
    vec![
        positional(c"get", get, get_doc),
        positional(c"pop", pop, pop_doc),
        positional(c"setdefault", setdefault, default_doc),
        plain(c"update", update, ffi::METH_O, update_doc),
        plain(c"keys", keys, ffi::METH_NOARGS, keys_doc),
        plain(c"values", values, ffi::METH_NOARGS, values_doc),
        plain(c"items", items, ffi::METH_NOARGS, items_doc),
        plain(c"__sizeof__", size_of_map, ffi::METH_NOARGS, c"Bytes of the map itself."),
    ]
}

pub(super) fn slots() -> Vec<ffi::PyType_Slot> {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    vec![
        slot(ffi::Py_mp_subscript, get_item as *mut _),
        slot(ffi::Py_mp_ass_subscript, set_item as *mut _),
        slot(ffi::Py_mp_length, length as *mut _),
        slot(ffi::Py_sq_contains, contains as *mut _),
        slot(ffi::Py_tp_iter, iterate as *mut _),
        slot(ffi::Py_tp_repr, repr as *mut _),
    ]
}
