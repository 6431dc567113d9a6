//! The Map type: Go's sync.Map, and the ways of a dict.
//!
//! The GIL protects it. Keys' `__hash__` and `__eq__` may be Python code that parks or uses the map; `table` says what makes
//! each operation one step nevertheless. The counts that go with what an operation takes out are let go of last. Tuples
//! to answer with are made before anything changes, and hidden from the collector while Python code may run.

mod faces;
mod iter;
mod table;

use super::chan::{fill, let_go, tuple};
use super::{boolean, methods, none, plain, positional};
use crate::error;
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use table::{Object, Table, find};

static MAP_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

#[repr(C)]
struct MapObject {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    table: Table,
}

/// The table of a Map.
unsafe fn table_of(map: Object) -> *mut Table {
    // SAFETY: `map` is a Map that the caller keeps alive.
    unsafe { &raw mut (*map.cast::<MapObject>()).table }
}

/// Whether an object is a Map.
unsafe fn is_map(object: Object) -> bool {
    // SAFETY: GIL held, `object` alive.
    unsafe { ffi::Py_TYPE(object) == MAP_TYPE.load(Ordering::Relaxed) } // the GIL orders it
}

/// The hash of a key, and its place. `Err`: an exception is set.
unsafe fn look_up(map: Object, key: Object) -> Result<(ffi::Py_hash_t, Option<usize>), ()> {
    // SAFETY: GIL held, both alive.
    unsafe {
        let hash = ffi::PyObject_Hash(key);
        if hash == -1 {
            return Err(()); // TypeError: unhashable type
        }
        Ok((hash, find(table_of(map), key, hash)?))
    }
}

/// The value of a key, a new reference; null where there is none.
unsafe fn value_of(map: Object, key: Object) -> Result<Object, ()> {
    // SAFETY: GIL held, both alive; nothing runs between the search and the count.
    unsafe {
        let (_, place) = look_up(map, key)?;
        let value = place.map_or(ptr::null_mut(), |place| (*table_of(map)).value_at(place));
        ffi::Py_XINCREF(value);
        Ok(value)
    }
}

/// Adds what a search has just not found. `false`: MemoryError is set, and nothing changed.
unsafe fn add(map: Object, hash: ffi::Py_hash_t, key: Object, value: Object) -> bool {
    // SAFETY: GIL held, all alive; the counts go into the table if that takes them.
    unsafe {
        if (*table_of(map)).insert(hash, key, value).is_err() {
            ffi::PyErr_NoMemory();
            return false;
        }
        ffi::Py_INCREF(key);
        ffi::Py_INCREF(value);
        true
    }
}

/// Sets a value. Gives the one before, the caller's, or null; `Err`: an exception is set, and nothing changed.
unsafe fn set(map: Object, key: Object, value: Object) -> Result<Object, ()> {
    // SAFETY: GIL held, all alive.
    unsafe {
        match look_up(map, key)? {
            (_, Some(place)) => {
                ffi::Py_INCREF(value);
                Ok((*table_of(map)).replace(place, value))
            }
            (hash, None) => {
                if add(map, hash, key, value) {
                    Ok(ptr::null_mut())
                } else {
                    Err(())
                }
            }
        }
    }
}

/// Takes a key out. Gives its value, the caller's, or null.
unsafe fn take(map: Object, key: Object) -> Result<Object, ()> {
    // SAFETY: GIL held, both alive; the key in the table may be another than the caller's.
    unsafe {
        let (_, Some(place)) = look_up(map, key)? else { return Ok(ptr::null_mut()) };
        let (theirs, value) = (*table_of(map)).remove(place);
        let_go(theirs);
        Ok(value)
    }
}

/// Runs `f` with a new pair to answer with, which nobody else can find meanwhile; `f` gives what goes into it.
unsafe fn answer(f: impl FnOnce() -> Result<(Object, bool), ()>) -> Object {
    // SAFETY: GIL held by every caller; the references are this function's.
    unsafe {
        let pair = ffi::PyTuple_New(2);
        if pair.is_null() {
            return pair;
        }
        ffi::PyObject_GC_UnTrack(pair.cast());
        let Ok((value, truth)) = f() else {
            ffi::Py_DECREF(pair);
            return ptr::null_mut();
        };
        let value = if value.is_null() { none() } else { value };
        ffi::PyObject_GC_Track(pair.cast());
        fill(pair, [value, boolean(truth)])
    }
}

/// TypeError unless there are so many arguments.
fn takes(name: &str, given: ffi::Py_ssize_t, least: ffi::Py_ssize_t, most: ffi::Py_ssize_t) -> bool {
    if (least..=most).contains(&given) {
        return true;
    }
    // SAFETY: GIL held by every caller.
    let class = unsafe { ffi::PyExc_TypeError };
    if least == most {
        error::set(class, format_args!("{name}() takes {most} arguments ({given} given)"));
    } else {
        error::set(class, format_args!("{name}() takes {least} or {most} arguments ({given} given)"));
    }
    false
}

unsafe extern "C-unwind" fn load(slf: Object, key: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Ok(value) = value_of(slf, key) else { return ptr::null_mut() };
        if value.is_null() { tuple([none(), boolean(false)]) } else { tuple([value, boolean(true)]) }
    }
}

unsafe extern "C-unwind" fn store(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if !takes("store", n, 2, 2) {
            return ptr::null_mut();
        }
        let Ok(before) = set(slf, *args, *args.add(1)) else { return ptr::null_mut() };
        if !before.is_null() {
            let_go(before);
        }
        none()
    }
}

unsafe extern "C-unwind" fn load_or_store(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL; nothing runs between the search and what follows.
    unsafe {
        if !takes("load_or_store", n, 2, 2) {
            return ptr::null_mut();
        }
        let (key, value) = (*args, *args.add(1));
        answer(|| {
            let (hash, place) = look_up(slf, key)?;
            if place.is_none() && !add(slf, hash, key, value) {
                return Err(());
            }
            let actual = place.map_or(value, |place| (*table_of(slf)).value_at(place));
            ffi::Py_INCREF(actual);
            Ok((actual, place.is_some()))
        })
    }
}

unsafe extern "C-unwind" fn load_and_delete(slf: Object, key: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { answer(|| take(slf, key).map(|value| (value, !value.is_null()))) }
}

unsafe extern "C-unwind" fn delete(slf: Object, key: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Ok(value) = take(slf, key) else { return ptr::null_mut() };
        if !value.is_null() {
            let_go(value);
        }
        none()
    }
}

unsafe extern "C-unwind" fn swap(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if !takes("swap", n, 2, 2) {
            return ptr::null_mut();
        }
        answer(|| set(slf, *args, *args.add(1)).map(|before| (before, !before.is_null())))
    }
}

/// Whether a value can be compared as Go compares interfaces; else TypeError with Go's words. Go's uncomparable types are
/// those that cannot be keys, and so are Python's.
pub(super) unsafe fn is_comparable(value: Object) -> bool {
    // SAFETY: GIL held, `value` alive.
    unsafe {
        let hash = (*ffi::Py_TYPE(value)).tp_hash.map(|f| f as usize);
        if hash.is_some_and(|f| f != ffi::PyObject_HashNotImplemented as *const () as usize) {
            return true;
        }
        wrong_type(c"comparing uncomparable type %.200s", value);
        false
    }
}

/// TypeError: `text` with the name of the value's type.
unsafe fn wrong_type(text: &CStr, value: Object) -> Object {
    // SAFETY: GIL held, `value` alive.
    unsafe {
        ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), (*ffi::Py_TYPE(value)).tp_name);
        ptr::null_mut()
    }
}

/// Whether two values are equal as Go's interfaces are: of one type, and equal; a thing is equal to itself. Below 0: an
/// exception is set. May run Python code.
pub(super) unsafe fn are_equal(a: Object, b: Object) -> c_int {
    // SAFETY: GIL held, both alive to the end of the call.
    unsafe {
        if a == b {
            1
        } else if ffi::Py_TYPE(a) != ffi::Py_TYPE(b) {
            0
        } else {
            ffi::PyObject_RichCompareBool(a, b, ffi::Py_EQ)
        }
    }
}

/// The place of a key whose value is `old`; where that is not so, none. Nothing runs between the last look and the return.
unsafe fn place_with(map: Object, key: Object, old: Object) -> Result<Option<usize>, ()> {
    // SAFETY: GIL held, all alive; `value` is counted while it is compared.
    unsafe {
        if !is_comparable(old) {
            return Err(());
        }
        loop {
            let (_, Some(place)) = look_up(map, key)? else { return Ok(None) };
            let (version, value) = ((*table_of(map)).version(), (*table_of(map)).value_at(place));
            if value == old {
                return Ok(Some(place));
            }
            ffi::Py_INCREF(value);
            let same = are_equal(value, old);
            // If it is, the map has a count of it, so that nothing runs when this one goes.
            let is_still = (*table_of(map)).version() == version && (*table_of(map)).value_at(place) == value;
            let_go(value);
            match same {
                ..0 => return Err(()),
                0 => return Ok(None),
                _ if is_still => return Ok(Some(place)),
                _ => {} // it is another by now
            }
        }
    }
}

unsafe extern "C-unwind" fn compare_and_swap(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if !takes("compare_and_swap", n, 3, 3) {
            return ptr::null_mut();
        }
        let (key, old, new) = (*args, *args.add(1), *args.add(2));
        let Ok(place) = place_with(slf, key, old) else { return ptr::null_mut() };
        if let Some(place) = place {
            ffi::Py_INCREF(new);
            let_go((*table_of(slf)).replace(place, new));
        }
        boolean(place.is_some())
    }
}

unsafe extern "C-unwind" fn compare_and_delete(slf: Object, args: *const Object, n: ffi::Py_ssize_t) -> Object {
    // SAFETY: METH_FASTCALL with the GIL.
    unsafe {
        if !takes("compare_and_delete", n, 2, 2) {
            return ptr::null_mut();
        }
        let Ok(place) = place_with(slf, *args, *args.add(1)) else { return ptr::null_mut() };
        if let Some(place) = place {
            let (key, value) = (*table_of(slf)).remove(place);
            let_go(key);
            let_go(value);
        }
        boolean(place.is_some())
    }
}

unsafe extern "C-unwind" fn clear(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { empty(slf) };
    none()
}

unsafe extern "C" fn empty(slf: Object) -> c_int {
    // SAFETY: GIL held; the entries are out of the map before they are let go.
    unsafe {
        for (key, value) in (*table_of(slf)).take() {
            let_go(key);
            let_go(value);
        }
    }
    0
}

/// Moves what a Map holds to `pending`, if the object is one: see `chan::let_go`.
pub(super) unsafe fn take_apart(object: Object, pending: &mut Vec<Object>) {
    // SAFETY: GIL held, `object` alive, and nobody else's.
    unsafe {
        if !is_map(object) {
            return;
        }
        let has_room = pending.try_reserve(2 * (*table_of(object)).len()).is_ok();
        for reference in (*table_of(object)).take().flat_map(|(key, value)| [key, value]) {
            // Without memory by recursion, after all.
            if has_room { pending.push(reference) } else { ffi::Py_DECREF(reference) }
        }
    }
}

unsafe extern "C" fn map_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let (mut items, mut names) = (ptr::null_mut::<ffi::PyObject>(), [c"".as_ptr().cast_mut(), ptr::null_mut()]);
        let format = c"|O:Map".as_ptr();
        if ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format, names.as_mut_ptr().cast(), &raw mut items) == 0 {
            return ptr::null_mut();
        }
        let map = ffi::PyType_GenericAlloc(tp, 0);
        if !map.is_null() {
            table_of(map).write(Table::new());
            if !items.is_null() && !faces::take_over(map, items) {
                ffi::Py_DECREF(map);
                return ptr::null_mut();
            }
        }
        map
    }
}

unsafe extern "C" fn traverse(slf: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: called by the collector on a live object, whose table is whole whenever Python code runs.
    unsafe {
        let mut result = visit(ffi::Py_TYPE(slf).cast(), arg);
        (*table_of(slf)).for_each(|object| {
            if result == 0 {
                result = visit(object, arg);
            }
        });
        result
    }
}

unsafe extern "C" fn dealloc(slf: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        super::end_weak_references(slf, (*slf.cast::<MapObject>()).weak_list);
        empty(slf);
        ptr::drop_in_place(table_of(slf));
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

const DOC: &CStr = c"Map(items=(), /)\n--\n
Go's sync.Map, with the ways of a dict: for goroutines and threads at once.

Every operation is one step to all others, also where keys have a __hash__ or __eq__ in Python that
parks, raises, or uses the map: the search then begins again if the map changed. Walks (range(),
iterators) are no snapshot: they visit what is there from their beginning to their end, a key at
most once, and what is stored meanwhile or deleted maybe. Nothing parks but such code of keys' own.

compare_and_swap() and compare_and_delete() compare as Go compares interfaces: of one type, and
equal (1 is neither True nor 1.0); an object is always equal to itself. An `old` that cannot be a
key, like a list, raises TypeError \"comparing uncomparable type list\".

Args:
    items: a mapping or an iterable of pairs to begin with.

Raises:
    TypeError: a key is not hashable, or items are no pairs.
    KeyError: m[key], del m[key] and pop(key) of what is not there.
    MemoryError: there is none for another key; nothing is changed then.

Example:
    >>> import gort
    >>> m = gort.Map()
    >>> m.load_or_store('a', 1), m.load_or_store('a', 2)
    ((1, False), (1, True))
    >>> m.compare_and_swap('a', 1, 3), m.load('a'), m.load('b')
    (True, (3, True), (None, False))
    >>> m['b'] = 4
    >>> sorted(m.items()), len(m), 'b' in m, m.get('c', 0)
    ([('a', 3), ('b', 4)], 2, True, 0)
";

fn method_table() -> Vec<ffi::PyMethodDef> {
    let load_doc = c"load($self, key, /)\n--\n\n(value, True), or (None, False) if there is none.";
    let store_doc = c"store($self, key, value, /)\n--\n\nSets the value of a key.";
    let load_or_store_doc = c"load_or_store($self, key, value, /)\n--\n
(value, True) if there is one; else stores the one given: (value, False).";
    let load_and_delete_doc = c"load_and_delete($self, key, /)\n--\n\nDeletes a key: (value, True), or (None, False).";
    let swap_doc = c"swap($self, key, value, /)\n--\n\nSets a value: (the one before, True), or (None, False).";
    let cas_doc = c"compare_and_swap($self, key, old, new, /)\n--\n\nSets new if the value is old; whether it did.";
    let cad_doc = c"compare_and_delete($self, key, old, /)\n--\n\nDeletes the key if its value is old; whether it did.";
    let range_doc = c"range($self, fn, /)\n--\n\nCalls fn(key, value) for each key until it returns False.";
    vec![
        plain(c"load", load, ffi::METH_O, load_doc),
        positional(c"store", store, store_doc),
        positional(c"load_or_store", load_or_store, load_or_store_doc),
        plain(c"load_and_delete", load_and_delete, ffi::METH_O, load_and_delete_doc),
        plain(c"delete", delete, ffi::METH_O, c"delete($self, key, /)\n--\n\nDeletes a key if it is there."),
        positional(c"swap", swap, swap_doc),
        positional(c"compare_and_swap", compare_and_swap, cas_doc),
        positional(c"compare_and_delete", compare_and_delete, cad_doc),
        plain(c"range", iter::range, ffi::METH_O, range_doc),
        plain(c"clear", clear, ffi::METH_NOARGS, c"clear($self, /)\n--\n\nDeletes all keys."),
        ffi::PyMethodDef {
            ml_name: c"__class_getitem__".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: ffi::Py_GenericAlias },
            ml_flags: ffi::METH_O | ffi::METH_CLASS,
            ml_doc: c"Map[K, V]".as_ptr(),
        },
    ]
}

/// Adds the types.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut table = method_table();
    table.extend(faces::method_table());
    let mut slots = vec![
        super::weak_list(std::mem::offset_of!(MapObject, weak_list)),
        slot(ffi::Py_tp_new, map_new as *mut _),
        slot(ffi::Py_tp_dealloc, dealloc as *mut _),
        slot(ffi::Py_tp_traverse, traverse as *mut _),
        slot(ffi::Py_tp_clear, empty as *mut _),
        slot(ffi::Py_tp_methods, methods(table).cast()),
        slot(ffi::Py_tp_doc, DOC.as_ptr().cast_mut().cast()),
    ];
    slots.extend(faces::slots());
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = super::add_type(module, c"gort.Map", size_of::<MapObject>(), ffi::Py_TPFLAGS_HAVE_GC, slots);
        MAP_TYPE.store(tp, Ordering::Release); // read under the GIL, which orders it
        !tp.is_null() && iter::register(module)
    }
}
