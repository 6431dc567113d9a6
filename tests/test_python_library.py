"""The standard library under goroutines: event loops, copying, pickling and importing, with parks
in the middle.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys

import gort
import pytest
from children import check
from test_python_code import MANY, at_once, pause

# asyncio


def test_event_loops_of_several_goroutines_run_at_once():
    async def main(i):
        event = asyncio.Event()
        task = asyncio.create_task(event.wait())
        await asyncio.sleep(0.001)
        event.set()
        await task
        return i, asyncio.current_task() is not None

    def body(i):
        return asyncio.run(main(i))

    assert at_once(body, 20) == [(i, True) for i in range(20)]


def test_coroutine_waits_for_goroutines_and_goroutine_runs_coroutines():
    def worker(n):
        gort.sleep(0.001)
        return n * n

    async def main():
        got = await asyncio.gather(*(gort.wait(gort.go(worker, n)) for n in range(10)))
        ch = gort.Chan()
        gort.go(ch.send, sum(got))
        return await ch.recv_async()

    def body(_):
        return asyncio.run(main())

    assert at_once(body, 5) == [285] * 5


# copying, pickling, importing


class Parking:
    """Parks while it is pickled, unpickled and copied."""

    def __init__(self, n):
        self.n = n

    def __reduce__(self):
        pause(self.n)
        return rebuild, (self.n,)

    def __deepcopy__(self, memo):
        pause(self.n)
        return Parking(copy.deepcopy(self.n, memo))


def rebuild(n):
    pause(n + 1)
    return Parking(n)


def test_pickling_that_parks_on_both_ways():
    def body(i):
        data = pickle.dumps([Parking(i), {"x": Parking(i + 1)}])
        first, second = pickle.loads(data)
        return first.n, second["x"].n

    assert at_once(body) == [(i, i + 1) for i in range(MANY)]


def test_python_pickler_that_parks():
    def body(i):
        data = pickle._dumps([Parking(i)])
        return pickle._loads(data)[0].n

    assert at_once(body) == list(range(MANY))


def test_deepcopy_that_parks_keeps_identity_inside():
    def body(i):
        thing = Parking(i)
        loop = [thing, thing]
        loop.append(loop)
        result = copy.deepcopy(loop)
        return result[0] is result[1], result[2] is result, result[0].n == i, result[0] is not thing

    assert at_once(body) == [(True, True, True, True)] * MANY


def test_imports_inside_goroutines_give_one_module(tmp_path, monkeypatch):
    for i in range(20):
        (tmp_path / f"gort_test_module_{i}.py").write_text(f"import math\nvalue = {i}\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def body(i):
        module = __import__(f"gort_test_module_{i % 20}")
        pause(i)
        assert module is sys.modules[module.__name__]
        return module.value

    assert at_once(body, 100) == [i % 20 for i in range(100)]


def test_circular_and_failing_imports_inside_goroutines(tmp_path, monkeypatch):
    (tmp_path / "gort_test_a.py").write_text("import gort_test_b\nx = 1\n")
    (tmp_path / "gort_test_b.py").write_text("import gort_test_a\ny = 2\n")
    for i in range(
        1, MANY, 2
    ):  # one each: who waits for an import that fails is given the unfinished module
        (tmp_path / f"gort_test_bad_{i}.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def body(i):
        if i % 2:
            with pytest.raises(ZeroDivisionError):
                __import__(f"gort_test_bad_{i}")
            return 3
        return __import__("gort_test_a").x + __import__("gort_test_b").y

    assert at_once(body) == [3] * MANY


def test_first_imports_of_the_standard_library_in_goroutines():
    check(
        """
        import gort
        names = ["json", "decimal", "xml.dom.minidom", "email.mime.text", "http.client", "sqlite3", "csv",
                 "unittest", "logging.config", "concurrent.futures", "asyncio", "ctypes", "zipfile", "ssl"]
        gs = [gort.go(__import__, name) for name in names * 3]
        for g in gs:
            g.join(timeout=20)
        """
    )


def test_threading_first_imported_in_a_goroutine_knows_the_main_thread():
    check(
        """
        import gort
        def first():
            import ctypes
            ctypes.CDLL(None).usleep(5000)  # by now main and this goroutine are on different threads
            import threading
            gort.gosched()
            return threading
        g = gort.go(first)
        gort.sleep(0.001)
        g.join()
        import threading
        assert threading.current_thread() is threading.main_thread()
        """
    )
