"""Signals that are blocked and waited for: no OS thread of the runtime takes what all blocks of the program leave."""

from __future__ import annotations

import pytest
from children import check, threads

BOTH = pytest.mark.parametrize("boundary", ["1", "0"], ids=["parking", "handoff"])

# OS threads of every kind are there before anything is blocked: asleep without work, watching, resolving names.
HEADER = """
import os, signal, socket, sys, threading, time
import gort
from waiting import LIMIT, hold

WANTED = {signal.SIGUSR1, signal.SIGTERM}

def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])

def many_os_threads():
    for g in [gort.go(hold, 0.02) for _ in range(10)]:
        g.join(timeout=LIMIT)
    gort.go(socket.getaddrinfo, "localhost", 80).join(timeout=LIMIT)
    assert len(os.listdir("/proc/self/task")) > 5

def wait_for_each(times):
    got = []
    for _ in range(times):
        got.append(signal.sigwait(WANTED))
    return got

def send(times):
    for n in range(times):
        while signal.sigpending() & WANTED:
            gort.sleep(0.0005)
        os.kill(os.getpid(), [signal.SIGUSR1, signal.SIGTERM][n % 2])
        gort.sleep(0.002)
"""


@BOTH
@pytest.mark.parametrize("waits", ["goroutine", "main"])
def test_signals_that_main_blocks_are_waited_for(waits, boundary):
    wait = {
        "goroutine": "gort.go(wait_for_each, 20).join(timeout=LIMIT)",
        "main": "wait_for_each(20)",
    }[waits]
    code = f"""
many_os_threads()
signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
sender = gort.go(send, 20)
assert set({wait}) == WANTED
sender.join(timeout=LIMIT)
"""
    check(HEADER + code, GORT_BOUNDARY=boundary)


def test_thread_waits_for_signals_that_main_blocks():
    code = """
many_os_threads()
signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
got = []
waiter = threading.Thread(target=lambda: got.extend(wait_for_each(20)))
sender = threading.Thread(target=send, args=(20,))
waiter.start(); sender.start(); waiter.join(LIMIT); sender.join(LIMIT)
assert set(got) == WANTED and len(got) == 20
"""
    threads(HEADER + code)


def test_thread_begins_with_the_mask_of_its_starter():
    code = """
seen = {}
def inner(name):
    time.sleep(0.001)  # a wait in the middle
    seen[name] = mask()
def outer():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    t = threading.Thread(target=inner, args=("of outer",))
    t.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    inner("outer")
    t.join()
t = threading.Thread(target=outer); t.start(); t.join()
inner("main")
assert seen == {"of outer": {signal.SIGUSR2}, "outer": set(), "main": set()}, seen
"""
    threads(HEADER + code)


@BOTH
def test_signal_that_one_goroutine_blocks_reaches_the_handler(boundary):
    """The process has others that take it: main, wherever it is."""
    code = """
many_os_threads()
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(mask() & {signal.SIGUSR1}))
def blocks():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for n in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
        end = time.monotonic() + LIMIT
        while len(got) <= n and time.monotonic() < end:
            time.sleep(0.0005)  # between looks
        assert mask() == {signal.SIGUSR1}
gort.go(blocks).join(timeout=LIMIT)
assert len(got) == 20 and not any(got)
assert mask() == set()
"""
    check(HEADER + code, GORT_BOUNDARY=boundary)
