"""What differs from the plain interpreter, why, and how much of a file passes.

The reference of a file is what passes in each of two plain runs. A difference is a test of the
reference that does not pass here; its reason comes from known.toml, kept by hand, or from a run of
the plain interpreter in a thread beside main: what fails there too needs the main thread.
"""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from drive import GOOD, Outcome, Record

BESIDE_MAIN = ("goroutine", "handoff")
NEEDS_MAIN = "fails in a plain thread beside main too"
LINE_CHARS = 160
#: what counts as "failed" in the table; hang, crash, skipped and not run have columns of their own
FAILED = ("failed", "error", "unexpected")


@dataclass(frozen=True)
class Known:
    """Reasons by pattern of id, mode and Python."""

    entries: tuple[dict, ...] = ()

    @staticmethod
    def read(path: Path) -> Known:
        """From known.toml; an entry without a reason is an error."""
        entries = tuple(tomllib.loads(path.read_text()).get("known", ()))
        for entry in entries:
            if not entry.get("test") or not entry.get("reason"):
                raise ValueError(f"{path.name}: test and reason are needed: {entry}")
        return Known(entries)

    def reason(self, name: str, mode: str, python: str) -> str:
        """Why this test is known to differ; empty when it is not."""
        for entry in self.entries:
            if (
                fnmatch.fnmatchcase(name, entry["test"])
                and mode in entry.get("modes", (mode,))
                and python in entry.get("pythons", (python,))
            ):
                return entry["reason"]
        return ""


@dataclass(frozen=True)
class Explain:
    """Finds the reason of a difference for one mode on one Python."""

    known: Known
    mode: str
    python: str
    in_thread: Outcome | None = None

    def reason(self, name: str) -> str:
        """The reason, or nothing."""
        text = self.known.reason(name, self.mode, self.python)
        if text or self.mode not in BESIDE_MAIN or self.in_thread is None:
            return text
        record = self.in_thread.tests.get(name)
        return NEEDS_MAIN if record is None or record.status not in GOOD else ""


@dataclass(frozen=True)
class Difference:
    """One test that passes plain and not here."""

    test: str
    status: str
    reason: str
    line: str
    alone: bool = False  # passed when it was run again without the rest of its file

    def to_json(self) -> dict:
        """As the results file has it: what is empty is left out."""
        return {key: value for key, value in vars(self).items() if value}


def last_line(text: str) -> str:
    """The line of a failure that says most: the last of a traceback, the first of other texts."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    if lines[0].startswith("Traceback"):
        errors = [line for line in text.splitlines() if line[:1].isalpha() and ":" in line]
        return (errors or lines)[-1].strip()[:LINE_CHARS]
    return lines[0][:LINE_CHARS]


def innermost(stacks: str) -> str:
    """Where the test that hung was: the frame in CPython's tests nearest to the wait."""
    for line in stacks.splitlines():
        if "/test/test_" in line and line.strip().startswith("File"):
            return "in " + line.strip().removeprefix("File ").rpartition("/test/")[2]
    return last_line(stacks)


def differences(reference: set[str], here: Outcome, explain: Explain) -> list[Difference]:
    """Every test of the reference that does not pass here, in order of its id."""
    found = []
    absent = Record("not run", 0.0, here.absent or "the file did not get so far")
    for name in sorted(reference):
        record = here.tests.get(name, absent)
        if record.status in GOOD:
            continue
        line = innermost(record.text) if record.status == "hang" else last_line(record.text)
        found.append(Difference(name, record.status, explain.reason(name), line))
    return found


@dataclass
class Reference:
    """What passes plain, from two runs, and what was left out because the two disagreed."""

    good: set[str]
    unsteady: list[str]
    tests: int
    skipped: int
    failed: list[str]
    absent: str
    seconds: float

    @staticmethod
    def of(first: Outcome, second: Outcome) -> Reference:
        """From two plain runs."""
        good = first.good() & second.good()
        unsteady = sorted(first.good() ^ second.good())
        left = set(first.tests) - good - set(unsteady)
        skipped = sum(first.tests[name].status == "skipped" for name in left)
        failed = sorted(name for name in left if first.tests[name].status != "skipped")
        return Reference(
            good, unsteady, len(first.tests), skipped, failed, first.absent, first.seconds
        )

    def to_json(self) -> dict:
        """As the results file has it."""
        data = {
            "tests": self.tests,
            "passed": len(self.good),
            "skipped": self.skipped,
            "failed": self.failed,
            "unsteady": self.unsteady,
            "seconds": self.seconds,
        }
        return {**data, "absent": self.absent} if self.absent else data


@dataclass
class Compared:
    """One file in one mode beside its reference."""

    reference: Reference
    here: Outcome
    found: list[Difference]
    outside: list[Difference] = field(default_factory=list)

    def to_json(self) -> dict:
        """As the results file has it."""
        kinds: dict[str, int] = {}
        for diff in self.found:
            kind = "failed" if diff.status in FAILED else diff.status
            kinds[kind] = kinds.get(kind, 0) + 1
        return {
            "passed": len(self.reference.good) - len(self.found),
            **dict(sorted(kinds.items())),
            # a test that hangs in a thread beside main as well is no hang of gort's
            "own_hangs": sum(
                diff.status == "hang" and diff.reason != NEEDS_MAIN for diff in self.found
            ),
            "seconds": self.here.seconds,
            "differs": [diff.to_json() for diff in self.found],
            "outside": [diff.to_json() for diff in self.outside],
        }


def compare(reference: Reference, plain: Outcome, here: Outcome, explain: Explain) -> Compared:
    """A file in one mode: the tests that differ, and fixtures and ends that do."""
    outside = [
        Difference(name, record.status, explain.reason(name), last_line(record.text))
        for name, record in sorted(here.outside.items())
        if record.status != "skipped" and name not in plain.outside
    ]
    return Compared(reference, here, differences(reference.good, here, explain), outside)
