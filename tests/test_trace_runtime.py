"""What the runtime does is in execution traces: samples, waits for the GIL, stacks that shrink, goroutines that move."""

from __future__ import annotations

import io
import threading
import time

import gort
import gort.pprof
import gort.trace
import pytest
import traces
from children import check
from pprofs import read

USED = 0.3  # seconds of CPU time: some dozens of samples


def burns(seconds=USED):
    """Use so much CPU time of the process."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def named(stack):
    """The functions of a stack."""
    return [name for name, _, _ in stack]


@pytest.mark.parametrize("stacks", [True, False])
def test_samples_of_a_cpu_profile_are_in_a_trace(stacks):
    file, profile = io.BytesIO(), io.BytesIO()
    with gort.trace.to(file, stacks=stacks):
        gort.pprof.start_cpu_profile(profile)
        with gort.threads.real():
            thread = threading.Thread(target=burns)
            thread.start()
        g = gort.go(burns)
        g.join()
        thread.join()
        gort.pprof.stop_cpu_profile()
    trace = traces.read(file.getvalue())
    # Each of one is in the other; a sample of Go's has a time of its own, but for those that were late.
    counted = sum(values[0] for _, values, _ in read(profile.getvalue()).samples)
    assert len(trace.samples) == counted > 0
    of_g = [sample for sample in trace.samples if sample.g == g.id]
    assert of_g and {sample.m for sample in of_g} <= {event.m for event in trace.events}
    assert any(sample.g == 0 for sample in trace.samples), "of the thread"
    burning = [sample for sample in of_g if f"{__name__}.burns" in named(sample.stack)]
    assert bool(burning) == stacks
    assert trace.samples == sorted(trace.samples, key=lambda sample: sample.time)
    began, ended = trace.events[0].time, trace.events[-1].time
    assert all(began <= sample.time <= ended for sample in trace.samples)


def test_no_profile_no_samples():
    file = io.BytesIO()
    with gort.trace.to(file):
        gort.go(burns).join()
    assert not traces.read(file.getvalue()).samples


def regions(trace, name):
    """Of each such region: the goroutine, and how long it was."""
    begun: dict[int, list[int]] = {}
    found = []
    for event in trace.events:
        if event.name == "UserRegionBegin":
            begun.setdefault(event.g, []).append(event.time)
        elif event.name == "UserRegionEnd" and begun.get(event.g):
            since = begun[event.g].pop()
            if event.texts[0] == name:
                found.append((event.g, event.time - since))
    return found


def test_waits_for_the_gil_are_regions_of_who_waits():
    file, stop = io.BytesIO(), []

    def rivals():
        while not stop:
            pass

    def computes():
        with gort.trace.Region("outer"):
            for _ in range(5):
                burns(USED / 5)
                gort.gosched()

    with gort.trace.to(file):
        with gort.threads.real():
            thread = threading.Thread(target=rivals)
            thread.start()
        g = gort.go(computes)
        g.join()
        stop.append(True)
        thread.join()
    trace = traces.read(file.getvalue())
    waits = [ns for who, ns in regions(trace, "GIL wait") if who == g.id]
    # The other one has it for an interval of the interpreter's, 5 ms, each time.
    assert any(ns > 1_000_000 for ns in waits), waits
    assert sum(waits) < 100_000_000_000
    assert len([ns for who, ns in regions(trace, "outer") if who == g.id]) == 1


def test_stacks_that_shrink_are_sweeps():
    # In a child: others' goroutines are not parked there, and their stacks not looked at.
    check(
        """
        import io
        import gort, gort.trace, traces
        from waiting import parked
        def waits(ch): ch.recv()
        ch = gort.Chan()
        gs = [gort.go(waits, ch) for _ in range(200)]
        parked(*gs)
        file = io.BytesIO()
        with gort.trace.to(file):
            gort.memory.trim()
        for _ in gs: ch.send(None)
        for g in gs: g.join()
        trace = traces.read(file.getvalue())
        begins, ends = trace.of("GCSweepBegin"), trace.of("GCSweepEnd")
        assert len(begins) == len(ends) > 0
        assert sum(event.args[1] for event in ends) >= 200 * 4096, ends
        assert all(event.args[0] > 0 for event in ends)
        assert all(b.time <= e.time and b.p == e.p for b, e in zip(begins, ends))
        print("ok")
        """,
        "ok",
    )


def test_goroutines_that_move_start_on_more_than_one_thread():
    """A goroutine that is woken while another one blocks its thread goes on elsewhere."""
    check(
        """
        import ctypes, io, os, threading
        import gort, gort.trace, traces
        from waiting import eventually
        block = ctypes.CDLL(None).read  # found by dlsym: no hook of the boundary sees it
        room = ctypes.create_string_buffer(1)
        seen, stop = set(), []
        def moves():
            while not stop:
                seen.add(threading.get_native_id())
                gort.gosched()
        def blocks(pipe): block(pipe, room, 1)
        file = io.BytesIO()
        with gort.trace.to(file):
            g = gort.go(moves)
            for _ in range(5):
                ours, theirs = os.pipe()
                before = gort.stats()["hand_offs"]
                other = gort.go(blocks, ours)
                eventually(lambda: gort.stats()["hand_offs"] > before)
                os.write(theirs, b"x")
                other.join()
            eventually(lambda: len(seen) > 1)
            stop.append(True)
            g.join()
        trace = traces.read(file.getvalue())
        ms = {event.m for event in trace.of("GoStart") if event.args[0] == g.id}
        assert ms >= seen, (ms, seen)
        print("ok")
        """,
        "ok",
    )
