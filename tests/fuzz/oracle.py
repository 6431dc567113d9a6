"""What Go's rules say of a log of `runner`: every operation's outcome, and who may wait at the end.

The model follows the log. Where the rules leave a choice (which ready case a select takes, when a
lock goes to whom, whether a time-out was faster) it takes what the log says and checks that it was
allowed; everything else has one outcome. Channels are exact: queues are first come, first served.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .programs import Operation, Program

WAITS = object()  # an operation that has no end in the log


class Difference(AssertionError):
    """The log shows what the rules forbid."""


def must(holds: Any, *what: Any) -> None:
    """Raise what differs unless it holds."""
    if not holds:
        raise Difference(" ".join(map(str, what)))


@dataclass(eq=False)
class Wait:
    """An operation on channels that found nothing ready."""

    g: int
    cases: list[list[Any]]
    outcome: Any
    is_select: bool
    is_over: bool = False

    def may_be_served(self) -> bool:
        """One whose time-out was faster is out of its queues, who knows since when."""
        return not self.is_over and self.outcome != "timeout"

    def value(self, chan: int) -> Any:
        """What its case sends there: the one it took, should there be several."""
        sends = [(i, c) for i, c in enumerate(self.cases) if c[:2] == ["send", chan]]
        if self.is_select and isinstance(self.outcome, tuple):
            sends = [(i, c) for i, c in sends if i == self.outcome[0]] or sends
        return sends[0][1][2]

    def serve(self, direction: str, chan: int, result: tuple[Any, bool] | str) -> None:
        """It gets its turn: the log must say so."""
        self.is_over = True
        who = f"goroutine {self.g}: {self.cases}"
        if result == "closed":
            must(self.outcome == "closed", who, "should find it closed, got", self.outcome)
        elif not self.is_select:
            want = None if direction == "send" else result
            must(self.outcome == want, who, "should get", want, "got", self.outcome)
        else:
            must(isinstance(self.outcome, tuple), who, "should be served, got", self.outcome)
            index, *rest = self.outcome
            must(self.cases[index][:2] == [direction, chan], who, "took the wrong case", index)
            must(direction == "send" or tuple(rest) == result, who, "got", rest, "not", result)


@dataclass
class Channel:
    """Go's channel: a buffer and two queues."""

    cap: int
    buffer: deque[int] = field(default_factory=deque)
    closed: bool = False
    queues: dict[str, list[Wait]] = field(default_factory=lambda: {"send": [], "recv": []})

    def first(self, direction: str) -> Wait | None:
        return next((w for w in self.queues[direction] if w.may_be_served()), None)


@dataclass
class Lock:
    """A mutex, or a lock for readers and writers."""

    writer: int | None = None
    readers: int = 0


class Oracle:
    """Follows one log."""

    def __init__(self, program: Program, log: list[tuple[Any, ...]]) -> None:
        self.program, self.log = program, log
        self.outcomes = {entry[1:3]: entry[3] for entry in log if entry[0] == "end"}
        self.chans = [Channel(cap) for cap in program["chans"]]
        self.locks = {("mutex", i): Lock() for i in range(program["mutexes"])}
        self.locks |= {("rw", i): Lock() for i in range(program["rwmutexes"])}
        self.free = list(program["semaphores"])
        self.counts = [0] * program["groups"]
        self.spawned = program["started"]
        self.begun: set[int] = set()
        self.ended: dict[int, str] = {}
        self.asked: set[int] = set()  # cancellations not yet delivered
        self.doomed: set[int] = set()  # cancelled before they began
        self.current: dict[int, tuple[Operation, Any]] = {}  # goroutine: operation, wait or state
        self.released: set[int] = set()  # of those that wait for a group

    def check(self, waiting: set[int], chans: list[tuple[int, bool]]) -> None:
        """Raises Difference; `waiting`: who has not ended; `chans`: length and closed of each."""
        for entry in self.log:
            getattr(self, f"on_{entry[0]}")(*entry[1:])
        must(set(self.current) == waiting, "waiting", waiting, "should be", set(self.current))
        for g, (operation, wait) in self.current.items():
            self.still_waits(g, operation, wait)
        must(set(range(self.spawned)) == self.begun | self.doomed, "some never began")
        want = [(len(chan.buffer), chan.closed) for chan in self.chans]
        must(chans == want, "channels are", chans, "should be", want)

    def on_begin(self, g: int) -> None:
        must(g < self.spawned and g not in self.doomed, "goroutine", g, "should not begin")
        self.begun.add(g)

    def on_exit(self, g: int, how: str) -> None:
        must(g not in self.current and how != "broken", "goroutine", g, "ended", how)
        self.ended[g] = how

    def on_start(self, g: int, n: int, operation: Operation) -> None:
        outcome = self.outcomes.get((g, n), WAITS)
        wait = getattr(self, f"start_{operation[0]}", self.nothing)(g, outcome, *operation[1:])
        self.current[g] = (operation, wait)

    def on_end(self, g: int, _n: int, outcome: Any) -> None:
        operation, wait = self.current.pop(g)
        if outcome == "cancelled":
            must(g in self.asked, "goroutine", g, "was not asked to end in", operation)
            self.asked.discard(g)
            if isinstance(wait, Wait):
                must(wait.is_over, "goroutine", g, "still waits in", operation)
            return
        if isinstance(wait, Wait):
            must(outcome == "timeout" or wait.is_over, "nobody served", g, operation, outcome)
            wait.is_over = True
        if outcome == "timeout":
            must(operation[-1] is not None, "goroutine", g, "has no time-out in", operation)
            return
        finish = getattr(self, f"end_{operation[0]}", None)
        if finish:
            finish(g, outcome, *operation[1:])

    def nothing(self, _g: int, _outcome: Any, *_: Any) -> None:
        """An operation that touches nothing the model knows."""

    # channels

    def ready(self, case: list[Any]) -> bool:
        if case[1] is None:
            return False
        chan = self.chans[case[1]]
        if chan.closed:
            return True
        if case[0] == "send":
            return len(chan.buffer) < chan.cap or chan.first("recv") is not None
        return bool(chan.buffer) or chan.first("send") is not None

    def go_on(self, case: list[Any]) -> Any:
        """A case that is ready: (value, ok) of a receive, None of a send, or "closed"."""
        chan, number = self.chans[case[1]], case[1]
        if case[0] == "send":
            if chan.closed:
                return "closed"
            receiver = chan.first("recv")
            if receiver is not None:
                receiver.serve("recv", number, (case[2], True))
            else:
                chan.buffer.append(case[2])
            return None
        sender = chan.first("send")
        if chan.buffer:
            value = chan.buffer.popleft()
            if sender is not None:
                chan.buffer.append(sender.value(number))
                sender.serve("send", number, (None, True))
            return value, True
        if sender is not None:
            value = sender.value(number)
            sender.serve("send", number, (None, True))
            return value, True
        return None, False

    def wait(self, g: int, outcome: Any, cases: list[list[Any]], is_select: bool) -> Wait:
        """Nothing is ready: it waits, unless it was asked to end."""
        wait = Wait(g, cases, outcome, is_select)
        if g in self.asked:
            must(outcome == "cancelled", "goroutine", g, "should end in", cases, "got", outcome)
            wait.is_over = True
            return wait
        for direction, chan, *_ in cases:
            if chan is not None and wait not in self.chans[chan].queues[direction]:
                self.chans[chan].queues[direction].append(wait)
        return wait

    def operate(self, g: int, outcome: Any, case: list[Any]) -> Wait | None:
        """A send or receive that may wait."""
        if not self.ready(case):
            return self.wait(g, outcome, [case], is_select=False)
        want = self.go_on(case)
        must(outcome == want, "goroutine", g, case, "should be", want, "got", outcome)
        return None

    def start_send(self, g: int, outcome: Any, chan: int, value: int, _timeout: Any) -> Any:
        return self.operate(g, outcome, ["send", chan, value])

    def start_recv(self, g: int, outcome: Any, chan: int, _timeout: Any) -> Any:
        return self.operate(g, outcome, ["recv", chan])

    def start_try_send(self, g: int, outcome: Any, chan: int, value: int) -> None:
        case = ["send", chan, value]
        want = {None: True, "closed": "closed"}[self.go_on(case)] if self.ready(case) else False
        must(outcome == want, "goroutine", g, "tried", case, "should be", want, "got", outcome)

    def start_try_recv(self, g: int, outcome: Any, chan: int) -> None:
        case = ["recv", chan]
        want = (*self.go_on(case), True) if self.ready(case) else (None, False, False)
        must(outcome == want, "goroutine", g, "tried", case, "should be", want, "got", outcome)

    def start_select(
        self, g: int, outcome: Any, cases: list[list[Any]], default: bool, _timeout: Any
    ) -> Wait | None:
        ready = [i for i, case in enumerate(cases) if self.ready(case)]
        who = f"goroutine {g}: select {cases}"
        if not ready and default:
            must(outcome == (-1, None, False), who, "should take the default, got", outcome)
            return None
        if not ready:
            return self.wait(g, outcome, cases, is_select=True)
        if outcome == "closed":
            closed = [i for i in ready if cases[i][0] == "send" and self.chans[cases[i][1]].closed]
            must(closed, who, "found a channel closed that is open")
            return None
        must(isinstance(outcome, tuple) and outcome[0] in ready, who, "took", outcome, ready)
        want = self.go_on(cases[outcome[0]])
        must(want != "closed", who, "sent on a closed channel")
        must(want is None or outcome[1:] == want, who, "got", outcome, "not", want)
        return None

    def start_close(self, g: int, outcome: Any, number: int) -> None:
        chan = self.chans[number]
        want = "closed" if chan.closed else None
        must(outcome == want, "goroutine", g, "closes", number, want, outcome)
        chan.closed = True
        for direction, queue in chan.queues.items():
            for wait in queue:
                if wait.may_be_served():
                    self.wake_by_close(wait, direction, number)

    def wake_by_close(self, wait: Wait, direction: str, number: int) -> None:
        """Of a select that waits in both queues the log says which case it took."""
        both = {case[0] for case in wait.cases if case[1] == number} == {"send", "recv"}
        if both and wait.is_select:
            direction = "send" if wait.outcome == "closed" else "recv"
        wait.serve(direction, number, "closed" if direction == "send" else (None, False))

    # cancellation, goroutines

    def start_cancel(self, g: int, outcome: Any, other: int) -> None:
        if other >= self.spawned:
            must(outcome == "nobody", "goroutine", g, "cancelled nobody:", outcome)
            return
        if other in self.doomed:
            return  # it ends at its turn, of which the log says nothing
        must(outcome == (other not in self.ended), "goroutine", g, "cancelled", other, outcome)
        if other in self.ended:
            return
        if other not in self.begun:
            self.doomed.add(other)
            return
        self.asked.add(other)
        wait = self.current.get(other, (None, None))[1]
        if isinstance(wait, Wait) and wait.may_be_served():
            must(wait.outcome == "cancelled", other, "should end in", wait.cases, wait.outcome)
            wait.is_over = True

    def start_spawn(self, _g: int, outcome: Any) -> None:
        full = self.spawned == len(self.program["goroutines"])
        must(outcome == (None if full else self.spawned), "spawned", outcome)
        self.spawned += not full

    def end_join(self, g: int, outcome: Any, other: int) -> None:
        if outcome == "nobody":
            return
        how = "cancelled" if other in self.doomed else self.ended.get(other)
        want = {"done": "ended", "cancelled": "was cancelled"}.get(how or "")
        must(outcome == want, "goroutine", g, "joined", other, "should be", want, "got", outcome)

    def start_fork(self, g: int, outcome: Any) -> None:
        """The child's goroutine is a copy: asked to end, it ends at its first wait."""
        want = 1 if g in self.asked else g + 2
        must(outcome in (want, "cancelled", WAITS), "the child of", g, "ended with", outcome)

    # locks, semaphores, groups

    def lock(self, kind: str, which: int) -> Lock:
        return self.locks["mutex" if kind == "mutex" else "rw", which]

    def end_lock(self, g: int, _outcome: Any, kind: str, which: int, _timeout: Any) -> None:
        lock = self.lock(kind, which)
        must(lock.writer is None, "goroutine", g, "got", kind, which, "of", lock.writer)
        if kind == "read":
            lock.readers += 1
        else:
            must(lock.readers == 0, "goroutine", g, "writes beside", lock.readers)
            lock.writer = g

    def start_unlock(self, g: int, _outcome: Any, kind: str, which: int) -> None:
        lock = self.lock(kind, which)
        if kind == "read":
            lock.readers -= 1
        else:
            must(lock.writer == g, "goroutine", g, "unlocks what is", lock.writer)
            lock.writer = None

    def end_acquire(self, g: int, _outcome: Any, which: int, n: int, _timeout: Any) -> None:
        self.free[which] -= n
        must(self.free[which] >= 0, "goroutine", g, "acquired", n, "of too few")

    def start_release(self, _g: int, outcome: Any, which: int, n: int) -> None:
        self.free[which] += n if outcome is True else 0

    def start_add(self, _g: int, _outcome: Any, which: int) -> None:
        self.counts[which] += 1

    def start_finish(self, _g: int, outcome: Any, which: int) -> None:
        if outcome is not True:
            return
        self.counts[which] -= 1
        if self.counts[which] == 0:
            waiting = [g for g, (op, _) in self.current.items() if op[:2] == ["wait", which]]
            self.released.update(waiting)

    def start_wait(self, g: int, _outcome: Any, which: int, _timeout: Any) -> None:
        self.released.discard(g)
        if self.counts[which] == 0:
            self.released.add(g)

    def end_wait(self, g: int, outcome: Any, which: int, _timeout: Any) -> None:
        must(g in self.released, "goroutine", g, "left a group of", self.counts[which])
        want = "reused" if self.counts[which] else None
        must(outcome == want, "goroutine", g, "left a group of", self.counts[which], outcome)

    # at rest

    def still_waits(self, g: int, operation: Operation, wait: Any) -> None:
        """Whether an operation without an end has a reason to wait."""
        name, arguments = operation[0], operation[1:]
        fine = g not in self.asked
        if isinstance(wait, Wait):
            fine &= not wait.is_over
        elif name == "lock":
            kind, which = arguments[:2]
            lock = self.lock(kind, which)
            writers = [op for op, _ in self.current.values() if op[:3] == ["lock", "write", which]]
            held = lock.writer is not None or lock.readers > 0 and kind == "write"
            fine &= held or (kind == "read" and bool(writers))
        elif name == "acquire":
            first = next(op for op, _ in self.current.values() if op[:2] == operation[:2])
            fine &= first[2] > self.free[arguments[0]]
        elif name == "wait":
            fine &= g not in self.released
        elif name == "join":
            fine &= arguments[0] not in self.ended and arguments[0] not in self.doomed
        else:
            fine = False
        must(fine, "goroutine", g, "waits in", operation, "for nothing")
