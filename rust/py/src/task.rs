//! The Goroutine object, and the life of one goroutine as Python sees it: call, result or exception, joiners, report.

use crate::entry::{end_weak_references, gc, weak_list};
use crate::error;
use crate::host;
use crate::late;
use crate::leak::ages;
use crate::origin::{self, Origin};
use crate::tracing;
use gort_core::context;
use gort_core::goroutine::Goroutine;
use gort_core::goroutine::waiter::epoch;
use gort_core::sched::{self, Runtime, policy};
use gort_core::sync::NotifyList;
use pyo3::ffi;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// A Goroutine object. `g` is set while the goroutine is alive; the runtime owns one reference that long.
#[repr(C)]
pub(crate) struct GoObject {
    pub(crate) ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: *mut ffi::PyObject,
    pub(crate) g: *mut Goroutine,
    /// The process it runs in: `waiter::epoch`. In a child forked since there is no such goroutine.
    pub(crate) epoch: u32,
    pub(crate) state: AtomicU32,
    pub(crate) id: u64,
    pub(crate) function: *mut ffi::PyObject,
    pub(crate) args: *mut ffi::PyObject,
    pub(crate) kwargs: *mut ffi::PyObject,
    pub(crate) context: *mut ffi::PyObject,
    pub(crate) name: *mut ffi::PyObject,
    /// What the call returned; where there is an exception, the traceback it ended with: each join starts from it, or joins would
    /// add up in it.
    pub(crate) result: *mut ffi::PyObject,
    pub(crate) exception: *mut ffi::PyObject,
    /// The Group object it is in, or null.
    pub(crate) group: *mut ffi::PyObject,
    pub(crate) joiners: NotifyList,
    /// Where it was started.
    pub(crate) origin: Origin,
    /// The goroutine that started it; 0: none did.
    pub(crate) parent: u64,
}

/// Bits of `GoObject::state`.
pub(crate) const DONE: u32 = 1;
/// Ended by GoroutineExit after a cancel.
pub(crate) const CANCELLED: u32 = 2;
/// Somebody has asked for the outcome: the exception needs no report.
pub(crate) const JOINED: u32 = 4;
/// `cancel` was called.
pub(crate) const CANCEL_ASKED: u32 = 8;
/// Locked to its OS thread from its start.
pub(crate) const LOCKED: u32 = 16;
/// Reserved from its start: it goes before all others.
pub(crate) const RESERVED: u32 = 32;
/// `gort.gc.collect_unreachable` had it end.
pub(crate) const UNREACHABLE: u32 = 64;
/// Where it is to stand was settled when it was described (`settle`): who starts it does not count.
pub(crate) const SETTLED: u32 = 128;
/// Nobody asked for its start who could ask again: where there is no stack for it, it waits for one (`late`).
pub(crate) const PATIENT: u32 = 256;
/// Its priority then, in the highest byte.
const PRIORITY_SHIFT: u32 = 24;

/// The Goroutine type.
pub(crate) static GO_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());

/// The runtime, once there is one.
#[inline(always)]
pub(crate) fn runtime_or_null() -> *mut Runtime {
    RUNTIME.load(Ordering::Relaxed)
}

/// Publishes the runtime. GIL held.
pub(crate) fn set_runtime(rt: &'static Runtime) {
    RUNTIME.store(ptr::from_ref(rt).cast_mut(), Ordering::Release);
}

impl GoObject {
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.state.load(Ordering::Relaxed) & bit != 0
    }

    /// Whether it stayed behind when this process was forked.
    pub(crate) fn is_left_behind(&self) -> bool {
        !self.g.is_null() && self.epoch != epoch()
    }

    /// Its goroutine; null before it starts, once it has ended, and in a child forked since.
    pub(crate) fn goroutine(&self) -> *mut Goroutine {
        if self.epoch == epoch() { self.g } else { ptr::null_mut() }
    }

    /// The priority it was settled with.
    fn settled_priority(&self) -> i8 {
        (self.state.load(Ordering::Relaxed) >> PRIORITY_SHIFT) as u8 as i8
    }

    pub(crate) fn set(&self, bit: u32) {
        self.state.fetch_or(bit, Ordering::Relaxed);
    }
}

/// Bytes of an object that CPython sets.
const HEAD: usize = size_of::<ffi::PyObject>();

/// Makes an object for a call. Steals nothing; null with an exception set on failure.
///
/// # Safety
/// GIL held; `function` is callable; `args` is a tuple or null, `kwargs` a dict or null.
pub(crate) unsafe fn new_object(
    function: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> *mut GoObject {
    // SAFETY: the type is ready once the module is; what follows the head is zeroed, and nobody else knows the object.
    unsafe {
        let tp = GO_TYPE.load(Ordering::Relaxed);
        let context = host::gort_copy_context();
        if context.is_null() && !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        // While the goroutine is alive the runtime owns a reference, so nothing it refers to is garbage: the collector
        // need not look at it before its end, and is not told of it here, as tp_alloc would. With a million parked that was
        // most of the time to start them.
        let obj = ffi::PyObject_GC_New::<GoObject>(tp);
        if obj.is_null() {
            ffi::Py_XDECREF(context);
            return obj;
        }
        obj.cast::<u8>().add(HEAD).write_bytes(0, size_of::<GoObject>() - HEAD);
        ptr::write(&raw mut (*obj).joiners, NotifyList::new());
        ptr::write(&raw mut (*obj).state, AtomicU32::new(0));
        ffi::Py_INCREF(function);
        (*obj).function = function;
        ffi::Py_XINCREF(args);
        (*obj).args = args;
        ffi::Py_XINCREF(kwargs);
        (*obj).kwargs = kwargs;
        (*obj).context = context;
        (*obj).origin = Origin::here();
        tracing::begin_goroutine(obj);
        obj
    }
}

/// Where a new goroutine is to stand with the policies; what is not said it has from the one that starts it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) priority: Option<i8>,
    /// A Group object, borrowed, or null.
    pub(crate) group: *mut ffi::PyObject,
}

impl Place {
    /// Whether it is another one than that of those of whom nothing was said, started by `parent`.
    #[inline]
    unsafe fn is_special(self, rt: &Runtime, obj: *const GoObject, parent: *const Goroutine) -> bool {
        // SAFETY: GIL held; the object is new and the parent runs.
        unsafe {
            if (*obj).has(SETTLED) {
                return (*obj).settled_priority() != 0 || !(*obj).group.is_null();
            }
            self.priority.is_some() || !self.group.is_null() || (*obj).has(RESERVED) || rt.gives_a_place(parent)
        }
    }

    /// Puts `g`, which is new and that of `obj`, into it.
    #[cold]
    unsafe fn give(self, rt: &Runtime, g: *mut Goroutine, obj: *mut GoObject, parent: *const Goroutine) {
        // SAFETY: GIL held; goroutine and object are the caller's, the parent runs, and goroutines have entities.
        unsafe {
            let entity = Goroutine::entity(g);
            if (*obj).has(SETTLED) {
                (*entity).priority = (*obj).settled_priority();
            } else if rt.gives_a_place(parent) {
                (*entity).priority = rt.priority(parent);
                (*obj).group = group_of(parent);
            }
            if !self.group.is_null() {
                let before = std::mem::replace(&mut (*obj).group, ffi::Py_NewRef(self.group));
                ffi::Py_XDECREF(before);
            }
            if let Some(priority) = self.priority {
                (*entity).priority = priority;
            }
            if !(*obj).group.is_null() {
                policy::join_group(g, crate::entry::policy::core_group((*obj).group));
            }
        }
    }
}

/// The Group object of a goroutine, a new reference, or null.
unsafe fn group_of(g: *const Goroutine) -> *mut ffi::PyObject {
    // SAFETY: GIL held; a live goroutine, whose object is alive. The main goroutine and threads have none.
    unsafe {
        if (*g).task.is_null() || (*g).is_thread() {
            return ptr::null_mut();
        }
        ffi::Py_XNewRef((*(*g).task.cast::<GoObject>()).group)
    }
}

/// Settles that `obj` belongs to the caller, which is its parent and gives it its place, whoever starts it later on.
///
/// # Safety
/// GIL held; `obj` is new.
pub(crate) unsafe fn settle(rt: &Runtime, obj: *mut GoObject) {
    // SAFETY: the caller's promise; the calling goroutine runs.
    unsafe {
        let parent = sched::caller();
        (*obj).set(SETTLED);
        if !parent.is_null() {
            (*obj).parent = (*parent).id;
            if rt.gives_a_place(parent) {
                (*obj).set(u32::from(rt.priority(parent) as u8) << PRIORITY_SHIFT);
                (*obj).group = group_of(parent);
            }
        }
    }
}

/// Spawns what `obj` describes. The runtime takes a reference of its own. `false`: memory is refused, no exception is set.
///
/// # Safety
/// GIL held; `obj` is new.
#[must_use]
pub(crate) unsafe fn start(rt: &'static Runtime, obj: *mut GoObject, stack_shift: u8, place_asked: Place) -> bool {
    // SAFETY: `obj` is alive; `prepare` runs before anybody else can see the goroutine. Relaxed: the GIL orders it.
    unsafe {
        let parent = sched::caller();
        let is_special = place_asked.is_special(rt, obj, parent);
        if is_special && !rt.use_entities() {
            return false;
        }
        let g = rt.spawn(obj.cast(), |g| {
            ffi::Py_INCREF(obj.cast());
            (*obj).g = g;
            (*obj).epoch = epoch();
            (*obj).id = (*g).id;
            if !(*obj).has(SETTLED) {
                (*obj).parent = if parent.is_null() { 0 } else { (*parent).id };
            }
            (*g).stack_shift = stack_shift;
            if is_special {
                place_asked.give(rt, g, obj, parent);
            }
        });
        if ages::KEEPS.load(Ordering::Relaxed) && !g.is_null() {
            ages::add((*obj).id);
        }
        !g.is_null()
    }
}

/// The body of every goroutine (`Host::run`). Where the interpreter exits, whatever Python code runs in it may end the thread by
/// unwinding: also that of a `__del__`, of `threading.local` and of the hook, after the call itself.
///
/// # Safety
/// On the goroutine's stack with its thread state current.
pub(crate) unsafe extern "C-unwind" fn run(g: *mut Goroutine) -> bool {
    // SAFETY: one pointer; a bool is the lowest byte of what is returned.
    unsafe { context::call_to_the_end(run_to_its_end as *const (), g.expose_provenance(), 0, 0) as u8 != 0 }
}

unsafe extern "C-unwind" fn run_to_its_end(g: *mut Goroutine) -> bool {
    // SAFETY: the task is the GoObject the runtime owns a reference to; GIL held whenever Python runs here.
    unsafe {
        let obj = (*g).task.cast::<GoObject>();
        let context = std::mem::replace(&mut (*obj).context, ptr::null_mut());
        if !context.is_null() {
            host::gort_set_context(context);
        }
        let rt = &*runtime_or_null();
        if (*obj).has(LOCKED) {
            sched::lock_os_thread(rt);
        }
        if (*obj).has(RESERVED) {
            rt.set_reserved(g, true);
        }
        host::gort_begin_tools();
        let result = if rt.take_request_to_end(g) {
            error::set(error::goroutine_exit(), "cancelled before it ran");
            ptr::null_mut()
        } else {
            host::call_body((*obj).function, (*obj).args, (*obj).kwargs)
        };
        let exception = if result.is_null() { host::gort_take_exception() } else { ptr::null_mut() };
        rt.take_request_to_end(g); // it came too late
        if (*obj).has(RESERVED) {
            rt.set_reserved(g, false);
        }
        (*obj).g = ptr::null_mut();
        (*obj).result = result;
        if !exception.is_null() {
            if ffi::PyErr_GivenExceptionMatches(exception, error::goroutine_exit()) != 0 {
                if (*obj).has(CANCEL_ASKED) {
                    (*obj).set(CANCELLED);
                }
                if (*obj).has(UNREACHABLE) {
                    gc::note_unreachable();
                }
                ffi::Py_DECREF(exception);
            } else {
                origin::note(obj, exception);
                (*obj).exception = exception;
                (*obj).result = ffi::PyException_GetTraceback(exception);
            }
        }
        (*obj).set(DONE);
        if ages::KEEPS.load(Ordering::Relaxed) {
            ages::forget((*obj).id);
        }
        tracing::end_goroutine(obj);
        drop_call(obj);
        (*obj).joiners.broadcast();
        host::gort_set_context(ptr::null_mut());
        // Nobody else can ever join it: say now what happened. Otherwise the object's end says it, which does not come where
        // the process ends with its main goroutine.
        let is_last = ptr::eq(g, rt.main.load(Ordering::Relaxed));
        if !(*obj).exception.is_null() && (is_last || ffi::Py_REFCNT(obj.cast()) == 1) {
            report(obj);
        }
        if ffi::Py_REFCNT(obj.cast()) > 1 {
            ffi::PyObject_GC_Track(obj.cast());
        }
        ffi::Py_DECREF(obj.cast());
        if std::mem::take(&mut (*(*g).bundle).identity_asked) {
            host::forget_thread_object((*(*g).bundle).identity);
        }
        let state = ffi::PyThreadState_Get();
        host::gort_set_context(ptr::null_mut());
        let reusable = (*g).stack_shift == 0 && host::gort_is_pristine(state) != 0 && !rt.should_retire();
        if !reusable {
            ffi::PyThreadState_Clear(state);
        }
        reusable
    }
}

/// The goroutine could not be given a stack: its outcome is MemoryError, unless it is patient (`Host::start_failed`).
///
/// # Safety
/// GIL held, on g0: nothing here may run Python code. Where nobody can join it the report, and the end of what the call was
/// given, are left to main's next safe point.
pub(crate) unsafe fn start_failed(g: *mut Goroutine) {
    // SAFETY: as in `run`.
    unsafe {
        let obj = (*g).task.cast::<GoObject>();
        (*obj).g = ptr::null_mut();
        if ages::KEEPS.load(Ordering::Relaxed) {
            ages::forget((*obj).id);
        }
        if (*obj).has(PATIENT) && !(*obj).has(CANCEL_ASKED) {
            return late::add(obj);
        }
        (*obj).exception = error::no_stack();
        (*obj).set(DONE);
        tracing::end_goroutine(obj);
        (*obj).joiners.broadcast();
        if ffi::Py_REFCNT(obj.cast()) > 1 {
            ffi::PyObject_GC_Track(obj.cast());
            ffi::Py_DECREF(obj.cast());
        } else {
            (*obj).result = UNHEARD.swap(obj, Ordering::Relaxed).cast(); // under the GIL
            Py_AddPendingCall(end_unheard, ptr::null_mut()); // refused where many wait: the next one comes for all
        }
    }
}

/// Goroutines that got no stack and that nobody can join, one reference to each; linked by `result`.
static UNHEARD: AtomicPtr<GoObject> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" {
    fn Py_AddPendingCall(
        function: unsafe extern "C" fn(*mut std::ffi::c_void) -> std::ffi::c_int,
        argument: *mut std::ffi::c_void,
    ) -> std::ffi::c_int;
}

/// Lets go of them, which reports each.
unsafe extern "C" fn end_unheard(_: *mut std::ffi::c_void) -> std::ffi::c_int {
    let mut next = UNHEARD.swap(ptr::null_mut(), Ordering::Relaxed);
    while !next.is_null() {
        // SAFETY: a pending call, with the GIL, where Python code may run; the reference is the list's.
        unsafe {
            let obj = next;
            next = std::mem::replace(&mut (*obj).result, ptr::null_mut()).cast();
            ffi::PyObject_GC_Track(obj.cast());
            ffi::Py_DECREF(obj.cast());
        }
    }
    0
}

/// Drops callable and arguments.
///
/// # Safety
/// GIL held, where Python code may run.
unsafe fn drop_call(obj: *mut GoObject) {
    // SAFETY: `obj` is alive; each field is cleared before its referent is let go.
    unsafe {
        for field in [&raw mut (*obj).function, &raw mut (*obj).args, &raw mut (*obj).kwargs] {
            let old = std::mem::replace(&mut *field, ptr::null_mut());
            ffi::Py_XDECREF(old);
        }
    }
}

/// Tells `gort.excepthook` of an exception nobody will join. Once.
///
/// # Safety
/// GIL held, `obj` alive.
pub(crate) unsafe fn report(obj: *mut GoObject) {
    // SAFETY: `obj` is alive; errors of the hook are written, never raised.
    unsafe {
        if (*obj).has(JOINED) || (*obj).exception.is_null() {
            return;
        }
        (*obj).set(JOINED);
        let module = ffi::PyImport_ImportModule(c"gort.runtime".as_ptr());
        let mut done = ptr::null_mut();
        if module.is_null() {
            // The interpreter is ending: no hook any more, but the exception itself is not lost.
            ffi::PyErr_Clear();
            if ffi::PyErr_GivenExceptionMatches((*obj).exception, ffi::PyExc_SystemExit) != 0 {
                return;
            }
            ffi::Py_INCREF((*obj).exception);
            host::gort_raise((*obj).exception);
        } else {
            let hook = ffi::PyObject_GetAttrString(module, c"_report".as_ptr());
            if !hook.is_null() {
                let args = [obj.cast::<ffi::PyObject>(), (*obj).exception];
                done = ffi::PyObject_Vectorcall(hook, args.as_ptr(), 2, ptr::null_mut());
                ffi::Py_DECREF(hook);
            }
            ffi::Py_DECREF(module);
        }
        if done.is_null() {
            ffi::PyErr_WriteUnraisable(obj.cast());
        } else {
            ffi::Py_DECREF(done);
        }
    }
}

unsafe extern "C" fn go_traverse(
    slf: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut std::ffi::c_void,
) -> std::ffi::c_int {
    // SAFETY: called by the collector on a live object; every field is owned exactly once.
    unsafe {
        let obj = slf.cast::<GoObject>();
        let fields = [
            ffi::Py_TYPE(slf).cast(),
            (*obj).function,
            (*obj).args,
            (*obj).kwargs,
            (*obj).context,
            (*obj).name,
            (*obj).result,
            (*obj).exception,
            (*obj).group,
        ];
        for field in fields {
            if !field.is_null() {
                let r = visit(field, arg);
                if r != 0 {
                    return r;
                }
            }
        }
        (*obj).origin.visit(visit, arg)
    }
}

unsafe extern "C" fn go_clear(slf: *mut ffi::PyObject) -> std::ffi::c_int {
    // SAFETY: called by the collector or dealloc on a live object.
    unsafe {
        let obj = slf.cast::<GoObject>();
        drop_call(obj);
        let fields = [
            &raw mut (*obj).context,
            &raw mut (*obj).name,
            &raw mut (*obj).result,
            &raw mut (*obj).exception,
            &raw mut (*obj).group,
        ];
        for field in fields {
            let old = std::mem::replace(&mut *field, ptr::null_mut());
            ffi::Py_XDECREF(old);
        }
        0
    }
}

unsafe extern "C" fn go_finalize(slf: *mut ffi::PyObject) {
    // SAFETY: a finaliser may run Python code; the exception in flight is kept.
    unsafe {
        let saved = host::gort_take_exception();
        report(slf.cast());
        if !saved.is_null() {
            host::gort_raise(saved);
        }
    }
}

/// A goroutine that ended with another's object ends with that one's: such chains may be long.
unsafe extern "C" fn go_dealloc(slf: *mut ffi::PyObject) {
    // SAFETY: called by CPython on an object whose last reference is gone.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let obj = slf.cast::<GoObject>();
        let has_no_result = (*obj).result.is_null() || (*obj).result == ffi::Py_None();
        if has_no_result && (*obj).function.is_null() && (*obj).exception.is_null() {
            dealloc_now(slf); // most do not end any other
        } else {
            host::gort_dealloc_in_turn(slf, go_dealloc, dealloc_now);
        }
    }
}

unsafe extern "C" fn dealloc_now(slf: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone; the runtime's own goes with the goroutine's end, so it is not alive.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        let has_exception = !(*slf.cast::<GoObject>()).exception.is_null();
        if has_exception && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            ffi::PyObject_GC_Track(slf.cast()); // somebody keeps it
            return;
        }
        end_weak_references(slf, (*slf.cast::<GoObject>()).weak_list);
        if (*slf.cast::<GoObject>()).id == 0 {
            tracing::end_goroutine(slf.cast()); // it never began
        }
        go_clear(slf);
        (*slf.cast::<GoObject>()).origin.release();
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(tp.cast());
    }
}

/// Slots of the Goroutine type that concern its memory.
pub(crate) fn slots() -> [ffi::PyType_Slot; 5] {
    [
        weak_list(std::mem::offset_of!(GoObject, weak_list)),
        ffi::PyType_Slot { slot: ffi::Py_tp_traverse, pfunc: go_traverse as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_clear, pfunc: go_clear as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_finalize, pfunc: go_finalize as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_dealloc, pfunc: go_dealloc as *mut _ },
    ]
}
