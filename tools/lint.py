"""Style and types: rustfmt, clippy, ruff and mypy; with --fix, what can be set right by itself.

clippy of the extension needs a Python to compile for: the one that runs this.
"""

from __future__ import annotations

import os
import sys

from pythons import ROOT, run
from wheels import tool

PYTHON_CODE = ("python", "tests", "tools", "benches", "examples")


def main() -> None:
    """Run all of it; the first failure ends the program."""
    fix = "--fix" in sys.argv[1:]
    ruff = tool("ruff")
    folders = [name for name in PYTHON_CODE if (ROOT / name).exists()]
    if fix:
        run("cargo", "fmt", "--all", cwd=ROOT)
        run(ruff, "format", "-q", *folders, cwd=ROOT)
        run(ruff, "check", "-q", "--fix", *folders, cwd=ROOT)
        return
    run("cargo", "fmt", "--all", "--check", cwd=ROOT)
    run(ruff, "format", "-q", "--check", *folders, cwd=ROOT)
    run(ruff, "check", "-q", *folders, cwd=ROOT)
    run(tool("mypy"), "--no-error-summary", "python/gort", cwd=ROOT)
    clippy = ("cargo", "clippy", "--quiet", "--locked", "--all-targets")
    run(*clippy, "-p", "gort-core", "--", "-D", "warnings", cwd=ROOT)
    env = {**os.environ, "PYO3_PYTHON": sys.executable}
    run(*clippy, "-p", "gort-py", "--", "-D", "warnings", cwd=ROOT, env=env)


if __name__ == "__main__":
    main()
