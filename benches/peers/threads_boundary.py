"""The boundary workloads of workloads.toml on plain threads: `threads_boundary.py NAME N`."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import https_work
import served
import thread_work


def start(work: Callable[..., Any], *args: Any) -> Thread:
    """Start a thread; it has join()."""
    thread = Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def echo() -> None:
    """A thread per connection."""
    listener = served.listener()
    while True:
        start(served.talk, listener.accept()[0])


def http() -> None:
    """The unchanged server."""
    runpy.run_path(served.HTTP_SERVER, run_name="__main__")


if __name__ == "__main__":
    served.main(
        {
            "https_100": lambda n: https_work.run(start, 100, n),
            "https_2000": lambda n: https_work.run(start, 2000, n),
            "queue": lambda n: thread_work.queue_trips(start, n),
            "start_join": lambda n: thread_work.start_join(n, daemon=False),
            "start_join_daemons": lambda n: thread_work.start_join(n, daemon=True),
        },
        {
            **dict.fromkeys(served.PLAIN, echo),
            "http_2000": http,
        },
    )
