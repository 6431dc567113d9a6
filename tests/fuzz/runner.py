"""Runs a program under gort and writes down what happened, in order.

One P runs one goroutine at a time, and within no_preempt nothing interrupts it between an entry and
the operation it announces, so the order of the entries is the order of the operations. Entries:

    ("begin", g)  ("start", g, n, operation)  ("end", g, n, outcome)  ("exit", g, how)
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import gort
import gort.sync

from .programs import Program

LIMIT = 20.0
usleep = ctypes.CDLL(None).usleep  # found by dlsym: keeps its OS thread, without the GIL
TIMED_OUT = -2  # the index that select gives
Entry = tuple[Any, ...]


class Stuck(AssertionError):
    """The program did not come to rest."""


class Run:
    """One run of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.chans = [gort.Chan(cap) for cap in program["chans"]]
        self.mutexes = [gort.sync.Mutex() for _ in range(program["mutexes"])]
        self.rwmutexes = [gort.sync.RWMutex() for _ in range(program["rwmutexes"])]
        self.semaphores = [gort.sync.Semaphore(n) for n in program["semaphores"]]
        self.groups = [gort.sync.WaitGroup() for _ in range(program["groups"])]
        self.counts = [0 for _ in self.groups]
        self.held = list(program["semaphores"])
        self.log: list[Entry] = []
        self.goroutines: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.busy = 0  # operations under way that end by themselves

    def main(self) -> set[int]:
        """Start, wait until nothing moves any more, and tell who waits then."""
        with gort.no_preempt():
            return self.rest()

    def rest(self) -> set[int]:
        for _ in range(self.program["started"]):
            self.spawn()
        end = time.monotonic() + LIMIT
        while not self.rests():
            if time.monotonic() > end:
                raise Stuck(f"no rest in {LIMIT} s\n{gort.dump()}\n{gort.stats()}")
            gort.gosched()
            if self.busy:
                gort.sleep(0.0001)
        return {g for g, goroutine in self.goroutines.items() if not goroutine.done}

    def rests(self) -> bool:
        moving = ("new", "idle", "runnable", "running")
        return not self.busy and all(
            g.done or g.status not in moving for g in self.goroutines.values()
        )

    def end(self) -> None:
        """Cancel whoever still waits; all of them end."""
        for _ in range(100):
            left = [g for g in self.goroutines.values() if not g.done]
            for goroutine in left:
                goroutine.cancel()
            for goroutine in left:
                try:
                    goroutine.join(timeout=LIMIT)
                except (gort.Cancelled, gort.ChanClosed):
                    pass
            if not left:
                return
        raise Stuck("goroutines outlive a hundred cancellations")

    def spawn(self) -> int | None:
        number = len(self.goroutines)
        if number == len(self.program["goroutines"]):
            return None
        self.goroutines[number] = gort.go(self.body, number)
        return number

    def body(self, me: int) -> None:
        with gort.no_preempt():
            self.steps(me)

    def steps(self, me: int) -> None:
        self.log.append(("begin", me))
        self.numbers[me] = 0
        how = "broken"
        try:
            for operation in self.program["goroutines"][me]:
                self.do(me, operation)
            how = "done"
        except gort.GoroutineExit:
            how = "cancelled"
            raise
        finally:
            self.log.append(("exit", me, how))

    def do(self, me: int, operation: list[Any]) -> None:
        """One operation; a cancellation goes through, other exceptions are outcomes."""
        if operation[0] == "with":
            self.locked(me, *operation[1:])
            return
        self.step(me, operation)

    def step(self, me: int, operation: list[Any]) -> Any:
        n = self.numbers[me] = self.numbers[me] + 1
        self.log.append(("start", me, n, operation))
        try:
            outcome = getattr(self, f"do_{operation[0]}")(me, *operation[1:])
        except gort.ChanClosed:
            outcome = "closed"
        except TimeoutError:
            outcome = "timeout"
        except gort.GoroutineExit:
            self.log.append(("end", me, n, "cancelled"))
            raise
        self.log.append(("end", me, n, outcome))
        return outcome

    def locked(self, me: int, kind: str, which: int, body: list[Any], timeout: Any) -> None:
        if self.step(me, ["lock", kind, which, timeout]) == "timeout":
            return
        try:
            for operation in body:
                self.do(me, operation)
        finally:
            self.step(me, ["unlock", kind, which])

    def timed(self, timeout: float | None, call: Any, *args: Any) -> Any:
        """A call whose time-out ends it: the program is not at rest before."""
        self.busy += timeout is not None
        try:
            return call(*args, timeout=timeout)
        finally:
            self.busy -= timeout is not None

    def do_send(self, _me: int, chan: int, value: int, timeout: float | None) -> Any:
        self.timed(timeout, self.chans[chan].send, value)
        return None

    def do_recv(self, _me: int, chan: int, timeout: float | None) -> Any:
        return self.timed(timeout, self.chans[chan].recv_ok)

    def do_try_send(self, _me: int, chan: int, value: int) -> bool:
        return self.chans[chan].try_send(value)

    def do_try_recv(self, _me: int, chan: int) -> Any:
        return self.chans[chan].try_recv()

    def do_close(self, _me: int, chan: int) -> None:
        self.chans[chan].close()

    def do_select(self, _me: int, cases: list[Any], default: bool, timeout: float | None) -> Any:
        made = []
        for direction, number, *value in cases:
            chan = None if number is None else self.chans[number]
            made.append(gort.send(chan, *value) if direction == "send" else gort.recv(chan))
        if default:
            return gort.select(*made, default=True)
        outcome = self.timed(timeout, gort.select, *made)
        return "timeout" if outcome[0] == TIMED_OUT else outcome

    def lock_of(self, kind: str, which: int) -> tuple[Any, Any]:
        if kind == "mutex":
            return self.mutexes[which].lock, self.mutexes[which].unlock
        lock = self.rwmutexes[which]
        return (lock.rlock, lock.runlock) if kind == "read" else (lock.lock, lock.unlock)

    def do_lock(self, _me: int, kind: str, which: int, timeout: float | None) -> None:
        self.timed(timeout, self.lock_of(kind, which)[0])

    def do_unlock(self, _me: int, kind: str, which: int) -> None:
        self.lock_of(kind, which)[1]()

    def do_acquire(self, _me: int, which: int, n: int, timeout: float | None) -> None:
        self.timed(timeout, self.semaphores[which].acquire, n)
        self.held[which] -= n

    def do_release(self, _me: int, which: int, n: int) -> bool:
        """What is out may be given back, by anybody."""
        if self.held[which] + n > self.program["semaphores"][which]:
            return False
        self.held[which] += n
        self.semaphores[which].release(n)
        return True

    def do_add(self, _me: int, which: int) -> None:
        self.counts[which] += 1
        self.groups[which].add(1)

    def do_finish(self, _me: int, which: int) -> bool:
        if self.counts[which] == 0:
            return False
        self.counts[which] -= 1
        self.groups[which].done()
        return True

    def do_wait(self, _me: int, which: int, timeout: float | None) -> str | None:
        try:
            self.timed(timeout, self.groups[which].wait)
        except RuntimeError as error:
            return "reused" if "reused" in str(error) else str(error)
        return None

    def do_spawn(self, _me: int) -> int | None:
        return self.spawn()

    def do_join(self, me: int, other: int) -> Any:
        if other == me or other not in self.goroutines:
            return "nobody"
        try:
            self.goroutines[other].join()
        except gort.Cancelled:
            return "was cancelled"
        return "ended"

    def do_cancel(self, _me: int, other: int) -> Any:
        if other not in self.goroutines:
            return "nobody"
        return self.goroutines[other].cancel()

    def do_yield(self, _me: int) -> None:
        gort.gosched()

    def do_sleep(self, _me: int, seconds: float) -> None:
        self.busy += 1
        try:
            gort.sleep(seconds)
        finally:
            self.busy -= 1

    def do_hold(self, _me: int, seconds: float) -> None:
        """A C call that keeps its thread; back among the others before anything else is written."""
        self.busy += 1
        try:
            usleep(int(seconds * 1e6))
            gort.gosched()
        finally:
            self.busy -= 1

    def do_compute(self, _me: int, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    def do_fork(self, me: int) -> int:
        """The child has this goroutine only, and a runtime that works."""
        self.busy += 1
        try:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    chan: gort.Chan[int] = gort.Chan()
                    gort.go(chan.send, me + 2)
                    code = chan.recv(timeout=LIMIT)
                finally:
                    os._exit(code)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            self.busy -= 1
