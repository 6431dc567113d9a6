"""How far the work is: a bar on a terminal, a line now and then elsewhere.

On a terminal rich draws the bar where it is installed (`pip install gort[cli]`); without it there
is a plain one. rich is told to start no thread of its own: whoever calls show() drives it.
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

__all__ = ["Progress"]

_PLAIN_SECONDS = 2.0  # between lines of progress when stdout is not a terminal
_CELLS = 30


def _rich_bar(total: int) -> Any:
    """A started bar of rich, or None where rich is not installed."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    columns = (TextColumn("  {task.description:<30}"), BarColumn(), MofNCompleteColumn())
    bar = RichProgress(*columns, auto_refresh=False, transient=True)
    bar.start()
    return bar


class Progress:
    """Shows how much of `total` is done, and at the end how long it took.

    Args:
        title: what is being done.
        total: how much there is of it.
        unit: what is counted.

    Example:
        >>> from gort.cli._progress import Progress
        >>> progress = Progress("reading", 3)
        >>> progress.done = 3
        >>> progress.end(0.25)
          reading: 3 files in 0.25 s
    """

    def __init__(self, title: str, total: int, unit: str = "files") -> None:
        """Begin with nothing of `total` done."""
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self._terminal = sys.stdout.isatty()
        self._next_line = perf_counter() + _PLAIN_SECONDS
        self._bar = _rich_bar(total) if self._terminal else None
        self._task = self._bar.add_task(title, total=total) if self._bar is not None else None

    def show(self) -> None:
        """Draw the bar, or print a line when it is time for one."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, refresh=True)
            return
        if self._terminal:
            filled = _CELLS * self.done // max(1, self.total)
            bar = "#" * filled + "." * (_CELLS - filled)
            sys.stdout.write(f"\r  {self.title:<30} {bar} {self.done:,} of {self.total:,} ")
        elif perf_counter() < self._next_line:
            return
        else:
            self._next_line = perf_counter() + _PLAIN_SECONDS
            sys.stdout.write(f"  {self.title}: {self.done:,} of {self.total:,} {self.unit}\n")
        sys.stdout.flush()

    def end(self, seconds: float) -> None:
        """Leave one line that says what was done."""
        start = ""
        if self._bar is not None:
            self._bar.stop()
        elif self._terminal:
            start = "\r\x1b[K"
        sys.stdout.write(f"{start}  {self.title}: {self.done:,} {self.unit} in {seconds:.2f} s\n")
        sys.stdout.flush()
