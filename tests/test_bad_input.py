"""Wrong input: every mistake gets an exception that says what to do, at the call that made it."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import gort
import pytest
from gort import Chan, Cond, Mutex, Semaphore, _supported, go, recv, select, send
from waiting import LIMIT, raises_text


def child(code, **env):
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("GORT_")}, **env},
    )


# callables


@pytest.mark.parametrize("wrong", [None, 1, "f", [], Chan()])
@pytest.mark.parametrize("start", [go, gort.spawn, gort.run], ids=["go", "spawn", "run"])
def test_not_callable_is_refused_at_the_call(start, wrong):
    before = gort.num_goroutine()
    with raises_text(TypeError, "callable"):
        start(wrong)
    assert gort.num_goroutine() == before


@pytest.mark.parametrize("start", [go, gort.spawn, gort.run], ids=["go", "spawn", "run"])
def test_no_argument_at_all_is_refused(start):
    with pytest.raises(TypeError):
        start()


@pytest.mark.parametrize(
    "options, text",
    [
        ({"args": 1}, "not iterable"),
        ({"kwargs": [1]}, "kwargs must be a dict"),
        ({"name": 1}, "name must be a str"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_spawn_with_wrong_options_is_refused(options, text):
    with raises_text(TypeError, text):
        gort.spawn(print, **options)


def test_go_with_wrong_arguments_fails_in_the_goroutine():
    with raises_text(TypeError, "argument"):
        go(lambda: None, 1, 2).join(timeout=LIMIT)


def test_run_inside_run_is_refused():
    with raises_text(RuntimeError, "run() is in progress"):
        gort.run(lambda: gort.run(print))
    assert gort.run(lambda: 5) == 5, "and the next one works"


def test_run_inside_a_goroutine_of_run_is_refused():
    def main():
        with raises_text(RuntimeError, "run() is in progress"):
            go(gort.run, print).join(timeout=LIMIT)

    gort.run(main)


def test_goroutine_cannot_join_itself():
    with raises_text(RuntimeError, "cannot join itself"):
        go(lambda: gort.current().join()).join(timeout=LIMIT)


# channels


@pytest.mark.parametrize("cap", [-1, -(2**63), -(2**80), 2**62, 2**63, 2**70])
def test_chan_of_impossible_size_is_a_value_error(cap):
    with raises_text(ValueError, "makechan: size out of range"):
        Chan(cap)


@pytest.mark.parametrize("cap", [1.0, "1", None, [], object()])
def test_chan_of_no_integer_size_is_a_type_error(cap):
    with raises_text(TypeError, "integer"):
        Chan(cap)


def test_chan_size_by_name_and_index():
    class Two:
        def __index__(self):
            return 2

    assert (Chan(cap=3).cap, Chan(Two()).cap, Chan(True).cap) == (3, 2, 1)


def test_chan_size_error_of_index_comes_out():
    class Bad:
        def __index__(self):
            raise LookupError("mine")

    with raises_text(LookupError, "mine"):
        Chan(Bad())


@pytest.mark.parametrize("args, kwargs", [((1, 2), {}), ((), {"size": 1}), ((1,), {"cap": 1})])
def test_chan_with_wrong_arguments_is_refused(args, kwargs):
    with pytest.raises(TypeError):
        Chan(*args, **kwargs)


def test_huge_chan_asks_for_no_memory():
    code = """
import resource, gort
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
ch = gort.Chan(1 << 58)
ch.send("kept")
print(ch.cap == 1 << 58, len(ch), ch.recv())
"""
    done = child(code, GORT_MAXPROCS="1")
    assert (done.returncode, done.stdout) == (0, "True 1 kept\n"), done.stderr


def test_refused_memory_is_a_memory_error_in_the_goroutine_that_asked():
    code = """
import resource, gort
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * 4096 + (96 << 20)
ch, other, refused = gort.Chan(1 << 40), gort.Chan(), []
def greedy(put):
    try:
        while True:
            put()
    except MemoryError:
        refused.append(len(ch))
gs = [gort.go(greedy, lambda: ch.send(None)), gort.go(greedy, lambda: ch.try_send(None)),
      gort.go(greedy, lambda: gort.select(gort.send(ch, None), gort.recv(other)))]
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for g in gs:
    g.join()
print(len(refused), len(set(refused)), len(ch) == refused[0], ch.recv(), other.try_send(1))
"""
    done = child(code, GORT_MAXPROCS="1")
    assert (done.returncode, done.stdout) == (0, "3 1 True None False\n"), done.stderr


def test_close_of_none_is_an_attribute_error():
    ch = None
    with raises_text(AttributeError, "close"):
        ch.close()
    with pytest.raises(TypeError):
        Chan.close(None)


@pytest.mark.parametrize(
    "call",
    [
        lambda ch: ch.send(),
        lambda ch: ch.send(1, 2, 3),
        lambda ch: ch.send(1, value=2),
        lambda ch: ch.send(1, nonsense=2),
        lambda ch: ch.recv(1, 2),
        lambda ch: ch.recv(nonsense=1),
        lambda ch: ch.recv_ok(1, timeout=1),
        lambda ch: ch.try_send(),
        lambda ch: ch.try_recv(1),
        lambda ch: ch.close(1),
        lambda ch: recv(),
        lambda ch: recv(ch, ch),
        lambda ch: send(ch),
        lambda ch: send(ch, 1, 2),
        lambda ch: send(ch=ch, value=1),
        lambda ch: ch._unrecv(1),
        lambda ch: ch._unrecv(1, "stamp"),
        lambda ch: ch._recv_until(None),
    ],
)
def test_wrong_number_or_names_of_arguments_is_a_type_error(call):
    ch = Chan(1)
    with pytest.raises(TypeError):
        call(ch)
    assert len(ch) == 0


# time-outs


TIMED = {
    "send": lambda t: Chan(1).send(1, timeout=t),
    "recv": lambda t: Chan().recv(timeout=t),
    "recv_ok": lambda t: Chan().recv_ok(timeout=t),
    "select": lambda t: select(recv(Chan()), timeout=t),
    "join": lambda t: go(Chan().recv).join(timeout=t),
    "lock": lambda t: Mutex().lock(timeout=t),
    "acquire": lambda t: Semaphore(1).acquire(timeout=t),
}


@pytest.mark.parametrize("what", [*TIMED, "sleep"])
@pytest.mark.parametrize("timeout", [-1, -0.001, float("-inf"), float("nan")])
def test_negative_or_nan_timeout_is_a_value_error(what, timeout):
    call = TIMED.get(what, gort.sleep)
    with raises_text(ValueError, "non-negative"):
        call(timeout)


@pytest.mark.parametrize("what", [*TIMED, "sleep"])
@pytest.mark.parametrize("timeout", ["1", [], object()])
def test_timeout_of_another_type_is_a_type_error(what, timeout):
    with pytest.raises(TypeError):
        TIMED.get(what, gort.sleep)(timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**30])
def test_endless_timeout_waits(timeout):
    ch = Chan()
    g = go(ch.recv, timeout)
    ch.send(1, timeout=LIMIT)
    assert g.join(timeout=LIMIT) == 1


# select


@pytest.mark.parametrize("foreign", [None, 1, "case", Chan(), (0, 1), print])
def test_select_with_foreign_objects_is_a_type_error(foreign):
    ch = Chan(1)
    with raises_text(TypeError, "gort.recv() and gort.send()"):
        select(send(ch, 1), foreign, default=True)
    assert len(ch) == 0, "nothing was sent"


@pytest.mark.parametrize("wrong", [1, "ch", [], object(), Mutex()])
def test_case_of_something_else_is_a_type_error(wrong):
    with raises_text(
        TypeError, f"gort.recv() needs a Chan, a RecvChan or None, not {type(wrong).__name__}"
    ):
        recv(wrong)
    with raises_text(
        TypeError, f"gort.send() needs a Chan, a SendChan or None, not {type(wrong).__name__}"
    ):
        send(wrong, 1)


def test_select_with_unknown_option_is_refused():
    with raises_text(TypeError, "nonsense"):
        select(recv(Chan()), nonsense=True)


def test_default_that_has_no_truth_comes_out():
    class Odd:
        def __bool__(self):
            raise LookupError("mine")

    with raises_text(LookupError, "mine"):
        select(recv(Chan()), default=Odd())


@pytest.mark.parametrize("kind", [gort.Case, gort.Goroutine])
def test_types_without_constructor_say_so(kind):
    with raises_text(TypeError, "cannot create"):
        kind()


@pytest.mark.parametrize("kind", [Chan, gort.Case, gort.Goroutine])
def test_final_types_cannot_be_subclassed(kind):
    with raises_text(TypeError, "not an acceptable base type"):
        type("Sub", (kind,), {})


# sync


@pytest.mark.parametrize("wrong", [None, 1, Chan()])
def test_cond_needs_a_lock(wrong):
    with pytest.raises(TypeError):
        Cond(wrong)


# after the end


AT_EXIT = """
import atexit, gort
full, empty = gort.Chan(1), gort.Chan()
full.send(1)
def late():
    for what, call in {
        "send": lambda: full.send(2), "recv": empty.recv, "next": lambda: next(empty),
        "select": lambda: gort.select(gort.recv(empty), gort.recv(None)),
        "go": lambda: gort.go(print, "ran"), "run": lambda: gort.run(print, "ran"),
        "sleep": lambda: gort.sleep(1),
    }.items():
        try:
            call()
        except gort.RuntimeStopped as error:
            print(what, isinstance(error, RuntimeError), "shutting down" in str(error))
    print("value", full.recv(), full.try_send(3), len(full))
atexit.register(late)
gort.go(empty.recv)
gort.gosched()
"""


def test_operations_that_would_wait_after_the_end_raise_runtime_stopped():
    done = child(AT_EXIT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = ["send", "recv", "next", "select", "go", "run", "sleep"]
    assert lines == [f"{what} True True" for what in names] + ["value 1 True 1"]
    assert done.stderr == ""


# environment and Python


@pytest.mark.parametrize("name", ["GORT_MAXPROC", "GORT_", "GORT_NONSENSE"])
def test_unknown_variable_is_an_import_error_that_names_it(name):
    done = child("import gort", **{name: "1"})
    assert done.returncode == 1
    assert f"ImportError: unknown environment variable {name}: unset it" in done.stderr
    assert "GORT_MAXPROCS" in done.stderr


@pytest.mark.parametrize(
    "name, value",
    [
        ("GORT_MAXPROCS", "0"),
        ("GORT_MAXPROCS", "-1"),
        ("GORT_MAXPROCS", "many"),
        ("GORT_MAXPROCS", "1000000"),
        ("GORT_MAXPROCS", ""),
        ("GORT_MAXTHREADS", "1"),
        ("GORT_STACK", "1"),
        ("GORT_STACK", "99999999999999999999"),
        ("GORT_SEED", "x"),
        ("GORT_SLICE", "0"),
        ("GORT_SLICE", "101"),
    ],
)
def test_variable_out_of_range_is_a_value_error_that_names_it(name, value):
    done = child("import gort\ngort.go(print)", **{name: value})
    assert done.returncode == 1
    assert f"ValueError: {name}={value}: an integer from" in done.stderr


def test_unknown_policy_is_a_value_error_that_names_those_there_are():
    done = child("import gort\ngort.go(print)", GORT_POLICY="cfs")
    assert done.returncode == 1
    assert "ValueError: GORT_POLICY=cfs: one of fifo, mlfq, fair is expected" in done.stderr


def test_unknown_panic_mode_is_an_import_error():
    done = child("import gort", GORT_PANIC="loudly")
    assert done.returncode == 1
    assert "ImportError: GORT_PANIC must be report (the default) or exit" in done.stderr


def test_known_variables_are_accepted():
    done = child(
        "import gort; print(gort.go(len, 'ab').join(), gort.gomaxprocs())",
        GORT_MAXPROCS="2",
        GORT_SEED="5",
        GORT_SLICE="100",
        GORT_PANIC="report",
    )
    assert (done.returncode, done.stdout) == (0, "2 2\n")


def fake_sys(monkeypatch, name="cpython", version=(3, 12, 0), abiflags=""):
    fake = SimpleNamespace(
        implementation=SimpleNamespace(name=name), version_info=version, abiflags=abiflags
    )
    monkeypatch.setattr(_supported, "sys", fake)


@pytest.mark.parametrize(
    "build, words",
    [
        ({"version": (3, 10, 4)}, ["CPython 3.11 or newer", "cpython 3.10"]),
        ({"version": (2, 7, 18)}, ["CPython 3.11 or newer", "2.7"]),
        ({"name": "pypy"}, ["CPython 3.11 or newer", "pypy 3.12"]),
        ({"abiflags": "t", "version": (3, 14, 0)}, ["free-threaded", "python3.14t", "python3.14."]),
        ({"abiflags": "td", "version": (3, 13, 0)}, ["free-threaded", "python3.13"]),
    ],
)
def test_unsupported_build_is_told_what_to_use(monkeypatch, build, words):
    fake_sys(monkeypatch, **build)
    complaint = _supported.complaint()
    assert all(word in complaint for word in words), complaint


@pytest.mark.parametrize("minor", [11, 12, 13, 14, 15])
def test_supported_builds_get_no_complaint(monkeypatch, minor):
    fake_sys(monkeypatch, version=(3, minor, 0))
    for name in [n for n in os.environ if n.startswith("GORT_")]:
        monkeypatch.delenv(name)
    assert _supported.complaint() == ""


def test_complaint_stops_the_import():
    code = "import sys, types\nsys.implementation.name = 'otherpython'\nimport gort"
    done = child(code)
    assert done.returncode == 1
    assert "ImportError: gort needs CPython 3.11 or newer; this is otherpython" in done.stderr
