"""`make malloc`: CPython's own test files with Python's memory served by gort (GORT_MALLOC=1).

PY picks Pythons, FILES test files. Builds and installs gort, brings tests that are not installed
(tools/cpython_tests.py), and runs them in one process: a file that fails is named by regrtest.
"""

from __future__ import annotations

import os

import cpython_tests
import matrix
import pythons
from pythons import Python

FILES = (
    "test_dict",
    "test_list",
    "test_json",
    "test_re",
    "test_pickle",
    "test_threading",
    "test_tracemalloc",
)
# The memory is served before anything of the tests is loaded.
CODE = """
import sys, gort
assert not gort.memory.install()
from test.libregrtest import main
files, sys.argv = sys.argv[1:], ["regrtest"]
main.main(files)
"""


def run(python: Python, files: tuple[str, ...]) -> None:
    """Run the files with one Python; ends the program when one fails."""
    program, _ = matrix.install(python, python.venv())
    tests = cpython_tests.find(python, files)
    env = {"GORT_MALLOC": "1", "LANG": "C.UTF-8"}
    if tests.path is not None:
        env["PYTHONPATH"] = python.seen(tests.path)
    there = [name for name in files if name not in tests.absent]
    for name in sorted(set(files) - set(there)):
        print(f"{name}: not for this Python: {tests.absent[name]}")
    python.run(program, "-c", CODE, *there, cwd=python.venv(), env=env)


def main() -> None:
    """Run them for the Pythons wanted."""
    files = tuple(os.environ.get("FILES", "").replace(",", " ").split()) or FILES
    for python in pythons.wanted():
        print(f"== {python.label}", flush=True)
        run(python, files)


if __name__ == "__main__":
    main()
