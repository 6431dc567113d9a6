"""What the tests of drivers share: servers of the keeper, and, in a child, many goroutines at once.

A child begins with `from driving import *`. Its goroutines wait inside of queries until the server says
that all of them do; only then are they let go, so that nothing depends on how fast anything is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gort
import gort.boundary
import gort.context
from certificates import PEM
from children import check
from waiting import eventually, join_all, parked

__all__ = [
    "LIMIT",
    "MANY",
    "PEM",
    "Served",
    "begun",
    "contextlib",
    "ended_by",
    "eventually",
    "gort",
    "join_all",
    "kinds_of_errors",
    "many_descriptors",
    "os",
    "own_answers",
    "parked",
    "threads",
    "time",
]

MANY = 500
LIMIT = 40.0  # seconds; far above what anything here takes, below the time limit of a test
#: OS threads of 500 waiting goroutines, where each needs none: connecting takes some dozens, which
#: stay (a `connect` on this machine lasts long enough to be handed off).
FEW = 250


def port_of(keeper, kind: str) -> int:
    """The port of a server, running; skips where there is no such server."""
    found = keeper.ask(kind, "start", PEM)
    if "missing" in found:
        absent(f"not tested with {kind}: {found['missing']}")
    return found["port"]


def needs(*modules: str) -> None:
    """Skip where a package is not installed, as where it has no wheel for this Python."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            absent(f"not tested with {module}: it is not installed for {sys.version.split()[0]}")


def absent(reason: str):
    """Skip, and say so even where pytest is told to be quiet."""
    import pytest  # children do not need it

    warnings.warn(pytest.PytestWarning(reason), stacklevel=3)
    pytest.skip(reason)


def drive(code: str, expect: str = "ok", **options) -> None:
    """Run `code` in a child, which prints `expect`; its descriptors suffice for 500 clients."""
    check("from driving import *\nmany_descriptors()\n" + code, expect, limit=90, **options)


class Served:
    """A server of this folder as a process of its own; it ends with this, or with the caller's process."""

    def __init__(self, name: str) -> None:
        self.program = Path(__file__).with_name(name)
        self.ports: list[int] = []
        self.start()

    def start(self) -> None:
        """Run it, at the port that it had before."""
        self.process = subprocess.Popen(
            [sys.executable, self.program, *map(str, self.ports[:1])],
            stdin=subprocess.PIPE,  # it ends with this
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ports = [int(port) for port in self.process.stdout.readline().split()]

    def kill(self) -> None:
        """End it without a word to its clients."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.kill()


def many_descriptors() -> None:
    """Let this process have some thousands."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


def threads() -> int:
    """OS threads of this process."""
    return len(os.listdir("/proc/self/task"))


def begun(body, count: int = MANY) -> list:
    """Start `body(i)` in goroutines."""
    return [gort.go(body, i) for i in range(count)]


def own_answers(connect, ask, waiting, release, count: int = MANY, few: bool = True) -> None:
    """All wait inside of a query at once, each over a connection of its own, and get their own answers.

    `ask(connection, i)` waits in the server and gives i; `waiting()` says how many do, `release()` lets
    them go. With `few` they do not take an OS thread each.
    """
    connections = []
    for start in range(0, count, 50):  # servers have queues of about a hundred
        connections += join_all(
            [gort.go(connect) for _ in range(start, min(count, start + 50))], LIMIT
        )
    goroutines = begun(lambda i: (ask(connections[i], i), ask(connections[i], -i)), count)
    eventually(lambda: waiting() >= count, LIMIT, f"{count} queries in the server")
    taken = threads()
    release()
    answers = join_all(goroutines, LIMIT)
    assert answers == [(i, -i) for i in range(count)], [
        a for a in enumerate(answers) if a[1] != (a[0], -a[0])
    ]
    assert not few or taken < FEW, (
        f"{taken} OS threads\n{gort.stats()}\n{gort.boundary.status().calls}"
    )


def ended_by(g):
    """The exception that ends a goroutine, or None."""
    eventually(lambda: g.done, LIMIT, f"the end of {g!r}")
    try:
        g.join()
    except BaseException as error:
        return error
    return None


def kinds_of_errors(goroutines) -> set:
    """The classes of what ended goroutines."""
    return {type(error) for error in map(ended_by, goroutines)}
