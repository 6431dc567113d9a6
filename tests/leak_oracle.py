"""A pytest plugin (`-p leak_oracle`): nothing that gort.leak reports during a test goes on by itself.

A thread searches again and again while each test runs. A goroutine that was reported and has ended
before the test's cleaning up was no leak: an error of its own, whatever became of the test.
"""

from __future__ import annotations

import gc
import threading

import gort
import pytest
from gort import leak

PAUSE = 0.002  # seconds between searches

_wrong: list[str] = []
_count = {"searches": 0, "reported": 0}


def pytest_configure():
    """Pytest's own objects, of which there are more than others, are not searched; those of tests are."""
    gc.collect()
    gc.freeze()


def _search(over, reported):
    while not over.wait(PAUSE):
        try:
            for one in leak.find():
                reported[one.id] = str(one)
        except gort.RuntimeStopped:
            return
        _count["searches"] += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Search while the test runs."""
    over, reported = threading.Event(), {}
    thread = threading.Thread(target=_search, args=(over, reported), daemon=True)
    thread.start()
    try:
        return (yield)
    finally:
        over.set()
        thread.join(20)
        alive = {g.id for g in gort.goroutines()}
        _count["reported"] += len(reported)
        _wrong.extend(f"{item.nodeid}: {text}" for i, text in reported.items() if i not in alive)


def pytest_terminal_summary(terminalreporter):
    """Say what was wrong."""
    terminalreporter.write_line(
        f"leak oracle: {_count['searches']} searches, {_count['reported']} reported, "
        f"{len(_wrong)} of them wrong"
    )
    for text in _wrong:
        terminalreporter.write_line(text)
