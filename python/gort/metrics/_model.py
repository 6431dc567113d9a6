"""What metrics are made of: kinds, descriptions, histograms and samples."""

from __future__ import annotations

import enum
from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

__all__ = ["Description", "Float64Histogram", "Kind", "Sample"]


class Kind(enum.IntEnum):
    """What a metric's value is, by Go's numbers."""

    BAD = 0
    UINT64 = 1
    FLOAT64 = 2
    FLOAT64_HISTOGRAM = 3


class Description(NamedTuple):
    """What a metric is.

    Attributes:
        name: Go's form: a path, a colon and the unit.
        description: in words.
        kind: of its values.
        cumulative: whether they only grow.
    """

    name: str
    description: str
    kind: Kind
    cumulative: bool


class Float64Histogram(NamedTuple):
    """How values are distributed, as Go's runtime/metrics.Float64Histogram has it.

    Attributes:
        counts: how many values are in each bucket.
        buckets: the bounds, one more than counts; bucket n has values from buckets[n] on and below
            buckets[n + 1]. The first may be -inf, the last inf.
        total: the sum of all values; Go's has none.
    """

    counts: tuple[int, ...]
    buckets: tuple[float, ...]
    total: float

    @property
    def size(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Give the upper bound of the bucket in which the quantile is; 0.0 without any values.

        A value in the last bucket, which has no upper bound, gives the lower one.

        Args:
            q: from 0 to 1; 0.99 is the 99th percentile.

        Raises:
            ValueError: q is not from 0 to 1.

        Example:
            >>> from gort.metrics import Float64Histogram
            >>> Float64Histogram((9, 1), (0.0, 0.5, 2.0), 3.0).quantile(0.5)
            0.5
        """
        if not 0 <= q <= 1:
            raise ValueError(f"quantile(): from 0 to 1, not {q}")
        sums = list(accumulate(self.counts))
        if not sums or not sums[-1]:
            return 0.0
        at = bisect_left(sums, max(q * sums[-1], 1))
        upper = self.buckets[at + 1]
        return upper if upper != float("inf") else self.buckets[at]


class Sample:
    """A metric's value at one moment, typed as Go's runtime/metrics.Sample.

    Attributes:
        name: the metric's.
        kind: what `value` is; BAD for a name that is not known.
        value: an int, a float, a Float64Histogram, or None for BAD.
    """

    __slots__ = ("kind", "name", "value")

    def __init__(self, name: str, kind: Kind, value: int | float | Float64Histogram | None) -> None:
        """Hold a value."""
        self.name, self.kind, self.value = name, kind, value

    def __repr__(self) -> str:
        """Show name and value; of a histogram how many values it has."""
        value = self.value
        shown = f"{value.size} values" if isinstance(value, Float64Histogram) else repr(value)
        return f"Sample({self.name!r}, {self.kind.name}, {shown})"

    def uint64(self) -> int:
        """Give an integer.

        Raises:
            TypeError: the value is of another kind.
        """
        if not isinstance(self.value, int):
            raise TypeError(f"{self.name} is {self.kind.name}, not UINT64")
        return self.value

    def float64(self) -> float:
        """Give a float.

        Raises:
            TypeError: the value is of another kind.
        """
        if not isinstance(self.value, float):
            raise TypeError(f"{self.name} is {self.kind.name}, not FLOAT64")
        return self.value

    def histogram(self) -> Float64Histogram:
        """Give a histogram.

        Raises:
            TypeError: the value is of another kind.
        """
        if not isinstance(self.value, Float64Histogram):
            raise TypeError(f"{self.name} is {self.kind.name}, not FLOAT64_HISTOGRAM")
        return self.value
