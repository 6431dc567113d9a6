"""Int, Bool and Value of gort.atomic."""

from __future__ import annotations

import gc
import threading
import weakref

import gort
import pytest
from gort.atomic import Bool, Int, Value
from waiting import LIMIT, join_all, raises_text

LOW, HIGH = -(2**63), 2**63 - 1


def test_int_operations():
    n = Int(5)
    assert n.load() == 5
    assert n.store(6) is None
    assert n.add(4) == 10 and n.add(-1) == 9
    assert n.swap(12) == 9
    assert n.and_(10) == 12 and n.load() == 8
    assert n.or_(3) == 8 and n.load() == 11
    assert n.compare_and_swap(11, 1) is True
    assert n.compare_and_swap(11, 2) is False
    assert n.load() == 1 and Int().load() == 0 and repr(n) == "gort.atomic.Int(1)"


def test_int_wraps_around_at_64_bits():
    n = Int(HIGH)
    assert n.add(1) == LOW
    assert n.add(-1) == HIGH
    assert n.add(HIGH) == -2
    n.store(LOW)
    assert n.add(LOW) == 0
    assert n.or_(-1) == 0 and n.and_(LOW) == -1 and n.load() == LOW


@pytest.mark.parametrize("name", ["store", "add", "swap", "and_", "or_"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(1.0, TypeError), ("1", TypeError), (None, TypeError), (2**63, OverflowError)],
)
def test_int_wrong_arguments_change_nothing(name, value, error):
    n = Int(3)
    with pytest.raises(error):
        getattr(n, name)(value)
    with pytest.raises(error):
        n.compare_and_swap(3, value)
    with pytest.raises(error):
        n.compare_and_swap(value, 3)
    with pytest.raises(error):
        Int(value)
    assert n.load() == 3


def test_int_takes_what_has_an_index_which_may_use_it():
    n = Int(1)

    class Index:
        def __index__(self):
            return n.add(10)

    assert n.add(Index()) == 22  # read before the sum: 11 and 11
    assert n.swap(True) == 22 and n.load() == 1


@pytest.mark.parametrize("make", [Int, Bool, Value])
def test_number_of_arguments(make):
    for call in (
        lambda: make(1, 2), lambda: make(x=1), lambda: make().store(), lambda: make().load(1),
        lambda: make().compare_and_swap(True), lambda: make().compare_and_swap(1, 2, 3),
        lambda: type("Sub", (make,), {}),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        Value(1)


def test_bool_operations():
    b = Bool()
    assert b.load() is False and b.store(True) is None and b.load() is True
    assert b.swap(False) is True and b.swap(True) is False
    assert b.compare_and_swap(False, True) is False
    assert b.compare_and_swap(True, False) is True and b.load() is False
    assert repr(Bool(True)) == "gort.atomic.Bool(True)"


@pytest.mark.parametrize("value", [0, 1, None, "", 1.0])
def test_bool_takes_nothing_but_bools(value):
    b = Bool(True)
    text = f"gort.atomic.Bool takes True or False, not {type(value).__name__}"
    for call in (
        lambda: b.store(value), lambda: b.swap(value), lambda: b.compare_and_swap(True, value),
        lambda: b.compare_and_swap(value, False), lambda: Bool(value),
    ):  # fmt: skip
        with raises_text(TypeError, text):
            call()
    assert b.load() is True


def test_value_operations():
    v = Value()
    assert v.load() is None
    assert v.compare_and_swap("a", "b") is False
    assert v.compare_and_swap(None, "a") is True
    assert v.compare_and_swap(None, "b") is False
    assert v.load() == "a" and v.swap("b") == "a"
    assert v.compare_and_swap("".join(["b"]), "c") is True
    assert v.compare_and_swap("b", "d") is False and v.load() == "c"
    assert v.store("e") is None and v.load() == "e"
    assert Value().swap("x") is None


def test_value_refuses_none_and_other_types_with_gos_words():
    v = Value()
    for name, what in (("store", "store"), ("swap", "swap")):
        with raises_text(TypeError, f"sync/atomic: {what} of nil value into Value"):
            getattr(v, name)(None)
    with raises_text(TypeError, "sync/atomic: compare and swap of nil value into Value"):
        v.compare_and_swap(None, None)
    with raises_text(TypeError, "sync/atomic: compare and swap of inconsistently typed values"):
        v.compare_and_swap(1, "x")
    v.store(1)
    for value in ("x", 1.0, True):
        with raises_text(TypeError, "sync/atomic: store of inconsistently typed value into Value"):
            v.store(value)
        with raises_text(TypeError, "sync/atomic: swap of inconsistently typed value into Value"):
            v.swap(value)
        with raises_text(
            TypeError, "sync/atomic: compare and swap of inconsistently typed value into Value"
        ):
            v.compare_and_swap(value, value)
    assert v.load() == 1
    v = Value()
    v.store([])
    with raises_text(TypeError, "comparing uncomparable type list"):
        v.compare_and_swap([], [1])


def test_value_whose_comparison_replaces_it():
    v = Value()

    class Thing:
        def __init__(self, then=None):
            self.then = then

        __hash__ = object.__hash__

        def __eq__(self, other):
            then, self.then = self.then, None
            if then is not None:
                then()
            return not isinstance(other, Last)

    class Last(Thing):
        pass

    new = Thing()
    v.store(Thing(lambda: v.store(Thing())))
    assert v.compare_and_swap(Thing(), new) and v.load() is new

    def fail():
        raise ZeroDivisionError

    v.store(Thing(fail))
    with pytest.raises(ZeroDivisionError):
        v.compare_and_swap(Thing(), new)


def test_what_a_value_lets_go_of_may_use_it():
    v = Value()

    class Thing:
        def __del__(self):
            v.load()
            v.compare_and_swap(None, last)

    last = Thing()
    v.store(Thing())
    v.store(Thing())
    v.compare_and_swap(v.load(), Thing())
    v.swap(last)
    assert v.load() is last


def test_collector_finds_values_in_circles():
    class Thing:
        pass

    thing, v = Thing(), Value()
    gone, value_gone = weakref.ref(thing), weakref.ref(v)
    thing.value = v
    v.store(thing)
    del thing, v
    gc.collect()
    assert gone() is None and value_gone() is None


def test_values_in_values_end_without_recursion():
    v = Value()
    for _ in range(200_000):
        outer = Value()
        outer.store(v)
        v = outer
    del v, outer


def test_counting_by_goroutines_and_threads():
    n, flag, v, rounds = Int(), Bool(), Value(), 2000
    v.store(0)

    def count(use_value):
        for _ in range(rounds):
            n.add(1)
            if use_value:
                while not v.compare_and_swap(old := v.load(), old + 1):
                    gort.gosched()

    threads = [threading.Thread(target=count, args=(True,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    join_all([gort.go(count, i % 2 == 0) for i in range(8)])
    for thread in threads:
        thread.join(LIMIT)
    assert n.load() == 11 * rounds and v.load() == 7 * rounds
    assert sum(join_all([gort.go(flag.compare_and_swap, False, True) for _ in range(10)])) == 1
