"""Metrics as OpenTelemetry's observable instruments; opentelemetry-api is an extra."""

from __future__ import annotations

from importlib import import_module

from gort._typing import TYPE_CHECKING
from gort.metrics._model import Kind
from gort.metrics._names import FIXED, Metric
from gort.metrics._sources import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["instrument", "otel_name"]

#: What is observed of a histogram: OpenTelemetry has none that are read.
_QUANTILES = (0.5, 0.9, 0.99)
_UNITS = {"bytes": "By", "seconds": "s", "cpu-seconds": "s", "percent": "%"}


def otel_name(name: str) -> str:
    """Give the name of an instrument: `/sched/gomaxprocs:threads` is `gort.sched.gomaxprocs`.

    A name that is there with several units has the unit in it: `gort.gc.heap.allocs.objects`.
    """
    path, _, unit = name.partition(":")
    of_path = [other for other in FIXED if other.partition(":")[0] == path]
    words = path.strip("/").removeprefix("gort/").replace("/", ".").replace("-", "_")
    return f"gort.{words}.{unit}" if len(of_path) > 1 else f"gort.{words}"


def instrument(meter: object = None) -> list[object]:
    """Make an observable instrument of OpenTelemetry for each metric. Never blocks.

    What grows is an observable counter, the rest an observable gauge. OpenTelemetry has no
    histograms that are read, so that of one there are `.count` and `.sum`, and quantiles as a gauge
    with the attribute `quantile`.

    Args:
        meter: an opentelemetry.metrics.Meter; None: the global provider's for "gort".

    Returns:
        The instruments, which the meter keeps.

    Raises:
        ImportError: opentelemetry-api is not installed: `pip install gort[otel]`.

    Example:
        >>> import gort.metrics
        >>> instruments = gort.metrics.instrument()  # doctest: +SKIP
    """
    try:
        api: Any = import_module("opentelemetry.metrics")
    except ImportError as error:
        raise ImportError(
            "instrument() needs OpenTelemetry: pip install gort[otel] (opentelemetry-api)"
        ) from error
    chosen: Any = api.get_meter("gort") if meter is None else meter
    made: list[object] = []
    for metric in FIXED.values():
        description = metric.description
        name = otel_name(description.name)
        unit = description.name.partition(":")[2]
        unit = _UNITS.get(unit, f"{{{unit}}}")
        text = description.description
        if description.kind == Kind.FLOAT64_HISTOGRAM:
            count, total, quantiles = _histogram(api.Observation, metric)
            made.append(chosen.create_observable_counter(f"{name}.count", [count], "1", text))
            made.append(chosen.create_observable_counter(f"{name}.sum", [total], unit, text))
            made.append(chosen.create_observable_gauge(name, [quantiles], unit, text))
        else:
            grows = description.cumulative
            create = chosen.create_observable_counter if grows else chosen.create_observable_gauge
            made.append(create(name, [_plain(api.Observation, metric)], unit, text))
    return made


def _plain(observation: Any, metric: Metric) -> Callable[[object], Iterable[Any]]:
    """What an instrument asks for a number."""
    return lambda _options: [observation(metric.read(Reading()))]


def _histogram(observation: Any, metric: Metric) -> list[Callable[[object], Iterable[Any]]]:
    """What the three instruments of a histogram ask."""

    def value() -> Any:
        return metric.read(Reading())

    def quantiles(_options: object) -> Iterable[Any]:
        now = value()
        return [observation(now.quantile(q), {"quantile": str(q)}) for q in _QUANTILES]

    return [
        lambda _options: [observation(value().size)],
        lambda _options: [observation(value().total)],
        quantiles,
    ]
