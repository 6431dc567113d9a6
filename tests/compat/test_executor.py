"""CPython's own cases for executors pass with gort.futures in ThreadPoolExecutor's place."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
#: Where `make compat` and `make executor` lay tests that this Python came without.
BROUGHT = Path(sys.prefix) / "cpython-tests"


@pytest.mark.timeout(300)
def test_cases_of_cpython_pass_with_both_kinds_of_futures():
    is_installed = importlib.util.find_spec("test.test_concurrent_futures") is not None
    if not is_installed and not BROUGHT.exists():
        pytest.skip("this Python came without its tests: make executor brings them")
    env = {**os.environ, "PYTHONPATH": "" if is_installed else str(BROUGHT)}
    command = [sys.executable, str(HERE / "executor_cases.py")]
    runs = [  # both spend their time waiting
        subprocess.Popen(
            [*command, *kind], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for kind in ((), ("--lazy",))
    ]
    try:
        for run in runs:
            out, err = run.communicate(timeout=240)
            assert run.returncode == 0, err[-8000:]
            figures = json.loads(out.splitlines()[-1])
            assert figures["failed"] == []
            assert figures["passed"] > 50
            assert figures["left_out"] <= 5
    finally:
        for run in runs:
            run.kill()
            run.wait()


def test_cases_that_are_left_out_have_their_reason():
    spec = importlib.util.spec_from_file_location("executor_cases", HERE / "executor_cases.py")
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    assert all(name.startswith("test_") and reason for name, reason in cases.LEFT_OUT.items())
    assert len(cases.LEFT_OUT) + len(cases.LEFT_OUT_LAZY) <= 6
