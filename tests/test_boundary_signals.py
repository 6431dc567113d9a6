"""Signals and the boundary: calls of main that a signal interrupts (PEP 475), handlers on whatever
stack is there, errno as it was found. Each in a child, with the boundary and without.
"""

from __future__ import annotations

import shutil

import pytest
from children import check, shared_library

BOTH = pytest.mark.parametrize("boundary", ["1", "0"])
HEADER = """
import ctypes, errno, fcntl, os, select, signal, socket, subprocess, sys, threading, time, gort
seen = []
class Stop(Exception): pass
def handler(number, frame):
    seen.append(threading.current_thread() is threading.main_thread())
    if len(seen) == 3: raise Stop
def send_until_stop(how):
    while len(seen) < 3:
        n = len(seen)
        how()
        end = time.monotonic() + 5
        while len(seen) == n and time.monotonic() < end: time.sleep(0.002)
def main_of(wait, how=lambda: os.kill(os.getpid(), signal.SIGUSR1)):
    signal.signal(signal.SIGUSR1, handler)
    sender = gort.go(send_until_stop, how)
    try:
        wait()
        print("came back")
    except Stop:
        print("stopped", seen)
    sender.join(timeout=20)
"""
STOPPED = "stopped [True, True, True]"

WAITS = {
    "sleep": "main_of(lambda: time.sleep(60))",
    "recv": "a, b = socket.socketpair(); main_of(lambda: b.recv(1))",
    "recv with a time-out": "a, b = socket.socketpair(); b.settimeout(60); main_of(lambda: b.recv(1))",
    "accept": "s = socket.create_server(('127.0.0.1', 0)); main_of(s.accept)",
    "send": "a, b = socket.socketpair(); main_of(lambda: b.sendall(b'x' * 10_000_000))",
    "read": "r, w = os.pipe(); main_of(lambda: os.read(r, 1))",
    "select": "r, w = os.pipe(); main_of(lambda: select.select([r], [], []))",
    "select with a time-out": "r, w = os.pipe(); main_of(lambda: select.select([r], [], [], 60))",
    "poll": "r, w = os.pipe(); p = select.poll(); p.register(r); main_of(p.poll)",
    "epoll": "p = select.epoll(); main_of(lambda: p.poll(60))",
    "lock": "lock = threading.Lock(); lock.acquire(); main_of(lock.acquire)",
    "timed lock": "lock = threading.Lock(); lock.acquire(); main_of(lambda: lock.acquire(timeout=60))",
    "rlock": """
lock = threading.RLock()
t = threading.Thread(target=lock.acquire); t.start(); t.join()
main_of(lock.acquire)""",
    "event": "main_of(threading.Event().wait)",
    "waitpid": """
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
main_of(lambda: os.waitpid(child.pid, 0))
child.stdin.close(); child.wait()""",
    "channel": "main_of(gort.Chan().recv)",
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("wait", WAITS)
def test_handlers_run_while_main_waits_and_may_end_the_wait(wait, boundary):
    check(HEADER + WAITS[wait], STOPPED, GORT_BOUNDARY=boundary)


ALONE = {
    "timer": "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)",
    "another process": "subprocess.Popen(['/bin/sh', '-c', f'while kill -ALRM {os.getpid()}; do sleep 0.02; done'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)",
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("source", ALONE)
def test_signals_from_outside_reach_main_when_nobody_else_runs(source, boundary):
    code = f"""
signal.signal(signal.SIGALRM, handler)
gort.go(lambda: None).join()
a, b = socket.socketpair()
{ALONE[source]}
try:
    b.recv(1)
except Stop:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print("stopped", seen)
"""
    check(HEADER + code, STOPPED, GORT_BOUNDARY=boundary)


@BOTH
def test_main_is_interrupted_while_its_thread_runs_another_goroutine(boundary):
    code = """
def busy():
    end = time.monotonic() + 20
    while len(seen) < 3 and time.monotonic() < end:
        for _ in range(1000): pass
        gort.gosched()
g = gort.go(busy)
lock = threading.Lock(); lock.acquire()
main_of(lock.acquire)
g.join()
"""
    check(HEADER + code, STOPPED, GORT_BOUNDARY=boundary, GORT_MAXPROCS="1")


@BOTH
def test_goroutines_waits_go_on_over_signals(boundary):
    code = """
ran, timed = [], []
signal.signal(signal.SIGALRM, lambda *a: ran.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
pairs = [socket.socketpair() for _ in range(20)]
def body(a, b):
    start = time.monotonic()
    time.sleep(0.05)  # the subject
    assert time.monotonic() - start >= 0.05
    r, _, _ = select.select([b], [], [], 0.03)
    assert not r
    timed.append(1)
    return b.recv(4)
goroutines = [gort.go(body, *pair) for pair in pairs]
start = time.monotonic()
time.sleep(0.2)
assert time.monotonic() - start >= 0.2
while len(timed) < len(pairs): time.sleep(0.01)  # till none is in the select that shall time out
for a, b in pairs: a.send(b"data")
print({g.join() for g in goroutines}, len(ran) > 3)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    check(HEADER + code, "{b'data'} True", GORT_BOUNDARY=boundary)


@BOTH
def test_a_full_wakeup_descriptor_parks_nobody(boundary):
    code = """
import hashlib
a, b = socket.socketpair()
for s in (a, b): s.setblocking(False)
try:
    while True: a.send(b"x" * 4096)
except BlockingIOError: pass
signal.signal(signal.SIGALRM, lambda *a: None)
signal.set_wakeup_fd(a.fileno(), warn_on_full_buffer=False)
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
data = b"z" * (8 << 20)
goroutines = [gort.go(lambda: hashlib.sha256(data).hexdigest()) for _ in range(10)]
print(len({g.join(timeout=25) for g in goroutines}))
signal.setitimer(signal.ITIMER_REAL, 0)
signal.set_wakeup_fd(-1)
"""
    check(HEADER + code, "1", GORT_BOUNDARY=boundary)


@BOTH
def test_wakeup_descriptor_tells_each_signal(boundary):
    code = """
a, b = socket.socketpair()
for s in (a, b): s.setblocking(False)
signal.signal(signal.SIGUSR1, lambda *a: seen.append(1))
signal.set_wakeup_fd(a.fileno())
def body():
    for _ in range(20):
        n = len(seen)
        os.kill(os.getpid(), signal.SIGUSR1)
        end = time.monotonic() + 5
        while len(seen) == n and time.monotonic() < end: time.sleep(0.001)
g = gort.go(body)
g.join(timeout=20)
print(b.recv(100) == bytes([signal.SIGUSR1]) * 20, len(seen))
signal.set_wakeup_fd(-1)
"""
    check(HEADER + code, "True 20", GORT_BOUNDARY=boundary)


@BOTH
def test_handlers_are_shown_as_they_were_given(boundary):
    code = """
print(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
old = signal.signal(signal.SIGUSR1, handler)
print(old is signal.SIG_DFL)
gort.go(lambda: None).join()
print(signal.getsignal(signal.SIGUSR1) is handler)
print(signal.signal(signal.SIGUSR1, signal.SIG_IGN) is handler)
os.kill(os.getpid(), signal.SIGUSR1)
print(signal.signal(signal.SIGUSR1, signal.SIG_DFL) is signal.SIG_IGN)
print(seen)
done = subprocess.run([sys.executable, "-c", "import signal; print(signal.getsignal(2) is signal.default_int_handler)"], capture_output=True)
print(done.stdout.strip())
"""
    check(
        HEADER + code,
        "True\nTrue\nTrue\nTrue\nTrue\n[]\nb'True'",
        GORT_BOUNDARY=boundary,
    )


@BOTH
def test_default_action_of_a_signal_ends_the_process(boundary):
    from children import child

    code = """
signal.signal(signal.SIGTERM, handler)
gort.go(lambda: None).join()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(20)
"""
    assert child(HEADER + code, GORT_BOUNDARY=boundary).returncode == -15


@BOTH
def test_signals_of_a_goroutine_and_sigwait(boundary):
    # The mask is each OS thread's own, so it is set while there is one.
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.signal(signal.SIGUSR1, handler)
def body():
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    try:
        signal.signal(signal.SIGUSR1, handler)
    except ValueError:
        return "main thread only"
print(gort.go(body).join())
end = time.monotonic() + 10
while not seen and time.monotonic() < end: time.sleep(0.001)
print(seen)
os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2)
"""
    check(HEADER + code, "main thread only\n[True]\nTrue", GORT_BOUNDARY=boundary)


@BOTH
def test_faulthandler_watchdog_fires_beside_busy_goroutines(boundary):
    from children import child

    code = """
import faulthandler
gort.go(lambda: None).join()
faulthandler.dump_traceback_later(0.2, exit=True)
def busy():
    while True: gort.gosched()
gort.go(busy)
while True: gort.gosched()
"""
    done = child(HEADER + code, GORT_BOUNDARY=boundary)
    assert done.returncode == 1
    assert "Timeout" in done.stderr


PROBE = r"""
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <semaphore.h>

/* What errno is after a call that succeeds, 77 before it. */
int after_recv(int fd) { char c; errno = 77; return recv(fd, &c, 1, 0) == 1 ? errno : -1; }
int after_read(int fd) { char c; errno = 77; return read(fd, &c, 1) == 1 ? errno : -1; }
int after_poll(int fd) { struct pollfd p = {fd, POLLIN, 0}; errno = 77; return poll(&p, 1, 5000) == 1 ? errno : -1; }
int after_sleep(int fd) { struct timespec t = {0, 2000000}; errno = 77; return nanosleep(&t, 0) == 0 ? errno : -1; }
int after_poll_timeout(int fd) { errno = 77; return poll(0, 0, 2) == 0 ? errno : -1; }
int after_dontwait(int fd) { char c; return recv(fd, &c, 1, MSG_DONTWAIT) < 0 ? errno : -1; }
"""


@BOTH
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_errno_of_calls_that_succeed_is_as_it_was(boundary, tmp_path):
    library = shared_library(tmp_path / "libgortprobe.so", PROBE)
    code = f"""
import gort.boundary
lib = ctypes.CDLL({library!r})
print(gort.boundary.add("libgortprobe"))
def body(name, *data):
    a, b = socket.socketpair()
    feeder = gort.go(lambda: (time.sleep(0.002), [a.send(d) for d in data]))
    result = getattr(lib, name)(b.fileno())
    feeder.join()
    return result
names = ["after_recv", "after_read", "after_poll", "after_sleep", "after_poll_timeout"]
print({{name: gort.go(body, name, b"x").join() for name in names}} == dict.fromkeys(names, 77))
print(gort.go(body, "after_dontwait").join() == errno.EAGAIN)
calls = gort.boundary.status().calls
print(all(n in calls and calls[n].parked for n in ("recv", "read", "poll", "nanosleep")))
"""
    parked = "True" if boundary == "1" else "False"
    check(HEADER + code, f"1\nTrue\nTrue\n{parked}", GORT_BOUNDARY=boundary)


@BOTH
def test_the_mask_of_a_goroutine_is_its_own(boundary):
    code = """
MINE = {signal.SIGUSR2}
def mask(): return signal.pthread_sigmask(signal.SIG_BLOCK, [])
def blocks(restores):
    signal.pthread_sigmask(signal.SIG_BLOCK, MINE)
    for _ in range(20):
        gort.gosched(); time.sleep(0.0005); gort.sleep(0.0005)
        assert mask() == MINE
    if restores:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MINE)
        gort.gosched()
        assert mask() == set()
    return "own"
def others():
    for _ in range(100):
        gort.gosched(); time.sleep(0.0002)
        assert mask() == set()
    return "none"
goroutines = [gort.go(f, *a) for f, *a in [(blocks, True), (others,), (blocks, False), (others,)] * 3]
print(sorted({g.join(timeout=25) for g in goroutines}))
print({gort.go(mask).join() == set() for _ in range(50)}, mask())
"""
    check(HEADER + code, "['none', 'own']\n{True} set()", GORT_BOUNDARY=boundary)
