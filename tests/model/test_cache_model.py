"""ConcurrentCache against a plain list that is searched from end to end, by a clock that stands still."""

from __future__ import annotations

import math

import gort
from gort import _core
from gort.cache import ConcurrentCache
from gort.testing import synctest
from hypothesis import given, settings
from hypothesis import strategies as st

DUE_AT_ONCE = 4
NEVER = math.inf
SECOND = 10**9


class Plain:
    """SIEVE by its paper, and times that are up. Entries are [key, value, end, visited], newest first."""

    def __init__(self, max_size, ttl):
        self.max_size, self.ttl = max_size, ttl
        self.entries, self.hand = [], None
        self.gone = []
        self.counts = dict.fromkeys(("hits", "misses", "evictions", "expirations"), 0)

    def find(self, key, now):
        entry = next((e for e in self.entries if e[0] == key), None)
        if entry is not None and entry[2] <= now:
            self.leave(entry, "expirations")
            return None
        return entry

    def leave(self, entry, why=None):
        place = self.entries.index(entry)
        if self.hand is entry:
            self.hand = self.entries[place - 1] if place else None
        del self.entries[place]
        if why:
            self.counts[why] += 1
            self.gone.append((entry[0], entry[1]))

    def expire(self, now, at_once=math.inf):
        for entry in sorted(self.entries, key=lambda e: e[2]):
            if entry[2] <= now and at_once > 0:
                self.leave(entry, "expirations")
                at_once -= 1

    def evict(self):
        entry = self.hand or self.entries[-1]
        while entry[3]:
            entry[3] = False
            place = self.entries.index(entry)
            entry = self.entries[place - 1]  # before the first comes the last
        self.hand = entry
        self.leave(entry, "evictions")

    def get(self, key, now):
        self.expire(now, DUE_AT_ONCE)
        entry = self.find(key, now)
        self.counts["misses" if entry is None else "hits"] += 1
        if entry is None:
            return None, False
        entry[3] = True
        return entry[1], True

    def put(self, key, value, ttl, now):
        end = now + (self.ttl if ttl is None else ttl)
        self.expire(now, DUE_AT_ONCE)
        entry = self.find(key, now)
        if entry is not None:
            entry[1:] = [value, end, True]
            return
        if len(self.entries) >= self.max_size:
            self.evict()
        self.entries.insert(0, [key, value, end, False])

    def delete(self, key, now):
        self.expire(now, DUE_AT_ONCE)
        entry = self.find(key, now)
        if entry is not None:
            self.leave(entry)
        return entry is not None

    def resize(self, max_size, now):
        self.max_size = max_size
        self.expire(now)
        while len(self.entries) > max_size:
            self.evict()

    def items(self, now):
        self.expire(now)
        return [(e[0], e[1]) for e in reversed(self.entries)]


KEYS = st.integers(0, 12)
TTLS = st.sampled_from([None, None, 2, 5, NEVER])
USES = st.one_of(
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("put"), KEYS, TTLS),
    st.tuples(st.just("load"), KEYS),
)
OTHERS = st.one_of(
    st.tuples(st.just("in"), KEYS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("items")),
    st.tuples(st.just("sleep"), st.integers(1, 6)),
    st.tuples(st.just("resize"), st.integers(3, 9)),
    st.tuples(st.just("clear")),
)
STEPS = st.integers(0, 9).flatmap(lambda n: OTHERS if n == 9 else USES)


class Both:
    """The cache and the plain one, a step at a time, by a bubble's clock."""

    def __init__(self, max_size, ttl):
        self.gone = []
        self.cache = ConcurrentCache(
            max_size,
            ttl=None if ttl == NEVER else ttl,
            on_evict=lambda *pair: self.gone.append(pair),
        )
        self.plain = Plain(max_size, ttl * SECOND)

    @property
    def now(self):
        return _core._now_ns()

    def run(self, steps):
        for n, (what, *args) in enumerate(steps):
            gort.sleep(0.001)  # no two deadlines are the same, so their order is told
            getattr(self, f"do_{what}")(n, *args)
            assert self.gone == self.plain.gone
        assert self.cache.items() == self.plain.items(self.now)
        stats = self.cache.stats()
        assert {key: stats[key] for key in self.plain.counts} == self.plain.counts
        assert stats["size"] == len(self.plain.entries)

    def do_sleep(self, n, seconds):
        gort.sleep(seconds)

    def do_get(self, n, key):
        assert self.cache.get(key) == self.plain.get(key, self.now)

    def do_put(self, n, key, ttl):
        self.cache.put(key, n, ttl)
        self.plain.put(key, n, ttl and ttl * SECOND, self.now)

    def do_load(self, n, key):
        value, ok = self.plain.get(key, self.now)
        if not ok:
            value = n
            self.plain.put(key, n, None, self.now)
        assert self.cache.get_or_load(key, lambda _: n) == value

    def do_in(self, n, key):
        assert (key in self.cache) == (self.plain.find(key, self.now) is not None)

    def do_delete(self, n, key):
        assert self.cache.delete(key) == self.plain.delete(key, self.now)

    def do_items(self, n):
        assert self.cache.items() == self.plain.items(self.now)

    def do_resize(self, n, max_size):
        self.cache.resize(max_size)
        self.plain.resize(max_size, self.now)

    def do_clear(self, n):
        self.cache.clear()
        self.plain.entries.clear()
        self.plain.hand = None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    max_size=st.integers(2, 9),
    ttl=st.sampled_from([NEVER, NEVER, 3]),
    steps=st.lists(STEPS, min_size=60, max_size=120),
)
def test_cache_does_what_the_plain_one_does(max_size, ttl, steps):
    synctest.run(Both(max_size, ttl).run, steps)
