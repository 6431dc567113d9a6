"""Forks beside a thousand parked goroutines and OS threads stuck in C calls: the child is fresh, the crowd goes on in the
parent. By os.fork, multiprocessing with each start method, and subprocess.
"""

from __future__ import annotations

import pytest
from forking import run

# Calls found by dlsym, which no hook of the boundary sees: they keep their OS threads.
CROWD = """
import ctypes, warnings
from concurrent.futures import ProcessPoolExecutor
from waiting import eventually, parked
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
libc = ctypes.CDLL(None)
r, w = os.pipe()
ch = Chan()
def block():
    place = ctypes.create_string_buffer(1)
    return libc.read(r, place, 1)
def in_read():
    "OS threads of this process that are in read(r, ...)."
    def call(task):
        try:
            with open(f"/proc/self/task/{task}/syscall") as lines: return lines.read().split()[:2]
        except OSError: return []  # it has ended
    return sum(call(task) == ["0", hex(r)] for task in os.listdir("/proc/self/task"))
crowd = [go(ch.recv) for _ in range(1000)]
stuck = [go(block) for _ in range(4)]
parked(*crowd)
eventually(lambda: in_read() == 4)
def goes_on():
    "The crowd is there as before, and ends."
    eventually(lambda: in_read() == 4)  # a thread that the kernel looks after for a moment is not seen
    assert not any(g.done for g in crowd + stuck)
    os.write(w, b"four")
    assert [g.join(timeout=20) for g in stuck] == [1] * 4
    for _ in crowd: ch.send("value")
    assert {g.join(timeout=20) for g in crowd} == {"value"}
    eventually(lambda: gort.num_goroutine() == 1)  # the last one joined may be on its way out
    use_everything(alone=False)
def fresh():
    "For a child: nobody else is here."
    assert gort.num_goroutine() == 1 and len(os.listdir("/proc/self/task")) == 1
    assert all(g.done for g in crowd + stuck)
    use_everything()
"""

PLACES = {"main": "{}", "a goroutine": "go(lambda: {}).join(timeout=50)"}


@pytest.mark.parametrize("boundary", ["1", "0"])
@pytest.mark.parametrize("place", PLACES)
def test_child_of_a_crowd_is_fresh_and_the_crowd_goes_on(place, boundary):
    call = PLACES[place].format("in_child(body)")
    code = f"""
def body():
    fresh()
    # and once more, beside a crowd of its own
    mine = Chan()
    others = [go(mine.recv) for _ in range(1000)]
    parked(*others)
    assert in_child(grandchild) == go(in_child, grandchild).join(timeout=50) == 0
    for _ in others: mine.send("mine")
    assert {{g.join(timeout=20) for g in others}} == {{"mine"}}
def grandchild():
    assert gort.num_goroutine() == 1
    use_everything()
assert {call} == 0
goes_on()
print("ok")
"""
    run(CROWD + code, GORT_BOUNDARY=boundary)


def test_a_hundred_forks_in_a_row_beside_a_crowd():
    run(
        CROWD
        + """
def small():
    mine = Chan()
    go(mine.send, 5)
    assert mine.recv(timeout=40) == 5 and ch.try_recv()[1:] == (False, False)
    gort.sleep(0.0001)
def ten(): return [in_child(small) for _ in range(10)]
for _ in range(5): assert ten() == go(ten).join(timeout=50) == [0] * 10
goes_on()
print("ok")
"""
    )


def test_children_of_a_crowd_that_live_at_once():
    """Each waits until all are there, and they end in another order than they came."""
    run(
        CROWD
        + """
def lives(n):
    ends = [socket.socketpair() for _ in range(n)]
    def body(mine):
        others = [go(Chan().recv) for _ in range(100)]
        mine.sendall(b"here")
        assert go(mine.recv, 1).join(timeout=20) == b"e"
    pids = [forked(body, a) for a, _ in ends]
    for _, b in ends: assert go(b.recv, 4).join(timeout=20) == b"here"
    for _, b in reversed(ends): b.sendall(b"e")
    return [code_of(pid) for pid in pids]
assert lives(5) == go(lives, 5).join(timeout=50) == [0] * 5
goes_on()
print("ok")
"""
    )


METHODS = {
    "fork": "multiprocessing.get_context('fork')",
    "forkserver": "multiprocessing.get_context('forkserver')",
    "forkserver that has imported gort": "multiprocessing.get_context('forkserver')",
    "spawn": "multiprocessing.get_context('spawn')",
}


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_beside_a_crowd(method):
    run(
        CROWD
        + f"""
context = {METHODS[method]}
if {"imported" in method}: context.set_forkserver_preload(["forking"])
def process(n):
    queue = context.Queue()
    p = context.Process(target=forking.put_square, args=(queue, n))
    p.start()
    got = queue.get(timeout=50)
    p.join(20)
    return got, p.exitcode
def pool(n):
    with context.Pool(2) as workers:
        return workers.map(forking.square, range(n))
def executor(n):
    with ProcessPoolExecutor(2, mp_context=context) as workers:
        return list(workers.map(forking.square, range(n)))
squares = [n * n for n in range(10)]
assert process(3) == go(process, 3).join(timeout=50) == (9, 0)
gs = [go(pool, 10), go(executor, 10), go(process, 4)]
assert [g.join(timeout=50) for g in gs] == [squares, squares, (16, 0)]
goes_on()
print("ok")
""",
    )


def test_subprocesses_beside_a_crowd():
    run(
        CROWD
        + """
def echo(n, **how): return subprocess.run(["echo", str(n)], capture_output=True, text=True, **how).stdout
gs = [go(echo, n) for n in range(10)]
gs += [go(echo, n, preexec_fn=lambda: go(gort.sleep, 0.001).join()) for n in range(10)]  # that one forks
assert [g.join(timeout=50) for g in gs] == [f"{n}\\n" for n in range(10)] * 2
goes_on()
print("ok")
"""
    )
