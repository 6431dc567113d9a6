"""grpcio in goroutines against a server: a blocking call keeps an OS thread, whose processor is handed
off, since gRPC waits in locks of its own; a future is waited for in Python, which parks.
"""

from __future__ import annotations

import pytest
from driving import Served, drive, needs

FIRST = """
import sys
import grpc
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
def method(name, channel=channel):
    return channel.unary_unary(f"/s/{name}")
def blocking(call, i, **options):
    return int(call(b"%d" % i, **options))
def future(call, i, **options):
    return int(call.future(b"%d" % i, **options).result())
wait, echo, waiting, gate_open, gate_close = map(method, ("wait", "echo", "waiting", "open", "close"))
def inside():
    return int(waiting(b""))
try:
"""
WAYS = pytest.mark.parametrize("way", ["blocking", "future"])


@pytest.fixture(scope="module")
def server():
    needs("grpc")
    with Served("driver_grpc_server.py") as served:
        yield served


def run(server, code: str, way: str = "blocking") -> None:
    body = "".join(f"    {line}\n" for line in code.splitlines())
    # Its threads do not survive the interpreter's end quietly while anything is open.
    end = "finally:\n    channel.close()\n"
    drive(f"port = {server.ports[0]}\n{FIRST}    way = {way}\n{body}{end}")


@WAYS
def test_500_goroutines_wait_at_once_and_get_their_own_answers(way, server):
    code = """
gate_close(b"")
own_answers(lambda: wait, way, inside, lambda: gate_open(b""), few=way is future)
assert join_all(begun(lambda i: way(echo, i))) == list(range(MANY))
print("ok")
"""
    run(server, code, way)


@WAYS
def test_deadlines_and_cancellations_are_rpc_errors(way, server):
    code = """
gate_close(b"")
def late(i):
    try:
        return way(wait, i, timeout=0.5)
    except grpc.RpcError as error:
        return error.code()
assert join_all(begun(late, 50)) == [grpc.StatusCode.DEADLINE_EXCEEDED] * 50

calls = [wait.future(b"%d" % i) for i in range(50)]
contexts = [gort.context.with_cancel(gort.context.background()) for _ in calls]
for (ctx, _), call in zip(contexts, calls):
    gort.context.after_func(ctx, call.cancel)
def cancelled(i):
    try:
        return int(calls[i].result())
    except grpc.FutureCancelledError:
        return "cancelled"
goroutines = begun(cancelled, 50)
eventually(lambda: inside() == 50)
for _, cancel in contexts[::2]:
    cancel()
eventually(lambda: sum(g.done for g in goroutines) == 25)
gate_open(b"")
assert join_all(goroutines) == [i if i % 2 else "cancelled" for i in range(50)]
assert join_all(begun(lambda i: way(echo, i), 200)) == list(range(200))
print("ok")
"""
    run(server, code, way)


@WAYS
def test_a_cancelled_goroutine_ends_and_its_channel_goes_on(way, server):
    code = """
gate_close(b"")
answers = {}
def work(i):
    with gort.no_preempt():  # or it could end wherever it computes
        answers[i] = way(wait, i)
    gort.gosched()
    answers[i] = "went on"
goroutines = begun(work, 20)
eventually(lambda: inside() == 20)
for g in goroutines:
    g.cancel()
gate_open(b"")
assert (kinds := kinds_of_errors(goroutines)) == {gort.Cancelled}, kinds
assert answers == {i: i for i in range(20)}, answers
assert join_all(begun(lambda i: way(echo, i), 100)) == list(range(100))
print("ok")
"""
    run(server, code, way)


def test_streams_are_read_by_many_goroutines(server):
    code = """
count = channel.unary_stream("/s/count")
def work(i):
    return [int(n) for n in count(b"%d" % i)]
assert join_all(begun(work, 100)) == [list(range(i)) for i in range(100)]
print("ok")
"""
    run(server, code)


@WAYS
def test_a_channel_comes_back_with_its_server(way, server):
    code = """
server = Served("driver_grpc_server.py")
options = [("grpc.max_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 50)]
with grpc.insecure_channel(f"127.0.0.1:{server.ports[0]}", options) as channel:
    wait, echo, waiting = (method(name, channel) for name in ("wait", "echo", "waiting"))
    def lost(i):
        try:
            return way(wait, i)
        except grpc.RpcError as error:
            return error.code()
    goroutines = begun(lost, 50)
    eventually(lambda: inside() == 50)
    server.kill()
    assert set(join_all(goroutines)) == {grpc.StatusCode.UNAVAILABLE}
    assert set(join_all(begun(lost, 50))) == {grpc.StatusCode.UNAVAILABLE}
    goroutines = begun(lambda i: way(echo, i, wait_for_ready=True), 50)
    server.start()
    assert join_all(goroutines) == list(range(50))
server.kill()
print("ok")
"""
    run(server, code, way)
