"""What belongs to a thread in CPython and in common libraries belongs to a goroutine, wherever it runs.

Beside this: locks, imports, buffers, sqlite3 and logging in test_boundary_identity.py, contexts, traces
and exceptions in test_python_code.py, OpenSSL in test_boundary_openssl.py, CPUs and priorities in
test_boundary_scheduling.py, greenlet in test_greenlet.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import decimal
import faulthandler
import locale
import os
import random
import signal
import sys
import threading
import warnings

import gort
import pytest
from children import check
from crossing import moving, wander
from waiting import LIMIT, eventually, in_goroutine, in_thread, join_all, parked

libc = ctypes.CDLL(None, use_errno=True)
libm = ctypes.CDLL("libm.so.6")
PARKS = 30
VARIABLE = contextvars.ContextVar("variable")
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
MODES = ("ignore", "warn", "raise")


def numpy():
    return pytest.importorskip(
        "numpy", reason="no numpy for this Python here", exc_type=ImportError
    )


def hooks(i):
    """A function for each i."""
    return HOOKS[i % len(HOOKS)]


HOOKS = [lambda _, i=i: i for i in range(8)]
LOOPS = {}


def loop(i):
    if i not in LOOPS:
        LOOPS[i] = asyncio.SelectorEventLoop()
    return LOOPS[i]


# name: how goroutine i sets it, and what it reads then.
OWNED = {
    "errno of ctypes": (
        lambda i: ctypes.set_errno(i + 1),
        lambda: ctypes.get_errno(),
        lambda i: i + 1,
    ),
    "decimal precision": (
        lambda i: decimal.setcontext(decimal.Context(prec=i + 1)),
        lambda: len(str(decimal.Decimal(1) / 3)) - 2,
        lambda i: i + 1,
    ),
    "context variable": (VARIABLE.set, VARIABLE.get, lambda i: i),
    "asyncgen hooks": (
        lambda i: sys.set_asyncgen_hooks(hooks(i), hooks(i + 1)),
        lambda: tuple(sys.get_asyncgen_hooks()),
        lambda i: (hooks(i), hooks(i + 1)),
    ),
    "coroutine origins": (
        sys.set_coroutine_origin_tracking_depth,
        sys.get_coroutine_origin_tracking_depth,
        lambda i: i,
    ),
    "running event loop": (
        lambda i: asyncio._set_running_loop(loop(i)),
        asyncio._get_running_loop,
        loop,
    ),
    "signal mask": (
        lambda i: signal.pthread_sigmask(signal.SIG_SETMASK, [SIGNALS[i % 3]]),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
        lambda i: {SIGNALS[i % 3]},
    ),
    "numpy error state": (
        lambda i: numpy().seterr(over=MODES[i % 3]),
        lambda: numpy().geterr()["over"],
        lambda i: MODES[i % 3],
    ),
    "numpy print options": (
        lambda i: numpy().set_printoptions(precision=i + 1),
        lambda: numpy().get_printoptions()["precision"],
        lambda i: i + 1,
    ),
}


@pytest.mark.parametrize("name", OWNED)
def test_what_a_goroutine_sets_is_its_own_over_parks_and_moves(name):
    put, get, expected = OWNED[name]
    before = get() if name != "context variable" else None

    def body(i):
        put(i)
        seen = []
        for k in range(PARKS):
            wander(k)
            seen.append(get())
        asyncio._set_running_loop(None)  # or the loop could not be closed
        return [value for value in seen if value != expected(i)]

    assert moving(body, 8) == [[]] * 8
    assert name == "context variable" or get() == before
    while LOOPS:
        LOOPS.popitem()[1].close()


def test_numpys_error_state_is_in_force_after_a_park():
    np = numpy()

    def body(i):
        results = []
        for k in range(PARKS):
            with np.errstate(divide=("ignore", "raise")[i % 2]):
                wander(k)
                try:
                    results.append(np.array([1.0]) / 0 == np.inf)
                except FloatingPointError:
                    results.append("raised")
        return set(map(str, results))

    assert moving(body, 6) == [{"[ True]"}, {"raised"}] * 3


def test_errno_of_a_call_is_the_goroutines_after_parks():
    def body(i):
        wrong = []
        for k in range(PARKS):
            ctypes.set_errno(0)
            assert libc.close(-1) == -1 if i % 2 else libc.chdir(b"/nowhere/at/all") == -1
            wander(k)
            wrong.append(ctypes.get_errno())
        return {os.strerror(number) for number in wrong}

    assert moving(body, 6) == [{os.strerror(2)}, {os.strerror(9)}] * 3


# libraries with locks or state of their own


def test_numpys_generators_are_used_by_one_goroutine_at_a_time():
    np = numpy()
    inside = []

    class Parks(list):
        def __setitem__(self, at, value):  # the generator's lock is held here
            inside.append(threading.get_ident())
            gort.gosched()
            super().__setitem__(at, value)

    generator = np.random.default_rng(1)

    def body(i):
        items = Parks(range(50))
        generator.shuffle(items)
        return sorted(items) == list(range(50))

    assert join_all([gort.go(body, i) for i in range(6)]) == [True] * 6
    changes = sum(a != b for a, b in zip(inside, inside[1:], strict=False))
    assert changes == len(set(inside)) - 1, "two goroutines inside one generator"


def test_generators_of_their_own_give_each_goroutine_what_they_give_alone():
    np = numpy()

    def draw(i):
        ours, theirs = random.Random(i), np.random.default_rng(i)
        drawn = []
        for k in range(PARKS):
            drawn += [ours.random(), float(theirs.normal()), int(theirs.integers(100))]
            wander(k)
        return drawn

    alone = [draw(i) for i in range(6)]
    assert moving(draw, 6) == alone


# destructors of what a thread owned


class Logged:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def __del__(self):
        self.log.append((self.name, threading.get_ident() == self.ident))


ENDS = {
    "return": lambda: None,
    "exception": lambda: 1 // 0,
    "goexit": gort.goexit,
    "cancelled": lambda: gort.Chan().recv(),
}


@pytest.mark.parametrize("end", ENDS)
def test_destructors_of_locals_run_at_the_end_as_in_a_thread(end, reports):
    first, second, log, wandered = threading.local(), threading.local(), [], []

    def body(how):
        for name in ("a", "b", "c"):
            setattr(first, name, Logged(f"first {name}", log))
            setattr(second, name, Logged(f"second {name}", log))
            for local in (first, second):
                getattr(local, name).ident = threading.get_ident()
        wander(1)
        wandered.append(True)
        how()

    in_thread(body, lambda: None)
    eventually(lambda: len(log) == 6, what="destructors in the thread")
    expected = log.copy()
    log.clear()
    g = gort.go(body, ENDS[end])
    if end == "cancelled":
        eventually(lambda: wandered == [True, True], what="the last wait")
        parked(g)
        g.cancel()
    try:
        g.join(timeout=LIMIT)
    except (ZeroDivisionError, gort.Cancelled, gort.GoroutineExit):
        pass
    eventually(lambda: len(log) == 6, what="destructors in the goroutine")
    assert log == expected
    assert not vars(first)


# what belongs to the process


def test_what_belongs_to_the_process_is_seen_by_all_as_with_threads():
    before = locale.setlocale(locale.LC_CTYPE), warnings.filters[:], threading.excepthook
    other = "C" if before[0] != "C" else "C.UTF-8"
    try:
        for place in (in_goroutine, in_thread):
            place(locale.setlocale, locale.LC_CTYPE, other)
            assert in_goroutine(locale.setlocale, locale.LC_CTYPE) == other
            place(warnings.simplefilter, "error")
            assert in_goroutine(lambda: warnings.filters[0][0]) == "error"
            place(setattr, threading, "excepthook", print)
            assert in_goroutine(lambda: threading.excepthook) is print
            locale.setlocale(locale.LC_CTYPE, before[0])
            warnings.filters[:] = before[1]
            threading.excepthook = before[2]
    finally:
        locale.setlocale(locale.LC_CTYPE, before[0])
        warnings.filters[:] = before[1]
        threading.excepthook = before[2]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="filters belong to the process before 3.14")
def test_warnings_filters_in_contexts_are_each_goroutines_own():
    code = """
    import gort, sys, warnings
    from crossing import moving, wander
    assert sys.flags.context_aware_warnings
    def body(i):
        ends = set()
        for k in range(30):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always" if i % 2 else "ignore")
                wander(k)
                warnings.warn(f"{i}", UserWarning, stacklevel=1)
                wander(k + 1)
            ends.add(str([str(w.message) for w in seen]))
        return ends
    print(moving(body, 4))
    """
    expected = "[{'[]'}, {\"['1']\"}, {'[]'}, {\"['3']\"}]"
    check(code, expected, PYTHON_CONTEXT_AWARE_WARNINGS="1")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_functions_that_trace_all_threads_see_all_goroutines(kind):
    code = f"""
    import gort, sys, threading
    from crossing import wander
    from waiting import LIMIT, eventually, parked
    def work():
        return gort.gosched()
    def body(gate):
        gate.recv()
        for k in range(6): work(); wander(k)
        watched.append(sys.get{kind}() is see)
        gate.recv()
        return sys.get{kind}()
    seen, watched = set(), []
    def see(frame, event, arg):
        if event == "call" and frame.f_code.co_name == "work": seen.add(gort.current())
    gate = gort.Chan()
    gs = [gort.go(body, gate) for _ in range(10)]
    parked(*gs)
    threading.set{kind}_all_threads(see)
    for _ in gs: gate.send(None)
    eventually(lambda: len(watched) == 10)
    threading.set{kind}_all_threads(None)
    for _ in gs: gate.send(None)
    print(set(watched), {{g.join(timeout=LIMIT) for g in gs}}, seen == set(gs))
    """
    check(code, "{True} {None} True")


def test_faulthandler_shows_the_goroutine_that_asks(tmp_path):
    def asks_here(file):
        faulthandler.dump_traceback(file, all_threads=False)

    def body(i):
        with open(tmp_path / str(i), "w+") as file:
            for k in range(5):
                wander(k)
                asks_here(file)
            file.seek(0)
            text = file.read()
        return text.count("asks_here"), text.count(" in body")

    assert moving(body, 6) == [(5, 5)] * 6


def test_calls_that_wait_for_the_main_thread_are_made_at_its_next_turn():
    # No call here lets go of the GIL: main is only switched to.
    made = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    log = []
    call = made(lambda _: log.append(threading.get_ident()) or 0)
    add = ctypes.pythonapi.Py_AddPendingCall
    turns = range(100)
    counts = []
    for _ in turns:
        gort.go(add, call, None).join(timeout=LIMIT)
        for _ in turns:
            pass
        counts.append(len(log))
    assert counts == [n + 1 for n in turns]
    assert set(log) == {threading.main_thread().ident}


# what stays the OS thread's

ALL_CATEGORIES = 0x1FBF  # LC_ALL_MASK
libc.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
libc.uselocale.argtypes = [ctypes.c_void_p]
libc.newlocale.restype = libc.uselocale.restype = ctypes.c_void_p
LOCALES = [libc.newlocale(ALL_CATEGORIES, name, None) for name in (b"C", b"C.UTF-8")]
NAMES = [b"gort-test-%d" % i for i in range(4)]


def thread_name():
    name = ctypes.create_string_buffer(16)
    libc.prctl(16, name)  # PR_GET_NAME
    return name.value


# name: how to set it, how to read it, and its values.
OS_THREADS = {
    "rounding mode": (libm.fesetround, libm.fegetround, [0, 0x400, 0x800, 0xC00]),
    "locale": (libc.uselocale, lambda: libc.uselocale(None), LOCALES),
    "name": (lambda name: libc.prctl(15, name), thread_name, NAMES),  # PR_SET_NAME
}


@pytest.mark.parametrize("name", OS_THREADS)
def test_what_is_the_os_threads_is_kept_by_who_is_locked_to_it(name):
    put, get, values = OS_THREADS[name]
    assert None not in values

    def body(i):
        mine = values[i % len(values)]
        with gort.locked_os_thread():
            before = get()
            put(mine)
            wrong = 0
            for k in range(PARKS):
                wander(k)
                wrong += get() != mine
            put(before)
        return wrong

    assert moving(body, 4) == [0] * 4
