"""What gort.gc.tune() chooses, as arithmetic: growth, room under a limit, share of the time."""

from __future__ import annotations

from gort.gc import Pacer

MIB = 1 << 20


def paces(pacer, residents, live=1_000_000, gc_ns=lambda now: 0, step_ns=10_000_000):
    """The thresholds a pacer chooses, pass by pass, for the resident bytes given."""
    return [
        pacer.next(i * step_ns, gc_ns(i * step_ns), live, bytes_)
        for i, bytes_ in enumerate(residents, 1)
    ]


def test_without_a_limit_the_threshold_is_a_third_of_the_growth():
    assert paces(Pacer(100, None, 700), [0]) == [333_333]
    assert paces(Pacer(50, None, 700), [0]) == [166_666]
    assert paces(Pacer(100, None, 700), [0], live=10) == [700]
    assert paces(Pacer(100, None, 700), [0], live=10**12) == [2**31 - 1]


def test_far_from_the_limit_passes_become_rare_step_by_step():
    chosen = paces(Pacer(100, 1 << 40, 700), [100 * MIB] * 12)
    assert chosen[:3] == [1400, 2800, 5600]
    assert chosen[-1] == 333_333


def test_near_the_limit_passes_are_as_frequent_as_cpythons():
    pacer = Pacer(100, 1000 * MIB, 700)
    chosen = paces(pacer, [100 * MIB] * 12 + [i * MIB for i in range(150, 950, 50)] + [995 * MIB])
    peak = max(chosen)
    assert peak == 333_333
    assert chosen[-1] < peak / 10
    assert paces(pacer, [999 * MIB + 900_000, 1001 * MIB, 5000 * MIB]) == [700] * 3
    assert max(paces(pacer, [100 * MIB] * 60)) == 333_333, "and rare again when there is room"


def test_heavy_objects_are_noticed_after_one_pass():
    pacer = Pacer(100, 1000 * MIB, 700)
    paces(pacer, [100 * MIB] * 3)
    before = pacer.threshold
    grown = before * 64 * 1024  # each object weighed 64 KiB
    assert paces(pacer, [100 * MIB + grown])[0] * 64 * 1024 < 1000 * MIB - 100 * MIB - grown


def test_limit_alone_lets_passes_become_as_rare_as_there_is_room():
    chosen = paces(Pacer(None, 1 << 40, 700), [100 * MIB] * 40)
    assert chosen[-1] == 2**31 - 1
    assert paces(Pacer(None, 100 * MIB, 700), [100 * MIB]) == [700]


def test_above_half_of_the_time_the_limit_gives_way():
    """Go's rule against a death spiral: no more than half of the time for the limit's sake."""
    at_limit = [1000 * MIB] * 400
    modest = paces(Pacer(100, 1000 * MIB, 700), at_limit, gc_ns=lambda now: now * 4 // 10)
    assert set(modest) == {700}
    spiral = paces(Pacer(100, 1000 * MIB, 700), at_limit, gc_ns=lambda now: now * 6 // 10)
    assert spiral[-1] == 333_333


def test_full_passes_for_the_limit_take_half_of_the_time_at_most():
    pacer = Pacer(100, 1000 * MIB, 700)
    assert not pacer.wants_full(1, 999 * MIB)
    assert pacer.wants_full(1, 1000 * MIB)
    pacer.note_full(now_ns=2_000, length_ns=500, resident=1000 * MIB)
    assert not pacer.wants_full(2_400, 2000 * MIB), "as long as it took nothing more"
    assert pacer.wants_full(2_500, 2000 * MIB)
    assert not pacer.wants_full(9_000, 1040 * MIB), "it did not help, and little came since"
    assert pacer.wants_full(9_000, 1051 * MIB)
