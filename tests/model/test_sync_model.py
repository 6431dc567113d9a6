"""Semaphore and RWMutex against plain models, one step at a time, with goroutines that wait in between."""

from __future__ import annotations

import gort
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from waiting import eventually, is_parked


class Crowd:
    """Goroutines that wait, each with what it asked for, in order of arrival."""

    def __init__(self):
        self.waiting = []

    def start(self, fn, ask, waits):
        g = gort.go(fn)
        if waits:
            eventually(lambda: is_parked(g), what="a goroutine that waits")
            self.waiting.append((g, ask))
        else:
            g.join(timeout=20)  # it need not wait

    def served(self, those):
        """Those and nobody else have what they asked for."""
        for one in those:
            self.waiting.remove(one)
            one[0].join(timeout=20)

    def cancel(self, one):
        self.waiting.remove(one)
        one[0].cancel()
        with pytest.raises(gort.Cancelled):
            one[0].join(timeout=20)

    def all_wait(self):
        return all(is_parked(g) for g, _ in self.waiting)


class SemaphoreMachine(RuleBasedStateMachine):
    @initialize(size=st.integers(0, 4))
    def make(self, size):
        self.semaphore, self.size, self.free = gort.Semaphore(size), size, size
        self.crowd = Crowd()

    def queue(self):
        return [one for one in self.crowd.waiting if one[1] <= self.size]

    def fits(self, n):
        return n <= self.free and not self.queue()

    def serve(self):
        served = []
        for one in self.queue():
            if one[1] > self.free:
                break  # nobody overtakes
            self.free -= one[1]
            served.append(one)
        self.crowd.served(served)

    @precondition(lambda self: len(self.crowd.waiting) < 6)
    @rule(n=st.integers(0, 6), timeout=st.sampled_from([None, 60.0]))
    def acquire(self, n, timeout):
        fits = self.fits(n)
        self.crowd.start(lambda: self.semaphore.acquire(n, timeout), n, waits=not fits)
        self.free -= n if fits else 0

    @rule(n=st.integers(0, 6))
    def try_acquire(self, n):
        fits = self.fits(n)
        assert self.semaphore.try_acquire(n) is fits
        self.free -= n if fits else 0

    @rule(n=st.integers(0, 6), timeout=st.sampled_from([0, 0.001]))
    def acquire_with_timeout_on_main(self, n, timeout):
        if self.fits(n):
            self.semaphore.acquire(n, timeout)
            self.free -= n
        else:
            with pytest.raises(TimeoutError):
                self.semaphore.acquire(n, timeout)

    @rule(n=st.integers(0, 5))
    def release(self, n):
        if n > self.size - self.free:
            with pytest.raises(RuntimeError, match="semaphore: released more than held"):
                self.semaphore.release(n)
        else:
            self.semaphore.release(n)
            self.free += n
            self.serve()

    @rule(which=st.integers(0, 5))
    def cancel(self, which):
        if which < len(self.crowd.waiting):
            self.crowd.cancel(self.crowd.waiting[which])
            self.serve()

    @invariant()
    def nobody_else_was_served(self):
        assert self.crowd.all_wait()

    def teardown(self):
        while self.crowd.waiting:
            self.cancel(0)
        assert self.semaphore.try_acquire(self.free)


READ, WRITE = "read", "write"


class RWMutexMachine(RuleBasedStateMachine):
    @initialize()
    def make(self):
        self.lock, self.readers, self.writer = gort.RWMutex(), 0, False
        self.crowd = Crowd()

    def waiting(self, what):
        return [one for one in self.crowd.waiting if one[1] == what]

    def can(self, what):
        if what == READ:
            return not self.writer and not self.waiting(WRITE)
        return not self.writer and not self.readers

    def enter(self, what):
        self.readers += what == READ
        self.writer |= what == WRITE

    def admit_readers(self):
        readers = self.waiting(READ)
        self.readers += len(readers)
        self.crowd.served(readers)

    def admit_writer(self):
        if not self.readers and not self.writer and self.waiting(WRITE):
            self.writer = True
            self.crowd.served(self.waiting(WRITE)[:1])

    @precondition(lambda self: len(self.crowd.waiting) < 6)
    @rule(what=st.sampled_from([READ, WRITE]), timeout=st.sampled_from([None, 60.0]))
    def take(self, what, timeout):
        can = self.can(what)
        take = self.lock.rlock if what == READ else self.lock.lock
        self.crowd.start(lambda: take(timeout), what, waits=not can)
        if can:
            self.enter(what)

    @rule(what=st.sampled_from([READ, WRITE]))
    def try_to(self, what):
        can = self.can(what)
        assert (self.lock.try_rlock if what == READ else self.lock.try_lock)() is can
        if can:
            self.enter(what)

    @rule(what=st.sampled_from([READ, WRITE]), timeout=st.sampled_from([0, 0.001]))
    def take_with_timeout_on_main(self, what, timeout):
        take = self.lock.rlock if what == READ else self.lock.lock
        if self.can(what):
            take(timeout)
            self.enter(what)
        else:
            with pytest.raises(TimeoutError):
                take(timeout)

    @rule()
    def unlock(self):
        if not self.writer:
            with pytest.raises(RuntimeError, match="sync: Unlock of unlocked RWMutex"):
                self.lock.unlock()
            return
        self.lock.unlock()
        self.writer = False
        self.admit_readers()  # all that wait, before the next writer
        self.admit_writer()

    @rule()
    def runlock(self):
        if not self.readers:
            with pytest.raises(RuntimeError, match="sync: RUnlock of unlocked RWMutex"):
                self.lock.runlock()
            return
        self.lock.runlock()
        self.readers -= 1
        self.admit_writer()

    @rule(which=st.integers(0, 5))
    def cancel(self, which):
        if which < len(self.crowd.waiting):
            self.crowd.cancel(self.crowd.waiting[which])
            if not self.writer and not self.waiting(WRITE):
                self.admit_readers()

    @invariant()
    def nobody_else_was_let_in(self):
        assert self.crowd.all_wait()

    def teardown(self):
        while self.crowd.waiting:
            self.cancel(0)
        assert self.lock.try_lock() is (not self.writer and not self.readers)


STEPS = settings(max_examples=50, stateful_step_count=40, deadline=None, derandomize=True)
SemaphoreMachine.TestCase.settings = RWMutexMachine.TestCase.settings = STEPS
TestSemaphoreModel = SemaphoreMachine.TestCase
TestRWMutexModel = RWMutexMachine.TestCase
