"""Drivers of MySQL in goroutines, against MariaDB: PyMySQL over Python's sockets, mysqlclient over
libmariadb, SQLAlchemy's pool over both. Nothing of them is patched.
"""

from __future__ import annotations

import pytest
from driving import drive, needs, port_of

MODULES = {"PyMySQL": "pymysql", "mysqlclient": "MySQLdb"}
EVERY = pytest.mark.parametrize("name", MODULES)

FIRST = """
import {module} as module
from server_keeper import Keeper

PASS = "select get_lock('gate', 60), release_lock('gate'), %s"
SLEEP = "select sleep(60), %s"  # what waits for a lock is not an error when it is interrupted
port = {port}

plain = {{"ssl_disabled": True}} if module.__name__ == "pymysql" else {{}}  # certificates take 20 ms

def connect(**options):
    return module.connect(host="127.0.0.1", port=port, user="any", database="gort", autocommit=True,
                          **plain, **options)

def ask(connection, sql, *values):
    "The last value of the only row."
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()[-1]

control = connect()

def waiting():
    return ask(control, "select count(*) from information_schema.processlist "
               "where state in ('User lock', 'User sleep')")

def close():
    assert ask(control, "select get_lock('gate', 0)") == 1

def open():
    ask(control, "select release_lock('gate')")
"""


@pytest.fixture
def port(keeper):
    return port_of(keeper, "mariadb")


def run(name: str, port: int, code: str) -> None:
    needs(MODULES[name])
    drive(FIRST.format(port=port, module=MODULES[name]) + code)


@EVERY
def test_500_goroutines_wait_at_once_and_get_their_own_answers(name, port):
    code = """
close()
own_answers(connect, lambda connection, i: ask(connection, PASS, i), waiting, open)
print("ok")
"""
    run(name, port, code)


@EVERY
def test_500_goroutines_wait_at_once_over_tls_and_get_their_own_answers(name, port):
    """Python's ssl for the one; OpenSSL below libmariadb for the other."""
    code = """
import ssl, tempfile
with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
    pem.write(PEM)
    pem.flush()
    if module.__name__ == "pymysql":
        plain["ssl_disabled"] = False
        context = ssl.create_default_context(cafile=pem.name)
        context.check_hostname = False  # it names localhost
        secured = {"ssl": context}
    else:
        secured = {"ssl": {"ca": pem.name}}
    def cipher(connection):
        return ask(connection, "select variable_value from information_schema.session_status "
                               "where variable_name = 'Ssl_cipher'")
    assert not cipher(control) and cipher(connect(**secured)).startswith("TLS_")
    close()
    own_answers(lambda: connect(**secured), lambda connection, i: ask(connection, PASS, i), waiting, open)
print("ok")
"""
    run(name, port, code)


@EVERY
def test_a_query_is_ended_by_a_context_and_its_connection_goes_on(name, port):
    code = """
close()
connections = [connect() for _ in range(20)]
ids = [connection.thread_id() for connection in connections]
others = [connect() for _ in range(20)]
contexts = [gort.context.with_cancel(gort.context.background()) for _ in range(20)]

def end(i):
    others[i].cursor().execute(f"kill query {ids[i]}")

def query(i):
    gort.context.after_func(contexts[i][0], end, i)
    try:
        return ask(connections[i], PASS if i % 2 else SLEEP, i)
    except module.OperationalError as error:
        assert error.args[0] == 1317, error  # query execution was interrupted
        return "cancelled"

goroutines = begun(query, 20)
eventually(lambda: waiting() == 20)
for i in range(0, 20, 2):
    contexts[i][1]()
eventually(lambda: sum(g.done for g in goroutines) == 10)
open()
assert join_all(goroutines) == [i if i % 2 else "cancelled" for i in range(20)]
assert join_all(begun(lambda i: ask(connections[i], "select %s", i), 20)) == list(range(20))
print("ok")
"""
    run(name, port, code)


@EVERY
def test_a_goroutine_that_is_cancelled_ends_behind_its_query(name, port):
    code = """
close()
connections = [connect() for _ in range(20)]
answers = {}

def query(i):
    with gort.no_preempt():  # or it could end wherever it computes
        answers[i] = ask(connections[i], PASS, i)
    gort.gosched()
    answers[i] = "went on"

goroutines = begun(query, 20)
eventually(lambda: waiting() == 20)
for g in goroutines:
    g.cancel()
open()
assert (kinds := kinds_of_errors(goroutines)) == {gort.Cancelled}, kinds
assert answers == {i: i for i in range(20)}, answers
assert join_all(begun(lambda i: ask(connections[i], "select %s", -i), 20)) == [-i for i in range(20)]
print("ok")
"""
    run(name, port, code)


@EVERY
def test_time_outs_are_the_drivers_exceptions(name, port):
    code = """
close()
connections = [connect(**({} if i % 2 else {"read_timeout": 1})) for i in range(20)]
limited = connect()
limited.cursor().execute("set max_statement_time = 0.1")

def query(connection, i):
    try:
        return ask(connection, SLEEP if i < 0 else PASS, i)
    except module.OperationalError as error:
        return error.args[0]

goroutines = begun(lambda i: query(connections[i], i), 20)
assert gort.go(query, limited, -1).join() == 1969  # max_statement_time exceeded
eventually(lambda: sum(g.done for g in goroutines) == 10)
open()
assert join_all(goroutines) == [i if i % 2 else 2013 for i in range(20)]  # lost connection
assert ask(limited, "select 5") == 5
print("ok")
"""
    run(name, port, code)


@EVERY
def test_connecting_to_a_server_that_says_nothing_times_out(name, port):
    code = """
import socket
silent = socket.create_server(("127.0.0.1", 0))
port = silent.getsockname()[1]
def late(i):
    try:
        connect(connect_timeout=1, read_timeout=1)  # PyMySQL's first is for TCP alone
    except module.OperationalError as error:
        return error.args[0] in (2002, 2003, 2013)
assert join_all(begun(late, 20)) == [True] * 20
print("ok")
"""
    run(name, port, code)


@EVERY
def test_sqlalchemys_pool_comes_back_with_its_server(name, port):
    needs("sqlalchemy")
    code = """
import sqlalchemy, sqlalchemy.exc, sqlalchemy.pool, sys
sys.unraisablehook = lambda lost: None  # files of lost sockets are flushed when they go
keeper, back, lost = Keeper(), gort.Chan(), []
port = keeper.ask("mariadb", "start", PEM)["port"]
control = connect()
engine = sqlalchemy.create_engine(f"mysql+{'pymysql' if module.__name__ == 'pymysql' else 'mysqldb'}://",
    creator=connect, poolclass=sqlalchemy.pool.QueuePool, pool_size=10, max_overflow=0,
    pool_timeout=LIMIT, pool_pre_ping=True, isolation_level="AUTOCOMMIT")

def query(sql, i):
    with engine.connect() as connection:
        return connection.exec_driver_sql(sql % i).one()[-1]

def work(i):
    try:
        query(PASS, i)
    except sqlalchemy.exc.DBAPIError:
        lost.append(i)
    back.recv_ok()
    while True:
        try:
            return query("select %s", i)
        except sqlalchemy.exc.DBAPIError:
            lost.append(i)
        gort.sleep(0.001)

close()
goroutines = begun(work, 50)
eventually(lambda: waiting() == 10)
keeper.ask("mariadb", "kill")
eventually(lambda: len(set(lost)) == 50)  # nothing hangs while there is none
keeper.ask("mariadb", "start")
back.close()
assert join_all(goroutines) == list(range(50))
eventually(lambda: engine.pool.checkedin() == 10)
assert join_all(begun(lambda i: query("select %s", i), 200)) == list(range(200))
engine.dispose()
print("ok")
"""
    run(name, port, code)
