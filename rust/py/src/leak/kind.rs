//! What an object is to the leak report.

use super::graph::{ByAddress, Object};
use crate::entry::{chan, cond, context, sync};
use crate::task::GO_TYPE;
use pyo3::ffi;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering;

/// See the module's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It refers to nobody, and nobody waits for it.
    Leaf,
    /// It may refer to others if the collector tracks it.
    Plain,
    /// It refers to others whether or not the collector tracks it now: a tuple or a dict.
    Container,
    Chan,
    Cond,
    Mutex,
    RwMutex,
    WaitGroup,
    Semaphore,
    Goroutine,
    /// A context: waits end with it.
    Context,
    /// A weak reference or a proxy.
    Weak,
    /// A generator, a coroutine or an asynchronous generator.
    Generator,
    /// A bound method.
    Method,
    /// A report of a leak: nobody gets at what it describes.
    Report,
    /// A lock that is not ours.
    OtherLock,
}

impl Kind {
    /// Whether goroutines wait for such things.
    pub(super) fn is_waited_for(self) -> bool {
        matches!(
            self,
            Self::Chan
                | Self::Cond
                | Self::Context
                | Self::Mutex
                | Self::RwMutex
                | Self::WaitGroup
                | Self::Semaphore
                | Self::Goroutine
        )
    }
}

/// Kinds by type, as far as they were looked up.
pub(crate) struct Kinds(ByAddress<Kind>);

impl Kinds {
    pub(crate) fn new() -> Self {
        Self(ByAddress::default())
    }

    /// Objects of exactly this type are reports of leaks. `None`: memory is refused.
    pub(crate) fn add_report(&mut self, tp: Object) -> Option<()> {
        self.add(tp, Kind::Report)
    }

    /// Objects of exactly this type are locks. `None`: memory is refused.
    pub(crate) fn add_lock(&mut self, tp: Object) -> Option<()> {
        self.add(tp, Kind::OtherLock)
    }

    fn add(&mut self, tp: Object, kind: Kind) -> Option<()> {
        self.0.try_reserve(1).ok()?;
        self.0.insert(tp.addr(), kind);
        Some(())
    }

    /// # Safety
    /// GIL held; `object` is live.
    pub(super) unsafe fn of(&mut self, object: Object) -> Kind {
        // SAFETY: the caller's promise.
        let tp = unsafe { ffi::Py_TYPE(object) };
        if let Some(&kind) = self.0.get(&tp.addr()) {
            return kind;
        }
        // SAFETY: as above: the type is live as well.
        let kind = unsafe { of_type(tp) };
        let _ = self.add(tp.cast(), kind); // where memory is refused it is looked up again
        kind
    }

    /// Whether an object may be asked whom it refers to: one that is being made is not tracked yet, and not fit for it.
    ///
    /// # Safety
    /// GIL held; `object` is live and of this kind.
    pub(super) unsafe fn has_referents(&self, object: Object, kind: Kind) -> bool {
        // SAFETY: the caller's promise. Static types, which are no objects of the collector, have no referents that matter.
        unsafe {
            let has_gc = ffi::PyObject_IS_GC(object) != 0;
            has_gc && (matches!(kind, Kind::Container | Kind::Goroutine) || ffi::PyObject_GC_IsTracked(object) != 0)
        }
    }
}

unsafe extern "C" {
    fn gort_is_method_type(tp: *mut ffi::PyTypeObject) -> c_int;
    fn gort_is_weak_type(tp: *mut ffi::PyTypeObject) -> c_int;
}

unsafe fn of_type(tp: *mut ffi::PyTypeObject) -> Kind {
    let [mutex, rw_mutex, wait_group, semaphore] = sync::types();
    let is = |other: *mut ffi::PyTypeObject| {
        // SAFETY: GIL held by the caller; both are null or live types.
        !other.is_null() && unsafe { ffi::PyType_IsSubtype(tp, other) != 0 }
    };
    let ours = [
        (chan::CHAN_TYPE.load(Ordering::Relaxed), Kind::Chan),
        (GO_TYPE.load(Ordering::Relaxed), Kind::Goroutine),
        (cond::COND_TYPE.load(Ordering::Relaxed), Kind::Cond),
        (context::CONTEXT_TYPE.load(Ordering::Relaxed), Kind::Context),
        (mutex, Kind::Mutex),
        (rw_mutex, Kind::RwMutex),
        (wait_group, Kind::WaitGroup),
        (semaphore, Kind::Semaphore),
        (&raw mut ffi::PyTuple_Type, Kind::Container),
        (&raw mut ffi::PyDict_Type, Kind::Container),
        (&raw mut ffi::PyGen_Type, Kind::Generator),
        (&raw mut ffi::PyCoro_Type, Kind::Generator),
        (&raw mut ffi::PyAsyncGen_Type, Kind::Generator),
    ];
    if let Some(&(_, kind)) = ours.iter().find(|&&(other, _)| is(other)) {
        // What a subclass of tuple or dict adds may be half made while it is not tracked.
        let is_exact = ptr::eq(tp, &raw const ffi::PyTuple_Type) || ptr::eq(tp, &raw const ffi::PyDict_Type);
        return if kind == Kind::Container && !is_exact { Kind::Plain } else { kind };
    }
    // SAFETY: GIL held by the caller.
    unsafe {
        if gort_is_method_type(tp) != 0 {
            return Kind::Method;
        }
        if gort_is_weak_type(tp) != 0 {
            return Kind::Weak;
        }
        if ffi::PyType_HasFeature(tp, ffi::Py_TPFLAGS_HAVE_GC) != 0 { Kind::Plain } else { Kind::Leaf }
    }
}
