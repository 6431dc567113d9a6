"""Goroutines that park inside callbacks of foreign libraries, while others keep the OS threads.

For children: who parks with foreign frames on its stack must go on on the same OS thread, and one
goroutine without any shows that goroutines do move meanwhile.
"""

from __future__ import annotations

import threading

import gort
from waiting import LIMIT, eventually, hold, join_all, parked

tid = threading.get_native_id
strays = []  # not raised: what a callback raises does not come through every library


def wander(n):
    """Park in one of several ways."""
    if n % 3 == 0:
        gort.gosched()
    elif n % 3 == 1:
        gort.sleep(0.0003)
    else:
        meeting = gort.Chan()
        gort.go(meeting.send, n)
        assert meeting.recv() == n


def pause(n):
    """Park where the thread must be the same afterwards; give n."""
    before = tid()
    wander(n)
    if tid() != before:
        strays.append(n)
    return n


def moving(body, count=6):
    """Results of body(i) in `count` goroutines, while OS threads are kept and goroutines move."""
    moves, ended = [], []

    def keep():
        while not ended:
            hold(0.0005)
            gort.gosched()

    def control():
        for n in range(10**9):
            before = tid()
            wander(n)
            if tid() != before:
                moves.append(n)
            if ended:
                return

    others = [gort.go(control), *[gort.go(keep) for _ in range(3)]]
    try:
        results = join_all([gort.go(body, i) for i in range(count)])
        eventually(lambda: moves, what="a goroutine that moved")
    finally:
        ended.append(True)
    join_all(others)
    assert strays == []
    return results


def crossing(call, rounds):
    """`call(f, n)`, which calls f(n) in foreign frames, in two goroutines that end in either order."""
    gates, entered = {1: gort.Chan(), 2: gort.Chan()}, set()

    def wait(n):
        if n not in entered:  # some libraries call more than once
            entered.add(n)
            before = tid()
            gates[n].recv()
            if tid() != before:
                strays.append(n)
        return n

    for first, second in [(1, 2), (2, 1)] * rounds:
        entered.clear()
        gs = {n: gort.go(call, wait, n) for n in gates}
        parked(*gs.values())
        for n in (first, second):
            gates[n].send(None)
            assert gs[n].join(timeout=LIMIT) == n
    assert strays == []


def cancelled(call):
    """Cancel a goroutine that waits inside such a call; whether it ended by that."""
    g = gort.go(call, lambda n: gort.Chan().recv(), 1)
    parked(g)
    g.cancel()
    try:
        g.join(timeout=LIMIT)
    except Exception:
        return True  # some libraries raise one of their own for it
    except gort.Cancelled:
        return True
    return False
