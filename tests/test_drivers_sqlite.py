"""sqlite3 in goroutines over a file: SQLite waits in its own code, so it keeps OS threads and is handed off."""

from __future__ import annotations

from driving import drive

FIRST = """
import sqlite3, tempfile
folder = tempfile.TemporaryDirectory()
path = folder.name + "/db"
def connect(timeout=LIMIT):
    connection = sqlite3.connect(path, timeout=timeout, check_same_thread=False)
    connection.isolation_level = None
    connection.execute("pragma synchronous = off")
    return connection
def value(connection, sql, *values):
    return connection.execute(sql, values).fetchone()[0]
first = connect()
first.execute("pragma journal_mode = wal")
first.execute("create table t (n integer primary key, v integer)")
first.executemany("insert into t values (?, ?)", [(i, 7 * i) for i in range(MANY)])
"""


def run(code: str, **options) -> None:
    drive(FIRST + code + "\nfirst.close(); folder.cleanup(); print('ok')", **options)


def test_500_goroutines_read_and_write_their_own_rows():
    run("""
def work(i):
    with contextlib.closing(connect()) as connection:
        assert value(connection, "select v from t where n = ?", i) == 7 * i
        if i % 10 == 0:
            connection.execute("begin immediate")
            seen = value(connection, "select v from t where n = 0")
            gort.gosched()
            connection.execute("update t set v = ? where n = 0", (seen + 1,))
            connection.execute("commit")
        return value(connection, "select v + ? from t where n = 1", i)
assert join_all(begun(work)) == [7 + i for i in range(MANY)]
assert value(first, "select v from t where n = 0") == MANY // 10
""")


def test_a_locked_database_times_out_and_goes_on():
    run("""
first.execute("begin immediate")
connections = [connect(0.1) for _ in range(20)]
def write(i):
    try:
        connections[i].execute("update t set v = ? where n = ?", (-i, i))
    except sqlite3.OperationalError as error:
        return str(error)
assert join_all(begun(write, 20)) == ["database is locked"] * 20
first.execute("rollback")
assert join_all(begun(write, 20)) == [None] * 20
assert [v for (v,) in first.execute("select v from t order by n limit 20")] == [-i for i in range(20)]
""")


def test_a_query_is_interrupted_by_a_context_and_its_connection_goes_on():
    run("""
LONG = "with recursive c(n) as (select 1 union all select n + 1 from c) select max(n) from c"
connections = [sqlite3.connect(path, check_same_thread=False) for _ in range(5)]
begins = gort.Chan(5)
def query(i):
    connections[i].set_progress_handler(lambda: begins.send(i) if not told[i] and told.__setitem__(i, 1) is None else 0, 100)
    try:
        return value(connections[i], LONG)
    except sqlite3.OperationalError as error:
        return str(error)
told = [0] * 5
contexts = [gort.context.with_cancel(gort.context.background()) for _ in range(5)]
for (ctx, _), connection in zip(contexts, connections):
    gort.context.after_func(ctx, connection.interrupt)
goroutines = begun(query, 5)
assert sorted(begins.recv() for _ in range(5)) == list(range(5))
for _, cancel in contexts:
    cancel()
assert join_all(goroutines) == ["interrupted"] * 5
assert [value(c, "select v from t where n = 3") for c in connections] == [21] * 5
""")


def test_a_process_killed_in_a_transaction_leaves_what_it_committed():
    run("""
import subprocess, sys
CODE = '''
import gort, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, check_same_thread=False)
def work():
    c.execute("update t set v = 1")
    c.execute("begin immediate"); c.execute("update t set v = 2")
    print("inside", flush=True); gort.Chan().recv()
gort.go(work).join()
'''
process = subprocess.Popen([sys.executable, "-c", CODE, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
assert process.stdout.readline() == "inside\\n"
process.kill()
process.communicate()
assert value(first, "select min(v) = 1 and max(v) = 1 from t") == 1
assert join_all(begun(lambda i: contextlib.closing(connect()).thing.execute("update t set v = ? where n = ?", (i, i)).rowcount, 100)) == [1] * 100
""")
