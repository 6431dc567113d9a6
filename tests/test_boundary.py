"""The libc boundary in one process: calls that block park their goroutine, count as that, use few
OS threads, and end as they do on a thread. What the same program does without it: the children.
"""

from __future__ import annotations

import os
import queue
import select
import selectors
import socket
import subprocess
import sys
import threading
import time

import gort
import gort.boundary
import pytest
import waiting
from children import check
from waiting import LIMIT, eventually, in_goroutine, in_thread, join_all, parked

BOTH = pytest.mark.parametrize("boundary", ["1", "0"])


def counts(name):
    call = gort.boundary.status().calls.get(name)  # who never waited is not told
    return (call.parked, call.handed_off) if call else (0, 0)


def os_threads():
    return len(os.listdir("/proc/self/task"))


def test_status_names_what_is_replaced():
    status = gort.boundary.status()
    assert status.parking
    assert status.identity
    kinds = {o.kind for o in status.objects}
    assert {"interpreter", "standard module"} <= kinds
    interpreter = next(o for o in status.objects if o.kind == "interpreter")
    assert interpreter.error is None
    assert {"read", "close", "pthread_self", "sigaction"} <= {*interpreter.names, *interpreter.left}
    assert "pthread_self" in interpreter.names
    waits = [n for n in interpreter.names if n.startswith(("pthread_mutex", "pthread_cond"))]
    # Watched only: who waits for the GIL blocks in no call.
    assert waits == ["pthread_cond_timedwait"]
    assert "replaced" in repr(interpreter)
    assert "parking=True" in repr(status)


def test_interpreter_keeps_its_own_keys():
    for seen in gort.boundary.status().objects:
        if seen.kind in ("interpreter", "standard module"):
            assert "pthread_getspecific" not in seen.names
        if seen.kind == "OpenSSL":
            assert not any(name.startswith("sem_") for name in seen.names)


def test_modules_that_must_block_are_left():
    import _multiprocessing
    import _posixsubprocess

    assert _multiprocessing
    assert _posixsubprocess
    for seen in gort.boundary.status().objects:
        if "_posixsubprocess" in seen.path or "_multiprocessing" in seen.path:
            assert {"read", "sem_wait", "close"}.isdisjoint(seen.names)


def test_add_wants_the_name_of_a_library():
    with pytest.raises(TypeError):
        gort.boundary.add(1)
    with pytest.raises(ValueError, match="needs a name"):
        gort.boundary.add("")
    assert gort.boundary.add("no-such-library-at-all") == 0


def test_a_module_loaded_later_is_replaced_before_its_code_runs():
    code = """
    import gort, gort.boundary, sys
    gort.go(lambda: None).join()
    before = {o.path for o in gort.boundary.status().objects}
    import _socket
    import _ssl
    after = {o.path: o for o in gort.boundary.status().objects}
    path = getattr(_socket, "__file__", None)
    print(path is None or path in after and "recv" in (*after[path].names, *after[path].left))
    import socket
    a, b = socket.socketpair()
    def body():
        return b.recv(1)
    g = gort.go(body)
    while g.status in ("new", "idle", "runnable", "running"): gort.gosched()
    a.send(b"x")
    print(g.join(), gort.boundary.status().calls["recv"].parked)
    """
    assert check(code).split() == ["True", "b'x'", "1"]


def test_many_goroutines_in_recv_take_no_threads():
    pairs = [socket.socketpair() for _ in range(300)]
    before, (was, _) = os_threads(), counts("recv")
    readers = [gort.go(b.recv, 10) for _, b in pairs]
    parked(*readers)
    assert os_threads() <= before + 4
    assert {g.status for g in readers} != {"blocked"}
    for i, (a, _) in enumerate(pairs):
        a.send(b"%d" % i)
    assert join_all(readers) == [b"%d" % i for i in range(300)]
    assert counts("recv")[0] >= was + 300
    for a, b in pairs:
        a.close()
        b.close()


def test_ten_thousand_sleeps_take_no_threads():
    before, started = os_threads(), time.monotonic()
    join_all([gort.go(time.sleep, 0.2) for _ in range(10_000)], 40)
    assert os_threads() <= before + 4
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("seconds", [0, 1e-9, 0.001, 0.02])
def test_sleep_is_long_enough(anywhere, seconds):
    def body():
        start = time.monotonic()
        time.sleep(seconds)
        return time.monotonic() - start

    assert anywhere(body) >= seconds


def test_wrong_sleeps_are_refused(anywhere):
    def body(seconds):
        with pytest.raises((ValueError, OverflowError)):
            time.sleep(seconds)

    for seconds in (-1, float("nan"), 1e300):
        anywhere(body, seconds)


# locks, queues and what is made of them, in every direction

PLACES = ("main", "goroutine", "thread")


@pytest.fixture(params=[(a, b) for a in PLACES for b in ("goroutine", "thread")], ids="-".join)
def sides(request):
    """How to call a function here, and how to start one beside it; its end is waited for."""
    here, there = request.param

    def start(body):
        return gort.go(body) if there == "goroutine" else waiting.OnThread(body)

    return getattr(waiting, f"in_{here}"), start


def test_queue_hands_over(sides):
    call, start = sides
    for size in (0, 1, 3):
        box = queue.Queue(size)

        def feed(box=box):
            for i in range(150):
                box.put(i)

        other = start(feed)
        assert call(lambda box=box: [box.get(timeout=LIMIT) for _ in range(150)]) == [*range(150)]
        other.join(timeout=LIMIT)
        simple = queue.SimpleQueue()
        other = start(lambda simple=simple: [simple.get() for _ in range(50)])
        call(lambda simple=simple: [simple.put(i) for i in range(50)])
        assert other.join(timeout=LIMIT) == [*range(50)]


def test_queue_get_times_out(anywhere):
    def body():
        start = time.monotonic()
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=0.01)
        with pytest.raises(queue.Empty):
            queue.SimpleQueue().get(timeout=0.01)
        return time.monotonic() - start

    assert anywhere(body) >= 0.02


def test_event_condition_semaphore_and_barrier(sides):
    call, start = sides
    ready, go_on = threading.Event(), threading.Event()
    condition, sem, barrier = threading.Condition(), threading.Semaphore(0), threading.Barrier(2)
    turn, out = [0], []

    def play(me):
        for i in range(25):
            with condition:
                assert condition.wait_for(lambda: turn[0] == me, LIMIT)
                out.append((i, me))
                turn[0] = 1 - me
                condition.notify_all()

    def there():
        ready.set()
        assert go_on.wait(LIMIT)
        play(1)
        sem.release(3)
        return barrier.wait(LIMIT)

    def here():
        assert ready.wait(LIMIT)
        go_on.set()
        play(0)
        for _ in range(3):
            assert sem.acquire(timeout=LIMIT)
        return barrier.wait(LIMIT)

    other = start(there)
    assert {call(here), other.join(timeout=LIMIT)} == {0, 1}
    assert out == [(i, me) for i in range(25) for me in (0, 1)]


def test_a_lock_is_handed_over_by_whoever_releases_it(sides):
    call, start = sides
    lock = threading.Lock()
    lock.acquire()
    other = start(lock.release)
    assert call(lock.acquire, True, LIMIT)
    other.join(timeout=LIMIT)
    assert lock.locked()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "Event", "Condition"])
def test_timed_waits_time_out(anywhere, kind):
    def body():
        thing = getattr(threading, kind)() if kind != "Semaphore" else threading.Semaphore(0)
        start = time.monotonic()
        if kind in ("Lock", "RLock"):
            in_thread(thing.acquire)
            assert thing.acquire(timeout=0.01) is False
            assert thing.acquire(blocking=False) is False
        elif kind == "Semaphore":
            assert thing.acquire(timeout=0.01) is False
        elif kind == "Event":
            assert thing.wait(0.01) is False
        else:
            with thing:
                assert thing.wait(0.01) is False
        return time.monotonic() - start

    assert anywhere(body) >= 0.0099


def test_one_lock_under_all_of_them():
    lock, total = threading.Lock(), [0]

    def work():
        for i in range(200):
            with lock:
                seen = total[0]
                if i % 20 == 0:
                    time.sleep(0.00005)
                total[0] = seen + 1

    threads = [waiting.OnThread(work) for _ in range(3)]
    goroutines = [gort.go(work) for _ in range(10)]
    work()
    join_all(goroutines)
    join_all(threads)
    assert total == [14 * 200]


def test_executor_serves_goroutines():
    from concurrent.futures import ThreadPoolExecutor, wait

    with ThreadPoolExecutor(4) as pool:

        def body(i):
            futures = [pool.submit(pow, i, k) for k in range(5)]
            done, late = wait(futures, timeout=LIMIT)
            assert not late
            return [f.result() for f in futures]

        got = join_all([gort.go(body, i) for i in range(40)])
    assert got == [[i**k for k in range(5)] for i in range(40)]


def test_thread_is_joined_by_goroutines():
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, daemon=True)
    thread.start()
    joins = [gort.go(thread.join, LIMIT) for _ in range(10)]
    parked(*joins)
    gate.set()
    join_all(joins)
    assert not thread.is_alive()


# poll and its kin


def ways():
    """Functions that tell whether a descriptor becomes readable in time, by different calls."""

    def by_select(fd, timeout):
        return bool(select.select([fd], [], [], timeout)[0])

    def by_poll(fd, timeout):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def by_epoll(fd, timeout):
        with select.epoll() as epoll:
            epoll.register(fd, select.EPOLLIN)
            return bool(epoll.poll(timeout))

    def by_selectors(fd, timeout):
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    return [by_select, by_poll, by_epoll, by_selectors]


@pytest.mark.parametrize("way", ways(), ids=lambda way: way.__name__)
def test_waiting_for_a_descriptor(anywhere, way):
    a, b = socket.socketpair()
    with a, b:
        start = time.monotonic()
        assert anywhere(way, b.fileno(), 0) is False
        assert anywhere(way, b.fileno(), 0.01) is False
        assert time.monotonic() - start >= 0.01

        def both(timeout):
            g = gort.go(way, b.fileno(), timeout)
            parked(g)
            a.send(b"x")
            got = g.join(timeout=LIMIT)
            b.recv(1)
            return got

        assert anywhere(both, LIMIT)
        assert anywhere(both, None)
        a.close()
        assert anywhere(way, b.fileno(), LIMIT)


def test_one_poll_over_many_descriptors_is_woken_by_each():
    pairs = [socket.socketpair() for _ in range(100)]
    (r, w) = os.pipe()
    with open(r, "rb", 0), open(w, "wb", 0):

        def body(seen):
            poll = select.poll()
            for _, b in pairs:
                poll.register(b, select.POLLIN)
            poll.register(r, select.POLLIN)
            while len(seen) < 100:
                for fd, _ in poll.poll(LIMIT * 1000):
                    seen.append(fd)
                    poll.unregister(fd)
            return len(set(seen))

        goroutines = [gort.go(body, []) for _ in range(5)]
        parked(*goroutines)
        for a, _ in pairs:
            a.send(b"x")
            gort.gosched()
        assert join_all(goroutines) == [100] * 5
    for a, b in pairs:
        a.close()
        b.close()


def test_epoll_wait_of_several_goroutines_on_one_epoll():
    pairs = [socket.socketpair() for _ in range(20)]
    with select.epoll() as epoll:
        for _, b in pairs:
            epoll.register(b, select.EPOLLIN | select.EPOLLONESHOT)
        seen, end = [], threading.Event()

        def body():
            while not end.is_set():
                seen.extend(fd for fd, _ in epoll.poll(0.01, 1))

        goroutines = [gort.go(body) for _ in range(5)]
        for a, _ in pairs:
            a.send(b"x")
        eventually(lambda: len(seen) >= 20)
        end.set()
        join_all(goroutines)
        assert sorted(seen) == sorted(b.fileno() for _, b in pairs)
    for a, b in pairs:
        a.close()
        b.close()


# processes and names


def test_fifty_goroutines_run_processes():
    def body(i):
        done = subprocess.run(
            ["/bin/sh", "-c", f"read line; echo ${{line}}{i}; exit {i % 7}"],
            input=b"in\n", capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    got = join_all([gort.go(body, i) for i in range(50)], 50)
    assert got == [(i % 7, b"in%d\n" % i) for i in range(50)]


def test_communicate_wait_and_time_out_of_a_process():
    def body():
        with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
            with pytest.raises(subprocess.TimeoutExpired):
                cat.wait(timeout=0.02)
            out, _ = cat.communicate(b"z" * 300_000, timeout=LIMIT)
            return len(out), cat.wait(timeout=LIMIT)

    assert in_goroutine(body) == (300_000, 0)


def test_waitpid_parks_and_reaps():
    before, (was, _) = os_threads(), counts("waitpid")
    holders = [subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) for _ in range(30)]
    waits = [gort.go(os.waitpid, p.pid, 0) for p in holders]
    parked(*waits)
    assert os_threads() <= before + 4
    for p in holders:
        p.stdin.close()
    assert join_all(waits) == [(p.pid, 0) for p in holders]
    assert counts("waitpid")[0] >= was + 30
    for p in holders:
        p.returncode = 0

    def nobody():
        with pytest.raises(ChildProcessError):
            os.waitpid(holders[0].pid, 0)
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_PID, holders[0].pid, os.WEXITED)

    in_goroutine(nobody)


def test_waitid_leaves_the_child_with_wnowait():
    def body():
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        seen = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert (seen.si_pid, seen.si_status) == (child.pid, 3)
        return child.wait(timeout=LIMIT)

    assert in_goroutine(body) == 3


def test_fifty_goroutines_resolve_names():
    def body(i):
        found = socket.getaddrinfo("localhost", 1000 + i, type=socket.SOCK_STREAM)
        assert {entry[4][1] for entry in found} == {1000 + i}
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("no host of this name", 1)
        return socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)

    before = os_threads()
    assert join_all([gort.go(body, i) for i in range(50)]) == [("127.0.0.1", "80")] * 50
    assert os_threads() <= before + 20
