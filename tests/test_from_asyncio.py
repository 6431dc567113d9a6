"""docs/from_asyncio.md: every snippet of its tables runs."""

from __future__ import annotations

import asyncio
import importlib.util
import queue
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gort
import pytest
from gort.futures import Executor
from waiting import LIMIT, in_goroutine

PAGE = Path(__file__).resolve().parent.parent / "docs" / "from_asyncio.md"
ROW = re.compile(r"^\| `(.+)` \| `(.+)` \|$", re.M)


def blocking(n):
    time.sleep(0.001)  # what the page says it does
    return n * n


async def acalc(n):
    await asyncio.sleep(0)
    return n * n


@pytest.fixture
def names():
    """What snippets may use; loops they ask for are ended."""
    loops = []

    def a_loop():
        loop = asyncio.new_event_loop()
        loops.append((loop, gort.go(loop.run_forever)))
        return loop

    yield {
        "gort": gort, "asyncio": asyncio, "threading": threading, "queue": queue, "calc": blocking,
        "acalc": acalc, "blocking": blocking, "a_loop": a_loop, "Executor": Executor,
        "ThreadPoolExecutor": ThreadPoolExecutor,
    }  # fmt: skip
    for loop, g in loops:
        loop.call_soon_threadsafe(loop.stop)
        g.join(LIMIT)
        loop.close()


def snippets():
    """Section, column and text of every snippet."""
    for section in PAGE.read_text().split("\n## ")[1:]:
        for number, row in enumerate(ROW.findall(section)):
            for column, text in enumerate(row):
                title = section.split("\n", 1)[0]
                yield pytest.param(
                    text, id=f"{title}-{number}-{'left' if column == 0 else 'right'}"
                )


def test_every_row_of_the_page_is_read():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) * 2 == len(list(snippets())) > 40


@pytest.mark.parametrize("text", list(snippets()))
def test_snippet_runs(text, names):
    if "gevent" in text:
        if importlib.util.find_spec("gevent") is None:
            pytest.skip("gevent is not installed")
        first = "import gevent, gevent.queue, gevent.pool\ndef calc(n): return n * n\n"
        subprocess.run([sys.executable, "-c", first + text], check=True, timeout=LIMIT)
    elif "await" in text:
        lines = "".join(f"    {part}\n" for part in text.split("; "))
        exec(f"async def main():\n{lines}", names)
        asyncio.run(asyncio.wait_for(names["main"](), LIMIT))
    else:
        in_goroutine(exec, text, names)
        exec(text, names)
