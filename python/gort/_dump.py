"""Every goroutine with its Python frames, in the form of Go's dumps.

`records` asks the core for a snapshot: nothing else runs while it is taken. `text` and `grouped`
show one. What the core gives of a frame is (address, code, line, module); the address is that of
the code object and how many bytes of it are done, which tells frames apart as a program counter
does. Functions are made at import only: a dump is wanted where memory is refused, too, and some
CPythons crash later on where a function was refused memory (docs/caveats.md).
"""

from __future__ import annotations

from gort._core import _dump_on, _goroutine_records
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

__all__ = [
    "MOST_BYTES",
    "Record",
    "dump",
    "dump_on",
    "function_name",
    "header",
    "printable",
    "records",
    "text",
]

_FILE = (lambda: None).__code__.co_filename
#: Frames of a goroutine that are shown, the newest; Go's number for profiles.
DEPTH = 128
#: Characters of a dump; Go stops there, too.
MOST_BYTES = 64 << 20


class Record:
    """One goroutine at the time of a snapshot.

    Attributes:
        id: its id.
        name: the name it was given, or None.
        state: what it does, in Go's words: `running`, `chan receive`, `IO wait`...
        waited: seconds for which it has been parked, 0 for one that is not.
        locked: whether it is locked to its OS thread.
        kept: milliseconds for which it kept the interpreter's lock in a call, if that was long.
        bubble: the number of its bubble (gort.testing), 0 for none.
        durable: whether it is durably blocked there.
        labels: its labels (gort.labels), or None.
        origin: function, file and line that started it, or None.
        parent: the id of the goroutine that did, 0 for none.
        stack: its frames, four items each, the newest first.
        current: whether it is the one that took the snapshot.
        leaked: whether it can never run again, where somebody looked for that.
    """

    __slots__ = (
        "bubble", "current", "durable", "id", "kept", "labels", "leaked", "locked", "name",
        "origin", "parent", "stack", "state", "waited",
    )  # fmt: skip

    def __init__(
        self,
        ident: int,
        name: str | None,
        state: str,
        waited: int,
        locked: bool,
        kept: int,
        bubble: int,
        durable: bool,
        labels: dict[str, str] | None,
        origin: tuple[str, str, int] | None,
        parent: int,
        stack: tuple[object, ...],
        current: bool,
    ) -> None:
        """Take what `_goroutine_records` gives, in its order."""
        self.id = ident
        self.name = name
        self.state = state
        self.waited = waited
        self.locked = locked
        self.kept = kept
        self.bubble = bubble
        self.durable = durable
        self.labels = labels
        self.origin = origin
        self.parent = parent
        self.stack = stack
        self.current = current
        self.leaked = False

    def frames(self) -> Iterator[tuple[int, CodeType, int, str | None]]:
        """Go through the frames, the newest first: address, code, line, module."""
        items = iter(self.stack)
        return zip(items, items, items, items, strict=True)  # type: ignore[arg-type]

    def place(self) -> tuple[object, ...]:
        """Give what is the same for those at the same lines.

        Not the addresses: on 3.11 those of one call differ once it is specialised.
        """
        return (*map(id, self.stack[1::4]), *self.stack[2::4])


def _rank(record: Record) -> tuple[bool, int]:
    """Who comes before whom."""
    return not record.current, record.id


def records(depth: int = DEPTH) -> list[Record]:
    """Take a snapshot of all goroutines: the caller first, then by their ids. Does not park."""
    found = [Record(*fields) for fields in _goroutine_records(depth)]
    found.sort(key=_rank)
    for record in found:
        while record.current and record.stack and record.stack[1].co_filename == _FILE:  # type: ignore[attr-defined]
            record.stack = record.stack[4:]  # who asks is shown without the asking
    return found


def printable(words: str) -> str:
    r"""Give a name without what would break a line: control characters as escapes (`\n`)."""
    if words.isprintable():
        return words
    return "".join([c if c.isprintable() else repr(c)[1:-1] for c in words])


def function_name(code: CodeType, module: str | None) -> str:
    """Name a function as Go does, with what it is in: `app.Server.serve`."""
    name: str = code.co_qualname
    return printable(f"{module}.{name}" if module else name)


def quoted(words: str) -> str:
    """Give a text in quotes, as Go's %q does."""
    inner = words.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(inner)}"'


def header(record: Record) -> str:
    """Give its line: `goroutine 12 [chan receive, 3 minutes, locked to thread]:`."""
    return f"goroutine {record.id} [{_words(record)}]:"


def _words(record: Record) -> str:
    """What stands in brackets."""
    words = record.state
    if record.leaked:
        words += " (leaked)"
    if record.durable:
        words += " (durable)"
    minutes = record.waited // 60
    if minutes >= 1:
        words += f", {minutes} minutes"
    if record.locked:
        words += ", locked to thread"
    if record.bubble:
        words += f", synctest bubble {record.bubble}"
    if record.kept:
        words += f", kept the interpreter's lock for {record.kept} ms in a call"
    if record.name is not None:
        words += f", name {quoted(record.name)}"
    if record.labels:
        pairs = [f"{quoted(k)}: {quoted(v)}" for k, v in sorted(record.labels.items())]
        words += f" labels:{{{', '.join(pairs)}}}"
    return words


def _stack(record: Record) -> str:
    """Its frames, each on two lines, and who started it."""
    lines = []
    for address, code, line, module in record.frames():
        lines.append(f"{function_name(code, module)}(...)")
        lines.append(f"\t{printable(code.co_filename)}:{line} +{address - id(code):#x}")
    if record.origin is not None:
        name, file, line = record.origin
        by = f" in goroutine {record.parent}" if record.parent else ""
        lines.append(f"created by {printable(name)}{by}")
        lines.append(f"\t{printable(file)}:{line}")
    return "".join([f"{line}\n" for line in lines])


def text(found: Iterable[Record]) -> str:
    """Show goroutines as Go's panics and `goroutine?debug=2` do; at most 64 Mi characters."""
    parts: list[str] = []
    size = 0
    for record in found:
        part = f"{header(record)}\n{_stack(record)}\n"
        size += len(part)
        if size > MOST_BYTES:
            break
        parts.append(part)
    return "".join(parts).removesuffix("\n")


def grouped(found: Iterable[Record]) -> str:
    """Show those that do the same at the same place once, with their ids; most first."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in found:
        key = (_words(record), record.origin, record.parent, *record.place())
        groups.setdefault(key, []).append(record)
    parts = []
    for members in sorted(groups.values(), key=len, reverse=True):
        words, stack = _words(members[0]), _stack(members[0])
        if len(members) == 1:
            head = f"goroutine {members[0].id} [{words}]:"
        else:
            ids = ", ".join([str(member.id) for member in members[:20]])
            more = f" and {len(members) - 20} more" if len(members) > 20 else ""
            head = f"{len(members)} goroutines [{words}]: {ids}{more}"
        parts.append(f"{head}\n{stack}")
    return "\n".join(parts)


def dump(*, group: bool = False) -> str:
    """Give a text with every goroutine: why it waits and for how long, its frames, who started it.

    In the form of Go's dumps; the caller comes first. It takes some microseconds for each
    goroutine, while nothing else runs for a part of it. Does not park.

    Args:
        group: those that do the same at the same place stand there once, with their ids.

    Raises:
        MemoryError: there is no memory for it.

    Example:
        >>> import gort
        >>> g = gort.go(gort.Chan().recv)
        >>> gort.gosched()
        >>> f'goroutine {g.id} [chan receive]:' in gort.dump(), g.cancel()
        (True, True)
    """
    found = records()
    return grouped(found) if group else text(found)


def dump_on(signum: int, *, exits: bool = False) -> None:
    """Have a signal write a dump of every goroutine to stderr from now on. Does not park.

    As Go does on SIGQUIT, and faulthandler for threads. The signal wakes a thread of gort's, which
    has whoever computes stop for a moment at its next safe point. While a call of C code keeps the
    interpreter's lock for more than two seconds, the dump says so, and has ids, states and times
    without frames. GORT_SIGQUIT=dump, or exit, does the same for SIGQUIT when gort is imported.
    `signal.signal` with another handler ends it.

    Args:
        signum: the signal, signal.SIGQUIT as a rule: Ctrl-backslash on a terminal.
        exits: end the process then, with status 2 and without cleaning up, as a Go program ends.

    Raises:
        TypeError: `signum` is no int.
        ValueError: there is no such signal, or it is one that tells of a fault.
        OSError: the system refuses it.
        RuntimeError: the system refuses a thread.

    Example:
        >>> import gort, signal
        >>> gort.dump_on(signal.SIGUSR1)
        >>> before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    """
    _dump_on(signum, exits)
