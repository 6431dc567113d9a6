"""ConcurrentCache while keys, values and callbacks interfere; what the collector sees of it; many users at once."""

from __future__ import annotations

import gc
import random
import sys
import weakref

import gort
import pytest
from gort.cache import ConcurrentCache
from gort.testing import synctest
from waiting import OnThread, join_all


class Key:
    """A key whose comparison and hash do what a test wants."""

    def __init__(self, n, eq=None, hashed=None):
        self.n, self.eq, self.hashed = n, eq, hashed

    def __hash__(self):
        if self.hashed is not None:
            self.hashed()
        return self.n % 4

    def __eq__(self, other):
        for key in (self, other):
            if isinstance(key, Key) and key.eq is not None:
                key.eq()
        return isinstance(other, Key) and self.n == other.n


def operations(cache, key):
    yield lambda: cache.get(key)
    yield lambda: cache.put(key, 1)
    yield lambda: cache.put(key, 1, ttl=1000)
    yield lambda: cache.delete(key)
    yield lambda: key in cache
    yield lambda: cache.get_or_load(key, lambda _: 1)


def filled(size, **options):
    cache = ConcurrentCache(size, **options)
    for n in range(size):
        cache[Key(n)] = [n]
    return cache


def run_all(make, meanwhile):
    """Each operation, with a key whose comparison runs `meanwhile(cache)`."""
    for i in range(6):
        cache = make()
        left = [5]

        def eq(cache=cache, left=left):
            if left[0]:
                left[0] -= 1
                meanwhile(cache)

        list(operations(cache, Key(7, eq)))[i]()
        assert len(cache) == len(cache.items()) <= cache.max_size
        for key, value in cache.items():
            assert cache.get(key) == (value, True)


def test_a_comparison_may_clear():
    run_all(lambda: filled(50), lambda cache: cache.clear())


def test_a_comparison_may_delete_all():
    run_all(lambda: filled(50), lambda cache: [cache.delete(Key(n)) for n in range(50)])


def test_a_comparison_may_fill_so_that_the_table_grows():
    numbers = iter(range(1000, 10**9))
    run_all(
        lambda: filled(10, ttl=1000),
        lambda cache: (
            cache.resize(10_000),
            [cache.put(("other", next(numbers)), 1) for _ in range(200)],
        ),
    )


def test_a_comparison_may_evict_all_and_resize():
    numbers = iter(range(1000, 10**9))
    run_all(lambda: filled(20), lambda cache: [cache.put(next(numbers), 1) for _ in range(40)])
    run_all(lambda: filled(20), lambda cache: cache.resize(1))


def test_a_comparison_may_park():
    run_all(lambda: filled(20), lambda _: gort.gosched())
    cache = filled(20)
    gs = [gort.go(cache.put, Key(n % 20, gort.gosched), n) for n in range(100)]
    gs += [gort.go(cache.delete, Key(n % 20, gort.gosched)) for n in range(100)]
    join_all(gs)
    assert len(cache.items()) == len(cache) <= 20


def test_two_puts_whose_comparisons_park_make_one_entry():
    """Each looks before the other has put: the second look has to find it."""
    for _ in range(50):
        cache = ConcurrentCache(20)
        cache[Key(3)] = None  # of the same hash
        join_all([gort.go(cache.put, Key(7, gort.gosched), n) for n in range(4)])
        assert [key.n for key in cache] == [3, 7]


@pytest.mark.parametrize("where", ["eq", "hashed"])
def test_what_a_key_raises_goes_to_the_caller_and_changes_nothing(where):
    def fails():
        raise ZeroDivisionError

    cache = filled(8)
    before = cache.items()
    for operation in operations(cache, Key(7 + 8, **{where: fails})):
        with pytest.raises(ZeroDivisionError):
            operation()
    assert cache.items() == before and not cache._loads
    assert cache.stats()["evictions"] == 0


def test_key_that_cannot_be_hashed():
    cache = ConcurrentCache(1)
    for operation in operations(cache, []):
        with pytest.raises(TypeError, match="unhashable"):
            operation()


class Ends:
    """A value that does something when it goes."""

    def __init__(self, action):
        self.action = action

    def __del__(self):
        self.action()


@pytest.mark.parametrize("let_go", ["replace", "delete", "evict", "clear", "resize", "expire"])
def test_a_value_may_use_the_cache_when_it_goes(let_go):
    def body():
        cache = ConcurrentCache(10)

        def action():
            for n in range(30):
                cache[n] = n
            cache.clear()
            cache["by the value"] = 1
            gort.gosched()

        for n in range(10):
            cache.put(n, Ends(action), ttl=1 if let_go == "expire" else None)
        if let_go == "replace":
            for n in range(10):
                cache[n] = None
        elif let_go == "delete":
            for n in range(10):
                cache.delete(n)
        elif let_go == "evict":
            for n in range(100, 110):
                cache[n] = None
        elif let_go == "clear":
            cache.clear()
        elif let_go == "resize":
            cache.resize(1)
        else:
            gort.sleep(1)
            cache.get(0)
        assert "by the value" in cache and len(cache.items()) == len(cache) <= 10

    synctest.run(body)


def test_the_collector_sees_exactly_what_is_in():
    cache = ConcurrentCache(50, on_evict=print)
    for n in range(100):
        cache[(n, "key")] = [n]
    del cache[(70, "key")]
    seen = gc.get_referents(cache)
    assert sorted(str(o) for o in seen if type(o) in (tuple, list)) == sorted(
        str(o) for pair in cache.items() for o in pair
    )
    others = [o for o in seen if type(o) not in (tuple, list)]
    assert len(others) == len({id(o) for o in others}) == 3 and print in others


def test_a_cycle_through_a_cache_is_collected():
    class Value:
        pass

    for by in ("key", "value", "on_evict"):
        value = Value()
        cache = ConcurrentCache(5, on_evict=lambda *_, v=value: v)
        value.cache = cache
        if by == "key":
            cache[value] = 1
        elif by == "value":
            cache[1] = value
        watch = weakref.ref(value)
        del value, cache
        gc.collect()
        assert watch() is None, by


def test_a_chain_of_caches_ends_without_recursion():
    cache = None
    for _ in range(100_000):
        outer = ConcurrentCache(1)
        outer[1] = cache
        cache = outer
    del outer, cache


def test_no_reference_is_lost_or_kept():
    key, value = ("k",) * 3, object()
    before = sys.getrefcount(key), sys.getrefcount(value)
    cache = ConcurrentCache(2, ttl=1000, on_evict=lambda k, v: None)
    for _ in range(100):
        cache.put(key, value)
        cache.put(key, value, ttl=50)
        cache.get(key), cache[key], key in cache, cache.items(), cache.keys(), list(cache)
        cache.get_or_load(key, id), cache.get(1), cache.delete(key)
        cache.get_or_load(key, lambda _: value)
        cache[1], cache[2], cache[3] = 1, 2, 3
        cache.clear()
    assert (sys.getrefcount(key), sys.getrefcount(value)) == before


def hammer(cache, seed, count, check):
    chance = random.Random(seed)
    for _ in range(count):
        key = Key(chance.randrange(60)) if chance.random() < 0.5 else chance.randrange(60)
        n = key.n if isinstance(key, Key) else key
        what = chance.random()
        if what < 0.5:
            value, ok = cache.get(key)
            check(not ok or value == n)
        elif what < 0.7:
            cache.put(key, n, ttl=chance.choice([None, 1e-6, 1000]))
        elif what < 0.8:
            check(cache.get_or_load(key, lambda key, n=n: (gort.gosched(), n)[1]) == n)
        elif what < 0.9:
            cache.delete(key)
        elif what < 0.95:
            check(len(cache.items()) <= 30)
        elif what < 0.96:
            cache.clear()
        else:
            gort.gosched()
    return count


def test_hammered_by_goroutines_and_threads():
    """Eight of each; a comparison in Python lets them interfere wherever they can."""
    bad, gone = [], []
    cache = ConcurrentCache(25, ttl=1000, on_evict=lambda key, _: gone.append(key))

    def check(fine):
        fine or bad.append(1)

    gs = [gort.go(hammer, cache, seed, 1500, check) for seed in range(8)]
    threads = [OnThread(hammer, cache, seed, 1500, check) for seed in range(8, 16)]
    join_all([*gs, *threads], limit=50)
    assert not bad and len(cache) <= 25 and not cache._loads
    stats = cache.stats()
    assert stats["hits"] and stats["misses"] and stats["evictions"] and stats["expirations"]
    assert len(gone) == stats["evictions"] + stats["expirations"]
