"""Builds gort for every CPython found, installs the wheel into an environment and tests it there.

What is tested is the wheel that `make wheel` ships. The suite runs in two processes, one after the
other (`APART`). Variables: PY (which Pythons), TESTS (files for
pytest, default the whole suite), TIMES (repeat the tests), PYTEST (more options), JOBS (how many
Pythons are tested at once; of whole suites two, where there are two CPUs).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import check_tools
import pythons
import wheels
from pythons import MARIADB, MARIADB_HEADERS, ROOT, Python

PYTEST = ("-q", "-p", "no:cacheprovider")
PACKAGES = (
    "pytest>=8",
    "pytest-timeout>=2.3",
    "hypothesis>=6",
    "mypy>=2.4",
    "basedpyright>=1.31; python_version < '3.12'",  # with the node it needs: once will do
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
    "uvloop>=0.21; python_version < '3.15'",
    # What serves, and what is served: tests/test_wsgi_*.py.
    "django>=5",
    "falcon>=4",
    "flask>=3",
    "gunicorn>=23",
    "httptools>=0.7",
)

#: Clients of servers: tests/test_drivers_*.py, which skip what has no wheel for a Python.
DRIVERS = (
    "aiohttp>=3.13",
    "grpcio>=1.75",
    "hiredis>=3",
    "httpx>=0.28",
    "pg8000>=1.31",
    "psycopg[binary,pool]>=3.2",
    "psycopg2-binary>=2.9.11",
    "pycurl>=7.45.7",
    "PyMySQL>=1.1",
    "redis>=6",
    "requests>=2.32",
    "urllib3>=2.5",
)
#: Has no wheels for Linux: compiled where libmariadb's headers are.
MYSQLCLIENT = "mysqlclient>=2.2"

#: Drives the browser of tests/test_live_browser.py, which is there for Pythons of this root only.
BROWSING = "playwright>=1.50"

#: Tests that look at all objects again and again: a process with the tests of all other files has
#: five times as many objects as it needs, and a look takes as much longer.
APART = ("test_gc*.py", "test_leak*.py")


def install(python: Python, venv: Path) -> tuple[str, str]:
    """Build, install; the environment's Python and the wheel, as that Python sees them."""
    python.bring()
    wheel = python.place(wheels.build(python))
    program = python.make_venv(venv)
    python.run(
        program, "-m", "pip", "install", "-qq", "--force-reinstall", "--no-deps", wheel, cwd=venv
    )
    return program, wheel


def install_drivers(python: Python) -> None:
    """Install the drivers that can be had; those that cannot are named."""
    if not had(python, "--only-binary=:all:", *DRIVERS):
        for package in DRIVERS:
            if not had(python, "--only-binary=:all:", package):
                print(f"-- {python.tag}: not tested with {package}, which has no wheel", flush=True)
    has_headers = check_tools.output("pkg-config", "--exists", "libmariadb") is not None
    flags = {}
    if python.root is not None:  # pkg-config is not there
        flags["MYSQLCLIENT_CFLAGS"] = f"-I{MARIADB_HEADERS}"
        flags["MYSQLCLIENT_LDFLAGS"] = f"-l:{MARIADB}"
    if not has_headers or not had(python, MYSQLCLIENT, env=flags):
        print(f"-- {python.tag}: not tested with {MYSQLCLIENT}: no libmariadb-dev", flush=True)
    if python.root is not None or not had(python, BROWSING):
        print(f"-- {python.tag}: not tested with a browser", flush=True)


def had(python: Python, *packages: str, env: dict[str, str] | None = None) -> bool:
    """Whether pip could install them all."""
    try:
        python.make_venv(python.venv(), *packages, env=env)
    except SystemExit:
        return False
    return True


@contextlib.contextmanager
def keeper(python: Python) -> Iterator[dict[str, str]]:
    """The variable that names a keeper of servers to a Python in another root: none are there."""
    if python.root is None:
        yield {}
        return
    command = [sys.executable, ROOT / "tests" / "server_keeper.py"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield {"SERVER_KEEPER": f"127.0.0.1:{process.stdout.readline().strip()}"}


#: Builds share a target folder, and one takes all CPUs.
BUILDING = threading.Lock()


def test(python: Python, prefix: str) -> None:
    """Run stubtest and the tests for one Python; each line of theirs begins with `prefix`."""
    with BUILDING:
        program, wheel = install(python, python.venv())
        python.make_venv(python.venv(), *PACKAGES)
        install_drivers(python)
    files = os.environ.get("TESTS", "").split()
    if not files:
        python.run(program, "-m", "mypy.stubtest", "gort._core", cwd=python.venv(), prefix=prefix)
    options = (*PYTEST, *shlex.split(os.environ.get("PYTEST", "")))
    parts = [[python.seen(python.work / file) for file in files]] if files else whole(python)
    with keeper(python) as variables:
        for _ in range(int(os.environ.get("TIMES", "1"))):
            failures = []
            for part in parts:
                try:
                    python.run(
                        program, "-m", "pytest", *options, *part,
                        cwd=python.work, env={"WHEEL": wheel, **variables}, prefix=prefix,
                    )  # fmt: skip
                except SystemExit as failure:
                    failures.append(str(failure))
            if failures:
                raise SystemExit("\n".join(failures))


def whole(python: Python) -> list[list[str]]:
    """The whole suite, as the arguments of one pytest after another."""
    apart = [file for pattern in APART for file in sorted(python.work.glob(f"tests/{pattern}"))]
    others = [f"--ignore-glob=tests/{pattern}" for pattern in APART]
    return [["tests", *others], [python.seen(file) for file in apart]]


def jobs() -> int:
    """How many suites run at once: whole ones only, for others are measured, or watched."""
    whole = not any(os.environ.get(name) for name in ("TESTS", "TIMES", "PYTEST"))
    return int(os.environ.get("JOBS") or (min(2, os.cpu_count() or 1) if whole else 1))


def timed(python: Python, prefix: str) -> str:
    """Test one Python; what to say of it."""
    print(f"== {python.label}", flush=True)
    started = time.monotonic()
    test(python, prefix)
    return f"{python.tag} ({time.monotonic() - started:.0f} s)"


def test_all() -> list[str]:
    """Test all Pythons that are wanted, some at once; what failed is said once more at the end."""
    wanted, at_once = list(pythons.wanted()), jobs()
    if at_once == 1 or len(wanted) == 1:
        return [timed(python, "") for python in wanted]
    with ThreadPoolExecutor(at_once) as pool:
        suites = [pool.submit(timed, python, f"{python.tag} | ") for python in wanted]
        failures = [suite.exception() for suite in suites]
    if any(failures):
        raise SystemExit("\n".join(str(failure) for failure in failures if failure))
    return [suite.result() for suite in suites]


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
            test(this, "")
        return
    if options.no_test:
        for python in pythons.wanted():
            print(f"== {python.label}", flush=True)
            install(python, python.venv())
    else:
        print("passed on: " + ", ".join(test_all()))


if __name__ == "__main__":
    main()
