"""Who a goroutine is to code that asks for its thread, and what hangs on that: locks with owners,
import locks, buffers, sqlite3, logging, thread objects.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import queue
import sqlite3
import threading
import time

import gort
import pytest
from children import check
from waiting import LIMIT, eventually, hold, in_goroutine, in_thread, join_all, parked, settle

BOTH = pytest.mark.parametrize("boundary", ["1", "0"])


def test_each_goroutine_is_somebody_else():
    gate, idents = gort.Chan(), []

    def body():
        idents.append(threading.get_ident())
        gate.recv()

    goroutines = [gort.go(body) for _ in range(200)]
    eventually(lambda: len(idents) == 200)
    everybody = {*idents, threading.get_ident(), in_thread(threading.get_ident)}
    assert len(everybody) == 202
    for _ in goroutines:
        gate.send(None)
    join_all(goroutines)


def test_main_is_the_main_thread():
    main = threading.main_thread()
    assert threading.get_ident() == main.ident
    assert threading.current_thread() is main
    gort.gosched()
    gort.sleep(0.001)
    assert threading.current_thread() is main
    assert in_goroutine(threading.current_thread) is not main


def test_identity_stays_over_parks_and_moves():
    def body():
        me, native = threading.get_ident(), set()
        for i in range(40):
            if i % 4 == 0:
                hold(0.0003)
            elif i % 4 == 1:
                time.sleep(0.0003)
            else:
                gort.gosched()
            native.add(threading.get_native_id())
            assert threading.get_ident() == me
        return native

    threads = join_all([gort.go(body) for _ in range(20)])
    assert len(set().union(*threads)) > 1, "nobody moved: the test shows nothing"


def test_identity_is_the_same_from_c_and_in_the_thread_state():
    get = ctypes.pythonapi.PyThread_get_thread_ident
    get.restype = ctypes.c_ulong

    def body():
        return get() == threading.get_ident()

    assert in_goroutine(body)
    assert body()


def test_rlock_belongs_to_the_goroutine(anywhere):
    lock, order = threading.RLock(), []

    def first():
        with lock, lock:
            order.append("first in")
            time.sleep(0.002)
            gort.gosched()
            order.append("first out")

    def second():
        with lock:
            order.append("second in")

    def both():
        order.clear()
        a = gort.go(first)
        eventually(lambda: order)
        b = gort.go(second)
        join_all([a, b])
        return order

    assert anywhere(both) == ["first in", "first out", "second in"]


def test_rlock_of_another_goroutine_cannot_be_released():
    lock, gate = threading.RLock(), gort.Chan()

    def owner():
        with lock:
            gate.recv()

    g = gort.go(owner)
    parked(g)
    for place in (in_goroutine, in_thread, lambda f: f()):
        with pytest.raises(RuntimeError, match="un-acquired"):
            place(lock.release)
        assert place(lambda: lock.acquire(blocking=False)) is False
        assert place(lambda: lock.acquire(timeout=0.002)) is False
    gate.send(None)
    g.join(timeout=LIMIT)
    assert lock.acquire(blocking=False)
    lock.release()


def test_rlock_excludes_goroutines_main_and_threads():
    lock, count = threading.RLock(), [0]

    def work():
        for i in range(60):
            with lock, lock:
                seen = count[0]
                if i % 10 == 0:
                    time.sleep(0.0001)
                gort.gosched()
                count[0] = seen + 1

    others = [gort.go(work) for _ in range(4)]
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    work()
    join_all(others)
    thread.join(LIMIT)
    assert count == [360]


IMPORTS = """
    import importlib, os, sys, tempfile, threading, time, gort
    folder = tempfile.mkdtemp()
    sys.path.insert(0, folder)
    def module(name, *lines):
        with open(os.path.join(folder, name + ".py"), "w") as file:
            file.write("\\n".join(lines))
        importlib.invalidate_caches()
"""


@BOTH
def test_a_module_that_parks_while_it_is_imported_runs_once(boundary):
    code = """
    module("slow", "import gort, time, builtins",
        "builtins.runs = getattr(builtins, 'runs', 0) + 1",
        "gort.gosched(); time.sleep(0.01); gort.sleep(0.005)", "value = 7")
    def body():
        import slow
        return slow.value
    both = [gort.go(body) for _ in range(30)]
    thread = threading.Thread(target=body); thread.start()
    body()
    print({g.join() for g in both}, runs)
    thread.join()
    """
    check(IMPORTS + code, "{7} 1", GORT_BOUNDARY=boundary)


@BOTH
def test_goroutines_that_import_each_others_modules_do_not_deadlock(boundary):
    code = """
    for a, b in ("xy", "yx"):
        module(f"cross_{a}", "import gort, time", "gort.sleep(0.01); time.sleep(0.01)",
            f"import cross_{b}", "done = True")
    def body(name):
        return __import__(name).__name__
    both = [gort.go(body, "cross_x"), gort.go(body, "cross_y")]
    print(*[g.join(timeout=20) for g in both])
    import cross_x, cross_y
    assert cross_x.done and cross_y.done
    """
    check(IMPORTS + code, "cross_x cross_y", GORT_BOUNDARY=boundary)


@BOTH
def test_an_import_that_fails_while_others_wait_for_it_hangs_nobody(boundary):
    code = """
    module("bad", "import time; time.sleep(0.005); raise ValueError('no')")
    def body():
        try:
            import bad  # who waited for it gets the unfinished module, as threads do
        except ValueError:
            return "raised"
        return "waited"
    ends = [g.join(timeout=20) for g in [gort.go(body) for _ in range(20)]]
    print("raised" in ends, set(ends) <= {"raised", "waited"}, "bad" in sys.modules)
    """
    check(IMPORTS + code, "True True False", GORT_BOUNDARY=boundary)


class Slow(io.RawIOBase):
    """A raw file whose calls park, and that notes whether two of them overlap."""

    def __init__(self, size):
        self.size, self.inside, self.written = size, 0, []

    def readable(self):
        return True

    def writable(self):
        return True

    def inside_alone(self):
        self.inside += 1
        assert self.inside == 1, "two goroutines inside one buffer"
        gort.gosched()
        time.sleep(0.0002)
        self.inside -= 1

    def readinto(self, buffer):
        self.inside_alone()
        n = min(len(buffer), self.size, 100)
        self.size -= n
        buffer[:n] = b"x" * n
        return n

    def write(self, data):
        self.inside_alone()
        self.written.append(bytes(data[:150]))
        return min(len(data), 150)


def test_buffered_reader_is_one_goroutines_at_a_time():
    reader = io.BufferedReader(Slow(20_000), 64)
    counts = join_all([gort.go(lambda: len(reader.read(1000))) for _ in range(20)])
    assert counts == [1000] * 20


def test_buffered_writer_is_one_goroutines_at_a_time():
    raw = Slow(0)
    writer = io.BufferedWriter(raw, 64)
    join_all([gort.go(writer.write, bytes([65 + i]) * 50) for i in range(20)])
    writer.flush()
    data = b"".join(raw.written)
    assert len(data) == 1000
    assert {data.count(bytes([65 + i])) for i in range(20)} == {50}


def test_reentrant_call_of_a_buffer_is_still_found():
    class Again(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            time.sleep(0.001)
            writer.write(b"again")

    writer = io.BufferedWriter(Again(), 4)

    def body():
        with pytest.raises(RuntimeError, match="reentrant call"):
            writer.write(b"abcd")  # 3.13 writes as soon as the buffer is full
            writer.flush()

    in_goroutine(body)
    writer.raw.write = len  # or the end of the writer would try again


def test_sqlite_connection_belongs_to_its_goroutine():
    made, gate = gort.Chan(), gort.Chan()

    def make():
        connection = sqlite3.connect(":memory:")
        connection.execute("create table t(x)")
        time.sleep(0.001)
        gort.gosched()
        connection.execute("insert into t values (1)")
        made.send(connection)
        gate.recv()  # the next goroutine may have the identity of one that has ended
        connection.close()

    maker = gort.go(make)
    connection = made.recv()
    for place in (in_goroutine, in_thread, lambda f, *a: f(*a)):
        with pytest.raises(sqlite3.ProgrammingError, match="same thread"):
            place(connection.execute, "select 1")
    gate.send(None)
    maker.join(timeout=LIMIT)
    free = in_goroutine(lambda: sqlite3.connect(":memory:", check_same_thread=False))
    assert in_goroutine(lambda: free.execute("select 2").fetchone()) == (2,)
    free.close()


def test_sqlite_files_written_by_many_goroutines(tmp_path):
    path = tmp_path / "t.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t(x)")
    connection.close()

    def body(i):
        mine = sqlite3.connect(path, timeout=LIMIT)
        with mine:
            mine.execute("insert into t values (?)", (i,))
        mine.close()

    join_all([gort.go(body, i) for i in range(20)])
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*), sum(x) from t").fetchone() == (20, 190)
    connection.close()


def test_current_thread_is_the_goroutines_own_and_keeps_its_attributes():
    def body(i):
        me = threading.current_thread()
        me.mark = i
        assert me.is_alive()
        gort.gosched()
        time.sleep(0.001)
        assert threading.current_thread() is me
        assert me.ident == threading.get_ident()
        assert threading._active[me.ident] is me
        return me.mark

    assert join_all([gort.go(body, i) for i in range(50)]) == list(range(50))


def test_ended_goroutines_leave_no_thread_objects():
    def body():
        gort.gosched()
        return threading.current_thread().name

    join_all([gort.go(body) for _ in range(20)])
    before = len(threading._active)
    for _ in range(5):
        names = join_all([gort.go(body) for _ in range(200)])
        assert len(names) == 200
    settle()
    assert len(threading._active) <= before + 5
    assert threading.main_thread() in threading.enumerate()


def test_thread_object_of_an_earlier_goroutine_is_not_found_again():
    def mark():
        threading.current_thread().mark = True

    def look():
        return hasattr(threading.current_thread(), "mark")

    for _ in range(50):
        in_goroutine(mark)
        assert in_goroutine(look) is False


def test_thread_local_follows_the_goroutine():
    local = threading.local()

    def body(i):
        local.value = i
        for _ in range(5):
            time.sleep(0.0005)
            gort.gosched()
            assert local.value == i
        return local.value

    assert join_all([gort.go(body, i) for i in range(50)]) == list(range(50))
    assert not hasattr(local, "value")


def test_logging_from_goroutines_and_threads_keeps_lines_whole():
    class Parks(io.StringIO):
        def write(self, text):
            for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                super().write(part)
                time.sleep(0.0001)
                gort.gosched()

    stream = Parks()
    log = logging.getLogger("gort.test.boundary")
    log.propagate = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(thread)d %(message)s"))
    log.addHandler(handler)

    everybody = threading.Barrier(23)  # who has ended leaves its ident to others

    def body(i):
        everybody.wait(LIMIT)
        for k in range(4):
            log.warning("line %d %d", i, k)

    threads = [threading.Thread(target=body, args=(100 + i,), daemon=True) for i in range(3)]
    for thread in threads:
        thread.start()
    join_all([gort.go(body, i) for i in range(20)])
    for thread in threads:
        thread.join(LIMIT)
    log.removeHandler(handler)
    lines = [line.split(maxsplit=1) for line in stream.getvalue().splitlines()]
    assert len(lines) == 92
    assert {line for _, line in lines} == {
        f"line {i} {k}" for i in [*range(20), 100, 101, 102] for k in range(4)
    }
    assert len({ident for ident, _ in lines}) == 23


def test_queue_handler_and_listener_between_goroutines():
    import logging.handlers

    seen = []

    class Keep(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    box = queue.Queue()
    listener = logging.handlers.QueueListener(box, Keep())
    log = logging.getLogger("gort.test.queue")
    log.propagate = False
    handler = logging.handlers.QueueHandler(box)
    log.addHandler(handler)
    listener.start()
    join_all([gort.go(log.warning, "%d", i) for i in range(50)])
    listener.stop()
    log.removeHandler(handler)
    assert sorted(seen, key=int) == [str(i) for i in range(50)]


@BOTH
def test_names_and_thread_objects_in_children(boundary):
    code = """
    import gort, threading, time
    def body():
        time.sleep(0.001)
        t = threading.current_thread()
        return t.ident == threading.get_ident(), t.daemon, t is threading.main_thread()
    print({g.join() for g in [gort.go(body) for _ in range(50)]})
    assert threading.current_thread() is threading.main_thread()
    assert threading.get_ident() == threading.main_thread().ident
    """
    check(code, "{(True, True, False)}", GORT_BOUNDARY=boundary)


@BOTH
def test_spawn_gets_no_slower_where_nobody_asks_for_a_thread_object(boundary):
    code = """
    import gort, threading, time
    def asks(): threading.current_thread()
    def plain(): pass
    def many(f, n=2000):
        start = time.perf_counter()
        for g in [gort.go(f) for _ in range(n)]: g.join()
        return time.perf_counter() - start
    many(plain), many(asks)
    best = min(many(plain) for _ in range(7))
    active = len(threading._active)
    again = min(many(plain) for _ in range(7))
    print(active < 50, again < 3 * best)
    """
    check(code, "True True", GORT_BOUNDARY=boundary)


def test_os_thread_names_of_goroutines_do_not_reach_the_os_thread():
    def body():
        import threading

        threading.current_thread().name = "renamed"
        return os.readlink("/proc/thread-self")

    assert in_goroutine(body)
    with open(f"/proc/self/task/{os.getpid()}/comm") as file:
        assert "renamed" not in file.read()
