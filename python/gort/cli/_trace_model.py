"""What a trace tells of each goroutine: its states, where it ran, who woke it.

`Model` goes through a trace once. What it finds out it tells a sink as it happens, so that a trace
of any length needs memory for its live goroutines alone; sums it keeps, by start function.
Times are nanoseconds since the first event.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple, Protocol

from gort._tracefile import KINDS, STATES, Event, TraceFile

__all__ = ["Done", "Goroutine", "Group", "Model", "Sink"]

#: Goroutines of a group that are kept one by one: those that took longest.
_MOST_KEPT = 200
#: Of samples outside of all Ps.
_NO_P = 1 << 63
_UNKNOWN = "(started before the trace)"


class Sink(Protocol):
    """Takes what a trace tells. Starts and ends come at the end of a stretch."""

    def on_goroutine(self, g: int, name: str, t: int) -> None:
        """Take a goroutine that is seen first."""

    def on_end(self, g: int) -> None:
        """Take the end of one: nothing more is told of it."""

    def on_proc(self, p: int, g: int, start: int, end: int, in_call: bool) -> None:
        """Take a stretch for which a goroutine had a P."""

    def on_state(self, g: int, words: str, start: int, end: int, where: str) -> None:
        """Take a stretch of a state: running, runnable, syscall, or why it was blocked."""

    def on_flow(self, why: str, start: int, p: int | None, end: int, to: int, g: int) -> None:
        """Take who was started on P `to` because of what happened on P `p`, if that was one."""

    def on_counts(self, t: int, counts: dict[str, int]) -> None:
        """Take how many goroutines are in each state from now on."""

    def on_value(self, t: int, name: str, value: int) -> None:
        """Take a measured value: heap, heap goal, GOMAXPROCS."""

    def on_span(self, track: str, name: str, start: int, end: int) -> None:
        """Take a stretch of the whole process: a pass of the collector, a stopped world."""

    def on_region(self, g: int, name: str, t: int, begins: bool) -> None:
        """Take the begin or end of a region, or of the collector's work in a goroutine."""

    def on_task(self, task: int, name: str, t: int, begins: bool) -> None:
        """Take the begin or end of a task."""

    def on_mark(self, p: int | None, g: int, kind: str, text: str, t: int) -> None:
        """Take something that has no length: a message, a label, a sample."""


class Done(NamedTuple):
    """The sums of one goroutine, in the order of how long it was there."""

    total: int
    id: int
    created: int
    running: int
    runnable: int
    syscall: int
    blocked: int


class Group:
    """The sums of all goroutines with a start function."""

    __slots__ = ("blocked", "count", "kept", "name", "runnable", "running", "syscall", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = self.total = self.running = self.runnable = self.syscall = 0
        #: By reason.
        self.blocked: dict[str, int] = {}
        self.kept: list[Done] = []


class Goroutine:
    """One that is alive."""

    __slots__ = (
        "blocked", "created", "group", "id", "p", "reason", "regions", "runnable", "running",
        "since", "state", "syscall", "wake", "where",
    )  # fmt: skip

    def __init__(self, ident: int, group: Group, t: int, state: str) -> None:
        self.id = ident
        self.group = group
        self.created = self.since = t
        self.state = state
        self.reason = self.where = ""
        self.running = self.runnable = self.syscall = self.blocked = 0
        self.p: int | None = None
        #: Why it can run, when that was, and the P on which it happened.
        self.wake: tuple[str, int, int | None] | None = None
        self.regions: list[str] = []


class Model:
    """Goes through a trace and sums it up.

    Args:
        trace: what is read.
        sink: what is told of it.
    """

    def __init__(self, trace: TraceFile, sink: Sink) -> None:
        """Begin; `run` does the work."""
        self._trace = trace
        self._sink = sink
        self.groups: dict[str, Group] = {}
        #: Nanoseconds from the first event to the last.
        self.length = 0
        self.tasks: dict[str, list[int]] = {}
        self._gs: dict[int, Goroutine] = {}
        self._counts = dict.fromkeys(("running", "runnable", "syscall", "blocked"), 0)
        self._on_p: dict[int, tuple[int, int, bool]] = {}
        self._spans: dict[tuple[str, int], tuple[str, int]] = {}
        self._open_tasks: dict[int, tuple[str, int, int]] = {}
        self._task_count = 0
        self._places: dict[int, str] = {}
        self._places_of = 0
        self._handlers = self._find_handlers()

    def _find_handlers(self) -> dict[int, Callable[[int, Event], None]]:
        """Say what takes which event."""
        by_name: dict[str, Callable[[int, Event], None]] = {
            "CPUSample": self._sample, "ProcsChange": self._procs, "ProcSteal": self._steal,
            "ProcStop": self._stop, "GoCreate": self._create, "GoCreateBlocked": self._create,
            "GoCreateSyscall": self._create_in_call, "GoStart": self._start,
            "GoSwitch": self._switch, "GoSwitchDestroy": self._switch, "GoDestroy": self._end,
            "GoDestroySyscall": self._end, "GoStop": self._leave, "GoBlock": self._leave,
            "GoUnblock": self._unblock, "GoSyscallBegin": self._call,
            "GoSyscallEnd": self._call_ends, "GoSyscallEndBlocked": self._call_was_long,
            "GoStatus": self._status, "GoStatusStack": self._status, "STWBegin": self._span,
            "STWEnd": self._span, "GCActive": self._span, "GCBegin": self._span,
            "GCEnd": self._span, "GCSweepBegin": self._helps, "GCSweepEnd": self._helps,
            "GCMarkAssistBegin": self._helps, "GCMarkAssistEnd": self._helps,
            "HeapAlloc": self._value, "HeapGoal": self._value, "GoLabel": self._label,
            "UserTaskBegin": self._task, "UserTaskEnd": self._task_ends,
            "UserRegionBegin": self._region, "UserRegionEnd": self._region,
            "UserLog": self._log,
        }  # fmt: skip
        return {KINDS[name]: function for name, function in by_name.items()}

    def run(self) -> None:
        """Go through the trace. `trace.warning` says what was wrong with it."""
        first: int | None = None
        handlers = self._handlers
        for event in self._trace.events():
            if first is None:
                first = event.time
            # Clocks of processors may differ: what comes after is not before.
            t = self.length = max(event.time - first, self.length)
            handler = handlers.get(event.kind)
            if handler is not None:
                handler(t, event)
        self._close()

    def _close(self) -> None:
        """End whatever goes on at the end."""
        t = self.length
        for p in sorted(self._on_p):
            self._leave_p(p, t)
        for goroutine in list(self._gs.values()):
            self._forget(t, goroutine)
        for (track, _), (name, start) in sorted(self._spans.items()):
            self._sink.on_span(track, name, start, t)
        for name, start, number in self._open_tasks.values():
            self._sink.on_task(number, name, t, False)
            self.tasks.setdefault(name, []).append(t - start)

    def _group(self, name: str) -> Group:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(name)
        return group

    def _add(self, ident: int, name: str, t: int, state: str) -> Goroutine:
        """Take a goroutine that was not there."""
        goroutine = self._gs[ident] = Goroutine(ident, self._group(name), t, state)
        goroutine.group.count += 1
        self._sink.on_goroutine(ident, name, t)
        self._counts[state] += 1
        self._sink.on_counts(t, self._counts)
        return goroutine

    def _known(self, ident: int, t: int, state: str) -> Goroutine:
        """Find a goroutine, which a damaged trace may not have told of."""
        return self._gs.get(ident) or self._add(ident, _UNKNOWN, t, state)

    def _root(self, stack: int) -> str:
        """Name the function that a stack begins with."""
        frames = self._trace.stack(stack)
        return frames[-1].function if frames else _UNKNOWN

    def _where(self, stack: int) -> str:
        """Name the place at the top of a stack."""
        if self._places_of != self._trace.generations:
            self._places.clear()  # the numbers are those of a generation
            self._places_of = self._trace.generations
        text = self._places.get(stack)
        if text is None:
            frames = self._trace.stack(stack)[:1]
            text = "".join(f"{at.function} {at.file}:{at.line}" for at in frames)
            self._places[stack] = text
        return text

    def _become(self, t: int, goroutine: Goroutine, state: str, reason: str = "") -> None:
        """End a stretch of a goroutine and begin one of another state."""
        self._count(t, goroutine)
        self._counts[goroutine.state] -= 1
        self._counts[state] += 1
        goroutine.state, goroutine.reason, goroutine.since = state, reason, t
        self._sink.on_counts(t, self._counts)

    def _count(self, t: int, goroutine: Goroutine) -> None:
        """Add up a stretch that ends."""
        state, spent = goroutine.state, t - goroutine.since
        words = state
        if state == "blocked":
            words = goroutine.reason or "waiting"
            goroutine.blocked += spent
            blocked = goroutine.group.blocked
            blocked[words] = blocked.get(words, 0) + spent
        elif state == "running":
            goroutine.running += spent
            goroutine.group.running += spent
        elif state == "runnable":
            goroutine.runnable += spent
            goroutine.group.runnable += spent
        else:
            goroutine.syscall += spent
            goroutine.group.syscall += spent
        if spent > 0:
            self._sink.on_state(goroutine.id, words, goroutine.since, t, goroutine.where)

    def _forget(self, t: int, goroutine: Goroutine) -> None:
        """Sum up a goroutine that ends, or is there at the end."""
        self._count(t, goroutine)
        while goroutine.regions:
            self._sink.on_region(goroutine.id, goroutine.regions.pop(), t, False)
        del self._gs[goroutine.id]
        self._counts[goroutine.state] -= 1
        group, total = goroutine.group, t - goroutine.created
        group.total += total
        done = Done(
            total, goroutine.id, goroutine.created, goroutine.running, goroutine.runnable,
            goroutine.syscall, goroutine.blocked,
        )  # fmt: skip
        if len(group.kept) < _MOST_KEPT:
            heapq.heappush(group.kept, done)
        else:
            heapq.heappushpop(group.kept, done)
        self._sink.on_end(goroutine.id)

    def _take_p(self, p: int | None, g: int, t: int, in_call: bool = False) -> None:
        """Note that a goroutine has a P from now on."""
        if p is not None:
            if p in self._on_p:
                self._leave_p(p, t)
            self._on_p[p] = (g, t, in_call)

    def _leave_p(self, p: int | None, t: int) -> None:
        """Note that it has no longer."""
        had = self._on_p.pop(p, None) if p is not None else None
        if had is not None and p is not None and t > had[1]:
            self._sink.on_proc(p, had[0], had[1], t, had[2])

    def _status(self, t: int, event: Event) -> None:
        g, state = event.args[0], STATES.get(event.args[2], "waiting")
        state = "blocked" if state == "waiting" else state
        named = len(event.args) > 3
        if g not in self._gs:
            # What has a state when the trace begins was there before.
            name = self._root(event.args[3]) if named else _UNKNOWN
            goroutine = self._add(g, name, 0 if self._trace.generations == 1 else t, state)
            if state in ("running", "syscall"):
                goroutine.p = event.p
                self._take_p(event.p, g, t, state == "syscall")
        elif self._gs[g].state != state:
            self._become(t, self._gs[g], state)

    def _create(self, t: int, event: Event) -> None:
        g, stack = event.args[0], event.args[1]
        state = "runnable" if event.kind == KINDS["GoCreate"] else "blocked"
        goroutine = self._add(g, self._root(stack), t, state)
        goroutine.where = self._where(event.args[2])
        goroutine.wake = ("go", t, event.p)

    def _create_in_call(self, t: int, event: Event) -> None:
        self._add(event.args[0], "(a thread of C code)", t, "syscall")

    def _start(self, t: int, event: Event) -> None:
        goroutine = self._known(event.args[0], t, "runnable")
        self._become(t, goroutine, "running")
        goroutine.p, goroutine.where = event.p, ""
        self._take_p(event.p, goroutine.id, t)
        if goroutine.wake is not None and event.p is not None:
            why, at, p = goroutine.wake
            self._sink.on_flow(why, at, p, t, event.p, goroutine.id)
        goroutine.wake = None

    def _switch(self, t: int, event: Event) -> None:
        if event.kind == KINDS["GoSwitch"]:
            left = self._known(event.g, t, "running")
            self._leave_p(event.p, t)
            self._become(t, left, "blocked", "coroutine")
        else:
            self._end(t, event)
        goroutine = self._known(event.args[0], t, "blocked")
        goroutine.wake = None
        self._start(t, event)

    def _leave(self, t: int, event: Event) -> None:
        goroutine = self._known(event.g, t, "running")
        reason = self._trace.string(event.args[0])
        blocks = event.kind == KINDS["GoBlock"]
        self._leave_p(event.p, t)
        self._become(t, goroutine, "blocked" if blocks else "runnable", reason)
        goroutine.where = self._where(event.args[1])
        goroutine.p = None

    def _end(self, t: int, event: Event) -> None:
        self._leave_p(event.p, t)
        self._forget(t, self._known(event.g, t, "running"))

    def _unblock(self, t: int, event: Event) -> None:
        goroutine = self._known(event.args[0], t, "blocked")
        why = f"wakes ({goroutine.reason})" if goroutine.reason else "wakes"
        self._become(t, goroutine, "runnable")
        goroutine.wake = (why, t, event.p)

    def _call(self, t: int, event: Event) -> None:
        goroutine = self._known(event.g, t, "running")
        self._become(t, goroutine, "syscall")
        goroutine.where = self._where(event.args[1])
        self._take_p(event.p, goroutine.id, t, True)

    def _call_ends(self, t: int, event: Event) -> None:
        goroutine = self._known(event.g, t, "syscall")
        self._become(t, goroutine, "running")
        goroutine.where = ""
        self._take_p(event.p, goroutine.id, t)

    def _call_was_long(self, t: int, event: Event) -> None:
        self._become(t, self._known(event.g, t, "syscall"), "runnable")

    def _steal(self, t: int, event: Event) -> None:
        self._leave_p(event.args[0], t)

    def _stop(self, t: int, event: Event) -> None:
        self._leave_p(event.p, t)

    def _procs(self, t: int, event: Event) -> None:
        self._sink.on_value(t, "GOMAXPROCS", event.args[0])

    def _value(self, t: int, event: Event) -> None:
        name = "heap" if event.kind == KINDS["HeapAlloc"] else "heap goal"
        self._sink.on_value(t, name, event.args[0])

    def _span(self, t: int, event: Event) -> None:
        collects = event.kind in (KINDS["GCActive"], KINDS["GCBegin"], KINDS["GCEnd"])
        key = ("Garbage collection", 0) if collects else ("Stopped world", event.g)
        if event.kind in (KINDS["GCEnd"], KINDS["STWEnd"]):
            name, start = self._spans.pop(key, ("(began before the trace)", 0))
            self._sink.on_span(key[0], name, start, t)
        elif key not in self._spans:
            name = "GC" if collects else self._trace.string(event.args[0])
            self._spans[key] = (name, t)

    def _helps(self, t: int, event: Event) -> None:
        if event.g in self._gs:
            sweeps = event.kind in (KINDS["GCSweepBegin"], KINDS["GCSweepEnd"])
            begins = event.kind in (KINDS["GCSweepBegin"], KINDS["GCMarkAssistBegin"])
            self._part(t, event.g, "GC sweep" if sweeps else "GC mark assist", begins)

    def _region(self, t: int, event: Event) -> None:
        begins = event.kind == KINDS["UserRegionBegin"]
        self._part(t, event.g, self._trace.string(event.args[1]), begins)

    def _part(self, t: int, g: int, name: str, begins: bool) -> None:
        """Begin or end a region; one that began before the trace is left out."""
        regions = self._known(g, t, "running").regions
        if begins:
            regions.append(name)
        elif name not in regions:
            return
        else:
            while regions[-1] != name:  # ended out of order: what is within ends with it
                self._sink.on_region(g, regions.pop(), t, False)
            regions.pop()
        self._sink.on_region(g, name, t, begins)

    def _task(self, t: int, event: Event) -> None:
        self._task_ends(t, event)  # in a damaged trace two may have one number
        self._task_count += 1
        name = self._trace.string(event.args[2])
        self._open_tasks[event.args[0]] = (name, t, self._task_count)
        self._sink.on_task(self._task_count, name, t, True)

    def _task_ends(self, t: int, event: Event) -> None:
        name, start, number = self._open_tasks.pop(event.args[0], (None, 0, 0))
        if name is not None:
            self.tasks.setdefault(name, []).append(t - start)
            self._sink.on_task(number, name, t, False)

    def _log(self, t: int, event: Event) -> None:
        text = f"{self._trace.string(event.args[1])}: {self._trace.string(event.args[2])}"
        self._sink.on_mark(event.p, event.g, "log", text, t)

    def _label(self, t: int, event: Event) -> None:
        self._sink.on_mark(event.p, event.g, "label", self._trace.string(event.args[0]), t)

    def _sample(self, t: int, event: Event) -> None:
        _, p, g, stack = event.args
        self._sink.on_mark(
            p if p < _NO_P else None, g if g in self._gs else 0, "CPU sample", self._where(stack), t
        )
