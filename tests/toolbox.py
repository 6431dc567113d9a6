"""Running a tool of this environment: the program a person would start, with its outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from children import HERE

LIMIT = 50  # seconds: memray takes more than one of CPU time; below the time limit of a test

#: Tools would write for a terminal of that width, and count on no configuration of who runs the tests.
PLAIN = {
    "COLUMNS": "200",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "PYTHON_COLORS": "0",
    "HOME": "/nowhere",
}


def run_tool(name: str, *arguments: object, stdin: str = "", limit: float = LIMIT, **env: str):
    """Run a program of this environment by name; skips where it is not installed."""
    program = Path(sys.executable).parent / name
    if not program.exists():
        pytest.skip(f"{name} is not installed in this environment")
    return subprocess.run(
        [str(part) for part in (program, *arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HERE), **PLAIN, **env},
        cwd="/",
    )
