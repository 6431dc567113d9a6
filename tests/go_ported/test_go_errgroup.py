"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of golang.org/x/sync/errgroup/errgroup_test.go. A function that "returns" an error raises it, and so does wait(). The first
example fetches from the network and is left out.
"""

import gort
import pytest
from gort import Chan, errgroup, go
from gort.context import background

ERR_1, ERR_2, DOOM = ValueError("1"), ValueError("2"), RuntimeError("doomed")


def give(error):
    """What `return error` is in Go."""
    if error is not None:
        raise error


def wait(group):
    """What Wait returns."""
    try:
        group.wait()
    except (ValueError, RuntimeError) as error:
        return error
    return None


def test_example_parallel():
    def search(kind, ctx, query):
        assert ctx.err() is None
        return f'{kind} result for "{query}"'

    def google(ctx, query):
        group, ctx = errgroup.with_context(ctx)
        results = [None] * 3
        for i, kind in enumerate(("web", "image", "video")):

            def one(i=i, kind=kind):
                results[i] = search(kind, ctx, query)

            group.go(one)
        group.wait()
        return results

    assert google(background(), "golang") == [
        'web result for "golang"',
        'image result for "golang"',
        'video result for "golang"',
    ]


@pytest.mark.parametrize("errors", [[], [None], [ERR_1], [ERR_1, None], [ERR_1, None, ERR_2]])
def test_zero_group(errors):
    group, first = errgroup.Group(), None
    for error in errors:
        group.go(give, error)
        first = first or error
        assert wait(group) is first


CASES = [([], None), ([None], None), ([DOOM], DOOM), ([DOOM, None], DOOM)]


@pytest.mark.parametrize(("errors", "want"), CASES)
def test_with_context(errors, want):
    group, ctx = errgroup.with_context(background())
    for error in errors:
        group.go(give, error)
    assert wait(group) is want
    assert ctx.done().try_recv() == (None, False, True)


def test_try_go():
    group, n, ch = errgroup.Group(), 42, Chan()
    group.set_limit(42)

    def fn():
        ch.send(None)

    def drain(count):
        for _ in range(count):
            ch.recv()

    for _ in range(n):
        assert group.try_go(fn)
    assert not group.try_go(fn)
    go(drain, n)
    group.wait()
    assert group.try_go(fn)
    go(drain, 1)
    group.wait()
    group.set_limit(1)  # switch limit
    assert group.try_go(fn)
    assert not group.try_go(fn)
    go(drain, 1)
    group.wait()
    group.set_limit(0)  # block all calls
    for _ in range(1 << 10):
        assert not group.try_go(fn)
    group.wait()


def test_go_limit():
    limit, active = 10, []
    group = errgroup.Group()
    group.set_limit(limit)

    def fn():
        active.append(None)
        if len(active) > limit:
            raise ValueError(f"saw {len(active)} active goroutines; want at most {limit}")
        gort.sleep(1e-6)  # give other goroutines a chance to increment active
        active.pop()

    for _ in range((1 << 10) + 1):
        group.go(fn)
    group.wait()


@pytest.mark.parametrize(("errors", "want"), CASES)
def test_cancel_cause(errors, want):
    group, ctx = errgroup.with_context(background())
    for error in errors:
        assert group.try_go(give, error)
    assert wait(group) is want
    if want is None:
        assert type(gort.context.cause(ctx)) is gort.ContextCanceled
    else:
        assert gort.context.cause(ctx) is want
