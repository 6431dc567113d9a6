"""Scheduling policies: who goes on first among those that are ready, and groups with quotas.

    >>> import gort
    >>> gort.set_policy("fair")
    'fifo'
    >>> gort.set_policy("fifo")
    'fair'

"fifo", the default, is Go's: first come, first served, and costs nothing. "mlfq" is a multi-level
feedback queue: higher priorities first, who computes much sinks below who waits much, and nobody
starves. "fair" shares CPU time by virtual run time; a priority is a weight, 1.25 times as much for
each step, and a group competes as one. Under "mlfq" and "fair" a goroutine that wakes interrupts
one that computes, if it goes before that one.
"""

from __future__ import annotations

import math

from gort._core import _Group, _set_policy, _set_schedstats, gosched, spawn
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal
    from weakref import WeakSet

    from gort._core import Goroutine
    from gort._typing import T

__all__ = ["Group", "get_policy", "gosched_when", "set_policy", "set_schedstats"]

_POLICIES = ("fifo", "mlfq", "fair")
_PERIOD_NS = 100_000_000
_WEIGHTS = (1, 10_000)


def set_policy(policy: Literal["fifo", "mlfq", "fair"], /) -> str:
    """Set the order in which goroutines that are ready go on, at once; return the previous one.

    GORT_POLICY sets the first one. Never blocks. The seeded mode (GORT_SEED) keeps an order of its
    own.

    Args:
        policy: "fifo", "mlfq" or "fair"; see this module.

    Raises:
        ValueError: there is no such policy.

    Example:
        >>> import gort
        >>> gort.set_policy("mlfq")
        'fifo'
        >>> gort.set_policy("fifo")
        'mlfq'
    """
    if policy not in _POLICIES:
        raise ValueError(f"no policy {policy!r}; there are {', '.join(map(repr, _POLICIES))}")
    return _POLICIES[_set_policy(_POLICIES.index(policy))]


def get_policy() -> str:
    """Return the policy in use, "fifo", "mlfq" or "fair".

    Example:
        >>> import gort
        >>> gort.get_policy()
        'fifo'
    """
    return _POLICIES[_set_policy(-1)]


def set_schedstats(on: bool, /) -> bool:
    """Measure run time, waits and migrations of each goroutine, or stop it; return what it was.

    Off at first, as Linux's kernel.sched_schedstats: it costs two looks at the clock for each
    switch. While a policy other than "fifo" is set, or a Group exists, it is measured in any case.
    See `Goroutine.stats`.

    Args:
        on: bool.

    Example:
        >>> import gort
        >>> gort.set_schedstats(True)
        False
        >>> g = gort.go(gort.Chan().recv)
        >>> gort.gosched()
        >>> g.stats()["runs"], g.cancel()
        (1, True)
        >>> gort.set_schedstats(False)
        True
    """
    return _set_schedstats(on)


def gosched_when(condition: bool | Callable[[], object], /) -> bool:
    """Let others run, as `gosched` does, if the condition holds; return whether it did.

    Args:
        condition: a value, or a callable without arguments that is asked.

    Raises:
        BaseException: whatever the callable raises.

    Example:
        >>> import gort
        >>> buffer = gort.Chan(8)
        >>> gort.gosched_when(lambda: len(buffer) < 2)
        True
    """
    if not (condition() if callable(condition) else condition):
        return False
    gosched()
    return True


def _checked(weight: int, quota: float | None) -> tuple[int, int]:
    """Check what a group is to have; return the weight, and the quota in ns of a period."""
    low, high = _WEIGHTS
    if isinstance(weight, bool) or not isinstance(weight, int):
        raise TypeError(f"a weight is an int, not {type(weight).__name__}")
    if not low <= weight <= high:
        raise ValueError(f"a weight is from {low} to {high}, not {weight}")
    if quota is None:
        return weight, 0
    if not (math.isfinite(quota) and 0.001 <= quota <= 1024):
        raise ValueError(f"a quota is from 0.001 to 1024 CPUs, or None, not {quota}")
    return weight, round(quota * _PERIOD_NS)


_known: WeakSet[Group] | None = None


def _groups() -> WeakSet[Group]:
    """The groups there are, for gort.metrics."""
    global _known
    if _known is None:
        from weakref import WeakSet  # none that `import gort` should wait for

        _known = WeakSet()
    return _known


class Group(_Group):
    """Goroutines that share a weight and a quota of CPU time, as a control group has them.

    What goroutines of the group start is of the group too. A group lives as long as anything
    refers to it, goroutines included. While there is one, run times are measured.

    Args:
        name: str, for people.
        weight: int from 1 to 10,000, as cgroup's cpu.weight: its share under the policy "fair",
            where goroutines without a group and of priority 0 have 100 each.
        quota: CPUs, a float from 0.001 to 1024, as cgroup's cpu.max: what all of the group
            together may use in each 100 ms, under every policy; None: as much as there is.

    Raises:
        TypeError: name is not a str, or weight not an int.
        ValueError: weight or quota is out of range.

    Example:
        >>> import gort
        >>> reports = gort.Group("reports", quota=0.2)
        >>> g = reports.go(sum, range(1000))
        >>> g.join(), g.group is reports
        (499500, True)
    """

    __slots__ = ("_quota", "_weight", "name")

    name: str
    _weight: int
    _quota: float | None

    def __new__(cls, name: str, *, weight: int = 100, quota: float | None = None) -> Group:
        """Make a group."""
        if not isinstance(name, str):
            raise TypeError(f"a group's name is a str, not {type(name).__name__}")
        self = super().__new__(cls, *_checked(weight, quota))
        self.name, self._weight, self._quota = name, weight, quota
        _groups().add(self)
        return self

    @property
    def weight(self) -> int:
        """Its share under the policy "fair"; may be set."""
        return self._weight

    @weight.setter
    def weight(self, weight: int) -> None:
        self._set(*_checked(weight, self._quota))
        self._weight = weight

    @property
    def quota(self) -> float | None:
        """CPUs it may use, or None; may be set."""
        return self._quota

    @quota.setter
    def quota(self, quota: float | None) -> None:
        self._set(*_checked(self._weight, quota))
        self._quota = quota

    def go(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Goroutine[T]:
        """Start `fn` as a goroutine of the group, as `gort.go` does; never blocks."""
        return spawn(fn, args, kwargs, group=self)

    def __repr__(self) -> str:
        """Show name, weight and quota."""
        return f"Group({self.name!r}, weight={self._weight}, quota={self._quota})"
