"""Everything at once for some seconds: the program that the stress tests run in a child.

    python mix.py SECONDS SEED

Each part is a small closed world that checks its own results and says so by returning; any
exception ends the program with code 1. A part that never comes back is found by the time limit,
with a dump.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import socket
import sys
import threading
import time

import gort
import nested_c

SECONDS = float(sys.argv[1])
RANDOM = random.Random(int(sys.argv[2]))
END = time.monotonic() + SECONDS


def running():
    return time.monotonic() < END


def pipeline(rng):
    """Values through three stages of several goroutines each; none lost, none twice."""
    n, width = rng.randrange(50, 300), rng.randrange(1, 5)
    chans = [gort.Chan(rng.choice((0, 1, 8))) for _ in range(4)]
    groups = [gort.WaitGroup() for _ in range(3)]

    def stage(i):
        for v in chans[i]:
            if rng.random() < 0.02:
                time.sleep(0.0005)
            chans[i + 1].send(v + 1)
        groups[i].done()

    def close(i):
        groups[i].wait()
        chans[i + 1].close()

    def feed():
        for v in range(n):
            chans[0].send(v)
        chans[0].close()

    for i in range(3):
        groups[i].add(width)
        for _ in range(width):
            gort.go(stage, i)
        gort.go(close, i)
    gort.go(feed)
    assert sorted(chans[3]) == [v + 3 for v in range(n)]


def selecting(rng):
    """Select over sends, receives and time-outs; what was sent is what was received."""
    chans = [gort.Chan(rng.choice((0, 2))) for _ in range(4)]
    stop = gort.Chan()
    sent, received = [], []

    def talk(me):
        for i in range(60):
            others = rng.sample(chans, 2)
            value = (me, i)
            index, got, _ = gort.select(
                gort.send(others[0], value), gort.recv(others[1]), timeout=0.002
            )
            if index == 0:
                sent.append(value)
            elif index == 1:
                received.append(got)

    def drain():
        while True:
            index, got, _ = gort.select(gort.recv(stop), *map(gort.recv, chans))
            if index == 0:
                return
            received.append(got)

    drainer = gort.go(drain)
    for g in [gort.go(talk, i) for i in range(8)]:
        g.join()
    while any(map(len, chans)):
        gort.gosched()
    stop.close()
    drainer.join()
    assert sorted(sent) == sorted(received)


def cancelling(rng):
    """Cancel goroutines in every kind of wait; each ends, cleans up, and leaves no waiter."""
    mutex, cleaned = gort.Mutex(), []
    mutex.lock()
    ch, wg = gort.Chan(), gort.WaitGroup()
    wg.add(1)
    waits = (
        ch.recv,
        mutex.lock,
        wg.wait,
        lambda: gort.sleep(1000),
        gort.select,
        lambda: ch.send(1) and 0,
    )

    def body(wait):
        try:
            wait()
        finally:
            gort.gosched()
            cleaned.append(1)

    gs = [gort.go(body, rng.choice(waits[:5])) for _ in range(60)]
    for _ in range(rng.randrange(5)):
        gort.gosched()
    for g in rng.sample(gs, len(gs)):
        g.cancel()
    ended = 0
    for g in gs:
        try:
            g.join()
        except gort.Cancelled:
            ended += 1
    assert ended == 60
    assert len(cleaned) <= 60
    mutex.unlock()
    assert mutex.try_lock()
    assert ch.try_send(1) is False


def timing(rng):
    """Timers fire once, in order of their times within a goroutine, and stopped ones do not."""
    fired = gort.Chan(100)
    timers = [gort.after_func(rng.random() * 0.01, lambda i=i: fired.send(i)) for i in range(20)]
    stopped = {i for i in range(0, 20, 3) if timers[i].stop()}
    got = {fired.recv(timeout=30) for _ in range(20 - len(stopped))}
    assert got.isdisjoint(stopped)
    assert len(got) + len(stopped) == 20
    gort.sleep(0.001)
    assert fired.try_recv()[2] is False


def blocking(rng):
    """Real blocking calls, and pipes written by others."""
    pipes = [os.pipe() for _ in range(4)]

    def read(fd):
        return os.read(fd, 10)

    gs = [gort.go(read, r) for r, _ in pipes]
    naps = [gort.go(time.sleep, rng.random() * 0.003) for _ in range(4)]
    for i, (_, w) in enumerate(pipes):
        gort.sleep(0.0005)
        os.write(w, b"%d" % i)
    assert [g.join() for g in gs] == [b"%d" % i for i in range(4)]
    for g in naps:
        g.join()
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def threads(rng):
    """Plain threads and goroutines on one channel."""
    ch, out = gort.Chan(rng.choice((0, 3))), gort.Chan(1000)

    def produce(i):
        for k in range(20):
            ch.send((i, k))

    def consume():
        for item in ch:
            out.send(item)

    ts = [threading.Thread(target=produce, args=(i,)) for i in range(3)]
    consumers = [threading.Thread(target=consume)]
    for t in ts + consumers:
        t.start()
    gs = [gort.go(produce, i) for i in range(3, 6)]
    more = gort.go(consume)
    for g in gs:
        g.join()
    for t in ts:
        t.join()
    ch.close()
    more.join()
    for t in consumers:
        t.join()
    assert sorted(out.try_recv()[0] for _ in range(len(out))) == [
        (i, k) for i in range(6) for k in range(20)
    ]


def raising(rng):
    """Exceptions through chains of joins."""

    def level(n):
        if n == 0:
            gort.gosched()
            raise LookupError(n)
        return gort.go(level, n - 1).join()

    for _ in range(5):
        try:
            gort.go(level, rng.randrange(8)).join()
        except LookupError:
            continue
        raise AssertionError("no exception")


def collecting(rng):
    """Cycles and collections in the middle of everything."""
    for _ in range(3):
        loop = [gort.go(lambda: [gort.current()])]
        loop.append(loop)
        loop[0].join()
        del loop
        gort.gosched()
        if rng.random() < 0.3:
            gc.collect()


def nesting(rng):
    """Python under C under Python, with pauses."""
    pauses = nested_c.Pauses(rng.random())
    for construct in rng.sample(list(nested_c.CONSTRUCTS.values()), 4):
        construct(pauses)


def many(rng):
    """A crowd that starts and ends."""
    gate = gort.Chan()
    gs = [gort.go(gate.recv) for _ in range(rng.randrange(2000))]
    gort.gosched()
    for i in range(len(gs)):
        gate.send(i)
    assert sorted(g.join() for g in gs) == list(range(len(gs)))


def serving(rng):
    """The standard library's sockets between goroutines."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection):
            with connection:
                while data := connection.recv(1000):
                    connection.sendall(data)

        def accept(count):
            for g in [gort.go(answer, server.accept()[0]) for _ in range(count)]:
                g.join()

        def ask(text):
            with socket.create_connection(server.getsockname()) as s:
                for _ in range(5):
                    s.sendall(text)
                    got = b""
                    while len(got) < len(text):
                        got += s.recv(1000)
                    assert got == text

        count = rng.randrange(1, 8)
        acceptor = gort.go(accept, count)
        for g in [gort.go(ask, b"%d" % i * 300) for i in range(count)]:
            g.join()
        acceptor.join()


def computing(rng):
    """Somebody computes for more than a slice, and another one is cancelled while he does."""

    def compute(end):
        n = 1
        while time.monotonic() < end:
            n += 1
        return n

    g = gort.go(compute, time.monotonic() + 1000)
    assert gort.go(compute, time.monotonic() + rng.random() * 0.03).join() > 0
    assert g.cancel()
    try:
        g.join(timeout=30)
    except gort.Cancelled:
        return
    raise AssertionError("not cancelled")


PARTS = (
    serving,
    computing,
    pipeline,
    selecting,
    cancelling,
    timing,
    blocking,
    threads,
    raising,
    collecting,
    nesting,
    many,
)


def worker(seed):
    rng, rounds = random.Random(seed), dict.fromkeys(PARTS, 0)
    while running():
        part = rng.choice(PARTS)
        part(rng)
        rounds[part] += 1
    return rounds


def main():
    total = dict.fromkeys(PARTS, 0)
    for g in [gort.go(worker, RANDOM.random()) for _ in range(6)]:
        for part, n in g.join().items():
            total[part] += n
    assert all(total.values()), total
    print(sum(total.values()), gort.stats())


faulthandler.dump_traceback_later(SECONDS + 60, exit=True)
main()
while gort.num_goroutine() > 1:
    gort.gosched()
