"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of runtime/pprof/pprof_test.go: TestBlockProfile and TestMutexProfile. What a stack begins with are
the methods that wait here (`gort.Chan.recv` for `runtime.chanrecv1`). Left out: TestBlockProfileBias,
which calls the runtime's own blockevent (tests/test_pprof_contention.py has the bias), and
runtime.MutexProfile, which there is not.
"""

import io
import re
import time

import gort
import gort.pprof
import pytest
from pprofs import read
from waiting import eventually

N = 100
#: Seconds.
D = 0.1


def await_blocked(state, name, count=1):
    """Goroutines with this function are in this state."""
    function = re.escape(f"{__name__}.{name}(")
    blocked = re.compile(rf"(?m)^goroutine \d+ \[{state}\b.*\]:\n(?:.+\n\t.+\n)*{function}")
    eventually(lambda: len(blocked.findall(gort.dump())) >= count)


def block_chan_recv():
    c = gort.Chan()

    def wakes():
        await_blocked("chan receive", "block_chan_recv")
        c.send(True)

    gort.go(wakes)
    c.recv()


def block_chan_send():
    c = gort.Chan()

    def wakes():
        await_blocked("chan send", "block_chan_send")
        c.recv()

    gort.go(wakes)
    c.send(True)


def block_chan_close():
    c = gort.Chan()

    def wakes():
        await_blocked("chan receive", "block_chan_close")
        c.close()

    gort.go(wakes)
    c.recv_ok()


def block_select_recv_async():
    tries = 3
    c, c2 = gort.Chan(1), gort.Chan(1)

    def wakes():
        for _ in range(tries):
            await_blocked("select", "block_select_recv_async")
            c.send(True)

    gort.go(wakes)
    for _ in range(tries):
        gort.select(gort.recv(c), gort.recv(c2))


def block_select_send_sync():
    c, c2 = gort.Chan(), gort.Chan()

    def wakes():
        await_blocked("select", "block_select_send_sync")
        c.recv()

    gort.go(wakes)
    gort.select(gort.send(c, True), gort.send(c2, True))


def block_mutex():
    mu = gort.Mutex()
    mu.lock()

    def wakes():
        await_blocked("sync.Mutex.Lock", "block_mutex")
        mu.unlock()

    gort.go(wakes)
    mu.lock()


def block_cond():
    mu = gort.Mutex()
    c = gort.Cond(mu)
    mu.lock()

    def wakes():
        await_blocked("sync.Cond.Wait", "block_cond")
        mu.lock()
        c.signal()
        mu.unlock()

    gort.go(wakes)
    c.wait()
    mu.unlock()


def wakes_all(mu):
    await_blocked("sync.Mutex.Lock", "block_mutex_n.<locals>.locks", N)
    gort.sleep(D)
    mu.unlock()


def block_mutex_n():
    wg, mu = gort.WaitGroup(), gort.Mutex()
    mu.lock()
    gort.go(wakes_all, mu)

    def locks():
        mu.lock()
        mu.unlock()

    for _ in range(N):
        wg.go(locks)
    wg.wait()


BLOCKS = {
    block_chan_recv: "gort.Chan.recv",
    block_chan_send: "gort.Chan.send",
    block_chan_close: "gort.Chan.recv",
    block_select_recv_async: "gort.select",
    block_select_send_sync: "gort.select",
    block_mutex: "gort.Mutex.lock",
    block_cond: "gort.Cond.wait",
}


def written(name, debug):
    file = io.BytesIO()
    gort.pprof.lookup(name).write_to(file, debug)
    return file.getvalue()


@pytest.fixture
def blocks():
    gort.pprof.set_block_profile_rate(1)
    for block in BLOCKS:
        gort.go(block).join()
    yield
    gort.pprof.set_block_profile_rate(0)


def test_block_profile_as_text(blocks):
    text = written("block", 1).decode()
    assert text.startswith("--- contention:\ncycles/second=")
    assert not text.endswith("#\t0x0\n\n")
    for block, leaf in BLOCKS.items():
        entry = (
            r"[0-9]+ [0-9]+ @( 0x[0-9a-f]+)+\n"
            rf"#\t+0x[0-9a-f]+\t+{re.escape(leaf)}\+0x[0-9a-f]+\t+.*\n"
            rf"#\t+0x[0-9a-f]+\t+{re.escape(__name__)}\.{block.__name__}\+0x[0-9a-f]+\t+.*{__file__}:[0-9]+\n"
        )
        assert re.search(entry, text), (entry, text)


def test_block_profile_as_proto(blocks):
    stacks = [stack[:2] for stack, _, _ in read(written("block", 0)).samples]
    for block, leaf in BLOCKS.items():
        assert [leaf, f"{__name__}.{block.__name__}"] in [list(stack) for stack in stacks]


def test_mutex_profile():
    assert gort.pprof.set_mutex_profile_fraction(1) == 0
    before = total()
    begun = time.monotonic()
    try:
        gort.go(block_mutex_n).join()
    finally:
        gort.pprof.set_mutex_profile_fraction(0)
    took = time.monotonic() - begun

    text = written("mutex", 1).decode()
    assert text.startswith("--- mutex:\ncycles/second=")
    frames = rf"#.*gort\.Mutex\.unlock\+.*\n#.*{re.escape(__name__)}\.wakes_all\+.*\n"
    assert re.search(r"(?m)^\d+ \d+ @(?: 0x[0-9a-f]+)+\n" + frames, text), text

    # At least N times D; how much more depends on the machine, but no more than all that time.
    assert N * D * 9 / 10 <= total() - before <= N * took * 11 / 10


def total():
    """Seconds of all that is in the mutex profile."""
    profile = read(written("mutex", 0))
    assert profile.kinds[1][1] == "nanoseconds"
    return sum(values[1] for _, values, _ in profile.samples) / 1e9
