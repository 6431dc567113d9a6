"""The parts of an execution trace as they stand in its file: numbers, batches, tables.

What `gort._tracefile` puts in order. A generation is kept as the bytes of its batches, which are
decoded as they are asked for.
"""

from __future__ import annotations

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BATCH",
    "END",
    "EXPERIMENT",
    "KINDS",
    "MOST_BATCH",
    "NAMES",
    "NO_M",
    "Cut",
    "Generation",
    "number_at",
]

#: Names of the events by number, and how many arguments follow the time.
_EVENTS = {
    7: ("CPUSample", 4),
    9: ("ProcsChange", 2),
    10: ("ProcStart", 2),
    11: ("ProcStop", 0),
    12: ("ProcSteal", 3),
    13: ("ProcStatus", 2),
    14: ("GoCreate", 3),
    15: ("GoCreateSyscall", 1),
    16: ("GoStart", 2),
    17: ("GoDestroy", 0),
    18: ("GoDestroySyscall", 0),
    19: ("GoStop", 2),
    20: ("GoBlock", 2),
    21: ("GoUnblock", 3),
    22: ("GoSyscallBegin", 2),
    23: ("GoSyscallEnd", 0),
    24: ("GoSyscallEndBlocked", 0),
    25: ("GoStatus", 3),
    26: ("STWBegin", 2),
    27: ("STWEnd", 0),
    28: ("GCActive", 1),
    29: ("GCBegin", 2),
    30: ("GCEnd", 1),
    31: ("GCSweepActive", 1),
    32: ("GCSweepBegin", 1),
    33: ("GCSweepEnd", 2),
    34: ("GCMarkAssistActive", 1),
    35: ("GCMarkAssistBegin", 1),
    36: ("GCMarkAssistEnd", 0),
    37: ("HeapAlloc", 1),
    38: ("HeapGoal", 1),
    39: ("GoLabel", 1),
    40: ("UserTaskBegin", 4),
    41: ("UserTaskEnd", 2),
    42: ("UserRegionBegin", 3),
    43: ("UserRegionEnd", 3),
    44: ("UserLog", 4),
    45: ("GoSwitch", 2),
    46: ("GoSwitchDestroy", 2),
    47: ("GoCreateBlocked", 3),
    48: ("GoStatusStack", 4),
}
NAMES: dict[int, str] = {kind: name for kind, (name, _) in _EVENTS.items()}
KINDS: dict[str, int] = {name: kind for kind, name in NAMES.items()}
_COUNTS = [_EVENTS.get(kind, ("", -1))[1] for kind in range(256)]
BATCH, _STACKS, _STRINGS, _SAMPLES, _FREQUENCY = 1, 2, 4, 6, 8
_STACK, _STRING, EXPERIMENT, _SYNC, _CLOCKS, END = 3, 5, 49, 50, 51, 52
MOST_BATCH = 64 << 10
#: "M" of samples: they are of no M's events.
NO_M = -1


class Cut(Exception):
    """The file ends, or makes no sense, here."""


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """Decode a number; gives it, and where the next thing is."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and value < 1 << 64:
            return value, at
        shift += 7
        if shift > 63:
            raise Cut("a number of more than 64 bits")


def _decoded(batches: list[tuple[int, bytes]]) -> Iterator[tuple[int, int, list[int]]]:
    """Decode the events of one M: time in the trace's units, kind, arguments."""
    counts = _COUNTS
    for time, data in batches:
        at, end = 0, len(data)
        try:
            while at < end:
                kind = data[at]
                at += 1
                count = counts[kind]
                if count < 0:
                    raise Cut(f"an event of type {kind}, which is not known")
                numbers = []
                for _ in range(count + 1):
                    value = data[at]
                    at += 1
                    if value >= 0x80:
                        value, at = number_at(data, at - 1)
                    numbers.append(value)
                time += numbers.pop(0)
                yield time, kind, numbers
        except IndexError:
            raise Cut("a batch that ends in the middle of an event") from None


class Generation:
    """What was read of one generation."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.frequency = 0
        self.strings: dict[int, str] = {0: ""}
        self.stacks: dict[int, list[int]] = {0: []}
        self.frames: dict[int, tuple[int, int, int]] = {}
        self.batches: dict[int, list[tuple[int, bytes]]] = {}
        self.samples: list[tuple[int, list[int]]] = []

    def add(self, m: int, time: int, data: bytes) -> None:
        """Take a batch."""
        kind = data[0] if data else 0
        try:
            if kind == _STRINGS:
                self._add_strings(data)
            elif kind == _STACKS:
                self._add_stacks(data)
            elif kind == _SAMPLES:
                self._add_samples(data)
            elif kind in (_SYNC, _FREQUENCY):
                self.frequency = number_at(data, 2 if kind == _SYNC else 1)[0]
            elif kind:
                self.batches.setdefault(m, []).append((time, data))
        except IndexError:
            raise Cut("a table that ends in the middle of an entry") from None

    def _add_strings(self, data: bytes) -> None:
        at = 1
        while at < len(data):
            if data[at] != _STRING:
                raise Cut("a table of texts with something else in it")
            number, at = number_at(data, at + 1)
            size, at = number_at(data, at)
            self.strings[number] = data[at : at + size].decode("utf-8", "replace")
            at += size

    def _add_stacks(self, data: bytes) -> None:
        at = 1
        while at < len(data):
            if data[at] != _STACK:
                raise Cut("a table of stacks with something else in it")
            number, at = number_at(data, at + 1)
            count, at = number_at(data, at)
            pcs = self.stacks[number] = []
            for _ in range(count):
                pc, at = number_at(data, at)
                function, at = number_at(data, at)
                file, at = number_at(data, at)
                line, at = number_at(data, at)
                self.frames[pc] = (function, file, line)
                pcs.append(pc)

    def _add_samples(self, data: bytes) -> None:
        at = 1
        while at < len(data):
            numbers = []
            at += 1
            for _ in range(5):
                number, at = number_at(data, at)
                numbers.append(number)
            self.samples.append((numbers[0], numbers[1:]))

    def queues(self) -> dict[int, Iterator[tuple[int, int, list[int]]]]:
        """Give the events of each M, to be decoded as they are asked for."""
        found = {m: _decoded(batches) for m, batches in self.batches.items()}
        if self.samples:
            self.samples.sort()
            found[NO_M] = iter([(time, KINDS["CPUSample"], args) for time, args in self.samples])
        return found
