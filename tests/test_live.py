"""/debug/gort/: the page, the figures that it shows, CPU profiles as JSON, and who is refused."""

from __future__ import annotations

import http.client
import io
import json
import re
from xml.etree import ElementTree

import gort
import gort.pprof
import pytest
from children import check
from gort.pprof import _live, _state
from pprofs import ask
from waiting import eventually, parked, waiter

PAGE = "/debug/gort/"
STATE = f"{PAGE}state.json"
SEEN = f"{PAGE}goroutines.json"
PROFILE = f"{PAGE}profile.json"


@pytest.fixture
def server():
    with gort.pprof.serve("127.0.0.1:0") as server:
        yield server


def told(server, path, method="GET", **headers):
    """The JSON of an answer that must be one."""
    status, head, body = ask(server, path, method, **headers)
    assert status == 200, body
    assert head["Content-Type"] == "application/json"
    return json.loads(body)


def stays(ch):
    ch.recv_ok()


def test_page_is_one_document_that_lets_nothing_in(server):
    status, headers, body = ask(server, PAGE)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    text = body.decode()
    policy = headers["Content-Security-Policy"]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert set(re.findall(r'<(?:script|style) nonce="([^"]+)">', text)) == {nonce}
    assert len(re.findall(r"<(?:script|style)\b", text)) == 2
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert "/* scripts */" not in text and "/* styles */" not in text
    assert not re.search(r"\son\w+=|\sstyle=", text), "attributes that the policy forbids"


def test_page_has_another_nonce_each_time(server):
    assert len({ask(server, PAGE)[1]["Content-Security-Policy"] for _ in range(3)}) == 3


def test_paths(server):
    status, headers, _ = ask(server, "/debug/gort")
    assert (status, headers["Location"]) == (301, "gort/")
    assert ask(server, "/debug/gort?token=a%0Ab")[1]["Location"] == "gort/?token=a%0Ab"
    for name in ("concurrency", "nothing", "../pprof/", "live.js", "state.json/"):
        assert ask(server, f"{PAGE}{name}")[::2] == (404, b"404 page not found\n"), name
    assert ask(server, "/debug/gortx")[0] == 404
    assert server.live_url == server.url.replace("pprof", "gort")
    assert b'href="../gort/"' in ask(server, "/debug/pprof/")[2]


def test_concurrency_graph_is_of_the_goroutines_there_are(server, monkeypatch):
    ch = gort.Chan()
    many = [gort.spawn(stays, (ch,), name="<a&b>") for _ in range(3)]
    parked(*many)
    status, headers, body = ask(server, f"{PAGE}concurrency.svg")
    ch.close()
    for g in many:
        g.join()
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
    picture = ElementTree.fromstring(body)
    assert "<a&b> x3" in "".join(picture.itertext())
    monkeypatch.setattr(_live, "MOST", 0)
    assert b"goroutines are too many" in ask(server, f"{PAGE}concurrency.svg")[2]


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        (PAGE, "POST", "GET, HEAD"),
        (STATE, "POST", "GET, HEAD"),
        (SEEN, "DELETE", "GET, HEAD"),
        (PROFILE, "GET", "POST"),
        (PROFILE, "HEAD", "POST"),
    ],
)
def test_methods(server, path, method, allowed):
    status, headers, _ = ask(server, path, method)
    assert (status, headers["Allow"]) == (405, allowed)


def test_head_has_no_body(server):
    status, headers, body = ask(server, STATE, "HEAD")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 0


# Figures.


def test_state_counts_goroutines_and_what_happens_to_them(server):
    ch = gort.Chan()
    before = told(server, STATE)
    waiting = [gort.go(stays, ch) for _ in range(30)]
    parked(*waiting)
    after = told(server, STATE)
    assert after["goroutines"]["total"] - before["goroutines"]["total"] >= 30
    assert after["goroutines"]["waiting"] >= 30 and after["goroutines"]["running"] >= 1
    assert after["counters"]["created"] - before["counters"]["created"] >= 30
    assert sum(after["processors"]["runs"]) - sum(before["processors"]["runs"]) >= 30
    assert after["processors"]["count"] == gort.gomaxprocs() == len(after["processors"]["queues"])
    assert after["machines"]["count"] >= 1 and after["now_ns"] > before["now_ns"]
    assert after["memory"]["resident"] > 1 << 20 and after["cost_ns"] >= 0
    assert after["process"] == before["process"]
    assert after["process"]["gort"] == gort.__version__
    ch.close()


def test_state_has_the_histograms_of_metrics(server):
    import gort.metrics

    told(server, STATE)
    state = told(server, STATE)
    whole = gort.metrics.read("/gc/pauses:seconds")[0].histogram()
    assert len(state["bounds_ns"]) + 1 == len(whole.counts)
    for found in state["latencies"].values():
        assert all(0 <= bucket < len(whole.counts) and n > 0 for bucket, n in found["counts"])
    assert tuple(bound / 1e9 for bound in state["bounds_ns"]) == whole.buckets[1:-1]


def test_queues_have_what_waits_for_a_processor():
    started = [gort.go(gort.gosched) for _ in range(25)]
    idle, spinning, waiting, *each = gort._core._processors()
    assert waiting + sum(each[::2]) >= 20, (idle, spinning, waiting, each)
    for g in started:
        g.join()


def test_health_is_looked_at_now_and_then_by_samples_of_its_own(server):
    _state._health._at = float("-inf")
    for _ in range(3):
        assert told(server, STATE)["health"]["flags"] is not None
    samples = list(_state._health._monitor._samples)
    told(server, STATE)
    assert list(_state._health._monitor._samples) == samples


def test_a_forked_child_is_another_process():
    code = """
    import os, warnings
    import gort
    from gort.pprof import _state
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads
    before = _state.state()["process"]
    out, into = os.pipe()
    if os.fork() == 0:
        found = _state.state()["process"]
        os.write(into, b"%d" % (found["pid"] == os.getpid() and found["started"] > before["started"]))
        os._exit(0)
    assert os.read(out, 1) == b"1"
    os.wait()
    print("ok")
    """
    check(code, "ok")


# Goroutines.


def groups_of(answer, function):
    """The groups with a function in their stack, and all frames as names."""
    names = [name for name, _, _ in answer["frames"]]
    return [g for g in answer["groups"] if any(function in names[n] for n in g["stack"])]


def test_goroutines_are_grouped_by_what_they_do(server):
    ch = gort.Chan()
    many = [waiter(stays, ch) for _ in range(30)]
    answer = told(server, SEEN)
    (group,) = groups_of(answer, "test_live.stays")
    assert (group["count"], group["state"]) == (30, "chan receive")
    name, file, line = answer["frames"][group["stack"][0]]
    assert file == __file__ and line == stays.__code__.co_firstlineno + 1
    assert len(group["members"]) == 20
    assert {one["id"] for one in group["members"]} <= {g.id for g in many}
    assert answer["matched"] == answer["total"] >= 30 and answer["left_out"] == 0
    counts = [group["count"] for group in answer["groups"]]
    assert counts == sorted(counts, reverse=True)
    ch.close()


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("test_live.STAYS", 3),
        ("chan%20receive", 3),
        ("test_live.py", 3),
        ("first%3Cb%3E", 1),
        ("shard=7", 2),
        ("no such words", 0),
    ],
)
def test_goroutines_are_found_by_words(server, words, count):
    ch = gort.Chan()
    for name, labels in (
        ("first<b>", {"shard": "7"}),
        ("second", {"shard": "7"}),
        (None, {"shard": "8"}),
    ):
        g = gort.spawn(stays, (ch,), name=name, labels=labels)
        parked(g)
    answer = told(server, f"{SEEN}?q={words.replace(' ', '%20')}")
    found = groups_of(answer, "test_live.stays")
    assert sum(group["count"] for group in found) == count
    assert sum(group["count"] for group in answer["groups"]) == answer["matched"]
    ch.close()


def test_goroutine_is_found_by_its_number(server):
    ch = gort.Chan()
    g, _ = waiter(stays, ch), waiter(stays, ch)
    (group,) = groups_of(told(server, f"{SEEN}?q={g.id}"), "stays")
    assert [one["id"] for one in group["members"]] == [g.id]
    ch.close()


def test_more_goroutines_than_asked_for_are_not_looked_at(server):
    ch = gort.Chan()
    parked(*[gort.go(stays, ch) for _ in range(10)])
    answer = told(server, f"{SEEN}?most=5")
    assert answer["skipped"] and answer["total"] > 5 and "groups" not in answer
    for most in ("", "-1", "x", "²", "9" * 40):
        path = f"{SEEN}?most={most.encode().hex() if most == '²' else most}"
        assert not told(server, path)["skipped"], most
    ch.close()


def test_names_are_told_as_they_are_and_never_break_the_answer(server):
    ch = gort.Chan()
    names = ["<script>alert(1)</script>", "\x1b[31mred\n", "\udcff half", '"\\\u2028']
    parked(*[gort.spawn(stays, (ch,), name=name, labels={name: name}) for name in names])
    status, _, body = ask(server, SEEN)
    assert status == 200 and body.isascii()
    members = [
        one for group in json.loads(body)["groups"] for one in group["members"] if one["name"]
    ]
    shown = {one["name"] for one in members}
    assert {"<script>alert(1)</script>", "\\x1b[31mred\\n", "\\udcff half"} <= shown
    ch.close()


# CPU profiles.


def computes(stop):
    while not stop:
        sum(range(2000))
        gort.gosched()


def test_profile_tells_what_ran(server):
    stop = []
    g = gort.go(computes, stop)
    found = told(server, f"{PROFILE}?seconds=0.5", "POST")
    stop.append(1)
    g.join()
    assert found["samples"] >= 1 and found["period_ns"] == 10_000_000
    assert found["duration_ns"] >= 500_000_000
    names = [name for name, _, _ in found["frames"]]
    ours = [(n, s) for n, s in found["stacks"] if any("computes" in names[f] for f in s)]
    assert ours, names
    assert sum(n for n, _ in found["stacks"]) == found["samples"]
    for _, stack in ours:
        assert "computes" in names[stack[0]], "the outermost function comes first"


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "301", "inf", "nan", "1e9"])
def test_profile_of_a_wrong_length_is_refused(server, seconds):
    assert ask(server, f"{PROFILE}?seconds={seconds}", "POST")[0] == 400


def test_profile_beside_another_is_refused_and_leaves_that_alone(server):
    taken = []
    _cpu = gort.pprof._cpu
    _cpu.start_taking(taken.append)
    try:
        status, _, body = ask(server, f"{PROFILE}?seconds=1", "POST")
        assert (status, body[:28]) == (409, b"Could not enable CPU profili")
        assert not taken
    finally:
        gort.pprof.stop_cpu_profile()
    assert len(taken) == 1


def profiling():
    return gort.pprof._cpu._running is not None


def test_profile_that_somebody_else_ends_is_told_all_the_same(server):
    asked = gort.go(ask, server, f"{PROFILE}?seconds=1", "POST")
    eventually(profiling, what="a profile")
    gort.pprof.stop_cpu_profile()
    assert asked.join()[0] == 200


def test_profile_ends_with_the_client_that_wanted_it(server):
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    connection.request("POST", f"{PROFILE}?seconds=300")
    eventually(profiling, what="a profile")
    connection.close()
    eventually(lambda: not profiling(), what="the end of the profile")


# Who is refused.


@pytest.mark.parametrize(
    ("headers", "reads", "acts", "visits"),
    [
        ({}, 200, 400, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200, 400, 200),
        ({"Sec_Fetch_Site": "none"}, 200, 400, 200),
        ({"Sec_Fetch_Site": "same-site"}, 403, 403, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403, 403, 403),
        (
            {
                "Sec_Fetch_Site": "cross-site",
                "Sec_Fetch_Mode": "navigate",
                "Sec_Fetch_Dest": "document",
            },
            403,
            403,
            200,
        ),
        (
            {
                "Sec_Fetch_Site": "cross-site",
                "Sec_Fetch_Mode": "navigate",
                "Sec_Fetch_Dest": "iframe",
            },
            403,
            403,
            403,
        ),
        ({"Origin": "http://evil.example"}, 200, 403, 200),
        ({"Origin": "null"}, 200, 403, 200),
        ({"Origin": "http://[evil"}, 200, 403, 200),
        ({"Origin": "http://HERE"}, 200, 400, 200),
        ({"Sec_Fetch_Site": "same-origin", "Origin": "http://evil.example"}, 200, 400, 200),
    ],
)
def test_pages_of_elsewhere_are_refused(server, headers, reads, acts, visits):
    here = "{}:{}".format(*server.address)
    headers = {name: value.replace("HERE", here) for name, value in headers.items()}
    assert ask(server, STATE, **headers)[0] == reads
    assert ask(server, f"{PROFILE}?seconds=0", "POST", **headers)[0] == acts
    assert ask(server, PAGE, **headers)[0] == visits


@pytest.mark.parametrize("path", [PAGE, STATE, SEEN])
def test_other_names_of_this_machine_are_refused(server, path):
    assert ask(server, path, Host="evil.example:6060")[0] == 403
    assert ask(server, path, Host="localhost:6060")[0] == 200
    assert ask(server, PROFILE, "POST", Host="evil.example")[0] == 403


def test_token_is_wanted_for_everything():
    with gort.pprof.serve("127.0.0.1:0", token="secret") as server:
        for path, method in ((PAGE, "GET"), (STATE, "GET"), (SEEN, "GET"), (PROFILE, "POST")):
            assert ask(server, path, method)[0] == 401, path
            assert ask(server, path, method, Authorization="Bearer wrong")[0] == 401, path
        assert ask(server, STATE, Authorization="Bearer secret")[0] == 200
        assert ask(server, f"{PAGE}?token=secret")[0] == 200
        bad = f"{PROFILE}?seconds=0"
        assert ask(server, bad, "POST", Authorization="Bearer secret")[0] == 400
        foreign = {"Authorization": "Bearer secret", "Sec_Fetch_Site": "cross-site"}
        assert ask(server, bad, "POST", **foreign)[0] == 403


# The WSGI application.


def call(path, method="GET", **environ):
    """Status, headers and body of the application."""
    box = []
    request = {"REQUEST_METHOD": method, "PATH_INFO": path, **environ}
    body = b"".join(gort.pprof.app(request, lambda status, headers: box.append((status, headers))))
    (status, headers), *_ = box
    return status, dict(headers), body


def test_application_has_the_same_wherever_it_is_mounted():
    status, _, body = call("/debug/gort/state.json", SCRIPT_NAME="/admin")
    assert status == "200 OK" and json.loads(body)["goroutines"]["total"] >= 0
    assert call("/x/debug/gort/")[2].startswith(b"<!doctype html>")
    assert call("/debug/pprof/debug/gort/state.json")[0] == "404 Not Found"
    assert call("/debug/gort/debug/pprof/")[0] == "404 Not Found"


def test_application_refuses_pages_of_elsewhere():
    path = "/debug/gort/profile.json"
    own = {
        "HTTP_HOST": "app.example",
        "HTTP_ORIGIN": "https://app.example",
        "QUERY_STRING": "seconds=0",
    }
    own["wsgi.input"] = io.BytesIO()
    assert call(path, "POST", **own)[0] == "400 Bad Request"
    assert call(path, "POST", **own | {"HTTP_ORIGIN": "https://evil.example"})[0] == "403 Forbidden"
    assert call(path, "POST", **own | {"HTTP_SEC_FETCH_SITE": "cross-site"})[0] == "403 Forbidden"
    assert call("/debug/gort/state.json", HTTP_SEC_FETCH_SITE="cross-site")[0] == "403 Forbidden"


def test_every_file_of_the_page_is_used():
    import os

    used = {"live.html", "live.css", *_live._SCRIPTS}
    assert set(os.listdir(_live._PAGE)) == used
