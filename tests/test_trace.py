"""Execution traces: Go's reader takes them, whatever goroutines did and whenever they begin."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import gort
import gort.trace
import pytest
import traces
from children import check
from waiting import parked

PROGRAMS = Path(__file__).with_name("trace_programs.py")
SECOND = 1_000_000_000


def traced(name, path, period_ns=SECOND, stacks=True, **env):
    """Run a program with its trace at `path`; hold that to the rules."""
    command = [sys.executable, "-W", "error", str(PROGRAMS), name, str(path), str(period_ns)]
    done = subprocess.run(
        [*command, str(stacks)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **env},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4000:]


def held(path):
    """The trace at `path`, which Go's tool has read, too."""
    return traces.read(Path(path).read_bytes())


needs_go = pytest.mark.skipif(traces.go() is None, reason="no Go here: its reader was not asked")


def test_everything_goroutines_do(tmp_path):
    traced("everything", tmp_path / "t")
    trace = held(tmp_path / "t")
    assert trace.reasons() >= {
        "chan receive", "chan send", "select", "sleep", "sync.Mutex.Lock", "lock", "join",
        "preempted", "runtime.Gosched",
    }  # fmt: skip
    for name in (
        "ProcsChange", "ProcStart", "ProcStop", "ProcSteal", "GoSyscallBegin", "GoSyscallEndBlocked",
        "STWBegin", "STWEnd", "GCBegin", "GCEnd", "HeapAlloc", "UserTaskBegin", "UserTaskEnd", "UserRegionBegin",
        "UserRegionEnd", "UserLog", "GoLabel",
    ):  # fmt: skip
        assert trace.counts[name] > 0, name
    assert {event.args[0] for event in trace.of("ProcsChange")} == {1, 3}
    assert trace.counts["GoCreate"] - trace.counts["GoDestroy"] <= 2
    names = set(trace.names().values())
    assert {"main", "threading.Thread", "__main__.doubles", "__main__.burns"} <= names
    blocked = [event for event in trace.of("GoBlock") if event.texts[0] == "chan send"]
    assert any(event.stack[0][:2] == ("__main__.doubles", str(PROGRAMS)) for event in blocked)
    assert {event.texts[0] for event in trace.of("GoLabel")} == {"handler=/pay", ""}


@pytest.mark.parametrize("stacks", [True, False])
def test_many_generations(tmp_path, stacks):
    traced("everything", tmp_path / "t", 2_000_000, stacks)
    assert held(tmp_path / "t").generations > 20


@pytest.mark.parametrize(
    "env", [{"GORT_BOUNDARY": "0"}, {"GORT_SEED": "7"}, {"GORT_POLICY": "fair"}]
)
def test_it_is_right_in_other_modes(tmp_path, env):
    traced("middle", tmp_path / "t", 5_000_000, **env)
    held(tmp_path / "t")


@pytest.mark.parametrize("period_ns", [SECOND, 3_000_000])
def test_goroutines_in_every_state_at_its_start(tmp_path, period_ns):
    traced("middle", tmp_path / "t", period_ns)
    trace = held(tmp_path / "t")
    # What others did before the file was there is in a generation that is not in it.
    begun = min(event.generation for event in trace.events)
    first = [event for event in trace.events if event.generation == begun]
    states = [e.args[2] for e in first if e.name in ("GoStatus", "GoStatusStack")]
    assert states.count(traces.WAITING) == 6
    assert states.count(traces.RUNNABLE) >= 1
    # One of those that compute may have been left without a P, too.
    assert states.count(traces.RUNNING) <= 1 and states.count(traces.SYSCALL) >= 1


def test_many_goroutines(tmp_path):
    traced("fewer", tmp_path / "t", 20_000_000)
    trace = held(tmp_path / "t")
    assert trace.counts["GoCreate"] == 2500 and trace.counts["GoDestroy"] == 5000


@needs_go
def test_a_hundred_thousand_goroutines(tmp_path):
    traced("many", tmp_path / "t")
    assert traces.refused_by_go(tmp_path / "t") == ""


def test_one_after_another(tmp_path):
    traced("again", tmp_path / "t")
    for i in range(5):
        assert held(tmp_path / f"t{i}").counts["GoCreate"] >= 4


def test_a_file_of_the_systems_is_written_where_it_is(tmp_path):
    with (tmp_path / "t").open("wb") as file:
        file.write(b"before")
        with gort.trace.to(file):
            gort.go(int).join()
        file.seek(0, io.SEEK_END)
        file.write(b"after")
    data = (tmp_path / "t").read_bytes()
    trace = traces.read(data.removeprefix(b"before").removesuffix(b"after"))
    assert trace.counts["GoCreate"] == trace.counts["GoDestroy"] == 1


def test_another_file_is_written_by_a_goroutine():
    file = io.BytesIO()
    with gort.trace.to(file):
        gort.go(int).join()
    assert traces.read(file.getvalue()).counts["GoDestroy"] >= 1
    assert not gort.trace.is_enabled()


def test_one_at_a_time(tmp_path):
    gort.trace.stop()  # nothing to stop
    with gort.trace.to(io.BytesIO()):
        assert gort.trace.is_enabled()
        with pytest.raises(RuntimeError, match="tracing is already enabled"):
            gort.trace.start(tmp_path / "t")
    assert not gort.trace.is_enabled()


def test_what_is_no_file(tmp_path):
    for wrong in (None, 7, object()):
        with pytest.raises(TypeError, match="needs a path or a file"):
            gort.trace.start(wrong)
    with pytest.raises(TypeError, match="open for bytes"):
        gort.trace.start(io.StringIO())
    with pytest.raises(FileNotFoundError):
        gort.trace.start(tmp_path / "no" / "such")
    assert not gort.trace.is_enabled()


def test_a_full_disk_is_told_at_the_end_and_disturbs_nothing():
    gort.trace.start("/dev/full")
    assert gort.go(sum, [1, 2]).join() == 3
    with pytest.raises(OSError) as raised:
        gort.trace.stop()
    assert raised.value.errno == errno.ENOSPC
    with gort.trace.to(io.BytesIO()):
        pass


def test_a_write_that_raises_is_told_at_the_end():
    class Bad:
        def write(self, data):
            raise ValueError("no")

    gort.trace.start(Bad())
    assert gort.go(sum, [1, 2]).join() == 3
    with pytest.raises(ValueError, match="^no$"):
        gort.trace.stop()


def test_labels_and_words_that_are_no_texts():
    for wrong in (lambda: gort.trace.Task(7), lambda: gort.trace.Region(None)):
        with pytest.raises(TypeError, match="takes a str"):
            wrong()
    with pytest.raises(TypeError, match="takes a str"):
        gort.trace.log("a", b"b")
    file = io.BytesIO()
    with gort.trace.to(file):
        gort.trace.log("\ud800", "x" * 5000)
    assert traces.read(file.getvalue()).of("UserLog")[0].texts == ("?", "x" * 1024)


def test_tasks_are_parts_of_tasks():
    file = io.BytesIO()
    with gort.trace.to(file), gort.trace.Task("outer"):
        gort.go(lambda: gort.trace.Task("inner").end()).join()
        with gort.trace.Region("r"):
            gort.trace.log("k", "v")
    trace = traces.read(file.getvalue())
    outer, inner = trace.of("UserTaskBegin")
    assert (outer.texts, inner.texts) == (("outer",), ("inner",))
    assert inner.args[1] == outer.args[0] == trace.of("UserLog")[0].args[0]
    assert trace.of("UserRegionEnd")[0].texts == ("r",)
    assert trace.counts["UserTaskEnd"] == 2


def test_a_trace_that_begins_in_regions_and_tasks():
    file = io.BytesIO()
    with gort.trace.Task("t"), gort.trace.Region("a"), gort.trace.Region("b"):
        gort.trace.start(file)
    gort.trace.stop()
    assert traces.read(file.getvalue()).counts["UserRegionEnd"] == 2


def test_a_recorder_keeps_what_was_last(tmp_path):
    recorder = gort.trace.FlightRecorder(min_age=0.02, max_bytes=1 << 20)
    recorder._start(1_000_000)
    with recorder._writing, pytest.raises(RuntimeError, match="already in progress"):
        recorder.write_to(io.BytesIO())
    for i in range(300):
        gort.trace.log("turn", str(i))
        gort.sleep(0.0005)
    with (tmp_path / "t").open("wb") as file:
        assert recorder.write_to(file) == file.tell()
    recorder.stop()
    recorder.stop()
    turns = [int(event.texts[1]) for event in held(tmp_path / "t").of("UserLog")]
    assert turns == list(range(turns[0], 300)) and turns[0] > 0
    with pytest.raises(RuntimeError, match="cannot snapshot a disabled flight recorder"):
        recorder.write_to(io.BytesIO())


def test_a_recorder_beside_a_trace():
    file, kept = io.BytesIO(), io.BytesIO()
    with gort.trace.FlightRecorder() as recorder:
        with pytest.raises(RuntimeError, match="cannot enable a enabled flight recorder"):
            recorder.start()
        with pytest.raises(RuntimeError, match="flight recorder already enabled"):
            gort.trace.FlightRecorder().start()
        waits = gort.go(gort.Chan().recv)
        parked(waits)
        with gort.trace.to(file):
            gort.trace.log("in", "both")
        gort.trace.log("in", "one")
        recorder.write_to(kept)
        recorder.write_to(kept := io.BytesIO())
        waits.cancel()
    assert [event.texts[1] for event in traces.read(file.getvalue()).of("UserLog")] == ["both"]
    assert [event.texts[1] for event in traces.read(kept.getvalue()).of("UserLog")] == [
        "both",
        "one",
    ]
    assert not gort.trace.is_enabled()
    with pytest.raises(ValueError, match="must not be negative"):
        gort.trace.FlightRecorder(min_age=-1)


def test_a_recorder_keeps_no_more_bytes_than_it_may():
    with gort.trace.FlightRecorder(min_age=1000, max_bytes=20_000) as recorder:
        recorder.stop()
        recorder._start(1_000_000)
        for _ in range(200):
            gort.trace.log("much", "x" * 1000)
            gort.sleep(0.0005)
        file = io.BytesIO()
        assert recorder.write_to(file) < 60_000
    traces.read(file.getvalue())


def test_traces_of_a_forked_child_are_its_own(tmp_path):
    check(
        f"""
        import gort, gort.trace, os, traces, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # threads about: that is meant
        gort.trace.start("{tmp_path}/parent")
        gort.go(int).join()
        with gort.trace._lock:  # as if another goroutine were about to stop it
            child = os.fork()
        if child == 0:
            assert not gort.trace.is_enabled()
            gort.trace.stop()
            gort.trace.start("{tmp_path}/child")
            gort.go(int).join()
            gort.trace.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        gort.trace.stop()
        for name in ("parent", "child"):
            trace = traces.read(open("{tmp_path}/" + name, "rb").read())
            assert trace.counts["GoDestroy"] == 1, trace.counts
        """
    )


def test_a_program_may_end_in_the_middle(tmp_path):
    check(
        f"""
        import gort, gort.trace
        recorder = gort.trace.FlightRecorder()
        recorder.start()
        gort.trace.start("{tmp_path}/t")
        gort.go(gort.Chan().recv)
        gort.go(int).join()
        """
    )
    (tmp_path / "t").unlink()  # it breaks off


def test_many_ask_for_it_at_once(tmp_path):
    check(
        f"""
        import gort, gort.trace, io, threading
        def turns(i):
            for j in range(10):
                try:
                    gort.trace.start("{tmp_path}/%d" % i)
                except RuntimeError:
                    gort.sleep(0.001)
                else:
                    gort.trace.stop()
        def records():
            for j in range(10):
                recorder = gort.trace.FlightRecorder()
                recorder.start()
                recorder.write_to(io.BytesIO())
                recorder.stop()
        some = [gort.go(turns, i) for i in range(4)] + [gort.go(records)]
        threads = [threading.Thread(target=turns, args=(9,))]
        [t.start() for t in threads]
        [g.join() for g in some]
        [t.join() for t in threads]
        assert not gort.trace.is_enabled()
        """
    )
