"""The heap profile: what `tracemalloc` has, by line, and what the runtime itself has in use.

What a figure means: `inuse_` is exact for what was allocated since `tracemalloc.start()`, every
block of it (no sampling), with as many frames as it was told to keep. tracemalloc forgets what was
freed, so `alloc_` is the same figure and not what was ever allocated. What the runtime has for
goroutines and channels is in it by the line that asked for it; while tracemalloc is off, as two
sums that name no line.
"""

from __future__ import annotations

import ast
import gc
import os
import tracemalloc

from gort import memory
from gort._dump import printable
from gort.pprof._model import Data, Frame, Kind, Sample, Stack, addresses, aligned, stack_lines

__all__ = ["collect", "count", "data", "text"]

_KINDS: tuple[Kind, ...] = (
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
)
#: Blocks of one size and one stack are one sample; its label says which size.
_OFF = "tracemalloc is off: only the runtime's own memory is here; call tracemalloc.start(25)"
#: Files whose functions are known; others are forgotten when there are more.
_REMEMBERED = 2_000

_functions: dict[str, list[tuple[int, int, str]]] = {}


def _functions_of(file: str) -> list[tuple[int, int, str]]:
    """First line, last line and name of each function of a file, the innermost last."""
    known = _functions.get(file)
    if known is not None:
        return known
    if len(_functions) >= _REMEMBERED:
        _functions.clear()
    found: list[tuple[int, int, str]] = []
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        tree = ast.Module([], [])
    pending: list[tuple[ast.AST, str]] = [(tree, "")]
    while pending:
        node, prefix = pending.pop()
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                found.append((child.lineno, child.end_lineno or child.lineno, name))
                inner = f"{name}." if isinstance(child, ast.ClassDef) else f"{name}.<locals>."
            pending.append((child, inner))
    found.sort(key=lambda item: (item[0], -item[1]))
    _functions[file] = found
    return found


def _frame(file: str, line: int) -> Frame:
    """A place that is known by its line alone; the function is looked up in the file."""
    stem = os.path.basename(file).removesuffix(".py")
    inside = [item for item in _functions_of(file) if item[0] <= line <= item[1]]
    start, name = (inside[-1][0], inside[-1][2]) if inside else (1, "<module>")
    name, path = printable(f"{stem}.{name}"), printable(file)
    entry = hash((file, start)) & 0x7FFF_FFFF_FFFF  # no address is known of it
    return Frame(entry + line, name, f"{path}:{name}", path, line, start, entry)


def _traced() -> dict[tuple[Stack, int], int]:
    """How many blocks of each stack and size tracemalloc knows."""
    counts: dict[tuple[object, int], int] = {}
    for _, size, frames, *_ in tracemalloc._get_traces():  # type: ignore[attr-defined]
        counts[frames, size] = counts.get((frames, size), 0) + 1
    known: dict[tuple[str, int], Frame] = {}
    result: dict[tuple[Stack, int], int] = {}
    for (frames, size), blocks in counts.items():
        stack = []
        for place in frames:  # type: ignore[attr-defined]
            frame = known.get(place)
            if frame is None:
                frame = known[place] = _frame(*place)
            stack.append(frame)
        key = tuple(stack), size
        result[key] = result.get(key, 0) + blocks
    return result


def _own() -> list[Sample]:
    """What the runtime has in use, and what its heap has beside that."""
    stats = memory.stats()
    parts = {
        "gort.heap": stats["heap_objects_bytes"],
        "gort.metadata": stats["metadata_bytes"],
        "gort.python": stats["python_objects_bytes"],
    }
    return [
        ((Frame.native(16 * (i + 1), name),), (0, size, 0, size), ())
        for i, (name, size) in enumerate(parts.items())
        if size
    ]


def collect() -> None:
    """Collect garbage, so that what is left is in use."""
    gc.collect()


def count() -> int:
    """Give how many stacks the profile has."""
    return len(_traced()) if tracemalloc.is_tracing() else len(_own())


def data(default: str) -> Data:
    """Give the profile; `default` is the kind that is shown first. Does not park."""
    comments: tuple[str, ...] = ()
    if tracemalloc.is_tracing():
        samples = [
            (stack, (blocks, blocks * size) * 2, (("bytes", size, "bytes"),))
            for (stack, size), blocks in _traced().items()
        ]
    else:
        samples = _own()  # type: ignore[assignment]
        comments = (_OFF,)
    return Data(_KINDS, ("space", "bytes"), 1, tuple(samples), default, comments)


def text() -> str:
    """Give the profile as Go's debug=1 does. Does not park."""
    profile = data("")
    merged: dict[Stack, tuple[int, int]] = {}
    for stack, values, _ in profile.samples:
        blocks, size = merged.get(stack, (0, 0))
        merged[stack] = blocks + values[2], size + values[3]
    total = [sum(values) for values in zip(*merged.values(), strict=True)] or [0, 0]
    # pprof takes a profile whose two halves are equal for one that has only one of them.
    lines = [f"heap profile: {total[0]}: {total[1]} [{total[0]}: {total[1] + 1}] @ heap/2"]
    for stack, (blocks, size) in sorted(merged.items(), key=lambda item: item[1][1]):
        lines.append(f"{blocks}: {size} [{blocks}: {size}] {addresses(stack)}")
        lines += stack_lines(stack)
    lines += ["", "# runtime.MemStats", *(f"# {comment}" for comment in profile.comments)]
    lines += [f"# {name} = {value}" for name, value in memory.stats().items()]
    return "\n".join(aligned(lines)) + "\n"
