"""Runs one file of CPython's tests in child processes until every test of it has an outcome.

A child that hangs in a test is asked for its stacks and killed, one that dies is noted, and the
rest of the file goes on in a new child. Every child has to get further than the one before. The
paths a `Place` gives may differ inside and outside: a Python may live in a root of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import runner

GOOD = ("passed", "expected")
TICK_SECONDS = 0.05
EXIT_SECONDS = 30.0  # from the last test to the end of the process
DUMP_SECONDS = 3.0
HANGS_OF_A_CLASS = 3  # then the rest of the class is not tried
TEXT_CHARS = 3000


@dataclass
class Record:
    """How one test ended."""

    status: str
    seconds: float = 0.0
    text: str = ""


@dataclass
class Outcome:
    """All of one file: its tests, and what happened outside of any test."""

    tests: dict[str, Record] = field(default_factory=dict)
    outside: dict[str, Record] = field(default_factory=dict)
    absent: str = ""
    children: int = 0
    seconds: float = 0.0

    def good(self) -> set[str]:
        """The ids that passed."""
        return {name for name, record in self.tests.items() if record.status in GOOD}

    def to_json(self) -> dict:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict) -> Outcome:
        """Back from JSON."""
        tests = {name: Record(**record) for name, record in data["tests"].items()}
        outside = {name: Record(**record) for name, record in data["outside"].items()}
        return Outcome(tests, outside, data["absent"], data["children"], data["seconds"])


@dataclass
class Limits:
    """Seconds: for a test, for all of a file, and how long a test took elsewhere."""

    test: float = 120.0
    file: float = 900.0
    known: dict[str, float] = field(default_factory=dict)
    least: float = 20.0

    def of(self, name: str) -> float:
        """How long this test may take; a fixture is given what a test is."""
        if name in self.known:
            return min(self.test, max(self.least, 8 * self.known[name]))
        return self.test


@dataclass
class Place:
    """How to start a child: from `command(program arguments, cwd, env)` an argv and its env."""

    command: Callable[[list[str], Path, dict[str, str]], tuple[list[str], dict[str, str]]]
    seen: Callable[[Path], str] = str
    scratch: Path = Path(tempfile.gettempdir())
    runner: str = runner.__file__


@dataclass
class Child:
    """One process at work on a file."""

    process: subprocess.Popen
    folder: Path
    read: int = 0
    current: str | None = None
    current_since: float = 0.0
    listed: list[str] = field(default_factory=list)
    ended: str = ""
    broken: str = ""
    told: bool = False  # what broke it is the outcome of a test already
    absent: str = ""

    def new_events(self, outcome: Outcome) -> int:
        """Take in what the child wrote since the last time; how many tests ended in that."""
        path = self.folder / "events"
        if not path.exists():
            return 0
        with path.open("rb") as file:
            file.seek(self.read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.read += len(whole)
        return sum(self._event(json.loads(line), outcome) for line in whole.splitlines())

    def _event(self, event: dict, outcome: Outcome) -> int:
        kind = event.pop("event")
        if kind == "list":
            self.listed = event["ids"]
        elif kind == "start":
            self.current, self.current_since = event["id"], time.monotonic()
        elif kind == "end":
            name = event.pop("id")
            self.current = None
            kept = outcome.outside if is_fixture(name) else outcome.tests
            kept[name] = Record(**event)
            return 1
        elif kind == "broken":
            self.broken, self.told = event["text"], event["told"]
        else:
            self.ended = kind
            self.absent = event.get("text", "") or kind if kind == "absent" else ""
            self.current, self.current_since = None, time.monotonic()
        return 0

    def tail(self, name: str) -> str:
        """The end of a text the child left."""
        path = self.folder / name
        return path.read_text(errors="replace")[-TEXT_CHARS:] if path.exists() else ""

    def stacks_and_kill(self) -> str:
        """The stacks of a child that hangs, which then does not live any longer."""
        dump = self.folder / "dump"
        try:
            os.kill(self.process.pid, runner.DUMP_SIGNAL)
        except ProcessLookupError:
            pass
        end, size = time.monotonic() + DUMP_SECONDS, -1
        while time.monotonic() < end:
            time.sleep(0.2)  # what is waited for is a file that stops growing
            now = dump.stat().st_size if dump.exists() else 0
            if now and now == size:
                break
            size = now
        self.kill()
        return self.tail("dump") or "no stacks: the process does not answer"

    def kill(self) -> None:
        """End the process and what it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def is_fixture(name: str) -> bool:
    """Whether an id is that of setUpClass and the like: "setUpClass (test.test_x.Class)"."""
    return name.endswith(")") and name.startswith(("setUp", "tearDown"))


def class_of(name: str) -> str:
    """The class that a test, or the fixture of a class, belongs to."""
    if is_fixture(name):
        return name[name.index("(") + 1 : -1]
    return name.rpartition(".")[0]


class File:
    """The work on one file in one mode."""

    def __init__(
        self, place: Place, module: str, mode: str, limits: Limits, resources=(), env=None
    ) -> None:
        self.place = place
        self.module = module
        self.mode = mode
        self.limits = limits
        self.resources = list(resources)
        self.env = dict(env or {})
        self.outcome = Outcome()
        self.listed: list[str] = []
        #: a place for whoever shows progress: how many tests have ended, of how many
        self.on_progress: Callable[[int, int], None] = lambda done, total: None

    def run(self, only: list[str] | None = None) -> Outcome:
        """Run all of the file, or only these tests of it."""
        begun = time.monotonic()
        while True:
            left = self.limits.file - (time.monotonic() - begun)
            if left <= 0:
                break
            before = len(self.outcome.tests)
            with tempfile.TemporaryDirectory(
                prefix="c", dir=self.place.scratch, ignore_cleanup_errors=True
            ) as name:
                child = self._start(Path(name), only)
                self._watch(child, left)
            self.listed = self.listed or child.listed
            self.outcome.absent = self.outcome.absent or child.absent
            if child.ended or len(self.outcome.tests) == before:
                break
        self._settle(only)
        self.outcome.seconds = round(time.monotonic() - begun, 1)
        return self.outcome

    def _start(self, folder: Path, only: list[str] | None) -> Child:
        self.outcome.children += 1
        for part in ("cwd", "tmp"):
            (folder / part).mkdir()
        seen = self.place.seen
        job = {
            "module": self.module,
            "mode": self.mode,
            "events": seen(folder / "events"),
            "dump": seen(folder / "dump"),
            "skip": list(self.outcome.tests),
            "only": only,
            "resources": self.resources,
        }
        (folder / "job").write_text(json.dumps(job))
        env = {**self.env, "TMPDIR": seen(folder / "tmp")}
        if self.mode == "handoff":
            env["GORT_BOUNDARY"] = "0"
        argv, environment = self.place.command(
            [self.place.runner, seen(folder / "job")], folder / "cwd", env
        )
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        return Child(process, folder, current_since=time.monotonic())

    def _watch(self, child: Child, left: float) -> None:
        """Stay with a child until it ends or has to be ended."""
        end = time.monotonic() + left
        while True:
            code = child.process.poll()
            if child.new_events(self.outcome):
                self.on_progress(len(self.outcome.tests), len(child.listed or self.listed))
            if code is not None:
                child.new_events(self.outcome)
                child.kill()  # what it left behind
                self._died(child, code)
                return
            now = time.monotonic()
            waits = now - child.current_since
            if now > end or waits > self._patience(child):
                child.new_events(self.outcome)
                self._hung(child, waits, late=now > end)
                return
            time.sleep(TICK_SECONDS)  # polls a process and a file

    def _patience(self, child: Child) -> float:
        if child.ended or child.broken:
            return EXIT_SECONDS
        return self.limits.of(child.current) if child.current else self.limits.test

    def _hung(self, child: Child, waits: float, late: bool) -> None:
        stacks = child.stacks_and_kill()
        if child.ended or child.broken:
            text = f"the process did not end after its last test\n{stacks}"
            self.outcome.outside["end of the process"] = Record("hang", waits, text)
            return
        if late:
            text = f"the time for the file was over\n{stacks}"
            self._blame(child.current, Record("not run", waits, text))
            return
        self._blame(child.current, Record("hang", waits, stacks))
        name = child.current or ""
        hangs = [
            other
            for other, record in self.outcome.tests.items()
            if record.status == "hang" and class_of(other) == class_of(name)
        ]
        if len(hangs) >= HANGS_OF_A_CLASS or is_fixture(name):
            why = Record("not run", 0.0, f"the class was given up: {name} hung")
            for other in child.listed or self.listed:
                if class_of(other) == class_of(name):
                    self.outcome.tests.setdefault(other, why)

    def _died(self, child: Child, code: int) -> None:
        if child.broken and child.told:
            return
        if child.broken:
            self._blame(child.current, Record("error", 0.0, child.broken))
            return
        if code == 0 and child.ended:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        text = f"the process ended with {how}\n{child.tail('output')}"
        if child.ended:
            self.outcome.outside["end of the process"] = Record("crash", 0.0, text)
        else:
            self._blame(child.current, Record("crash", 0.0, text))

    def _blame(self, name: str | None, record: Record) -> None:
        """Put what ended a child on the test that ran, or on what is outside of them."""
        if name is None or is_fixture(name):
            self.outcome.outside[name or "between tests"] = record
        else:
            self.outcome.tests[name] = record

    def _settle(self, only: list[str] | None) -> None:
        """Give the tests that were never started the outcome of the fixture they lacked."""
        outside = self.outcome.outside
        for name in self.listed if only is None else only:
            if name in self.outcome.tests:
                continue
            owner = class_of(name)
            for fixture in (
                f"setUpClass ({owner})",
                f"setUpModule ({owner.rpartition('.')[0]})",
                "between tests",
            ):
                if fixture in outside:
                    told = outside[fixture]
                    status = "not run" if told.status in ("hang", "crash") else told.status
                    self.outcome.tests[name] = Record(status, 0.0, told.text)
                    break
            else:
                self.outcome.tests[name] = Record("not run", 0.0, "the file ended before it")
