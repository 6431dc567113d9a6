"""Stacks of parked goroutines give their memory back, and nobody notices: not who wakes, not who looks."""

from __future__ import annotations

import gc
import re
import sys
import threading

import gort
import pytest
from children import check, child
from gort import sync
from waiting import LIMIT, eventually, join_all, parked

pytestmark = pytest.mark.usefixtures("everybody_ends")


#: Stacks of goroutines that other tests left behind.
left_behind = 0


@pytest.fixture
def everybody_ends():
    global left_behind
    before = gort.num_goroutine()
    gort.memory.trim()
    left_behind = gort.memory.stats()["stacks_saved"]
    yield
    eventually(lambda: gort.num_goroutine() <= before)


def saved():
    return gort.memory.stats()["stacks_saved"] - left_behind


def trimmed(*goroutines):
    """Wait until all are parked, and trims have saved as many stacks; how many are saved."""
    parked(*goroutines)
    eventually(lambda: (gort.memory.trim(), saved())[1] >= len(goroutines), what="saved stacks")
    return saved()


def deep(levels, wait):
    """`wait()` at the bottom of some frames with locals of their own."""
    mine = [levels, str(levels) * 3]
    if levels:
        got = deep(levels - 1, wait)
    else:
        got = wait()
    assert mine == [levels, str(levels) * 3]
    return got


def chan_pair():
    ch = gort.Chan()
    return ch.recv, lambda: ch.send("value"), "value"


def send_pair():
    ch = gort.Chan()
    return lambda: ch.send("value"), lambda: ch.recv() == "value" or 1 / 0, None


def mutex_pair():
    lock = sync.Mutex()
    lock.lock()

    def wait():
        lock.lock()
        lock.unlock()

    return wait, lock.unlock, None


def rwmutex_pair():
    lock = sync.RWMutex()
    lock.lock()

    def wait():
        lock.rlock()
        lock.runlock()

    return wait, lock.unlock, None


def waitgroup_pair():
    group = sync.WaitGroup()
    group.add(1)
    return group.wait, group.done, None


def semaphore_pair():
    semaphore = sync.Semaphore(1)
    semaphore.acquire(1)
    return lambda: semaphore.acquire(1), lambda: semaphore.release(1), None


def join_pair():
    ch = gort.Chan()
    g = gort.go(ch.recv)
    return g.join, lambda: ch.send("value"), "value"


def select_pair():
    a, b, never = gort.Chan(), gort.Chan(), gort.Chan()

    def wait():
        index, value, ok = gort.select(gort.recv(a), gort.send(b, object()), gort.recv(never))
        assert (index, ok) == (0, True)
        return value

    return wait, lambda: a.send("value"), "value"


def select_send_pair():
    chans = [gort.Chan() for _ in range(12)]
    values = [object() for _ in chans]

    def wait():
        cases = [gort.send(ch, value) for ch, value in zip(chans, values, strict=True)]
        return gort.select(*cases, gort.recv(gort.Chan()))[0]

    return wait, lambda: chans[7].recv() is values[7] or 1 / 0, 7


PAIRS = [
    chan_pair,
    send_pair,
    mutex_pair,
    rwmutex_pair,
    waitgroup_pair,
    semaphore_pair,
    join_pair,
    select_pair,
    select_send_pair,
]


@pytest.mark.parametrize("levels", [0, 3, 40])
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
def test_who_was_saved_goes_on_as_if_nothing_was(pair, levels):
    wait, wake, value = pair()
    g = gort.go(deep, levels, wait)
    assert trimmed(g) >= 1
    wake()
    assert g.join(timeout=LIMIT) == value
    assert saved() == 0


def test_saved_again_and_again():
    ch, got = gort.Chan(), []

    def takes():
        for value in ch:
            got.append(value)

    gs = [gort.go(deep, i % 7, takes) for i in range(20)]
    for i in range(50):
        assert trimmed(*gs) >= 1
        ch.send(i)
    ch.close()
    join_all(gs)
    assert sorted(got) == list(range(50))


@pytest.mark.parametrize("how", ["cancel", "deadline", "close"])
def test_waits_of_who_was_saved_end_in_any_way(how):
    ch = gort.Chan()
    g = gort.go(deep, 3, lambda: ch.recv(timeout=None if how != "deadline" else 1.5))
    assert trimmed(g) >= 1
    if how == "cancel":
        g.cancel()
        with pytest.raises(gort.Cancelled):
            g.join(timeout=LIMIT)
    elif how == "close":
        ch.close()
        with pytest.raises(gort.ChanClosed):
            g.join(timeout=LIMIT)
    else:
        with pytest.raises(TimeoutError):
            g.join(timeout=LIMIT)
    ch.close() if how == "cancel" else None


def test_exception_has_the_frames_of_who_was_saved():
    def fails():
        ch.recv()
        raise KeyError("after")

    ch = gort.Chan()
    g = gort.go(deep, 2, fails)
    assert trimmed(g) >= 1
    ch.send(None)
    with pytest.raises(KeyError) as caught:
        g.join(timeout=LIMIT)
    names = [entry.name for entry in caught.traceback]
    assert names[-4:] == ["deep", "deep", "deep", "fails"]


def test_objects_held_by_who_was_saved_survive_the_collector():
    class Held:
        pass

    def holds():
        big, held = bytes(1 << 20), [Held()]
        held.append(held)
        ch.recv()
        return len(big), held[1] is held

    ch = gort.Chan()
    gs = [gort.go(deep, 3, holds) for _ in range(10)]
    assert trimmed(*gs) >= 10
    for _ in range(3):
        gc.collect()
    assert sum(isinstance(o, Held) for o in gc.get_objects()) == 10
    for _ in gs:
        ch.send(None)
    assert join_all(gs) == [(1 << 20, True)] * 10
    gc.collect()
    assert sum(isinstance(o, Held) for o in gc.get_objects()) == 0


def chain(frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_frames_of_who_was_saved_are_seen():
    def waits():
        here = "seen"
        ids.append(threading.get_ident())
        ch.recv()
        return here

    ids, ch = [], gort.Chan()
    # sorted and map enter the evaluator anew: an entry on the C stack between frames.
    g = gort.go(lambda: sorted([1], key=lambda _: next(map(lambda _: deep(2, waits), [1]))))
    assert trimmed(g) >= 1
    frame = sys._current_frames()[ids[0]]
    assert frame.f_locals["here"] == "seen"
    names = ["waits", "deep", "deep", "deep", "<lambda>", "<lambda>", "<lambda>"]
    assert chain(frame) == names
    del frame
    gc.collect()
    assert chain(sys._current_frames()[ids[0]]) == names
    ch.send(None)
    assert g.join(timeout=LIMIT) == [1]


def test_generators_that_wait_are_saved():
    def numbers():
        while True:
            yield ch.recv()

    def takes():
        return [next(source) for _ in range(3)]

    ch = gort.Chan()
    source = numbers()
    g = gort.go(deep, 2, takes)
    for i in range(3):
        assert trimmed(g) >= 1
        gc.collect()
        ch.send(i)
    assert g.join(timeout=LIMIT) == [0, 1, 2]
    source.close()


def test_who_waits_in_a_pass_of_the_collector_keeps_its_stack():
    """Heads of the collector's lists lie there, and who lets go of an object of the pass writes into them."""

    class Waits:
        def __del__(self):
            told.send(self.others)
            ch.recv()

    class Other:
        pass

    def collects():
        cycle = Waits()
        cycle.others = [Other() for _ in range(100)]
        for other in cycle.others:
            other.cycle = cycle
        del cycle, other
        return gc.collect()

    ch, told = gort.Chan(), gort.Chan()
    g = gort.go(collects)
    others = told.recv(timeout=LIMIT)
    parked(g)
    assert gort.memory.trim() == 0 and saved() == 0
    del others[:50]  # what is left of these goes out of the collector's lists now
    for other in others:
        other.__dict__.clear()
    del others, other
    ch.send(None)
    assert g.join(timeout=LIMIT) >= 0
    for _ in range(3):
        gc.collect()
    assert trimmed(late := gort.go(ch.recv)) >= 1
    ch.send(None)
    late.join(timeout=LIMIT)


def test_thread_locals_and_context_of_who_was_saved():
    import contextvars

    local, var = threading.local(), contextvars.ContextVar("var")

    def waits(n):
        local.n, _ = n, var.set(n)
        try:
            raise ValueError(n)
        except ValueError:
            ch.recv()
            return local.n, var.get(), sys.exc_info()[1].args[0]

    ch = gort.Chan()
    gs = [gort.go(waits, n) for n in range(10)]
    assert trimmed(*gs) >= 10
    for _ in gs:
        ch.send(None)
    assert join_all(gs) == [(n, n, n) for n in range(10)]


def test_waits_in_c_code_and_sleeps_stay_right_beside():
    code = """
import os, socket, time, threading
import gort
from gort import go
from waiting import parked, eventually
a, b = socket.socketpair()
lock = threading.Lock()
lock.acquire()
def locks():
    with lock: return "lock"
done = gort.Chan()
gs = [go(a.recv, 1), go(locks), go(gort.select, gort.recv(done)), go(done.recv)]
parked(*gs)
for _ in range(5): gort.memory.trim()
b.send(b"x"); lock.release(); done.close()
got = [gs[0].join(timeout=20), gs[1].join(timeout=20)]
try: gs[3].join(timeout=20)
except gort.ChanClosed: print(*got)
gs[2].join(timeout=20)
"""
    check(code, "b'x' lock")


def test_connections_that_idle_give_their_stacks_back():
    code = """
import gort, socket
from gort import go
from waiting import eventually, parked
server = socket.create_server(("127.0.0.1", 0), backlog=200)
def serves(conn):
    total = 0
    with conn:
        while data := conn.recv(4096):
            total += len(data)
            conn.sendall(data)
    return total
def accepts(): return [go(serves, server.accept()[0]) for _ in range(100)]
acceptor = go(accepts)
def connects():
    conn = socket.create_connection(server.getsockname())
    conn.sendall(b"hello")
    assert conn.recv(5, socket.MSG_WAITALL) == b"hello"
    return conn
conns = [go(connects).join(timeout=20) for _ in range(100)]
served = acceptor.join(timeout=20)
for _ in range(3):
    parked(*served)
    gort.memory.trim()
    assert gort.memory.stats()["stacks_saved"] >= 100
    for conn in conns:
        conn.sendall(b"again")
        assert conn.recv(5, socket.MSG_WAITALL) == b"again"
for conn in conns: conn.close()
print({g.join(timeout=20) for g in served})
"""
    check(code, "{20}")


def test_foreign_callback_keeps_its_stack():
    import ctypes

    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    ch, libc = gort.Chan(), ctypes.CDLL(None)
    numbers = (ctypes.c_int * 3)(3, 1, 2)

    def wait_and_compare(a, b):
        ch.recv()
        a, b = (ctypes.cast(p, ctypes.POINTER(ctypes.c_int))[0] for p in (a, b))
        return (a > b) - (a < b)

    function = compare(wait_and_compare)
    g = gort.go(libc.qsort, numbers, 3, 4, function)
    while not g.done:
        eventually(lambda: g.done or g.status == "chan receive")
        gort.memory.trim()
        ch.try_send(None)
    assert list(numbers) == [1, 2, 3]


def test_fork_with_saved_goroutines():
    code = """
import os, warnings, gort
warnings.simplefilter("ignore")  # fork beside threads
from gort import go
from waiting import parked
ch = gort.Chan()
gs = [go(ch.recv) for _ in range(300)]
parked(*gs)
assert gort.memory.trim() >= 300
pid = os.fork()
if pid == 0:
    assert gort.memory.stats()["stacks_saved"] == 0
    own = gort.Chan()
    mine = [go(own.recv) for _ in range(200)]
    parked(*mine)
    assert gort.memory.trim() >= 200
    for i in range(200): own.send(i)
    assert sorted(g.join(timeout=20) for g in mine) == list(range(200))
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
for i in range(300): ch.send(i)
print(sorted(g.join(timeout=20) for g in gs) == list(range(300)))
"""
    check(code, "True")


def test_stacks_shrink_by_themselves_and_the_memory_is_back():
    code = """
import gort; from waiting import eventually, parked
def used():
    with open("/proc/self/status") as lines: fields = dict(line.split(":") for line in lines)
    return 1024 * sum(int(fields[key].split()[0]) for key in ("VmRSS", "VmPTE"))
def one(ch): return two(ch)
def two(ch): return ch.recv()
ch, n = gort.Chan(), 10_000
while True:
    gs = [gort.go(one, ch) for _ in range(n)]
    parked(*gs[-100:])
    full = used()
    if gort.memory.stats()["stacks_saved"] == 0: break
    for i in range(n): ch.send(i)  # it took so long that some are saved already: once more
    for g in gs: g.join()
eventually(lambda: gort.memory.stats()["stacks_saved"] == n)
freed = (full - used()) / n
assert freed > 2900, freed
for i in range(n): ch.send(i)
assert sorted(g.join() for g in gs) == list(range(n))
print(gort.memory.stats()["stacks_saved"])
"""
    check(code, "0", GORT_SHRINK="500")


@pytest.mark.parametrize("value, text", [("x", "GORT_SHRINK=x"), ("-1", "GORT_SHRINK=-1")])
def test_bad_setting_is_refused(value, text):
    done = child("import gort\ngort.go(print)", GORT_SHRINK=value)
    assert done.returncode == 1
    assert re.search(text, done.stderr)


def test_deep_stack_is_given_back():
    code = """
import gc, gort
from waiting import parked
def used():
    with open("/proc/self/statm") as line: return int(line.read().split()[1]) * 4096
def down(n):
    return sorted([n], key=lambda n: n and down(n - 1))
def goes_deep(ch):
    down(25)  # native stack: 4 KiB each
    return ch.recv()
ch, n = gort.Chan(), 300
def crowd(f):
    gs = [gort.go(f, ch) for _ in range(n)]
    parked(*gs)
    return gs
flat = crowd(lambda ch: ch.recv())
gort.memory.trim(); gc.collect()
before = used()
deep = crowd(goes_deep)
grown = used() - before
gort.memory.trim(); gc.collect()
left = used() - before
assert grown > n * 40_000, grown / n
assert left < 0.2 * grown, (left / n, grown / n)
for i in range(2 * n): ch.send(i)
print(sorted(g.join(timeout=20) for g in flat + deep) == list(range(2 * n)))
"""
    check(code, "True", GORT_SHRINK="0")
