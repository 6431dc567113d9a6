//! The clock that time-outs and timers go by, for the Python side: that of the caller's bubble, else CLOCK_MONOTONIC.

use super::{methods, plain};
use gort_core::sched::now_ns;
use pyo3::ffi;

type Object = *mut ffi::PyObject;

unsafe extern "C-unwind" fn read(_m: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { ffi::PyLong_FromUnsignedLongLong(now_ns()) }
}

/// Adds the function.
pub(crate) unsafe fn register(module: Object) -> bool {
    let doc = c"_now_ns()\n--\n\nThe time that time-outs go by, in ns.";
    let functions = methods(vec![plain(c"_now_ns", read, ffi::METH_NOARGS, doc)]);
    // SAFETY: GIL held by the module's init.
    unsafe { ffi::PyModule_AddFunctions(module, functions) == 0 }
}
