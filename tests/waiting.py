"""Waiting for states, never for time."""

from __future__ import annotations

import ctypes
import threading
import time

import gort

_usleep = ctypes.CDLL(None).usleep  # found by dlsym: no hook of the boundary sees it

LIMIT = 50.0  # seconds: far above anything a test needs, below the cap of conftest.py


def eventually(predicate, limit=LIMIT, what="condition"):
    """Yield to the scheduler until `predicate()` is true; return its value."""
    end = time.monotonic() + limit
    spins = 0
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < end, (
            f"{what} not reached in {limit} s\n{gort.dump()}{gort.stats()}"
        )
        spins += 1
        if spins % 50:
            gort.gosched()
        else:
            gort.sleep(0.001)


def hold(seconds):
    """Sleep in a C call that nobody answers but libc: a goroutine keeps its OS thread meanwhile."""
    _usleep(int(seconds * 1e6))


def parked(*goroutines):
    """Wait until every goroutine given is parked (waiting for something, not runnable)."""
    eventually(lambda: all(is_parked(g) for g in goroutines), what="parked goroutines")


def is_parked(g):
    """Whether `g` waits: neither runnable, running, new nor ended."""
    return not g.done and g.status not in ("new", "idle", "runnable", "running", "dead", "done")


def settle(rounds=20):
    """Give every runnable goroutine its turn a few times; for asserting that something did NOT happen."""
    for _ in range(rounds):
        gort.gosched()
    gort.sleep(0.002)


def waits_here(ch):
    """Wait for a value at a line that dumps and profiles tell."""
    ch.recv()


#: That line: file and number.
HERE = (__file__, waits_here.__code__.co_firstlineno + 2)


def ended(*goroutines):
    """Cancel goroutines that wait, and wait for their end."""
    for g in goroutines:
        g.cancel()
    for g in goroutines:
        try:
            g.join(timeout=LIMIT)
        except gort.Cancelled:
            continue
        raise AssertionError(f"{g} was not cancelled")


def waiter(fn, *args):
    """Start a goroutine and give it once it is parked."""
    g = gort.go(fn, *args)
    parked(g)
    return g


class OnThread:
    """A function on a plain thread, with the join of a goroutine."""

    def __init__(self, fn, *args):
        self.box = []
        self.thread = threading.Thread(target=lambda: self.box.append(fn(*args)), daemon=True)
        self.thread.start()

    @property
    def done(self):
        return not self.thread.is_alive()

    def join(self, timeout=LIMIT):
        eventually(lambda: self.done, timeout, "end of the thread")
        assert self.box, "the thread raised"
        return self.box[0]


def join_all(goroutines, limit=LIMIT):
    """Join them all and return their results in order."""
    end = time.monotonic() + limit
    return [g.join(timeout=max(0.0, end - time.monotonic())) for g in goroutines]


def in_goroutine(fn, *args):
    return gort.go(fn, *args).join(timeout=LIMIT)


def in_run(fn, *args):
    return gort.run(fn, *args)


def in_main(fn, *args):
    return fn(*args)


def in_thread(fn, *args):
    """Run `fn` on a plain thread; its result, or its exception raised here."""
    box = []

    def body():
        try:
            box.append((fn(*args), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert box, "plain thread did not end"
    value, error = box[0]
    if error is not None:
        raise error
    return value


def raises_text(kind, text):
    """pytest.raises with a literal text that the message must contain."""
    import re

    import pytest

    return pytest.raises(kind, match=re.escape(text))
