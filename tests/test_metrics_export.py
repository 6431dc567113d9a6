"""gort.metrics told to others: Prometheus' text, prometheus_client, OpenTelemetry, WSGI."""

from __future__ import annotations

import json
import re
import sys
import types
import urllib.request
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import gort
import gort.metrics
import pytest
from gort.metrics._otel import otel_name
from wsgi_tools import serving

LINE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)\Z'
)


def parsed(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """Types by family and values by name with labels; every line must be of the format."""
    kinds: dict[str, str] = {}
    values: dict[str, float] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            found = LINE.match(line)
            assert found, line
            key = found[1] + (found[2] or "")
            assert key not in values
            values[key] = float(found[3])
    return kinds, values


def test_text_has_every_metric_once_and_by_its_type():
    kinds, values = parsed(gort.metrics.prometheus_text())
    assert kinds["go_sched_goroutines_goroutines"] == "gauge"
    assert kinds["go_sched_goroutines_created_goroutines_total"] == "counter"
    assert kinds["go_sched_latencies_seconds"] == "histogram"
    assert kinds["gort_sched_steals_events_total"] == "counter"
    assert values["go_sched_gomaxprocs_threads"] == gort.gomaxprocs()
    fixed = [
        d for d in gort.metrics.all() if "/priority/" not in d.name and "/group/" not in d.name
    ]
    assert len([k for k in kinds if "latencies_by_" not in k]) == len(fixed)
    assert set(kinds.values()) == {"gauge", "counter", "histogram"}


def test_histograms_of_the_text_are_cumulative_and_end_with_all():
    for _ in range(500):
        gort.go(int).join()
    _, values = parsed(gort.metrics.prometheus_text())
    name = "go_sched_latencies_seconds"
    buckets = [(k, v) for k, v in values.items() if k.startswith(f"{name}_bucket")]
    bounds = [float(re.search(r'le="([^"]+)"', k)[1]) for k, _ in buckets]
    counts = [v for _, v in buckets]
    assert bounds == sorted(bounds) and bounds[0] == 256e-9 and bounds[-1] == float("inf")
    assert counts == sorted(counts)
    assert counts[-1] == values[f"{name}_count"] >= 5
    assert values[f"{name}_sum"] > 0


def test_labels_are_escaped():
    name = 'a "b" \\ c\nd'
    group = gort.Group(name)
    group.go(int).join()
    _, values = parsed(gort.metrics.prometheus_text())
    label = r'group="a \"b\" \\ c\nd"'
    assert values[f"gort_sched_latencies_by_group_seconds_count{{{label}}}"] == 1
    assert any(
        k.startswith('gort_sched_latencies_by_priority_seconds_sum{priority="0"') for k in values
    )


def test_prometheus_client_reads_the_text_and_takes_the_collector():
    pytest.importorskip("prometheus_client", reason="pip install gort[prometheus]")
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    text = gort.metrics.prometheus_text()
    read = {family.name: family for family in text_string_to_metric_families(text)}
    registry = CollectorRegistry()
    registry.register(gort.metrics.PrometheusCollector())  # type: ignore[arg-type]
    given = generate_latest(registry).decode()
    theirs = {family.name: family for family in text_string_to_metric_families(given)}
    assert set(read) == set(theirs)
    for name, family in read.items():
        assert family.type == theirs[name].type
        ours, other = (
            {(s.name, *sorted(s.labels.items())) for s in one.samples}
            for one in (family, theirs[name])
        )
        assert ours == other


@pytest.mark.parametrize(
    ("package", "call", "extra"),
    [
        ("prometheus_client", gort.metrics.PrometheusCollector, r"gort\[prometheus\]"),
        ("opentelemetry", gort.metrics.instrument, r"gort\[otel\]"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, package, call, extra):
    for name in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=extra):
        call()


class Meter:
    """Keeps what is made."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, list, str, str]] = {}

    def create_observable_counter(self, name, callbacks, unit, description):
        assert name not in self.made
        self.made[name] = ("counter", callbacks, unit, description)
        return self.made[name]

    def create_observable_gauge(self, name, callbacks, unit, description):
        assert name not in self.made
        self.made[name] = ("gauge", callbacks, unit, description)
        return self.made[name]


@pytest.fixture
def api(monkeypatch):
    """opentelemetry.metrics as far as it is used, whether or not it is installed."""
    package, metrics = types.ModuleType("opentelemetry"), types.ModuleType("opentelemetry.metrics")
    metrics.Observation = lambda value, attributes=None: (value, attributes)  # type: ignore[attr-defined]
    metrics.get_meter = lambda _name: Meter()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", metrics)


def test_instruments_observe(api):
    meter = Meter()
    instruments = gort.metrics.instrument(meter)
    assert len(instruments) == len(meter.made)
    kind, callbacks, unit, _ = meter.made["gort.sched.gomaxprocs"]
    assert (kind, unit, callbacks[0](None)) == ("gauge", "{threads}", [(gort.gomaxprocs(), None)])
    assert meter.made["gort.gc.heap.allocs.objects"][0] == "counter"
    assert meter.made["gort.memory.classes.total"][2] == "By"
    gort.go(int).join()
    kind, callbacks, unit, _ = meter.made["gort.sched.latencies"]
    assert (kind, unit) == ("gauge", "s")
    assert [labels for _, labels in callbacks[0](None)] == [
        {"quantile": q} for q in ("0.5", "0.9", "0.99")
    ]
    assert meter.made["gort.sched.latencies.count"][0] == "counter"
    for _, callbacks, _, text in meter.made.values():
        assert all(value >= 0 for value, _ in callbacks[0](None))
        assert text
    assert gort.metrics.instrument()


def test_instrument_names_are_fit_for_opentelemetry():
    names = [otel_name(d.name) for d in gort.metrics.all() if "/sched/latencies/" not in d.name]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]{0,254}", name) for name in names)


def test_opentelemetry_collects_what_is_instrumented():
    sdk = pytest.importorskip("opentelemetry.sdk.metrics", reason="pip install opentelemetry-sdk")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    gort.metrics.instrument(sdk.MeterProvider([reader]).get_meter("test"))
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    found = {metric.name: metric.data.data_points[0].value for metric in data}
    assert found["gort.sched.gomaxprocs"] == gort.gomaxprocs()
    assert found["gort.sched.goroutines_created"] >= 1


def asked(path: str, method: str = "GET") -> tuple[str, dict[str, str], bytes]:
    """What the application answers, as the validator of PEP 3333 lets it pass."""
    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": ""}
    heads: list[tuple[str, dict[str, str]]] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> object:
        heads.append((status, dict(headers)))
        return lambda _data: None

    answer = validator(gort.metrics.app)(environ, start)
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined]
    return *heads[0], body


def test_app_gives_metrics_and_health():
    status, headers, body = asked("/metrics")
    assert (status, headers["Content-Type"]) == ("200 OK", gort.metrics.CONTENT_TYPE)
    assert "go_sched_gomaxprocs_threads" in parsed(body.decode())[1]
    status, headers, body = asked("/mounted/health/")
    assert (status, headers["Content-Type"]) == ("200 OK", "application/json")
    found = json.loads(body)
    assert (found["ok"], found["flags"], found["reasons"]) == (True, [], [])
    assert asked("/metrics", "HEAD")[2] == b""
    assert asked("/other")[0] == "404 Not Found"
    assert asked("/metrics", "POST")[0] == "405 Method Not Allowed"


def test_app_says_503_where_a_limit_is_passed(monkeypatch):
    monkeypatch.setattr(gort._health._monitor, "limits", gort.HealthLimits(descriptors=1e-9))
    status, _, body = asked("/health")
    assert status == "503 Service Unavailable"
    found = json.loads(body)
    assert (found["ok"], found["flags"]) == (False, ["descriptors"])
    assert re.fullmatch(r"\d+ of \d+ descriptors are open", found["reasons"][0])


def test_app_is_served():
    with (
        serving(gort.metrics.app) as server,
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer,
    ):
        assert answer.headers["Content-Type"] == gort.metrics.CONTENT_TYPE
        assert b"go_sched_goroutines_goroutines " in answer.read()
