"""How programs end: each in a child process."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from children import check, child, shared_library

HEADER = "import atexit, gort, os, signal, sys, threading, time\nfrom gort import go, Chan\n"


@pytest.mark.parametrize(
    "body",
    [
        "gs = [go(Chan().recv) for _ in range(100)]; gort.sleep(0.01)",
        "gs = [go(print, i) for i in range(10)] and None",
        "go(lambda: [gort.gosched() for _ in iter(int, 1)]); gort.sleep(0.01)",
        "gort.run(lambda: [go(gort.sleep, 60) for _ in range(10)] and gort.gosched())",
    ],
)
def test_program_ends_with_main(body):
    done = child(HEADER + body)
    assert (done.returncode, done.stderr) == (0, "")


def test_deadlock_is_an_error_with_a_dump():
    done = child(HEADER + "g = go(Chan().recv)\nChan().recv()")
    assert done.returncode == 1
    assert "DeadlockError: all goroutines are asleep - deadlock!" in done.stderr
    assert "[chan receive]" in done.stderr


def test_no_deadlock_while_a_thread_can_send():
    done = child(
        HEADER + "ch = Chan()\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), ch.send(4))).start()\nprint(ch.recv())"
    )
    assert (done.returncode, done.stdout) == (0, "4\n")


def test_unjoined_exception_is_printed_once_and_the_program_goes_on():
    done = child(
        HEADER + "go(lambda: 1 / 0)\nwhile gort.num_goroutine() > 1: gort.gosched()\nprint('on')"
    )
    assert (done.returncode, done.stdout, done.stderr.count("ZeroDivisionError")) == (0, "on\n", 1)


def test_gort_panic_exit_ends_the_process_with_2():
    done = child(HEADER + "go(lambda: 1 / 0)\ngort.sleep(5)", GORT_PANIC="exit")
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr


PROCESSORS = pytest.mark.parametrize("processors", ["1", "2"])
# With "0" blocking calls keep their OS threads, whose processor is handed off; with "1" they park.
BOUNDARY = pytest.mark.parametrize("boundary", ["0", "1"])

# What else is going on when main ends: the interpreter must end, silently, with code 0.
LEFT = {
    "in a blocking call": "gs = [go(time.sleep, 60) for _ in range(5)]",
    "in blocking calls that return meanwhile": "gs = [go(time.sleep, 0.06) for _ in range(20)]",
    "computing": "gs = [go(lambda: [gort.gosched() for _ in iter(int, 1)]) for _ in range(3)]",
    "computing and blocking": """
def mix():
    while True:
        time.sleep(0.0001)
        sum(range(1000))
gs = [go(mix) for _ in range(5)]
""",
    "parked": "gs = [go(Chan().recv) for _ in range(1000)]",
    "asleep": "gs = [go(gort.sleep, 60) for _ in range(100)]",
    "all of these": """
gs = [go(time.sleep, 60), go(Chan().recv), go(lambda: [gort.gosched() for _ in iter(int, 1)])]
""",
}


@BOUNDARY
@PROCESSORS
@pytest.mark.parametrize("left", LEFT)
def test_interpreter_exit_with_goroutines_ends_at_once(left, processors, boundary):
    ends = "gort.sleep(0.05)\nprint('end')"
    check(f"{HEADER}{LEFT[left]}\n{ends}", "end", GORT_MAXPROCS=processors, GORT_BOUNDARY=boundary)


@PROCESSORS
def test_interpreter_exit_with_goroutines_never_started_ends_at_once(processors):
    check(
        HEADER + "gs = [go(list) for _ in range(300)]\nprint('end')",
        "end",
        GORT_MAXPROCS=processors,
    )


def test_run_with_goroutines_in_blocking_calls_returns_and_the_program_ends():
    code = "def main():\n    go(time.sleep, 60)\n    gort.sleep(0.05)\n    return 'end'\nprint(gort.run(main))"
    check(HEADER + code, "end")


def test_sys_exit_with_a_goroutine_in_a_blocking_call_keeps_its_code():
    done = child(HEADER + "go(time.sleep, 60)\ngort.sleep(0.05)\nsys.exit(3)")
    assert (done.returncode, done.stderr) == (3, "")


def test_exception_of_main_with_a_goroutine_in_a_blocking_call_ends_with_1():
    done = child(HEADER + "go(time.sleep, 60)\ngort.sleep(0.05)\n1 / 0")
    assert done.returncode == 1
    assert done.stderr.count("ZeroDivisionError") == 1


def test_non_daemon_thread_that_waits_for_a_goroutine_gets_its_value_after_main():
    code = """
ch = Chan()
threading.Thread(target=lambda: print(ch.recv())).start()
go(lambda: (gort.sleep(0.05), ch.send("late")))
"""
    check(HEADER + code, "late")


def test_use_after_the_end_raises_runtime_stopped():
    code = """
ch = Chan()
def end():
    for use in (ch.recv, lambda: go(print), lambda: gort.sleep(1), gort.Mutex().lock):
        try:
            use()
        except gort.RuntimeStopped:
            print("stopped", end=" ")
        else:
            print("went on", end=" ")
atexit.register(end)  # before gort's own, so after it
go(time.sleep, 60)
gort.sleep(0.02)
"""
    check(HEADER + code, "stopped stopped stopped stopped")


def test_goexit_of_main_lets_the_others_end_then_is_a_deadlock():
    code = """
def main():
    go(lambda: (gort.sleep(0.02), print("went on")))
    gort.goexit()
try:
    gort.run(main)
except gort.DeadlockError as error:
    print(error)
"""
    check(HEADER + code, "went on\nno goroutines (main called runtime.Goexit) - deadlock!")


# A shell's background jobs ignore SIGINT, and children inherit that.
HEARS = "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
INTERRUPT = "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"

# What main does, beside what, when Ctrl-C comes.
MAIN = {
    "parked alone": "Chan().recv()",
    "asleep": "gort.sleep(20)",
    "at a mutex": "m = gort.Mutex()\nm.lock()\nm.lock()",
    "parked beside a yielding loop": "go(lambda: [gort.gosched() for _ in iter(int, 1)])\nChan().recv()",
    "parked beside a loop that never yields": "go(lambda: [time.time() for _ in iter(int, 1)])\nChan().recv()",
    "parked beside a blocking call": "go(time.sleep, 20)\nChan().recv()",
    "parked beside blocking calls": "gs = [go(time.sleep, 20) for _ in range(5)]\nChan().recv()",
    "asleep beside blocking calls": "gs = [go(time.sleep, 20) for _ in range(5)]\ngort.sleep(20)",
    "joining a blocking call": "go(time.sleep, 20).join()",
    "in a blocking call": "gs = [go(gort.sleep, 20) for _ in range(5)]\ntime.sleep(20)",
    "computing": "while True:\n    time.time()",
    "computing after goroutines": "go(time.sleep, 0.01).join()\nwhile True:\n    time.time()",
    "computing beside parked": "gs = [go(gort.sleep, 20) for _ in range(5)]\ngort.gosched()\nwhile True:\n    time.time()",
    "computing beside blocking calls": """
gs = [go(time.sleep, 20) for _ in range(5)]
gort.sleep(0.01)
while True:
    time.time()
""",
}


def interrupted(body):
    """It may come before main does that: the start of a timer waits for its thread."""
    lines = "".join(f"    {line}\n" for line in (INTERRUPT + body.strip()).splitlines())
    return f"{HEARS}try:\n{lines}except KeyboardInterrupt:\n    print('interrupted')"


@BOUNDARY
@PROCESSORS
@pytest.mark.parametrize("doing", MAIN)
def test_ctrl_c_reaches_main(doing, processors, boundary):
    code = HEADER + interrupted(MAIN[doing])
    check(code, "interrupted", GORT_MAXPROCS=processors, GORT_BOUNDARY=boundary)


def test_ctrl_c_a_second_time_reaches_main_on_whatever_thread_it_is():
    code = interrupted(MAIN["parked beside blocking calls"])
    check(HEADER + code + "\n" + code, "interrupted\ninterrupted")


def test_signal_handler_beside_a_blocking_call_runs_once_and_main_goes_on():
    code = f"""
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(threading.current_thread() is threading.main_thread()))
{INTERRUPT}
go(time.sleep, 0.5)
gort.sleep(0.3)
print(got)
"""
    check(HEADER + code, "[True]")


def test_blocking_call_on_the_main_thread_stops_main_for_a_moment_only():
    code = """
here = threading.get_native_id()
started = Chan(1)
go(lambda: (started.send(threading.get_native_id()), time.sleep(20)))
assert started.recv() == here  # the goroutine has main's own thread
gort.sleep(0.001)
print(threading.get_native_id() != here, threading.current_thread() is threading.main_thread())
"""
    check(HEADER + code, "True True", GORT_BOUNDARY="0")


FIRST_PROGRAM = (
    HEADER
    + """
ch = Chan[int](5)
wg = gort.WaitGroup()
def worker():
    for job in ch:
        print(job)
        wg.done()
def main():
    go(worker)
    for i in range(3):
        wg.add()
        ch.send(i)
    ch.close()
    %s
gort.run(main)
"""
)


def test_first_program_with_wait_prints_its_jobs():
    assert child(FIRST_PROGRAM % "wg.wait()").stdout == "0\n1\n2\n"


def test_first_program_without_wait_ends_with_main():
    done = child(FIRST_PROGRAM % "pass")
    assert (done.returncode, done.stdout) == (0, "")


def test_import_starts_no_thread():
    done = child(
        "import threading, os\nbefore = len(os.listdir('/proc/self/task'))\nimport gort\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert done.stdout == "0\n"


LATE = """
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
volatile int has_begun, has_ended;
static void ended(void) { has_ended = 1; usleep(200000); }
__attribute__((constructor)) static void first(void) { atexit(ended); }
int prctl(int what, ...)
{
    va_list rest;
    va_start(rest, what);
    const char *name = va_arg(rest, const char *);
    va_end(rest);
    if (what == PR_SET_NAME && strcmp(name, "gort-m") == 0) {
        has_begun = 1;
        while (!has_ended) usleep(1000);
    }
    return syscall(SYS_prctl, what, name, 0, 0, 0);
}
"""


def test_machine_that_begins_after_the_interpreter_has_ended_makes_no_state(tmp_path):
    """Its thread is held until then; the library gives it a moment before the process ends."""
    library = shared_library(tmp_path / "libgortlate.so", LATE)
    code = f"""
    import ctypes, time, gort
    has_begun = ctypes.c_int.in_dll(ctypes.CDLL({library!r}), "has_begun")
    gort.go(int)
    while not has_begun.value: time.sleep(0.001)
    """
    check(code, LD_PRELOAD=library, GORT_MAXPROCS="2")


HOLDS_SWAP = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
volatile int armed, holds, is_late;
static void ended(void) { is_late = 1; usleep(200000); }
__attribute__((constructor)) static void first(void) { atexit(ended); }
void *PyThreadState_Swap(void *to)
{
    static void *(*swap)(void *), *(*save)(void);
    if (swap == NULL) {
        swap = dlsym(RTLD_NEXT, "PyThreadState_Swap");
        save = dlsym(RTLD_NEXT, "PyEval_SaveThread");
    }
    if (!armed || syscall(SYS_gettid) != getpid())
        return swap(to);
    void *old = save();
    holds = 1;
    while (!is_late) usleep(1000);
    swap(to);
    return old;
}
"""


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="the new state is bound before the GIL is waited for"
)
@pytest.mark.skipif(
    "/libpython" not in Path("/proc/self/maps").read_text(),
    reason="an executable's own functions cannot be held back",
)
@pytest.mark.parametrize("boundary", ["1", "0"])
def test_main_thread_ends_when_main_ended_elsewhere(tmp_path, boundary):
    """Its M waits for the GIL between two goroutines: CPython took it for the one that finalised."""
    library = shared_library(tmp_path / "libgortholds.so", HOLDS_SWAP)
    code = f"""
    import ctypes, os, threading, time, gort
    held = ctypes.CDLL({library!r})
    armed, holds = (ctypes.c_int.in_dll(held, name) for name in ("armed", "holds"))
    libc = ctypes.CDLL(None)
    def block():
        libc.usleep(200_000)  # meanwhile main goes on elsewhere
        armed.value = 1
    gort.go(block)
    while threading.get_native_id() == os.getpid(): gort.sleep(0.001)
    while not holds.value: time.sleep(0.001)
    """
    check(code, LD_PRELOAD=library, GORT_BOUNDARY=boundary)


READ = {"x86_64": 0, "aarch64": 63}[platform.machine()]  # the number of the system call

SETS_KEY = """
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
int PyGILState_Ensure(void);
void PyGILState_Release(int);
static pthread_key_t key;
void set_key(void (*end)(void *)) { pthread_key_create(&key, end); pthread_setspecific(key, &key); }
static void end(void *here) { syscall(SYS_read, *(int *)here, here, 1); PyGILState_Release(PyGILState_Ensure()); }
void set_own_key(int here) { static int place; place = here; set_key(end); pthread_setspecific(key, &place); }
"""

# Python code that a goroutine runs once its function is over, with main's own thread under it.
AFTERWARDS = {
    "thread's local": "def body(): local.waits = Waits()",
    "argument": "def body(waits=Waits()): pass\nbody = functools.partial(body, Waits())",
    "result": "def body(): return Waits()",
    "another's result": "def body():\n g = go(Waits)\n while not g.done: gort.gosched()\n del g",
    "key": "def body(): keys.set_key(ends)",
    "thread's key": "def run(): began.send(threading.get_native_id()); keys.set_own_key(here)\n"
    "body = threading.Thread(target=run).start",
    "hook": "gort.excepthook = lambda *_: wait()\ndef body(): 1 / 0",
}


@pytest.mark.parametrize(
    ("what", "boundary"),
    [(what, on) for what in AFTERWARDS for on in "01" if (what, on) != ("thread's key", "0")],
)
def test_main_thread_that_comes_back_late_stays_where_it_is(what, boundary, tmp_path):
    """Up to 3.13 CPython ends a thread by unwinding its stack when it asks for the GIL after the end: never beyond that."""
    library = shared_library(tmp_path / "libgortkey.so", SETS_KEY)
    code = f"""
    import ctypes, functools, os, threading, gort, gort.boundary
    from gort import go
    libc, local = ctypes.CDLL(None), threading.local()
    here, there = os.pipe()
    began = gort.Chan(1)
    def wait():
        began.send(threading.get_native_id())
        libc.syscall({READ}, here, ctypes.create_string_buffer(1), 1)
    class Waits:
        def __del__(self): wait()
    class Last:
        "Lets it come back once nobody else may run; -1 would be its end, by an unwinding that was not stopped."
        def __init__(self): self.write, self.open, self.place = os.write, open, f"/proc/self/task/{{os.getpid()}}/syscall"
        def __del__(self):
            self.write(there, b"x")
            seen = 0  # how often in a row it was in another system call, as it is for good where it stays
            for _ in range(100_000):
                with self.open(self.place) as file: doing = file.read().split()[0]
                seen = 0 if doing in ("running", "{READ}", "-1") else seen + 1
                if seen == 100: return
            self.write(2, b"it does not stay")
    gort.boundary.add("libgortkey")
    keys = ctypes.CDLL({library!r})
    ends = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: wait())
    {{body}}
    gort.go(body)
    del body
    assert began.recv() == os.getpid()
    while threading.get_native_id() == os.getpid(): gort.sleep(0.001)
    threading.last = Last()
    print("ok")
    """
    modes = {"GORT_BOUNDARY": boundary, "GORT_THREADS": str(int(what == "thread's key"))}
    check(dedent(code).replace("{body}", AFTERWARDS[what]), "ok", **modes)
