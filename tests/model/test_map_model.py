"""Map against a plain model: a dict, and for each open walk the keys it may and must still see."""

from __future__ import annotations

import pytest
from gort import Map
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule


class Key:
    """A key whose hash few others have not: searches go past many."""

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return self.n % 3

    def __eq__(self, other):
        return isinstance(other, Key) and self.n == other.n

    def __repr__(self):
        return f"Key({self.n})"


KEYS = st.one_of(
    st.integers(-3, 40), st.integers(0, 12).map(Key), st.sampled_from(["a", "b", (), None, 2.0])
)
VALUES = st.one_of(st.integers(0, 3), st.sampled_from([None, True, 1.0, "x"]))


class Walk:
    """An iterator and what it may still give."""

    def __init__(self, iterator, model):
        self.iterator, self.seen = iterator, set()
        self.must = set(model)  # there from the beginning, and ever since
        self.may = dict(model)  # what each key was at some time since

    def step(self):
        try:
            key, value = next(self.iterator)
        except StopIteration:
            assert not self.must
            return False
        assert key not in self.seen
        assert key in self.may and value in self.may[key]
        self.seen.add(key)
        self.must.discard(key)
        return True


class MapMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.map, self.model, self.open = Map(), {}, []

    def is_now(self, key, value):
        self.model[key] = value
        for walk in self.open:
            walk.may.setdefault(key, []).append(value)

    def is_gone(self, key):
        del self.model[key]
        for walk in self.open:
            walk.must.discard(key)

    def loaded(self, key):
        return (self.model[key], True) if key in self.model else (None, False)

    @rule(key=KEYS, value=VALUES, how=st.sampled_from(["store", "swap", "item", "update"]))
    def set(self, key, value, how):
        before = self.loaded(key)
        if how == "store":
            self.map.store(key, value)
        elif how == "swap":
            assert self.map.swap(key, value) == before
        elif how == "item":
            self.map[key] = value
        else:
            self.map.update({key: value})
        self.is_now(key, value)

    @rule(first=st.integers(0, 200), count=st.integers(1, 60))
    def set_many(self, first, count):
        for n in range(first, first + count):
            self.map.store(n, n)
            self.is_now(n, n)

    @rule(first=st.integers(0, 200), count=st.integers(1, 60))
    def delete_many(self, first, count):
        for n in range(first, first + count):
            self.map.delete(n)
            if n in self.model:
                self.is_gone(n)

    @rule(key=KEYS, value=VALUES)
    def load_or_store(self, key, value):
        if key in self.model:
            assert self.map.load_or_store(key, value) == (self.model[key], True)
        else:
            assert self.map.load_or_store(key, value) == (value, False)
            self.is_now(key, value)

    @rule(key=KEYS, how=st.sampled_from(["load_and_delete", "delete", "pop", "item"]))
    def delete(self, key, how):
        before = self.loaded(key)
        if how == "load_and_delete":
            assert self.map.load_and_delete(key) == before
        elif how == "delete":
            self.map.delete(key)
        elif how == "pop":
            assert self.map.pop(key, None) == before[0]
        elif before[1]:
            del self.map[key]
        else:
            with pytest.raises(KeyError):
                del self.map[key]
        if before[1]:
            self.is_gone(key)

    @rule(key=KEYS, old=VALUES, new=VALUES, deletes=st.booleans())
    def compare(self, key, old, new, deletes):
        value, there = self.loaded(key)
        same = there and type(value) is type(old) and value == old
        if deletes:
            assert self.map.compare_and_delete(key, old) is same
        else:
            assert self.map.compare_and_swap(key, old, new) is same
        if same and deletes:
            self.is_gone(key)
        elif same:
            self.is_now(key, new)

    @rule()
    def clear(self):
        self.map.clear()
        for key in list(self.model):
            self.is_gone(key)

    @rule(key=KEYS)
    def look(self, key):
        assert self.map.load(key) == self.loaded(key)
        assert (key in self.map) is (key in self.model)
        assert self.map.get(key, "none") == self.model.get(key, "none")

    @precondition(lambda self: len(self.open) < 4)
    @rule()
    def begin_walk(self):
        model = {key: [value] for key, value in self.model.items()}
        self.open.append(Walk(self.map.items(), model))

    @rule(which=st.integers(0, 3), steps=st.integers(1, 30))
    def go_on(self, which, steps):
        if which < len(self.open):
            for _ in range(steps):
                if not self.open[which].step():
                    del self.open[which]
                    break

    @invariant()
    def has_what_the_model_has(self):
        assert len(self.map) == len(self.model)
        assert dict(self.map.items()) == self.model

    def teardown(self):
        for walk in self.open:
            while walk.step():
                pass


MapMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, derandomize=True
)
TestMapModel = MapMachine.TestCase
