"""Operations for tests/nomemory.py on what tells of a program: traces, profiles of waits, metrics, health, deadlocks."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile

import gort
import gort.deadlock
import gort.metrics
import gort.pprof
import gort.trace
from nomemory_values import FAILED, LIMIT, add, leave_pairs

TRACE = b"go 1.26 trace"


def begins_again():
    """Nothing is left of a trace that failed: the next one is whole."""
    try:
        gort.trace.stop()
    except MemoryError:
        pass  # it is not whole
    assert not gort.trace.is_enabled()
    file = io.BytesIO()
    with gort.trace.to(file):
        assert gort.go(add, 1).join(timeout=LIMIT) == 1
    assert file.getvalue().startswith(TRACE) and not gort.trace.is_enabled()


def traces_to_a_file():
    """A trace for a file of Python's."""
    file = io.BytesIO()

    def act():
        with gort.trace.to(file):
            gort.go(add, 1).join(timeout=LIMIT)
            with gort.trace.Task("task"), gort.trace.Region("region"):
                gort.trace.log("category", "message")

    def verify(outcome):
        begins_again()
        assert outcome is FAILED or file.getvalue().startswith(TRACE)

    return act, verify


def traces_to_a_path():
    """A trace that the system writes; its descriptor is closed in any case."""
    place, path = tempfile.mkstemp()
    os.close(place)
    descriptors = len(os.listdir("/proc/self/fd"))

    def act():
        gort.trace.start(path)
        gort.go(add, 1).join(timeout=LIMIT)
        gort.trace.stop()

    def verify(outcome):
        begins_again()
        assert len(os.listdir("/proc/self/fd")) == descriptors
        with open(path, "rb") as file:
            assert outcome is FAILED or file.read().startswith(TRACE)
        os.unlink(path)

    return act, verify


def records_a_flight():
    """A recorder that could not begin does not run, one that did can be stopped."""
    recorder, file = gort.trace.FlightRecorder(), io.BytesIO()

    def act():
        recorder.start()
        gort.go(add, 1).join(timeout=LIMIT)
        recorder.write_to(file)
        recorder.stop()

    def verify(outcome):
        recorder.stop()
        begins_again()
        assert outcome is FAILED or file.getvalue().startswith(TRACE)
        with gort.trace.FlightRecorder() as other:
            assert other.enabled

    return act, verify


def profiles_waits():
    """What could not be noted is counted as lost; rates are as they were set."""
    mutex = gort.Mutex()

    def takes():
        with mutex:
            return 3

    def act():
        gort.pprof.set_block_profile_rate(1)
        gort.pprof.set_mutex_profile_fraction(1)
        with mutex:
            made = gort.go(takes)
            gort.gosched()
        made.join(timeout=LIMIT)
        for name in ("block", "mutex"):
            for debug in (0, 1):
                gort.pprof.lookup(name).write_to(io.BytesIO(), debug)
            gort.pprof.lookup(name).count()

    def verify(_):
        gort.pprof.set_block_profile_rate(0)
        gort.pprof.set_mutex_profile_fraction(0)
        assert gort.pprof.set_mutex_profile_fraction(0) == 0
        mutex.lock()  # who was not joined may still have it
        mutex.unlock()

    return act, verify


def reads_metrics():
    """All that is told, as Go does and for Prometheus."""
    leave_pairs()

    def act():
        return gort.metrics.read(), gort.metrics.all(), gort.metrics.prometheus_text()

    return act, lambda outcome: outcome is FAILED or outcome[0] and outcome[1] or 1 / 0


def looks_at_health():
    """A look that failed is no sample."""
    monitor = gort.HealthMonitor()

    def act():
        return monitor.check(), gort.health()

    return act, lambda _: monitor.check()


def finds_deadlocks():
    """Those that wait for each other are found, or memory was refused."""
    gort.deadlock.track()
    locks = gort.Mutex(), gort.Mutex()
    gates = gort.Chan(), gort.Chan()

    def takes(i):
        with locks[i]:
            gates[i].recv()
            with locks[1 - i]:
                pass

    gs = [gort.go(takes, i) for i in (0, 1)]
    for gate in gates:
        gate.send(None)
    while any(g.status != "sync.Mutex.Lock" for g in gs):
        gort.gosched()

    def verify(outcome):
        assert outcome is FAILED or [len(found.cycle) for found in outcome[0]] == [2], outcome
        gs[0].cancel()
        with contextlib.suppress(gort.Cancelled):
            gs[0].join(timeout=LIMIT)
        gs[1].join(timeout=LIMIT)
        gort.deadlock.track(False)

    return lambda: (gort.deadlocks(channels=False), gort.deadlock.locks()), verify


OPERATIONS = {
    f.__name__: f
    for f in (
        traces_to_a_file, traces_to_a_path, records_a_flight, profiles_waits, reads_metrics,
        looks_at_health, finds_deadlocks,
    )
}  # fmt: skip
#: Of these, those whose code in gort makes functions, by lambda or a generator expression: see tests/nomemory.py.
MAKE_FUNCTIONS = ("profiles_waits", "reads_metrics", "looks_at_health", "finds_deadlocks")
