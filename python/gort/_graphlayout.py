"""Where boxes and arrows of a drawing stand: in rows, arrows downwards where that can be.

An arrow over several rows has a place in each of them, so that it passes between boxes. Rows are
put in an order with few crossings by looking at the neighbours above and below in turn.
"""

from __future__ import annotations

import itertools

__all__ = ["HIGH", "Layout"]

#: Pixels: a box's height, between boxes, around all, a place of an arrow, a line of words.
HIGH, _BETWEEN, _EDGE, _THIN, _LINE = 34, 26, 20, 12, 13
_TURNS = 8


class Layout:
    """Finds places for boxes of given widths, and for arrows between them.

    Args:
        wide: pixels of each box.
        pairs: arrows, each once, as indices of boxes.
        lines: of words at an arrow, at most.
    """

    def __init__(self, wide: list[float], pairs: list[tuple[int, int]], lines: int) -> None:
        """Do all of it."""
        after: list[list[int]] = [[] for _ in wide]
        for start, end in pairs:
            if start != end:
                after[start].append(end)
        self._depth = _depths(after)
        self._wide = list(wide)
        self._down = 60 + _LINE * lines
        self._above: list[list[int]] = [[] for _ in wide]
        self._below: list[list[int]] = [[] for _ in wide]
        self._chains = {pair: self._chain(*pair) for pair in pairs}
        self._rows: list[list[int]] = [[] for _ in range(max(self._depth, default=0) + 1)]
        for i, depth in enumerate(self._depth):
            self._rows[depth].append(i)
        self._sort()
        #: Left of each box, and top.
        self.left = self._place()
        self.top = [_EDGE + depth * (HIGH + self._down) for depth in self._depth]
        self.height = len(self._rows) * (HIGH + self._down) - self._down + 2 * _EDGE
        if any(self._is_level(pair) for pair in pairs):
            self.height += self._down
        self._ports = self._spread()
        #: What of the picture is used, from left to right.
        self.least, self.most = 0.0, self.width
        self._taken: dict[tuple[float, int], list[tuple[float, float]]] = {}

    def _is_level(self, pair: tuple[int, int]) -> bool:
        """Whether an arrow stays in its row."""
        return self._depth[pair[0]] == self._depth[pair[1]]

    def _chain(self, start: int, end: int) -> list[int]:
        """Make places for an arrow in the rows between; gives all it passes, from above."""
        top, bottom = sorted((start, end), key=lambda i: self._depth[i])
        if self._depth[top] == self._depth[bottom]:
            return [start, end]
        chain = [top]
        for depth in range(self._depth[top] + 1, self._depth[bottom]):
            chain.append(len(self._wide))
            self._wide.append(_THIN)
            self._depth.append(depth)
            self._above.append([])
            self._below.append([])
        chain.append(bottom)
        for above, below in itertools.pairwise(chain):
            self._below[above].append(below)
            self._above[below].append(above)
        return chain

    def _sort(self) -> None:
        """Put each row in an order."""
        place = {i: float(at) for row in self._rows for at, i in enumerate(row)}
        for turn in range(_TURNS):
            near = self._below if turn % 2 else self._above
            for row in reversed(self._rows) if turn % 2 else self._rows:
                wanted = {
                    i: sum(place[n] for n in near[i]) / len(near[i]) if near[i] else place[i]
                    for i in row
                }
                row.sort(key=wanted.__getitem__)
                place.update({i: float(at) for at, i in enumerate(row)})

    def _place(self) -> list[float]:
        """Find the left of each: below the middle of its neighbours, where there is room."""
        wide = self._wide
        middle = [0.0] * len(wide)
        for row in self._rows:
            x = -sum(wide[i] + _BETWEEN for i in row) / 2
            for i in row:
                middle[i] = x + wide[i] / 2
                x += wide[i] + _BETWEEN
        for turn in range(_TURNS):
            near = self._below if turn % 2 else self._above
            for row in reversed(self._rows) if turn % 2 else self._rows:
                wanted = {
                    i: sum(middle[n] for n in near[i]) / len(near[i]) if near[i] else middle[i]
                    for i in row
                }
                right = None
                for i in row:
                    x = wanted[i] - wide[i] / 2
                    x = x if right is None else max(x, right + _BETWEEN)
                    middle[i], right = x + wide[i] / 2, x + wide[i]
                off = sum(wanted[i] - middle[i] for i in row) / max(len(row), 1)
                for i in row:
                    middle[i] += off
        left = [m - w / 2 for m, w in zip(middle, wide, strict=True)]
        least = min(left, default=0.0) - _EDGE
        #: Pixels of all.
        self.width = max([x + w - least for x, w in zip(left, wide, strict=True)] + [200.0])
        self.width += _EDGE
        return [x - least for x in left]

    def _middle(self, i: int) -> float:
        return self.left[i] + self._wide[i] / 2

    def _spread(self) -> dict[tuple[tuple[int, int], int], float]:
        """Find where arrows leave and reach boxes: side by side, in the order of where they go."""
        sides: dict[tuple[int, bool], list[tuple[float, tuple[int, int], int]]] = {}
        for pair, chain in self._chains.items():
            level = self._is_level(pair)
            for i, other, at in ((chain[0], chain[1], 0), (chain[-1], chain[-2], -1)):
                side = (i, level or at == 0)
                sides.setdefault(side, []).append((self._middle(other), pair, at))
        ports: dict[tuple[tuple[int, int], int], float] = {}
        for (i, _), found in sides.items():
            found.sort()
            for n, (_, pair, at) in enumerate(found):
                ports[pair, at] = self.left[i] + self._wide[i] * (n + 1) / (len(found) + 1)
        return ports

    def _points(self, pair: tuple[int, int]) -> list[tuple[float, float]]:
        """Give the points of an arrow from above; two of each box between."""
        chain = self._chains[pair]
        points = [(self._ports[pair, 0], self.top[chain[0]] + float(HIGH))]
        for i in chain[1:-1]:
            points += [(self._middle(i), float(self.top[i])), (self._middle(i), self.top[i] + 34.0)]
        return [*points, (self._ports[pair, -1], float(self.top[chain[-1]]))]

    def way(self, pair: tuple[int, int]) -> str:
        """Give the path of an arrow."""
        if self._is_level(pair):
            (x1, y), x2, low = self._points(pair)[0], self._ports[pair, -1], self._down * 0.8
            return (
                f"M{x1:.0f} {y:.0f}C{x1:.0f} {y + low:.0f} {x2:.0f} {y + low:.0f} {x2:.0f} {y:.0f}"
            )
        points = self._points(pair)
        if self._chains[pair][0] != pair[0]:
            points.reverse()
        way = [f"M{points[0][0]:.0f} {points[0][1]:.0f}"]
        for n in range(0, len(points) - 1, 2):
            (x1, y1), (x2, y2) = points[n], points[n + 1]
            half = (y1 + y2) / 2
            way.append(f"C{x1:.0f} {half:.0f} {x2:.0f} {half:.0f} {x2:.0f} {y2:.0f}")
            if n + 2 < len(points) - 1:
                way.append(f"L{points[n + 2][0]:.0f} {points[n + 2][1]:.0f}")
        return "".join(way)

    def words(self, pair: tuple[int, int], wide: list[float]) -> list[tuple[float, float]]:
        """Give middle and foot of lines of words at an arrow, where nothing else is written.

        They stand between two rows, as near to the middle of the arrow's last part as there is
        room. `least` and `most` are moved by what reaches out of the picture.
        """
        (x1, y1), (x2, y2) = self._points(pair)[-2:]
        if self._is_level(pair):
            x2, y2 = self._ports[pair, -1], y1 + self._down
        half = max(wide, default=0.0) / 2 + 4
        count = len(wide)
        found = []
        for first in range(int(self._down) // _LINE - count):
            lines = range(first, first + count)
            part = (first + (count + 1) / 2) * _LINE / (y2 - y1)
            on = x1 + (x2 - x1) * part * part * (3 - 2 * part)
            taken = sorted(span for line in lines for span in self._taken.get((y1, line), ()))
            x = min(
                _passing(taken, on, half), _passing(taken, on, half, -1), key=lambda x: abs(x - on)
            )
            found.append((abs(x - on) + abs(part - 0.5) * (y2 - y1), x, first))
        _, x, first = min(found)
        for line in range(first, first + count):
            self._taken.setdefault((y1, line), []).append((x - half, x + half))
        self.least, self.most = min(self.least, x - half), max(self.most, x + half)
        return [(x, y1 + (first + n + 1) * _LINE) for n in range(count)]


def _passing(taken: list[tuple[float, float]], x: float, half: float, way: int = 1) -> float:
    """Give the first middle from `x` on, to one side, at which there is nothing `half` around."""
    for left, right in taken[::way]:
        if left < x + half and right > x - half:
            x = right + half if way > 0 else left - half
    return x


def _depths(after: list[list[int]]) -> list[int]:
    """Give the row of each box. Arrows that close a cycle do not count."""
    state = [0] * len(after)  # 1: on the way, 2: done
    order: list[int] = []
    back: set[tuple[int, int]] = set()
    for root in range(len(after)):
        stack = [(root, iter(after[root]))] if not state[root] else []
        state[root] = state[root] or 1
        while stack:
            at, ways = stack[-1]
            for next_one in ways:
                if state[next_one] == 1:
                    back.add((at, next_one))
                elif not state[next_one]:
                    state[next_one] = 1
                    stack.append((next_one, iter(after[next_one])))
                    break
            else:
                state[at] = 2
                order.append(at)
                stack.pop()
    depth = [0] * len(after)
    for at in reversed(order):
        for next_one in after[at]:
            if (at, next_one) not in back:
                depth[next_one] = max(depth[next_one], depth[at] + 1)
    return depth
