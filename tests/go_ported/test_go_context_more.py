"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of the rest of context/x_test.go, and of afterfunc_test.go: causes, custom contexts, AfterFunc. Go's Canceled and
DeadlineExceeded are values; here an exception of that class is meant.
"""

import gort
import pytest
from gort import Chan, ContextCanceled, DeadlineExceeded, Mutex, Once, go
from gort.context import (
    Context,
    after_func,
    background,
    cause,
    todo,
    with_cancel,
    with_cancel_cause,
    with_timeout,
    with_timeout_cause,
    with_value,
    without_cancel,
)
from waiting import LIMIT, settle

VERY_LONG = 3_600_000.0
FOREVER = 1e6
PARENT, CHILD = ValueError("parentCause"), ValueError("childCause")
TOO_SLOW, EARLY = ValueError("tooSlow"), ValueError("finishedEarly")


class Custom:
    """customContext."""

    def __init__(self, parent):
        self.parent, self.once, self.donec, self.error = parent, Once(), Chan(), None
        after_func(parent, lambda: self.once.do(lambda: self.finish(parent.err())))

    def finish(self, error):
        self.error = error
        self.donec.close()

    def cancel(self):
        self.once.do(lambda: self.finish(ContextCanceled()))

    def deadline(self):
        return self.parent.deadline()

    def done(self):
        return self.donec

    def err(self):
        return self.error

    def value(self, key):
        return self.parent.value(key)


def canceled(make, *args):
    ctx, cancel = make(*args)
    cancel()
    return ctx


def caused(why):
    ctx, cancel = with_cancel_cause(background())
    cancel(why)
    return ctx


def two(parent_with, child_with, *order):
    """A child whose parent and which itself are cancelled in this order, each with its cause."""
    parent, cancel_parent = parent_with(background())
    child, cancel_child = child_with(parent)
    cancels = {
        "parent": lambda: cancel_parent(PARENT),
        "plain parent": cancel_parent,
        "child": lambda: cancel_child(CHILD),
        "plain child": cancel_child,
    }
    for name in order:
        cancels[name]()
    return child


def stacked(timeout):
    ctx, cancel = with_cancel_cause(background())
    ctx, _ = with_timeout_cause(ctx, timeout, TOO_SLOW)
    cancel(EARLY)
    return ctx


def kept():
    ctx, cancel = with_cancel_cause(background())
    ctx = without_cancel(ctx)
    cancel(EARLY)
    return ctx


def custom(*order):
    ctx, cancel1 = with_cancel_cause(background())
    ctx = Custom(ctx)
    for name in order:
        if name == "parent":
            cancel1(PARENT)
        else:
            ctx.cancel()
    settle()
    return ctx


CAUSES = {
    "Background": (background, None, None),
    "TO" + "DO": (todo, None, None),
    "WithCancel": (lambda: canceled(with_cancel, background()), ContextCanceled, ContextCanceled),
    "WithCancelCause": (lambda: caused(PARENT), ContextCanceled, PARENT),
    "WithCancelCause nil": (lambda: caused(None), ContextCanceled, ContextCanceled),
    "parent cause before child": (
        lambda: two(with_cancel_cause, with_cancel_cause, "parent", "child"), ContextCanceled, PARENT),
    "parent cause after child": (
        lambda: two(with_cancel_cause, with_cancel_cause, "child", "parent"), ContextCanceled, CHILD),
    "parent cause before nil": (
        lambda: two(with_cancel_cause, with_cancel, "parent", "plain child"), ContextCanceled, PARENT),
    "parent cause after nil": (
        lambda: two(with_cancel_cause, with_cancel, "plain child", "parent"), ContextCanceled, ContextCanceled),
    "child cause after nil": (
        lambda: two(with_cancel, with_cancel_cause, "plain parent", "child"), ContextCanceled, ContextCanceled),
    "child cause before nil": (
        lambda: two(with_cancel, with_cancel_cause, "child", "plain parent"), ContextCanceled, CHILD),
    "WithTimeout": (lambda: canceled(with_timeout, background(), 0), DeadlineExceeded, DeadlineExceeded),
    "WithTimeout canceled": (
        lambda: canceled(with_timeout, background(), FOREVER), ContextCanceled, ContextCanceled),
    "WithTimeoutCause": (
        lambda: canceled(with_timeout_cause, background(), 0, TOO_SLOW), DeadlineExceeded, TOO_SLOW),
    "WithTimeoutCause canceled": (
        lambda: canceled(with_timeout_cause, background(), FOREVER, TOO_SLOW), ContextCanceled, ContextCanceled),
    "WithTimeoutCause stacked": (lambda: stacked(0), DeadlineExceeded, TOO_SLOW),
    "WithTimeoutCause stacked canceled": (lambda: stacked(FOREVER), ContextCanceled, EARLY),
    "WithoutCancel": (lambda: without_cancel(background()), None, None),
    "WithoutCancel canceled": (kept, None, None),
    "WithoutCancel timeout": (
        lambda: without_cancel(canceled(with_timeout_cause, background(), 0, TOO_SLOW)), None, None),
    "parent of custom context not canceled": (lambda: custom("child"), ContextCanceled, ContextCanceled),
    "parent of custom context is canceled before": (
        lambda: custom("parent", "child"), ContextCanceled, PARENT),
    # Not really right, says Go: a custom context cannot tell which was cancelled first.
    "parent of custom context is canceled after": (
        lambda: custom("child", "parent"), ContextCanceled, PARENT),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_cause(name):
    make, err, why = CAUSES[name]
    ctx = make()
    assert ctx.err() is None if err is None else type(ctx.err()) is err
    assert type(cause(ctx)) is why if isinstance(why, type) else cause(ctx) is why
    if isinstance(why, type):
        assert cause(ctx) is ctx.err()


def test_cause_race():
    ctx, cancel = with_cancel_cause(background())
    go(cancel, PARENT)
    while (why := cause(ctx)) is None:
        gort.gosched()
    assert why is PARENT


def test_without_cancel():
    ctx = without_cancel(with_value(background(), "key", "value"))
    assert ctx.deadline() is None
    assert ctx.done() is None
    assert ctx.err() is None
    assert ctx.value("key") == "value"


class CustomDone(Context):
    def __init__(self, inner, donec):
        self.donec = donec

    def __new__(cls, inner, donec):
        return super().__new__(cls, inner)

    def done(self):
        return self.donec


def test_custom_context_propagation():
    donec = Chan()
    ctx1, cancel1 = with_cancel_cause(background())
    ctx3, _ = with_cancel(CustomDone(ctx1, donec))
    cancel1(PARENT)
    donec.close()
    ctx3.done().recv_ok(timeout=LIMIT)
    assert isinstance(ctx3.err(), ContextCanceled)
    assert cause(ctx3) is PARENT


class CustomCause:
    """customCauseContext."""

    def __init__(self):
        self.mu, self.donec, self.error, self.cancel_child = Mutex(), Chan(), None, None

    def deadline(self):
        return None

    def done(self):
        with self.mu:
            return self.donec

    def err(self):
        with self.mu:
            return self.error

    def value(self, key):
        return None

    def cancel(self):
        with self.mu:
            self.error = ContextCanceled()
            self.donec.close()
        if self.cancel_child is not None:
            self.cancel_child()


def test_custom_context_cause():
    ccc = CustomCause()
    ccc.cancel()
    assert cause(ccc) is ccc.err()
    ccc = CustomCause()
    ctx, cancel = with_cancel_cause(ccc)
    cancel(PARENT)
    assert isinstance(ctx.err(), ContextCanceled)
    assert cause(ctx) is PARENT
    assert ccc.err() is None
    assert cause(ccc) is None
    ccc.cancel()
    assert isinstance(ctx.err(), ContextCanceled)
    assert cause(ctx) is PARENT
    assert cause(ccc) is ccc.err() is not None
    ccc = CustomCause()
    ctx, ccc.cancel_child = with_cancel(ccc)
    ccc.cancel()
    assert isinstance(ctx.err(), ContextCanceled)
    assert isinstance(cause(ctx), ContextCanceled)
    assert cause(ccc) is ccc.err() is not None


def test_after_func_called_after_cancel():
    ctx, cancel = with_cancel(background())
    donec = Chan()
    stop = after_func(ctx, donec.close)
    settle()
    assert not donec.closed
    cancel()
    donec.recv_ok(timeout=LIMIT)
    assert not stop()


def test_after_func_called_after_timeout():
    ctx, _ = with_timeout(background(), 0.001)
    donec = Chan()
    after_func(ctx, donec.close)
    donec.recv_ok(timeout=LIMIT)


def test_after_func_called_immediately():
    donec = Chan()
    after_func(canceled(with_cancel, background()), donec.close)
    donec.recv_ok(timeout=LIMIT)


def test_after_func_not_called_after_stop():
    ctx, cancel = with_cancel(background())
    donec = Chan()
    stop = after_func(ctx, donec.close)
    assert stop()
    cancel()
    settle()
    assert not donec.closed
    assert not stop()


def test_after_func_called_asynchronously():
    ctx, cancel = with_cancel(background())
    donec = Chan()
    after_func(ctx, donec.send, None)
    cancel()
    assert donec.recv_ok(timeout=LIMIT) == (None, True)


class AfterFuncContext:
    """afterFuncContext: supports registering functions."""

    def __init__(self):
        self.after_funcs, self.donec, self.error = {}, Chan(), None

    def deadline(self):
        return None

    def done(self):
        return self.donec

    def err(self):
        return self.error

    def value(self, key):
        return None

    def after_func(self, f):
        key = object()
        self.after_funcs[key] = f
        return lambda: self.after_funcs.pop(key, None) is not None

    def cancel(self, error):
        if self.error is None:
            self.error = error
            for f in self.after_funcs.values():
                go(f)
            self.after_funcs = {}


@pytest.mark.parametrize("make", [with_cancel, lambda ctx: with_timeout(ctx, VERY_LONG)])
def test_custom_context_after_func_cancel_and_timeout(make):
    ctx0 = AfterFuncContext()
    ctx1, _ = make(ctx0)
    ctx0.cancel(ContextCanceled())
    ctx1.done().recv_ok(timeout=LIMIT)
    assert ctx1.err() is ctx0.err()


def test_custom_context_after_func_after_func():
    ctx0, donec = AfterFuncContext(), Chan()
    after_func(ctx0, donec.close)
    ctx0.cancel(ContextCanceled())
    donec.recv_ok(timeout=LIMIT)


def test_custom_context_after_func_unregister_cancel():
    ctx0 = AfterFuncContext()
    _, cancel1 = with_cancel(ctx0)
    _, cancel2 = with_cancel(ctx0)
    assert len(ctx0.after_funcs) == 2
    cancel1()
    cancel2()
    assert len(ctx0.after_funcs) == 0


def test_custom_context_after_func_unregister_timeout():
    ctx0 = AfterFuncContext()
    _, cancel = with_timeout(ctx0, VERY_LONG)
    assert len(ctx0.after_funcs) == 1
    cancel()
    assert len(ctx0.after_funcs) == 0


def test_custom_context_after_func_unregister_after_func():
    ctx0 = AfterFuncContext()
    stop = after_func(ctx0, lambda: None)
    assert len(ctx0.after_funcs) == 1
    assert stop()
    assert len(ctx0.after_funcs) == 0
