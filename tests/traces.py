"""Reads execution traces and holds them to the rules of Go's reader (internal/trace, Go 1.26).

`read` refuses what `go tool trace` refuses, as far as gort's events go, and asks that tool itself,
where it is; `conftest.py` asks it of all traces that the tests have left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEADER = b"go 1.26 trace\0\0\0"
#: Name, arguments after the time, which of them are strings, which is a stack.
SPECS = {
    9: ("ProcsChange", 2, (), 1),
    10: ("ProcStart", 2, (), None),
    11: ("ProcStop", 0, (), None),
    12: ("ProcSteal", 3, (), None),
    13: ("ProcStatus", 2, (), None),
    14: ("GoCreate", 3, (), 2),
    16: ("GoStart", 2, (), None),
    17: ("GoDestroy", 0, (), None),
    19: ("GoStop", 2, (0,), 1),
    20: ("GoBlock", 2, (0,), 1),
    21: ("GoUnblock", 3, (), 2),
    22: ("GoSyscallBegin", 2, (), 1),
    24: ("GoSyscallEndBlocked", 0, (), None),
    25: ("GoStatus", 3, (), None),
    26: ("STWBegin", 2, (0,), 1),
    27: ("STWEnd", 0, (), None),
    28: ("GCActive", 1, (), None),
    29: ("GCBegin", 2, (), 1),
    30: ("GCEnd", 1, (), None),
    32: ("GCSweepBegin", 1, (), 0),
    33: ("GCSweepEnd", 2, (), None),
    37: ("HeapAlloc", 1, (), None),
    39: ("GoLabel", 1, (0,), None),
    40: ("UserTaskBegin", 4, (2,), 3),
    41: ("UserTaskEnd", 2, (), 1),
    42: ("UserRegionBegin", 3, (1,), 2),
    43: ("UserRegionEnd", 3, (1,), 2),
    44: ("UserLog", 4, (1, 2), 3),
    48: ("GoStatusStack", 4, (), 3),
}
RUNNABLE, RUNNING, SYSCALL, WAITING = 1, 2, 3, 4
P_RUNNING, P_IDLE, P_SYSCALL = 1, 2, 3
NO_M = 2**64 - 1


class Wrong(Exception):
    """The trace breaks a rule."""


class Event(NamedTuple):
    """One event, in the order of the rules."""

    name: str
    time: int
    m: int
    g: int
    p: int | None
    args: tuple[int, ...]
    texts: tuple[str, ...]
    stack: tuple[tuple[str, str, int], ...]
    generation: int
    #: Of GoCreate and GoStatusStack: what the goroutine is called.
    entry: str


class Sample(NamedTuple):
    """A sample of the CPU profile."""

    time: int
    m: int
    p: int
    g: int
    stack: tuple[tuple[str, str, int], ...]


class Trace:
    """What a trace tells."""

    def __init__(self, events: list[Event], samples: list[Sample]) -> None:
        self.events = events
        self.samples = samples
        self.counts = Counter(event.name for event in events)
        self.generations = len({event.generation for event in events})

    def of(self, name: str) -> list[Event]:
        """Events of a kind."""
        return [event for event in self.events if event.name == name]

    def reasons(self) -> set[str]:
        """Why goroutines waited or stopped."""
        return {event.texts[0] for event in self.events if event.name in ("GoBlock", "GoStop")}

    def names(self) -> dict[int, str]:
        """What goroutines are called, by number."""
        told = ("GoCreate", "GoStatusStack")
        return {event.args[0]: event.entry for event in self.events if event.name in told}


class _Bytes:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        if not self:
            raise Wrong("the end in the middle of something")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def numbers(self, count: int) -> list[int]:
        return [self.number() for _ in range(count)]

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Wrong("the end in the middle of bytes")
        self.at += count
        return self.data[self.at - count : self.at]


class _Generation:
    def __init__(self) -> None:
        self.number = 0
        self.strings: dict[int, str] = {0: ""}
        self.stacks: dict[int, list[int]] = {0: []}
        self.frames: dict[int, tuple[int, int, int]] = {}
        self.events: dict[int, list[tuple[int, int, list[int]]]] = defaultdict(list)
        self.synced = False
        self.samples: list[list[int]] = []

    def frames_of(self, stack: int) -> tuple[tuple[str, str, int], ...]:
        frames = (self.frames[pc] for pc in self.stacks[stack])
        return tuple((self.strings[name], self.strings[file], line) for name, file, line in frames)

    def batch(self, data: _Bytes) -> None:
        number, m, time, size = data.numbers(4)
        self.number = self.number or number
        if number != self.number or number == 0 or size > 65536:
            raise Wrong(f"a batch of generation {number} in {self.number}, {size} bytes")
        body = _Bytes(data.take(size))
        kind = body.data[0]
        if kind in (4, 2, 6, 50):
            body.byte()
        while body:
            if kind == 4:
                self._string(body)
            elif kind == 2:
                self._stack(body)
            elif kind == 6:
                if body.byte() != 7:
                    raise Wrong("no sample among samples")
                self.samples.append(body.numbers(5))
            elif kind == 50:
                if self.synced or m != NO_M:
                    raise Wrong("clocks told twice")
                self.synced = True
                body.byte(), body.numbers(1), body.byte(), body.numbers(4)
            else:
                event = body.byte()
                if event not in SPECS:
                    raise Wrong(f"an event of type {event}")
                time += body.number()
                of_m = self.events[m]
                if of_m and of_m[-1][0] > time:
                    raise Wrong(f"batches of M {m} out of order")
                of_m.append((time, event, body.numbers(SPECS[event][1])))

    def _string(self, body: _Bytes) -> None:
        kind, (number, size) = body.byte(), body.numbers(2)
        if kind != 5 or number in self.strings or size > 1024:
            raise Wrong(f"string {number}")
        self.strings[number] = body.take(size).decode()

    def _stack(self, body: _Bytes) -> None:
        kind, (number, count) = body.byte(), body.numbers(2)
        if kind != 3 or number in self.stacks or count > 128:
            raise Wrong(f"stack {number}")
        self.stacks[number] = []
        for _ in range(count):
            pc, name, file, line = body.numbers(4)
            self.frames.setdefault(pc, (name, file, line))
            self.stacks[number].append(pc)


class _Order:
    def __init__(self) -> None:
        self.gs: dict[int, list[int]] = {}  # status, generation, number
        self.ps: dict[int, list[int]] = {}
        self.ms: dict[int, list[int | None]] = defaultdict(lambda: [0, None])  # G, P
        self.first = 0
        self.collecting: bool | None = None
        self.collected = 0
        self.stopped: set[int] = set()
        self.sweeping: set[int] = set()
        self.tasks: set[int] = set()
        self.regions: dict[int, list[tuple[int, str]]] = defaultdict(list)

    def running(self, m: list[int | None]) -> list[int]:
        g = self.gs.get(m[0])
        if m[1] is None or g is None or g[0] != RUNNING:
            raise Wrong(f"P {m[1]}, G {m[0]} {g}")
        return g

    def advance(self, gen: int, at: int, name: str, args: list[int], texts: list[str]) -> bool:
        m = self.ms[at]
        if name == "ProcStatus":
            p = self.ps.setdefault(args[0], [args[1], gen, 0])
            if p[0] != args[1]:
                raise Wrong(f"the P's status is {p[0]}")
            p[1:] = [gen, 0]
            if args[1] != P_IDLE:
                m[1] = args[0]
        elif name == "ProcStart":
            p = self.ps.get(args[0])
            if p is None or p != [P_IDLE, gen, args[1] - 1] or m[1] is not None:
                return False
            p[:] = [P_RUNNING, gen, args[1]]
            m[1] = args[0]
        elif name == "ProcStop":
            p = self.ps[m[1]]
            if p[0] not in (P_RUNNING, P_SYSCALL):
                raise Wrong("the P does not run")
            p[0], m[1] = P_IDLE, None
        elif name == "ProcSteal":
            p = self.ps.get(args[0])
            if p is None or p != [P_SYSCALL, gen, args[1] - 1]:
                return False
            if self.ms[args[2]][1] != args[0]:
                raise Wrong("that M has another P")
            p[:] = [P_IDLE, gen, args[1]]
            self.ms[args[2]][1] = None
        elif name in ("GoStatus", "GoStatusStack"):
            self._status(gen, at, m, args)
        elif name in ("GoStart", "GoUnblock"):
            g = self.gs.get(args[0])
            if g is None or g != [WAITING if name == "GoUnblock" else RUNNABLE, gen, args[1] - 1]:
                return False
            if name == "GoStart":
                if m[0] or m[1] is None:
                    raise Wrong(f"P {m[1]}, G {m[0]}")
                m[0] = args[0]
            g[:] = [RUNNABLE if name == "GoUnblock" else RUNNING, gen, args[1]]
        elif name == "GoCreate":
            if m[0] or m[1] is None:
                self.running(m)
            if args[0] in self.gs:
                raise Wrong("it is there already")
            self.gs[args[0]] = [RUNNABLE, gen, 0]
        elif name == "GoSyscallEndBlocked":
            if m[1] is not None and self.ps[m[1]][0] == P_SYSCALL:
                return False
            if self.gs.get(m[0], [0])[0] != SYSCALL:
                raise Wrong("it is in no call")
            self.gs[m[0]][0], m[0] = RUNNABLE, 0
        elif name in ("HeapAlloc", "GCSweepBegin", "GCSweepEnd"):
            self._of_p(m[1], name)
        elif name.startswith("GC"):
            return self._collect(gen, m, name, args)
        else:
            self._runs(gen, m, name, args, texts)
        return True

    def _status(self, gen: int, at: int, m: list[int | None], args: list[int]) -> None:
        g, where, status = args[:3]
        known = self.gs.get(g)
        if known is None and gen != self.first:
            raise Wrong("a new goroutine after the first generation")
        if known is not None and known[0] != status:
            raise Wrong(f"its status is {known[0]}")
        self.gs[g] = [status, gen, 0]
        if status == SYSCALL and (where != at or (gen != self.first and m[0] != g)):
            raise Wrong("a call on another M")
        if status in (RUNNING, SYSCALL):
            m[0] = g

    def _of_p(self, p: int | None, name: str) -> None:
        if p is None:
            raise Wrong("there is no P")
        if name != "HeapAlloc":
            if (p in self.sweeping) != (name == "GCSweepEnd"):
                raise Wrong("it sweeps, or does not")
            self.sweeping ^= {p}

    def _collect(self, gen: int, m: list[int | None], name: str, args: list[int]) -> bool:
        may_be_first = name == "GCBegin" or (name == "GCActive" and gen == self.first)
        is_first = self.collecting is None and may_be_first
        if not is_first and args[0] != self.collected + 1:
            return False
        if not is_first and self.collecting != (name != "GCBegin"):
            raise Wrong("a pass in the wrong place")
        self.running(m)
        self.collecting, self.collected = name != "GCEnd", args[0]
        return True

    def _runs(
        self, gen: int, m: list[int | None], name: str, args: list[int], texts: list[str]
    ) -> None:
        """What needs a running goroutine."""
        state, g = self.running(m), m[0]
        if name in ("GoBlock", "GoStop", "GoDestroy"):
            if g in self.stopped:
                raise Wrong("it has stopped the world")
            state[0] = WAITING if name == "GoBlock" else RUNNABLE
            if name == "GoDestroy":
                del self.gs[g]
                self.regions.pop(g, None)
            m[0] = 0
        elif name == "GoSyscallBegin":
            p = self.ps[m[1]]
            if p[1:] != [gen, args[0] - 1]:
                raise Wrong(f"the P is at {p}")
            p[:] = [P_SYSCALL, gen, args[0]]
            state[0] = SYSCALL
        elif name == "STWBegin":
            if g in self.stopped:
                raise Wrong("it is stopped")
            self.stopped.add(g)
        elif name == "STWEnd":
            self.stopped.remove(g)
        elif name == "UserTaskBegin":
            if args[0] in self.tasks:
                raise Wrong("the task has begun")
            self.tasks.add(args[0])
        elif name == "UserTaskEnd":
            self.tasks.discard(args[0])
        elif name == "UserRegionBegin":
            self.regions[g].append((args[0], texts[0]))
        elif name == "UserRegionEnd":
            region = (args[0], texts[0])
            if self.regions[g] and self.regions[g].pop() != region:
                raise Wrong("it is not the innermost")


def _ordered(generation: _Generation, order: _Order, events: list[Event]) -> None:
    """Put a generation in order."""
    queues = {m: list(reversed(of_m)) for m, of_m in generation.events.items()}
    while queues:
        for m in sorted(queues, key=lambda m: queues[m][-1][0]):
            time, kind, args = queues[m][-1]
            name, _, strings, stack = SPECS[kind]
            texts = [generation.strings[args[i]] for i in strings]
            g, p = order.ms[m]
            try:
                done = order.advance(generation.number, m, name, args, texts)
            except (Wrong, KeyError) as error:
                where = f"{name}{args} {texts} of M {m} in generation {generation.number}"
                raise Wrong(f"{where}: {error}") from None
            if not done:
                continue
            frames = () if stack is None else generation.frames_of(args[stack])
            told = {"GoCreate": 1, "GoStatusStack": 3}.get(name)
            entry = generation.frames_of(args[told])[-1:] if told is not None else ()
            called = entry[0][0] if entry else ""
            events.append(
                Event(name, time, m, g, p, (*args,), (*texts,), frames, generation.number, called)
            )
            queues[m].pop()
            if not queues[m]:
                del queues[m]
            break
        else:
            front = {m: (SPECS[queue[-1][1]][0], *queue[-1]) for m, queue in queues.items()}
            raise Wrong(f"nothing can be next in generation {generation.number}: {front}")


def read(data: bytes) -> Trace:
    """Read a trace, or raise `Wrong`; so if Go refuses it."""
    trace = _read(data)
    if go() is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            if refused := refused_by_go(file.name):
                raise Wrong(f"go tool trace: {refused}")
    return trace


def _read(data: bytes) -> Trace:
    """Read a trace by our own rules."""
    if not data.startswith(HEADER):
        raise Wrong("the header")
    rest, order, events, samples, last = _Bytes(data, len(HEADER)), _Order(), [], [], 0
    while rest:
        generation = _Generation()
        while (kind := rest.byte()) != 52:
            if kind != 1:
                raise Wrong(f"{kind} instead of a batch")
            generation.batch(rest)
        if not generation.synced or (last and generation.number != last + 1):
            raise Wrong(f"generation {generation.number} after {last}, or without clocks")
        last = generation.number
        order.first = order.first or last
        _ordered(generation, order, events)
        for *numbers, stack in generation.samples:
            samples.append(Sample(*numbers, generation.frames_of(stack)))
    if not last:
        raise Wrong("there is no generation")
    return Trace(events, samples)


def go() -> str | None:
    """Where Go is."""
    usual = "/usr/local/go/bin/go"
    return shutil.which("go") or (usual if os.access(usual, os.X_OK) else None)


def all_below(folder: Path) -> Iterator[Path]:
    """The files that are traces."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
            with path.open("rb") as file:
                if file.read(len(HEADER)) == HEADER:
                    yield path


def refused_by_go(path: object) -> str:
    """What `go tool trace` has against a trace; nothing if it takes it."""
    command = [go() or "go", "tool", "trace", "-d=parsed", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    return "" if done.returncode == 0 else f"{done.returncode}: {done.stderr[-2000:]}"
