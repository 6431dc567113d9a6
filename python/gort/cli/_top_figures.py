"""Rates and quantiles, made of two answers of state.json, and how figures are written."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

__all__ = [
    "WRONG", "Figures", "History", "Latency", "age", "clean", "number", "rate", "size", "span",
]  # fmt: skip

#: What an answer that is none of ours makes of our arithmetic.
WRONG = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
#: Seconds that quantiles are of: in one there may be no value.
_WINDOW_NS = 10_000_000_000
_RATES = {
    "spawned": "created",
    "steals": "steals",
    "hand_offs": "hand_offs",
    "preemptions": "preemptions",
    "collections": "collections",
}
_KINDS = ("run_queue", "wake_up", "interpreter_lock", "collector")


class Latency(NamedTuple):
    """Quantiles in seconds; None where there was nothing to measure."""

    p50: float | None
    p99: float | None


class Figures(NamedTuple):
    """What is shown of a moment.

    Attributes:
        state: the answer of state.json.
        rates: how often each second, by name; empty after the first answer.
        runs: goroutines that each processor took from its queue each second.
        cpu: the part of the processors' time that was used.
        latencies: over the last ten seconds, by name.
    """

    state: dict[str, Any]
    rates: dict[str, float]
    runs: list[float]
    cpu: float | None
    latencies: dict[str, Latency]

    def as_dict(self) -> dict[str, Any]:
        """Give all of it for JSON."""
        kept = ("process", "goroutines", "machines", "timers", "memory", "health")
        processors = {k: v for k, v in self.state["processors"].items() if k != "runs"}
        return {
            **{name: self.state[name] for name in kept},
            "processors": {**processors, "runs_per_s": self.runs},
            "rates_per_s": self.rates,
            "cpu": self.cpu,
            "latencies_s": {name: found._asdict() for name, found in self.latencies.items()},
        }


class History:
    """The answers of the last seconds.

    Raises:
        LookupError, TypeError, ValueError, ZeroDivisionError: an answer is not as it should be.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._kept: deque[dict[str, Any]] = deque()

    def add(self, state: dict[str, Any]) -> Figures:
        """Take an answer, and give what it shows beside those before."""
        who = state["process"]["pid"], state["process"]["started"]
        kept = self._kept
        if kept and who != (kept[-1]["process"]["pid"], kept[-1]["process"]["started"]):
            kept.clear()  # it has been started again: its counters begin anew
        while len(kept) > 1 and state["now_ns"] - kept[1]["now_ns"] >= _WINDOW_NS:
            kept.popleft()
        if not kept or state["now_ns"] <= kept[-1]["now_ns"]:
            found = Figures(state, {}, [], None, _latencies(None, state))
        else:
            found = _between(kept[-1], state, _latencies(kept[0], state))
        kept.append(state)
        return found


def _between(before: dict[str, Any], after: dict[str, Any], of: dict[str, Latency]) -> Figures:
    """What happened between two answers."""
    seconds = (after["now_ns"] - before["now_ns"]) / 1e9
    old, new = before["counters"], after["counters"]
    pairs = zip(before["processors"]["runs"], after["processors"]["runs"], strict=False)
    runs = [(b - a) / seconds for a, b in pairs]
    rates = {name: (new[key] - old[key]) / seconds for name, key in _RATES.items()}
    shared = (new["global_pops"] - old["global_pops"]) / seconds
    rates = {"switches": sum(runs) + shared, **rates}
    there = new["cpu_available_ns"] - old["cpu_available_ns"]
    used = new["cpu_used_ns"] - old["cpu_used_ns"]
    return Figures(after, rates, runs, used / there if there > 0 else 0.0, of)


def _latencies(before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, Latency]:
    """Quantiles of what came since; of all there ever was without a `before`."""
    found = {}
    for name in _KINDS:
        counts = dict(map(tuple, after["latencies"][name]["counts"]))
        for bucket, count in before["latencies"][name]["counts"] if before else ():
            counts[bucket] = counts.get(bucket, 0) - count
        bounds = after["bounds_ns"]
        found[name] = Latency(_quantile(counts, bounds, 0.5), _quantile(counts, bounds, 0.99))
    return found


def _quantile(counts: dict[int, int], bounds: list[int], q: float) -> float | None:
    """The upper bound of the bucket that it is in, in seconds."""
    left = max(q * sum(counts.values()), 1)
    for bucket in sorted(counts):
        left -= counts[bucket]
        if left <= 0:
            return float(bounds[min(bucket, len(bounds) - 1)] / 1e9)
    return None


def clean(words: object) -> str:
    """Give a text of the server's without what a terminal would obey."""
    return "".join([c if c.isprintable() else "?" for c in str(words)])


def _scaled(value: float, steps: tuple[str, ...], base: float) -> str:
    """A number with three digits and the step that suits it."""
    at = 0
    while abs(value) >= base and at < len(steps) - 1:
        value, at = value / base, at + 1
    digits = 0 if abs(value) >= 100 or (not at and value == int(value)) else 1
    return f"{value:.{digits}f}{steps[at]}"


def number(value: float) -> str:
    """Write a number: 1,234 or 12.3k."""
    if abs(value) < 10_000 and value == int(value):
        return f"{value:,.0f}"
    return _scaled(value, ("", "k", "M", "G"), 1000)


def rate(value: float | None) -> str:
    """Write how often something happens each second."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{number(value)}/s"
    return f"{value:.0f}/s" if value == 0 or value >= 10 else f"{value:.1f}/s"


def size(value: float) -> str:
    """Write bytes."""
    return _scaled(value, (" B", " KiB", " MiB", " GiB", " TiB"), 1024)


def span(seconds: float | None) -> str:
    """Write a short time; None is one that nobody measured."""
    if seconds is None:
        return "-"
    for unit, scale in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{_scaled(seconds * scale, ('',), 1000)} {unit}"
    return f"{seconds:.1f} s"


def age(seconds: float) -> str:
    """Write a long time."""
    for unit, below, scale in (("s", 60, 1), ("min", 3600, 60), ("h", 86_400, 3600)):
        if seconds < below:
            return f"{seconds // scale:.0f} {unit}"
    return f"{seconds // 86_400:.0f} d"
