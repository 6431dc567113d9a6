"""Two views of what `gort._graph` recorded, and one of the goroutines as they are now.

"steps": each goroutine and what it did, one after another: started, acquired, was blocked, went on.
"objects": goroutines by the line that started them, channels and locks by the line that made them,
and who does what with which.
"""

from __future__ import annotations

import ast
import linecache
import os
import re

from gort._dump import function_name, records
from gort._graph import Actor, Edge, Thing, current
from gort._graph import begin as _begin
from gort._graph import end as _end
from gort._graphdraw import MOST_ARROWS, Drawing
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal

    from gort._graph import Recording, Site

    View = Literal["steps", "objects"]

__all__ = ["Graph", "mermaid", "svg"]

_SHAPES = {"Chan": "channel", "Mutex": "lock", "RWMutex": "lock", "Semaphore": "lock"}
_TAKES = {"locks": "Acquire", "reads": "Read", "acquires": "Acquire"}
_GIVES = {"unlocks": "Release", "releases": "Release"}
_USES = {"sends": "Send on", "receives": "Receive from", "closes": "Close"}
_NAME = re.compile(r"\s*(?:self\.)?([A-Za-z_]\w*)\s*(?::[^=]+)?=(?!=)")


def _line_of(site: Site) -> tuple[str, int, int]:
    """Give file, line and column of a place in code."""
    code, offset = site
    for i, (line, _, column, _) in enumerate(code.co_positions()):
        if i == offset // 2:
            return code.co_filename, line or code.co_firstlineno, column or 0
    return code.co_filename, code.co_firstlineno, 0


def _place(site: Site | None) -> str:
    """Name a place in code: its file without the folder, and the line."""
    if site is None:
        return "place unknown"
    file, line, _ = _line_of(site)
    return f"{os.path.basename(file)}:{line}"


def _variable(site: Site | None) -> str | None:
    """Find out what a line calls the object that it makes."""
    if site is None:
        return None
    file, line, column = _line_of(site)
    text = linecache.getline(file, line)
    indent = len(text) - len(text.lstrip())
    try:
        statement = ast.parse(text.strip()).body[0]
    except (SyntaxError, IndexError, ValueError):
        found = _NAME.match(text)
        return found[1] if found is not None else None
    if isinstance(statement, ast.AnnAssign):
        return ast.unparse(statement.target)
    if not isinstance(statement, ast.Assign):
        return None
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        if len(target.elts) != len(value.elts):
            return None
        for one, made in zip(target.elts, value.elts, strict=True):
            if made.col_offset <= column - indent <= (made.end_col_offset or 0):
                return ast.unparse(one)
        return None
    return ast.unparse(target)


class _Names:
    """What actors and things are called."""

    def __init__(self, at: Recording) -> None:
        self._at = at
        kinds: dict[str, int] = {}
        for thing in at.things:
            kinds[thing.kind] = kinds.get(thing.kind, 0) + 1
        self._kinds = kinds
        self._kept: dict[Site | None, str] = {}

    def thing(self, thing: Thing) -> str:
        """Name a thing: by its kind, if it is the only one of that."""
        if self._kinds[thing.kind] == 1 and thing.count == 1:
            return thing.kind
        return f"{thing.kind} {self.short(thing.site)}"

    def short(self, site: Site | None) -> str:
        """Give the name of a variable, or a place."""
        if site not in self._kept:
            self._kept[site] = _variable(site) or _place(site)
        return self._kept[site]


def _spoken(actor: Actor) -> str:
    """Give the name of a goroutine, or its function, as words."""
    function = actor.function.rpartition(".")[2].strip("<>_").replace("_", " ")
    words = actor.name or function
    return words[:1].upper() + words[1:]


def _ms(ns: int) -> str:
    """Give a time."""
    return f"{ns / 1e6:.1f} ms" if ns >= 100_000 else f"{ns / 1e3:.0f} us"


def _times(text: str, count: int) -> str:
    """Give a text, and how often, if not once."""
    return text if count <= 1 else f"{text} x{count}"


def _done(at: Recording) -> list[Edge]:
    """Give what was done, or is being done."""
    return [edge for edge in list(at.edges.values()) if edge.count or edge.pending]


def steps(at: Recording) -> Drawing | None:
    """Draw what each goroutine did; None if that is too much."""
    names, drawing = _Names(at), Drawing()
    numbers: dict[str, int] = {}
    last: dict[int, int] = {}
    done = _done(at)
    # Those that did something come first, in the order in which they began to.
    acted = {edge.actor.number: i for i, edge in reversed(list(enumerate(done)))}
    actors = sorted(
        at.actors, key=lambda a: (a.number != 0, acted.get(a.number, len(done)), a.number)
    )
    if any(actor.count > 1 for actor in actors):
        return None
    last[0] = drawing.add("Main Goroutine")
    for actor in actors[1:]:
        spoken = _spoken(actor)
        numbers[spoken] = numbers.get(spoken, 0) + 1
        text = f"Spawn {spoken} #{numbers[spoken]}" if actor.kind != "threads" else "Plain Threads"
        last[actor.number] = drawing.add(text)
    first = dict(last)
    for actor in actors[1:]:
        if actor.parent is not None:
            drawing.join(first[actor.parent.number], first[actor.number])
    uses: dict[int, tuple[list[int], list[int]]] = {}
    blocked: set[tuple[int, int]] = set()
    for edge in done:
        if not isinstance(edge.target, Thing):
            continue
        for box in _step(edge, names, drawing, last, blocked):
            if edge.op in ("sends", "receives"):
                both = uses.setdefault(edge.target.number, ([], []))
                both[edge.op == "receives"].append(box)
        if len(drawing.arrows) > MOST_ARROWS:
            return None
    for senders, receivers in uses.values():
        for start in senders:
            for end in receivers:
                drawing.join(start, end, dotted=True)
        if len(drawing.arrows) > MOST_ARROWS:
            return None
    return drawing


def _step(
    edge: Edge,
    names: _Names,
    drawing: Drawing,
    last: dict[int, int],
    blocked: set[tuple[int, int]],
) -> list[int]:
    """Draw one step of a goroutine; gives its boxes."""
    assert isinstance(edge.target, Thing)
    me, thing = edge.actor.number, names.thing(edge.target)
    texts: list[tuple[str, str]] = []
    if edge.op in _TAKES and (edge.blocked or edge.pending):
        blocked.add((me, edge.target.number))
        texts.append((f"Blocked on {thing}", ""))
        if edge.count:
            texts.append(("Proceed with Data", f"waited {_ms(edge.waited_ns)}"))
    elif edge.op in _TAKES:
        texts.append((_times(f"{_TAKES[edge.op]} {thing}", edge.count), ""))
    elif edge.op in _GIVES and (me, edge.target.number) not in blocked:
        texts.append((_times(f"{_GIVES[edge.op]} {thing}", edge.count), ""))
    elif edge.op in _USES:
        texts.append((_times(f"{_USES[edge.op]} {thing}", edge.count), ""))
    boxes = []
    for text, why in texts:
        box = drawing.add(text)
        drawing.join(last[me], box, why)
        last[me] = box
        boxes.append(box)
    return boxes


def objects(at: Recording) -> Drawing:
    """Draw who does what with which, by the lines that goroutines and objects come from."""
    names, drawing = _Names(at), Drawing()
    boxes: dict[object, int] = {}
    box_of: dict[int, int] = {}
    counts: dict[object, int] = {}
    actors, things = list(at.actors), list(at.things)
    keys = {a.number: (a.kind, a.function, a.name, a.site) for a in actors}
    for actor in actors:
        counts[keys[actor.number]] = counts.get(keys[actor.number], 0) + actor.count
    for actor in actors:
        key = keys[actor.number]
        if key not in boxes:
            name = "Main Goroutine" if actor.kind == "main" else actor.name or actor.function
            where = f" ({_place(actor.site)})" if actor.site is not None else ""
            boxes[key] = drawing.add(_times(name, counts[key]) + where, "round")
        box_of[actor.number] = boxes[key]
    thing_keys = {t.number: ("thing", t.kind, t.site or t.number) for t in things}
    for thing in things:
        counts[thing_keys[thing.number]] = counts.get(thing_keys[thing.number], 0) + thing.count
    sums: dict[tuple[int, int, str], list[int]] = {}
    for actor in actors:
        if actor.parent is not None:
            _add(sums, box_of[actor.parent.number], box_of[actor.number], "spawns", actor.count)
    for edge in _done(at):
        start = box_of.get(edge.actor.number)
        if start is None:
            continue  # it came while this was drawn
        if isinstance(edge.target, Thing):
            thing_key = thing_keys.get(edge.target.number)
            if thing_key is None:
                continue
            if thing_key not in boxes:
                text = f"{edge.target.kind} {names.short(edge.target.site)}"
                shape = _SHAPES.get(edge.target.kind, "group")
                boxes[thing_key] = drawing.add(_times(text, counts[thing_key]), shape)
            end = boxes[thing_key]
        else:
            end = box_of.get(edge.target.number, start)
        if edge.op == "receives":
            start, end = end, start
        _add(sums, start, end, edge.op, edge.count, edge.waited_ns, edge.pending)
    for (start, end, op), (count, waited_ns, pending) in sums.items():
        text = _times(_OPS.get(op, op), count)
        if waited_ns >= 100_000:
            text += f", waited {_ms(waited_ns)}"
        if pending:
            text += f", {pending} waiting"
        drawing.join(start, end, text, dotted=op in _DOTTED, weight=count + pending)
    return drawing


_OPS = {"receives": "received by", "joins": "waits for"}
_DOTTED = ("waits for", "joins", "is done", "wakes")


def _add(
    sums: dict[tuple[int, int, str], list[int]], start: int, end: int, op: str, *more: int
) -> None:
    """Add up what is drawn as one arrow: how often, waited, waiting."""
    found = sums.setdefault((start, end, op), [0, 0, 0])
    for i, number in enumerate(more):
        found[i] += number


def now() -> Drawing:
    """Draw the goroutines that there are: by the line that started them, and what they wait for."""
    drawing = Drawing()
    boxes: dict[object, int] = {}
    counts: dict[object, int] = {}
    found = records(8)
    keys: dict[int, object] = {}
    for record in found:
        frames = [function_name(code, module) for _, code, _, module in record.frames()]
        entry = frames[-1] if frames else "goroutine"
        is_main = record.origin is None and record.id == 1
        name = "Main Goroutine" if is_main else record.name or entry
        keys[record.id] = (name, record.origin)
        counts[keys[record.id]] = counts.get(keys[record.id], 0) + 1
    sums: dict[tuple[int, int, str], list[int]] = {}
    for record in found:
        key = keys[record.id]
        if key not in boxes:
            name, origin = str(key[0]), record.origin  # type: ignore[index]
            where = f" ({os.path.basename(origin[1])}:{origin[2]})" if origin else ""
            boxes[key] = drawing.add(_times(name, counts[key]) + where, "round")
    for record in found:
        mine = boxes[keys[record.id]]
        if record.parent in keys:
            _add(sums, boxes[keys[record.parent]], mine, "spawned", 1)
        elif record.origin is not None:
            above = ("ended", record.origin[0])
            if above not in boxes:
                boxes[above] = drawing.add(f"{record.origin[0]} (ended)", "round")
            _add(sums, boxes[above], mine, "spawned", 1)
        if record.state not in ("running", "runnable"):
            if record.state not in boxes:
                boxes[record.state] = drawing.add(record.state, "lock")
            _add(sums, mine, boxes[record.state], "waits in", 1)
    for (start, end, op), (count, _, _) in sums.items():
        drawing.join(start, end, _times(op, count), dotted=op == "waits in", weight=count)
    return drawing


def _drawing(at: Recording | None, view: str | None) -> Drawing:
    """Give what is asked for."""
    if view not in (None, "steps", "objects"):
        raise ValueError(f"view must be 'steps', 'objects' or None, not {view!r}")
    if at is None:
        return now()
    drawn = steps(at) if view != "objects" else None
    return drawn if drawn is not None else objects(at)


class Graph:
    """Records who starts, sends to, waits for and locks whom. As a block it records within.

    While it records, what goroutines do with channels, locks and each other takes some
    microseconds more each time; before and after, nothing. One may record at a time.

    Example:
        >>> import gort.trace
        >>> with gort.trace.Graph() as graph:
        ...     gort.go(len, "x").join()
        1
        >>> print(graph.mermaid())
        graph TD
            A[Main Goroutine]
            B[Spawn Len #1]
            A --> B
        <BLANKLINE>
    """

    def __init__(self) -> None:
        """Begin with nothing recorded."""
        self._at: Recording | None = None

    def start(self) -> None:
        """Begin to record anew. Never blocks.

        Raises:
            RuntimeError: one is being recorded.
        """
        self._at = _begin()

    def stop(self) -> None:
        """End it; what was recorded stays. Does nothing if this one does not record."""
        if self._at is not None and self._at is current():
            _end()

    def mermaid(self, view: View | None = None) -> str:
        """Give the graph as Mermaid text, also while it records. Never blocks.

        Args:
            view: "steps" shows each goroutine and what it did; "objects" who does what with which
                channel or lock, by the lines they come from; None steps up to 500 arrows, objects
                where there are more. With more than 500 of these the least frequent are left out.

        Raises:
            ValueError: there is no such view.
        """
        return _drawing(self._at, view).mermaid()

    def svg(self, view: View | None = None) -> str:
        """Give the graph as an SVG picture; arguments and errors are those of `mermaid`."""
        return _drawing(self._at, view).svg()

    def __enter__(self) -> Graph:
        """Begin."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.stop()


def mermaid(view: View | None = None) -> str:
    """Give the graph of this process as Mermaid text. Never blocks.

    What is recorded, if a `Graph` records or `gort run --trace=concurrency` does; else the
    goroutines that there are, by the line that started them, and what they wait for.

    Args:
        view: as for Graph.mermaid.

    Raises:
        ValueError: there is no such view.

    Example:
        >>> import gort.trace
        >>> gort.trace.mermaid().startswith("graph TD")
        True
    """
    return _drawing(current(), view).mermaid()


def svg(view: View | None = None) -> str:
    """Give the same as an SVG picture. Never blocks.

    Args:
        view: as for Graph.mermaid.

    Raises:
        ValueError: there is no such view.

    Example:
        >>> import gort.trace
        >>> gort.trace.svg().startswith("<svg")
        True
    """
    return _drawing(current(), view).svg()
