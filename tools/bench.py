"""`make bench`: gort beside Go and the others, for one Python or for those of PY.

Builds and installs gort, then runs benches/run.py with that Python. Without PY it is the Python
that runs this, in .venv. For another root the Go program and the load are compiled here and copied
there, and the results are brought back. Arguments go on to benches/run.py (make bench
BENCH="--quick").
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import matrix
import pythons
from pythons import ROOT, Python

sys.path.insert(0, str(ROOT / "benches"))
import machine
import served

MATPLOTLIB = "matplotlib>=3.8"


def go_program(python: Python) -> list[str]:
    """The arguments that name the Go program for this Python; none when there is no Go."""
    try:
        return ["--go-program", python.place(Path(machine.build_go()))]
    except RuntimeError:
        return []  # benches/run.py says why


def load_program(python: Python) -> list[str]:
    """The arguments that name the load program; none where it cannot be compiled."""
    try:
        return ["--load-program", python.place(Path(served.load_program()))]
    except RuntimeError:
        return []  # the workloads that need it say why


def bench(python: Python, venv: Path, arguments: list[str]) -> None:
    """Install gort for one Python, run the benches, and bring the results here."""
    program, _ = matrix.install(python, venv)
    python.make_venv(venv, MATPLOTLIB)
    runner = python.seen(python.work / "benches" / "run.py")
    # run.py answers 1 when a program of gort's fails: the results are brought here all the same.
    try:
        python.run(
            program, runner, "--python", program, *go_program(python), *load_program(python),
            *arguments, cwd=python.work,
        )  # fmt: skip
    finally:
        results = python.work / "benches" / "results"
        if python.root is not None and results.exists():
            shutil.copytree(results, ROOT / "benches" / "results", dirs_exist_ok=True)


def main() -> None:
    """Bench the Pythons wanted, one after the other."""
    arguments = sys.argv[1:]
    if not os.environ.get("PY"):
        bench(pythons.this_one(), ROOT / ".venv", arguments)
        return
    for python in pythons.wanted():
        print(f"== {python.label}", flush=True)
        bench(python, python.venv(), arguments)


if __name__ == "__main__":
    main()
