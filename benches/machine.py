"""The interpreters and programs of a bench run: what is there, what is installed, one measurement.

Peers are installed into .venv-bench/<python>; what cannot be had is remembered with the reason.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENVS = HERE / ".venv-bench"
PIP_PEERS = ("gevent", "greenlet", "uvloop", "trio", "runloom")
IMPLEMENTATIONS = (
    "gort", "go1", "go", "c", "runloom", "greenlet", "gevent", "uvloop", "uvloop_streams",
    "asyncio", "trio", "threads", "granian", "gunicorn_gthread", "gunicorn_gort", "aiohttp",
    "uvicorn",
)  # fmt: skip
# The servers of group http, of which HTTP_ONLY are in no other.
HTTP = (
    "gort", "go1", "gevent", "threads", "granian", "gunicorn_gthread", "gunicorn_gort", "aiohttp",
    "uvicorn",
)  # fmt: skip
HTTP_ONLY = HTTP[4:]
# What is installed for those that are not called as their package is.
PACKAGES = {
    "uvloop_streams": ["uvloop"],
    "granian": ["granian"],
    "gunicorn_gthread": ["gunicorn"],
    "gunicorn_gort": ["gunicorn"],
    "aiohttp": ["aiohttp"],
    "uvicorn": ["uvicorn", "httptools", "uvloop"],
}
TIMEOUT_SECONDS = 300  # per program; a run that takes longer counts as failed
LIST_SECONDS = 60


def say(text: str) -> None:
    """Tell on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def build_go() -> str:
    """Compile the Go program and give its path; RuntimeError says why not."""
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("go is not on PATH")
    VENVS.mkdir(exist_ok=True)
    program = VENVS / "go-bench"
    for tags in ("xsync", ""):  # the second where golang.org/x/sync cannot be had
        built = subprocess.run(
            [go, "build", "-tags", tags, "-o", str(program), "."],
            cwd=HERE / "peers" / "go", capture_output=True, text=True, check=False,
            env={**os.environ, "CGO_ENABLED": "0"},
        )  # fmt: skip
        if not built.returncode:
            break
    if built.returncode:
        raise RuntimeError(f"go build: {built.stderr.strip()[-200:]}")
    return str(program)


def without_paths(arguments: list[str]) -> str:
    """The command of a run as anybody may repeat it, without where programs are on this machine."""
    kept, rest = [], iter(arguments)
    for argument in rest:
        if argument in ("--python", "--go-program", "--load-program", "--before"):
            next(rest, None)
        else:
            kept.append(argument)
    return f'make bench BENCH="{shlex.join(kept)}"'


class Machine:
    """The interpreters and programs found here, and why others were not."""

    def __init__(
        self, python: str, wanted: list[str], groups: list[str], go_program: str | None = None
    ) -> None:
        """Look for `wanted` implementations; `go_program` is benches/peers/go, compiled."""
        self.python, self.groups = python, groups
        facts = "import platform,sys;print(platform.python_version(),sys.version_info[1])"
        self.python_version, minor = self._output([python, "-c", facts]).split()
        self.tag = f"3.{minor}"
        self.commands: dict[str, dict[str, list[str]]] = {}  # by implementation and group
        self.environments: dict[str, dict[str, str]] = {}
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        if "gort" in wanted:
            self.commands["gort"] = self._programs(python, "ours", "gort")
        if "go" in wanted or "go1" in wanted:
            self._go(wanted, go_program)
        names = [n for n in wanted if n not in ("gort", "go", "go1")]
        if names:
            self._peers(names)
        self.known = {name: self._workloads(name) for name in list(self.commands)}

    def _programs(self, python: str, folder: str, name: str) -> dict[str, list[str]]:
        """The program of an implementation for each group that it has one for."""
        ends = {"core": "bench", "boundary": "boundary", "net": "net"}
        files = {group: f"{name}_{end}.py" for group, end in ends.items()}
        paths = {g: HERE / folder / files[g] for g in self.groups if g in files}
        found = {group: [python, str(path)] for group, path in paths.items() if path.exists()}
        if "http" in self.groups and name in HTTP:
            found["http"] = [python, str(HERE / "http_work.py"), name]
        return found

    @staticmethod
    def _output(command: list[str]) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _go(self, wanted: list[str], program: str | None) -> None:
        """Compile Go's program unless it is given, and add it for the names wanted."""
        names = [n for n in ("go1", "go") if n in wanted]
        try:
            program = program or build_go()
        except RuntimeError as error:
            self.missing.update(dict.fromkeys(names, str(error)))
            return
        self.versions["go"] = self._output([program, "--version"])
        plain = {k: v for k, v in os.environ.items() if k != "GOMAXPROCS"}
        for name in names:
            served = [self.python, str(HERE / "peers" / "go_boundary.py"), program]
            programs = {"core": [program], "boundary": served, "net": served}
            if name in HTTP:  # one CPU each: GOMAXPROCS=1 is all there is
                programs["http"] = [self.python, str(HERE / "http_work.py"), f"go:{program}"]
            self.commands[name] = {g: programs[g] for g in self.groups if g in programs}
            self.environments[name] = plain | ({"GOMAXPROCS": "1"} if name == "go1" else {})

    def _peers(self, names: list[str]) -> None:
        """Install what is missing; remember in the venv what could not be, to ask pip once."""
        venv = VENVS / self.tag
        python, refused = venv / "bin" / "python", venv / "unavailable.json"
        if not python.exists():
            say(f"making {venv.relative_to(HERE.parent)}")
            VENVS.mkdir(exist_ok=True)
            (VENVS / ".gitignore").write_text("*\n")
            subprocess.run([self.python, "-m", "venv", str(venv)], check=True)
        reasons = json.loads(refused.read_text()) if refused.exists() else {}
        for name in names:
            packages = PACKAGES.get(name, [name] if name in PIP_PEERS else [])
            for package in packages:
                if package not in reasons and not self._install(str(python), package):
                    reasons[package] = f"pip install {package} fails on Python {self.tag}"
                    refused.write_text(json.dumps(reasons))
            missing = [reasons[package] for package in packages if package in reasons]
            if missing:
                self.missing[name] = missing[0]
                continue
            plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            self.environments[name] = plain  # PYTHONPATH may name gort's own tree
            self.commands[name] = self._programs(str(python), "peers", name)
            if name == "gunicorn_gort":  # it needs gort's Python, and what was installed here
                self.commands[name] = self._programs(self.python, "peers", name)
                where = "import sysconfig;print(sysconfig.get_path('purelib'))"
                plain["PYTHONPATH"] = self._output([str(python), "-c", where])

    def _install(self, python: str, package: str) -> bool:
        """Install a package unless it is there, and note its version; whether it is there."""
        probe = [python, "-c", "import importlib.metadata as m,sys;print(m.version(sys.argv[1]))"]
        found = subprocess.run([*probe, package], capture_output=True, text=True, check=False)
        if found.returncode:
            say(f"installing {package}")
            pip = [python, "-m", "pip", "install", "-q", package]
            subprocess.run(pip, capture_output=True, check=False)
            found = subprocess.run([*probe, package], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            self.versions[package] = found.stdout.strip()
        return found.returncode == 0

    def _workloads(self, name: str) -> set[str]:
        known: set[str] = set()
        for command in self.commands[name].values():
            found = subprocess.run(
                [*command, "--list"],
                capture_output=True, text=True, check=False, timeout=LIST_SECONDS,
                env=self.environments.get(name),
            )  # fmt: skip
            if found.returncode:
                self.missing[name] = found.stderr.strip().splitlines()[-1][:200]
                del self.commands[name]
                return set()
            known.update(found.stdout.split())
        return known

    def gort_version(self) -> str:
        """The version under test; empty when it cannot be imported."""
        script = "import gort; print(gort.__version__)"
        done = subprocess.run(
            [self.python, "-c", script], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def header(self) -> dict[str, Any]:
        """Describe machine, versions and command for the results."""
        cpu = platform.processor()
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    cpu = line.partition(":")[2].strip()
                    break
        except OSError:
            pass
        return {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "kernel": f"{platform.system()} {platform.release()}",
            "python": self.python_version,
            "versions": self.versions,
            "missing": self.missing,
            "command": without_paths(sys.argv[1:]),
            "gort": self.gort_version(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_before": round(os.getloadavg()[0], 2),
        }

    def measure(self, name: str, group: str, workload: str, n: int) -> dict[str, Any]:
        """Run one program once: its JSON line, or {"error": why}."""
        try:
            done = subprocess.run(
                [*self.commands[name][group], workload, str(n)],
                capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
                env=self.environments.get(name),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {TIMEOUT_SECONDS} s"}
        if done.returncode:
            last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return {"error": f"exit code {done.returncode}: {last[-1][:200]}"}
        try:
            line: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return {"error": f"no JSON line: {done.stdout[-100:]!r}"}
        return line
