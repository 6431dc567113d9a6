"""Python called back from C in every way the interpreter and its library have, with a pause in
each callback.

Each function of CONSTRUCTS takes `pause`, calls it from inside the C function it is about, and
checks its own result: a C frame that goes on with another goroutine's thread state gives a wrong
result, a SystemError or a crash. Nothing here holds a lock that belongs to an OS thread
(threading.RLock, and with it cached_property of 3.11) over a pause.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import contextlib
import contextvars
import copy
import csv
import ctypes
import functools
import heapq
import io
import itertools
import json
import operator
import pickle
import random
import re
import threading
import weakref

import gort
import waiting

get_state = ctypes.pythonapi.PyThreadState_Get
get_state.restype = ctypes.c_void_p
get_gilstate = ctypes.pythonapi.PyGILState_GetThisThreadState
get_gilstate.restype = ctypes.c_void_p


class Pauses:
    """Yields, sleeps, meets another goroutine or blocks the OS thread; counts what it saw.

    After each pause the goroutine must find itself, its thread state and the GIL's idea of that
    state unchanged.
    """

    def __init__(self, seed: int = 0, blocking: float = 0.001) -> None:
        self.random = random.Random(seed)
        self.blocking = blocking
        self.count = 0
        self.moves = 0

    def __call__(self) -> None:
        me, state, thread = gort.current(), get_state(), threading.get_native_id()
        kind = self.random.randrange(10)
        if kind < 4:
            gort.gosched()
        elif kind < 6:
            gort.sleep(0.0003)
        elif kind < 9:
            meeting = gort.Chan()
            gort.go(meeting.send, kind)
            assert meeting.recv() == kind
        else:
            # The P is handed off: at the next pause this goroutine moves to another thread.
            waiting.hold(self.blocking)
        self.count += 1
        self.moves += thread != threading.get_native_id()
        assert gort.current() is me
        assert get_state() == state
        assert get_gilstate() == state


def generators(pause):
    def inner(n):
        for i in range(n):
            pause()
            got = yield i
            assert got is None or got == i
        return n

    def outer():
        assert (yield from inner(3)) == 3
        yield "end"

    g = outer()
    assert [next(g), g.send(0), g.send(1), g.send(2)] == [0, 1, 2, "end"]
    assert sum(x for x in inner(4)) == 6


def sorting(pause):
    def key(x):
        pause()
        return -x

    def compare(a, b):
        pause()
        return a - b

    assert sorted(range(8), key=key) == list(range(7, -1, -1))
    assert sorted([3, 1, 2], key=functools.cmp_to_key(compare)) == [1, 2, 3]
    assert min(range(5), key=key) == 4
    assert max(range(5), key=key) == 0
    values = list(range(6))
    values.sort(key=key)
    assert values[0] == 5
    assert bisect.bisect([0, -1, -2], -1, key=lambda x: (pause(), -x)[1]) == 0


def mapping(pause):
    def double(x):
        pause()
        return 2 * x

    assert list(map(double, range(5))) == [0, 2, 4, 6, 8]
    assert list(filter(lambda x: (pause(), x > 2)[1], range(5))) == [3, 4]
    assert functools.reduce(lambda a, b: (pause(), a + b)[1], range(5)) == 10
    assert sum(map(double, range(4))) == 12
    assert any(double(x) == 4 for x in range(4))
    assert dict(zip(map(double, range(2)), map(double, range(2)), strict=True)) == {0: 0, 2: 2}


def iterating(pause):
    class Count:
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            return self

        def __next__(self):
            pause()
            if not self.n:
                raise StopIteration
            self.n -= 1
            return self.n

    assert list(Count(3)) == [2, 1, 0]
    assert list(itertools.accumulate(Count(3), lambda a, b: (pause(), a + b)[1])) == [2, 3, 3]
    assert [k for k, _ in itertools.groupby(Count(4), lambda x: (pause(), x // 2)[1])] == [1, 0]
    assert list(itertools.chain.from_iterable([Count(2), Count(1)])) == [1, 0, 0]
    assert list(itertools.starmap(lambda a, b: (pause(), a * b)[1], zip(Count(3), Count(3)))) == [
        4,
        1,
        0,
    ]
    assert list(itertools.takewhile(lambda x: (pause(), x > 0)[1], Count(3))) == [2, 1]
    assert collections.Counter(Count(3)) == {0: 1, 1: 1, 2: 1}
    assert "".join(str(x) for x in Count(3)) == "210"
    (*rest, last) = Count(3)
    assert (rest, last) == ([2, 1], 0)


def contexts(pause):
    var = contextvars.ContextVar("var", default=0)

    def body(n):
        var.set(n)
        pause()
        assert var.get() == n
        if n:
            contextvars.copy_context().run(body, n - 1)
            pause()
        assert var.get() == n
        return n

    assert contextvars.copy_context().run(body, 3) == 3
    assert var.get() == 0


def caches(pause):
    @functools.lru_cache(maxsize=4)
    def square(n):
        pause()
        return n * n + (square(n - 1) if n else 0)

    assert square(6) == 91
    assert [square(n) for n in (6, 1, 6)] == [91, 1, 91]
    assert collections.defaultdict(lambda: (pause(), 3)[1])["x"] == 3


def texts(pause):
    class Shown:
        def __init__(self, *inner):
            self.inner = inner

        def __repr__(self):
            pause()
            return f"S{list(self.inner)!r}"

        def __str__(self):
            pause()
            return "text"

        def __format__(self, how):
            pause()
            return "<" + how + ">"

    assert repr([Shown(Shown()), (Shown(),)]) == "[S[S[]], (S[],)]"
    assert "%s %r" % (Shown(), Shown()) == "text S[]"
    assert f"{Shown():x}{Shown()}" == "<x><>"
    assert f"{Shown():y}" == "<y>"


def comparing(pause):
    class Key:
        def __init__(self, n):
            self.n = n

        def __hash__(self):
            pause()
            return 7  # all collide

        def __eq__(self, other):
            pause()
            return self.n == other.n

        def __lt__(self, other):
            pause()
            return self.n < other.n

    table = {Key(i): i for i in range(4)}
    assert [table[Key(i)] for i in range(4)] == [0, 1, 2, 3]
    assert len({Key(1), Key(2), Key(1)}) == 2
    assert Key(2) in [Key(0), Key(2)]
    assert [Key(0), Key(1)].index(Key(1)) == 1
    assert sorted([Key(2), Key(1)])[0].n == 1
    heap = [Key(3), Key(1), Key(2)]
    heapq.heapify(heap)
    assert heapq.heappop(heap).n == 1
    assert (Key(1), Key(2)) < (Key(1), Key(3))


def attributes(pause):
    class Described:
        def __set_name__(self, owner, name):
            pause()
            self.name = name

        def __get__(self, obj, kind):
            pause()
            return self.name

        def __set__(self, obj, value):
            pause()
            obj.__dict__["set"] = value

    class Meta(type):
        def __call__(cls, *args):
            pause()
            return super().__call__(*args)

    class Thing(metaclass=Meta):
        described = Described()

        def __init_subclass__(cls):
            pause()

        def __init__(self):
            pause()

        def __getattr__(self, name):
            pause()
            return name.upper()

        @property
        def prop(self):
            pause()
            return 1

        def __setattr__(self, name, value):
            pause()
            object.__setattr__(self, name, value)

    class Sub(Thing):
        pass

    thing = Sub()
    thing.described = 8
    thing.plain = 9
    assert (thing.missing, thing.described, thing.set, thing.prop, thing.plain) == (
        "MISSING",
        "described",
        8,
        1,
        9,
    )
    assert getattr(thing, "other", None) == "OTHER"
    assert operator.attrgetter("a", "prop")(thing) == ("A", 1)


def numbers(pause):
    class Number:
        def __init__(self, n):
            self.n = n

        def __add__(self, other):
            pause()
            return Number(self.n + other.n)

        def __index__(self):
            pause()
            return self.n

        def __bool__(self):
            pause()
            return bool(self.n)

        def __len__(self):
            pause()
            return self.n

        def __getitem__(self, i):
            pause()
            if i >= self.n:
                raise IndexError
            return i

        def __contains__(self, x):
            pause()
            return x == self.n

    assert sum([Number(1), Number(2)], Number(0)).n == 3
    assert range(10)[Number(3)] == 3
    assert [0, 1, 2][Number(0) : Number(2)] == [0, 1]
    assert not all([Number(1), Number(0)])
    assert (len(Number(4)), list(Number(2)), 5 in Number(5)) == (4, [0, 1], True)
    assert hex(Number(16)) == "0x10"


def withs(pause):
    class Manager:
        log = []

        def __enter__(self):
            pause()
            return self

        def __exit__(self, kind, exc, tb):
            pause()
            return kind is KeyError

    with Manager(), Manager():
        pause()
        raise KeyError
    with contextlib.ExitStack() as stack:
        stack.enter_context(Manager())
        stack.callback(pause)
        raise KeyError
    try:
        with Manager():
            raise ValueError("seen")
    except ValueError as error:
        pause()
        assert str(error) == "seen"


class Reduced:
    """Pickles with a pause."""

    def __init__(self, pause=None):
        self.pause = pause

    def __reduce__(self):
        self.pause()
        return (Reduced, ())


def libraries(pause):
    class Odd:
        def __deepcopy__(self, memo):
            pause()
            return Odd()

    def default(x):
        pause()
        return str(x)

    assert (
        json.dumps([1, {2j}], default=lambda x: (pause(), sorted(map(default, x)))[1])
        == '[1, ["2j"]]'
    )
    assert json.loads('{"a": {"b": 1.5}}', object_hook=lambda d: (pause(), len(d))[1]) == 1
    assert json.loads("[1.5]", parse_float=default) == ["1.5"]
    assert re.sub(r"\d", lambda m: (pause(), m[0] * 2)[1], "a1b2") == "a11b22"
    assert type(pickle.loads(pickle.dumps([Reduced(pause)]))[0]) is Reduced
    assert isinstance(copy.deepcopy([Odd()])[0], Odd)
    assert list(csv.reader((pause(), line)[1] for line in ["a,b", "c"])) == [["a", "b"], ["c"]]
    assert eval("f() + 1", {"f": lambda: (pause(), 2)[1]}) == 3
    seen = []
    thing = Odd()
    watch = weakref.ref(thing, lambda _: (pause(), seen.append(1)))
    del thing
    assert (seen, watch()) == ([1], None)


class Lines(io.RawIOBase):
    """A raw stream that pauses in each read."""

    def __init__(self, pause, data):
        self.pause, self.data = pause, data

    def readable(self):
        return True

    def readinto(self, buffer):
        self.pause()
        n = min(len(buffer), len(self.data), 3)
        buffer[:n], self.data = self.data[:n], self.data[n:]
        return n


def streams(pause):
    text = io.TextIOWrapper(io.BufferedReader(Lines(pause, b"one\ntwo\nthree\n"), 4))
    assert list(text) == ["one\n", "two\n", "three\n"]


COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))


def callbacks(library, pause):
    def compare(a, b):
        try:
            pause()
        except BaseException as error:
            failures.append(error)
        return a[0] - b[0]

    failures = []
    values = (ctypes.c_int * 5)(3, 1, 4, 2, 5)
    library.qsort(values, 5, ctypes.sizeof(ctypes.c_int), COMPARE(compare))
    assert not failures, failures
    assert list(values) == [1, 2, 3, 4, 5]


callbacks_without_gil = functools.partial(callbacks, ctypes.CDLL(None))
callbacks_with_gil = functools.partial(callbacks, ctypes.PyDLL(None))


def event_loops(pause):
    async def child(n):
        await asyncio.sleep(0)
        pause()
        return n

    async def main():
        loop = asyncio.get_running_loop()
        got = await asyncio.gather(*map(child, range(3)))
        await asyncio.sleep(0.0005)
        assert asyncio.get_running_loop() is loop
        return got

    assert asyncio.run(main()) == [0, 1, 2]


CONSTRUCTS = {
    f.__name__: f
    for f in (
        generators,
        sorting,
        mapping,
        iterating,
        contexts,
        caches,
        texts,
        comparing,
        attributes,
        numbers,
        withs,
        libraries,
        streams,
        event_loops,
    )
}
CONSTRUCTS["callbacks_without_gil"] = callbacks_without_gil
CONSTRUCTS["callbacks_with_gil"] = callbacks_with_gil


def crowd(constructs, goroutines: int, rounds: int) -> tuple[int, int]:
    """Many goroutines go through the constructs, each in its own order; pauses and moves seen."""

    def body(pauses):
        for _ in range(rounds):
            for construct in pauses.random.sample(constructs, len(constructs)):
                construct(pauses)
                pauses()
        return pauses.count, pauses.moves

    gs = [gort.go(body, Pauses(seed)) for seed in range(goroutines)]
    counts = [g.join(timeout=45) for g in gs]
    return sum(c for c, _ in counts), sum(m for _, m in counts)
