"""Limits of the process reached for real: who asked for more gets an exception, everything else goes on, and once the limit
is lifted all is as before. Each in a child: the limits are its own.
"""

from __future__ import annotations

from textwrap import dedent

import pytest
from children import check, threads

HEADER = """
import ctypes, gc, gort, os, resource, select, socket, subprocess, threading
from waiting import eventually, parked
libc = ctypes.CDLL(None)

def limit(what, count):
    "Sets a soft limit; gives what lifts it."
    before = resource.getrlimit(what)
    resource.setrlimit(what, (count, before[1]))
    return lambda: resource.setrlimit(what, before)

def leave(mib):
    "Lets the process have that much address space more than it has."
    gc.disable()  # a pass that CPython has no memory to tell callbacks of it tells stderr of
    before = pages = 0
    while pages != before or not pages:  # a thread that takes this one's place in the call has a stack, too
        before = pages
        with open("/proc/self/statm") as statm: pages = int(statm.read().split()[0])
    return limit(resource.RLIMIT_AS, pages * resource.getpagesize() + int(mib * (1 << 20)))
"""


def run(code, **options):
    check(HEADER + dedent(code), "ok", **options)


def test_stacks_that_use_up_the_address_space_are_memory_errors_of_those_that_came_too_late():
    run("""
    def main():
        gate = gort.Chan()
        early = [gort.go(gate.recv) for _ in range(100)]
        parked(*early)
        lift = leave(64)
        with gort.no_preempt():  # none of them runs before all are there
            late = [gort.go(gate.recv) for _ in range(1000)]
        eventually(lambda: not any(g.status == "runnable" for g in late))
        came = [g for g in late if not g.done]
        assert 0 < len(came) < 900, len(came)
        assert len(bytearray(4 << 20)) == 4 << 20  # nobody's stack took the last of it
        for _ in early + came: gate.send("value")
        assert {g.join(timeout=20) for g in early + came} == {"value"}
        refused = []
        for g in set(late) - set(came):
            try: g.join()
            except MemoryError as error: refused.append(error)
        assert len(refused) == 1000 - len(came)
        assert {str(error) for error in refused} == {"gort: no memory for a goroutine's stack"}
        assert len(set(map(id, refused))) == len(refused)
        lift()
        late = [gort.go(gate.recv) for _ in range(1000)]
        parked(*late)
        for _ in late: gate.send("again")
        assert {g.join(timeout=20) for g in late} == {"again"}
    gort.run(main)
    print("ok")
    """)


@pytest.mark.parametrize("mib", [24, 34, 58])
def test_starts_that_use_up_the_memory_are_memory_errors(mib):
    """Nothing of the scheduler may ask in vain for memory in the middle of a start: that would be the end."""
    run(f"""
    def main():
        gate, started = gort.Chan(), []
        early = [gort.go(gate.recv) for _ in range(100)]
        parked(*early)
        lift = leave({mib})
        try:
            while True: started.append(gort.go(int))
        except MemoryError: pass
        for _ in range(len(started) // 2): started.pop()
        for _ in early: gate.send("value")
        assert {{g.join(timeout=20) for g in early}} == {{"value"}}
        lift()
        assert started and {{g.join(timeout=20) for g in started}} == {{0}}
        assert gort.go(lambda: 5).join() == 5
    gort.run(main)
    print("ok")
    """)


@pytest.mark.parametrize("kind", ["gort.after(600)", "gort.after_func(600, int)", "gort.Ticker(1)"])
def test_timers_that_use_up_the_memory_are_memory_errors(kind):
    run(f"""
    def main():
        fired, timers = gort.Chan(1), []
        soon = gort.after_func(0.01, fired.send, "fired")
        for mib in (15, 25):
            lift = leave(mib)
            try:
                while True: timers.append({kind})
            except MemoryError: pass
            lift()
        assert fired.recv(timeout=20) == "fired"
        # Twice the list may have had no room for one that was made, and a call is made with nobody knowing it.
        assert 0 <= gort.stats()["timers"] - len(timers) <= 2
        assert soon.reset(0) is False and fired.recv(timeout=20) == "fired"
    gort.run(main)
    print("ok")
    """)


@pytest.mark.parametrize(
    "kind", ["gort.after_func(0.01, call)", "gort.context.after_func(context, call)"]
)
def test_a_call_that_is_due_without_memory_comes_once_there_is_some(kind):
    """Nobody could ask for it again: a time-out that was set is not lost."""
    run(f"""
    import gort.context
    def main():
        gate, calls, times = gort.Chan(), [], gort.Chan(300)
        def call():
            calls.append(gort.current().id)
            times.send("called")
        early = [gort.go(gate.recv) for _ in range(100)]
        parked(*early)
        lift = leave(64)
        last = gort.go(gate.recv)
        while (gort.gosched(), last.done) == (None, False):  # until no stack is left
            early.append(last)
            last = gort.go(gate.recv)
        context, cancel = gort.context.with_timeout(gort.context.background(), 0.01)
        kept = [{kind} for _ in range(150)]
        dropped = [{kind} for _ in range(150)]
        del dropped
        gort.sleep(0.02)  # comes after they were due
        for _ in range(5): gort.gosched()
        assert len(calls) < 300, "there was memory"
        try: last.join()
        except MemoryError: pass
        lift()
        for _ in range(300): assert times.recv(timeout=20) == "called"
        assert len(calls) == 300 == len(set(calls))
        cancel()
        for _ in early: gate.send("value")
        assert {{g.join(timeout=20) for g in early}} == {{"value"}}
    gort.run(main)
    print("ok")
    """)


@pytest.mark.parametrize("mib", [0, 4, 7])
def test_without_memory_to_begin_every_use_is_a_memory_error(mib):
    run(f"""
    lift = leave({mib})
    for use in (lambda: gort.go(int), lambda: gort.sleep(0.001), lambda: gort.run(int), lambda: gort.after(1)):
        try: use()
        except MemoryError as error: assert str(error).startswith("gort cannot start: "), error
        else: raise AssertionError("it was there")
    lift()
    assert gort.go(lambda: 5).join() == 5 and gort.run(lambda: 6) == 6
    print("ok")
    """)


def test_threads_that_are_goroutines_are_refused_as_threads_are():
    threads(
        HEADER
        + """
gate, told = gort.Chan(), []
def ends(): told.append(gate.recv())
early = [threading.Thread(target=ends) for _ in range(3)]
for t in early: t.start()
lift, late = leave(64), []
try:
    while True:
        t = threading.Thread(target=ends)
        t.start()
        late.append(t)
except RuntimeError as error: assert str(error) == "can't start new thread", error
assert len(bytearray(4 << 20)) == 4 << 20
for _ in early + late: gate.send(1)
for t in early + late: t.join()
assert len(told) == len(early + late)
lift()
more = [threading.Thread(target=ends) for _ in range(100)]
for t in more: t.start()
for _ in more: gate.send(1)
for t in more: t.join()
print("ok")
""",
        expect="ok",
    )


@pytest.mark.parametrize("when", ["before the first thread", "after"])
def test_no_more_processes_and_threads_for_this_user(when):
    """The limit is not for root: the child becomes somebody else. What it imports it needs before."""
    run(f"""
    import warnings; warnings.simplefilter("ignore")  # of forks beside threads
    def main():
        def block(i):
            libc.usleep(1000)
            return i
        def asks(what):
            try: return what()
            except BlockingIOError: return "refused"
        if {when == "after"}:
            assert [g.join() for g in [gort.go(block, i) for i in range(5)]] == list(range(5))
        lift = limit(resource.RLIMIT_NPROC, 1)
        try: threading.Thread(target=int).start()
        except RuntimeError as error: assert str(error) == "can't start new thread"
        else: raise AssertionError("a thread was started: no such limit")
        blocked = [gort.go(block, i) for i in range(20)]
        ch = gort.Chan()
        gort.go(lambda: [ch.send(i) for i in range(100)] and ch.close())
        assert list(ch) == list(range(100))
        assert [g.join(timeout=20) for g in blocked] == list(range(20))
        for what in (os.fork, lambda: subprocess.run(["true"])):
            assert asks(what) == gort.go(asks, what).join(timeout=20) == "refused"
        lift()
        hand_offs = gort.stats()["hand_offs"]
        eventually(lambda: [gort.go(block, i).join() for i in range(5)] and gort.stats()["hand_offs"] > hand_offs)
        assert gort.go(asks, lambda: subprocess.run(["true"]).returncode).join(timeout=20) == 0
        t = threading.Thread(target=int)
        t.start()
        t.join()
    libc.usleep(1)
    if os.getuid() == 0: os.setresuid(54321, 54321, 54321)
    gort.run(main)
    print("ok")
    """)


@pytest.mark.parametrize("when", ["before the first wait", "after"])
def test_no_more_descriptors(when):
    run(f"""
    import errno
    def main():
        pairs = [socket.socketpair() for _ in range(10)]
        server = socket.create_server(("127.0.0.1", 0))
        clients = [socket.socket() for _ in range(5)]
        def pass_values():
            waits = [gort.go(a.recv, 10) for a, _ in pairs]
            gort.go(gort.sleep, 0.001).join()
            for i, (_, b) in enumerate(pairs): b.sendall(b"%d" % i)
            assert [g.join(timeout=20) for g in waits] == [b"%d" % i for i in range(10)]
        def asks(what):
            try: what()
            except OSError as error: return error.errno
        if {when == "after"}: pass_values()
        lowest = os.dup(0)
        os.close(lowest)
        lift = limit(resource.RLIMIT_NOFILE, lowest)  # those below are all in use
        for c in clients: c.connect(server.getsockname())
        more = [server.accept, socket.socketpair, os.pipe, lambda: open("/dev/null"), select.epoll,
                lambda: subprocess.run(["true"], stdout=subprocess.PIPE)]
        for what in more: assert gort.go(asks, what).join(timeout=20) == errno.EMFILE, what
        pass_values()
        lift()
        assert len([gort.go(server.accept).join(timeout=20) for _ in clients]) == 5
        for what in more[1:]: assert gort.go(asks, what).join(timeout=20) is None, what
        pass_values()
        waits = [gort.go(a.recv, 1) for a, _ in pairs]
        eventually(lambda: {{g.status for g in waits}} == {{"IO wait"}})
        for a, b in pairs: b.close()
        assert [g.join(timeout=20) for g in waits] == [b""] * 10
    gort.run(main)
    print("ok")
    """)
