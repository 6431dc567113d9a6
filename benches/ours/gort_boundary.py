"""The boundary workloads of benches/workloads.toml on gort: `gort_boundary.py NAME N`.

What they run is ordinary code for threads and sockets; only the way to start a task is gort's.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import entry_cost
import gort
import gort.threads
import harness
import https_work
import served
import thread_work


def echo() -> None:
    """A goroutine per connection."""
    listener = served.listener()
    while True:
        gort.go(served.talk, listener.accept()[0])


def http() -> None:
    """The unchanged server, whose threads are goroutines: `gort run --threads`."""
    gort.threads.enable()
    runpy.run_path(served.HTTP_SERVER, run_name="__main__")


def start_join(n: int, *, daemon: bool) -> harness.Figures:
    """threading.Thread as it is, after enable()."""
    gort.threads.enable()
    return thread_work.start_join(n, daemon=daemon)


if __name__ == "__main__":
    inside = {
        "https_100": lambda n: https_work.run(gort.go, 100, n),
        "https_2000": lambda n: https_work.run(gort.go, 2000, n),
        "queue": lambda n: thread_work.queue_trips(gort.go, n),
        "start_join": lambda n: start_join(n, daemon=False),
        "start_join_daemons": lambda n: start_join(n, daemon=True),
    }
    outside = {"plain_call": entry_cost.plain_call, "boundary_off": entry_cost.boundary_off}
    servers = {**dict.fromkeys(served.PLAIN, echo), "http_2000": http}
    served.main(
        {name: lambda n, f=f: gort.run(f, n) for name, f in inside.items()} | outside,
        {name: lambda f=f: gort.run(f) for name, f in servers.items()},
    )
