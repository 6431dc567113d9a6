"""Says which tools are missing to build or test gort, with the command that installs each.

`check_tools.py` looks at what `make run` needs, `check_tools.py test` also at what tests need.
It must parse on Pythons that gort does not support, to be able to say so.
"""

from __future__ import annotations

import glob
import shutil
import subprocess
import sys

MIN_PYTHON = (3, 11)
MIN_RUST = (1, 88)
#: What tests put in front of libc with LD_PRELOAD: Debian's package, and where it has the file.
PRELOADS = {
    "libjemalloc2": "/usr/lib/*/libjemalloc.so.2",
    "libfaketime": "/usr/lib/*/faketime/libfaketime.so.1",
}
#: Servers that drivers are tested with, where they are there: Debian's package, and its program.
SERVERS = {
    "postgresql": "/usr/lib/postgresql/*/bin/postgres",
    "redis-server": "/usr/bin/redis-server",
    "mariadb-server": "/usr/sbin/mariadbd",
}
RUSTUP = "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"


def output(*command: str) -> str | None:
    """What a command prints, or None when it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def python_lines() -> list[str]:
    """What is wrong with the Python that runs this."""
    this = sys.version.split()[0]
    if sys.version_info < MIN_PYTHON:
        newer = [n for n in range(15, 10, -1) if output(f"python3.{n}", "-V")]
        if newer:
            return [f"Python 3.11 or newer (python3 is {this}): make PYTHON=python3.{newer[0]}"]
        return [f"Python 3.11 or newer (this is {this}): apt-get install python3 python3-dev"]
    lines = []
    try:
        import ensurepip  # noqa: F401 - Debian has it in a package of its own
    except ImportError:
        lines.append("venv and pip: apt-get install python3-venv")
    import os
    import sysconfig

    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        lines.append("Python's headers: apt-get install python3-dev")
    return lines


def rust_lines(test: bool) -> list[str]:
    """What is wrong with Rust."""
    text = output("rustc", "--version")
    if text is None or shutil.which("cargo") is None:
        return [f"Rust 1.88 or newer: {RUSTUP}"]
    number = text.split()[1]
    if tuple(int(part) for part in number.split(".")[:2]) < MIN_RUST:
        return [f"Rust 1.88 or newer (this is {number}): rustup update stable"]
    lines = []
    if test and output("cargo", "fmt", "--version") is None:
        lines.append("rustfmt: rustup component add rustfmt")
    if test and output("cargo", "clippy", "--version") is None:
        lines.append("clippy: rustup component add clippy")
    return lines


def missing(test: bool) -> list[str]:
    """Lines that say what is missing; empty when all is there."""
    lines = python_lines() + rust_lines(test)
    if not any(shutil.which(cc) for cc in ("cc", "gcc", "clang")):
        lines.append("a C compiler: apt-get install gcc libc6-dev")
    if test and shutil.which("strace") is None:
        lines.append("strace, which a test counts system calls with: apt-get install strace")
    if test and shutil.which("objdump") is None:
        lines.append("objdump, which looks into compiled code: apt-get install binutils")
    for package, pattern in PRELOADS.items():
        if test and not glob.glob(pattern):
            lines.append(f"{pattern}, which tests preload: apt-get install {package}")
    return lines


def skipped() -> list[str]:
    """Lines that say which servers are not there: tests with them are skipped."""
    return [
        f"no {package}: tests with it are skipped; apt-get install {package}"
        for package, pattern in SERVERS.items()
        if not glob.glob(pattern)
    ]


if __name__ == "__main__":
    problems = missing(test="test" in sys.argv[1:])
    for line in skipped() if "test" in sys.argv[1:] else []:
        print(f"optional: {line}", file=sys.stderr)
    for line in problems:
        print(f"missing: {line}", file=sys.stderr)
    sys.exit(1 if problems else 0)
