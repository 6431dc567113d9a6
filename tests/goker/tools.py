"""What the kernels are written with: the register, contexts, and yielding at random."""

from __future__ import annotations

import random

import gort

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
