"""The command line, in child processes: run, demo, bench, doctor."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import gort
import pytest
from gort.cli import _report, _unchanged, demo

GORT = (sys.executable, "-m", "gort")


def cli(
    *arguments: object, cwd: Path, status: int = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in `cwd`; its exit status must be `status`."""
    done = subprocess.run(
        [*GORT, *map(str, arguments)],
        capture_output=True, text=True, timeout=100, cwd=cwd, env={**os.environ, **env}, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def app(tmp_path):
    """Write app.py with the given text and give its path."""

    def write(text: str, name: str = "app.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


# gort run


def test_run_gives_arguments_name_and_path_as_python_does(app, tmp_path):
    app("VALUE = 7", "helper.py")
    path = app(
        "import sys, gort, helper\n"
        "g = gort.go(lambda: helper.VALUE)\n"
        "print(__name__, sys.argv[1:], g.join(), sys.path[0], sys.argv[0])\n"
    )
    done = cli("run", path, "a", "--flag", "-x", cwd=Path("/"))
    assert done.stdout == f"__main__ ['a', '--flag', '-x'] 7 {tmp_path} {path}\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no luck')", 1, "no luck\n"),
        ("import sys; sys.exit()", 0, ""),
    ],
)
def test_run_ends_with_the_status_of_the_script(app, tmp_path, body, status, message):
    done = cli("run", app(body), cwd=tmp_path, status=status)
    assert done.stderr == message


def test_run_shows_the_traceback_of_an_exception(app, tmp_path):
    path = app("def fail():\n    raise LookupError('here')\nfail()\n")
    done = cli("run", path, cwd=tmp_path, status=1)
    assert done.stderr.startswith("Traceback")
    assert f'File "{path}", line 2, in fail' in done.stderr
    assert done.stderr.endswith("LookupError: here\n")


def test_run_makes_the_script_the_main_goroutine_whose_end_ends_the_others(app, tmp_path):
    path = app(
        "import gort\n"
        "def never():\n    gort.sleep(3600)\n    print('never')\n"
        "gort.go(never); gort.gosched(); print('end')\n"
    )
    assert cli("run", path, cwd=tmp_path).stdout == "end\n"


def test_run_reports_a_deadlock(app, tmp_path):
    done = cli("run", app("import gort; gort.Chan().recv()"), cwd=tmp_path, status=1)
    assert "all goroutines are asleep - deadlock!" in done.stderr


def test_run_takes_a_directory_and_a_zip_file_with_main(app, tmp_path):
    app("import part, sys; print(part.NAME, __name__, sys.argv[1:])", "pack/__main__.py")
    app("NAME = 'part'", "pack/part.py")
    assert cli("run", "pack", "x", cwd=tmp_path).stdout == "part __main__ ['x']\n"
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        for file in ("__main__.py", "part.py"):
            archive.write(tmp_path / "pack" / file, file)
    assert cli("run", "pack.zip", "x", cwd=tmp_path).stdout == "part __main__ ['x']\n"


def test_run_without_such_a_file_says_so(tmp_path):
    done = cli("run", "absent.py", cwd=tmp_path, status=2)
    assert done.stderr == "gort run: no such file: absent.py\n"


def test_run_syntax_error_names_the_line(app, tmp_path):
    done = cli("run", app("x = = 1\n"), cwd=tmp_path, status=1)
    assert "SyntaxError" in done.stderr
    assert "x = = 1" in done.stderr


# the command itself


def test_version_and_help(tmp_path):
    assert cli("--version", cwd=tmp_path).stdout == f"gort {gort.__version__}\n"
    text = cli("--help", cwd=tmp_path).stdout
    assert all(name in text for name in ("run", "serve", "trace", "demo", "bench", "doctor"))


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("run",), ("bench", "--repeat", "x")])
def test_bad_arguments_are_status_2_with_usage(tmp_path, arguments):
    assert "usage: gort" in cli(*arguments, cwd=tmp_path, status=2).stderr


# gort doctor


def test_doctor_says_what_there_is_and_what_not(tmp_path):
    text = cli("doctor", cwd=tmp_path, GORT_SEED="7").stdout
    assert re.search(r"^memory pressure +\w", text, re.M)
    for subject in (
        "gort", "python", "python support", "kernel", "switch path", "guard pages", "huge pages",
        "mappings", "cgroup CPU limit", "cgroup memory limit", "GOMAXPROCS", "not there yet",
        "boundary parking", "boundary identity", "boundary object", "threads as goroutines",
    ):  # fmt: skip
        assert re.search(rf"^{subject} +\S", text, re.M), subject
    assert re.search(r"^GORT_SEED +7$", text, re.M)
    assert re.search(r"^GORT_MAXPROCS +not set$", text, re.M)
    assert sys.version.split()[0] in text


def test_doctor_says_why_calls_do_not_park(tmp_path):
    text = cli("doctor", cwd=tmp_path, GORT_BOUNDARY="0").stdout
    assert re.search(r"^boundary parking +off: GORT_BOUNDARY=0", text, re.M)
    assert re.search(r"^boundary identity +each goroutine$", text, re.M)
    assert re.search(r"^threads as goroutines +not here: ", text, re.M)
    text = cli("doctor", cwd=tmp_path, GORT_THREADS="1").stdout
    assert re.search(r"^boundary parking +on$", text, re.M)
    assert re.search(r"^threads as goroutines +on$", text, re.M)


def test_doctor_whose_reader_has_gone_ends_without_a_traceback(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*GORT, "doctor"],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=100, cwd=tmp_path, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


# gort bench


def test_bench_json_has_every_figure(tmp_path):
    found = json.loads(cli("bench", "--json", "--repeat", "1", cwd=tmp_path).stdout)
    assert set(found) == {"python", "spawn", "round_trip", "gosched"}
    for name in ("spawn", "round_trip", "gosched"):
        assert 0 < found[name]["min_ns"] <= found[name]["ns"] <= found[name]["max_ns"]
    assert found["spawn"]["threads_ns"] > 0


def test_bench_binding_says_how_late_each_kind_is(tmp_path):
    found = json.loads(cli("bench", "binding", "--json", "--count", "20", cwd=tmp_path).stdout)
    rows = {name: row for name, row in found.items() if name != "python"}
    assert list(rows) == ["unbound", "locked to its thread", "locked and reserved"]
    for row in rows.values():
        assert 0 <= row["p50_ns"] <= row["p99_ns"]
    assert rows["locked and reserved"]["migrations_per_1000"] <= 2 * 1000 / 20


def test_bench_preempt_has_a_row_for_each_cause(tmp_path):
    text = cli("bench", "preempt", "--count", "20", cwd=tmp_path).stdout
    for row in ("a higher priority wakes (mlfq)", "the slice of 10 ms is over", "gosched by hand"):
        assert re.search(rf"^{re.escape(row)} +[\d,.]+ +[\d,.]+", text, re.M), text


def test_bench_shares_says_what_each_gets(tmp_path):
    found = json.loads(cli("bench", "shares", "--json", "--seconds", "0.5", cwd=tmp_path).stdout)
    assert 0 < found["quota_0.2"] < 0.5
    assert 0 < found["thread"] < 1
    assert found["thread"] + found["goroutines"] == pytest.approx(1)


# gort demo


class Page(HTMLParser):
    """What a page refers to outside itself, and the cells of its table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.cells: list[str] = []
        self.pictures = 0
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.outside += [str(v) for k, v in attrs if k in ("src", "href", "data", "srcset")]
        self.outside += [tag] if tag in ("script", "link", "img", "iframe", "object") else []
        self.pictures += tag == "svg"
        self._cell = tag == "td"

    def handle_data(self, data):
        if self._cell:
            self.cells.append(data)
            self._cell = False


def small_demo(tree: Path, out: Path) -> tuple[object, ...]:
    return (
        "demo", tree, "--files", "25", "--goroutines", "3000", "--asking", "60", "--out", out,
    )  # fmt: skip


@pytest.fixture
def tree(app, tmp_path):
    """A small tree of sources: one that does not tokenise, one that is not UTF-8, one empty."""
    for number in range(17):
        app(f"def f{number}(x):\n    return x + {number}\n", f"tree/d{number % 3}/m{number}.py")
    app("def broken(:\n  '''", "tree/broken.py")
    app("", "tree/empty.py")
    (tmp_path / "tree" / "latin.py").write_bytes(b"# caf\xe9\n")
    app("not python", "tree/notes.txt")
    return tmp_path / "tree"


def test_demo_runs_and_its_page_has_the_figures_of_the_table(tree, tmp_path):
    out = tmp_path / "page.html"
    text = cli(*small_demo(tree, out), cwd=tmp_path).stdout
    assert "Reading, hashing and tokenising 20 .py files" in text
    assert "\r" not in text  # lines, not bars, when it is no terminal
    assert f"page: {out}" in text
    page = Page(out.read_text())
    assert page.outside == []
    assert page.pictures == 7
    rows = dict(re.findall(r"^(\S.*?)  +(\S.*)$", text, re.M))
    for title in (
        "files", "tokens", "parked at once", "released and counted",
        "an unchanged threaded program, seconds", "the same, at most, OS threads",
    ):  # fmt: skip
        figures = rows[title].split()
        at = page.cells.index(title)
        assert page.cells[at + 1 : at + 4] == figures
    assert rows["gort.wsgi"].split()[4] == "0"
    at = page.cells.index("gort.wsgi")
    assert page.cells[at + 1 : at + 7] == rows["gort.wsgi"].split()
    assert "ThreadingHTTPServer" in rows
    assert rows["files"].split() == ["20", "20", "20"]
    assert rows["released and counted"].split() == ["3,000", "1,000", "-"]
    ours, plain, _ = rows["the same, at most, OS threads"].replace(",", "").split()
    assert int(ours) <= 20 < 500 < int(plain)


@pytest.mark.parametrize("rich", [True, False])
def test_demo_on_a_terminal_shows_a_bar(tree, tmp_path, rich):
    """A real terminal: rich draws when it is there, and is not needed."""
    if not rich:
        (tmp_path / "rich.py").write_text("raise ImportError")  # hides an installed one
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [*GORT, *map(str, small_demo(tree, tmp_path / "page.html"))],
        stdin=follower, stdout=follower, stderr=follower, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TERM": "xterm"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the terminal is closed: the child has ended
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert child.wait(timeout=50) == 0, shown
    assert b"\x1b[" in shown  # lines are drawn over
    assert b"3,000 goroutines in" in shown
    if not rich:
        assert b"##############################" in shown


def test_demo_without_files_or_directory_fails(tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "no .py files" in cli("demo", "nothing", cwd=tmp_path, status=1).stdout
    assert "not a directory" in cli("demo", "absent", cwd=tmp_path, status=2).stdout
    assert "at least 1" in cli("demo", "nothing", "--files", "0", cwd=tmp_path, status=2).stdout


FOUND = [["a.py", 10, "ff", 3], ["b.py", 20, "ee", 4]]


@pytest.mark.parametrize(
    ("third", "words"),
    [
        (FOUND, ""),
        (FOUND[:1], "concurrent.futures found 1 of 2 files"),
        ([FOUND[0], ["b.py", 20, "ee", 5]], "concurrent.futures has"),
        ([FOUND[1], FOUND[0]], "concurrent.futures has"),
    ],
)
def test_demo_notices_results_that_differ(third, words):
    ways = [{"found": FOUND}, {"found": FOUND}, {"found": third}]
    assert demo.disagreement(ways, 2).startswith(words)
    assert bool(demo.disagreement(ways, 2)) == bool(words)


def demo_with(body, tree, tmp_path):
    """`gort demo` whose parts answer by `body`, the lines of a function of a part's name and arguments."""
    code = (
        "import sys, gort.cli, gort.cli.demo as d\n"
        "task = d._task\n"
        f"def wrong(name, *a):\n{body}"
        "d._task = wrong\n"
        "sys.exit(gort.cli.main(sys.argv[1:]))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, small_demo(tree, tmp_path / "p.html"))],
        capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False,
    )  # fmt: skip


def test_demo_fails_when_a_way_finds_something_else(tree, tmp_path):
    done = demo_with(
        "    result = task(name, *a)\n"
        "    if name == 'threads': result['found'][3][2] = '00'\n"
        "    return result\n",
        tree, tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "FAILED, the results differ: one thread per file has" in done.stdout
    assert not (tmp_path / "p.html").exists()


def test_unchanged_program_knows_nothing_of_gort():
    text = Path(_unchanged.PROGRAM).read_text()
    assert "import gort" not in text
    assert text.count("\n") < 60


@pytest.mark.parametrize("as_goroutines", [True, False])
def test_unchanged_program_is_watched_to_its_end(app, as_goroutines):
    body = "import sys, threading\nt = threading.Thread(target=print, args=(sys.argv[1:],))\n"
    found = _unchanged.run(as_goroutines, str(app(body + "t.start(); t.join()\n")))
    assert found["output"] == "[]\n"
    assert found["os_threads"] > 0
    with pytest.raises(subprocess.CalledProcessError):
        _unchanged.run(as_goroutines, str(app("raise SystemExit(3)")))


def test_demo_fails_when_the_program_prints_something_else(tree, tmp_path):
    done = demo_with(
        "    found = task(name, *a)\n"
        "    return {**found, 'output': a[0]} if name == 'unchanged' else found\n",
        tree, tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "FAILED, the threaded program printed True instead of False" in done.stdout


@pytest.mark.parametrize("most", [1e-9, 0.7, 1.0, 3.14, 99.0, 100.0, 12_345.0, 7e9])
def test_chart_axis_is_round_and_holds_every_bar(most):
    ticks = _report._ticks(most)
    assert ticks[0] == 0 and ticks[-1] >= most
    assert 3 <= len(ticks) <= 7
    assert ticks[-1] <= 2 * most
