"""gort.gc.collect_unreachable on Go's tests, on the GoKer kernels, and against a model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from children import child
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


def cases_of(program):
    """What each case of a program says went wrong, and what is to be said of one that is not there."""
    done = child(f"import unreachable_many; unreachable_many.{program}()", limit=280)
    told = dict(map(json.loads, done.stdout.splitlines()))
    return told, f"not come to: ended with {done.returncode}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def kernels():
    return cases_of("kernels")


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_leaks_of_a_kernel_end(name, kernels):
    told, otherwise = kernels
    assert told.get(name, otherwise) == ""


@pytest.fixture(scope="module")
def models():
    return cases_of("models")


@pytest.mark.parametrize("seed", SEEDS)
def test_those_that_end_are_those_of_the_model(seed, models):
    told, otherwise = models
    assert told.get(seed, otherwise) == ""
