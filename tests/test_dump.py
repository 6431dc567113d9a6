"""gort.dump(): every goroutine in the form of Go's dumps."""

from __future__ import annotations

import re

import gort
import gort.labels
import pytest
from children import child
from gort.testing import synctest
from waiting import HERE, ended, parked, waiter, waits_here


def part(g):
    """What a dump says of a goroutine."""
    [found] = [p for p in gort.dump().split("\n\n") if p.startswith(f"goroutine {g.id} ")]
    return found.rstrip("\n").split("\n")


def test_a_goroutine_has_its_frames_and_who_started_it():
    g = waiter(waits_here, gort.Chan())
    head, function, place, created, by = part(g)
    assert head == f"goroutine {g.id} [chan receive]:"
    assert function == "waiting.waits_here(...)"
    file, line = HERE
    assert re.fullmatch(rf"\t{re.escape(file)}:{line} \+0x[0-9a-f]+", place)
    assert created == "created by waiter in goroutine 1"
    assert re.fullmatch(r"\t.*/waiting\.py:\d+", by)
    ended(g)


def test_who_asks_comes_first():
    lines = gort.dump().splitlines()
    assert lines[0].startswith("goroutine 1 [running")
    assert lines[1] == f"{__name__}.test_who_asks_comes_first(...)"  # without dump's own
    first = gort.go(gort.dump).join().splitlines()[0]
    assert re.fullmatch(r"goroutine \d+ \[running\]:", first) and not first.startswith(
        "goroutine 1 "
    )


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        ("gort.Chan().send(1)", "chan send"),
        ("gort.Chan().recv()", "chan receive"),
        ("gort.select()", r"select \(no cases\)"),
        ("gort.select(gort.recv(gort.Chan()), gort.recv(gort.Chan()))", "select"),
        ("gort.sleep(3600)", "sleep"),
        ("m.lock()", r"sync\.Mutex\.Lock"),
        ("w.wait()", r"sync\.WaitGroup\.Wait"),
    ],
)
def test_words_of_waits_are_gos(wait, words):
    m, w = gort.Mutex(), gort.WaitGroup()
    m.lock()
    w.add(1)
    space = {"gort": gort, "m": m, "w": w}
    exec(f"def work():\n    {wait}", space)
    g = waiter(space["work"])
    assert re.fullmatch(rf"goroutine {g.id} \[{words}\]:", part(g)[0])
    ended(g)


def test_names_labels_and_locks_are_told():
    with gort.labels.do(user='"7"', kind="x"):
        g = gort.spawn(waits_here, (gort.Chan(),), name="worker\n1", locked=True)
    parked(g)
    head = part(g)[0]
    assert head.startswith(f"goroutine {g.id} [chan receive, locked to thread, name ")
    assert head.endswith(', name "worker\\n1" labels:{"kind": "x", "user": "\\"7\\""}]:')
    ended(g)


def test_minutes_are_told_from_one_on():
    from gort import _dump

    g = waiter(waits_here, gort.Chan())
    [record] = [record for record in _dump.records() if record.id == g.id]
    assert 0 <= record.waited < 60
    for waited, words in ((59, ""), (60, ", 1 minutes"), (200, ", 3 minutes")):
        record.waited = waited
        assert _dump.header(record) == f"goroutine {g.id} [chan receive{words}]:"
    ended(g)


def test_time_counts_from_the_park_on():
    from gort import _dump

    g = waiter(waits_here, gort.Chan())
    gort.sleep(2.5)  # time is the subject
    [record] = [record for record in _dump.records() if record.id == g.id]
    assert record.waited >= 1
    ended(g)


def test_a_bubble_is_told():
    def inside():
        g = gort.go(waits_here, gort.Chan())
        synctest.wait()
        head = part(g)[0]
        g.cancel()
        return head

    heads = []
    synctest.run(lambda: heads.append(inside()))
    assert re.fullmatch(
        r"goroutine \d+ \[chan receive \(durable\), synctest bubble \d+\]:", heads[0]
    )


def test_those_that_do_the_same_are_grouped():
    ch = gort.Chan()
    gs = [waiter(waits_here, ch) for _ in range(3)]
    text = gort.dump(group=True)
    ids = ", ".join(str(g.id) for g in gs)
    assert f"3 goroutines [chan receive]: {ids}\nwaiting.waits_here(...)\n" in text
    assert "\ngoroutine 1 [running" in text
    ended(*gs)


def test_a_crowd_is_shown_whole():
    ch = gort.Chan()
    gs = [gort.go(waits_here, ch) for _ in range(1000)]
    parked(*gs)
    assert gort.dump().count("waits_here(...)") == 1000
    assert " and 980 more\n" in gort.dump(group=True)
    ch.close()
    for g in gs:
        with pytest.raises(gort.ChanClosed):
            g.join()


def test_one_that_never_ran_has_no_frames():
    with gort.no_preempt():
        g = gort.go(waits_here, gort.Chan())
        told = part(g)
    assert [line for line in told if "waits_here(" in line] == []
    assert told[0] == f"goroutine {g.id} [runnable]:"
    parked(g)
    ended(g)


def test_deadlock_shows_frames():
    done = child(
        """
        import gort
        def stuck(): gort.Chan().recv()
        gort.go(stuck)
        gort.run(gort.select)
        """
    )
    assert done.returncode == 1
    assert re.search(r"goroutine \d+ \[chan receive\]:\n__main__\.stuck\(\.\.\.\)", done.stderr), (
        done.stderr
    )


def test_threads_that_are_goroutines_have_frames():
    done = child(
        """
        import gort, gort.threads, threading
        gort.threads.enable()
        event = threading.Event()
        def thread_waits(): event.wait()
        t = threading.Thread(target=thread_waits)
        t.start()
        while "thread_waits" not in gort.dump(): gort.gosched()
        event.set()
        t.join()
        print("ok")
        """
    )
    assert done.stdout == "ok\n", done.stderr
