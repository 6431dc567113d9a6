"""gort.leak.Watch: threads, executors, goroutines and locks that leak are told, with where."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import gort
import pytest
from gort.leak import Watch
from waiting import eventually


@pytest.fixture
def over():
    """An event that ends what a test leaves behind."""
    event = threading.Event()
    yield event
    event.set()


def told(watch, kind):
    """The growths of one kind."""
    return [growth for growth in watch.growing() if growth.kind == kind]


def test_threads_that_get_more_are_told_with_who_made_them(over):
    def leaking_function():
        threading.Thread(target=over.wait, name="leaked").start()

    with Watch(samples=4) as watch:
        for _ in range(4):
            leaking_function()
            watch.sample()
        [growth] = told(watch, "threads")
    assert growth.counts == [1, 2, 3, 4]
    assert growth.what == "threading.Event.wait"
    assert len(growth.where) == 4
    assert all("leaked: made by " in place for place in growth.where)
    assert all("leaking_function at " in place for place in growth.where)
    assert str(growth).startswith("threads: threading.Event.wait: 1 2 3 4\n  leaked: made by ")


def test_executors_that_are_not_shut_down_are_told(over):
    kept = []

    def handle_request():
        executor = ThreadPoolExecutor(10)
        executor.submit(over.wait)
        kept.append(executor)

    with Watch(samples=3) as watch:
        for _ in range(3):
            handle_request()
            watch.sample()
        [growth] = told(watch, "executors")
        [threads] = told(watch, "threads")
    over.set()
    for executor in kept:
        executor.shutdown()
    assert (growth.what, growth.counts) == ("ThreadPoolExecutor", [1, 2, 3])
    assert all("handle_request at " in place for place in growth.where)
    assert threads.counts == [1, 2, 3]


def test_pools_of_goroutines_are_told_too():
    from gort.pool import WorkerPool

    kept = []
    with Watch(samples=3) as watch:
        for _ in range(3):
            kept.append(WorkerPool(1, 1))
            watch.sample()
        assert [g.what for g in told(watch, "executors")] == ["WorkerPool"]
    for pool in kept:
        pool.close()


def test_goroutines_that_get_more_are_told_with_who_started_them():
    ch = gort.Chan()

    def worker():
        ch.recv_ok()

    with Watch(samples=3) as watch:
        for _ in range(3):
            g = gort.go(worker)
            eventually(lambda g=g: g.status == "chan receive")
            watch.sample()
        [growth] = [g for g in told(watch, "goroutines") if "worker" in g.what]
    ch.close()
    assert growth.what.startswith("[chan receive] ")
    assert growth.counts == [1, 2, 3]
    assert all("started by test_goroutines_that_get_more" in place for place in growth.where)


class Service:
    def __init__(self, lock):
        self.lock = lock


@pytest.mark.parametrize("make", [gort.Mutex, gort.RWMutex, threading.Lock, threading.RLock])
def test_a_lock_that_is_never_released_is_told(make):
    service = Service(make())
    (getattr(service.lock, "acquire", None) or service.lock.lock)()
    with Watch(samples=3) as watch:
        for _ in range(3):
            watch.sample()
        named = {growth.what: growth for growth in told(watch, "lock")}
    assert "Service.lock" in named
    assert any("test_a_lock_that_is_never" in place for place in named["Service.lock"].where)


class Proxy:
    """An object that has no attributes outside of a request, as those of web frameworks."""

    __slots__ = ("held",)

    @property
    def __dict__(self):
        raise RuntimeError("working outside of a request")


def test_a_proxy_to_what_is_not_there_is_passed_over():
    proxy, service = Proxy(), Service(gort.Mutex())
    proxy.held = [service.lock]  # so that the collector knows it
    with service.lock, Watch(samples=3) as watch:
        for _ in range(3):
            watch.sample()
        assert "Service.lock" in {growth.what for growth in told(watch, "lock")}


def test_a_lock_that_is_released_between_is_not_told():
    service = Service(gort.Mutex())
    with Watch(samples=3) as watch:
        for _ in range(2):
            with service.lock:
                watch.sample()
        watch.sample()
        assert "Service.lock" not in {growth.what for growth in told(watch, "lock")}


def test_what_comes_and_goes_is_not_told(over):
    with Watch(samples=3) as watch:
        for n in (1, 3, 2, 3):
            batch_over = threading.Event()
            threads = [threading.Thread(target=batch_over.wait) for _ in range(n)]
            for thread in threads:
                thread.start()
            watch.sample()
            batch_over.set()
            for thread in threads:
                thread.join()
        assert not told(watch, "threads")


def test_too_few_samples_tell_nothing(over):
    with Watch(samples=3) as watch:
        for _ in range(2):
            threading.Thread(target=over.wait).start()
            watch.sample()
        assert watch.growing() == []


def test_a_goroutine_samples_and_calls(over):
    seen = []
    with Watch(samples=3, every=0.002, then=seen.append):

        def grows():
            threading.Thread(target=over.wait, daemon=True).start()
            gort.sleep(0.003)
            return any(growth.kind == "threads" for growths in seen for growth in growths)

        eventually(grows)


def test_stopping_puts_everything_back(over):
    before = threading.Thread.start, ThreadPoolExecutor.__init__
    watch = Watch()
    assert threading.Thread.start is not before[0]
    watch.stop()
    watch.stop()
    assert (threading.Thread.start, ThreadPoolExecutor.__init__) == before
    assert gort.leak.track(False) is False


def test_bad_arguments_are_refused():
    for bad in ({"samples": 1}, {"every": 0}, {"every": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            Watch(**bad)
