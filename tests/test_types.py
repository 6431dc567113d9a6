"""What a type checker makes of the generic types: mypy, strict, on programs of users."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

# Each line that ends in a comment must be revealed as that type.
PROGRAM = """
import gort
from gort import Map
from gort.atomic import Bool, Int, Value
from gort.singleflight import Group, Result

m: Map[str, int] = Map()
m2 = Map({"a": 1.5})
m3 = Map([("a", b"x")])
reveal_type(m2)  # gort._core.Map[str, float]
reveal_type(m3)  # gort._core.Map[str, bytes]
reveal_type(m.load_or_store("a", 1))  # tuple[int, bool]
reveal_type(m["a"])  # int
reveal_type(m.get("a"))  # int | None
reveal_type(m.get("a", 0))  # int
reveal_type(m.get("a", "x"))  # int | str
reveal_type(m.pop("a"))  # int
reveal_type(m.setdefault("a", 1))  # int
reveal_type(list(m))  # list[str]
reveal_type(dict(m))  # dict[str, int]
reveal_type(dict(m.items()))  # dict[str, int]
value, ok = m.load("a")
reveal_type(value)  # int | None
found = m.load("a")
if found[1]:
    reveal_type(found[0])  # int
reveal_type(Int().add(1))  # int
reveal_type(Bool().swap(True))  # bool
v = Value[str]()
reveal_type(v.load())  # str | None
group = Group[str, bytes]()
def read(name: str, size: int) -> bytes: ...
reveal_type(group.do("k", read, "name", 5))  # tuple[bytes, bool]
reveal_type(group.do("k", read, "name", 5, timeout=1))  # tuple[bytes, bool]
reveal_type(group.do_chan("k", read, "name", 5).recv())  # gort.singleflight.Result[bytes]
reveal_type(group.do_chan("k", read, "name", 5).recv().value)  # bytes | None
def two() -> tuple[int, str]: ...
reveal_type(gort.once_values(two)())  # tuple[int, str]
reveal_type(gort.Barrier(2).wait())  # int
"""

WRONG = {
    "m.store(1, 1)": "incompatible type",
    "m.store('a', 'b')": "incompatible type",
    "m.compare_and_swap('a', 1, None)": "incompatible type",
    "m.range(lambda k: True)": "incompatible type|Cannot infer",
    "Bool().store(1)": "incompatible type",
    "Int().add(1.0)": "incompatible type",
    "Value[str]().store(1)": "incompatible type",
    "group.do('k', read, 'name')": "incompatible type|Missing|Too few",
    "group.do(1, read, 'name', 5)": "incompatible type",
    "class Sub(Map[str, int]): ...": "final class",
}


def checked(path, text):
    """The lines that mypy prints about a program."""
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", path.parent, path],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_types_are_what_they_say(tmp_path):
    pytest.importorskip("mypy")
    lines = checked(tmp_path / "program.py", PROGRAM)
    told = {
        int(m[1]): m[2].replace("builtins.", "")
        for m in (re.match(r'.*:(\d+): note: Revealed type is "(.*)"', line) for line in lines)
        if m
    }
    expected = {
        number: line.partition("  # ")[2]
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if "reveal_type" in line
    }
    assert told == expected
    errors = [line for line in lines if ": error:" in line and "empty-body" not in line]
    assert errors == []


def test_wrong_uses_are_errors(tmp_path):
    pytest.importorskip("mypy")
    head = PROGRAM.partition("m2 =")[0] + "group = Group[str, bytes]()\n"
    head += "def read(name: str, size: int) -> bytes: return b''\n"
    first = head.count("\n") + 1
    lines = checked(tmp_path / "wrong.py", head + "\n".join(WRONG) + "\n")
    for number, (code, text) in enumerate(WRONG.items(), first):
        told = [line for line in lines if f":{number}: error:" in line]
        assert any(re.search(text, line) for line in told), (code, lines)
