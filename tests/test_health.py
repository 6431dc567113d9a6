"""gort.health(): each limit is passed by samples that are made up, and by what really happens."""

from __future__ import annotations

import gc
import os

import gort
import pytest
from gort._health import _look, _Sample
from waiting import eventually


class Clocked(gort.HealthMonitor):
    """A monitor of a process that is made up."""

    def __init__(self, limits: gort.HealthLimits | None = None) -> None:
        super().__init__(limits)
        self.now = _Sample(100.0, 0, 0, 10, 100 << 20, 50, 1024)
        self._look = self._copy

    def _copy(self) -> _Sample:
        return _Sample(*(getattr(self.now, name) for name in (
            "at", "passes", "last_minute", "goroutines", "resident", "descriptors", "limit",
        )))  # fmt: skip

    def later(self, seconds: float, **more: int) -> gort.Health:
        """Look again, after so much has been added."""
        self.now.at += seconds
        for name, number in more.items():
            setattr(self.now, name, getattr(self.now, name) + number)
        return self.check()


def test_all_is_well_at_first_and_without_changes():
    monitor = Clocked()
    found = monitor.check()
    assert found and found.ok and found.flags == found.reasons == ()
    assert (found.goroutines_per_s, found.memory_per_s) == (None, None)
    for _ in range(100):
        found = monitor.later(10)
        assert found
    assert (found.gc_per_s, found.goroutines_per_s, found.memory_per_s) == (0, 0, 0)
    assert repr(found) == "<gort.Health ok>"


@pytest.mark.parametrize(("passes", "flags"), [(500, ()), (501, ("gc",))])
def test_more_than_fifty_passes_a_second(passes, flags):
    monitor = Clocked()
    monitor.check()
    found = monitor.later(10, passes=passes)
    assert found.flags == flags
    assert found.gc_per_s == passes / 10
    assert bool(found) is not bool(flags)
    assert found.reasons == (("50 passes of the collector per second",) if flags else ())


def test_the_first_look_knows_the_last_minutes_passes():
    monitor = Clocked()
    monitor.now.last_minute = 3001
    assert monitor.check().flags == ("gc",)
    monitor.now.last_minute = 3000
    assert Clocked().check().flags == ()


def test_a_look_soon_after_another_judges_by_an_older_one():
    monitor = Clocked()
    monitor.check()
    monitor.later(2, passes=10)
    found = monitor.later(0.001, passes=10)  # not 10,000 a second
    assert found.gc_per_s == pytest.approx(20 / 2.001)


def test_goroutines_that_only_grow():
    monitor = Clocked()
    monitor.check()
    for _ in range(4):
        assert monitor.later(10, goroutines=1)
    found = monitor.later(10, goroutines=1)
    assert found.flags == ("goroutines",)
    assert found.reasons == ("goroutines only grow: from 10 to 15 in 50 s",)
    assert found.goroutines_per_s == pytest.approx(0.1)
    assert monitor.later(10, goroutines=0).flags == ("goroutines",)  # four of five steps
    assert monitor.later(10, goroutines=-1).flags == ()


def test_goroutines_that_grow_for_a_moment_only():
    monitor = Clocked()
    monitor.check()
    for _ in range(20):
        assert monitor.later(1, goroutines=100) or monitor.now.at >= 130
    monitor = Clocked(gort.HealthLimits(growing_samples=3, growing_seconds=2))
    monitor.check()
    assert monitor.later(1, goroutines=1)
    assert not monitor.later(1, goroutines=1)


def test_goroutines_that_come_and_go():
    monitor = Clocked()
    monitor.check()
    for n in range(50):
        assert monitor.later(10, goroutines=-20 if n % 5 == 4 else 10)


def test_memory_that_grows_fast():
    monitor = Clocked()
    monitor.check()
    found = monitor.later(60, resident=25 << 20)
    assert found and found.memory_per_s == (25 << 20) / 60
    found = monitor.later(60, resident=40 << 20)
    assert found.flags == ("memory",)
    assert found.reasons == ("resident memory grew by 40 MiB in 60 s, 32% a minute",)
    assert monitor.later(60, resident=0)


def test_memory_that_is_little_or_new_is_not_judged():
    monitor = Clocked()
    monitor.now.resident = 1 << 20
    monitor.check()
    assert monitor.later(60, resident=15 << 20)  # 1,500 percent, but below 16 MiB
    monitor = Clocked()
    monitor.check()
    assert monitor.later(9, resident=1 << 30)  # 9 s are too short to tell
    assert not monitor.later(2, resident=0)


@pytest.mark.parametrize(("count", "flags"), [(921, ()), (922, ("descriptors",))])
def test_descriptors_near_the_limit(count, flags):
    monitor = Clocked()
    monitor.now.descriptors = count
    found = monitor.check()
    assert found.flags == flags
    assert found.reasons == ((f"{count} of 1024 descriptors are open",) if flags else ())


def test_no_limit_on_descriptors_is_none():
    monitor = Clocked()
    monitor.now.descriptors, monitor.now.limit = 1 << 30, None
    assert monitor.check()


def test_everything_at_once_and_as_plain_values():
    monitor = Clocked(gort.HealthLimits(growing_samples=2, growing_seconds=1))
    monitor.check()
    found = monitor.later(60, passes=6000, goroutines=5, resident=100 << 20, descriptors=1000)
    assert found.flags == ("gc", "goroutines", "memory", "descriptors")
    assert len(found.reasons) == 4
    assert repr(found) == f"<gort.Health {'; '.join(found.reasons)}>"
    plain = found.as_dict()
    assert plain["ok"] is False and plain["goroutines"] == 15
    assert set(plain) == {"ok", *found.__slots__}


def test_limits_are_checked():
    with pytest.raises(ValueError, match="gc_per_s must be more than 0"):
        gort.HealthLimits(gc_per_s=0)


def test_real_passes_are_seen():
    monitor = gort.HealthMonitor(gort.HealthLimits(gc_per_s=1.5))

    def collects() -> bool:
        for _ in range(5):
            gc.collect(0)  # a whole one may take a second: it looks at what all the tests made
        gort.sleep(0.1)
        return "gc" in monitor.check().flags

    monitor.check()
    eventually(collects)


def test_real_goroutines_are_seen():
    gate = gort.Chan()
    limits = gort.HealthLimits(growing_samples=3, growing_seconds=0.1)
    monitor = gort.HealthMonitor(limits)
    started = []

    def grows() -> bool:
        started.append(gort.go(gate.recv))
        gort.sleep(0.05)
        return "goroutines" in monitor.check().flags

    eventually(grows)
    gate.close()
    for g in started:
        with pytest.raises(gort.ChanClosed):
            g.join()


def test_real_memory_is_seen():
    limits = gort.HealthLimits(memory_seconds=0.1, memory_bytes=8 << 20)
    monitor = gort.HealthMonitor(limits)
    monitor.check()
    kept = []

    def grows() -> bool:
        kept.append(b"x" * (1 << 20))
        gort.sleep(0.01)
        return "memory" in monitor.check().flags

    eventually(grows)


def test_real_descriptors_are_counted():
    before = _look().descriptors
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    try:
        assert _look().descriptors == before + 20
    finally:
        for fd in opened:
            os.close(fd)
