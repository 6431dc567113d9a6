"""What gort says of a program is what the usual tools say of the same run: py-spy, tracemalloc, faulthandler."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest
from children import HERE, check
from pprofs import read
from test_tools import CANNOT_LOOK, STATES
from toolbox import run_tool

#: Goroutines and the main one use CPU time in some functions, in turns; our profile is taken meanwhile.
BUSY = """
import sys, time
import gort, gort.pprof
def heavy(n):
    for _ in range(5 * n): pass
def medium(n):
    for _ in range(3 * n): pass
def light(n):
    for _ in range(2 * n): pass
def turns(n, seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        heavy(n)
        medium(n)
        light(n)
def main():
    sys.stdin.readline()
    with open(sys.argv[1], "wb") as file:
        gort.pprof.start_cpu_profile(file)
        others = [gort.go(turns, n, 4.0) for n in (20_000, 70_000)]
        turns(45_000, 4.0)
        for g in others: g.join()
        gort.pprof.stop_cpu_profile()
print("there", flush=True)
main()
"""
#: Points of a hundred by which two profilers may differ.
POINTS = 10


def shares(counts: Counter[str], names: list[str]) -> dict[str, float]:
    """How many of a hundred samples of these functions each has itself."""
    total = sum(counts[name] for name in names)
    return {name: 100 * counts[name] / total for name in names}


def seen_by_py_spy(text: str) -> Counter[str]:
    """Its raw format: a stack with the newest frame last, and how often it was met."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[stack.split(";")[-1].split(" ")[0]] += int(count)
    return counts


@pytest.mark.timeout(200)
def test_the_cpu_profile_is_that_of_py_spy(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(ours)], cwd=HERE, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "there\n"
        child.stdin.write("\n")
        child.stdin.flush()
        # Of those that have the interpreter's lock: who waits for it uses no CPU time.
        options = ["--gil", "--rate", "200", "--duration", "600", "--format", "raw"]
        told = run_tool(
            "py-spy", "record", *options, "-o", theirs, "--pid", str(child.pid), limit=150
        )
        _, err = child.communicate("", timeout=100)
    finally:
        child.kill()
        child.wait()
    if not theirs.exists() and CANNOT_LOOK.search(told.stderr):
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert (child.returncode, err) == (0, ""), told.stderr
    counts: Counter[str] = Counter()
    for stack, values, _ in read(ours.read_bytes()).samples:
        counts[stack[0].removeprefix("__main__.")] += values[0]
    top = ["heavy", "medium", "light"]
    # What the rest has depends on how busy the machine is: the samples of a thread wait for its next safe point.
    us, them = shares(counts, top), shares(seen_by_py_spy(theirs.read_text()), top)
    for found in (us, them):
        assert sorted(top, key=found.get, reverse=True) == top, (us, them)
    for name in top:
        assert abs(us[name] - them[name]) < POINTS, (name, us, them)


ALLOCATING = """
import io, tracemalloc
import gort, gort.pprof
from pprofs import read
from waiting import parked
kept = []
def large(ch):
    kept.append(bytearray(50_000))
    ch.recv()
def small(ch):
    kept.extend(bytearray(1_000) for _ in range(30))
    ch.recv()
def freed(ch):
    for _ in range(10): bytearray(70_000)
    ch.recv()
def lists(ch):
    kept.append([[] for _ in range(5_000)])
    ch.recv()
def main():
    ch = gort.Chan(100)
    gs = [gort.go(f, ch) for f in (large, small, freed, lists) for _ in range(10)]
    parked(*gs)
    file = io.BytesIO()
    theirs = tracemalloc.take_snapshot()
    gort.pprof.lookup("heap").write_to(file)
    for _ in gs: ch.send(None)
    for g in gs: g.join(timeout=20)
    return file.getvalue(), theirs
tracemalloc.start(8)
data, snapshot = main()
def of(code): return range(code.co_firstlineno, max(line or 0 for *_, line in code.co_lines()) + 1)
functions = {f.__name__: of(f.__code__) for f in (large, small, freed, lists, main)}
theirs = dict.fromkeys(functions, (0, 0))
for trace in snapshot.traces:
    place = trace.traceback[-1]  # the newest: they are sorted from the oldest on
    for name, lines in functions.items():
        if place.filename == __file__ and place.lineno in lines:
            count, size = theirs[name]
            theirs[name] = count + 1, size + trace.size
profile = read(data)
assert [kind for kind, _ in profile.kinds][2:] == ["inuse_objects", "inuse_space"]
ours = dict.fromkeys(functions, (0, 0))
for stack, values, _ in profile.samples:
    name = stack[0].rpartition(".")[2] if "<locals>" not in stack[0] else ""
    if stack[0] == f"program.{name}" and name in ours:
        count, size = ours[name]
        ours[name] = count + values[2], size + values[3]
del theirs["freed"], ours["freed"]  # its frame's own objects come and go
for name in theirs:
    for us, them in zip(ours[name], theirs[name]):
        # What Python keeps to use again serves whoever looks, too: an object or two.
        assert abs(us - them) <= max(5, them // 1000), (ours, theirs)
assert ours["large"][1] > 10 * 50_000 and ours["small"][0] >= 300 and ours["lists"][0] >= 49_000
assert ours["main"][1] > 0, "goroutines count where they were started"
print("ok")
"""


def test_the_heap_profile_is_what_tracemalloc_has(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(ALLOCATING)
    check(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')", "ok")


def names(stack: list[str]) -> tuple[str, ...]:
    """Functions as faulthandler has them, of a stack as our profiles and dumps have it."""
    return tuple(
        name.rpartition(".")[2] for name in stack if not name.startswith(("gort.", "runtime."))
    )


def test_goroutines_are_those_of_faulthandler():
    """The same program in the same moment: stacks, and how many have each, by two who look by themselves."""
    code = """
import io, gort.pprof
from pprofs import read
def dumps():
    file = io.BytesIO()
    gort.pprof.lookup("goroutine").write_to(file)
    text = gort.dump()
    faulthandler.dump_traceback(sys.stdout, all_threads=True)
    return file.getvalue(), text
data, text = dumps()
print("--")
for stack, values, _ in read(data).samples: print(values[0], *stack)
print("--")
print(text)
end()
"""
    theirs, ours, dump = check(STATES + code).split("--\n")
    blocks = re.split(r"\n\n|\n(?=Current thread|Thread)", theirs)
    threads = Counter(
        tuple(re.findall(r'^  File ".*", line \d+ in (.+)$', block, re.M)) for block in blocks
    )
    del threads[()]  # threads that run no Python code
    profile: Counter[tuple[str, ...]] = Counter()
    for line in ours.splitlines():
        count, *stack = line.split()
        profile[names(stack)] += int(count)
    dumped: Counter[tuple[str, ...]] = Counter()
    for block in re.split(r"\n\n", dump):
        functions = re.findall(r"^([\w.<>]+)\(.*\)$", block, re.M)
        if block.lstrip().startswith("goroutine "):
            dumped[names(functions)] += 1

    def known(stacks):
        """Without who looks: each is elsewhere at that moment."""
        return Counter({stack: count for stack, count in stacks.items() if "<module>" not in stack})

    assert known(threads)["three", "two", "one"] == 1 and known(threads).total() == 4, theirs
    assert known(profile) == known(threads), (ours, theirs)
    assert known(dumped) == known(threads), (dump, theirs)
    for stacks in (profile, dumped, threads):
        assert sum(count for stack, count in stacks.items() if "<module>" in stack) == 1
