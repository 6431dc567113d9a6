"""Libraries in front of libc, by LD_PRELOAD: an allocator, and one that lies about the time."""

from __future__ import annotations

import glob

import pytest
from children import check, threads

JEMALLOC = "/usr/lib/*/libjemalloc.so.2"
FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"

# What parks by a deadline or for a length of time, and a look at how long that was.
TIMED = """
import contextlib, os, select, socket, threading, time
import gort, gort.boundary

def is_there(name):
    with open("/proc/self/maps") as maps:
        return any(name in line for line in maps)

def seconds(wait):
    begun = time.monotonic()
    wait()
    return time.monotonic() - begun

def receive(end):
    with contextlib.suppress(TimeoutError):
        end.recv(1)

def waits():
    end, other = socket.socketpair()
    end.settimeout(0.2)
    held = threading.Lock()
    held.acquire()
    event = threading.Event()
    yield lambda: time.sleep(0.2)
    yield lambda: held.acquire(timeout=0.2)
    yield lambda: event.wait(0.2)
    yield lambda: receive(end)
    yield lambda: select.select([end], [], [], 0.2)
    yield lambda: gort.sleep(0.2)
"""


def preload(pattern: str) -> str:
    """The library of that name; tools/check_tools.py says how to get it."""
    found = glob.glob(pattern)
    assert found, f"this test needs {pattern}"
    return found[0]


def test_with_jemalloc():
    check(
        TIMED
        + """
assert is_there("jemalloc")

def echo(end):
    while part := end.recv(100_000):
        end.sendall(part)
    end.close()

def client(size):
    end, other = socket.socketpair()
    server = gort.go(echo, other)
    sender = gort.go(end.sendall, b"x" * size)
    received = 0
    while received < size:
        received += len(end.recv(100_000))
    sender.join()
    end.close()
    server.join()
    return received

clients = [gort.go(client, 1000 * n) for n in range(200)]
assert [g.join(timeout=30) for g in clients] == [1000 * n for n in range(200)]
for wait in waits():
    assert gort.go(seconds, wait).join(timeout=30) >= 0.19
assert gort.boundary.status().calls["recv"].parked > 0
""",
        LD_PRELOAD=preload(JEMALLOC),
    )


def test_threads_with_jemalloc():
    threads(
        """
import queue
jobs, results = queue.Queue(), queue.Queue()
def worker():
    while (job := jobs.get()) is not None:
        results.put(len(bytearray(job)))
workers = [threading.Thread(target=worker) for _ in range(100)]
for worker in workers: worker.start()
for size in range(2000): jobs.put(size * 100)
for _ in workers: jobs.put(None)
for worker in workers: worker.join()
assert sum(results.get() for _ in range(2000)) == 100 * 1999 * 1000
assert tasks() < 20, tasks()
""",
        LD_PRELOAD=preload(JEMALLOC),
    )


@pytest.mark.parametrize("clock", ["-3000d", "@2000-01-01 00:00:00", "+3000d x4", "+0 x0.5"])
def test_waits_are_of_the_time_that_faketime_tells(clock):
    check(
        TIMED
        + f"""
assert is_there("faketime")
begins = time.time()
{"assert abs(begins - 946684800) < 86400" if clock.startswith("@") else ""}
for wait in waits():
    # At four times the speed the clocks are read four times as coarsely.
    assert 0.15 < gort.go(seconds, wait).join(timeout=30) < 10
together = [gort.go(time.sleep, 0.2) for _ in range(100)]
begun = time.monotonic()
for g in together:
    g.join(timeout=30)
assert time.monotonic() - begun < 10
assert 1 < time.time() - begins < 60
assert gort.boundary.status().calls["clock_nanosleep"].parked >= 100
""",
        LD_PRELOAD=preload(FAKETIME),
        FAKETIME=clock,
    )
