"""What tests of the collector let it find."""

from __future__ import annotations


class Loop:
    """A cycle of its own, which only the collector finds."""

    at_end = None

    def __init__(self, at_end=None):
        self.itself = self
        self.at_end = at_end

    def __del__(self):
        if self.at_end is not None:
            self.at_end()
