"""Executors where processes end and fork: tasks at exit, Ctrl-C, gort.run, children that fork."""

from __future__ import annotations

import signal

import gort
import pytest
from children import check, child
from waiting import LIMIT

FIRST = """
import os, sys, signal, threading, time, warnings
import concurrent.futures as cf
import gort
from gort.futures import Executor
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads

def slow(text, seconds=0.2):
    time.sleep(seconds)  # the work
    print(text, flush=True)
"""


@pytest.mark.parametrize("boundary", ["0", "1"])
@pytest.mark.parametrize("lazy", [False, True])
def test_interpreter_waits_for_tasks_at_exit(lazy, boundary):
    check(
        f"{FIRST}\npool = Executor(2, lazy={lazy})\n"
        "for n in range(5): pool.submit(slow, n)\npool.map(slow, 'ab')",
        GORT_BOUNDARY=boundary,
    ).split() == [*"01234ab"]


def test_executor_without_a_limit_or_without_a_name_is_waited_for():
    out = check(f"{FIRST}\nfor n in range(3): Executor().submit(slow, n)\n")
    assert sorted(out.split()) == [*"012"]


def test_exit_waits_also_after_shutdown_without_waiting():
    check(f"{FIRST}\npool = Executor()\npool.submit(slow, 'x')\npool.shutdown(wait=False)", "x")


def test_tasks_outlive_the_main_goroutine_of_run_and_daemon_goroutines_do_not():
    out = check(f"""{FIRST}
def main():
    gort.go(slow, "a goroutine", 20)
    Executor().submit(slow, "a task")
    return 5
print(gort.run(main))
""")
    assert out.split("\n")[:2] == ["5", "a task"]
    assert "a goroutine" not in out


def test_nothing_is_taken_while_the_interpreter_ends():
    out = check(f"""{FIRST}
import atexit
def refused(where, call):
    try: call()
    except RuntimeError as error: print(where, error, flush=True)
pool = Executor()
atexit.register(lambda: refused("atexit:", lambda: pool.submit(int)))
atexit.register(lambda: refused("new:", lambda: Executor(lazy=True).map(int, "1")))
def late():
    time.sleep(0.2)  # the work: exit is under way
    refused("task:", lambda: pool.submit(int))
pool.submit(late)
""")
    text = "cannot schedule new futures after interpreter shutdown"
    assert out.split("\n")[:3] == [f"task: {text}", f"new: {text}", f"atexit: {text}"]


def test_ctrl_c_ends_the_wait_at_exit():
    done = child(f"""{FIRST}
pool = Executor()
pool.submit(gort.sleep, 60)
def interrupts():
    while not pool._waiting: gort.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
gort.go(interrupts)
""")
    assert "KeyboardInterrupt" in done.stderr
    assert "Traceback" in done.stderr
    assert done.returncode in (0, 1, -signal.SIGINT)


def test_tasks_that_nobody_can_wake_end_the_wait_with_an_error():
    done = child(f"{FIRST}\nExecutor().submit(gort.Chan().recv)\n")
    assert "all goroutines are asleep - deadlock!" in done.stderr


FORKS = f"""{FIRST}
def in_child(body):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        except BaseException:
            import traceback; traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def works(pool):
    assert [f.result(20) for f in [pool.submit(pow, 2, n) for n in range(9)]] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert list(pool.map(int, "123456")) == [1, 2, 3, 4, 5, 6]
    assert pool._running == 0 and not pool._queue
"""
KINDS = pytest.mark.parametrize("kind", ["2, lazy=False", "2, lazy=True", "None", "1, lazy=True"])


@KINDS
def test_executor_is_usable_in_the_child_of_a_fork(kind):
    check(
        f"""{FORKS}
pool = Executor({kind})
ch = gort.Chan()
left = [pool.submit(ch.recv) for _ in range(4)]
results = pool.map(lambda _: ch.recv(), range(2))
begun = pool.map(int, "78", buffersize=1)
gort.sleep(0.001)
def body():
    works(pool)
    for future in left:
        try: future.result(20)
        except cf.BrokenExecutor as error: assert "stayed in the process that forked" in str(error)
        else: raise AssertionError("it has a result")
        assert future.done()
    try: next(results)
    except cf.BrokenExecutor: pass
    else: raise AssertionError("it has a result")
    assert len(cf.wait(left, 20)[0]) == 4
    pool.shutdown()
assert in_child(body) == 0
for n in range(6): ch.send(n)
assert sorted([f.result(20) for f in left] + list(results)) == list(range(6))
assert all(f.done() for f in left) and list(begun) == [7, 8]
works(pool)
pool.shutdown()
print("ok")
""",
        "ok",
    )


@KINDS
def test_task_that_forks_ends_in_both_processes(kind):
    check(
        f"""{FORKS}
pool = Executor({kind})
other = Executor(1)
blocked = other.submit(gort.sleep, 0.5)
def task():
    pid = os.fork()
    if pid == 0:
        works(pool); works(other)
        threading._shutdown()  # what a child of multiprocessing does
        return "child"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def told(future):
    if future.result() == "child":
        assert blocked.exception().__class__ is cf.BrokenExecutor
        os._exit(7)
future = pool.submit(task)
future.add_done_callback(told)
assert future.result(20) == 7
print("ok")
""",
        "ok",
    )


def test_processes_of_multiprocessing_begin_and_end_in_tasks():
    check(
        f"""{FIRST}
import multiprocessing as mp
def process(n):
    p = mp.get_context("fork").Process(target=print, args=(n,), kwargs=dict(flush=True))
    p.start(); p.join()
    return p.exitcode
with Executor(1) as pool:  # multiprocessing itself loses exit codes where threads wait for several
    codes = list(pool.map(process, range(4)))
    assert codes == [0] * 4, codes
"""
    )


def test_fork_with_an_executor_in_use_by_others_hangs_nothing():
    check(
        f"""{FORKS}
pool = Executor(3, lazy=True)
stop = []
def uses():
    while not stop: pool.submit(int).result(20)
gs = [gort.go(uses) for _ in range(4)] + [threading.Thread(target=uses) for _ in range(2)]
for t in gs[4:]: t.start()
for _ in range(20):
    gort.sleep(0.002)
    assert in_child(lambda: works(pool)) == 0
stop.append(1)
for t in gs: t.join()
print("ok")
""",
        "ok",
    )


def test_interrupted_submit_takes_no_place(monkeypatch):
    from gort.futures import Executor

    def interrupt(_):
        raise KeyboardInterrupt

    pool = Executor(1)
    monkeypatch.setattr("gort.futures._start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(int)
    monkeypatch.undo()
    assert pool.submit(int, "3").result(LIMIT) == 3
    assert gort.go(pool.shutdown).join(LIMIT) is None
