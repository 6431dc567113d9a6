"""Every program in examples/ runs and prints what it should; each stays under 60 lines."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples"

EXPECTED = {
    "asyncio_bridge": "goroutines awaited: [0, 1, 4, 9, 16]\nreceived: from asyncio\n"
    "an event loop in each goroutine: [1, 2, 3]\n",
    "crawler": "500 pages, 999 links\n",
    "fan_in": "[('a', 3), ('b', 4), ('c', 5)]\n['b0', 'b1', 'b2', 'b3']\n",
    "pipeline": "0\n1\n4\n9\n16\n",
    "prime_sieve": "2 3 5 7 11 13 17 19 23 29 31 37 41 43 47 53 59 61 67 71 73 79 83 89 97 "
    "101 103 107 109 113\n",
    "select_timeout": "case 0 gave fast\ngave up\nnothing yet\nall closed\n"
    "recv has a timeout of its own\n",
    "threads_too": "True\nTrue\nand a thread can start goroutines, as main does here\n",
    "ticker_progress": "shown while working: True\ntotal 19900\n",
    "worker_pool": "1000 results\njob 7: " + hashlib.sha256(b"job 7").hexdigest()[:12] + "\n",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, away from the tree."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, timeout=50, cwd=os.sep, check=False,
    )  # fmt: skip


def test_every_example_has_its_output_here():
    assert sorted(p.stem for p in FOLDER.glob("*.py")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example_prints_what_it_should(name):
    done = run(str(FOLDER / f"{name}.py"))
    assert (done.returncode, done.stdout) == (0, EXPECTED[name]), done.stderr
    if name != "ticker_progress":  # which shows its progress there
        assert done.stderr == ""


@pytest.mark.parametrize("name", ["asyncio_bridge", "threads_too"])  # run() does not nest
def test_example_without_run_works_under_gort_run_too(name):
    done = run("-m", "gort", "run", str(FOLDER / f"{name}.py"))
    assert (done.returncode, done.stdout) == (0, EXPECTED[name]), done.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_example_is_short_and_says_what_it_shows(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert text.startswith('"""')
    assert text.count("\n") < 60
