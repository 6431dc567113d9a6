"""gort.iter.pull, what Go's tests leave out: cancellation, dropping, depth, exceptions and their frames."""

from __future__ import annotations

import gc
import weakref

import gort
import pytest
from gort.iter import pull
from gort.testing import no_leaks
from waiting import LIMIT, eventually, parked, waiter


def numbers(log, n=10**9):
    def seq(yield_):
        log.append("begins")
        try:
            for i in range(n):
                if not yield_(i):
                    log.append("stopped")
                    return
        finally:
            log.append("ends")

    return seq


def test_nothing_begins_before_the_first_next(anywhere):
    def body():
        log = []
        next_, stop = pull(numbers(log))
        assert log == []
        assert next_() == (0, True) and next_() == (1, True)
        assert log == ["begins"]
        stop()
        assert log == ["begins", "stopped", "ends"]
        next_, stop = pull(numbers(log))
        stop()
        assert len(log) == 3 and next_() == (None, False)

    anywhere(body)


def test_values_may_be_none_and_false():
    next_, _ = pull([None, False, 0])
    assert [next_() for _ in range(4)] == [(None, True), (False, True), (0, True), (None, False)]


def test_two_iterations_side_by_side():
    with no_leaks():
        first, stop_first = pull(numbers([]))
        second, stop_second = pull(numbers([]))
        assert [(first(), second()) for _ in range(100)][99] == ((99, True), (99, True))
        stop_first()
        stop_second()


def test_generator_is_closed_by_stop():
    log = []

    def generate():
        try:
            yield 1
            yield 2
        finally:
            log.append("closed")

    next_, stop = pull(generate())
    assert next_() == (1, True)
    stop()
    assert log == ["closed"] and next_() == (None, False)


def test_stop_leaves_other_iterators_alone(tmp_path):
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    with path.open() as file:
        next_, stop = pull(file)
        assert next_() == ("a\n", True)
        stop()
        assert not file.closed and next_() == (None, False)


def test_source_that_parks_lets_others_run():
    ch = gort.Chan()

    def seq(yield_):
        for value in ch:
            yield_(value)

    with no_leaks():
        next_, _ = pull(seq)
        g = waiter(next_)
        ch.send("x")
        assert g.join(timeout=LIMIT) == ("x", True)
        ch.close()
        assert next_() == (None, False)


def test_cancelled_caller_ends_the_source():
    log, gate, sources = [], gort.Chan(), []

    def seq(yield_):
        try:
            sources.append(gort.current())
            gate.recv()
        finally:
            log.append("ended")

    with no_leaks():
        next_, stop = pull(seq)
        g = waiter(next_)
        eventually(lambda: sources)  # one that has not begun has nothing to end
        parked(sources.pop())
        g.cancel()
        with pytest.raises(gort.Cancelled):
            g.join(timeout=LIMIT)
        eventually(lambda: log == ["ended"])
        assert next_() == (None, False)
        stop()


def test_dropping_both_functions_ends_the_source():
    log = []
    with no_leaks():
        next_, stop = pull(numbers(log))
        next_()
        del next_
        gort.gosched()
        assert log == ["begins"]
        del stop
        eventually(lambda: log == ["begins", "stopped", "ends"])


def test_exception_has_the_frames_of_the_source_and_leaves_no_cycle():
    class Thing:
        pass

    def seq(yield_):
        thing = Thing()
        watches.append(weakref.ref(thing))
        yield_(1)
        raise KeyError("from the source")

    watches = []
    next_, _ = pull(seq)
    next_()
    gc.disable()
    try:
        with pytest.raises(KeyError, match="from the source") as caught:
            next_()
        assert caught.traceback[-1].name == "seq"
        del caught
        eventually(lambda: watches[0]() is None)
    finally:
        gc.enable()


def test_source_runs_with_the_values_of_its_first_caller():
    from contextvars import ContextVar

    variable = ContextVar("variable", default="unset")
    variable.set("here")
    next_, _ = pull(lambda yield_: yield_(variable.get()))
    assert next_() == ("here", True)
    assert next_() == (None, False)


def test_what_cannot_be_pulled():
    for source in (None, 3):
        with pytest.raises(TypeError, match="needs an iterable or a function"):
            pull(source)
    next_, _ = pull(lambda: None)
    with pytest.raises(TypeError, match="positional argument"):
        next_()
    assert next_() == (None, False)
