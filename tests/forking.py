"""For programs that fork: running a body in a child, and using everything of gort there."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings

import gort
from children import check

LIMIT = 25  # seconds until a child that hangs is ended

# What every program of the tests begins with.
HEADER = """
import gort, multiprocessing, os, signal, socket, subprocess, sys, threading, time
import forking
from forking import code_of, forked, in_child, use_everything
from gort import Chan, go

def settle():
    for _ in range(20): gort.gosched()
    gort.sleep(0.02)
"""

# From 3.12 on CPython warns of every fork with threads, which gort's are.
warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)


def code_of(pid):
    """Wait for a child; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(body, *args):
    """Run `body` in a child that ends with code 0 if it returns; the child's number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(LIMIT)
        body(*args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def in_child(body, *args):
    """Run `body` in a child and wait for it; the exit code."""
    return code_of(forked(body, *args))


def use_channels():
    """Channels, select and joins."""
    ch = gort.Chan()
    g = gort.go(ch.send, 1)
    assert ch.recv(timeout=40) == 1
    g.join(timeout=40)
    others = [gort.go(lambda i=i: ch.send(i)) for i in range(500)]
    assert sorted(ch.recv(timeout=40) for _ in others) == list(range(500))
    gort.go(ch.send, 7)
    chosen = gort.select(gort.recv(gort.Chan()), gort.recv(ch), timeout=40)
    assert chosen[0] == 1


def use_time():
    """Sleeps of both kinds and timers."""
    start = time.monotonic()
    sleepers = [gort.go(gort.sleep, 0.02) for _ in range(20)]
    sleepers += [gort.go(time.sleep, 0.02) for _ in range(20)]
    for g in sleepers:
        g.join(timeout=40)
    assert gort.after(0.01).recv(timeout=40)
    assert time.monotonic() - start >= 0.02


def use_threads():
    """Plain threads, alone and with goroutines."""
    ch = gort.Chan()
    threads = [threading.Thread(target=ch.send, args=(i,)) for i in range(5)]
    for t in threads:
        t.start()
    assert sorted(ch.recv(timeout=40) for _ in threads) == list(range(5))
    for t in threads:
        t.join(10)
        assert not t.is_alive()


def use_sockets():
    """Goroutines that wait for descriptors."""
    for _ in range(3):
        a, b = socket.socketpair()
        with a, b:
            g = gort.go(a.recv, 10)
            gort.gosched()
            gort.go(b.sendall, b"hello")
            assert g.join(timeout=40) == b"hello"
    r, w = os.pipe()
    g = gort.go(os.read, r, 10)
    gort.gosched()
    os.write(w, b"x")
    assert g.join(timeout=40) == b"x"
    os.close(r)
    os.close(w)


def use_identity():
    """The calling goroutine is the main thread; others are not."""
    assert threading.current_thread() is threading.main_thread()
    assert threading.main_thread().ident == threading.get_ident()
    assert gort.go(threading.get_ident).join(timeout=40) != threading.get_ident()
    seen = []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.get_ident()))
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    gort.go(signal.pthread_kill, threading.get_ident(), signal.SIGUSR1).join(timeout=40)
    end = time.monotonic() + 10
    while not seen and time.monotonic() < end:
        gort.sleep(0.001)
    assert seen
    assert set(seen) == {threading.get_ident()}
    signal.signal(signal.SIGUSR1, old)


def use_deadlock():
    """A deadlock is told."""
    try:
        gort.Chan().recv()
    except gort.DeadlockError:
        return
    raise AssertionError("no DeadlockError")


def use_everything(*, alone=True):
    """As in a fresh process."""
    assert gort.num_goroutine() == 1, gort.dump()
    use_identity()
    use_channels()
    use_time()
    use_threads()
    use_sockets()
    assert gort.run(lambda: gort.go(pow, 2, 5).join()) == 32
    if alone:
        use_deadlock()
    assert gort.num_goroutine() >= 1
    assert gort.stats()["goroutines"] >= 1


# Here, where the processes of all start methods find them.
def put_square(queue, n):
    """For a process: everything works, and the square goes into a queue."""
    use_everything(alone=False)
    queue.put(gort.go(pow, n, 2).join(timeout=40))


def square(n):
    """For the workers of a pool."""
    return gort.go(pow, n, 2).join(timeout=40)


def run(code: str, expect: str = "ok", **options) -> str:
    """Run a program in a fresh interpreter, which must print `expect` and nothing else."""
    return check(HEADER + code, expect, **options)
