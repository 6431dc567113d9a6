"""gort.cache.ConcurrentCache beside functools.lru_cache and cachetools: a hit's time, hit ratios.

    python benches/cache_work.py [--rounds 7] [--requests 1000000]

A hit's time is that of a loop over a thousand keys that are all in, the loop itself taken off; the
fastest of all rounds, which take turns. The traces draw keys from 100,000 by Zipf's law, seeded;
each cache begins empty. cachetools is installed into .venv-bench; where it cannot be had it is left
out.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import platform
import random
import subprocess
import sys
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gort.cache import ConcurrentCache

if TYPE_CHECKING:
    from collections.abc import Callable

WHERE = Path(__file__).resolve().parent / ".venv-bench" / "cachetools"
UNIVERSE = 100_000
SKEWS = (0.8, 1.0)
PARTS = (0.01, 0.1)
HOT = 1_000


def cachetools() -> Any:
    """The package, installed if it has to be; None where it cannot be had."""
    sys.path.append(str(WHERE))
    for attempt in range(2):
        try:
            return importlib.import_module("cachetools")
        except ImportError:
            if attempt == 0:
                pip = [sys.executable, "-m", "pip", "install", "-qq", "--target", str(WHERE)]
                subprocess.run([*pip, "cachetools"], check=False)
                importlib.invalidate_caches()
    return None


def asked(cache: Any) -> Callable[[Any], Any]:
    """A function that gets a key from a mapping and puts it in where it is missing."""

    def ask(key: Any) -> Any:
        try:
            return cache[key]
        except KeyError:
            cache[key] = key
            return None

    return ask


def remembered(size: int) -> Callable[[Any], Any]:
    """functools.lru_cache of a function that does nothing."""
    return functools.lru_cache(maxsize=size)(lambda key: key)


def hit_times(tools: Any, rounds: int) -> dict[str, dict[str, float]]:
    """Nanoseconds for a hit, by kind of key and by way of asking."""
    kinds: dict[str, list[Any]] = {
        "int": list(range(HOT)),
        "str": [f"key {n}" for n in range(HOT)],
        "tuple": [(n, str(n)) for n in range(HOT)],
    }
    found: dict[str, dict[str, float]] = {}
    for kind, keys in kinds.items():
        cache = ConcurrentCache[Any, Any](2 * HOT)
        lru = remembered(2 * HOT)
        programs = {
            "the loop": "for key in keys: pass",
            "`cache.get(key)`": "for key in keys: cache.get(key)",
            "`get(key)`, `get` kept": "for key in keys: get(key)",
            "`cache[key]`": "for key in keys: cache[key]",
            "functools.lru_cache": "for key in keys: lru(key)",
        }
        space = {"keys": keys, "cache": cache, "get": cache.get, "lru": lru}
        if tools is not None:
            space["other"] = tools.LRUCache(2 * HOT)
            programs["cachetools.LRUCache"] = "for key in keys: other[key]"
        for key in keys:
            lru(key)
            for name in ("cache", "other"):
                if name in space:
                    space[name][key] = key  # type: ignore[index]
        best = dict.fromkeys(programs, float("inf"))
        for _, (name, program) in itertools.product(range(rounds), programs.items()):
            seconds = min(timeit.repeat(program, globals=space, number=20, repeat=3))
            best[name] = min(best[name], seconds / 20 / HOT * 1e9)
        loop = best.pop("the loop")
        for name, ns in best.items():
            found.setdefault(name, {})[kind] = ns - loop
    return found


def trace(skew: float, requests: int) -> list[int]:
    """Keys by Zipf's law, the same for every cache."""
    weights = list(itertools.accumulate(1 / rank**skew for rank in range(1, UNIVERSE + 1)))
    keys = list(range(UNIVERSE))
    chance = random.Random(1)
    chance.shuffle(keys)
    return chance.choices(keys, cum_weights=weights, k=requests)


def ratio(ask: Callable[[Any], Any], keys: list[int]) -> float:
    """The part of the requests that were hits, in percent."""
    return 100 * sum(ask(key) is not None for key in keys) / len(keys)


def ratios(tools: Any, keys: list[int], size: int) -> dict[str, float]:
    """Hit ratios of all caches of one size."""
    lru = remembered(size)
    for key in keys:
        lru(key)
    found = {
        "gort, SIEVE": ratio(asked(ConcurrentCache[int, int](size)), keys),
        "functools.lru_cache": 100 * lru.cache_info().hits / len(keys),  # type: ignore[attr-defined]
    }
    if tools is not None:
        for name in ("LRUCache", "LFUCache", "FIFOCache"):
            found[f"cachetools.{name}"] = ratio(asked(getattr(tools, name)(size)), keys)
    return found


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description="gort.cache beside functools and cachetools.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1_000_000)
    options = parser.parse_args()
    tools = cachetools()
    versions = f"CPython {platform.python_version()}, cachetools "
    print(versions + (tools.__version__ if tools is not None else "not there"))
    times = hit_times(tools, options.rounds)
    base = times["functools.lru_cache"]
    print("\n| ns per hit, in brackets to functools.lru_cache | int | str | tuple |")
    print("|---|---|---|---|")
    for name, by_kind in times.items():
        cells = (f"{ns:.1f} ({ns / base[kind]:.2f})" for kind, ns in by_kind.items())
        print(f"| {name} | {' | '.join(cells)} |")
    cases = list(itertools.product(SKEWS, PARTS))
    table: dict[str, list[float]] = {}
    for skew, part in cases:
        keys = trace(skew, options.requests)
        for name, percent in ratios(tools, keys, int(UNIVERSE * part)).items():
            table.setdefault(name, []).append(percent)
    head = " | ".join(f"Zipf {skew}, {100 * part:g} %" for skew, part in cases)
    print(f"\n| hits, % | {head} |\n|---{'|---' * len(cases)}|")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(f'{percent:.2f}' for percent in row)} |")


if __name__ == "__main__":
    main()
