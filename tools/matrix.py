"""Builds gort for every CPython found, installs it into an environment of its own and runs the tests there.

Pythons: 3.11 to 3.13 on PATH or under pyenv; 3.14 and 3.15 through ../shared/tools/newer-pythons where that exists.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWER_TOOL = ROOT.parent / "shared" / "tools" / "newer-pythons"
NEWER_ROOT = Path("/var/tmp/newer-pythons")
PYTEST = ["-q", "-p", "no:cacheprovider"]
PACKAGES = ["pytest", "pytest-timeout", "hypothesis", "pydantic-core"]


def tests_in(root: Path) -> list[str]:
    """What pytest is given: the whole suite, or the files of TESTS (relative to the root)."""
    return [str(root / part) for part in os.environ.get("TESTS", "tests").split()]


def run(*command: object, **kwargs: object) -> None:
    """Runs a command; ends the program with its text when it fails."""
    text = [str(c) for c in command]
    done = subprocess.run(text, **kwargs)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"failed ({done.returncode}): {' '.join(text)}")


def find_python(minor: int) -> str | None:
    """The path of CPython 3.<minor>, or None."""
    name = f"python3.{minor}"
    candidates = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
    if candidates:
        return str(candidates[-1])
    found = shutil.which(name)
    return found if found and subprocess.run([found, "-V"], capture_output=True).returncode == 0 else None


def build(python: str, minor: int, env: dict[str, str]) -> Path:
    """Compiles the extension for one Python and returns the shared object."""
    target = ROOT / "target" / f"py3.{minor}"
    env = {**os.environ, **env, "PYO3_PYTHON": python, "CARGO_TARGET_DIR": str(target),
           "PYO3_BUILD_EXTENSION_MODULE": "1"}
    run("cargo", "build", "--quiet", "--release", "-p", "gort-py", cwd=ROOT, env=env)
    return target / "release" / "lib_core.so"


def wheel(library: Path, minor: int) -> Path:
    """Packs facade and extension into a wheel for cp3<minor>."""
    out = ROOT / "dist" / f"gort-0.1.0-cp3{minor}-cp3{minor}-linux_x86_64.whl"
    out.parent.mkdir(exist_ok=True)
    info = "gort-0.1.0.dist-info"
    files = {f"gort/{p.relative_to(ROOT / 'python/gort')}": p.read_bytes()
             for p in (ROOT / "python/gort").rglob("*") if p.suffix in {".py", ".pyi", ".typed"} or p.name == "py.typed"}
    files[f"gort/_core.cpython-3{minor}-x86_64-linux-gnu.so"] = library.read_bytes()
    files[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: gort\nVersion: 0.1.0\nRequires-Python: >=3.11\n"
    files[f"{info}/WHEEL"] = (f"Wheel-Version: 1.0\nGenerator: gort-matrix\nRoot-Is-Purelib: false\n"
                              f"Tag: cp3{minor}-cp3{minor}-linux_x86_64\n").encode()
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\ngort = gort.cli:main\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out


def outside(minor: int, python: str, venv: Path, test: bool) -> None:
    """Build, install, test with a Python of this machine."""
    packed = wheel(build(python, minor, {}), minor)
    if not (venv / "bin/python").exists():
        run(python, "-m", "venv", venv)
    pip = [venv / "bin/python", "-m", "pip", "install", "-q"]
    run(*pip, "--force-reinstall", "--no-deps", packed)
    if test:
        run(*pip, *PACKAGES)
        run(venv / "bin/python", "-m", "pytest", *PYTEST, *tests_in(ROOT), cwd=venv)


def lend_strace() -> None:
    """Copies this machine's strace and the libraries it needs into the newer root, which has no package tool."""
    tool = shutil.which("strace")
    if tool is None or (NEWER_ROOT / "usr/bin/strace").exists():
        return
    needed = subprocess.run(["ldd", tool], capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"=> (/\S+)", needed):
        target = NEWER_ROOT / "usr/lib/x86_64-linux-gnu" / Path(path).name
        if not target.exists():
            shutil.copy(path, target)
    shutil.copy(tool, NEWER_ROOT / "usr/bin/strace")


def inside(minor: int) -> None:
    """Build outside, install and test in the root with the newer Pythons."""
    lend_strace()
    wrapper = ROOT / "target" / f"python3.{minor}-wrapper"
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\nexec chroot {NEWER_ROOT} python3.{minor} "$@"\n')
    wrapper.chmod(0o755)
    headers = ROOT / "target" / f"include-3.{minor}"
    plat = NEWER_ROOT / f"usr/include/x86_64-linux-gnu/python3.{minor}"
    shutil.copytree(NEWER_ROOT / f"usr/include/python3.{minor}", headers, dirs_exist_ok=True)
    # Debian's pyconfig.h is a stub that includes <x86_64-linux-gnu/python3.x/pyconfig.h>.
    shutil.copytree(plat, headers / f"x86_64-linux-gnu/python3.{minor}", dirs_exist_ok=True)
    packed = wheel(build(str(wrapper), minor, {"GORT_PY_INCLUDE": str(headers)}), minor)
    name = f"{ROOT.name}-3.{minor}"  # one place per checkout, so that two do not meet
    work = NEWER_ROOT / "work" / name
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(ROOT / "tests", work / "tests")
    shutil.copy(ROOT / "pyproject.toml", work)
    shutil.copy(packed, work)
    place = f"/work/{name}"
    venv = f"/work/venv-{name}"
    if not (NEWER_ROOT / venv[1:] / "bin/python").exists():
        run("chroot", NEWER_ROOT, f"python3.{minor}", "-m", "venv", venv)
    pip = ["chroot", NEWER_ROOT, f"{venv}/bin/python", "-m", "pip", "install", "-q"]
    run(*pip, "--force-reinstall", "--no-deps", f"{place}/{packed.name}")
    run(*pip, *PACKAGES)
    command = shlex.join([f"{venv}/bin/python", "-m", "pytest", *PYTEST, *tests_in(Path(place))])
    run("chroot", NEWER_ROOT, "sh", "-c", f"cd {place} && {command}")


def main() -> None:
    """Runs the matrix and prints one line for each Python."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-this", action="store_true", help="only the Python that runs this")
    parser.add_argument("--venv", type=Path, help="environment to install into (with --only-this)")
    parser.add_argument("--no-test", action="store_true")
    options = parser.parse_args()
    if options.only_this:
        minor = sys.version_info.minor
        outside(minor, sys.executable, ROOT / (options.venv or f".venv-3.{minor}"), not options.no_test)
        return
    tested = []
    wanted = os.environ.get("PY", "").split()
    for minor in (11, 12, 13, 14, 15):
        if wanted and f"3.{minor}" not in wanted:
            continue
        python = find_python(minor)
        started = time.monotonic()
        if python is not None:
            print(f"== Python 3.{minor}: {python}", flush=True)
            outside(minor, python, ROOT / f".venv-3.{minor}", not options.no_test)
        elif minor >= 14 and NEWER_TOOL.exists() and os.geteuid() == 0 and not options.no_test:
            run("bash", NEWER_TOOL)
            print(f"== Python 3.{minor}: in {NEWER_ROOT}", flush=True)
            inside(minor)
        else:
            continue
        tested.append(f"3.{minor} ({time.monotonic() - started:.0f} s)")
    if not tested:
        raise SystemExit("no CPython 3.11 or newer found")
    print("passed on: " + ", ".join(tested))


if __name__ == "__main__":
    main()
