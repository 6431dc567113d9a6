"""`make compat`: the recorder sees every way a test can end; a few files of CPython's agree here."""

from __future__ import annotations

import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import compare  # noqa: E402
import drive  # noqa: E402

#: Those that take a second or two; test_queue takes ten.
QUICK = (
    "test_thread",
    "test_sched",
    "test_threading_local",
    "test_contextlib",
    "test_importlib.test_locks",
)
HANG = (
    "made.outcomes.Deadly.test_a_hangs",
    "made.outcomes.Deadly.test_e_blocks_signals_and_hangs",
    "setUpClass (made.outcomes.HangingFixture)",
    "tearDownClass (made.outcomes.Last)",
)
LIMITS = drive.Limits(test=20.0, file=60.0, known=dict.fromkeys(HANG, 0.0), least=0.5)


def place(tmp_path: Path) -> drive.Place:
    """Children of this interpreter."""

    def command(arguments, cwd, env):
        argv = ["env", "-C", str(cwd), sys.executable, *arguments]
        return argv, {**os.environ, "PYTHONPATH": str(HERE), **env}

    return drive.Place(command, scratch=tmp_path)


def run(tmp_path, module, mode="plain", limits=LIMITS, **options):
    return drive.File(place(tmp_path), module, mode, limits, **options).run()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What the recorder saw of the file with every kind of outcome, in goroutines."""
    return run(tmp_path_factory.mktemp("made"), "made.outcomes", "goroutine")


def statuses(outcome, case):
    """Short name to status, for the tests of one class."""
    prefix = f"made.outcomes.{case}.test_"
    return {
        name.removeprefix(prefix): record.status
        for name, record in outcome.tests.items()
        if name.startswith(prefix)
    }


def test_every_outcome_of_unittest_is_recorded(outcomes):
    assert statuses(outcomes, "Outcomes") == {
        "passes": "passed",
        "passes#2": "passed",
        "fails": "failed",
        "errs": "error",
        "exits": "error",
        "skips": "skipped",
        "is_skipped": "skipped",
        "fails_as_expected": "expected",
        "passes_unexpectedly": "unexpected",
        "subtests": "failed",
    }
    assert "made to err" in outcomes.tests["made.outcomes.Outcomes.test_errs"].text
    assert outcomes.tests["made.outcomes.Outcomes.test_skips"].text == "made to skip"


def test_hang_crash_and_exit_are_put_on_their_test_and_the_rest_goes_on(outcomes):
    assert statuses(outcomes, "Deadly") == {
        "a_hangs": "hang",
        "b_aborts": "crash",
        "c_leaves": "crash",
        "d_interrupts": "error",
        "e_blocks_signals_and_hangs": "hang",
        "f_after_all_that": "passed",
    }
    tests = outcomes.tests
    assert "test_a_hangs" in tests["made.outcomes.Deadly.test_a_hangs"].text, "stacks"
    assert "SIGABRT" in tests["made.outcomes.Deadly.test_b_aborts"].text
    assert "exit code 0" in tests["made.outcomes.Deadly.test_c_leaves"].text
    assert "KeyboardInterrupt" in tests["made.outcomes.Deadly.test_d_interrupts"].text


def test_fixtures_that_fail_or_hang_are_told(outcomes):
    assert statuses(outcomes, "BadFixture") == {"never_runs": "error"}
    assert set(statuses(outcomes, "HangingFixture").values()) == {"not run"}
    assert statuses(outcomes, "Last") == {"before_a_hanging_end": "passed"}
    outside = {name: record.status for name, record in outcomes.outside.items()}
    assert outside == {
        "setUpClass (made.outcomes.BadFixture)": "error",
        "setUpClass (made.outcomes.HangingFixture)": "hang",
        "tearDownClass (made.outcomes.Last)": "hang",
    }


def test_process_that_does_not_end_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "EXIT_SECONDS", 1.0)
    outcome = run(tmp_path, "made.hangs_at_exit")
    assert [record.status for record in outcome.tests.values()] == ["passed"]
    assert outcome.outside["end of the process"].status == "hang"


@pytest.mark.parametrize(("module", "text"), [("absent", "made to be"), ("broken", "ImportError")])
def test_file_that_cannot_be_loaded_says_why(tmp_path, module, text):
    outcome = run(tmp_path, f"made.{module}")
    assert outcome.tests == {}
    assert text in outcome.absent


def test_time_for_the_file_ends_it(tmp_path):
    outcome = run(tmp_path, "made.hangs_at_exit", limits=drive.Limits(test=60.0, file=0.0))
    assert outcome.children == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", QUICK)
def test_a_file_of_cpython_passes_in_goroutines_as_it_does_plain(tmp_path, name):
    try:
        is_there = importlib.util.find_spec(f"test.{name}") is not None
    except ModuleNotFoundError:
        is_there = False  # its package is not there
    if not is_there:
        pytest.skip("this Python came without its tests")
    limits = drive.Limits(test=30.0, file=60.0)
    known = compare.Known.read(HERE / "known.toml")
    with ThreadPoolExecutor() as pool:  # both spend their time waiting
        runs = [
            pool.submit(run, tmp_path, f"test.{name}", mode, limits)
            for mode in ("plain", "goroutine")
        ]
        plain, here = (future.result() for future in runs)
    assert len(plain.good()) > 5
    version = f"3.{sys.version_info.minor}"
    found = compare.differences(plain.good(), here, compare.Explain(known, "goroutine", version))
    assert [diff for diff in found if not diff.reason] == []
    assert {n: r for n, r in here.outside.items() if r.status != "skipped"} == {}
