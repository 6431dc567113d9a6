"""Writing for the user of the command line."""

from __future__ import annotations

import sys

__all__ = ["complain", "say"]


def say(text: str) -> None:
    """Write a line to stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(text + "\n")
