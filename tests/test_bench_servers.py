"""Programs of benches/: servers of group net work, services are drawn. Nothing of speed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

BENCHES = Path(__file__).parent.parent / "benches"
PROGRAMS = {
    "gort": ("ours/gort_net.py", ["net_64", "net_16k", "net_idle", "udp", "tls", "net_tls"]),
    "threads": ("peers/threads_net.py", ["net_64", "udp", "tls"]),
    "asyncio": ("peers/asyncio_net.py", ["net_64", "udp", "tls", "net_tls"]),
}
LISTED = {"net_64", "net_16k", "net_idle", "udp", "tls", "net_tls"}


def run(name, *arguments):
    program, _ = PROGRAMS[name]
    done = subprocess.run(
        [sys.executable, str(BENCHES / program), *arguments],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_all_of_the_group(name):
    assert set(run(name, "--list").split()) == LISTED


@pytest.mark.parametrize(
    ("name", "workload"), [(name, w) for name, (_, works) in PROGRAMS.items() for w in works]
)
def test_every_answer_is_right(name, workload):
    if not (shutil.which("cc") or os.environ.get("BENCH_LOAD")) and not workload.endswith("tls"):
        pytest.skip("no compiler for the load")
    line = json.loads(run(name, workload, "200" if not workload.endswith("tls") else "16"))
    assert line["workload"] == workload
    assert line["ns_per_op"] > 0
    assert {"per_second", "os_threads"} <= line.keys()


MACHINE = {
    "cpu": "A <b>CPU</b>",
    "cores": 2,
    "python": "3.99.1",
    "date": "2026-11-27T01:02:03+00:00",
    "command": 'make bench BENCH="--group http"',
}


def picture(tmp_path, **runs):
    for name, results in runs.items():
        path = tmp_path / f"3.99-{name.replace('_', '-')}.json"
        path.write_text(json.dumps({"machine": MACHINE, "results": results}))
    out = tmp_path / "services.svg"
    done = subprocess.run(
        [sys.executable, str(BENCHES / "services.py"), "3.99", "--results", str(tmp_path),
         "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done, out


def test_the_picture_of_services_shows_every_figure_once(tmp_path):
    one = {"median": 5.0, "per_second": 90_498.0, "p99_ms": 1.5}
    other = {"median": 6.0, "per_second": 9_490.0, "p99_ms": 23.25}
    done, out = picture(
        tmp_path,
        http_quick={"plaintext": {"gevent": other, "gort": one, "threads": {"error": "it fell"}}},
        net={"net_64": {"gort": {"median": 4_304.0}, "uvloop_streams": {"median": 9_000.0}}},
        net_quick={"net_64": {"gort": {"median": 77_700.0}, "go1": {"median": 88_800.0}}},
    )
    assert done.returncode == 0, done.stderr
    root = ElementTree.fromstring(out.read_text(encoding="utf-8"))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for text in ("90,498", "9,490", "1.5", "23.2", "4.3", "9.0", "gevent", "uvloop_streams"):
        assert texts.count(text) == (2 if text == "gevent" else 1), text
    assert "77.7" not in texts  # of the whole run, not of the quick one
    assert texts.index("90,498") < texts.index("9,490")  # the best on top: more
    assert texts.index("1.5") < texts.index("23.2")  # and less
    bars = [node for node in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(bars) == 6
    assert [text for text in texts if text.startswith("[2] ")]
    assert all(float(bar.get("width")) > 0 for bar in bars)


def test_no_results_of_services_are_said(tmp_path):
    done, out = picture(tmp_path)
    assert (done.returncode, out.exists()) == (2, False)
    assert "no results of services for 3.99" in done.stderr
