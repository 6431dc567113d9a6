"""gort.cache.ConcurrentCache: what it keeps, whom it evicts, when entries end, bad input."""

from __future__ import annotations

import copy
import math
import weakref

import gort
import pytest
from gort.cache import ConcurrentCache
from gort.testing import synctest
from waiting import eventually, join_all


def test_what_is_put_is_got(anywhere):
    def body():
        cache = ConcurrentCache(10)
        cache.put("a", 1)
        cache["b"] = 2
        assert cache.get("a") == (1, True) and cache["b"] == 2
        assert cache.get("c") == (None, False)
        with pytest.raises(KeyError, match="c"):
            cache["c"]
        assert "a" in cache and "c" not in cache
        assert len(cache) == 2 and list(cache) == cache.keys() == ["a", "b"]
        assert cache.items() == [("a", 1), ("b", 2)]
        assert cache.delete("a") is True and cache.delete("a") is False
        del cache["b"]
        with pytest.raises(KeyError, match="b"):
            del cache["b"]
        assert not cache and cache.keys() == []

    anywhere(body)


@pytest.mark.parametrize("value", [None, 0, False, "", ()])
def test_values_that_look_like_nothing_are_values(value):
    cache = ConcurrentCache(2)
    cache["k"] = value
    assert cache.get("k") == (value, True) and cache["k"] is value and "k" in cache
    assert cache.get_or_load("k", lambda _: 1 / 0) is value


def test_counts_tell_hits_from_misses_and_looks_from_both():
    cache = ConcurrentCache(2)
    cache["a"] = 1
    cache.get("a"), cache["a"], cache.get("b")
    with pytest.raises(KeyError):
        cache["b"]
    "a" in cache, "b" in cache, len(cache), cache.items()
    cache["b"], cache["c"] = 2, 3
    expected = {"hits": 2, "misses": 2, "evictions": 1, "size": 2}
    assert cache.stats() == {"loads": 0, "load_failures": 0, "expirations": 0, **expected}
    cache.clear()
    assert cache.stats() == {
        "loads": 0,
        "load_failures": 0,
        "expirations": 0,
        **expected,
        "size": 0,
    }


def test_one_pass_over_many_keys_does_not_wash_out_those_in_use():
    cache = ConcurrentCache(100)
    for key in range(50):
        cache[key] = key
        cache.get(key)
    for key in range(1000, 1100):
        cache[key] = key
    assert all(key in cache for key in range(50))


def test_the_hand_takes_the_bit_and_comes_round():
    cache = ConcurrentCache(3)
    for key in "abc":
        cache[key] = key
        cache.get(key)
    cache["d"] = "d"  # all had a bit: the oldest goes
    assert cache.keys() == ["b", "c", "d"]
    cache.get("b")
    cache["e"] = "e"  # the hand passes b, c has lost its bit
    assert cache.keys() == ["b", "d", "e"]
    assert "d" in cache  # a look is no use
    cache["f"] = "f"
    assert cache.keys() == ["b", "e", "f"]


def test_replacing_a_value_is_using_it():
    cache = ConcurrentCache(2)
    cache["a"], cache["b"] = 1, 2
    cache["a"] = 3
    cache["c"] = 4
    assert cache.items() == [("a", 3), ("c", 4)]


def test_another_size_evicts_what_is_too_much():
    gone = []
    cache = ConcurrentCache(100, on_evict=lambda key, value: gone.append((key, value)))
    for key in range(100):
        cache[key] = -key
    cache.resize(30)
    assert cache.max_size == 30 and cache.keys() == list(range(70, 100))
    assert gone == [(key, -key) for key in range(70)]
    cache.resize(200)
    for key in range(200):
        cache[key] = key
    assert len(cache) == 200


@synctest.test
def test_entry_ends_when_its_time_is_up():
    cache = ConcurrentCache(10, ttl=5)
    cache["cache's"] = 1
    cache.put("own", 2, ttl=3)
    cache.put("never", 3, ttl=math.inf)
    assert cache.ttl == 5.0
    gort.sleep(3 - 1e-9)
    assert cache["own"] == 2
    gort.sleep(1e-9)
    assert cache.get("own") == (None, False) and "own" not in cache
    gort.sleep(2)
    assert cache.keys() == ["never"]
    gort.sleep(10**8)
    assert cache["never"] == 3
    assert cache.stats()["expirations"] == 2 and cache.stats()["evictions"] == 0


@synctest.test
def test_a_new_value_has_a_new_time():
    cache = ConcurrentCache(10)
    cache.put("k", 1, ttl=1)
    gort.sleep(0.5)
    cache.put("k", 2, ttl=1)
    gort.sleep(0.9)
    assert cache["k"] == 2
    cache["k"] = 3  # the cache has none
    gort.sleep(100)
    assert cache["k"] == 3 and cache.ttl is None


@synctest.test
def test_who_is_due_goes_before_anyone_is_evicted():
    gone = []
    cache = ConcurrentCache(6, on_evict=lambda key, _: gone.append(key))
    for key in range(6):
        cache.put(key, key, ttl=10 - key if key > 3 else None)
    gort.sleep(6)
    cache["new"], cache["newer"] = 1, 2
    assert gone == [5, 4] and cache.stats()["evictions"] == 0
    assert cache.keys() == [0, 1, 2, 3, "new", "newer"]


@synctest.test
def test_what_is_due_goes_a_few_at_a_time_and_all_for_a_look_at_the_whole():
    gone = []
    cache = ConcurrentCache(100, ttl=1, on_evict=lambda key, _: gone.append(key))
    for key in range(20):
        cache[key] = key
    gort.sleep(1)
    assert cache.get(15) == (None, False)
    assert 1 <= len(gone) <= 5
    assert len(cache) == 0 and sorted(gone) == list(range(20))


def test_on_evict_is_told_of_what_leaves_by_itself_only():
    gone = []
    cache = ConcurrentCache(1, on_evict=lambda *pair: gone.append(pair))
    cache["a"] = 1
    cache["a"] = 2
    del cache["a"]
    cache["b"] = 3
    cache.clear()
    assert gone == []
    cache["c"], cache["d"] = 4, 5
    assert gone == [("c", 4)]


def test_an_exception_of_on_evict_comes_after_the_operation():
    def refuse(key, value):
        raise ValueError(key)

    cache = ConcurrentCache(1, on_evict=refuse)
    cache["a"] = 1
    with pytest.raises(ValueError, match="a"):
        cache["b"] = 2
    assert cache.items() == [("b", 2)]
    with pytest.raises(ValueError, match="b"):
        cache["c"] = cache["b"]
    assert cache.items() == [("c", 2)]


def test_on_evict_may_use_the_cache_and_park():
    gate, seen = gort.Chan(), []

    def told(key, value):
        seen.append(len(cache))
        gate.recv_ok()
        if key < 10:
            cache.put(key + 100, value)

    cache = ConcurrentCache(3, on_evict=told)
    gs = [gort.go(cache.put, key, key) for key in range(6)]
    eventually(lambda: len(seen) == 3)
    assert len(cache) == 3 and not all(g.done for g in gs)
    gate.close()
    join_all(gs)
    assert len(cache) == 3 and all(n <= 3 for n in seen)


def test_bad_arguments():
    for size in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match=f"max_size must be from 1 to 2147483648, not {size}"):
            ConcurrentCache(size)
    cache = ConcurrentCache(3)
    with pytest.raises(ValueError, match="max_size must be from 1"):
        cache.resize(0)
    for size in ("x", 1.5, None):
        with pytest.raises(TypeError):
            ConcurrentCache(size)
        with pytest.raises(TypeError):
            cache.resize(size)
    with pytest.raises(TypeError, match="on_evict must be callable"):
        ConcurrentCache(1, on_evict=3)
    for ttl in (0, -1, math.nan):
        for make in (
            lambda ttl=ttl: ConcurrentCache(1, ttl=ttl),
            lambda ttl=ttl: cache.put(1, 1, ttl),
        ):
            with pytest.raises(ValueError, match="ttl must be"):
                make()
    with pytest.raises(TypeError):
        ConcurrentCache(1, ttl="soon")
    with pytest.raises(TypeError, match=r"put\(\) missing required argument: 'value'"):
        cache.put(1)
    with pytest.raises(TypeError):
        copy.copy(cache)
    assert cache.max_size == 3 and len(cache) == 0


def test_types_are_generic_and_weakly_referenced():
    cache = ConcurrentCache[str, int](max_size=2)
    assert weakref.ref(cache)() is cache
    assert str(ConcurrentCache[str, int]).endswith("ConcurrentCache[str, int]")

    class Mine(ConcurrentCache[str, int]):
        pass

    assert Mine(3).get("x") == (None, False)
