"""Groups: what they refuse, how long they live, and what a forked child has of them."""

from __future__ import annotations

from textwrap import dedent

import gort
import pytest
from children import COMPUTE, check


def child(code, **env):
    check(COMPUTE + dedent(code), **env)


@pytest.mark.parametrize(
    "wrong, error, text",
    [
        ({"weight": 0}, ValueError, "a weight is from 1 to 10000, not 0"),
        ({"weight": 10_001}, ValueError, "a weight is from 1 to 10000"),
        ({"weight": 1.5}, TypeError, "a weight is an int, not float"),
        ({"quota": 0}, ValueError, "a quota is from 0.001 to 1024 CPUs, or None, not 0"),
        ({"quota": float("nan")}, ValueError, "a quota is from"),
        ({"quota": float("inf")}, ValueError, "a quota is from"),
    ],
)
def test_groups_refuse_what_is_out_of_range(wrong, error, text):
    with pytest.raises(error, match=text):
        gort.Group("g", **wrong)
    group = gort.Group("g", weight=7, quota=2)
    for name, value in wrong.items():
        with pytest.raises(error, match=text):
            setattr(group, name, value)
    assert (group.weight, group.quota) == (7, 2)


def test_spawn_refuses_wrong_places():
    with pytest.raises(TypeError, match="group must be a gort.Group or None"):
        gort.spawn(print, group="batch")
    for wrong in (21, -21, 10**30):
        with pytest.raises(ValueError):
            gort.spawn(print, priority=wrong)
    with pytest.raises(TypeError):
        gort.spawn(print, priority="high")
    with pytest.raises(ValueError, match="reserve needs locked=True"):
        gort.spawn(print, reserve=True)
    with pytest.raises(TypeError, match="a group's name is a str"):
        gort.Group(3)


def test_groups_go_when_nobody_refers_to_them():
    child(
        """
        import gc, weakref
        class Group(gort.Group): pass
        group = Group("g", quota=0.5)
        g = group.go(lambda: gort.current().group.name)
        watch = weakref.ref(group)
        del group
        assert g.join() == "g"
        assert watch() is not None  # the goroutine object has it
        del g
        gc.collect()
        assert watch() is None
        assert gort.stats()["goroutines"] >= 1
        # Nothing is measured any more.
        g = gort.go(gort.sleep, 0.001)
        gort.sleep(0)
        assert g.stats()["runs"] == 0
        g.join()
        """
    )


def test_a_thousand_groups_come_and_go_with_goroutines_in_them():
    def body(i):
        gort.gosched()
        return i

    for _ in range(3):
        gs = [gort.Group(str(i), quota=0.5).go(body, i) for i in range(1000)]
        assert [g.join() for g in gs] == list(range(1000))


def test_a_forked_child_begins_without_those_who_were_ready():
    child(
        """
        def main():
            group, stop = gort.Group("g", quota=0.01), []
            gs = [group.go(compute, stop, [0]) for _ in range(5)]
            while not group.stats()["throttled"]: gort.sleep(0.001)
            pid = os.fork()
            if pid == 0:
                assert group.go(lambda: 5).join(timeout=20) == 5
                assert [gort.spawn(lambda: p, priority=p).join() for p in (1, 2)] == [1, 2]
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            stop.append(True)
            group.quota = None
            for g in gs: g.join()
        gort.run(main)
        """,
        GORT_POLICY="fair",
        PYTHONWARNINGS="ignore",  # of os.fork with threads
    )


@pytest.mark.parametrize("in_use", ["gort.Group('any')", "gort.set_schedstats(True)"])
def test_one_that_wakes_goes_before_many_that_compute(in_use):
    child(
        f"""
        def main():
            kept, stop, ran = {in_use}, [], set()
            def hog(i):
                while not stop: ran.add(i)
            gs = [gort.go(hog, i) for i in range(100)]
            while len(ran) < 100: gort.sleep(0.001)
            rounds = []
            for _ in range(5):
                ran.clear()
                gort.sleep(0.001)
                rounds.append(len(ran))
            stop.append(True)
            for g in gs: g.join()
            # One queue would be a round of all hundred, each time.
            assert min(rounds) < 50, rounds
        gort.run(main)
        """,
        GORT_SLICE="1",
    )
