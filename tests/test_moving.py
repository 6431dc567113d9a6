"""Goroutines that park in a C call on one OS thread and return from it on another: errno is right, and
nothing else of the old thread is kept (tools/audit_moving.py; docs/design/003-moving.md).
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import gort
import pytest
from children import check
from waiting import LIMIT, eventually, hold, in_goroutine, is_parked

ROOT = Path(__file__).resolve().parent.parent
MOVES = 30


@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump here (binutils)")
def test_compiled_code_keeps_nothing_that_is_not_rewritten():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/audit_moving.py", "--cache", ROOT / "target" / "audit"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()[1:]
    # The interpreter keeps addresses of errno: where none are found the tool has not looked.
    assert sum(int(line.split()[0]) for line in lines if line[0] == " ") > 5, done.stdout


SAMPLE = r"""
#include <errno.h>
#include <unistd.h>
__thread int mine;
extern int other(void *);
int keeps_errno(int fd) { errno = 0; int n = other(&n); errno = n; return errno; }
int keeps_local(int fd) { mine = other(0); return mine + other(&mine); }
int keeps_pointer(int fd) {
    char *p; __asm__ volatile("movq %%fs:0, %0" : "=r"(p));
    other(0);
    return p[16];
}
int keeps_nothing(int fd) { int n = other(0); return n < 0 ? errno : mine; }
"""


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump here (binutils)")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
@pytest.mark.parametrize("flags", ["-O2", "-O1 -fno-plt", "-O2 -ftls-model=initial-exec"])
def test_the_audit_finds_what_is_kept(tmp_path, flags):
    (tmp_path / "sample.c").write_text(SAMPLE)
    library = tmp_path / "sample.so"
    options = ["-shared", "-fPIC", *flags.split(), "-o", library, tmp_path / "sample.c"]
    subprocess.run(["cc", *options], check=True)
    audit = [sys.executable, ROOT / "tools/audit_moving.py", "--verbose", library]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "errno: keeps_errno" in done.stdout
    assert "thread pointer: keeps_pointer" in done.stdout
    # With this model the code keeps an offset, which is the same in all threads.
    assert ("thread-local: keeps_local" in done.stdout) == ("initial-exec" not in flags)
    assert "keeps_nothing" not in done.stdout


def moved_between(wait, end, stuck_for=0.02):
    """`wait` in a goroutine whose OS thread is stuck in another's call when `end` ends the wait; what
    it raised or returned, and whether it went on elsewhere.
    """
    before, after, stuck = [], [], []

    def body():
        before.append(threading.get_native_id())
        try:
            return wait()
        except OSError as error:
            return error.errno
        finally:
            after.append(threading.get_native_id())

    def block():
        if threading.get_native_id() != before[0]:
            hold(0.0003)
        else:
            stuck.append(True)
            hold(stuck_for)

    g = gort.go(body)
    eventually(lambda: before and is_parked(g) or g.done, what="a parked goroutine")
    for _ in range(30):
        if stuck or g.done:
            break
        gort.go(block)
        gort.gosched()
    end()
    result = g.join(timeout=LIMIT)
    return result, before != after


def check_moves(prepare, expected):
    """Rounds, until many have moved, of `prepare()`, which gives the wait, its end and the tidying up."""
    moves, end_of_test = 0, time.monotonic() + LIMIT
    while moves < MOVES and time.monotonic() < end_of_test:
        wait, end, tidy = prepare()
        # A wait that ends by itself must find its thread stuck for longer.
        result, moved = moved_between(wait, end, 0.3 if prepare is timed_lock else 0.02)
        assert result == expected
        moves += moved
        tidy()
    assert moves > 0, "nobody went on elsewhere: the test shows nothing"


def read_of_closed():
    r, w = os.pipe()
    return lambda: os.read(r, 1), lambda: os.close(r), lambda: os.close(w)


def write_to_broken():
    r, w = os.pipe()
    os.set_blocking(w, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(w, b"x" * 4096)
    os.set_blocking(w, True)
    return lambda: os.write(w, b"x"), lambda: os.close(r), lambda: os.close(w)


def recv_of_reset():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return lambda: mine.recv(1), other.close, mine.close


def recv_with_kernel_time_out():
    a, b = socket.socketpair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 15000))
    return lambda: b.recv(1), lambda: None, lambda: (a.close(), b.close())


def connect_with_kernel_time_out():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    full = []
    for _ in range(3):
        full.append(socket.socket())
        full[-1].setblocking(False)
        full[-1].connect_ex(listener.getsockname())
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 15000))

    def tidy():
        for each in (mine, listener, *full):
            each.close()

    return lambda: mine.connect(listener.getsockname()), lambda: None, tidy


def poll_of_one_that_ends():
    a, b = socket.socketpair()
    poll = select.poll()
    poll.register(b, select.POLLIN)
    return lambda: len(poll.poll(LIMIT * 1000)), a.close, b.close


def timed_lock():
    lock = threading.Lock()
    lock.acquire()
    return lambda: lock.acquire(timeout=0.1), lambda: None, lambda: None


KINDS = {
    read_of_closed: errno.EBADF,
    write_to_broken: errno.EPIPE,
    recv_of_reset: errno.ECONNRESET,
    recv_with_kernel_time_out: errno.EAGAIN,
    connect_with_kernel_time_out: errno.EINPROGRESS,
    poll_of_one_that_ends: 1,
    timed_lock: False,
}


@pytest.mark.parametrize("prepare", KINDS, ids=lambda prepare: prepare.__name__)
def test_a_call_that_ends_on_another_thread_ends_as_it_should(prepare):
    # In a process of its own: what earlier tests left on stacks may look like foreign frames, which do not move.
    name = prepare.__name__
    check(f"import test_moving as t; t.check_moves(t.{name}, t.KINDS[t.{name}])")


def test_errno_of_the_thread_left_behind_is_its_own():
    def body():
        wait, end, tidy = read_of_closed()
        result, _ = moved_between(wait, end)
        tidy()
        return result

    assert {in_goroutine(body) for _ in range(20)} == {errno.EBADF}
