"""`gort run [--threads] [--trace=concurrency] app.py`: a script as the main goroutine."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from typing import TYPE_CHECKING

import gort
from gort.cli._output import complain

if TYPE_CHECKING:
    from gort.trace import Graph

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort run`."""
    parser.add_argument(
        "--threads", action="store_true", help="make the threads that the script starts goroutines"
    )
    parser.add_argument(
        "--trace",
        choices=["concurrency"],
        help="write who starts, sends to, waits for and locks whom, as Mermaid and SVG",
    )
    parser.add_argument(
        "--trace-out",
        metavar="PATH",
        default="concurrency",
        help="where, without the ending (default: concurrency, in the current directory)",
    )
    parser.add_argument("script", help="a Python file, or a directory or zip with __main__.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the script")


def main(options: argparse.Namespace) -> int:
    """Run the script as the main goroutine; exceptions and SystemExit pass through."""
    script: str = options.script
    if not os.path.exists(script):
        complain(f"gort run: no such file: {script}")
        return 2
    if options.threads:
        gort.threads.enable()
    sys.argv = [script, *options.arguments]
    if not sys.flags.safe_path:
        # As `python app.py` has it; for a directory or zip file run_path puts that in front.
        sys.path[0] = os.path.dirname(os.path.abspath(script))
    if options.trace is None:
        gort.run(runpy.run_path, script, run_name="__main__")
    else:
        _run_recorded(script, os.path.abspath(options.trace_out))
    return 0


def _run_recorded(script: str, path: str) -> None:
    """Run the script, and write its graph however it ends."""
    from gort.trace import Graph

    graph, process = Graph(), os.getpid()
    graph.start()
    try:
        gort.run(runpy.run_path, script, run_name="__main__")
    finally:
        if os.getpid() == process:  # not in a child that was forked, which has the frames, too
            graph.stop()
            _write(graph, path)


def _write(graph: Graph, path: str) -> None:
    """Write the graph: as steps, unless these are too many, and by objects."""
    try:
        views = [("", graph.mermaid(), graph.svg())]
        by_objects = graph.mermaid("objects")
        if by_objects != views[0][1]:
            views.append(("-objects", by_objects, graph.svg("objects")))
        for end, text, picture in views:
            for kind, content in (("mmd", text), ("svg", picture)):
                with open(f"{path}{end}.{kind}", "w", encoding="utf-8") as file:
                    file.write(content)
            complain(f"gort run: the graph is in {path}{end}.mmd and {path}{end}.svg")
    except OSError as error:
        complain(f"gort run: the graph could not be written: {error}")
