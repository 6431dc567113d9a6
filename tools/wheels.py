"""Builds wheels with maturin, the declared build backend (`make wheel`).

A wheel is built against glibc 2.17 (manylinux2014) with zig as the linker; where zig cannot be had
it is a plain linux wheel, and that is said: it may not run on older distributions. Each Python has
its own target directory, because PyO3 compiles for one Python at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pythons
from pythons import ROOT, Python, run

TOOLS = ROOT / ".venv-tools"
PACKAGES = ("maturin>=1.16,<2", "ruff>=0.17", "mypy>=2.4", "pytest>=8")  # the last for its types
ZIG = "ziglang>=0.13"
POLICY = "manylinux2014"


def tool(name: str) -> Path:
    """A program of the tools' own environment, which is made when it is not there."""
    stamp = TOOLS / "installed.txt"
    content = "\n".join((sys.version, *PACKAGES, ZIG))
    if not stamp.exists() or stamp.read_text() != content:
        print(f"making {TOOLS.name}", flush=True)
        run(sys.executable, "-m", "venv", "--clear", TOOLS)
        pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install", "-q"]
        run(*pip, *PACKAGES)
        if subprocess.run([*pip, ZIG], capture_output=True, check=False).returncode:
            print("no ziglang from pip: wheels are built for this system's glibc", flush=True)
        stamp.write_text(content)
    return TOOLS / "bin" / name


def has_zig() -> bool:
    """Whether the tools' environment has zig."""
    probe = [str(TOOLS / "bin" / "python"), "-m", "ziglang", "version"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def build(python: Python) -> Path:
    """Build the wheel for one Python into dist/, in place of an older one, and give its path."""
    maturin = tool("maturin")
    interpreter, extra = python.for_build()
    out = ROOT / "target" / f"wheel-{python.tag}"
    env = {
        **os.environ,
        **extra,
        "CARGO_TARGET_DIR": str(ROOT / "target" / f"py{python.tag}"),
        # maturin looks for zig as a module of the Python first on PATH
        "PATH": f"{TOOLS / 'bin'}:{os.environ['PATH']}",
    }
    kind = ("--compatibility", POLICY, "--zig") if has_zig() else ("--compatibility", "linux")
    for old in out.glob("*.whl"):
        old.unlink()
    run(
        maturin, "build", "--release", "--locked", "--quiet", "-i", interpreter, "-o", out, *kind,
        cwd=ROOT, env=env, quiet=True,
    )  # fmt: skip
    (made,) = out.glob("*.whl")
    dist = ROOT / "dist"
    dist.mkdir(exist_ok=True)
    for old in dist.glob(f"gort-*-cp3{python.minor}-*.whl"):
        old.unlink()
    return made.rename(dist / made.name)


def main() -> None:
    """Build one wheel for every Python wanted, and say how long each took."""
    lines = []
    for python in pythons.wanted():
        print(f"== {python.label}", flush=True)
        start = time.monotonic()
        wheel = build(python)
        size = wheel.stat().st_size / 1e6
        seconds = time.monotonic() - start
        lines.append(f"{python.tag}  {seconds:4.0f} s  {size:.1f} MB  {wheel.relative_to(ROOT)}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
