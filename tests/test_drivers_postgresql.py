"""Drivers of PostgreSQL in goroutines, against a server: psycopg 3 and 2 with and without TLS, pg8000,
SQLAlchemy with its pool, psycopg's own pool. Nothing of them is patched.
"""

from __future__ import annotations

import pytest
from driving import drive, needs, port_of
from postgresql_drivers import DRIVERS

EVERY = pytest.mark.parametrize("name", DRIVERS)
PLAIN = pytest.mark.parametrize("name", [name for name in DRIVERS if "tls" not in name])


@pytest.fixture
def port(keeper):
    return port_of(keeper, "postgresql")


def run(name: str, port: int, code: str, **options) -> None:
    needs(*DRIVERS[name].modules)
    first = f"""
from postgresql_drivers import *
name = {name!r}
driver = DRIVERS[name]({port})
gate = Gate(driver)
"""
    drive(first + code, **options)


@EVERY
def test_500_goroutines_wait_at_once_and_get_their_own_answers(name, port):
    code = """
gate.close()
ask = lambda connection, i: driver.ask(connection, PASS, LOCK, i)
own_answers(driver.connect, ask, gate.waiting, gate.open)
print("ok")
"""
    run(name, port, code)


@EVERY
def test_a_query_is_ended_by_a_context_and_its_connection_goes_on(name, port):
    code = """
gate.close()
connections = [driver.connect() for _ in range(20)]

def query(i):
    gort.context.after_func(contexts[i][0], driver.cancel, connections[i], others[i])
    try:
        return driver.ask(connections[i], PASS, LOCK, i)
    except driver.cancelled:
        return "cancelled"

contexts = [gort.context.with_cancel(gort.context.background()) for _ in range(20)]
others = [driver.connect() for _ in range(20)]
goroutines = begun(query, 20)
eventually(lambda: gate.waiting() == 20)
for i in range(0, 20, 2):
    contexts[i][1]()
eventually(lambda: sum(g.done for g in goroutines) == 10)
gate.open()
assert join_all(goroutines) == [i if i % 2 else "cancelled" for i in range(20)]
again = begun(lambda i: driver.ask(connections[i], "select %s::int", i), 20)
assert join_all(again) == list(range(20))
print("ok")
"""
    run(name, port, code)


@PLAIN
def test_a_goroutine_that_is_cancelled_ends_behind_its_query(name, port):
    code = """
gate.close()
connections = [driver.connect() for _ in range(20)]
answers = {}

def query(i):
    with gort.no_preempt():  # or it could end wherever it computes
        answers[i] = driver.ask(connections[i], PASS, LOCK, i)
    gort.gosched()
    answers[i] = "went on"

goroutines = begun(query, 20)
eventually(lambda: gate.waiting() == 20)
for g in goroutines:
    g.cancel()
gort.sleep(0.01)
assert not any(g.done for g in goroutines)  # the server has not answered
gate.open()
assert kinds_of_errors(goroutines) == {gort.Cancelled}, kinds_of_errors(goroutines)
assert answers == {i: i for i in range(20)}, answers
again = begun(lambda i: driver.ask(connections[i], "select %s::int", -i), 20)
assert join_all(again) == [-i for i in range(20)]
print("ok")
"""
    run(name, port, code)


@pytest.mark.parametrize("name", ["psycopg", "psycopg2"])
def test_goroutines_take_turns_at_one_connection(name, port):
    code = """
shared = driver.connect()
gate.close()
ask = lambda i: driver.ask(shared, PASS, LOCK, i)
goroutines = begun(ask, 50)
eventually(lambda: gate.waiting() == 1)
gate.open()
assert join_all(goroutines) == list(range(50))
print("ok")
"""
    run(name, port, code)


@EVERY
def test_a_program_ends_while_goroutines_wait_in_queries(name, port):
    code = """
gate.close()
connections = [driver.connect() for _ in range(50)]
goroutines = begun(lambda i: driver.ask(connections[i], PASS, LOCK, i), 50)
eventually(lambda: gate.waiting() == 50)
print("ok")
"""
    run(name, port, code)


@PLAIN
def test_time_outs_of_the_server_are_the_drivers_exceptions(name, port):
    code = """
gate.close()
connections = [driver.connect() for _ in range(20)]

def query(i):
    with contextlib.suppress(Exception):  # a setting has no row
        driver.ask(connections[i], f"set statement_timeout = {50 if i % 2 else 0}")
    try:
        return driver.ask(connections[i], PASS, LOCK, i)
    except driver.cancelled as error:
        assert "statement timeout" in str(error)
        return "late"

goroutines = begun(query, 20)
eventually(lambda: sum(g.done for g in goroutines) == 10)
gate.open()
assert join_all(goroutines) == ["late" if i % 2 else i for i in range(20)]
print("ok")
"""
    run(name, port, code)


@PLAIN
def test_connecting_to_a_server_that_says_nothing_times_out(name, port):
    code = """
import socket
silent = socket.create_server(("127.0.0.1", 0))
driver.port = silent.getsockname()[1]
def connect(i):
    try:
        driver.connect(connect_timeout=2)
    except (driver.error, TimeoutError) as error:
        return "time" in str(error).lower()
assert join_all(begun(connect, 20)) == [True] * 20
print("ok")
"""
    run(name, port, code)


KILLED = """
from server_keeper import Keeper

keeper, errors, back = Keeper(), [], gort.Chan()
driver.port = keeper.ask("postgresql", "start", PEM)["port"]
other, gate = driver, Gate(driver)

def killed(query, error, pooled, size):
    "The server is killed under 50 goroutines that `query` in a pool, and comes again."
    def work(i):
        try:
            query(PASS, LOCK, i)
        except error as e:
            errors.append(e)
            del e
        back.recv_ok()
        while True:
            try:
                return query("select %s::int, %s::int", 0, i)
            except error as e:
                errors.append(e)
                del e
            gort.sleep(0.001)

    gate.close()
    goroutines = begun(work, 50)
    eventually(lambda: gate.waiting() == size)
    keeper.ask("postgresql", "kill")
    eventually(lambda: len(errors) >= size)
    keeper.ask("postgresql", "start")
    back.close()
    assert join_all(goroutines) == list(range(50))
    assert join_all(begun(lambda i: query("select %s::int, %s::int", 0, -i), 200)) == [-i for i in range(200)]
    eventually(pooled)
    print("ok")
"""


def test_psycopgs_pool_comes_back_with_its_server(port):
    needs("psycopg_pool")
    code = """
import logging, psycopg_pool
logging.disable()
pool = psycopg_pool.ConnectionPool(
    f"host=127.0.0.1 port={driver.port} user=gort dbname=postgres sslmode=disable",
    min_size=10, max_size=10, timeout=LIMIT, kwargs={"autocommit": True},
    check=psycopg_pool.ConnectionPool.check_connection)
def query(*values):
    with pool.connection() as connection:
        return driver.ask(connection, *values)
def pooled():
    stats = pool.get_stats()
    return stats["pool_available"] == stats["pool_size"] == 10
killed(query, (driver.error, psycopg_pool.PoolTimeout), pooled, 10)
pool.close()
"""
    run("psycopg", port, KILLED + code)


@pytest.mark.parametrize("name", ["psycopg", "psycopg2", "pg8000"])
def test_sqlalchemys_pool_comes_back_with_its_server(name, port):
    needs("sqlalchemy")
    code = """
import sqlalchemy, sqlalchemy.exc, sqlalchemy.pool, sys
sys.unraisablehook = lambda lost: None  # pg8000's files of lost sockets are flushed when they go
engine = sqlalchemy.create_engine(f"postgresql+{name}://", creator=driver.connect,
    poolclass=sqlalchemy.pool.QueuePool, pool_size=10, max_overflow=0, pool_timeout=LIMIT,
    pool_pre_ping=True, isolation_level="AUTOCOMMIT")

def query(sql, *values):
    parts = sql.split("%s")
    text = "".join(f"{part}{value}" for part, value in zip(parts, [*values, ""]))
    with engine.connect() as connection:
        return connection.exec_driver_sql(text).one()[-1]
killed(query, sqlalchemy.exc.DBAPIError, lambda: engine.pool.checkedin() == 10, 10)
engine.dispose()
"""
    run(name, port, KILLED + code)


def test_sqlalchemys_pool_is_whole_behind_cancelled_goroutines(port):
    needs("sqlalchemy")
    code = """
import sqlalchemy, sqlalchemy.pool
engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=driver.connect,
    poolclass=sqlalchemy.pool.QueuePool, pool_size=10, max_overflow=0, pool_timeout=LIMIT)
table = sqlalchemy.text("select pg_advisory_xact_lock_shared(:lock), :i")
def query(i):
    with engine.connect() as connection:
        found = connection.execute(table, {"lock": LOCK, "i": i}).one()[1]
        gort.gosched()
        return found
gate.close()
goroutines = begun(query)
eventually(lambda: gate.waiting() == 10)
for g in goroutines[::2]:
    g.cancel()
gate.open()
ends = [ended_by(g) for g in goroutines]
assert all(isinstance(e, gort.Cancelled) for e in ends[::2])
assert not any(ends[1::2])
assert [g.join() for g in goroutines[1::2]] == list(range(1, MANY, 2))
assert engine.pool.checkedin() == 10 and engine.pool.checkedout() == 0
assert join_all(begun(query)) == list(range(MANY))
engine.dispose()
print("ok")
"""
    run("psycopg", port, code)
