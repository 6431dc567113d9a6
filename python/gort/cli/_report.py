"""The table and the HTML page of `gort demo`: the same figures twice."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

__all__ = ["COLUMNS", "Row", "page", "table"]

COLUMNS = ("gort goroutines", "one thread per file", "concurrent.futures")
_COLOURS = ("#00818a", "#c9704b", "#8a8a8a")
_BAR_PIXELS = 420

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>gort demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.05em; margin: 1.6em 0 .3em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .25em .9em; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
svg { max-width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; } td, th { border-color: #444; }
  svg text { fill: #ddd; } }
</style></head><body>
"""


@dataclass(frozen=True)
class Row:
    """One line of figures: what they are, and one per column (None where there is none)."""

    title: str
    figures: tuple[float | None, float | None, float | None]
    decimals: int = 0
    chart: bool = False  # worth a picture: less is better

    def text(self, index: int) -> str:
        """Write the figure of a column."""
        figure = self.figures[index]
        return "-" if figure is None else f"{figure:,.{self.decimals}f}"


def table(rows: list[Row]) -> str:
    """Write the rows as a plain text table."""
    width = max(len(row.title) for row in rows)
    lines = [f"{'':<{width}}" + "".join(f"{column:>22}" for column in COLUMNS)]
    lines.append("-" * len(lines[0]))
    for row in rows:
        cells = "".join(f"{row.text(i):>22}" for i in range(len(COLUMNS)))
        lines.append(f"{row.title:<{width}}{cells}")
    return "\n".join(lines)


def _bars(row: Row) -> str:
    """Draw the figures of a row as an SVG with one bar each."""
    shown = [i for i, figure in enumerate(row.figures) if figure is not None]
    most = max((row.figures[i] or 0.0 for i in shown), default=0.0) or 1.0
    height = 28 * len(shown)
    parts = [
        (
            f'<svg viewBox="0 0 760 {height}" width="760" height="{height}" role="img" '
            f'aria-label="{escape(row.title, quote=True)}">'
        )
    ]
    for line, i in enumerate(shown):
        y = 28 * line
        length = max(1.0, _BAR_PIXELS * (row.figures[i] or 0.0) / most)
        parts.append(
            f'<text x="0" y="{y + 17}">{escape(COLUMNS[i])}</text>'
            f'<rect x="160" y="{y + 3}" width="{length:.1f}" height="20" rx="2" '
            f'fill="{_COLOURS[i]}"/>'
            f'<text x="{168 + length:.1f}" y="{y + 17}">{row.text(i)}</text>'
        )
    return "".join(parts) + "</svg>"


def page(rows: list[Row], notes: list[str]) -> str:
    """Write the rows as a self-contained HTML page: bars, the table, and the notes."""
    parts = [_HEAD, "<h1>gort demo</h1>\n"]
    parts += [f"<p>{escape(note)}</p>\n" for note in notes]
    parts += [
        f"<h2>{escape(row.title)}: less is better</h2>\n{_bars(row)}\n" for row in rows if row.chart
    ]
    parts.append("<h2>All figures</h2>\n<table><tr><th></th>")
    parts += [f"<th>{escape(column)}</th>" for column in COLUMNS]
    parts.append("</tr>\n")
    for row in rows:
        cells = "".join(f"<td>{row.text(i)}</td>" for i in range(len(COLUMNS)))
        parts.append(f"<tr><td>{escape(row.title)}</td>{cells}</tr>\n")
    parts.append("</table></body></html>\n")
    return "".join(parts)
