"""The programs of group net in benches/ do their work, on a small scale: nothing of speed here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parent.parent / "benches"
PROGRAMS = {
    "gort": ("ours/gort_net.py", ["net_64", "net_16k", "net_idle", "udp", "tls", "net_tls"]),
    "threads": ("peers/threads_net.py", ["net_64", "udp", "tls"]),
    "asyncio": ("peers/asyncio_net.py", ["net_64", "udp", "tls", "net_tls"]),
}
LISTED = {"net_64", "net_16k", "net_idle", "udp", "tls", "net_tls"}


def run(name, *arguments):
    program, _ = PROGRAMS[name]
    done = subprocess.run(
        [sys.executable, str(BENCHES / program), *arguments],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_all_of_the_group(name):
    assert set(run(name, "--list").split()) == LISTED


@pytest.mark.parametrize(
    ("name", "workload"), [(name, w) for name, (_, works) in PROGRAMS.items() for w in works]
)
def test_every_answer_is_right(name, workload):
    if not (shutil.which("cc") or os.environ.get("BENCH_LOAD")) and not workload.endswith("tls"):
        pytest.skip("no compiler for the load")
    line = json.loads(run(name, workload, "200" if not workload.endswith("tls") else "16"))
    assert line["workload"] == workload
    assert line["ns_per_op"] > 0
    assert {"per_second", "os_threads"} <= line.keys()
