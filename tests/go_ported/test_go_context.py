"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of context/context_test.go and x_test.go, but for the causes, the custom contexts and AfterFunc (test_go_context_more.py).
TestAllocs counts Go's allocations and is left out. Whose children a context has is what the collector sees; how many goroutines
watch a parent of another kind is how many were created.
"""

import gc
import random
import time

import gort
import pytest
from gort import Chan, ContextCanceled, DeadlineExceeded, WaitGroup, go, recv, select
from gort.context import (
    Context,
    after_func,
    background,
    cause,
    todo,
    with_cancel,
    with_cancel_cause,
    with_deadline,
    with_timeout,
    with_value,
)
from waiting import LIMIT, settle

SHORT = 0.001
VERY_LONG = 3_600_000.0


class Other(Context):
    """otherContext, and myCtx."""


class MyDone(Context):
    """myDoneCtx."""

    def done(self):
        return Chan()


def is_blocked(ctx):
    done = ctx.done()
    return done is None or not done.try_recv()[2]


def children(ctx):
    return [c for c in gc.get_referents(ctx) if isinstance(c, Context)]


def check_done(ctx, kind=ContextCanceled):
    assert not is_blocked(ctx)
    assert type(ctx.err()) is kind


def test_parent_finishes_child():
    parent, cancel = with_cancel(background())
    cancel_child, _ = with_cancel(parent)
    value_child = with_value(parent, "key", "value")
    timer_child, _ = with_timeout(value_child, VERY_LONG)
    after_func(parent, lambda: None)
    for ctx in (parent, cancel_child, value_child, timer_child):
        assert is_blocked(ctx)
    found = [c for c in children(parent) if c is not background()]
    assert len(found) == 3
    assert found[:2] == [cancel_child, timer_child]
    cancel()
    assert [c for c in children(parent) if c is not background()] == []
    for ctx in (parent, cancel_child, value_child, timer_child):
        check_done(ctx)
    check_done(with_value(parent, "key", "value"))


def test_child_finishes_first():
    cancelable, stop = with_cancel(background())
    for parent in (background(), cancelable):
        child, cancel = with_cancel(parent)
        assert is_blocked(parent)
        assert is_blocked(child)
        if parent is cancelable:
            assert child in children(parent)
        cancel()
        assert child not in children(parent)
        check_done(child)
        assert is_blocked(parent)
        assert parent.err() is None
    stop()


@pytest.mark.parametrize("kind", ["cancel", "timeout", "after_func"])
def test_cancel_removes(kind):
    ctx, _ = with_cancel(background())
    before = len(children(ctx))
    if kind == "cancel":
        _, cancel = with_cancel(ctx)
    elif kind == "timeout":
        _, cancel = with_timeout(ctx, 3600)
    else:
        cancel = after_func(ctx, lambda: None)
    assert len(children(ctx)) == before + 1
    cancel()
    assert len(children(ctx)) == before


def test_custom_context_goroutines():
    def created():
        now = gort.stats()["created"]
        made, created.before = now - created.before, now
        return made

    created.before = gort.stats()["created"]
    _, cancel0 = with_cancel(MyDone(background()))
    cancel0()
    assert created() == 1
    _, cancel0 = with_timeout(MyDone(background()), VERY_LONG)
    cancel0()
    assert created() == 1
    ctx1, cancel1 = with_cancel(background())
    ctx2 = Other(ctx1)
    ctx3, cancel3 = with_cancel(ctx2)
    assert created() == 0
    _, cancel3b = with_cancel(MyDone(ctx2))
    assert created() == 1  # ctx1 is not providing done(), must not be used
    ctx4, cancel4 = with_timeout(ctx3, VERY_LONG)
    ctx5, cancel5 = with_cancel(ctx4)
    cancel5()
    _, cancel6 = with_timeout(ctx5, VERY_LONG)
    cancel6()
    cancel1()
    _, cancel7 = with_cancel(ctx5)
    assert created() == 0
    for cancel in (cancel3, cancel3b, cancel4, cancel7):
        cancel()
    settle()


@pytest.mark.parametrize("root", [background, todo])
def test_background_and_todo(root):
    assert is_blocked(root())
    assert (
        str(root())
        == {"background": "context.Background", "todo": "context.TO" + "DO"}[root.__name__]
    )


def test_with_cancel():
    c1, cancel = with_cancel(background())
    assert str(c1) == "context.Background.WithCancel"
    o = Other(c1)
    c2, _ = with_cancel(o)
    for ctx in (c1, o, c2):
        assert ctx.done() is not None
        assert ctx.err() is None
        assert is_blocked(ctx)
    cancel()  # should propagate synchronously
    for ctx in (c1, o, c2):
        check_done(ctx)


def deadline_passes(ctx):
    assert ctx.done().recv_ok(timeout=LIMIT) == (None, False)
    assert isinstance(ctx.err(), DeadlineExceeded)


def test_deadline():
    ctx, _ = with_deadline(background(), time.time() + SHORT)
    assert str(ctx).startswith("context.Background.WithDeadline(")
    deadline_passes(ctx)
    deadline_passes(Other(with_deadline(background(), time.time() + SHORT)[0]))
    other = Other(with_deadline(background(), time.time() + SHORT)[0])
    deadline_passes(with_deadline(other, time.time() + VERY_LONG)[0])
    deadline_passes(with_deadline(background(), time.time() - SHORT)[0])
    deadline_passes(with_deadline(background(), time.time())[0])


def test_timeout():
    ctx, _ = with_timeout(background(), SHORT)
    assert str(ctx).startswith("context.Background.WithDeadline(")
    deadline_passes(ctx)
    deadline_passes(Other(with_timeout(background(), SHORT)[0]))
    deadline_passes(with_timeout(Other(with_timeout(background(), SHORT)[0]), VERY_LONG)[0])


def test_canceled_timeout():
    ctx, _ = with_timeout(background(), 1)
    ctx, cancel = with_timeout(Other(ctx), VERY_LONG)
    cancel()
    check_done(ctx)


class Key1(int):
    __str__ = object.__str__

    def __eq__(self, other):
        return type(self) is type(other) and int(self) == int(other)

    __hash__ = int.__hash__


class Key2(Key1):
    def __str__(self):
        return f"context_test.key2({int(self)})"


K1, K2, K3 = Key1(1), Key2(1), Key2(3)  # K2: same int as K1; K3: same type as K2


def check_values(ctx, *wanted):
    assert [ctx.value(key) for key in (K1, K2, K3)] == [v or None for v in wanted]


def test_values():
    name = f"{__name__}.Key1"
    check_values(background(), "", "", "")
    c1 = with_value(background(), K1, "c1k1")
    check_values(c1, "c1k1", "", "")
    assert str(c1) == f"context.Background.WithValue({name}, c1k1)"
    c2 = with_value(c1, K2, "c2k2")
    check_values(c2, "c1k1", "c2k2", "")
    assert str(c2) == f"{c1}.WithValue(context_test.key2(1), c2k2)"
    c3 = with_value(c2, K3, "c3k3")
    check_values(c3, "c1k1", "c2k2", "c3k3")
    c4 = with_value(c3, K1, None)
    check_values(c4, "", "c2k2", "c3k3")
    assert str(c4) == f"{c2}.WithValue(context_test.key2(3), c3k3).WithValue({name}, <nil>)"
    check_values(Other(background()), "", "", "")
    o1 = Other(with_value(background(), K1, "c1k1"))
    check_values(o1, "c1k1", "", "")
    check_values(with_value(o1, K2, "o2k2"), "c1k1", "o2k2", "")
    o3 = Other(c4)
    check_values(o3, "", "c2k2", "c3k3")
    check_values(with_value(o3, K3, None), "", "c2k2", "")


def test_simultaneous_cancels():
    pairs = [with_cancel(background())]
    for parent, _ in pairs:
        if len(pairs) >= 100:
            break
        pairs += [with_cancel(parent) for _ in range(4)]
    wg = WaitGroup()
    for _, cancel in random.sample(pairs, len(pairs)):
        wg.go(cancel)
    for ctx, _ in random.sample(pairs, len(pairs)):
        assert ctx.done().recv_ok(timeout=LIMIT) == (None, False)
    wg.wait(timeout=LIMIT)


def test_interlocked_cancels():
    parent, cancel_parent = with_cancel(background())
    child, cancel_child = with_cancel(parent)

    def second():
        parent.done().recv_ok()
        cancel_child()

    go(second)
    cancel_parent()
    assert child.done().recv_ok(timeout=LIMIT) == (None, False)


@pytest.mark.parametrize("times_out", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_layers(seed, times_out):
    r = random.Random(seed)
    values, cancels, timers, ctx, i = [], [], 0, background(), 0
    while i < 30 or not (values and cancels and timers):
        i += 1
        kind = r.randrange(3)
        if kind == 0:
            values.append(object())
            ctx = with_value(ctx, values[-1], values[-1])
        elif kind == 1:
            ctx, cancel = with_cancel(ctx)
            cancels.append(cancel)
        else:
            ctx, cancel = with_timeout(ctx, SHORT if times_out else VERY_LONG)
            cancels.append(cancel)
            timers += 1
    assert times_out or is_blocked(ctx)
    assert str(ctx).startswith("context.Background.")
    assert [ctx.value(v) for v in values] == values
    if times_out:
        assert ctx.done().recv_ok(timeout=LIMIT) == (None, False)
    else:
        r.choice(cancels)()
        assert not is_blocked(ctx)
    assert [ctx.value(v) for v in values] == values


def test_with_cancel_canceled_parent():
    parent, cancel = with_cancel_cause(background())
    why = OSError("Because!")
    cancel(why)
    ctx, _ = with_cancel(parent)
    check_done(ctx)
    assert cause(ctx) is why


def test_with_cancel_simultaneously_canceled_parent():
    for _ in range(100):
        parent, cancel = with_cancel_cause(background())
        why = OSError("Because!")
        go(cancel, why)
        ctx, _ = with_cancel(parent)
        ctx.done().recv_ok()
        assert isinstance(ctx.err(), ContextCanceled)
        assert cause(ctx) is why


def test_with_value_checks_key():
    with pytest.raises(TypeError, match="^key is not comparable$"):
        with_value(background(), [1], "bar")
    with pytest.raises(TypeError, match="^nil key$"):
        with_value(background(), None, "bar")


def test_invalid_derived_fail():
    for make in (
        lambda: with_cancel(None),
        lambda: with_deadline(None, time.time() + SHORT),
        lambda: with_value(None, "foo", "bar"),
    ):
        with pytest.raises(TypeError, match="^cannot create context from nil parent$"):
            make()


def test_deadline_exceeded_supports_timeout():
    assert issubclass(DeadlineExceeded, TimeoutError)


def test_context_err_done_race():
    for _ in range(10):
        ctx, cancel = with_cancel(background())
        done = ctx.done()
        go(cancel)
        while ctx.err() is None:
            gort.gosched()
        assert select(recv(done), default=True)[0] == 0
