"""gort.scope(): results, the first error, what is raised, nesting, being cancelled, children that do not end."""

from __future__ import annotations

import gc

import gort
import pytest
from gort.context import background, with_cancel, with_cancel_cause
from waiting import LIMIT, eventually, in_thread, parked, raises_text, waiter


def fail(error):
    raise error


def caught(call):
    """The group that `call` raises."""
    with pytest.raises(BaseExceptionGroup) as info:
        call()
    return info.value


def in_block(*calls, **options):
    """A block that starts these."""
    with gort.scope(**options) as s:
        for fn, *args in calls:
            s.go(fn, *args)


def test_children_end_before_the_block_and_give_results(anywhere):
    def work():
        before = gort.num_goroutine()
        with gort.scope() as s:
            children = [s.go(lambda n=n: (gort.sleep(0.001 * n), n)[1]) for n in range(5)]
        assert all(child.done for child in children)
        if anywhere is in_thread:  # which may see the last one on the way out of its stack
            eventually(lambda: gort.num_goroutine() == before)
        assert gort.num_goroutine() == before
        return [child.result() for child in children]

    assert anywhere(work) == [0, 1, 2, 3, 4]


def test_arguments_names_and_join():
    def wait_for(ch, *, plus):
        return ch.recv() + plus

    ch = gort.Chan()
    with gort.scope(name="test") as s:
        child = s.go(wait_for, ch, plus=2)
        assert s.name == "test"
        assert child.name is not None and child.name.endswith("wait_for")
        with raises_text(RuntimeError, "has not ended"):
            child.result()
        with pytest.raises(TimeoutError):
            child.join(timeout=0.001)
        ch.send(1)
        assert child.join(timeout=LIMIT) == 3
        assert child.done and child.goroutine is not None
        assert "wait_for" in repr(child)
    assert s.context.err() is not None
    assert not s.cancelled
    assert "0 children" in repr(s)


def test_first_error_cancels_who_knows_no_context():
    cleaned, error = [], ValueError("no")

    def waits():
        try:
            gort.Chan().recv()
        finally:
            cleaned.append(1)

    def work():
        with gort.scope() as s:
            child = s.go(waits)
            parked(child.goroutine)
            s.go(fail, error)
            for _ in range(3):
                s.go(waits)

    group = caught(work)
    assert type(group) is ExceptionGroup
    assert group.exceptions == (error,)
    assert cleaned  # those that had not begun have nothing to clean


def test_first_error_cancels_who_computes():
    def computes():
        while True:
            pass

    error = ValueError("no")
    assert caught(lambda: in_block((computes,), (fail, error))).exceptions == (error,)


def test_children_see_the_cause_and_the_context_of_the_scope():
    error, causes = ValueError("no"), []

    def watches():
        ctx = gort.current_context()
        ctx.done().recv_ok()
        causes.append(ctx.cause())

    def work():
        with gort.scope() as s:
            parked(s.go(watches).goroutine)
            assert gort.current_context() is not s.context
            s.go(fail, error)

    # The one that watches is woken by its context, and asked to end: it comes to either.
    assert caught(work).exceptions == (error,)
    assert causes in ([], [error])


def late(error):
    """Raise it when cancelled."""
    try:
        gort.Chan().recv()
    finally:
        raise error


def test_errors_of_all_kinds_come_out_flat_once_and_first_first():
    shared, first = KeyError("shared"), ValueError("first")
    nested = ExceptionGroup("g", [shared, ExceptionGroup("h", [EOFError("deep")])])

    def work():
        with gort.scope() as s:
            children = [s.go(late, error) for error in (shared, shared, OSError("b"), nested)]
            parked(*[child.goroutine for child in children])
            failing = s.go(fail, first)
            eventually(lambda: failing.done)
            raise LookupError("of the block")

    texts = [str(e) for e in caught(work).exceptions]
    assert texts[0] == "first"
    assert sorted(texts[1:]) == ["'shared'", "b", "deep", "of the block"]


def test_single_error_of_the_block_is_a_group():
    def work():
        with gort.scope():
            raise KeyError("x")

    group = caught(work)
    assert [repr(e) for e in group.exceptions] == ["KeyError('x')"]
    assert "errors in a scope" in str(group)
    assert group.__cause__ is None and group.__suppress_context__


def test_error_of_the_block_cancels_the_children():
    child = None

    def work():
        nonlocal child
        with gort.scope(name="n") as s:
            child = s.go(gort.Chan().recv)
            parked(child.goroutine)
            raise KeyError("x")

    group = caught(work)
    assert "errors in scope 'n'" in str(group)
    with pytest.raises(gort.Cancelled):
        child.result()


def test_errors_have_tracebacks_and_say_where_they_were_started():
    group = caught(lambda: in_block((fail, ValueError("x"))))
    (error,) = group.exceptions
    (note,) = error.__notes__
    assert "spawned at" in note and "in_block" in note
    tb = error.__traceback__
    while tb.tb_next:
        tb = tb.tb_next
    assert tb.tb_frame.f_code.co_name == "fail"


def test_nothing_is_reported_of_errors_that_come_out(reports):
    caught(lambda: in_block((fail, ValueError(1)), (fail, ValueError(2))))
    gc.collect()
    assert reports == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_and_exit_come_out_by_themselves(kind):
    alone = kind("it")
    with pytest.raises(kind) as info:
        in_block((fail, alone))
    assert info.value is alone and info.value.__cause__ is None

    def work():
        with gort.scope() as s:
            parked(s.go(late, ValueError("too")).goroutine)
            s.go(fail, alone)

    with pytest.raises(kind) as info:
        work()
    assert isinstance(info.value.__cause__, ExceptionGroup)
    assert isinstance(info.value.__cause__.exceptions[0], ValueError)


def test_other_base_exceptions_are_in_a_base_exception_group():
    class Odd(BaseException):
        pass

    group = caught(lambda: in_block((fail, Odd())))
    assert type(group) is BaseExceptionGroup


def test_nested_scopes_are_flat_and_inner_ones_end_for_outer_errors():
    error = ValueError("outer")
    inner = []

    def nested():
        with gort.scope() as s:
            inner.append(s.go(gort.Chan().recv))
            inner.append(s.go(gort.Chan().recv))

    def work():
        with gort.scope() as s:
            parked(s.go(nested).goroutine)
            s.go(fail, error)

    assert caught(work).exceptions == (error,)
    assert len(inner) == 2 and all(child.done for child in inner)

    deep = KeyError("deep")

    def level(n):
        with gort.scope() as s:
            s.go(level, n - 1) if n else s.go(fail, deep)

    assert caught(lambda: level(5)).exceptions == (deep,)


def test_scopes_in_the_block_of_a_scope():
    error = KeyError("inner")

    def work():
        with gort.scope() as outer:
            sibling = outer.go(gort.Chan().recv)
            with gort.scope() as s:
                s.go(fail, error)
        return sibling

    assert caught(work).exceptions == (error,)


def test_cancel_is_no_error():
    with gort.scope() as s:
        child = s.go(gort.Chan().recv)
        late = []

        def by_context():
            gort.select(gort.recv(gort.current_context().done()))
            raise gort.current_context().err()

        other = s.go(by_context)
        parked(other.goroutine)
        s.cancel()
        assert s.cancelled
        late.append(s.go(int))  # does not run
        child.join()
    with pytest.raises(gort.Cancelled):
        late[0].result()
    with pytest.raises(gort.Cancelled):
        child.result()
    assert other.done


def test_cancelling_or_leaving_one_child_is_no_error():
    with gort.scope() as s:
        child, other = s.go(gort.Chan().recv), s.go(gort.goexit)
        assert child.cancel()
        third = s.go(int, "5")
    assert third.result() == 5
    assert other.result() is None
    assert not child.cancel()
    with pytest.raises(gort.Cancelled):
        child.join()


def test_context_canceled_of_another_context_is_an_error():
    ctx, cancel = with_cancel(background())
    cancel()
    mine = ctx.err()
    assert caught(lambda: in_block((fail, mine))).exceptions == (mine,)


def test_timeout_is_one_deadline_exceeded():
    def by_context():
        gort.current_context().done().recv_ok()
        raise gort.current_context().err()

    group = caught(lambda: in_block((by_context,), (gort.Chan().recv,), timeout=0.01))
    (error,) = group.exceptions
    assert type(error) is gort.DeadlineExceeded
    assert isinstance(error, TimeoutError)


def test_timeout_that_does_not_come():
    with gort.scope(timeout=3600) as s:
        assert s.context.deadline() is not None
        child = s.go(int, "7")
    assert child.result() == 7


def test_context_from_outside_ends_the_scope():
    error = ValueError("why")
    ctx, cancel = with_cancel_cause(background())

    def work():
        with gort.scope(ctx) as s:
            parked(s.go(gort.Chan().recv).goroutine)
            cancel(error)

    before = gort.num_goroutine()
    (raised,) = caught(work).exceptions
    assert type(raised) is gort.ContextCanceled
    assert raised.__cause__ is error
    assert gort.num_goroutine() == before


def test_context_that_is_done_before():
    ctx, cancel = with_cancel(background())
    cancel()
    ran = []
    group = caught(lambda: in_block((gort.Chan().recv,), (ran.append, 1), ctx=ctx))
    assert [type(e) for e in group.exceptions] == [gort.ContextCanceled]
    with gort.scope(ctx):
        pass  # nothing was cut short


def test_current_context_is_the_default_parent():
    ctx = gort.context.with_value(background(), "key", "value")

    def work():
        with gort.scope() as s:
            child = s.go(lambda: gort.current_context().value("key"))
        return child.result()

    assert ctx.run(work) == "value"


def test_cancelled_while_it_waits_for_the_children(reports):
    cleaned, children = [], []

    def cleans():
        try:
            gort.Chan().recv()
        finally:
            gort.sleep(0.001)
            cleaned.append(1)

    def work():
        with gort.scope() as s:
            children.extend(s.go(cleans) for _ in range(3))
            children.append(s.go(late, ValueError("late")))
        raise AssertionError("not reached")

    g = waiter(work)
    parked(*[child.goroutine for child in children])
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert cleaned == [1, 1, 1]
    (report,) = reports  # nobody else would hear of it
    assert str(report.exc_value) == "late"


def test_goexit_in_the_block_ends_the_children():
    children = []

    def work():
        with gort.scope() as s:
            children.append(s.go(gort.Chan().recv))
            gort.goexit()

    assert gort.go(work).join(timeout=LIMIT) is None
    assert children[0].done


def test_children_may_start_children():
    seen = []

    def spread(s, depth):
        seen.append(depth)
        if depth:
            s.go(spread, s, depth - 1)
            s.go(spread, s, depth - 1)

    with gort.scope() as s:
        s.go(spread, s, 6)
    assert len(seen) == 2**7 - 1


def test_use_out_of_the_block():
    s = gort.scope()
    with raises_text(RuntimeError, "was not entered"):
        s.go(int)
    with s:
        s.go(int)
    with raises_text(RuntimeError, "has ended"):
        s.go(int)
    with raises_text(RuntimeError, "entered once"), s:
        pass
    s.cancel()


def test_bad_arguments():
    for bad in ({"name": 5}, {"timeout": "x"}, {"ctx": 5}, {"on_stuck": 1}, {"patience": "x"}):
        with pytest.raises(TypeError):
            gort.scope(**bad)
    with pytest.raises(ValueError, match="patience"):
        gort.scope(patience=-1)
    with gort.scope() as s, raises_text(TypeError, "needs a callable, not int"):
        s.go(5)
