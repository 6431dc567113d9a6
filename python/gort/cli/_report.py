"""The table and the HTML page of `gort demo`: the same figures twice; what other pages share.

The page needs nothing but itself: no script, no font, no picture from elsewhere. Every chart begins
at zero, has its unit on the axis and says what is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import floor, log10

__all__ = ["COLUMNS", "Bar", "Grid", "Row", "bars", "card", "grid", "head", "page", "table"]

COLUMNS = ("gort goroutines", "one thread per file", "concurrent.futures")
_PLAIN = ("goroutines", "threads", "futures")  # for charts that are not about files
_COLOURS = ("#0a8f8f", "#d9773f", "#8b8fa3")
_WIDTH, _LEFT, _BARS, _LINE = 640, 150, 380, 30  # pixels: the chart, its labels, its bars, a bar

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { --ink: #1f2430; --soft: #667085; --line: #e4e7ec; --page: #f6f7f9; --card: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --soft: #98a1b3; --line: #333a48; --page: #14171d; --card: #1c2129; } }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, sans-serif; margin: 0; color: var(--ink);
       background: var(--page); }
main { max-width: 1360px; margin: 0 auto; padding: 2.2em 1.4em 3em; }
h1 { font-size: 1.7em; margin: 0 0 .2em; } h2 { font-size: 1.15em; margin: 2em 0 .7em; }
h3 { font-size: 1em; margin: 0 0 .1em; }
p { margin: .25em 0; max-width: 75em; } .soft { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
         gap: 1em; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
        padding: 1em 1.2em; overflow-x: auto; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); font-size: 11.5px; } svg line { stroke: var(--line); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { padding: .38em .9em; border-bottom: 1px solid var(--line); text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:last-child td { border: 0; }
th { font-weight: 600; white-space: nowrap; }
</style></head><body><main>
"""


@dataclass(frozen=True)
class Row:
    """One line of figures: what they are, and one per column (None where there is none)."""

    title: str
    figures: tuple[float | None, float | None, float | None]
    decimals: int = 0
    unit: str = ""  # a row with a unit is drawn as well; less of it is better

    @property
    def heading(self) -> str:
        """What the figures are, with their unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def text(self, index: int) -> str:
        """Write the figure of a column."""
        figure = self.figures[index]
        return "-" if figure is None else f"{figure:,.{self.decimals}f}"


@dataclass(frozen=True)
class Grid:
    """A table of texts: its heads, and lines that each begin with what they are about."""

    title: str
    heads: tuple[str, ...]
    lines: list[tuple[str, ...]]


def grid(one: Grid) -> str:
    """Write a grid as a plain text table.

    Example:
        >>> from gort.cli._report import Grid, grid
        >>> print(grid(Grid("costs", ("what", "euros"), [("tea", "2"), ("coffee", "3")])))
        what    euros
        -------------
        tea         2
        coffee      3
    """
    columns = list(zip(one.heads, *one.lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    texts = []
    for line in (one.heads, *one.lines):
        first, *others = zip(line, widths, strict=True)
        texts.append(first[0].ljust(first[1]) + "".join("  " + c.rjust(w) for c, w in others))
    texts.insert(1, "-" * len(texts[0]))
    return "\n".join(texts)


def table(rows: list[Row]) -> str:
    """Write the rows as a plain text table."""
    width = max(len(row.heading) for row in rows)
    lines = [f"{'':<{width}}" + "".join(f"{column:>22}" for column in COLUMNS)]
    lines.append("-" * len(lines[0]))
    for row in rows:
        cells = "".join(f"{row.text(i):>22}" for i in range(len(COLUMNS)))
        lines.append(f"{row.heading:<{width}}{cells}")
    return "\n".join(lines)


def _ticks(most: float) -> list[float]:
    """Round values for an axis from zero to at least `most`: four to six of them."""
    unit = 10.0 ** floor(log10(most))
    step = next(s * unit for s in (0.2, 0.5, 1.0, 2.0) if most / (s * unit) <= 5)
    ticks = [0.0]
    while ticks[-1] < most:
        ticks.append(ticks[-1] + step)
    return ticks


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: whose it is, how long, what stands at its end, and its colour."""

    name: str
    figure: float
    text: str
    colour: str


def bars(title: str, unit: str, every: list[Bar]) -> str:
    """Draw bars over an axis from zero, as an SVG picture.

    Example:
        >>> from gort.cli._report import Bar, bars
        >>> picture = bars("time", "s", [Bar("a", 1.5, "1.5", "#000"), Bar("b", 3, "3.0", "#888")])
        >>> picture.count("<rect")
        2
    """
    ticks = _ticks(max((bar.figure for bar in every), default=0.0) or 1.0)
    bottom = _LINE * len(every) + 6
    scale = _BARS / ticks[-1]
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 38}" role="img" '
        f'aria-label="{escape(title, quote=True)}">'
    ]
    for tick in ticks:
        x = _LEFT + tick * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>'
            f'<text class="soft" x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{tick:,.10g}</text>"
        )
    for line, bar in enumerate(every):
        y = _LINE * line + 4
        length = max(1.0, bar.figure * scale)
        parts.append(
            f'<text x="{_LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(bar.name)}</text>'
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_LINE - 8}" rx="3" '
            f'fill="{bar.colour}"/>'
            f'<text x="{_LEFT + length + 8:.1f}" y="{y + 16}">{escape(bar.text)}</text>'
        )
    parts.append(
        f'<text class="soft" x="{_LEFT + _BARS / 2:.0f}" y="{bottom + 33}" text-anchor="middle">'
        f"{escape(unit)} (less is better)</text></svg>"
    )
    return "".join(parts)


def _chart(row: Row) -> str:
    """Draw the figures of a row."""
    shown = [(i, figure) for i, figure in enumerate(row.figures) if figure is not None]
    names = COLUMNS if len(shown) == len(COLUMNS) else _PLAIN
    every = [Bar(names[i], figure, row.text(i), _COLOURS[i]) for i, figure in shown]
    return bars(row.heading, row.unit, every)


def head(title: str) -> str:
    """Begin a page."""
    return _HEAD.replace("{title}", escape(title)) + f"<h1>{escape(title)}</h1>\n"


def card(one: Grid) -> str:
    """Write a grid as a card of a page."""
    parts = [f'<h2>{escape(one.title)}</h2>\n<div class="card"><table><tr>']
    parts += [f"<th>{escape(head)}</th>" for head in one.heads]
    parts.append("</tr>\n")
    for line in one.lines:
        parts.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>\n")
    parts.append("</table></div>\n")
    return "".join(parts)


def page(rows: list[Row], notes: list[str], *more: Grid) -> str:
    """Write the rows as a self-contained HTML page: notes, charts and the table.

    Args:
        rows: the figures; those with a unit are drawn.
        notes: sentences; the first stands under the title.
        more: further tables.

    Example:
        >>> text = page([Row("time", (1.0, 2.5, None), 1, "s")], ["measured"])
        >>> "2.5" in text and "http" not in text
        True
    """
    parts = [head("gort demo")]
    parts += [
        f"<p{' class=soft' if number else ''}>{escape(note)}</p>\n"
        for number, note in enumerate(notes)
    ]
    parts.append('<h2>Pictures</h2>\n<div class="cards">\n')
    parts += [
        f'<div class="card"><h3>{escape(row.title)}</h3>{_chart(row)}</div>\n'
        for row in rows
        if row.unit
    ]
    parts.append("</div>\n")
    lines = [(row.heading, *(row.text(i) for i in range(len(COLUMNS)))) for row in rows]
    parts.append(card(Grid("All figures", ("", *COLUMNS), lines)))
    parts += [card(one) for one in more]
    parts.append("</main></body></html>\n")
    return "".join(parts)
