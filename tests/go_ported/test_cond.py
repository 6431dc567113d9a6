"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of sync/cond_test.go.
"""

from gort import Chan, Cond, Mutex, go
from waiting import LIMIT


def test_cond_signal():
    m = Mutex()
    c = Cond(m)
    n = 2
    running, awake = Chan(n), Chan(n)

    def sleeper():
        m.lock()
        running.send(True)
        c.wait()
        awake.send(True)
        m.unlock()

    for _ in range(n):
        go(sleeper)
    for _ in range(n):
        running.recv(timeout=LIMIT)
    for _ in range(n):
        assert not awake.try_recv()[2], "goroutine not asleep"
        m.lock()
        c.signal()
        m.unlock()
        awake.recv(timeout=LIMIT)
        assert not awake.try_recv()[2], "too many goroutines awake"
    c.signal()


def test_cond_signal_generations():
    m = Mutex()
    c = Cond(m)
    n = 100
    running, awake = Chan(n), Chan(n)

    def sleeper(i):
        m.lock()
        running.send(True)
        c.wait()
        awake.send(i)
        m.unlock()

    for i in range(n):
        go(sleeper, i)
        if i > 0:
            assert awake.recv(timeout=LIMIT) == i - 1, "wrong goroutine woke up"
        running.recv(timeout=LIMIT)
        m.lock()
        c.signal()
        m.unlock()
    assert awake.recv(timeout=LIMIT) == n - 1


def test_cond_broadcast():
    m = Mutex()
    c = Cond(m)
    n, leave = 50, []
    running, awake = Chan(n), Chan(n)

    def sleeper(g):
        m.lock()
        while not leave:
            running.send(g)
            c.wait()
            awake.send(g)
        m.unlock()

    for i in range(n):
        go(sleeper, i)
    for i in range(n):
        for _ in range(n):
            running.recv(timeout=LIMIT)
        if i == n - 1:
            m.lock()
            leave.append(1)
            m.unlock()
        assert not awake.try_recv()[2], "goroutine not asleep"
        m.lock()
        c.broadcast()
        m.unlock()
        seen = [awake.recv(timeout=LIMIT) for _ in range(n)]
        assert sorted(seen) == list(range(n)), "goroutine woke up twice"
    assert not running.try_recv()[2], "goroutine did not exit"
    c.broadcast()


def test_cond_signal_stealing():
    for _ in range(200):
        m = Mutex()
        c, ch, done = Cond(m), Chan(), []

        def first(m=m, c=c, ch=ch):
            m.lock()
            ch.send(None)
            c.wait()
            m.unlock()
            ch.send(None)

        def second(m=m, c=c, done=done):
            m.lock()
            while not done:
                c.wait()
            m.unlock()

        go(first)
        ch.recv(timeout=LIMIT)
        m.lock()
        m.unlock()
        # The waiter is in wait(). One goroutine broadcasts, another waits: the first must be notified.
        go(c.broadcast)
        g = go(second)
        ch.recv(timeout=LIMIT)
        m.lock()
        done.append(1)
        m.unlock()
        c.broadcast()
        g.join(timeout=LIMIT)
