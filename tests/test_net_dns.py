"""The resolver of gort.net: one question at a time for a name, answers kept, waits that end."""

from __future__ import annotations

import socket

import gort
import gort.net
import pytest
from gort.net import _dns
from waiting import LIMIT, OnThread, eventually, parked, raises_text, waiter


@pytest.fixture
def asked(monkeypatch):
    """Questions asked; each waits for the gate."""

    class Asked(list):
        gate = gort.Chan()
        answers = {"host": ["192.0.2.1", "2001:db8::1"]}

    questions = Asked()

    def getaddrinfo(host, port, **_):
        questions.append(host)
        questions.gate.recv_ok()
        if host not in questions.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (a, 0)) for a in questions.answers[host] for _ in range(2)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield questions
    if not questions.gate.closed:
        questions.gate.close()


def test_one_question_for_all_who_ask(asked):
    resolver = gort.net.Resolver(ttl=60)
    gs = [gort.go(resolver.lookup_host, "host") for _ in range(20)]
    thread = OnThread(resolver.lookup_host, "host")
    parked(*gs)
    asked.gate.close()
    for g in [*gs, thread]:
        assert g.join(timeout=LIMIT) == ["192.0.2.1", "2001:db8::1"]
    assert asked == ["host"]
    resolver.lookup_host("host").clear()  # a list of the caller's own
    assert len(resolver.lookup_host("host")) == 2
    assert asked == ["host"]
    resolver.forget()
    resolver.lookup_host("host")
    assert asked == ["host"] * 2


def test_answers_are_kept_for_a_while(asked):
    from gort.testing import synctest

    asked.gate.close()

    def body():
        resolver = gort.net.Resolver(ttl=5)
        resolver.lookup_host("host")
        gort.sleep(4.9)
        resolver.lookup_host("host")
        assert len(asked) == 1
        gort.sleep(0.2)
        resolver.lookup_host("host")
        assert len(asked) == 2

    synctest.run(body)
    resolver = gort.net.Resolver(ttl=0)
    resolver.lookup_host("host")
    resolver.lookup_host("host")
    assert len(asked) == 4


def test_who_gives_up_waits_no_longer_and_the_question_goes_on(asked):
    resolver = gort.net.Resolver()
    with raises_text(TimeoutError, "lookup host: i/o timeout"):
        resolver.lookup_host("host", timeout=0.01)
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    gort.after_func(0.01, cancel)
    with pytest.raises(gort.ContextCanceled):
        resolver.lookup_host("host", ctx=ctx)
    g = waiter(resolver.lookup_host, "host")
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    asked.gate.send(None)
    eventually(lambda: resolver._answers.get(("host", "host"))[1])
    assert resolver.lookup_host("host") == ["192.0.2.1", "2001:db8::1"]
    assert asked == ["host"]


def test_errors_are_not_kept(asked):
    asked.gate.close()
    resolver = gort.net.Resolver()
    for _ in range(2):
        with raises_text(gort.net.DNSError, "lookup nobody: Name or service not known") as caught:
            resolver.lookup_host("nobody")
        assert caught.value.errno == socket.EAI_NONAME
        assert isinstance(caught.value, OSError)
    assert asked == ["nobody"] * 2
    asked.answers = {"nobody": ["192.0.2.9"]}
    assert resolver.lookup_host("nobody") == ["192.0.2.9"]


def test_a_time_out_of_dial_is_for_the_lookup_as_well(asked, monkeypatch):
    monkeypatch.setattr(_dns, "DEFAULT", gort.net.Resolver())
    with raises_text(TimeoutError, "lookup host: i/o timeout"):
        gort.net.dial("tcp", "host:80", timeout=0.01)


def test_real_answers():
    assert set(gort.net.lookup_host("localhost")) <= {"127.0.0.1", "::1"}
    assert gort.net.lookup_host("127.0.0.1") == ["127.0.0.1"]
    assert gort.net.lookup_host("fe80::1%1") == ["fe80::1%1"]
    assert "localhost" in gort.net.lookup_addr("127.0.0.1")[0]
    with pytest.raises(ValueError, match="unrecognized address"):
        gort.net.lookup_addr("localhost")
    with raises_text(gort.net.DNSError, "lookup : no such host"):
        gort.net.lookup_host("")
    with pytest.raises(ValueError):
        gort.net.Resolver(ttl=-1)


def test_ports():
    assert gort.net.lookup_port("tcp", "80") == gort.net.lookup_port("tcp", 80) == 80
    assert gort.net.lookup_port("tcp", "") == 0
    for bad in ("65536", -1, "-1"):
        with pytest.raises(ValueError, match="invalid port"):
            gort.net.lookup_port("tcp", bad)
    with raises_text(gort.net.DNSError, "lookup tcp/nonesuch: unknown port"):
        gort.net.lookup_port("tcp", "nonesuch")
