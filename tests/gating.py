"""Tasks that stay until a gate opens."""

from __future__ import annotations

import gort


class Gate:
    """Tasks that stay until it opens."""

    def __init__(self):
        self.ch = gort.Chan()
        self.inside = self.peak = 0

    def task(self, result=None):
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        self.ch.recv_ok()
        self.inside -= 1
        return result

    def open(self):
        self.ch.close()
