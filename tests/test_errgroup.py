"""gort.errgroup beyond the ported tests: limits, cancelled goroutines, errors of every kind, many children."""

from __future__ import annotations

import gort
import pytest
from gort import errgroup
from gort.context import background
from waiting import LIMIT, OnThread, eventually, parked, raises_text, settle, waiter


def fail(error):
    raise error


def test_works_anywhere(anywhere):
    def work():
        group, out = errgroup.Group(), []
        for i in range(5):
            group.go(out.append, i)
        group.wait()
        return sorted(out)

    assert anywhere(work) == [0, 1, 2, 3, 4]


def test_arguments_are_passed_on():
    group, out = errgroup.Group(), {}
    group.go(out.update, a=1)
    assert group.try_go(out.update, [("b", 2)], c=3)
    group.wait()
    assert out == {"a": 1, "b": 2, "c": 3}


def test_first_error_only_and_no_report(reports):
    group, first = errgroup.Group(), KeyError("first")
    group.go(fail, first)
    eventually(lambda: group._error)  # who is started last begins first
    for i in range(5):
        group.go(fail, ValueError(i))
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            group.wait()
        assert caught.value is first
    assert reports == []


def test_error_has_its_traceback_once_and_says_where_it_was_started():
    group = errgroup.Group()
    group.go(fail, KeyError("x"))
    lengths = []
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            group.wait()
        lengths.append(len(caught.traceback))
        assert caught.traceback[-1].name == "fail"
    assert len(set(lengths)) == 1
    (note,) = caught.value.__notes__
    assert "spawned at" in note and __file__ in note


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, BaseException])
def test_any_exception_is_the_error(kind):
    group, ctx = errgroup.with_context(background())
    error = kind("it")
    group.go(fail, error)
    with pytest.raises(kind):
        group.wait()
    assert ctx.cause() is error


def test_first_error_ends_the_context_while_others_run():
    group, ctx = errgroup.with_context(background())
    error, ended = ValueError("no"), []

    def until_done():
        ctx.done().recv_ok()
        ended.append(ctx.cause())

    group.go(until_done)
    group.go(fail, error)
    with pytest.raises(ValueError, match="no"):
        group.wait()
    assert ended == [error]


@pytest.mark.parametrize("limit", [None, 1])
def test_goexit_counts_as_done(limit):
    group = errgroup.Group()
    if limit is not None:
        group.set_limit(limit)
    for _ in range(3):
        group.go(gort.goexit)
    group.wait(timeout=LIMIT)


@pytest.mark.parametrize("begun", [False, True])
def test_cancelled_goroutine_counts_as_done_and_gives_its_place_back(begun):
    group, gate = errgroup.Group(), gort.Chan()
    group.set_limit(1)
    before = {g.id for g in gort.goroutines()}
    group.go(gate.recv)
    (g,) = [g for g in gort.goroutines() if g.id not in before]
    if begun:
        parked(g)
    g.cancel()
    group.wait(timeout=LIMIT)
    assert group.try_go(int)
    group.wait(timeout=LIMIT)


def test_go_waits_for_a_place_and_who_is_cancelled_there_takes_none():
    group, gate, out = errgroup.Group(), gort.Chan(), []
    group.set_limit(1)
    group.go(gate.recv)
    first = waiter(lambda: group.go(out.append, 1))
    second = waiter(lambda: group.go(out.append, 2))
    assert first.cancel()
    with pytest.raises(gort.Cancelled):
        first.join(timeout=LIMIT)
    assert not group.try_go(out.append, 3)
    gate.send(None)
    second.join(timeout=LIMIT)
    group.wait(timeout=LIMIT)
    assert out == [2]
    assert group.try_go(int)
    group.wait()


def test_wait_does_not_wait_for_who_waits_for_a_place():
    group = errgroup.Group()
    group.set_limit(0)
    blocked = waiter(group.go, int)
    group.wait(timeout=LIMIT)
    blocked.cancel()


def test_limit_cannot_change_while_goroutines_are_active():
    group, gate = errgroup.Group(), gort.Chan()
    group.set_limit(3)
    group.go(gate.recv)
    group.go(gate.recv)
    text = "errgroup: modify limit while 2 goroutines in the group are still active"
    with raises_text(RuntimeError, text):
        group.set_limit(4)
    group.set_limit(-1)  # no limit may always be set, as in Go
    for _ in range(5):
        assert group.try_go(int)
    group.set_limit(1)  # those of the old limit do not count, and give back to it
    gate.send(None)
    gate.send(None)
    group.wait(timeout=LIMIT)
    assert group.try_go(gate.recv)
    assert not group.try_go(int)
    gate.send(None)
    group.wait(timeout=LIMIT)


def test_wait_times_out_and_cancels_nothing():
    group, ctx = errgroup.with_context(background())
    gate = gort.Chan()
    group.go(gate.recv)
    with pytest.raises(TimeoutError):
        group.wait(timeout=0.01)
    assert ctx.err() is None
    gate.send(None)
    group.wait(timeout=LIMIT)
    assert ctx.err() is not None


def test_plain_threads_and_goroutines_share_a_group():
    group, gate, out = errgroup.Group(), gort.Chan(), []
    group.set_limit(2)
    group.go(gate.recv)
    group.go(gate.recv)
    thread = OnThread(group.go, out.append, 1)
    settle()
    assert not thread.done
    gate.send(None)
    eventually(lambda: thread.done)
    gate.send(None)
    OnThread(group.wait).join()
    assert out == [1]


@pytest.mark.parametrize("name", ["go", "try_go"])
def test_bad_arguments(name):
    group = errgroup.Group()
    with raises_text(TypeError, "needs a callable, not int"):
        getattr(group, name)(5)
    with pytest.raises(TypeError):
        group.set_limit("many")
    with pytest.raises(TypeError):
        errgroup.with_context(None)
    group.wait()


def test_children_of_children_are_waited_for():
    group, seen = errgroup.Group(), []

    def spread(depth):
        seen.append(depth)
        if depth:
            group.go(spread, depth - 1)
            group.go(spread, depth - 1)

    group.go(spread, 6)
    group.wait()
    assert len(seen) == 2**7 - 1


def test_hundred_thousand_children():
    group, ctx = errgroup.with_context(background())
    before, count = gort.num_goroutine(), []
    for i in range(100_000):
        group.go(count.append, i)
    group.wait()
    assert len(count) == 100_000
    assert ctx.err() is not None
    eventually(lambda: gort.num_goroutine() == before)


def test_group_is_dropped_with_its_errors():
    import weakref

    group = errgroup.Group()
    group.go(fail, ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        group.wait()
    gone = weakref.ref(group)
    del group
    import gc

    gc.collect()
    assert gone() is None


def test_fake_time():
    from gort.testing import synctest

    def work():
        group, ended = errgroup.Group(), []
        for seconds in (300.0, 100.0, 200.0):
            group.go(lambda s=seconds: (gort.sleep(s), ended.append(s)))
        group.wait()
        return ended

    assert synctest.run(work) == [100.0, 200.0, 300.0]
