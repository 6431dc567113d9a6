"""A trace as Chrome's trace events, in JSON, which Perfetto (ui.perfetto.dev) opens.

Each P is a track of the process "Processors", each goroutine one of "Goroutines" with its states,
and one of "Regions" if it has any; tasks and sums have processes of their own. It is written as
the trace is read, so its length needs no memory.
"""

from __future__ import annotations

import json
from typing import TextIO

from gort._tracefile import TraceFile
from gort.cli._trace_model import Model

__all__ = ["write_json"]

_PROCESSORS, _GOROUTINES, _REGIONS, _TASKS, _SUMS = range(1, 6)
_PROCESSES = {
    _PROCESSORS: "Processors",
    _GOROUTINES: "Goroutines",
    _REGIONS: "Regions",
    _TASKS: "Tasks",
    _SUMS: "Sums",
}
#: Tracks of the processors that are none.
_NO_P, _COLLECTION, _STOPPED = 1_000_001, 1_000_002, 1_000_003
_TRACKS = {"Garbage collection": _COLLECTION, "Stopped world": _STOPPED}
#: The numbers of goroutines are written at most every 100 us: nobody sees more.
_COUNTS_NS = 100_000
#: Characters that are kept back before they are written.
_ROOM = 1 << 18


def _us(ns: int) -> str:
    """Give microseconds, with all digits."""
    return f"{ns // 1000}.{ns % 1000:03}"


class _Writer:
    """Writes what the model tells."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._parts: list[str] = ['{"displayTimeUnit":"ns","traceEvents":[\n']
        self._size = 0
        self._texts: dict[str, str] = {}
        self._names: dict[int, str] = {}
        self._tracks: set[tuple[int, int]] = set()
        self._flows = 0
        self._counted_at = -_COUNTS_NS
        self._uncounted: tuple[int, dict[str, int]] | None = None
        self._is_first = True
        for pid, name in _PROCESSES.items():
            self._write(f'"ph":"M","name":"process_name","pid":{pid},"args":{{"name":"{name}"}}')
            self._write(
                f'"ph":"M","name":"process_sort_index","pid":{pid},"args":{{"sort_index":{pid}}}'
            )

    def _write(self, fields: str) -> None:
        """Write one event."""
        self._parts.append(f"{{{fields}}}" if self._is_first else f",\n{{{fields}}}")
        self._is_first = False
        self._size += len(fields)
        if self._size > _ROOM:
            self._flush()

    def _flush(self) -> None:
        self._out.write("".join(self._parts))
        self._parts.clear()
        self._size = 0

    def end(self, other: dict[str, object]) -> None:
        """Write the end."""
        if self._uncounted is not None:
            self._write_counts(*self._uncounted)
        self._parts.append(f'\n],"otherData":{json.dumps(other)}}}\n')
        self._flush()

    def _text(self, text: str) -> str:
        """Give a text as JSON."""
        quoted = self._texts.get(text)
        if quoted is None:
            if len(self._texts) > 100_000:  # messages may all be different
                self._texts.clear()
            quoted = self._texts[text] = json.dumps(text)
        return quoted

    def _track(self, pid: int, tid: int, name: str) -> None:
        """Name a track when it is first used."""
        if (pid, tid) not in self._tracks:
            self._tracks.add((pid, tid))
            self._write(
                f'"ph":"M","name":"thread_name","pid":{pid},"tid":{tid},'
                f'"args":{{"name":{json.dumps(name)}}}'
            )
            if pid == _PROCESSORS:
                self._write(
                    f'"ph":"M","name":"thread_sort_index","pid":{pid},"tid":{tid},'
                    f'"args":{{"sort_index":{tid}}}'
                )

    def _processor(self, p: int | None) -> int:
        """Give the track of a P, or of what happened on none."""
        if p is None:
            self._track(_PROCESSORS, _NO_P, "Timers, network, threads")
            return _NO_P
        self._track(_PROCESSORS, p, f"P {p}")
        return p

    def on_goroutine(self, g: int, name: str, t: int) -> None:
        text = self._names[g] = json.dumps(f"G{g} {name}")
        self._write(
            f'"ph":"M","name":"thread_name","pid":{_GOROUTINES},"tid":{g},"args":{{"name":{text}}}'
        )

    def on_end(self, g: int) -> None:
        self._names.pop(g, None)
        self._tracks.discard((_REGIONS, g))

    def on_proc(self, p: int, g: int, start: int, end: int, in_call: bool) -> None:
        name = self._names.get(g) or f'"G{g}"'
        kind = '"syscall"' if in_call else '"running"'
        self._write(
            f'"ph":"X","name":{name},"cat":{kind},"pid":{_PROCESSORS},"tid":{self._processor(p)},'
            f'"ts":{_us(start)},"dur":{_us(end - start)},"args":{{"goroutine":{g},"state":{kind}}}'
        )

    def on_state(self, g: int, words: str, start: int, end: int, where: str) -> None:
        at = f',"args":{{"at":{self._text(where)}}}' if where else ""
        self._write(
            f'"ph":"X","name":{self._text(words)},"cat":"state","pid":{_GOROUTINES},"tid":{g},'
            f'"ts":{_us(start)},"dur":{_us(end - start)}{at}'
        )

    def on_flow(self, why: str, start: int, p: int | None, end: int, to: int, g: int) -> None:
        self._flows += 1
        common = f'"name":{self._text(why)},"cat":"flow","id":{self._flows},"pid":{_PROCESSORS}'
        tid = self._processor(p)
        if p is None:  # an arrow begins in a slice
            self._write(
                f'"ph":"X","name":{self._text(why)},"cat":"wake","pid":{_PROCESSORS},"tid":{tid},'
                f'"ts":{_us(start)},"dur":0.001,"args":{{"goroutine":{g}}}'
            )
        self._write(f'"ph":"s",{common},"tid":{tid},"ts":{_us(start)}')
        self._write(f'"ph":"f","bp":"e",{common},"tid":{self._processor(to)},"ts":{_us(end)}')

    def on_counts(self, t: int, counts: dict[str, int]) -> None:
        if t - self._counted_at < _COUNTS_NS:
            self._uncounted = (t, counts)
            return
        self._counted_at, self._uncounted = t, None
        self._write_counts(t, counts)

    def _write_counts(self, t: int, counts: dict[str, int]) -> None:
        self._write(
            f'"ph":"C","name":"Goroutines","pid":{_SUMS},"tid":0,"ts":{_us(t)},'
            f'"args":{json.dumps(counts)}'
        )

    def on_value(self, t: int, name: str, value: int) -> None:
        shown = {"heap": "Heap", "heap goal": "Heap goal"}.get(name, name)
        self._write(
            f'"ph":"C","name":{self._text(shown)},"pid":{_SUMS},"tid":0,"ts":{_us(t)},'
            f'"args":{{{self._text(name)}:{value}}}'
        )

    def on_span(self, track: str, name: str, start: int, end: int) -> None:
        tid = _TRACKS[track]
        self._track(_PROCESSORS, tid, track)
        self._write(
            f'"ph":"X","name":{self._text(name)},"cat":"gc","pid":{_PROCESSORS},"tid":{tid},'
            f'"ts":{_us(start)},"dur":{_us(end - start)}'
        )

    def on_region(self, g: int, name: str, t: int, begins: bool) -> None:
        self._track(_REGIONS, g, json.loads(self._names.get(g, f'"G{g}"')))
        self._write(
            f'"ph":"{"B" if begins else "E"}","name":{self._text(name)},"cat":"region",'
            f'"pid":{_REGIONS},"tid":{g},"ts":{_us(t)}'
        )

    def on_task(self, task: int, name: str, t: int, begins: bool) -> None:
        self._write(
            f'"ph":"{"b" if begins else "e"}","name":{self._text(name)},"cat":"task","id":{task},'
            f'"pid":{_TASKS},"tid":0,"ts":{_us(t)}'
        )

    def on_mark(self, p: int | None, g: int, kind: str, text: str, t: int) -> None:
        pid, tid = (_GOROUTINES, g) if g else (_PROCESSORS, self._processor(p))
        self._write(
            f'"ph":"i","s":"t","name":{self._text(text or kind)},"cat":{self._text(kind)},'
            f'"pid":{pid},"tid":{tid},"ts":{_us(t)}'
        )


def write_json(trace: TraceFile, out: TextIO) -> Model:
    """Write a trace as Chrome's JSON; gives its sums. Memory does not grow with its length.

    Args:
        trace: what is read; its `warning` says afterwards what was wrong with it.
        out: open for text.

    Raises:
        OSError: it cannot be written.
    """
    writer = _Writer(out)
    model = Model(trace, writer)
    model.run()
    other: dict[str, object] = {"format": f"go 1.{trace.version} trace"}
    if trace.warning is not None:
        other["warning"] = trace.warning
    writer.end(other)
    return model
