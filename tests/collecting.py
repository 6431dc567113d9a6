"""What tests of the collector let it find, and how they have it look for goroutines."""

from __future__ import annotations

import gc

import gort
from waiting import eventually


def look(times=1):
    """Collect, and wait until somebody has looked for goroutines since, and all of that is over."""
    for _ in range(times):
        finder = gort.gc._finder
        eventually(lambda: finder._looking is None or finder._looking.done)
        gc.collect()
        eventually(lambda: finder._looking is not None and finder._looking.done)


class Loop:
    """A cycle of its own, which only the collector finds."""

    at_end = None

    def __init__(self, at_end=None):
        self.itself = self
        self.at_end = at_end

    def __del__(self):
        if self.at_end is not None:
            self.at_end()
