"""For a child: the drivers of PostgreSQL, by name, with the same few functions each."""

from __future__ import annotations

LOCK = 4711  # an advisory lock that queries wait for


class Psycopg:
    """psycopg 3: libpq does not block; it waits with poll in C of its own."""

    modules = ("psycopg", "psycopg_binary")
    few = True
    sslmode = "disable"

    def __init__(self, port):
        import psycopg

        self.port = port
        self.module = psycopg
        self.error = psycopg.OperationalError
        self.cancelled = psycopg.errors.QueryCanceled

    def connect(self, **options):
        return self.module.connect(
            host="127.0.0.1", port=self.port, user="gort", dbname="postgres",
            sslmode=self.sslmode, autocommit=True, **options,
        )  # fmt: skip

    def ask(self, connection, sql, *values):
        """The last value of the only row."""
        cursor = connection.cursor()
        cursor.execute(sql, values)
        (row,) = cursor.fetchall()
        return row[-1]

    def cancel(self, connection, other):
        """End the query in progress from another goroutine."""
        connection.cancel_safe()


class PsycopgTls(Psycopg):
    """The same over TLS."""

    sslmode = "require"


class Psycopg2(Psycopg):
    """psycopg 2: waits in libpq, with its connection's mutex held."""

    modules = ("psycopg2",)

    def __init__(self, port):
        import psycopg2.errors

        self.port = port
        self.module = psycopg2
        self.error = psycopg2.OperationalError
        self.cancelled = psycopg2.errors.QueryCanceled

    def connect(self, **options):
        connection = self.module.connect(
            host="127.0.0.1", port=self.port, user="gort", dbname="postgres",
            sslmode=self.sslmode, **options,
        )  # fmt: skip
        connection.autocommit = True
        return connection

    def cancel(self, connection, other):
        connection.cancel()


class Psycopg2Tls(Psycopg2):
    """The same over TLS."""

    sslmode = "require"


class Pg8000(Psycopg):
    """pg8000: Python over a socket."""

    modules = ("pg8000",)

    def __init__(self, port):
        import pg8000.dbapi

        self.port = port
        self.module = pg8000.dbapi
        self.error = pg8000.dbapi.Error
        self.cancelled = pg8000.dbapi.DatabaseError

    def connect(self, connect_timeout=None):
        connection = self.module.connect(
            "gort", host="127.0.0.1", port=self.port, database="postgres",
            timeout=connect_timeout, ssl_context=False,  # loading certificates takes 20 ms
        )  # fmt: skip
        connection.autocommit = True
        connection.pid = self.ask(connection, "select pg_backend_pid()")
        return connection

    def cancel(self, connection, other):
        self.ask(other, "select pg_cancel_backend(%s)", connection.pid)


DRIVERS = {
    "psycopg": Psycopg,
    "psycopg-tls": PsycopgTls,
    "psycopg2": Psycopg2,
    "psycopg2-tls": Psycopg2Tls,
    "pg8000": Pg8000,
}

WAITING = "select count(*) from pg_locks where locktype = 'advisory' and objid = %s and not granted"


class Gate:
    """What queries wait for: a lock that one connection has."""

    def __init__(self, driver):
        self.driver = driver
        self.connection = driver.connect()

    def close(self):
        self.driver.ask(self.connection, "select pg_advisory_lock(%s)", LOCK)

    def waiting(self):
        """How many wait for it, as the server says."""
        return self.driver.ask(self.connection, WAITING, LOCK)

    def open(self):
        self.driver.ask(self.connection, "select pg_advisory_unlock(%s)", LOCK)


#: Waits until the gate is open; gives the last value.
PASS = "select pg_advisory_xact_lock_shared(%s), %s::int"
