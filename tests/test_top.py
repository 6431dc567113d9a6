"""`gort top`: figures printed and on a terminal, of servers that go away, refuse and are none."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

import gort
import gort.pprof
import pytest
from gort.cli._top_client import Client
from gort.cli._top_figures import WRONG, History, age, clean, number, rate, size, span
from gort.cli._top_text import blockers
from gort.metrics import Float64Histogram
from gort.pprof import _live
from waiting import eventually, parked

TOP = (sys.executable, "-m", "gort", "top")


@pytest.fixture
def server():
    with gort.pprof.serve("127.0.0.1:0") as server:
        yield server


def url(server):
    return "{}:{}".format(*server.address)


def top(*arguments, status=0, before=TOP):
    """Run it without a terminal."""
    done = subprocess.run(
        [*before, *map(str, arguments)], capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def stays_here(ch):
    ch.recv_ok()


@pytest.fixture
def many():
    """Some goroutines that wait at one line."""
    ch = gort.Chan()
    parked(*[gort.go(stays_here, ch) for _ in range(40)])
    yield
    ch.close()


# Printed.


def test_once_prints_the_figures(server, many):
    for arguments in ((url(server), "--once", "--interval", "0.2"), (server.url,)):
        done = top(*arguments)
        assert re.search(r"^pid \d+, CPython 3\.\d+", done.stdout)
        assert re.search(r"^Rates: switches \d\S*/s, spawned ", done.stdout, re.M)
        assert re.search(r"^p50, p99: run queue ", done.stdout, re.M)
        assert re.search(
            r"^ +40  chan receive +\S+( s)?  .*stays_here test_top.py:\d+$", done.stdout, re.M
        )
        assert done.stderr == ""


def test_json_is_an_object_an_interval(server, many):
    done = top(url(server), "--once", "--json", "--interval", "0.2")
    found = json.loads(done.stdout)
    assert found["goroutines"]["total"] >= 40
    assert found["rates_per_s"]["switches"] > 0 and len(found["processors"]["runs_per_s"]) >= 1
    assert set(found["latencies_s"]) == {"run_queue", "wake_up", "interpreter_lock", "collector"}
    assert any(g["count"] == 40 and "stays_here" in g["where"] for g in found["blockers"])
    process = subprocess.Popen(
        [*TOP, url(server), "--json", "--interval", "0.1"], stdout=subprocess.PIPE, text=True
    )
    try:
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert lines[0]["time"] < lines[1]["time"] < lines[2]["time"]


def test_nobody_answers():
    with gort.pprof.serve("127.0.0.1:0") as server:
        where = url(server)
    done = top(where, "--once", status=1)
    base = f"http://{where}/debug/"
    assert done.stderr == f"gort top: nobody answers at {base}: Connection refused\n"


def test_token(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    with gort.pprof.serve("127.0.0.1:0", token="secret") as server:
        where = url(server)
        assert "wants a token" in top(where, "--once", status=2).stderr
        assert "wants another token" in top(where, "--once", "--token", "no", status=2).stderr
        short = ("--once", "--interval", "0.1")
        top(where, *short, "--token", "secret")
        top(where, *short, "--token-file", file)
        top(f"http://any:secret@{where}/debug/pprof/heap", *short)
    with gort.pprof.serve("127.0.0.1:0", token="gehe\u00edm \u2713\n") as server:
        top(url(server), *short, "--token", "gehe\u00edm \u2713\n")
    assert "no-such-file" in top("--token-file", tmp_path / "no-such-file", status=2).stderr


@pytest.mark.parametrize("where", ["ftp://x/", "http://", "127.0.0.1:port", "http://x:99999999/"])
def test_wrong_address(where):
    assert top(where, "--once", status=2).stderr.startswith(f"gort top: {where}: ")


@pytest.mark.parametrize(
    ("where", "base"),
    [
        ("h:1", "http://h:1/debug/"),
        ("https://h", "https://h/debug/"),
        ("http://h:1/debug/gort/", "http://h:1/debug/"),
        ("http://h:1/debug/pprof/heap?x=1", "http://h:1/debug/"),
        ("http://h:1/admin/debug", "http://h:1/admin/debug/"),
        ("http://h:1/admin/", "http://h:1/admin/debug/"),
        ("[::1]:6060", "http://[::1]:6060/debug/"),
    ],
)
def test_addresses(where, base):
    assert Client(where, None).base == base


class Other(http.server.BaseHTTPRequestHandler):
    """A server of something else."""

    body, status = b"", 200

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "body", "says", "ends"),
    [
        (404, b"no", "is not there: is that gort.pprof.serve", 2),
        (200, b"<html>", "is no JSON", 2),
        (200, b"[1]", "is no JSON object", 2),
        (200, b"{}", "is not gort's", 2),
        (200, b'{"process": {"pid": 1, "started": "x"}, "now_ns": null}', "is not gort's", 2),
        (302, b"\x1b[31mfar away", "refuses, with status 302", 2),
        (503, b"later", "nobody answers", 1),
    ],
)
def test_servers_of_something_else(status, body, says, ends):
    handler = type("Handler", (Other,), {"status": status, "body": body})
    other = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        done = top(f"127.0.0.1:{other.server_port}", "--once", "--interval", "0.1", status=ends)
    finally:
        other.shutdown()
        other.server_close()
    assert says in done.stderr and "Traceback" not in done.stderr and "\x1b" not in done.stderr


# Figures.


def state(now_s, **more):
    """A state.json as small as can be."""
    counters = dict.fromkeys(
        ("created", "steals", "hand_offs", "preemptions", "collections", "global_pops", "cpu_used_ns", "cpu_available_ns"), 0
    )  # fmt: skip
    kinds = ("run_queue", "wake_up", "interpreter_lock", "collector")
    return {
        "process": {"pid": 1, "started": 1.0},
        "now_ns": int(now_s * 1e9),
        "processors": {"runs": more.pop("runs", [0])},
        "latencies": {kind: {"counts": more.get("counts", [])} for kind in kinds},
        "bounds_ns": [0, 1_000, 1_000_000],
        "counters": counters | more.pop("counters", {}),
    }


def test_rates_are_those_between_two_answers():
    history = History()
    assert history.add(state(1)).rates == {}
    counters = {"created": 10, "global_pops": 4, "cpu_used_ns": 5, "cpu_available_ns": 10}
    found = history.add(state(3, runs=[50, 7], counters=counters))
    assert found.rates["spawned"] == 5 and found.runs == [25] and found.rates["switches"] == 27
    assert found.cpu == 0.5


def test_another_process_begins_anew():
    history = History()
    history.add(state(5, counters={"created": 100}))
    other = state(6)
    other["process"]["started"] = 2.0
    assert history.add(other).rates == {}


def test_quantiles_are_of_the_last_ten_seconds_and_those_of_metrics():
    history = History()
    history.add(state(0, counts=[[1, 1000]]))
    counts = {0: 5, 1: 1005, 3: 5}
    found = history.add(state(1, counts=[[b, n] for b, n in counts.items()]))
    whole = Float64Histogram((5, 5, 0, 5), (float("-inf"), 0.0, 1e-6, 1e-3, float("inf")), 0.0)
    for q, value in (
        (0.5, found.latencies["run_queue"].p50),
        (0.99, found.latencies["run_queue"].p99),
    ):
        assert value == whole.quantile(q)
    later = [history.add(state(s, counts=[[b, n] for b, n in counts.items()])) for s in (6, 12, 18)]
    assert [one.latencies["run_queue"].p50 for one in later] == [whole.quantile(0.5), None, None]


def test_words():
    assert [number(n) for n in (0, 9999, 12_345, 2.5e6)] == ["0", "9,999", "12.3k", "2.5M"]
    assert [rate(n) for n in (None, 0, 2.34, 50, 1500)] == ["-", "0/s", "2.3/s", "50/s", "1,500/s"]
    assert [size(n) for n in (5, 2048, 3 << 30)] == ["5 B", "2.0 KiB", "3.0 GiB"]
    assert [span(s) for s in (None, 64e-9, 0.0015, 2.5)] == ["-", "64 ns", "1.5 ms", "2.5 s"]
    assert [age(s) for s in (5, 120, 7200, 200_000)] == ["5 s", "2 min", "2 h", "2 d"]
    assert clean("a\x1b[31m\nb\u202e") == "a?[31m?b?"


def test_blockers_obey_nobody():
    answer = {
        "frames": [["f\x1b]0;x\x07", "/a\n.py", 3]],
        "groups": [{"count": 2, "state": "x\x1b", "longest": 9, "stack": [0], "members": []}],
    }
    assert "\x1b" not in json.dumps(blockers(answer)).replace("\\u001b", "\x1b")
    with pytest.raises(WRONG):
        blockers({"frames": [], "groups": [{"stack": [3]}]})


# On a terminal.


class Terminal:
    """`gort top` on a terminal of its own."""

    def __init__(self, *arguments, cwd, before=TOP):
        self.master, slave = pty.openpty()
        self.settings = termios.tcgetattr(slave)
        self.slave = slave
        self.size(100, 40, tell=False)
        self.text = ""
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [*before, *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave, cwd=cwd,
            env=env | {"TERM": "xterm", "PAGER": "cat"},
        )  # fmt: skip
        os.set_blocking(self.master, False)

    def size(self, columns, lines, tell=True):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def read(self):
        """All that it wrote, without escape sequences."""
        try:
            while True:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
        except BlockingIOError:
            pass
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text)

    def shows(self, *patterns):
        """Wait for what it writes from now on."""
        for pattern in patterns:
            eventually(
                lambda: re.search(pattern, self.read()), what=f"{pattern} in {self.text[-2000:]}"
            )
        self.text = ""

    def key(self, words):
        self.text = ""
        os.write(self.master, words.encode())

    def end(self, status=0):
        """Wait for its end, which leaves the terminal as it was."""
        eventually(
            lambda: (self.read(), self.process.poll() is not None)[1],
            what=f"its end: {self.text[-2000:]}",
        )
        assert self.process.returncode == status, self.text[-3000:]
        assert termios.tcgetattr(self.slave) == self.settings
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


rich = pytest.importorskip("rich", reason="gort top's screen needs rich")


def test_screen_shows_figures_and_q_quits(server, many, tmp_path):
    with Terminal(url(server), cwd=tmp_path) as terminal:
        terminal.shows(
            "gort top http://127", "health: ", r"40  chan receive", "stays_here test_top"
        )
        terminal.key("q")
        text = terminal.end()
        assert "Traceback" not in text and "\x1b[?1049l" in terminal.text


def test_screen_follows_the_size_of_the_terminal(server, many, tmp_path):
    with Terminal(url(server), cwd=tmp_path) as terminal:
        terminal.shows("p50, p99", "Memory", "switches +[▁▂▃▄▅▆▇█ ]*")
        terminal.size(60, 16)
        terminal.shows(r"Rates *\r?\n")
        text = terminal.read()
        assert all(len(line) <= 60 for line in text.splitlines()[1:])
        terminal.size(160, 50)
        terminal.shows(r"Rates +p50, p99 +Ps and Ms +Memory")
        terminal.key("q")
        terminal.end()


def test_keys_open_order_pause_and_pace(server, many, tmp_path):
    with Terminal(url(server), "--interval", "0.2", cwd=tmp_path) as terminal:
        terminal.shows("stays_here test_top")
        terminal.key("\n")
        terminal.shows(r"stays_here \(.*test_top\.py")
        terminal.key("\x1b[B")
        terminal.key("\x1b[A")
        terminal.key("o")
        terminal.shows("order: longest")
        terminal.key("+")
        terminal.shows("every 0.4 s")
        terminal.key(" ")
        terminal.shows("PAUSED")
        terminal.key("\x1b[Z?")
        terminal.key("gq")
        terminal.end()


def test_keys_write_a_dump_and_a_profile(server, many, tmp_path):
    with Terminal(url(server), "--seconds", "1", cwd=tmp_path) as terminal:
        terminal.shows("stays_here")
        terminal.key("d")
        eventually(lambda: list(tmp_path.glob("gort-dump-*.txt")), what="a dump")
        terminal.shows("bytes written to")
        terminal.key("c")
        terminal.shows("taking a CPU profile of 1 s")
        terminal.shows("bytes written to .*pb.gz")
        terminal.key("v")
        terminal.shows(r"stays_here\(\.\.\.\)")
        terminal.key("q")
        terminal.end()
    (dump,) = tmp_path.glob("gort-dump-*.txt")
    assert "stays_here(...)" in dump.read_text()
    (profile,) = tmp_path.glob("gort-cpu-*.pb.gz")
    assert profile.read_bytes()[:2] == b"\x1f\x8b"


def test_too_many_goroutines_are_looked_at_when_asked_for(server, many, tmp_path, monkeypatch):
    monkeypatch.setattr(_live, "MOST", 5)
    assert "too many to look at one by one" in top(url(server), "--once").stdout
    with Terminal(url(server), "--interval", "0.2", cwd=tmp_path) as terminal:
        terminal.shows("press g to look at them one by one")
        terminal.key("g")
        terminal.shows("stays_here test_top")
        terminal.key("o")
        terminal.shows("order: longest", "stays_here test_top", "stays_here test_top")
        terminal.key("q")
        terminal.end()


def test_screen_waits_for_a_server_that_went_away(many, tmp_path):
    first = gort.pprof.serve("127.0.0.1:0")
    with Terminal(url(first), "--interval", "0.2", cwd=tmp_path) as terminal:
        terminal.shows("stays_here")
        first.close()
        terminal.shows("NO ANSWER: Connection refused; trying again")
        second = eventually(lambda: again(first.address), what="the port")
        try:
            terminal.shows("every 0.2 s", "stays_here")
            terminal.key("q")
            terminal.end()
        finally:
            second.close()


def again(address):
    """A server at the address of another, once that can be had."""
    try:
        return gort.pprof.serve("{}:{}".format(*address))
    except OSError:
        return None


def test_screen_begins_before_its_server(tmp_path):
    with gort.pprof.serve("127.0.0.1:0") as server:
        address = server.address
    with Terminal("{}:{}".format(*address), cwd=tmp_path) as terminal:
        terminal.shows("NO ANSWER", "waiting for the first answer")
        with eventually(lambda: again(address), what="the port"):
            terminal.shows("health: ")
            terminal.process.send_signal(signal.SIGINT)
            terminal.end(130)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_programs_leave_the_terminal_as_it_was(server, tmp_path, number):
    with Terminal(url(server), cwd=tmp_path) as terminal:
        terminal.shows("health: ")
        terminal.process.send_signal(number)
        terminal.end(128 + number)


def test_screen_without_the_token_ends_with_a_sentence(tmp_path):
    with gort.pprof.serve("127.0.0.1:0", token="secret") as server:
        with Terminal(url(server), cwd=tmp_path) as terminal:
            assert "wants a token" in terminal.end(2)


def test_screen_without_rich_says_how_to_get_it(server, tmp_path):
    code = "import sys; sys.modules['rich'] = None; from gort.cli import main; sys.exit(main())"
    before = (sys.executable, "-c", code, "top")
    with Terminal(url(server), cwd=tmp_path, before=before) as terminal:
        assert "pip install 'gort[cli]'" in terminal.end(2)
    assert "Goroutines: " in top(url(server), "--once", "--interval", "0.1", before=before).stdout
