"""Trees of contexts against a plain model: who is done, why, with which values, and who waits where."""

from __future__ import annotations

import gort
import hypothesis.strategies as st
from gort.context import (
    after_func,
    background,
    with_cancel,
    with_cancel_cause,
    with_timeout,
    with_timeout_cause,
    with_value,
    without_cancel,
)
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from waiting import LIMIT, eventually, parked

FAR = 3600.0


class Wrapped(gort.context.Context):
    """A context of another kind, which says what the one inside says."""


class Modelled:
    """A context, and what it should say."""

    def __init__(self, ctx, parent=None, cancel=None, *, own=False, inherits=True):
        self.ctx, self.cancel, self.own = ctx, cancel, own
        self.parent = parent
        self.above = parent if inherits else None  # whose end is its end
        self.below = []
        self.err, self.why = None, None
        self.values = dict(parent.values) if parent else {}
        self.waiters, self.calls, self.expected_calls = [], [], 0
        if self.above is not None:
            self.above.below.append(self)
            self.err, self.why = self.above.err, self.above.why

    def can_end(self):
        at = self
        while at is not None and not at.own:
            at = at.above
        return at is not None

    def end(self, err, why):
        if self.err is not None:
            return
        self.err, self.why = err, why
        self.expected_calls = len(self.calls)
        for child in self.below:
            child.end(err, why)


def wait_in(ctx):
    try:
        gort.Chan().recv(ctx=ctx)
    except Exception as error:
        return error
    return None


class ContextMachine(RuleBasedStateMachine):
    contexts = Bundle("contexts")

    @initialize(target=contexts)
    def root(self):
        self.all = [Modelled(background())]
        return self.all[0]

    def add(self, *args, **kwargs):
        self.all.append(Modelled(*args, **kwargs))
        return self.all[-1]

    @rule(target=contexts, parent=contexts, caused=st.booleans())
    def derive(self, parent, caused):
        ctx, cancel = (with_cancel_cause if caused else with_cancel)(parent.ctx)
        child = self.add(ctx, parent, cancel, own=True)
        child.is_caused = caused
        return child

    @rule(target=contexts, parent=contexts, past=st.booleans(), caused=st.booleans())
    def derive_with_timeout(self, parent, past, caused):
        why = OSError("late") if caused else None
        seconds = -1.0 if past else FAR
        if caused:
            ctx, cancel = with_timeout_cause(parent.ctx, seconds, why)
        else:
            ctx, cancel = with_timeout(parent.ctx, seconds)
        child = self.add(ctx, parent, cancel, own=True)
        child.is_caused = False
        if past:
            # Where the parent's deadline is earlier still, that is over as well.
            child.end(gort.DeadlineExceeded, why)
        return child

    @rule(target=contexts, parent=contexts, key=st.integers(0, 3), value=st.integers())
    def derive_with_value(self, parent, key, value):
        child = self.add(with_value(parent.ctx, key, value), parent)
        child.values[key] = value
        return child

    @rule(target=contexts, parent=contexts)
    def derive_without_cancel(self, parent):
        return self.add(without_cancel(parent.ctx), parent, inherits=False)

    @rule(target=contexts, parent=contexts)
    def wrap(self, parent):
        return self.add(Wrapped(parent.ctx), parent)

    @rule(node=contexts)
    def cancel(self, node):
        if node.cancel is not None:
            node.cancel()
            node.end(gort.ContextCanceled, None)

    @rule(node=contexts)
    def cancel_for_a_cause(self, node):
        if node.cancel is not None and node.is_caused:
            why = KeyError("why")
            node.cancel(why)
            node.end(gort.ContextCanceled, why)

    @rule(node=contexts)
    def wait(self, node):
        if node.can_end() and len(node.waiters) < 3:
            g = gort.go(wait_in, node.ctx)
            node.waiters.append(g)
            if node.err is None:
                parked(g)

    @rule(node=contexts)
    def call_after(self, node):
        made = []
        stop = after_func(node.ctx, made.append, 1)
        node.calls.append((made, stop, node.err is not None))

    @rule(node=contexts)
    def stop_a_call(self, node):
        if node.calls:
            made, stop, _ = node.calls.pop()
            assert stop() is (node.err is None)
            if node.err is None:
                assert not made
            assert not stop()

    @invariant()
    def says_what_the_model_says(self):
        for node in getattr(self, "all", ()):
            ctx, err = node.ctx, node.ctx.err()
            assert (err if err is None else type(err)) is node.err
            assert ctx.cause() is (node.why if node.why is not None else err)
            assert [ctx.value(key) for key in range(4)] == [node.values.get(k) for k in range(4)]
            done = ctx.done()
            assert (done is not None) == node.can_end()
            if done is not None:
                assert done.closed == (node.err is not None)
            for made, _, _ in node.calls:
                if node.err is None:
                    assert not made
                else:
                    eventually(lambda made=made: made == [1])
            if node.err is None:
                parked(*node.waiters)
            for g in node.waiters if node.err is not None else ():
                error = g.join(timeout=LIMIT)
                assert type(error) is node.err
                assert error.__cause__ is node.why

    def teardown(self):
        for node in getattr(self, "all", ()):
            if node.cancel is not None:
                node.cancel()
        for node in getattr(self, "all", ()):
            for g in node.waiters:
                g.join(timeout=LIMIT)


TestContexts = ContextMachine.TestCase
TestContexts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
