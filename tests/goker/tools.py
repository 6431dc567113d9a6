"""What the kernels are written with: the register, contexts, and yielding at random; how tests await and end them."""

from __future__ import annotations

import gc
import random
import time

import gort
from waiting import eventually

SETTLING = 0.5  # seconds: goroutines that do not leak may go on for ever

#: Kernels by name: the function, who leaks (all must be found), who may leak besides.
KERNELS = {}


def kernel(*expected, may=()):
    """Register a kernel. `expected` are "function [reason]", each to be found in some run."""

    def register(function):
        KERNELS[function.__name__] = (function, frozenset(expected), frozenset(may))
        return function

    return register


def pause():
    """Yield some times, or not at all."""
    for _ in range(random.randrange(4)):
        gort.gosched()


class Context:
    """As much of a Go context as the kernels use: done is closed when it is cancelled."""

    def __init__(self):
        self.done = gort.Chan()

    def cancel(self):
        if not self.done.closed:
            self.done.close()


class RLocker:
    """The reading side of an RWMutex as a lock."""

    def __init__(self, mutex):
        self.mutex = mutex

    def lock(self):
        self.mutex.rlock()

    def unlock(self):
        self.mutex.runlock()


def is_closed(ch):
    """Whether a receive would find the channel closed: `select` with default."""
    return gort.select(gort.recv(ch), default=True)[0] == 0


def settle(before):
    """Let the new goroutines go on until all of them wait, or for a while."""
    end = time.monotonic() + SETTLING
    quiet = ("chan ", "select", "sync.")
    while time.monotonic() < end:
        gort.sleep(0.003)
        new = [g for g in gort.goroutines() if g.id not in before]
        if all(g.status.startswith(quiet) for g in new) and not gort.stats()["timers"]:
            return


def end_all(before):
    """Cancel what is left."""
    for _ in range(5):
        for g in gort.goroutines():
            if g.id not in before:
                g.cancel()
        gort.gosched()
    eventually(lambda: all(g.id in before for g in gort.goroutines()), what="end of the kernel")
    gc.collect()  # what they raised as they ended is told now, to nobody
