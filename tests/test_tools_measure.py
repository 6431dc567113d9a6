"""Tools that measure count what goroutines do: coverage, tracemalloc, memray, and whoever gives threads a function.

Such tools ask `threading` to give each new thread their trace or profile function; a new goroutine
takes it, too.
"""

from __future__ import annotations

import json
import re
import sys

import pytest
from children import check
from toolbox import run_tool

HOOKS = """
import sys, threading
import gort
calls = []
def hook(frame, event, argument):
    if event == "call": calls.append((frame.f_code.co_name, threading.get_ident()))
    return hook
def body(n):
    gort.gosched()
    return inner(n)
def inner(n): return n, threading.get_ident()
def run(count=3):
    calls.clear()
    idents = {g.join(timeout=20)[1] for g in [gort.go(body, n) for n in range(count)]}
    assert {ident for _, ident in calls} in (set(), idents), (calls, idents)
    return sorted(name for name, _ in calls if name in ("body", "inner"))
"""


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_new_goroutines_begin_with_the_function_of_new_threads(kind):
    code = f"""
print(run())  # states made here serve again below
threading.set{kind}(hook)
assert sys.get{kind}() is None
print(run())
threading.set{kind}(None)
print(run(), sys.get{kind}())
"""
    check(HOOKS + code, f"[]\n{['body'] * 3 + ['inner'] * 3}\n[] None")


def test_threading_that_comes_after_the_first_goroutines_is_noticed():
    code = """
    import sys
    for name in [name for name in sys.modules if name == "threading"]: del sys.modules[name]
    import gort
    sys.modules.pop("threading", None)
    gort.go(int).join()
    import threading
    seen = []
    threading.setprofile(lambda frame, event, argument: seen.append(frame.f_code.co_name))
    def body(): pass
    gort.go(body).join()
    print("body" in seen)
    """
    check(code, "True")


def test_a_function_that_raises_ends_the_goroutine_as_it_would_a_thread():
    code = """
def bad(*_): raise ValueError("from the hook")
threading.settrace(bad)
try: gort.go(body, 1).join(timeout=20)
except ValueError as error: print(error)
threading.settrace(None)
print(gort.go(body, 2).join(timeout=20)[0])
"""
    check(HOOKS + code, "from the hook\n2")


COVERED = """\
import gort

def parks(ch):
    got = ch.recv()
    if got == 2:
        found = 3
    else:
        found = NEVER
    return found

def computes(stop):
    n = 0
    while not stop:
        n += 1
        if n < 0:
            return NEVER
    return n

def raises(ch):
    try:
        ch.recv()
        return NEVER
    except gort.GoroutineExit:
        gort.gosched()
        raise

def nested():
    def child():
        gort.sleep(0.001)
        return 1
    return gort.go(child).join()

def main():
    before = gort.stats()["preemptions"]
    ch, stop = gort.Chan(), []
    gs = [gort.go(computes, stop), gort.go(computes, stop)]
    g, r, n = gort.go(parks, ch), gort.go(raises, gort.Chan()), gort.go(nested)
    while gort.stats()["preemptions"] < before + 4:
        gort.sleep(0.001)
    ch.send(2)
    r.cancel()
    stop.append(1)
    try:
        r.join()
    except gort.Cancelled:
        pass
    for each in [g, n, *gs]:
        each.join()
    if stop == 7:
        return NEVER

main()
"""
#: Lines of COVERED that no run reaches.
NOT_RUN = {n for n, line in enumerate(COVERED.splitlines(), 1) if "NEVER" in line}

CORES = ["ctrace", "pytrace", *(["sysmon"] if sys.version_info >= (3, 12) else [])]


@pytest.mark.parametrize("how", ["", "gort"])
@pytest.mark.parametrize("core", CORES)
def test_coverage_reports_just_the_lines_that_goroutines_ran(tmp_path, core, how):
    program, data, report = tmp_path / "p.py", tmp_path / "data", tmp_path / "report.json"
    program.write_text(COVERED)
    with_gort = ["-m", "gort", "run"] if how else []
    options = ["--data-file", data, "--include", program]
    env = {"COVERAGE_CORE": core, "GORT_SLICE": "1"}
    ran = run_tool("coverage", "run", *options, *with_gort, program, **env)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    told = run_tool("coverage", "json", "--data-file", data, "-o", report)
    assert told.returncode == 0, told.stdout + told.stderr
    (lines,) = json.loads(report.read_text())["files"].values()
    assert set(lines["missing_lines"]) == NOT_RUN
    assert len(lines["executed_lines"]) == lines["summary"]["num_statements"] - len(NOT_RUN)


ALLOCATING = """
import tracemalloc
import gort
from waiting import eventually, is_parked, parked
BYTES, COUNT = 10_000, 40
kept = []
def outer(ch): return first(ch)
def first(ch):
    ch.recv()
    kept.append(bytearray(BYTES))
    ch.recv()
    kept.append(bytearray(BYTES))
    ch.recv()
    kept.append(bytearray(BYTES))
def go_on():
    for _ in gs: ch.send(None)
    eventually(lambda: all(g.done or is_parked(g) for g in gs))
def line(function, offset): return function.__code__.co_firstlineno + offset
def found():
    "By line: allocations of one of those arrays, how many, and the lines that led there."
    found = {}
    for trace in tracemalloc.take_snapshot().traces:
        if BYTES <= trace.size < BYTES + 100:
            lines = tuple(frame.lineno for frame in trace.traceback)
            found[lines] = found.get(lines, 0) + 1
    return found
ch = gort.Chan()
gs = [gort.go(outer, ch) for _ in range(COUNT)]
parked(*gs)
"""


def test_tracemalloc_started_and_stopped_while_goroutines_are_parked():
    code = """
tracemalloc.start(10)
go_on()
assert found() == {(line(outer, 0), line(first, 2)): COUNT}, found()
tracemalloc.stop()
go_on()
tracemalloc.start(10)
go_on()
assert found() == {(line(outer, 0), line(first, 6)): COUNT}, found()
for g in gs: g.join(timeout=20)
kept.clear()
assert found() == {}
print("ok")
"""
    check(ALLOCATING + code, "ok")


MEASURED = """
import os, sys
import gort
kept, BYTES = [], 100_000
def first(ch):
    ch.recv()
    kept.append(bytearray(BYTES))
    return second(ch)
def second(ch):
    ch.recv()
    kept.append(bytearray(BYTES))
    return third(ch)
def third(ch):
    gort.gosched()
    kept.append(bytearray(BYTES))
    ch.recv()
def main():
    ch = gort.Chan()
    gs = [gort.go(first, ch) for _ in range(200)]
    # The last stack, which may take a piece of address space, is asked for before the first array.
    while any(g.status != "chan receive" for g in gs): gort.gosched()
    for _ in range(3 * len(gs)): ch.send(None)
    for g in gs: g.join(timeout=20)
    for n in range(100): kept.append(bytearray(BYTES))
main()
print(len(kept))
"""


#: memray with the functions of a program that allocated such an array, innermost first, and how often.
STACKS = """
import os, sys, collections, memray
def stacks(file, name):
    found = collections.Counter()
    with memray.FileReader(file) as reader:
        for record in reader.get_allocation_records():
            if BYTES <= record.size < BYTES + 100 and record.allocator != memray.AllocatorType.FREE:
                names = [call[0] for call in record.stack_trace() if call[1] == name]
                found[tuple(names)] += 1
    return found
"""


def without_notes(stderr: str) -> str:
    """What is left but for what memray says of any program of a Python that is no position-independent file."""
    return re.sub(r"^Memray WARNING: Correcting symbol .*\n", "", stderr, flags=re.M)


def test_memray_names_the_functions_of_goroutines(tmp_path):
    program, data = tmp_path / "p.py", tmp_path / "data.bin"
    program.write_text(MEASURED)
    # It counts what the C library is asked for: nothing, where gort serves Python's memory.
    ran = run_tool("memray", "run", "-q", "-o", data, program, GORT_MALLOC="0")
    assert (ran.returncode, ran.stdout, without_notes(ran.stderr)) == (0, "700\n", "")
    told = run_tool("memray", "stats", "-n", "20", data)
    assert told.returncode == 0, told.stdout + told.stderr
    for name in ("first", "second", "third"):
        # An arena of 1 MiB may be asked for there, too.
        assert re.search(rf"- {name}:.*p\.py:\d+ -> 2[0-2]\.\d+MB", told.stdout), told.stdout
    code = f"""{STACKS}
BYTES = 100_000
counted = stacks({str(data)!r}, {str(program)!r})
for names in sorted(counted): print(*names, counted[names] // 100)
"""
    # Each array is two allocations to some Pythons: its object and its bytes, or a size that grows.
    lines = check(code).splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        "first",
        "main <module>",
        "second first",
        "third second first",
    ]
    times = [int(line.rsplit(" ", 1)[1]) for line in lines]
    assert times == [2 * times[1], times[1], 2 * times[1], 2 * times[1]]


def test_memray_started_while_goroutines_are_parked_keeps_their_stacks_apart(tmp_path):
    pytest.importorskip("memray")
    code = f"""{STACKS}
import ctypes, gort
from waiting import eventually, hold, is_parked, parked
BYTES, kept = 100_000, []
def outer(n, wait):
    inner(n, wait)
    (lambda: kept.append(bytearray(BYTES)))()
def inner(n, wait):
    wait()
    if n % 5 == 0: hold(0.001)  # its P is handed off: who is woken goes on elsewhere
    kept.append(bytearray(BYTES))
    wait()
    for _ in stop: pass
    kept.append(bytearray(BYTES))
def go_on():
    for _ in gs: ch.send(None)
    eventually(lambda: all(g.done or is_parked(g) for g in gs))
def by_hand():
    "A park that no event follows but the return of who parked."
    for _ in ch: return
ch, stop = gort.Chan(), []
gs = [gort.go(outer, n, by_hand if n % 2 else ch.recv) for n in range(100)]
parked(*gs)
with memray.Tracker({str(tmp_path / "a")!r}):
    go_on()
with memray.Tracker({str(tmp_path / "b")!r}): go_on()
for g in gs: g.join(timeout=20)
a, b = (set(stacks({str(tmp_path)!r} + name, "<string>")) for name in ("/a", "/b"))
print(a <= {{("inner", "outer"), ("outer",), ()}}, ("inner", "outer") in a)
print(b <= {{("inner", "outer"), ("<lambda>", "outer"), ("outer",), ()}}, ("<lambda>", "outer") in b)
"""
    ran = run_tool("python", "-c", code, PYTHONMALLOC="malloc", GORT_MALLOC="0")
    assert (ran.returncode, without_notes(ran.stderr)) == (0, "")
    assert ran.stdout == "True True\nTrue True\n"


def test_memray_beside_a_call_that_allocates_without_the_gil(tmp_path):
    pytest.importorskip("sqlite3")
    program, data = tmp_path / "p.py", tmp_path / "data.bin"
    program.write_text("""
import sqlite3
import gort
ROWS = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
def asks():
    db = sqlite3.connect(":memory:", check_same_thread=False)
    return db.execute(ROWS + "SELECT count(hex(zeroblob(3000 + i % 7))) FROM n").fetchall()
def echoes(there, back):
    for n in there:
        kept = bytearray(100_000)  # memray writes this goroutine's frames
        back.send(n)
def main():
    there, back = gort.Chan(), gort.Chan()
    gort.go(echoes, there, back)
    asking = gort.go(asks)
    while not asking.done:
        there.send(1)
        back.recv()
    return asking.join()
print(main())
""")
    for _ in range(3):  # without a lock about every second of them crashed
        ran = run_tool("memray", "run", "-q", "-f", "-o", data, program, GORT_MALLOC="0")
        outcome = ran.returncode, ran.stdout, without_notes(ran.stderr)
        assert outcome == (0, "[(100000,)]\n", "")


def test_memray_sees_the_stacks_of_goroutines(tmp_path):
    pytest.importorskip("memray")
    program, data = tmp_path / "p.py", tmp_path / "data.bin"
    program.write_text("""
import gort
def starts():
    ch = gort.Chan()
    gs = [gort.go(ch.recv) for _ in range(500)]
    while gs[-1].status != "chan receive": gort.gosched()
    for _ in gs: ch.send(None)
    for g in gs: g.join()
starts()
""")
    ran = run_tool("memray", "run", "-q", "-o", data, program)
    assert (ran.returncode, without_notes(ran.stderr)) == (0, "")
    code = f"""
import memray
slabs, here = 0, False
with memray.FileReader({str(data)!r}) as reader:
    for record in reader.get_allocation_records():
        if record.allocator == memray.AllocatorType.MMAP and record.size >= 64 * (256 << 10):
            slabs += 1
            here = here or "starts" in [call[0] for call in record.stack_trace()]
print(slabs >= 500 // 64, here)
"""
    assert check(code).strip() == "True True"
