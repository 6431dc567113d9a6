"""Builds a manylinux wheel for every CPython found (`make wheel`).

Tries `maturin build --release --zig` for manylinux2014, then for manylinux_2_28; when neither
works, builds a plain linux wheel and says so: it may not run on an older distribution.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from matrix import ROOT, find_python

POLICIES = ("manylinux2014", "manylinux_2_28")
TOOLS = ROOT / ".venv-tools"


def maturin() -> Path:
    """Maturin with ziglang, in an environment of its own."""
    program = TOOLS / "bin" / "maturin"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", TOOLS], check=True)
        packages = ["maturin>=1.16,<2", "ziglang"]
        subprocess.run(
            [TOOLS / "bin" / "python", "-m", "pip", "install", "-q", *packages], check=True
        )
    return program


def build(python: str, minor: int, policy: str | None) -> Path | None:
    """The wheel for one Python under one policy (None: plain linux), or None when that fails."""
    out = ROOT / "dist" / (policy or "linux")
    env = {
        **os.environ,
        "CARGO_TARGET_DIR": str(ROOT / "target" / f"wheel3.{minor}"),
        # maturin finds ziglang as a module of the Python first on PATH
        "PATH": f"{TOOLS / 'bin'}:{os.environ['PATH']}",
    }
    kind = ["--compatibility", policy, "--zig"] if policy else ["--compatibility", "linux"]
    command = [maturin(), "build", "--release", "-i", python, "-o", out, *kind]
    started = time.time()
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"   {policy or 'linux'} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    made = [p for p in out.glob(f"*-cp3{minor}-*.whl") if p.stat().st_mtime >= started - 1]
    return max(made, key=lambda p: p.stat().st_mtime) if made else None


def main() -> int:
    """Builds, prints one line for each Python, and fails when one has no wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--py", nargs="*", default=[], help="only these, such as 3.11")
    wanted = parser.parse_args().py
    rows, failed = [], False
    for minor in range(11, 16):
        python = find_python(minor)
        if python is None or (wanted and f"3.{minor}" not in wanted):
            continue
        print(f"== Python 3.{minor}: {python}", flush=True)
        started = time.monotonic()
        wheel = next((w for p in POLICIES if (w := build(python, minor, p))), None)
        note = ""
        if wheel is None:
            wheel = build(python, minor, None)
            note = "  (plain linux: run `auditwheel repair` on an older system before publishing)"
        failed |= wheel is None
        minutes = (time.monotonic() - started) / 60
        rows.append(
            f"3.{minor}  {minutes:4.1f} min  {wheel.relative_to(ROOT) if wheel else 'FAILED'}{note}"
        )
    print("\n".join(rows) or "no CPython 3.11 or newer found")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
