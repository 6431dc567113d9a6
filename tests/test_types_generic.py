"""Generic types as mypy sees them: programs that have to pass, and lines in them that must not."""

from __future__ import annotations

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


pytestmark = pytest.mark.timeout(300)  # mypy reads all of gort and of the standard library's types


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What mypy says of each program: the lines with errors, and its text."""
    folder = tmp_path_factory.mktemp("programs")
    for name, text in PROGRAMS.items():
        (folder / f"program_{name}.py").write_text(text)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    lines = [line.split(":") for line in checked.stdout.splitlines() if ": error: " in line]
    found = {
        name: {int(n) for file, n, *_ in lines if file == f"program_{name}.py"} for name in PROGRAMS
    }
    return found, checked.stdout + checked.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_types_are_what_they_look_like(program, told):
    lines = PROGRAMS[program].splitlines()
    wrong = {n for n, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert wrong and told[0][program] == wrong, told[1]
