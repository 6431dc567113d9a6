"""A plain model of channels and select: deques, and one list of waiters in order of arrival.

Go leaves it open which of several ready cases a select takes, and so does the model: it reads from
the goroutine which case was taken, checks that it was allowed, and goes on from there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import gort
from waiting import LIMIT, eventually, is_parked

SEND, RECV = True, False


@dataclass
class Case:
    """One case: the channel's number (None: nil channel), its direction, what is sent."""

    chan: int | None
    is_send: bool
    value: Any = None


@dataclass(eq=False)
class Waiter:
    """A goroutine and the cases it was started with; a plain operation has one."""

    cases: list[Case]
    goroutine: Any

    def indexes(self, chan, is_send):
        return [i for i, c in enumerate(self.cases) if c.chan == chan and c.is_send == is_send]

    def outcome(self):
        """(index, value, ok), or "closed" for a send that found its channel closed."""
        try:
            return self.goroutine.join(timeout=20)  # it was woken: far more than it needs
        except gort.ChanClosed:
            return "closed"


@dataclass
class Channel:
    cap: int
    buffer: deque = field(default_factory=deque)
    returned: list = field(default_factory=list)
    closed: bool = False

    def __len__(self):
        return len(self.buffer) + len(self.returned)


class Model:
    """All channels of a test and everybody who waits on them."""

    def __init__(self, caps):
        self.chans = [Channel(cap) for cap in caps]
        self.waiting: list[Waiter] = []

    def first(self, chan, is_send):
        return next((w for w in self.waiting if w.indexes(chan, is_send)), None)

    def served(self, waiter, chan, is_send):
        """A waiter got its turn on `chan`: the case it took, which must fit, and its outcome."""
        self.waiting.remove(waiter)
        outcome = waiter.outcome()
        assert outcome != "closed", f"{waiter} found a channel closed that is open"
        assert outcome[0] in waiter.indexes(chan, is_send), (waiter, outcome)
        return waiter.cases[outcome[0]], outcome

    def ready(self, case):
        """Whether `case` could go on now, closed channels included."""
        if case.chan is None:
            return False
        ch = self.chans[case.chan]
        if ch.closed:
            return True
        if case.is_send:
            return bool(len(ch.buffer) < ch.cap or self.first(case.chan, RECV))
        return bool(len(ch) or self.first(case.chan, SEND))

    def recv(self, chan):
        """A receive that is ready: (value, ok)."""
        ch = self.chans[chan]
        if ch.returned:
            return ch.returned.pop(0)[1], True
        sender = self.first(chan, SEND)
        if ch.buffer:
            value = ch.buffer.popleft()
            if sender:
                ch.buffer.append(self.served(sender, chan, SEND)[0].value)
            return value, True
        if sender:
            return self.served(sender, chan, SEND)[0].value, True
        assert ch.closed
        return None, False

    def send(self, chan, value):
        """A send that is ready, on an open channel."""
        receiver = self.first(chan, RECV)
        if receiver:
            _, outcome = self.served(receiver, chan, RECV)
            assert outcome[1:] == (value, True), (receiver, outcome, value)
        else:
            self.chans[chan].buffer.append(value)
            assert len(self.chans[chan].buffer) <= self.chans[chan].cap

    def unrecv(self, chan, value, stamp):
        if self.first(chan, RECV):
            self.send(chan, value)
        else:
            returned = self.chans[chan].returned
            returned.append((stamp, value))
            returned.sort(key=lambda pair: pair[0])

    def close(self, chan):
        self.chans[chan].closed = True
        for waiter in self.waiting[:]:
            receives, sends = waiter.indexes(chan, RECV), waiter.indexes(chan, SEND)
            if receives or sends:
                self.waiting.remove(waiter)
                outcome = waiter.outcome()
                if outcome == "closed":
                    assert sends
                else:
                    assert outcome[0] in receives and outcome[1:] == (None, False)

    def act(self, cases, outcome):
        """Somebody went on at once with `outcome`; at least one of the `cases` was ready."""
        ready = [i for i, c in enumerate(cases) if self.ready(c)]
        if outcome == "closed":
            assert any(cases[i].is_send and self.chans[cases[i].chan].closed for i in ready)
            return
        index, value, ok = outcome
        assert index in ready, (cases, ready, outcome)
        case = cases[index]
        if case.is_send:
            assert not self.chans[case.chan].closed and value is None
            self.send(case.chan, case.value)
        else:
            assert (value, ok) == self.recv(case.chan)


def start(fn, *args):
    """A goroutine that has got as far as it can."""
    g = gort.go(fn, *args)
    eventually(lambda: g.done or is_parked(g), what="a goroutine that ended or parked")
    return g


class Steps:
    """What both machines do after a step, and at the end."""

    model: Model
    chans: list

    def begin(self, cases, fn, *args):
        """Starts a goroutine for `cases` and follows it in the model."""
        waiter = Waiter(cases, start(fn, *args))
        if any(self.model.ready(c) for c in cases):
            self.model.act(cases, waiter.outcome())
        else:
            assert not waiter.goroutine.done, waiter
            self.model.waiting.append(waiter)

    def agree(self):
        """Lengths, states, and who still waits are as in the model."""
        gort.gosched()
        for ch, want in zip(self.chans, self.model.chans, strict=True):
            assert (len(ch), ch.cap, ch.closed) == (len(want), want.cap, want.closed)
        for waiter in self.model.waiting:
            assert not waiter.goroutine.done, f"{waiter} should wait"

    def cancel_one(self, data_index):
        """Cancels a waiter: it is out of every queue and its value was not sent."""
        waiter = self.model.waiting.pop(data_index % len(self.model.waiting))
        assert waiter.goroutine.cancel()
        try:
            waiter.goroutine.join(timeout=LIMIT)
        except gort.Cancelled:
            return
        raise AssertionError(f"{waiter} was not cancelled")

    def end(self):
        while self.model.waiting:
            self.cancel_one(0)
