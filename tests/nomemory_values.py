"""What operations without memory share: values that are told apart, and what is said of an outcome."""

from __future__ import annotations

FAILED = object()
LIMIT = 10.0
#: What `gort.excepthook` was told.
reported: list[object] = []


class Value:
    """Something that can be lost."""


def add(a, b=0):
    """Body of goroutines."""
    return a + b


def leave_pairs():
    """Let many pairs be free: CPython 3.11 to 3.15 crashes where an iterator over a dict's items is refused its own.

    It untracks what it has not tracked yet (dictiter_new, dictiter_dealloc).
    """
    pairs = [(n, None) for n in range(1500)]
    del pairs


def use_up_tuples():
    """CPython keeps up to 2,000 tuples of each size: while these live, a new one needs memory."""
    return [tuple([size] * size) for size in (2, 3) for _ in range(2100)]
