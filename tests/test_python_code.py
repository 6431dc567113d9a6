"""Ordinary Python code under goroutines: what a program relies on without thinking of goroutines
at all.
"""

from __future__ import annotations

import contextlib
import contextvars
import decimal
import sys
import threading
import time
import traceback
import warnings

import gort
import pytest
from waiting import LIMIT, in_goroutine, join_all, parked

MANY = 50


def pause(n=0):
    """Park in one of several ways."""
    if n % 3 == 0:
        gort.gosched()
    elif n % 3 == 1:
        gort.sleep(0.0005)
    else:
        meeting = gort.Chan()
        gort.go(meeting.send, n)
        assert meeting.recv() == n


def at_once(body, count=MANY):
    """Run body(i) in many goroutines at once; their results."""
    return join_all([gort.go(body, i) for i in range(count)])


# generators


def test_generator_send_and_throw_reach_it_across_parks():
    def echo():
        got = []
        while True:
            try:
                got.append((yield len(got)))
                pause(len(got))
            except KeyError as error:
                pause()
                got.append(error.args[0])
            except GeneratorExit:
                pause(2)
                closed.append(got)
                raise

    def body(i):
        g = echo()
        assert next(g) == 0
        assert g.send("a") == 1
        assert g.throw(KeyError(i)) == 2
        assert g.send("c") == 3
        g.close()
        return i

    closed = []
    assert at_once(body) == list(range(MANY))
    assert sorted(c[1] for c in closed) == list(range(MANY))


def test_generator_moves_between_goroutines():
    def numbers():
        for i in range(10):
            pause(i)
            yield gort.current().id, i

    g = numbers()
    seen = [gort.go(next, g).join(timeout=LIMIT) for _ in range(10)]
    assert [i for _, i in seen] == list(range(10))
    assert len({who for who, _ in seen}) == 10


def test_generator_entered_by_two_goroutines_at_once_raises():
    gate = gort.Chan()

    def body():
        gate.recv()
        yield 1

    g = body()
    first = gort.go(next, g)
    parked(first)
    with pytest.raises(ValueError, match="generator already executing"):
        next(g)
    gate.send(None)
    assert first.join(timeout=LIMIT) == 1


def test_yield_from_delegates_across_parks_and_returns():
    def inner(n):
        total = 0
        for i in range(n):
            pause(i)
            total += yield i
        return total

    def outer():
        return (yield from inner(4)) + (yield from inner(3))

    def body(i):
        g = outer()
        next(g)
        with pytest.raises(StopIteration) as info:
            while True:
                g.send(i)
        return info.value.value

    assert at_once(body) == [7 * i for i in range(MANY)]


def test_generator_dropped_while_suspended_runs_its_finally_in_the_dropping_goroutine():
    out = gort.Chan(1)

    def body():
        try:
            yield
        finally:
            pause(2)
            out.send(gort.current().id)

    def drop():
        g = body()
        next(g)
        del g
        return gort.current().id

    assert in_goroutine(drop) == out.recv(timeout=LIMIT)


def test_async_generator_and_coroutine_driven_by_hand_park():
    async def ticks(n):
        for i in range(n):
            pause(i)
            yield i

    async def main():
        return [i async for i in ticks(5)]

    def body(_):
        coroutine = main()
        with pytest.raises(StopIteration) as info:
            coroutine.send(None)
        return info.value.value

    assert at_once(body) == [[0, 1, 2, 3, 4]] * MANY


# context managers


def test_context_manager_functions_park_inside():
    @contextlib.contextmanager
    def managed(log):
        pause(1)
        log.append("in")
        try:
            yield log
        finally:
            pause(2)
            log.append("out")

    def body(i):
        log = []
        with contextlib.suppress(ZeroDivisionError), managed(log), managed(log):
            pause(i)
            1 / 0
        return log

    assert at_once(body) == [["in", "in", "out", "out"]] * MANY


def test_exit_stack_unwinds_in_order_when_cancelled():
    log = []

    def body():
        with contextlib.ExitStack() as stack:
            for i in range(3):
                stack.callback(lambda i=i: (pause(i), log.append(i)))
            gort.Chan().recv()

    g = gort.go(body)
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert log == [2, 1, 0]


# exceptions in flight


def test_exception_being_handled_is_the_goroutines_own():
    def body(i):
        assert sys.exc_info() == (None, None, None)
        try:
            raise ValueError(i)
        except ValueError as outer:
            pause(i)
            assert sys.exc_info()[1] is outer
            try:
                pause(i + 1)
                raise KeyError(i)
            except KeyError as inner:
                pause(i + 2)
                assert sys.exc_info()[1] is inner
                assert inner.__context__ is outer
            assert sys.exc_info()[1] is outer
        pause(i)
        assert sys.exc_info() == (None, None, None)
        return i

    assert at_once(body) == list(range(MANY))


def test_goroutine_started_in_an_except_block_does_not_inherit_the_exception():
    try:
        raise ValueError
    except ValueError:
        g = gort.go(sys.exc_info)
        h = gort.go(lambda: 1 / 0)
        assert g.join(timeout=LIMIT) == (None, None, None)
    with pytest.raises(ZeroDivisionError) as info:
        h.join(timeout=LIMIT)
    assert info.value.__context__ is None


def test_raise_from_and_finally_that_parks_keep_cause_context_and_traceback():
    def lowest(i):
        pause(i)
        raise KeyError(i)

    def middle(i):
        try:
            lowest(i)
        except KeyError as error:
            pause(i + 1)
            raise LookupError(i) from error
        finally:
            pause(i + 2)

    def body(i):
        with pytest.raises(LookupError) as info:
            middle(i)
        return info.value

    for i, error in enumerate(at_once(body)):
        assert error.args == (i,)
        assert error.__cause__.args == (i,)
        assert error.__context__ is error.__cause__
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names == ["body", "middle"]
        assert [f.name for f in traceback.extract_tb(error.__cause__.__traceback__)] == [
            "middle",
            "lowest",
        ]


def test_exception_groups_split_across_parks():
    def body(i):
        log = []
        try:
            raise ExceptionGroup(
                "g", [ValueError(i), KeyError(i), ExceptionGroup("h", [ValueError(-i)])]
            )
        except* ValueError as group:
            pause(i)
            log.append([e.args for e in group.exceptions if not isinstance(e, ExceptionGroup)])
        except* KeyError as group:
            pause(i + 1)
            log.append([e.args for e in group.exceptions])
        return log

    assert at_once(body) == [[[(i,)], [(i,)]] for i in range(MANY)]


def test_traceback_of_a_parked_goroutine_shows_where_it_is():
    def waits_here():
        gort.Chan().recv()

    g = gort.go(waits_here)
    parked(g)
    stacks = ["".join(traceback.format_stack(frame)) for frame in sys._current_frames().values()]
    assert sum("waits_here" in stack for stack in stacks) == 1
    g.cancel()


def test_stack_seen_in_a_goroutine_starts_with_its_function():
    def names():
        pause(2)
        return [frame.name for frame in traceback.extract_stack()]

    assert in_goroutine(lambda: names()) == ["<lambda>", "names"]


# what belongs to a context or a thread


def test_contextvars_are_copied_at_spawn_and_changes_stay_inside():
    var = contextvars.ContextVar("var", default="none")
    var.set("outer")

    def body(i):
        seen = var.get()
        var.set(i)
        pause(i)
        inner = gort.go(var.get).join(timeout=LIMIT)
        assert var.get() == i
        return seen, inner

    def late():
        gate.recv()
        return var.get()

    gate = gort.Chan()
    g = gort.go(late)
    assert at_once(body) == [("outer", i) for i in range(MANY)]
    assert var.get() == "outer"
    var.set("changed after the spawn")
    gate.send(None)
    assert g.join(timeout=LIMIT) == "outer"


def test_threading_local_belongs_to_the_goroutine():
    class Local(threading.local):
        def __init__(self):
            pause()
            self.made_by = gort.current().id

    local = threading.local()
    typed = None

    def body(i):
        assert not hasattr(local, "value")
        local.value = i
        pause(i)
        assert typed.made_by == gort.current().id
        pause(i + 1)
        return local.value

    typed = in_goroutine(Local)
    local.value = "main"
    assert at_once(body) == list(range(MANY))
    assert local.value == "main"


def test_threading_local_values_go_when_the_goroutine_ends():
    class Thing:
        pass

    import weakref

    local = threading.local()

    def body():
        local.thing = Thing()
        pause(1)
        return weakref.ref(local.thing)

    watches = join_all([gort.go(body) for _ in range(20)])
    assert [w() for w in watches] == [None] * 20


def test_decimal_contexts_do_not_mix():
    # As in asyncio, the spawner's context is shared until a goroutine sets one of its own:
    # copies are shallow.
    def body(i):
        decimal.setcontext(decimal.Context(prec=i + 1))
        pause(i)
        with decimal.localcontext() as context:
            context.prec = 3
            pause(i + 1)
            assert str(decimal.Decimal(1) / 3) == "0.333"
        return len(str(decimal.Decimal(1) / 3)) - 2

    before = decimal.getcontext().prec
    assert at_once(body) == [i + 1 for i in range(MANY)]
    assert decimal.getcontext().prec == before


def test_catch_warnings_works_over_a_park():
    # Up to 3.13 (and by default later) the filters belong to the process: one block at a time.
    def body():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            warnings.warn("before", UserWarning, stacklevel=1)
            pause(2)
            warnings.warn("after", UserWarning, stacklevel=1)
        return [str(w.message) for w in seen]

    assert in_goroutine(body) == ["before", "after"]


# tools that watch every line


def test_trace_function_of_one_goroutine_is_not_seen_by_another():
    def tracer(frame, event, arg):
        traced.append((gort.current().id, frame.f_code.co_name))
        return tracer

    def watched():
        pause(2)
        return gort.current().id

    def other():
        pause(2)
        assert sys.gettrace() is None

    def with_trace():
        sys.settrace(tracer)
        try:
            return watched()
        finally:
            sys.settrace(None)

    traced = []
    ordinary = sys.gettrace()
    others = [gort.go(other) for _ in range(10)]
    who = gort.go(with_trace)
    number = who.join(timeout=LIMIT)
    join_all(others)
    assert {i for i, _ in traced} == {number}
    assert "watched" in {name for _, name in traced}
    assert sys.gettrace() is ordinary


def test_profile_function_of_one_goroutine_is_not_seen_by_another():
    def profiler(frame, event, arg):
        seen.append(gort.current().id)

    def with_profile():
        sys.setprofile(profiler)
        try:
            pause(1)
            pause(2)
            len([])
        finally:
            sys.setprofile(None)
        return gort.current().id

    seen = []
    others = [gort.go(pause, 2) for _ in range(10)]
    number = gort.go(with_profile).join(timeout=LIMIT)
    join_all(others)
    assert set(seen) == {number}


def test_cprofile_works_in_a_goroutine():
    import cProfile
    import pstats

    def work():
        for i in range(9):
            pause(i)

    def body():
        with cProfile.Profile() as profile:
            work()
        return pstats.Stats(profile).get_stats_profile().func_profiles

    profiles = in_goroutine(body)
    assert profiles["work"].ncalls == "1"
    assert profiles["pause"].ncalls == "9"


def test_time_sleep_and_other_blocking_calls_are_just_calls():
    def body(i):
        time.sleep(0.001)
        return i

    assert at_once(body) == list(range(MANY))
