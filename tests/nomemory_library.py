"""Operations for tests/nomemory.py on maps, caches, shared calls and what else gort.sync has beside locks."""

from __future__ import annotations

import sys

import gort
from gort.cache import ConcurrentCache
from nomemory_values import FAILED, LIMIT, Value, add, use_up_tuples


def mapping(name, *args):
    """Make an operation of a Map's method: it is done, or the map is as it was."""

    def operation():
        old, new = Value(), Value()
        m, before = gort.Map(), {i: Value() for i in range(7)} | {"key": old}
        m.update(before)
        given = [{"new": new, "old": old}.get(arg, arg) for arg in args]
        used_up = use_up_tuples()

        def verify(outcome):
            used_up.clear()
            after = dict(m.items())
            if outcome is FAILED:
                assert after == before
            elif name in ("load_and_delete", "swap"):
                assert outcome == (old, True) and after != before
            elif name == "load_or_store":
                assert outcome == (new, False) and after == before | {"other": new}
            else:
                assert after != before and (new in after.values()) is ("new" in args)

        return lambda: getattr(m, name)(*given), verify

    return operation


def makes_a_map():
    """With what it is to begin with, which comes by way of a dict, or not at all."""
    items = {i: Value() for i in range(30)}

    def verify(outcome):
        assert outcome is FAILED or dict(outcome.items()) == items

    return lambda: gort.Map(items), verify


def walks_a_map():
    """Each key is seen once; where a pair has no room the walk goes on behind it."""
    m, seen = gort.Map((i, i) for i in range(5)), []

    def act():
        for key, _ in m.items():
            seen.append(key)  # noqa: PERF402 - one allocation after another

    def verify(outcome):
        assert len(set(seen)) == len(seen) and (outcome is FAILED or len(seen) == 5)

    return act, verify


def counts_atomically():
    """A number that has no room to be given is not changed."""
    n = gort.atomic.Int(2**40)
    return lambda: n.add(2**40), lambda got: n.load() == (2**40 if got is FAILED else got)


def shares_a_call():
    """Whatever fails, the key is free afterwards, and who waits for the channel gets something."""
    group = gort.singleflight.Group()

    def act():
        channel = group.do_chan("key", add, 1)
        return group.do("key", add, 1)[0], channel.recv_ok(timeout=LIMIT)

    def verify(outcome):
        if outcome is not FAILED:
            assert outcome[0] == 1 and (outcome[1][1] is False or outcome[1][0].value in (1, None))
        end = 1000
        while "key" in group._calls and end:
            gort.gosched()  # the goroutine that do_chan() began may still run
            end -= 1
        assert group.do("key", add, 2) == (2, False)

    return act, verify


def waits_at_a_barrier():
    """Both go on, or it is broken."""
    barrier = gort.Barrier(2)

    def wait(timeout):
        try:
            return barrier.wait(timeout)
        except gort.BrokenBarrierError:
            return -1  # the other one had no memory

    def act():
        g = gort.go(wait, LIMIT)
        return wait(0.2), g.join(timeout=LIMIT)

    def verify(outcome):
        assert outcome is FAILED or set(outcome) in ({0, 1}, {-1})
        barrier.abort()  # whoever still waits goes on

    return act, verify


def caches():
    """What was put is there, what is there was put, and a load leaves nothing behind."""
    cache, tried = ConcurrentCache(20, ttl=1000, on_evict=lambda key, value: None), {}

    def act():
        for n in range(30):
            tried[n] = value = Value()
            cache.put(n, value)
            cache.get_or_load(n + 100, str)
        return cache.items(), cache.stats(), list(cache)

    def verify(outcome):
        for key, value in cache.items():
            assert value is tried[key] if key < 100 else value == str(key)
        assert len(cache) <= 20 and not cache._loads
        assert outcome is FAILED or list(dict(outcome[0])) == outcome[2]
        assert cache.get_or_load("new", str) == "new"

    return act, verify


OPERATIONS = {
    f.__name__: f
    for f in (
        makes_a_map, walks_a_map, counts_atomically, shares_a_call, waits_at_a_barrier, caches,
    )
}  # fmt: skip
if sys.version_info[:3] == (3, 13, 0):
    del OPERATIONS["caches"]  # its dict.setdefault gives a result with MemoryError set
for name, *args in (
    ("store", "other", "new"), ("store", "key", "new"), ("load_or_store", "other", "new"),
    ("load_and_delete", "key"), ("delete", "key"), ("swap", "key", "new"),
    ("compare_and_swap", "key", "old", "new"), ("compare_and_delete", "key", "old"),
    ("setdefault", "other", "new"), ("pop", "key"), ("clear",),
):  # fmt: skip
    OPERATIONS[f"Map.{name} {args[0] if args else ''}"] = mapping(name, *args)
