"""singleflight.Group: sharing, exceptions, ends of goroutines, time-outs, threads."""

from __future__ import annotations

import gc
import random
import threading
import traceback
import weakref

import gort
import pytest
from gort.atomic import Int
from gort.singleflight import Group, Result, _Call
from leaking import found, start
from waiting import LIMIT, OnThread, eventually, join_all, parked, raises_text, settle


def led(group, fn, key="key"):
    """Start a goroutine that leads a call of `fn`; give it once it is parked in there."""
    leader = gort.go(group.do, key, fn)
    parked(leader)
    return leader


def refuse():
    pytest.fail("a call was in flight: this must not run")


def followers(group, n=3, key="key"):
    """Start goroutines and a thread that join the call, and give them once they wait."""
    made = [gort.go(group.do, key, refuse) for _ in range(n)]
    parked(*made)
    return made


def test_result_is_shared_with_all_who_ask_meanwhile():
    group, gate = Group(), gort.Chan()
    leader = led(group, gate.recv)
    others = followers(group)
    thread = OnThread(group.do, "key", refuse)
    channel = group.do_chan("key", refuse)
    eventually(lambda: group._calls["key"].joined.load() == 5)
    assert group.do("other", lambda: 1) == (1, False)
    value = object()
    gate.send(value)
    for one in (leader, *others, thread):
        assert one.join(timeout=LIMIT) == (value, True)
    got = channel.recv(timeout=LIMIT)
    assert (got.value, got.error, got.shared) == tuple(got) == (value, None, True)
    assert group.do("key", lambda: 2) == (2, False), "nothing is kept"
    assert repr(Result(1, None, False)) == "Result(value=1, error=None, shared=False)"


def test_arguments_are_passed_and_wrong_ones_refused():
    group = Group()
    assert group.do(("any", "key"), pow, 2, 5) == (32, False)
    assert group.do_chan(1, pow, 2, 5).recv().value == 32
    for method in (group.do, group.do_chan):
        with raises_text(TypeError, f"{method.__name__}() needs a callable, not int"):
            method("key", 5)
        with pytest.raises(TypeError, match="unhashable"):
            method([], pow)
        with pytest.raises(TypeError):
            method("key")
    with pytest.raises(TypeError, match="unhashable"):
        group.forget([])
    assert len(group._calls) == 0


def test_exception_is_one_object_with_a_traceback_that_does_not_grow():
    group, gate = Group(), gort.Chan()

    def fail():
        gate.recv_ok()
        raise ValueError("failed")

    seen, depths = [], []

    def ask(fn):
        try:
            group.do("key", fn)
        except ValueError as error:
            frames = traceback.extract_tb(error.__traceback__)
            depths.append(len(frames))
            seen.append((error, [frame.name for frame in frames]))

    leader = gort.go(ask, fail)
    parked(leader)
    others = [gort.go(ask, refuse) for _ in range(5)]
    parked(*others)
    gate.close()
    join_all([leader, *others])
    assert len({id(error) for error, _ in seen}) == 1
    assert all("fail" in names and "ask" in names for _, names in seen)
    assert max(depths) <= min(depths) + 3, depths
    assert len(group._calls) == 0


@pytest.mark.parametrize("with_followers", [False, True])
def test_exception_keeps_nothing_alive(with_followers):
    class Thing:
        pass

    thing = Thing()
    gone, group, gate = weakref.ref(thing), Group(), gort.Chan()

    def fail(thing):
        gate.recv_ok()
        raise ValueError("failed")

    def ask(*args):
        with pytest.raises(ValueError):
            group.do("key", *args)

    asking = [gort.go(ask, fail, thing)]
    parked(*asking)
    if with_followers:
        asking += [gort.go(ask, refuse) for _ in range(3)]
        parked(*asking)
    del thing
    gc.collect()
    gc.disable()  # no circles
    try:
        gate.close()
        join_all(asking)
        asking.clear()
        eventually(lambda: gone() is None)
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["goexit", "cancel"])
def test_end_of_the_leader_ends_those_who_wait(how):
    group, gate = Group(), gort.Chan()

    def end():
        gate.recv_ok()
        gort.goexit()

    leader = led(group, end)
    others = followers(group)
    channel = group.do_chan("key", refuse)
    if how == "cancel":
        leader.cancel()
    else:
        gate.close()
    assert join_all(others) == [None] * 3  # goexit() in each of them
    with pytest.raises(gort.ChanClosed):
        channel.recv(timeout=LIMIT)
    assert group.do("key", lambda: 1) == (1, False)


def test_one_who_is_cancelled_while_it_waits_is_not_missed():
    group, gate = Group(), gort.Chan()
    leader = led(group, gate.recv)
    others = followers(group)
    others[1].cancel()
    with pytest.raises(gort.Cancelled):
        others[1].join(timeout=LIMIT)
    gate.send(1)
    for one in (leader, others[0], others[2]):
        assert one.join(timeout=LIMIT) == (1, True)


def test_time_out_is_of_the_one_who_waits():
    group, gate = Group(), gort.Chan()
    leader = led(group, gate.recv)
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError):
            group.do("key", refuse, timeout=timeout)
    with pytest.raises(ValueError):
        group.do("key", refuse, timeout=-1)
    gate.send(1)
    assert leader.join(timeout=LIMIT)[0] == 1
    assert group.do("key", lambda: 2, timeout=0) == (2, False)


def test_do_chan_of_a_function_that_fails_or_ends():
    group = Group()
    value, error, shared = group.do_chan("key", lambda: 1 / 0).recv(timeout=LIMIT)
    assert value is None and type(error) is ZeroDivisionError and not shared
    with pytest.raises(gort.ChanClosed):
        group.do_chan("key", gort.goexit).recv(timeout=LIMIT)
    assert len(group._calls) == 0


def test_do_chan_does_not_park_and_its_goroutine_may_be_cancelled_before_it_ran():
    group = Group()
    before = {g.id for g in gort.goroutines()}
    channel = group.do_chan("key", refuse)
    (flight,) = (g for g in gort.goroutines() if g.id not in before)
    assert flight.name == "refuse"
    flight.cancel()
    with pytest.raises(gort.ChanClosed):
        channel.recv(timeout=LIMIT)
    assert group.do("key", lambda: 1) == (1, False)


def test_one_who_joined_a_call_that_never_ran_makes_it():
    group, never = Group(), _Call()
    group._calls["key"] = never
    asking = gort.go(group.do, "key", lambda: 5)
    parked(asking)
    never.end(group._calls, "key")  # as where the goroutine of do_chan() is cancelled first
    assert asking.join(timeout=LIMIT) == (5, False)


def test_forget_lets_the_next_one_run_and_leaves_the_first_alone():
    group, gate = Group(), gort.Chan()
    leader = led(group, gate.recv)
    others = followers(group)
    group.forget("key")
    second = led(group, gate.recv)
    gate.send(1)
    assert leader.join(timeout=LIMIT) == (1, True)
    assert [one.join(timeout=LIMIT) for one in others] == [(1, True)] * 3
    assert not second.done and "key" in group._calls
    gate.send(2)
    assert second.join(timeout=LIMIT) == (2, False)
    group.forget("never there")


def test_function_may_ask_for_another_key_and_forget_its_own():
    group = Group()

    def outer():
        group.forget("a")
        return group.do("b", lambda: 1)[0] + group.do("a", lambda: 2)[0]

    assert group.do("a", outer) == (3, False)


def test_hammer_by_goroutines_and_threads():
    group, running, runs = Group(), [Int() for _ in range(3)], Int()

    def fn(key):
        assert running[key].add(1) == 1, "two at once"
        runs.add(1)
        gort.gosched()
        running[key].add(-1)
        if key == 2:
            raise LookupError(key)
        return key

    def work(seed):
        r = random.Random(seed)
        for _ in range(200):
            key = r.randrange(3)
            try:
                if r.random() < 0.5:
                    value, _ = group.do(key, fn, key, timeout=LIMIT)
                else:
                    value, error, _ = group.do_chan(key, fn, key).recv(timeout=LIMIT)
                    if error is not None:
                        raise error
                assert value == key != 2
            except LookupError as error:
                assert error.args == (2,) == (key,)
        return True

    threads = [OnThread(work, 100 + i) for i in range(2)]
    assert all(join_all([gort.go(work, i) for i in range(8)]))
    assert all(thread.join() for thread in threads)
    assert 0 < runs.load() < 2000 and len(group._calls) == 0


def test_leader_on_a_thread_and_a_waiting_goroutine_are_no_leak():
    group, gate = Group(), threading.Event()

    def hold():
        gate.wait(LIMIT)
        return 1

    thread = OnThread(group.do, "key", hold)
    eventually(lambda: "key" in group._calls)
    ident = start(group.do, "key", refuse)
    settle()
    assert ident not in found()
    gate.set()
    assert thread.join() == (1, True)
