"""Who waits in unchanged code of the standard library gives its stack back as well: where nobody knows its addresses."""

from __future__ import annotations

import sys

import pytest
from children import check

#: From 3.14 on CPython's locks, and SimpleQueue from 3.13 on, put what their waiters share on the stack of who waits.
ON_THE_STACK = sys.version_info >= (3, 14)

#: What waits, how it is ended, and what it returns.
WAITS = {
    "lock": ("takes", "lock.release()", True),
    "lock with a time-out": ("takes_in_time", "lock.release()", True),
    "queue": ("q.get", "for _ in gs: q.put(True)", True),
    "simple queue": ("sq.get", "for _ in gs: sq.put(True)", True),
    "event": ("event.wait", "event.set()", True),
}
BESIDE = {
    "poll": ("polls", "b.send(b'x')", True),
    "epoll": ("lambda: epoll.poll()[0][0] == a.fileno()", "b.send(b'x')", True),
    "selectors": ("lambda: len(selector.select()) == 1", "b.send(b'x')", True),
    "sleep": ("lambda: time.sleep(2) is None", "pass", True),
    "cond with another lock": ("waits_with_rw", "cond.broadcast()", True),
    "cond after a signal": ("waits_with_rw", "cond.signal(); cond.broadcast()", True),
}

CODE = """
import queue, select, selectors, socket, threading, time
import gort
from waiting import parked
a, b = socket.socketpair()
lock, event, q, sq = threading.Lock(), threading.Event(), queue.Queue(), queue.SimpleQueue()
lock.acquire()
epoll, selector = select.epoll(), selectors.DefaultSelector()
epoll.register(a, select.EPOLLIN)
selector.register(a, selectors.EVENT_READ)
rw = gort.RWMutex()
cond = gort.Cond(rw)
def waits_with_rw():
    rw.lock()
    cond.wait()
    rw.unlock()
    return True
def takes():
    with lock: return True
def takes_in_time():
    if lock.acquire(timeout=60): lock.release(); return True
def polls():
    poll = select.poll()
    poll.register(a, select.POLLIN)
    return poll.poll()[0][0] == a.fileno()
def deep(n): return (lambda: deep(n - 1))() if n else ({wait})()
gs = [gort.go(deep, 3) for _ in range(20)]
parked(*gs)
gort.memory.trim()
print(gort.memory.stats()["stacks_saved"])
{end}
print({{g.join(timeout=60) for g in gs}})
"""


def run(wait, end, result, saved):
    code = CODE.format(wait=wait, end=end)
    check(code, f"{saved}\n{{{result}}}", GORT_SHRINK="0")


@pytest.mark.parametrize("what", WAITS)
def test_locks_of_threading(what):
    stays = ON_THE_STACK or what == "simple queue" and sys.version_info >= (3, 13)
    run(*WAITS[what], saved=0 if stays else 20)


@pytest.mark.parametrize("what", BESIDE)
def test_descriptors_sleeps_and_conditions(what):
    run(*BESIDE[what], saved=20)


def test_more_stack_than_is_worth_it_stays():
    """select.select has three arrays of 24 KiB there."""
    run("lambda: select.select([a], [], [])[0] == [a]", "b.send(b'x')", True, saved=0)
