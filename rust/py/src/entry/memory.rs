//! What the runtime's memory is used for: what `gort.memory` is made of. Nothing here parks.

use super::{arguments, boolean, counts, fast, methods, none, plain, runtime};
use crate::error;
use crate::malloc;
use crate::tracing;
use gort_core::alloc::Stats;
use gort_core::sched::Runtime;
use gort_core::sched::limit::{Turned, UNLIMITED};
use gort_core::sys::pressure::Pressure;
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::Ordering;

type Object = *mut ffi::PyObject;

/// One step of `gort.memory.trim`: the parked goroutines of one slab of descriptors. False: there is no slab of this number.
unsafe extern "C-unwind" fn trim_step(_m: Object, slab: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: METH_O with the GIL.
    unsafe {
        let slab = ffi::PyLong_AsSize_t(slab);
        if slab == usize::MAX && !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        boolean(rt.shrink_slab(slab, true))
    }
}

/// The last step: what the heap has in pages that nobody uses.
unsafe extern "C-unwind" fn release(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    // SAFETY: GIL held, in the main interpreter: gort works nowhere else.
    unsafe { malloc::flush() };
    rt.release_memory();
    none()
}

/// Leave to start one more goroutine under the limit, at once. `false`: an exception is set. May park.
///
/// # Safety
/// GIL held, on a goroutine or a plain thread.
#[cold]
pub(super) unsafe fn admit(rt: &'static Runtime) -> bool {
    loop {
        match rt.admit() {
            Ok(()) => return true,
            Err(Turned::Back(outcome)) => {
                if !error::ended(rt, outcome) {
                    return false;
                }
            }
            Err(Turned::Away { limit_bytes, used_bytes }) => {
                let text = c"goroutines have %zu bytes, and one more would pass the limit of %zu: let some end, raise the limit \
                    (gort.memory.set_limit), or set it with block=True";
                // SAFETY: GIL held; two numbers as the text says.
                unsafe { ffi::PyErr_Format(ffi::PyExc_MemoryError, text.as_ptr(), used_bytes, limit_bytes) };
                return false;
            }
        }
    }
}

/// `_memory_set_limit(limit, block)`: the limit there was; -1 is none.
unsafe extern "C-unwind" fn set_limit(
    _m: Object,
    args: *const Object,
    nargs: ffi::Py_ssize_t,
    names: Object,
) -> Object {
    // SAFETY: a vectorcall with the GIL.
    unsafe {
        let Some([bytes, blocks]) = arguments("_memory_set_limit", args, nargs, names, [c"limit", c"block"], 2) else {
            return ptr::null_mut();
        };
        let bytes = ffi::PyLong_AsSsize_t(bytes);
        let blocks = ffi::PyObject_IsTrue(blocks);
        if blocks < 0 || !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let Some(rt) = runtime() else { return ptr::null_mut() };
        let before = rt.set_memory_limit(usize::try_from(bytes).unwrap_or(UNLIMITED), blocks != 0);
        ffi::PyLong_FromSsize_t(if before == UNLIMITED { -1 } else { before as isize })
    }
}

/// `gort.memory.install`.
unsafe extern "C-unwind" fn install(_m: Object, _: Object) -> Object {
    // SAFETY: GIL held, as above.
    unsafe { malloc::install() }.map_or(ptr::null_mut(), boolean)
}

unsafe extern "C-unwind" fn stats(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    let (heap, stacks, python) = (rt.heap().stats(), rt.shrink_stats(), malloc::stats());
    let of_python = |number: fn(&Stats) -> u64| python.as_ref().map_or(0, number);
    counts(&[
        (c"pressures", rt.counters.pressures.load(Ordering::Relaxed)),
        (c"goroutine_bytes", rt.goroutine_bytes() as u64),
        (c"stacks_saved", stacks.saved),
        (c"stacks_saved_bytes", stacks.saved_bytes),
        (c"stack_saves", stacks.saves),
        (c"stack_restores", stacks.restores),
        (c"heap_allocs_objects", heap.allocs_objects),
        (c"heap_allocs_bytes", heap.allocs_bytes),
        (c"heap_frees_objects", heap.frees_objects),
        (c"heap_frees_bytes", heap.frees_bytes),
        (c"heap_objects_bytes", heap.objects_bytes),
        (c"heap_unused_bytes", heap.unused_bytes),
        (c"heap_free_bytes", heap.free_bytes),
        (c"heap_released_bytes", heap.released_bytes),
        (c"metadata_bytes", heap.metadata_bytes),
        (c"cache_hits", heap.cache_hits),
        (c"cache_refills", heap.cache_refills),
        (c"lock_operations", heap.lock_ops),
        (c"python_allocs_objects", of_python(|heap| heap.allocs_objects)),
        (c"python_allocs_bytes", of_python(|heap| heap.allocs_bytes)),
        (c"python_frees_bytes", of_python(|heap| heap.frees_bytes)),
        (c"python_frees_objects", of_python(|heap| heap.frees_objects)),
        (c"python_objects_bytes", of_python(|heap| heap.objects_bytes)),
        (c"python_unused_bytes", of_python(|heap| heap.unused_bytes)),
        (c"python_free_bytes", of_python(|heap| heap.free_bytes)),
        (c"python_released_bytes", of_python(|heap| heap.released_bytes)),
        (c"python_cache_hits", of_python(|heap| heap.cache_hits)),
        (c"python_cache_refills", of_python(|heap| heap.cache_refills)),
        (c"python_lock_operations", of_python(|heap| heap.lock_ops)),
    ])
}

/// What tells of pressure here, or None.
unsafe extern "C-unwind" fn pressure(_m: Object, _: Object) -> Object {
    Pressure::open("/", true).map_or_else(none, |pressure| error::text(pressure.name()))
}

/// As if the system were short of memory: for tests, which cannot make it so.
unsafe extern "C-unwind" fn give_all_back(_m: Object, _: Object) -> Object {
    let Some(rt) = runtime() else { return ptr::null_mut() };
    rt.give_all_back();
    none()
}

/// Adds the functions to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let table = vec![
        plain(c"_memory_trim_step", trim_step, ffi::METH_O, c"_memory_trim_step($module, slab, /)\n--\n\n"),
        plain(c"_memory_release", release, ffi::METH_NOARGS, c"_memory_release($module, /)\n--\n\n"),
        plain(c"_memory_pressure", pressure, ffi::METH_NOARGS, c"_memory_pressure($module, /)\n--\n\n"),
        plain(c"_memory_give_all_back", give_all_back, ffi::METH_NOARGS, c"_memory_give_all_back($module, /)\n--\n\n"),
        fast(c"_memory_set_limit", set_limit, c"_memory_set_limit($module, limit, block)\n--\n\n"),
        plain(c"_memory_install", install, ffi::METH_NOARGS, c"_memory_install($module, /)\n--\n\n"),
        plain(c"_memory_stats", stats, ffi::METH_NOARGS, c"_memory_stats($module, /)\n--\n\n"),
    ];
    // SAFETY: during the module's init, with the GIL; the table is leaked.
    unsafe {
        ffi::PyModule_AddIntConstant(module, c"_TRACEMALLOC_DOMAIN".as_ptr(), tracing::DOMAIN.into()) == 0
            && ffi::PyModule_AddFunctions(module, methods(table)) == 0
    }
}
