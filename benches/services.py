"""The picture of services: HTTP requests per second and p99, echo, packets, TLS, by implementation.

    python benches/services.py 3.11 [--results benches/results] [--out docs/services-3.11.svg]

Drawn from what `make bench` has written for that Python, whole runs before quick ones and parts:
of the workloads below those that there are results of. A bar is a median; gort's stand out.
"""

from __future__ import annotations

import argparse
import json
import sys
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GROUPS = ("http", "net", "boundary")
#: Workload, figure, factor, title, whether more is better.
PANELS = (
    ("plaintext", "per_second", 1.0, "HTTP, 120 bytes, 100 kept connections: requests/s", True),
    ("plaintext", "p99_ms", 1.0, "the same: p99, ms", False),
    ("json", "per_second", 1.0, "HTTP, JSON encoded each time: requests/s", True),
    ("json", "p99_ms", 1.0, "the same: p99, ms", False),
    ("churn", "per_second", 1.0, "HTTP, a connection for each: requests/s", True),
    ("churn", "p99_ms", 1.0, "the same: p99, ms", False),
    ("http_2000", "per_second", 1.0, "ThreadingHTTPServer, 2,000 clients: requests/s", True),
    ("http_2000", "p99_ms", 1.0, "the same: p99, ms", False),
    ("net_64", "median", 1e-3, "echo of 64 B, fastest interface: CPU time, µs", False),
    ("net_16k", "median", 1e-3, "echo of 16 KiB, fastest interface: CPU time, µs", False),
    ("udp", "median", 1e-3, "UDP echo of 64 B: CPU time, µs", False),
    ("net_tls", "median", 1e-3, "TLS connection and handshake: CPU time, µs", False),
    ("echo", "median", 1e-3, "echo of 1 KiB, plain sockets, streams: CPU time, µs", False),
    ("idle", "median", 1e-6, "100 active beside 10,000 idle: p99, ms", False),
)
COLUMNS, WIDE, GAP, TOP = 2, 430, 30, 34
LABEL, NUMBER, BAR, STEP, HEAD = 120, 70, 13, 18, 22
OURS, OTHERS = "#0a8f8f", "#8b8fa3"


def runs(results: Path, tag: str) -> list[dict[str, Any]]:
    """The runs of one Python, those first that are looked at first."""
    found = []
    for group in GROUPS:
        for end in ("", "-part", "-quick", "-quick-part"):
            path = results / f"{tag}-{group}{end}.json"
            if path.exists():
                found.append(json.loads(path.read_text()))
    return found


def figures(found: list[dict[str, Any]], work: str, key: str) -> tuple[dict[str, float], int]:
    """A figure of a workload by implementation, of the first run that has it, and which that is."""
    for number, run in enumerate(found):
        entries = run["results"].get(work, {})
        known = {name: one[key] for name, one in entries.items() if one.get(key)}
        if len(known) > 1:
            return known, number
    return {}, -1


def said(run: dict[str, Any]) -> str:
    """Say where and how a run was made."""
    machine = run["machine"]
    return (
        f"Python {machine['python']}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['date'][:10]}: {machine['command']}"
    )


def text(figure: float) -> str:
    """Write a figure: short ones with a decimal."""
    return f"{figure:,.1f}" if figure < 100 else f"{figure:,.0f}"


def panel(left: int, top: int, title: str, bars: list[tuple[str, float]]) -> list[str]:
    """Draw one panel."""
    most = max(figure for _, figure in bars)
    room = WIDE - LABEL - NUMBER
    parts = [f'<text x="{left}" y="{top + 12}" font-weight="bold">{escape(title)}</text>']
    for i, (name, figure) in enumerate(bars):
        y = top + HEAD + i * STEP
        colour = OURS if name.startswith("gort") else OTHERS
        wide = room * figure / most
        parts.append(
            f'<text x="{left + LABEL - 6}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left + LABEL}" y="{y}" width="{wide:.1f}" height="{BAR}" fill="{colour}"/>'
            f'<text x="{left + LABEL + wide + 5:.1f}" y="{y + 11}">{text(figure)}</text>'
        )
    return parts


def draw(found: list[dict[str, Any]]) -> str:
    """Draw all panels that there are figures of; the best of each on top."""
    panels, used = [], []
    for work, key, factor, title, more in PANELS:
        known, number = figures(found, work, key)
        if known:
            if number not in used:
                used.append(number)
            bars = [(name, figure * factor) for name, figure in known.items()]
            title = f"{title} [{used.index(number) + 1}]"
            panels.append((title, sorted(bars, key=lambda bar: bar[1], reverse=more)))
    if not panels:
        raise LookupError("no results of services")
    parts = []
    for i, number in enumerate(used):
        line = f"[{i + 1}] {said(found[number])}; medians"
        parts.append(f'<text x="10" y="{18 + i * STEP}">{escape(line)}</text>')
    y = TOP + (len(used) - 1) * STEP
    for first in range(0, len(panels), COLUMNS):
        row = panels[first : first + COLUMNS]
        for i, (title, bars) in enumerate(row):
            parts += panel(10 + i * (WIDE + GAP), y, title, bars)
        y += HEAD + STEP * max(len(bars) for _, bars in row) + GAP
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * (WIDE + GAP)}" height="{y}"'
        ' font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([start, *parts, "</svg>\n"])


def main() -> int:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description="The picture of services.")
    parser.add_argument("tag", help="the Python whose results are drawn: 3.11")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or HERE.parent / "docs" / f"services-{options.tag}.svg"
    try:
        picture = draw(runs(options.results, options.tag))
    except LookupError as error:
        print(f"services.py: {error} for {options.tag} in {options.results}", file=sys.stderr)
        return 2
    out.write_text(picture, encoding="utf-8")
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
