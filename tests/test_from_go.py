"""docs/from_go.md: every snippet of Python runs, every one of Go parses."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import gort
import gort.atomic
import gort.iter
import gort.rate
import gort.singleflight
import pytest
from waiting import LIMIT, in_goroutine

PAGE = Path(__file__).resolve().parent.parent / "docs" / "from_go.md"
ROWS = [
    row
    for row in re.findall(r"^\| (.+) \| (.+) \|$", PAGE.read_text(), re.M)
    if row[0].startswith("`")
]
RIGHT = [row[1].strip("`") for row in ROWS]


def names():
    """What snippets may use, as the page says."""
    return {
        "gort": gort, "contextlib": contextlib, "f": lambda value: None, "work": lambda: None,
        "ch": gort.Chan(2), "done": gort.Chan(1), "mu": gort.Mutex(), "wg": gort.WaitGroup(),
        "ctx": gort.context.background(), "value": lambda: 1, "key": "key", "seq": [1, 2],
    }  # fmt: skip


def test_every_row_of_the_page_is_read():
    code = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(code) == len(ROWS) > 40
    assert all(cell.startswith("`") and cell.endswith("`") for row in ROWS for cell in row)


@pytest.mark.parametrize("text", RIGHT)
def test_python_runs(text):
    in_goroutine(exec, text, names())
    exec(text, names())


def test_go_parses():
    if (gofmt := shutil.which("gofmt")) is None:
        pytest.skip("there is no Go here")
    program = "package p\n"
    for number, (left, _) in enumerate(ROWS):
        program += f"func f{number}() {{ {left.strip('`')} }}\n"
    done = subprocess.run(
        [gofmt, "-e"], input=program, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
