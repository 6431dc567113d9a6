"""Says which tools are missing to build gort, with the command that installs each."""

from __future__ import annotations

import shutil
import subprocess
import sys

MIN_RUST = (1, 88)


def missing() -> list[str]:
    """Lines that say what is missing; empty when all is there."""
    lines = []
    if sys.version_info < (3, 11):
        lines.append(f"Python 3.11 or newer (this is {sys.version.split()[0]}): apt-get install python3.11")
    if shutil.which("cargo") is None:
        lines.append("Rust 1.88 or newer: install rustup, then: rustup default stable")
    else:
        text = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout
        version = tuple(int(n) for n in text.split()[1].split(".")[:2])
        if version < MIN_RUST:
            lines.append(f"Rust 1.88 or newer (this is {text.split()[1]}): rustup update stable")
    if not any(shutil.which(cc) for cc in ("cc", "gcc", "clang")):
        lines.append("a C compiler: apt-get install gcc")
    return lines


if __name__ == "__main__":
    problems = missing()
    for line in problems:
        print(f"missing: {line}", file=sys.stderr)
    sys.exit(1 if problems else 0)
