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
    "cached_loads": "True ['a', 'b']\nnot kept: 'missing'\nnot kept: 'missing'\n2 kept, 1 gave way\n"
    "c is there: ('C', True) - and z is not: (None, False)\n",
    "cancelled_pipeline": "2 3 5 7 11 13 17 19 23 29\ncontext canceled\ncontext canceled\n"
    "1 goroutine is left: main\n",
    "chat_server": "welcome ann\nwelcome bob\nann reads: bob joins\nbob reads: ann: hello\n",
    "crawler": "500 pages, 999 links\n",
    "csv_stream": "4500 rows\nitem 0,0.00\nitem 1,1.20\nitem 2,2.40\n...\nitem 4998,5997.60\n",
    "dining_philosophers": "".join(
        f"{name} ate 100 times\n" for name in ("Hypatia", "Laozi", "Ibn Rushd", "Simone", "Seneca")
    ),
    "executor": "in order: [0, 1, 4, 9, 16, 25]\nas completed: [0, 1, 4, 9, 16, 25]\nread ahead: 0 then 5\n"
    "through asyncio: 2646700\na goroutine drives a loop: [0, 2, 4]\n",
    "fan_in": "[('a', 3), ('b', 4), ('c', 5)]\n['b0', 'b1', 'b2', 'b3']\n",
    "graceful_shutdown": "5 answered:\n" + "".join(f"done: request {n}\n" for n in range(5)),
    "map_reduce": "go: 19900\nselect: 200\nchan: 199\n",
    "parallel_map": "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81] with 4 at once\n"
    "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81] as completed\n100\n121\n144\nthen thirteen\n"
    "1 goroutine is left: main\n",
    "pipeline": "0\n1\n4\n9\n16\n",
    "prime_sieve": "2 3 5 7 11 13 17 19 23 29 31 37 41 43 47 53 59 61 67 71 73 79 83 89 97 "
    "101 103 107 109 113\n",
    "pub_sub": "sport: 1:0 for 2\nweather: rain for 2\nweather: sun for 2\nsport: 1:1 for 2\n"
    "weather: wind for 2\n['1:0', '1:1']\n['1:0', 'rain', 'sun', '1:1', 'wind']\n"
    "['sun', 'wind'] 1 lost\n",
    "rate_limited_crawler": "30 pages; held to the rate: True\n",
    "select_timeout": "case 0 gave fast\ngave up\nnothing yet\nall closed\n"
    "recv has a timeout of its own\n",
    "supervised": "steady is fine []\n"
    "flaky made it ['flaky-0: no connection', 'flaky-1: no connection']\n"
    "given up ['hopeless-0: always wrong', 'hopeless-1: always wrong', "
    "'hopeless-2: always wrong', 'hopeless-3: always wrong']\n",
    "threads_too": "True\nTrue\nand a thread can start goroutines, as main does here\n",
    "ticker_progress": "shown while working: True\ntotal 19900\n",
    "timeouts": "receive: timed out\nsend: timed out\nlock: timed out\ngroup: timed out\n"
    "select: (-2, None, False)\nreceive in a context: context deadline exceeded\n"
    "lock, which does not begin: context deadline exceeded\nboth together in time: True\n"
    "socket: timed out\n",
    "worker_pool": "1000 results\njob 7: " + hashlib.sha256(b"job 7").hexdigest()[:12] + "\n",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, away from the tree."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, timeout=100, cwd=os.sep, check=False,
    )  # fmt: skip


def test_every_example_has_its_output_here():
    assert sorted(p.stem for p in FOLDER.glob("*.py")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example_prints_what_it_should(name):
    done = run(str(FOLDER / f"{name}.py"))
    assert (done.returncode, done.stdout) == (0, EXPECTED[name]), done.stderr
    if name != "ticker_progress":  # which shows its progress there
        assert done.stderr == ""


@pytest.mark.parametrize(
    "name", ["asyncio_bridge", "executor", "threads_too"]
)  # run() does not nest
def test_example_without_run_works_under_gort_run_too(name):
    done = run("-m", "gort", "run", str(FOLDER / f"{name}.py"))
    assert (done.returncode, done.stdout) == (0, EXPECTED[name]), done.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_example_is_short_and_says_what_it_shows(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert text.startswith('"""')
    assert text.count("\n") < 60
