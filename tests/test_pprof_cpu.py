"""The CPU profile: what uses CPU time is in it, by stack and labels; what waits is not."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time

import gort
import gort.labels
import gort.pprof
import pytest
from children import check
from pprofs import pprof, read
from waiting import waiter

#: CPU time that is used for a test, seconds: some dozens of samples.
USED = 0.6


def burns(seconds=USED):
    """Use so much CPU time of the process: a goroutine may change its thread."""
    end = time.process_time() + seconds
    n = 0
    while time.process_time() < end:
        n += 1
    return n


def burns_in_c(seconds=USED):
    """The same in calls that keep the interpreter's lock."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(100_000))


def burns_outside(seconds=USED):
    """The same in calls that let go of it."""
    data = bytes(4 << 20)
    end = time.process_time() + seconds
    while time.process_time() < end:
        hashlib.sha256(data).digest()


def taken(work, *args):
    """The profile of a call."""
    file = io.BytesIO()
    gort.pprof.start_cpu_profile(file)
    try:
        work(*args)
    finally:
        gort.pprof.stop_cpu_profile()
    return read(file.getvalue())


def counts(n):
    """Use CPU time in proportion to `n`."""
    for _ in range(n):
        pass


def of(profile, name):
    """CPU time of the stacks with this function, seconds."""
    return sum(values[1] for _, values, _ in profile.of(name)) / 1e9


def test_it_has_gos_kinds_and_covers_its_time():
    used = []

    def work():
        begun = time.time_ns()  # the clock that a profile goes by
        burns()
        used.append(time.time_ns() - begun)

    profile = taken(work)
    assert profile.kinds == [("samples", "count"), ("cpu", "nanoseconds")]
    assert profile.period == (("cpu", "nanoseconds"), 10_000_000)
    assert profile.duration >= used[0]
    assert all(values[1] == values[0] * 10_000_000 for _, values, _ in profile.samples)


def test_nothing_that_was_used_is_lost():
    """However late looks and notes are: what is owed when the profile ends is noted then."""
    file = io.BytesIO()
    begun = time.process_time()
    gort.pprof.start_cpu_profile(file)
    begun_late = time.process_time()
    with gort.threads.real():
        t = threading.Thread(target=burns_outside)
        t.start()
    burns()
    t.join()
    end = time.process_time()
    threads = len(os.listdir("/proc/self/task"))
    gort.pprof.stop_cpu_profile()
    total = sum(values[1] for _, values, _ in read(file.getvalue()).samples) / 1e9
    # Of each thread less than a sample is left, or was owed before: that is a matter of chance.
    # The sampler's own time is not in it.
    rest = 0.01 * (threads + 2)
    assert (end - begun_late) * 0.97 - rest <= total <= time.process_time() - begun + rest


@pytest.mark.parametrize("work", [burns, burns_in_c, burns_outside])
def test_what_uses_cpu_time_is_in_it(work):
    profile = taken(work)
    # Time is counted by the kernel, however late samples are taken; those that are owed at the end
    # count for who ends the profile, which is much where the machine has much else to do.
    assert USED * 0.1 < of(profile, work.__name__) < USED * 1.5
    [stack, *_] = [stack for stack, _, _ in profile.of(work.__name__)]
    assert stack[0].endswith(f".{work.__name__}") and any("taken" in name for name in stack)


def test_goroutines_have_their_labels_and_parts():
    def both():
        with gort.labels.do(part="large"):
            large = gort.go(counts, 20_000_000)
        with gort.labels.do(part="small"):
            small = gort.go(counts, 5_000_000)
        large.join()
        small.join()

    profile = taken(both)
    times = {"large": 0.0, "small": 0.0}
    for _, values, labels in profile.of("counts"):
        times[labels["part"]] += values[1] / 1e9
    assert times["large"] > times["small"] > 0


def test_who_waits_is_not_in_it():
    def receiver(ch):
        ch.recv()

    ch = gort.Chan()
    g = waiter(receiver, ch)
    with gort.threads.real():
        event = threading.Event()
        t = threading.Thread(target=event.wait)
        t.start()
    profile = taken(burns, USED / 2)
    assert profile.of("burns") and not profile.of("receiver") and not profile.of("Event.wait")
    event.set()
    t.join()
    ch.close()
    with pytest.raises(gort.ChanClosed):
        g.join()


def test_plain_threads_are_in_it():
    def work():
        with gort.threads.real():
            t = threading.Thread(target=burns, args=(USED,), name="burner")
            t.start()
        t.join()

    assert of(taken(work), "burns") > USED / 10


@pytest.mark.parametrize("first", [True, False])
def test_thread_that_cannot_be_looked_for_is_not_owed_what_it_used_before(first):
    """A process without descriptors cannot read /proc; at the profile's beginning, or meanwhile."""
    check(
        f"""
        import gort, gort.pprof, io, resource, threading, time
        from pprofs import read
        from test_pprof_cpu import burns
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        begun, end = threading.Event(), threading.Event()
        def old():
            burns(1)
            begun.set()
            end.wait()
        def main():
            with gort.threads.real():
                thread = threading.Thread(target=old)
                thread.start()
            begun.wait()
            file, since = io.BytesIO(), time.process_time()
            if {first}:
                resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            gort.pprof.start_cpu_profile(file)
            burns(0.2)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            burns()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            burns()
            gort.pprof.stop_cpu_profile()
            used = time.process_time() - since
            end.set()
            thread.join()
            total = sum(values[1] for _, values, _ in read(file.getvalue()).samples) / 1e9
            assert 1 < total < used + 0.2, (total, used)
            print("ok")
        gort.run(main)
        """,
        "ok",
    )


def test_one_at_a_time():
    file, other = io.BytesIO(), io.BytesIO()
    gort.pprof.start_cpu_profile(file)
    with pytest.raises(RuntimeError, match="^cpu profiling already in use$"):
        gort.pprof.start_cpu_profile(other)
    gort.pprof.stop_cpu_profile()
    gort.pprof.stop_cpu_profile()
    assert other.getvalue() == b"" and read(file.getvalue()).period[1] == 10_000_000
    with pytest.raises(TypeError, match="needs a file"):
        gort.pprof.start_cpu_profile("name")


def test_file_that_refuses_ends_the_profile_all_the_same():
    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(28, "No space left on device")

    gort.pprof.start_cpu_profile(Full())
    with pytest.raises(OSError, match="No space"):
        gort.pprof.stop_cpu_profile()
    gort.pprof.start_cpu_profile(io.BytesIO())
    gort.pprof.stop_cpu_profile()


def test_many_goroutines_end_and_begin_meanwhile():
    def work():
        for _ in range(40):
            gs = [gort.go(burns, 0.0005) for _ in range(20)]
            for g in gs:
                g.join()

    profile = taken(work)
    assert profile.of("burns")


def test_there_is_no_thread_for_it_but_while_it_is_taken():
    def names():
        found = []
        for thread in os.listdir("/proc/self/task"):
            try:
                found.append(open(f"/proc/self/task/{thread}/comm").read().strip())
            except OSError:
                pass
        return found

    from waiting import eventually

    eventually(lambda: "gort-sampler" not in names(), what="no sampler")
    gort.pprof.start_cpu_profile(io.BytesIO())
    eventually(lambda: "gort-sampler" in names(), what="a sampler")
    gort.pprof.stop_cpu_profile()
    eventually(lambda: "gort-sampler" not in names(), what="its end")


def test_forked_child_takes_its_own():
    check(
        """
        import gort, gort.pprof, io, os
        from test_pprof_cpu import taken, burns
        def main():
            gort.pprof.start_cpu_profile(io.BytesIO())
            burns(0.1)
            pid = os.fork()
            if pid == 0:
                gort.pprof.stop_cpu_profile()  # the parent's
                assert taken(burns, 0.3).of("burns")
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            gort.pprof.stop_cpu_profile()
            print("ok")
        gort.run(main)
        """,
        "ok",
        PYTHONWARNINGS="ignore::DeprecationWarning",  # 3.12 and later on fork beside threads
    )


@pytest.mark.parametrize("wait", ["pass", "burns(0.1)", "gort.sleep(0.05)"])
def test_program_that_ends_with_a_profile_begun_ends(wait):
    check(
        f"""
        import gort, gort.pprof, io, threading
        from test_pprof_cpu import burns
        def main():
            gort.pprof.start_cpu_profile(io.BytesIO())
            g = gort.go(burns, 50)
            {wait}
        gort.run(main)
        """
    )


def test_deadlock_is_found_while_it_is_taken():
    check(
        """
        import gort, gort.pprof, io
        gort.pprof.start_cpu_profile(io.BytesIO())
        try:
            gort.Chan().recv()
        except gort.DeadlockError:
            print("deadlock")
        gort.pprof.stop_cpu_profile()
        """,
        "deadlock",
    )


@pytest.mark.timeout(300)
def test_go_tool_pprof_reads_it(tmp_path):
    file = io.BytesIO()
    gort.pprof.start_cpu_profile(file)
    burns()
    gort.pprof.stop_cpu_profile()
    path = tmp_path / "cpu"
    path.write_bytes(file.getvalue())
    text = pprof("-top", path, tmp_path=tmp_path)
    assert "Type: cpu" in text and f"{__name__}.burns" in text
    assert "Samples:\nsamples/count cpu/nanoseconds" in pprof("-raw", path, tmp_path=tmp_path)
