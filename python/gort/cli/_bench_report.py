"""`gort bench --report`: what `make bench` has measured, as one HTML page.

The page needs nothing but itself: no script, no font, no picture from elsewhere. A file of results
is one run: what machine it was, how it was started, medians, the figures to reach, a chart for each
workload.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from gort.cli._report import Bar, Grid, bars, card, head

__all__ = ["DEFAULT", "Unusable", "page", "read"]

#: Where the source tree has its results.
DEFAULT = "benches/results"

_OURS, _OTHERS = "#0a8f8f", "#8b8fa3"


class Unusable(Exception):
    """There is nothing to report: why."""


def read(directory: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read the results of a directory; what was passed over, and why, is the second.

    Args:
        directory: with the `*.json` that `make bench` writes.

    Raises:
        Unusable: there are none that can be read.
    """
    found: dict[str, dict[str, Any]] = {}
    passed = []
    for path in sorted(directory.glob("*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            _section(path.stem, run)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            passed.append(f"{path.name}: {type(error).__name__}: {error}")
        else:
            found[path.stem] = run
    if not found:
        why = "; ".join(passed) or "no *.json there"
        raise Unusable(f"no results in {directory} ({why}): `make bench` writes some")
    return found, passed


def _medians(entries: dict[str, Any]) -> dict[str, float]:
    """Give the medians of a workload, by implementation."""
    return {name: one["median"] for name, one in entries.items() if one.get("median")}


def _text(figure: float) -> str:
    """Write a median: short ones with a decimal."""
    return f"{figure:,.1f}" if figure < 10 else f"{figure:,.0f}"


def _grid(run: dict[str, Any]) -> Grid:
    """Put the medians of a run into a table: a line for each workload."""
    results = run["results"]
    names = list(dict.fromkeys(name for entries in results.values() for name in entries))
    lines = []
    for work, entries in results.items():
        medians = _medians(entries)
        cells = [_text(medians[name]) if name in medians else "-" for name in names]
        lines.append((work, *cells))
    return Grid("Medians, ns per operation", ("", *names), lines)


def _goals(run: dict[str, Any]) -> Grid:
    """Put the figures to reach into a table."""
    lines: list[tuple[str, ...]] = []
    for row in run.get("figures_to_reach", []):
        measured = "n/a" if row["measured"] is None else f"{row['measured']:,.3g}"
        verdict = {None: "n/a", True: "met", False: "missed"}[row["met"]]
        limit = f"{row['limit']} {row['bound']:g}"
        lines.append((f"{row['workload']}: {row['against']}", limit, measured, verdict))
    heads = ("gort's median over the other's, or gort's own", "goal", "measured", "")
    return Grid("Figures to reach", heads, lines)


def _charts(run: dict[str, Any]) -> str:
    """Draw a chart for each workload that two implementations have."""
    parts = []
    for work, entries in run["results"].items():
        medians = sorted(_medians(entries).items(), key=lambda pair: pair[1])
        if len(medians) < 2:
            continue
        every = [
            Bar(name, figure, _text(figure), _OURS if name.startswith("gort") else _OTHERS)
            for name, figure in medians
        ]
        picture = bars(work, "ns per operation", every)
        parts.append(f'<div class="card"><h3>{escape(work)}</h3>{picture}</div>\n')
    return f'<div class="cards">\n{"".join(parts)}</div>\n' if parts else ""


def _machine(run: dict[str, Any]) -> list[str]:
    """Say what machine it was, and how it was measured."""
    machine = run["machine"]
    versions = ", ".join(f"{name} {text}" for name, text in sorted(machine["versions"].items()))
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, load before "
        f"{machine['load_before']}; {machine['date']}",
        f"gort {machine['gort']}, Python {machine['python']}; {versions}",
        machine["command"],
    ]
    return lines + [f"n/a: {name}: {why}" for name, why in machine["missing"].items()]


def _section(name: str, run: dict[str, Any]) -> str:
    """Write one run."""
    parts = [f"<h2>{escape(name)}</h2>\n"]
    parts += [f'<p class="soft">{escape(line)}</p>\n' for line in _machine(run)]
    return "".join([*parts, card(_grid(run)), card(_goals(run)), _charts(run)])


def page(found: dict[str, dict[str, Any]]) -> str:
    """Write the page.

    Args:
        found: the runs, by name.
    """
    parts = [_section(name, run) for name, run in found.items()]
    return head("gort bench") + "".join(parts) + "</main></body></html>\n"
