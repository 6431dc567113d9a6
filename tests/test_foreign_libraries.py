"""Callbacks of sqlite3, numpy and a package made with Cython that park: each goroutine goes on on its own
OS thread, as long as code of the library lies on its stack.
"""

from __future__ import annotations

import pytest
from children import check

LIBRARIES = {
    "sqlite3": """
        import contextlib, sqlite3
        def query(prepare, sql, *values):
            with contextlib.closing(sqlite3.connect(":memory:")) as db:
                db.executescript("create table t (name); insert into t values ('a'), ('b')")
                prepare(db)
                return db.execute(sql, values).fetchall()
        """,
    "numpy": "import numpy as np",
    "cytoolz": "import cytoolz",
}

# For each kind of callback a call(f, n) that calls f(n) in frames of the library, and gives n.
CALLS = {
    "sqlite3 function": """
        def call(f, n):
            return query(lambda db: db.create_function("f", 1, f), "select f(?)", n)[0][0]
        """,
    "sqlite3 aggregate": """
        def call(f, n):
            class Last:
                def step(self, name): self.n = f(n)
                def finalize(self): return f(self.n)
            return query(lambda db: db.create_aggregate("last", 1, Last), "select last(name) from t")[0][0]
        """,
    "sqlite3 collation": """
        def call(f, n):
            def compare(a, b):
                f(n)
                return (a < b) - (a > b)
            sql = "select name from t order by name collate c"
            assert query(lambda db: db.create_collation("c", compare), sql) == [("b",), ("a",)]
            return n
        """,
    "sqlite3 authorizer": """
        def call(f, n):
            def allow(*action):
                f(n)
                return sqlite3.SQLITE_OK
            return query(lambda db: db.set_authorizer(allow), "select ?", n)[0][0]
        """,
    "sqlite3 progress handler": """
        def call(f, n):
            def go_on():
                f(n)
                return 0
            prepare = lambda db: db.set_progress_handler(go_on, 5)
            return query(prepare, "select ? from t order by name limit 1", n)[0][0]
        """,
    "sqlite3 trace": """
        def call(f, n):
            return query(lambda db: db.set_trace_callback(lambda sql: f(n)), "select ?", n)[0][0]
        """,
    "numpy ufunc": """
        def call(f, n):
            return np.frompyfunc(f, 1, 1)(np.array([n], dtype=object))[0]
        """,
    "numpy vectorize": """
        def call(f, n):
            return int(np.vectorize(f, otypes=[int])([n])[0])
        """,
    "numpy along axis": """
        def call(f, n):
            return int(np.apply_along_axis(lambda row: f(int(row[0])), 1, np.array([[n, 0]]))[0])
        """,
    "numpy object add": """
        def call(f, n):
            class Term:
                def __add__(self, other): return f(n)
            return (np.array([Term()], dtype=object) + np.array([1], dtype=object))[0]
        """,
    "numpy object sort": """
        def call(f, n):
            class Item:
                def __init__(self, key): self.key = key
                def __lt__(self, other): return f(n) == n and self.key < other.key
            items = np.array([Item(key) for key in (2, 1)], dtype=object)
            items.sort()
            assert [item.key for item in items] == [1, 2]
            return n
        """,
    "cytoolz valmap": """
        def call(f, n):
            return cytoolz.valmap(f, {0: n})[0]
        """,
    "cytoolz groupby": """
        def call(f, n):
            return next(iter(cytoolz.groupby(f, [n])))
        """,
    "cytoolz compose": """
        def call(f, n):
            return cytoolz.compose(int, cytoolz.curry(f))(n)
        """,
}

KINDS = pytest.mark.parametrize("kind", CALLS)


def code_for(kind: str) -> tuple[str, str]:
    """The import of a library with its helpers, and the call."""
    library = kind.split()[0]
    pytest.importorskip(library, reason=f"no {library} for this Python here", exc_type=ImportError)
    return LIBRARIES[library], CALLS[kind]


def run(kind: str, code: str, expect: str, **env: str) -> None:
    """`code` after the import, the call and the helpers of `crossing`, in a child."""
    from textwrap import dedent

    first = "import gort\nfrom crossing import cancelled, crossing, moving, pause\n"
    check(first + "\n".join(map(dedent, (*code_for(kind), code))), expect, **env)


@KINDS
def test_callbacks_that_park_in_two_goroutines_cross(kind):
    run(kind, "crossing(call, 100); print('ok')", "ok")


@KINDS
def test_callbacks_that_park_stay_on_their_thread_while_others_move(kind):
    code = """
    def body(i):
        return [call(pause, i + k) - k for k in range(40)]
    print(moving(body, 5) == [[i] * 40 for i in range(5)])
    """
    run(kind, code, "True")


@pytest.mark.parametrize("kind", ["sqlite3 function", "numpy object sort", "cytoolz groupby"])
def test_callbacks_stay_on_their_thread_where_calls_do_not_park(kind):
    code = """
    def body(i):
        return [call(pause, i + k) - k for k in range(20)]
    print(moving(body, 5) == [[i] * 20 for i in range(5)])
    """
    run(kind, code, "True", GORT_BOUNDARY="0")


@KINDS
def test_a_goroutine_is_cancelled_inside_of_a_callback(kind):
    code = """
    print({cancelled(call) for _ in range(20)}, call(pause, 1))
    """
    swallowed = kind in ("sqlite3 trace",)  # what it raises sqlite3 does not pass on
    run(kind, code, f"{{{not swallowed}}} 1")
