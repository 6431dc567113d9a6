"""Every request of the corpus gets its answer, and nothing behind a bad one is read as a request."""

from __future__ import annotations

import gort
import pytest
from wsgi_corpus import BAD, BEHIND, CUT, GOOD, LAST
from wsgi_tools import Recorder, answers, serving


def named(entry):
    return entry[0]


@pytest.fixture(scope="module")
def recorder():
    return Recorder()


@pytest.fixture(scope="module")
def served(recorder):
    with serving(recorder, max_body=100_000) as server:
        yield server


def statuses(data):
    return [answer.status for answer in answers(data)]


@pytest.mark.parametrize("size", [None, 1, 3])
@pytest.mark.parametrize("entry", GOOD, ids=named)
def test_good_request_is_answered_and_the_connection_goes_on(entry, size, served, recorder):
    _, data, wanted, seen = entry
    recorder.seen.clear()
    got = served.exchange(b"", pieces=pieces(data + BEHIND, size))
    assert statuses(got) == [*wanted, 200]
    assert recorder.seen == [*seen, "GET /smuggled "]


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("entry", LAST, ids=named)
def test_last_request_ends_the_connection(entry, size, served, recorder):
    _, data, wanted, seen = entry
    recorder.seen.clear()
    got = served.exchange(b"", cut=False, pieces=pieces(data + BEHIND, size))
    assert statuses(got) == wanted
    assert answers(got)[-1].headers["connection"] == "close"
    assert recorder.seen == seen


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("entry", BAD, ids=named)
def test_bad_request_is_refused_and_ends_the_connection(entry, size, served, recorder):
    _, data, wanted, seen = entry
    if size and len(data) > 20_000:
        size *= 500  # as many segments as of the others
    recorder.seen.clear()
    got = served.exchange(b"", cut=False, pieces=pieces(data + BEHIND, size))
    assert statuses(got) == wanted
    assert answers(got)[-1].headers["connection"] == "close"
    assert recorder.seen == seen


@pytest.mark.parametrize("entry", BAD, ids=named)
def test_bad_request_behind_good_ones_ends_the_connection(entry, served, recorder):
    _, data, wanted, seen = entry
    good = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
    recorder.seen.clear()
    got = served.exchange(good * 2 + data + BEHIND, cut=False)
    assert statuses(got) == [200, 200, *wanted]
    assert recorder.seen == ["GET /good ", "GET /good ", *seen]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\nX", b"\n"]
)
def test_head_that_is_wrong_already_is_not_waited_for(data, served, recorder):
    recorder.seen.clear()
    assert statuses(served.exchange(data, cut=False)) == [400]
    assert recorder.seen == []


@pytest.mark.parametrize("entry", CUT, ids=named)
def test_request_that_is_cut_off_is_no_request(entry, served, recorder):
    _, data, wanted, seen = entry
    recorder.seen.clear()
    assert statuses(served.exchange(data)) == wanted
    assert recorder.seen == seen


def test_worker_goes_on_behind_the_whole_corpus(served):
    for _, data, _, _ in (*BAD, *CUT):
        with served.connect() as sock:
            try:
                sock.sendall(data)
            except OSError:
                pass
    assert statuses(served.exchange(GOOD[0][1])) == [200]
    assert not [g for g in gort.goroutines() if g.done and g.name == "gort.wsgi accept"]


def pieces(data, size):
    """Cut bytes into pieces of `size`; None: leave them whole."""
    if size is None:
        return [data]
    return [data[at : at + size] for at in range(0, len(data), size)]
