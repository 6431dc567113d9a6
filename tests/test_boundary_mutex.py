"""Libraries that hold a mutex of the C library while they wait: as between threads, nobody stands still for ever."""

from __future__ import annotations

import shutil

import pytest
from children import check, shared_library

SOURCE = """
#include <pthread.h>
#include <unistd.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Waits for a byte with the mutex held. */
int locked_read(int fd) {
    char c;
    pthread_mutex_lock(&mutex);
    int n = read(fd, &c, 1);
    pthread_mutex_unlock(&mutex);
    return n == 1 ? c : -1;
}

/* Calls back with the mutex held. */
int locked_call(int (*call)(int), int value) {
    pthread_mutex_lock(&mutex);
    int result = call(value);
    pthread_mutex_unlock(&mutex);
    return result;
}
"""

HEADER = """
import ctypes, os, time
import gort, gort.boundary
from waiting import LIMIT

COUNT = 30
lib = ctypes.CDLL({library!r})
if {added}:
    assert gort.boundary.add("libgortlocked") == 1
pipes = [os.pipe() for _ in range(COUNT)]
# Whoever holds the mutex, and in whatever order they come: all get their byte in the end.
def feed():
    for n, (_, w) in enumerate(pipes):
        gort.sleep(0.0005)
        os.write(w, bytes([n]))
def all_get_theirs(goroutines):
    feeder = gort.go(feed)
    assert [g.join(timeout=LIMIT) for g in goroutines] == list(range(COUNT))
    feeder.join(timeout=LIMIT)
"""

BOTH = pytest.mark.parametrize("boundary", ["1", "0"], ids=["parking", "handoff"])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    return shared_library(tmp_path_factory.mktemp("lib") / "libgortlocked.so.1", SOURCE)


@BOTH
@pytest.mark.parametrize("added", [True, False])
def test_wait_in_the_library(library, boundary, added):
    check(
        HEADER.format(library=library, added=added)
        + f"""
all_get_theirs([gort.go(lib.locked_read, r) for r, _ in pipes])
parked = gort.boundary.status().calls["read"].parked if {added} and {boundary} else 1
assert parked > 0
""",
        GORT_BOUNDARY=boundary,
    )


@BOTH
@pytest.mark.parametrize("added", [True, False])
def test_wait_in_a_callback(library, boundary, added):
    """Frames of a library that is not known pin their goroutine: its OS thread runs nobody else."""
    check(
        HEADER.format(library=library, added=added)
        + """
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
def call(fd):
    gort.gosched()
    time.sleep(0.0003)  # parks with the mutex held
    gort.sleep(0.0003)
    return os.read(fd, 1)[0]
all_get_theirs([gort.go(lib.locked_call, call, r) for r, _ in pipes])
""",
        GORT_BOUNDARY=boundary,
    )
