"""Starting goroutines for the tests of gort.leak, and keeping no handle of them."""

from __future__ import annotations

import gort
from gort import leak
from waiting import eventually, is_parked


def start(fn, *args, **kwargs):
    """Start a goroutine; give its id once it is parked."""
    ident = gort.go(fn, *args, **kwargs).id
    wait_parked(ident)
    return ident


def by_id(ident):
    """The goroutine with this id, or None."""
    return next((g for g in gort.goroutines() if g.id == ident), None)


def is_waiting(ident):
    """Whether the goroutine of this id is parked."""
    g = by_id(ident)
    return g is not None and is_parked(g)


def wait_parked(*idents):
    """Wait until the goroutines of these ids are parked."""
    eventually(lambda: all(map(is_waiting, idents)), what="parked goroutines")


def found(**options):
    """The ids of the leaks there are."""
    return {one.id for one in leak.find(**options)}
