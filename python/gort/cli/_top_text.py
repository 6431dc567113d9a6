"""What `gort top` shows, as words: shared by the screen, and printed by `--once`."""

from __future__ import annotations

import os
import sys
from typing import Any

from gort.cli._top_figures import Figures, age, clean, number, rate, size, span

__all__ = ["blockers", "headline", "sections", "text"]

_LATENCIES = {
    "run_queue": "run queue",
    "wake_up": "wake-up",
    "interpreter_lock": "GIL wait",
    "collector": "GC pause",
}
#: Where the standard library and the packages of the other program may lie.
_LIBRARY = (f"{os.sep}lib{os.sep}python3", f"{os.sep}gort{os.sep}", "<frozen")

Section = tuple[str, list[tuple[str, str]]]


def headline(figures: Figures) -> str:
    """Say which program that is."""
    process = figures.state["process"]
    who = f"pid {process['pid']}, CPython {process['python']}, gort {process['gort']}"
    return clean(f"{who}: {process['command']}")


def sections(figures: Figures) -> list[Section]:
    """Give the figures by what they are about: titles, and pairs of a name and a value."""
    state, rates = figures.state, figures.rates
    goroutines, processors = state["goroutines"], state["processors"]
    machines, memory = state["machines"], state["memory"]
    queued = " ".join(map(number, processors["queues"][:8]))
    return [
        ("Goroutines", [
            ("in all", number(goroutines["total"])),
            ("running", number(goroutines["running"])),
            ("ready", number(goroutines["runnable"])),
            ("waiting", number(goroutines["waiting"])),
            ("in calls", number(goroutines["outside"])),
        ]),
        ("Rates", [
            (name.replace("_", "-"), rate(rates.get(name)))
            for name in ("switches", "spawned", "steals", "hand_offs", "preemptions")
        ]),
        ("p50, p99", [
            (title, f"{span(figures.latencies[name].p50)}, {span(figures.latencies[name].p99)}")
            for name, title in _LATENCIES.items()
        ] + [("collections", rate(rates.get("collections")))]),
        ("Ps and Ms", [
            ("Ps (idle)", f"{number(processors['count'])} ({number(processors['idle'])})"),
            ("queues", f"{queued}, global {number(processors['global_queue'])}"),
            ("Ms (asleep)", f"{number(machines['count'])} ({number(machines['idle'])})"),
            ("spinning", number(processors["spinning"])),
            ("CPU of Ps", "-" if figures.cpu is None else f"{figures.cpu:.0%}"),
        ]),
        ("Memory", [
            ("resident", size(memory["resident"])),
            ("gort's heap", size(memory["heap"])),
            ("goroutines", size(memory["goroutines"])),
            ("saved stacks", number(memory["stacks_saved"])),
            ("timers", number(state["timers"])),
        ]),
    ]  # fmt: skip


def health(figures: Figures) -> str:
    """Say how it is."""
    found = figures.state["health"]
    return "ok" if found["ok"] else clean("; ".join(found["reasons"]))


def blockers(answer: dict[str, Any], order: str = "count") -> list[dict[str, Any]]:
    """Give groups of goroutines as values to show: those that are many, or wait longest, first."""
    frames = answer.get("frames", [])
    found = []
    for group in answer.get("groups", ()):
        stack = [tuple(frames[n]) for n in group["stack"]]
        found.append({
            "count": group["count"],
            "state": clean(group["state"]),
            "longest_s": group["longest"],
            "where": _where(stack),
            "stack": [f"{clean(name)} ({clean(file)}:{int(line)})" for name, file, line in stack],
            "ids": [member["id"] for member in group["members"]],
        })  # fmt: skip
    key = "longest_s" if order == "longest" else "count"
    return sorted(found, key=lambda group: -group[key])


def _where(stack: list[tuple[Any, ...]]) -> str:
    """The frame that says most: the newest that is not of a library."""
    own = [one for one in stack if not any(part in str(one[1]) for part in _LIBRARY)]
    if not own and not stack:
        return "(not started, or in C)"
    name, file, line = (own or stack)[0]
    return f"{clean(name)} {os.path.basename(clean(file))}:{int(line)}"


def text(figures: Figures, answer: dict[str, Any], most: int = 20) -> str:
    """Give all of it as lines of plain text."""
    lines = [headline(figures), f"health: {health(figures)}", ""]
    parts = sections(figures)
    for title, pairs in parts:
        lines.append(f"{title}: " + ", ".join(f"{name} {value}" for name, value in pairs))
    lines.append("")
    if answer.get("skipped"):
        lines.append(f"{number(answer['total'])} goroutines: too many to look at one by one")
    else:
        lines.append(f"{'COUNT':>7}  {'STATE':<24} {'LONGEST':>8}  WHERE")
        for group in blockers(answer)[:most]:
            longest = age(group["longest_s"]) if group["longest_s"] else "-"
            head = f"{number(group['count']):>7}  {group['state']:<24.24} {longest:>8}"
            lines.append(f"{head}  {group['where']}")
    encoding = sys.stdout.encoding or "utf-8"
    return "\n".join(lines).encode(encoding, "replace").decode(encoding)
