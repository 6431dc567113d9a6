"""CPython's own cases for executors and futures, with `gort.futures` in ThreadPoolExecutor's place.

    executor_cases.py [--lazy] [NAME ...]     runs them all, or those whose id holds a NAME

With --lazy futures are of LazyFuture, also in the cases about futures alone. What it prints last is
a line of JSON: how many passed, were skipped or are left out, and what failed. Where CPython's
package `test` is not installed whole, its folder is first on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import unittest
from concurrent import futures
from unittest import mock

import gort.futures
from test import support

PACKAGE = "test.test_concurrent_futures"
PARTS = ("as_completed", "future", "init", "shutdown", "thread_pool", "wait")
#: What is not asked of gort.futures, by the name of the case, and why.
LEFT_OUT = {
    "test_default_workers": "without max_workers there is no limit",
    "test_idle_thread_reuse": "counts threads: a goroutine runs one task and is not used again",
    "test_thread_names_assigned": "names of threads: goroutines have theirs in dumps",
    "test_thread_names_default": "names of threads: goroutines have theirs in dumps",
}
#: The same for LazyFuture.
LEFT_OUT_LAZY = {
    "test_exception_with_success": "ends a future by its Condition alone, behind its back",
}
#: Processes, and interpreters with threads of their own, are not what is in gort's place.
OTHERS = ("ProcessPool", "InterpreterPool", "FailingInitializerResources")


class Ended:
    """A thread of an executor as its cases see it: something to join."""

    def __init__(self, pool):
        self.pool = pool

    def join(self):
        """Wait until nothing runs any more."""
        while self.pool._running:
            gort.sleep(0.001)


class ThreadPoolExecutor(gort.futures.Executor):
    """Executor, with the set of threads that some cases look into."""

    LAZY = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, lazy=self.LAZY, **kwargs)

    @property
    def _threads(self):
        return [Ended(self)] * self._running


def stand_in() -> None:
    """What a newer Python's cases, lent to one that came without, miss in its `test.support`."""
    support.skip_if_sanitizer = lambda *_, **__: lambda case: case
    for name, value in (
        ("Py_GIL_DISABLED", False),
        ("requires_gil_enabled", lambda _: lambda f: f),
    ):
        if not hasattr(support, name):
            setattr(support, name, value)


def modules() -> list:
    """CPython's modules of cases, which see our executor as `futures.ThreadPoolExecutor`."""
    futures.ThreadPoolExecutor = ThreadPoolExecutor
    if ThreadPoolExecutor.LAZY:
        # Some cases compare texts that have the name of the class.
        named = type("Future", (gort.futures.LazyFuture,), {"__slots__": ()})
        futures._base.Future = futures.Future = named
    stand_in()
    whole = importlib.import_module(PACKAGE)
    if not hasattr(whole, "__path__"):
        return [whole]  # 3.11 has a single file
    return [importlib.import_module(f"{PACKAGE}.test_{part}") for part in PARTS]


def in_children(module) -> None:
    """Have what a module runs in children use our executor, and find CPython's tests."""
    real = module.assert_python_ok
    theirs = "from concurrent.futures import ThreadPoolExecutor"
    ours = "from gort.futures import Executor as ThreadPoolExecutor"

    def assert_python_ok(option, script):
        return real(
            option, script.replace(theirs, ours), PYTHONPATH=os.environ.get("PYTHONPATH", "")
        )

    mock.patch.object(module, "assert_python_ok", assert_python_ok).start()


def cases(names: list[str]) -> tuple[unittest.TestSuite, int]:
    """The cases to run, and how many are left out."""
    suite, left_out = unittest.TestSuite(), 0
    unwanted = LEFT_OUT | LEFT_OUT_LAZY if ThreadPoolExecutor.LAZY else LEFT_OUT
    for module in modules():
        if hasattr(module, "assert_python_ok"):
            in_children(module)
        for case in vars(module).values():
            if not isinstance(case, type) or not issubclass(case, unittest.TestCase):
                continue
            if case.__name__.startswith(OTHERS) or case.__module__ != module.__name__:
                continue
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
                if test._testMethodName in unwanted:
                    left_out += 1
                elif not names or any(name in test.id() for name in names):
                    suite.addTest(test)
    return suite, left_out


def main() -> None:
    """Run the cases."""
    names = sys.argv[1:]
    if "--lazy" in names:
        names.remove("--lazy")
        ThreadPoolExecutor.LAZY = True
    support.use_resources = ("cpu", "walltime")
    support.verbose = 0
    suite, left_out = cases(names)
    count = suite.countTestCases()
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = [test.id() for test, _ in (*result.failures, *result.errors)]
    figures = {"passed": count - len(bad) - len(result.skipped), "skipped": len(result.skipped)}
    print(json.dumps({**figures, "left_out": left_out, "failed": bad}))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
