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
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_types_are_what_they_look_like(program, tmp_path):
    text = PROGRAMS[program]
    file = tmp_path / "program.py"
    file.write_text(text)
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(tmp_path / "cache"),
            str(file),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    told = {int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error: " in line}
    wrong = {n for n, line in enumerate(text.splitlines(), 1) if line.endswith("# wrong")}
    assert wrong and told == wrong, checked.stdout + checked.stderr
