//! Policies, priorities and groups: what `gort.policy` is made of. Nothing here parks.

use super::sync::{Holder, alloc, inner};
use super::{arguments, boolean, counts, fast, methods, none, plain, runtime};
use crate::error;
use crate::task::{GoObject, Place, runtime_or_null};
use gort_core::sched::policy::{Group, GroupRef, LEAST_PRIORITY, Policy};
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

static GROUP_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// By the numbers that `gort.policy` gives them.
const POLICIES: [(&str, Policy); 3] = [("fifo", Policy::Fifo), ("mlfq", Policy::Mlfq), ("fair", Policy::Fair)];

/// The policy that GORT_POLICY names, if it names one. `false`: an exception is set.
pub(super) fn read_first(policy: &mut Policy) -> bool {
    let read = |text: &str| {
        let Some(&(_, named)) = POLICIES.iter().find(|(name, _)| *name == text) else {
            // SAFETY: GIL held.
            error::set(
                unsafe { ffi::PyExc_ValueError },
                format_args!("GORT_POLICY={text}: one of fifo, mlfq, fair is expected"),
            );
            return false;
        };
        *policy = named;
        true
    };
    super::environment::variable(c"GORT_POLICY", read).unwrap_or(true)
}

/// A priority argument. `None`: an exception is set.
unsafe fn priority(value: Object) -> Option<i8> {
    // SAFETY: GIL held; a live object.
    unsafe {
        let n = ffi::PyNumber_AsSsize_t(value, ffi::PyExc_ValueError);
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return None;
        }
        let most = isize::from(-LEAST_PRIORITY);
        if !(-most..=most).contains(&n) {
            error::set(ffi::PyExc_ValueError, format_args!("priority must be from {} to {most}, not {n}", -most));
            return None;
        }
        Some(n as i8)
    }
}

/// The place that arguments of `spawn` ask for, each null or None or what it should be. `None`: an exception is set.
pub(super) unsafe fn place(wanted: Object, group: Object) -> Option<Place> {
    let is_given = |value: Object| {
        // SAFETY: None is alive.
        !value.is_null() && value != unsafe { ffi::Py_None() }
    };
    let mut place = Place::default();
    // SAFETY: GIL held; null or live objects.
    unsafe {
        if is_given(wanted) {
            place.priority = Some(priority(wanted)?);
        }
        if is_given(group) {
            if ffi::PyObject_TypeCheck(group, GROUP_TYPE.load(Ordering::Relaxed)) == 0 {
                error::set(ffi::PyExc_TypeError, "spawn(): group must be a gort.Group or None");
                return None;
            }
            place.group = group;
        }
    }
    Some(place)
}

/// `object`, if it is a group. `None`: TypeError is set.
///
/// # Safety
/// GIL held; a live object.
pub(super) unsafe fn checked_group(object: Object) -> Option<Object> {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyObject_TypeCheck(object, GROUP_TYPE.load(Ordering::Relaxed)) == 0 {
            error::set(ffi::PyExc_TypeError, "a gort.Group is needed");
            return None;
        }
    }
    Some(object)
}

/// # Safety
/// A live object of the Group type.
pub(crate) unsafe fn core_group(group: Object) -> *const Group {
    // SAFETY: the caller's promise.
    unsafe { inner::<GroupRef>(group) }.as_ptr()
}

unsafe extern "C-unwind" fn set_policy(_m: Object, value: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_O with the GIL.
    unsafe {
        let n = ffi::PyLong_AsSsize_t(value);
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let before = match POLICIES.get(n as usize) {
            Some(&(_, policy)) => rt.set_policy(policy),
            None => Some(rt.policy()),
        };
        let Some(before) = before else { return ffi::PyErr_NoMemory() };
        ffi::PyLong_FromLong(POLICIES.iter().position(|&(_, policy)| policy == before).unwrap_or(0) as _)
    }
}

unsafe extern "C-unwind" fn set_schedstats(_m: Object, value: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_O with the GIL.
    let truth = unsafe { ffi::PyObject_IsTrue(value) };
    if truth < 0 {
        return ptr::null_mut();
    }
    // SAFETY: as above.
    rt.set_measured(truth != 0).map_or_else(|| unsafe { ffi::PyErr_NoMemory() }, boolean)
}

pub(super) unsafe extern "C-unwind" fn set_priority(slf: Object, value: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_O with the GIL; the goroutine of an object is alive while it is set.
    unsafe {
        let Some(priority) = priority(value) else { return ptr::null_mut() };
        let g = (*slf.cast::<GoObject>()).goroutine();
        if !g.is_null() && !rt.set_priority(g, priority) {
            return ffi::PyErr_NoMemory();
        }
        boolean(!g.is_null())
    }
}

pub(super) unsafe extern "C" fn get_priority(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held, under which priorities change.
    unsafe {
        let g = (*slf.cast::<GoObject>()).goroutine();
        let rt = runtime_or_null().as_ref().filter(|_| !g.is_null());
        ffi::PyLong_FromLong(rt.map_or(0, |rt| rt.priority(g)).into())
    }
}

pub(super) unsafe extern "C" fn get_group(slf: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: `slf` is a Goroutine; GIL held.
    unsafe {
        let group = (*slf.cast::<GoObject>()).group;
        if group.is_null() { none() } else { ffi::Py_NewRef(group) }
    }
}

pub(super) unsafe extern "C-unwind" fn goroutine_stats(slf: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_NOARGS with the GIL.
    let (account, migrations) = unsafe {
        let g = (*slf.cast::<GoObject>()).goroutine();
        if g.is_null() {
            return none();
        }
        rt.account(g)
    };
    counts(&[
        (c"run_ns", account.run_ns),
        (c"runs", account.runs),
        (c"wait_ns", account.wait_ns),
        (c"longest_wait_ns", account.longest_wait_ns),
        (c"m_migrations", migrations.into()),
        (c"p_migrations", account.p_migrations),
    ])
}

/// `_Group(weight, quota_ns)`, both checked by `gort.policy`.
unsafe extern "C" fn group_new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let (mut weight, mut quota_ns) = (0u32, 0u64);
    let mut names = [c"".as_ptr().cast_mut(), c"".as_ptr().cast_mut(), ptr::null_mut()];
    // SAFETY: tp_new with the GIL; the places fit the format.
    unsafe {
        let (names, format) = (names.as_mut_ptr().cast(), c"IK:_Group".as_ptr());
        if ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &raw mut weight, &raw mut quota_ns) == 0 {
            return ptr::null_mut();
        }
        match rt.new_group(weight.max(1), quota_ns) {
            Some(group) => alloc(tp, group),
            None => ffi::PyErr_NoMemory(),
        }
    }
}

unsafe extern "C" fn group_dealloc(slf: Object) {
    // SAFETY: the last reference is gone; GIL held. Goroutines have counts of their own.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        super::end_weak_references(slf, (*slf.cast::<Holder<GroupRef>>()).weak_list);
        ptr::drop_in_place(&raw mut (*slf.cast::<Holder<GroupRef>>()).inner);
        (*tp).tp_free.expect("a heap type")(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

unsafe extern "C-unwind" fn group_set(slf: Object, args: *const Object, n: ffi::Py_ssize_t, kw: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([weight, quota_ns]) = arguments("_set", args, n, kw, [c"weight", c"quota_ns"], 2) else {
            return ptr::null_mut();
        };
        let weight = ffi::PyLong_AsUnsignedLong(weight);
        let quota_ns = ffi::PyLong_AsUnsignedLongLong(quota_ns);
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        rt.set_group(inner::<GroupRef>(slf), (weight as u32).max(1), quota_ns);
        none()
    }
}

unsafe extern "C-unwind" fn group_stats(slf: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_NOARGS with the GIL.
    let account = rt.group_account(unsafe { inner::<GroupRef>(slf) });
    counts(&[(c"run_ns", account.run_ns), (c"throttled", account.throttled), (c"throttled_ns", account.throttled_ns)])
}

/// Adds the functions and the base of Group.
pub(crate) unsafe fn register(module: Object) -> bool {
    let functions = methods(vec![
        plain(
            c"_set_policy",
            set_policy,
            ffi::METH_O,
            c"_set_policy(n, /)\n--\n\nSets a policy by number, -1 for none; returns the previous one's.",
        ),
        plain(
            c"_set_schedstats",
            set_schedstats,
            ffi::METH_O,
            c"_set_schedstats(on, /)\n--\n\nTurns measuring on or off; returns what it was.",
        ),
    ]);
    let table = vec![
        fast(c"_set", group_set, c"_set($self, /, weight, quota_ns)\n--\n\nSets both."),
        plain(c"stats", group_stats, ffi::METH_NOARGS, crate::doc::GROUP_STATS),
    ];
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let slots = vec![
        super::weak_list(std::mem::offset_of!(Holder<GroupRef>, weak_list)),
        slot(ffi::Py_tp_new, group_new as *mut _),
        slot(ffi::Py_tp_dealloc, group_dealloc as *mut _),
        slot(ffi::Py_tp_methods, methods(table).cast()),
        slot(ffi::Py_tp_doc, c"_Group(weight, quota_ns, /)\n--\n\nThe base of gort.Group.".as_ptr().cast_mut().cast()),
    ];
    // SAFETY: GIL held by the module's init.
    unsafe {
        let size = size_of::<Holder<GroupRef>>();
        let tp = super::add_type(module, c"gort._core._Group", size, ffi::Py_TPFLAGS_BASETYPE, slots);
        GROUP_TYPE.store(tp, Ordering::Release);
        !tp.is_null() && ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
