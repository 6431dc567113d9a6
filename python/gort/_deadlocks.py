"""`gort.deadlocks`, without what it needs: that is loaded when it is called."""

from __future__ import annotations

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gort.deadlock import Deadlock

__all__ = ["deadlocks"]


def deadlocks(*, channels: bool = True) -> list[Deadlock]:
    """Find goroutines that wait for each other in a cycle, while others run: gort.deadlock.find.

    By locks only those that are taken while `gort.deadlock.track` is on. Never parks.

    Args:
        channels: False leaves out what takes a look at all objects.

    Returns:
        The deadlocks, each once, in order of their least ids.

    Example:
        >>> import gort
        >>> g = gort.go(gort.Chan().recv)  # a leak, but no cycle
        >>> any(link.id == g.id for found in gort.deadlocks() for link in found.cycle)
        False
        >>> g.cancel()
        True
    """
    from gort import deadlock

    return deadlock.find(channels=channels)
