"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of sync/map_test.go. The reference for random calls is a dict, in place of a map under a lock, one that is copied
at each store, and a trie. What counts allocations counts what is left instead: CPython tells no more.
"""

import gc
import random
import sys
import weakref

import gort
import pytest
from gort import Chan, Map, WaitGroup, go, gomaxprocs, recv, select

OPS = [
    "load", "store", "load_or_store", "load_and_delete", "delete", "swap", "compare_and_swap",
    "compare_and_delete", "clear",
]  # fmt: skip


class Reference:
    """What each operation means, on a dict."""

    def __init__(self):
        self.dict = {}

    def load(self, k):
        return (self.dict[k], True) if k in self.dict else (None, False)

    def store(self, k, v):
        self.dict[k] = v

    def load_or_store(self, k, v):
        loaded = k in self.dict
        return self.dict.setdefault(k, v), loaded

    def load_and_delete(self, k):
        result = self.load(k)
        self.dict.pop(k, None)
        return result

    def delete(self, k):
        self.dict.pop(k, None)

    def swap(self, k, v):
        result = self.load(k)
        self.dict[k] = v
        return result

    def compare_and_swap(self, k, old, new):
        if k not in self.dict or self.dict[k] != old:
            return False
        self.dict[k] = new
        return True

    def compare_and_delete(self, k, old):
        return k in self.dict and self.dict[k] == old and self.dict.pop(k) == old

    def clear(self):
        self.dict.clear()

    def range(self, f):
        for k, v in self.dict.items():
            f(k, v)


def random_value(r):
    return "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randrange(4)))


def random_calls(r):
    """Argument lists as Generate makes them: only stores have a value of their own."""
    for _ in range(r.randrange(60)):
        op, k = r.choice(OPS), random_value(r)
        v = random_value(r) if op in ("store", "load_or_store") else None
        if op in ("load", "load_and_delete", "delete"):
            yield op, (k,)
        elif op == "clear":
            yield op, ()
        elif op == "compare_and_swap":
            yield op, (k, v, r.randrange(1000))
        else:
            yield op, (k, v)


def apply_calls(m, calls):
    results = [getattr(m, op)(*args) for op, args in calls]
    final = {}
    m.range(final.__setitem__)
    return results, final


@pytest.mark.parametrize("seed", range(100))
def test_map_matches_reference(seed):
    calls = list(random_calls(random.Random(seed)))
    assert apply_calls(Map(), calls) == apply_calls(Reference(), calls)


def test_concurrent_range():
    size = 1 << 10
    m = Map()
    for n in range(1, size + 1):
        m.store(n, n)
    done, wg = Chan(), WaitGroup()

    def store_multiples(g):
        r, i = random.Random(g), 0
        while select(recv(done), default=True)[0] == -1:
            for n in range(1, size):
                if r.randrange(size) == 0:
                    m.store(n, n * i * g)
                else:
                    m.load(n)
            i += 1

    for g in range(gomaxprocs() + 1, 0, -1):
        wg.go(store_multiples, g)
    try:
        for _ in range(16):
            seen = {}

            def visit(k, v, seen=seen):
                assert v % k == 0, f"while storing multiples of {k}, range saw value {v}"
                assert k not in seen, f"range visited key {k} twice"
                seen[k] = True
                if k % 100 == 0:
                    gort.gosched()

            m.range(visit)
            assert len(seen) == size
    finally:
        done.close()
        wg.wait()


def test_issue_40999():
    class Key:
        pass

    m, cleaned_up = Map(), []
    m.store(None, ())
    while not cleaned_up:
        p = Key()
        weakref.finalize(p, cleaned_up.append, True)
        m.store(p, ())
        m.delete(p)
        del p
        gc.collect()


def test_map_range_nested_call():  # Issue 46399
    m = Map()
    for i, v in enumerate(["hello", "world", "Go"]):
        m.store(i, v)

    def outer(key, _):
        def inner(key, value):
            assert m.load(key) == (value, True)
            assert m.load_or_store(42, "dummy")[1] is False
            m.store(42, "sync.Map")
            assert m.load_and_delete(42) == ("sync.Map", True)
            return True

        m.range(inner)
        m.delete(key)
        return True

    m.range(outer)
    length = []
    m.range(lambda *pair: length.append(pair))
    assert length == []


def test_compare_and_swap_non_existing_key():
    m = Map()
    assert not m.compare_and_swap(m, None, 42)


def test_map_range_leaves_nothing():  # Issue 62404
    m = Map()
    m.range(lambda k, v: True)
    before = sys.getallocatedblocks()
    for _ in range(1000):
        m.range(lambda k, v: True)
    assert sys.getallocatedblocks() - before < 100


def test_concurrent_clear():
    m, wg = Map(), WaitGroup()
    wg.add(30)

    def then_done(f, *args):
        f(*args)
        wg.done()

    for i in range(10):
        go(then_done, m.store, i, i * 10)
    for i in range(10):
        go(then_done, m.load, i)
    for _ in range(10):
        go(then_done, m.clear)
    wg.wait()
    m.clear()
    m.range(lambda k, v: pytest.fail(f"after clear, the map contains {k}: {v}"))


def test_map_clear_leaves_nothing():
    m = Map()
    m.clear()
    before = m.__sizeof__()
    m.update((i, i) for i in range(1000))
    assert m.__sizeof__() > before
    m.clear()
    assert m.__sizeof__() == before
