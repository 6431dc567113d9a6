//! The `gort._core` extension module: gort-core over CPython.
//!
//! PyO3 makes the module; whatever may park is a raw function of `entry`.

mod doc;
mod entry;
mod error;
mod fork;
mod frames;
mod host;
mod late;
mod leak;
mod malloc;
mod origin;
mod sight;
mod stacks;
mod task;
mod tracing;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    if cfg!(Py_GIL_DISABLED) {
        return Err(PyImportError::new_err(
            "gort does not support free-threaded builds yet: use the GIL build of this Python",
        ));
    }
    // SAFETY: attached, with the GIL.
    if unsafe { ffi::PyInterpreterState_Get() != ffi::PyInterpreterState_Main() } {
        return Err(PyImportError::new_err(
            "gort works in the main interpreter only: import it there, not in a subinterpreter",
        ));
    }
    m.setattr("__version__", env!("CARGO_PKG_VERSION"))?; // add() would make an `__all__`
    let module = m.as_ptr();
    // SAFETY: the module is alive and the GIL held during its init.
    let ok = unsafe {
        error::init()
            && entry::go::register(module)
            && entry::holders::register(module)
            && entry::labels::register(module)
            && entry::policy::register(module)
            && entry::chan::register(module)
            && entry::select::register(module)
            && entry::sync::register(module)
            && entry::cond::register(module)
            && entry::map::register(module)
            && entry::atomic::register(module)
            && entry::timer::register(module)
            && entry::context::register(module)
            && entry::bubble::register(module)
            && entry::cache::register(module)
            && entry::clock::register(module)
            && entry::memory::register(module)
            && entry::metrics::register(module)
            && entry::gc::register(module)
            && entry::boundary::register(module)
            && entry::leak::register(module)
            && entry::profile::register(module)
            && entry::quit::register(module)
            && entry::contention::register(module)
            && entry::cpu::register(module)
            && entry::trace::register(module)
            && entry::net::register(module)
            && entry::http::register(module)
    };
    if ok { Ok(()) } else { Err(PyErr::fetch(py)) }
}
