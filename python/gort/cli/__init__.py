"""The command line: `gort run`, `serve`, `trace`, `top`, `demo`, `bench`, `doctor`.

Each command is a module with `add_arguments(parser)` and `main(options) -> exit status`, imported
only when it is the one asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

import gort

__all__ = ["main"]

_COMMANDS = {
    "run": "run a script as the main goroutine",
    "serve": "serve a WSGI application on watched worker processes",
    "trace": "show an execution trace: a timeline in the browser, or JSON for Perfetto",
    "top": "what a program that runs gort.pprof.serve does, live on the terminal",
    "demo": "goroutines beside threads: files, a million parked, an HTTP service; --million",
    "bench": "measure spawn, round trip and gosched on this machine, or how late goroutines run",
    "doctor": "print what this Python, kernel and CPU give",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv[1:]) and return the exit status.

    Example:
        >>> from gort.cli import main
        >>> main(["doctor"])  # doctest: +ELLIPSIS
        gort ...
        0
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="gort", description="Goroutines for CPython.")
    parser.add_argument("--version", action="version", version=f"gort {gort.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, text in _COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text)
        if argv[:1] == [name]:
            import_module(f"gort.cli.{name}").add_arguments(one)
    options = parser.parse_args(argv)
    command = import_module(f"gort.cli.{options.command}")
    if options.command == "run":
        status: int = command.main(options)
        return status
    try:
        status = command.main(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as with `gort doctor | head`: nothing is left to write at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    return status
