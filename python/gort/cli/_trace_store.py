"""A trace as the page of `gort trace` asks for it: what to draw of a stretch of time, and sums.

Slices are kept in arrays, some 30 bytes each. A drawing has at most as many parts as the picture
has columns: slices that are narrower are drawn as one, with how much of it was busy.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any

from gort._tracefile import TraceFile
from gort.cli._trace_model import Done, Group, Model

__all__ = ["Store"]

#: Numbers of goroutines that are kept; with twice as many every second one goes.
_MOST_COUNTS = 4_000
#: Messages and labels that are kept, the first ones.
_MOST_MARKS = 10_000
#: Columns of a picture, at most.
_MOST_COLUMNS = 8_000
_STATES = ("running", "runnable", "syscall", "blocked")


class _Lane:
    """Stretches of one line of the picture, in order, that do not overlap."""

    __slots__ = ("busy", "ends", "gs", "kinds", "name", "names", "starts")

    def __init__(self, name: str) -> None:
        self.name = name
        self.starts = array("q")
        self.ends = array("q")
        self.gs = array("Q")
        #: An index into the names of groups and spans.
        self.names = array("I")
        #: 1: in a call; of a goroutine's lane an index into the words of states.
        self.kinds = array("H")
        #: The sum of the lengths before each.
        self.busy = array("q", [0])

    def add(self, start: int, end: int, g: int, name: int, kind: int) -> None:
        """Add one, which begins after all others."""
        self.starts.append(start)
        self.ends.append(end)
        self.gs.append(g)
        self.names.append(name)
        self.kinds.append(kind)
        self.busy.append(self.busy[-1] + end - start)

    def part(self, begin: int, end: int, columns: int) -> list[list[int]]:
        """Give what to draw from `begin` to `end`.

        A slice is [start, end, goroutine, name, kind]; [start, end, busy, count] is several.
        """
        found: list[list[int]] = []
        width = max((end - begin) // columns, 1)
        starts, ends = self.starts, self.ends
        i = bisect_right(ends, begin)
        while i < len(starts) and starts[i] < end:
            if ends[i] - starts[i] >= width:
                found.append([starts[i], ends[i], self.gs[i], self.names[i], self.kinds[i]])
                i += 1
                continue
            # All that end within this column; a long one after them is drawn by itself.
            j = max(bisect_right(ends, starts[i] + width, i), i + 1)
            if j == i + 1:
                found.append([starts[i], ends[i], self.gs[i], self.names[i], self.kinds[i]])
            else:
                found.append([starts[i], ends[j - 1], self.busy[j] - self.busy[i], j - i])
            i = j
        return found


class Store:
    """Keeps a trace for a page.

    Args:
        trace: what is read, all of it, here.
    """

    def __init__(self, trace: TraceFile) -> None:
        """Read it."""
        self._procs: dict[int, _Lane] = {}
        self._spans: dict[str, _Lane] = {}
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._name_of: dict[int, int] = {}
        self._g_ids = array("Q")
        self._g_starts = array("q")
        self._g_ends = array("q")
        self._g_words = array("I")
        self._counts: list[list[int]] = []
        self._spacing = 0
        self._values: dict[str, list[list[int]]] = {}
        self._marks: list[list[Any]] = []
        self._wakes: dict[str, int] = {}
        self._open: dict[tuple[int, str], list[int]] = {}
        self._regions: dict[str, list[int]] = {}
        self._model = Model(trace, self)
        self._model.run()
        self.warning = trace.warning
        self.version = trace.version
        self.groups: list[Group] = sorted(
            self._model.groups.values(), key=lambda group: (-group.total, group.name)
        )

    def _number(self, name: str) -> int:
        """Give the index of a name."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
        return number

    def on_goroutine(self, g: int, name: str, t: int) -> None:
        self._name_of[g] = self._number(name)

    def on_end(self, g: int) -> None:
        del self._name_of[g]

    def on_proc(self, p: int, g: int, start: int, end: int, in_call: bool) -> None:
        lane = self._procs.get(p)
        if lane is None:
            lane = self._procs[p] = _Lane(f"P {p}")
        lane.add(start, end, g, self._name_of.get(g, self._number("?")), int(in_call))

    def on_state(self, g: int, words: str, start: int, end: int, where: str) -> None:
        self._g_ids.append(g)
        self._g_starts.append(start)
        self._g_ends.append(end)
        self._g_words.append(self._number(words))

    def on_flow(self, why: str, start: int, p: int | None, end: int, to: int, g: int) -> None:
        self._wakes[why] = self._wakes.get(why, 0) + 1

    def on_counts(self, t: int, counts: dict[str, int]) -> None:
        if self._counts and t - self._counts[-1][0] < self._spacing:
            self._counts[-1][1:] = [counts[state] for state in _STATES]
            return
        self._counts.append([t, *(counts[state] for state in _STATES)])
        if len(self._counts) > 2 * _MOST_COUNTS:
            del self._counts[1::2]
            self._spacing = max(t // _MOST_COUNTS, 1)

    def on_value(self, t: int, name: str, value: int) -> None:
        values = self._values.setdefault(name, [])
        values.append([t, value])
        if len(values) > 2 * _MOST_COUNTS:
            del values[1::2]

    def on_span(self, track: str, name: str, start: int, end: int) -> None:
        lane = self._spans.get(track)
        if lane is None:
            lane = self._spans[track] = _Lane(track)
        lane.add(start, end, 0, self._number(name), 0)

    def on_region(self, g: int, name: str, t: int, begins: bool) -> None:
        if begins:
            self._open.setdefault((g, name), []).append(t)
        else:
            starts = self._open[g, name]
            self._regions.setdefault(name, []).append(t - starts.pop())
            if not starts:
                del self._open[g, name]

    def on_task(self, task: int, name: str, t: int, begins: bool) -> None:
        """Tasks are summed by the model."""

    def on_mark(self, p: int | None, g: int, kind: str, text: str, t: int) -> None:
        if len(self._marks) < _MOST_MARKS:
            self._marks.append([t, g, kind, text])

    def summary(self) -> dict[str, Any]:
        """Give what the page shows beside the picture."""
        return {
            "version": f"go 1.{self.version}",
            "warning": self.warning,
            "length": self._model.length,
            "names": self._names,
            "lanes": [self._procs[p].name for p in sorted(self._procs)],
            "groups": [_group(group) for group in self.groups],
            "tasks": _durations(self._model.tasks),
            "regions": _durations(self._regions),
            "wakes": sorted(self._wakes.items(), key=lambda item: -item[1]),
            "marks": self._marks,
            "values": self._values,
        }

    def members(self, index: int) -> list[list[int]]:
        """Give the goroutines of a group that took longest, longest first.

        Raises:
            IndexError: there is no such group.
        """
        if index < 0:
            raise IndexError("there is no such group")
        kept: list[Done] = sorted(self.groups[index].kept, reverse=True)
        return [list(done) for done in kept]

    def picture(self, begin: int, end: int, columns: int, gs: list[int]) -> dict[str, Any]:
        """Give what to draw of a time on so many columns, with lanes of some goroutines."""
        begin, end = max(begin, 0), max(end, begin + 1)
        columns = min(max(columns, 1), _MOST_COLUMNS)
        lanes = [*self._spans.values(), *(self._procs[p] for p in sorted(self._procs))]
        lanes += [self._lane_of(g) for g in gs]
        width = (end - begin) // columns
        counts: list[list[int]] = []
        for i, one in enumerate(self._counts):
            is_seen = i + 1 == len(self._counts) or self._counts[i + 1][0] >= begin
            if is_seen and one[0] <= end and (not counts or one[0] - counts[-1][0] >= width):
                counts.append(one)
        return {
            "lanes": [
                {"name": lane.name, "slices": lane.part(begin, end, columns)} for lane in lanes
            ],
            "counts": counts,
        }

    def _lane_of(self, g: int) -> _Lane:
        """Make a lane of the states of a goroutine."""
        lane = _Lane(f"G {g}")
        ids = self._g_ids
        for i in range(len(ids)):
            if ids[i] == g:
                words = self._g_words[i]
                name = self._names[words]
                kind = _STATES.index(name) if name in _STATES else 3
                lane.add(self._g_starts[i], self._g_ends[i], g, words, kind)
        return lane


def _group(group: Group) -> dict[str, Any]:
    """Give the sums of a group."""
    blocked = sorted(group.blocked.items(), key=lambda item: -item[1])
    return {
        "name": group.name,
        "count": group.count,
        "total": group.total,
        "running": group.running,
        "runnable": group.runnable,
        "syscall": group.syscall,
        "blocked": sum(group.blocked.values()),
        "reasons": blocked,
        "kept": len(group.kept),
    }


def _durations(found: dict[str, list[int]]) -> list[list[Any]]:
    """Give name, count, sum and longest, by sum."""
    rows = [[name, len(times), sum(times), max(times)] for name, times in found.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))
