"""gort._depths: how much of a frame's value stack is owned at a call, from the code alone."""

from __future__ import annotations

import contextlib
import sys

import gort
import pytest
from gort import _core
from gort._depths import HAS_COPIES, IN_WITH, PLAIN, owned_depth
from leaking import start

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the evaluator saves its stack pointer"
)


def call(ch):
    return ch.recv()


def call_with_keyword(ch):
    return ch.recv(timeout=None)


def in_a_list(ch):
    return [1, [], ch.recv()]


def in_arguments(ch):
    return max([], {}, min((), [ch.recv()]))


def in_loops(ch):
    for _ in [1]:
        for _ in (2, 3):
            ch.recv()


def in_a_loop_over_it(ch):
    for _ in ch:
        pass


def in_a_with(ch, m):
    with m:
        ch.recv()


def in_an_except(ch):
    try:
        raise ValueError
    except ValueError:
        ch.recv()


def in_an_operator(ch):
    return [] + [ch] + ch.recv()


def with_stars(ch):
    args = ()
    return ch.recv(*args)


def with_a_fresh_list(ch):
    return ch.recv(*[None])


def with_both_stars(ch):
    args, kwargs = (), {"timeout": None}
    return ch.recv(*args, **kwargs)


# A call of a method has the function and the object on the stack; of anything else NULL and it.
KEYWORD_NAMES = 1 if sys.version_info >= (3, 13) else 0  # a tuple on the stack
WHOLE = {
    call: (2, PLAIN),
    call_with_keyword: (3 + KEYWORD_NAMES, PLAIN),
    in_a_list: (4, PLAIN),
    in_arguments: (9, PLAIN),
    in_loops: (4, PLAIN),
    in_a_loop_over_it: (1, PLAIN),
    in_a_with: (3, PLAIN),
    in_an_except: (3, PLAIN),
    in_an_operator: (3, PLAIN),
    with_stars: (3, PLAIN),
    with_a_fresh_list: (2, PLAIN),
    with_both_stars: (4, HAS_COPIES),
}


def depth_where(fn, *args):
    """What is said of the frame of `fn` as it is parked."""
    start(fn, *args)
    [depth] = [owned_depth(c, at) for c, at in _core._leak_calls() if c is fn.__code__]
    return depth


@pytest.mark.parametrize("fn", WHOLE, ids=lambda fn: fn.__name__)
def test_depth_at_a_call(fn):
    args = [gort.Chan(), gort.Mutex()][: fn.__code__.co_argcount]
    assert depth_where(fn, *args) == WHOLE[fn]


def test_depth_where_a_with_statement_enters():
    def work(m):
        for _ in [1]:
            with m:
                pass

    m = gort.Mutex()
    m.lock()
    assert depth_where(work, m) == (1, IN_WITH)


def test_depth_in_a_generator():
    def values(ch):
        yield [1, ch.recv()]

    ch = gort.Chan()
    generator = values(ch)
    start(next, generator)
    depths = [owned_depth(c, at) for c, at in _core._leak_calls() if c is values.__code__]
    assert depths == [(3, PLAIN)]


def test_what_is_not_known_is_nothing():
    class Slow:
        def __del__(self):
            with contextlib.suppress(gort.GoroutineExit):
                gort.Chan().recv()

    def work():
        thing = Slow()
        thing = None  # noqa: F841 - whose end is waited for here

    assert depth_where(work) == (0, PLAIN)


def test_no_depth_is_more_than_the_code_says():
    import dis
    import types

    codes = [v.__code__ for v in vars(dis).values() if isinstance(v, types.FunctionType)]
    for code in codes:
        for instruction in dis.get_instructions(code):
            depth, _ = owned_depth(code, instruction.offset)
            assert 0 <= depth <= code.co_stacksize
