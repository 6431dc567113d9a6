"""The pytest plugin: tests in bubbles, and tests that must leave no goroutine behind."""

from __future__ import annotations

import pytest

from gort._typing import TYPE_CHECKING
from gort.testing import no_leaks as _no_leaks
from gort.testing import synctest

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that has every test looked at."""
    parser.addini("gort_no_leaks", "fail tests that leave goroutines behind", type="bool")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known."""
    config.addinivalue_line(
        "markers", "synctest: run the test in a bubble with a fake clock (gort.testing.synctest)"
    )
    config.addinivalue_line(
        "markers", "no_leaks(grace=1.0): fail the test if it leaves goroutines behind"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Call a test with the mark in a bubble; its fixtures stay outside."""
    if pyfuncitem.get_closest_marker("synctest") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    synctest.run(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in names})
    return True


@pytest.fixture(autouse=True)
def _gort_no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look at tests that have the mark, and at all if the configuration says so."""
    mark = request.node.get_closest_marker("no_leaks")
    if mark is None and not request.config.getini("gort_no_leaks"):
        yield
        return
    with _no_leaks(*(mark.args if mark else ()), **(mark.kwargs if mark else {})):
        yield


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it leaves goroutines behind."""
    with _no_leaks():
        yield
