"""What `gort.gc.collect_unreachable` does: has goroutines end that can never run again.

The collector says when (`Finder.pass_is_over`); the work is done later, by a goroutine of its own,
so never in a pass and never on the stack of somebody who lets go of an object.
"""

from __future__ import annotations

import sys
from time import monotonic_ns

from gort import _core
from gort._typing import TYPE_CHECKING
from gort.leak import _HELD_HANDLES, Leak, _search

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SHARE = 0.05  # of the time that may go into looks
_BURST_NS = 200_000_000  # what they may take at once, after a while without any
_GROWTH = 1.25  # so many times as many goroutines as at the last look bring the next
_FEW = 64  # but so many more at least
_MOST = 1 << 16  # of a group that are ended by one look


class Finder:
    """Looks for goroutines that can never run again, and has them end.

    What one does as it ends (its `finally` blocks, finalizers of what it held) may bring others
    back: it can reach what those of its group wait for. So the first of each group is ended first.
    As long as all the others are found again by the next look, twice as many are ended by that.

    Args:
        report: called with each leak, once it was asked to end; None: nobody.
    """

    def __init__(self, report: Callable[[Leak], object] | None) -> None:
        """Begin without having looked."""
        self._report = report
        self._is_due = False
        self._credit = float(_BURST_NS)
        self._counted_at = _clock()
        self._goroutines = 0  # at the last look
        self._looking: _core.Goroutine[None] | None = None
        self._left: set[int] = set()  # ids of those the last look found and left alone
        self._size = 1

    def pass_is_over(self, is_full: bool) -> None:
        """A pass of the collector is over, and still held: start a goroutine that looks, if due."""
        grown = max(self._goroutines * _GROWTH, self._goroutines + _FEW)
        self._is_due = self._is_due or is_full or _core.num_goroutine() > grown
        if not self._is_due or not self._may_look() or _core._bubble_current():
            return
        if self._looking is None or self._looking.done:
            self._looking = _core.spawn(self._work, name="gort.gc")

    def _may_look(self) -> bool:
        """Whether looks have not taken more than their share of the time so far."""
        now = _clock()
        earned = (now - self._counted_at) * _SHARE
        self._credit = min(self._credit + earned, _BURST_NS)
        self._counted_at = now
        return self._credit > 0

    def _work(self) -> None:
        """Look, and again while there is more to do."""
        asked: set[int] = set()
        while True:
            self._is_due = False
            self._goroutines = _core.num_goroutine()
            began = _clock()
            leaks = self._end_some(asked)
            self._credit -= _clock() - began
            for leak in leaks:
                _core.spawn(self._tell, (leak,), name="gort.gc report")
            _core.gosched()  # they end now, if they do not wait for something
            if not self._left:
                return
            if not self._may_look():
                self._is_due = True  # by a later pass
                return

    def _tell(self, leak: Leak) -> None:
        """Call the report."""
        if self._report is not None:
            self._report(leak)

    def _end_some(self, asked: set[int]) -> list[Leak]:
        """Look once, and have some end that are not in `asked`, which they are after that."""
        groups: dict[int, list[tuple[_core.Goroutine[Any], list[object]]]] = {}
        # In a list that nobody else has: what a goroutine that runs refers to can be reached.
        for goroutine, waits_on, group in sorted(_search(_HELD_HANDLES), key=_by_id):
            groups.setdefault(group, []).append((goroutine, waits_on))
        found = {goroutine.id for pairs in groups.values() for goroutine, _ in pairs}
        if self._left <= found:
            self._size = min(self._size * 2, _MOST) if self._left else 1
        else:
            self._size = 1  # one that ended brought others back
        chosen = [
            pair
            for pairs in groups.values()
            for pair in [pair for pair in pairs if pair[0].id not in asked][: self._size]
        ]
        chosen.sort(key=_by_id)
        asked.update(goroutine.id for goroutine, _ in chosen)
        self._left = found - asked
        leaks = self._describe(chosen)
        ended = {goroutine.id for goroutine, _ in chosen if _core._end_leak(goroutine)}
        return [leak for leak in leaks if leak.id in ended]

    def _describe(self, chosen: list[tuple[_core.Goroutine[Any], list[object]]]) -> list[Leak]:
        """Say what is to be told of those that are about to be asked to end."""
        if self._report is None or not chosen:
            return []
        frames = sys._current_frames()
        return [Leak(g, waits_on, frames.get(_core._ident(g) or 0)) for g, waits_on in chosen]


def _by_id(found: tuple[Any, ...]) -> int:
    """What order goroutines are ended in."""
    ident: int = found[0].id
    return ident


#: How time is read; tests put another in its place.
_clock = monotonic_ns
