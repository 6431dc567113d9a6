"""Work for threads, and for what stands in for them: queue.Queue round trips, ten thousand threads.

Nothing here knows gort: the programs decide what a thread is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Queue
from threading import Event, Thread
from time import perf_counter_ns as now
from typing import Any

import harness
from https_work import os_threads

PAUSE = 0.01


def queue_trips(start: Callable[..., Any], n: int) -> int:
    """A value to another task and back, over two queues."""
    ping: Queue[int] = Queue()
    pong: Queue[int] = Queue()

    def echo() -> None:
        while (value := ping.get()) >= 0:
            pong.put(value + 1)

    task = start(echo)
    total = 0
    begun = now()
    for i in range(n):
        ping.put(i)
        total += pong.get()
    elapsed = now() - begun
    ping.put(-1)
    task.join()
    harness.check(total, n * (n + 1) // 2)
    return elapsed


def start_join(n: int, *, daemon: bool) -> harness.Figures:
    """Start n threads that sleep and wait for an Event, set it, and join them all.

    3.11 and 3.12 look at all threads that are no daemons whenever one of those starts or ends.
    """
    event, ended = Event(), []

    def work(number: int) -> None:
        time.sleep(PAUSE)
        event.wait()
        ended.append(number)

    begun = now()
    threads = [Thread(target=work, args=(number,), daemon=daemon) for number in range(n)]
    for thread in threads:
        thread.start()
    started = now()
    count = os_threads()
    event.set()
    for thread in threads:
        thread.join()
    joined = now()
    harness.check(sorted(ended), list(range(n)))
    figures = {"start_ns": (started - begun) / n, "join_ns": (joined - started) / n}
    return joined - begun, {**figures, "os_threads": count}
