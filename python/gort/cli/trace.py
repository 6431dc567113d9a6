"""`gort trace FILE`: a page with the timeline of an execution trace; `-o`: as JSON for Perfetto."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, BinaryIO

from gort._tracefile import TraceError, TraceFile
from gort.cli._output import complain, say
from gort.cli._trace_json import write_json
from gort.cli._trace_server import address, server
from gort.cli._trace_store import Store

if TYPE_CHECKING:
    from gort.cli._trace_model import Group

__all__ = ["add_arguments", "main"]

#: Groups that the summary names.
_MOST_ROWS = 30


def _address(text: str) -> tuple[str, int]:
    """Read --http's argument."""
    try:
        return address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort trace`."""
    parser.add_argument("file", help="a trace, as gort.trace or Go 1.22 and newer write them")
    parser.add_argument(
        "-o",
        "--json",
        metavar="OUT.json",
        help="write it as JSON for ui.perfetto.dev; -: to stdout",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--http",
        metavar="ADDR",
        type=_address,
        help="loopback HOST:PORT of the page (default: 127.0.0.1 and any free port)",
    )
    where.add_argument("--no-open", action="store_true", help="no page; a summary, without -o")


def main(options: argparse.Namespace) -> int:
    """Convert, and show; status 1: the file cannot be read or the output not be written."""
    try:
        with open(options.file, "rb") as file:
            return _shown(file, options)
    except TraceError as error:
        complain(f"gort trace: {options.file}: {error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"gort trace: {error}")
    return 1


def _shown(file: BinaryIO, options: argparse.Namespace) -> int:
    """Do what the options ask for with an open trace."""
    trace = TraceFile(file)
    if options.json is not None:
        _convert(trace, options)
        if options.no_open or options.json == "-":
            return 0
        file.seek(0)
        trace = TraceFile(file)
    store = Store(trace)
    if options.json is None:
        _warn(options.file, trace)
    if options.no_open:
        _summarise(store.groups)
        return 0
    return _serve(store, options.http or ("127.0.0.1", 0))


def _convert(trace: TraceFile, options: argparse.Namespace) -> None:
    """Write JSON."""
    if options.json == "-":
        write_json(trace, sys.stdout)
    else:
        with open(options.json, "w", encoding="utf-8") as out:
            write_json(trace, out)
    _warn(options.file, trace)


def _warn(path: str, trace: TraceFile) -> None:
    """Say what was wrong with the trace."""
    if trace.warning is not None:
        complain(f"gort trace: {path}: {trace.warning}")


def _summarise(groups: list[Group]) -> None:
    """Write the times of goroutines by start function, in seconds."""
    row = "{:>10} {:>12.6f} {:>12.6f} {:>12.6f} {:>12.6f}  {}"
    say("goroutines      running     runnable      syscall      blocked  start function")
    for group in groups[:_MOST_ROWS]:
        blocked = sum(group.blocked.values())
        times = (group.running, group.runnable, group.syscall, blocked)
        name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in group.name)
        say(row.format(group.count, *(ns / 1e9 for ns in times), name))
    if len(groups) > _MOST_ROWS:
        say(f"and {len(groups) - _MOST_ROWS} more")


def _serve(store: Store, where: tuple[str, int]) -> int:
    """Show the page until Ctrl-C."""
    import threading
    import webbrowser

    with server(store, *where) as at:
        say(f"{at.url} shows the trace; Ctrl-C ends it")
        # Beside the server: a browser in the terminal waits for the page.
        threading.Thread(target=webbrowser.open, args=(at.url,), daemon=True).start()
        try:
            at.serve_forever()
        except KeyboardInterrupt:
            say("")
    return 0
