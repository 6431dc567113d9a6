"""The limit of an error group against a plain model: who runs, who waits for a place, who is refused."""

from __future__ import annotations

from collections import deque

import gort
from gort import errgroup
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from waiting import eventually, is_parked


class ErrgroupMachine(RuleBasedStateMachine):
    """Each function waits at a gate of its own, and ends in one of three ways when told to."""

    @initialize(limit=st.integers(-1, 4))
    def make(self, limit):
        self.group, self.ctx = errgroup.with_context(gort.context.background())
        self.limit = None if limit < 0 else limit
        self.group.set_limit(limit)
        self.began = []  # of the real ones, numbers in the order in which they began
        self.gates = {}
        self.running = []  # of the model
        self.waiting = deque()
        self.callers = []
        self.numbers = iter(range(10**9))
        self.first = None
        self.cause = None  # of the context; wait() ends that as well

    def body(self, number):
        self.began.append(number)
        how = self.gates[number].recv()
        if how == "exit":
            gort.goexit()
        if how is not None:
            raise how

    def new(self):
        number = next(self.numbers)
        self.gates[number] = gort.Chan(1)
        return number

    def is_full(self):
        return self.limit is not None and len(self.running) >= self.limit

    @rule()
    def try_go(self):
        number = self.new()
        expected = not self.is_full()
        assert self.group.try_go(self.body, number) is expected
        if expected:
            self.running.append(number)

    @precondition(lambda self: len(self.waiting) < 3)
    @rule()
    def go(self):
        number = self.new()
        caller = gort.go(self.group.go, self.body, number)
        if self.is_full():
            eventually(lambda: is_parked(caller))
            self.waiting.append((number, caller))
        else:
            eventually(lambda: caller.done)
            self.running.append(number)
        self.callers.append(caller)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), how=st.sampled_from([None, "exit", "error"]))
    def end(self, which, how):
        number = self.running.pop(which % len(self.running))
        eventually(lambda: number in self.began)
        if how == "error":
            how = ValueError(number)
            self.first = self.first or how
            if self.ctx.err() is None:
                self.cause = how
        self.gates[number].send(how)
        if self.waiting:
            follower, caller = self.waiting.popleft()
            eventually(lambda: caller.done)
            self.running.append(follower)
        else:
            # Nothing shows the end but that there is room again.
            eventually(lambda: len(self.active()) == len(self.running))

    def active(self):
        """Real ones that have not ended, as the group counts them, or else as they say."""
        limit = self.group._limit
        return self.running if limit is None else limit.active

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 3))
    def cancel_who_waits(self, which):
        index = which % len(self.waiting)
        _, caller = self.waiting[index]
        del self.waiting[index]
        caller.cancel()
        eventually(lambda: caller.done)

    @precondition(lambda self: not self.waiting)
    @rule(limit=st.integers(-1, 4))
    def set_limit(self, limit):
        try:
            self.group.set_limit(limit)
        except RuntimeError as error:
            assert limit >= 0 and self.limit is not None and self.running
            assert f"while {len(self.running)} goroutines" in str(error)
        else:
            if self.limit is None and self.running and limit >= 0:
                self.drain()  # those without a limit are not counted by the new one
            assert limit < 0 or self.limit is None or not self.running
            if limit < 0 and self.limit is not None:
                self.drain()
            self.limit = None if limit < 0 else limit

    def drain(self):
        for number in self.running:
            self.gates[number].send(None)
        self.running.clear()
        self.wait()

    def wait(self):
        try:
            self.group.wait(timeout=20)
        except ValueError as error:
            assert error is self.first
        else:
            assert self.first is None

    @invariant()
    def who_was_to_begin_has_begun(self):
        eventually(lambda: all(number in self.began for number in self.running))
        waiting = {number for number, _ in self.waiting}
        assert not waiting & set(self.began)

    @precondition(lambda self: self.cause is not None)
    @invariant()
    def first_error_is_the_cause(self):
        eventually(lambda: self.ctx.cause() is self.cause)

    def teardown(self):
        if not hasattr(self, "group"):
            return
        while self.waiting:
            _, caller = self.waiting.popleft()
            caller.cancel()
            eventually(lambda caller=caller: caller.done)
        self.drain()
        assert self.ctx.err() is not None


ErrgroupMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestErrgroup = ErrgroupMachine.TestCase
