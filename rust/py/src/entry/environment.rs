//! The variables that a runtime is set up by. No memory is asked for: there may be none.

use std::ffi::CStr;

unsafe extern "C" {
    fn getenv(name: *const std::ffi::c_char) -> *const std::ffi::c_char;
}

/// What `read` makes of the variable `name`; `None`: it is not set, or no UTF-8.
pub(super) fn variable<R>(name: &CStr, read: impl FnOnce(&str) -> R) -> Option<R> {
    // SAFETY: a C string; whoever changes the environment has the GIL, as the caller has.
    let text = unsafe {
        let text = getenv(name.as_ptr());
        if text.is_null() { None } else { CStr::from_ptr(text).to_str().ok() }
    };
    text.map(read)
}
