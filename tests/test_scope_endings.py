"""Scopes whose children do not end, many of them, what is let go of, deadlock, fork, fake time."""

from __future__ import annotations

import gc
import os
import weakref

import gort
import pytest
from children import check
from test_scope import caught, fail
from waiting import LIMIT, eventually, in_thread, parked, settle, waiter


def stubborn(gate):
    """Ignore being cancelled until the gate opens."""
    while True:
        try:
            gate.recv()
            return
        except gort.GoroutineExit:
            pass


def test_child_that_ignores_cancellation_is_named_and_waited_for():
    gate, told = gort.Chan(), gort.Chan(10)

    def work():
        with gort.scope(
            name="s", patience=0.001, on_stuck=lambda who, text: told.send((who, text))
        ) as s:
            parked(s.go(stubborn, gate).goroutine)
            s.cancel()

    g = gort.go(work)
    (child,), text = told.recv(timeout=LIMIT)
    assert "scope 's' waits: 1 child has not ended 0.001 s after being cancelled" in text
    assert f"goroutine {child.goroutine.id}" in text
    assert "stubborn" in text and "gate.recv()" in text
    assert child.goroutine.created in text
    settle()
    assert not g.done
    gate.send(None)
    g.join(timeout=LIMIT)
    assert len(told) == 0  # once


def test_who_fails_late_starts_the_patience_of_a_wait_that_has_begun(capfd):
    gate, go_on = gort.Chan(), gort.Chan()

    def late():
        go_on.recv()
        raise ValueError("late")

    def work():
        with gort.scope(patience=0.001) as s:
            s.go(stubborn, gate)
            s.go(late)

    g = waiter(lambda: caught(work))
    go_on.send(None)
    err = eventually(lambda: capfd.readouterr().err)
    assert "a scope waits" in err and "stubborn" in err
    gate.send(None)
    assert [str(e) for e in g.join(timeout=LIMIT).exceptions] == ["late"]


def test_hook_that_raises_is_written_and_the_scope_waits(capfd):
    gate = gort.Chan()

    def work():
        with gort.scope(patience=0.001, on_stuck=lambda *_: 1 / 0) as s:
            parked(s.go(stubborn, gate).goroutine)
            s.cancel()

    g = gort.go(work)
    eventually(lambda: "ZeroDivisionError" in capfd.readouterr().err)
    gate.send(None)
    g.join(timeout=LIMIT)


def test_long_scope_lets_go_of_children_that_have_ended():
    class Value:
        pass

    values = weakref.WeakSet()

    def make():
        value = Value()
        values.add(value)
        return value

    with gort.scope() as s:
        for _ in range(1000):
            s.go(make).join()
        gc.collect()
        assert len(values) < 200


def test_scope_is_dropped():
    with gort.scope() as s:
        s.go(int)
    gone = weakref.ref(s)
    del s
    gc.collect()
    assert gone() is None


def test_hundred_thousand_children(anywhere):
    def work():
        before = gort.num_goroutine()
        with gort.scope() as s:
            children = [s.go(int, n) for n in range(100_000)]
        if anywhere is in_thread:  # which may see the last one on the way out of its stack
            eventually(lambda: gort.num_goroutine() == before)
        assert gort.num_goroutine() == before
        return sum(child.result() for child in children)

    assert anywhere(work) == sum(range(100_000))


def test_ten_thousand_parked_children_are_cancelled():
    gate = gort.Chan()

    def work():
        with gort.scope() as s:
            for _ in range(10_000):
                s.go(gate.recv)
            s.go(gort.sleep, 0.001)
            s.go(fail, KeyError("x"))

    before = gort.num_goroutine()
    assert len(caught(work).exceptions) == 1
    assert gort.num_goroutine() == before


def test_deadlock_while_it_waits_ends_the_children():
    code = """
import gort
child = None
def work():
    global child
    with gort.scope() as s:
        child = s.go(gort.Chan().recv)
try:
    gort.run(work)
except ExceptionGroup as group:
    print([type(e).__name__ for e in group.exceptions], child.done)
"""
    check(
        code, "['DeadlockError'] True"
    )  # on its own: a thread of another test could wake somebody


def test_fake_time():
    from gort.testing import synctest

    def work():
        with gort.scope() as s:
            slow, quick = s.go(gort.sleep, 1000), s.go(gort.sleep, 10)
            quick.join()
            assert not slow.done
        with pytest.raises(ExceptionGroup) as info, gort.scope(timeout=60) as s:
            s.go(gort.sleep, 100)
        assert isinstance(info.value.exceptions[0], gort.DeadlineExceeded)
        told, gate = [], gort.Chan()
        with gort.scope(patience=5, on_stuck=lambda who, text: told.append(text)) as s:
            s.go(stubborn, gate)
            gort.sleep(1)
            s.cancel()
            s._on_stuck = lambda who, text: (told.append(text), gort.go(gate.send, None))
        return len(told)

    assert synctest.run(work) == 1


def test_forked_child_leaves_the_block_without_children():
    with gort.scope() as s:
        parked(s.go(gort.Chan().recv).goroutine)
        pid = os.fork()
        if pid == 0:
            try:
                s.__exit__(None, None, None)
                with gort.scope() as own:
                    child = own.go(int, "5")
                os._exit(0 if child.result() == 5 else 1)
            finally:
                os._exit(2)
        s.cancel()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
