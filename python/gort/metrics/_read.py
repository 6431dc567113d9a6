"""Reading metrics by name, as Go's runtime/metrics does."""

from __future__ import annotations

from gort.metrics._model import Description, Float64Histogram, Kind, Sample
from gort.metrics._names import (
    FIXED,
    GROUP,
    PRIORITY,
    measured_groups,
    measured_priorities,
)
from gort.metrics._sources import Reading

__all__ = ["all", "read"]

_UNIT = ":seconds"


def _described(name: str, whose: str) -> Description:
    """One that is there while it is measured."""
    text = f"From being ready to running, of goroutines of {whose}. All are timed."
    return Description(name, text, Kind.FLOAT64_HISTOGRAM, True)


def _measured() -> dict[str, tuple[Description, Float64Histogram]]:
    """Those of priorities and groups, by name."""
    found = {}
    for priority, value in measured_priorities().items():
        name = f"{PRIORITY}{priority}{_UNIT}"
        found[name] = _described(name, f"priority {priority}"), value
    for group, value in measured_groups().items():
        name = f"{GROUP}{group}{_UNIT}"
        found[name] = _described(name, f"group {group!r}"), value
    return found


def all() -> list[Description]:  # noqa: A001 - Go's name
    """Describe every metric that `read` knows, in order of their names. Never blocks for long.

    Latencies of priorities and groups are among them from when the first was measured: while groups
    are there, a policy other than fifo is in use, or `gort.set_schedstats(True)` was called.

    Example:
        >>> import gort.metrics
        >>> [d.kind.name for d in gort.metrics.all() if d.name == "/sched/latencies:seconds"]
        ['FLOAT64_HISTOGRAM']
    """
    found = [metric.description for metric in FIXED.values()]
    found += [description for description, _ in _measured().values()]
    return sorted(found)


def read(*names: str) -> list[Sample]:
    """Read metrics; of all that there are if none is named. Never blocks for long.

    Of one call all numbers of a source (scheduler, heap, collector) are of one moment. Counts of
    goroutines by state take a look at each goroutine, some milliseconds for a million.

    Args:
        names: as in `all`. A name that is not known gives a sample of the kind BAD.

    Returns:
        A sample for each name, in the order given.

    Raises:
        TypeError: a name is not a str.

    Example:
        >>> import gort.metrics
        >>> threads, unknown = gort.metrics.read("/sched/gomaxprocs:threads", "/no/such:metric")
        >>> threads.value == gort.gomaxprocs(), unknown
        (True, Sample('/no/such:metric', BAD, None))
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"read(): a name is a str, not {type(name).__name__}")
    reading, measured = Reading(), None
    if not names or any(name.startswith((PRIORITY, GROUP)) for name in names):
        measured = _measured()
    samples = []
    for name in names or sorted([*FIXED, *(measured or ())]):
        metric = FIXED.get(name)
        if metric is not None:
            samples.append(Sample(name, metric.description.kind, metric.read(reading)))
        elif measured is not None and name in measured:
            samples.append(Sample(name, Kind.FLOAT64_HISTOGRAM, measured[name][1]))
        else:
            samples.append(Sample(name, Kind.BAD, None))
    return samples
