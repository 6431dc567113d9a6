"""Labels go from who starts a goroutine to that, and values of a Local to nobody."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import gort
import pytest
from gort import labels
from waiting import LIMIT, parked


def join(g):
    return g.join(timeout=LIMIT)


def test_spawn_gives_labels_and_who_it_starts_has_them():
    def outer():
        inner = gort.spawn(labels.current, labels={"b": "2", "c": "3"})
        plain = gort.go(labels.current)
        counted = gort.WaitGroup().go(labels.current)
        return labels.current(), join(inner), join(plain), join(counted)

    own, inner, plain, counted = join(gort.spawn(outer, labels={"a": "1", "b": "1"}))
    assert own == plain == counted == {"a": "1", "b": "1"}
    assert inner == {"a": "1", "b": "2", "c": "3"}
    assert labels.current() == {}


def test_others_see_them_before_while_and_after():
    ch = gort.Chan()
    g = gort.spawn(ch.recv, labels={"what": "waits"})
    assert g.labels == {"what": "waits"}
    parked(g)
    assert g.labels == {"what": "waits"}
    ch.send(1)
    assert join(g) == 1
    assert g.labels == {}


def test_do_is_for_the_block_and_who_is_started_in_it():
    with labels.do({"with space": "x"}, handler="h"):
        with labels.do(handler="inner"):
            inner = gort.go(labels.current)
        outer = gort.go(labels.current)
        assert labels.current() == {"with space": "x", "handler": "h"}
    assert labels.current() == {}
    assert join(inner) == {"with space": "x", "handler": "inner"}
    assert join(outer) == {"with space": "x", "handler": "h"}


def test_a_block_that_fails_ends_them():
    with pytest.raises(KeyError), labels.do(a="1"):
        raise KeyError
    assert labels.current() == {}


def test_one_do_nests_in_itself_and_between_goroutines():
    block = labels.do(a="1")
    with block, block:
        assert labels.current() == {"a": "1"}
    assert labels.current() == {}


def test_what_is_given_out_is_a_copy():
    mine = {"a": "1"}

    def body():
        mine["a"] = "2"
        labels.current()["b"] = "3"
        g.labels["c"] = "4"
        return labels.current(), g.labels

    g = gort.spawn(body, labels=mine)
    assert join(g) == ({"a": "1"}, {"a": "1"})


@pytest.mark.parametrize("wrong", [[], "a", {"a": 1}, {1: "a"}, {"a": None}, 7])
def test_what_is_no_dict_of_str_is_refused(wrong):
    before = gort.num_goroutine()
    with pytest.raises(TypeError, match="labels must be a dict of str"):
        gort.spawn(int, labels=wrong)
    assert gort.num_goroutine() == before
    with pytest.raises(TypeError), labels.do(wrong):
        pass
    assert labels.current() == {}


def test_other_variables_of_the_context_come_along():
    var = contextvars.ContextVar("var")
    var.set("outside")

    def body():
        before = var.get()
        var.set("inside")
        return before

    assert join(gort.spawn(body, labels={"a": "1"})) == "outside"
    assert var.get() == "outside"


def test_tasks_of_asyncio_have_them():
    async def main():
        return await asyncio.create_task(task())

    async def task():
        return labels.current()

    assert join(gort.spawn(lambda: asyncio.run(main()), labels={"a": "1"})) == {"a": "1"}


def test_local_is_each_goroutines_own():
    local = gort.Local()
    local.set("main")

    def body(n):
        with pytest.raises(LookupError, match="no value"):
            local.get()
        local.set(n)
        gort.gosched()
        return local.get()

    gs = [gort.go(body, n) for n in range(100)]
    assert [join(g) for g in gs] == list(range(100))
    assert local.get() == "main"
    local.clear()
    local.clear()
    with pytest.raises(LookupError):
        local.get()


def test_local_makes_values_for_goroutines_and_threads():
    made = []

    def make():
        made.append(gort.current())
        return made[-1]

    local = gort.Local(make)
    gs = [gort.go(lambda: (local.get(), local.get())) for _ in range(3)]
    assert [join(g) for g in gs] == [(g, g) for g in gs]
    seen = []
    thread = threading.Thread(target=lambda: seen.append(local.get()))
    thread.start()
    thread.join(LIMIT)
    assert seen == [None]
    assert made.pop() is None
    assert {id(g) for g in made} == {id(g) for g in gs}
    assert len(made) == len(gs)


def test_values_of_a_local_end_with_their_goroutine():
    class Value:
        pass

    local = gort.Local(Value)
    gone = join(gort.go(lambda: weakref.ref(local.get())))
    gc.collect()
    assert gone() is None


def test_local_refuses_what_cannot_be_called():
    with pytest.raises(TypeError, match=r"Local\(\) needs a callable, not int"):
        gort.Local(7)
