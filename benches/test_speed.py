"""pytest-benchmark forms of the two first workloads: `pytest benches/test_speed.py`.

Not part of `make test`, which collects tests/ only. Skipped without pytest-benchmark.
"""

from __future__ import annotations

from typing import Any

import gort
import pytest

pytest.importorskip("pytest_benchmark")

SPAWNS, TRIPS = 10_000, 10_000


def _nothing() -> None:
    pass


def _spawn() -> int:
    def main() -> int:
        before = gort.num_goroutine()
        for _ in range(SPAWNS):
            gort.go(_nothing)
        while gort.num_goroutine() > before:
            gort.gosched()
        return SPAWNS

    return gort.run(main)


def _round_trip() -> int:
    def echo(ping: gort.Chan[int], pong: gort.Chan[int]) -> None:
        for value in ping:
            pong.send(value)

    def main() -> int:
        ping: gort.Chan[int] = gort.Chan()
        pong: gort.Chan[int] = gort.Chan()
        gort.go(echo, ping, pong)
        last = -1
        for i in range(TRIPS):
            ping.send(i)
            last = pong.recv()
        ping.close()
        return last

    return gort.run(main)


def test_spawn(benchmark: Any) -> None:
    """Time per round is for SPAWNS goroutines."""
    assert benchmark(_spawn) == SPAWNS


def test_round_trip(benchmark: Any) -> None:
    """Time per round is for TRIPS round trips."""
    assert benchmark(_round_trip) == TRIPS - 1
