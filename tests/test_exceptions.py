"""Exceptions that leave a goroutine: through join, through excepthook, and the ones that mean
something of their own.

SystemExit and KeyboardInterrupt follow threading: SystemExit ends its goroutine and nothing else,
and is never reported; KeyboardInterrupt raised by code in a goroutine is an exception like any
other (Ctrl-C itself goes to main).
"""

from __future__ import annotations

import gc
import sys
import traceback
import weakref

import gort
import pytest
from children import check, child
from waiting import LIMIT, eventually, in_goroutine, join_all, parked, settle


def fail(kind=ValueError, *args):
    gort.gosched()
    raise kind(*args)


# join raises it again


def test_join_raises_the_same_object_with_the_traceback_of_the_goroutine(anywhere):
    error = ValueError("one of its kind")

    def innermost():
        gort.gosched()
        raise error

    def outer():
        innermost()

    def join():
        with pytest.raises(ValueError) as info:
            gort.go(outer).join(timeout=LIMIT)
        return info.value

    got = anywhere(join)
    assert got is error
    names = [f.name for f in traceback.extract_tb(got.__traceback__)]
    assert names[0] == "join"
    assert names[-2:] == ["outer", "innermost"]


def test_join_repeated_raises_again_without_growing_the_traceback():
    def join():
        with pytest.raises(ValueError) as info:
            g.join(timeout=LIMIT)
        return len(traceback.extract_tb(info.value.__traceback__))

    g = gort.go(fail)
    lengths = [join() for _ in range(5)]
    assert lengths == [lengths[0]] * 5


def test_join_by_many_gives_each_the_exception():
    gate = gort.Chan()
    g = gort.go(lambda: fail(KeyError, gate.recv()))
    parked(g)
    joiners = [gort.go(g.join) for _ in range(20)]
    parked(*joiners)
    gate.send("x")
    for j in joiners:
        with pytest.raises(KeyError, match="x"):
            j.join(timeout=LIMIT)


def test_join_in_an_except_block_leaves_the_exceptions_own_context():
    g = gort.go(fail, KeyError, "inner")
    with pytest.raises(KeyError) as info:
        try:
            raise ValueError("outer")
        except ValueError:
            g.join(timeout=LIMIT)
    assert info.value.__context__ is None


def test_nested_join_chain_carries_the_exception_through_all_levels():
    def level(n):
        if n == 0:
            fail(LookupError, "at the bottom")
        return gort.go(level, n - 1).join()

    with pytest.raises(LookupError, match="at the bottom") as info:
        in_goroutine(level, 30)
    names = [f.name for f in traceback.extract_tb(info.value.__traceback__)]
    assert names.count("level") == 31
    assert names[-1] == "fail"


def test_exception_caught_on_the_way_of_a_nested_join_is_not_reported(reports):
    def middle():
        try:
            gort.go(fail).join()
        except ValueError as error:
            raise RuntimeError("in the middle") from error

    with pytest.raises(RuntimeError) as info:
        in_goroutine(middle)
    assert isinstance(info.value.__cause__, ValueError)
    gc.collect()
    settle()
    assert reports == []


@pytest.mark.parametrize(
    "kind",
    [
        StopIteration,
        GeneratorExit,
        StopAsyncIteration,
        MemoryError,
        RecursionError,
        TimeoutError,
        gort.ChanClosed,
        gort.Cancelled,
        gort.DeadlockError,
        AssertionError,
    ],
)
def test_any_exception_comes_out_of_join_as_it_is(kind):
    with pytest.raises(kind):
        gort.go(fail, kind).join(timeout=LIMIT)


def test_exception_group_and_notes_come_out_of_join():
    def body():
        error = ExceptionGroup("g", [ValueError(1), KeyError(2)])
        error.add_note("noted")
        raise error

    with pytest.raises(ExceptionGroup) as info:
        in_goroutine(body)
    own, spawned_at = info.value.__notes__
    assert own == "noted"
    assert " spawned at\n" in spawned_at
    assert len(info.value.exceptions) == 2


def test_timeout_of_join_is_told_from_a_timeout_error_of_the_goroutine():
    g = gort.go(fail, TimeoutError, "its own")
    with pytest.raises(TimeoutError, match="its own"):
        g.join(timeout=LIMIT)
    gate = gort.Chan()
    waiting = gort.go(gate.recv)
    with pytest.raises(TimeoutError) as info:
        waiting.join(timeout=0.001)
    assert "its own" not in str(info.value)
    gate.send(1)


def test_exception_that_cannot_be_made_is_an_exception():
    class Broken(Exception):
        def __init__(self):
            raise LookupError("no such exception")

    def body():
        raise Broken

    with pytest.raises(LookupError):
        in_goroutine(body)


def test_wrong_call_is_a_type_error_in_the_goroutine():
    with pytest.raises(TypeError, match="argument"):
        gort.go(lambda a: a).join(timeout=LIMIT)


# excepthook, once


def test_excepthook_is_called_once_however_often_it_is_collected(reports):
    for _ in range(20):
        gort.go(fail)
    eventually(lambda: gc.collect() >= 0 and len(reports) == 20)
    settle()
    gc.collect()
    assert len(reports) == 20
    assert all(
        r.exc_type is ValueError and r.exc_traceback is r.exc_value.__traceback__ for r in reports
    )


def test_excepthook_is_told_which_goroutine(reports):
    g = gort.spawn(fail, name="the one")
    number = g.id
    del g
    eventually(lambda: gc.collect() >= 0 and reports)
    assert (reports[0].goroutine.id, reports[0].goroutine.name) == (number, "the one")
    assert "fail" in [f.name for f in traceback.extract_tb(reports[0].exc_traceback)]


def test_join_with_timeout_that_ran_out_does_not_count_as_asking(reports):
    gate = gort.Chan()

    def body():
        gate.recv()
        fail()

    g = gort.go(body)
    with pytest.raises(TimeoutError):
        g.join(timeout=0.001)
    gate.send(None)
    del g
    eventually(lambda: gc.collect() >= 0 and reports)


def test_excepthook_may_park_and_start_goroutines(reports):
    done = gort.Chan(1)

    def hook(args):
        gort.sleep(0.001)
        done.send(gort.go(lambda: args.exc_type).join())

    gort.excepthook = hook
    gort.go(fail)
    eventually(lambda: gc.collect() >= 0 and len(done))
    assert done.recv() is ValueError


# SystemExit, KeyboardInterrupt, GoroutineExit


def test_system_exit_ends_the_goroutine_silently():
    done = child(
        """
        import gc, sys, gort
        gort.go(sys.exit, 3)
        gort.go(sys.exit)
        gort.go(lambda: exec("raise SystemExit('text')"))
        while gort.num_goroutine() > 1:
            gort.gosched()
        gc.collect()
        print("on")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")


def test_system_exit_comes_out_of_join():
    with pytest.raises(SystemExit) as info:
        gort.go(sys.exit, 3).join(timeout=LIMIT)
    assert info.value.code == 3


def test_system_exit_joined_by_main_ends_the_program_with_its_code():
    done = child("import sys, gort\ngort.run(lambda: gort.go(sys.exit, 5).join())")
    assert (done.returncode, done.stderr) == (5, "")


def test_keyboard_interrupt_raised_in_a_goroutine_stays_in_it(reports):
    gort.go(fail, KeyboardInterrupt)
    eventually(lambda: gc.collect() >= 0 and reports)
    assert reports[0].exc_type is KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        gort.go(fail, KeyboardInterrupt).join(timeout=LIMIT)


def test_goroutine_exit_swallowed_after_cancel_lets_the_goroutine_go_on(reports):
    def stubborn():
        try:
            gort.Chan().recv()
        except gort.GoroutineExit:
            pass
        gort.sleep(0.001)
        return "went on"

    g = gort.go(stubborn)
    parked(g)
    g.cancel()
    assert g.join(timeout=LIMIT) == "went on"
    assert reports == []


def test_goroutine_exit_replaced_by_another_exception_is_that_exception():
    def body():
        try:
            gort.Chan().recv()
        finally:
            raise ValueError("from the finally")

    g = gort.go(body)
    parked(g)
    g.cancel()
    with pytest.raises(ValueError, match="from the finally") as info:
        g.join(timeout=LIMIT)
    assert isinstance(info.value.__context__, gort.GoroutineExit)


def test_goroutine_exit_raised_by_hand_ends_it_like_goexit(reports):
    g = gort.go(fail, gort.GoroutineExit)
    assert g.join(timeout=LIMIT) is None
    gort.go(fail, gort.GoroutineExit)
    settle()
    gc.collect()
    assert reports == []


def test_finally_may_park_while_a_cancelled_goroutine_ends():
    out = gort.Chan()

    def body():
        try:
            gort.Chan().recv()
        finally:
            out.send("cleaning")
            gort.sleep(0.001)
            out.send("clean")

    g = gort.go(body)
    parked(g)
    g.cancel()
    assert [out.recv(timeout=LIMIT), out.recv(timeout=LIMIT)] == ["cleaning", "clean"]
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)


def test_goexit_in_a_generator_and_in_a_sort_unwinds_all():
    log = []

    def numbers():
        try:
            yield 1
            gort.goexit()
        finally:
            log.append("generator")

    def body():
        try:
            sorted(numbers(), key=lambda x: x)
        finally:
            log.append("body")

    assert gort.go(body).join(timeout=LIMIT) is None
    assert log == ["generator", "body"]


# nothing is kept


def test_exception_and_what_its_frames_hold_go_with_the_goroutine_object():
    class Thing:
        pass

    def body():
        thing = Thing()
        watches.append(weakref.ref(thing))
        fail(LookupError, thing)

    watches = []
    gs = [gort.go(body) for _ in range(20)]
    for g in gs:
        with pytest.raises(LookupError):
            g.join(timeout=LIMIT)
    assert len(watches) == 20
    del g, gs
    eventually(lambda: gc.collect() >= 0 and not any(w() for w in watches))


def test_reported_exception_is_let_go(reports):
    class Thing:
        pass

    def body():
        thing = Thing()
        watches.append(weakref.ref(thing))
        raise LookupError(thing)

    watches = []
    gort.go(body)
    eventually(lambda: gc.collect() >= 0 and reports)
    reports.clear()
    eventually(lambda: gc.collect() >= 0 and watches[0]() is None)


def test_exceptions_do_not_add_up():
    check(
        """
        import gc, gort
        from children import rss_kib

        def deep(n):
            pad = bytearray(1000)
            return deep(n - 1) if n else 1 / 0

        def round():
            for _ in range(20):
                gs = [gort.go(deep, 20) for _ in range(50)]
                for g in gs:
                    try:
                        g.join()
                    except ZeroDivisionError:
                        pass
            del g, gs
            gc.collect()

        for _ in range(3):
            round()
        base = rss_kib()
        for _ in range(5):
            round()
        assert rss_kib() - base < 4_000, rss_kib() - base
        """
    )


def test_exceptions_of_thousands_of_goroutines_reach_their_joiners():
    def body(i):
        fail(ValueError, i)

    def collect(i):
        try:
            gort.go(body, i).join()
        except ValueError as error:
            return error.args[0]

    assert join_all([gort.go(collect, i) for i in range(2000)]) == list(range(2000))


def test_exception_of_a_goroutine_at_exit_is_reported_in_full():
    done = child(
        """
        import gort
        g = gort.go(lambda: 1 / 0)
        while not g.done:
            gort.gosched()
        """
    )
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
    assert "ImportError" not in done.stderr


def test_report_without_a_descriptor_left_still_says_where():
    done = child(
        """
        import os, resource, sys, gort
        def fail():
            raise LookupError("lost")
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        sys.modules.pop("traceback", None)
        gort.gosched()
        while True:
            try:
                os.dup(0)
            except OSError:
                break
        g = gort.go(fail)
        del g
        while gort.num_goroutine() > 1:
            gort.gosched()
        """
    )
    assert "in fail" in done.stderr
    assert "LookupError: lost" in done.stderr
