"""Extension modules that count on their OS thread, called by goroutines that park inside them.

pydantic-core is made with PyO3, which counts in a thread-local how often the thread is attached.
A validator that calls Python that parks leaves such a count open, and another goroutine's comes
and goes meanwhile: with a count that drifts the library panics, or drops references without the
GIL.
"""

from __future__ import annotations

import gc
import shutil
import weakref

import gort
import pytest
from children import check, shared_library
from pydantic_core import SchemaSerializer, SchemaValidator, ValidationError, core_schema
from waiting import LIMIT, hold, join_all, parked


def validator(function):
    """A validator of whole numbers that passes them on to a Python function."""
    return SchemaValidator(
        core_schema.no_info_after_validator_function(function, core_schema.int_schema())
    )


def test_validators_that_park_in_two_goroutines_cross():
    gates = {1: gort.Chan(), 2: gort.Chan()}
    check = validator(lambda n: (gates[n].recv(), n)[1])
    for first, second in [(1, 2), (2, 1)] * 20:
        gs = {n: gort.go(check.validate_python, n) for n in gates}
        parked(*gs.values())
        for n in (first, second):  # they leave in the order they came, and in the other one
            gates[n].send(None)
            assert gs[n].join(timeout=LIMIT) == n


def test_validators_that_park_and_block_while_goroutines_move():
    def pause(n):
        if n % 5 == 0:
            hold(0.001)  # the P is handed off
        gort.gosched()
        meeting = gort.Chan()
        gort.go(meeting.send, n + 1)
        return meeting.recv()

    def body(i):
        return [check.validate_python([i, i + 1, i + 2]) for _ in range(10)]

    check = SchemaValidator(
        core_schema.list_schema(
            core_schema.no_info_after_validator_function(pause, core_schema.int_schema())
        )
    )
    before = gort.stats()["hand_offs"]
    assert join_all([gort.go(body, i) for i in range(30)]) == [
        [[i + 1, i + 2, i + 3]] * 10 for i in range(30)
    ]
    assert gort.stats()["hand_offs"] > before


def test_cancel_and_errors_pass_through_the_foreign_frames():
    def wait(n):
        if n < 0:
            gort.gosched()
            raise ValueError("negative")
        gate.recv()

    gate = gort.Chan()
    check = validator(wait)
    with pytest.raises(ValidationError, match="negative"):
        gort.go(check.validate_python, -1).join(timeout=LIMIT)
    g = gort.go(check.validate_python, 1)
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert gate.try_send(1) is False


def test_objects_of_the_library_are_freed_after_crossings():
    class Thing:
        pass

    def body(i):
        thing = Thing()
        watches.append(weakref.ref(thing))
        check = validator(lambda n, thing=thing: (gort.sleep(0.0005), n)[1])
        dump = SchemaSerializer(
            core_schema.any_schema(
                serialization=core_schema.plain_serializer_function_ser_schema(
                    lambda v: (gort.gosched(), v)[1]
                )
            )
        )
        return check.validate_python(i), dump.to_python(i)

    watches = []
    assert join_all([gort.go(body, i) for i in range(50)]) == [(i, i) for i in range(50)]
    gc.collect()
    assert not any(w() for w in watches)


LEFT_BEHIND = """
/* Leaves return addresses of this library all over the stack below its caller, and returns. */
__attribute__((noinline)) int deep(int n) { volatile char room[64]; room[0] = n; return n ? deep(n - 1) + room[0] : 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_calls_that_have_returned_bind_nobody(tmp_path):
    library = shared_library(tmp_path / "libgortdeep.so.1", LEFT_BEHIND)
    check(
        f"""
        import ctypes, os, select, socket
        import gort
        from waiting import LIMIT, parked

        deep = ctypes.CDLL({library!r}).deep
        pairs = [socket.socketpair() for _ in range(100)]

        def body(end):
            for _ in range(5):
                deep(500)
                # Its frame is of some 50 KB, most of which it does not write.
                assert select.select([end], [], []) == ([end], [], [])
                assert end.recv(1) == b"x"

        goroutines = [gort.go(body, end) for _, end in pairs]
        for _ in range(5):
            parked(*[g for g in goroutines if not g.done])
            assert len(os.listdir("/proc/self/task")) < 20
            for end, _ in pairs:
                end.send(b"x")
        for g in goroutines:
            g.join(timeout=LIMIT)
        """
    )


def test_main_that_is_away_from_its_thread_stays_where_foreign_frames_bind_it(tmp_path):
    library = shared_library(
        tmp_path / "libgortcalls.so", "void call_back(void (*function)(void)) { function(); }"
    )
    code = f"""
    import ctypes, gort, os, threading
    library, libc = ctypes.CDLL({library!r}), ctypes.CDLL(None)
    let_go, places = [], []
    def block():
        while not let_go: libc.usleep(1000)
    def inside():
        for _ in range(3):
            places.append(threading.get_native_id())
            gort.sleep(0.015)
    def main():
        blocker = gort.go(block)
        while threading.get_native_id() == os.getpid(): gort.sleep(0.001)
        library.call_back(ctypes.CFUNCTYPE(None)(inside))
        let_go.append(True)
        blocker.join()
        print(len(set(places)), os.getpid() in places, gort.go(len, "ab").join())
    gort.run(main)
    """
    check(code, "1 False 2")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_memory_where_an_unloaded_library_was_is_no_sign_of_it(tmp_path):
    library = shared_library(tmp_path / "libgortlarge.so", '__asm__(".text; .skip 33554432");')
    code = f"""
    import ctypes, gort
    from _ctypes import dlclose
    from waiting import waiter

    def waits_and_is_saved():
        g = waiter(ch.recv)
        saved = gort.memory.trim()
        ch.send("value")
        return saved, g.join()

    ch = gort.Chan()
    loaded = ctypes.CDLL({library!r})
    lines = [line for line in open("/proc/self/maps") if {library!r} in line and " r-xp " in line]
    low, high = (int(end, 16) for end in lines[0].split()[0].split("-"))
    assert high - low > 32 << 20
    assert waits_and_is_saved() == (1, "value")
    dlclose(loaded._handle)
    assert {library!r} not in open("/proc/self/maps").read()
    kept = []
    while not low <= id(ch) < high:  # a channel that lies there
        ch = gort.Chan()
        kept.append(ch)
        assert len(kept) < 1_000_000
    assert waits_and_is_saved() == (1, "value")
    """
    check(code)


FILLS = """
/* Leaves addresses of this library in every word of the stack below its caller, and returns. */
void fill(void) { void *volatile room[1500]; for (int i = 0; i < 1500; i++) room[i] = (char *)fill + 8; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_stacks_that_foreign_code_has_used_are_saved_once_others_wait_on_them(tmp_path):
    library = shared_library(tmp_path / "libgortfill.so", FILLS)
    code = f"""
    import ctypes, gort
    from gort import sync
    from test_memory import PAIRS, deep
    from waiting import join_all, parked

    gate, fill = sync.WaitGroup(), ctypes.CDLL({library!r}).fill
    gate.add(1)
    first = [gort.go(lambda: (fill(), gate.wait())) for _ in range(40)]
    parked(*first)  # each has a stack of its own
    gate.done()
    join_all(first)

    pairs = [(levels, *pair()) for levels in (0, 3, 40) for pair in PAIRS]
    waiting = [gort.go(deep, levels, wait) for levels, wait, _, _ in pairs]
    parked(*waiting)
    assert gort.memory.trim() >= len(waiting), gort.memory.stats()
    for _, _, wake, _ in pairs:
        wake()
    assert join_all(waiting) == [value for _, _, _, value in pairs]
    """
    check(code)
