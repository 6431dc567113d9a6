"""Programs to be traced: run with a path, the length of a generation in ns, and whether to note stacks."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import sys
import threading
import time

import gort
import gort.futures
import gort.threads
import gort.trace
from waiting import eventually, hold, parked

USED = 0.05  # seconds of CPU time: several slices


def burns(seconds: float = USED) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def together(*functions) -> None:
    """Run them as goroutines and wait."""
    for g in [gort.go(function) for function in functions]:
        g.join()


def doubles(numbers, results) -> None:
    for number in numbers:
        results.send(number * 2)


def channels() -> None:
    numbers, results = gort.Chan(), gort.Chan(2)
    workers = [gort.go(doubles, numbers, results) for _ in range(3)]

    def feeds():
        for i in range(40):
            numbers.send(i)
        numbers.close()

    gort.go(feeds)
    assert sorted(results.recv() for _ in range(40)) == [2 * i for i in range(40)]
    for worker in workers:
        worker.join()


def selects() -> None:
    a, b, done = gort.Chan(), gort.Chan(), gort.Chan()

    def chooses():
        for _ in range(20):
            gort.select(gort.recv(a), gort.recv(b))
        done.close()

    gort.go(chooses)
    together(lambda: [a.send(i) for i in range(10)], lambda: [b.send(i) for i in range(10)])
    done.recv_ok()


def locks() -> None:
    mutex, once = gort.sync.Mutex(), threading.Lock()

    def both():
        with mutex:
            gort.gosched()
        with once:
            time.sleep(0.001)  # what is traced, not waited for

    together(*[both] * 5)


def blocks() -> None:
    data = bytes(30 << 20)

    def hashes():
        hashlib.sha256(data).digest()  # lets go of the interpreter's lock, and nobody sees it

    together(hashes, hashes, burns, lambda: hold(0.005))


def processors() -> None:
    gort.gomaxprocs(3)
    together(*[burns] * 4)
    gort.gomaxprocs(1)


def collects() -> None:
    class Finalised:
        def __del__(self):
            gort.sleep(0.001)  # parks in a pass

    one = Finalised()
    one.self = one
    del one
    gc.collect()
    together(gc.collect, burns)


def threads() -> None:
    together(lambda: gort.spawn(burns, locked=True).join(), burns)
    gort.threads.enable()
    some = [threading.Thread(target=burns, args=(0.01,)) for _ in range(3)]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join()


def real_threads() -> None:
    """Threads that are no goroutines start some, wake some and collect."""
    chan, answers = gort.Chan(), gort.Chan()

    def outside():
        gort.go(chan.recv).join()
        gc.collect()
        with gort.trace.Region("of nobody"):
            gort.trace.log("of", "nobody")
        answers.send(1)

    with gort.threads.real():
        thread = threading.Thread(target=outside)
        thread.start()
    chan.send(None)
    answers.recv()
    thread.join()


def executors() -> None:
    with gort.futures.Executor(3) as executor:
        assert list(executor.map(str, range(20))) == [str(i) for i in range(20)]


def timers() -> None:
    fired = gort.Chan()
    gort.time.after_func(0.001, fired.close)
    fired.recv_ok()
    ticker = gort.time.Ticker(0.001)
    for _ in range(3):
        ticker.c.recv()
    ticker.stop()
    try:
        gort.Chan().recv(0.001)
    except TimeoutError:
        pass


def says() -> None:
    with gort.trace.Task("order") as task:
        gort.trace.log("customer", "7")
        with gort.trace.Region("pay"), gort.trace.Region("ask"):
            gort.sleep(0.001)
        together(lambda: gort.trace.Task("part").end(), task.end)
    outer, inner = gort.trace.Region("outer"), gort.trace.Region("inner")
    outer.__enter__(), inner.__enter__(), outer.__exit__(), inner.__exit__()
    with gort.labels.do(handler="/pay"):
        pass


ALL = (
    channels, selects, locks, blocks, processors, collects, threads, real_threads, executors, timers,
    says,
)  # fmt: skip


def everything(path: str, period_ns: int, stacks: bool) -> None:
    gort.trace._start(path, stacks, period_ns)
    for part in ALL:
        part()
    gort.trace.stop()


def middle(path: str, period_ns: int, stacks: bool) -> None:
    """A trace that begins while goroutines are in every state; they end within it."""
    mutex, chan, group, ends = gort.sync.Mutex(), gort.Chan(), gort.sync.WaitGroup(), gort.Chan()
    lock = gort.sync.Mutex()
    cond = gort.sync.Cond(lock)
    group.add(1)

    def waits():
        with lock:
            cond.wait()

    def takes():
        with mutex:
            pass

    mutex.lock()
    parked_ones = [
        gort.go(chan.recv), gort.go(lambda: gort.select(gort.recv(chan), gort.recv(ends))),
        gort.go(takes), gort.go(group.wait), gort.go(waits),
    ]  # fmt: skip
    sleeps = gort.go(gort.sleep, 1000)
    parked(*parked_ones, sleeps)
    ours, theirs = os.pipe()
    blocked = gort.go(ctypes.CDLL(None).read, ours, ctypes.create_string_buffer(1), 1)
    eventually(lambda: f"goroutine {blocked.id} [syscall" in gort.dump())
    ready = [gort.go(int) for _ in range(3)]
    begun: list[bool] = []

    def computes():
        while not begun:
            pass

    def yields():
        while not begun:
            gort.gosched()

    # They last until the trace has begun, however long that takes. One runs; who lost its P as it computed and has not come
    # back is in a call, as far as can be seen; those that yield are on a queue but for an instant.
    lasting = [gort.go(computes) for _ in range(2)] + [gort.go(yields) for _ in range(6)]
    gort.gosched()
    gort.trace._start(path, stacks, period_ns)
    begun.append(True)
    chan.send(1)
    ends.close()
    mutex.unlock()
    group.done()
    with lock:
        cond.signal()
    os.write(theirs, b"x")
    sleeps.cancel()
    for g in [*parked_ones, *ready, *lasting, blocked]:
        g.join()
    eventually(lambda: sleeps.done)
    gort.trace.stop()


def many(path: str, period_ns: int, stacks: bool, count: int = 100_000) -> None:
    """So many goroutines, half of them there before, all of them there at once."""
    chan = gort.Chan()
    some = [gort.go(chan.recv_ok) for _ in range(count // 2)]
    gort.trace._start(path, stacks, period_ns)
    some += [gort.go(chan.recv_ok) for _ in range(count // 2)]
    parked(some[-1])
    chan.close()
    for g in some:
        g.join()
    gort.trace.stop()


def fewer(path: str, period_ns: int, stacks: bool) -> None:
    many(path, period_ns, stacks, 5_000)


def again(path: str, period_ns: int, stacks: bool) -> None:
    """One trace after another; the files have numbers."""
    for i in range(5):
        gort.trace._start(f"{path}{i}", stacks, period_ns)
        channels()
        gort.trace.stop()
        selects()
    channels()


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True")
