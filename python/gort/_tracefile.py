"""Reading execution traces: Go's trace format, version 2, as gort.trace and Go from 1.22 write it.

    >>> import gort.trace, io
    >>> file = io.BytesIO()
    >>> with gort.trace.to(file):
    ...     gort.go(sorted, [2, 1]).join()
    [1, 2]
    >>> trace = TraceFile(io.BytesIO(file.getvalue()))
    >>> names = [NAMES[event.kind] for event in trace.events()]
    >>> "GoCreate" in names, trace.warning
    (True, None)

One generation (a second, as a rule) is in memory at a time: the bytes of its events, which are
decoded as they come. Events of one M stand in order; between Ms the order is found from the numbers
that starts and wake-ups carry, as in Go's internal/trace, and by time where nothing else says it.
Where that reader refuses a trace, this one goes on: it is there to show what there is.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from gort._tracewire import (
    BATCH,
    END,
    EXPERIMENT,
    KINDS,
    MOST_BATCH,
    NAMES,
    Cut,
    Generation,
    number_at,
)
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["KINDS", "NAMES", "STATES", "Event", "Frame", "TraceError", "TraceFile"]

#: What GoStatus says.
STATES = {1: "runnable", 2: "running", 3: "syscall", 4: "waiting"}
_RUNNABLE, _RUNNING, _SYSCALL, _WAITING = STATES
_P_RUNNING, _P_IDLE, _P_SYSCALL = 1, 2, 3
#: The first versions are older formats; what comes after the last is not known here.
_LEAST_MINOR, _MOST_MINOR, _HEAD_BYTES = 22, 26, 16
#: Units of a second where the file ends before it says so: what gort uses.
_USUAL_FREQUENCY = 1_000_000_000
#: Centuries: a clock that says more is none.
_MOST_NS = 1 << 62


class TraceError(ValueError):
    """The file is no trace, or none that can be read here; the message says why."""


class Event(NamedTuple):
    """One event.

    Attributes:
        time: nanoseconds, of the trace's clock.
        kind: what happened, a number of NAMES.
        m: the thread it happened on.
        p: the processor this had before the event, or None.
        g: the goroutine that ran there before the event, 0 for none.
        args: what the event carries, as Go's tracev2 has it, without the time.
    """

    time: int
    kind: int
    m: int
    p: int | None
    g: int
    args: list[int]


class Frame(NamedTuple):
    """One frame of a stack."""

    function: str
    file: str
    line: int


class _Order:
    """Who runs where, as far as it is needed to say what can come next."""

    def __init__(self) -> None:
        self.gs: dict[int, int] = {}
        self.ps: dict[int, int] = {}
        self.g_numbers: dict[int, int] = {}
        self.p_numbers: dict[int, int] = {}
        self.p_of: dict[int, int | None] = {}
        self.g_of: dict[int, int] = {}

    def begin_generation(self) -> None:
        """Count anew: a generation begins with the state of all."""
        self.g_numbers.clear()
        self.p_numbers.clear()

    def is_next(self, kind: int, m: int, args: list[int]) -> bool:
        """Whether it can happen now, by what has happened."""
        if kind in (16, 45, 46):  # GoStart, GoSwitch, GoSwitchDestroy
            state = self.gs.get(args[0])
            wanted = _RUNNABLE if kind == 16 else _WAITING
            return state == wanted and self.g_numbers.get(args[0]) == args[1] - 1
        if kind == 21:  # GoUnblock
            return self.gs.get(args[0]) == _WAITING and self.g_numbers.get(args[0]) == args[1] - 1
        if kind == 10:  # ProcStart
            return self.ps.get(args[0]) == _P_IDLE and self.p_numbers.get(args[0]) == args[1] - 1
        if kind == 12:  # ProcSteal
            return self.ps.get(args[0]) == _P_SYSCALL and self.p_numbers.get(args[0]) == args[1] - 1
        if kind == 24:  # GoSyscallEndBlocked
            p = self.p_of.get(m)
            return p is None or self.ps.get(p) != _P_SYSCALL
        return True

    def happen(self, kind: int, m: int, args: list[int]) -> None:
        """Keep what it changes."""
        if kind in (16, 45, 46):
            if kind != 16:
                self._leave(m, 4 if kind == 45 else 0)
            self.gs[args[0]] = _RUNNING
            self.g_numbers[args[0]] = args[1]
            self.g_of[m] = args[0]
        elif kind in (17, 18, 19, 20):  # GoDestroy, GoDestroySyscall, GoStop, GoBlock
            self._leave(m, {19: _RUNNABLE, 20: _WAITING}.get(kind, 0))
        elif kind == 21:
            self.gs[args[0]] = _RUNNABLE
            self.g_numbers[args[0]] = args[1]
        elif kind in (14, 47):  # GoCreate, GoCreateBlocked
            self.gs[args[0]] = _RUNNABLE if kind == 14 else _WAITING
            self.g_numbers[args[0]] = 0
        elif kind in (22, 23, 24):
            self._call(kind, m, args)
        elif 10 <= kind <= 13:
            self._proc(kind, m, args)
        elif kind in (25, 48):  # GoStatus, GoStatusStack
            self.gs[args[0]] = args[2]
            self.g_numbers[args[0]] = 0
            if args[2] in (_RUNNING, _SYSCALL):
                self.g_of[m] = args[0]
        elif kind == 15:  # GoCreateSyscall
            self.gs[args[0]] = _SYSCALL
            self.g_numbers[args[0]] = 0
            self.g_of[m] = args[0]

    def _leave(self, m: int, state: int) -> None:
        """Have the goroutine of an M run no longer."""
        g = self.g_of.pop(m, 0)
        if state:
            self.gs[g] = state
        else:
            self.gs.pop(g, None)

    def _call(self, kind: int, m: int, args: list[int]) -> None:
        """Begin or end a call."""
        p, g = self.p_of.get(m), self.g_of.get(m, 0)
        if kind == 22:
            self.gs[g] = _SYSCALL
            if p is not None:
                self.ps[p], self.p_numbers[p] = _P_SYSCALL, args[0]
        elif kind == 23:
            self.gs[g] = _RUNNING
            if p is not None:
                self.ps[p] = _P_RUNNING
        else:
            self._leave(m, _RUNNABLE)

    def _proc(self, kind: int, m: int, args: list[int]) -> None:
        """Have a P taken, left, or taken away."""
        if kind == 10:
            self.ps[args[0]], self.p_numbers[args[0]] = _P_RUNNING, args[1]
            self.p_of[m] = args[0]
        elif kind == 11:
            p = self.p_of.pop(m, None)
            if p is not None:
                self.ps[p] = _P_IDLE
        elif kind == 12:
            self.ps[args[0]], self.p_numbers[args[0]] = _P_IDLE, args[1]
            if self.p_of.get(args[2]) == args[0]:
                del self.p_of[args[2]]
        else:
            self.ps[args[0]], self.p_numbers[args[0]] = args[1], 0
            if args[1] != _P_IDLE:
                self.p_of[m] = args[0]


class TraceFile:
    """A trace that is read from a file. `strings` and `stack` are those of the event at hand.

    Args:
        file: open for bytes, at its beginning.

    Raises:
        TraceError: it does not begin as a trace, or is of a version that is not known.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the head."""
        self._file = file
        self.version = _version(file.read(_HEAD_BYTES))
        #: What is wrong with the file, once all events were read; None if nothing is.
        self.warning: str | None = None
        #: Generations that were read.
        self.generations = 0
        self._frequency = _USUAL_FREQUENCY
        self._generation = Generation(0)
        self._order = _Order()
        self._ahead: tuple[int, int, int, bytes] | None = None
        self._cut: str | None = None

    def string(self, number: int) -> str:
        """Give a text of the generation at hand; `?` where it is missing."""
        return self._generation.strings.get(number, "?")

    def stack(self, number: int) -> list[Frame]:
        """Give the frames of a stack of the generation at hand, the innermost first."""
        at = self._generation
        frames = (at.frames[pc] for pc in at.stacks.get(number, ()))
        return [Frame(self.string(name), self.string(file), line) for name, file, line in frames]

    def events(self) -> Iterator[Event]:
        """Go through all events in the order in which they happened. Once.

        What cannot be read ends it, and is told by `warning`.
        """
        while self._cut is None:
            generation = self._read_generation()
            if generation is None:
                break
            self._generation = generation
            self._frequency = generation.frequency or self._frequency
            self.generations += 1
            self._order.begin_generation()
            yield from self._ordered(generation)
        if self._cut is not None:
            self.warning = f"the trace is cut off or damaged ({self._cut}): what was read is shown"
        elif not self.generations:
            self.warning = "the trace is empty"

    def _read_generation(self) -> Generation | None:
        """Read the batches of the next generation; None at the end of the file."""
        generation: Generation | None = None
        try:
            while True:
                batch = self._ahead or self._read_batch()
                self._ahead = None
                if batch is None:  # the generation ends here; of the older ones the file, too
                    return generation
                number, m, time, data = batch
                if generation is None:
                    generation = Generation(number)
                elif generation.number != number:
                    if self.version >= _MOST_MINOR:
                        raise Cut(f"generation {generation.number} has no end")
                    self._ahead = batch
                    return generation
                generation.add(m, time, data)
        except Cut as cut:
            self._cut = str(cut)
            return generation

    def _read_batch(self) -> tuple[int, int, int, bytes] | None:
        """Read one batch; None at the end of a generation or of the file."""
        kind = self._file.read(1)
        if not kind:
            if self.version >= _MOST_MINOR and self._is_open:
                raise Cut("the last generation has no end")
            return None
        if kind[0] == END:
            self._is_open = False
            return None
        if kind[0] not in (BATCH, EXPERIMENT):
            raise Cut(f"{kind[0]} where a batch should begin")
        self._is_open = True
        if kind[0] == EXPERIMENT:
            self._readnumber_at()
        number, m, time, size = [self._readnumber_at() for _ in range(4)]
        if size > MOST_BATCH:
            raise Cut(f"a batch of {size} bytes")
        data = self._file.read(size)
        if len(data) != size:
            raise Cut("the file ends within a batch")
        return number, m, time, b"" if kind[0] == EXPERIMENT else data

    _is_open = False

    def _readnumber_at(self) -> int:
        """Read a number."""
        data = bytearray()
        while True:
            byte = self._file.read(1)
            if not byte:
                raise Cut("the file ends within a batch")
            data += byte
            if byte[0] < 0x80:
                return number_at(bytes(data), 0)[0]
            if len(data) > 9:
                raise Cut("a number of more than 64 bits")

    def _ordered(self, generation: Generation) -> Iterator[Event]:
        """Put the events of a generation in order."""
        order, queues = self._order, generation.queues()
        fronts: list[tuple[int, int, int, list[int]]] = []
        waiting: list[tuple[int, int, int, list[int]]] = []
        for m in sorted(queues):
            self._advance(queues[m], m, fronts)
        frequency = self._frequency
        while fronts or waiting:
            if not fronts:  # no event can be next by the rules: then the earliest is
                waiting.sort()
                front = waiting.pop(0)
            else:
                front = heapq.heappop(fronts)
                if not order.is_next(front[2], front[1], front[3]):
                    waiting.append(front)
                    continue
            time, m, kind, args = front
            ns = time * 1_000_000_000 // frequency
            if ns >= _MOST_NS:
                self._cut = self._cut or "a time that there cannot be"
                return
            yield Event(ns, kind, m, order.p_of.get(m), order.g_of.get(m, 0), args)
            order.happen(kind, m, args)
            for one in waiting:
                heapq.heappush(fronts, one)
            waiting.clear()
            self._advance(queues[m], m, fronts)

    def _advance(
        self,
        queue: Iterator[tuple[int, int, list[int]]],
        m: int,
        fronts: list[tuple[int, int, int, list[int]]],
    ) -> None:
        """Put the next event of an M among those that may be next."""
        try:
            found = next(queue, None)
        except Cut as cut:
            self._cut = self._cut or str(cut)
            return
        if found is not None:
            heapq.heappush(fronts, (found[0], m, found[1], found[2]))


def _version(head: bytes) -> int:
    """Give the minor version of Go that a trace's head names, or raise TraceError."""
    words = head.rstrip(b"\0").split(b" ")
    if len(head) < _HEAD_BYTES or len(words) != 3 or words[0] != b"go" or words[2] != b"trace":
        raise TraceError("this is no execution trace: it does not begin with 'go 1.N trace'")
    major, _, minor = words[1].partition(b".")
    if major != b"1" or not minor.isdigit():
        raise TraceError(f"a trace of an unknown version, {words[1].decode('latin-1')}")
    number = int(minor)
    if number < _LEAST_MINOR:
        raise TraceError(f"a trace of Go 1.{number}: only those of Go 1.22 and newer are read")
    if number > _MOST_MINOR:
        raise TraceError(f"a trace of Go 1.{number}: those of Go 1.22 to 1.{_MOST_MINOR} are read")
    return number
