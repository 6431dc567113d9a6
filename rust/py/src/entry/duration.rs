//! Durations that timers and tickers are given.

use crate::error;
use pyo3::ffi;

type Object = *mut ffi::PyObject;

/// Longer durations (31 years) are the same as this one, in seconds.
const FOREVER: f64 = 1e9;

/// A duration in seconds, -1 for all that is negative; `None`: an exception is set.
unsafe fn duration(value: Object, what: &std::ffi::CStr) -> Option<f64> {
    // SAFETY: GIL held; a live object.
    unsafe {
        let seconds = if ffi::PyFloat_Check(value) != 0 {
            ffi::PyFloat_AsDouble(value)
        } else if ffi::PyLong_Check(value) != 0 && ffi::PyBool_Check(value) == 0 {
            let mut overflow = 0;
            let n = ffi::PyLong_AsLongLongAndOverflow(value, &raw mut overflow);
            if overflow == 0 { n as f64 } else { f64::from(overflow) * FOREVER }
        } else {
            let text = c"%s must be a number of seconds, not %.200s".as_ptr();
            ffi::PyErr_Format(ffi::PyExc_TypeError, text, what.as_ptr(), (*ffi::Py_TYPE(value)).tp_name);
            return None;
        };
        if seconds.is_nan() {
            ffi::PyErr_Format(ffi::PyExc_ValueError, c"%s must not be nan".as_ptr(), what.as_ptr());
            return None;
        }
        Some(seconds.clamp(-1.0, FOREVER))
    }
}

/// The duration of a timer; `None`: an exception is set.
///
/// # Safety
/// GIL held; a live object.
pub(super) unsafe fn timer_duration(value: Object) -> Option<f64> {
    // SAFETY: the caller's.
    unsafe { duration(value, c"the duration of a Timer") }
}

/// A period, greater than zero; `where_` is Go's name of the function.
///
/// # Safety
/// GIL held; a live object.
pub(super) unsafe fn period(value: Object, where_: &str) -> Option<f64> {
    // SAFETY: the caller's.
    let seconds = unsafe { duration(value, c"the period of a Ticker") }?;
    if seconds <= 0.0 {
        // SAFETY: GIL held.
        error::set(unsafe { ffi::PyExc_ValueError }, format_args!("non-positive interval for {where_}"));
        return None;
    }
    Some(seconds)
}
