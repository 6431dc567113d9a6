"""gort.Once, once_func and once_value."""

from __future__ import annotations

import gc
import weakref

import gort
import pytest
from gort import Chan, Once, go
from waiting import OnThread, eventually, join_all, waiter


@pytest.fixture(params=[go, OnThread], ids=["goroutine", "thread"])
def beside(request):
    """Start a function beside the test's own code: as a goroutine, or on a plain thread."""
    return request.param


def test_once_all_callers_return_after_the_one_run(anywhere, beside):
    once, gate, ran, back = Once(), Chan(), [], []

    def first():
        ran.append(1)
        gate.recv()

    def call():
        once.do(first)
        back.append(len(ran))

    def body():
        others = [beside(call) for _ in range(4)]
        eventually(lambda: ran)
        assert not back
        gate.send(None)
        call()
        join_all(others)

    anywhere(body)
    assert ran == [1] and back == [1] * 5


def test_once_that_raised_counts_as_run():
    once, ran = Once(), []

    def fail():
        ran.append(1)
        raise ValueError("x")

    with pytest.raises(ValueError):
        once.do(fail)
    once.do(fail)
    assert ran == [1]
    with pytest.raises(TypeError):
        once.do(None)


def test_once_goexit_counts_as_run():
    once, ran = Once(), []
    go(once.do, gort.goexit).join()
    once.do(lambda: ran.append(1))
    assert not ran


def test_once_called_from_its_own_function_waits_for_ever():
    once = Once()
    g = waiter(once.do, lambda: once.do(print))
    assert g.status == "sync.Mutex.Lock"
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join()


def test_once_value_gives_the_first_result_to_everybody():
    calls, gate = [], Chan()

    def fn():
        calls.append(1)
        return gate.recv()

    value = gort.once_value(fn)
    gs = [waiter(value) for _ in range(5)]
    gate.send("v")
    assert join_all(gs) == ["v"] * 5 and value() == "v" and calls == [1]
    assert value.__name__ == "fn"


@pytest.mark.parametrize("make", [gort.once_value, gort.once_func])
def test_once_function_raises_the_same_exception_every_time(make):
    error, calls = ValueError("x"), []

    def fail():
        calls.append(1)
        raise error

    call = make(fail)
    for _ in range(3):
        with pytest.raises(ValueError) as caught:
            call()
        assert caught.value is error
    assert calls == [1]
    with pytest.raises(TypeError):
        make(3)


@pytest.mark.parametrize("make", [gort.once_value, gort.once_func])
def test_once_function_is_let_go_after_its_run(make):
    class Callable:
        def __call__(self):
            return None

    fn = Callable()
    gone = weakref.ref(fn)
    call = make(fn)
    del fn
    gc.collect()
    assert gone() is not None
    call()
    gc.collect()
    assert gone() is None and call() is None
