"""Programs for tests/test_refused_native.py: requests refused to what happens once, or in a child.

As in `refusing`, which has the rest: the runtime's start, looks at what is loaded, forks, leaks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import gort
import gort.boundary
import gort.leak
import gort.memory
import gort.threads
import refusing
from children import shared_library
from gort._core import _usable_cpus
from gort.testing import synctest
from nomemory import FAILED, LIMIT, add
from waiting import eventually, parked

#: A library whose calls are answered, and which wants to be told of the end of threads.
SOURCE = """
#include <pthread.h>
#include <unistd.h>
unsigned long probe(void) { usleep(0); sleep(0); return pthread_self(); }
void OPENSSL_thread_stop(void) { }
"""


def placed():
    """What is answered where."""
    status = gort.boundary.status()
    return status.parking, sorted((o.path, o.kind, o.names) for o in status.objects)


def granted(refuse) -> int:
    """Have nothing refused any more; how many requests there were."""
    while True:
        try:
            return refuse(0)
        except (MemoryError, ctypes.ArgumentError):  # the call itself takes some
            pass


STARTS = {
    "go": lambda: gort.go(add, 1).join(timeout=LIMIT),
    "status": gort.boundary.status,
    "memory": gort.memory.install,
}


def in_child(body) -> int:
    """Run `body` in a forked child; its code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = body()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def starts(name: str, lasts: bool = False) -> None:
    """Begin a runtime with its n-th request refused, for all n, each in a process of its own."""
    refuse, n = refusing.prepare(), 0
    begin = STARTS[name]
    with tempfile.TemporaryFile("w+") as file:

        def whole():
            file.write(repr(placed()))
            file.flush()
            return 0

        assert in_child(whole) == 0
        file.seek(0)
        expected = file.read()

    def refused():
        refuse(-n if lasts else n)
        try:
            begin()
        except MemoryError:
            pass
        seen = granted(refuse)
        assert gort.go(add, 1).join(timeout=LIMIT) == 1
        assert repr(placed()) == expected, placed()
        assert begin() is not FAILED
        return 0 if seen >= n else 3

    code = 0
    while code == 0:
        n += 1
        code = in_child(refused)
    assert code == 3, (n, code)
    print(name, "requests", n - 1)


def starts_again_and_again() -> None:
    """The same in one process, each time a start does raise: what was refused is not half there."""
    refuse, n, code, tries = refusing.prepare(), 0, 0, 0

    def begins():
        refuse(n)
        try:
            gort.go(add, 1)
        except MemoryError:
            return 3
        return 0 if refuse(0) >= n else 4

    while code != 4:
        n += 1
        code = in_child(begins)
        assert code in (0, 3, 4), code
        if code == 3:
            assert begins() == 3
            tries += 1
    assert gort.go(add, 1).join(timeout=LIMIT) == 1
    assert gort.boundary.status().parking
    print("tries", tries)


def finds_leaks():
    """Those that are found are what they were."""
    a, b = gort.Chan(), gort.Chan()
    kept = gort.Chan()

    def waits(ch):
        with gort.Mutex():
            ch.recv()

    gs = [gort.go(waits, ch) for ch in (a, b, kept)] + [gort.go(a.send, [b])]
    gs.append(gort.go(gort.select, gort.recv(b), gort.recv(None)))
    gs[0].join(), gs[3].join()
    parked(*gs[1:3], gs[4])
    gs = gs[1:3]
    del a, b

    def verify(outcome):
        if outcome is not FAILED:
            assert len(outcome) == 2, outcome
        assert len(gort.leak.find(handles=False)) == 2
        kept.send(None)
        for g in gort.goroutines():
            if g is not gort.current():
                g.cancel()
        gs.clear()
        eventually(lambda: gort.num_goroutine() == 1)

    return lambda: gort.leak.find(handles=False), verify


def tracks_origins():
    """A start succeeds whether or not it is noted."""
    made = []

    def act():
        gort.leak.track()
        for _ in range(50):
            made.append(gort.go(add, 1))
        gort.leak.track(False)

    def verify(_):
        gort.leak.track(False)
        for g in made:
            refusing.nomemory.joins(g, 1)

    return act, verify


def reports_leaks():
    """The report of a search that finds nothing."""
    g = gort.go(gort.Chan().recv)
    parked(g)

    def verify(_):
        g.cancel()
        eventually(lambda: g.done)

    return lambda: gort.leak.report(handles=False), verify


def tells_the_boundary():
    """What is answered is told, or not."""
    expected = placed()

    def verify(outcome):
        assert outcome in (FAILED, expected)
        assert placed() == expected

    return placed, verify


def loads(what: str) -> None:
    """A library is loaded with its n-th request refused, for all n, each in a process of its own."""
    folder, opted = {
        "module": ("lib-dynload", False),
        "libcrypto": ("elsewhere", False),
        "other": ("elsewhere", True),
    }[what]
    refuse, n, code = refusing.prepare(), 0, 0
    gort.go(add, 1).join(timeout=LIMIT)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, folder, f"{what}.so")
        path.parent.mkdir()
        shared_library(path, SOURCE)

        def act():
            assert ctypes.CDLL(path).probe()
            assert not opted or gort.boundary.add(what) == 1

        def loaded():
            refuse(n)
            try:
                act()
            except MemoryError:
                pass
            code = 0 if refuse(0) >= n else 4
            act()
            [here] = [o for o in gort.boundary.status().objects if o.path == str(path)]
            assert {"usleep", "pthread_self"} <= set(here.names), here
            assert gort.go(act).join(timeout=LIMIT) is None
            return code

        while code == 0:
            n += 1
            code = in_child(loaded)
    assert code == 4, (n, code)
    print(what, "requests", n - 1)


def forks():
    """A child has all it needs, whatever memory there is."""
    refuse = refusing.prepare()
    ch = gort.Chan()
    gs = [gort.go(ch.recv) for _ in range(5)]
    parked(*gs)
    pids = []

    def act():
        pids.append(os.fork())
        if pids[0] == 0:
            refuse(0)
            os._exit(0 if gort.go(add, 1).join(timeout=LIMIT) == 1 else 1)

    def verify(_):
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
        for _ in gs:
            ch.send(None)
        for g in gs:
            g.join(timeout=LIMIT)

    return act, verify


def changes_its_cpus():
    """A change that could not be taken back is not made."""
    cpus = os.sched_getaffinity(0)

    def body():
        try:
            os.sched_setaffinity(0, {min(cpus)})
        except OSError as e:
            assert e.errno == errno.ENOMEM
            assert os.sched_getaffinity(0) == cpus
            raise MemoryError from e
        while os.sched_getaffinity(0) != cpus:
            try:
                os.sched_setaffinity(0, cpus)
            except OSError as e:
                assert e.errno == errno.ENOMEM
        return 1

    def verify(outcome):
        assert outcome in (FAILED, 1)
        assert os.sched_getaffinity(0) == cpus
        assert gort.go(body).join(timeout=LIMIT) == 1

    return lambda: gort.go(body).join(timeout=LIMIT), verify


def wants_real_threads():
    """Threads are real, or MemoryError says that they are not."""
    got = []

    def act():
        with gort.threads.real():
            assert not gort.threads.enabled()
            thread = threading.Thread(target=got.append, args=(1,))
            thread.start()
            thread.join()
        return got

    def verify(outcome):
        assert outcome is FAILED or got == [1]
        with gort.threads.real():
            assert not gort.threads.enabled()

    return act, verify


def changes_processors():
    """The number that is asked for, or as many as there is memory for."""
    gort.gomaxprocs(1)

    def act():
        gort.gomaxprocs(4)
        return gort.go(add, 1).join(timeout=LIMIT)

    def verify(_):
        assert 1 <= gort.gomaxprocs(0) <= 4
        gort.gomaxprocs(1)

    return act, verify


def counts_cpus():
    """As many as there are, or MemoryError."""
    expected = _usable_cpus()
    return _usable_cpus, lambda outcome: outcome in (FAILED, expected) or 1 / 0


def sleeps_in_a_bubble():
    """Timers, channels and goroutines of a bubble."""

    def body():
        ch = gort.Chan()
        for i in range(100):
            gort.after_func(i, ch.send, i)
        return [ch.recv() for _ in range(100)]

    def act():
        try:
            return synctest.run(body)
        except (gort.DeadlockError, BaseExceptionGroup) as e:
            raise MemoryError from e  # a sender was refused

    return act, lambda outcome: outcome in (FAILED, [*range(100)]) or 1 / 0


def traces() -> None:
    """Lines about the scheduler (GORT_SCHEDTRACE) come though all memory is refused."""
    refuse = refusing.prepare()
    gort.go(add, 1).join(timeout=LIMIT)
    with tempfile.TemporaryFile() as file:
        real = os.dup(2)
        os.dup2(file.fileno(), 2)
        refuse(-1)
        while os.fstat(2).st_size < 1000:
            os.sched_yield()
        refuse(0)
        os.dup2(real, 2)
        file.seek(0)
        lines = file.read().decode().splitlines()
    assert all(line.startswith("SCHED ") and line.endswith(" ]") for line in lines[1:-1]), lines
    print("lines", len(lines))


OPERATIONS = {
    f.__name__: f
    for f in (
        finds_leaks, tracks_origins, reports_leaks, tells_the_boundary,
        forks, changes_its_cpus,
        wants_real_threads, changes_processors, counts_cpus, sleeps_in_a_bubble,
    )
}  # fmt: skip


def sweep(name: str) -> None:
    """As `refusing.sweep`."""
    refusing.OPERATIONS.update(OPERATIONS)
    refusing.sweep(name)
