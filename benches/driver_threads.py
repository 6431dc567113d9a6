"""How many OS threads 500 goroutines take that wait for a server at once, for each driver.

    .venv-3.11/bin/python benches/driver_threads.py [DRIVER...]      # --count 500 --wait 2
    GORT_BOUNDARY=0 .venv-3.11/bin/python benches/driver_threads.py  # each call in an OS thread

Servers are started by tests/server_keeper.py and the like; each driver is measured in a process of
its own, with a connection for each goroutine where it has no pool. Printed are the OS threads of
the process before, with all connected, and while all wait (the most seen); the seconds from the
first query to the last answer; hand-offs meanwhile; waits that parked. The table: docs/drivers.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

SQL = """
from postgresql_drivers import DRIVERS
driver = DRIVERS["{name}"](port)
connect = driver.connect
def query(c, s): driver.ask(c, "select pg_sleep(%s)", s)
"""
REDIS = """
import redis, redis._parsers
options = dict(port=port, protocol=2, parser_class=redis._parsers.{parser})
def connect():
    pool = redis.ConnectionPool(**options)
    return redis.Redis(connection_pool=pool, single_connection_client=True)
def query(c, s): c.blpop("none", s)
"""
MYSQL = """
import {module} as module
def connect(): return module.connect(host="127.0.0.1", port=port, user="any"{options})
def query(c, s): c.cursor().execute("select sleep(%s)", [s])
"""
HTTP = """
import http_clients
client = http_clients.CLIENTS["{name}"]()
http_clients.clean()
def connect(): return client
def query(c, s): assert c.get(f"http://127.0.0.1:{{port}}/sleep/{{s}}")
"""
GRPC = """
import grpc
channel = grpc.insecure_channel(f"127.0.0.1:{{port}}")
def connect(): return channel.unary_unary("/s/sleep")
def query(c, s): {call}
"""
SQLITE = """
import sqlite3
path = port + "/db"  # no server: a folder
holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
holder.execute("begin exclusive")  # whoever else would write sleeps in SQLite until its time is up
def connect(): return sqlite3.connect(path, check_same_thread=False, isolation_level=None)
def query(c, s):
    c.execute(f"pragma busy_timeout = {int(s * 1000)}")
    try: c.execute("begin immediate")
    except sqlite3.OperationalError: return
    raise AssertionError("the lock was free")
"""
#: By name: the distribution and the server, if any; what defines `connect()` and
#: `query(connection, seconds)`.
DRIVERS = {
    **{
        name: (package, "postgresql", SQL.format(name=name))
        for name, package in {
            "psycopg": "psycopg-binary",
            "psycopg-tls": "psycopg-binary",
            "psycopg2": "psycopg2-binary",
            "psycopg2-tls": "psycopg2-binary",
            "pg8000": "pg8000",
        }.items()
    },
    "redis": ("redis", "redis", REDIS.format(parser="_RESP2Parser")),
    "hiredis": ("hiredis", "redis", REDIS.format(parser="_HiredisParser")),
    "PyMySQL": (
        "PyMySQL",
        "mariadb",
        MYSQL.format(module="pymysql", options=", ssl_disabled=True"),
    ),
    "PyMySQL-tls": (
        "PyMySQL",
        "mariadb",
        "import ssl\n"
        + MYSQL.format(module="pymysql", options=", ssl=ssl._create_stdlib_context()"),
    ),
    "mysqlclient": ("mysqlclient", "mariadb", MYSQL.format(module="MySQLdb", options="")),
    "mysqlclient-tls": (
        "mysqlclient",
        "mariadb",
        MYSQL.format(module="MySQLdb", options=", ssl={'cipher': 'HIGH'}"),
    ),
    "sqlite3": ("", "", SQLITE),
    **{
        name: (name, "driver_http_server.py", HTTP.format(name=name))
        for name in ("pycurl", "urllib3", "requests", "httpx")
    },
    "grpc": ("grpcio", "driver_grpc_server.py", GRPC.format(call="c(b'%f' % s)")),
    "grpc future": (
        "grpcio",
        "driver_grpc_server.py",
        GRPC.format(call="c.future(b'%f' % s).result()"),
    ),
}

MEASURE = """
import json, os, sys
sys.path.insert(0, {tests!r})
from driving import *
many_descriptors()
port, count, wait = json.loads(sys.argv[1])
{driver}
base, connections = threads(), []
for _ in range(count // 50):
    connections += join_all([gort.go(connect) for _ in range(50)])
connected, before = threads(), gort.stats()["hand_offs"]
parked = sum(c.parked for c in gort.boundary.status().calls.values())
start = time.monotonic()
goroutines = begun(lambda i: query(connections[i], wait), count)
most = 0
while not all(g.done for g in goroutines):
    gort.sleep(0.02)
    most = max(most, threads())
join_all(goroutines)
took = time.monotonic() - start
parked = sum(c.parked for c in gort.boundary.status().calls.values()) - parked
hand_offs = gort.stats()["hand_offs"] - before
print(json.dumps([base, connected, most, took, hand_offs, parked]), flush=True)
os._exit(0)
"""


@contextlib.contextmanager
def port_of(server: str) -> Iterator[int | str]:
    """Run a server; its port, or a folder for who has none."""
    from certificates import PEM
    from driving import Served
    from server_keeper import Keeper

    if not server:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
        return
    if server.endswith(".py"):
        with Served(server) as served:
            yield served.ports[0]
        return
    keeper = Keeper()
    try:
        yield int(str(keeper.ask(server, "start", PEM)["port"]))
    finally:
        keeper.close()


def measure(name: str, count: int, wait: float) -> str:
    """A line of the table for one driver."""
    package, server, code = DRIVERS[name]
    version = importlib.metadata.version(package) if package else sqlite3.sqlite_version
    label = f"{name} {version}"
    text = MEASURE.format(driver=textwrap.dedent(code), tests=str(TESTS))
    with port_of(server) as port:
        done = subprocess.run(
            [sys.executable, "-c", text, json.dumps([port, count, wait])],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    if done.returncode:
        return f"{label:24} {done.stderr[-2000:]}"
    base, connected, most, took, hand_offs, parked = json.loads(done.stdout)
    return f"{label:24} {base:6} {connected:6} {most:6} {took:7.2f} {hand_offs:9} {parked:7}"


def main() -> None:
    """Measure the drivers named, or all that are installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("drivers", nargs="*", default=list(DRIVERS))
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--wait", type=float, default=2.0)
    options = parser.parse_args()
    print(f"{'driver':24} before joined  waits seconds hand-offs  parked")
    for name in options.drivers:
        try:
            print(measure(name, options.count, options.wait), flush=True)
        except (importlib.metadata.PackageNotFoundError, KeyError) as error:
            print(f"{name:24} {error!r}")


if __name__ == "__main__":
    main()
