"""A profile in memory: samples by stack and labels, and how one is written and subtracted."""

from __future__ import annotations

import gzip
import sys
import time
from typing import NamedTuple

from gort._core import _pprof_encode
from gort._dump import function_name, printable, quoted
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

__all__ = ["Data", "Frame", "Kind", "Label", "Sample", "Stack", "aligned", "delta", "labels_line"]

#: What a value counts and in which unit.
Kind = tuple[str, str]
#: Name, text or number, unit of a number.
Label = tuple[str, "str | int", str]


class Frame(NamedTuple):
    """One place in the code; the order is that of `_pprof_encode`.

    The name that CPython has of a function, `f.<locals>.g`, looks like one of C++ to pprof, which
    would make `f..g` of it. It leaves alone what has a system name that differs.
    """

    address: int
    name: str
    system_name: str
    file: str
    line: int
    start_line: int
    entry: int = 0

    @classmethod
    def of_code(cls, address: int, code: CodeType, line: int, module: str | None) -> Frame:
        """Make one of what the core tells of a frame."""
        name, file = function_name(code, module), printable(code.co_filename)
        system = f"{file}:{name}"
        return cls(address, name, system, file, line, code.co_firstlineno, id(code))

    @classmethod
    def native(cls, number: int, name: str) -> Frame:
        """Make one of a function of the runtime, which has no lines."""
        return cls(number, name, f"gort:{name}", "gort", 0, 0, number)

    def __str__(self) -> str:
        """Give its line of a text profile."""
        offset = self.address - self.entry
        return f"#\t{self.address:#x}\t{self.name}+{offset:#x}\t{self.file}:{self.line}"


Stack = tuple[Frame, ...]
Sample = tuple[Stack, tuple[int, ...], tuple[Label, ...]]


class Frames:
    """Makes stacks of what the core tells, each frame once."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[tuple[int, int], Frame] = {}

    def stack(self, items: Iterable[tuple[int, CodeType, int, str | None]]) -> Stack:
        """Give the frames of (address, code, line, module), the newest first."""
        return tuple([self._frame(*item) for item in items])

    def _frame(self, address: int, code: CodeType, line: int, module: str | None) -> Frame:
        """One of them."""
        frame = self._known.get((address, line))
        if frame is None:
            frame = Frame.of_code(address, code, line, module)
            self._known[address, line] = frame
        return frame


class Data(NamedTuple):
    """A whole profile.

    Attributes:
        kinds: of the values of a sample.
        period_kind: what lies between two samples, and its unit.
        period: how much of it.
        samples: stack, values and labels of each.
        default: the kind that is shown first; empty: the last.
        comments: lines that pprof shows.
        time_ns: when it was made, since 1970.
        duration_ns: what time it covers.
    """

    kinds: tuple[Kind, ...]
    period_kind: Kind
    period: int
    samples: tuple[Sample, ...]
    default: str = ""
    comments: tuple[str, ...] = ()
    time_ns: int = 0
    duration_ns: int = 0

    def encode(self) -> bytes:
        """Give the file: profile.proto, compressed."""
        times = (self.time_ns or time.time_ns(), self.duration_ns)
        plain = _pprof_encode(
            self.kinds, self.samples, self.period_kind, self.period, times, self.default,
            self.comments, sys.executable or "python",
        )  # fmt: skip
        return gzip.compress(plain, 1)  # Go's level, too: others take as long as all the rest


def delta(before: Data, after: Data) -> Data:
    """Give what came between two profiles; what did not change is left out."""
    values: dict[tuple[Stack, tuple[Label, ...]], list[int]] = {}
    for sign, data in ((1, after), (-1, before)):
        for stack, numbers, labels in data.samples:
            sums = values.setdefault((stack, labels), [0] * len(data.kinds))
            for i, number in enumerate(numbers):
                sums[i] += sign * number
    changed = tuple(
        (stack, tuple(sums), labels) for (stack, labels), sums in values.items() if any(sums)
    )
    duration = after.time_ns - before.time_ns
    return after._replace(samples=changed, duration_ns=duration)


def labels_line(labels: tuple[Label, ...]) -> str:
    """Give labels as Go's text profiles do: `# labels: {"k":"v"}`."""
    pairs = sorted(f"{quoted(name)}:{quoted(str(value))}" for name, value, _ in labels)
    return f"# labels: {{{', '.join(pairs)}}}"


#: Spaces of a tab.
_TAB = 8


def aligned(lines: Iterable[str]) -> Iterator[str]:
    """Align cells that end with tabs, as Go's text/tabwriter(w, 1, 8, 1, tab, 0) does.

    A column is what stands at the same place of lines that follow each other; each is as wide as
    its widest cell, and filled up with tabs.
    """
    block: list[list[str]] = []
    for line in lines:
        cells = line.split("\t")
        if block and len(cells) != len(block[0]):
            yield from _columns(block)
            block = []
        block.append(cells)
    yield from _columns(block)


def _columns(block: list[list[str]]) -> Iterator[str]:
    """Lines of one number of cells, aligned."""
    widths = [
        (max(len(cells[i]) for cells in block) + _TAB) // _TAB * _TAB
        for i in range(len(block[0]) - 1 if block else 0)
    ]
    for cells in block:
        parts = [
            cell + "\t" * ((width - len(cell) + _TAB - 1) // _TAB)
            for cell, width in zip(cells, widths, strict=False)
        ]
        yield "".join([*parts, cells[-1]])


def stack_lines(stack: Stack) -> list[str]:
    """Give the lines of a stack, without the runtime's functions at its inner end."""
    first = next((i for i, frame in enumerate(stack) if frame.start_line), 0)
    return [*(str(frame) for frame in stack[first:]), ""]


def addresses(stack: Stack) -> str:
    """Give what stands behind a count: `@ 0x1 0x2`."""
    return " ".join(["@", *(f"{frame.address:#x}" for frame in stack)])
