"""CPUs and priorities: what a goroutine changes is its own, as a thread's is."""

from __future__ import annotations

import os

import pytest
from children import check

BOTH = pytest.mark.parametrize("boundary", ["1", "0"], ids=["parking", "handoff"])

NICE = pytest.mark.skipif(
    os.getpriority(os.PRIO_PROCESS, 0) > 10,
    reason="no room: this process has a low priority already",
)

HEADER = """
import os, threading, time
import gort

def nice():
    return os.getpriority(os.PRIO_PROCESS, 0)

BASE = nice()

def passes(times, condition):
    "The condition holds over waits of every kind."
    for _ in range(times):
        gort.gosched()
        time.sleep(0.0003)
        gort.sleep(0.0003)
        assert condition()
    return threading.get_native_id()

def ended(*goroutines):
    return [g.join(timeout=25) for g in goroutines]
"""


@BOTH
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU only")
def test_cpus_of_a_goroutine_are_its_own(boundary):
    code = """
cpus = os.sched_getaffinity(0)
mine = {min(cpus)}
def pinned(restores):
    os.sched_setaffinity(0, mine)
    passes(20, lambda: os.sched_getaffinity(0) == mine)
    if restores:
        os.sched_setaffinity(threading.get_native_id(), cpus)
        passes(5, lambda: os.sched_getaffinity(0) == cpus)
def other():
    passes(40, lambda: os.sched_getaffinity(0) == cpus)
ended(*[gort.go(f, *a) for f, *a in [(pinned, True), (other,), (pinned, False), (other,)] * 3])
ended(*[gort.go(passes, 2, lambda: os.sched_getaffinity(0) == cpus) for _ in range(50)])
assert os.sched_getaffinity(0) == cpus
"""
    check(HEADER + code, GORT_BOUNDARY=boundary)


# As an ordinary user nobody can take niceness back: the OS thread serves nobody else then.
@BOTH
@NICE
@pytest.mark.parametrize("user", [0, 65534], ids=["root", "ordinary user"])
@pytest.mark.skipif(os.geteuid() != 0, reason="cannot become other users")
def test_niceness_of_a_goroutine_is_its_own(boundary, user):
    code = f"""
os.setuid({user})
def nicer():
    os.nice(5)
    os.setpriority(os.PRIO_PROCESS, 0, BASE + 7)
    return passes(20, lambda: nice() == BASE + 7)
def other():
    return passes(40, lambda: nice() == BASE)
main = threading.get_native_id()
threads = ended(*[gort.go(f) for f in [nicer, other, nicer, other]])
assert threads[0] != threads[2]
after = ended(*[gort.go(passes, 2, lambda: nice() == BASE) for _ in range(50)])
if {user}:
    assert not {{threads[0], threads[2]}} & {{threads[1], threads[3], *after}}
if not {user} or main not in threads[::2]:
    assert nice() == BASE
"""
    check(HEADER + code, GORT_BOUNDARY=boundary)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to choose a policy")
def test_policy_of_a_goroutine_is_its_own():
    code = """
def batch():
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    passes(20, lambda: os.sched_getscheduler(0) == os.SCHED_BATCH)
def other():
    passes(40, lambda: os.sched_getscheduler(0) == os.SCHED_OTHER)
ended(*[gort.go(f) for f in [batch, other] * 3])
ended(*[gort.go(passes, 2, lambda: os.sched_getscheduler(0) == os.SCHED_OTHER) for _ in range(50)])
"""
    check(HEADER + code)


@NICE
def test_what_main_sets_holds_for_os_threads_started_later():
    code = """
gort.go(int).join()
os.nice(3)
assert nice() == BASE + 3
first = {int(t) for t in os.listdir("/proc/self/task")}
stop, niceness = threading.Event(), {}
def body():
    niceness[threading.get_native_id()] = nice()
    end = time.monotonic() + 25
    while not stop.is_set() and time.monotonic() < end:
        sum(range(100_000))          # each keeps a processor, and its OS thread
        os.stat("/")
goroutines = [gort.go(body) for _ in range(8)]
end = time.monotonic() + 25
while len(set(niceness) - first) < 1 and time.monotonic() < end:
    time.sleep(0.001)  # between looks
stop.set()
ended(*goroutines)
later = {value for thread, value in niceness.items() if thread not in first}
assert later == {BASE + 3}, (niceness, first)
"""
    check(HEADER + code, GORT_MAXPROCS="4")
