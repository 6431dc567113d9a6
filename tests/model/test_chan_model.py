"""Chan against a plain model, one step at a time with goroutines that wait in between."""

from __future__ import annotations

import gort
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reference import RECV, SEND, Case, Model, Steps

CLOSED = "send on closed channel"


class ChanMachine(Steps, RuleBasedStateMachine):
    @initialize(cap=st.integers(0, 3))
    def make(self, cap):
        self.model, self.chans = Model([cap]), [gort.Chan(cap)]
        self.values = iter(range(10**9))
        self.stamps = []

    @property
    def ch(self):
        return self.chans[0]

    def can(self, is_send):
        return self.model.ready(Case(0, is_send))

    @rule(timeout=st.sampled_from([None, 60.0]))
    def send(self, timeout):
        value = next(self.values)
        self.begin([Case(0, SEND, value)], lambda: (0, self.ch.send(value, timeout), True))

    @rule(how=st.sampled_from(["recv_ok", "timeout", "next"]))
    def recv(self, how):
        def body():
            if how == "next":
                value = next(iter(self.ch), None)
                return (0, value, value is not None)
            return (0, *(self.ch.recv_ok() if how == "recv_ok" else self.ch.recv_ok(timeout=60)))

        self.begin([Case(0, RECV)], body)

    @rule()
    def try_send(self):
        value = next(self.values)
        if self.model.chans[0].closed:
            with pytest.raises(gort.ChanClosed, match=CLOSED):
                self.ch.try_send(value)
        elif self.can(SEND):
            assert self.ch.try_send(value) is True
            self.model.send(0, value)
        else:
            assert self.ch.try_send(value) is False

    @rule()
    def try_recv(self):
        if self.can(RECV):
            got = self.ch.try_recv()
            assert got == (*self.model.recv(0), True)
        else:
            assert self.ch.try_recv() == (None, False, False)

    @rule(timeout=st.sampled_from([0, 0.001]))
    def recv_with_timeout_on_main(self, timeout):
        if self.can(RECV):
            got = self.ch.recv_ok(timeout=timeout)
            assert got == self.model.recv(0)
        else:
            with pytest.raises(TimeoutError):
                self.ch.recv(timeout=timeout)

    @rule(timeout=st.sampled_from([0, 0.001]))
    def send_with_timeout_on_main(self, timeout):
        value = next(self.values)
        if self.model.chans[0].closed:
            with pytest.raises(gort.ChanClosed, match=CLOSED):
                self.ch.send(value, timeout)
        elif self.can(SEND):
            self.ch.send(value, timeout)
            self.model.send(0, value)
        else:
            with pytest.raises(TimeoutError):
                self.ch.send(value, timeout)

    @rule()
    @precondition(lambda self: self.can(RECV) and not self.model.chans[0].closed)
    def receive_with_a_stamp(self):
        value, ok, stamp = self.ch._recv_until(gort.Chan())
        assert (value, ok) == self.model.recv(0)
        self.stamps.append((value, stamp))

    @rule(which=st.integers(0, 9))
    @precondition(lambda self: self.stamps)
    def put_back(self, which):
        value, stamp = self.stamps.pop(which % len(self.stamps))
        self.ch._unrecv(value, stamp)
        self.model.unrecv(0, value, stamp)

    @rule(which=st.integers(0, 9))
    @precondition(lambda self: self.model.waiting)
    def cancel(self, which):
        self.cancel_one(which)

    @rule()
    def close(self):
        if self.model.chans[0].closed:
            with pytest.raises(gort.ChanClosed, match="close of closed channel"):
                self.ch.close()
        else:
            self.ch.close()
            self.model.close(0)

    @invariant()
    def same(self):
        if hasattr(self, "model"):
            self.agree()

    def teardown(self):
        if hasattr(self, "model"):
            self.end()


ChanMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, derandomize=True
)
TestChanModel = ChanMachine.TestCase
