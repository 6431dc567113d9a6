"""gort.testing: waiting until all are parked, leaks, sequences, and the pytest plugin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading

import gort
import pytest
from gort.testing import LeakError, Sequencer, no_leaks, synctest, wait_all_parked
from waiting import hold

# wait_all_parked


def test_all_are_parked_when_it_returns(anywhere):
    def body():
        ch, steps = gort.Chan(), []

        def works(n):
            for _ in range(n):
                gort.gosched()
                steps.append(n)
            ch.recv_ok()

        gs = [gort.go(works, n) for n in (0, 5, 50)]
        wait_all_parked(timeout=20)
        assert (len(steps), {g.status for g in gs}) == (55, {"chan receive"})
        ch.close()
        wait_all_parked(timeout=20)
        assert all(g.done for g in gs)

    anywhere(body)


def test_one_in_a_call_is_waited_for():
    calls = []
    g = gort.go(lambda: (hold(0.05), calls.append("over"), gort.sleep(60)))
    wait_all_parked(timeout=20)
    assert (calls, g.status) == (["over"], "sleep")


def test_one_that_computes_is_not_parked():
    stop = []

    def computes():
        while not stop:
            pass

    g = gort.go(computes)
    with pytest.raises(TimeoutError, match=r"(?s)not all goroutines are parked.*goroutine \d+ \["):
        wait_all_parked(timeout=0.05)
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    gort.after_func(0.01, cancel)
    with pytest.raises(gort.context.ContextCanceled):
        wait_all_parked(ctx=ctx)
    stop.append(True)
    g.join()


def test_in_a_bubble_it_looks_at_the_bubble():
    outside = gort.go(lambda: [gort.gosched() for _ in iter(lambda: bool(stop), True)])
    stop = []

    def main():
        g = gort.go(gort.sleep, 10)
        wait_all_parked()
        assert g.status == "sleep"
        g.join()

    synctest.run(main)
    stop.append(True)
    outside.join()


# no_leaks


def test_goroutine_left_behind_is_shown_with_its_place():
    ch = gort.Chan()
    before = gort.go(ch.recv_ok)

    def deeper():
        ch.recv_ok()

    with pytest.raises(LeakError) as error, no_leaks(grace=0):
        g = gort.spawn(deeper, name="forgotten")
        wait_all_parked()
    text = str(error.value)
    assert text.startswith("1 goroutine was left behind\n")
    assert f"goroutine {g.id} (forgotten) [chan receive]" in text
    assert re.search(r'File ".*test_testing.py", line \d+, in deeper', text)
    assert f"goroutine {before.id} " not in text
    ch.close()


def test_goroutines_that_end_in_time_are_no_leak():
    with no_leaks():
        gort.go(gort.sleep, 0.01)
        gort.go(list)
    ch = gort.Chan()
    with pytest.raises(LeakError, match="3 goroutines were left behind"), no_leaks(grace=0.01):
        for _ in range(3):
            gort.go(ch.recv_ok)
    ch.close()


def test_exception_of_the_block_goes_first():
    ch = gort.Chan()
    with pytest.raises(KeyError), no_leaks(grace=0):
        gort.go(ch.recv_ok)
        raise KeyError
    ch.close()
    with pytest.raises(ValueError, match="grace must be"):
        no_leaks(grace=float("nan"))


def test_block_in_a_goroutine_is_not_its_own_leak():
    def body():
        with no_leaks(grace=0):
            pass
        return "fine"

    assert gort.go(body).join() == "fine"


# Sequencer


def test_blocks_run_in_their_order():
    seq, order = Sequencer(), []

    def step(n):
        with seq(n):
            gort.gosched()
            order.append(n)

    gs = [gort.go(step, n) for n in (4, 2, 0, 3, 1)]
    thread = threading.Thread(target=step, args=(5,))
    thread.start()
    for g in gs:
        g.join()
    thread.join()
    assert order == [0, 1, 2, 3, 4, 5]


def test_block_that_fails_breaks_the_order():
    seq = Sequencer()

    def fails():
        with seq(0):
            raise KeyError

    def waits():
        with seq(2):
            raise AssertionError

    later, first = gort.go(waits), gort.go(fails)
    with pytest.raises(KeyError):
        first.join()
    with pytest.raises(RuntimeError, match="block 2 cannot begin: one before it failed"):
        later.join()


def test_cancelled_wait_for_a_block_breaks_the_order():
    seq = Sequencer()

    def waits(n):
        with seq(n):
            raise AssertionError

    gs = [gort.go(waits, n) for n in (1, 2)]
    wait_all_parked()
    gs[0].cancel()
    with pytest.raises(gort.Cancelled):
        gs[0].join()
    with pytest.raises(RuntimeError, match="cannot begin"):
        gs[1].join()


def test_numbers_of_blocks_are_checked():
    seq = Sequencer()
    seq(0)
    with pytest.raises(RuntimeError, match="two blocks have the number 0"):
        seq(0)
    with pytest.raises(ValueError, match="numbered from 0"):
        seq(-1)


# The plugin


def run_pytest(folder, source, *options, **settings):
    """Run pytest in a child on one file; the result counts of its last line, and all it printed."""
    (folder / "test_it.py").write_text("import gort, pytest, time\n" + textwrap.dedent(source))
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    (folder / "pytest.ini").write_text(f"[pytest]\n{lines}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", *options],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"},
    )
    last = done.stdout.strip().splitlines()[-1]
    return {kind: int(n) for n, kind in re.findall(r"(\d+) ([a-z]+)", last)}, done.stdout


def test_marked_tests_run_in_a_bubble(tmp_path):
    counts, text = run_pytest(
        tmp_path,
        """
        @pytest.fixture
        def now(): return time.time()
        @pytest.mark.synctest
        @pytest.mark.parametrize("n", [1, 2])
        def test_marked(now, n, tmp_path):
            assert now > 1.7e9
            gort.sleep(3600 * n)
            assert time.time() == 946684800 + 3600 * n
        @pytest.mark.synctest
        class TestAll:
            def test_method(self, now): assert time.time() == 946684800
        @pytest.mark.synctest
        def test_fails():
            gort.sleep(1)
            assert time.time() == 5
        @pytest.mark.synctest
        def test_skips(): pytest.skip("no reason")
        @pytest.mark.synctest
        def test_leaves(): gort.go(gort.Chan().recv)
        def test_plain(): assert time.time() > 1.7e9
        """,
    )
    assert counts.items() >= {"passed": 4, "failed": 2, "skipped": 1}.items(), text
    assert "assert 946684801.0 == 5" in text
    assert "deadlock: main bubble goroutine has exited but blocked goroutines remain" in text


LEAKS = """
    ch = gort.Chan()
    def leaks(): gort.go(ch.recv)
    @pytest.mark.no_leaks(grace=0)
    def test_marked(): leaks()
    def test_fixture(no_leaks): pass
    def test_plain(): leaks()
"""


def test_marked_tests_leave_no_goroutine(tmp_path):
    counts, text = run_pytest(tmp_path, LEAKS)
    assert counts.items() >= {"passed": 3, "error": 1}.items(), text
    assert "LeakError: 1 goroutine was left behind" in text


def test_all_tests_can_be_looked_at(tmp_path):
    counts, text = run_pytest(tmp_path, LEAKS, gort_no_leaks="true")
    assert counts.items() >= {"passed": 3, "errors": 2}.items(), text


def test_plugin_starts_nothing(tmp_path):
    """It is loaded in every pytest of the environment: without a test of ours it costs an import."""
    counts, text = run_pytest(
        tmp_path,
        """
        import os
        def test_alone(): assert len(os.listdir("/proc/self/task")) == 1
        """,
        "-p",
        "no:timeout",
    )
    assert counts["passed"] == 1, text
