"""What the runtime tells of itself, in numbers: Go's runtime/metrics, for Prometheus and the rest.

`read` and `all` go by Go's names where they mean here what they mean in Go; ours are below /gort/.
`prometheus_text` and `app` need no other package; `PrometheusCollector` and `instrument` feed
prometheus_client and OpenTelemetry where those are installed. docs/metrics.md lists the names.
"""

from __future__ import annotations

from gort.metrics._app import app
from gort.metrics._model import Description, Float64Histogram, Kind, Sample
from gort.metrics._otel import instrument
from gort.metrics._prometheus import CONTENT_TYPE, PrometheusCollector, prometheus_text
from gort.metrics._read import all, read  # noqa: A004 - Go's name

__all__ = [
    "CONTENT_TYPE",
    "Description",
    "Float64Histogram",
    "Kind",
    "PrometheusCollector",
    "Sample",
    "all",
    "app",
    "instrument",
    "prometheus_text",
    "read",
]
