"""gort.flow: what comes out of merge, fan_out and pipeline, and that nothing stays behind however they end."""

from __future__ import annotations

import gc

import gort
import pytest
from gort.flow import Stream, fan_out, merge, pipeline
from gort.testing import no_leaks, synctest
from waiting import LIMIT, OnThread, eventually, join_all, parked, waiter


def filled(*values):
    ch = gort.Chan(len(values))
    for value in values:
        ch.send(value)
    ch.close()
    return ch


def endless(log=None):
    n = 0
    try:
        while True:
            yield n
            n += 1
    finally:
        if log is not None:
            log.append("closed")


class Boom(Exception):
    pass


def fails_at(n):
    yield from range(n)
    raise Boom(n)


def test_merge_gives_all_values_of_all_sources(anywhere):
    def body():
        with no_leaks():
            a, b = filled(1, 2), filled(3).receiver()
            found = merge(a, b, [4, 5], (n for n in (6,)), merge([7]))
            assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]
            assert list(merge()) == []

    anywhere(body)


def test_merge_keeps_the_order_of_each_source():
    seen = list(merge(*([(k, n) for n in range(50)] for k in range(4))))
    assert len(seen) == 200
    for k in range(4):
        assert [n for j, n in seen if j == k] == list(range(50))


def test_merge_goes_on_while_one_source_waits():
    slow = gort.Chan()
    with no_leaks(), merge(slow, [1, 2, 3]) as stream:
        assert [stream.recv() for _ in range(3)] == [1, 2, 3]
        with pytest.raises(TimeoutError):
            stream.recv(timeout=0)
        slow.send(4)
        assert stream.recv() == 4
        slow.close()
        assert stream.recv_ok() == (None, False)
        with pytest.raises(gort.ChanClosed):
            stream.recv()


@pytest.mark.parametrize("n", [0, 1, 5])
def test_exception_of_a_source_comes_after_its_values_and_ends_the_others(n):
    log = []
    with no_leaks():
        seen = []
        with pytest.raises(Boom) as caught:
            seen.extend(merge(fails_at(n)))
        assert caught.traceback[-1].name == "fails_at"
        stream = merge(endless(log), fails_at(n), gort.Chan())
        with pytest.raises(Boom):
            for value in stream:
                seen.append(value)
        for _ in range(2):
            with pytest.raises(Boom) as caught:  # and again, with no more frames each time
                stream.recv()
            assert len(caught.traceback) < 7
        eventually(lambda: log == ["closed"])


@pytest.mark.parametrize("taken", [0, 1, 10])
def test_closing_early_ends_what_is_behind(taken):
    log = []
    with no_leaks():
        for make in (
            lambda: merge(endless(log), endless(log)),
            lambda: fan_out(endless(log), str, 3),
            lambda: fan_out(endless(log), str, 3, ordered=True),
            lambda: pipeline(endless(log), doubled, doubled),
            lambda: pipeline(merge(endless(log), cap=3), in_parallel, doubled, cap=2),
        ):
            with make() as stream:
                for _ in range(taken):
                    stream.recv()
            assert gort.num_goroutine() == 1 or taken == 0  # close() waits for all
            stream.close()
            assert stream.recv_ok() == (None, False)
    assert len(log) >= 5 or taken == 0  # a generator that never began has nothing to close


def doubled(values):
    for value in values:
        yield 2 * value


def in_parallel(values):
    return fan_out(values, lambda n: n + 1, 3, ordered=True)


def test_dropping_a_stream_ends_what_is_behind():
    log = []
    with no_leaks():
        stream = pipeline(endless(log), doubled, in_parallel)
        assert stream.recv() == 1
        del stream
        gc.collect()
        eventually(lambda: log == ["closed"])


def test_a_channel_that_is_a_source_stays_open():
    ch = gort.Chan()
    with no_leaks():
        with merge(ch) as stream:
            g = waiter(stream.recv)
            ch.send(1)
            assert g.join(timeout=LIMIT) == 1
        assert not ch.closed


def test_a_stream_is_a_case_of_select():
    with no_leaks(), merge([1]) as stream:
        assert gort.select(gort.recv(gort.Chan()), gort.recv(stream)) == (1, 1, True)
        assert gort.select(gort.recv(stream)) == (0, None, False)


def test_several_may_read_one_stream():
    with no_leaks():
        stream = merge(range(500), cap=5)
        readers = [gort.go(list, stream) for _ in range(3)] + [OnThread(list, stream)]
        assert sorted(sum(join_all(readers), [])) == list(range(500))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("workers", [1, 4, 30])
def test_fan_out_calls_for_each_value(ordered, workers):
    with no_leaks():
        found = list(fan_out(range(20), lambda n: n * n, workers, ordered=ordered))
        assert (found if ordered else sorted(found)) == [n * n for n in range(20)]
        assert list(fan_out(filled(), str, workers, ordered=ordered)) == []


@synctest.test
def test_fan_out_runs_so_many_at_once_and_no_more():
    running, most = 0, 0

    def work(n):
        nonlocal running, most
        running += 1
        most = max(most, running)
        gort.sleep(1)
        running -= 1
        return n

    for ordered in (False, True):
        most = 0
        begun = gort._core._now_ns()
        assert sorted(fan_out(range(12), work, 4, ordered=ordered)) == list(range(12))
        assert most == 4 and gort._core._now_ns() - begun == 3 * 10**9


@synctest.test
def test_results_come_as_they_are_ready_or_in_order():
    def work(n):
        gort.sleep(n)
        return n

    assert list(fan_out([3, 1, 2], work, 3)) == [1, 2, 3]
    assert list(fan_out([3, 1, 2], work, 3, ordered=True)) == [3, 1, 2]


@synctest.test
def test_in_order_a_slow_one_holds_up_as_many_as_there_are_workers():
    begun = []

    def work(n):
        begun.append(n)
        gort.sleep(100 if n == 0 else 0)
        return n

    with fan_out(endless(), work, 3, ordered=True):
        gort.sleep(50)
        assert max(begun) <= 5


@pytest.mark.parametrize("ordered", [False, True])
def test_exception_of_a_worker_ends_all(ordered):
    log = []

    def work(n):
        if n == 3:
            raise Boom(n)
        return n

    with no_leaks():
        seen = []
        with pytest.raises(Boom):
            for value in fan_out(endless(log), work, 2, ordered=ordered):
                seen.append(value)
        if ordered:
            assert seen == [0, 1, 2][: len(seen)]
        eventually(lambda: log == ["closed"])


def test_a_worker_that_ends_itself_is_no_silent_end():
    with no_leaks(), pytest.raises(gort.Cancelled, match="a goroutine of the stream was ended"):
        list(fan_out(range(9), lambda n: n if n < 5 else gort.goexit(), 2))


def test_a_goroutine_that_somebody_cancels_is_no_silent_end():
    with no_leaks():
        before = set(gort.goroutines())
        stream = merge(gort.Chan(), gort.Chan())
        made = [g for g in gort.goroutines() if g not in before]
        parked(*made)
        made[0].cancel()
        with pytest.raises(gort.Cancelled, match="a goroutine of the stream was ended"):
            stream.recv()


def test_one_that_is_cancelled_before_it_began_is_no_silent_end():
    with no_leaks():
        before = set(gort.goroutines())
        stream = merge([1], gort.Chan())
        for g in gort.goroutines():
            if g not in before and "_pump" in g.name:
                g.cancel()
                break
        with pytest.raises(gort.Cancelled, match="the goroutine was cancelled|a goroutine of"):
            list(stream)


def test_pipeline_is_its_stages_one_after_the_other(anywhere):
    def body():
        def even(values):
            return (value for value in values if value % 2 == 0)

        def pairs(values):
            while True:
                a, ok = values.recv_ok() if isinstance(values, Stream) else (None, False)
                if not ok:
                    return
                yield a, next(values, None)

        with no_leaks():
            assert list(pipeline(range(5))) == [0, 1, 2, 3, 4]
            assert list(pipeline(range(9), even, doubled, pairs)) == [(0, 4), (8, 12), (16, None)]
            assert list(pipeline([3, 1, 2], sorted)) == [1, 2, 3]

    anywhere(body)


def test_stages_run_at_the_same_time():
    """The first waits for something the second does with its first value."""
    gate = gort.Chan()

    def first(values):
        for value in values:
            yield value
            gate.recv()

    def second(values):
        for value in values:
            gate.send(None)
            yield value

    with no_leaks():
        assert list(pipeline(range(5), first, second)) == list(range(5))


def test_a_stage_that_ends_closes_those_before_it():
    log = []

    def two(values):
        yield next(iter(values))
        yield next(iter(values))

    with no_leaks():
        assert list(pipeline(endless(log), doubled, two, doubled)) == [0, 4]
        eventually(lambda: log == ["closed"])


@pytest.mark.parametrize("where", [0, 1, 2])
def test_exception_of_a_stage_reaches_the_reader_and_ends_the_others(where):
    log, passed = [], []

    def fails(values):
        for value in values:
            if value == 8:
                raise Boom(value)
            yield value

    def looks_on(values):
        try:
            yield from values
        except Boom:
            passed.append(1)
            raise
        finally:
            log.append("closed")

    stages = [looks_on] * 3
    stages[where] = fails
    with no_leaks():
        seen = []
        with pytest.raises(Boom):
            for value in pipeline(endless(log), *stages):
                seen.append(value)
        assert seen == list(range(8))
        eventually(lambda: log == ["closed"] * 3)
        assert len(passed) == 2 - where


def test_a_stage_may_catch_what_a_stage_before_it_raised():
    def careful(values):
        try:
            yield from values
        except Boom as error:
            yield -error.args[0]

    with no_leaks():
        assert list(pipeline(fails_at(3), doubled, careful)) == [0, 2, 4, -3]


def test_clean_up_of_a_stage_may_park():
    log = []

    def stage(values):
        try:
            yield from values
        finally:
            for _ in range(5):
                gort.sleep(0.001)
            log.append("clean")

    with no_leaks():
        with pipeline(endless(), stage, stage) as stream:
            stream.recv()
        assert log == ["clean", "clean"]


def test_closing_again_does_not_disturb_the_clean_up():
    log, gate = [], gort.Chan()

    def stage(values):
        try:
            yield from values
        finally:
            gate.recv()
            log.append("clean")

    with no_leaks():
        stream = pipeline(endless(), stage)
        stream.recv()
        closers = [waiter(stream.close) for _ in range(2)]
        assert log == []
        gate.send(None)
        join_all(closers)
        assert log == ["clean"]


def test_exception_that_nobody_took_is_reported(reports):
    def drops_it():
        stream = merge(fails_at(0))
        ch = stream._recv_chan
        eventually(lambda: ch.closed)
        stream.close()
        assert reports == []

    drops_it()
    gc.collect()
    assert [args.exc_type for args in reports] == [Boom]


def test_bad_arguments():
    with no_leaks():
        for make in (
            merge,
            lambda source: fan_out(source, str, 1),
            lambda source: pipeline(source, str),
        ):
            with pytest.raises(TypeError, match="a source must be iterable, not int"):
                make(3)
        with pytest.raises(TypeError, match="needs a callable"):
            fan_out([], None, 1)
        with pytest.raises(ValueError, match="workers must be 1 or more, not 0"):
            fan_out([], str, 0)
        with pytest.raises(TypeError, match="a stage must be callable, not int"):
            pipeline([], str, 3)
        with pytest.raises(ValueError):
            merge([1], cap=-1)
        with pytest.raises(TypeError, match="not iterable"):
            list(pipeline([1], lambda values: 3))
