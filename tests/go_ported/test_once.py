"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of sync/once_test.go and sync/oncefunc_test.go. What counts allocations is left out, and
TestOnceFuncPanicNil: None cannot be raised. An exception holds its traceback, which holds the function: in
TestOnceXGC a function that fails is called twice before it must be gone.
"""

import gc
import traceback
import weakref

import gort
import pytest
from gort import Chan, Once, WaitGroup, go, once_func, once_value, once_values
from waiting import LIMIT


def test_once():
    o, once, c = [], Once(), Chan()

    def run():
        once.do(lambda: o.append(1))
        c.send(len(o))

    for _ in range(10):
        go(run)
    assert [c.recv(timeout=LIMIT) for _ in range(10)] == [1] * 10
    assert o == [1]


def test_once_panic():
    once = Once()

    def fail():
        raise ValueError("failed")

    with pytest.raises(ValueError):
        once.do(fail)
    once.do(lambda: pytest.fail("once.do called twice"))


def test_once_func():
    calls = []
    f = once_func(lambda: calls.append(1))
    assert [f() for _ in range(11)] == [None] * 11
    assert calls == [1]


def test_once_value():
    calls = []

    def of():
        calls.append(1)
        return len(calls)

    f = once_value(of)
    assert [f() for _ in range(11)] == [1] * 11
    assert calls == [1]


def test_once_values():
    calls = []

    def of():
        calls.append(1)
        return len(calls), len(calls) + 1

    f = once_values(of)
    assert [f() for _ in range(11)] == [(1, 2)] * 11
    assert calls == [1]


@pytest.mark.parametrize("make", [once_func, once_value, once_values])
def test_once_func_and_value_panic(make):
    calls = []

    def fail():
        calls.append(1)
        raise ValueError("x")

    f, errors = make(fail), []
    for _ in ("first time", "second time"):
        with pytest.raises(ValueError, match="^x$") as caught:
            f()
        errors.append(caught.value)
    assert errors[0] is errors[1] and calls == [1]


def test_once_func_goexit_is_not_called_twice():
    calls, wg = [], WaitGroup()

    def of():
        calls.append(1)
        gort.goexit()

    f = once_func(of)

    def run():
        try:
            f()
        except RuntimeError:
            pass
        finally:
            wg.done()

    for _ in range(2):
        wg.add(1)
        go(run)
        wg.wait()
    assert calls == [1]


def once_func_panic():
    raise ValueError("x")


def test_once_func_panic_traceback_reaches_its_origin_the_first_time():
    f = once_func(once_func_panic)
    with pytest.raises(ValueError) as caught:
        f()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "once_func_panic" in names


@pytest.mark.parametrize("make", [once_func, once_value, once_values])
@pytest.mark.parametrize("fails", [False, True])
def test_once_x_gc(make, fails):
    class Buffer:
        used = 0

    def body(buf):
        def fn():
            buf.used = 1
            if fails:
                raise ValueError("test panic")

        return make(fn)

    buf = Buffer()
    gone = weakref.ref(buf)
    f = body(buf)
    del buf
    gc.collect()
    assert gone() is not None, "wrapped function garbage collected too early"
    for _ in range(1 + fails):
        try:
            f()
        except ValueError:
            pass
    gc.collect()
    assert gone() is None, "wrapped function should be garbage collected, but still live"
    try:
        f()
    except ValueError:
        pass
