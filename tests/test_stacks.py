"""Stacks: what a goroutine gets by default, by stack_size and by GORT_STACK; the report when it is used up; and that what was
nested deeply is freed on any of them, without the memory growing.
"""

from __future__ import annotations

import sys

import pytest
from children import check, child, shared_library

HEADER = "import gort\n"
KIB = 1 << 10
DOWN = """
int down(int n) { volatile char frame[KIB]; frame[0] = 1; return n ? down(n - 1) + frame[0] : 0; }
"""


@pytest.fixture(scope="module")
def down(tmp_path_factory):
    """The head of a program: its `down(n)` takes n KiB of stack, and nothing counts them."""
    folder = tmp_path_factory.mktemp("stacks")
    library = shared_library(folder / "libgortdown.so", DOWN.replace("KIB", "1024 - 48"))
    return f"{HEADER}import ctypes\ndown = ctypes.CDLL({library!r}).down\n"


# How the third goroutine is started, in which environment, and the KiB of its stack.
USED_UP = {
    "by default": ("gort.go(down, 10_000)", {}, 256),
    "stack_size": ("gort.spawn(down, (10_000,), stack_size=1 << 20)", {}, 1024),
    "stack_size, rounded up": ("gort.spawn(down, (10_000,), stack_size=1 << 20 | 1)", {}, 2048),
    "GORT_STACK": ("gort.go(down, 10_000)", {"GORT_STACK": str(512 * KIB)}, 512),
}


@pytest.mark.parametrize("how", USED_UP)
def test_used_up_stack_is_a_report_of_goroutine_size_and_remedy(how, down):
    start, env, kib = USED_UP[how]
    fits = kib * 2 // 3  # the two guards and a goroutine's own part take less than a third
    first = f"print({start}.join(), flush=True)\n".replace("10_000", str(fits))
    done = child(f"{down}{first}{start}.join()\nprint('went on')", **env)
    assert (done.returncode, done.stdout) == (-11, f"{fits}\n"), done.stderr
    report = next(line for line in done.stderr.splitlines() if line.startswith("gort: "))
    words = report.split()
    assert report.startswith("gort: stack overflow in goroutine 3: its stack of ")
    # What is said is what is usable: without guard, bundle and colours.
    assert kib - 20 <= int(words[words.index("KiB") - 1]) <= kib
    assert "gort.spawn(fn, stack_size=bytes)" in report and "GORT_STACK" in report


MORE = {
    "gort.spawn(down, (10_000,), stack_size=16 << 20)": {},
    "gort.go(down, 10_000)": {"GORT_STACK": str(16 << 20)},
}


@pytest.mark.parametrize("start", MORE)
def test_what_needs_more_stack_works_with_more(start, down):
    check(f"{down}print({start}.join())", "10000", **MORE[start])


@pytest.mark.parametrize("kib", [128, 256, 1024])
def test_depth_of_recursion_through_c_grows_with_the_stack(kib):
    """RecursionError on every size, however often; never a crash. Others go on meanwhile."""
    code = f"""
import functools, json, threading
def deep(n):
    depth[0] = max(depth[0], n)
    return json.dumps(n, default=None) and sorted([2, 1], key=functools.cmp_to_key(lambda a, b: deep(n + 1)))
depth = [0]
def body():
    for _ in range(3):
        try: deep(0)
        except RecursionError: pass
        gort.gosched()
    return "survived"
other = gort.go(lambda: [gort.gosched() for _ in range(1000)] and "went on")
gs = [gort.spawn(body, stack_size={kib} << 10) for _ in range(5)]
assert {{g.join() for g in gs}} == {{"survived"}}
assert other.join() == "went on" and depth[0] > {kib} // 32, depth
print("ok")
"""
    check(HEADER + code, "ok")


# How one more is made, and how many: dicts are the slowest by far.
FREED = {
    "lists": ("[x]", 1_000_000),
    "tuples": ("(x,)", 1_000_000),
    "dicts": ("{1: x}", 300_000),
    "mixed": ("[(x, {'a': Holds(x)})] if n % 2 else (x,)", 300_000),
}


@pytest.mark.parametrize("kind", FREED)
def test_a_million_nested_objects_are_freed_and_memory_stays_flat(kind):
    make, count = FREED[kind]
    code = f"""
from children import rss_kib
class Holds:
    __slots__ = ("x",)
    def __init__(self, x): self.x = x
def body(n):
    x = None
    while n:
        x = {make}
        n -= 1
    full = rss_kib()
    gort.gosched()
    del x
    gort.gosched()
    # What pymalloc gives back by itself gort gives back little by little.
    if gort.memory.stats()["python_allocs_objects"]: gort.memory.trim()
    return full, rss_kib()
def rounds(): return [gort.go(body, {count}).join(timeout=50) for _ in range(3)]
first, second, third = rounds()
assert first[0] - first[1] > 20_000, first      # it was there, and it is gone
assert third[1] < first[1] + 6_000, (first, third)
print("ok")
"""
    check(HEADER + code, "ok")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 looks at the stack itself")
def test_soft_guard_is_closed_again_and_opens_again():
    """RecursionError by the guard many times in the life of one goroutine, between parks."""
    code = """
class Deep:
    def __repr__(self): return repr([self])
def body():
    for _ in range(50):
        try: repr(Deep())
        except RecursionError: pass
        else: return "no error"
        gort.gosched()
    return "ok"
print(gort.go(body).join())
"""
    check(HEADER + code, "ok")
