"""The extension under Valgrind's memcheck: its Rust, its C shim, and CPython below them.

The wheel as it ships; the core tells Valgrind of its stacks (rust/core/src/sys/valgrind.rs). What
counts: every invalid access, and undefined values used in or just below our own code. CPython uses
some in its own code (3.11: `int.from_bytes`), with gort or without. TESTS picks files for pytest.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import matrix
import pythons
from pythons import ROOT, Python

#: What goes through the shim: states and switches, exceptions, recursion, interrupts. Not all of
#: the suite: one thread runs at a time, many times slower.
TESTS = "test_go test_chan test_exceptions test_recursion test_preempt"
COMMAND = (
    "valgrind", "--xml=yes", "--error-limit=no", "--num-callers=24", "--fair-sched=yes",
    "--leak-check=no",
)  # fmt: skip
OURS = "_core."
#: Frames of our object among the first so many make the use of an undefined value ours.
NEAR = 4
#: Not errors, by a function among the first frames.
EXPLAINED = {
    "is_movable": "reads all of a stack as words, as a conservative collector does",
    "looks_foreign": "the same, also of a goroutine that is parked (`is_plain`)",
    "adopt_stack": "the same",
    "frames::{impl#0}::has": "where such a word is looked up",
    "__wmemcmp": "glibc's reads a whole vector where a string ends; nothing of it counts",
}


def errors(path: Path) -> Counter[str]:
    """What the report of one process says, with how often."""
    text = path.read_text(errors="replace")
    found: Counter[str] = Counter()
    for part in re.findall(r"<error>.*?</error>", text, re.DOTALL):
        error = ElementTree.fromstring(part)
        kind = error.findtext("kind") or "?"
        if kind.startswith("Leak_"):
            continue  # with --xml it looks for leaks whatever is said; CPython keeps much
        frames = [
            (frame.findtext("fn") or "?", Path(frame.findtext("obj") or "?").name)
            for frame in error.findall("./stack[1]/frame")
        ]
        names = [name for name, _ in frames[:8]]
        if any(word in name for name in names for word in EXPLAINED):
            continue
        is_near = any(object_name.startswith(OURS) for _, object_name in frames[:NEAR])
        if is_near or not kind.startswith("Uninit"):
            found[f"{kind}: {' < '.join(names)}"] += 1
    return found


def look(python: Python) -> bool:
    """Run the tests on one Python; whether nothing was found."""
    program, wheel = matrix.install(python, python.venv())
    python.make_venv(python.venv(), "pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6")
    reports = ROOT / "target" / f"valgrind-{python.tag}"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    named = os.environ.get("TESTS", "").split()
    files = [ROOT / name for name in named or [f"tests/{name}.py" for name in TESTS.split()]]
    # Without arenas each object is a block of its own; without debuginfod nothing is asked for.
    env = {"PYTHONMALLOC": "malloc", "WHEEL": wheel, "DEBUGINFOD_URLS": ""}
    python.run(
        *COMMAND, f"--xml-file={reports}/%p.xml",
        program, "-m", "pytest", *matrix.PYTEST, "-o", "timeout=0", *files, cwd=ROOT, env=env,
    )  # fmt: skip
    found: Counter[str] = Counter()
    for path in reports.glob("*.xml"):
        found += errors(path)
    for text, count in found.most_common():
        print(f"{count} x {text}")
    print(f"{python.label}: {sum(found.values())} errors", flush=True)
    return not found


def main() -> None:
    """All Pythons wanted that run here; those in another root have no Valgrind."""
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    here = [python for python in pythons.wanted() if python.root is None]
    found = [python for python in here if not look(python)]
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
