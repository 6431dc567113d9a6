"""The public names: all there, documented, typed as such, and with examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import gort
import pytest
from gort import _core

MODULES = (
    "gort",
    "gort.atomic",
    "gort.barrier",
    "gort.runtime",
    "gort.cache",
    "gort.chan",
    "gort.context",
    "gort.deadlock",
    "gort.errgroup",
    "gort.flow",
    "gort.futures",
    "gort.gc",
    "gort.iter",
    "gort.labels",
    "gort.leak",
    "gort.local",
    "gort.memory",
    "gort.metrics",
    "gort.net",
    "gort.pool",
    "gort.pprof",
    "gort.pubsub",
    "gort.rate",
    "gort.scopes",
    "gort.singleflight",
    "gort.structured",
    "gort.sync",
    "gort.time",
    "gort.trace",
    "gort.wsgi",
)

# The parts of the surface that are built, by the module that owns them.
SURFACE = {
    "gort.runtime": {
        "ExceptHookArgs", "Goroutine", "current", "dump", "excepthook", "go", "goexit", "gomaxprocs",
        "goroutines", "gosched", "num_goroutine", "run", "sleep", "spawn", "stats",
    },
    "gort.chan": {"Case", "Chan", "ChanClosed", "RecvChan", "SendChan", "recv", "select", "send"},
    "gort.context": {"ContextCanceled", "DeadlineExceeded", "current_context"},
    "gort.scopes": {"Child", "Scope", "scope"},
    "gort.sync": {
        "Barrier", "BrokenBarrierError", "Cond", "CountDownLatch", "Map", "Mutex", "Once", "Pool", "RWMutex",
        "Semaphore", "WaitGroup", "atomic", "once_func", "once_value", "once_values", "singleflight",
    },
    "gort.local": {"Local"},
    "gort.time": {"Ticker", "Timer", "after", "after_func", "sleep", "tick"},
    "gort": {
        "Cancelled", "DeadlockError", "GoroutineExit", "Health", "HealthLimits", "HealthMonitor", "RuntimeStopped",
        "deadlocks", "from_future", "health", "wait",
    },
}  # fmt: skip

METHODS = {
    "Goroutine": {
        "cancel", "created", "done", "group", "id", "join", "labels", "name", "parent", "priority",
        "set_priority", "stats", "status",
    },
    "Chan": {
        "cap", "close", "closed", "receiver", "recv", "recv_async", "recv_ok", "send", "send_async",
        "sender", "try_recv", "try_send", "__len__", "__iter__", "__aiter__", "__class_getitem__",
    },
    "Mutex": {"lock", "unlock", "try_lock", "__enter__", "__exit__"},
    "RWMutex": {"lock", "unlock", "try_lock", "rlock", "runlock", "try_rlock", "reading"},
    "WaitGroup": {"add", "done", "wait", "go"},
    "Child": {"cancel", "done", "goroutine", "join", "name", "result"},
    "Scope": {"cancel", "cancelled", "context", "go", "map", "name"},
    "Once": {"do"},
    "Pool": {"get", "put", "new"},
    "Cond": {"wait", "signal", "broadcast"},
    "Semaphore": {"acquire", "try_acquire", "release"},
    "Map": {
        "load", "store", "load_or_store", "load_and_delete", "delete", "swap", "compare_and_swap",
        "compare_and_delete", "range", "clear", "get", "pop", "setdefault", "update", "keys", "values",
        "items", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__", "__iter__",
    },
    "Barrier": {"wait", "reset", "abort", "parties", "n_waiting", "broken"},
    "CountDownLatch": {"count_down", "wait", "count"},
    "Timer": {"c", "stop", "reset"},
    "Ticker": {"c", "stop", "reset"},
}  # fmt: skip

# What only gort makes, and what only a dying interpreter raises.
EXPLAINED_ELSEWHERE = {"DeadlockError", "ExceptHookArgs", "GoroutineExit", "RuntimeStopped"}


# Compiled, a program, and what needs a package that is not gort's (tests/test_wsgi_gunicorn.py).
ELSEWHERE = ("gort._core", "gort.__main__", "gort.gunicorn")


def documented() -> list[str]:
    """Every module of the package that holds docstrings."""
    names = [m.name for m in pkgutil.walk_packages(gort.__path__, "gort.")]
    return ["gort", *(n for n in names if n not in ELSEWHERE)]


@pytest.mark.parametrize("module", SURFACE)
def test_surface_names_are_listed_and_importable_from_gort(module):
    owner = importlib.import_module(module)
    assert SURFACE[module] <= set(owner.__all__)
    for name in SURFACE[module]:
        assert getattr(gort, name) is getattr(owner, name)
        assert name in gort.__all__


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_true(module):
    names = importlib.import_module(module).__all__
    assert list(names) == sorted(set(names))
    for name in names:
        assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_the_surface_are_there(name):
    assert {m for m in METHODS[name] if not hasattr(getattr(gort, name), m)} == set()


@pytest.mark.parametrize("name", sorted(set(gort.__all__)))
def test_public_name_is_documented(name):
    thing = getattr(gort, name)
    text = inspect.getdoc(thing) or ""
    assert text, f"gort.{name} has no docstring"


def test_hot_names_are_the_compiled_objects():
    for name in ("go", "gosched", "select", "recv", "send", "sleep", "Chan", "Mutex", "current"):
        assert type(getattr(gort, name)) in (type(len), type), name
        assert "gort" not in getattr(getattr(gort, name), "__code__", "")


def test_star_import_gives_all():
    space: dict[str, object] = {}
    exec("from gort import *", space)
    assert set(gort.__all__) <= set(space)


def test_package_is_marked_as_typed():
    files = importlib.import_module("importlib.resources").files("gort")
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_core.pyi").is_file()


@pytest.mark.parametrize("module", documented())
def test_docstring_examples_run(module):
    result = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert result.failed == 0


def compiled() -> list[str]:
    """Public names of the compiled core, which doctest does not look into by itself."""
    names = [n for n in gort.__all__ if hasattr(_core, n) and getattr(_core, n) is getattr(gort, n)]
    return [*names, "Bool", "Int", "Value"]


@pytest.mark.parametrize("name", compiled())
def test_docstring_examples_of_compiled_names_run(name):
    thing = getattr(_core, name)
    finder = doctest.DocTestFinder(exclude_empty=False)
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    tests = finder.find(thing, name, module=False, globs={})
    assert any(test.examples for test in tests), "no example"
    for test in tests:
        runner.run(test)
    assert runner.failures == 0


@pytest.mark.parametrize("name", sorted(set(gort.__all__) - set(MODULES)))
def test_functions_and_classes_have_an_example(name):
    thing = getattr(gort, name)
    if inspect.ismodule(thing) or name in EXPLAINED_ELSEWHERE:
        return
    texts = [inspect.getdoc(thing) or ""]
    if inspect.isclass(thing):
        texts += [inspect.getdoc(member) or "" for member in vars(thing).values()]
    assert any(">>>" in text for text in texts), f"gort.{name} has no example"
