"""Policies, priorities, groups, reserved goroutines: who goes on first, and how much each gets."""

from __future__ import annotations

from textwrap import dedent

import gort
import pytest
from children import COMPUTE, check


def child(code, *arguments, **env):
    check(COMPUTE + dedent(code), *arguments, **env)


@pytest.fixture
def policy():
    """Sets policies; fifo again afterwards."""
    yield gort.set_policy
    gort.set_policy("fifo")


# The order


def test_set_policy_returns_the_previous_one(policy):
    assert gort.get_policy() == "fifo"
    assert [policy(name) for name in ("mlfq", "fair", "fifo")] == ["fifo", "mlfq", "fair"]
    with pytest.raises(ValueError, match=r"no policy 'lifo'; there are 'fifo', 'mlfq', 'fair'"):
        policy("lifo")
    assert gort.get_policy() == "fifo"


@pytest.mark.parametrize("name", ["mlfq", "fair"])
def test_the_environment_sets_the_first_policy(name):
    child(f"assert gort.get_policy() == {name!r}", GORT_POLICY=name)


def order_of(priorities):
    order = []
    with gort.no_preempt():
        gs = [gort.spawn(order.append, (p,), priority=p) for p in priorities]
    for g in gs:
        g.join()
    return order


def test_mlfq_starts_the_most_urgent_first(policy):
    policy("mlfq")
    assert order_of([0, 5, -20, 20, 3]) == [20, 5, 3, 0, -20]
    assert order_of([1, 1, 1]) == [1, 1, 1]


def test_fifo_asks_for_no_priority():
    # The one started last has Go's next slot.
    assert order_of([0, 5, -20, 20, 3]) == [3, 0, 5, -20, 20]


@pytest.mark.parametrize("name", ["fifo", "mlfq", "fair"])
def test_what_is_ready_goes_on_when_the_policy_changes(policy, name):
    policy("fair")
    done = []
    with gort.no_preempt():
        gs = [gort.spawn(done.append, (i,), priority=i % 5) for i in range(1000)]
        policy("mlfq")
        policy(name)
    for g in gs:
        g.join()
    assert sorted(done) == list(range(1000))


def test_priority_of_one_that_is_ready_changes_its_place(policy):
    policy("mlfq")
    order, go_on = [], gort.Chan()

    def body(i):
        go_on.recv()
        order.append(i)

    with gort.no_preempt():
        gs = [gort.go(body, i) for i in range(3)]
        gort.gosched()
        for _ in gs:
            go_on.send(None)
        gort.spawn(order.append, ("between",), priority=1)
        assert gs[2].set_priority(2)
        assert gs[2].priority == 2
    for g in gs:
        g.join()
    assert order[:2] == [2, "between"]
    assert not gs[2].set_priority(1)
    assert gs[2].priority == 0


def test_those_it_starts_have_priority_and_group_of_a_goroutine(policy):
    group = gort.Group("parents")

    def parent():
        child = gort.go(lambda: None)
        other = gort.spawn(lambda: None, priority=-1, group=gort.Group("others"))
        return child.priority, child.group, other.priority, other.group.name

    assert gort.spawn(parent, priority=7, group=group).join() == (7, group, -1, "others")
    plain = gort.go(lambda: None)
    assert (plain.priority, plain.group) == (0, None)


def test_after_func_starts_its_goroutine_for_nobody(policy):
    """It fires on a scheduler's stack, whoever ran there last."""
    policy("mlfq")
    group, seen = gort.Group("others"), gort.Chan()
    stop = []

    def others():
        while not stop:
            gort.sleep(0.0005)

    g = gort.spawn(others, priority=7, group=group)
    for _ in range(20):
        gort.after_func(0.002, lambda: seen.send((gort.current().priority, gort.current().group)))
        assert seen.recv(timeout=20) == (0, None)
    stop.append(True)
    g.join()


# Time


@pytest.mark.parametrize("name, priority", [("mlfq", 20), ("fair", 5)])
def test_nobody_starves(name, priority):
    child(
        f"""
        def main():
            stop, urgent, other = [], [0], [0]
            gs = [gort.spawn(compute, (stop, urgent), priority={priority}) for _ in range(3)]
            gs.append(gort.spawn(compute, (stop, other), priority=-{priority}))
            while not (urgent[0] and other[0]): gort.sleep(0.01)
            for _ in range(3):
                before = other[0]
                while other[0] < before + 1000: gort.sleep(0.01)
            stop.append(True)
            for g in gs: g.join()
        gort.run(main)
        """,
        GORT_POLICY=name,
    )


def test_one_that_computes_sinks_below_one_that_waits():
    child(
        """
        def main():
            stop, count = [], [0]
            hog = gort.go(compute, stop, count)
            while gort.stats()["preemptions"] < 5: gort.sleep(0)
            ticks = gort.Chan()
            def tick():
                for i in range(30):
                    gort.sleep(0.001)
                return gort.current().stats()
            stats = gort.go(tick).join()
            stop.append(True)
            hog.join()
            # A slice is 100 ms: behind the hog each of the 30 would have waited for one.
            assert stats["runs"] >= 31, stats
            assert stats["wait_ns"] < 30 * 100_000_000 / 2, stats
        gort.run(main)
        """,
        GORT_POLICY="mlfq",
        GORT_SLICE="100",
    )


@pytest.mark.parametrize("name", ["mlfq", "fair"])
def test_one_that_is_woken_and_more_urgent_interrupts_who_wakes_it(name):
    child(
        """
        def main():
            ch, seen, count = gort.Chan(), [], [0]
            def receive():
                ch.recv()
                seen.append(count[0])
            def hog():
                for _ in range(100_000): count[0] += 1  # has used time, under any policy
                count[0] = 0
                ch.send(None)
                while not seen: count[0] += 1
            g = gort.spawn(receive, priority=10)
            started(g)
            gort.go(hog).join()
            assert seen[0] < 10_000, seen  # after a slice of 100 ms it is hundreds of thousands
        gort.run(main)
        """,
        GORT_POLICY=name,
        GORT_SLICE="100",
    )


def test_fair_shares_by_weight():
    child(
        """
        def main():
            stop, gs = [], []
            for priority in (0, 10):  # 1.25 ** 10 is 9.3
                gs.append(gort.spawn(compute, (stop, [0]), priority=priority))
            def used(): return [(g.stats() or {"run_ns": 0})["run_ns"] for g in gs]
            # A slice that ends late on a busy machine is made up for: the shares are right in the long run.
            low, high = 0, 0
            while low + high < 600_000_000 or not 6 < high / low < 14:
                assert low + high < 6_000_000_000, (low, high)
                gort.sleep(0.01)
                low, high = used()
            stop.append(True)
            for g in gs: g.join()
        gort.run(main)
        """,
        GORT_POLICY="fair",
        GORT_SLICE="2",
    )


def test_fair_shares_between_groups_whatever_their_number():
    child(
        """
        def main():
            stop = []
            few, many = gort.Group("few", weight=300), gort.Group("many", weight=100)
            gs = [few.go(compute, stop, [0])] + [many.go(compute, stop, [0]) for _ in range(5)]
            def used(): return few.stats()["run_ns"], many.stats()["run_ns"]
            a, b = 0, 0
            while a + b < 500_000_000 or not 2 < a / b < 4.5:
                assert a + b < 6_000_000_000, (a, b)
                gort.sleep(0.01)
                a, b = used()
            stop.append(True)
            for g in gs: g.join()
        gort.run(main)
        """,
        GORT_POLICY="fair",
        GORT_SLICE="2",
    )


@pytest.mark.parametrize("name", ["fifo", "mlfq", "fair"])
def test_a_quota_holds_beside_others_and_alone(name):
    child(
        """
        def main():
            for others in (1, 0):
                stop = []
                group = gort.Group("few", quota=0.2)
                begun = time.monotonic()
                gs = [group.go(compute, stop, [0]) for _ in range(2)]
                gs += [gort.go(compute, stop, [0]) for _ in range(others)]
                while group.stats()["throttled"] < 8: gort.sleep(0.01)
                stats, passed = group.stats(), time.monotonic() - begun
                stop.append(True)
                for g in gs: g.join()
                # Seven periods of 100 ms at least, and at most 20 ms and a bit in each of those that have begun.
                assert passed > 0.65, passed
                assert stats["run_ns"] / 1e9 < 0.2 * (passed + 0.1) + 0.05, (stats, passed)
                assert stats["throttled_ns"] > 0
        gort.run(main)
        """,
        GORT_POLICY=name,
    )


def test_a_group_without_time_goes_on_once_it_has_a_larger_quota():
    child(
        """
        def main():
            stop, count = [], [0]
            group = gort.Group("few", quota=0.001)
            g = group.go(compute, stop, count)
            while not group.stats()["throttled"]: gort.sleep(0.001)
            group.quota = None
            before = count[0]
            while count[0] <= before + 1000: gort.sleep(0.001)
            stop.append(True)
            g.join()
            assert group.quota is None
        gort.run(main)
        """
    )


def test_nobody_is_asleep_while_a_group_waits_for_its_next_period():
    child(
        """
        def main():
            group = gort.Group("few", quota=0.01)
            group.go(sum, (n for n in range(300_000))).join()  # main parks for periods: no deadlock
            assert group.stats()["throttled"] >= 1
        gort.run(main)
        """
    )


# Measuring


def test_schedstats_count_runs_and_time():
    assert gort.set_schedstats(True) is False
    try:

        def body():
            total = sum(range(200_000))
            gort.sleep(0.001)
            gort.gosched()
            return total, gort.current().stats()

        _, stats = gort.go(body).join()
        assert stats["runs"] >= 2
        assert stats["run_ns"] > 100_000
        assert stats["longest_wait_ns"] <= stats["wait_ns"]
    finally:
        assert gort.set_schedstats(False) is True
    g = gort.go(lambda: None)
    g.join()
    assert g.stats() is None


# gosched_when


def test_gosched_when_gives_way_only_if_the_condition_holds():
    order = []
    with gort.no_preempt():
        g = gort.go(order.append, "other")
        assert gort.gosched_when(False) is False
        assert gort.gosched_when(list) is False
        order.append("not yet")
        assert gort.gosched_when(lambda: True) is True
    g.join()
    assert order == ["not yet", "other"]
    with pytest.raises(ZeroDivisionError):
        gort.gosched_when(lambda: 1 / 0)


@pytest.mark.parametrize("gives_way", [True, False])
def test_with_gosched_when_the_producer_runs_before_the_buffer_is_low(gives_way):
    buffer, low, seen = gort.Chan(16), 4, []

    def produce():
        for i in range(200):
            buffer.send(i)
        buffer.close()

    def consume():
        for _ in buffer:
            seen.append(len(buffer))
            if gives_way:
                gort.gosched_when(len(buffer) <= low)

    with gort.no_preempt():
        gs = [gort.go(produce), gort.go(consume)]
    for g in gs:
        g.join()
    drained = sum(n < low for n in seen[:150])
    assert (drained == 0) == gives_way, seen


# Reserved


def test_a_reserved_goroutine_stays_on_its_thread_and_waits_for_nobody():
    child(
        """
        import threading
        def main():
            stop, count, threads = [], [0], set()
            hogs = [gort.go(compute, stop, count) for _ in range(5)]
            def tick():
                for _ in range(50):
                    gort.sleep(0.001)
                    threads.add(threading.get_native_id())
                return gort.current().stats()
            stats = gort.spawn(tick, locked=True, reserve=True).join()
            stop.append(True)
            for g in hogs: g.join()
            assert len(threads) == 1
            assert stats["m_migrations"] <= 1, stats
            # A slice is 100 ms: each of the 50 would have waited for one at least.
            assert stats["wait_ns"] < 50 * 100_000_000 / 2, stats
        gort.run(main)
        """,
        GORT_SLICE="100",
    )


def test_a_reserved_goroutine_is_woken_at_once_by_a_channel_too():
    child(
        """
        def main():
            ch, seen, count = gort.Chan(), [], [0]
            def receive():
                while (n := ch.recv()) is not None:
                    seen.append(count[0] - n)
            g = gort.spawn(receive, locked=True, reserve=True)
            started(g)
            def hog():
                for _ in range(5):
                    before = len(seen)
                    ch.send(count[0])
                    while len(seen) == before: count[0] += 1
            gort.go(hog).join()
            ch.send(None)
            g.join()
            assert max(seen) < 500_000, seen  # a slice is some millions
        gort.run(main)
        """,
        GORT_SLICE="100",
    )
