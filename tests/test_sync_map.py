"""Map: Go's operations, the ways of a dict, keys whose code parks or uses the map, walks, collection."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref

import gort
import pytest
from gort import Map
from leaking import found, start
from waiting import LIMIT, join_all, parked, raises_text

MISSING = object()


class Key:
    """A key with a chosen hash, whose comparisons call `on_equal` first."""

    def __init__(self, name, on_equal=None):
        self.name, self.on_equal = name, on_equal

    def __hash__(self):
        return 7

    def __eq__(self, other):
        for key in (self, other):
            if key.on_equal is not None:
                key.on_equal()
        return self.name == other.name


def test_operations_of_go():
    m = Map()
    assert m.load("a") == (None, False)
    assert m.store("a", 1) is None
    assert m.load("a") == (1, True)
    assert m.load_or_store("a", 2) == (1, True)
    assert m.load_or_store("b", 2) == (2, False)
    assert m.swap("b", 3) == (2, True)
    assert m.swap("c", 4) == (None, False)
    assert m.compare_and_swap("c", 4, 5) is True
    assert m.compare_and_swap("c", 4, 6) is False
    assert m.compare_and_swap("d", None, 6) is False
    assert m.compare_and_delete("c", 4) is False
    assert m.compare_and_delete("c", 5) is True
    assert m.load_and_delete("b") == (3, True)
    assert m.load_and_delete("b") == (None, False)
    assert m.delete("b") is None
    assert list(m.items()) == [("a", 1)]
    assert m.clear() is None
    assert len(m) == 0


def test_none_is_a_value_like_any_other():
    m = Map({"a": None})
    assert m.load("a") == (None, True)
    assert m.load_or_store("a", 1) == (None, True)
    assert m.compare_and_swap("a", None, 1)
    assert m.get("b") is None and m.setdefault("c") is None and "c" in m


def test_ways_of_a_dict():
    m = Map([("a", 1), ("b", 2)])
    m["c"] = 3
    assert m["c"] == 3 and "c" in m and "d" not in m and len(m) == 3
    assert list(m) == list(m.keys()) == ["a", "b", "c"]
    assert list(m.values()) == [1, 2, 3]
    assert dict(m) == dict(m.items()) == {"a": 1, "b": 2, "c": 3}
    assert m.get("a") == 1 and m.get("x") is None and m.get("x", 5) == 5
    assert m.setdefault("a", 9) == 1 and m.setdefault("x", 9) == 9
    assert m.pop("x") == 9 and m.pop("x", None) is None
    del m["a"]
    m.update({"b": 4})
    m.update(Map({"e": 5}))
    m.update([("f", 6)])
    assert dict(Map(m)) == {"b": 4, "c": 3, "e": 5, "f": 6}
    assert bool(m) and not Map()
    assert repr(m) == "<gort.Map of 4>"
    assert Map[str, int] is not None


@pytest.mark.parametrize("key", ["x", ("x", 1), None, ()])
def test_missing_key_is_a_key_error_with_that_key(key):
    m = Map()
    for call in (lambda: m[key], lambda: m.pop(key), lambda: m.__delitem__(key)):
        with pytest.raises(KeyError) as caught:
            call()
        assert caught.value.args == (key,)


CALLS = {
    "load": 1, "store": 2, "load_or_store": 2, "load_and_delete": 1, "delete": 1, "swap": 2,
    "compare_and_swap": 3, "compare_and_delete": 2, "get": 1, "pop": 1, "setdefault": 1,
    "__getitem__": 1, "__setitem__": 2, "__delitem__": 1, "__contains__": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_key_that_is_not_hashable_is_a_type_error(name):
    m = Map({1: 1})
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        getattr(m, name)([], *[0] * (CALLS[name] - 1))
    assert dict(m) == {1: 1}


@pytest.mark.parametrize("name", [*CALLS, "range", "clear", "update", "items"])
def test_wrong_number_of_arguments_is_a_type_error(name):
    with pytest.raises(TypeError):
        getattr(Map(), name)(1, 2, 3, 4)
    with pytest.raises(TypeError):
        getattr(Map(), name)(x=1)


@pytest.mark.parametrize("items", [5, [1], [(1, 2, 3)], {"a": 1}.keys(), [([], 1)]])
def test_wrong_items_are_an_error_and_there_is_no_map(items):
    with pytest.raises((TypeError, ValueError)):
        Map(items)


def test_arguments_of_the_constructor():
    for args, kwargs in (((1, 2), {}), ((), {"items": []}), ((None,), {})):
        with pytest.raises(TypeError):
            Map(*args, **kwargs)
    with pytest.raises(TypeError):
        type("Sub", (Map,), {})


def test_range_needs_a_callable_and_ends_at_false_or_an_exception():
    m, seen = Map((i, i) for i in range(5)), []
    with raises_text(TypeError, "range() needs a callable, not int"):
        m.range(5)
    m.range(lambda k, v: seen.append(k))  # None goes on
    assert seen == [0, 1, 2, 3, 4]
    m.range(lambda k, v: bool(seen.append(k)))
    assert len(seen) == 6
    with pytest.raises(ZeroDivisionError):
        m.range(lambda k, v: 1 / 0)


@pytest.mark.parametrize("value", [[], {}, set(), bytearray()])
def test_value_that_cannot_be_a_key_is_not_comparable(value):
    m = Map({"a": value})
    text = f"comparing uncomparable type {type(value).__name__}"
    with raises_text(TypeError, text):
        m.compare_and_swap("a", value, 1)
    with raises_text(TypeError, text):
        m.compare_and_delete("missing", value)
    assert m["a"] is value


def test_comparison_is_of_type_and_value():
    m = Map({"a": 1})
    for old in (True, 1.0, "1"):
        assert not m.compare_and_swap("a", old, 2)
        assert not m.compare_and_delete("a", old)
    nan = m["a"] = float("nan")
    assert not m.compare_and_swap("a", float("nan"), 2)
    assert m.compare_and_swap("a", nan, (1, [2]))  # a thing is equal to itself
    assert m.compare_and_swap("a", (1, [2]), 3)


def test_exception_of_a_comparison_changes_nothing():
    def fail():
        raise ZeroDivisionError

    here, failing = Key("here"), Key("failing", fail)
    m = Map([(here, 1)])
    for name, count in CALLS.items():
        with pytest.raises(ZeroDivisionError):
            getattr(m, name)(failing, *[0] * (count - 1))
    assert list(m.items()) == [(here, 1)]

    class Value:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            fail()

    value = m[here] = Value()
    with pytest.raises(ZeroDivisionError):
        m.compare_and_swap(here, Value(), 2)
    assert m[here] is value


@pytest.mark.parametrize("change", ["clear", "delete", "grow", "replace", "move"])
@pytest.mark.parametrize("name", CALLS)
def test_comparison_that_changes_the_map(name, change):
    keys = [Key(i) for i in range(6)]
    m = Map((key, key.name) for key in keys)
    once = [True]

    def disturb():
        if not once:
            return
        once.clear()
        if change == "clear":
            m.clear()
        elif change == "delete":
            m.delete(keys[5])
        elif change == "grow":
            m.update((Key(i), i) for i in range(100, 200))
        elif change == "replace":
            m[keys[5]] = 50
        else:
            m.delete(keys[5])
            m.update((Key(i), i) for i in range(100, 200))
            m[keys[5]] = 5

    mine = Key(5, disturb)
    try:
        result = getattr(m, name)(mine, *[5] * (CALLS[name] - 1))
    except KeyError:
        result = KeyError
    is_there = change not in ("clear", "delete")
    value = 50 if change == "replace" else 5
    expected = {
        "load": (value, True), "load_or_store": (value, True), "load_and_delete": (value, True),
        "swap": (value, True), "compare_and_swap": value == 5, "compare_and_delete": value == 5,
        "get": value, "pop": value, "setdefault": value, "__getitem__": value, "__contains__": True,
    } if is_there else {
        "load": (None, False), "load_or_store": (5, False), "load_and_delete": (None, False),
        "swap": (None, False), "compare_and_swap": False, "compare_and_delete": False,
        "pop": KeyError, "__getitem__": KeyError, "__delitem__": KeyError, "__contains__": False,
    }  # fmt: skip
    assert result == expected.get(name)
    assert len(list(m)) == len(m) == len(set(m))


def test_comparison_of_values_that_replaces_the_value():
    m = Map()

    class Value:
        def __init__(self, then=None):
            self.then = then

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if self.then is not None:
                self.then()
            return True

    m["a"] = Value(lambda: m.store("a", 5))
    assert not m.compare_and_swap("a", Value(), 2), "it was another by then"
    assert m["a"] == 5
    m["a"] = Value(lambda: m.delete("a"))
    assert not m.compare_and_delete("a", Value())
    m["a"] = Value(lambda: m.store("a", Value()))
    assert m.compare_and_swap("a", Value(), 2), "that is equal, too"


def test_comparison_that_parks_leaves_each_operation_one_step():
    """Two who find a key missing while both are in the comparison: one of them stores."""
    gates = [gort.Chan(), gort.Chan()]
    m = Map([(Key("other"), None)])
    asking = [
        gort.go(m.load_or_store, Key("new", lambda gate=gate: gate.recv_ok()), i)
        for i, gate in enumerate(gates)
    ]
    parked(*asking)
    gates[1].close()
    assert asking[1].join(timeout=LIMIT) == (1, False)
    gates[0].close()
    assert asking[0].join(timeout=LIMIT) == (1, True)
    assert len(m) == 2


def test_what_is_let_go_may_use_the_map():
    m = Map()

    class Value:
        def __del__(self):
            m.store("from", "beyond")
            m.load("a")

    def check(act):
        m.delete("from")
        m["a"] = Value()
        act()
        assert m["from"] == "beyond"

    check(lambda: m.store("a", 1))
    check(lambda: m.delete("a"))
    check(lambda: m.__setitem__("a", 1))
    check(lambda: m.__delitem__("a"))
    check(lambda: m.compare_and_delete("a", m["a"]))
    check(m.clear)


def churn(m, rounds=200):
    """Make entries move: many come, most go."""
    for i in range(rounds):
        m.store(("churn", i), i)
    for i in range(rounds):
        m.delete(("churn", i))


def test_walk_sees_a_key_once_though_it_is_deleted_and_stored_again():
    m = Map((i, i) for i in range(20))
    for _ in range(3):
        seen = []
        for key in m:
            seen.append(key)
            m.delete(key)
            churn(m)
            m.store(key, key)
        assert seen == list(range(20))


def test_walk_sees_what_stays_whatever_else_comes_and_goes():
    m = Map((i, i) for i in range(300))
    r = random.Random(1)
    walks = [iter(m), m.items(), m.values()]
    seen = [[], [], []]
    for _ in range(299):
        for walk, got in zip(walks, seen, strict=True):
            got.append(next(walk))
        m.delete(r.randrange(300) // 2 * 2 + 1)  # odd ones go, even ones stay
        churn(m, 40)
        if all(len(got) > 100 for got in seen):
            break
    for walk, got in zip(walks, seen, strict=True):
        got.extend(walk)
    evens = set(range(0, 300, 2))
    assert evens <= set(seen[0]) and len(set(seen[0])) == len(seen[0])
    assert {(i, i) for i in evens} <= set(seen[1])
    assert evens <= set(seen[2]) and len(set(seen[2])) == len(seen[2])


def test_walk_ends_at_a_clear_and_stays_at_its_end():
    m = Map((i, i) for i in range(10))
    walk = iter(m)
    assert next(walk) == 0
    m.clear()
    m.update((i, i) for i in range(10))
    assert list(walk) == []
    m[99] = 99
    assert list(walk) == []
    with pytest.raises(TypeError):
        type(walk)()


def test_neighbouring_and_equal_hashes():
    m = Map()
    r = random.Random(3)
    keys = [
        r.choice((r.randrange(-5, 5), r.randrange(2**61) << 3, str(i), float(i), -1))
        for i in range(2000)
    ]
    expected = {}
    for i, key in enumerate(keys):
        if i % 3 == 2:
            assert m.load_and_delete(key) == (
                (expected.pop(key), True) if key in expected else (None, False)
            )
        else:
            m[key] = expected[key] = i
    assert dict(m) == expected
    assert m[1] == m[1.0] == m[True] if 1 in m else True


def test_memory_comes_back_when_most_keys_are_gone():
    m = Map()
    empty = m.__sizeof__()
    m.update((i, i) for i in range(10_000))
    full = m.__sizeof__()
    for i in range(9_990):
        m.delete(i)
    assert dict(m) == {i: i for i in range(9_990, 10_000)}
    assert m.__sizeof__() < full / 50
    m.clear()
    assert m.__sizeof__() == empty


def test_collector_finds_maps_in_circles():
    class Thing:
        pass

    thing, m = Thing(), Map()
    gone = weakref.ref(thing)
    map_gone = weakref.ref(m)
    m["self"], m[m], m["thing"] = m, 1, thing
    m["walk"] = m.items()
    next(m["walk"])
    del thing, m
    gc.collect()
    assert gone() is None and map_gone() is None


def test_maps_in_maps_end_without_recursion():
    m = Map()
    for i in range(300_000):
        m = Map([(i, m)]) if i % 2 else Map([(m, i)])
    ch = gort.Chan(1)
    ch.send(m)
    del m, ch


def test_counting_by_goroutines_and_threads():
    m, rounds = Map({"n": 0}), 300

    def count():
        for _ in range(rounds):
            while True:
                n, _ = m.load("n")
                if m.compare_and_swap("n", n, n + 1):
                    break
                gort.gosched()

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    join_all([gort.go(count) for _ in range(8)])
    for thread in threads:
        thread.join(LIMIT)
    assert m["n"] == 11 * rounds


def test_hammer_each_key_is_owned_by_whoever_stored_it():
    """Keys compare in Python and yield there; load_or_store and load_and_delete pair up."""
    m, owned = Map(), itertools.count()

    class Slow:
        def __init__(self, n):
            self.n = n

        def __hash__(self):
            return self.n & 1

        def __eq__(self, other):
            gort.gosched()
            return self.n == other.n

    def work(me):
        r, held, won = random.Random(me), {}, 0
        for _ in range(100):
            n = r.randrange(6)
            if n in held:
                assert m.load(Slow(n)) == (held[n], True)
                assert m.compare_and_delete(Slow(n), held.pop(n))
            else:
                mine = (me, next(owned))
                actual, loaded = m.load_or_store(Slow(n), mine)
                assert loaded == (actual != mine)
                if not loaded:
                    held[n] = mine
                    won += 1
        for n, mine in held.items():
            assert m.load_and_delete(Slow(n)) == (mine, True)
        return won

    assert sum(join_all([gort.go(work, i) for i in range(6)])) > 10
    assert len(m) == 0


def receive(m):
    m["ch"].recv_ok()


def test_goroutine_that_waits_on_a_channel_in_a_map_is_no_leak():
    m = Map({"ch": gort.Chan()})
    ident = start(receive, m)
    assert ident not in found()
    m["ch"].close()


def test_goroutine_that_waits_on_a_channel_in_a_lost_map_is_a_leak():
    m = Map({"ch": gort.Chan()})
    m["self"], m["walk"] = m, iter(m)
    ident = start(receive, m)
    del m
    assert ident in found()
