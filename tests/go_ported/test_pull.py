"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of iter/pull_test.go: TestPull, TestPullDoubleNext, TestPullDoubleYield, TestPullPanic, TestPullGoexit,
TestPullImmediateStop. The same for generators, where that has a meaning. Unlike Go's, the goroutine is there
from the first next() on.
"""

import gort
import pytest
from gort.iter import pull
from gort.testing import no_leaks
from waiting import LIMIT, eventually


def pushed(n):
    def seq(yield_):
        for i in range(n):
            if not yield_(i):
                break

    return seq


SOURCES = {
    "pushed": pushed,
    "generator": lambda n: (i for i in range(n)),
    "generator function": lambda n: lambda_generator(n),
    "iterable": range,
}


def lambda_generator(n):
    def generate():
        yield from range(n)

    return generate


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("end", range(4))
def test_pull(make, end):
    before = gort.num_goroutine()
    with no_leaks():
        next_, stop = pull(make(3))
        for i in range(end):
            assert next_() == (i, True)
        if end < 3:
            stop()
        for _ in range(2):
            assert next_() == (None, False)
        for _ in range(3):
            stop()
        eventually(lambda: gort.num_goroutine() == before)


def test_pull_double_next():
    seen = []

    def seq(yield_):
        with pytest.raises(RuntimeError, match="iter.Pull: next called again before yield"):
            seen.append(next_())
        with pytest.raises(RuntimeError, match="iter.Pull: stop called before yield"):
            stop()
        seen.append("both failed")

    next_, stop = pull(seq)
    assert next_() == (None, False)
    assert seen == ["both failed"]


def test_pull_double_next_of_a_generator():
    def generate():
        with pytest.raises(RuntimeError, match="iter.Pull: next called again before yield"):
            next_()
        with pytest.raises(RuntimeError, match="iter.Pull: stop called before yield"):
            stop()
        yield 1

    next_, stop = pull(generate)
    assert next_() == (1, True) and next_() == (None, False)


def test_pull_double_yield():
    kept = []

    def seq(yield_):
        kept.append(yield_)
        yield_(5)

    next_, stop = pull(seq)
    assert next_() == (5, True)
    with pytest.raises(RuntimeError, match="iter.Pull: yield called again before next"):
        kept[0](5)
    stop()
    assert kept[0](5) is False


class Boom(Exception):
    pass


def panics(yield_):
    raise Boom


def panics_in_cleanup(yield_):
    while yield_(55):
        pass
    raise Boom


def generator_panics():
    raise Boom
    yield


def generator_panics_in_cleanup():
    try:
        yield 55
    finally:
        raise Boom


@pytest.mark.parametrize("seq", [panics, generator_panics])
def test_pull_panic_in_next(seq):
    next_, stop = pull(seq)
    with pytest.raises(Boom):
        next_()
    assert next_() == (None, False)
    stop()


@pytest.mark.parametrize("seq", [panics_in_cleanup, generator_panics_in_cleanup])
def test_pull_panic_in_stop(seq):
    next_, stop = pull(seq)
    assert next_() == (55, True)
    with pytest.raises(Boom):
        stop()
    assert next_() == (None, False)
    stop()


def goexits(yield_):
    gort.goexit()


def goexits_in_cleanup(yield_):
    while yield_(55):
        pass
    gort.goexit()


@pytest.mark.parametrize("where", ["next", "stop"])
def test_pull_goexit(where):
    next_, stop = pull(goexits if where == "next" else goexits_in_cleanup)
    went_on = []

    def body():
        next_()
        stop()
        went_on.append(1)

    assert gort.go(body).join(timeout=LIMIT) is None
    assert not went_on and next_() == (None, False)
    stop()


@pytest.mark.parametrize("seq", [panics, generator_panics])
def test_pull_immediate_stop(seq):
    next_, stop = pull(seq)
    stop()
    assert next_() == (None, False)
