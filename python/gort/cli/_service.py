"""The HTTP service of `gort demo`: servers in processes of their own, and the figures of each.

`service_program.py` is the application with its servers, `_load` what asks it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import gort
from gort.cli._report import Grid
from gort.cli.service_program import SERVERS, is_there

__all__ = ["LIMIT", "NAMES", "Service", "compare", "family", "lines"]

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "service_program.py")
NAMES = {
    "gort": "gort.wsgi",
    "threads": "ThreadingHTTPServer",
    "gevent": "gevent pywsgi",
    "gunicorn": "gunicorn gthread",
}
LIMIT = 100  # goroutines that ask at once, each with a connection
_MB = 1e6
Task = Callable[..., dict[str, Any]]


def family(pid: int) -> Iterable[int]:
    """Give a process and all that stem from it."""
    yield pid
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


class Service:
    """A server of the application while the block lasts, on a database of its own.

    Args:
        name: of SERVERS.

    Raises:
        ChildProcessError: it did not begin.
    """

    def __init__(self, name: str) -> None:
        """Start nothing yet."""
        self._name = name

    def __enter__(self) -> Self:
        """Start it; `port` is where it listens."""
        self._folder = tempfile.TemporaryDirectory(prefix="gort-demo-")
        root = os.path.dirname(os.path.dirname(os.path.abspath(gort.__file__)))
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        database = os.path.join(self._folder.name, "kv.sqlite")
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, self._name, database],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if not said.isdigit():
            self._end()
            raise ChildProcessError(f"{NAMES[self._name]} did not begin")
        self.port = int(said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None
    ) -> None:
        """End it."""
        self._end()

    def memory_bytes(self) -> int:
        """Resident memory of its processes; what they share is counted for each."""
        total = 0
        for pid in family(self._process.pid):
            try:
                with open(f"/proc/{pid}/statm", encoding="ascii") as file:
                    total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                pass  # it has ended
        return total

    def _end(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # nothing of it is wanted any more
        except ProcessLookupError:
            pass  # all have ended
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()


def compare(task: Task, goroutines: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Put the same load on each server that is installed.

    Args:
        task: does a task of `gort.cli._work` in a process of its own.
        goroutines: how many ask.

    Returns:
        The figures of each by its name in NAMES, and the names of those that are not installed.
    """
    found, absent = {}, []
    for name in SERVERS:
        if not is_there(name):
            absent.append(NAMES[name])
            continue
        with Service(name) as service:
            figures = task("key_values", NAMES[name], service.port, goroutines, LIMIT)
            found[NAMES[name]] = {**figures, "memory_bytes": service.memory_bytes()}
    return found, absent


def lines(found: dict[str, dict[str, Any]]) -> Grid:
    """Arrange the figures as a table."""
    heads = ("HTTP service", "requests/s", "p50 ms", "p99 ms", "p999 ms", "errors", "RSS MB")
    rows = []
    for name, one in found.items():
        times = (f"{one[part] / 1e6:,.1f}" for part in ("p50_ns", "p99_ns", "p999_ns"))
        rate = f"{one['answered'] / one['seconds']:,.0f}"
        failed = f"{one['errors'] + one['refused'] + one['lost']:,}"
        rows.append((name, rate, *times, failed, f"{one['memory_bytes'] / _MB:,.1f}"))
    return Grid("The service", heads, rows)
