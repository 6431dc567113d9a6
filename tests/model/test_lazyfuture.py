"""LazyFuture against Future: whatever is asked of both, in any order, has the same answers."""

from __future__ import annotations

import concurrent.futures as cf
import logging

import pytest
from gort.futures import LazyFuture
from hypothesis import given, settings
from hypothesis import strategies as st

STEPS = (
    "cancel", "cancelled", "running", "done", "add_done_callback", "bad_callback", "result", "exception",
    "start", "set_result", "set_exception", "wait", "as_completed", "repr", "watch",
)  # fmt: skip


class Watched(cf._base._AsCompletedWaiter):
    """What `wait` and `as_completed` install, which counts what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def add_result(self, future):
        self.told.append("result")

    def add_exception(self, future):
        self.told.append("exception")

    def add_cancelled(self, future):
        self.told.append("cancelled")


class One:
    """A future and what it has called and told."""

    def __init__(self, kind):
        self.future = kind()
        self.called = []
        self.watches = []

    def step(self, name, n):
        """The outcome of one step, comparable."""
        try:
            return getattr(self, name)(n)
        except BaseException as error:
            text = str(error).replace("LazyFuture", "Future").split(" at ")[0]
            return type(error).__name__, text

    def __getattr__(self, name):
        return lambda n: getattr(self.future, name)()

    def add_done_callback(self, n):
        self.future.add_done_callback(lambda f: self.called.append((n, f is self.future)))

    def bad_callback(self, n):
        def raises(_):
            self.called.append(n)
            raise ValueError(n)

        self.future.add_done_callback(raises)

    def result(self, n):
        return self.future.result(0)

    def exception(self, n):
        return repr(self.future.exception(timeout=-1))

    def start(self, n):
        return self.future.set_running_or_notify_cancel()

    def set_result(self, n):
        self.future.set_result(n)

    def set_exception(self, n):
        self.future.set_exception(KeyError(n))

    def wait(self, n):
        done, late = cf.wait([self.future], 0)
        return len(done), len(late)

    def as_completed(self, n):
        return sum(1 for _ in cf.as_completed([self.future], 0))

    def repr(self, n):
        return repr(self.future).replace("LazyFuture", "Future").split(" state")[1]

    def watch(self, n):
        with self.future._condition:
            if self.future._state not in ("FINISHED", "CANCELLED_AND_NOTIFIED"):
                self.watches.append(Watched())
                self.future._waiters.append(self.watches[-1])


@pytest.fixture(autouse=True)
def quiet():
    """Both log callbacks that raise and wrong states."""
    logger = logging.getLogger("concurrent.futures")
    logger.disabled = True
    yield
    logger.disabled = False


@given(st.lists(st.sampled_from(STEPS), max_size=25))
@settings(deadline=None, max_examples=400)
def test_it_answers_as_a_future_does(steps):
    plain, lazy = One(cf.Future), One(LazyFuture)
    for n, name in enumerate(steps):
        assert lazy.step(name, n) == plain.step(name, n), (name, steps[: n + 1])
        assert lazy.future._state == plain.future._state
    assert lazy.called == plain.called
    assert [w.told for w in lazy.watches] == [w.told for w in plain.watches]


def test_what_waiting_needs_is_made_when_somebody_waits():
    future = LazyFuture()
    future.set_running_or_notify_cancel()
    future.add_done_callback(print)
    assert not future.done() and future._wakers is None and future._ended is None
    cf.wait([future], 0)
    assert future._wakers is not None
    assert future._condition is future._condition
