"""The CPythons of this machine, and running commands where they are.

3.11 to 3.15 are looked for under the Python that runs this, pyenv and PATH; 3.14 and 3.15 also in
a root directory of their own (`NEWER_ROOT`, made by the script ../shared/tools/newer-pythons where
that exists), where everything but compiling goes through chroot. A `Python` hides which it is:
paths given to its methods are paths outside, and come back as that Python sees them.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import check_tools

ROOT = Path(__file__).resolve().parent.parent
MINORS = (11, 12, 13, 14, 15)
NEWER_TOOL = ROOT.parent / "shared" / "tools" / "newer-pythons"
NEWER_ROOT = Path("/var/tmp/newer-pythons")
NEWER_MINORS = (14, 15)
#: What a copy of the project for tests and benches inside the other root needs.
NEEDED_THERE = ("tests", "examples", "benches", "docs", "python", "tools")


def run(*command: object, quiet: bool = False, prefix: str = "", **kwargs: object) -> None:
    """Run a command; end the program with its text when it fails.

    With a `prefix` each line that it prints begins with that, for commands that run side by side.
    """
    text = [str(part) for part in command]
    if prefix:
        _run_marked(text, prefix)
        return
    done = subprocess.run(  # type: ignore[call-overload]
        text, stdin=subprocess.DEVNULL, capture_output=quiet, text=True, check=False, **kwargs
    )
    if done.returncode:
        if quiet:
            print(done.stdout[-8000:], done.stderr[-8000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"failed ({done.returncode}): {' '.join(text)}")


def _run_marked(command: list[str], prefix: str) -> None:
    """Run a command, each of whose lines begins with `prefix`; failures are what it says last."""
    failures = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{prefix}{line}", end="", flush=True)
            if line.startswith(("FAILED ", "ERROR ")):  # as pytest sums up
                failures.append(f"{prefix}{line}")
    if process.returncode:
        raise SystemExit("".join(failures) + f"failed ({process.returncode}): {' '.join(command)}")


#: What mysqlclient is compiled with.
MARIADB = "libmariadb.so.3"
MARIADB_HEADERS = Path("/usr/include/mariadb")


@dataclass(frozen=True)
class Python:
    """One CPython 3.<minor>: here, or in the root directory `root`."""

    minor: int
    program: str
    root: Path | None = None

    @property
    def tag(self) -> str:
        """Short name: 3.11."""
        return f"3.{self.minor}"

    @property
    def label(self) -> str:
        """Name for headings."""
        return f"Python {self.tag}: {self.program}" + (f" in {self.root}" if self.root else "")

    @property
    def work(self) -> Path:
        """The project as this Python sees it; one copy per checkout in another root."""
        return ROOT if self.root is None else self.root / "work" / f"{ROOT.name}-{self.tag}"

    def seen(self, path: Path) -> str:
        """An outside path as a command of this Python must name it."""
        return str(path) if self.root is None else f"/{path.relative_to(self.root)}"

    def venv(self, name: Path | None = None) -> Path:
        """The environment for this Python: `name`, or .venv-3.<minor>."""
        if self.root is not None:
            return self.root / "work" / f"venv-{ROOT.name}-{self.tag}"
        return ROOT / (name or f".venv-{self.tag}")

    def command(
        self, *command: object, cwd: Path, env: dict[str, str] | None = None
    ) -> list[object]:
        """The argv that runs a command of this Python in `cwd`; paths are as `seen` gives them."""
        settings = [f"{key}={value}" for key, value in (env or {}).items()]
        where = ["env", "-C", self.seen(cwd), *settings]
        return [*([] if self.root is None else ["chroot", str(self.root)]), *where, *command]

    def run(
        self, *command: object, cwd: Path, env: dict[str, str] | None = None, prefix: str = ""
    ) -> None:
        """Run a command of this Python in `cwd`; end the program when it fails."""
        run(*self.command(*command, cwd=cwd, env=env), prefix=prefix)

    def make_venv(self, venv: Path, *packages: object, env: dict[str, str] | None = None) -> str:
        """Make `venv` if it is not there, install packages into it, and give its Python."""
        python = self.seen(venv / "bin" / "python")
        if not (venv / "bin" / "python").exists():
            venv.parent.mkdir(parents=True, exist_ok=True)
            self.run(self.program, "-m", "venv", self.seen(venv), cwd=venv.parent)
        if packages:
            self.run(python, "-m", "pip", "install", "-qq", *packages, cwd=venv, env=env)
        return python

    def bring(self) -> None:
        """Copy what tests and benches read into the other root; nothing to do here."""
        if self.root is None:
            return
        _lend(self.root)
        shutil.rmtree(self.work, ignore_errors=True)
        leave = shutil.ignore_patterns("__pycache__", ".venv-bench", ".*_cache", ".hypothesis")
        for name in NEEDED_THERE:
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, self.work / name, ignore=leave)
        for file in ROOT.iterdir():
            if file.is_file() and not file.name.startswith("."):
                shutil.copy(file, self.work)

    def place(self, file: Path) -> str:
        """Make a file readable for this Python and give its name there."""
        if self.root is None:
            return str(file)
        (self.work / "dist").mkdir(parents=True, exist_ok=True)
        return self.seen(Path(shutil.copy(file, self.work / "dist")))

    def for_build(self) -> tuple[str, dict[str, str]]:
        """The interpreter that a compiler here can ask, and the environment it needs."""
        if self.root is None:
            return self.program, {}
        target = ROOT / "target"
        target.mkdir(exist_ok=True)
        wrapper = target / f"python{self.tag}-wrapper"
        # maturin goes on with what sys.executable says, so that has to be the wrapper itself.
        wrapper.write_text(
            f'#!/bin/sh\nexec chroot {self.root} env --argv0="$0" {self.program} "$@"\n'
        )
        wrapper.chmod(0o755)
        headers = target / f"include-{self.tag}"
        debian = self.root / "usr" / "include"
        shutil.copytree(debian / f"python{self.tag}", headers, dirs_exist_ok=True)
        # Debian's pyconfig.h is a stub that includes <x86_64-linux-gnu/python3.x/pyconfig.h>.
        part = f"x86_64-linux-gnu/python{self.tag}"
        shutil.copytree(debian / part, headers / part, dirs_exist_ok=True)
        return str(wrapper), {"GORT_PY_INCLUDE": str(headers)}


def _lend(root: Path) -> None:
    """Copy what tests need, and the libraries that needs, into a root without a package tool."""
    lent = [tool for tool in [shutil.which("strace")] if tool]
    for pattern in (*check_tools.PRELOADS.values(), f"/usr/lib/*/{MARIADB}"):
        lent += glob.glob(pattern)
    if MARIADB_HEADERS.exists():
        shutil.copytree(
            MARIADB_HEADERS, root / MARIADB_HEADERS.relative_to("/"), dirs_exist_ok=True
        )
    for file in lent:
        target = root / file.lstrip("/")
        if target.exists():
            continue
        needed = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
        libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
        for path in [word for word in needed.split() if word.startswith("/")]:
            if not (libraries / Path(path).name).exists() and "ld-linux" not in path:
                shutil.copy(path, libraries)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def _works(program: str, minor: int) -> bool:
    """Whether `program` is an ordinary CPython 3.<minor> (pyenv's shims may lead nowhere)."""
    script = (
        "import sys; sys.exit(sys.implementation.name != 'cpython' or 't' in sys.abiflags "
        f"or sys.version_info[:2] != (3, {minor}))"
    )
    return subprocess.run([program, "-c", script], capture_output=True, check=False).returncode == 0


def here(minor: int) -> Python | None:
    """CPython 3.<minor> of this machine, or None."""
    name = f"python3.{minor}"
    candidates = [sys.executable] if sys.version_info[:2] == (3, minor) else []
    candidates += map(
        str, sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"), reverse=True)
    )
    candidates += filter(None, [shutil.which(name)])
    return next((Python(minor, path) for path in candidates if _works(path, minor)), None)


def in_newer_root(minor: int) -> Python | None:
    """CPython 3.<minor> in the root directory of newer Pythons, which is made when it can be."""
    if minor not in NEWER_MINORS or os.geteuid() != 0:
        return None
    if NEWER_TOOL.exists():
        run("bash", NEWER_TOOL, NEWER_ROOT)
    program = NEWER_ROOT / "usr" / "bin" / f"python3.{minor}"
    return Python(minor, program.name, NEWER_ROOT) if program.exists() else None


def this_one() -> Python:
    """The Python that runs this."""
    return Python(sys.version_info.minor, sys.executable)


def wanted() -> list[Python]:
    """Every Python found, or those named in the variable PY ("3.11 3.14" or "3.11,3.14")."""
    names = os.environ.get("PY", "").replace(",", " ").split()
    for name in names:
        if name not in {f"3.{minor}" for minor in MINORS}:
            raise SystemExit(f"PY: {name!r} is not one of 3.11 to 3.15")
    minors = [minor for minor in MINORS if not names or f"3.{minor}" in names]
    found = {minor: here(minor) or in_newer_root(minor) for minor in minors}
    absent = [f"3.{minor}" for minor, python in found.items() if python is None]
    if names and absent:
        raise SystemExit(f"PY: no CPython {', '.join(absent)} found")
    if absent:
        print(f"not found, so not used: CPython {', '.join(absent)}", flush=True)
    pythons = [python for python in found.values() if python is not None]
    if not pythons:
        raise SystemExit("no CPython 3.11 or newer found: apt-get install python3 python3-venv")
    return pythons
