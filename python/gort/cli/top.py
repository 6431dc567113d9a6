"""`gort top [URL]`: what a program that runs `gort.pprof.serve` does, live on the terminal."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

from gort.cli._output import complain, say
from gort.cli._top_client import Away, Client, Refused
from gort.cli._top_figures import WRONG, Figures, History
from gort.cli._top_text import blockers, text

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort top`."""
    parser.add_argument(
        "url", nargs="?", default="127.0.0.1:6060", metavar="URL",
        help="where gort.pprof.serve listens (default: 127.0.0.1:6060)",
    )  # fmt: skip
    parser.add_argument("--token", help="the token it wants; http://any:TOKEN@host:port/ does, too")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="a file with that token")
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S", help="seconds between looks (1)"
    )
    parser.add_argument(
        "--seconds", type=int, default=10, metavar="N", help="length of CPU profiles (10)"
    )
    parser.add_argument(
        "--once", action="store_true", help="print the figures once, of one interval, and end"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: an object each interval, with --once one"
    )


def _seconds(words: str) -> float:
    """An interval."""
    value = float(words)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("from 0.1 to 3600 seconds")
    return value


def main(options: argparse.Namespace) -> int:
    """Show it until the user ends that; 0, 1 if nobody answers, 2 if it cannot be shown."""
    token: str | None = options.token
    try:
        if options.token_file is not None:
            token = options.token_file.read_text().strip()
        client = Client(options.url, token)
    except (OSError, ValueError) as error:
        complain(f"gort top: {options.token_file or options.url}: {error}")
        return 2
    if options.seconds < 1:
        complain("gort top: --seconds: at least 1")
        return 2
    once = options.once or not (options.json or (sys.stdout.isatty() and sys.stdin.isatty()))
    try:
        if options.json or once:
            return _print(client, options.interval, as_json=options.json, once=once)
        if importlib.util.find_spec("rich") is None:
            complain(
                "gort top: its screen needs rich: pip install 'gort[cli]' (or pip install rich).\n"
                "Without it there are `gort top --once` and `gort top --json`."
            )
            return 2
        from gort.cli._top_loop import Loop

        return Loop(client, options.interval, options.seconds).run()
    except KeyboardInterrupt:
        return 130
    except Away as error:
        complain(f"gort top: nobody answers at {client.base}: {error}")
        return 1
    except Refused as error:
        complain(f"gort top: {error}")
        return 2


def _print(client: Client, interval: float, *, as_json: bool, once: bool) -> int:
    """Print the figures of each interval, or of one."""
    history = History()
    figures = _figures(history, client)
    complained = False
    while True:
        time.sleep(interval)
        try:
            figures = _figures(history, client)
            answer = client.goroutines()
            _say(figures, answer, as_json)
            complained = False
        except Away as error:
            if once:
                raise
            if not complained:
                complain(f"gort top: nobody answers at {client.base}: {error}; trying again")
            complained = True
        if once:
            return 0


def _figures(history: History, client: Client) -> Figures:
    """Ask once."""
    try:
        return history.add(client.state())
    except WRONG as error:
        raise Refused(f"{client.base}gort/state.json is not gort's: {error!r}") from error


def _say(figures: Figures, answer: dict[str, Any], as_json: bool) -> None:
    """Print them."""
    try:
        if as_json:
            words = json.dumps({
                "time": time.time(),
                **figures.as_dict(),
                "blockers": blockers(answer),
                "blockers_skipped": bool(answer.get("skipped")),
            })  # fmt: skip
        else:
            words = text(figures, answer)
    except WRONG as error:
        raise Refused(f"the answer is not gort's: {error!r}") from error
    say(words)
