"""The loop of `gort top`: goroutines ask, the main one draws and reads keys."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
import time
import tty
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live

import gort
from gort.cli._top_client import Away, Client, Refused
from gort.cli._top_figures import WRONG, History
from gort.cli._top_screen import View
from gort.cli._top_text import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Loop"]

#: We take at most one part in so many of the program's time.
_COST = 20
#: Seconds between looks while nobody answers.
_AGAIN = 1.0
_MOST = 99_999_999
#: A key that sends several characters, or one that sends one.
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.S)
_UP, _DOWN = ("\x1b[A", "\x1bOA", "k"), ("\x1b[B", "\x1bOB", "j")


class _Ended(Exception):
    """A signal or the end of the input ends it."""


class Loop:
    """Shows what a program does until somebody presses q.

    Goroutines that ask put what they got into a queue and write a byte into a pipe, which the main
    one waits for together with the keyboard; so do signals.
    """

    def __init__(self, client: Client, interval: float, seconds: int) -> None:
        """Begin with nothing; `run` does the rest.

        Args:
            client: whom to ask.
            interval: seconds between looks.
            seconds: the length of CPU profiles.
        """
        self._client, self._seconds = client, seconds
        self._view = View(client.base)
        self._view.interval = interval
        self._history = History()
        self._events: deque[Callable[[], None]] = deque()
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._is_profiling = False
        self._status: int | None = None
        self._first: Exception | None = None

    def run(self) -> int:
        """Show it; the exit status.

        Raises:
            Refused: the first answer is not that of gort.pprof.
        """
        console = Console()
        with self._terminal():
            live = Live(console=console, screen=True, auto_refresh=False)
            with live:
                gort.go(self._ask_state)
                gort.go(self._ask_goroutines)
                try:
                    self._rounds(console, live)
                except _Ended:
                    self._status = 0
        if self._first is not None:
            raise self._first
        return self._status or 0

    def _rounds(self, console: Console, live: Live) -> None:
        """Draw, wait for something, and do it, until there is a status."""
        while self._status is None and self._first is None:
            size = console.size
            live.update(self._view.draw(size.width, size.height), refresh=True)
            ready, _, _ = select.select([sys.stdin, self._out], [], [], 60)
            if self._out in ready:
                os.read(self._out, 4096)
            while self._events:
                self._events.popleft()()
            if sys.stdin in ready:
                words = os.read(sys.stdin.fileno(), 64)
                if not words:
                    raise _Ended
                for key in _KEY.findall(words.decode("utf-8", "replace")):
                    self._key(key, live)

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        """Have keys come one by one and signals wake the loop; put back what was."""
        fd = sys.stdin.fileno()
        settings = termios.tcgetattr(fd)
        before = {
            number: signal.signal(number, self._signalled)
            for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            tty.setcbreak(fd)
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, settings)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, _: object) -> None:
        """Draw anew for another size; end for what ends programs."""
        if number != signal.SIGWINCH:
            self._post(lambda: self._end(128 + number))
        else:
            self._post(lambda: None)

    def _end(self, status: int) -> None:
        """Have the loop end."""
        self._status = status

    def _post(self, event: Callable[[], None]) -> None:
        """Have the main goroutine do something, soon."""
        self._events.append(event)
        try:
            os.write(self._in, b"!")
        except BlockingIOError:
            return  # it is full of wake-ups already

    # What asks: goroutines.

    def _ask_state(self) -> None:
        """Ask for the figures again and again."""
        while True:
            pause = self._view.interval
            if not self._view.is_paused:
                pause = max(pause, self._ask_once())
            time.sleep(pause)

    def _ask_once(self) -> float:
        """Ask for them; how long to wait at least."""
        try:
            state = self._client.state()
            figures = self._history.add(state)
            text(figures, {})  # whatever is wrong in it comes out here
            cost = _COST * float(state["cost_ns"]) / 1e9
        except (Away, Refused, *WRONG) as error:
            failed = error
            self._post(lambda: self._failed(failed))
            return _AGAIN
        self._post(lambda: self._view.add(figures))
        return cost

    def _failed(self, error: Exception) -> None:
        """There are no figures: at first that ends it where trying again is no use."""
        if isinstance(error, WRONG):
            error = Refused(f"{self._client.base}gort/state.json is not gort's: {error!r}")
        if self._view.figures is None and isinstance(error, Refused):
            self._first = error
        self._view.error = str(error)

    def _ask_goroutines(self) -> None:
        """Ask what goroutines do again and again, less often where that takes long."""
        while True:
            pause = 2 * self._view.interval
            if not self._view.is_paused:
                pause = max(pause, self._look(None))
            time.sleep(pause)

    def _look(self, most: int | None) -> float:
        """Ask once; how long to wait at least."""
        try:
            answer = self._client.goroutines(most)
            cost = _COST * float(answer.get("cost_ns", 0)) / 1e9
        except (Away, Refused, *WRONG):
            return _AGAIN  # who asks for the figures says so
        self._post(lambda: self._looked(answer))
        return cost

    def _looked(self, answer: dict[str, Any]) -> None:
        """Show what goroutines do, unless an answer without them is to hide what was asked for."""
        before = self._view.answer
        if answer.get("skipped") and before is not None and not before.get("skipped"):
            return
        self._view.answer = answer
        try:
            self._view.groups()
        except WRONG:
            self._view.answer = before

    # Keys.

    def _key(self, words: str, live: Live) -> None:
        """Do what a key says."""
        view = self._view
        view.message = ""
        simple: dict[str, Callable[[], object]] = {
            "q": lambda: self._end(0),
            "d": lambda: gort.go(self._dump),
            "v": lambda: self._page(live),
            "c": self._profile,
            "g": lambda: gort.go(self._look, _MOST),
            "o": self._reorder,
            "\n": self._open,
            "\r": self._open,
            " ": self._pause,
            "+": lambda: self._pace(2),
            "-": lambda: self._pace(0.5),
        }
        if words in _UP or words in _DOWN:
            view.selected = max(view.selected + (1 if words in _DOWN else -1), 0)
        elif words in simple:
            simple[words]()

    def _reorder(self) -> None:
        """Those that are many first, or those that wait long."""
        view = self._view
        view.order = "longest" if view.order == "count" else "count"
        view.message = f"order: {view.order}"

    def _open(self) -> None:
        """Show the stack of the group that is selected, or hide it."""
        self._view.is_open = not self._view.is_open

    def _pause(self) -> None:
        """Ask for nothing new, or go on."""
        self._view.is_paused = not self._view.is_paused

    def _pace(self, factor: float) -> None:
        """Look more or less often."""
        view = self._view
        view.interval = min(max(view.interval * factor, 0.125), 60.0)

    def _say(self, words: str) -> None:
        """Show a message."""
        self._post(lambda: setattr(self._view, "message", words))

    def _write(self, kind: str, suffix: str, data: bytes) -> None:
        """Write a file that is not there yet, and say which."""
        figures = self._view.figures
        pid = int(figures.state["process"]["pid"]) if figures is not None else 0
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for number in range(1000):
            more = f"-{number}" if number else ""
            name = f"gort-{kind}-{pid}-{stamp}{more}{suffix}"
            try:
                with open(name, "xb") as file:
                    file.write(data)
            except FileExistsError:
                continue
            self._say(f"{len(data):,} bytes written to {name}")
            return

    def _dump(self) -> None:
        """Write a dump of the goroutines to a file."""
        try:
            self._write("dump", ".txt", self._client.dump())
        except (Away, Refused, OSError) as error:
            self._say(f"no dump: {error}")

    def _profile(self) -> None:
        """Begin to take a CPU profile, which ends in a file."""
        if not self._is_profiling:
            self._is_profiling = True
            self._view.message = f"taking a CPU profile of {self._seconds} s"
            gort.go(self._take)

    def _take(self) -> None:
        """Take it."""
        try:
            self._write("cpu", ".pb.gz", self._client.profile(self._seconds))
        except (Away, Refused, OSError) as error:
            self._say(f"no profile: {error}")
        finally:
            self._is_profiling = False

    def _page(self, live: Live) -> None:
        """Show a dump in the pager, which has the terminal meanwhile."""
        command = shlex.split(os.environ.get("PAGER") or "less")
        try:
            data = self._client.dump()
            with tempfile.NamedTemporaryFile(suffix=".txt") as file:
                file.write(data)
                file.flush()
                live.stop()
                try:
                    subprocess.run([*command, file.name], check=False)
                finally:
                    live.start()
        except (Away, Refused, OSError) as error:
            self._view.message = f"no dump to view: {error}"
