"""`gort bench --report`: results of `make bench` as a page that needs nothing else."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from gort.cli import main
from gort.cli._bench_report import Unusable, page, read

MACHINE = {
    "cpu": "A <b>CPU</b>",
    "cores": 2,
    "kernel": "Linux 6.1",
    "python": "3.11.7",
    "versions": {"go": "go1.26"},
    "missing": {"runloom": "no wheel & no hope"},
    "command": 'make bench BENCH="--quick"',
    "gort": "0.1.0",
    "date": "2026-11-27",
    "load_before": 0.1,
}


def entry(median):
    return {"n": 10, "runs": [median], "median": median, "min": median, "max": median}


def a_run(**results):
    goal = {
        "workload": "spawn",
        "against": "go1",
        "limit": "at most",
        "bound": 0.5,
        "measured": 0.25,
        "met": True,
        "same_n": True,
    }
    missed = {**goal, "measured": 0.75, "met": False}
    unknown = {**goal, "measured": None, "met": None}
    return {"machine": MACHINE, "results": results, "figures_to_reach": [goal, missed, unknown]}


class Seen(HTMLParser):
    """Tags, texts, and whether what was opened is closed in order."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.attributes, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_every_figure_stands_in_the_page_and_is_drawn():
    run = a_run(
        spawn={"gort": entry(250.4), "go1": entry(1000.0), "threads": {"n": 1, "error": "it fell"}},
        wake={"gort": entry(7.25)},
    )
    seen = Seen(page({"3.11-core": run}))
    for text in ("3.11-core", "250", "1,000", "7.2", "met", "missed", "n/a", "at most 0.5"):
        assert text in seen.texts, text
    assert "n/a: runloom: no wheel & no hope" in seen.texts
    assert seen.tags.count("svg") == 1  # one implementation alone is compared with nobody
    assert seen.tags.count("rect") == 2


def test_the_page_needs_nothing_else_and_runs_nothing():
    names = {"<script>alert(1)</script>": {'"><img src=x>': entry(3.0), "gort": entry(2.0)}}
    seen = Seen(page({"<i>run</i>": a_run(**names)}))
    assert not {"script", "img", "i", "b", "link", "iframe"} & set(seen.tags)
    assert not {"src", "href", "onload", "onclick"} & {name for name, _ in seen.attributes}
    assert "<script>alert(1)</script>" in seen.texts


def write(directory, **runs):
    for name, run in runs.items():
        (directory / f"{name}.json").write_text(run if isinstance(run, str) else json.dumps(run))


def test_results_that_cannot_be_read_are_passed_over_and_named(tmp_path, capsys):
    good = a_run(spawn={"gort": entry(2.0), "go1": entry(3.0)})
    write(tmp_path, good=good, cut="{", list="[]", other='{"results": {}}')
    out = tmp_path / "report.html"
    assert main(["bench", "--report", str(out), "--results", str(tmp_path)]) == 0
    assert "good" in Seen(out.read_text()).texts
    said = capsys.readouterr()
    assert said.out == f"wrote {out}: 1 runs\n"
    assert [line.split(":")[0] for line in said.err.splitlines()] == [
        "passed over cut.json",
        "passed over list.json",
        "passed over other.json",
    ]


def test_no_results_and_no_place_are_said(tmp_path, capsys):
    with pytest.raises(Unusable, match="no \\*.json there"):
        read(tmp_path / "nowhere")
    out = tmp_path / "report.html"
    assert main(["bench", "--report", str(out), "--results", str(tmp_path)]) == 2
    assert "`make bench` writes some" in capsys.readouterr().err
    write(tmp_path, good=a_run(spawn={"gort": entry(2.0)}))
    missing = tmp_path / "missing" / "report.html"
    assert main(["bench", "--report", str(missing), "--results", str(tmp_path)]) == 1
    assert f"cannot write {missing}: No such file" in capsys.readouterr().err


def test_results_of_the_tree_make_a_page():
    results = Path(__file__).parent.parent / "benches" / "results"
    if not results.exists():
        pytest.skip("no results beside the tests")
    found, passed = read(results)
    assert passed == []
    assert Seen(page(found)).tags.count("svg") > len(found)
