"""HTTP clients in goroutines against a server of aiohttp: urllib3, requests, httpx, pycurl, http.client.
Nothing of them is patched, but for races of httpx that threads have, too (http_clients.py).
"""

from __future__ import annotations

import pytest
from driving import Served, drive, needs
from http_clients import CLIENTS

EVERY = pytest.mark.parametrize("name", CLIENTS)
POOLS = pytest.mark.parametrize("name", [name for name in CLIENTS if name != "http.client"])

FIRST = """
import http_clients, urllib.request
def control(path):
    with urllib.request.urlopen(f"{place}/{path}") as answer:
        return int(answer.read())
def waiting():
    return control("waiting")
make = http_clients.CLIENTS[name]
try:
"""


@pytest.fixture(scope="module")
def server():
    needs("aiohttp")
    with Served("driver_http_server.py") as served:
        yield served


def run(name: str, server, code: str, **options) -> None:
    needs(*CLIENTS[name].modules)
    plain, secure = server.ports
    names = f'name, place, secure = {name!r}, "http://127.0.0.1:{plain}", "https://127.0.0.1:{secure}"\n'
    body = "".join(f"    {line}\n" for line in code.splitlines())
    drive(names + FIRST + body + "finally:\n    http_clients.clean()\n", **options)


@EVERY
def test_500_goroutines_wait_at_once_and_get_their_own_answers(name, server):
    code = """
client = make()
control("close")
ask = lambda connection, i: int(client.get(f"{place}/wait/{i}"))
own_answers(lambda: None, ask, waiting, lambda: control("open"))
full, size = client.idle(place)
assert full == size
print("ok")
"""
    run(name, server, code)


@EVERY
def test_bodies_go_out_and_come_back_over_tls(name, server):
    code = """
client = make(50, block=True)
def work(i):
    body = b"%d" % i * (i % 7 * 10_000)
    return client.put(f"{secure}/echo/{i}", body) == b"%d" % i + body
assert join_all(begun(work, 200)) == [True] * 200
full, size = client.idle(secure)
assert full == size
print("ok")
"""
    run(name, server, code)


@EVERY
def test_time_outs_and_lost_connections_are_the_clients_exceptions(name, server):
    code = """
client = make(50, block=True)
def late(i):
    try:
        return client.get(f"{place}/never", timeout=0.5)
    except client.late:
        return "late"
def lost(i):
    try:
        return client.get(f"{place}/drop")
    except client.error:
        return "lost"
assert join_all(begun(late, 50)) == ["late"] * 50
assert join_all(begun(lost, 50)) == ["lost"] * 50
assert join_all(begun(lambda i: int(client.get(f"{place}/echo/{i}")), 200)) == list(range(200))
full, size = client.idle(place)
assert full == size
print("ok")
"""
    run(name, server, code)


@POOLS
def test_cancelled_goroutines_leave_the_pool_whole(name, server):
    code = """
import contextlib
client = make(10, block=True)
control("close")
answers = []
# httpcore 1.0 loses a connection that it gives to a request that is cancelled before it goes on with it: no safe points there.
whole = gort.no_preempt if name == "httpx" else contextlib.nullcontext
def work(i):
    with whole():
        answers.append(int(client.get(f"{place}/wait/{i}")))
    gort.gosched()
goroutines = begun(work, 50)
eventually(lambda: waiting() == 10)
for g in goroutines[::2]:
    g.cancel()
control("open")
ends = [ended_by(g) for g in goroutines]
assert all(isinstance(e, gort.Cancelled) for e in ends[::2]) and not any(ends[1::2]), ends
assert set(range(1, 50, 2)) <= set(answers) and len(set(answers)) == len(answers)
full, size = client.idle(place)
assert full == size == 10
assert join_all(begun(lambda i: int(client.get(f"{place}/echo/{i}")), 200)) == list(range(200))
print("ok")
"""
    run(name, server, code)


@EVERY
def test_clients_come_back_with_their_server(name, server):
    code = """
server = Served("driver_http_server.py")
place = f"http://127.0.0.1:{server.ports[0]}"
client, back, lost = make(10, block=True), gort.Chan(), []
def work(i):
    try:
        client.get(f"{place}/wait/{i}")
    except client.error as error:
        lost.append(i)
    back.recv_ok()
    while True:
        try:
            return int(client.get(f"{place}/echo/{i}"))
        except client.error:
            lost.append(i)
        gort.sleep(0.001)
goroutines = begun(work, 50)
eventually(lambda: waiting() == (50 if name == "http.client" else 10))
server.kill()
eventually(lambda: len(set(lost)) == 50)  # nothing hangs while there is none
server.start()
back.close()
assert join_all(goroutines) == list(range(50))
full, size = client.idle(place)
assert full == size
server.kill()
print("ok")
"""
    run(name, server, code)


def test_a_callback_of_libcurl_may_park_and_move(server):
    code = """
import pycurl
box = gort.Chan()
def work(i):
    got = []
    def write(data):
        box.recv()
        got.append(bytes(data))
    curl = pycurl.Curl()
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.URL, f"{place}/echo/{i}")
    curl.setopt(pycurl.WRITEFUNCTION, write)
    curl.perform()
    return int(b"".join(got))
goroutines = begun(work, 100)
eventually(lambda: all(g.status == "chan receive" for g in goroutines))
for _ in range(100):
    box.send(None)
assert join_all(goroutines) == list(range(100))
print("ok")
"""
    run("pycurl", server, code)
