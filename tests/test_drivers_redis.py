"""redis-py in goroutines, with its own parser and with hiredis, against a server. Nothing is patched."""

from __future__ import annotations

import pytest
from driving import drive, needs, port_of

#: What reads answers: a class of redis-py in Python, or hiredis in C; both over Python's sockets.
PARSERS = {"plain": "_RESP2Parser", "hiredis": "_HiredisParser"}
EVERY = pytest.mark.parametrize("name", PARSERS)

FIRST = """
import redis
from redis._parsers import _HiredisParser, _RESP2Parser
from server_keeper import Keeper

options = {{"port": {port}, "parser_class": {parser}, "protocol": 2}}

def one():
    "A client with a connection of its own."
    return redis.Redis(connection_pool=redis.ConnectionPool(**options), single_connection_client=True)

control = one()
control.flushall()

def pool(size, **more):
    "At most so many connections; who finds none waits for one."
    return redis.BlockingConnectionPool(size, LIMIT, **options, **more)

def client(pool):
    return redis.Redis(connection_pool=pool)

def take(client, i):
    "Wait for an element of a list of one's own."
    return int(client.blpop(f"list{{abs(i)}}", 0)[1])

def patient(call, *args):
    "What a call gives that may be late, however often it is."
    while True:
        try:
            return call(*args)
        except redis.TimeoutError:
            pass

def waiting():
    return control.info("clients")["blocked_clients"]

def whole(pool, size):
    "All connections are back."
    return pool.pool.qsize() == size and pool.pool.maxsize == size
"""


@pytest.fixture
def port(keeper):
    return port_of(keeper, "redis")


def run(name: str, port: int, code: str) -> None:
    needs("redis", "hiredis")
    drive(FIRST.format(port=port, parser=PARSERS[name]) + code)


@EVERY
def test_500_goroutines_wait_at_once_and_get_their_own_answers(name, port):
    code = """
def release():
    pipe = control.pipeline(transaction=False)
    for i in range(MANY):
        pipe.rpush(f"list{i}", i, -i)
    pipe.execute()

own_answers(one, take, waiting, release)
print("ok")
"""
    run(name, port, code)


@EVERY
def test_500_goroutines_share_ten_connections(name, port):
    code = """
shared = pool(10)
def work(i):
    mine = client(shared)
    for k in range(3):
        mine.set(f"key{i}", i * 10 + k)
        gort.gosched()
        assert int(mine.get(f"key{i}")) == i * 10 + k
    with mine.pipeline() as pipe:
        pipe.incr(f"n{i}").incr(f"n{i}").get(f"key{i}")
        return pipe.execute()
assert join_all(begun(work)) == [[1, 2, b"%d" % (i * 10 + 2)] for i in range(MANY)]
assert whole(shared, 10)
print("ok")
"""
    run(name, port, code)


@EVERY
def test_time_outs_are_redis_exceptions_and_the_pool_stays_whole(name, port):
    code = """
shared, late = pool(20, socket_timeout=0.2), []
def work(i):
    try:
        return take(client(shared), i)
    except redis.TimeoutError:
        late.append(i)
        return "late"
goroutines = begun(work, 20)
eventually(lambda: waiting() + len(late) >= 20)
for i in range(0, 20, 2):
    control.rpush(f"list{i}", i)
answers = join_all(goroutines)
assert all(a == "late" if i % 2 else a in (i, "late") for i, a in enumerate(answers)), answers
assert whole(shared, 20)
echoed = join_all(begun(lambda i: patient(client(shared).echo, str(i)), 100))
assert echoed == [b"%d" % i for i in range(100)]
print("ok")
"""
    run(name, port, code)


@EVERY
def test_cancelled_goroutines_leave_the_pool_whole(name, port):
    code = """
shared = pool(10)
taken = []
def work(i):
    taken.append(take(client(shared), i))
    gort.gosched()
goroutines = begun(work, 50)
eventually(lambda: waiting() == 10)
for g in goroutines[::2]:
    g.cancel()
for i in range(50):
    control.rpush(f"list{i}", i)
ends = [ended_by(g) for g in goroutines]
assert all(isinstance(e, gort.Cancelled) for e in ends[::2]) and not any(ends[1::2])
assert set(range(1, 50, 2)) <= set(taken) and len(set(taken)) == len(taken)
assert whole(shared, 10)
assert join_all(begun(lambda i: client(shared).echo(str(i)), 100)) == [b"%d" % i for i in range(100)]
print("ok")
"""
    run(name, port, code)


@EVERY
def test_a_subscriber_hears_every_message(name, port):
    code = """
def listen(i):
    with one().pubsub() as pubsub:
        pubsub.subscribe(f"to{i}", "all")
        heard = []
        for message in pubsub.listen():
            if message["type"] == "message":
                heard.append(int(message["data"]))
                if heard[-1] < 0:
                    return heard
goroutines = begun(listen, 50)
eventually(lambda: control.pubsub_numsub("all")[0][1] == 50)
for i in range(50):
    for k in range(10):
        control.publish(f"to{i}", 100 * i + k)
control.publish("all", -1)
assert join_all(goroutines) == [[100 * i + k for k in range(10)] + [-1] for i in range(50)]
print("ok")
"""
    run(name, port, code)


@EVERY
def test_the_pool_comes_back_with_its_server(name, port):
    code = """
from redis.backoff import NoBackoff
from redis.retry import Retry
keeper, back = Keeper(), gort.Chan()
options["port"] = keeper.ask("redis", "start")["port"]
control = one()
shared = pool(10, retry=Retry(NoBackoff(), 0))
lost = []

def work(i):
    try:
        take(client(shared), i)
    except redis.ConnectionError as error:
        lost.append(type(error))
    back.recv_ok()
    while True:
        try:
            return int(client(shared).echo(str(i)))
        except redis.ConnectionError as error:
            lost.append(type(error))
        gort.sleep(0.001)

goroutines = begun(work, 50)
eventually(lambda: waiting() == 10)
keeper.ask("redis", "kill")
eventually(lambda: len(lost) == 50)  # nothing hangs while there is none
keeper.ask("redis", "start")
back.close()
assert join_all(goroutines) == list(range(50))
assert whole(shared, 10)
print("ok")
"""
    run(name, port, code)


def test_a_server_that_stands_still_times_out_and_goes_on(port):
    code = """
keeper = Keeper()
options["port"] = keeper.ask("redis", "start")["port"]
shared = pool(10, socket_timeout=0.1, retry_on_timeout=False)
patient(client(shared).ping)
keeper.ask("redis", "pause")
def work(i):
    try:
        return client(shared).echo(str(i))
    except redis.TimeoutError:
        return "late"
assert join_all(begun(work, 20)) == ["late"] * 20
keeper.ask("redis", "resume")
shared.connection_kwargs["socket_timeout"] = LIMIT
assert join_all(begun(lambda i: int(one().echo(str(i))), 100)) == list(range(100))
assert whole(shared, 10)
print("ok")
"""
    run("hiredis", port, code)
