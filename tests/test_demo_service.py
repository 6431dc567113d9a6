"""The HTTP service of `gort demo` and its million GETs: the load, the figures, and what fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from array import array
from pathlib import Path

import gort
import pytest
from children import check
from gort.cli import _load, _million, _service
from gort.cli.service_program import Store, is_there, make_app
from serving import is_alive
from waiting import LIMIT, eventually
from wsgi_tools import TEXT, serving

PROGRAM = Path(_service.PROGRAM)


def demo(*arguments, cwd, status=0, code=""):
    """Run `gort demo`, `code` before it in its process; what it printed."""
    start = (
        f"import sys, gort.cli, gort.cli.demo as d\n{code}\nsys.exit(gort.cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, "demo", *map(str, arguments)],
        capture_output=True, text=True, timeout=100, cwd=cwd, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def small(folder):
    (folder / "tree").mkdir()
    (folder / "tree" / "one.py").write_text("1\n")
    return "tree", "--goroutines", "100", "--asking", "40"


# gort demo --million


def row(text, title):
    return re.search(rf"^{re.escape(title)}  +(\S.*)$", text, re.M)[1].replace(",", "").split()


def test_million_gets_are_answered_or_end_with_emfile(tmp_path):
    text = demo("--million", "--gets", 3000, "--limit", 40, "--open-files", 64, cwd=tmp_path)
    assert row(text, "GETs, a goroutine each") == ["3000", "3000"]
    limited, unlimited = map(int, row(text, "answered"))
    none, refused = map(int, row(text, "OSError EMFILE"))
    assert (limited, none) == (3000, 0)
    assert unlimited + refused == 3000 and unlimited > 0 and refused > 0
    assert row(text, "other errors") == ["0", "0"]
    peak, most = map(int, row(text, "asking at once, at most"))
    assert peak <= 40 and most <= 64
    assert row(text, "a GET afterwards") == ["-", "answered"]
    assert "  through Semaphore(40): 3,000 requests in " in text
    assert "FAILED" not in text
    assert not list(tmp_path.iterdir())


def test_million_says_how_many_goroutines_fit(tmp_path):
    text = demo(
        "--million", "--gets", 300, "--open-files", 64,
        cwd=tmp_path, code="d.affordable = lambda count: 7",
    )  # fmt: skip
    assert "300 GETs of /health by a goroutine each, 7 at once, for which there is memory" in text
    # How many of them ask at once is a matter of who is faster.
    assert all(1 <= int(peak) <= 7 for peak in row(text, "asking at once, at most"))
    assert row(text, "answered") == ["300", "300"]
    assert "Nobody ran out of descriptors" in text


def outcome(**changes):
    """What a good million tells, for 100 GETs, with changes: PART__KEY=value or KEY=value."""
    good = {"requests": 100, "refused": 0, "errors": 0, "example": "", "lost": 0}
    found = {
        "limited": {**good, "answered": 100},
        "unlimited": {**good, "answered": 30, "refused": 70},
        "files": 40,
        "after": True,
    }
    for name, value in changes.items():
        part, _, key = name.rpartition("__")
        (found[part] if part else found)[key] = value
    return found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"limited__answered": 99}, ["1 were not answered"]),
        ({"limited__lost": 1}, ["1 of the limited ones were lost"]),
        ({"unlimited__lost": 3}, ["3 of the unlimited ones were lost"]),
        ({"unlimited__errors": 2, "unlimited__example": "reset"},
         ["2 of the unlimited ones failed: reset"]),
        ({"after": False}, ["there was no answer afterwards"]),
    ],
)  # fmt: skip
def test_million_fails_where_anything_is_amiss(changes, said):
    assert _million.faults(outcome(**changes)) == said


def test_million_ends_with_status_1_where_anything_is_amiss(tmp_path):
    code = (
        "task = d._task\n"
        "def wrong(name, *a):\n    found = task(name, *a)\n    found['after'] = False\n"
        "    return found\n"
        "d._task = wrong\n"
    )
    text = demo("--million", "--gets", 200, "--open-files", 64, cwd=tmp_path, status=1, code=code)
    assert "gort demo: FAILED, there was no answer afterwards" in text
    assert row(text, "a GET afterwards") == ["-", "NOT", "ANSWERED"]


@pytest.mark.parametrize(
    ("option", "value"), [("--gets", 0), ("--limit", 0), ("--open-files", 31), ("--asking", 0)]
)
def test_bad_numbers_are_said(tmp_path, option, value):
    text = demo(option, value, "--million", cwd=tmp_path, status=2)
    assert re.fullmatch(rf"gort demo: .*{option}.* at least \d+\n", text)


# the load


def app_of(answer):
    """An application that gives what `answer` makes of a method and a path."""

    def app(environ, start_response):
        environ["wsgi.input"].read()
        body = answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        start_response("200 OK", [*TEXT, ("Content-Length", str(len(body)))])
        return [body]

    return app


def ask(app, goroutines=20, limit=4, **options):
    with serving(app, **options) as server:
        load = _load.Load(server.port, limit)
        return gort.go(load.run, "asking", goroutines, _load._key_steps, goroutines).join(LIMIT)


def test_load_checks_every_answer(tmp_path):
    app = make_app(str(tmp_path / "db"))
    found = ask(app)
    assert (found["answered"], found["errors"], found["lost"]) == (60, 0, 0)
    assert found["peak"] == 4
    assert 0 < found["p50_ns"] <= found["p99_ns"] <= found["p999_ns"]

    def forgets(environ, start_response):
        if environ["PATH_INFO"] in ("/kv/3", "/kv/7") and environ["REQUEST_METHOD"] == "PUT":
            environ["PATH_INFO"] = "/kv/nobody"
        return app(environ, start_response)

    for key in ("3", "7"):
        Store(str(tmp_path / "db"))._writer.execute("DELETE FROM kv WHERE key = ?", (key,))
    found = ask(forgets)
    assert (found["errors"], found["lost"]) == (2, 0)
    assert re.match(r"GET /kv/[37]: \(404, b''\) instead of b'value ", found["example"])


def test_load_takes_answers_in_pieces_and_connections_that_close():
    big = b"v" * 200_000

    def app(environ, start_response):
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(big)))])
        return (big[i : i + 50_000] for i in range(0, len(big), 50_000))

    with serving(app, idle_timeout=0) as server:

        def main():
            client = _load.Client(server.port)
            assert client.ask("GET", "/") == (200, big)
            assert not client.is_open

        gort.go(main).join(LIMIT)


def test_load_counts_what_broke_and_goes_on():
    def answer(method, path):
        if path == "/kv/5" and method == "GET":
            raise gort.GoroutineExit
        return b"" if method == "PUT" else b"ok"

    found = ask(app_of(answer), limit=1)
    assert found["lost"] == 0
    assert found["answered"] + found["errors"] >= 60
    assert found["errors"] >= 2  # the GET that broke, and /health behind it


def test_load_without_a_service_fails_all():
    with serving(app_of(lambda *_: b"ok")) as server:
        port = server.port
    load = _load.Load(port, 3)
    found = gort.go(load.run, "asking", 10, lambda _: (_load._HEALTH,), 10).join(LIMIT)
    assert (found["errors"], found["answered"], found["lost"]) == (10, 0, 0)
    assert "refused" in found["example"]


def test_percentiles_of_nothing_and_one():
    assert set(_load.percentiles(array("q")).values()) == {0}
    assert set(_load.percentiles(array("q", [7])).values()) == {7}


# the servers


@pytest.mark.parametrize("name", ["gort", "threads", "gevent", "gunicorn"])
def test_every_server_gives_the_same_answers(name):
    if not is_there(name):
        pytest.skip(f"{name} is not installed")
    with _service.Service(name) as service:
        pids = list(_service.family(service._process.pid))

        def main():
            client = _load.Client(service.port)
            assert client.ask("GET", "/health") == (200, b"ok")
            assert client.ask("GET", "/kv/a") == (404, b"")
            assert client.ask("PUT", "/kv/a", b"one") == (200, b"")
            assert client.ask("PUT", "/kv/a", b"two") == (200, b"")
            assert client.ask("GET", "/kv/a") == (200, b"two")
            assert client.ask("GET", "/elsewhere") == (404, b"")
            client.close()

        gort.go(main).join(LIMIT)
        assert service.memory_bytes() > 5e6
    assert not any(map(is_alive, pids))


def test_service_ends_with_a_demo_that_is_killed(tmp_path):
    code = (
        "import os, signal; from gort.cli._service import Service\n"
        "s = Service('gort'); s.__enter__()\n"
        "print(s._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, timeout=LIMIT, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    eventually(lambda: not is_alive(done.stdout.decode().strip()))


def changed(folder, old, new):
    """A service program with a change, for `code` of demo()."""
    text = PROGRAM.read_text()
    assert old in text
    (folder / "changed").mkdir()
    path = folder / "changed" / "program.py"
    path.write_text(text.replace(old, new))
    return f"d._service.PROGRAM = {str(path)!r}\n"


NOT_INSTALLED = "d._service.is_there = lambda name: name in ('gort', 'threads')\n"


def test_demo_says_which_servers_are_not_installed(tmp_path):
    text = demo(*small(tmp_path), cwd=tmp_path, code=NOT_INSTALLED)
    assert "every answer is checked" in text
    assert "Not installed: gevent pywsgi, gunicorn gthread." in text
    assert "gort.wsgi: 120 requests in " in text


def test_demo_fails_when_the_service_answers_wrong(tmp_path):
    code = NOT_INSTALLED + changed(tmp_path, "return found[0] if found", "return b'x' if found")
    text = demo(*small(tmp_path), cwd=tmp_path, status=1, code=code)
    expected = r"gort demo: FAILED, 40 requests failed: GET /kv/\d+: \(200, b'x'\) instead of b'va"
    assert re.search(expected, text), text


def test_demo_fails_when_the_service_does_not_begin(tmp_path):
    code = NOT_INSTALLED + changed(tmp_path, "def main(name", "raise SystemExit(1)\ndef main(name")
    text = demo(*small(tmp_path), cwd=tmp_path, status=1, code=code)
    assert "gort demo: FAILED, gort.wsgi did not begin" in text


def test_application_of_the_demo_needs_nothing_of_gort():
    code = f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import service_program"
    check(f"{code}; assert not [m for m in sys.modules if m.startswith('gort')]")
