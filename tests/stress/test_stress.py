"""Long mixes of everything at once. Not part of the ordinary run: `pytest -m stress`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SECONDS = 20


@pytest.mark.stress
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("processors", ["1", "2", "4"])
def test_mix_of_everything_ends_with_nothing_lost(processors):
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(HERE / "mix.py"), str(SECONDS), str(seed)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 100,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "GORT_MAXPROCS": processors},
    )
    assert done.returncode == 0, (
        f"seed {seed}, code {done.returncode}\n{done.stdout}\n{done.stderr[-6000:]}"
    )
    assert done.stderr == ""


@pytest.mark.stress
@pytest.mark.timeout(7200)
def test_nothing_grows():
    """`make soak` runs it for SOAK=1200 seconds."""
    seconds = float(os.environ.get("SOAK", "120"))
    argv = [
        sys.executable,
        str(HERE / "soak.py"),
        str(seconds),
        *os.environ.get("SOAK_TO", "").split(),
    ]
    assert subprocess.run(argv, timeout=seconds + 200).returncode == 0


@pytest.mark.stress
@pytest.mark.timeout(7200)
def test_churn_of_connections_leaves_nothing():
    """`make churn` runs it for CHURN=600 seconds."""
    seconds = os.environ.get("CHURN", "60")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(HERE / "churn.py"), "--seconds", seconds],
        timeout=float(seconds) + 200,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    assert done.returncode == 0


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_a_million_gets_through_a_semaphore_are_all_answered():
    """At most 9,000 at once: each needs two descriptors here. GETS sets another number."""
    count = os.environ.get("GETS", "1000000")
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            str(HERE.parent / "promised_gets.py"),
            count,
            "9000",
        ],
        capture_output=True,
        text=True,
        timeout=3500,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
    assert done.stdout.startswith(f"{count} answered of {count}, 0 refused")
