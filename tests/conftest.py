"""Shared fixtures: a time limit on every test, the places code can run in, and cleaning up."""

from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import gort  # noqa: E402
import server_keeper  # noqa: E402
import traces  # noqa: E402
import waiting  # noqa: E402

TIMEOUT = 120


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(params=["main", "goroutine", "run", "thread"])
def anywhere(request):
    """Call a function on the main thread, in a goroutine, under gort.run, on a plain thread."""
    return getattr(waiting, f"in_{request.param}")


@pytest.fixture(autouse=True)
def no_goroutine_left():
    """End the goroutines a test leaves parked, so that tests stay independent."""
    before = {g.id for g in gort.goroutines()}
    hook = gort.excepthook
    yield
    gort.excepthook = hook
    for g in gort.goroutines():
        if g.id not in before and not g.done:
            g.cancel()
    for g in gort.goroutines():
        if g.id not in before:
            try:
                g.join(timeout=20)
            except TimeoutError:
                pytest.fail(f"{g!r} did not end after cancel()")
            except (Exception, gort.GoroutineExit):
                pass  # the test is over: only that it ended matters


@pytest.fixture(scope="session", autouse=True)
def traces_that_go_takes(tmp_path_factory):
    """At the end: `go tool trace` takes each trace that tests have written to a folder of theirs."""
    yield
    if traces.go() is not None:
        found = traces.all_below(tmp_path_factory.getbasetemp())
        refused = {str(path): why for path in found if (why := traces.refused_by_go(path))}
        assert not refused, refused


@pytest.fixture(scope="session")
def keeper():
    """Servers of databases, in a process beside that ends them: server_keeper.py, driving.py."""
    kept = server_keeper.Keeper()
    yield kept
    kept.close()


@pytest.fixture
def reports():
    """Collect what reaches gort.excepthook."""
    seen = []
    old = gort.excepthook
    gort.excepthook = seen.append
    yield seen
    gort.excepthook = old
