"""Signals: handlers run on the main goroutine whatever it does and whoever is there besides, and who counts on
signal.set_wakeup_fd (asyncio does) goes on. See test_boundary_signals.py for the calls that a signal interrupts.
"""

from __future__ import annotations

import pytest
from children import check, child

HEADER = """
import asyncio, ctypes, gort, os, signal, subprocess, sys, threading, time
from gort import Chan, go
from waiting import eventually, parked
libc = ctypes.CDLL(None)
stop = []
def computes():
    while not stop: pass
def stuck():
    while not stop: libc.usleep(1000)
def parks():
    Chan().recv()
def sleeps():
    while not stop: time.sleep(0.001)
def crowd():
    return [go(f) for f in [parks] * 50 + [stuck] * 3 + [computes, sleeps]]
def main_sleeps():
    "Main's thread is in usleep."
    with open(f"/proc/{os.getpid()}/syscall") as lines: return lines.read().split()[0] in ("35", "230")
"""

SENDERS = {
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT)",
    "SIGTERM": "signal.raise_signal(signal.SIGTERM)",
    "SIGCHLD": "subprocess.Popen(['true']).wait()",
}
# `done` is set once the handler has run, but for the C call, which a signal ends.
WAITS = {
    "parked": "assert came.recv(timeout=20) == 'came'",
    "computing": "while not done: pass",
    "in a C call": "assert done == []\ninterrupted = libc.usleep(20_000_000)\nassert (interrupted, done) == (-1, [True]), (interrupted, done)",
}


@pytest.mark.parametrize("beside", ["", "crowd()"])
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("name", SENDERS)
def test_handler_runs_on_main_and_main_goes_on(name, wait, beside):
    in_call = wait == "in a C call"
    # A child's end is told to the thread that started it, as by CPython: main's call lasts.
    send = f"os.kill(os.getpid(), signal.{name})" if in_call else SENDERS[name]
    code = f"""
came, done, where = Chan(1), [], []
main = threading.get_ident()
def handler(number, frame):
    where.append((number, threading.get_ident() == main, threading.current_thread() is threading.main_thread(), gort.current()))
    done.append(True)
    came.send("came")
signal.signal(signal.{name}, handler)
here = gort.current()
libc.usleep(1)
gs = {beside or "[]"}
def sends():
    {"eventually(main_sleeps)" if in_call else "gort.sleep(0.001)"}
    {send}
{"gort.lock_os_thread()" if in_call else ""}  # main is on the process's first thread then, which takes the signals
sender = go(sends)
{WAITS[wait]}
sender.join(timeout=20)
assert where == [(signal.{name}, True, True, here)], where
assert go(lambda: "on").join(timeout=20) == "on"
stop.append(True)
print("ok")
"""
    check(HEADER + code, "ok")


#: Main leaves its thread to a goroutine's read, whose it is then to take the signals of the process.
AWAY = """
r, w = os.pipe()
def read(): return libc.read(r, ctypes.create_string_buffer(1), 1)
def call(task):
    with open(f"/proc/self/task/{task}/syscall") as lines: return lines.read().split()[:2]
reader = go(read)
eventually(lambda: call(os.getpid()) == ["0", hex(r)])
assert threading.get_native_id() != os.getpid()
"""


def test_signal_that_main_sends_itself_away_from_its_thread_is_handled_at_once():
    code = """
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(gort.current()))
for sent in range(1, 1001):
    os.kill(os.getpid(), signal.SIGUSR1)
    assert len(seen) == sent, (len(seen), sent)
assert set(seen) == {gort.current()}
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
info = signal.sigwaitinfo([signal.SIGUSR1])
assert (info.si_pid, info.si_uid, len(seen)) == (os.getpid(), os.getuid(), sent), info
os.write(w, b"x")
print("ok")
"""
    check(HEADER + AWAY + code, "ok")


def test_signal_interrupts_the_call_of_main_away_from_its_thread():
    code = """
seen, where = [], []
def handler(*_): seen.append(threading.get_native_id())
signal.signal(signal.SIGINT, handler)
def sends():
    eventually(lambda: call(where[0])[0] in ("35", "230"))
    os.kill(os.getpid(), signal.SIGINT)
sender = go(sends)
where.append(threading.get_native_id())
assert libc.usleep(20_000_000) == -1 and len(seen) == 1, seen
sender.join(timeout=20)
os.write(w, b"x")
print("ok")
"""
    check(HEADER + AWAY + code, "ok")


@pytest.mark.parametrize("boundary", ["1", "0"])
@pytest.mark.parametrize("wait", ["Chan().recv()", "computes()", "libc.usleep(20_000_000)"])
def test_handler_that_raises_ends_what_main_does(wait, boundary):
    """As SystemExit does: the program ends with its code, silently, beside whoever is there."""
    code = f"""
def handler(*_): sys.exit(7)
signal.signal(signal.SIGTERM, handler)
libc.usleep(1)
crowd()
go(lambda: (gort.sleep(0.02), os.kill(os.getpid(), signal.SIGTERM)))
{wait}
print("went on")
"""
    done = child(HEADER + code, GORT_BOUNDARY=boundary)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


@pytest.mark.parametrize("name, text", [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "")])
def test_signals_that_nobody_handles_end_the_program_as_any(name, text):
    code = f"""
signal.signal(signal.SIGINT, signal.default_int_handler)
crowd()
go(lambda: (gort.sleep(0.02), os.kill(os.getpid(), signal.{name})))
Chan().recv()
"""
    done = child(HEADER + code)
    assert done.returncode == {"SIGINT": -2, "SIGTERM": -15}[name]
    assert text in done.stderr


def test_a_signal_for_each_of_many_parks_of_main_is_handled_once():
    code = """
seen, back = [], Chan()
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
crowd()
def sends():
    for n in range(200):
        os.kill(os.getpid(), signal.SIGUSR1)
        eventually(lambda: len(seen) == n + 1)
        back.send(n)
sender = go(sends)
assert [back.recv(timeout=20) for _ in range(200)] == list(range(200))
sender.join()
assert len(seen) == 200
stop.append(True)
print("ok")
"""
    check(HEADER + code, "ok")


@pytest.mark.parametrize("boundary", ["1", "0"])
def test_asyncio_hears_signals_beside_goroutines(boundary):
    code = """
async def hears():
    loop, names = asyncio.get_running_loop(), [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1]
    heard = {name: asyncio.Event() for name in names}
    for name in names: loop.add_signal_handler(name, heard[name].set)
    def sends():
        for name in names:
            os.kill(os.getpid(), name)
            eventually(heard[name].is_set)
    sender = go(sends)
    for name in names: await asyncio.wait_for(heard[name].wait(), 20)
    await gort.wait(sender)
    for name in names: assert loop.remove_signal_handler(name)
async def starts(word):
    process = await asyncio.create_subprocess_exec("echo", word, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip(), process.returncode
async def waits():
    sender = go(lambda: (gort.sleep(0.001), os.kill(os.getpid(), signal.SIGINT)))
    try: await asyncio.sleep(20)
    finally: ended.append("cancelled")
crowd()
asyncio.run(hears())
assert asyncio.run(starts("main")) == ("main", 0)
gs = [go(asyncio.run, starts(f"goroutine {n}")) for n in range(5)]
assert [g.join(timeout=20) for g in gs] == [(f"goroutine {n}", 0) for n in range(5)]
ended = []
signal.signal(signal.SIGINT, signal.default_int_handler)
try: asyncio.run(waits())
except KeyboardInterrupt: ended.append("interrupted")
assert ended == ["cancelled", "interrupted"], ended
assert signal.set_wakeup_fd(-1) == -1
stop.append(True)
print("ok")
"""
    check(HEADER + code, "ok", GORT_BOUNDARY=boundary)


def test_wakeup_descriptor_wakes_a_goroutine():
    """The byte comes to whoever reads, as the handler comes to main."""
    code = """
import socket
a, b = socket.socketpair()
a.setblocking(False)
seen, order = [], []
signal.signal(signal.SIGUSR1, lambda *_: order.append("handler"))
signal.signal(signal.SIGUSR2, lambda *_: order.append("handler"))
signal.set_wakeup_fd(a.fileno())
def reads():
    seen.append(b.recv(1)[0])
    order.append("byte")
libc.usleep(1)
for number in (signal.SIGUSR1, signal.SIGUSR2):
    reader = go(reads)
    parked(reader)
    signal.raise_signal(number)
    eventually(lambda: len(order) == 2)
    assert sorted(order) == ["byte", "handler"] and reader.done
    order.clear()
assert seen == [signal.SIGUSR1, signal.SIGUSR2]
signal.set_wakeup_fd(-1)
print("ok")
"""
    check(HEADER + code, "ok")
