"""The end of the program beside goroutines of every kind: at once, silently, with its own code. See test_endings.py for the
plain ones.
"""

from __future__ import annotations

import re
import sys

import pytest
from children import child

HEADER = """
import asyncio, atexit, ctypes, gort, os, queue, select, signal, socket, subprocess, sys, threading, time
from gort import Chan, go, spawn
libc = ctypes.CDLL(None)  # calls found by dlsym: no hook of the boundary sees them
lock = threading.Lock()
lock.acquire()
mutex, rw, group, semaphore = gort.Mutex(), gort.RWMutex(), gort.WaitGroup(), gort.Semaphore(1)
mutex.lock(); rw.lock(); group.add(); semaphore.acquire()
a, b = socket.socketpair()
r, w = os.pipe()
def cond():
    own = gort.Mutex()
    with own: gort.Cond(own).wait()
def computes():
    while True: pass
def computes_without_p():
    libc.usleep(20_000)
    computes()
def locked():
    with gort.locked_os_thread(): Chan().recv()
def deep(n): return deep(n - 1) if n else Chan().recv()
def in_callback():
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc.qsort((ctypes.c_int * 2)(2, 1), 2, 4, kind(lambda *_: Chan().recv() or 0))
def in_generator():
    def values(): yield Chan().recv()
    return list(values())
def finally_parks():
    try: Chan().recv()
    finally: Chan().recv()
def suppresses():
    while True:
        try: Chan().recv()
        except BaseException: pass
def starts_others():
    while True:
        go(int)
        time.sleep(0)
def keeps_starting():
    while True: go(libc.usleep, 10).join()
def cancelled():
    g = go(Chan().recv)
    gort.gosched()
    g.cancel()
    return g
class Deleted:
    def __del__(self): go(int)
def holds_one_that_starts():
    held = Deleted()
    Chan().recv()
"""

# Each gives one or more goroutines.
KINDS = {
    "cancelled and not ended": "[cancelled() for _ in range(10)]",
    "in a C call": "go(libc.usleep, 60_000_000)",
    "in C calls that return meanwhile": "[go(libc.usleep, 1000 * n) for n in range(0, 100, 5)]",
    "in a system call of a pipe": "go(libc.read, r, ctypes.create_string_buffer(1), 1)",
    "at a socket": "go(b.recv, 1)",
    "at a pipe": "go(os.read, r, 1)",
    "in select": "go(select.select, [b], [], [])",
    "at a lock": "go(lock.acquire)",
    "at an event": "go(threading.Event().wait)",
    "at a queue": "go(queue.Queue().get)",
    "at a process": "go(subprocess.Popen(['sleep', '0.3']).wait)",
    "at a select of channels": "[go(gort.select), go(gort.select, gort.recv(Chan()), gort.send(Chan(), 1))]",
    "at locks of gort": "[go(mutex.lock), go(rw.rlock), go(rw.lock), go(group.wait), go(semaphore.acquire), go(cond)]",
    "joining": "[go(go(Chan().recv).join), go(threading.Thread(target=time.sleep, args=(60,), daemon=True).start)]",
    "computing": "[go(computes) for _ in range(2)]",
    "computing after a C call": "[go(computes_without_p) for _ in range(2)]",
    "locked to a thread": "[go(locked), spawn(Chan().recv, locked=True), spawn(libc.usleep, (60_000_000,), locked=True)]",
    "reserved": "spawn(Chan().recv, locked=True, reserve=True)",
    "in a group without quota left": "spawn(computes, group=gort.Group('slow', quota=0.01))",
    "with priority": "[spawn(computes, priority=5), spawn(Chan().recv, priority=-5)]",
    "on stacks of their own": "[spawn(Chan().recv, stack_size=1 << 22), spawn(computes, stack_size=1 << 20)]",
    "deep down": "go(deep, 800)",
    "in a callback from C": "[go(in_callback) for _ in range(3)]",
    "in a generator": "go(in_generator)",
    "in an event loop": "go(asyncio.run, asyncio.sleep(60))",
    "parking in finally": "go(finally_parks)",
    "that suppress everything": "[go(suppresses) for _ in range(10)]",
    "that start others": "go(starts_others)",
    "that start others in C calls": "go(keeps_starting)",
    "that start others as they go": "go(holds_one_that_starts)",
    "of timers": "[gort.after_func(60, print), gort.after_func(0, computes), gort.Ticker(0.001), go(gort.after(60).recv)]",
}
WAIT = "\ngort.sleep(0.03)\n"

# 3.13.0 says this at the end of any program with threads that it did not start but that asked who they are.
OF_3_13_0 = re.compile(
    r"Exception ignored in: <function _DeleteDummyThreadOnDel.*\nTraceback.*\n(  .*\n)*TypeError: .*protocol\n"
)


def ended(code, **env):
    """Code, stdout and stderr of a program."""
    done = child(code, **env)
    err = OF_3_13_0.sub("", done.stderr) if sys.version_info[:3] == (3, 13, 0) else done.stderr
    return done.returncode, done.stdout, err


@pytest.mark.parametrize("kind", KINDS)
def test_program_ends_beside(kind):
    assert ended(f"{HEADER}left = {KINDS[kind]}{WAIT}print('end')") == (0, "end\n", "")


EVERYTHING = HEADER + "left = [" + ",\n".join(KINDS.values()) + "]" + WAIT

ENDS = {
    "return": ("print('end')", 0, "end\n", ""),
    "sys.exit": ("sys.exit(3)", 3, "", ""),
    "exception": ("1 / 0", 1, "", "ZeroDivisionError"),
    "_exit": ("os._exit(4)", 4, "", ""),
    "abort by a signal": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)", -15, "", ""),
    "after run": ("print(gort.run(lambda: go(int).join()))", 0, "0\n", ""),
    "a handler of atexit": ("atexit.register(print, 'handler')", 0, "handler\n", ""),
    "a handler that uses gort": ("atexit.register(lambda: print(gort.num_goroutine() >= 1))", 0, "True\n", ""),
    "a child": ("pid = os.fork() or sys.exit(5)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))", 0, "5\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
def test_program_ends_beside_all_of_these(how):
    end, code, out, err = ENDS[how]
    head = "import warnings; warnings.simplefilter('ignore')\n"  # of forks beside threads
    got = ended(head + EVERYTHING + end)
    assert got[:2] == (code, out), got[2][-4000:]
    assert err in got[2] if err else got[2] == ""


def test_program_ends_beside_all_of_these_without_the_boundary():
    assert ended(EVERYTHING + "print('end')", GORT_BOUNDARY="0") == (0, "end\n", "")


def test_non_daemon_threads_are_waited_for_beside_all_of_these():
    end = """
def last():
    gort.sleep(0.05)
    print("last", flush=True)
threading.Thread(target=last).start()
"""
    assert ended(EVERYTHING + end) == (0, "last\n", "")
