"""The n-th request for native memory is refused where the runtime begins, looks around, or forks."""

from __future__ import annotations

import pytest
import refusing
import refusing_starts
from children import child, shared_library

MANY = 200  # seconds: hundreds of processes, one after another
pytestmark = pytest.mark.timeout(MANY + 20)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return shared_library(tmp_path_factory.mktemp("refuse") / "refuse.so", refusing.SOURCE)


def runs(code, library, **env):
    text = f"import refusing_starts; refusing_starts.{code}"
    done = child(text, limit=MANY, LD_PRELOAD=library, **env)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    assert "Error" not in done.stderr.replace("MemoryError", ""), done.stderr[-4000:]
    return done.stdout.split()


@pytest.mark.parametrize(
    ("what", "lasts"), [("go", False), ("go", True), ("status", False)], ids=str
)
def test_refused_start_is_a_memory_error_and_the_next_one_succeeds(what, lasts, library):
    told = runs(f"starts({what!r}, {lasts})", library)
    assert int(told[-1]) > 3


def test_python_memory_that_is_refused_can_be_had_later(library):
    assert int(runs("starts('memory')", library)[-1]) > 3


def test_starts_that_are_refused_one_after_another_end_in_one_that_is_not(library):
    assert int(runs("starts_again_and_again()", library)[-1]) > 3


@pytest.mark.parametrize("operation", refusing_starts.OPERATIONS)
def test_refused_request_is_a_memory_error_or_nothing(operation, library):
    runs(f"sweep({operation!r})", library)


@pytest.mark.parametrize("what", ["module", "libcrypto", "other"])
def test_a_library_that_there_was_no_memory_to_look_at_is_looked_at_later(what, library):
    assert int(runs(f"loads({what!r})", library)[-1]) > 3


def test_a_fork_with_pythons_memory_from_gort_needs_none(library):
    runs("sweep('forks')", library, GORT_MALLOC="1")


def test_a_line_about_the_scheduler_asks_for_no_memory(library):
    assert int(runs("traces()", library, GORT_SCHEDTRACE="1")[-1]) > 3
