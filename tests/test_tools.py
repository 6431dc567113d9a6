"""Tools that look at a program from inside or outside see its goroutines, each by its own functions.

What CPython and its library bring, and py-spy; tools that measure are in test_tools_measure.py.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from children import HERE, check
from toolbox import run_tool

#: One goroutine parked, one in a read that the boundary parks, one in a call that nobody answers but the
#: kernel, one that computes; each says who it is. `show` is called once all are there.
STATES = """
import ctypes, faulthandler, os, sys, tempfile, threading
import gort
from waiting import eventually, parked
ids = {"main": threading.get_ident()}
def one(name, wait):
    ids[name] = threading.get_ident()
    two(wait)
def two(wait): three(wait)
def three(wait): wait()
def compute():
    n, ids["computes"] = 0, threading.get_ident()
    while not stop: n += 1
ch, stop, pipe, slow = gort.Chan(), [], os.pipe(), os.pipe()
block = ctypes.CDLL(None).read  # found by dlsym: no hook of the boundary sees it
room = ctypes.create_string_buffer(1)
def all_there():
    parked(*gs[:2])
    eventually(lambda: len(ids) == 5 and gort.stats()["hand_offs"] > 0)
def whole(file):
    "What a dump that somebody writes beside us says, once all of it is there."
    def text(): return os.pread(file.fileno(), 1 << 20, 0).decode()
    ends = {" in one\\n": 3, " in compute\\n": 1, " in <module>\\n": 1}
    def is_whole(dump): return all(dump.count(end) == count for end, count in ends.items())
    def first(): return next(filter(is_whole, text().split("Timeout")), None)
    try: return eventually(first)
    except AssertionError: print(text()); raise
def end():
    stop.append(True)
    ch.send(None)
    os.write(pipe[1], b"x")
    os.write(slow[1], b"x")
    for g in gs: g.join(timeout=20)
gs = [
    gort.go(one, "parked", ch.recv),
    gort.go(one, "reads", lambda: os.read(pipe[0], 1)),
    gort.go(one, "blocked", lambda: block(slow[0], room, 1)),
    gort.go(compute),
]
all_there()
"""

#: The functions of each, innermost first, as `STATES` calls them; `lambda` is the wait.
CHAINS = {
    "parked": ["three", "two", "one"],
    "reads": ["<lambda>", "three", "two", "one"],
    "blocked": ["<lambda>", "three", "two", "one"],
    "computes": ["compute"],
}


def stacks(text: str) -> dict[int, list[str]]:
    """A dump of faulthandler: the functions of each thread that has any, innermost first."""
    found = {}
    for block in re.split(r"\n\n|\n(?=Current thread|Thread)", text):
        head = re.search(r"hread 0x([0-9a-f]+)", block)
        functions = re.findall(r'^  File ".*", line \d+ in (.+)$', block, re.M)
        if head and functions:
            found[int(head[1], 16)] = functions
    return found


def assert_all_are_seen(output: str) -> None:
    """`output` is a dump, and after it the idents of those that `STATES` starts."""
    dump, _, idents = output.rpartition("ids=")
    ids = eval(idents)  # what the child printed of its own dict
    seen = stacks(dump)
    assert {name: seen.get(ids[name]) for name in CHAINS} == CHAINS, dump
    assert set(seen) == set(ids.values()), dump
    assert seen[ids["main"]][-1] == "<module>"


def test_faulthandler_dumps_every_goroutine():
    code = "faulthandler.dump_traceback(sys.stdout, all_threads=True)\nprint('ids=', ids)\nend()"
    assert_all_are_seen(check(STATES + code))


def test_faulthandler_dumps_every_goroutine_at_a_time_that_was_set():
    code = """
with tempfile.TemporaryFile("w+") as file:
    faulthandler.dump_traceback_later(0.05, repeat=True, file=file)  # one may find main between two frames
    print(whole(file), "ids=", ids)
    faulthandler.cancel_dump_traceback_later()
end()
"""
    assert_all_are_seen(check(STATES + code))


@pytest.mark.parametrize("sender", ["main", "goroutine", "outside"])
def test_faulthandler_dumps_every_goroutine_at_a_signal(sender):
    how = {
        "main": "os.kill(os.getpid(), signal.SIGUSR1)",
        "goroutine": "gort.go(os.kill, os.getpid(), signal.SIGUSR1).join()",
        "outside": "subprocess.run([sys.executable, '-c', f'import os; os.kill({os.getpid()}, 10)'], check=True)",
    }[sender]
    code = f"""
import signal, subprocess
assert signal.SIGUSR1 == 10
with tempfile.TemporaryFile("w+") as file:
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
    {how}
    print(whole(file), "ids=", ids)
end()
"""
    assert_all_are_seen(check(STATES + code))


def test_faulthandler_stops_at_a_hundred_as_for_threads():
    code = """
    import faulthandler, sys
    import gort
    from waiting import parked
    def waits(ch): ch.recv()
    ch = gort.Chan()
    gs = [gort.go(waits, ch) for _ in range(150)]
    parked(*gs)
    faulthandler.dump_traceback(sys.stdout, all_threads=True)
    for _ in gs: ch.send(None)
    for g in gs: g.join(timeout=20)
    print("joined", flush=True)
    """
    dump = check(code)
    assert dump.count("in waits") in (
        98,
        99,
        100,
    )  # main and an idle OS thread may be of the hundred
    assert "\n...\n" in dump
    assert dump.endswith("joined\n")


def test_current_frames_has_one_entry_per_goroutine():
    code = """
frames = sys._current_frames()
def chain(frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names
print(set(frames) == set(ids.values()), len(frames) == len(gs) + 1)
print({name: chain(frames[ids[name]]) for name in %r})
print(frames[ids["parked"]].f_locals["wait"] == ch.recv, frames[ids["main"]] is sys._getframe())
del frames
end()
gort.gosched()
print(sys._current_frames().keys() == {ids["main"]})
"""
    expected = f"True True\n{CHAINS}\nTrue True\nTrue"
    check(STATES + code % tuple([list(CHAINS)]), expected)


def test_current_exceptions_are_those_that_goroutines_handle():
    code = """
    import sys, threading
    import gort
    from waiting import parked
    ids = {}
    def handles(n):
        ids[n] = threading.get_ident()
        try: raise ValueError(n)
        except ValueError: ch.recv()
    def plain():
        ids["plain"] = threading.get_ident()
        ch.recv()
    ch = gort.Chan()
    gs = [gort.go(handles, n) for n in range(3)] + [gort.go(plain)]
    parked(*gs)
    found = sys._current_exceptions()
    if sys.version_info < (3, 12):
        found = {ident: value for ident, (_, value, _) in found.items()}
    print({name: repr(found[ident]) for name, ident in sorted(ids.items(), key=str)})
    for _ in gs: ch.send(None)
    for g in gs: g.join(timeout=20)
    """
    check(code, str({"plain": "None", **{n: f"ValueError({n})" for n in range(3)}}))


#: What py-spy says where it cannot look at all, which is no fault of what it looks at.
CANNOT_LOOK = re.compile(
    r"ermission|ermitted|Unsupported version|Failed to find python version|No such file"
)


def test_py_spy_sees_every_goroutine():
    program = STATES + "print('there', flush=True)\nsys.stdin.read()\nend()\nprint('ended')"
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=HERE, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "there\n"
        dumped = run_tool("py-spy", "dump", "--pid", str(child.pid))
        out, err = child.communicate("", timeout=50)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, out, err) == (0, "ended\n", "")
    if dumped.returncode and CANNOT_LOOK.search(dumped.stderr):
        pytest.skip(dumped.stderr.strip().splitlines()[-1])
    assert dumped.returncode == 0, dumped.stderr
    threads = re.split(r"^Thread .*\n", dumped.stdout, flags=re.M)[1:]
    found = [re.findall(r"^    (.+?) \(", thread, re.M) for thread in threads]
    for name, chain in CHAINS.items():
        assert chain in found, f"{name} is not in\n{dumped.stdout}"
    assert found.count(CHAINS["reads"]) == 2
    assert sum(chain[-1:] == ["<module>"] for chain in found) == 1


DEBUGGED = """
import gort
def inner(ch):
    STOP
    first = 1
    got = ch.recv()
    return got + first
def outer(ch):
    return inner(ch)
def compute(stop):
    n = 0
    while not stop: n += 1
    print("computed", n > 0)
def send(ch):
    gort.sleep(0.02)  # after the debugger has stepped onto the park
    ch.send(41)
def main():
    ch, stop = gort.Chan(), []
    gs = [gort.go(compute, stop) for _ in range(HOGS)]
    g = gort.go(outer, ch)
    gort.go(send, ch)
    print("joined", g.join(timeout=20))
    stop.append(True)
    for g in gs: g.join(timeout=20)
main()
""".replace("STOP", "breakpoint" + "()")


def debug(tmp_path, *command: str, says: list[str], hogs: int) -> str:
    """Run `DEBUGGED` under the command, type what is said; what came out. It must end with code 0."""
    program = tmp_path / "program.py"
    program.write_text(DEBUGGED.replace("HOGS", str(hogs)))
    done = run_tool("python", *command, program, stdin="\n".join(says) + "\n", GORT_SLICE="1")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("hogs", [0, 2])
def test_pdb_steps_over_a_park_in_a_goroutine(tmp_path, hogs):
    step = ["n"] * (sys.version_info < (3, 13))  # later ones stop at the call itself
    says = [
        "n",
        "p ('first', first)",
        "n",
        "p ('got', got)",
        "where",
        "up",
        "p 'up', 'got' in dir()",
    ]
    if not step:
        says = ["n", *says]
    out = debug(tmp_path, says=[*says, "c"], hogs=hogs)
    assert "('first', 1)" in out
    assert "('got', 41)" in out
    assert "('up', False)" in out
    where = out[out.index("('got', 41)") :]
    assert where.index("outer()") < where.index("inner()")
    assert "joined 42" in out
    assert out.count("computed True") == hogs


@pytest.mark.parametrize("hogs", [0, 2])
def test_python_m_pdb_stops_in_main_and_in_a_goroutine(tmp_path, hogs):
    says = ["b main", "c", "where", "c", "where", "p 'second', ch", "c", "q"]
    out = debug(tmp_path, "-m", "pdb", says=says, hogs=hogs)
    first, _, second = out.partition("('second', <gort.Chan")
    assert first.index("<module>()") < first.index("main()")
    assert first.index("outer()") < first.rindex("inner()")
    assert "joined 42" in second
    assert out.count("computed True") == hogs
    assert "finished" in second


PROFILED = """
import gort
def child(ch):
    for _ in range(10): ch.recv()
def send(ch):
    for i in range(10): ch.send(i)
def measured():
    ch = gort.Chan()
    g = gort.go(child, ch)
    send(ch)
    g.join()
def main():
    for _ in range(3): measured()
main()
"""


def calls(output: str) -> dict[str, str]:
    """A table of cProfile: how often each function was called."""
    return {m[2]: m[1] for m in re.finditer(r"^ +(\S+) .*\((\w+)\)$", output, re.M)}


def test_python_m_cprofile_counts_functions_that_park(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROFILED)
    done = run_tool("python", "-m", "cProfile", program)
    assert (done.returncode, done.stderr) == (0, "")
    counted = calls(done.stdout)
    assert {name: counted.get(name) for name in ("main", "measured", "send")} == {
        "main": "1",
        "measured": "3",
        "send": "3",
    }
    # Up to 3.11 it looks at the thread it was started on, later at all: with goroutines as with threads.
    assert counted.get("child") == (None if sys.version_info < (3, 12) else "3")


@pytest.mark.parametrize(
    "other",
    [
        "ch.recv()",
        pytest.param(
            "while not done: gort.gosched()",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12),
                reason="since 3.12 it takes the calls of all threads for its own, plain ones too",
            ),
        ),
    ],
)
def test_cprofile_in_a_goroutine_beside_others(other):
    code = f"""
    import cProfile, pstats
    import gort
    def pause(n): gort.gosched() if n % 2 else gort.sleep(0.0005)
    def work():
        for n in range(10): pause(n)
    def other():
        begun.append(True)
        {other}
    def measured():
        with cProfile.Profile() as profile: work()
        done.append(True)
        ch.close()
        found = pstats.Stats(profile).get_stats_profile().func_profiles
        print(found["work"].ncalls, found["pause"].ncalls)
    begun, done, ch = [], [], gort.Chan()
    others = [gort.go(other) for _ in range(2)]
    while len(begun) < len(others): gort.gosched()  # what begins while it looks is a call, too
    for g in [gort.go(measured), *others]:
        try: g.join(timeout=20)
        except gort.ChanClosed: pass
    """
    check(code, "1 10")
