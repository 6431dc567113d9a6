"""A pytest plugin (`-p collecting_oracle`): gort.gc.collect_unreachable is on during all tests.

It looks after every pass, and passes come all the time. Whoever it ends in a test that then fails
may have been ended wrongly.
"""

from __future__ import annotations

import gc
import threading

import gort
import pytest
from gort import _unreachable

PAUSE = 0.008  # seconds between passes

_count = {"tests": 0, "looks": 0, "ended": 0}
_wrong: list[str] = []
_search = _unreachable._search


def pytest_configure():
    """Pytest's own objects, of which there are more than others, are in no pass and in no look; those of tests are."""
    gc.collect()
    gc.freeze()


def _look(handles):
    _count["looks"] += 1
    return _search(handles)


_unreachable._SHARE = 1e9
_unreachable._search = _look


def _collect(over):
    while not over.wait(PAUSE):
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Collect while the test runs; a test that fails after somebody was ended is told of."""
    told: list[str] = []
    before = gort.gc.stats().unreachable
    gort.gc.collect_unreachable(report=lambda leak: told.append(str(leak)))
    over = threading.Event()
    thread = threading.Thread(target=_collect, args=(over,), daemon=True)
    thread.start()
    try:
        return (yield)
    except BaseException:
        _wrong.extend(f"{item.nodeid}: {text}" for text in told)
        raise
    finally:
        over.set()
        thread.join(20)
        gort.gc.collect_unreachable(False)
        _count["tests"] += 1
        _count["ended"] += gort.gc.stats().unreachable - before


def pytest_terminal_summary(terminalreporter):
    """Say what was wrong."""
    terminalreporter.write_line(
        f"collecting oracle: {_count['tests']} tests, {_count['looks']} looks, {_count['ended']} ended, "
        f"{len(_wrong)} of them in tests that failed"
    )
    for text in _wrong:
        terminalreporter.write_line(text)
