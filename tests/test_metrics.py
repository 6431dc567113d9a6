"""gort.metrics: Go's names and kinds, latencies as they happen, histograms."""

from __future__ import annotations

import gc
import math
import threading

import gort
import gort.leak
import gort.metrics
import pytest
from gort.metrics import Float64Histogram, Kind
from waiting import eventually, parked

READY = "/sched/latencies:seconds"
WAKE_UPS = "/gort/sched/wakeups:seconds"
LOCK = "/gort/sched/interpreter-lock/waits:seconds"
PAUSES = "/gc/pauses:seconds"
STOPPED = "/sched/pauses/total/other:seconds"

# Of Go's runtime/metrics (1.26), with their kinds: those that mean here what they mean there.
GOS = {
    "/cpu/classes/gc/pause:cpu-seconds": (Kind.FLOAT64, True),
    "/cpu/classes/gc/total:cpu-seconds": (Kind.FLOAT64, True),
    "/cpu/classes/idle:cpu-seconds": (Kind.FLOAT64, True),
    "/cpu/classes/total:cpu-seconds": (Kind.FLOAT64, True),
    "/cpu/classes/user:cpu-seconds": (Kind.FLOAT64, True),
    "/gc/cycles/total:gc-cycles": (Kind.UINT64, True),
    "/gc/gogc:percent": (Kind.UINT64, False),
    "/gc/gomemlimit:bytes": (Kind.UINT64, False),
    "/gc/heap/allocs:bytes": (Kind.UINT64, True),
    "/gc/heap/allocs:objects": (Kind.UINT64, True),
    "/gc/heap/frees:bytes": (Kind.UINT64, True),
    "/gc/heap/frees:objects": (Kind.UINT64, True),
    "/gc/heap/objects:objects": (Kind.UINT64, False),
    "/gc/pauses:seconds": (Kind.FLOAT64_HISTOGRAM, True),
    "/memory/classes/heap/free:bytes": (Kind.UINT64, False),
    "/memory/classes/heap/objects:bytes": (Kind.UINT64, False),
    "/memory/classes/heap/released:bytes": (Kind.UINT64, False),
    "/memory/classes/heap/unused:bytes": (Kind.UINT64, False),
    "/memory/classes/metadata/other:bytes": (Kind.UINT64, False),
    "/memory/classes/total:bytes": (Kind.UINT64, False),
    "/sched/gomaxprocs:threads": (Kind.UINT64, False),
    "/sched/goroutines-created:goroutines": (Kind.UINT64, True),
    "/sched/goroutines/not-in-go:goroutines": (Kind.UINT64, False),
    "/sched/goroutines/runnable:goroutines": (Kind.UINT64, False),
    "/sched/goroutines/running:goroutines": (Kind.UINT64, False),
    "/sched/goroutines/waiting:goroutines": (Kind.UINT64, False),
    "/sched/goroutines:goroutines": (Kind.UINT64, False),
    "/sched/latencies:seconds": (Kind.FLOAT64_HISTOGRAM, True),
    "/sched/pauses/total/gc:seconds": (Kind.FLOAT64_HISTOGRAM, True),
    "/sched/pauses/total/other:seconds": (Kind.FLOAT64_HISTOGRAM, True),
    "/sched/threads/total:threads": (Kind.UINT64, False),
    "/sync/mutex/wait/total:seconds": (Kind.FLOAT64, True),
}


def value(name: str) -> int | float | Float64Histogram:
    """The value of one metric."""
    [sample] = gort.metrics.read(name)
    assert sample.value is not None
    return sample.value


def times(name: str) -> Float64Histogram:
    """A histogram."""
    return gort.metrics.read(name)[0].histogram()


def ping_pong(rounds: int) -> None:
    """Two goroutines wake each other."""
    there, back = gort.Chan(), gort.Chan()

    def echo() -> None:
        for item in there:
            back.send(item)

    g = gort.go(echo)
    for n in range(rounds):
        there.send(n)
        back.recv()
    there.close()
    g.join()


def test_all_describes_gos_names_and_ours():
    found = gort.metrics.all()
    names = [d.name for d in found]
    assert names == sorted(set(names))
    assert {d.name: (d.kind, d.cumulative) for d in found if not d.name.startswith("/gort/")} == GOS
    for description in found:
        assert description.description.endswith(".")
        path, colon, unit = description.name.partition(":")
        assert path.startswith("/") and colon and unit


def test_read_gives_every_metric_its_kind():
    types = {Kind.UINT64: int, Kind.FLOAT64: float, Kind.FLOAT64_HISTOGRAM: Float64Histogram}
    samples = {s.name: s for s in gort.metrics.read()}
    for description in gort.metrics.all():
        sample = samples[description.name]
        assert sample.kind == description.kind
        assert type(sample.value) is types[description.kind]
        if not isinstance(sample.value, Float64Histogram):
            assert sample.value >= 0


def test_read_gives_what_is_asked_in_that_order_and_bad_for_unknown_names():
    asked = ("/sched/gomaxprocs:threads", "/none:such", READY, "/gort/sched/latencies/group/no:x")
    samples = gort.metrics.read(*asked)
    assert [s.name for s in samples] == list(asked)
    assert [s.kind for s in samples] == [
        Kind.UINT64, Kind.BAD, Kind.FLOAT64_HISTOGRAM, Kind.BAD,
    ]  # fmt: skip
    assert samples[0].uint64() == gort.gomaxprocs()
    assert samples[1].value is None
    for wrong in (samples[0].float64, samples[0].histogram, samples[2].uint64, samples[1].float64):
        with pytest.raises(TypeError, match=r" is [A-Z0-9_]+, not [A-Z0-9_]+"):
            wrong()


def test_a_name_must_be_a_str():
    with pytest.raises(TypeError, match="a name is a str, not int"):
        gort.metrics.read(1)  # type: ignore[arg-type]


def test_goroutines_are_counted_by_what_they_do():
    gate = gort.Chan()
    waiters = [gort.go(gate.recv) for _ in range(10)]
    parked(*waiters)
    ready = [gort.go(int) for _ in range(5)]
    samples = gort.metrics.read(
        "/sched/goroutines/waiting:goroutines",
        "/sched/goroutines/runnable:goroutines",
        "/sched/goroutines/running:goroutines",
        "/sched/goroutines:goroutines",
    )
    waiting, runnable, running, total = (s.uint64() for s in samples)
    assert waiting >= 10
    assert runnable >= 5
    assert running == 1
    assert total == gort.num_goroutine() >= 16
    for g in ready:
        g.join()
    for _ in waiters:
        gate.send(None)


def test_created_goroutines_only_get_more():
    before = value("/sched/goroutines-created:goroutines")
    for _ in range(7):
        gort.go(int).join()
    assert value("/sched/goroutines-created:goroutines") == before + 7


def test_who_is_woken_is_timed():
    ready, woken = times(READY), times(WAKE_UPS)
    ping_pong(1000)
    assert times(READY).size >= ready.size + 10
    assert times(WAKE_UPS).size >= woken.size + 10
    assert times(READY).total > ready.total


def test_who_is_new_or_yields_is_timed_but_not_as_woken():
    def turns() -> None:
        for _ in range(500):
            gort.gosched()

    ready, woken = times(READY), times(WAKE_UPS)
    both = [gort.go(turns) for _ in range(2)]
    for g in both:
        g.join()
    assert times(READY).size >= ready.size + 10
    assert times(WAKE_UPS).size <= woken.size + 3  # main, which waits for them


def test_a_long_wait_is_counted_as_long():
    def computes() -> None:
        sum(range(300_000))  # some milliseconds in one call, which nothing interrupts

    before = times(READY)
    for _ in range(3):
        crowd = [gort.go(computes) for _ in range(60)]
        for g in crowd:
            g.join()
    after = times(READY)
    long = sum(
        new - old
        for new, old, bound in zip(after.counts, before.counts, after.buckets, strict=False)
        if bound >= 0.001
    )
    assert long >= 1


def test_passes_of_the_collector_are_timed():
    before = times(PAUSES)
    total = value("/gc/cycles/total:gc-cycles")
    for _ in range(5):
        gc.collect()
    assert times(PAUSES).size >= before.size + 5
    assert times(PAUSES).total > before.total
    assert value("/gc/cycles/total:gc-cycles") >= total + 5
    assert times("/sched/pauses/total/gc:seconds").size == times(PAUSES).size


def test_looks_at_everything_are_timed():
    before = times(STOPPED)
    gort.leak.find()
    gort.dump()
    assert times(STOPPED).size >= before.size + 2


def test_waits_for_the_interpreters_lock_are_timed():
    stop = threading.Event()

    def computes() -> None:
        while not stop.is_set():
            sum(range(1000))

    before = times(LOCK).size
    thread = threading.Thread(target=computes)
    thread.start()
    try:

        def let_go() -> bool:
            gort.sleep(0.001)
            return times(LOCK).size > before + 3

        eventually(let_go)
    finally:
        stop.set()
        thread.join()


def test_waits_for_locks_are_added_up():
    mutex, rw = gort.Mutex(), gort.RWMutex()
    before = value("/sync/mutex/wait/total:seconds")
    for lock in (mutex, rw):
        lock.lock()
        waiters = [gort.go(lambda lock=lock: (lock.lock(), lock.unlock())) for _ in range(20)]
        parked(*waiters)
        gort.sleep(0.02)
        lock.unlock()
        for g in waiters:
            g.join()
    # One or two of the forty are timed, and each counts for 32: 0.64 s at least of 0.8.
    assert value("/sync/mutex/wait/total:seconds") - before >= 0.3


def test_priorities_and_groups_are_timed_while_they_are_in_use():
    group = gort.Group('odd "name"')
    g = [group.go(gort.gosched) for _ in range(20)]
    g += [gort.spawn(gort.gosched, priority=7) for _ in range(10)]
    for each in g:
        each.join()
    name = '/gort/sched/latencies/group/odd "name":seconds'
    names = {d.name for d in gort.metrics.all()}
    assert {name, "/gort/sched/latencies/priority/7:seconds"} <= names
    assert times(name).size >= 20
    assert times("/gort/sched/latencies/priority/7:seconds").size >= 10
    assert times("/gort/sched/latencies/priority/0:seconds").size >= 20
    del g, each, group
    gc.collect()
    assert gort.metrics.read(name)[0].kind == Kind.BAD


def test_groups_of_one_name_count_together():
    groups = [gort.Group("both") for _ in range(2)]
    for group in groups:
        group.go(int).join()
    assert times("/gort/sched/latencies/group/both:seconds").size == 2


def test_buckets_are_gos():
    buckets = times(READY).buckets
    assert len(buckets) == len(times(READY).counts) + 1 == 163
    assert buckets[0] == -math.inf and buckets[-1] == math.inf
    assert buckets[1:6] == (0.0, 64e-9, 128e-9, 192e-9, 256e-9)
    assert buckets[-2] == 2**47 / 1e9
    assert list(buckets) == sorted(set(buckets))


def test_cpu_classes_add_up():
    sum(range(1_000_000))
    names = ("gc/total", "idle", "user", "total")
    samples = gort.metrics.read(*(f"/cpu/classes/{n}:cpu-seconds" for n in names))
    collected, idle, user, total = (s.float64() for s in samples)
    assert total > 0 and user > 0
    assert collected + idle + user == pytest.approx(total)


def test_total_cpu_follows_gomaxprocs():
    before = gort.gomaxprocs(4)
    try:
        start = value("/cpu/classes/total:cpu-seconds")
        gort.sleep(0.05)
        assert value("/cpu/classes/total:cpu-seconds") - start >= 0.2
    finally:
        gort.gomaxprocs(before)


def test_memory_classes_add_up():
    kept = [gort.Chan(100) for _ in range(100)]
    samples = {s.name: s for s in gort.metrics.read() if s.name.startswith("/memory/classes/")}
    total = samples.pop("/memory/classes/total:bytes").uint64()
    assert sum(s.uint64() for s in samples.values()) == total > 0
    del kept


def test_tune_is_seen():
    with gort.gc.tune(300, 1 << 40) if not gort.gc.IN_STEPS else pytest.raises(RuntimeError):
        if gort.gc.IN_STEPS:
            gort.gc.tune(300)
        assert value("/gc/gogc:percent") == 300
        assert value("/gc/gomemlimit:bytes") == 1 << 40
    assert value("/gc/gogc:percent") == (1 << 64) - 1
    assert value("/gc/gomemlimit:bytes") == (1 << 63) - 1


def test_quantiles():
    histogram = Float64Histogram((0, 90, 9, 1), (-math.inf, 0.0, 1.0, 2.0, math.inf), 0.0)
    assert [histogram.quantile(q) for q in (0, 0.5, 0.9, 0.91, 0.99, 1)] == [1, 1, 1, 2, 2, 2]
    assert histogram.size == 100
    assert Float64Histogram((0, 0), (0.0, 1.0, 2.0), 0.0).quantile(0.5) == 0.0
    with pytest.raises(ValueError, match="from 0 to 1"):
        histogram.quantile(1.5)
