"""`gort trace`: what it reads, what it makes of that, and the page."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import random
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from importlib import resources

import gort
import gort.trace
import pytest
import traces
from gort._tracefile import NAMES, TraceError, TraceFile
from gort.cli import main
from gort.cli._trace_json import write_json
from gort.cli._trace_server import address, server
from gort.cli._trace_store import Store
from test_trace import needs_go, traced

HOSTILE = "</script><b>\"'\u2028\n&amp;"


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A trace of all that goroutines do, its file."""
    path = tmp_path_factory.mktemp("trace") / "everything"
    traced("everything", path)
    return path


def small() -> bytes:
    """A trace with goroutines, channels, and what programs say."""
    file, chan = io.BytesIO(), gort.Chan()
    with gort.trace.to(file), gort.trace.Task(HOSTILE):
        g = gort.spawn(chan.recv, name=HOSTILE)
        with gort.trace.Region(HOSTILE), gort.trace.Region("inner"):
            gort.gosched()
            chan.send(1)
        gort.trace.log(HOSTILE, HOSTILE)
        g.join()
    return file.getvalue()


def converted(data: bytes, *, is_whole: bool = True) -> dict:
    """A trace as JSON, checked; times of a damaged one may be so large that floats lose digits."""
    out = io.StringIO()
    write_json(TraceFile(io.BytesIO(data)), out)
    found = json.loads(out.getvalue())
    hold(found["traceEvents"], is_whole=is_whole)
    return found


def hold(events: list[dict], *, is_whole: bool = True) -> None:
    """Hold events to what Chrome's format asks for."""
    ends: dict[tuple[int, int], list[str]] = defaultdict(list)
    flows: dict[int, dict[str, float]] = defaultdict(dict)
    tasks: Counter[tuple[int, str]] = Counter()
    slices: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        assert (
            event["ph"] in "MXBEbesfiC" and type(event["pid"]) is int and event["name"] is not None
        )
        if event["ph"] == "M":
            continue
        at, track = event["ts"], (event["pid"], event["tid"])
        assert at >= 0 and type(event["tid"]) is int
        if event["ph"] == "X":
            assert event["dur"] > 0 or not is_whole
            slices[track].append((at, at + event["dur"]))
        elif event["ph"] == "B":
            ends[track].append(event["name"])
        elif event["ph"] == "E":
            assert ends[track].pop() == event["name"]
        elif event["ph"] in "sf":
            assert event["ph"] not in flows[event["id"]]
            flows[event["id"]][event["ph"]] = at
        elif event["ph"] in "be":
            tasks[event["id"], event["ph"]] += 1
        elif event["ph"] == "C":
            assert all(value >= 0 for value in event["args"].values())
    assert not any(ends.values())
    assert all(flow["s"] <= flow["f"] for flow in flows.values())
    assert set(tasks.values()) <= {1} and len(tasks) % 2 == 0
    for (_, tid), found in slices.items():
        found.sort()
        apart = all(a[1] <= b[0] + 0.002 for a, b in zip(found, found[1:], strict=False))
        assert apart or tid > 1_000_000 or not is_whole


def test_the_readers_agree(everything):
    data = everything.read_bytes()
    trace = TraceFile(io.BytesIO(data))
    found = [(NAMES[e.kind], e.time, e.m, e.g, e.p, (*e.args,)) for e in trace.events()]
    other = [(e.name, e.time, e.m, e.g, e.p, e.args) for e in traces.read(data).events]
    assert trace.warning is None
    assert Counter(found) == Counter(other)
    of_m = defaultdict(list), defaultdict(list)
    for mine, theirs in zip(found, other, strict=True):
        of_m[0][mine[2]].append(mine)
        of_m[1][theirs[2]].append(theirs)
    assert of_m[0] == of_m[1]


def test_json_has_all_there_is(everything):
    found = converted(everything.read_bytes())
    events = found["traceEvents"]
    assert found["otherData"] == {"format": "go 1.26 trace"}
    assert {event["ph"] for event in events} >= set("MXBEbesfiC")
    states = {event["name"] for event in events if event.get("cat") == "state"}
    assert states >= {"running", "runnable", "syscall", "chan receive", "select", "sync.Mutex.Lock"}
    names = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names >= {"G1 main", "P 0", "P 1", "Garbage collection", "Stopped world"}
    flows = {event["name"] for event in events if event["ph"] == "s"}
    assert flows >= {"go", "wakes (chan receive)", "wakes (sleep)"}
    counted = {event["name"] for event in events if event["ph"] == "C"}
    assert counted == {"Goroutines", "Heap", "GOMAXPROCS"}
    assert {event["name"] for event in events if event["ph"] == "B"} >= {"pay", "ask", "outer"}
    assert "customer: 7" in {event["name"] for event in events if event.get("cat") == "log"}
    blocked = [e for e in events if e["name"] == "chan send" and e.get("cat") == "state"]
    assert any("__main__.doubles" in event["args"]["at"] for event in blocked)


def test_times_of_a_goroutine_are_its_life():
    store = Store(TraceFile(io.BytesIO(small())))
    for i, group in enumerate(store.groups):
        spent = group.running + group.runnable + group.syscall + sum(group.blocked.values())
        assert spent == group.total
        members = store.members(i)
        assert len(members) == group.count
        assert all(total == sum(states) for total, _, _, *states in members)
    receiver = next(group for group in store.groups if "recv" in group.name or group.count == 1)
    assert receiver.total > 0
    with pytest.raises(IndexError):
        store.members(-1)


def test_texts_stay_texts():
    events = converted(small())["traceEvents"]
    regions = [event["name"] for event in events if event["ph"] == "B"]
    assert regions == [HOSTILE, "inner"]
    assert f"{HOSTILE}: {HOSTILE}" in {event["name"] for event in events}


def test_what_is_no_trace():
    for head, says in [
        (b"", "no execution trace"),
        (b"PK\3\4" + bytes(100), "no execution trace"),
        (b"go 1.26 trace", "no execution trace"),
        (b"go 1.21 trace\0\0\0", "Go 1.22 and newer"),
        (b"go 1.11 trace\0\0\0", "Go 1.22 and newer"),
        (b"go 1.27 trace\0\0\0", "1.22 to 1.26"),
        (b"go 2.0 trace\0\0\0\0", "unknown version"),
        (b"go 1.x trace\0\0\0\0", "unknown version"),
    ]:
        with pytest.raises(TraceError, match=says):
            TraceFile(io.BytesIO(head))


def test_a_trace_that_is_cut_off_is_shown_as_far_as_it_goes():
    data = small()
    whole = len(converted(data)["traceEvents"])
    for size in range(16, len(data)):
        found = converted(data[:size])
        warning = found["otherData"].get("warning", "")
        assert "cut off" in warning or (size == 16 and "empty" in warning)
        assert len(found["traceEvents"]) <= whole + 4
    some = converted(data[: len(data) - 1])["traceEvents"]
    assert {"G1 main"} <= {
        event["args"]["name"] for event in some if event["name"] == "thread_name"
    }


def test_damage_is_told_and_raises_nothing(everything):
    data = everything.read_bytes()
    at = random.Random(7)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(at.randrange(1, 6)):
            damaged[at.randrange(16, len(data))] = at.randrange(256)
        converted(bytes(damaged), is_whole=False)
        Store(TraceFile(io.BytesIO(damaged))).picture(0, 1 << 40, 500, [1])


@pytest.mark.timeout(400)
def test_a_hundred_thousand_goroutines_in_little_memory(tmp_path):
    traced("many", tmp_path / "t")
    code = (
        # The memory of this program only: ru_maxrss is not less than what its parent had when it began.
        "import sys; from gort.cli import main; main(sys.argv[1:]); "
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    )
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-c", code, "trace", tmp_path / "t", "-o", out, "--no-open"],
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    assert done.stderr == ""
    assert int(done.stdout) < 300 << 10  # KiB; the file has some 120 MB
    with out.open() as lines:
        assert sum('"thread_name"' in line and '"pid":2' in line for line in lines) == 100_001


@needs_go
@pytest.mark.timeout(400)
def test_a_trace_of_gos(tmp_path):
    (tmp_path / "main.go").write_text(
        """package main
        import ("context"; "os"; "runtime/trace"; "sync")
        func worker(c chan int, done *sync.WaitGroup) { for range c {}; done.Done() }
        func main() {
            file, _ := os.Create(os.Args[1])
            trace.Start(file)
            ctx, task := trace.NewTask(context.Background(), "order")
            c, done := make(chan int), sync.WaitGroup{}
            done.Add(2)
            go worker(c, &done)
            go worker(c, &done)
            trace.WithRegion(ctx, "feed", func() { for i := 0; i < 50; i++ { c <- i } })
            close(c)
            done.Wait()
            task.End()
            trace.Stop()
        }"""
    )
    command = [traces.go(), "run", str(tmp_path / "main.go"), str(tmp_path / "t")]
    subprocess.run(command, check=True, timeout=250, cwd=tmp_path)
    trace = TraceFile(io.BytesIO((tmp_path / "t").read_bytes()))
    store = Store(trace)
    assert trace.warning is None
    workers = next(group for group in store.groups if group.name == "main.worker")
    assert workers.count == 2 and "chan receive" in workers.blocked
    summary = store.summary()
    assert summary["tasks"][0][:2] == ["order", 1] and summary["regions"][0][:2] == ["feed", 1]
    converted((tmp_path / "t").read_bytes())


def test_the_command(tmp_path, capsys):
    path, out = tmp_path / "t", tmp_path / "out.json"
    path.write_bytes(small())
    assert main(["trace", str(path), "-o", str(out), "--no-open"]) == 0
    assert capsys.readouterr() == ("", "")
    hold(json.loads(out.read_text())["traceEvents"])
    assert main(["trace", str(path), "--json", "-"]) == 0
    assert capsys.readouterr().out == out.read_text()
    assert main(["trace", str(path), "--no-open"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["goroutines", "running"]
    assert len(lines) == 1 + len(Store(TraceFile(io.BytesIO(path.read_bytes()))).groups)
    path.write_bytes(path.read_bytes()[:-9])
    assert main(["trace", str(path), "--no-open"]) == 0
    assert "cut off or damaged" in capsys.readouterr().err
    path.unlink()  # every trace that is left is one that Go takes


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "text").write_text("hello")
    assert main(["trace", str(tmp_path / "text"), "--no-open"]) == 1
    assert "this is no execution trace" in capsys.readouterr().err
    assert main(["trace", str(tmp_path / "none"), "--no-open"]) == 1
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "t").write_bytes(small())
    assert main(["trace", str(tmp_path / "t"), "-o", str(tmp_path / "no" / "x"), "--no-open"]) == 1
    assert "No such file" in capsys.readouterr().err
    for wrong in ("0.0.0.0:80", "example.com:80", "127.0.0.1", "127.0.0.1:x", "[::]:1", ":70000"):
        with pytest.raises(SystemExit):
            main(["trace", str(tmp_path / "t"), "--http", wrong])
    assert "loopback" in capsys.readouterr().err


def test_addresses():
    assert address(":0") == address("0") == ("127.0.0.1", 0)
    assert address("localhost:81") == ("127.0.0.1", 81)
    assert address("[::1]:81") == ("::1", 81)


@contextlib.contextmanager
def served(data: bytes):
    """The page of a trace: a function that asks for a path, and gives answer and body."""
    with server(Store(TraceFile(io.BytesIO(data)))) as at, gort.threads.real():
        thread = threading.Thread(target=at.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(path, method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", at.server_address[1], timeout=20)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer, body

        try:
            yield ask
        finally:
            at.shutdown()
            thread.join()


def test_the_page_is_whole_and_loads_nothing_from_elsewhere():
    with served(small()) as ask:
        for path, kind in [("/", "html"), ("/page.css", "css"), ("/page.js", "javascript")]:
            answer, body = ask(path)
            assert answer.status == 200 and kind in answer.headers["Content-Type"]
            assert body
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            if path != "/page.js":
                assert b"://" not in body
    script = resources.files("gort.cli").joinpath("trace_page", "page.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "https:"):
        assert way not in script
    assert script.replace("http://www.w3.org/2000/svg", "").count("://") == 0


def test_what_the_page_asks_for():
    with served(small()) as ask:
        summary = json.loads(ask("/summary")[1])
        assert summary["warning"] is None and summary["tasks"][0][0] == HOSTILE
        picture = json.loads(ask(f"/picture?from=0&to={summary['length']}&columns=900&g=1")[1])
        assert [lane["name"] for lane in picture["lanes"]][-1] == "G 1"
        assert all(lane["slices"] for lane in picture["lanes"])
        assert picture["counts"][0][0] == 0
        members = json.loads(ask("/group?index=0")[1])
        assert members and len(members[0]) == 7
        for wrong in (
            "/picture",
            "/picture?from=x&to=1&columns=1",
            "/group?index=99",
            "/group?index=-1",
        ):
            assert ask(wrong)[0].status == 400
        for nothing in ("/x", "/page.html", "/../trace.py", "/trace_page/page.js"):
            assert ask(nothing)[0].status == 404
        assert ask("/", method="POST")[0].status == 501


def test_a_page_from_elsewhere_gets_nothing():
    with served(small()) as ask:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example:1", ""):
            assert ask("/summary", Host=host)[0].status == 421
        assert ask("/summary", Host="localhost:1")[0].status == 200


def test_a_picture_has_no_more_parts_than_columns():
    file = io.BytesIO()
    with gort.trace.to(file):
        for _ in range(3000):
            gort.go(int)
            gort.gosched()
    store = Store(TraceFile(io.BytesIO(file.getvalue())))
    length = store.summary()["length"]
    lane = next(one for one in store.picture(0, length, 300, [])["lanes"] if one["name"] == "P 0")
    assert 1 <= len(lane["slices"]) <= 2 * 300 + 2
    busy = sum(s[2] if len(s) == 4 else s[1] - s[0] for s in lane["slices"])
    parts = sum(s[3] if len(s) == 4 else 1 for s in lane["slices"])
    every = store.picture(0, length, 8000, [])["lanes"]
    all_of = next(one for one in every if one["name"] == "P 0")["slices"]
    assert busy == sum(s[2] if len(s) == 4 else s[1] - s[0] for s in all_of)
    assert parts == sum(s[3] if len(s) == 4 else 1 for s in all_of) > 3000
