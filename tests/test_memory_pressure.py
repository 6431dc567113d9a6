"""When the system is short of memory all who are parked give their stacks back, and the heap what it has free."""

from __future__ import annotations

from children import check


def test_all_who_are_parked_give_their_stacks_back_at_once():
    code = """
import gort
from gort._core import _memory_give_all_back
from waiting import eventually, parked
ch, n = gort.Chan(), 2000
gs = [gort.go(ch.recv) for _ in range(n)]
parked(*gs)
assert gort.memory.stats()["stacks_saved"] < n
_memory_give_all_back()
eventually(lambda: gort.memory.stats()["stacks_saved"] == n)
for i in range(n): ch.send(i)
print(sorted(g.join(timeout=20) for g in gs) == list(range(n)))
"""
    check(code, "True", GORT_SHRINK="1000000")


def test_a_pass_in_progress_gives_way_to_one_that_is_asked_for():
    """Those that the pass has gone by would be left as they are, until the next one."""
    code = """
import gort
from gort._core import _memory_give_all_back
from waiting import eventually
ch, n = gort.Chan(), 20_000
def receives_twice():
    ch.recv(); ch.recv()
def all_wait(gs):
    while any(g.status != "chan receive" for g in gs): gort.gosched()
gs = [gort.go(receives_twice) for _ in range(n)]
all_wait(gs)
_memory_give_all_back()
eventually(lambda: gort.memory.stats()["stacks_saved"])
for _ in range(100): ch.send(None)  # those who came first, whose stacks are saved first
all_wait(gs[:100])
_memory_give_all_back()
eventually(lambda: gort.memory.stats()["stacks_saved"] == n)
ch.close()
for g in gs:
    try: g.join()
    except gort.ChanClosed: pass
print(True)
"""
    check(code, "True", GORT_SHRINK="1000000")


def test_who_looks_is_there_while_there_are_goroutines_and_after_a_fork():
    """The file that tells is opened once there are enough to matter, and a child has one of its own."""
    code = """
import os, warnings, gort
from gort._core import _memory_pressure
from waiting import eventually, parked
warnings.simplefilter("ignore")  # fork beside threads
NAMES = ("/pressure/memory", "/memory.pressure", "/memory.events")
def files():
    found = []
    for number in os.listdir("/proc/self/fd"):
        try: name = os.readlink(f"/proc/self/fd/{number}")
        except OSError: continue
        found += [number] * name.endswith(NAMES)
    return found
wanted = int(_memory_pressure() is not None)
assert files() == []
ch = gort.Chan()
def crowd():
    gs = [gort.go(ch.recv) for _ in range(300)]
    parked(*gs)
    eventually(lambda: len(files()) == wanted)
crowd()
pid = os.fork()
if pid == 0:
    gort.go(int).join()
    eventually(lambda: files() == [])
    crowd()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), gort.memory.stats()["pressures"] >= 0)
ch.close()
"""
    check(code, "7 True")
