"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of sync/mutex_test.go and sync/rwmutex_test.go.
"""

import gort
import pytest
from gort import Chan, Mutex, RWMutex, Semaphore, go, recv, select
from waiting import LIMIT, raises_text


def hammer_semaphore(s, loops, done):
    for _ in range(loops):
        s.acquire()
        s.release()
    done.send(True)


def test_semaphore():
    s, done = Semaphore(1), Chan()
    for _ in range(10):
        go(hammer_semaphore, s, 1000, done)
    for _ in range(10):
        done.recv(timeout=LIMIT)


def hammer_mutex(m, loops, done):
    for i in range(loops):
        if i % 3 == 0:
            if m.try_lock():
                m.unlock()
            continue
        m.lock()
        m.unlock()
    done.send(True)


def test_mutex():
    m = Mutex()
    m.lock()
    assert not m.try_lock(), "try_lock succeeded with mutex locked"
    m.unlock()
    assert m.try_lock(), "try_lock failed with mutex unlocked"
    m.unlock()
    done = Chan()
    for _ in range(10):
        go(hammer_mutex, m, 1000, done)
    for _ in range(10):
        done.recv(timeout=LIMIT)


@pytest.mark.parametrize(
    ("kind", "steps", "text"),
    [
        (Mutex, ["unlock"], "sync: unlock of unlocked mutex"),
        (Mutex, ["lock", "unlock", "unlock"], "sync: unlock of unlocked mutex"),
        (RWMutex, ["unlock"], "sync: Unlock of unlocked RWMutex"),
        (RWMutex, ["rlock", "unlock"], "sync: Unlock of unlocked RWMutex"),
        (RWMutex, ["lock", "unlock", "unlock"], "sync: Unlock of unlocked RWMutex"),
        (RWMutex, ["runlock"], "sync: RUnlock of unlocked RWMutex"),
        (RWMutex, ["lock", "runlock"], "sync: RUnlock of unlocked RWMutex"),
        (RWMutex, ["rlock", "runlock", "runlock"], "sync: RUnlock of unlocked RWMutex"),
    ],
)
def test_mutex_misuse(kind, steps, text):
    lock = kind()
    for step in steps[:-1]:
        getattr(lock, step)()
    with raises_text(RuntimeError, text):
        getattr(lock, steps[-1])()


def test_mutex_fairness():
    mu, stop, done = Mutex(), Chan(), Chan(1)

    def hog():
        while True:
            mu.lock()
            gort.sleep(100e-6)
            mu.unlock()
            if select(recv(stop), default=True)[0] == 0:
                return

    def visitor():
        for _ in range(10):
            gort.sleep(100e-6)
            mu.lock()
            mu.unlock()
        done.send(True)

    go(hog)
    go(visitor)
    done.recv(timeout=LIMIT)
    stop.close()


def parallel_reader(m, clocked, cunlock, cdone):
    m.rlock()
    clocked.send(True)
    cunlock.recv()
    m.runlock()
    cdone.send(True)


@pytest.mark.parametrize("readers", [1, 3, 4])
def test_parallel_readers(readers):
    m, clocked, cunlock, cdone = RWMutex(), Chan(), Chan(), Chan()
    for _ in range(readers):
        go(parallel_reader, m, clocked, cunlock, cdone)
    for _ in range(readers):
        clocked.recv(timeout=LIMIT)
    for _ in range(readers):
        cunlock.send(True)
    for _ in range(readers):
        cdone.recv(timeout=LIMIT)


def test_rwmutex_hammer():
    rw, activity, done = RWMutex(), [0], Chan()

    def reader(loops):
        for _ in range(loops):
            rw.rlock()
            activity[0] += 1
            assert 1 <= activity[0] < 10_000
            gort.gosched()
            activity[0] -= 1
            rw.runlock()
        done.send(True)

    def writer(loops):
        for _ in range(loops):
            rw.lock()
            activity[0] += 10_000
            assert activity[0] == 10_000
            gort.gosched()
            activity[0] -= 10_000
            rw.unlock()
        done.send(True)

    go(writer, 200)
    for i in range(10):
        go(reader, 200)
        if i == 4:
            go(writer, 200)
    for _ in range(12):
        done.recv(timeout=LIMIT)
    assert activity == [0]


def test_rlocker():
    wl, n = RWMutex(), 10
    rl = wl.reading()
    wlocked, rlocked = Chan(1), Chan(1)

    def locks():
        for _ in range(n):
            rl.lock()
            rl.lock()
            rlocked.send(True)
            wl.lock()
            wlocked.send(True)

    go(locks)
    for _ in range(n):
        rlocked.recv(timeout=LIMIT)
        rl.unlock()
        assert select(recv(wlocked), default=True)[0] == -1, "RLocker() didn't read-lock it"
        rl.unlock()
        wlocked.recv(timeout=LIMIT)
        assert select(recv(rlocked), default=True)[0] == -1, (
            "RLocker() didn't respect the write lock"
        )
        wl.unlock()
