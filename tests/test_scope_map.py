"""Scope.map(): order, limits, laziness, errors in their place, leaving early; and gort.structured."""

from __future__ import annotations

import gort
import pytest
from gort import structured
from gort.context import background, with_cancel
from waiting import LIMIT, eventually, parked, raises_text, settle


def counting(log, items):
    """The items; each that is asked for is logged."""
    for item in items:
        log.append(item)
        yield item


@pytest.mark.parametrize("limit", [None, 1, 3, 100])
@pytest.mark.parametrize("ordered", [True, False])
def test_results(anywhere, limit, ordered):
    def work():
        with gort.scope() as s:
            return list(s.map(lambda n: n * n, range(20), limit, ordered=ordered))

    squares = [n * n for n in range(20)]
    found = anywhere(work)
    assert (found if ordered else sorted(found)) == squares


@pytest.mark.parametrize("ordered", [True, False])
def test_nothing(ordered):
    with gort.scope() as s:
        assert list(s.map(int, [], ordered=ordered)) == []


def test_as_completed_and_in_order():
    gates = [gort.Chan(1) for _ in range(3)]
    for ordered, expected in ((False, [2, 0, 1]), (True, [0, 1, 2])):

        def wait(n):
            gates[n].recv()
            return n

        with gort.scope() as s:
            results = s.map(wait, range(3), ordered=ordered)
            out = []
            first = s.go(next, results)
            for n in (2, 0, 1):
                eventually(lambda: s._live)
                gates[n].send(None)
                settle()
            out.append(first.join(timeout=LIMIT))
            out.extend(results)
        assert out == expected


def test_is_lazy_and_takes_no_more_than_the_limit():
    log = []
    with gort.scope() as s:
        results = s.map(str, counting(log, range(100)), limit=3)
        assert log == []
        assert next(results) == "0"
        assert log == [0, 1, 2]
        settle()
        assert log == [0, 1, 2]
        assert next(results) == "1"
        assert log == [0, 1, 2, 3]
        results.close()
        assert list(results) == []


def test_endless_iterable_with_a_limit():
    from itertools import count

    with gort.scope() as s:
        for value in s.map(str, count(), limit=2):
            if value == "50":
                break
    assert value == "50"


@pytest.mark.parametrize("ordered", [True, False])
def test_leaving_early_cancels_the_rest(ordered):
    cleaned, gate = [], gort.Chan()

    def work(n):
        if n == 0:
            return n
        try:
            gate.recv()
        finally:
            cleaned.append(n)

    before = gort.num_goroutine()
    with gort.scope() as s:
        for _ in s.map(work, range(4), ordered=ordered):
            eventually(lambda: sum(not c.done for c in tuple(s._live)) == 3)
            parked(*[c.goroutine for c in tuple(s._live)])
            break
        child = s.go(int)  # the scope itself goes on
    assert sorted(cleaned) == [1, 2, 3]
    assert child.result() == 0
    assert gort.num_goroutine() == before


def test_exceptions_are_raised_in_their_place_and_iterating_goes_on():
    with gort.scope() as s:
        results, out = s.map(lambda n: 6 // n, [1, 2, 0, 3]), []
        while True:
            try:
                out.append(next(results))
            except ZeroDivisionError:
                out.append("error")
            except StopIteration:
                break
    assert out == [6, 3, "error", 2]


def test_exception_that_leaves_the_loop_is_of_the_block_once():
    with pytest.raises(ExceptionGroup) as info, gort.scope() as s:
        list(s.map(lambda n: 6 // n, [1, 0, 3]))
    (error,) = info.value.exceptions
    assert type(error) is ZeroDivisionError


def test_failure_that_nobody_saw_comes_out():
    with pytest.raises(ExceptionGroup) as info, gort.scope() as s:
        results = s.map(lambda n: 6 // n, [1, 0, 3])
        next(results)
        settle()
        del results
    assert [type(e) for e in info.value.exceptions] == [ZeroDivisionError]


def test_exception_of_the_iterable_comes_after_the_results_before_it():
    def broken():
        yield 1
        yield 2
        raise OSError("broken")

    out = []
    with pytest.raises(ExceptionGroup) as info, gort.scope() as s:
        out.extend(())
        for value in s.map(str, broken()):
            out.append(value)
    assert out == ["1", "2"]
    assert [str(e) for e in info.value.exceptions] == ["broken"]


def test_scope_that_fails_ends_the_loop():
    def fails():
        raise KeyError("x")

    with pytest.raises(ExceptionGroup) as info, gort.scope() as s:
        s.go(fails)
        list(s.map(lambda _: gort.Chan().recv(), range(3)))
    assert [type(e) for e in info.value.exceptions] == [KeyError]


def test_bad_arguments():
    with gort.scope() as s:
        with raises_text(TypeError, "needs a callable"):
            s.map(5, [])
        with raises_text(ValueError, "limit must be at least 1, not 0"):
            s.map(int, [], 0)
        with pytest.raises(TypeError):
            s.map(int, 5)
        late = s.map(int, ["1"])
    with raises_text(RuntimeError, "has ended"):
        next(late)


def test_many():
    with gort.scope() as s:
        total = sum(s.map(lambda n: n, range(20_000), 500, ordered=False))
    assert total == sum(range(20_000))


def test_structured_go():
    def main(ctx, a, *, b):
        assert gort.current_context() is ctx
        children = [structured.spawn(ctx, pow, a, n) for n in range(b)]
        below, _ = with_cancel(ctx)
        children.append(structured.spawn(below, int, "7"))
        return [child.join() for child in children]

    before = gort.num_goroutine()
    assert structured.go(background(), main, 2, b=3) == [1, 2, 4, 7]
    assert gort.num_goroutine() == before


def test_structured_go_waits_for_what_was_started_and_ends_it_for_an_error():
    children = []

    def quick(ctx):
        children.append(structured.spawn(ctx, gort.sleep, 0.001))

    structured.go(background(), quick)
    assert children[0].done

    def fails(ctx):
        children.append(structured.spawn(ctx, gort.Chan().recv))
        raise ValueError("no")

    with pytest.raises(ExceptionGroup) as info:
        structured.go(background(), fails)
    assert [str(e) for e in info.value.exceptions] == ["no"]
    assert "fails" in str(info.value)
    assert children[1].done


def test_structured_ends_with_its_context():
    ctx, cancel = with_cancel(background())
    g = gort.go(structured.go, ctx, lambda c: gort.Chan().recv())
    parked(g)
    cancel()
    with pytest.raises(ExceptionGroup) as info:
        g.join(timeout=LIMIT)
    assert [type(e) for e in info.value.exceptions] == [gort.ContextCanceled]


def test_structured_bad_use():
    with raises_text(TypeError, "needs a callable"):
        structured.go(background(), 5)
    with raises_text(TypeError, "cannot create context from nil parent"):
        structured.go(None, int)
    with raises_text(RuntimeError, "not below one of structured.go()"):
        structured.spawn(background(), int)
