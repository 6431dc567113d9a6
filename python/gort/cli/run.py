"""`gort run [--threads] app.py [arguments]`: a script whose module body is the main goroutine."""

from __future__ import annotations

import argparse
import os
import runpy
import sys

import gort
from gort.cli._output import complain

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort run`."""
    parser.add_argument(
        "--threads", action="store_true", help="make the threads that the script starts goroutines"
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
    gort.run(runpy.run_path, script, run_name="__main__")
    return 0
