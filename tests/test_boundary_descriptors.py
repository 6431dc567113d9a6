"""Descriptors that close, or become other files, while goroutines wait at them."""

from __future__ import annotations

import os
import select

import gort
from children import check
from waiting import LIMIT, parked, waiter


def test_poll_goes_on_with_the_file_that_took_the_number():
    first, second = os.pipe(), os.pipe()

    def wait():
        poll = select.poll()
        poll.register(first[0], select.POLLIN)
        return poll.poll()

    before = waiter(wait)
    gort.go(os.dup2, second[0], first[0]).join(timeout=LIMIT)
    parked(before)  # and does not look again and again
    after = waiter(wait)
    os.write(second[1], b"x")
    for g in (before, after):
        assert g.join(timeout=LIMIT) == [(first[0], select.POLLIN)]
    for fd in (*first, *second):
        os.close(fd)


CLOSERS = """
import os, socket
import gort
from waiting import LIMIT, waiter

def links():
    names = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            names[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass
    return names

def receive():
    a, b = (socket.socket(fileno=os.dup(fd)) for fd in kept)
    g = waiter(a.recv, 1)
    b.send(b"x")
    assert g.join(timeout=LIMIT) == b"x"
    a.detach(), b.detach()

def attempt(call, *args):
    try:
        return call(*args)
    except OSError as error:
        return error.strerror

a, b = socket.socketpair()
os.dup2(a.fileno(), 900), os.dup2(b.fileno(), 901)
a.close(), b.close()
kept = 900, 901
receive()
ours = [fd for fd, name in links().items() if "eventpoll" in name or "eventfd" in name]
assert len(ours) == 2, links()
"""


def test_program_that_closes_everything_leaves_the_poller():
    check(
        CLOSERS
        + """
def one_by_one():
    for fd in range(3, 900):
        attempt(os.close, fd)

for close in (one_by_one, lambda: os.closerange(3, 900)):
    for run in (close, lambda: gort.go(close).join(timeout=LIMIT)):
        run()
        assert set(links()) & set(range(3, 900)) == set(ours), links()
        receive()
"""
    )


def test_poller_is_not_the_programs_to_replace():
    check(
        CLOSERS
        + """
for fd in ours:
    assert attempt(os.close, fd) == "Bad file descriptor"
    assert attempt(os.dup2, 900, fd) == "Device or resource busy"
receive()
"""
    )


def test_program_that_closes_everything_still_hears_of_its_child():
    check(
        CLOSERS
        + """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=-3)
os.dup2(child.stdin.fileno(), 902, inheritable=False)
g = waiter(os.waitpid, child.pid, 0)
gort.go(os.closerange, 3, 900).join(timeout=LIMIT)
os.close(902)
assert g.join(timeout=LIMIT)[0] == child.pid
child.returncode = 0
os._exit(0)
"""
    )


def test_many_descriptors_need_no_growth_while_threads_run():
    """The kernel lets every thread that opens something wait while it grows the table."""
    check(
        """
import os
import resource

import gort

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
room = min(hard, 4096)
resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))

def table():
    return int(open("/proc/self/status").read().split("FDSize:")[1].split()[0])

assert table() < room
gort.run(lambda: None)
assert table() >= room
assert str(room - 1) not in os.listdir("/proc/self/fd")
"""
    )
