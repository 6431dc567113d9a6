"""What an execution trace costs: a round trip over two channels without one, with one, with stacks.

    python benches/trace_work.py [--rounds N] [--trips N]

Runs of the three take turns. Counts the CPU time of the thread that makes the trips: what writes
the trace is another one's work, and is only in it as far as the two are in each other's way, which
they are most while the machine does nothing else. Prints for each its ns for a trip, the median of
the rounds with the least and the most, and the median of the ratios to the run without a trace.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import gort
import gort.trace

#: Whether stacks are noted; None: there is no trace.
KINDS = {"no trace": None, "without stacks": False, "trace": True}


def round_trip_ns(trips: int) -> float:
    """Send a value there and back between two goroutines; CPU time of this thread for a trip."""
    there, back = gort.Chan(), gort.Chan()

    def pong() -> None:
        for _ in range(trips):
            back.send(there.recv())

    g = gort.go(pong)
    begun = time.thread_time_ns()
    for i in range(trips):
        there.send(i)
        back.recv()
    used = time.thread_time_ns() - begun
    g.join()
    return used / trips


def run(kind: str, trips: int) -> float:
    """One run; the beginning and the end of the trace are not in it."""
    stacks = KINDS[kind]
    if stacks is None:
        return round_trip_ns(trips)
    with gort.trace.to("/dev/null", stacks=stacks):
        return round_trip_ns(trips)


def main() -> int:
    """Measure all three."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--trips", type=int, default=100_000)
    options = parser.parse_args()
    round_trip_ns(options.trips)  # warms up
    rounds = [{kind: run(kind, options.trips) for kind in KINDS} for _ in range(options.rounds)]
    for kind in KINDS:
        all_ns = [one[kind] for one in rounds]
        ratio = statistics.median(one[kind] / one["no trace"] for one in rounds)
        middle = statistics.median(all_ns)
        print(f"{kind}: {middle:.0f} ns ({min(all_ns):.0f}, {max(all_ns):.0f}), {ratio:.2f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
