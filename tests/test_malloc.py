"""Python's own memory from gort's allocator: `gort.memory.install()` and GORT_MALLOC=1, in child programs."""

from __future__ import annotations

import sys

import pytest
from children import check, child

#: Uses all domains, sizes below and above every class, threads that take the raw one, and goroutines.
WORK = """
import gc, gort, json, threading
def work(seed):
    kept = []
    for i in range(300):
        size = (i * 7919 + seed) % 3000
        kept.append([bytearray(size), {str(i): i}, "x" * size, i * 10 ** 30])
        if i % 3 == 0:
            kept.pop(seed % len(kept))
    big = list(range(20_000))
    big.extend(big)
    assert json.loads(json.dumps([k[1] for k in kept])) == [k[1] for k in kept]
    for data, _, text, _ in kept:
        assert not any(data) and text == "x" * len(data)
    return sum(big)
def everybody():
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads: t.start()
    gs = [gort.go(work, n) for n in range(8)]
    assert len({g.join() for g in gs}) == 1
    for t in threads: t.join()
    gc.collect()
"""


def test_it_is_done_once_and_counted():
    code = """
    import gort
    before = gort.memory.stats()
    assert not any(n for name, n in before.items() if name.startswith("python_"))
    print(gort.memory.install(), gort.memory.install())
    everybody()
    stats = gort.memory.stats()
    assert stats["python_allocs_objects"] > 10_000 < stats["python_frees_objects"]
    assert stats["python_objects_bytes"] > 1_000
    """
    check(WORK + _flat(code), "True False", GORT_MALLOC="0")


def _flat(code):
    return "\n".join(line.removeprefix("    ") for line in code.splitlines())


def test_the_variable_installs_at_import():
    check("import gort; print(gort.memory.install())", "False", GORT_MALLOC="1")
    check("import gort; print(gort.memory.install())", "True", GORT_MALLOC="0")
    done = child("import gort", GORT_MALLOC="yes")
    assert done.returncode != 0
    assert "GORT_MALLOC must be 1" in done.stderr


@pytest.mark.parametrize("kind", ["default", "debug", "malloc", "malloc_debug", "pymalloc"])
def test_it_lies_beneath_whatever_python_was_started_with(kind):
    code = """
    import gort
    before = [[bytearray(n) for n in range(0, 5000, 50)], list(range(1000)), {i: i for i in range(999)}]
    everybody()
    assert gort.memory.install()
    everybody()
    for part in before: part.clear()
    del before
    everybody()
    assert gort.memory.stats()["python_allocs_objects"] > 10_000
    """
    check(WORK + _flat(code), PYTHONMALLOC=kind, GORT_MALLOC="0")


#: Writes one byte behind an object of the obj domain and frees it.
OVERFLOW = """
import ctypes, gort
if {install}: gort.memory.install()
api = ctypes.pythonapi
api.PyObject_Malloc.restype = ctypes.c_void_p
api.PyObject_Malloc.argtypes = [ctypes.c_size_t]
api.PyObject_Free.argtypes = [ctypes.c_void_p]
count = gort.memory.stats()["python_allocs_objects"]
block = api.PyObject_Malloc(40)
assert (gort.memory.stats()["python_allocs_objects"] > count) == {install}
ctypes.memset(block + 40, 0x11, 1)
api.PyObject_Free(block)
"""


@pytest.mark.parametrize("install", [True, False])
def test_debug_hooks_on_top_still_find_an_overflow(install):
    done = child(OVERFLOW.format(install=install), PYTHONMALLOC="debug", GORT_MALLOC="0")
    assert done.returncode != 0
    assert "bad trailing pad byte" in done.stderr


@pytest.mark.parametrize("hooks", ["default", "debug"])
@pytest.mark.parametrize("first", ["tracemalloc", "install"])
def test_tracemalloc_goes_on_whoever_is_first(first, hooks):
    code = f"""
    import gort, tracemalloc
    steps = [tracemalloc.start, gort.memory.install]
    kept = []
    for step in steps if "{first}" == "tracemalloc" else steps[::-1]:
        kept.append(bytearray(70_000))
        step()
    kept.append(bytearray(123_456))
    found = [t.size for t in tracemalloc.take_snapshot().traces if t.size > 123_000]
    assert len(found) == 1, found
    everybody()
    tracemalloc.stop()
    everybody()
    kept.clear()
    count = gort.memory.stats()["python_allocs_objects"]
    everybody()
    assert gort.memory.stats()["python_allocs_objects"] > count + 10_000
    tracemalloc.start()
    everybody()
    """
    check(WORK + _flat(code), PYTHONMALLOC=hooks, GORT_MALLOC="0")


def test_an_unknown_hook_beneath_is_refused():
    code = """
    import ctypes, gort
    class Allocator(ctypes.Structure):
        _fields_ = [(n, ctypes.c_void_p) for n in ("ctx", "malloc", "calloc", "realloc", "free")]
    now, api = Allocator(), ctypes.pythonapi
    api.PyMem_GetAllocator(2, ctypes.byref(now))
    assert not now.ctx
    hook = ctypes.create_string_buffer(b"somebody else's" * 9)
    now.ctx = ctypes.addressof(hook)
    api.PyMem_SetAllocator(2, ctypes.byref(now))
    try: gort.memory.install()
    except RuntimeError as e: print("another tool" in str(e))
    assert not gort.memory.stats()["python_allocs_objects"]
    """
    check(code, "True", GORT_MALLOC="0")


def test_a_size_that_nobody_has_is_a_memory_error():
    code = """
    import gort
    for size in 2 ** 62, 2 ** 63 - 100, 2 ** 47:
        for make in bytearray, bytes:
            try: make(size)
            except (MemoryError, OverflowError): pass
            else: raise AssertionError(size)
    kept = bytearray(100)
    try: kept.extend(bytes(2 ** 62))
    except MemoryError: print(len(kept))
    """
    check(code, "100", GORT_MALLOC="1")


def test_forked_children_allocate_while_threads_of_the_parent_do():
    code = """
    import ctypes, gort, os, threading
    raw = ctypes.CDLL(None)  # without the GIL
    raw.PyMem_RawMalloc.restype = ctypes.c_void_p
    raw.PyMem_RawFree.argtypes = [ctypes.c_void_p]
    ending = []
    def busy():
        while not ending:
            for n in 40, 700, 40_000: raw.PyMem_RawFree(raw.PyMem_RawMalloc(n))
    threads = [threading.Thread(target=busy) for _ in range(2)]
    for t in threads: t.start()
    def forks():
        for _ in range(10):
            pid = os.fork()
            if not pid:
                work(1)
                for n in 40, 700, 40_000: raw.PyMem_RawFree(raw.PyMem_RawMalloc(n))
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    forks()
    gort.go(forks).join()
    ending.append(1)
    for t in threads: t.join()
    print("ok")
    """
    done = child(WORK + _flat(code), GORT_MALLOC="1", PYTHONWARNINGS="ignore")
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_interpreter_ends_in_the_middle_of_everything():
    code = """
    import atexit, gort, sys, threading
    class Late:
        def __init__(self): self.me, self.data = self, bytearray(9999)
        def __del__(self): self.data.extend(bytes(100_000))
    late = sys.late = Late()
    everybody()
    threading.Thread(target=lambda: work(5) and threading.Event().wait(), daemon=True).start()
    gort.go(lambda: work(6) and gort.Chan().recv())
    atexit.register(work, 7)
    gort.gosched()
    print("end")
    """
    check(WORK + _flat(code), "end", GORT_MALLOC="1")


def test_memory_that_is_free_goes_back_to_the_system():
    code = """
    import gort
    kept = [bytes(600) for _ in range(50_000)]
    held = gort.memory.stats()["python_objects_bytes"]
    kept.clear()
    gort.memory.trim()
    stats = gort.memory.stats()
    assert held - stats["python_objects_bytes"] > 30_000_000, (held, stats)
    print(stats["python_free_bytes"] + stats["python_unused_bytes"] < 8 << 20)
    """
    check(code, "True", GORT_MALLOC="1")


def test_the_last_of_the_address_space_is_pythons_own():
    """Goroutines' stacks leave 8 MiB of it to others: that is what is used here."""
    code = """
    import gort, resource
    gort.go(int).join()
    before = pages = 0
    while pages != before or not pages:  # a thread that takes main's place in the call has a stack, too
        before = pages
        with open("/proc/self/statm") as statm: pages = int(statm.read().split()[0])
    limit = pages * resource.getpagesize() + (44 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(len(bytearray(40 << 20)) >> 20)
    try: bytearray(60 << 20)
    except MemoryError: print("no more")
    """
    check(code, "40\nno more", GORT_MALLOC="1")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters share one GIL before 3.12")
def test_interpreters_with_a_gil_of_their_own_share_the_heap():
    module = "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"
    code = f"""
    import threading
    import {module} as interpreters
    inside = '''
kept = []
for i in range(60_000):
  kept.append([i, str(i), bytearray(i % 900)])
  if len(kept) > 500: del kept[::2]
'''
    def other():
        id = interpreters.create()
        interpreters.run_string(id, inside)
        interpreters.destroy(id)
    threads = [threading.Thread(target=other) for _ in range(2)]
    for t in threads: t.start()
    for n in range(60): work(n)
    for t in threads: t.join()
    everybody()
    print("ok")
    """
    check(WORK + _flat(code), "ok", GORT_MALLOC="1")


@pytest.mark.parametrize("name", ["test_dict", "test_list", "test_json", "test_pickle", "test_re"])
def test_cpythons_own_tests_pass_on_it(name):
    pytest.importorskip(f"test.{name}")
    code = f"""
    import gort, sys
    from test.libregrtest import main
    sys.argv = ["regrtest"]
    main.main(["{name}"])
    """
    done = child(code, GORT_MALLOC="1", limit=100)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "1 test OK" in done.stdout
