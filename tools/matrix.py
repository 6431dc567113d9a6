"""Builds gort for every CPython found, installs the wheel into an environment and tests it there.

What is tested is the wheel that `make wheel` ships. Variables: PY (which Pythons), TESTS (files for
pytest, default the whole suite), TIMES (repeat the tests), PYTEST (more options).
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from pathlib import Path

import pythons
import wheels
from pythons import ROOT, Python

PYTEST = ("-q", "-p", "no:cacheprovider")
PACKAGES = (
    "pytest>=8",
    "pytest-timeout>=2.3",
    "hypothesis>=6",
    "mypy>=2.4",
    "pydantic-core>=2",
    "rich>=13",
    # Libraries that count on their OS thread; a Python newer than these may have no wheels yet.
    *(
        f"{name}; python_version < '3.16'"
        for name in ("numpy>=2", "greenlet>=3", "sqlalchemy>=2", "aiosqlite>=0.20", "cytoolz>=1")
    ),
    "coverage>=7.10",
    "memray>=1.19",
    "py-spy>=0.4",
)


def install(python: Python, venv: Path) -> tuple[str, str]:
    """Build, install; the environment's Python and the wheel, as that Python sees them."""
    python.bring()
    wheel = python.place(wheels.build(python))
    program = python.make_venv(venv)
    python.run(
        program, "-m", "pip", "install", "-qq", "--force-reinstall", "--no-deps", wheel, cwd=venv
    )
    return program, wheel


def test(python: Python) -> None:
    """Run stubtest and the tests for one Python."""
    program, wheel = install(python, python.venv())
    python.make_venv(python.venv(), *PACKAGES)
    files = os.environ.get("TESTS", "").split()
    if not files:
        python.run(program, "-m", "mypy.stubtest", "gort._core", cwd=python.venv())
    paths = [python.seen(python.work / file) for file in files or ["tests"]]
    options = shlex.split(os.environ.get("PYTEST", ""))
    for _ in range(int(os.environ.get("TIMES", "1"))):
        python.run(
            program, "-m", "pytest", *PYTEST, *options, *paths,
            cwd=python.work, env={"WHEEL": wheel},
        )  # fmt: skip


def main() -> None:
    """Run the matrix and print the seconds each Python took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-this", action="store_true", help="only the Python that runs this")
    parser.add_argument("--venv", type=Path, help="environment to install into (with --only-this)")
    parser.add_argument("--no-test", action="store_true")
    options = parser.parse_args()
    if options.only_this:
        this = pythons.this_one()
        if options.no_test:
            install(this, ROOT / (options.venv or this.venv()))
        else:
            test(this)
        return
    done = []
    for python in pythons.wanted():
        print(f"== {python.label}", flush=True)
        started = time.monotonic()
        if options.no_test:
            install(python, python.venv())
        else:
            test(python)
        done.append(f"{python.tag} ({time.monotonic() - started:.0f} s)")
    print("passed on: " + ", ".join(done))


if __name__ == "__main__":
    main()
