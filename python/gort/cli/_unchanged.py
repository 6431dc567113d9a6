"""The unchanged threaded program of `gort demo`: run plain and under gort, watched from outside.

Time and output are those of a fresh interpreter; the OS threads are counted in /proc while it runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter
from typing import Any

__all__ = ["PROGRAM", "run"]

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "threaded_program.py")
_LOOK_SECONDS = 0.005
_LIMIT_SECONDS = 120.0
# What `gort run --threads` does.
_AS_GOROUTINES = """
import runpy, sys, gort, gort.threads
gort.threads.enable()
sys.argv = sys.argv[1:]
gort.run(runpy.run_path, sys.argv[0], run_name="__main__")
"""


def _os_threads(pid: int) -> int:
    """OS threads of a process; 0 where there is no /proc or no such process any more."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return next((int(s.split()[1]) for s in file if s.startswith("Threads:")), 0)
    except OSError:
        return 0


def run(as_goroutines: bool, program: str = PROGRAM) -> dict[str, Any]:
    """Run the program to its end.

    Args:
        as_goroutines: whether its threads become goroutines.
        program: the file to run.

    Returns:
        seconds, os_threads (the most that were seen) and output.

    Raises:
        subprocess.CalledProcessError: it did not end with status 0, or not in two minutes.
    """
    before = ["-c", _AS_GOROUTINES] if as_goroutines else []
    command = [sys.executable, *before, program]
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        most = 0
        while child.poll() is None:
            most = max(most, _os_threads(child.pid))
            try:
                child.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if perf_counter() - start > _LIMIT_SECONDS:
                    child.kill()
        seconds = perf_counter() - start
        output = child.communicate()[0]
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return {"seconds": seconds, "os_threads": most, "output": output}
