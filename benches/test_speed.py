"""pytest-benchmark forms of workloads.toml: `pytest benches/test_speed.py` where gort is.

Sizes are those of `--quick`; a round is one whole workload, as benches/run.py runs it. Not part of
`make test`, which collects tests/ only. Needs `pip install gort[bench] pytest`.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import gort
import pytest

pytest.importorskip("pytest_benchmark")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "ours"))
import gort_bench

WORKLOADS = {
    work["name"]: work
    for work in tomllib.loads((HERE / "workloads.toml").read_text())["workload"]
    if work["group"] == "core"
}
MOST = {"parked": 3, "import": 1, "blocking": 3, "sleepers": 3, "skynet": 3}  # rounds, default 5


def test_every_workload_has_a_program() -> None:
    """The file and the program name the same workloads."""
    assert set(WORKLOADS) == set(gort_bench.WORKLOADS)


@pytest.mark.parametrize("name", WORKLOADS)
def test_speed(benchmark: Any, name: str) -> None:
    """Time per round is for `n` operations; extra_info has n and the time of one."""
    n = WORKLOADS[name]["quick"]
    found: list[int] = []

    def once() -> None:
        result = gort.run(gort_bench.WORKLOADS[name], n)
        found.append(result[0] if isinstance(result, tuple) else result)

    benchmark.pedantic(once, rounds=MOST.get(name, 5), iterations=1)
    benchmark.extra_info.update(n=n, ns_per_operation=min(found) / n)
    assert min(found) > 0
