"""What a child process of `make compat` executes: one file of CPython's tests, recorded.

    runner.py JOB     a JSON file: {"module", "mode", "events", "dump", "skip", "only", ...}

Each test writes a line when it starts and one when it ends to the file `events`, so that a process
that hangs or dies says in which test it did. The file is opened anew for every line: tests close
descriptors, count them and fork. Nothing here imports gort unless the mode asks for it, and nothing
but the standard library is used: what runs is the interpreter as it is.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
import unittest
from unittest.util import strclass

#: Asks a child for the stacks of its threads; no test of CPython's uses this one.
DUMP_SIGNAL = signal.SIGRTMIN + 9
TEXT_CHARS = 3000


class Journal:
    """Writes events of this process, not of children that tests fork."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = os.getpid()

    def write(self, event: str, **fields: object) -> None:
        if os.getpid() != self.pid:
            return
        line = json.dumps({"event": event, **fields}) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def name_of(test: object) -> str:
    """The id under which a test is recorded; fixtures of classes and modules have one too."""
    return getattr(test, "compat_id", None) or test.id()


def text_of(error: tuple) -> str:
    """The end of a traceback."""
    return "".join(traceback.format_exception(*error))[-TEXT_CHARS:]


class Recorder(unittest.TestResult):
    """Writes how each test ended; the worst of a test and its subtests counts."""

    ORDER = ("passed", "expected", "skipped", "unexpected", "failed", "error")

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self.current: object = None
        self.status = ""
        self.text = ""
        self.begun = 0.0
        self.interrupted = False

    def startTest(self, test):  # noqa: N802
        super().startTest(test)
        self.current, self.status, self.text = test, "", ""
        self.begun = time.perf_counter()
        self.journal.write("start", id=name_of(test))

    def stopTest(self, test):  # noqa: N802
        super().stopTest(test)
        if self.current is None:
            return  # 3.12.1 does not start a test that is skipped, and `note` wrote its end
        seconds = round(time.perf_counter() - self.begun, 4)
        if not self.status and sys.exc_info()[0] is not None:
            # what unittest does not take for an outcome, KeyboardInterrupt, is under way
            self.interrupted = True
            self.status, self.text = "error", text_of(sys.exc_info())
        # A test none of whose outcomes was told had subtests that were all skipped.
        self.journal.write(
            "end",
            id=name_of(test),
            status=self.status or "skipped",
            seconds=seconds,
            text=self.text,
        )
        self.current = None

    def note(self, test, status: str, text: str = "") -> None:
        """Keep an outcome for the test that runs, or write one that belongs to a fixture."""
        if self.current is None:
            self.journal.write("end", id=name_of(test), status=status, seconds=0.0, text=text)
        elif not self.status or self.ORDER.index(status) > self.ORDER.index(self.status):
            self.status, self.text = status, text

    def addSuccess(self, test):  # noqa: N802
        self.note(test, "passed")

    def addError(self, test, err):  # noqa: N802
        self.note(test, "error", text_of(err))

    def addFailure(self, test, err):  # noqa: N802
        self.note(test, "failed", text_of(err))

    def addSkip(self, test, reason):  # noqa: N802
        self.note(test, "skipped", str(reason))

    def addExpectedFailure(self, test, err):  # noqa: N802
        self.note(test, "expected", text_of(err))

    def addUnexpectedSuccess(self, test):  # noqa: N802
        self.note(test, "unexpected", "an expected failure passed")

    def addSubTest(self, test, subtest, err):  # noqa: N802
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            self.note(subtest, "failed" if failed else "error", text_of(err))


class Suite(unittest.TestSuite):
    """A flat suite that says which fixture of a class or module it is in."""

    journal: Journal

    def _handleModuleFixture(self, test, result):  # noqa: N802
        module = test.__class__.__module__
        if module != self._get_previous_module(result):
            self.journal.write("start", id=f"setUpModule ({module})")
        super()._handleModuleFixture(test, result)

    def _handleClassSetUp(self, test, result):  # noqa: N802
        if test.__class__ is not getattr(result, "_previousTestClass", None):
            self.journal.write("start", id=f"setUpClass ({strclass(test.__class__)})")
        super()._handleClassSetUp(test, result)

    def _tearDownPreviousClass(self, test, result):  # noqa: N802
        previous = getattr(result, "_previousTestClass", None)
        if previous is not None and (test is None or test.__class__ is not previous):
            self.journal.write("start", id=f"tearDownClass ({strclass(previous)})")
        super()._tearDownPreviousClass(test, result)


def flat(suite):
    """The tests of nested suites, in order."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def load(job: dict, journal: Journal) -> Suite:
    """The tests wanted of one file; the ids of all of them are written first."""
    module = importlib.import_module(job["module"])
    found = list(flat(unittest.defaultTestLoader.loadTestsFromModule(module)))
    seen: dict[str, int] = {}
    for test in found:
        name = test.id()
        seen[name] = seen.get(name, 0) + 1
        # the same test loaded twice counts twice
        test.compat_id = name if seen[name] == 1 else f"{name}#{seen[name]}"
    journal.write("list", ids=[name_of(test) for test in found])
    only, skip = job.get("only"), set(job.get("skip", ()))
    Suite.journal = journal
    return Suite(
        test
        for test in found
        if name_of(test) not in skip and (only is None or name_of(test) in only)
    )


def run_suite(job: dict, journal: Journal) -> None:
    """Load and run; what ends it early is an event too."""
    try:
        suite = load(job, journal)
    except unittest.SkipTest as reason:
        journal.write("absent", status="skipped", text=str(reason))
        return
    except BaseException:
        journal.write("absent", status="error", text=text_of(sys.exc_info()))
        return
    recorder = Recorder(journal)
    try:
        suite.run(recorder)
    except BaseException:  # KeyboardInterrupt of a test's own signal, GoroutineExit, ...
        journal.write("broken", text=text_of(sys.exc_info()), told=recorder.interrupted)
        return
    journal.write("finished")


def prepare(job: dict) -> None:
    """What CPython's own runner sets before a file."""
    sys.path.pop(0)  # the folder of this program
    dump = open(job["dump"], "w")  # noqa: SIM115 - faulthandler keeps the descriptor
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, file=dump, all_threads=True)
    prepare.dump = dump
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if job["module"].startswith("test."):
        from test import support

        support.use_resources = tuple(job["resources"])
        support.verbose = 0


def plain(body) -> None:
    """The main thread of an interpreter that knows nothing of gort."""
    body()


def wait_for(join) -> None:
    """Wait on the main thread, which signals of a test beside it may interrupt."""
    while True:
        try:
            join()
        except KeyboardInterrupt:
            continue
        return


def thread(body) -> None:
    """A thread beside main of such an interpreter: what a goroutine beside main compares with."""
    worker = threading.Thread(target=body, name="compat")
    worker.start()
    wait_for(worker.join)


def goroutine(body) -> None:
    """A goroutine beside main, which waits for it."""
    import gort

    wait_for(gort.go(body).join)


def main_goroutine(body) -> None:
    """The main goroutine, as `gort run` has it."""
    import gort

    gort.run(body)


def as_threads(body) -> None:
    """The main goroutine of a program whose threads are goroutines, as `gort run --threads`."""
    import gort
    import gort.threads

    gort.threads.enable()
    gort.run(body)


MODES = {
    "plain": plain,
    "thread": thread,
    "goroutine": goroutine,
    "main": main_goroutine,
    "handoff": goroutine,  # with GORT_BOUNDARY=0, which the parent sets
    "threads": as_threads,
}


def main() -> None:
    """Run one job."""
    with open(sys.argv[1]) as file:
        job = json.load(file)
    journal = Journal(job["events"])
    prepare(job)
    try:
        MODES[job["mode"]](lambda: run_suite(job, journal))
    except BaseException:
        journal.write("broken", text=text_of(sys.exc_info()), told=False)
        raise


if __name__ == "__main__":
    main()
