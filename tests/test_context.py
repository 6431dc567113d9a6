"""Contexts: what Go's tests do not ask. Python's side of them, big trees, memory, bad input."""

from __future__ import annotations

import gc
import pickle
import re
import time
import weakref

import gort
import pytest
from gort import context, leak
from gort.context import background, with_cancel, with_cancel_cause, with_timeout, with_value
from gort.testing import synctest
from waiting import LIMIT, eventually, settle


def test_with_statement_cancels_at_its_end():
    with with_cancel(background()) as ctx:
        assert ctx.err() is None
    assert isinstance(ctx.err(), gort.ContextCanceled)
    with pytest.raises(ZeroDivisionError), with_cancel_cause(background()) as ctx:
        raise ZeroDivisionError
    assert ctx.cause() is ctx.err()


def test_done_is_one_view_that_cannot_be_closed():
    with with_cancel(background()) as ctx:
        assert ctx.done() is ctx.done()
        with pytest.raises(TypeError):
            ctx.done().close()


def test_done_of_one_that_is_done_already():
    ctx, cancel = with_cancel(background())
    cancel()
    assert ctx.done().recv_ok() == (None, False)


def test_err_is_the_same_in_the_tree_and_one_object_each_time():
    ctx, cancel = with_cancel(background())
    below = with_value(with_cancel(with_value(ctx, "k", 1))[0], "l", 2)
    cancel()
    assert below.err() is ctx.err() is below.err()
    assert str(ctx.err()) == "context canceled"


def test_one_cancelled_before_its_parent_has_its_own_err():
    ctx, cancel = with_cancel_cause(background())
    child, cancel_child = with_cancel(ctx)
    cancel_child()
    cancel(OSError())
    assert child.err() is not ctx.err()
    assert child.cause() is child.err()


def test_deadline_is_in_seconds_since_1970_and_the_earlier_counts():
    before = time.time()
    outer, cancel = with_timeout(background(), 100)
    assert before + 100 <= outer.deadline() <= time.time() + 100
    inner, _ = with_timeout(with_value(outer, "k", 1), 200)
    assert inner.deadline() == outer.deadline()
    assert with_timeout(outer, 50)[0].deadline() < outer.deadline()
    assert context.without_cancel(outer).deadline() is None
    cancel()


def test_endless_deadline_is_none():
    ctx, cancel = with_timeout(background(), float("inf"))
    assert ctx.deadline() is None
    cancel()
    assert isinstance(ctx.err(), gort.ContextCanceled)


def test_text_shows_the_time_left():
    ctx, cancel = with_timeout(background(), 5400.5)
    assert re.search(
        r"\.WithDeadline\(\d{4}-\d\d-\d\d [\d:.]+ [+-]\d{4} \w+ \[1h(30m0|29m59)[\d.]*s\]\)$",
        str(ctx),
    )
    assert repr(ctx).startswith("<gort.context.Context context.Background.WithDeadline(")
    cancel()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (1.5e-6, "1.5µs"), (2e-9, "2ns"), (0.1, "100ms"), (1.25, "1.25s"), (60, "1m0s"),
        (3661.5, "1h1m1.5s"), (-2, "-2s"), (float("inf"), "infs"),
    ],
)  # fmt: skip
def test_durations_are_written_as_go_does(seconds, text):
    assert context._go_duration(seconds) == text


def test_times_are_written_as_go_does():
    assert context._go_time(1.5).endswith(time.strftime(".5 %z %Z", time.localtime(1)))
    assert context._go_time(0).startswith(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(0)))
    assert context._go_time(1e300) == "1e+300"


def test_texts_of_keys_and_values():
    ctx = with_value(with_value(background(), 1, None), "k", OSError("text"))
    assert str(ctx) == "context.Background.WithValue(int, <nil>).WithValue(k, text)"
    assert str(context.without_cancel(background())) == "context.Background.WithoutCancel"


def test_current_context_is_carried_into_goroutines():
    ctx = with_value(background(), "user", "gopher")
    seen = gort.Chan(3)

    def look(key=None):
        seen.send(gort.current_context())
        if key:
            gort.go(look)

    assert gort.current_context() is background()
    ctx.run(look, key=True)
    assert seen.recv() is seen.recv(timeout=LIMIT) is ctx
    with pytest.raises(ZeroDivisionError):
        ctx.run(lambda: 1 // 0)
    assert gort.current_context() is background()


def test_run_nests_over_parks():
    inner = with_value(background(), "n", 2)
    outer = with_value(background(), "n", 1)

    def nested():
        inner.run(gort.gosched)
        return gort.current_context().value("n")

    goroutines = [gort.go(outer.run, nested) for _ in range(10)]
    assert [g.join() for g in goroutines] == [1] * 10


# Big trees.


def test_many_children_are_cancelled_and_let_go():
    ctx, cancel = with_cancel(background())
    children = [with_cancel(ctx)[0] for _ in range(100_000)]
    calls = gort.Chan(1)
    context.after_func(children[-1], calls.send, None)
    cancel()
    assert {type(c.err()) for c in children} == {gort.ContextCanceled}
    calls.recv(timeout=LIMIT)
    assert [c for c in gc.get_referents(ctx) if isinstance(c, context.Context)] == [background()]


def test_deep_tree_is_cancelled_and_let_go():
    ctx, cancel = with_cancel(background())
    leaf = ctx
    for i in range(50_000):
        leaf = with_value(with_cancel(leaf)[0], i, i)
    assert leaf.value(0) == 0
    assert str(leaf).endswith(".WithValue(int, int)")
    cancel()
    assert leaf.err() is ctx.err()
    gone = weakref.ref(ctx)
    del ctx, cancel, leaf
    assert gone() is None


def test_deep_tree_that_nobody_cancels_is_collected():
    ctx, cancel = with_cancel(background())
    leaf = ctx
    for _ in range(50_000):
        leaf = with_cancel(leaf)[0]
    gone = weakref.ref(ctx)
    del ctx, cancel, leaf
    gc.collect()
    assert gone() is None


# Memory.


class Thing:
    """Something that can be referred to weakly."""


def test_cancelled_tree_is_gone_without_a_collection():
    ctx, cancel = with_cancel(background())
    things = [Thing() for _ in range(3)]
    child = with_value(with_cancel(ctx)[0], "k", things[0])
    context.after_func(child, lambda _: None, things[1])
    timed = with_timeout(with_value(child, "k", things[2]), 3600)[0]
    gone = [weakref.ref(t) for t in (*things, ctx, child, timed)]
    del things, child, timed
    cancel()
    settle()
    del ctx, cancel
    assert [g() for g in gone] == [None] * len(gone)


def test_function_that_refers_to_its_context_is_collected():
    thing = Thing()
    ctx, cancel = with_cancel(background())
    context.after_func(ctx, print, ctx, cancel, thing)
    gone = weakref.ref(thing)
    del ctx, cancel, thing
    gc.collect()
    assert gone() is None


def test_deadline_that_nobody_refers_to_still_calls_its_function():
    called = gort.Chan(1)
    context.after_func(with_cancel(with_timeout(background(), 0.001)[0])[0], called.send, 1)
    gc.collect()
    assert called.recv(timeout=LIMIT) == 1


def test_what_a_deadline_let_go_of_is_gone_at_the_next_use():
    thing = Thing()
    gone = weakref.ref(thing)
    ctx = with_timeout(background(), 0.001)[0]
    with_cancel(with_value(ctx, "k", thing))
    done = ctx.done()
    del ctx, thing
    done.recv_ok(timeout=LIMIT)
    with_cancel(background())
    assert gone() is None


def test_cancelling_stops_the_timer():
    before = gort.stats()["timers"]
    ctx, cancel = with_timeout(background(), 3600)
    below = [with_timeout(ctx, 1800 - i)[0] for i in range(10)]
    assert gort.stats()["timers"] == before + 11
    cancel()
    assert gort.stats()["timers"] == before
    assert isinstance(below[0].err(), gort.ContextCanceled)


def test_cancelled_context_is_no_leak_and_its_waiters_go_on():
    ctx, cancel = with_cancel(background())
    g = gort.go(ctx.done().recv_ok)
    eventually(lambda: g.status == "chan receive")
    assert leak.find() == []
    cancel()
    assert g.join() == (None, False)


def test_destructors_may_use_contexts():
    ctx, cancel = with_cancel(background())

    class Nosy:
        def __init__(self, n):
            self.n = n

        def __del__(self):
            cancel()
            with_cancel(ctx)

    for n in range(10):
        with_value(with_cancel(ctx)[0], "k", Nosy(n))
        with_cancel(with_value(ctx, "k", Nosy(n)))
    cancel()
    assert isinstance(ctx.err(), gort.ContextCanceled)


# In a bubble.


def test_deadlines_in_a_bubble_go_by_its_clock():
    def body():
        began = time.monotonic()
        ctx, cancel = with_timeout(background(), 3600)
        assert ctx.deadline() == time.time() + 3600
        assert ctx.done().recv_ok() == (None, False)
        assert isinstance(ctx.err(), gort.DeadlineExceeded)
        assert time.monotonic() - began == 3600
        cancel()

    synctest.run(body)


# Contexts of others.


def test_context_itself_is_not_made():
    with pytest.raises(TypeError, match="subclass it"):
        context.Context()


def test_subclass_without_anything_is_as_background():
    class Empty(context.Context):
        pass

    ctx = Empty()
    assert (ctx.done(), ctx.err(), ctx.deadline(), ctx.value(1), ctx.cause()) == (None,) * 5
    assert str(with_cancel(ctx)[0]).endswith("Empty.WithCancel")


def test_context_of_another_kind_that_fails_is_no_parent():
    class Broken:
        def done(self):
            raise OSError("broken")

        err = deadline = value = done

    for make in (with_cancel, lambda c: with_timeout(c, 1), lambda c: context.after_func(c, print)):
        with pytest.raises(OSError, match="broken"):
            make(Broken())


def test_collected_with_a_parent_of_another_kind():
    class Named(context.Context):
        pass

    inner, cancel = with_cancel(background())
    parent = Named(inner)
    parent.me = parent
    gone = weakref.ref(parent)
    with_cancel(parent)
    del parent, inner, cancel
    gc.collect()
    assert gone() is None


# Bad input.


@pytest.mark.parametrize(
    "call",
    [
        lambda: with_cancel(5),
        lambda: with_timeout(background(), "1"),
        lambda: with_timeout(background(), None),
        lambda: with_timeout(background(), True),
        lambda: context.with_deadline(background(), object()),
        lambda: context.with_timeout_cause(background(), 1, "why"),
        lambda: with_cancel_cause(background())[1]("why"),
        lambda: with_cancel_cause(background())[1](OSError),
        lambda: with_value(None, 1, 2),
        lambda: context.without_cancel(None),
        lambda: context.cause(None),
        lambda: context.after_func(None, print),
        lambda: context.after_func(background(), 5),
        lambda: background().run(),
        lambda: background().run(5),
        lambda: background().value(),
        lambda: with_cancel(),
    ],
)
def test_wrong_arguments_are_type_errors(call):
    with pytest.raises(TypeError):
        call()


def test_nan_is_a_value_error():
    for make in (with_timeout, context.with_deadline):
        with pytest.raises(ValueError, match="must not be nan"):
            make(background(), float("nan"))


def test_key_whose_hash_or_comparison_fails():
    class Bad:
        def __hash__(self):
            raise OSError("hash")

    with pytest.raises(OSError, match="hash"):
        with_value(background(), Bad(), 1)

    class Worse:
        __hash__ = object.__hash__

        def __eq__(self, other):
            raise OSError("eq")

    with pytest.raises(OSError, match="eq"):
        with_value(background(), Worse(), 1).value("k")


def test_exceptions_can_be_pickled():
    for kind in (gort.ContextCanceled, gort.DeadlineExceeded):
        again = pickle.loads(pickle.dumps(kind()))
        assert (type(again), str(again)) == (kind, str(kind()))
