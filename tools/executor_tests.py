"""`make executor`: CPython's own cases for executors, with gort.futures.Executor.

PY picks Pythons. Builds and installs gort and brings the cases where a Python came without them;
from then on the suite runs them too (tests/compat/test_executor.py).
"""

from __future__ import annotations

import cpython_tests
import matrix
import pythons
from pythons import Python

CASES = "test_concurrent_futures"


def run(python: Python) -> None:
    """Run the cases with one Python; ends the program when one fails."""
    program, _ = matrix.install(python, python.venv())
    tests = cpython_tests.find(python, (CASES,))
    if CASES in tests.absent:
        print(f"not for this Python: {tests.absent[CASES]}")
        return
    env = {"LANG": "C.UTF-8"}
    if tests.path is not None:
        env["PYTHONPATH"] = python.seen(tests.path)
    cases = python.seen(python.work / "tests" / "compat" / "executor_cases.py")
    for kind in ((), ("--lazy",)):
        python.run(program, cases, *kind, cwd=python.venv(), env=env)


def main() -> None:
    """Run them for the Pythons wanted."""
    for python in pythons.wanted():
        print(f"== {python.label}", flush=True)
        run(python)


if __name__ == "__main__":
    main()
