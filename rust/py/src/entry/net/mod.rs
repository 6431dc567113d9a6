//! The compiled part of gort.net: what a socket is to Python, and what its calls share.
//!
//! A call runs from the first try to its end in here: no Python frame waits, and none tries again. The GIL is kept over calls of the
//! system, since none of them waits and none moves more than [`MOST_AT_ONCE`] bytes; only `sendfile`, which may wait for a disk, lets
//! go of it. Over loopback (Intel Xeon, virtual machine, busy; CPython 3.11.7, shortest of 200) 64 B are received in 2.3 µs, 16 KiB in
//! 2.6 and 1 MiB in 75, which a slice of 10 ms does not notice. To let go of the GIL and take it again is 0.04 µs while nobody wants
//! it, and as long as everybody else likes when somebody does.
//!
//! Nothing is lost: what was received and cannot be given out (memory is refused, or a `read_exact` ends early) stays in the object
//! and is what the next call reads; how much of something was sent stands on the exception that cut it short, as `sent`.

mod address;
mod buffer;
mod connect;
mod packet;
mod read;
mod write;

use super::{boolean, fast, methods, none, plain, runtime};
use crate::{error, host, task};
use gort_core::goroutine::ender::Until;
use gort_core::goroutine::waiter::Outcome;
use gort_core::net::{Socket, Stop};
use gort_core::netpoll::Side;
use gort_core::sched::{Runtime, now_ns};
use gort_core::sys::socket::{self, Address};
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Object = *mut ffi::PyObject;

/// Most bytes of one call of the system.
const MOST_AT_ONCE: usize = 1 << 20;

/// In place of an errno, for `gort.net._errors.failure`.
const DEADLINE_PASSED: i32 = -1;
const CLOSED: i32 = -2;

#[repr(C)]
struct NetObject {
    ob_base: ffi::PyObject,
    /// Weak references to it; CPython's.
    weak_list: Object,
    /// Go's name of what it speaks: a str.
    network: Object,
    /// Of a listener, the class of what it accepts; else null.
    made: Object,
    /// Bytes that are to be read first, from one place in it to another; or null. With packets it is one packet.
    unread: Object,
    unread_from: usize,
    unread_to: usize,
    /// Of a stream, how much room its next read gets of its own, and whether the last read found nothing before it waited. Of whose
    /// turn to read it is.
    expected: usize,
    was_empty: bool,
    /// Known once somebody asked, or it was closed.
    local: Address,
    remote: Address,
    /// Who sent `unread`, with packets.
    sender: Address,
    socket: Socket,
}

/// The types: streams, listeners, packets.
static TYPES: [AtomicPtr<ffi::PyTypeObject>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];
/// Their methods.
static METHODS: [AtomicPtr<ffi::PyMethodDef>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

unsafe fn net<'a>(slf: Object) -> &'a mut NetObject {
    // SAFETY: the method table of a type is used with objects of that type only; the caller keeps `slf` alive, and under the GIL no
    // two references are used at a time: nothing here keeps one over a call that may park or run Python code.
    unsafe { &mut *slf.cast::<NetObject>() }
}

/// The part that calls wait in, of which others may have a reference as well.
unsafe fn socket_of<'a>(slf: Object) -> &'a Socket {
    // SAFETY: as above.
    unsafe { &(*slf.cast::<NetObject>()).socket }
}

/// A new object of `tp`, around `fd`; null with an exception set.
unsafe fn alloc(tp: *mut ffi::PyTypeObject, fd: c_int, network: Object, made: Object) -> Object {
    // SAFETY: GIL held; a type of these or below one.
    unsafe {
        let slf = ffi::PyType_GenericAlloc(tp, 0);
        if slf.is_null() {
            return slf;
        }
        let object = slf.cast::<NetObject>();
        ffi::Py_XINCREF(made);
        (&raw mut (*object).network).write(ffi::Py_NewRef(network));
        (&raw mut (*object).made).write(made);
        (&raw mut (*object).local).write(Address::default());
        (&raw mut (*object).remote).write(Address::default());
        (&raw mut (*object).sender).write(Address::default());
        (&raw mut (*object).socket).write(Socket::new(fd));
        slf
    }
}

/// `cls(fd, network, made=None)`: takes the descriptor over.
unsafe extern "C" fn new(tp: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: tp_new with the GIL.
    unsafe {
        let (mut fd, mut network, mut made): (c_int, Object, Object) = (-1, ptr::null_mut(), ptr::null_mut());
        let mut names = [c"fd".as_ptr(), c"network".as_ptr(), c"made".as_ptr(), ptr::null()].map(<*const _>::cast_mut);
        let (format, names) = (c"iU|O!".as_ptr(), names.as_mut_ptr().cast());
        let is_type = &raw mut ffi::PyType_Type;
        let (a, b, c) = (&raw mut fd, &raw mut network, &raw mut made);
        if ffi::PyArg_ParseTupleAndKeywords(args, kwargs, format, names, a, b, is_type, c) == 0 {
            return ptr::null_mut();
        }
        let stream = TYPES[0].load(Ordering::Relaxed);
        if !made.is_null() && ffi::PyType_IsSubtype(made.cast(), stream) == 0 {
            return error::set(ffi::PyExc_TypeError, "made must be a class of connections");
        }
        if let Err(number) = socket::set_nonblocking(fd) {
            *errno_place() = number;
            return ffi::PyErr_SetFromErrno(ffi::PyExc_OSError);
        }
        alloc(tp, fd, network, made)
    }
}

fn errno_place() -> *mut i32 {
    gort_core::sys::errno::location()
}

/// The runtime if there ever was one.
fn existing_runtime() -> Option<&'static Runtime> {
    // SAFETY: null or a runtime, which is leaked.
    unsafe { task::runtime_or_null().as_ref() }
}

unsafe fn close_now(slf: Object) {
    // SAFETY: GIL held; nothing here runs Python code.
    unsafe {
        if !socket_of(slf).is_closed() {
            address::local(slf); // it can be asked for afterwards
        }
        socket_of(slf).close(existing_runtime());
    }
}

unsafe extern "C-unwind" fn close(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { close_now(slf) };
    none()
}

/// As CPython's sockets: who forgets to close is told.
unsafe extern "C" fn finalize(slf: Object) {
    // SAFETY: called once for an object nobody refers to, with the GIL.
    unsafe {
        if socket_of(slf).fd() < 0 {
            return;
        }
        let pending = if ffi::PyErr_Occurred().is_null() { ptr::null_mut() } else { host::gort_take_exception() };
        if ffi::PyErr_ResourceWarning(slf, 1, c"unclosed %R".as_ptr(), slf) < 0 {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_Warning) != 0 {
                ffi::PyErr_WriteUnraisable(slf);
            }
            ffi::PyErr_Clear();
        }
        close_now(slf); // whoever keeps the warning keeps the object, but not the connection
        if !pending.is_null() {
            host::gort_raise(pending);
        }
    }
}

unsafe extern "C" fn dealloc(slf: Object) {
    // SAFETY: the last reference is gone, so nobody waits. A subclass has called `finalize`; these types alone are for tests.
    unsafe {
        let tp = ffi::Py_TYPE(slf);
        super::end_weak_references(slf, net(slf).weak_list);
        close_now(slf);
        for held in [net(slf).network, net(slf).made, net(slf).unread] {
            ffi::Py_XDECREF(held);
        }
        ptr::drop_in_place(&raw mut (*slf.cast::<NetObject>()).socket);
        if let Some(free) = (*tp).tp_free {
            free(slf.cast());
        }
        ffi::Py_DECREF(tp.cast());
    }
}

unsafe extern "C-unwind" fn fileno(slf: Object, _: Object) -> Object {
    // SAFETY: METH_NOARGS with the GIL.
    unsafe { ffi::PyLong_FromLong(socket_of(slf).fd().into()) }
}

/// A time in seconds since 1970, or None, as a deadline of the waiters' clock. `Err`: an exception is set.
unsafe fn deadline(when: Object) -> Result<Option<u64>, ()> {
    // SAFETY: GIL held; a live object.
    unsafe {
        if ffi::Py_IsNone(when) != 0 {
            return Ok(None);
        }
        let seconds = ffi::PyFloat_AsDouble(when);
        if seconds == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        if seconds.is_nan() {
            error::set(ffi::PyExc_ValueError, "the deadline must be a number of seconds since 1970");
            return Err(());
        }
        let left_ns = ((seconds - super::context::now()) * 1e9).clamp(-9e18, 9e18) as i64;
        Ok(Some(now_ns().saturating_add_signed(left_ns).max(1)))
    }
}

unsafe fn set_deadlines(slf: Object, when: Object, sides: &[Side], op: &CStr) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe {
        let Ok(deadline_ns) = deadline(when) else { return ptr::null_mut() };
        let Some(rt) = runtime() else { return ptr::null_mut() };
        if socket_of(slf).is_closed() {
            return fail(slf, op, CLOSED, ptr::null_mut());
        }
        for &side in sides {
            socket_of(slf).set_deadline(rt, side, deadline_ns);
        }
        none()
    }
}

unsafe extern "C-unwind" fn set_deadline(slf: Object, when: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { set_deadlines(slf, when, &[Side::Read, Side::Write], c"set_deadline") }
}

unsafe extern "C-unwind" fn set_read_deadline(slf: Object, when: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { set_deadlines(slf, when, &[Side::Read], c"set_read_deadline") }
}

unsafe extern "C-unwind" fn set_write_deadline(slf: Object, when: Object) -> Object {
    // SAFETY: METH_O with the GIL.
    unsafe { set_deadlines(slf, when, &[Side::Write], c"set_write_deadline") }
}

unsafe extern "C" fn get_network(slf: Object, _: *mut c_void) -> Object {
    // SAFETY: a getter with the GIL.
    unsafe { ffi::Py_NewRef(net(slf).network) }
}

unsafe extern "C" fn get_closed(slf: Object, _: *mut c_void) -> Object {
    // SAFETY: a getter with the GIL.
    unsafe { boolean(socket_of(slf).is_closed()) }
}

/// Sets the exception for an errno, or for one of the numbers above, which names the addresses; returns null. For memory that
/// was refused, by the system or to the poller's table, it is MemoryError.
#[cold]
unsafe fn fail(slf: Object, op: &CStr, number: i32, to: Object) -> Object {
    // SAFETY: GIL held, no exception set; `slf` is alive; `to` is null or alive.
    unsafe {
        if number == libc::ENOMEM {
            return ffi::PyErr_NoMemory();
        }
        let to = if to.is_null() { ffi::Py_None() } else { to };
        let (op, number) = (ffi::PyUnicode_FromString(op.as_ptr()), ffi::PyLong_FromLong(number.into()));
        let exception = if op.is_null() || number.is_null() {
            ptr::null_mut()
        } else {
            super::facade(c"gort.net._errors", c"failure", &[op, slf, number, to])
        };
        ffi::Py_XDECREF(op);
        ffi::Py_XDECREF(number);
        if !exception.is_null() {
            ffi::PyErr_SetObject(ffi::Py_TYPE(exception).cast(), exception);
            ffi::Py_DECREF(exception);
        }
        ptr::null_mut()
    }
}

/// After a stop: `true`: do it again, a signal handler returned. Else an exception is set, but where a context ended the wait.
#[cold]
unsafe fn again(rt: &'static Runtime, slf: Object, op: &CStr, stop: Stop, to: Object) -> bool {
    let number = match stop {
        Stop::Wait(Outcome::TimedOut) => DEADLINE_PASSED, // the call's own
        Stop::Wait(outcome) => return error::ended(rt, outcome),
        Stop::DeadlinePassed => DEADLINE_PASSED,
        Stop::Closed => CLOSED,
        Stop::Os(number) => number,
    };
    // SAFETY: GIL held; the caller keeps `slf` and `to`.
    unsafe { fail(slf, op, number, to) };
    false
}

/// One call of a socket's.
#[derive(Clone, Copy)]
struct Call<'a> {
    rt: &'static Runtime,
    slf: Object,
    side: Side,
    until: Until,
    op: &'a CStr,
}

impl Call<'_> {
    /// `attempt` until it is through. `None`: an exception is set, or a context has ended the wait.
    #[inline(always)]
    unsafe fn done<R>(&self, mut attempt: impl FnMut(i32) -> Result<R, i32>) -> Option<R> {
        loop {
            // SAFETY: the caller keeps `slf`, with the GIL.
            match unsafe { socket_of(self.slf) }.done(self.rt, self.side, self.until, &mut attempt) {
                Ok(result) => return Some(result),
                // SAFETY: as above.
                Err(stop) if unsafe { again(self.rt, self.slf, self.op, stop, ptr::null_mut()) } => {}
                Err(_) => return None,
            }
        }
    }

    /// The same for an `attempt` to read from a stream; it also says whether it got some, and less than there was room for.
    #[inline(always)]
    unsafe fn done_reading<R>(&self, mut attempt: impl FnMut(i32) -> Result<(R, bool), i32>) -> Option<R> {
        loop {
            // SAFETY: as above.
            match unsafe { socket_of(self.slf) }.done_reading(self.rt, self.until, &mut attempt) {
                Ok(result) => return Some(result),
                // SAFETY: as above.
                Err(stop) if unsafe { again(self.rt, self.slf, self.op, stop, ptr::null_mut()) } => {}
                Err(_) => return None,
            }
        }
    }

    /// `body` when it is this call's turn; null or `None` as above.
    #[inline(always)]
    unsafe fn in_turn<R>(&self, failed: R, body: impl FnOnce() -> R) -> R {
        // SAFETY: as above; the object is alive when the turn ends.
        unsafe {
            while let Err(stop) = socket_of(self.slf).begin_turn(self.rt, self.side, self.until) {
                if !again(self.rt, self.slf, self.op, stop, ptr::null_mut()) {
                    return failed;
                }
            }
            let result = body();
            socket_of(self.slf).end_turn(self.side);
            result
        }
    }
}

/// Notes on the exception in flight how many bytes were sent before it.
#[cold]
unsafe fn note_sent(bytes: usize) {
    // SAFETY: GIL held.
    unsafe {
        let exception = host::gort_take_exception();
        if exception.is_null() {
            return;
        }
        let count = ffi::PyLong_FromSize_t(bytes);
        if count.is_null() || ffi::PyObject_SetAttrString(exception, c"sent".as_ptr(), count) < 0 {
            ffi::PyErr_Clear();
        }
        ffi::Py_XDECREF(count);
        host::gort_raise(exception);
    }
}

/// `_net_own(cls)`: `cls`, a class below one of these, gets the methods that it does not define for its own. CPython calls a method the
/// short way, and not through its descriptor, only where an object's class is the very one that the method is of.
unsafe extern "C-unwind" fn own(_: Object, cls: Object) -> Object {
    // SAFETY: METH_O with the GIL; the tables are for ever.
    unsafe {
        let is_below = |tp: &AtomicPtr<ffi::PyTypeObject>| {
            ffi::PyType_Check(cls) != 0 && ffi::PyType_IsSubtype(cls.cast(), tp.load(Ordering::Relaxed)) != 0
        };
        let Some(which) = TYPES.iter().position(is_below) else {
            return error::set(ffi::PyExc_TypeError, "a class of gort.net is expected");
        };
        let names = ffi::PyObject_GetAttrString(cls, c"__dict__".as_ptr());
        if names.is_null() {
            return names;
        }
        let is_done = own_all(cls, names, METHODS[which].load(Ordering::Relaxed));
        ffi::Py_DECREF(names);
        if is_done { none() } else { ptr::null_mut() }
    }
}

/// `false`: an exception is set.
unsafe fn own_all(cls: Object, names: Object, mut method: *mut ffi::PyMethodDef) -> bool {
    // SAFETY: as above; a table ends with a method without a name.
    unsafe {
        while !(*method).ml_name.is_null() {
            if ffi::PyMapping_HasKeyString(names, (*method).ml_name) == 0 {
                let object = ffi::PyDescr_NewMethod(cls.cast(), method);
                if object.is_null() {
                    return false;
                }
                let set = ffi::PyObject_SetAttrString(cls, (*method).ml_name, object);
                ffi::Py_DECREF(object);
                if set < 0 {
                    return false;
                }
            }
            method = method.add(1);
        }
        true
    }
}

fn common() -> Vec<ffi::PyMethodDef> {
    vec![
        plain(c"close", close, ffi::METH_NOARGS, c"close($self, /)\n--\n\nCloses it; waits there end with Closed."),
        plain(c"fileno", fileno, ffi::METH_NOARGS, c"fileno($self, /)\n--\n\nThe descriptor; -1 once closed."),
        plain(
            c"set_deadline",
            set_deadline,
            ffi::METH_O,
            c"set_deadline($self, when, /)\n--\n\nWhen reads and writes give up, s since 1970; None: never.",
        ),
        plain(
            c"set_read_deadline",
            set_read_deadline,
            ffi::METH_O,
            c"set_read_deadline($self, when, /)\n--\n\nWhen reads give up, s since 1970; None: never.",
        ),
        plain(
            c"set_write_deadline",
            set_write_deadline,
            ffi::METH_O,
            c"set_write_deadline($self, when, /)\n--\n\nWhen writes give up, s since 1970; None: never.",
        ),
        plain(
            c"local_addr",
            address::local_addr,
            ffi::METH_NOARGS,
            c"local_addr($self, /)\n--\n\nIts own address: (host, port), or a path.",
        ),
        plain(
            c"remote_addr",
            address::remote_addr,
            ffi::METH_NOARGS,
            c"remote_addr($self, /)\n--\n\nThe other end's address: (host, port), or a path; None: it has none.",
        ),
    ]
}

unsafe fn add_type(
    module: Object,
    which: usize,
    name: &'static CStr,
    doc: &'static CStr,
    own: Vec<ffi::PyMethodDef>,
) -> bool {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let table = methods(common().into_iter().chain(own).collect());
    METHODS[which].store(table, Ordering::Release); // read under the GIL, which orders it
    let slots = vec![
        super::weak_list(std::mem::offset_of!(NetObject, weak_list)),
        slot(ffi::Py_tp_new, new as *mut _),
        slot(ffi::Py_tp_dealloc, dealloc as *mut _),
        slot(ffi::Py_tp_finalize, finalize as *mut _),
        slot(ffi::Py_tp_methods, table.cast()),
        slot(ffi::Py_tp_getset, super::getters(&[(c"network", get_network), (c"closed", get_closed)]).cast()),
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
    ];
    // SAFETY: GIL held by the module's init.
    unsafe {
        let tp = super::add_type(module, name, size_of::<NetObject>(), ffi::Py_TPFLAGS_BASETYPE, slots);
        TYPES[which].store(tp, Ordering::Release); // read under the GIL, which orders it
        !tp.is_null()
    }
}

/// Adds the types and functions.
pub(crate) unsafe fn register(module: Object) -> bool {
    let stream = read::stream_methods().into_iter().chain(write::stream_methods()).collect();
    let packets = packet::methods_of();
    let functions = methods(vec![
        super::positional(
            c"_net_dial",
            connect::dial,
            c"_net_dial(cls, network, kind, remote, local, timeout, ctx, /)\n--\n\nA new socket, connected. Parks.",
        ),
        plain(c"_net_own", self::own, ffi::METH_O, c"_net_own(cls, /)\n--\n\nGives a class methods of its own."),
    ]);
    let listening = vec![fast(
        c"accept",
        connect::accept,
        c"accept($self, /, timeout=None, ctx=None)\n--\n\nThe next connection. Parks until there is one.",
    )];
    // SAFETY: GIL held by the module's init.
    unsafe {
        add_type(module, 0, c"gort._core._Stream", c"The base of gort.net.Conn.", stream)
            && add_type(module, 1, c"gort._core._Listening", c"The base of gort.net.Listener.", listening)
            && add_type(module, 2, c"gort._core._Packets", c"The base of gort.net.PacketConn.", packets)
            && ffi::PyModule_AddFunctions(module, functions) == 0
    }
}
