"""Generic types as mypy and pyright see them: programs that have to pass, and lines in them that must not."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

PROGRAMS = {
    "cache": """
from typing import Literal, assert_type
from gort.cache import ConcurrentCache

cache = ConcurrentCache[str, int](10, ttl=1.5, on_evict=lambda key, value: key.upper())
assert_type(
    cache.get("a"), tuple[int, Literal[True]] | tuple[None, Literal[False]]
)
value, ok = cache.get("a")
assert_type(cache.get_or_load("a", len), int)
assert_type(cache["a"], int)
assert_type(cache.keys(), list[str])
assert_type(cache.items(), list[tuple[str, int]])
for key in cache:
    assert_type(key, str)
cache.put("a", 1, ttl=3)
cache.put("a", "b")  # wrong
cache[3] = 1  # wrong
cache.get_or_load("a", str)  # wrong
""",
    "scope": """
from typing import assert_type
import gort
from gort.context import Context, background, with_timeout, with_value

with with_timeout(background(), 1.0) as ctx:
    assert_type(ctx, Context)
    assert_type(with_value(ctx, "key", 1).err(), BaseException | None)
with gort.scope(timeout=1.0) as scope:
    child = scope.go(str.upper, "a")
    assert_type(child, gort.Child[str])
    assert_type(list(scope.map(len, ["a", "b"], limit=2)), list[int])
assert_type(child.join(ctx=ctx), str)
assert_type(gort.Local(list[int]).get(), list[int])
scope.map(len, [1, 2])  # wrong
child.join(ctx=1)  # wrong
with_timeout(background(), "soon")  # wrong
""",
    "flow": """
from collections.abc import Iterable, Iterator
from typing import assert_type
import gort
from gort.flow import Stream, fan_out, merge, pipeline
from gort.pubsub import Broadcast, PubSub, Subscription

ch = gort.Chan[int]()
assert_type(merge(ch, [1], ch.receiver()), Stream[int])
assert_type(fan_out(ch, str, 3, ordered=True), Stream[str])

def halves(values: Iterable[int]) -> Iterator[float]:
    for value in values:
        yield value / 2

def texts(values: Iterable[float]) -> Iterable[str]:
    return fan_out(values, str, 2)

assert_type(pipeline(ch), Stream[int])
assert_type(pipeline(ch, halves), Stream[float])
assert_type(pipeline(ch, halves, texts, cap=3), Stream[str])
with merge(ch) as stream:
    assert_type(stream.recv(), int)
    assert_type(stream.recv_ok(), tuple[int | None, bool])
    for value in stream:
        assert_type(value, int)
gort.select(gort.recv(stream), gort.recv(ch))
pipeline(["a"], halves)  # wrong
fan_out(["a"], halves, 2)  # wrong

news = Broadcast[int](slow="cut")
assert_type(news.subscribe(), Subscription[int])
assert_type(next(news.subscribe()), int)
hub: PubSub[str] = PubSub(3, slow="drop_old")
assert_type(hub.publish("topic", "text"), int)
hub.publish("topic", 1)  # wrong
news.send("text")  # wrong
Broadcast(1, slow="never")  # wrong
Broadcast(1)  # wrong
""",
    "iter": """
from collections.abc import Callable, Iterator
from typing import assert_type
from gort.iter import pull

def numbers() -> Iterator[int]:
    yield 1

def pushes(yield_: Callable[[str], bool]) -> None:
    yield_("a")

next_number, stop = pull(numbers)
value, ok = next_number()
assert_type(value, int | None)
assert_type(stop(), None)
value, ok = pull(range(3))[0]()
assert_type(value, int | None)
text, ok = pull(pushes)[0]()
assert_type(text, str | None)
pull(3)  # wrong
""",
    "rate": """
from typing import assert_type
from gort.rate import Inf, Limiter, Reservation, every

limiter = Limiter(every(0.5), 3)
assert_type(limiter.reserve_n(2), Reservation)
assert_type(limiter.reserve().delay(), float)
assert_type(limiter.allow(), bool)
assert_type(limiter.wait(timeout=1), None)
limiter.set_limit(Inf)
limiter.set_limit("fast")  # wrong
""",
}


pytestmark = pytest.mark.timeout(
    300
)  # checkers read all of gort and of the standard library's types

#: The command of each checker, run in the folder of the programs, and how it names a line with an error.
CHECKERS = {
    "mypy": (
        ["mypy", "--strict", "--cache-dir", "cache", "."],
        r"^program_(\w+)\.py:(\d+): error: ",
    ),
    "basedpyright": (
        ["basedpyright", "--pythonpath", sys.executable, "--level", "error", "."],
        r"program_(\w+)\.py:(\d+):\d+ - error: ",
    ),
}


@pytest.fixture(scope="module", params=CHECKERS)
def told(request, tmp_path_factory):
    """What a checker says of each program: the lines with errors, and its text."""
    checker, (command, line) = request.param, CHECKERS[request.param]
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    folder = tmp_path_factory.mktemp(checker)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    for name, text in PROGRAMS.items():
        (folder / f"program_{name}.py").write_text(text)
    checked = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=folder
    )
    found: dict[str, set[int]] = {name: set() for name in PROGRAMS}
    for name, number in re.findall(line, checked.stdout, re.M):
        found[name].add(int(number))
    return found, checked.stdout + checked.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_types_are_what_they_look_like(program, told):
    lines = PROGRAMS[program].splitlines()
    wrong = {n for n, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert wrong and told[0][program] == wrong, told[1]
