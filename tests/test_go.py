"""go, spawn, join, exceptions, goexit, cancel, identity, excepthook."""

from __future__ import annotations

import gc
import threading
import traceback

import gort
import pytest
from waiting import LIMIT, eventually, in_goroutine, join_all, parked, raises_text, settle


def test_go_returns_value(anywhere):
    assert anywhere(lambda: gort.go(lambda a, b=0: a + b, 2, b=3).join(timeout=LIMIT)) == 5


def test_go_returns_goroutine_object():
    g = gort.go(int)
    assert isinstance(g, gort.Goroutine)
    assert g.join(timeout=LIMIT) == 0
    assert g.done is True


def test_join_repeated_gives_same_result():
    g = gort.go(lambda: [1])
    assert g.join(timeout=LIMIT) is g.join(timeout=LIMIT)


def test_join_by_many_gives_all_the_result():
    gate = gort.Chan()
    g = gort.go(gate.recv)
    joiners = [gort.go(g.join) for _ in range(20)]
    parked(g, *joiners)
    gate.send("x")
    assert join_all(joiners) == ["x"] * 20


def test_join_reraises_with_traceback(anywhere):
    def failing_function():
        raise LookupError("here")

    def body():
        with pytest.raises(LookupError, match="here") as info:
            gort.go(failing_function).join(timeout=LIMIT)
        return traceback.format_exception(info.value)

    assert "failing_function" in "".join(anywhere(body))


def test_join_timeout_leaves_goroutine_running():
    gate = gort.Chan()
    g = gort.go(gate.recv)
    with pytest.raises(TimeoutError):
        g.join(timeout=0.01)
    with pytest.raises(TimeoutError):
        g.join(timeout=0)
    assert not g.done
    gate.send(3)
    assert g.join(timeout=LIMIT) == 3


def test_join_of_itself_does_not_hang():
    box = gort.Chan(1)

    def body():
        with pytest.raises((RuntimeError, TimeoutError)):
            box.recv().join(timeout=0.05)
        return "ok"

    g = gort.go(body)
    box.send(g)
    assert g.join(timeout=LIMIT) == "ok"


def test_go_many_all_run():
    out = []
    join_all([gort.go(out.append, i) for i in range(5000)])
    assert sorted(out) == list(range(5000))


def test_go_nested_spawns():
    def tree(depth):
        if depth == 0:
            return 1
        return sum(join_all([gort.go(tree, depth - 1) for _ in range(3)]))

    assert in_goroutine(tree, 5) == 3**5


def test_go_binding_of_methods_and_builtins():
    assert gort.go("a-b".split, "-").join(timeout=LIMIT) == ["a", "b"]
    assert gort.go(max, [1, 3, 2]).join(timeout=LIMIT) == 3
    assert gort.go(dict, a=1).join(timeout=LIMIT) == {"a": 1}


def test_ids_are_unique_and_increase():
    gs = [gort.go(lambda: gort.current().id) for _ in range(100)]
    ids = [g.id for g in gs]
    assert len(set(ids)) == 100
    assert ids == sorted(ids)
    assert join_all(gs) == ids


def test_current_is_the_goroutine_itself():
    g = gort.go(gort.current)
    assert g.join(timeout=LIMIT) is g


def test_current_keeps_over_parks():
    def body():
        before = gort.current()
        gort.sleep(0.001)
        gort.gosched()
        return before is gort.current()

    assert all(join_all([gort.go(body) for _ in range(50)]))


def test_goroutines_lists_the_parked_and_num_counts_them():
    before = gort.num_goroutine()
    gate = gort.Chan()
    gs = [gort.go(gate.recv) for _ in range(30)]
    parked(*gs)
    assert gort.num_goroutine() == before + 30
    assert {g.id for g in gs} <= {g.id for g in gort.goroutines()}
    gate.close()
    for g in gs:
        with pytest.raises(gort.ChanClosed):
            g.join(timeout=LIMIT)
    eventually(lambda: gort.num_goroutine() == before)


def test_gosched_lets_the_other_run():
    log = []

    def body(name):
        for i in range(3):
            log.append((name, i))
            gort.gosched()

    join_all([gort.go(body, "a"), gort.go(body, "b")])
    assert sorted(log) == [(n, i) for n in "ab" for i in range(3)]
    assert [x for x in log if x[0] == "a"] == [("a", i) for i in range(3)]
    assert log[:3] != [("a", 0), ("a", 1), ("a", 2)]


# goexit


def test_goexit_runs_finally_and_join_returns_none(reports):
    log = []

    def body():
        try:
            gort.goexit()
            log.append("not reached")
        except Exception:
            log.append("Exception must not catch it")
        finally:
            log.append("finally")

    assert gort.go(body).join(timeout=LIMIT) is None
    assert log == ["finally"]
    assert reports == []


def test_goexit_from_deep_call():
    def deep(n):
        if n == 0:
            gort.goexit()
        deep(n - 1)

    assert gort.go(deep, 50).join(timeout=LIMIT) is None


def test_goexit_unjoined_is_not_reported(reports):
    gort.go(gort.goexit)
    settle()
    gc.collect()
    settle()
    assert reports == []


def test_goexit_exception_class_is_base_exception():
    assert issubclass(gort.GoroutineExit, BaseException)
    assert not issubclass(gort.GoroutineExit, Exception)


# cancel


def test_cancel_parked_runs_finally_and_join_raises_cancelled(reports):
    log = []

    def body():
        try:
            gort.Chan().recv()
        except gort.GoroutineExit:
            log.append("exit")
            raise
        finally:
            log.append("finally")

    g = gort.go(body)
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert log == ["exit", "finally"]
    assert reports == []


def test_cancel_before_start_never_runs_or_exits():
    log = []
    g = gort.go(log.append, 1)
    g.cancel()
    try:
        g.join(timeout=LIMIT)
    except gort.Cancelled:
        assert log == []
    else:
        assert log == [1]


def test_cancel_finished_is_no_op():
    g = gort.go(lambda: 4)
    g.join(timeout=LIMIT)
    g.cancel()
    assert g.join(timeout=LIMIT) == 4


def test_cancel_twice_is_like_once():
    g = gort.go(gort.Chan().recv)
    parked(g)
    g.cancel()
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)


def test_cancel_leaves_no_waiter_in_the_channel():
    ch = gort.Chan()
    g = gort.go(ch.recv)
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert ch.try_send(1) is False


@pytest.mark.parametrize(
    "park",
    [
        lambda: gort.sleep(1000),
        lambda: gort.Chan().send(1),
        lambda: gort.select(),
        lambda: gort.select(gort.recv(gort.Chan()), gort.recv(None)),
        lambda: gort.Semaphore(1).acquire(1) or gort.Chan().recv(),
    ],
    ids=["sleep", "send", "empty select", "select", "recv after acquire"],
)
def test_cancel_at_every_kind_of_park(park):
    g = gort.go(park)
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)


def test_cancel_while_waiting_for_locks():
    m = gort.Mutex()
    m.lock()
    wg = gort.WaitGroup()
    wg.add(1)
    gs = [gort.go(m.lock), gort.go(wg.wait)]
    parked(*gs)
    for g in gs:
        g.cancel()
        with pytest.raises(gort.Cancelled):
            g.join(timeout=LIMIT)
    m.unlock()
    assert m.try_lock()


def test_cancel_from_plain_thread():
    g = gort.go(gort.Chan().recv)
    parked(g)
    t = threading.Thread(target=g.cancel)
    t.start()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    t.join()


# excepthook


def test_excepthook_gets_an_unjoined_exception_once(reports):
    def body():
        raise ValueError("lost")

    gort.spawn(body, name="loser")
    eventually(lambda: gc.collect() >= 0 and reports)
    settle()
    assert len(reports) == 1
    args = reports[0]
    assert args.exc_type is ValueError
    assert str(args.exc_value) == "lost"
    assert args.exc_traceback is not None


def test_excepthook_not_called_for_a_joined_exception(reports):
    g = gort.go(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        g.join(timeout=LIMIT)
    del g
    gc.collect()
    settle()
    assert reports == []


def test_excepthook_default_writes_id_name_and_traceback(capsys):
    def body_in_trouble():
        raise ValueError("lost one")

    g = gort.spawn(body_in_trouble, name="carol")
    number = g.id
    del g
    text = []

    def shown():
        gc.collect()
        text.append(capsys.readouterr().err)
        return "lost one" in "".join(text)

    eventually(shown)
    all_text = "".join(text)
    assert str(number) in all_text
    assert "carol" in all_text
    assert "body_in_trouble" in all_text


def test_excepthook_that_raises_does_not_kill_the_runtime(capsys):
    def broken(args):
        raise RuntimeError("broken hook")

    gort.excepthook = broken
    gort.go(lambda: 1 / 0)
    text = []

    def shown():
        gc.collect()
        text.append(capsys.readouterr().err)
        return "ZeroDivisionError" in "".join(text)

    eventually(shown)
    assert in_goroutine(lambda: 1) == 1


def test_exception_in_one_does_not_disturb_others(reports):
    gs = [gort.go(lambda i=i: 1 // (i % 2)) for i in range(100)]
    for i, g in enumerate(gs):
        if i % 2:
            assert g.join(timeout=LIMIT) == 1
        else:
            with pytest.raises(ZeroDivisionError):
                g.join(timeout=LIMIT)
    assert reports == []


# spawn


def test_spawn_args_kwargs_name():
    g = gort.spawn(lambda a, b, c=0: (a, b, c), (1, 2), {"c": 3}, name="worker")
    assert g.name == "worker"
    assert g.join(timeout=LIMIT) == (1, 2, 3)


def test_spawn_args_by_keyword_and_list():
    assert gort.spawn(pow, args=[2, 5]).join(timeout=LIMIT) == 32
    assert gort.spawn(int).join(timeout=LIMIT) == 0


def test_goroutine_name_of_go_is_text():
    assert isinstance(gort.go(int).name, (str, type(None)))


# run


def test_run_returns_result_of_main():
    assert gort.run(lambda a, b: a * b, 6, b=7) == 42


def test_run_raises_exception_of_main():
    with pytest.raises(KeyError):
        gort.run(lambda: {}["x"])


def test_run_again_after_run():
    for i in range(5):
        assert gort.run(lambda i=i: gort.go(lambda: i).join()) == i


def test_run_main_is_on_the_calling_thread():
    assert gort.run(threading.get_ident) == threading.get_ident()


def test_run_inside_a_goroutine_of_run_raises():
    def main():
        with raises_text(RuntimeError, "run"):
            gort.run(int)
        return 1

    assert gort.run(main) == 1


def test_sleep_orders_by_duration():
    out = gort.Chan(3)

    def body(s):
        gort.sleep(s)
        out.send(s)

    for s in (0.6, 0.02, 0.3):
        gort.go(body, s)
    assert [out.recv(timeout=LIMIT) for _ in range(3)] == [0.02, 0.3, 0.6]


def test_sleep_zero_and_negative_return():
    # Go: Sleep of zero or less returns at once; gort may refuse a negative one (see test_bad_input)
    in_goroutine(gort.sleep, 0)
    gort.sleep(0)
