"""`gort demo --million`: a million GETs by a goroutine each, through a Semaphore and without.

Without a limit most goroutines cannot get a descriptor: each of those must get OSError EMFILE, none
may be lost, and service and client must go on.
"""

from __future__ import annotations

from typing import Any

from gort.cli._output import say
from gort.cli._report import Grid, grid
from gort.cli._service import Service, Task

__all__ = ["faults", "figures", "run"]

_MB = 1e6


def faults(found: dict[str, Any]) -> list[str]:
    """Say what is not as it must be.

    Args:
        found: as of `gort.cli._load.million`.
    """
    limited, unlimited = found["limited"], found["unlimited"]
    said = []
    if limited["answered"] != limited["requests"]:
        said.append(f"{limited['requests'] - limited['answered']:,} were not answered")
    for part, one in (("limited", limited), ("unlimited", unlimited)):
        if one["lost"]:
            said.append(f"{one['lost']:,} of the {part} ones were lost")
        if one["errors"]:
            said.append(f"{one['errors']:,} of the {part} ones failed: {one['example']}")
    if not found["after"]:
        said.append("there was no answer afterwards")
    return said


def figures(found: dict[str, Any], limit: int, memory_bytes: int) -> Grid:
    """Arrange the figures as a table."""
    both = (found["limited"], found["unlimited"])

    def line(title: str, key: str) -> tuple[str, ...]:
        return (title, *(f"{one[key]:,}" for one in both))

    def scaled(title: str, key: str, scale: float) -> tuple[str, ...]:
        return (title, *(f"{one[key] / scale:,.1f}" for one in both))

    rows = [
        line("GETs, a goroutine each", "requests"),
        line("answered", "answered"),
        line("OSError EMFILE", "refused"),
        line("other errors", "errors"),
        line("asking at once, at most", "peak"),
        scaled("seconds", "seconds", 1),
        ("GETs/s", *(f"{one['requests'] / one['seconds']:,.0f}" for one in both)),
        scaled("p50 of an answer, ms", "p50_ns", 1e6),
        scaled("p99, ms", "p99_ns", 1e6),
        scaled("p999, ms", "p999_ns", 1e6),
        scaled("peak memory of the client, MB", "peak_bytes", _MB),
        ("memory of the service at the end, MB", "-", f"{memory_bytes / _MB:,.1f}"),
        ("a GET afterwards", "-", "answered" if found["after"] else "NOT ANSWERED"),
    ]
    heads = ("", f"Semaphore({limit:,})", f"{found['files']:,} descriptors")
    return Grid("A million GETs", heads, rows)


def run(task: Task, count: int, limit: int, files: int, alive: int) -> int:
    """Do it, and print the table; 0 when all is as it must be, 1 when not.

    Args:
        task: does a task of `gort.cli._work` in a process of its own.
        count: how many GETs.
        limit: of the semaphore.
        files: descriptors of the client in the second part.
        alive: how many goroutines there may be at once.
    """
    at_once = "" if alive >= count else f", {alive:,} at once, for which there is memory"
    say(f"{count:,} GETs of /health by a goroutine each{at_once}, twice")
    with Service("gort") as service:
        found = task("million", service.port, count, limit, files, alive)
        memory_bytes = service.memory_bytes()
    say("\n" + grid(figures(found, limit, memory_bytes)))
    if not found["unlimited"]["refused"]:
        say("Nobody ran out of descriptors: --open-files gives fewer.")
    said = faults(found)
    for text in said:
        say(f"gort demo: FAILED, {text}")
    return 1 if said else 0
