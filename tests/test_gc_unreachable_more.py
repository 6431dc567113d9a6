"""gort.gc.collect_unreachable on Go's tests, on the GoKer kernels, and against a model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from children import cases_of
from unreachable_many import KERNELS, SEEDS

HERE = Path(__file__).resolve().parent
FILES = ("go_ported", "test_chan.py", "test_select.py", "test_sync.py", "test_sync_cond.py")

pytestmark = pytest.mark.timeout(300)


def test_nobody_is_ended_wrongly_in_the_ported_go_tests():
    """See collecting_oracle.py."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "collecting_oracle", *(str(HERE / name) for name in FILES)],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    told = re.search(
        r"collecting oracle: (\d+) tests, (\d+) looks, \d+ ended, (\d+) of them", done.stdout
    )
    assert told, done.stdout + done.stderr
    assert int(told[1]) > 100
    assert int(told[2]) > 100
    assert told[3] == "0", done.stdout


@pytest.fixture(scope="module")
def kernels():
    return cases_of("import unreachable_many; unreachable_many.kernels()", limit=280)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_leaks_of_a_kernel_end(name, kernels):
    assert kernels(name) == ""


@pytest.fixture(scope="module")
def models():
    return cases_of("import unreachable_many; unreachable_many.models()", limit=280)


@pytest.mark.parametrize("seed", SEEDS)
def test_those_that_end_are_those_of_the_model(seed, models):
    assert models(seed) == ""
