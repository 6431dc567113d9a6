"""The screen of `gort top`: what rich draws of the figures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gort.cli._top_figures import Figures, age, clean, number, rate
from gort.cli._top_text import blockers, headline, health, sections

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["KEYS", "View"]

KEYS = (
    "q quit  d dump to file  v view dump  c CPU profile  o order  g look now  "
    "arrows, Enter: stack  space pause  +/- interval"
)
_BARS = " ▁▂▃▄▅▆▇█"
_POINTS = 240
#: From how many columns on so many tables are side by side.
_PER_ROW = ((124, 5), (72, 3), (50, 2), (0, 1))
#: Lines of a screen that has room for all tables.
_TALL = 28


class View:
    """What is on the screen.

    Attributes:
        figures: the last ones, or None.
        answer: the last look at the goroutines, or None.
        error: why there are no new figures; empty while there are.
        message: what the last key did.
        order: "count" or "longest".
        selected: which group is, from 0 on.
        is_open: whether its stack is shown.
        is_paused: whether nothing new is asked for.
    """

    def __init__(self, base: str) -> None:
        """Begin without figures."""
        self.base = base
        self.figures: Figures | None = None
        self.answer: dict[str, Any] | None = None
        self.error = self.message = ""
        self.order = "count"
        self.selected = 0
        self.is_open = self.is_paused = False
        self.interval = 1.0
        self._goroutines: deque[float] = deque(maxlen=_POINTS)
        self._switches: deque[float] = deque(maxlen=_POINTS)

    def add(self, figures: Figures) -> None:
        """Show these from now on."""
        self.figures, self.error = figures, ""
        if figures.rates:
            self._goroutines.append(figures.state["goroutines"]["total"])
            self._switches.append(figures.rates["switches"])
        else:
            self._goroutines.clear()
            self._switches.clear()

    def groups(self) -> list[dict[str, Any]]:
        """Give the groups in their order."""
        return blockers(self.answer or {}, self.order)

    def draw(self, width: int, height: int) -> RenderableType:
        """Draw all of it in so many columns and lines."""
        parts: list[RenderableType] = [self._title()]
        if self.figures is None:
            parts.append(Text("waiting for the first answer", style="dim"))
        else:
            parts += [Text(headline(self.figures), style="dim", no_wrap=True, overflow="ellipsis")]
            parts.append(self._health(self.figures))
            tables = self._tables(self.figures, width)
            if height < _TALL:  # what goroutines do comes before the rest of the figures
                tables = tables[:1]
            lines = self._lines(width) if height >= _TALL else []
            parts += [*tables, *lines]
            parts += self._blockers(max(height - 4 - 6 * len(tables) - len(lines), 2))
        style = "bold" if self.message else "dim"
        parts.append(Text(self.message or KEYS, style=style, no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _title(self) -> Text:
        """Where that is, and whether it answers."""
        title = Text("gort top ", style="bold", no_wrap=True, overflow="ellipsis")
        title.append(self.base, style="not bold")
        if self.error:
            title.append(f"  NO ANSWER: {clean(self.error)}; trying again", style="bold red")
        elif self.is_paused:
            title.append("  PAUSED", style="bold yellow")
        else:
            title.append(f"  every {self.interval:g} s", style="not bold dim")
        return title

    def _health(self, figures: Figures) -> Text:
        """How it is."""
        words = health(figures)
        style = "green" if words == "ok" else "bold yellow"
        return Text(f"health: {words}", style=style, no_wrap=True, overflow="ellipsis")

    def _tables(self, figures: Figures, width: int) -> list[RenderableType]:
        """The figures, as many side by side as there is room for."""
        tables = []
        for title, pairs in sections(figures):
            table = Table(
                box=None, show_header=False, title=title, title_justify="left", pad_edge=False,
                title_style="bold",
            )  # fmt: skip
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True)
            for name, value in pairs:
                table.add_row(name, Text(value))
            tables.append(table)
        per_row = next(count for least, count in _PER_ROW if width >= least)
        rows: list[RenderableType] = []
        for first in range(0, len(tables), per_row):
            grid = Table.grid(padding=(0, 3, 0, 0))
            grid.add_row(*tables[first : first + per_row])
            rows.append(grid)
        return rows

    def _lines(self, width: int) -> list[RenderableType]:
        """Goroutines and switches over time."""
        lines: list[RenderableType] = []
        for name, values, write in (
            ("goroutines", self._goroutines, number),
            ("switches", self._switches, rate),
        ):
            room = max(width - 28, 8)
            shown = list(values)[-room:]
            line = Text(f"{name:<11}", style="dim", no_wrap=True, overflow="crop")
            line.append(spark(shown), style="not dim cyan")
            if shown:
                line.append(f" 0..{write(max(shown))}", style="dim")
            lines.append(line)
        return lines

    def _blockers(self, room: int) -> list[RenderableType]:
        """What goroutines wait for, and where."""
        answer = self.answer
        if answer is None:
            return [Text("")]
        if answer.get("skipped"):
            words = f"{number(answer['total'])} goroutines: press g to look at them one by one"
            return [Text(words, style="yellow")]
        groups = self.groups()
        self.selected = min(self.selected, max(len(groups) - 1, 0))
        stack = groups[self.selected]["stack"] if groups and self.is_open else []
        stack = stack[: max(room // 2, 1)]
        rows = max(room - 1 - len(stack), 1)
        first = max(0, self.selected - rows + 1)
        table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
        table.add_column("count", justify="right", no_wrap=True, min_width=6)
        table.add_column("state", no_wrap=True, max_width=26)
        table.add_column("longest", justify="right", no_wrap=True, min_width=7)
        table.add_column("where", ratio=1, no_wrap=True, overflow="ellipsis")
        for at, group in enumerate(groups[first : first + rows], first):
            longest = age(group["longest_s"]) if group["longest_s"] else "-"
            table.add_row(
                Text(number(group["count"])), Text(group["state"]), Text(longest),
                Text(group["where"]), style="reverse" if at == self.selected else "",
            )  # fmt: skip
            if at == self.selected:
                for frame in stack:
                    table.add_row("", "", "", Text(f"  {frame}", style="dim"))
        return [table]


def spark(values: list[float]) -> str:
    """Give values as bars of eight heights, from 0 to the greatest.

    Example:
        >>> from gort.cli._top_screen import spark
        >>> spark([0, 4, 8])
        ' ▄█'
    """
    most = max(values, default=0) or 1
    return "".join([_BARS[round(8 * max(value, 0) / most)] for value in values])
