"""gort.Pool: objects come back, and two full collections empty it (Go's sync/pool_test.go)."""

from __future__ import annotations

import gc
import weakref

import gort
import pytest


class Thing:
    """Something to see the end of."""


@pytest.fixture(autouse=True)
def no_collections():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_objects_come_back():
    pool = gort.Pool()
    assert pool.get() is None
    pool.put("a")
    pool.put("b")
    pool.put(None)
    assert {pool.get(), pool.get()} == {"a", "b"}
    assert pool.get() is None


def test_new_makes_what_is_not_there():
    made = []

    def new():
        made.append(Thing())
        return made[-1]

    pool = gort.Pool(new)
    first = pool.get()
    assert (pool.get(), first) == (made[1], made[0])
    pool.put(first)
    assert pool.get() is first and len(made) == 2
    with pytest.raises(TypeError, match=r"Pool\(\) needs a callable"):
        gort.Pool(7)


def test_object_survives_one_full_collection_and_not_two():
    pool = gort.Pool()
    thing = Thing()
    seen = weakref.ref(thing)
    pool.put(thing)
    del thing
    for generation in (0, 1):
        gc.collect(generation)
    assert len(pool._items) == 1
    gc.collect()
    thing = pool.get()
    assert thing is seen()
    pool.put(thing)
    del thing
    gc.collect()
    assert seen() is not None
    gc.collect()
    assert seen() is None and pool.get() is None


def test_pool_that_nobody_has_is_gone():
    from gort import sync

    before = len(sync._pools)
    pool = gort.Pool()
    thing = Thing()
    seen = weakref.ref(thing)
    pool.put(thing)
    del thing
    assert len(sync._pools) == before + 1
    del pool
    assert seen() is None and len(sync._pools) == before


def test_many_goroutines_share_one():
    """What is taken is one's own: nobody else has it before it is put back (Go's TestPoolStress)."""
    gc.enable()
    pool, owners = gort.Pool(lambda: [None]), []

    def uses(n):
        for i in range(300):
            thing = pool.get()
            assert thing[0] is None
            thing[0] = n
            if i % 10 == 0:
                gort.gosched()
            if i % 100 == 0:
                gc.collect()
            assert thing[0] == n
            thing[0] = None
            pool.put(thing)
        owners.append(n)

    gs = [gort.go(uses, n) for n in range(8)]
    for g in gs:
        g.join()
    assert sorted(owners) == list(range(8))


def test_destructor_may_use_its_pool():
    pool = gort.Pool()

    class Returns:
        def __del__(self):
            pool.put("from a destructor")
            pool.get()

    pool.put(Returns())
    gc.collect()
    gc.collect()
    assert pool.get() in (None, "from a destructor")
