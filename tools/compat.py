"""`make compat`: CPython's own test files, plain and under gort, side by side.

For every Python of PY (3.11 to 3.14 when it is not given) and every file: twice plain, once plain
in a thread beside main, and once in each mode of gort. Raw outcomes go to target/compat, what
differs to docs/compat/results-3.x.json and docs/compat.md. Runs of a part (FILES=, MODES=) replace
that part of the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cpython_tests
import matrix
import pythons
from pythons import ROOT, Python

COMPAT = ROOT / "tests" / "compat"
sys.path.insert(0, str(COMPAT))
import compare  # noqa: E402
import drive  # noqa: E402
import table  # noqa: E402

FILES = (
    "test_socket", "test_ssl", "test_select", "test_selectors", "test_threading",
    "test_threading_local", "test_thread", "test_queue", "test_concurrent_futures",
    "test_subprocess", "test_signal", "test_httpservers", "test_httplib",
    "test_urllib2_localnet", "test_socketserver", "test_ftplib", "test_smtplib", "test_imaplib",
    "test_xmlrpc", "test_asyncio", "test_logging", "test_sqlite3", "test_io", "test_fork1",
    "test_wait4", "test_contextlib", "test_importlib.test_locks",
    "test_importlib.test_threaded_import", "test_sched", "test_timeout", "test_pty",
)  # fmt: skip
MODES = ("main", "goroutine", "handoff", "threads")
#: Reference runs: name of the raw outcome, and the mode it is made in.
REFERENCES = {"plain": "plain", "plain-again": "plain", "thread": "thread"}
LAST_MINOR = 14  # 3.15 is not released: only when PY names it
#: What lacks a network outside fails plain and drops out; test_socketserver asks for it too.
RESOURCES = "cpu,network,subprocess,walltime"
ALONE_AT_MOST = 60  # failures of one file that are tried again


def parse() -> argparse.Namespace:
    """The command line; the variables of make are its defaults."""
    env = os.environ
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=env.get("PY", ""), help='"3.11 3.14"')
    parser.add_argument("--files", default=env.get("FILES", ""), help="names as test_queue")
    parser.add_argument("--mode", default=env.get("MODES", ""), help=f"of {', '.join(MODES)}")
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one test")
    parser.add_argument("--file-timeout", type=float, default=1800, help="seconds for one file")
    parser.add_argument("--jobs", type=int, default=1, help="files at a time")
    parser.add_argument("--resources", default=RESOURCES, help="of CPython's regrtest -u")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "compat", help="results")
    parser.add_argument("--reuse", action="store_true", help="plain outcomes of an earlier run")
    parser.add_argument("--no-build", action="store_true", help="the gort that is installed")
    parser.add_argument("--gate", action="store_true", help="fail when the aim is not reached")
    options = parser.parse_args()
    options.files = tuple(options.files.replace(",", " ").split()) or FILES
    options.mode = tuple(options.mode.replace(",", " ").split()) or MODES
    for name in options.mode:
        if name not in MODES:
            parser.error(f"--mode: {name!r} is none of {', '.join(MODES)}")
    return options


class Lines:
    """One line per run, and a bar of rich above it where it is installed and this is a terminal."""

    def __init__(self, title: str, total: int) -> None:
        """Begin with nothing of `total` runs done."""
        self.bar: Any = None
        if sys.stdout.isatty():
            try:
                from rich.progress import Progress
            except ImportError:
                return
            self.bar = Progress(transient=True)
            self.bar.start()
            self.task = self.bar.add_task(title, total=total)

    def now(self, text: str) -> None:
        """What is running."""
        if self.bar:
            self.bar.update(self.task, description=text)

    def done(self, text: str) -> None:
        """One run more has ended."""
        if self.bar:
            self.bar.advance(self.task)
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()


@dataclass
class Setting:
    """One Python, ready to run its tests."""

    python: Python
    program: str
    tests: cpython_tests.Tests
    facts: dict[str, str]
    options: argparse.Namespace
    lines: Lines

    @property
    def raw(self) -> Path:
        """The folder of outcomes of single runs; with other resources they are other runs."""
        resources = self.options.resources.replace(",", "-") or "none"
        return ROOT / "target" / "compat" / self.facts["version"] / resources

    def place(self) -> drive.Place:
        """How a child of this Python is started."""
        python = self.python
        scratch = python.work / "target" / "compat" if python.root else Path("/tmp")
        scratch.mkdir(parents=True, exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GORT_"))}
        paths = [python.seen(self.tests.path)] if self.tests.path else []

        def command(
            arguments: list[str], cwd: Path, env: dict[str, str]
        ) -> tuple[list[str], dict[str, str]]:
            settings = {"LANG": "C.UTF-8", **env}
            if paths:
                settings["PYTHONPATH"] = os.pathsep.join(paths)
            argv = python.command(self.program, *arguments, cwd=cwd, env=settings)
            return [str(part) for part in argv], clean

        runner = python.seen(python.work / "tests" / "compat" / "runner.py")
        return drive.Place(command, python.seen, scratch, runner)

    def file(self, name: str, mode: str, limits: drive.Limits) -> drive.File:
        """The work on one file."""
        resources = [part for part in self.options.resources.split(",") if part]
        return drive.File(self.place(), f"test.{name}", mode, limits, resources)

    def outcome(self, name: str, run: str, mode: str, limits: drive.Limits) -> drive.Outcome:
        """Run a file, or take the outcome of an earlier run where that is asked for."""
        path = self.raw / f"{name}.{run}.json"
        if self.options.reuse and run in REFERENCES and path.exists():
            return drive.Outcome.from_json(json.loads(path.read_text()))
        self.lines.now(f"{self.python.tag} {name} {run}")
        outcome = self.file(name, mode, limits).run()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(outcome.to_json(), indent=1))
        counts: dict[str, int] = {}
        for record in outcome.tests.values():
            counts[record.status] = counts.get(record.status, 0) + 1
        text = outcome.absent or ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
        self.lines.done(f"  {name:<36} {run:<12} {outcome.seconds:6.1f} s  {text[:120]}")
        return outcome


def one_file(setting: Setting, name: str, modes: list[str], known: compare.Known) -> dict:
    """All runs of one file; its part of the results."""
    options = setting.options
    if name in setting.tests.absent:
        nothing = drive.Outcome(absent=setting.tests.absent[name])
        reference = compare.Reference.of(nothing, nothing)
        return {"plain": reference.to_json(), "thread": 0, "modes": {}}
    limits = drive.Limits(options.timeout, options.file_timeout)
    plain, again = (setting.outcome(name, run, "plain", limits) for run in ("plain", "plain-again"))
    reference = compare.Reference.of(plain, again)
    both = [*plain.tests.items(), *again.tests.items()]
    for test, record in both:
        limits.known[test] = max(limits.known.get(test, 0.0), record.seconds)
    in_thread = setting.outcome(name, "thread", "thread", limits)
    thread_good = in_thread.good() & reference.good
    entry: dict = {"plain": reference.to_json(), "thread": len(thread_good), "modes": {}}
    if name in setting.tests.notes:
        entry["source"] = setting.tests.notes[name]
    for mode in modes:
        here = setting.outcome(name, mode, mode, limits)
        explain = compare.Explain(known, mode, setting.python.tag, in_thread)
        found = compare.compare(reference, plain, here, explain)
        found.found = alone(setting, name, mode, limits, found.found)
        result = found.to_json()
        result["both"] = len(thread_good) - sum(diff.test in thread_good for diff in found.found)
        entry["modes"][mode] = result
    return entry


def alone(
    setting: Setting, name: str, mode: str, limits: drive.Limits, found: list[compare.Difference]
) -> list[compare.Difference]:
    """The differences, with a mark on failures that pass when they are run without the rest."""
    tests = [diff.test for diff in found if diff.status in compare.FAILED and not diff.reason]
    if not tests or len(tests) > ALONE_AT_MOST:
        return found
    good = setting.file(name, mode, limits).run(only=tests).good()
    return [replace(diff, alone=True) if diff.test in good else diff for diff in found]


def machine() -> dict[str, object]:
    """What the figures depend on."""
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":")[1].strip() for line in file if "model name" in line), "")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
    }


def gort_of(python: Python, program: str) -> tuple[str, bool]:
    """The version of gort that is installed, and whether it can make threads goroutines."""
    code = (
        "import gort, importlib.util as u;"
        "print(gort.__version__, u.find_spec('gort.threads') is not None)"
    )
    argv = [str(part) for part in python.command(program, "-c", code, cwd=python.venv())]
    version, threads = subprocess.check_output(argv, text=True).split()
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return f"{version} ({commit})" if commit else version, threads == "True"


def one_python(python: Python, options: argparse.Namespace, known: compare.Known) -> dict:
    """All files of one Python; its results, with those of earlier runs for the other files."""
    if options.no_build:
        python.bring()
        program = python.seen(python.venv() / "bin" / "python")
    else:
        program, _ = matrix.install(python, python.venv())
    version, has_threads = gort_of(python, program)
    modes = [mode for mode in options.mode if mode != "threads" or has_threads]
    if "threads" in options.mode and not has_threads:
        print("  mode threads is left out: this gort has no gort.threads")
    tests = cpython_tests.find(python, FILES)
    facts = cpython_tests.facts(python)
    lines = Lines(python.tag, len(options.files) * (len(modes) + len(REFERENCES)))
    setting = Setting(python, program, tests, facts, options, lines)
    path = options.json / f"results-{python.tag}.json"
    old = json.loads(path.read_text())["files"] if path.exists() else {}
    results = {
        "tag": python.tag,
        "python": facts["version"],
        "openssl": facts["openssl"],
        "gort": version,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "resources": options.resources.split(","),
        "files": old,
    }
    options.json.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        work = {pool.submit(one_file, setting, name, modes, known): name for name in options.files}
        for future, name in work.items():
            entry = future.result()
            entry["modes"] = {**old.get(name, {}).get("modes", {}), **entry["modes"]}
            old[name] = entry
            results["files"] = {name: old[name] for name in sorted(old)}
            # written after each file: a run takes an hour, and may be ended before
            path.write_text(json.dumps(results, indent=1) + "\n")
    lines.end()
    return results


def short_of_aim(results: dict) -> list[str]:
    """What keeps a Python from the aim: files, totals, hangs."""
    short = []
    for mode in MODES:
        total = dict.fromkeys(("plain", "passed", "thread", "both"), 0)
        for name, entry in results["files"].items():
            here = entry["modes"].get(mode)
            if here is None:
                continue
            row = {"plain": entry["plain"]["passed"], "thread": entry["thread"], **here}
            total = {key: total[key] + row[key] for key in total}
            share = table.judged(row, mode)
            if share < table.FILE_PERCENT or here["own_hangs"]:
                short.append(f"{mode} {name}: {share} %, {here['own_hangs']} hang")
        if table.judged(total, mode) < table.TOTAL_PERCENT:
            short.append(f"{mode}: {table.judged(total, mode)} % in total")
    return short


def main() -> None:
    """Run the Pythons wanted and write the table."""
    options = parse()
    os.environ["PY"] = options.python
    wanted = [p for p in pythons.wanted() if options.python or p.minor <= LAST_MINOR]
    known = compare.Known.read(COMPAT / "known.toml")
    short = []
    for python in wanted:
        print(f"== {python.label}", flush=True)
        begun = time.monotonic()
        results = one_python(python, options, known)
        short += [f"{python.tag} {line}" for line in short_of_aim(results)]
        print(f"  {python.tag}: {(time.monotonic() - begun) / 60:.0f} min", flush=True)
        table.write(options.json, options.json.parent / "compat.md")
    print(f"docs: {options.json.parent / 'compat.md'}")
    if short:
        print("short of the aim:", *short, sep="\n  ")
    if options.gate and short:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
