"""greenlet in goroutines: to it each goroutine is a thread, and one that uses it stays on its OS thread.

greenlet keeps the current greenlet in a C++ thread_local. Were that the OS thread's, a goroutine that
moved could not switch ("cannot switch to a different thread"), and what another goroutine of the same
OS thread drops would be ended on the wrong stack.
"""

from __future__ import annotations

from textwrap import dedent

import pytest
from children import check, child

pytest.importorskip("greenlet", reason="no greenlet for this Python here", exc_type=ImportError)
BOTH = pytest.mark.parametrize("boundary", ["1", "0"])

HEADER = """
import gc, os, threading
import greenlet, gort
from crossing import cancelled, crossing, moving, pause, strays, tid, wander
from greenlet import getcurrent
from greenlet._greenlet import get_total_main_greenlets as states
from waiting import LIMIT, eventually, hold, in_goroutine, in_thread, join_all, parked
def echo(x):
    "Gives back what it gets, until that is None."
    while x is not None: x = getcurrent().parent.switch(x)
    return "end"
"""


def run(code: str, expect: str, **env: str) -> None:
    check(HEADER + dedent(code), expect, **env)


@BOTH
def test_greenlets_suspended_over_parks_are_switched_to_again(boundary):
    code = """
    def body(i):
        getcurrent()
        home = tid()
        for r in range(15):
            inner = [greenlet.greenlet(echo) for _ in range(3)]
            for k in range(5):
                for g in inner:
                    assert g.switch((i, k)) == (i, k)
                    wander(k)
                    assert tid() == home
            assert [g.switch(None) for g in inner] == ["end"] * 3
        return i
    print(moving(body, 8) == list(range(8)))
    """
    run(code, "True", GORT_BOUNDARY=boundary)


def test_greenlets_that_park_in_two_goroutines_cross():
    run("crossing(lambda f, n: greenlet.greenlet(f).switch(n), 150); print('ok')", "ok")


def test_greenlets_that_park_stay_on_their_thread_while_others_move():
    code = """
    def twice(n):
        "Parks in an inner greenlet, is switched away from and parks again."
        got = getcurrent().parent.switch(pause(n))
        return pause(got)
    def body(i):
        for k in range(40):
            g = greenlet.greenlet(twice)
            assert g.switch(i + k) == i + k
            wander(k)
            assert g.switch(i - k) == i - k and g.dead
        return i
    print(moving(body, 6) == list(range(6)))
    """
    run(code, "True")


def test_a_channel_between_greenlets_of_two_goroutines():
    code = """
    there, back = gort.Chan(), gort.Chan()
    def player(mine, other, first):
        def inner(n):
            while n < 300:
                n = getcurrent().parent.switch(n)
                other.send(n)
                n = mine.recv()
            other.close()
            return n
        g = greenlet.greenlet(inner)
        n = g.switch(0 if first else mine.recv())
        while not g.dead:
            n = g.switch(n + 1)
        return n
    def serve(mine, other):
        for n in mine: other.send(n)
    a = gort.go(serve, there, back)
    print(gort.go(player, back, there, True).join(timeout=LIMIT), a.join(timeout=LIMIT))
    """
    run(code, "300 None")


def test_a_greenlet_of_another_goroutine_is_another_threads():
    code = """
    made, gate = gort.Chan(), gort.Chan()
    def owner():
        g = greenlet.greenlet(echo)
        g.switch(1)
        made.send(g)
        gate.recv()
        return g.switch(2)
    o = gort.go(owner)
    g = made.recv()
    def switch():
        try: g.switch(3)
        except greenlet.error as e: return "different thread" in str(e)
    print(switch(), in_goroutine(switch), in_thread(switch), getcurrent() is not g.parent)
    gate.send(None)
    print(o.join(timeout=LIMIT))
    """
    run(code, "True True True True\n2")


def test_what_another_goroutine_drops_ends_at_its_owners_next_use():
    code = """
    made, gate, log = gort.Chan(), gort.Chan(), []
    def inner():
        try: getcurrent().parent.switch()
        finally: log.append(threading.get_ident())
    def owner():
        g = greenlet.greenlet(inner)
        g.switch()
        made.send([g])
        del g
        gate.recv()
        getcurrent()
        greenlet.greenlet(int).switch()
        return log == [threading.get_ident()]
    def drop(n, box):
        "With frames of its own where the owner's lie on its stack."
        return drop(n - 1, box) if n else box.clear()
    ends = []
    for _ in range(100):
        log.clear()
        o = gort.go(owner)
        in_goroutine(drop, 20, made.recv())
        assert log == []
        gate.send(None)
        ends.append(o.join(timeout=LIMIT))
    print(set(ends))
    """
    run(code, "{True}")


def test_greenlets_left_by_goroutines_that_ended():
    # As those of threads that ended: they are let go without running. greenlet itself then keeps some states.
    code = """
    log = []
    def inner(thing):
        try: getcurrent().parent.switch()
        finally: log.append(thing)
    def leave(keep):
        g = greenlet.greenlet(inner)
        g.switch(object())
        if keep: left.append(g)
        else: g.loop = g
    def drop(n): return drop(n - 1) if n else left.clear()
    left, kept = [], []
    for place in (in_thread, in_goroutine):
        before = states()
        for _ in range(100):
            place(leave, True)
            place(leave, False)
            place(drop, 20)
            place(gc.collect)
        kept.append(states() - before)
    print(len(log), kept[1] <= 200)
    """
    run(code, "0 True")


def test_what_greenlet_keeps_for_a_goroutine_ends_with_it():
    code = """
    before = states()
    for _ in range(300):
        in_goroutine(lambda: greenlet.greenlet(int).switch())
        assert states() <= before + 2
    for g in [gort.go(getcurrent) for _ in range(300)]: g.join(timeout=LIMIT)
    eventually(lambda: states() <= before + 2, what="states freed")
    """
    run(code, "")


def test_main_has_the_same_greenlets_wherever_it_runs():
    code = """
    import ctypes
    usleep = ctypes.CDLL(None).usleep
    def main():
        g = greenlet.greenlet(echo)
        assert g.switch(1) == 1
        go_on = []
        def keep():
            while not go_on: usleep(1000)
        keeper = gort.go(keep)
        eventually(lambda: tid() != os.getpid())
        print(g.switch(2), greenlet.greenlet(echo).switch(3))
        go_on.append(True)
        keeper.join(timeout=LIMIT)
        eventually(lambda: tid() == os.getpid())
        print(g.switch(4), g.switch(None))
    gort.run(main)
    """
    run(code, "2 3\n4 end")


def test_errors_and_cancellation_pass_through_greenlets():
    code = """
    def fails():
        wander(2)
        raise ValueError("inner")
    def outer():
        try: greenlet.greenlet(fails).switch()
        except ValueError as e: return str(e)
    print(in_goroutine(outer))
    print({cancelled(lambda f, n: greenlet.greenlet(f).switch(n)) for _ in range(50)})
    """
    run(code, "inner\n{True}")


def test_each_goroutine_has_a_current_greenlet_and_a_trace_function():
    code = """
    def body(i):
        seen = []
        greenlet.settrace(lambda event, args: seen.append(event))
        current = getcurrent()
        for k in range(3): wander(k)
        assert getcurrent() is current and current.parent is None
        greenlet.greenlet(wander).switch(i)
        return len(seen), id(current)
    gs = [gort.go(body, i) for i in range(20)]
    results = join_all(gs)
    print({n for n, _ in results}, greenlet.gettrace())
    """
    run(code, "{2} None")


def test_greenlets_in_threads_that_are_goroutines():
    code = """
    import concurrent.futures
    def work(i):
        g = greenlet.greenlet(echo)
        return [(g.switch(k), hold(0.0002))[0] for k in range(10)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print(list(pool.map(work, range(50))) == [list(range(10))] * 50)
    """
    run(code, "True", GORT_THREADS="1")


def test_greenlets_go_on_in_a_forked_child():
    code = """
    import warnings
    warnings.simplefilter("ignore")
    def body():
        g = greenlet.greenlet(echo)
        g.switch(1)
        child = os.fork()
        if child == 0:
            wander(1)
            right = g.switch(2) == 2 and in_goroutine(lambda: greenlet.greenlet(echo).switch(None)) == "end"
            os._exit(7 if right else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), g.switch(3)
    print(in_goroutine(body), body())
    """
    run(code, "(7, 3) (7, 3)")


def test_greenlet_imported_and_used_before_gort():
    code = """
    import greenlet
    g = greenlet.greenlet(lambda x: greenlet.getcurrent().parent.switch(x))
    print(g.switch(1))
    """
    after = """
    print(g.switch(2))
    def body(i):
        g = greenlet.greenlet(echo)
        for k in range(20):
            assert g.switch(k) == k
            wander(k)
        return i
    print(moving(body, 4))
    """
    check(dedent(code) + HEADER + dedent(after), "1\n2\n[0, 1, 2, 3]")


def test_program_that_ends_with_greenlets_everywhere():
    code = """
    def body():
        g = greenlet.greenlet(echo)
        g.switch(1)
        greenlet.greenlet(gort.Chan().recv).switch()
    parked(*[gort.go(body) for _ in range(10)])
    g = greenlet.greenlet(echo)
    print(g.switch(1), flush=True)
    """
    done = child(HEADER + dedent(code))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


BRIDGE = """
import asyncio
from sqlalchemy.util import await_only, greenlet_spawn
async def tick(n):
    await asyncio.sleep(0)
    gort.gosched()
    await asyncio.sleep(0.0002)
    return n
def sync(n):
    return sum(await_only(tick(k)) for k in range(n))
async def several(i):
    return await asyncio.gather(*[greenlet_spawn(sync, n) for n in range(i, i + 5)])
"""


def sqlalchemy_bridge() -> str:
    pytest.importorskip("sqlalchemy", reason="no sqlalchemy here", exc_type=ImportError)
    return BRIDGE


def test_sqlalchemys_asyncio_bridge_in_goroutines_with_loops_of_their_own():
    code = """
    def body(i):
        getcurrent()
        home, got = tid(), []
        for _ in range(10):
            got.append(asyncio.run(several(i)))
            assert tid() == home
        return got == [[n * (n - 1) // 2 for n in range(i, i + 5)]] * 10
    print(set(moving(body, 5)))
    """
    run(sqlalchemy_bridge() + dedent(code), "{True}")


def test_two_bridges_cross():
    code = """
    def call(f, n):
        async def main():
            return await greenlet_spawn(lambda: (await_only(tick(n)), f(n), await_only(tick(n)))[2])
        return asyncio.run(main())
    crossing(call, 25)
    print(asyncio.run(several(3)))
    """
    run(sqlalchemy_bridge() + dedent(code), "[3, 6, 10, 15, 21]")


def test_asynchronous_engines_of_sqlalchemy_in_goroutines(tmp_path):
    pytest.importorskip("aiosqlite", reason="no aiosqlite here", exc_type=ImportError)
    code = f"""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    async def fill(i):
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/{{i}}.db")
        async with engine.begin() as db:
            await db.execute(text("create table t (n integer)"))
        for k in range(10):
            async with engine.begin() as db:
                await db.execute(text("insert into t values (:n)"), {{"n": i + k}})
        async with engine.connect() as db:
            total = (await db.execute(text("select sum(n) from t"))).scalar()
        await engine.dispose()
        return total
    print(moving(lambda i: asyncio.run(fill(i)), 4))
    """
    run(sqlalchemy_bridge() + dedent(code), "[45, 55, 65, 75]")
