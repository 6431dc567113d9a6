"""How programs end: each in a child process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def child(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter, 30 seconds at most."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **env},
    )


HEADER = "import gort, time, os, signal, threading\nfrom gort import go, Chan\n"


@pytest.mark.parametrize(
    "body",
    [
        "gs = [go(Chan().recv) for _ in range(100)]; gort.sleep(0.01)",
        "gs = [go(print, i) for i in range(10)] and None",
        "go(lambda: [gort.gosched() for _ in iter(int, 1)]); gort.sleep(0.01)",
        "gort.run(lambda: [go(gort.sleep, 60) for _ in range(10)] and gort.gosched())",
    ],
)
def test_program_ends_with_main(body):
    done = child(HEADER + body)
    assert (done.returncode, done.stderr) == (0, "")


def test_deadlock_is_an_error_with_a_dump():
    done = child(HEADER + "g = go(Chan().recv)\nChan().recv()")
    assert done.returncode == 1
    assert "DeadlockError: all goroutines are asleep - deadlock!" in done.stderr
    assert "[chan receive]" in done.stderr


def test_no_deadlock_while_a_thread_can_send():
    done = child(
        HEADER + "ch = Chan()\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), ch.send(4))).start()\nprint(ch.recv())"
    )
    assert (done.returncode, done.stdout) == (0, "4\n")


def test_unjoined_exception_is_printed_once_and_the_program_goes_on():
    done = child(HEADER + "go(lambda: 1 / 0)\ngort.sleep(0.01)\nprint('on')")
    assert (done.returncode, done.stdout, done.stderr.count("ZeroDivisionError")) == (0, "on\n", 1)


def test_gort_panic_exit_ends_the_process_with_2():
    done = child(HEADER + "go(lambda: 1 / 0)\ngort.sleep(5)", GORT_PANIC="exit")
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr


INTERRUPT = "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"


@pytest.mark.parametrize(
    "body",
    [
        "Chan().recv()",
        "gort.sleep(20)",
        "go(lambda: [gort.gosched() for _ in iter(int, 1)]); Chan().recv()",
    ],
)
def test_ctrl_c_reaches_main(body):
    done = child(
        HEADER
        + INTERRUPT
        + "try:\n    "
        + body
        + "\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


FIRST_PROGRAM = (
    HEADER
    + """
ch = Chan[int](5)
wg = gort.WaitGroup()
def worker():
    for job in ch:
        print(job)
        wg.done()
def main():
    go(worker)
    for i in range(3):
        wg.add()
        ch.send(i)
    ch.close()
    %s
gort.run(main)
"""
)


def test_first_program_with_wait_prints_its_jobs():
    assert child(FIRST_PROGRAM % "wg.wait()").stdout == "0\n1\n2\n"


def test_first_program_without_wait_ends_with_main():
    done = child(FIRST_PROGRAM % "pass")
    assert (done.returncode, done.stdout) == (0, "")


def test_import_starts_no_thread():
    done = child(
        "import threading, os\nbefore = len(os.listdir('/proc/self/task'))\nimport gort\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert done.stdout == "0\n"
