"""Running code in a child interpreter, and small readings of /proc for it.

A crash of the interpreter is a result like any other when it happens in a child: the caller sees
the code, and stderr with the traceback of faulthandler.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT = 100  # seconds; far above anything a child needs, below the time limit of a test


def child(code: str, *, before: tuple[str, ...] = (), limit: float = LIMIT, **env: str):
    """Run `code` in a fresh interpreter that can import the modules of this folder; its outcome."""
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(  # noqa: PLW1510 - the outcome is what is asked for
        [*before, sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=limit,
        env={**os.environ, "PYTHONPATH": paths, **env},
        cwd="/",
    )


def check(code: str, expect: str = "", **options) -> str:
    """Run `code` in a child, which must end with code 0 and silent on stderr; what it printed."""
    done = child(code, **options)
    assert done.returncode == 0, ending(done)
    assert done.stderr == "", done.stderr[-4000:]
    if expect:
        assert done.stdout.strip() == expect, done.stdout[-4000:]
    return done.stdout


def ending(done) -> str:
    """How a child ended; the first line, which pytest's summary shows, has the last two that it wrote."""
    said = [line.strip() for line in done.stderr.splitlines() if line.strip(" ^~")]
    last = " | ".join(said[-2:])
    return f"ended with {done.returncode}: {last}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def tell(body, cases) -> None:
    """In a child: do `body` with each case; a line for each: the case, and what went wrong or nothing."""
    for case in cases:
        wrong = ""
        try:
            body(case)
        except BaseException:
            wrong = traceback.format_exc()
        print(json.dumps([case, wrong]), flush=True)


def cases_of(code: str, **options):
    """A function that says what went wrong with a case of a program that calls `tell`."""
    try:
        done = child(code, **options)
        output, otherwise = done.stdout, ending(done)
    except subprocess.TimeoutExpired as late:  # the first that is not told did not end
        output, otherwise = (late.stdout or b"").decode(), str(late)
    told = dict(map(json.loads, output.splitlines()))
    return lambda case: told.get(case, otherwise)


def shared_library(file: Path, source: str) -> str:
    """Compile C source into the shared library `file`; its path."""
    text = file.with_suffix(".c")
    text.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", file, text], check=True)
    return str(file)


COMPUTE = """
import gort, os, time
def started(*gs):
    "Lets all begin and park; main gives way to whoever is ready."
    while any(g.status == "runnable" for g in gs): gort.gosched()
def compute(until, count):
    while not until: count[0] += 1
"""

THREADS_FIRST = """
import os, sys, threading, time, _thread
import gort

def tasks():
    return len(os.listdir("/proc/self/task"))

def goroutines():
    return sum(1 for t in threading.enumerate() if t.ident != threading.main_thread().ident)
"""


def threads(code: str, *, expect: str | None = None, status: int = 0, err: str = "", **options):
    """Run `code` with threads as goroutines; its stdout, stderr must hold `err`."""
    options.setdefault("GORT_THREADS", "1")
    done = child(THREADS_FIRST + textwrap.dedent(code), **options)
    assert done.returncode == status, ending(done)
    if err:
        assert err in done.stderr
    else:
        assert done.stderr == ""
    if expect is not None:
        assert done.stdout.strip() == expect
    return done.stdout


def rss_kib() -> int:
    """Resident memory of this process in KiB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def mappings() -> int:
    """How many memory mappings this process has."""
    with open("/proc/self/maps") as lines:
        return sum(1 for _ in lines)
