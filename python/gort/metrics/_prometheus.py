"""Metrics as Prometheus reads them: its text, and a collector for prometheus_client."""

from __future__ import annotations

import re
from importlib import import_module
from typing import NamedTuple

from gort._typing import TYPE_CHECKING
from gort.metrics._model import Description, Float64Histogram, Kind
from gort.metrics._names import FIXED, measured_groups, measured_priorities
from gort.metrics._sources import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["CONTENT_TYPE", "PrometheusCollector", "prometheus_text"]

#: What to send with the text.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNFIT = re.compile(r"[^a-zA-Z0-9_]")
#: Where a bucket of the text ends: one power of two in two of the core's, from 256 ns to 8.6 s.
_FIRST, _STEP, _LAST = 5, 8, 106
_INF = float("inf")


class Family(NamedTuple):
    """Samples of one name.

    Attributes:
        name: as Prometheus has it, without the suffix of a counter.
        help: in words.
        kind: counter, gauge or histogram.
        samples: labels and values.
    """

    name: str
    help: str
    kind: str
    samples: list[tuple[dict[str, str], int | float | Float64Histogram]]


def prometheus_name(description: Description) -> str:
    """Give the name of a metric: go_ as client_golang's for Go's, gort_ for ours."""
    path, _, unit = description.name.partition(":")
    words = path.strip("/") if path.startswith("/gort/") else f"go{path}"
    return _UNFIT.sub("_", f"{words}_{unit}")


def families() -> Iterator[Family]:
    """All metrics; those of priorities and of groups with a label."""
    reading = Reading()
    for metric in FIXED.values():
        description = metric.description
        kind = "counter" if description.cumulative else "gauge"
        if description.kind == Kind.FLOAT64_HISTOGRAM:
            kind = "histogram"
        value = metric.read(reading)
        yield Family(prometheus_name(description), description.description, kind, [({}, value)])
    for label, found in (("priority", measured_priorities()), ("group", measured_groups())):
        if found:
            yield Family(
                f"gort_sched_latencies_by_{label}_seconds",
                f"From being ready to running, by {label}.",
                "histogram",
                [({label: str(key)}, value) for key, value in found.items()],
            )


def coarse(value: Float64Histogram) -> list[tuple[float, int]]:
    """Upper bounds and how many values are below them; the last bound is inf."""
    found, below, done = [], 0, 0
    for end in (*range(_FIRST, _LAST, _STEP), len(value.counts)):
        below += sum(value.counts[done:end])
        done = end
        found.append((value.buckets[end], below))
    return found


def _number(value: float) -> str:
    """A number in the text."""
    return "+Inf" if value == _INF else repr(value)


def _escaped(text: str) -> str:
    """The value of a label in the text."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _labels(labels: dict[str, str]) -> str:
    """Labels in the text."""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _lines(family: Family) -> Iterator[str]:
    """One family in the text."""
    name = family.name + ("_total" if family.kind == "counter" else "")
    told = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {family.kind}"
    for labels, value in family.samples:
        if isinstance(value, Float64Histogram):
            for bound, below in coarse(value):
                yield f"{name}_bucket{_labels(labels | {'le': _number(bound)})} {below}"
            yield f"{name}_sum{_labels(labels)} {_number(value.total)}"
            yield f"{name}_count{_labels(labels)} {value.size}"
        else:
            yield f"{name}{_labels(labels)} {_number(value)}"


def prometheus_text() -> str:
    """Give all metrics in Prometheus' text format, version 0.0.4. Never blocks for long.

    Names are those that client_golang has for Go's (`go_sched_goroutines_goroutines`), and gort_
    for ours; counters end in _total. Histograms have a bucket for two powers of two each.

    Example:
        >>> import gort.metrics
        >>> text = gort.metrics.prometheus_text()
        >>> "go_sched_gomaxprocs_threads 1" in text.splitlines()
        True
    """
    return "".join(f"{line}\n" for family in families() for line in _lines(family))


class PrometheusCollector:
    """A collector for prometheus_client, which is an extra: `pip install gort[prometheus]`.

    `prometheus_client.REGISTRY.register(PrometheusCollector())` adds gort's metrics to those that
    are exposed; each scrape reads them.

    Raises:
        ImportError: prometheus_client is not installed.

    Example:
        >>> import gort.metrics
        >>> from prometheus_client import CollectorRegistry, generate_latest  # doctest: +SKIP
        >>> registry = CollectorRegistry()  # doctest: +SKIP
        >>> registry.register(gort.metrics.PrometheusCollector())  # doctest: +SKIP
        >>> b"go_sched_gomaxprocs_threads" in generate_latest(registry)  # doctest: +SKIP
        True
    """

    def __init__(self) -> None:
        """Find the package."""
        try:
            self._core = import_module("prometheus_client.core")
        except ImportError as error:
            raise ImportError(
                "PrometheusCollector needs prometheus_client: pip install gort[prometheus]; "
                "gort.metrics.prometheus_text() and app() need nothing"
            ) from error

    def collect(self) -> Iterator[Any]:
        """Give the families of prometheus_client."""
        makers = {
            "counter": self._core.CounterMetricFamily,
            "gauge": self._core.GaugeMetricFamily,
            "histogram": self._core.HistogramMetricFamily,
        }
        for family in families():
            names = list(family.samples[0][0])
            made = makers[family.kind](family.name, family.help, labels=names)
            for labels, value in family.samples:
                if isinstance(value, Float64Histogram):
                    buckets = [(_number(bound), below) for bound, below in coarse(value)]
                    made.add_metric(list(labels.values()), buckets, value.total)
                else:
                    made.add_metric(list(labels.values()), value)
            yield made
