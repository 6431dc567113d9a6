"""tracemalloc shows goroutines and channels in a domain of gort's own, by the line that made them, while they live."""

from __future__ import annotations

import gc
import linecache
import tracemalloc

import gort
import pytest
from children import check
from waiting import LIMIT, eventually, join_all, parked

DOMAIN = gort.memory.TRACEMALLOC_DOMAIN
PAGE = 4096


@pytest.fixture(autouse=True)
def traced():
    gort.go(int).join()
    tracemalloc.start(5)
    yield
    tracemalloc.stop()


def lines():
    """Bytes and blocks in the domain by the text of the line of this file that asked for them."""
    snapshot = tracemalloc.take_snapshot()
    snapshot = snapshot.filter_traces([tracemalloc.DomainFilter(True, DOMAIN)])
    found = {}
    for statistic in snapshot.statistics("traceback"):
        ours = [frame.lineno for frame in statistic.traceback if frame.filename == __file__]
        text = linecache.getline(__file__, ours[-1]).strip() if ours else "elsewhere"
        size, count = found.get(text, (0, 0))
        found[text] = (size + statistic.size, count + statistic.count)
    return found


def test_goroutines_are_at_the_lines_that_start_them():
    ch = gort.Chan()
    gs = [gort.go(ch.recv) for _ in range(100)]
    other = gort.spawn(ch.recv, name="other")
    parked(*gs, other)
    found = lines()
    size, count = found["gs = [gort.go(ch.recv) for _ in range(100)]"]
    assert count == 100 and 100 * PAGE < size < 100 * 2 * PAGE
    size, count = found['other = gort.spawn(ch.recv, name="other")']
    assert count == 1 and PAGE < size < 2 * PAGE
    assert found["ch = gort.Chan()"][1] == 1
    for i in range(101):
        ch.send(i)
    join_all([*gs, other])
    assert list(lines()) == ["ch = gort.Chan()"]
    del ch, gs, other
    gc.collect()
    eventually(lambda: lines() == {})


def test_channels_count_with_their_buffers():
    small, large = gort.Chan(), gort.Chan(1000)
    found = lines()["small, large = gort.Chan(), gort.Chan(1000)"]
    assert found[1] == 2 and 8000 < found[0] < 9000
    for i in range(1000):
        large.send(i)
    assert lines()["small, large = gort.Chan(), gort.Chan(1000)"] == found
    del small, large
    assert lines() == {}


def test_huge_channel_counts_with_what_it_has():
    huge = gort.Chan(1 << 50)
    assert lines()["huge = gort.Chan(1 << 50)"][0] < 1 << 20
    huge.send("kept")
    assert huge.recv() == "kept"


def test_timers_count_until_they_are_stopped_or_have_called():
    ch = gort.Chan(1)
    timer = gort.after_func(100, ch.send, "never")
    called = gort.after_func(0.001, ch.send, "called")
    ticks = gort.after(100)
    assert ch.recv(timeout=LIMIT) == "called"
    timer.stop()
    del called, timer
    gc.collect()
    eventually(lambda: set(lines()) == {"ch = gort.Chan(1)", "ticks = gort.after(100)"})
    del ticks


def test_who_never_began_is_forgotten():
    gort.memory.set_limit(0)
    try:
        with pytest.raises(MemoryError):
            gort.go(int)
    finally:
        gort.memory.set_limit(None)
    assert lines() == {}


def test_started_and_stopped_while_goroutines_live():
    ch = gort.Chan()
    before = gort.go(ch.recv)
    parked(before)
    tracemalloc.stop()
    unseen = gort.go(ch.recv)
    unmade = gort.Chan(5)
    tracemalloc.start(5)
    seen = gort.go(ch.recv)
    parked(before, unseen, seen)
    assert list(lines()) == ["seen = gort.go(ch.recv)"]
    for i in range(3):
        ch.send(i)
    join_all([before, unseen, seen])
    del ch, unmade
    assert lines() == {}


def test_a_goroutine_started_by_a_goroutine_is_at_its_line():
    def inner():
        return gort.go(ch.recv)

    ch = gort.Chan()
    g = gort.go(inner).join(timeout=LIMIT)
    assert lines()["return gort.go(ch.recv)"][1] == 1
    ch.send(1)
    assert g.join(timeout=LIMIT) == 1
    assert "return gort.go(ch.recv)" not in lines()


def test_a_crowd_leaves_no_trace():
    for _ in range(3):
        join_all([gort.go(lambda n: gort.Chan(n), n) for n in range(500)])
    gc.collect()
    assert lines() == {}


def test_from_the_start_of_the_interpreter():
    code = """
import tracemalloc, gort
ch = gort.Chan()
gs = [gort.go(ch.recv_ok) for _ in range(3)]
domain = tracemalloc.DomainFilter(True, gort.memory.TRACEMALLOC_DOMAIN)
print(len(tracemalloc.take_snapshot().filter_traces([domain]).traces))
ch.close()
"""
    check(code, "4", PYTHONTRACEMALLOC="5")
