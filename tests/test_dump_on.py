"""gort.dump_on and GORT_SIGQUIT: a signal has every goroutine written to stderr."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import gort
import pytest
from children import HERE, LIMIT, child, shared_library
from waiting import eventually

#: Before a program: goroutines that wait, and who tells when it is ready.
HEADER = """
import ctypes, gort, gort.labels, os, signal, sys, time
from waiting import parked
def waits_here(ch): ch.recv()
def ready(): print("ready", flush=True)
def waiters():
    with gort.labels.do(user='"7"', kind="x"):
        named = gort.spawn(waits_here, (gort.Chan(),), name="worker\\n1")
    gs = [named, gort.go(gort.sleep, 3600)]
    parked(*gs)
"""


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def none_left():
    """No program outlives its test."""
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


def program(code: str, **env: str) -> subprocess.Popen[str]:
    """Start a program, give it once it has printed `ready`."""
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH", ""))))
    process = subprocess.Popen(
        [sys.executable, "-c", HEADER + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **env},
        cwd="/",
    )
    _started.append(process)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", line + process.communicate(timeout=LIMIT)[1]
    return process


#: nanosleep and clock_nanosleep, on x86-64 and AArch64.
SLEEPS = ("35", "230", "101", "115")


def sleeps(process: subprocess.Popen[str]) -> bool:
    """Whether a thread of the program is in a call that sleeps."""
    found = []
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found.append((thread / "syscall").read_text().split()[0])
    return any(number in SLEEPS for number in found)


def quit_of(code: str, *, in_call: bool = False) -> str:
    """What a program writes that gets SIGQUIT once it is ready, and ends by it."""
    process = program(code, GORT_SIGQUIT="exit")
    if in_call:
        eventually(lambda: sleeps(process), what="a call that sleeps")
    process.send_signal(signal.SIGQUIT)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, (process.returncode, out, err)
    return err


#: It may still be in that call.
READY = r"(?:__main__\.ready\(\.\.\.\)\n.*\n)?"
WAITERS = re.compile(
    r'goroutine \d+ \[chan receive, name "worker\\n1" labels:\{"kind": "x", "user": "\\"7\\""\}\]:\n'
    r"__main__\.waits_here\(\.\.\.\)\n\t<string>:\d+ \+0x[0-9a-f]+\n"
    r"created by waiters in goroutine 1\n\t<string>:\d+\n\n"
    r"goroutine \d+ \[sleep\]:\n"
)


def test_while_everything_waits():
    err = quit_of(
        """
        waiters()
        def tells():
            while "goroutine 1 [chan receive]" not in gort.dump(): gort.gosched()
            ready()
        def main_waits(ch): ch.recv()
        gort.go(tells)
        main_waits(gort.Chan())
        """
    )
    assert err.startswith(
        "SIGQUIT: quit\n\ngoroutine 1 [chan receive]:\n__main__.main_waits(...)\n"
    )
    assert WAITERS.search(err), err


@pytest.mark.parametrize("who", ["spins()", "gort.go(spins).join()"])
def test_while_one_spins_in_python(who):
    err = quit_of(
        f"""
        waiters()
        def spins():
            ready()
            while True: pass
        {who}
        """
    )
    # Runnable: it was made to let others run.
    assert re.search(
        rf"goroutine \d+ \[(running|runnable|syscall)\]:\n{READY}__main__\.spins\(\.\.\.\)\n", err
    ), err
    assert WAITERS.search(err), err


def test_before_anything_is_started():
    err = quit_of(
        """
        def alone():
            ready()
            while True: pass
        alone()
        """
    )
    head = r"SIGQUIT: quit\n\ngoroutine 1 \[(running|syscall)\]:\n"
    assert re.match(rf"{head}{READY}__main__\.alone\(", err), err


@pytest.mark.parametrize("who", ["stuck()", "gort.go(stuck).join()"])
def test_while_one_is_stuck_in_a_call_that_keeps_the_interpreters_lock(who, tmp_path):
    # No signal ends it, as it would a lone usleep.
    source = "#include <unistd.h>\nvoid sleep_on(void) { for (;;) usleep(1000000); }"
    library = shared_library(tmp_path / "sleep_on.so", source)
    err = quit_of(
        f"""
        waiters()
        sleep_on = ctypes.PyDLL({library!r}).sleep_on
        def stuck():
            ready()
            sleep_on()
        {who}
        """,
        in_call=True,
    )
    head, *parts = err.rstrip("\n").split("\n\n")
    assert re.fullmatch(
        r"SIGQUIT: quit\nthe interpreter's lock was not to be had for \d+ ms: no Python frames",
        head,
    )
    running = "running, has the interpreter's lock or waits for it"
    words = sorted(re.fullmatch(r"goroutine \d+ \[(.*)\]:", part)[1] for part in parts)
    joins = ["join"] if "go" in who else []
    assert words == sorted(["chan receive", "sleep", running, *joins]), err


def test_while_main_is_in_a_call_that_lets_go_of_it():
    err = quit_of(
        """
        waiters()
        usleep = ctypes.CDLL(None).usleep
        def main_calls():
            ready()
            while True: usleep(60_000_000)
        main_calls()
        """,
        in_call=True,
    )
    assert re.search(
        r"goroutine 1 \[(syscall|running)\]:\n__main__\.main_calls\(\.\.\.\)\n", err
    ), err
    assert WAITERS.search(err), err


def test_program_goes_on_where_it_is_not_to_end():
    process = program(
        """
        waiters()
        gort.dump_on(signal.SIGUSR1)
        ready()
        gort.Chan().recv()
        """,
        GORT_SIGQUIT="dump",
    )
    assert process.stderr is not None
    for number, title in ((signal.SIGQUIT, "SIGQUIT: quit"), (signal.SIGUSR1, "SIGUSR1: user")):
        process.send_signal(number)
        text = ""
        while not WAITERS.search(text):
            line = process.stderr.readline()
            assert line, text
            text += line
        assert title in text


def test_dump_is_that_of_gort_dump():
    process = program(
        """
        waiters()
        gort.dump_on(signal.SIGUSR2, exits=True)
        def main_waits(ch): ch.recv()
        def tells():
            while "goroutine 1 [chan receive]" not in gort.dump(): gort.gosched()
            print(gort.dump(), "====", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGUSR2)
            gort.Chan().recv()
        gort.go(tells)
        ready()
        main_waits(gort.Chan())
        """
    )
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, (out, err)

    def parts(text):
        found = dict(re.findall(r"goroutine (\d+) (\[.*?)(?=\n\ngoroutine|\Z)", text, re.S))
        return {ident: part.strip() for ident, part in found.items() if "tells" not in part}

    asked, of_signal = err.split("====")
    assert parts(asked) == parts(of_signal) and len(parts(asked)) == 3, err


def test_signal_of_a_forked_child_is_heard():
    done = child(
        """
        import gort, os, signal
        gort.dump_on(signal.SIGQUIT, exits=True)
        pid = os.fork()
        if pid == 0:
            def in_child():
                os.kill(os.getpid(), signal.SIGQUIT)
                while True: pass
            in_child()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",  # 3.12 and later on fork beside threads
    )
    assert done.stdout == "2\n", done.stderr
    assert "__main__.in_child(...)" in done.stderr


def test_another_handler_ends_it():
    done = child(
        """
        import gort, os, signal
        gort.dump_on(signal.SIGQUIT, exits=True)
        signal.signal(signal.SIGQUIT, lambda *_: print("mine"))
        os.kill(os.getpid(), signal.SIGQUIT)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("mine\n", "", 0)


def test_many_signals_are_one_dump_or_more_and_no_harm():
    done = child(
        """
        import gort, os, signal
        gort.dump_on(signal.SIGUSR1)
        for i in range(300): os.kill(os.getpid(), signal.SIGUSR1); gort.go(gort.gosched)
        gort.dump_on(signal.SIGUSR1, exits=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        gort.sleep(1000)  # not a deadlock, which would end it as well
        """
    )
    assert done.returncode == 2
    assert 1 <= done.stderr.count("SIGUSR1: user-defined signal 1\n") <= 301


def test_bad_signals_are_told():
    for number in (0, -1, 65, signal.SIGSEGV, signal.SIGKILL):
        with pytest.raises(ValueError, match=rf"signal {int(number)} cannot ask for a dump"):
            gort.dump_on(number)
    with pytest.raises(TypeError):
        gort.dump_on("SIGQUIT")
    assert "GORT_SIGQUIT must be dump" in child("import gort", GORT_SIGQUIT="loudly").stderr


def test_nothing_is_changed_unless_asked():
    begun = time.monotonic()
    process = program("ready()\ngort.go(gort.sleep, 60).join()")
    process.send_signal(signal.SIGQUIT)
    process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGQUIT and time.monotonic() - begun < LIMIT
