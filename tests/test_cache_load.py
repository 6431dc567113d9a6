"""ConcurrentCache.get_or_load: one load at a time for a key, and what becomes of those that wait for it."""

from __future__ import annotations

import gc
import threading
import weakref

import gort
import pytest
from gort.cache import ConcurrentCache
from gort.testing import no_leaks, synctest
from waiting import LIMIT, OnThread, eventually, join_all, parked, waiter


class Loader:
    """A loader that says when it begins, and ends when it is told to."""

    def __init__(self):
        self.begun, self.answers = gort.Chan(100), gort.Chan()
        self.calls = 0

    def __call__(self, key):
        self.calls += 1
        self.begun.send(key)
        answer = self.answers.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def leads(self, cache, key="k"):
        """A goroutine that is in it."""
        g = gort.go(cache.get_or_load, key, self)
        assert self.begun.recv(timeout=LIMIT) == key
        parked(g)
        return g


def test_it_is_loaded_once_and_kept(anywhere):
    def body():
        cache, calls = ConcurrentCache(10), []
        for _ in range(3):
            assert cache.get_or_load("k", lambda key: calls.append(key) or len(calls)) == 1
        assert calls == ["k"] and cache["k"] == 1
        assert cache.stats()["loads"] == 1 and not cache._loads

    anywhere(body)


def test_those_that_come_meanwhile_wait_for_one_load():
    cache, loader = ConcurrentCache(10), Loader()
    leader = loader.leads(cache)
    waiters = [waiter(cache.get_or_load, "k", loader) for _ in range(5)]
    threads = [OnThread(cache.get_or_load, "k", loader) for _ in range(3)]
    assert "k" not in cache
    eventually(lambda: cache.stats()["misses"] == 9)
    loader.answers.send("value")
    assert join_all([leader, *waiters, *threads]) == ["value"] * 9
    assert loader.calls == 1 and cache["k"] == "value" and not cache._loads
    assert cache.stats()["loads"] == 1


def test_none_is_loaded_once_too():
    cache, loader = ConcurrentCache(10), Loader()
    leader = loader.leads(cache)
    other = waiter(cache.get_or_load, "k", loader)
    loader.answers.send(None)
    assert join_all([leader, other]) == [None, None]
    assert cache.get_or_load("k", loader) is None and loader.calls == 1
    assert cache.get("k") == (None, True)


def test_loads_of_different_keys_run_side_by_side():
    cache, loader = ConcurrentCache(10), Loader()
    gs = [loader.leads(cache, key) for key in "abc"]
    for n in range(3):
        loader.answers.send(n)
    join_all(gs)
    assert loader.calls == 3 and len(cache) == 3


def test_an_exception_goes_to_all_and_is_not_kept():
    cache, loader = ConcurrentCache(10), Loader()
    gs = [loader.leads(cache), *(waiter(cache.get_or_load, "k", loader) for _ in range(4))]
    loader.answers.send(error := KeyError("no such thing"))
    for g in gs:
        with pytest.raises(KeyError, match="no such thing") as caught:
            g.join(timeout=LIMIT)
        assert caught.value is error and len(caught.traceback) < 9
    assert cache.get_or_load("k", lambda _: 5) == 5 and loader.calls == 1
    assert cache.stats()["loads"] == 2 and cache.stats()["load_failures"] == 1


def test_an_exception_leaves_no_cycle():
    class Thing:
        pass

    def fails(key):
        thing = Thing()
        watches.append(weakref.ref(thing))
        raise ValueError

    cache, watches = ConcurrentCache(10), []
    gc.disable()
    try:
        for _ in range(3):
            try:
                cache.get_or_load("k", fails)
            except ValueError:
                pass
        assert [watch() for watch in watches] == [None] * 3
    finally:
        gc.enable()


def test_when_the_leader_is_cancelled_one_that_waits_loads():
    cache, loader = ConcurrentCache(10), Loader()
    leader = loader.leads(cache)
    others = [waiter(cache.get_or_load, "k", loader) for _ in range(4)]
    leader.cancel()
    with pytest.raises(gort.Cancelled):
        leader.join(timeout=LIMIT)
    assert loader.begun.recv(timeout=LIMIT) == "k"
    parked(*others)
    loader.answers.send(7)
    assert join_all(others) == [7] * 4
    assert loader.calls == 2 and cache["k"] == 7 and not cache._loads
    assert cache.stats()["load_failures"] == 0


def test_leaders_that_are_cancelled_one_after_the_other():
    cache, loader = ConcurrentCache(10), Loader()
    gs = [loader.leads(cache), *(waiter(cache.get_or_load, "k", loader) for _ in range(3))]
    while gs:
        who = eventually(lambda: next((g for g in gs if g.status == "chan receive"), None))
        gs.remove(who)
        who.cancel()
        with pytest.raises(gort.Cancelled):
            who.join(timeout=LIMIT)
    eventually(lambda: not cache._loads)
    assert cache.get_or_load("k", lambda _: 1) == 1


def test_a_waiter_that_is_cancelled_disturbs_nobody():
    cache, loader = ConcurrentCache(10), Loader()
    leader = loader.leads(cache)
    gone, stays = (waiter(cache.get_or_load, "k", loader) for _ in range(2))
    gone.cancel()
    with pytest.raises(gort.Cancelled):
        gone.join(timeout=LIMIT)
    loader.answers.send(1)
    assert join_all([leader, stays]) == [1, 1] and loader.calls == 1


@synctest.test
def test_time_out_of_a_waiter():
    cache, begun = ConcurrentCache(10), gort.Chan(1)

    def slow(key):
        begun.send(None)
        gort.sleep(10)
        return key

    with no_leaks():
        leader = gort.go(cache.get_or_load, "k", slow, timeout=1)  # an own load is not cut short
        begun.recv()
        with pytest.raises(TimeoutError):
            cache.get_or_load("k", slow, timeout=3)
        with pytest.raises(TimeoutError):
            cache.get_or_load("k", slow, timeout=0)
        assert cache.get_or_load("k", slow, timeout=8) == "k" == leader.join()


@synctest.test
def test_time_out_goes_on_after_a_cancelled_leader():
    cache = ConcurrentCache(10)

    def slow(_):
        gort.sleep(100)

    first = gort.go(cache.get_or_load, "k", slow)
    synctest.wait()
    others = [gort.go(cache.get_or_load, "k", slow, 5) for _ in range(3)]
    gort.sleep(3)
    first.cancel()
    gort.sleep(2 - 1e-6)
    assert not any(g.done for g in others)
    gort.sleep(2e-6)
    timed_out = [g for g in others if g.done]
    assert len(timed_out) == 2  # one of them loads
    for g in timed_out:
        with pytest.raises(TimeoutError):
            g.join()
    assert [g.join() for g in others if g not in timed_out] == [None]


@pytest.mark.parametrize("how", ["put", "set", "delete", "del", "clear"])
def test_what_is_written_during_a_load_is_newer(how):
    cache, loader = ConcurrentCache(10), Loader()
    leader = loader.leads(cache)
    other = waiter(cache.get_or_load, "k", loader)
    if how == "put":
        cache.put("k", "newer")
    elif how == "set":
        cache["k"] = "newer"
    elif how == "delete":
        assert cache.delete("k") is False
    elif how == "del":
        with pytest.raises(KeyError):
            del cache["k"]
    else:
        cache.clear()
    late = None if "k" in cache else loader.leads(cache)  # a load of its own
    loader.answers.send("first")
    assert join_all([leader, other]) == ["first"] * 2
    if late:
        loader.answers.send("newer")
        assert late.join(timeout=LIMIT) == "newer"
    assert cache["k"] == "newer" and not cache._loads


def test_a_loader_may_use_the_cache_for_other_keys():
    cache = ConcurrentCache(100)

    def fibonacci(n):
        if n < 2:
            return n
        return cache.get_or_load(n - 1, fibonacci) + cache.get_or_load(n - 2, fibonacci)

    assert cache.get_or_load(60, fibonacci) == 1548008755920
    assert cache.stats()["loads"] == 61


def test_a_loader_that_asks_for_its_own_key_is_told(anywhere):
    def body():
        cache = ConcurrentCache(10)
        with pytest.raises(RuntimeError, match="inside the loader of that key"):
            cache.get_or_load("k", lambda key: cache.get_or_load(key, len))
        assert cache.get_or_load("k", len) == 1

    anywhere(body)


def test_bad_time_outs_and_loaders():
    cache = ConcurrentCache(10)
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout must be a non-negative"):
            cache.get_or_load("k", len, timeout)
    with pytest.raises(TypeError):
        cache.get_or_load("k", len, "soon")
    with pytest.raises(TypeError, match="not callable"):
        cache.get_or_load("k", None)
    assert not cache._loads


def test_many_keys_by_many_at_once_are_each_loaded_once():
    cache, counts, lock = ConcurrentCache(1000), {}, threading.Lock()

    def load(key):
        with lock:
            counts[key] = counts.get(key, 0) + 1
        gort.gosched()
        return -key

    def asks():
        return [cache.get_or_load(key, load) for key in range(100)]

    gs = [gort.go(asks) for _ in range(8)] + [OnThread(asks) for _ in range(4)]
    assert join_all(gs) == [[-key for key in range(100)]] * 12
    assert counts == dict.fromkeys(range(100), 1)
    assert cache.stats()["loads"] == 100


class Picky:
    """A key that looks like all others to a hash table, and may refuse to be compared."""

    refuses = False

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return 1

    def __eq__(self, other):
        if Picky.refuses:
            raise ArithmeticError
        return self.n == other.n


@pytest.mark.parametrize("how", ["value", "exception", "cancelled"])
def test_a_key_that_raises_later_leaves_nobody_waiting(how, monkeypatch):
    """The leader cannot take its load out then: whoever comes next does."""
    cache, loader, first = ConcurrentCache(10), Loader(), Loader()
    before = first.leads(cache, Picky(1))  # what the other key is compared with
    leader = loader.leads(cache, Picky(2))
    other = waiter(cache.get_or_load, Picky(2), loader)
    monkeypatch.setattr(Picky, "refuses", True)
    if how == "cancelled":
        leader.cancel()
    else:
        loader.answers.send("value" if how == "value" else Boom())
    outcomes = []
    for g in (leader, other):
        try:
            outcomes.append(g.join(timeout=LIMIT))
        except (ArithmeticError, Boom) as error:
            outcomes.append(type(error))
    monkeypatch.setattr(Picky, "refuses", False)
    assert outcomes[1] == {"value": "value", "exception": Boom, "cancelled": ArithmeticError}[how]
    again = gort.go(cache.get_or_load, Picky(2), lambda _: "again")
    assert again.join(timeout=LIMIT) == "again" == cache[Picky(2)]
    first.answers.send("first")
    assert before.join(timeout=LIMIT) == "first"
    assert not cache._loads


class Boom(Exception):
    pass


def test_a_load_that_ended_since_the_look_is_not_done_again():
    class Key(str):
        """Whose second hash lets another load of the key begin and end."""

        __slots__ = ("hashed",)

        def __hash__(self):
            self.hashed = getattr(self, "hashed", 0) + 1
            if self.hashed == 2:
                assert cache.get_or_load("k", lambda _: "the other's") == "the other's"
            return str.__hash__(self)

    cache = ConcurrentCache(10)
    assert cache.get_or_load(Key("k"), lambda _: 1 / 0) == "the other's"
    assert cache.stats()["loads"] == 1 and not cache._loads
