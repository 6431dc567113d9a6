"""select over three channels against a plain model, with plain senders and receivers beside it."""

from __future__ import annotations

import gort
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reference import RECV, SEND, Case, Model, Steps

CHANNELS = 3
CASES = st.lists(
    st.tuples(st.sampled_from([None, 0, 0, 1, 1, 2, 2]), st.booleans()), min_size=0, max_size=10
)
CHAN = st.integers(0, CHANNELS - 1)


class SelectMachine(Steps, RuleBasedStateMachine):
    @initialize(caps=st.lists(st.integers(0, 2), min_size=CHANNELS, max_size=CHANNELS))
    def make(self, caps):
        self.model, self.chans = Model(caps), [gort.Chan(cap) for cap in caps]
        self.values = iter(range(10**9))

    def cases(self, plan):
        """The model's cases and the real ones."""
        cases = [Case(chan, is_send, next(self.values)) for chan, is_send in plan]
        real = []
        for c in cases:
            ch = None if c.chan is None else self.chans[c.chan]
            real.append(gort.send(ch, c.value) if c.is_send else gort.recv(ch))
        return cases, real

    @rule(plan=CASES, timeout=st.sampled_from([None, 60.0]))
    def select(self, plan, timeout):
        cases, real = self.cases(plan)
        self.begin(cases, lambda: gort.select(*real, timeout=timeout))

    def at_once(self, plan, nothing, **options):
        cases, real = self.cases(plan)
        try:
            outcome = gort.select(*real, **options)
        except gort.ChanClosed:
            outcome = "closed"
        if any(self.model.ready(c) for c in cases):
            self.model.act(cases, outcome)
        else:
            assert outcome == (nothing, None, False)

    @rule(plan=CASES)
    def select_with_default(self, plan):
        self.at_once(plan, -1, default=True)

    @rule(plan=CASES, timeout=st.sampled_from([0, 0.001]))
    def select_with_timeout_on_main(self, plan, timeout):
        self.at_once(plan, -2, timeout=timeout)

    @rule(chan=CHAN)
    def send(self, chan):
        value = next(self.values)
        self.begin([Case(chan, SEND, value)], lambda: (0, self.chans[chan].send(value), True))

    @rule(chan=CHAN)
    def recv(self, chan):
        self.begin([Case(chan, RECV)], lambda: (0, *self.chans[chan].recv_ok()))

    @rule(which=st.integers(0, 9))
    def cancel(self, which):
        # No precondition: who waits depends on what select chose, and runs must be alike.
        if self.model.waiting:
            self.cancel_one(which)

    @rule(chan=CHAN)
    @precondition(lambda self: sum(c.closed for c in self.model.chans) < CHANNELS - 1)
    def close(self, chan):
        if not self.model.chans[chan].closed:
            self.chans[chan].close()
            self.model.close(chan)

    @invariant()
    def same(self):
        if hasattr(self, "model"):
            self.agree()

    def teardown(self):
        if hasattr(self, "model"):
            self.end()


SelectMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, derandomize=True
)
TestSelectModel = SelectMachine.TestCase
