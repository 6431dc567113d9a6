"""Libraries that are not known and keep OS threads in their calls are named, with advice."""

from __future__ import annotations

import shutil

import pytest
from children import check, shared_library

WAITS = """
#include <unistd.h>
int wait_for(int fd) { char c; return read(fd, &c, 1) == 1 ? c : -1; }
"""

HEADER = """
import ctypes, os, time
import gort, gort.boundary
from waiting import LIMIT, hold

def advice():
    return [a for a in gort.boundary.status().advice() if "libgortwaits" in a]
"""

# A goroutine in a call of the library, which ends when a byte is written to `w`.
WAITER = """
lib = ctypes.CDLL({library!r})
r, w = os.pipe()
g = gort.go(lib.wait_for, r)
"""


@pytest.fixture
def library(tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    return shared_library(tmp_path / "libgortwaits.so.1", WAITS)


def test_a_library_whose_calls_last_is_named_until_it_is_added(library):
    check(
        HEADER
        + WAITER.format(library=library)
        + f"""
def until(condition):
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        gort.sleep(0.001)
    assert condition()

until(advice)
os.write(w, b"a")
assert g.join(timeout=LIMIT) == ord("a")
[sentence] = advice()
assert {library!r} in sentence and "gort.boundary.add('libgortwaits')" in sentence
assert gort.boundary.status().lasting[{library!r}] >= 1

assert gort.boundary.add("libgortwaits") == 1
parked = lambda: gort.boundary.status().calls["read"].parked
before = parked() if "read" in gort.boundary.status().calls else 0
g = gort.go(lib.wait_for, r)
until(lambda: "read" in gort.boundary.status().calls and parked() > before)
os.write(w, b"b")
assert g.join(timeout=LIMIT) == ord("b")
assert advice() == []
"""
    )


def test_calls_of_known_objects_are_nobodys_fault():
    check(
        HEADER
        + """
for g in [gort.go(hold, 0.03) for _ in range(5)]:
    g.join(timeout=LIMIT)
assert gort.stats()["hand_offs"] > 0
assert gort.boundary.status().lasting == {}, gort.boundary.status().lasting
assert gort.boundary.status().advice() == []
"""
    )


def test_nothing_is_advised_without_parking(library):
    check(
        HEADER
        + WAITER.format(library=library)
        + """
gort.sleep(0.05)
os.write(w, b"a")
assert g.join(timeout=LIMIT) == ord("a")
assert gort.boundary.status().lasting == {}
""",
        GORT_BOUNDARY="0",
    )
